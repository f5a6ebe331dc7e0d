"""A soft tone that says "still here" while a caller waits."""

from functools import cache

import numpy as np

from agent.audio.frame import FRAME_MS, SAMPLE_RATE_HZ, Frame

_PERIOD_MS = 2_000
_BEEP_MS = 240
_HZ = 440.0
_LEVEL = 700.0
"""Peak: -33 dBFS, well below a voice (about -20), well above line noise."""


@cache
def _frames() -> tuple[Frame, ...]:
    """One period: a beep that swells and fades, then nothing."""
    at_s = np.arange(_PERIOD_MS * SAMPLE_RATE_HZ // 1000) / SAMPLE_RATE_HZ
    swell = np.where(at_s * 1000 < _BEEP_MS, np.sin(np.pi * at_s * 1000 / _BEEP_MS) ** 2, 0.0)
    samples = np.round(_LEVEL * swell * np.sin(2 * np.pi * _HZ * at_s)).astype("<i2")
    return tuple(part.tobytes() for part in np.split(samples, _PERIOD_MS // FRAME_MS))


def soft_tone(position: int) -> Frame:
    """Give the frame number `position` since the tone began: it repeats without a seam."""
    frames = _frames()
    return frames[position % len(frames)]
