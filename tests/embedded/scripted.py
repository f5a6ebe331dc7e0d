"""The embedded server in a test's own process, playing a script, and what it noticed.

In a test::

    async with scripted(engines, {"faults": [{"at": "cue.go", "do": "drop"}]}) as far:
        ...                                       # talk to far.url
        await far.received("response.create")     # what a client sent
        await far.cue("go")                       # strikes whenever the test likes
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.embedded.doorstep import Doorstep
from agent.embedded.engines import Engines
from agent.embedded.script import Script
from agent.embedded.server import RealtimeServer, web_config
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.stage import ScriptedEngines
from tests.embedded.socket_client import open_socket

KEY = "sk-test-not-a-secret"
QUIET: dict[str, Any] = {"turns": [{"answer": []}] * 9}
"""A far end that takes every turn and says nothing."""
_TIMEOUT_S = 10


class FarEnd:
    """A running server. Its trace grows while it lasts.

    Attributes:
        url: The base URL.
        trace: Every record of every session.
        hung_up: The calls that were hung up over HTTP.
        app: What serves behind this.
    """

    app: ASGIApp

    def __init__(self) -> None:
        self.url = ""
        self.trace: list[dict[str, Any]] = []
        self.hung_up: list[str] = []
        self._news = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/hangup"):
            self.hung_up.append(scope["path"].split("/")[-2])
        await self.app(scope, receive, send)

    def note(self, record: dict[str, Any]) -> None:
        self.trace.append(record)
        self._news.set()

    async def _wait(self, what: str, kind: str, count: int) -> dict[str, Any]:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                found = [
                    record["event"]
                    for record in self.trace
                    if record["what"] == what and record.get("event", {}).get("type") == kind
                ]
                if len(found) >= count:
                    return dict(found[count - 1])
                self._news.clear()
                await self._news.wait()

    async def received(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait for the count-th event of this type from any client, since the beginning."""
        return await self._wait("received", kind, count)

    async def sent(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait for the count-th event of this type to any client, since the beginning."""
        return await self._wait("sent", kind, count)

    @property
    def call_ids(self) -> list[str]:
        """The calls, in the order they were opened."""
        return [record["session_id"] for record in self.trace if record["what"] == "opened"]

    async def command(self, **event: Any) -> None:
        """Send an event as a sideband of the last call."""
        async with open_socket(self.url, f"call_id={self.call_ids[-1]}", KEY) as sideband:
            await sideband.send(**event)

    async def cue(self, name: str) -> None:
        """Let the script's faults at this cue happen now, in the last call."""
        await self.command(type=f"cue.{name}")
        await self.received(f"cue.{name}")


@asynccontextmanager
async def scripted(
    engines: Engines,
    script: dict[str, Any] | Script,
    *,
    key: str = KEY,
    session_limit_s: float = 3600,
) -> AsyncIterator[FarEnd]:
    """Serve a script on a real port; leaving it, no session is left."""
    part = Script.model_validate(script)
    far = FarEnd()
    server = RealtimeServer(
        EmbeddedSettings(api_key=SecretStr(key) if key else None, session_limit_s=session_limit_s),
        ScriptedEngines(engines, part),
        far.note,
    )
    far.app = Doorstep(server.app, part)
    config = web_config(far)
    config.host, config.port = "127.0.0.1", 0
    web = uvicorn.Server(config)
    async with server.running():
        serving = asyncio.create_task(web.serve())
        async with asyncio.timeout(_TIMEOUT_S):
            while not web.started:
                await asyncio.sleep(0.01)
        port = web.servers[0].sockets[0].getsockname()[1]
        far.url = f"http://127.0.0.1:{port}/v1"
        try:
            yield far
        finally:
            web.should_exit = True
            async with asyncio.timeout(_TIMEOUT_S):
                await serving
    assert server.call_count == 0
