"""Turn latency stands on these two questions; they must be right to the frame."""

import math

import numpy as np
import pytest

from agent.audio.frame import FRAME_MS, FRAME_SAMPLES, SILENCE, Frame
from agent.audio.voice import VoiceTrack, is_voiced


def tone(dbfs: float) -> Frame:
    """One frame of a 400 Hz sine whose RMS is `dbfs`."""
    peak = 32768 * 10 ** (dbfs / 20) * math.sqrt(2)
    phase = 2 * np.pi * 400 / 8000 * np.arange(FRAME_SAMPLES)
    return bytes((peak * np.sin(phase)).astype("<i2").tobytes())


@pytest.mark.parametrize(
    ("frame", "voiced"),
    [
        pytest.param(SILENCE, False, id="digital silence"),
        pytest.param(tone(-65), False, id="line noise"),
        pytest.param(tone(-36), True, id="quiet speech"),
        pytest.param(tone(-10), True, id="loud speech"),
        pytest.param(b"\x00\x80" * FRAME_SAMPLES, True, id="full scale negative"),
    ],
)
def test_is_voiced(frame: Frame, voiced: bool) -> None:
    """Speech counts, the noise of the line does not, and nothing overflows."""
    assert is_voiced(frame) is voiced


def track(pattern: str) -> VoiceTrack:
    """A track fed one frame per character: `#` is voice, anything else silence."""
    result = VoiceTrack(pause_ms=60)
    for number, char in enumerate(pattern):
        result.note(tone(-20) if char == "#" else SILENCE, number * FRAME_MS)
    return result


def test_short_pauses_do_not_split_a_stretch() -> None:
    """Words have gaps; a sentence is one stretch until the pause is long enough."""
    assert track("..##..##....#.").runs == ((40, 160), (240, 260))


@pytest.mark.parametrize(
    ("since_ms", "first_ms"),
    [
        pytest.param(0, 40, id="before any sound"),
        pytest.param(50, 50, id="in the middle of a stretch"),
        pytest.param(160, 240, id="after it: the next one"),
        pytest.param(300, None, id="nothing since"),
    ],
)
def test_first_voiced_since(since_ms: int, first_ms: int | None) -> None:
    """The onset asked for is never earlier than the question."""
    assert track("..##..##....#.").first_voiced_since(since_ms) == first_ms


@pytest.mark.parametrize(
    ("before_ms", "last_ms"),
    [
        pytest.param(30, None, id="nothing yet"),
        pytest.param(100, 100, id="still speaking"),
        pytest.param(230, 160, id="in the pause"),
        pytest.param(900, 260, id="long after"),
    ],
)
def test_last_voiced_before(before_ms: int, last_ms: int | None) -> None:
    """The end asked for is never later than the question."""
    assert track("..##..##....#.").last_voiced_before(before_ms) == last_ms
