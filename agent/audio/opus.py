"""Opus at 8 kHz mono, by libopus itself.

What the telephone carries goes in and comes out as it is: nothing is resampled
to 48 kHz, which would cost three times the CPU for an empty band. The library
is the one the `av` wheel brings along, opened with cffi in ABI mode, so no
compiler and no system package is needed.

Encoders and decoders keep their buffers and belong to one thread.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cffi

from agent.audio.frame import FRAME_SAMPLES, SAMPLE_RATE_HZ, Frame

_MOST_SAMPLES = SAMPLE_RATE_HZ * 120 // 1000  # RFC 6716, 2.1.4: a packet holds 120 ms at most
_MOST_PAYLOAD_BYTES = 1275  # RFC 6716, 3.2.1: one frame; far above what 128 kbit/s gives

_CDEF = """
typedef struct OpusEncoder OpusEncoder;
typedef struct OpusDecoder OpusDecoder;
OpusEncoder *opus_encoder_create(int32_t rate, int channels, int application, int *error);
int opus_encoder_ctl(OpusEncoder *encoder, int request, ...);
int32_t opus_encode(OpusEncoder *encoder, const int16_t *pcm, int samples,
                    unsigned char *data, int32_t max_bytes);
void opus_encoder_destroy(OpusEncoder *encoder);
OpusDecoder *opus_decoder_create(int32_t rate, int channels, int *error);
int opus_decode(OpusDecoder *decoder, const unsigned char *data, int32_t length,
                int16_t *pcm, int samples, int decode_fec);
void opus_decoder_destroy(OpusDecoder *decoder);
const char *opus_strerror(int error);
"""

# opus_defines.h
_APPLICATION = {"voip": 2048, "lowdelay": 2051}
_SET_BITRATE = 4002
_SET_COMPLEXITY = 4010
_SET_INBAND_FEC = 4012
_SET_PACKET_LOSS_PERCENT = 4014
_SET_SIGNAL = 4024
_SIGNAL_VOICE = 3001


class OpusError(Exception):
    """libopus refused: not an Opus payload, or no libopus at all."""


class OpusEncoder:
    """Encodes the caller's frames. Close it, or leave it to the collector: freed once."""

    def __init__(
        self,
        complexity: int = 0,
        bitrate_bps: int = 32000,
        fec: bool = False,
        expected_loss_percent: int = 10,
        *,
        application: Literal["voip", "lowdelay"] = "voip",
    ) -> None:
        """Create an encoder for 8 kHz mono.

        Args:
            complexity: 0 to 10; 0 is as good as G.711 at 32 kbit/s.
            bitrate_bps: 6000 to 128000.
            fec: Carry a coarse copy of each frame in the next one.
            expected_loss_percent: How much room the copies get; only with `fec`.
            application: "lowdelay" looks 2.5 ms ahead instead of 6.5, and needs
                48 kbit/s for the same quality; it has no `fec`.

        Raises:
            OpusError: No libopus was found, or a value is out of range.
        """
        self._ffi, self._lib = _libopus()
        error = self._ffi.new("int *")
        encoder = self._lib.opus_encoder_create(SAMPLE_RATE_HZ, 1, _APPLICATION[application], error)
        if not encoder:
            raise OpusError(f"no encoder: {_reason(error[0])}")
        self._encoder = self._ffi.gc(encoder, self._lib.opus_encoder_destroy)
        settings = [
            (_SET_BITRATE, bitrate_bps),
            (_SET_COMPLEXITY, complexity),
            (_SET_SIGNAL, _SIGNAL_VOICE),
            (_SET_INBAND_FEC, int(fec)),
            (_SET_PACKET_LOSS_PERCENT, expected_loss_percent if fec else 0),
        ]
        for request, value in settings:
            code = self._lib.opus_encoder_ctl(
                self._encoder, request, self._ffi.cast("int32_t", value)
            )
            if code:
                raise OpusError(f"setting {request} to {value}: {_reason(code)}")
        self._payload = self._ffi.new("unsigned char[]", _MOST_PAYLOAD_BYTES)
        self._payload_bytes = self._ffi.buffer(self._payload)
        self._is_open = True

    def encode(self, frame: Frame) -> bytes:
        """Encode one frame.

        Args:
            frame: 160 samples, 320 bytes.

        Returns:
            One Opus payload of 20 ms.

        Raises:
            OpusError: The frame is not 20 ms long, or the encoder is closed.
        """
        if not self._is_open or len(frame) != FRAME_SAMPLES * 2:
            raise OpusError("closed" if not self._is_open else f"{len(frame)} bytes are no frame")
        length = self._lib.opus_encode(
            self._encoder,
            self._ffi.from_buffer("int16_t[]", frame),
            FRAME_SAMPLES,
            self._payload,
            _MOST_PAYLOAD_BYTES,
        )
        if length < 0:
            raise OpusError(_reason(length))
        return bytes(self._payload_bytes[:length])

    def close(self) -> None:
        """Free it now. Harmless when repeated."""
        if self._is_open:
            self._is_open = False
            self._ffi.release(self._encoder)


class OpusDecoder:
    """Decodes what the model says. Close it, or leave it to the collector: freed once.

    Any Opus stream will do, 48 kHz stereo too: libopus decodes it to 8 kHz mono.
    """

    def __init__(self) -> None:
        """Create a decoder.

        Raises:
            OpusError: No libopus was found.
        """
        self._ffi, self._lib = _libopus()
        error = self._ffi.new("int *")
        decoder = self._lib.opus_decoder_create(SAMPLE_RATE_HZ, 1, error)
        if not decoder:
            raise OpusError(f"no decoder: {_reason(error[0])}")
        self._decoder = self._ffi.gc(decoder, self._lib.opus_decoder_destroy)
        self._pcm = self._ffi.new("int16_t[]", _MOST_SAMPLES)
        self._pcm_bytes = self._ffi.buffer(self._pcm)
        self._is_open = True

    def decode(self, payload: bytes) -> bytes:
        """Decode one payload.

        Args:
            payload: 2.5 to 120 ms of Opus.

        Returns:
            All its samples, s16le: one `Frame` for the usual 20 ms, more or
            less for other durations.

        Raises:
            OpusError: Not an Opus payload. The decoder stays usable.
        """
        if not payload:
            raise OpusError("the payload is empty")
        return self._decode(payload, _MOST_SAMPLES, fec=False)

    def conceal(self) -> Frame:
        """Invent the 20 ms that were lost, from what was heard before."""
        return self._decode(None, FRAME_SAMPLES, fec=False)

    def recover(self, next_payload: bytes) -> Frame:
        """Rebuild the 20 ms before `next_payload` from the copy it carries.

        Without a copy in it, the same as `conceal`. Decode `next_payload`
        itself afterwards.

        Raises:
            OpusError: Not an Opus payload. The decoder stays usable.
        """
        if not next_payload:
            raise OpusError("the payload is empty")
        return self._decode(next_payload, FRAME_SAMPLES, fec=True)

    def close(self) -> None:
        """Free it now. Harmless when repeated."""
        if self._is_open:
            self._is_open = False
            self._ffi.release(self._decoder)

    def _decode(self, payload: bytes | None, samples: int, *, fec: bool) -> bytes:
        if not self._is_open:
            raise OpusError("closed")
        count = self._lib.opus_decode(
            self._decoder,
            self._ffi.NULL if payload is None else payload,
            0 if payload is None else len(payload),
            self._pcm,
            samples,
            int(fec),
        )
        if count < 0:
            raise OpusError(_reason(count))
        return bytes(self._pcm_bytes[: count * 2])


@cache
def _libopus() -> tuple[Any, Any]:
    """Open libopus once: the av wheel's, else the system's."""
    ffi = cffi.FFI()
    ffi.cdef(_CDEF)
    candidates: list[str] = []
    av = importlib.util.find_spec("av")
    if av is not None and av.origin is not None:
        wheel_libraries = Path(av.origin).parent.parent / "av.libs"
        candidates += [str(path) for path in sorted(wheel_libraries.glob("libopus-*.so*"))]
    candidates.append("libopus.so.0")
    for name in candidates:
        try:
            return ffi, ffi.dlopen(name)
        except OSError:
            continue
    raise OpusError("no libopus was found: install the `av` wheel from PyPI, or Debian's libopus0")


def _reason(code: int) -> str:
    ffi, lib = _libopus()
    return str(ffi.string(lib.opus_strerror(code)).decode("ascii", "replace"))
