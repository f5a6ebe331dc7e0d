"""G.711: PCMU and PCMA payloads to linear PCM and back.

One byte a sample either way, by table; any length, no state. Nobody but whoever
calls this knows that the telephone counts in logarithms.

What was decoded here, or by any other decoder that keeps to the recommendation, is
encoded to the same bytes again: voices pass through as they are.

Source: ITU-T G.711, tables 1 and 2; payload types 0 and 8 in RFC 3551, 4.5.14.
"""

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Law = Literal["pcmu", "pcma"]

_ULAW_BIAS = 132  # in 16 bit samples; 33 in the 14 bit ones of the tables
_ALL_BYTES = np.arange(256, dtype=np.int32)


def decode(payload: bytes, law: Law) -> bytes:
    """Expand G.711.

    Args:
        payload: One byte a sample.
        law: Which of the two.

    Returns:
        Signed 16 bit little endian PCM, two bytes a sample.
    """
    return _expanded(law)[np.frombuffer(payload, np.uint8)].tobytes()


def encode(pcm: bytes, law: Law) -> bytes:
    """Compress to G.711, each sample to its nearest value.

    Args:
        pcm: Signed 16 bit little endian, whole samples.
        law: Which of the two.

    Returns:
        One byte a sample.
    """
    codes: npt.NDArray[np.uint8] = _compressed(law)[np.frombuffer(pcm, "<u2")]
    return codes.tobytes()


@cache
def _expanded(law: Law) -> npt.NDArray[np.int16]:
    if law == "pcmu":
        code = _ALL_BYTES ^ 0xFF
        exponent, mantissa = (code >> 4) & 7, code & 15
        size = (((mantissa << 3) + _ULAW_BIAS) << exponent) - _ULAW_BIAS
        is_negative = code & 0x80 != 0
    else:
        code = _ALL_BYTES ^ 0x55
        exponent, mantissa = (code >> 4) & 7, code & 15
        size = np.where(
            exponent == 0,
            (mantissa << 4) + 8,
            ((mantissa << 4) + 264) << np.maximum(exponent, 1) - 1,
        )
        is_negative = code & 0x80 == 0
    return np.where(is_negative, -size, size).astype("<i2")


@cache
def _compressed(law: Law) -> npt.NDArray[np.uint8]:
    """The nearest code of each of the 65 536 samples, in the order of their bit patterns."""
    values = _expanded(law).astype(np.int32)
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    samples = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    above = np.clip(np.searchsorted(ascending, samples), 1, 255)
    is_below = samples - ascending[above - 1] <= ascending[above] - samples
    codes = order[np.where(is_below, above - 1, above)].astype(np.uint8)
    if law == "pcmu":
        # Two codes mean 0; silence is the positive one.
        codes[0] = 0xFF
    return codes
