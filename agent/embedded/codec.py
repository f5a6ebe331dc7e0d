"""The codecs of a WebRTC call: what the offer asks for first and this server speaks.

Opus, PCMU or PCMA; one of them, chosen from the offer before it is answered.
All of them carry 20 ms of 8 kHz speech a packet here.
"""

import re
from typing import Protocol

from agent.audio import g711
from agent.audio.frame import FRAME_SAMPLES, SAMPLE_RATE_HZ, SILENCE, Frame
from agent.audio.opus import OpusDecoder, OpusEncoder, OpusError

_MEDIA = re.compile(r"^m=audio \d+ \S+ ([\d ]+?)\s*$", re.MULTILINE)
_MAPPING = re.compile(r"^a=rtpmap:(\d+) ([\w-]+/\d+)", re.MULTILINE)
# RFC 3551, 6: these two need no rtpmap.
_STATIC = {"0": "pcmu/8000", "8": "pcma/8000"}
_SPOKEN = {"opus/48000": "opus", "pcmu/8000": "pcmu", "pcma/8000": "pcma"}
_MOST_G711_BYTES = SAMPLE_RATE_HZ * 120 // 1000


class BadPayload(Exception):
    """A packet whose payload is not of this codec."""


class Codec(Protocol):
    """One call's coder and decoder.

    Attributes:
        ticks_per_frame: What 20 ms are on its RTP clock.
    """

    ticks_per_frame: int

    def encode(self, frame: Frame) -> bytes:
        """Make the payload of 20 ms."""
        ...

    def decode(self, payload: bytes) -> bytes:
        """Give a payload's 8 kHz PCM, any length; raise BadPayload when it is none."""
        ...

    def conceal(self) -> Frame:
        """Invent the 20 ms that were lost."""
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

    def __init__(self) -> None:
        self._encoder = OpusEncoder()
        self._decoder = OpusDecoder()

    def encode(self, frame: Frame) -> bytes:
        """Make the payload of 20 ms."""
        return self._encoder.encode(frame)

    def decode(self, payload: bytes) -> bytes:
        """Give a payload's 8 kHz PCM; raises BadPayload when it is no Opus."""
        try:
            return self._decoder.decode(payload)
        except OpusError as error:
            raise BadPayload(str(error)) from error

    def conceal(self) -> Frame:
        """Invent the 20 ms that were lost, from what was heard before."""
        return self._decoder.conceal()

    def close(self) -> None:
        """Free both. Harmless when repeated."""
        self._encoder.close()
        self._decoder.close()


class G711Codec:
    """PCMU or PCMA (RFC 3551, 4.5.14)."""

    ticks_per_frame = FRAME_SAMPLES

    def __init__(self, law: g711.Law) -> None:
        self._law = law

    def encode(self, frame: Frame) -> bytes:
        """Make the payload of 20 ms."""
        return g711.encode(frame, self._law)

    def decode(self, payload: bytes) -> bytes:
        """Give a payload's 8 kHz PCM; raises BadPayload when it is empty or over 120 ms."""
        if not 0 < len(payload) <= _MOST_G711_BYTES:
            raise BadPayload(f"{len(payload)} bytes of G.711")
        return g711.decode(payload, self._law)

    def conceal(self) -> Frame:
        """Silence: G.711 remembers nothing to invent from."""
        return SILENCE

    def close(self) -> None:
        """Nothing to free."""


def first_spoken(sdp: str) -> str | None:
    """Find which codec an offer asks for first, of those spoken here.

    Args:
        sdp: The offer.

    Returns:
        "opus", "pcmu" or "pcma"; None when it has none of them.
    """
    media = _MEDIA.search(sdp)
    if media is None:
        return None
    named = {**_STATIC, **{number: name.lower() for number, name in _MAPPING.findall(sdp)}}
    offered = (_SPOKEN.get(named.get(number, "")) for number in media.group(1).split())
    return next((name for name in offered if name), None)


def open_codec(name: str) -> Codec:
    """Open what `first_spoken` found.

    Raises:
        OpusError: No libopus was found.
    """
    if name == "opus":
        return OpusCodec()
    return G711Codec("pcmu" if name == "pcmu" else "pcma")
