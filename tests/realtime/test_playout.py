"""The agent's voice on a bad network: what the ear hears, and how late."""

import math
import random
import struct
from array import array
from collections.abc import Iterable

import numpy as np
import pytest

from agent.audio import g711
from agent.audio.frame import FRAME_BYTES, FRAME_SAMPLES, SILENCE, Frame
from agent.audio.opus import OpusEncoder
from agent.realtime.codec import G711Codec, OpusCodec
from agent.realtime.playout import MOST_WAITING_MS, Playout

TICKS = 960
FRAME_S = 0.02
PHASE_S = 0.01
"""How long a packet that comes in time waits for its read."""


def tone(hz: float, index: int, peak: int = 8000) -> Frame:
    samples = (
        int(peak * math.sin(2 * math.pi * hz * (index * FRAME_SAMPLES + i) / 8000))
        for i in range(FRAME_SAMPLES)
    )
    return struct.pack(f"<{FRAME_SAMPLES}h", *samples)


def loudness(frame: Frame) -> int:
    return max(abs(v) for v in array("h", frame))


class Line:
    """A sender of numbered packets, and a phone that reads every 20 ms."""

    def __init__(self) -> None:
        encoder = OpusEncoder(fec=True, bitrate_bps=40000, expected_loss_percent=20)
        self.payloads = [encoder.encode(tone(300, i)) for i in range(200)]
        self.quiet = [encoder.encode(SILENCE) for _ in range(100)]
        self.playout = Playout(OpusCodec(OpusEncoder()))
        self.now_s = 100.0
        self.heard: list[Frame] = []

    def arrive(self, *numbers: int, first_sequence: int = 0) -> None:
        for number in numbers:
            self.playout.receive(
                (number + first_sequence) & 0xFFFF,
                number * TICKS & 0xFFFFFFFF,
                self.payloads[number % 200],
                self.now_s,
            )

    def read(self) -> Frame:
        frame = self.playout.read(self.now_s + PHASE_S)
        assert len(frame) == FRAME_BYTES
        self.heard.append(frame)
        self.now_s += FRAME_S
        return frame

    def run(self, arrivals: Iterable[tuple[int, ...]], first_sequence: int = 0) -> None:
        """Each tuple is what arrives before one read."""
        for numbers in arrivals:
            self.arrive(*numbers, first_sequence=first_sequence)
            self.read()


def steady(first: int, last: int) -> list[tuple[int, ...]]:
    return [(n,) for n in range(first, last)]


COUNTERS = ("lost", "concealed", "late", "duplicate", "reordered", "underruns", "restarts")


@pytest.mark.parametrize(
    ("arrivals", "counters"),
    [
        pytest.param(steady(0, 20), {}, id="a good line"),
        pytest.param(
            [*steady(0, 5), (), *steady(6, 20)],
            {"lost": 1, "concealed": 1, "underruns": 1},
            id="one lost",
        ),
        pytest.param(
            [*steady(0, 5), (6, 7), (), *steady(8, 20)],
            {"lost": 1, "concealed": 1},
            id="one lost and its successor already there",
        ),
        pytest.param([*steady(0, 5), (6, 5), (), *steady(7, 20)], {"reordered": 1}, id="reordered"),
        pytest.param([*steady(0, 5), (5, 5), *steady(6, 20)], {"duplicate": 1}, id="duplicate"),
        pytest.param(
            [*steady(0, 5), (5,), (5, 6), *steady(7, 20)],
            {"duplicate": 1},
            id="duplicate of what was played",
        ),
        pytest.param(
            [*steady(0, 5), (), (6,), (5, 7), *steady(8, 20)],
            {"lost": 1, "concealed": 1, "late": 1, "underruns": 1},
            id="later than its successor's turn",
        ),
    ],
)
def test_repairs(arrivals: list[tuple[int, ...]], counters: dict[str, int]) -> None:
    """Whatever the network does, the ear hears an unbroken tone, and the counters say why."""
    line = Line()
    line.run(arrivals)
    assert {name: getattr(line.playout, name) for name in COUNTERS} == {
        **dict.fromkeys(COUNTERS, 0),
        **counters,
    }
    assert all(loudness(frame) > 3000 for frame in line.heard[1:])


def test_the_first_packet_is_heard_at_once() -> None:
    """Nothing is held back before anything went wrong."""
    line = Line()
    assert line.read() == SILENCE
    line.arrive(0)
    assert loudness(line.read()) > 1000


def test_one_lost_packet_adds_no_lasting_delay() -> None:
    """After a loss, a packet is still played in the read after it arrived."""
    line = Line()
    line.run([*steady(0, 10), (), *steady(11, 60)])
    assert line.playout.waiting_ms == 0
    line.arrive(60)
    assert line.playout.waiting_ms == 20
    line.read()
    assert line.playout.waiting_ms == 0


def test_sequence_numbers_wrap() -> None:
    """65535 is followed by 0, in the middle of a word."""
    line = Line()
    line.run(steady(0, 40), first_sequence=65520)
    assert line.playout.lost == line.playout.restarts == 0
    assert all(loudness(frame) > 3000 for frame in line.heard[1:])


def test_a_dead_line_falls_silent() -> None:
    """Three frames are bridged, then there is silence and not a drone."""
    line = Line()
    line.run([*steady(0, 20), (), (), (), (), (), ()])
    assert line.playout.concealed == 3
    assert line.playout.underruns == 1
    assert line.heard[-2:] == [SILENCE, SILENCE]
    line.run(steady(26, 30))
    assert loudness(line.heard[-1]) > 3000


def test_late_packets_are_heard_and_hold_one_frame_more() -> None:
    """A packet that missed its read is not lost: all is heard, 20 ms later."""
    line = Line()
    line.run([*steady(0, 10), (), (10, 11), *steady(12, 30)])
    assert line.playout.late == line.playout.lost == 0
    assert line.playout.waiting_ms == 20
    # The same hiccup again is now harmless.
    line.run([(), (30, 31), *steady(32, 40)])
    assert line.playout.underruns == 1


def test_a_backlog_is_dropped_while_the_agent_is_silent() -> None:
    """Delay that a hiccup left behind goes away in the next pause, and no word is lost."""
    line = Line()
    line.run([*steady(0, 10), (), (), (), tuple(range(10, 14)), *steady(14, 60)])
    delayed_ms = line.playout.waiting_ms
    assert delayed_ms == 60
    assert line.playout.trimmed == 0
    for number in range(400):
        place = 60 + number
        line.playout.receive(place, place * TICKS, line.quiet[number % 100], line.now_s)
        line.read()
    assert line.playout.trimmed >= 2
    assert line.playout.waiting_ms <= 20


def test_a_flood_is_bounded() -> None:
    """More than 400 ms never wait: the oldest give way."""
    line = Line()
    line.arrive(*range(50))
    assert line.playout.waiting_ms == MOST_WAITING_MS
    assert line.playout.overflowed == 50 - MOST_WAITING_MS // 20


def test_a_new_sequence_is_followed() -> None:
    """A far end that starts to count anew is understood with its second packet."""
    line = Line()
    line.run(steady(0, 10))
    line.arrive(10, first_sequence=30000)
    assert line.playout.restarts == 0
    line.arrive(11, 12, first_sequence=30000)
    assert line.playout.restarts == 1
    assert line.playout.waiting_ms == 60
    assert line.playout.received == 13
    line.run(steady(13, 20), first_sequence=30000)
    assert loudness(line.heard[-1]) > 3000


def test_one_stray_packet_changes_nothing() -> None:
    """A single number from far away is not a new stream."""
    line = Line()
    line.run(steady(0, 10))
    line.arrive(10, first_sequence=30000)
    line.run(steady(10, 30))
    assert line.playout.restarts == line.playout.lost == 0


def speak(sequence: int) -> bytes:
    """20 ms of an endless vowel, whose period is no whole number of samples."""
    at = (sequence * FRAME_SAMPLES + np.arange(FRAME_SAMPLES)) * (2 * np.pi * 123.4 / 8000)
    return bytes((sum(np.sin(n * at) / n for n in range(1, 6)) * 5000).astype("<i2").tobytes())


def roughest(pcm: bytes) -> float:
    """The sharpest bend between neighbouring samples: a click is sharper than any voice."""
    return float(np.abs(np.diff(np.frombuffer(pcm, "<i2").astype(np.float32), 2)).max())


@pytest.mark.parametrize("ppm", [200, -200, 0], ids=["fast", "slow", "equal"])
def test_a_sender_with_another_clock(ppm: int) -> None:
    """Half an hour of a voice without a pause: no delay builds up, nothing is missed, no click."""
    playout = Playout(G711Codec("pcmu"))
    second = [g711.encode(speak(n), "pcmu") for n in range(2000)]
    # 2000 frames hold 4936 periods: the vowel goes on where it began.
    packet_s = FRAME_S / (1 + ppm / 1e6)
    sent, heard, longest_ms = 0, [], 0
    for tick in range(30 * 60 * 50):
        now_s = 100 + tick * FRAME_S
        while (arrival_s := 99.995 + sent * packet_s) <= now_s:
            payload = second[sent % 2000]
            playout.receive(sent & 0xFFFF, sent * FRAME_SAMPLES & 0xFFFFFFFF, payload, arrival_s)
            sent += 1
        heard.append(playout.read(now_s))
        longest_ms = max(longest_ms, playout.waiting_ms)
    assert longest_ms <= 40
    assert (playout.underruns, playout.concealed, playout.lost, playout.overflowed) == (0, 0, 0, 0)
    changed = playout.shortened_samples - playout.lengthened_samples
    assert abs(changed - ppm * 30 * 60 * 8000 / 1e6) <= 2 * FRAME_SAMPLES
    voice = b"".join(g711.decode(payload, "pcmu") for payload in second[:500])
    assert roughest(b"".join(heard[1:])) < 1.1 * roughest(voice)
    assert min(loudness(frame) for frame in heard[1:]) > 0.9 * loudness(voice)


def test_one_lost_packet_in_fifty() -> None:
    """Two minutes of it: each is concealed, and the last packet waits no longer than the first."""
    line = Line()
    line.run(() if n % 50 == 25 else (n,) for n in range(6000))
    assert (line.playout.lost, line.playout.concealed) == (120, 120)
    assert line.playout.waiting_ms == 0
    # A steady tone is the worst for Opus: after a loss it swells again for a frame.
    assert min(loudness(frame) for frame in line.heard[1:]) > 1500


@pytest.mark.parametrize("packet_ms", [10, 20, 30, 40, 60])
def test_packets_of_any_length(packet_ms: int) -> None:
    """A far end that packs more or less into a packet: whole all the same, one lost in fifty too."""
    playout = Playout(G711Codec("pcmu"))
    samples = packet_ms * 8
    heard, sent = [], 0
    for tick in range(2000):
        now_s = tick * FRAME_S
        while (arrival_s := 0.003 + sent * packet_ms / 1000) <= now_s:
            at = (sent * samples + np.arange(samples)) * (2 * np.pi * 200 / 8000)
            payload = g711.encode((6000 * np.sin(at)).astype("<i2").tobytes(), "pcmu")
            if sent % 50 != 25:
                playout.receive(sent & 0xFFFF, sent * samples, payload, arrival_s)
            sent += 1
        heard.append(playout.read(now_s))
    assert playout.lost == playout.concealed == (sent + 24) // 50
    assert playout.waiting_ms <= packet_ms
    assert min(loudness(frame) for frame in heard[4:]) > 3000


@pytest.mark.parametrize(
    ("jitter_ms", "most_ms"), [(0, 20), (15, 40), (35, 60), (55, 80)], ids=lambda ms: f"{ms}"
)
def test_delay_is_what_the_line_needs(jitter_ms: int, most_ms: int) -> None:
    """An even line has no delay of ours; an uneven one has its own unevenness, and few holes."""
    dice = random.Random(7)
    line = Line()
    arrivals: list[tuple[float, int]] = []
    for number in range(3000):
        late_s = dice.random() * jitter_ms / 1000
        previous_s = arrivals[-1][0] if arrivals else 0.0
        arrivals.append((max(previous_s, number * FRAME_S + late_s), number))
    waits = []
    for tick in range(3000):
        line.now_s = 100 + tick * FRAME_S
        while arrivals and arrivals[0][0] <= tick * FRAME_S:
            line.arrive(arrivals.pop(0)[1])
        line.read()
        waits.append(line.playout.waiting_ms)
    assert sorted(waits[500:])[len(waits) // 2] <= most_ms
    assert line.playout.concealed < 60
    assert line.playout.overflowed == 0


def test_flush_drops_all_and_the_next_word_is_whole() -> None:
    """After a barge-in the ear is empty at once; what comes next is played from its first packet."""
    line = Line()
    line.run(steady(0, 5))
    line.arrive(5, 6, 7, 8)
    assert line.playout.flush() == 80
    assert line.read() == SILENCE
    line.arrive(9)
    assert loudness(line.read()) > 1000
    assert line.playout.lost == 0


def test_a_held_voice_goes_on_where_it_stopped() -> None:
    """Two seconds of waiting: silence meanwhile, then every word, then no delay is left."""
    line = Line()
    line.playout.speech_began()
    line.run((n,) for n in range(20))
    line.playout.hold(True)
    heard_before = len(line.heard)
    line.run((n,) for n in range(20, 120))
    assert {loudness(frame) for frame in line.heard[heard_before:]} == {0}
    line.playout.hold(False)
    line.playout.speech_ended()
    line.payloads = line.quiet * 2
    heard_before = len(line.heard)
    line.run((n,) for n in range(120, 240))
    voiced = [frame for frame in line.heard[heard_before:] if loudness(frame) > 500]
    assert 100 <= len(voiced) <= 103
    assert line.playout.overflowed == 0
    assert line.playout.waiting_ms <= 20
    assert not line.playout.is_behind


def test_an_open_line_is_not_speech() -> None:
    """A far end that sends silence for ever leaves no speech waiting once it has spoken."""
    line = Line()
    line.playout.speech_began()
    line.arrive(0, 1)
    assert line.playout.buffered_ms == 40
    line.playout.speech_ended()
    assert line.playout.buffered_ms == 40
    line.run([(2,), (3,), (4,), (5,)])
    assert line.playout.waiting_ms > 0
    assert line.playout.buffered_ms == 0


def test_garbage_is_bridged() -> None:
    """A packet that is not of the codec sounds like a lost one."""
    line = Line()
    line.run(steady(0, 5))
    line.playout.receive(5, 5 * TICKS, b"\xff\xff\xff", line.now_s)
    assert loudness(line.read()) > 1000
    line.playout.receive(6, 6 * TICKS, b"", line.now_s)
    line.read()
    line.run(steady(7, 10))
    assert line.playout.undecodable == 2
    assert loudness(line.heard[-1]) > 3000


@pytest.mark.parametrize("seed", range(20))
def test_any_network(seed: int) -> None:
    """Loss, jitter and repeats of any pattern never raise, never grow the delay beyond bounds."""
    dice = random.Random(seed)
    line = Line()
    due: dict[int, list[int]] = {}
    for number in range(300):
        if dice.random() < 0.1:
            continue
        for _ in range(2 if dice.random() < 0.05 else 1):
            due.setdefault(number + int(dice.expovariate(1.2)), []).append(number)
    for tick in range(340):
        line.arrive(*due.get(tick, ()))
        line.read()
        assert line.playout.waiting_ms <= MOST_WAITING_MS
    playout = line.playout
    assert playout.received == sum(map(len, due.values()))
    assert line.heard[-1] == SILENCE
