"""What the journeys share: speech to say, a weather service, and a phone to say it with."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.embedded.transcriber import Transcriber
from agent.embedded.voice import Voice
from tests.fakes.trunkline import plain_environment

WEATHER = {
    "/search": {
        "results": [{"name": "Lisbon", "country": "Portugal", "latitude": 38.7, "longitude": -9.1}]
    },
    "/forecast": {
        "current": {"temperature_2m": 21.4, "weather_code": 0, "wind_speed_10m": 12.2},
        "daily": {"temperature_2m_max": [24.6], "temperature_2m_min": [14.1]},
    },
}


class _Weather(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(WEATHER[self.path.split("?")[0]]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: a test's output is its assertions."""


@pytest.fixture(scope="session")
def weather_url() -> Iterator[str]:
    """A local stand-in for the weather service: it is 21 degrees in Lisbon."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Weather)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def voice() -> Voice:
    """The voice callers speak with."""
    return Voice()


Speak = Callable[[str], Path]


@pytest.fixture
def speak(voice: Voice, tmp_path: Path) -> Speak:
    """Turn a sentence into a file of 8 kHz PCM."""

    def _speak(text: str) -> Path:
        path = tmp_path / f"say-{abs(hash(text))}.pcm"
        path.write_bytes(voice.synthesise(text))
        return path

    return _speak


def phone_call(
    folder: Path, uri: str, steps: list[dict[str, Any]], timeout_s: float = 60
) -> dict[str, Any]:
    """Let the baresip phone follow a plan; return what it tells, with the path of what it heard."""
    plan = folder / "plan.json"
    record = folder / "heard.pcm"
    plan.write_text(
        json.dumps({"uri": uri, "steps": steps, "timeout_s": timeout_s, "record": str(record)})
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.phone", str(plan)],
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s + 20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"record": record}


@pytest.fixture(scope="session")
def transcribe() -> Iterator[Callable[[bytes], str]]:
    """Write down 8 kHz PCM."""
    ears = Transcriber()
    yield ears.transcribe
    ears.close()


@pytest.fixture
def ulaw() -> Callable[[bytes], bytes]:
    """Turn 16 bit PCM into PCMU bytes (ITU-T G.711)."""

    def encode(pcm: bytes) -> bytes:
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.int32)
        sign = np.where(samples < 0, 0x80, 0)
        magnitude = np.minimum(np.abs(samples), 32635) + 132
        exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
        mantissa = (magnitude >> (exponent + 3)) & 0x0F
        coded = ~(sign | (exponent << 4) | mantissa) & 0xFF
        return bytes(coded.astype(np.uint8).tobytes())

    return encode
