"""Speech for sessions whose audio travels in events."""

import numpy as np
import soxr


def wide(pcm: bytes) -> bytes:
    """8 kHz PCM at 24 kHz."""
    return bytes(soxr.resample(np.frombuffer(pcm, "<i2"), 8000, 24000).tobytes())
