"""The codecs of an RTP session: what 20 ms of PCM are on the wire, and what stands in for lost ones.

    caller's frame -> encode -> RTP
    RTP -> decode, or conceal / recover what is missing -> the caller's ear

A codec belongs to one session and one thread; it remembers what it decoded last.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from agent.audio import g711
from agent.audio.frame import FRAME_SAMPLES, SAMPLE_RATE_HZ, SILENCE, Frame
from agent.audio.opus import OpusDecoder, OpusEncoder, OpusError
from agent.audio.pitch import Samples, period_of

CodecName = Literal["opus", "pcmu", "pcma"]
_LAWS: tuple[g711.Law, ...] = ("pcmu", "pcma")

_MOST_G711_BYTES = SAMPLE_RATE_HZ * 120 // 1000
_REMEMBERED_BYTES = 2 * 280
_FADED_SAMPLES = 32
_LOSS_PER_FRAME = 0.2


class CodecError(Exception):
    """Not 20 ms of PCM, or a payload that is not of this codec."""


class Codec(Protocol):
    """One session's coder and decoder.

    Attributes:
        ticks_per_frame: What 20 ms are on its RTP clock.
    """

    ticks_per_frame: int

    def encode(self, frame: Frame) -> bytes:
        """Make the payload of 20 ms.

        Raises:
            CodecError: The frame is not 20 ms long.
        """
        ...

    def decode(self, payload: bytes) -> bytes:
        """Give a payload's 8 kHz PCM, any length.

        Raises:
            CodecError: It is not of this codec; the next one is decoded all the same.
        """
        ...

    def conceal(self) -> Frame:
        """Invent the 20 ms that were lost, from what was heard before."""
        ...

    def recover(self, next_payload: bytes) -> Frame:
        """Rebuild the 20 ms before `next_payload`, as well as it helps; then decode that.

        Raises:
            CodecError: It is not of this codec.
        """
        ...

    def close(self) -> None:
        """Free it. Harmless when repeated."""
        ...


class OpusCodec:
    """Opus at 8 kHz mono (RFC 7587).

    Raises:
        OpusError: No libopus was found.
    """

    # The RTP clock of Opus is 48 kHz whatever is coded (RFC 7587, 4.1).
    ticks_per_frame = 960

    def __init__(self, encoder: OpusEncoder) -> None:
        """Take an encoder of its own."""
        self._encoder = encoder
        self._decoder = OpusDecoder()

    def encode(self, frame: Frame) -> bytes:
        """Make the payload of 20 ms."""
        try:
            return self._encoder.encode(frame)
        except OpusError as error:
            raise CodecError(str(error)) from error

    def decode(self, payload: bytes) -> bytes:
        """Give a payload's 8 kHz PCM."""
        try:
            return self._decoder.decode(payload)
        except OpusError as error:
            raise CodecError(str(error)) from error

    def conceal(self) -> Frame:
        """Invent 20 ms from what was heard before."""
        return self._decoder.conceal()

    def recover(self, next_payload: bytes) -> Frame:
        """Rebuild 20 ms from the copy in the next payload; without one, invent them."""
        try:
            return self._decoder.recover(next_payload)
        except OpusError as error:
            raise CodecError(str(error)) from error

    def close(self) -> None:
        """Free both. Harmless when repeated."""
        self._encoder.close()
        self._decoder.close()


class G711Codec:
    """PCMU or PCMA (RFC 3551, 4.5.14): by table, a microsecond each way.

    What the caller's line brings in the same law leaves as the same bytes. What was lost
    is the last period of the voice again, softer frame by frame (after ITU-T G.711,
    Appendix I), and fades over into what arrives next.
    """

    ticks_per_frame = FRAME_SAMPLES

    def __init__(self, law: g711.Law) -> None:
        self._law = law
        self._past = b""
        """The last 35 ms that were given."""
        self._period: Samples | None = None
        """What is repeated while packets are missing."""
        self._invented = 0
        """Samples of it that were given."""

    def encode(self, frame: Frame) -> bytes:
        """Make the payload of 20 ms."""
        if len(frame) != FRAME_SAMPLES * 2:
            raise CodecError(f"{len(frame)} bytes are no frame")
        return g711.encode(frame, self._law)

    def decode(self, payload: bytes) -> bytes:
        """Give a payload's 8 kHz PCM; more than 120 ms, or nothing, is no payload."""
        if not 0 < len(payload) <= _MOST_G711_BYTES:
            raise CodecError(f"{len(payload)} bytes of G.711")
        pcm = g711.decode(payload, self._law)
        if self._period is not None:
            pcm = self._join(pcm)
        self._past = (self._past + pcm)[-_REMEMBERED_BYTES:]
        return pcm

    def conceal(self) -> Frame:
        """Say the last period again."""
        if self._period is None:
            if len(self._past) < _REMEMBERED_BYTES:
                return SILENCE
            past = np.frombuffer(self._past, "<i2").astype(np.float32)
            self._period = _seamless(past, period_of(past))
            self._invented = 0
        return bytes(self._repeated(FRAME_SAMPLES).astype("<i2").tobytes())

    def recover(self, next_payload: bytes) -> Frame:
        """The next payload holds nothing of the lost one."""
        del next_payload
        return self.conceal()

    def close(self) -> None:
        """Nothing to free."""

    def _repeated(self, count: int) -> Samples:
        assert self._period is not None
        places = self._invented + np.arange(count)
        loss = np.maximum(places - FRAME_SAMPLES // 2, 0) * (_LOSS_PER_FRAME / FRAME_SAMPLES)
        self._invented += count
        softened: Samples = self._period[places % self._period.size] * np.maximum(1 - loss, 0)
        return softened

    def _join(self, pcm: bytes) -> bytes:
        """Fade over from what was invented to what arrived."""
        arrived = np.frombuffer(pcm, "<i2").astype(np.float32)
        count = min(_FADED_SAMPLES, arrived.size)
        fade = (np.arange(count, dtype=np.float32) + 1) / (count + 1)
        arrived[:count] = self._repeated(count) * (1 - fade) + arrived[:count] * fade
        self._period = None
        return bytes(np.rint(arrived).astype("<i2").tobytes())


def _seamless(past: Samples, period: int) -> Samples:
    """Cut out the last period so that its end leads into its beginning."""
    result = past[-period:].copy()
    width = period // 4
    fade = (np.arange(width, dtype=np.float32) + 1) / (width + 1)
    before = past[-period - width : -period]
    result[-width:] = result[-width:] * (1 - fade) + before * fade
    return result


def open_codec(
    name: CodecName, opus_encoder: Callable[[], OpusEncoder] = OpusEncoder
) -> "OpusCodec | G711Codec":
    """Open a codec by its name.

    Args:
        name: As in SDP, in lower case.
        opus_encoder: Makes what Opus shall encode with.

    Raises:
        OpusError: No libopus was found.
    """
    return OpusCodec(opus_encoder()) if name == "opus" else G711Codec(name)


def law_of(line_codec: str) -> g711.Law:
    """Find the law of a telephone line by its codec's name in SDP; mu-law where it has none."""
    return next((law for law in _LAWS if law == line_codec.lower()), "pcmu")


def codecs_to_offer(wish: CodecName | Literal["auto"], line_codec: str) -> tuple[CodecName, ...]:
    """Say which codecs to ask for, in order.

    Args:
        wish: `realtime.codec`.
        line_codec: What the caller's line has, in SDP's words; "" if that is not known.
    """
    return (law_of(line_codec), "opus") if wish == "auto" else (wish,)
