"""The codecs of an RTP session: voices pass, losses are not heard."""

from array import array

import numpy as np
import numpy.typing as npt
import pytest

from agent.audio import g711
from agent.audio.frame import FRAME_BYTES, FRAME_SAMPLES, SILENCE
from agent.realtime.codec import Codec, CodecError, CodecName, codecs_to_offer, law_of, open_codec

VOWEL_HZ = 123.0


def vowel(count: int, first: int = 0) -> bytes:
    """A voice that holds a vowel: eight overtones."""
    at = np.arange(first, first + count * FRAME_SAMPLES) * (2 * np.pi * VOWEL_HZ / 8000)
    return bytes((sum(np.sin(n * at) / n for n in range(1, 9)) * 5000).astype("<i2").tobytes())


def frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]


def samples(pcm: bytes) -> npt.NDArray[np.float64]:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def roughest(pcm: bytes) -> float:
    """The sharpest bend between neighbouring samples: a click is sharper than any voice."""
    return float(np.abs(np.diff(samples(pcm), 2)).max())


@pytest.mark.parametrize("name", ["opus", "pcmu", "pcma"])
def test_a_voice_passes(name: CodecName) -> None:
    """What goes in comes out, as loud, 20 ms for 20 ms."""
    codec: Codec = open_codec(name)
    heard = b"".join(codec.decode(codec.encode(frame)) for frame in frames(vowel(20)))
    assert len(heard) == 20 * FRAME_BYTES
    loudness, spoken = samples(heard)[800:].std(), samples(vowel(20)).std()
    assert 0.9 < loudness / spoken < 1.1
    codec.close()
    codec.close()


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("law", ["pcmu", "pcma"])
def test_lost_g711_is_a_voice_that_goes_on(law: g711.Law, lost: int) -> None:
    """Up to 60 ms are bridged: no hole, no click where it begins nor where it ends."""
    codec = open_codec(law)
    spoken = frames(vowel(20))
    payloads = [g711.encode(frame, law) for frame in spoken]
    before = b"".join(codec.decode(payload) for payload in payloads[:10])
    bridge = b"".join(codec.conceal() for _ in range(lost))
    after = b"".join(codec.decode(payload) for payload in payloads[10 + lost :])
    peaks = [max(map(abs, array("h", frame))) for frame in frames(bridge)]
    assert min(peaks) > 3000
    assert peaks == sorted(peaks, reverse=True)
    assert roughest(before + bridge + after) < 1.3 * roughest(vowel(20))


def test_a_line_that_begins_with_a_loss_is_silent() -> None:
    """There is nothing to repeat yet."""
    codec = open_codec("pcmu")
    assert codec.conceal() == SILENCE
    codec.decode(g711.encode(vowel(1), "pcmu"))
    assert codec.recover(b"") == SILENCE


@pytest.mark.parametrize("name", ["opus", "pcmu", "pcma"])
def test_what_is_not_of_the_codec_is_refused(name: CodecName) -> None:
    """An empty payload, or a frame that is none, raises; the next one is coded all the same."""
    codec: Codec = open_codec(name)
    for nonsense in (b"", b"\xff" * 1300):
        with pytest.raises(CodecError):
            codec.decode(nonsense)
    with pytest.raises(CodecError):
        codec.encode(b"\0\0")
    assert len(codec.decode(codec.encode(SILENCE))) == FRAME_BYTES


@pytest.mark.parametrize(
    ("wish", "line_codec", "offered"),
    [
        pytest.param("opus", "PCMA", ("opus",), id="Opus only"),
        pytest.param("pcma", "PCMU", ("pcma",), id="what is configured"),
        pytest.param("auto", "PCMA", ("pcma", "opus"), id="the caller's law first"),
        pytest.param("auto", "", ("pcmu", "opus"), id="a line without a codec yet"),
    ],
)
def test_offered(wish: CodecName, line_codec: str, offered: tuple[CodecName, ...]) -> None:
    """`auto` follows the caller's line; anything else is asked for as it is."""
    assert codecs_to_offer(wish, line_codec) == offered


def test_law() -> None:
    """A line that is not G.711, or unknown, is spoken to in mu-law."""
    assert [law_of(name) for name in ("PCMA", "pcmu", "opus", "")] == ["pcma", "pcmu"] + [
        "pcmu"
    ] * 2
