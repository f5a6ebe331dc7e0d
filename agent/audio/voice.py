"""Where in time somebody spoke, as measured on the phone leg.

Not a voice detector in the sense of telling speech from noise; the far end
does that. This answers two plainer questions about one direction of a call:
when did sound begin at the ear, and when did it last leave the mouth. Turn
latency is the distance between the two.
"""

from collections import deque

import numpy as np

from agent.audio.frame import FRAME_MS, FRAME_SAMPLES, Frame

VOICED_RMS = 200
"""About -44 dBFS: above the noise of a G.711 line (below 20), below quiet speech (about 400)."""

_VOICED_ENERGY = float(VOICED_RMS**2 * FRAME_SAMPLES)
_LEVELS_KEPT = 60


def energy(frame: Frame) -> float:
    """Sum up the squares of 20 ms of PCM. Takes about 2 us."""
    samples = np.frombuffer(frame, dtype="<i2").astype(np.float32)
    return float(np.dot(samples, samples))


def is_voiced(frame: Frame) -> bool:
    """Tell whether 20 ms of PCM carry more than line noise."""
    return energy(frame) > _VOICED_ENERGY


class VoiceTrack:
    """The stretches of sound in one direction, oldest forgotten first.

    A pause shorter than `pause_ms` does not end a stretch. Times are
    milliseconds on the call's clock, told by the caller of `note`.

    Attributes:
        levels: Energy of the last 1.2 s, one value a frame, newest last.
    """

    def __init__(self, pause_ms: int = 200, keep: int = 256) -> None:
        self._pause_ms = pause_ms
        self._runs: deque[tuple[int, int]] = deque(maxlen=keep)
        self.levels: deque[float] = deque(maxlen=_LEVELS_KEPT)

    def note(self, frame: Frame, at_ms: int) -> bool:
        """Take the frame that begins at `at_ms`; tell whether a stretch begins with it."""
        level = energy(frame)
        self.levels.append(level)
        if level <= _VOICED_ENERGY:
            return False
        end_ms = at_ms + FRAME_MS
        if self._runs:
            start_ms, last_ms = self._runs[-1]
            if at_ms - last_ms < self._pause_ms:
                self._runs[-1] = (start_ms, end_ms)
                return False
        self._runs.append((at_ms, end_ms))
        return True

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """Stretches as (first voiced ms, end of last voiced frame ms), oldest first."""
        return tuple(self._runs)

    def first_voiced_since(self, at_ms: int) -> int | None:
        """When sound was first there at or after `at_ms`; None if not yet."""
        for start_ms, end_ms in self._runs:
            if end_ms > at_ms:
                return max(start_ms, at_ms)
        return None

    def last_voiced_before(self, at_ms: int) -> int | None:
        """When the last sound before `at_ms` ended; None if there was none."""
        for start_ms, end_ms in reversed(self._runs):
            if start_ms < at_ms:
                return min(end_ms, at_ms)
        return None

    def voiced_ms_since(self, at_ms: int) -> int:
        """How much sound there was from `at_ms` on, short pauses included."""
        return sum(max(0, end_ms - max(start_ms, at_ms)) for start_ms, end_ms in self._runs)
