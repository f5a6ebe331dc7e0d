"""A voice made longer or shorter."""

import numpy as np
import pytest

from agent.audio.pitch import SHORTEST_SAMPLES, lengthened, period_of, shortened


def voice(hz: float, samples: int = 160, peak: float = 8000) -> bytes:
    at = np.arange(samples) * (2 * np.pi * hz / 8000)
    return bytes((peak * (np.sin(at) + np.sin(2 * at) / 2) / 1.3).astype("<i2").tobytes())


def roughest(pcm: bytes) -> float:
    return float(np.abs(np.diff(np.frombuffer(pcm, "<i2").astype(float), 2)).max())


@pytest.mark.parametrize("hz", [100.0, 133.0, 217.3, 390.0])
def test_a_period_less_or_more_is_not_heard(hz: float) -> None:
    """Whole periods come and go, with no bend sharper than the voice's own."""
    spoken = voice(hz)
    shorter, longer = shortened(spoken, 160), lengthened(spoken)
    for changed in (shorter, longer):
        periods = abs(len(changed) - len(spoken)) / 2 * hz / 8000
        assert abs(periods - round(periods)) < 0.05
        assert round(periods) >= 1
        assert roughest(changed) < 1.1 * roughest(spoken)
    assert len(shorter) < len(spoken) < len(longer)


def test_no_more_is_left_out_than_is_owed() -> None:
    """A cut never exceeds its bound, and too small a bound means no cut."""
    spoken = voice(300)
    for most in (SHORTEST_SAMPLES - 1, 30, 60, 79):
        left_out = (len(spoken) - len(shortened(spoken, most))) // 2
        assert left_out <= most
        assert left_out == 0 or left_out >= SHORTEST_SAMPLES


def test_what_never_repeats_itself_is_left_alone() -> None:
    """A hiss or a plosive has no period; nothing is cut there, but silence always can be."""
    hiss = np.random.default_rng(4).normal(0, 3000, 160).astype("<i2").tobytes()
    assert shortened(hiss, 160) == lengthened(hiss) == hiss
    assert len(shortened(bytes(320), 160)) < 320 < len(lengthened(bytes(320)))


@pytest.mark.parametrize("hz", [80.0, 123.0, 200.0, 400.0])
def test_the_period_of_a_voice_is_found(hz: float) -> None:
    """A whole number of periods ago, the voice was what it is now."""
    past = np.frombuffer(voice(hz, 280), "<i2").astype(np.float32)
    periods = period_of(past) * hz / 8000
    assert abs(periods - round(periods)) < 0.06
