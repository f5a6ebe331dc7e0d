"""`@openai/agents-realtime` in headless Chromium calls the embedded server over WebRTC."""

import asyncio
import http.server
import shutil
import subprocess
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from agent.embedded.voice import Voice

_PAGE = Path(__file__).parent / "browser"
_BUNDLE = Path("node_modules", "@openai", "agents-realtime", "dist", "bundle")
_TYPED: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
_TIMEOUT_S = 40
_MICROPHONE_HZ = 48000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page and the package as npm installs it, on a port of this machine."""
    folder = tmp_path_factory.mktemp("browser")
    for name in ("package.json", "package-lock.json", "index.html"):
        shutil.copy(_PAGE / name, folder)
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(npm, cwd=folder, check=True, timeout=180, capture_output=True)
    (folder / "bundle").symlink_to(folder / _BUNDLE)
    handler = partial(_Files, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    serving.join(10)
    server.server_close()


class _Files(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012 - as the base class declares it
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
    }

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def _microphone(pcm: bytes, file: Path) -> None:
    """Write a WAV for Chromium: three seconds of silence, the words, silence."""
    narrow = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    words = np.clip(soxr.resample(narrow, 8000, _MICROPHONE_HZ), -1, 1)
    quiet = np.zeros(3 * _MICROPHONE_HZ)
    samples = np.concatenate([quiet, words, *[quiet] * 7])
    with wave.open(str(file), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(_MICROPHONE_HZ)
        wav.writeframes((samples * 32767).astype("<i2").tobytes())


@contextmanager
def _chromium(microphone: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        "--autoplay-policy=no-user-gesture-required",
        # A name instead of the address would need multicast to be resolved.
        "--disable-features=WebRtcHideLocalIpsWithMdns",
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield browser
    finally:
        browser.quit()


def _converse(page: str, url: str, microphone: Path) -> dict[str, Any]:
    """Call, ask through the microphone, and wait until the answer is being spoken."""
    with _chromium(microphone) as browser:
        browser.get(page)
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not browser.execute_script("return Boolean(window.start)"):
            assert time.monotonic() < deadline_s, "the package did not load"
            time.sleep(0.1)
        browser.execute_script("window.start(arguments[0])", url)
        found: dict[str, Any] = {}
        while time.monotonic() < deadline_s:
            found = browser.execute_script(
                "return {failed, called, seen, played_s: audioElement.currentTime}"
            )
            spoken = [e for e in found["seen"] if e["type"] == "output_audio_buffer.stopped"]
            if found["failed"] or (found["called"] and len(spoken) >= 2):
                break
            time.sleep(0.3)
        browser.execute_script("window.session.close()")
        return found


async def test_conversation(page: str, url: str, voice: Voice, tmp_path: Path) -> None:
    """A question at the microphone becomes a tool call in the page and an answer in its ear."""
    microphone = tmp_path / "microphone.wav"
    _microphone(voice.synthesise("What is the weather in Oslo?"), microphone)
    found = await asyncio.to_thread(_converse, page, url, microphone)
    assert found["failed"] == ""
    assert found["called"] == [{"place": "Oslo"}]
    assert found["played_s"] > 2
    for event in found["seen"]:
        _TYPED.validate_python(event)
    said = [e["transcript"] for e in found["seen"] if e["type"].endswith("audio_transcript.done")]
    assert "Oslo" in said[-1]
