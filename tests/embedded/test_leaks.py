"""Whatever clients do, nothing of theirs is left in the server afterwards."""

import asyncio
import contextlib
import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aioice import ice
from aiortc import RTCConfiguration, RTCPeerConnection

from agent.embedded import call as embedded_call
from agent.embedded.engines import Engines
from agent.embedded.server import RealtimeServer
from agent.embedded.session import Session
from agent.embedded.voice import Voice
from tests.embedded.caller import post_offer
from tests.fakes.trunkline import plain_environment

SESSIONS, STAYING = 30, 3
TIMEOUT_S, SETTLE_TIMEOUT_S = 120, 10


def held() -> Counter[str]:
    """What this process, which is the server's, holds for its clients, counted by kind."""
    gc.collect()
    found = Counter(type(thing).__name__ for thing in gc.get_objects() if is_theirs(thing))
    found.update(f"task {name_of(task)}" for task in asyncio.all_tasks())
    found.update(f"thread {thread.name.rstrip('0123456789')}" for thread in threading.enumerate())
    found.update(f"file {kind}" for kind in open_files())
    return found


def name_of(task: "asyncio.Task[Any]") -> str:
    """What it runs."""
    return str(getattr(task.get_coro(), "__qualname__", ""))


def is_theirs(thing: object) -> bool:
    """Tell what exists once a session."""
    return type(thing) in {Session, RTCPeerConnection}


def open_files() -> Iterator[str]:
    """The kind of each descriptor: `socket`, `pipe`, `anon_inode`, a path."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            yield os.readlink(entry).partition(":[")[0]  # noqa: PTH115 - no path, often
        except FileNotFoundError:  # the one of this very listing
            continue


@asynccontextmanager
async def visitors(url: str, speech: Path, sessions: int, staying: int) -> AsyncIterator[None]:
    """Let clients in another process come and go; leaving the block, those who stay vanish."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.embedded.visitors"),
        *(url, str(speech), str(sessions), str(staying)),
        env=plain_environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"open\n"
        yield
    finally:
        process.kill()
        await process.communicate()


async def offer_and_vanish(url: str) -> None:
    """Open a call that nobody will ever connect to."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio")
    await pc.setLocalDescription(await pc.createOffer())
    sdp = pc.localDescription.sdp
    await pc.close()
    assert (await post_offer(url, sdp)).status_code == 201


async def ended(server: RealtimeServer) -> None:
    """Wait until no session is open."""
    while server.call_count:
        await asyncio.sleep(0.05)


async def test_nothing_is_left(
    url: str,
    server: RealtimeServer,
    engines: Engines,
    voice: Voice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After many sessions, some of which vanished, the server holds what it held before."""
    speech = tmp_path / "speech.raw"
    speech.write_bytes(voice.synthesise("How much is an apple pie?"))
    await engines.transcribe(speech.read_bytes())
    async with asyncio.timeout(TIMEOUT_S):
        # The first transcript and the first sessions begin threads that stay for good.
        async with visitors(url, speech, 4, 0):
            await ended(server)
        before = held()
        async with visitors(url, speech, SESSIONS, STAYING):
            while server.call_count > 2 * STAYING:  # closing takes a moment
                await asyncio.sleep(0.05)
            assert server.call_count == 2 * STAYING
            assert held() - before
        # ICE asks every 5 s whether a client is still there, a call waits 20 s for its client.
        monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.2)
        monkeypatch.setattr(embedded_call, "_CONNECT_TIMEOUT_S", 0.5)
        await offer_and_vanish(url)
        await ended(server)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                while held() - before:
                    await asyncio.sleep(0.2)
    assert held() - before == Counter()
