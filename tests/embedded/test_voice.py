"""The agent's voices, and what is left of the server when engines are missing."""

import sys
from pathlib import Path

import numpy as np
import pytest

from agent.embedded.ears import Ears, TurnDetection
from agent.embedded.engines import Engines
from agent.embedded.espeak import Espeak
from agent.embedded.settings import EmbeddedSettings
from agent.embedded.transcriber import Transcriber, TranscriptionFailed
from agent.embedded.voice import Voice, first_breath

SENTENCE = "We are open from seven in the morning until six."
# Answers as espeak-ng does: text on stdin, WAV on stdout, of a length that follows -s.
STAND_IN = """#!{python}
import sys, wave, io
words = len(sys.stdin.read().split())
rate = int(sys.argv[sys.argv.index("-s") + 1])
low = "+m" in sys.argv[sys.argv.index("-v") + 1]
period = 220 if low else 110
count = 22050 * 60 * words // rate
out = io.BytesIO()
with wave.open(out, "wb") as sound:
    sound.setparams((1, 2, 22050, 0, "NONE", ""))
    sound.writeframes(b"".join((9000 if n % period < period // 2 else -9000).to_bytes(
        2, "little", signed=True) for n in range(count)))
sys.stdout.buffer.write(out.getvalue())
"""


def pitch_hz(pcm: bytes) -> float:
    """The median height of the voice."""
    samples = np.frombuffer(pcm, "<i2").astype(float)
    found: list[float] = []
    for at in range(0, samples.size - 400, 200):
        piece = samples[at : at + 400] - samples[at : at + 400].mean()
        if np.sqrt((piece**2).mean()) < 1500:
            continue
        echo = np.correlate(piece, piece, "full")[399:]
        lag = 20 + int(np.argmax(echo[20:130]))
        if echo[lag] > 0.5 * echo[0]:
            found.append(8000 / lag)
    return float(np.median(found))


def level_db(pcm: bytes) -> float:
    loud = np.frombuffer(pcm, "<i2").astype(float) / 32768
    loud = loud[np.abs(loud) > 0.01]
    return float(20 * np.log10(np.sqrt((loud**2).mean())))


@pytest.fixture
def espeak(tmp_path: Path) -> Espeak:
    """espeak-ng's stand-in, which answers alike on every machine."""
    program = tmp_path / "espeak-ng"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    return Espeak(str(program))


def test_two_voices(voice: Voice) -> None:
    """Two names are two voices, both understood; a name nobody knows is the first."""
    marin, cedar = voice.say(SENTENCE, 1.0, "marin"), voice.say(SENTENCE, 1.0, "cedar")
    assert pitch_hz(cedar) < 0.9 * pitch_hz(marin)
    assert 0.85 < len(cedar) / len(marin) < 1.2
    transcriber = Transcriber()
    assert ["seven" in transcriber.transcribe(pcm) for pcm in (marin, cedar)] == [True, True]
    transcriber.close()
    assert voice.say("Hello.", 1.0, "nobody") == voice.say("Hello.", 1.0, "marin")


def test_speed(voice: Voice, espeak: Espeak) -> None:
    """A faster voice is done sooner, and is the same voice."""
    for speaker in (voice, espeak):
        slow, fast = speaker.say(SENTENCE, 0.8), speaker.say(SENTENCE, 1.4)
        assert 1.3 < len(slow) / len(fast) < 2.2
    assert pitch_hz(voice.say(SENTENCE, 1.4)) == pytest.approx(
        pitch_hz(voice.say(SENTENCE, 0.8)), rel=0.15
    )


def test_espeak(espeak: Espeak) -> None:
    """The process speaks at the telephone's level, in two voices."""
    high, low = espeak.say(SENTENCE, 1.0, "marin"), espeak.say(SENTENCE, 1.0, "cedar")
    assert pitch_hz(low) < 0.7 * pitch_hz(high)
    assert -24 < level_db(high) < -16


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("#!/bin/sh\nexit 3\n", id="fails"),
        pytest.param("#!/bin/sh\necho no sound\n", id="no sound"),
        pytest.param("#!/bin/nowhere\n", id="cannot run"),
    ],
)
def test_broken_espeak(script: str, tmp_path: Path) -> None:
    """A process that fails costs a sentence, not the call."""
    program = tmp_path / "espeak-ng"
    program.write_text(script)
    program.chmod(0o755)
    assert Espeak(str(program)).say("Hello.") == b""


async def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any engine the server says what to install, hears nothing, and answers in tones."""
    for module in ("hibari", "onnxruntime", "moonshine_voice.transcriber"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    engines = Engines(EmbeddedSettings())
    try:
        assert len(engines.missing) == 4
        assert sum("trunkline[embedded]" in missing for missing in engines.missing) == 3
        tone = await engines.say("Hello, this is the bakery.", 1.0)
        assert len(tone) > 2000
        samples = np.frombuffer(tone, "<i2")
        height_hz = np.argmax(np.abs(np.fft.rfft(samples))) * 8000 / samples.size
        assert height_hz == pytest.approx(440, rel=0.05)
        with pytest.raises(TranscriptionFailed, match="embedded"):
            await engines.transcribe(tone)
        assert Ears(engines.detector, TurnDetection()).hear(tone * 4) == []
    finally:
        engines.close()


async def test_no_hibari(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, espeak: Espeak) -> None:
    """Without hibari, espeak-ng speaks."""
    del espeak  # its program is first on the path
    monkeypatch.setitem(sys.modules, "hibari", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    engines = Engines(EmbeddedSettings())
    try:
        assert [missing for missing in engines.missing if "espeak" in missing] == []
        assert len(await engines.say(SENTENCE, 1.0)) > 16000
    finally:
        engines.close()


@pytest.mark.parametrize(
    ("sentence", "first", "rest"),
    [
        pytest.param(
            "We are open from seven to six.", "We are open from seven to six.", "", id="short"
        ),
        pytest.param(
            "We are open Monday to Friday from 7 am to 6 pm and Saturday from 8 am to 2 pm.",
            "We are open Monday to Friday from 7 am to 6 pm",
            "and Saturday from 8 am to 2 pm.",
            id="before and",
        ),
        pytest.param(
            "No, I am sorry to say so; you may come again tomorrow in the afternoon.",
            "No, I am sorry to say so;",
            "you may come again tomorrow in the afternoon.",
            id="not after one word",
        ),
        pytest.param(
            "The long way to the old market hall leads along the river bank, sir.",
            "The long way to the old market hall leads along the river bank, sir.",
            "",
            id="not before one word",
        ),
    ],
)
def test_first_breath(sentence: str, first: str, rest: str) -> None:
    """A long sentence is begun with a part that can stand alone; nothing of it is lost."""
    assert first_breath(sentence) == (first, rest)
