"""What waits for the phone's clock: packets in, one frame every 20 ms out.

Packets come in by the network's clock and are read by the phone's. Whatever
is wrong with them is repaired here, and nothing waits longer than it must:

- order: reordered packets are put in order, repeats and late ones dropped;
- loss: a gap is filled from the copy in the next packet (FEC) or by the codec's
  guess (PLC), three frames in a row at most, then silence;
- delay: the first packet is played at the next read. A packet that comes late
  delays what follows by what stood in for it: so much, and no more, is held back
  on a line that is uneven. What no packet of the last seconds needed is left out
  again, silence first, and else a period of the voice at a time;
- drift: a sender whose clock is faster or slower than the phone's is followed in
  the same way.

Decides only: no I/O, no clock, no exceptions for anything a peer can send.
"""

import math
from array import array
from collections import deque
from typing import NamedTuple

from agent.audio.frame import FRAME_BYTES, FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, SILENCE, Frame
from agent.audio.pitch import SHORTEST_SAMPLES, lengthened, shortened
from agent.realtime.codec import Codec, CodecError

MOST_WAITING_MS = 400
"""The far end sends in real time, so a backlog is nothing but delay."""

MOST_HELD_MS = 4000
"""While the voice is held on purpose, and until what waited then has been read."""

_JUMP_PACKETS = 50  # one second; a larger step is a new stream, not loss
_LONGEST_GAP_PACKETS = 5  # a longer gap is skipped: filling it would only add delay
_MOST_CONCEALED = 3
_LONGEST_LATENESS_S = 0.4  # beyond that the sender had paused
_WINDOW_PACKETS = 50
_WINDOWS = 3
"""What no packet needed in so many windows, some 3 s, is not needed."""

_MOST_SPARE_S = 0.028
_KEPT_SPARE_S = 0.008
"""Between these two a frame more or less would be one too many, or too few."""

_LEAST_SPARE_S = 0.003
_PACKETS_BETWEEN_CUTS = 5
"""A tenth of a second: one period of many is not missed."""

_MOST_PACKETS_TO_CUT = 50
"""A voice that in a second has no period of the length that is left is measured anew."""

_QUIET_PEAK = 256  # -42 dBFS, above the noise of a silent 8 kHz Opus stream
_REMEMBERED_PACKETS = 64


class _Packet(NamedTuple):
    payload: bytes
    arrival_s: float


class Playout:
    """The agent's voice between the network and the caller's ear.

    Attributes:
        received: Packets that came, repeats included.
        lost: Packets that were not there when they were due.
        concealed: Frames that were invented or recovered.
        late: Packets that came after their place had been filled.
        duplicate: Repeats.
        reordered: Packets that came after a later one, and still in time.
        underruns: Times the ear ran dry in the middle of speech.
        undecodable: Packets that are not of the codec.
        overflowed: Packets dropped because too much was waiting.
        trimmed: Silent frames dropped to get rid of delay.
        shortened_samples, lengthened_samples: Of speech, unheard, for the same reason.
        restarts: Times the sequence jumped.
        read_arrival_s: When the packet came that was decoded last.
        is_behind: What was held back is still being read.
    """

    def __init__(self, codec: Codec) -> None:
        """Start empty.

        Args:
            codec: Decodes for this object alone; whoever made it closes it.
        """
        self._codec = codec
        self._packets: dict[int, _Packet] = {}
        self._pcm = bytearray()
        self._packet_samples = FRAME_SAMPLES
        self._next = 0
        """Sequence (extended beyond 16 bits) of the packet that is due."""
        self._highest = 0
        self._has_stream = False
        self._is_playing = False
        self._recent: deque[int] = deque(maxlen=_REMEMBERED_PACKETS)
        self._stranger: tuple[int, int, bytes, float] | None = None
        """One packet from far outside the sequence; a second in line proves a new stream."""
        self._filled_ahead = 0
        """Frames invented while nothing was there: they may stand for what was lost."""
        self._concealed_in_row = 0
        self._dry_reads = 0
        self._newest: tuple[int, float] = (0, 0.0)
        self._spare_s: deque[float] = deque(maxlen=_WINDOWS)
        """The least time any packet waited for its read, window by window."""
        self._window_spare_s = math.inf
        self._window_packets = 0
        self._surplus_samples = 0
        """To be left out, or, below 0, to be said twice."""
        self._packets_since_cut = 0
        self._speech_end: int | None = None
        self._jitter_s = 0.0
        self._is_held = False
        self.is_behind = False
        self.read_arrival_s = 0.0
        self.received = 0
        self.lost = 0
        self.concealed = 0
        self.late = 0
        self.duplicate = 0
        self.reordered = 0
        self.underruns = 0
        self.undecodable = 0
        self.overflowed = 0
        self.trimmed = 0
        self.shortened_samples = 0
        self.lengthened_samples = 0
        self.restarts = 0

    def use(self, codec: Codec) -> None:
        """Decode what arrives from now on with another codec; what waits is dropped."""
        if codec is not self._codec:
            self.flush()
            self._codec = codec
            self._newest = (0, 0.0)

    def receive(self, sequence: int, timestamp: int, payload: bytes, arrival_s: float) -> None:
        """Take one packet as it arrived.

        Args:
            sequence: 16 bit RTP sequence number.
            timestamp: 32 bit RTP timestamp, by the codec's clock.
            payload: Of the codec, any duration.
            arrival_s: When it came, on any steady clock.
        """
        self.received += 1
        if not self._has_stream:
            self._start_stream(sequence)
        place = self._highest + _signed16(sequence - self._highest)
        if abs(place - self._highest) > _JUMP_PACKETS:
            self._receive_stranger(sequence, timestamp, payload, arrival_s)
            return
        self._stranger = None
        if place in self._recent:
            self.duplicate += 1
            return
        self._recent.append(place)
        if place < self._next:
            self.late += 1
            return
        if place > self._highest or not self._packets:
            self._note_arrival(place, timestamp, arrival_s)
        if place < self._highest:
            self.reordered += 1
        self._highest = max(self._highest, place)
        self._packets[place] = _Packet(payload, arrival_s)
        most_ms = MOST_HELD_MS if self.is_behind else MOST_WAITING_MS
        while len(self._packets) * self._packet_ms > most_ms:
            self.overflowed += 1
            oldest = min(self._packets)
            del self._packets[oldest]
            self._next = oldest + 1

    def read(self, now_s: float) -> Frame:
        """Give the next 20 ms; silence when nothing is due. Call it every 20 ms.

        Args:
            now_s: On the clock of the arrivals.
        """
        if self._is_held:
            return SILENCE
        if self.is_behind:
            self._catch_up()
        while len(self._pcm) < FRAME_BYTES:
            if not self._packets:
                return self._read_dry()
            self._dry_reads = 0
            self._is_playing = True
            self._pcm += self._next_samples(now_s)
        frame = bytes(self._pcm[:FRAME_BYTES])
        del self._pcm[:FRAME_BYTES]
        return frame

    def flush(self) -> int:
        """Drop everything that waits; return how many ms that was."""
        dropped_ms = self.waiting_ms
        self._is_held = self.is_behind = False
        self._packets.clear()
        self._pcm.clear()
        self._next = self._highest + 1
        self._is_playing = False
        self._filled_ahead = 0
        self._surplus_samples = 0
        self._measure_anew()
        return dropped_ms

    def hold(self, is_held: bool) -> None:
        """Let everything wait, or go on with it; what waited meanwhile is read first."""
        self._is_held = is_held
        self.is_behind = self.is_behind or is_held

    def speech_began(self) -> None:
        """What arrives from now on is speech."""
        self._speech_end = None

    def speech_ended(self) -> None:
        """All speech has arrived; what follows is the silence of an open line."""
        # Events and RTP travel apart: the last packets may be just behind.
        self._speech_end = self._highest + 2

    @property
    def buffered_ms(self) -> int:
        """How much speech waits to be read."""
        if self._speech_end is None:
            return self.waiting_ms
        speech = sum(1 for place in self._packets if place <= self._speech_end)
        return speech * self._packet_ms + (self._pcm_ms if self._next <= self._speech_end else 0)

    @property
    def waiting_ms(self) -> int:
        """How much of anything waits to be read."""
        return len(self._packets) * self._packet_ms + self._pcm_ms

    @property
    def jitter_ms(self) -> float:
        """How unevenly packets arrive (RFC 3550, 6.4.1)."""
        return self._jitter_s * 1000

    @property
    def _packet_ms(self) -> int:
        return max(1, self._packet_samples * 1000 // SAMPLE_RATE_HZ)

    @property
    def _pcm_ms(self) -> int:
        return len(self._pcm) * FRAME_MS // FRAME_BYTES

    @property
    def _pcm_samples(self) -> int:
        return len(self._pcm) // 2

    # --- arriving

    def _start_stream(self, sequence: int) -> None:
        self._has_stream = True
        # Far enough up that a packet before the first one has a place too.
        self._next = self._highest = sequence + 0x10000
        self._recent.clear()

    def _receive_stranger(
        self, sequence: int, timestamp: int, payload: bytes, arrival_s: float
    ) -> None:
        before, self._stranger = self._stranger, (sequence, timestamp, payload, arrival_s)
        if before is None or (before[0] + 1) & 0xFFFF != sequence:
            return
        self._stranger = None
        self.restarts += 1
        self.received -= 2  # both are counted again below
        self.flush()
        self._start_stream(before[0])
        self.receive(*before)
        self.receive(sequence, timestamp, payload, arrival_s)

    def _note_arrival(self, place: int, timestamp: int, arrival_s: float) -> None:
        """Measure jitter, and tell a late packet from a sender that had paused."""
        last_timestamp, last_arrival_s = self._newest
        self._newest = (timestamp, arrival_s)
        if last_arrival_s == 0.0 or place <= self._highest:
            return
        elapsed_s = arrival_s - last_arrival_s
        ticks = _signed32(timestamp - last_timestamp)
        spoken_s = ticks / self._codec.ticks_per_frame * (FRAME_MS / 1000)
        if elapsed_s > _LONGEST_LATENESS_S or not 0 <= spoken_s <= _LONGEST_LATENESS_S:
            return
        self._jitter_s += (abs(elapsed_s - spoken_s) - self._jitter_s) / 16
        if self._dry_reads and place == self._next:
            # It was not lost: it missed its read. What was invented meanwhile
            # has delayed the rest by as much, and that is kept for a while.
            self._dry_reads = 0
            self._filled_ahead = 0

    # --- reading

    def _catch_up(self) -> None:
        """Once the held speech was read, the silence that queued behind it is left out."""
        spare = len(self._packets) - 1
        if self._speech_end is not None and self._next > self._speech_end:
            for place in sorted(self._packets)[: max(0, spare)]:
                del self._packets[place]
                self._next = place + 1
                self.trimmed += 1
            spare = 0
        self.is_behind = spare > 0

    def _read_dry(self) -> Frame:
        """Nothing is there: bridge a short gap, then be silent."""
        if not self._is_playing:
            if self._pcm:
                return self._take_rest()
            return SILENCE
        if self._dry_reads == 0 and self._speech_end is None:
            self.underruns += 1
        self._dry_reads += 1
        if self._concealed_in_row >= _MOST_CONCEALED:
            self._is_playing = False
            self._filled_ahead = 0
            return SILENCE
        self._filled_ahead += 1
        self._pcm += self._conceal()
        return self._take_rest()

    def _take_rest(self) -> Frame:
        frame = bytes(self._pcm[:FRAME_BYTES]).ljust(FRAME_BYTES, b"\0")
        del self._pcm[:FRAME_BYTES]
        return frame

    def _next_samples(self, now_s: float) -> bytes:
        """Decode, recover or invent what is due; at least one packet is waiting."""
        first = self._next if self._next in self._packets else min(self._packets)
        gap = first - self._next
        if gap:
            gap = self._shorten_gap(gap)
        if gap:
            self._next += 1
            self.lost += 1
            return self._conceal(self._packets[first].payload if gap == 1 else None)
        self._filled_ahead = 0
        samples = self._decode_next()
        self._note_spare(now_s - self.read_arrival_s)
        if self._next in self._packets and self._is_dispensable(samples):
            self.trimmed += 1
            self._surplus_samples = max(0, self._surplus_samples - len(samples) // 2)
            samples = self._decode_next()
        return self._fit(samples)

    def _is_dispensable(self, samples: bytes) -> bool:
        is_owed = self.is_behind or self._surplus_samples >= len(samples) // 2
        return is_owed and _is_quiet(samples)

    # --- no more delay than needed

    def _note_spare(self, spare_s: float) -> None:
        """Learn how long a packet waited; now and then, whether they all wait too long."""
        self._packets_since_cut += 1
        if self.is_behind:
            return  # it waits on purpose
        self._window_packets += 1
        self._window_spare_s = min(self._window_spare_s, spare_s)
        if self._window_packets < _WINDOW_PACKETS or self._surplus_samples:
            return
        self._spare_s.append(self._window_spare_s)
        self._window_spare_s, self._window_packets = math.inf, 0
        if self._spare_s[-1] < _LEAST_SPARE_S:
            # Less than a frame more would not help: the next packet would be due all the same.
            self._surplus_samples = self._pcm_samples - FRAME_SAMPLES
        elif len(self._spare_s) == _WINDOWS and min(self._spare_s) > _MOST_SPARE_S:
            # Whole frames: with a sample more, the next packet would be due a read too soon.
            frames = int((min(self._spare_s) - _KEPT_SPARE_S) * 1000 / FRAME_MS)
            self._surplus_samples = frames * FRAME_SAMPLES + self._pcm_samples
        if self._surplus_samples:
            self._packets_since_cut = _PACKETS_BETWEEN_CUTS
            self._measure_anew()

    def _measure_anew(self) -> None:
        self._spare_s.clear()
        self._window_spare_s, self._window_packets = math.inf, 0

    def _fit(self, samples: bytes) -> bytes:
        """Leave a period out, or say one twice, where that is owed and goes unheard."""
        surplus = self._surplus_samples
        if not surplus or self._packets_since_cut < _PACKETS_BETWEEN_CUTS:
            return samples
        if len(samples) < FRAME_BYTES:
            return samples
        fitted = shortened(samples, surplus) if surplus > 0 else lengthened(samples)
        change = (len(fitted) - len(samples)) // 2
        if change:
            self._packets_since_cut = 0
            self.shortened_samples -= min(0, change)
            self.lengthened_samples += max(0, change)
            left = surplus + change
            is_over = left < SHORTEST_SAMPLES if surplus > 0 else left >= 0
            self._surplus_samples = 0 if is_over else left
            self._measure_anew()
        elif self._packets_since_cut > _MOST_PACKETS_TO_CUT:
            self._surplus_samples = 0
        return fitted

    def _shorten_gap(self, gap: int) -> int:
        """Leave out of a gap what was already bridged, or all of it when it is long."""
        if gap > _LONGEST_GAP_PACKETS or not self._is_playing:
            skipped = gap
        else:
            skipped = min(gap, self._filled_ahead)
        self._filled_ahead -= min(skipped, self._filled_ahead)
        self._next += skipped
        self.lost += skipped
        return gap - skipped

    def _decode_next(self) -> bytes:
        payload, self.read_arrival_s = self._packets.pop(self._next)
        self._next += 1
        try:
            samples = self._codec.decode(payload)
        except CodecError:
            self.undecodable += 1
            return self._conceal()
        self._concealed_in_row = 0
        self._packet_samples = len(samples) // 2
        return samples

    def _conceal(self, next_payload: bytes | None = None) -> bytes:
        """Stand in for one packet."""
        self._concealed_in_row += 1
        if self._concealed_in_row > _MOST_CONCEALED:
            return bytes(self._packet_samples * 2)
        self.concealed += 1
        try:
            if next_payload is not None and self._packet_samples == FRAME_SAMPLES:
                return self._codec.recover(next_payload)
            samples = b""
            while len(samples) < self._packet_samples * 2:
                samples += self._codec.conceal()
        except CodecError:
            return bytes(self._packet_samples * 2)
        samples = samples[: self._packet_samples * 2]
        return _faded(samples) if self._concealed_in_row == _MOST_CONCEALED else samples


def _signed16(value: int) -> int:
    return ((value + 0x8000) & 0xFFFF) - 0x8000


def _signed32(value: int) -> int:
    return ((value + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _is_quiet(samples: bytes) -> bool:
    values = array("h", samples)
    return max(values, default=0) < _QUIET_PEAK and min(values, default=0) > -_QUIET_PEAK


def _faded(samples: bytes) -> bytes:
    values = array("h", samples)
    count = len(values)
    return array("h", (v * (count - i) // count for i, v in enumerate(values))).tobytes()
