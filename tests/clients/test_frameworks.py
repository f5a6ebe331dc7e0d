"""pipecat's and livekit's Realtime clients hold a spoken conversation with the embedded server.

Each runs in a process and a Python of its own, `build/clients`, made by `make install-dev`.
"""

import asyncio
import json
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import uvicorn

from agent.embedded.engines import Engines
from agent.embedded.server import RealtimeServer, web_config
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.voice import Voice

_PYTHON = Path(__file__).parents[2] / "build" / "clients" / "bin" / "python"
_CLIENTS = Path(__file__).parent / "foreign"
_RATE_HZ = 24000
_TIMEOUT_S = 90


@pytest.fixture
async def noted(
    engines: Engines, anyio_backend: str
) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server's host and port, and all that it and its clients say."""
    records: list[dict[str, Any]] = []
    server = RealtimeServer(EmbeddedSettings(), engines, records.append)
    config = web_config(server.app)
    config.host, config.port = "127.0.0.1", 0
    web = uvicorn.Server(config)
    async with server.running():
        serving = asyncio.create_task(web.serve())
        async with asyncio.timeout(5):
            while not web.started:
                await asyncio.sleep(0.01)
        yield f"127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}", records
        web.should_exit = True
        await serving


def _write(pcm: bytes, file: Path) -> None:
    narrow = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    wide = np.clip(soxr.resample(narrow, 8000, _RATE_HZ), -1, 1)
    with wave.open(str(file), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(_RATE_HZ)
        wav.writeframes((wide * 32767).astype("<i2").tobytes())


async def _run(client: str, url: str, folder: Path) -> dict[str, Any]:
    """Let a client converse; returns what it experienced."""
    assert _PYTHON.exists(), "the clients are not installed; run make install-dev"
    files = (str(folder / "question.wav"), str(folder / "interruption.wav"))
    process = await asyncio.create_subprocess_exec(
        str(_PYTHON),
        str(_CLIENTS / client),
        url,
        *files,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            out, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()[-3000:]
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


@pytest.mark.parametrize(
    ("client", "address"),
    [
        pytest.param("pipecat_client.py", "ws://{}/v1/realtime", id="pipecat"),
        pytest.param("livekit_client.py", "http://{}/v1", id="livekit"),
    ],
)
async def test_conversation(
    noted: tuple[str, list[dict[str, Any]]],
    voice: Voice,
    tmp_path: Path,
    client: str,
    address: str,
) -> None:
    """A spoken question makes the function run; its result is spoken, and can be interrupted."""
    where, records = noted
    _write(voice.synthesise("What is the weather in Oslo?"), tmp_path / "question.wav")
    _write(voice.synthesise("Stop, that is enough, thank you."), tmp_path / "interruption.wav")
    told = await _run(client, address.format(where), tmp_path)
    assert "weather" in told["heard"][0].lower()
    assert "enough" in told["heard"][1].lower()
    assert told["called"] == [{"place": "Oslo"}]
    assert told["audio_ms"] > 2000
    assert "it will rain" in " ".join(told["said"].lower().split())
    assert told["interrupted"]
    sent = [record["event"] for record in records if record["what"] == "sent"]
    assert [e for e in sent if e["type"] == "conversation.item.truncated"]
    refused = [event["error"]["code"] for event in sent if event["type"] == "error"]
    # Who is interrupted cancels in any case; the service answers that so, too.
    assert set(refused) <= {"response_cancel_not_active"}
