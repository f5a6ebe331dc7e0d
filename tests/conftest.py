"""What every test shares: one event loop kind, and the embedded server's engines, loaded once."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agent.embedded.engines import Engines


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio; Trunkline knows no other loop."""
    return "asyncio"


@pytest.fixture(scope="session")
def engines() -> "Iterator[Engines]":
    """Ears, transcriber and voice; their threads run from the first test on."""
    from agent.embedded.engines import Engines
    from agent.embedded.settings import EmbeddedSettings

    async def begin(loaded: Engines) -> None:
        await loaded.transcribe(bytes(1600))
        await loaded.say("Hello.", 1.0)

    loaded = Engines(EmbeddedSettings())
    asyncio.run(begin(loaded))
    yield loaded
    loaded.close()
