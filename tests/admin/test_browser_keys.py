"""A browser gets a key of its own: for one agent's session, and never ours."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from agent.admin.app import create_app
from agent.browser import BrowserKeys
from agent.call.ports import AgentProfile, ToolSchema
from agent.embedded.engines import Engines
from agent.realtime.settings import RealtimeSettings
from agent.store.calls import CallLog
from agent.store.tokens import Role
from tests.admin.conftest import ADMIN_TOKEN, Admin
from tests.embedded.scripted import KEY, QUIET, FarEnd, scripted
from tests.embedded.socket_client import open_socket

PATH = "/api/v1/realtime/client-secrets"
PROFILES = {
    "receptionist": AgentProfile(
        "receptionist", "You answer for {trunk}.", "Hello.", "marin", tool_names=("weather",)
    ),
    "baker": AgentProfile("baker", "You bake.", "Hi.", "cedar", own_settings={"model": "m-9"}),
}


def schemas(names: tuple[str, ...]) -> tuple[ToolSchema, ...]:
    return tuple(ToolSchema(name, "Tells it.", {"type": "object"}) for name in names)


@asynccontextmanager
async def served(
    admin: Admin, url: str, key: str = KEY, token: str = ADMIN_TOKEN
) -> AsyncIterator[httpx.AsyncClient]:
    """The API over this far end, and a client with a token."""
    settings = RealtimeSettings(
        provider="openai", base_url=url, api_key=SecretStr(key), connect_timeout_s=5
    )
    async with httpx.AsyncClient() as outward:
        app = create_app(
            CallLog(admin.database),
            admin.tokens,
            is_ready=lambda: True,
            keys=BrowserKeys(settings, outward, lambda: PROFILES, schemas),
        )
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as client:
            yield client


@pytest.fixture
async def far(engines: Engines) -> AsyncIterator[FarEnd]:
    """A far end that makes keys."""
    async with scripted(engines, QUIET) as far_end:
        yield far_end


@pytest.mark.parametrize(
    ("wanted", "agent", "model", "instructions", "tools"),
    [
        pytest.param(
            None, "receptionist", "gpt-realtime-2.1", "You answer for <<<web>>>.", ["weather"],
            id="the first",
        ),
        pytest.param({"agent": "baker"}, "baker", "m-9", "You bake.", [], id="by name"),
    ],
)  # fmt: skip
async def test_a_key_opens_the_agents_session(
    admin: Admin,
    far: FarEnd,
    wanted: dict[str, Any] | None,
    agent: str,
    model: str,
    instructions: str,
    tools: list[str],
) -> None:
    """Whoever has the key talks to this agent; nothing in the reply is the project's key."""
    async with served(admin, far.url) as client:
        reply = await client.post(PATH, json=wanted)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert found.keys() == {"value", "expires_at", "url", "agent", "model"}
    assert (found["agent"], found["model"]) == (agent, model)
    assert found["url"] == f"{far.url}/realtime/calls"
    assert datetime.fromisoformat(found["expires_at"]) > datetime.now(UTC)
    assert reply.headers["cache-control"] == "no-store"
    assert KEY not in reply.text
    async with open_socket(far.url, "", found["value"]) as browser:
        session = (await browser.wait("session.created"))["session"]
    assert session["instructions"].startswith(instructions)
    assert session["model"] == model
    assert [tool["name"] for tool in session["tools"]] == tools
    assert session["audio"]["output"]["voice"] == PROFILES[agent].voice


@pytest.mark.parametrize(
    ("role", "status"),
    [
        pytest.param("viewer", 403, id="viewer"),
        pytest.param("reviewer", 403, id="reviewer"),
        pytest.param("operator", 200, id="operator"),
        pytest.param("admin", 200, id="admin"),
    ],
)
async def test_roles(admin: Admin, far: FarEnd, role: Role, status: int) -> None:
    """Talking costs money: who may only read gets no key, and is told who does."""
    token = await admin.tokens.create("somebody", role)
    async with served(admin, far.url, token=token) as client:
        reply = await client.post(PATH)
    assert reply.status_code == status
    if status == 403:
        assert "operator" in reply.json()["detail"]
        assert "ek_" not in reply.text


async def test_strangers(admin: Admin, far: FarEnd) -> None:
    """Without a token there is nothing, and the cookie of the page is for reading only."""
    async with served(admin, far.url, token="") as client:
        client.cookies.set("trunkline_token", ADMIN_TOKEN)
        reply = await client.post(PATH)
    assert reply.status_code == 401


@pytest.mark.parametrize(
    ("body", "parameter", "accepted"),
    [
        pytest.param({"agent": "nobody"}, "agent", "one of receptionist, baker", id="agent"),
        pytest.param({"life_s": 5}, "life_s", "10", id="too short"),
        pytest.param({"life_s": 9999}, "life_s", "7200", id="too long"),
        pytest.param({"model": "x"}, "model", "no such parameter", id="unknown"),
    ],
)
async def test_wrong(admin: Admin, body: dict[str, Any], parameter: str, accepted: str) -> None:
    """A wrong wish is answered with its name, what was found and what is accepted."""
    async with served(admin, "http://127.0.0.1:9/v1") as client:
        reply = await client.post(PATH, json=body)
    assert reply.status_code == 422
    [error] = reply.json()["errors"]
    assert error["parameter"] == parameter
    assert accepted in error["accepted"]


async def test_a_provider_that_makes_none(admin: Admin, far: FarEnd) -> None:
    """Why there is no key is said in words, with a time to come back and without our key."""
    async with served(admin, far.url, key="sk-wrong") as client:
        reply = await client.post(PATH)
    assert reply.status_code == 503
    assert reply.headers["content-type"] == "application/problem+json"
    assert int(reply.headers["retry-after"]) > 0
    assert "the API key was refused" in reply.json()["detail"]
    assert "sk-wrong" not in reply.text
