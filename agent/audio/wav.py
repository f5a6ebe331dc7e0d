"""Sounds that are not made by a voice: WAV files and tones, as the telephone hears them."""

import wave
from pathlib import Path

import numpy as np

from agent.audio.frame import SAMPLE_RATE_HZ

_TONE_PEAK = 8000


def read_wav(path: Path) -> bytes:
    """Read a WAV file of any rate; several channels become one.

    Returns:
        8 kHz PCM.

    Raises:
        ValueError: It cannot be read, or its samples are not of 16 bits.
    """
    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() != 2:
                raise ValueError(
                    f"{path}: found {file.getsampwidth() * 8} bit samples, accepted: 16 bit PCM"
                )
            frames = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
            samples = frames.reshape(-1, file.getnchannels()).mean(axis=1).astype("<i2")
            rate_hz = file.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError(f"{path}: cannot be read as WAV: {error}") from None
    if rate_hz != SAMPLE_RATE_HZ:
        import soxr

        samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
    return bytes(samples.tobytes())


def tone(hz: float, duration_ms: int) -> bytes:
    """Make a sine: 8 kHz PCM, 12 dB below the loudest."""
    at_s = np.arange(SAMPLE_RATE_HZ * duration_ms // 1000) / SAMPLE_RATE_HZ
    return bytes((_TONE_PEAK * np.sin(2 * np.pi * hz * at_s)).astype("<i2").tobytes())
