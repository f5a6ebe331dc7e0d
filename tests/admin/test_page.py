"""The page: its door, its files, and that nothing foreign gets in."""

import re
from pathlib import Path

import httpx
import pytest

from agent.admin.routes.page import PAGE_FOLDER
from tests.admin.conftest import ADMIN_TOKEN


async def test_sign_in_and_out(client: httpx.AsyncClient) -> None:
    """The token, given once, opens the page and the API's reading side until signing out."""
    assert 'action="/sign-in"' in (await client.get("/")).text
    reply = await client.post("/sign-in", data={"token": f" {ADMIN_TOKEN} "})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "/page/app.js" in (await client.get("/")).text
    assert "/page/app.js" in (await client.get("/calls/call-1")).text
    assert (await client.get("/api/v1/calls")).status_code == 200
    assert (await client.delete("/api/v1/calls/call-1")).status_code == 401
    await client.post("/sign-out")
    assert 'action="/sign-in"' in (await client.get("/")).text
    assert (await client.get("/api/v1/calls")).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"token=wrong", 401, id="wrong"),
        pytest.param(b"", 401, id="empty"),
        pytest.param(b"\xff=%ff&token=%00", 401, id="garbage"),
        pytest.param(b"&".join([b"a=1"] * 50), 401, id="many fields"),
        pytest.param(b"token=" + b"x" * 10_000, 413, id="too long"),
    ],
)
async def test_refused(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    """A wrong form is refused in words, and gets no cookie."""
    reply = await client.post("/sign-in", content=body)
    assert reply.status_code == status
    assert "set-cookie" not in reply.headers
    if status == 401:
        assert "not known here" in reply.text


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        pytest.param("http://test", 303, id="our own page"),
        pytest.param("http://evil.example", 403, id="another site"),
        pytest.param("null", 403, id="no site"),
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
async def test_other_sites(client: httpx.AsyncClient, path: str, origin: str, status: int) -> None:
    """No other site can sign a visitor in or out."""
    reply = await client.post(path, data={"token": ADMIN_TOKEN}, headers={"Origin": origin})
    assert reply.status_code == status


@pytest.mark.parametrize(
    "path", ["/", "/page/app.js", "/api/v1/calls", "/healthz", "/nothing", "/page/nothing"]
)
async def test_headers(client: httpx.AsyncClient, path: str) -> None:
    """Every reply forbids scripts, frames and anything else from elsewhere."""
    headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


FILES = sorted(path for path in PAGE_FOLDER.iterdir() if path.suffix in {".html", ".js", ".css"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
async def test_self_contained(client: httpx.AsyncClient, path: Path) -> None:
    """The page's files name no other host, set no HTML from text, and all their parts exist."""
    text = path.read_text()
    hosts = set(re.findall(r"https?://([^/\"'\s]+)", text))
    assert hosts <= {"www.w3.org"}, "only the name of SVG looks like a host"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
    assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=\"", text)
    parts = re.findall(r'(?:href|src)="(/page/[^"]+)"', text)
    parts += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)]
    for part in parts:
        reply = await client.get(part)
        assert reply.status_code == 200, part
        if part.endswith(".js"):
            assert reply.headers["content-type"].startswith("text/javascript")
