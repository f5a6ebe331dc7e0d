"""What goes into Opus at 8 kHz comes out again, also when packets are missing or are no Opus."""

import math
import struct
from array import array

import av
import pytest

from agent.audio.frame import FRAME_BYTES, FRAME_SAMPLES, SILENCE, Frame
from agent.audio.opus import OpusDecoder, OpusEncoder, OpusError


def voice(frames: int) -> list[Frame]:
    """Make something like a vowel: harmonics of 140 Hz whose loudness moves."""
    result = []
    for index in range(frames):
        samples = []
        for i in range(FRAME_SAMPLES):
            t = (index * FRAME_SAMPLES + i) / 8000
            wave = sum(math.sin(2 * math.pi * 140 * k * t) / k for k in range(1, 12))
            samples.append(int(4000 * wave * (0.6 + 0.4 * math.sin(2 * math.pi * 3 * t))))
        result.append(struct.pack(f"<{FRAME_SAMPLES}h", *samples))
    return result


def energy(pcm: bytes) -> float:
    values = array("h", pcm)
    return sum(v * v for v in values) / max(1, len(values))


def snr_db(original: bytes, decoded: bytes, most_delay_samples: int = 80) -> float:
    """Compare at the best alignment, for Opus looks ahead a few milliseconds."""
    a, b = array("h", original), array("h", decoded)
    best = -99.0
    for delay in range(most_delay_samples):
        pairs = list(zip(a[: len(a) - delay], b[delay:], strict=True))
        signal = sum(x * x for x, _ in pairs)
        noise = sum((x - y) ** 2 for x, y in pairs) or 1
        best = max(best, 10 * math.log10(signal / noise))
    return best


@pytest.mark.parametrize(
    ("application", "bitrate_bps", "least_snr_db"),
    [
        pytest.param("voip", 32000, 5.0, id="voip 32 kbit/s"),
        pytest.param("lowdelay", 48000, 8.0, id="lowdelay 48 kbit/s"),
    ],
)
def test_round_trip(application: str, bitrate_bps: int, least_snr_db: float) -> None:
    """A voice is still that voice after encoding and decoding."""
    encoder = OpusEncoder(0, bitrate_bps, application=application)  # type: ignore[arg-type]
    decoder = OpusDecoder()
    frames = voice(30)
    decoded = [decoder.decode(encoder.encode(frame)) for frame in frames]
    assert all(len(frame) == FRAME_BYTES for frame in decoded)
    assert snr_db(b"".join(frames[10:]), b"".join(decoded[10:])) > least_snr_db


def test_silence_stays_silent() -> None:
    """Nothing said is nothing heard."""
    encoder, decoder = OpusEncoder(), OpusDecoder()
    decoded = b"".join(decoder.decode(encoder.encode(SILENCE)) for _ in range(20))
    assert energy(decoded) < 4


def test_fec_recovers_what_a_guess_cannot() -> None:
    """With FEC the lost frame is in the next packet, and sounds closer to what was said."""
    encoder = OpusEncoder(5, 40000, True, 30)
    # Silence before and a sudden voice: no guess from the past can know it.
    frames = [SILENCE] * 10 + voice(6)
    payloads = [encoder.encode(frame) for frame in frames]
    recovering, guessing = OpusDecoder(), OpusDecoder()
    lost = 12
    for payload in payloads[:11]:
        recovering.decode(payload)
        guessing.decode(payload)
    recovered = recovering.conceal() + recovering.recover(payloads[lost + 1])
    guessed = guessing.conceal() + guessing.conceal()
    assert energy(recovered) > 4 * energy(guessed)


def test_concealment_fades() -> None:
    """A guess lasts for a moment; a dead line does not hum for ever."""
    encoder, decoder = OpusEncoder(), OpusDecoder()
    for frame in voice(20):
        decoder.decode(encoder.encode(frame))
    guesses = [decoder.conceal() for _ in range(50)]
    assert all(len(frame) == FRAME_BYTES for frame in guesses)
    assert energy(guesses[0]) > 1000
    assert energy(guesses[-1]) < energy(guesses[0]) / 100


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xff\xff", id="lengths that lie"),
        pytest.param(b"\x03" + b"\x80" * 3, id="a count of frames that is not there"),
    ],
)
def test_garbage_is_refused(payload: bytes) -> None:
    """What is no Opus raises one clear error, and the next packet is decoded as ever."""
    encoder, decoder = OpusEncoder(), OpusDecoder()
    with pytest.raises(OpusError):
        decoder.decode(payload)
    assert len(decoder.decode(encoder.encode(voice(1)[0]))) == FRAME_BYTES


@pytest.mark.parametrize("duration_ms", [10, 20, 40, 60])
def test_other_durations_and_stereo(duration_ms: int) -> None:
    """A 48 kHz stereo stream of any frame duration decodes to all its samples, at 8 kHz mono."""
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate = 48000
    codec.layout = "stereo"
    codec.format = "s16"
    codec.options = {"frame_duration": str(duration_ms)}
    codec.open()
    samples = 48 * duration_ms
    frame = av.AudioFrame(format="s16", layout="stereo", samples=samples)
    frame.sample_rate = 48000
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    payloads = [bytes(packet) for _ in range(5) for packet in codec.encode(frame)]
    decoder = OpusDecoder()
    assert payloads
    assert {len(decoder.decode(payload)) for payload in payloads} == {8 * duration_ms * 2}


def test_closed_is_closed() -> None:
    """Closing twice is harmless, and using it afterwards is an error and not a crash."""
    encoder, decoder = OpusEncoder(), OpusDecoder()
    for _ in range(2):
        encoder.close()
        decoder.close()
    with pytest.raises(OpusError):
        encoder.encode(SILENCE)
    with pytest.raises(OpusError):
        decoder.conceal()


def test_a_frame_of_another_length_is_refused() -> None:
    """Only 20 ms go in."""
    with pytest.raises(OpusError):
        OpusEncoder().encode(SILENCE[:-2])
