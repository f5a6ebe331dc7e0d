"""A voice made longer or shorter by whole periods, so that nobody hears it.

A voiced sound repeats itself 80 to 400 times a second. One period more or less, cut
where the two sides are most alike and faded over, changes neither pitch nor words.
"""

import numpy as np
import numpy.typing as npt

SHORTEST_SAMPLES = 20
"""The shortest period that is cut: 400 Hz."""

_LONGEST = 120  # 67 Hz
_LEAST_LIKENESS = 0.6
_QUIET_RMS = 60.0  # -55 dBFS: where a cut cannot be heard whatever it joins

Samples = npt.NDArray[np.float32]


def period_of(past: Samples) -> int:
    """Find how long ago the end of a sound was most like itself; 20 to 120 samples.

    Args:
        past: At least 280 samples.
    """
    template = past[-160:]
    windows = np.lib.stride_tricks.sliding_window_view(
        past[-160 - _LONGEST : -SHORTEST_SAMPLES], 160
    )
    return _LONGEST - int(np.argmax(_likeness(windows, template)))


def shortened(pcm: bytes, most: int) -> bytes:
    """Leave one period out.

    Args:
        pcm: s16le of 8 kHz, 20 ms or more.
        most: How many samples may be left out.

    Returns:
        The same if no cut would go unheard.
    """
    x = _samples(pcm)
    longest = min(most, _LONGEST, x.size // 2)
    if longest < SHORTEST_SAMPLES:
        return pcm
    width = x.size - longest
    lag = _best_lag(x, longest, width)
    if lag == 0:
        return pcm
    fade = _ramp(width)
    head = x[:width] * (1 - fade) + x[lag : lag + width] * fade
    return _bytes(np.concatenate((head, x[lag + width :])))


def lengthened(pcm: bytes) -> bytes:
    """Say one period twice.

    Args:
        pcm: s16le of 8 kHz, 20 ms or more.

    Returns:
        The same if the seam would be heard.
    """
    x = _samples(pcm)
    longest = min(_LONGEST, x.size * 5 // 8)
    width = x.size - longest
    lag = _best_lag(x, longest, width)
    if lag == 0:
        return pcm
    fade = _ramp(width)
    seam = x[lag : lag + width] * (1 - fade) + x[:width] * fade
    return _bytes(np.concatenate((x[:lag], seam, x[width:])))


def _best_lag(x: Samples, longest: int, width: int) -> int:
    """Where a stretch is most like the beginning; 0 if nowhere."""
    windows = np.lib.stride_tricks.sliding_window_view(x[SHORTEST_SAMPLES : longest + width], width)
    likeness = _likeness(windows, x[:width])
    best = int(np.argmax(likeness))
    is_quiet = float(np.sqrt(np.mean(x * x))) < _QUIET_RMS
    return SHORTEST_SAMPLES + best if is_quiet or likeness[best] >= _LEAST_LIKENESS else 0


def _likeness(windows: npt.NDArray[np.float32], template: Samples) -> Samples:
    """Normalised correlation of each window with the template."""
    sizes = np.sqrt(np.einsum("ij,ij->i", windows, windows) * np.dot(template, template))
    likeness: Samples = (windows @ template) / (sizes + np.float32(1))
    return likeness


def _ramp(width: int) -> Samples:
    """From 0 to 1, as slowly as there is room."""
    return (np.arange(width, dtype=np.float32) + np.float32(0.5)) / np.float32(width)


def _samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32)


def _bytes(samples: Samples) -> bytes:
    return bytes(np.rint(samples).astype("<i2").tobytes())
