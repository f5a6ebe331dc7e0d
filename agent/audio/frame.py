"""What travels between rooms: 20 ms of 8 kHz mono PCM.

The telephone network carries 300 to 3400 Hz, so 8 kHz loses nothing, and no
sample is ever resampled on its way between PJSIP's bridge and Opus.
"""

from typing import TypeAlias

SAMPLE_RATE_HZ = 8000
FRAME_MS = 20
FRAME_SAMPLES = SAMPLE_RATE_HZ * FRAME_MS // 1000
FRAME_BYTES = FRAME_SAMPLES * 2

Frame: TypeAlias = bytes
"""160 samples, signed 16 bit little endian: always 320 bytes."""

SILENCE: Frame = bytes(FRAME_BYTES)
