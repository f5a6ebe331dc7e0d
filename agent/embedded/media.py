"""The audio of one peer: RTP packets in and out, 20 ms at a time.

    RtpPath -> decode, conceal what is missing -> session.hear
    Pacer -> session.next_frame -> encode -> RtpPath

One pacer serves all sessions: 50 packets a second each, silence when nobody
speaks, as the far end's jitter buffer wants it. Nothing here may block or take
longer than a packet; what a packet means is the session's affair.
"""

import asyncio
from collections.abc import Callable

from agent.audio.frame import FRAME_MS, SILENCE
from agent.embedded.session import Session
from agent.realtime.codec import Codec, CodecError
from agent.realtime.rtp_path import OnRtp, RtpPath

_MOST_CONCEALED = 5
_HALF_SEQUENCE = 0x8000
# Without packets for this long, the caller's silence is ours to count.
_SILENT_AFTER_S = 0.1
_FRAME_S = FRAME_MS / 1000
# After a stall this long the schedule starts anew: a burst of old packets helps nobody.
_STALL_S = 0.2


class Pacer:
    """The clock of all downlinks: calls every tick 50 times a second."""

    def __init__(self) -> None:
        self._ticks: set[Callable[[], None]] = set()

    def add(self, tick: Callable[[], None]) -> None:
        """Call this from now on. It must not raise."""
        self._ticks.add(tick)

    def remove(self, tick: Callable[[], None]) -> None:
        """Call it no more. Harmless when repeated."""
        self._ticks.discard(tick)

    async def run(self) -> None:
        """Tick until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s += _FRAME_S
            late_s = loop.time() - due_s
            if late_s > _STALL_S:
                due_s = loop.time()
            await asyncio.sleep(max(0.0, -late_s))
            for tick in tuple(self._ticks):
                tick()


class Media:
    """One peer's audio, from "connected" to close.

    Attributes:
        packets_lost: Concealed uplink packets.
        packets_bad: Uplink payloads that are not of the negotiated codec.

    Args:
        open_path: Takes over the RTP of a connected peer.
        codec: As negotiated; closed with this.
        session: Hears and speaks.

    Raises:
        RuntimeError: The peer is not connected. The codec is the caller's again.
    """

    def __init__(
        self, open_path: Callable[[OnRtp], RtpPath], codec: Codec, session: Session
    ) -> None:
        self._session = session
        self._codec = codec
        self._loop = asyncio.get_running_loop()
        self._next_sequence: int | None = None
        self._last_arrival_s = self._loop.time()
        self._timestamp = 0
        self.packets_lost = 0
        self.packets_bad = 0
        self._path = open_path(self._on_rtp)

    def tick(self) -> None:
        """Send the next 20 ms, and count the caller's silence when nothing arrives."""
        if self._loop.time() - self._last_arrival_s > _SILENT_AFTER_S:
            self._session.hear(SILENCE)
        payload = self._codec.encode(self._session.next_frame())
        self._path.send(payload, self._timestamp)
        self._timestamp += self._codec.ticks_per_frame

    def _on_rtp(
        self, sequence: int, timestamp: int, payload_type: int, payload: bytes, arrival_s: float
    ) -> None:
        del timestamp  # order and loss are told by the sequence alone
        if payload_type != self._path.payload_type:
            self.packets_bad += 1
            return
        self._last_arrival_s = arrival_s
        missing = 0
        if self._next_sequence is not None:
            missing = (sequence - self._next_sequence) & 0xFFFF
            if missing >= _HALF_SEQUENCE:
                return
        self._next_sequence = (sequence + 1) & 0xFFFF
        if missing <= _MOST_CONCEALED:
            for _ in range(missing):
                self.packets_lost += 1
                self._session.hear(self._codec.conceal())
        try:
            pcm = self._codec.decode(payload)
        except CodecError:
            self.packets_bad += 1
            pcm = SILENCE
        self._session.hear(pcm)

    def counts(self) -> dict[str, int]:
        """Packets so far, by name."""
        return {
            "packets_received": self._path.packets_received,
            "packets_lost": self.packets_lost,
            "packets_sent": self._path.packets_sent,
        }

    def close(self) -> None:
        """Give the sockets and the codec back. Harmless when repeated."""
        self._path.close()
        self._codec.close()
