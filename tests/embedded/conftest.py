"""The embedded server on a real port."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn

from agent.embedded.engines import Engines
from agent.embedded.server import RealtimeServer, web_config
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.voice import Voice


@pytest.fixture(scope="session")
def voice() -> Voice:
    return Voice()


@pytest.fixture
def settings() -> EmbeddedSettings:
    return EmbeddedSettings()


@pytest.fixture
async def server(
    engines: Engines, settings: EmbeddedSettings, anyio_backend: str
) -> AsyncIterator[RealtimeServer]:
    """A running server; leaving it, no task of it is left."""
    before = asyncio.all_tasks()
    running = RealtimeServer(settings, engines)
    async with running.running():
        yield running
    assert running.call_count == 0
    for _ in range(50):
        if not asyncio.all_tasks() - before - {asyncio.current_task()}:
            break
        await asyncio.sleep(0.02)
    left = {str(task.get_coro()) for task in asyncio.all_tasks() - before}
    left = {name for name in left if "embedded" in name or "RTC" in name}
    assert not left


@pytest.fixture
async def url(server: RealtimeServer) -> AsyncIterator[str]:
    """Where it listens."""
    config = web_config(server.app)
    config.host, config.port = "127.0.0.1", 0
    web = uvicorn.Server(config)
    serving = asyncio.create_task(web.serve())
    async with asyncio.timeout(5):
        while not web.started:
            await asyncio.sleep(0.01)
    port = web.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"
    web.should_exit = True
    await serving
