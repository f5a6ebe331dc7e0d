"""Tools that are HTTP requests, over real connections to services that mean well, or not."""

import asyncio
import socket
from typing import Any

import orjson
import pytest
from pydantic import SecretStr, ValidationError

from agent.call.ports import ToolResult
from agent.tools.egress import is_public
from agent.tools.http_tool import HttpTool
from agent.tools.settings import HttpToolSettings
from tests.tools.http import http_service, reply
from tests.tools.line import context

ORDER = {
    "type": "object",
    "properties": {"number": {"type": "string"}, "note": {"type": "string"}},
    "required": ["number"],
}
JSON = "Content-Type: application/json\r\n"


async def ask(
    url: str, arguments: dict[str, Any], *, allow_private: bool = True, **settings: Any
) -> ToolResult:
    values: dict[str, Any] = {
        "name": "order",
        "description": "Look up an order.",
        "url": url,
        "parameters": ORDER,
        "timeout_s": 5,
        "allow_private": allow_private,
    }
    tool = HttpTool(HttpToolSettings(**(values | settings)))
    try:
        async with asyncio.timeout(10):
            return await tool.run(arguments, context("order"))
    finally:
        await tool.close()


@pytest.mark.parametrize(
    ("method", "path", "sent", "body"),
    [
        pytest.param(
            "GET", "/orders/{number}", "GET /orders/a%2Fb%3F%20%C3%A9?note=x+y ", "", id="get"
        ),
        pytest.param(
            "GET", "/o?id={number}&v=1", "GET /o?id=a%2Fb%3F%20%C3%A9&v=1&note=x+y ", "", id="query"
        ),
        pytest.param(
            "POST",
            "/orders/{number}",
            "POST /orders/a%2Fb%3F%20%C3%A9 ",
            '{"note":"x y"}',
            id="post",
        ),
        pytest.param(
            "DELETE",
            "/orders/{number}",
            "DELETE /orders/a%2Fb%3F%20%C3%A9?note=x+y ",
            "",
            id="delete",
        ),
    ],
)
async def test_arguments_go_where_they_belong(method: str, path: str, sent: str, body: str) -> None:
    """Named ones into the URL, percent-encoded; the rest into the query or the body."""
    async with http_service({"*": reply(b'{"ready": true}', headers=JSON)}) as service:
        result = await ask(
            service.url + path,
            {"number": "a/b? é", "note": "x y"},
            method=method,
            headers={"X-Shop": "bakery"},
        )
    assert result.error is None
    assert result.output == '{"ready":true}'
    head, got = service.requests[0]
    assert head.startswith(sent)
    assert "x-shop: bakery" in head.lower()
    assert got == body


@pytest.mark.parametrize(
    ("answer", "log_says"),
    [
        pytest.param(None, "did not answer within 0.5 s", id="hangs"),
        pytest.param(reply(b"oops", "500 Oops"), "answered 500", id="500"),
        pytest.param(reply(b"", "404 Not Found"), "answered 404", id="404"),
        pytest.param(reply(b"{nope", headers=JSON), "not JSON", id="invalid JSON"),
        pytest.param(reply(b"x" * 10_000_000, headers=JSON), "more than 100000 bytes", id="10 MB"),
        pytest.param(
            reply(b"x" * 10_000_000, headers="Content-Type: text/event-stream\r\n"),
            "more than 100000 bytes",
            id="10 MB of events",
        ),
        pytest.param(
            reply(b"", "307 Go", "Location: http://169.254.169.254/latest/meta-data\r\n"),
            "answered 307",
            id="redirect to the cloud's keys",
        ),
        pytest.param(
            reply(b"\x1f\x8b", headers="Content-Encoding: gzip\r\n"), "compressed", id="a gzip bomb"
        ),
        pytest.param(b"\x00\xff garbage\r\n\r\n", "127.0.0.1:", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "127.0.0.1:", id="half"),
    ],
)
async def test_a_service_that_fails(answer: bytes | None, log_says: str) -> None:
    """The log says what came back, the model gets a sentence, and nothing else is fetched."""
    async with http_service({"*": answer}) as service:
        timeout_s = 5 if answer else 0.5
        url = f"{service.url}/{{number}}"
        result = await ask(url, {"number": "7"}, method="POST", timeout_s=timeout_s)
    assert log_says in (result.error or "")
    assert "\x00" not in (result.error or "")
    assert orjson.loads(result.output)["error"].endswith((".", "caller."))
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("method", "attempts"),
    [pytest.param("GET", 2, id="a GET is tried twice"), pytest.param("POST", 1, id="a POST once")],
)
async def test_a_connection_that_breaks(method: str, attempts: int) -> None:
    """Only what changes nothing at the other end is sent again, and the row says how often."""
    answers = {"*": reply(b"{}", headers=JSON)}
    async with http_service(answers, hang_up_on=1) as service:
        result = await ask(f"{service.url}/{{number}}", {"number": "7"}, method=method)
    assert result.attempts == attempts == len(service.requests)
    assert (result.error is None) == (attempts == 2)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433"])
async def test_private_targets_are_refused(host: str) -> None:
    """However this machine is named, a tool does not get there unless it is allowed to."""
    async with http_service({"*": reply(b"{}")}) as service:
        url = service.url.replace("127.0.0.1", host) + "/{number}"
        result = await ask(url, {"number": "7"}, allow_private=False)
    assert "not public" in (result.error or "")
    assert result.attempts == 1
    assert service.requests == []


async def test_a_name_that_turns_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was checked is the one connected to; the name is not asked again."""
    loop = asyncio.get_running_loop()
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        address = "192.0.2.1" if len(asked) > 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async with http_service({"*": reply(b"{}", headers=JSON)}) as service:
        port = service.url.rpartition(":")[2]
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        url = f"http://shop.example:{port}/{{number}}"
        refused = await ask(url, {"number": "7"}, allow_private=False)
        asked.clear()
        reached = await ask(url, {"number": "7"})
    assert "shop.example leads to 127.0.0.1" in (refused.error or "")
    assert reached.error is None
    assert asked == ["shop.example"]
    assert "host: shop.example" in service.requests[0][0].lower()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param("8.8.8.8", True, id="public"),
        pytest.param("2001:4860:4860::8888", True, id="public v6"),
        pytest.param("10.1.2.3", False, id="private"),
        pytest.param("127.0.0.1", False, id="loopback"),
        pytest.param("169.254.169.254", False, id="link-local"),
        pytest.param("100.64.0.1", False, id="shared"),
        pytest.param("0.0.0.0", False, id="unspecified"),
        pytest.param("224.0.0.1", False, id="multicast"),
        pytest.param("240.0.0.1", False, id="reserved"),
        pytest.param("255.255.255.255", False, id="broadcast"),
        pytest.param("::1", False, id="loopback v6"),
        pytest.param("::", False, id="unspecified v6"),
        pytest.param("fe80::1%eth0", False, id="link-local v6 with a zone"),
        pytest.param("fd00::1", False, id="unique local"),
        pytest.param("fec0::1", False, id="site-local"),
        pytest.param("ff02::1", False, id="multicast v6"),
        pytest.param("::ffff:10.0.0.1", False, id="v4 in v6"),
        pytest.param("64:ff9b::7f00:1", False, id="NAT64 to loopback"),
        pytest.param("64:ff9b::808:808", True, id="NAT64 to public"),
        pytest.param("2002:7f00:1::1", False, id="6to4 to loopback"),
        pytest.param("::7f00:1", False, id="v4-compatible"),
    ],
)
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    """Only what the whole Internet can reach is public."""
    assert is_public(address) is expected


@pytest.mark.parametrize("number", ["..", "."])
async def test_an_argument_that_climbs(number: str) -> None:
    """An argument stays a part of the path: it cannot lead to another place of the service."""
    async with http_service({"*": reply(b"{}")}) as service:
        result = await ask(f"{service.url}/orders/{{number}}/x", {"number": number})
    assert "change the path" in (result.error or "")
    assert result.attempts == 0
    assert service.requests == []


async def test_secrets_stay_secret() -> None:
    """A key in a header reaches the service, and neither the model nor the log, even if echoed."""
    for status in ("200 OK", "500 Bearer s3cret-key"):
        body = b'{"you sent": "Bearer s3cret-key", "also": "s3cret-key"}'
        async with http_service({"*": reply(body, status, JSON)}) as service:
            result = await ask(
                f"{service.url}/{{number}}",
                {"number": "7"},
                secret_headers={"Authorization": SecretStr("Bearer s3cret-key")},
            )
        assert "authorization: bearer s3cret-key" in service.requests[0][0].lower()
        assert "s3cret" not in result.output + (result.error or "")


def good(**changes: Any) -> dict[str, Any]:
    values = {
        "name": "order",
        "description": "Look up an order.",
        "url": "https://shop.example/{number}",
        "parameters": ORDER,
    }
    return values | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"url": "ftp://shop.example/"}, "http:// or https://", id="ftp"),
        pytest.param(
            {"url": "https://{number}/"}, "http:// or https://", id="a host from the model"
        ),
        pytest.param({"url": "https://me:secret@shop.example/"}, "no name and password", id="user"),
        pytest.param({"url": "https://shop.example/{"}, "url", id="broken template"),
        pytest.param({"url": "https://shop.example/{number!r}"}, "{name}", id="conversion"),
        pytest.param({"url": "https://shop.example/#{number}"}, "path or the query", id="fragment"),
        pytest.param({"url": "https://shop.example/{note}"}, "required", id="perhaps not there"),
        pytest.param({"url": "https://shop.example:99999/"}, "http:// or https://", id="port"),
        pytest.param({"parameters": {"type": "strin"}}, "parameters", id="no schema"),
        pytest.param({"parameters": {"type": "array"}}, "object", id="no object"),
        pytest.param(
            {"headers": {"authorization": "x"}}, "headers_file", id="a secret in the file"
        ),
        pytest.param({"headers": {"X-A": "a\r\nX-B: b"}}, "no header", id="two headers in one"),
        pytest.param({"name": "look up"}, "name", id="a name with a space"),
    ],
)
def test_what_cannot_be_a_tool(changes: dict[str, Any], says: str) -> None:
    """A mistake in the configuration is named when it is read, not when a caller waits."""
    HttpToolSettings(**good())
    with pytest.raises(ValidationError, match=says):
        HttpToolSettings(**good(**changes))
