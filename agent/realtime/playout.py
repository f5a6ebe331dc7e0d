"""What waits for the phone's clock: Opus packets in, one frame every 20 ms out.

Packets come in by the network's clock and are read by the phone's. Whatever
is wrong with them is repaired here, and nothing waits longer than it must:

- order: reordered packets are put in order, repeats and late ones dropped;
- loss: a gap is filled from the copy in the next packet (FEC) or by libopus'
  guess (PLC), three frames in a row at most, then silence;
- delay: the first packet is played at the next read. Only after packets
  came late is one frame more held back; what is not needed any more is dropped
  again while the agent is silent.

Decides only: no I/O, no clock, no exceptions for anything a peer can send.
"""

from array import array
from collections import deque
from typing import NamedTuple

from agent.audio.frame import FRAME_BYTES, FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ, SILENCE, Frame
from agent.audio.opus import OpusDecoder, OpusError

MOST_WAITING_MS = 400
"""The far end sends in real time, so a backlog is nothing but delay."""

MOST_HELD_MS = 4000
"""While the voice is held on purpose, and until what waited then has been read."""

_RTP_TICKS_PER_MS = 48  # RFC 7587, 4.1: the RTP clock of Opus is always 48 kHz
_JUMP_PACKETS = 50  # one second; a larger step is a new stream, not loss
_LONGEST_GAP_PACKETS = 5  # a longer gap is skipped: filling it would only add delay
_MOST_CONCEALED = 3
_MOST_HOLD_FRAMES = 3
_LONGEST_LATENESS_S = 0.4  # beyond that the sender had paused
_CALM_READS = 250  # 5 s without a late packet: one frame less is held
_DEPTH_WINDOW_READS = 25
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
        undecodable: Packets that are no Opus.
        overflowed: Packets dropped because too much was waiting.
        trimmed: Silent frames dropped to get rid of delay.
        restarts: Times the sequence jumped.
        read_arrival_s: When the packet came that was decoded last.
        is_behind: What was held back is still being read.
    """

    def __init__(self, decoder: OpusDecoder) -> None:
        """Start empty.

        Args:
            decoder: Used by this object alone; whoever made it closes it.
        """
        self._decoder = decoder
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
        self._hold_frames = 0
        self._calm_reads = 0
        self._depths: deque[int] = deque(maxlen=_DEPTH_WINDOW_READS)
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
        self.restarts = 0

    def receive(self, sequence: int, timestamp: int, payload: bytes, arrival_s: float) -> None:
        """Take one packet as it arrived.

        Args:
            sequence: 16 bit RTP sequence number.
            timestamp: 32 bit RTP timestamp, 48 kHz.
            payload: Opus, any duration.
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

    def read(self) -> Frame:
        """Give the next 20 ms; silence when nothing is due. Call it every 20 ms."""
        if self._is_held:
            return SILENCE
        if self.is_behind:
            self._catch_up()
        self._depths.append(len(self._packets))
        self._calm_reads += 1
        if self._hold_frames and self._calm_reads >= _CALM_READS:
            self._calm_reads = 0
            self._hold_frames -= 1
        while len(self._pcm) < FRAME_BYTES:
            if not self._packets:
                return self._read_dry()
            self._dry_reads = 0
            self._is_playing = True
            self._pcm += self._next_samples()
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
        self._depths.clear()
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
        spoken_s = _signed32(timestamp - last_timestamp) / (_RTP_TICKS_PER_MS * 1000)
        if elapsed_s > _LONGEST_LATENESS_S or not 0 <= spoken_s <= _LONGEST_LATENESS_S:
            return
        self._jitter_s += (abs(elapsed_s - spoken_s) - self._jitter_s) / 16
        if self._dry_reads and place == self._next:
            # It was not lost: it missed its read. What was invented meanwhile
            # has delayed the rest by as much, and that is kept for a while.
            self._dry_reads = 0
            self._filled_ahead = 0
            self._calm_reads = 0
            self._hold_frames = min(self._hold_frames + 1, _MOST_HOLD_FRAMES)

    # --- reading

    def _catch_up(self) -> None:
        """Once the held speech was read, the silence that queued behind it is left out."""
        spare = len(self._packets) - 1 - self._hold_frames
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

    def _next_samples(self) -> bytes:
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
        is_late = self.is_behind and self._next in self._packets
        if (is_late or self._has_spare_packet()) and _is_quiet(samples):
            self.trimmed += 1
            self._depths.clear()
            samples = self._decode_next()
        return samples

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
            samples = self._decoder.decode(payload)
        except OpusError:
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
                return self._decoder.recover(next_payload)
            samples = b""
            while len(samples) < self._packet_samples * 2:
                samples += self._decoder.conceal()
        except OpusError:
            return bytes(self._packet_samples * 2)
        samples = samples[: self._packet_samples * 2]
        return _faded(samples) if self._concealed_in_row == _MOST_CONCEALED else samples

    def _has_spare_packet(self) -> bool:
        """More than the next packet has been waiting at every read for a while."""
        return (
            self._next in self._packets
            and len(self._depths) == _DEPTH_WINDOW_READS
            and min(self._depths) > 1 + self._hold_frames
        )


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
