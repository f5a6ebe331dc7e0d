"""The audio of a scripted call: over a bad network, or the caller's own, sent back.

    Media -> RoughPath -> Downlink -> what really leaves, now or later
    caller's RTP -> Echo -> RoughPath

A call without a script has the plain `Media` over the plain `RtpPath`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from aiortc import RTCPeerConnection, RTCRtpTransceiver

from agent.embedded.downlink import Downlink
from agent.embedded.media import Media
from agent.embedded.session import Session
from agent.realtime.codec import Codec
from agent.realtime.rtp_path import OnRtp, RtpPath


def open_media(
    pc: RTCPeerConnection, transceiver: RTCRtpTransceiver, codec: Codec, session: Session
) -> "Media | Echo":
    """Take over the audio of a connected peer, as the session's script wants it.

    Raises:
        RuntimeError: The peer is not connected. The codec is the caller's again.
    """
    stage = session.stage
    if stage is None:
        return Media(partial(RtpPath, pc, transceiver), codec, session)
    open_path = partial(RoughPath, stage.downlink, pc, transceiver)
    return Echo(open_path, codec) if stage.echoes else Media(open_path, codec, session)


class RoughPath(RtpPath):
    """An `RtpPath` whose packets a script may lose, repeat, reorder or hold up.

    Args:
        downlink: Decides; this obeys.
        pc: Connected.
        transceiver: The audio.
        on_rtp: As of `RtpPath`.
    """

    def __init__(
        self,
        downlink: Downlink,
        pc: RTCPeerConnection,
        transceiver: RTCRtpTransceiver,
        on_rtp: OnRtp,
    ) -> None:
        self._downlink = downlink
        self._clock = asyncio.get_running_loop()
        self._late: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(pc, transceiver, on_rtp)

    def transmit(self, packet: bytes) -> bool:
        """Give one packet to the bad network; what becomes of it is no failure."""
        if self._downlink.is_cut:
            self.unplug()
        now_s = self._clock.time()
        self._late += self._downlink.pass_on(packet, now_s)
        self._send_due(now_s)
        return True

    def _send_due(self, now_s: float) -> None:
        while self._late and self._late[0][0] <= now_s:
            super().transmit(self._late.popleft()[1])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._late:
            due_s = self._late[0][0]
            self._timer = self._clock.call_at(due_s, self._send_due, due_s)

    def close(self) -> None:
        """Forget what is late, and give the sockets back. Harmless when repeated."""
        self._late.clear()
        if self._timer is not None:
            self._timer.cancel()
        super().close()


class Echo:
    """Stands where `Media` would: the caller's packets go back at once, as they are."""

    def __init__(self, open_path: Callable[[OnRtp], RtpPath], codec: Codec) -> None:
        self._codec = codec
        self._path = open_path(self._on_rtp)

    def tick(self) -> None:
        """Nothing has to be sent that was not received."""

    def _on_rtp(
        self, sequence: int, timestamp: int, payload_type: int, payload: bytes, arrival_s: float
    ) -> None:
        del sequence, arrival_s
        if payload_type == self._path.payload_type:
            self._path.send(payload, timestamp)

    def counts(self) -> dict[str, int]:
        """Packets so far, by name."""
        return {
            "packets_received": self._path.packets_received,
            "packets_sent": self._path.packets_sent,
        }

    def close(self) -> None:
        """Give the sockets and the codec back. Harmless when repeated."""
        self._path.close()
        self._codec.close()
