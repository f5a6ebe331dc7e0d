"""Audio inside events, for sessions without RTP: base64 text to 8 kHz PCM and back.

    input_audio_buffer.append -> put() -> take(), a second at most -> session.hear
    8 kHz PCM of a sentence -> deltas() -> response.output_audio.delta

A client may append minutes in one event; they are handed out in slices, so that
the caller of `take` can let the other sessions have their turn. No I/O here.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from agent.audio import g711
from agent.audio.frame import SAMPLE_RATE_HZ
from agent.embedded.protocol import Refused

WIDE_RATE_HZ = 24000
"""The one rate of audio/pcm."""

_MOST_APPEND_BYTES = 15 * 1024 * 1024
_MOST_APPEND_CHARS = _MOST_APPEND_BYTES * 4 // 3 + 4
_MOST_ITEM_MS = 60_000
_DELTA_MS = 200
_RATIO = WIDE_RATE_HZ // SAMPLE_RATE_HZ
# Passes speech up to 3.4 kHz and stops what would fold back; delays by 1.5 ms,
# where soxr's stream hands out its samples 65 ms at a time.
_TAPS = 73
_CUTOFF_HZ = 3600


class EventAudio:
    """What one client has appended and nobody has heard yet."""

    def __init__(self) -> None:
        self._kind = ""
        self._waiting = memoryview(b"")
        self._narrow = _Narrowing()

    def put(self, audio: object, audio_format: Mapping[str, Any]) -> None:
        """Take the `audio` of one append; what was put before must be taken first.

        Raises:
            Refused: It is not base64, too long, or not whole samples.
        """
        raw, kind = _raw(audio, audio_format, "audio"), audio_format["type"]
        if kind != self._kind:
            self._kind, self._narrow = kind, _Narrowing()
        self._waiting = memoryview(raw)

    def take(self) -> bytes:
        """Give the next second at most: 8 kHz PCM; empty when all was taken."""
        slice_bytes = WIDE_RATE_HZ * 2 if self._kind == "audio/pcm" else SAMPLE_RATE_HZ
        pcm = b""
        while not pcm and self._waiting:
            raw = bytes(self._waiting[:slice_bytes])
            self._waiting = self._waiting[slice_bytes:]
            if self._kind == "audio/pcmu":
                pcm = g711.decode(raw, "pcmu")
            elif self._kind == "audio/pcma":
                pcm = g711.decode(raw, "pcma")
            else:
                pcm = self._narrow.feed(raw)
        return pcm


def _raw(audio: object, audio_format: Mapping[str, Any], path: str) -> bytes:
    if audio is None:
        raise Refused("missing_required_parameter", f"Missing required parameter: '{path}'.", path)
    if not isinstance(audio, str):
        raise Refused("invalid_value", "Expected base64 in a string.", path)
    if len(audio) > _MOST_APPEND_CHARS:
        raise Refused("invalid_value", "The audio is longer than 15 MiB.", path)
    try:
        raw = binascii.a2b_base64(audio, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("invalid_value", "The audio is not base64.", path) from error
    if audio_format["type"] == "audio/pcm" and len(raw) % 2:
        raise Refused("invalid_value", "Expected whole samples of 16 bits.", path)
    return raw


def decode_item(audio: object, audio_format: Mapping[str, Any], path: str) -> bytes:
    """Read the audio of an item at once: 8 kHz PCM.

    Args:
        audio: Base64 in a string, from the client.
        audio_format: `session.audio.input.format`.
        path: What an error calls it.

    Raises:
        Refused: It is not base64, empty, longer than a minute, or not whole samples.
    """
    raw, kind = _raw(audio, audio_format, path), audio_format["type"]
    bytes_per_ms = (WIDE_RATE_HZ * 2 if kind == "audio/pcm" else SAMPLE_RATE_HZ) // 1000
    if not 0 < len(raw) <= _MOST_ITEM_MS * bytes_per_ms:
        raise Refused("invalid_value", "The audio of an item lasts up to 60 s.", path)
    if kind == "audio/pcm":
        samples = soxr.resample(np.frombuffer(raw, "<i2"), WIDE_RATE_HZ, SAMPLE_RATE_HZ)
        return bytes(samples.tobytes())
    return g711.decode(raw, "pcmu" if kind == "audio/pcmu" else "pcma")


def encode_item(pcm: bytes, audio_format: Mapping[str, Any]) -> str:
    """Write the audio of an item, base64 of 8 kHz PCM in the session's format."""
    raw, _ = _encoded(pcm, audio_format)
    return base64.b64encode(raw).decode()


class _Narrowing:
    """24 kHz to 8 kHz across any cuts between events: a low pass, then every third sample."""

    def __init__(self) -> None:
        at = np.arange(_TAPS) - (_TAPS - 1) / 2
        taps = np.sinc(2 * _CUTOFF_HZ / WIDE_RATE_HZ * at) * np.hamming(_TAPS)
        self._taps = (taps / taps.sum()).astype(np.float32)
        self._past: npt.NDArray[np.float32] = np.zeros(_TAPS - 1, np.float32)

    def feed(self, raw: bytes) -> bytes:
        samples = np.frombuffer(raw, "<i2").astype(np.float32)
        joined = np.concatenate((self._past, samples))
        count = max(0, joined.size - (_TAPS - 1) + _RATIO - 1) // _RATIO
        filtered = np.convolve(joined, self._taps, "valid")[::_RATIO] if count else joined[:0]
        # What the next output sample looks back on; fewer than taps - 1 between two outputs.
        self._past = joined[count * _RATIO :]
        return np.clip(np.rint(filtered), -32768, 32767).astype("<i2").tobytes()


def deltas(pcm: bytes, audio_format: Mapping[str, Any]) -> Iterator[str]:
    """Write speech as the client wants it.

    Args:
        pcm: 8 kHz PCM, a sentence or so.
        audio_format: `session.audio.output.format`.

    Returns:
        Base64 of 200 ms each, in order.
    """
    raw, bytes_per_ms = _encoded(pcm, audio_format)
    step = _DELTA_MS * bytes_per_ms
    for at in range(0, len(raw), step):
        yield base64.b64encode(raw[at : at + step]).decode()


def _encoded(pcm: bytes, audio_format: Mapping[str, Any]) -> tuple[bytes, int]:
    """The bytes of the format, and how many of them are 1 ms."""
    kind = audio_format["type"]
    if kind == "audio/pcmu":
        return g711.encode(pcm, "pcmu"), SAMPLE_RATE_HZ // 1000
    if kind == "audio/pcma":
        return g711.encode(pcm, "pcma"), SAMPLE_RATE_HZ // 1000
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), SAMPLE_RATE_HZ, WIDE_RATE_HZ)
    return samples.tobytes(), WIDE_RATE_HZ * 2 // 1000
