"""How loud a voice is given to the ear, changed without a click."""

import numpy as np

from agent.audio.frame import FRAME_SAMPLES, Frame

_RAMP = np.linspace(0, 1, FRAME_SAMPLES, endpoint=False, dtype=np.float32)


class Gain:
    """A volume that glides to a new value within one frame."""

    def __init__(self) -> None:
        self._now = 1.0
        self._wanted = 1.0

    def set_db(self, db: float) -> None:
        """Turn to `db` decibels with the next frame; 0 leaves the voice as it is."""
        self._wanted = 10 ** (db / 20)

    def apply(self, frame: Frame) -> Frame:
        """Turn 20 ms up or down. Free of cost at 0 dB, about 5 us otherwise."""
        if self._now == self._wanted == 1.0:
            return frame
        factors = self._now + (self._wanted - self._now) * _RAMP
        self._now = self._wanted
        samples = np.frombuffer(frame, dtype="<i2") * factors
        return bytes(np.clip(samples, -32768, 32767).astype("<i2").tobytes())
