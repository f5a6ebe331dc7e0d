"""RTP of one peer connection, in the turn of the loop that has it.

aiortc negotiates, encrypts and keeps the connection; its media path is not
used, because its jitter buffer adds 80 ms (280 ms after one lost packet) and
its codecs cannot be set. Instead::

    send:    RTP header -> SRTP -> the nominated pair's socket, in the caller's turn
    receive: socket -> SRTP -> on_rtp, in the turn the datagram came
    STUN, DTLS, RTCP: to aiortc, as before

This is the only module that may use private names of aiortc, aioice and
pylibsrtp. `check_private_names` finds out at start-up whether they are what
they were in the pinned versions; where they are not, `RtpPath` falls back to a
track of packets and one hooked method, which costs 0.2 % of a core more a call.

Nothing here may raise into the clock that sends or the socket that receives.
"""

import asyncio
import random
import struct
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from types import CodeType
from typing import Any

import pylibsrtp
import structlog
from aioice import ice
from aiortc import (
    MediaStreamTrack,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
    clock,
)
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcrtpreceiver import RTCRtpReceiver, StreamStatistics
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtcsctptransport import RTCSctpTransport
from av.packet import Packet

OnRtp = Callable[[int, int, int, bytes, float], None]

_PINNED = {"aiortc": "1.16.", "aioice": "0.13.", "pylibsrtp": "1.0."}
_HEADER = struct.Struct("!BBHII")
_RTP_HEADER_BYTES = 12
_FIRST_RTCP_TYPE, _LAST_RTCP_TYPE = 192, 223  # RFC 5761, section 4
_CLOCK_PAIR_EVERY_PACKETS = 50
_MOST_SOURCES = 8  # an authenticated peer may invent SSRCs; their statistics stay bounded
_MOST_WAITING_PACKETS = 10
_LOOPBACK = "127.0.0.1"
_CONSENT_FAILURES = 3

_warned: set[str] = set()


def check_private_names() -> list[str]:
    """Find what of the libraries' inside is not as the fast path needs it.

    Returns:
        One line for each name that is missing or version that is not the
        pinned one; empty when the fast path can be used. Cheap, no I/O.
    """
    problems = []
    for package, prefix in _PINNED.items():
        found = version(package)
        if not found.startswith(prefix):
            problems.append(f"{package} is {found}, pinned is {prefix}x")
    kept_in: list[tuple[str, Callable[..., Any], tuple[str, ...]]] = [
        ("RTCDtlsTransport", RTCDtlsTransport.__init__, ("_rx_srtp", "_tx_srtp", "_transport")),
        ("RTCIceTransport", RTCIceTransport.__init__, ("_connection",)),
        ("RTCRtpTransceiver", RTCRtpTransceiver.__init__, ("_codecs",)),
        (
            "RTCRtpSender",
            RTCRtpSender.__init__,
            (
                "_ssrc",
                "_RTCRtpSender__packet_count",
                "_RTCRtpSender__octet_count",
                "_RTCRtpSender__rtp_timestamp",
                "_RTCRtpSender__ntp_timestamp",
            ),
        ),
        ("RTCRtpReceiver", RTCRtpReceiver.__init__, ("_RTCRtpReceiver__remote_streams",)),
        ("Connection", ice.Connection.__init__, ("_nominated", "_protocols")),
        ("CandidatePair", ice.CandidatePair.__init__, ("protocol", "remote_candidate")),
        ("StunProtocol", ice.StunProtocol.connection_made, ("transport",)),
    ]
    for owner, function, names in kept_in:
        stored = _names_in(function.__code__)
        problems += [f"{owner}.{name} is missing" for name in names if name not in stored]
    held: list[tuple[type, str]] = [
        (ice.StunProtocol, "datagram_received"),
        (ice.CandidatePair, "remote_addr"),
        (pylibsrtp.Session, "protect"),
        (pylibsrtp.Session, "unprotect"),
        (StreamStatistics, "add"),
        (RTCRtpReceiver, "_handle_rtp_packet"),
        (RTCRtpReceiver, "_RTCRtpReceiver__stop_decoder"),
        (RTCSctpTransport, "_data_channel_receive"),
    ]
    problems += [f"{o.__name__}.{name} is missing" for o, name in held if not hasattr(o, name)]
    return problems


def gather_loopback_when_alone() -> None:
    """Let ICE use 127.0.0.1 on a machine that has no other address.

    aioice leaves loopback out, so an unplugged laptop has no candidate and
    cannot even talk to the embedded server. Harmless to call again.
    """
    original = getattr(ice, "get_host_addresses", None)
    if original is None or getattr(original, "knows_loopback", False):
        return

    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        found: list[str] = original(use_ipv4, use_ipv6)
        return found or ([_LOOPBACK] if use_ipv4 else [])

    addresses.knows_loopback = True  # type: ignore[attr-defined]
    ice.get_host_addresses = addresses


def notice_lost_peers_sooner() -> None:
    """Give up a peer that has vanished after some 16 s; aioice takes 33 s by itself.

    RFC 7675, 5.1 allows 30 s at most. Nobody on the telephone listens to
    nothing for that long. Harmless to call again.
    """
    ice.CONSENT_FAILURES = min(ice.CONSENT_FAILURES, _CONSENT_FAILURES)


def guard_text_messages(pc: RTCPeerConnection, on_garbage: Callable[[], None]) -> None:
    """Keep a message that is not UTF-8 from ending the connection.

    aiortc 1.16 decodes text where an error closes the DTLS transport, and media
    with it.

    Args:
        pc: Its data channel exists already, or its offer has been set.
        on_garbage: Called for each message that was dropped. Must not raise.
    """
    sctp: Any = pc.sctp
    receive = getattr(sctp, "_data_channel_receive", None)
    if receive is None:
        return

    async def receive_guarded(stream_id: int, pp_id: int, data: bytes) -> None:
        try:
            await receive(stream_id, pp_id, data)
        except (UnicodeDecodeError, struct.error, IndexError, AssertionError):
            on_garbage()

    sctp._data_channel_receive = receive_guarded


class Gathering:
    """The local side of a connection being set up, and the connection being closed: never cut short.

    aioice loses the sockets it has opened if gathering, or closing, is cancelled.
    """

    def __init__(self, pc: RTCPeerConnection) -> None:
        self._pc = pc
        self._running: asyncio.Future[None] | None = None

    async def describe(self, description: RTCSessionDescription) -> None:
        """Set the local description and gather all candidates, to the end even when cancelled."""
        self._running = asyncio.ensure_future(self._pc.setLocalDescription(description))
        await asyncio.shield(self._running)

    async def close(self, timeout_s: float) -> bool:
        """Close the connection once gathering is over; goes on even when cancelled.

        Returns:
            Whether it is closed; False when it took longer and goes on by itself.
        """
        closing = asyncio.ensure_future(self._close())
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(closing)
        except TimeoutError:
            return False
        return True

    async def _close(self) -> None:
        if self._running is not None:
            await asyncio.wait((self._running,))
        await self._pc.close()


class RtpPath:
    """RTP of one audio transceiver, sent and received in the caller's own loop turn.

    Attributes:
        is_fast: Whether the private names could be used.
        payload_type: What was negotiated, the first if several.
        packets_sent, packets_received: Media packets, without RTCP.
        packets_dropped: Not sent, because the connection was down or closed.
        replayed: Repeats that SRTP refused; normal when the network duplicates.
        unprotect_failures: Datagrams that SRTP could not authenticate.
        malformed: Authentic packets whose header lies about its length.
    """

    def __init__(
        self,
        pc: RTCPeerConnection,
        transceiver: RTCRtpTransceiver,
        on_rtp: OnRtp,
        *,
        fast: bool = True,
    ) -> None:
        """Take over the media of a connected peer connection.

        Args:
            pc: Its `connectionState` is "connected".
            transceiver: The audio transceiver, negotiated sendrecv.
            on_rtp: Told sequence, timestamp, payload type, payload and arrival
                (the loop's clock, seconds) of each packet. Must not raise.
            fast: False takes the semi-public path even where the fast one would work.

        Raises:
            RuntimeError: Not connected, or no codec was negotiated.
        """
        if pc.connectionState != "connected":
            raise RuntimeError(f"the peer connection is {pc.connectionState}, not connected")
        codecs = transceiver._codecs
        if not codecs:
            raise RuntimeError("no audio codec was negotiated")
        self._loop = asyncio.get_running_loop()
        self._on_rtp = on_rtp
        self._sender = transceiver.sender
        self._receiver = transceiver.receiver
        self._clock_rate_hz = codecs[0].clockRate
        self.payload_type = int(codecs[0].payloadType or 0)
        self.packets_sent = 0
        self.packets_received = 0
        self.packets_dropped = 0
        self.replayed = 0
        self.unprotect_failures = 0
        self.malformed = 0
        self._octets_sent = 0
        # RFC 3550, 5.1 wants a random start; the lower half keeps clear of an
        # early wrap, which some SRTP stacks survive badly.
        self._sequence = random.randrange(32768)  # noqa: S311
        self._timestamp_origin = random.getrandbits(32)
        self._closed = False
        self._sources: dict[int, StreamStatistics] = {}
        self._header = _ReceivedHeader()
        self._hooked: list[ice.StunProtocol] = []
        # aiortc polls a sender without a track every 20 ms; this one never has anything to say
        # on the fast path, and carries the packets on the other.
        self._track = _PacketTrack(Fraction(1, self._clock_rate_hz))
        self._sender.replaceTrack(self._track)

        problems = check_private_names() if fast else []
        self.is_fast = fast and not problems
        if problems and "fallback" not in _warned:
            _warned.add("fallback")
            structlog.get_logger().warning(
                "! the fast media path is off: these are not the pinned libraries",
                problems=problems,
            )
        if self.is_fast:
            self._attach_fast()
        else:
            self._receiver._handle_rtp_packet = self._receive_parsed  # type: ignore[method-assign]

    def send(self, payload: bytes, timestamp: int, *, marker: bool = False) -> None:
        """Send one packet now. Never raises; dropped and counted when it cannot leave.

        Args:
            payload: One encoded frame.
            timestamp: On the codec's RTP clock; any origin.
            marker: The first packet after silence.
        """
        if self._closed:
            self.packets_dropped += 1
            return
        if not self.is_fast:
            self._track.put(payload, timestamp)
            self.packets_sent += 1
            return
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        rtp_timestamp = (timestamp + self._timestamp_origin) & 0xFFFFFFFF
        header = _HEADER.pack(
            0x80, self.payload_type | (0x80 if marker else 0), sequence, rtp_timestamp, self._ssrc
        )
        try:
            packet = self._protect(header + payload)
        except (ValueError, pylibsrtp.Error):
            self.packets_dropped += 1
            return
        if not self.transmit(packet):
            self.packets_dropped += 1
            return
        self.packets_sent += 1
        self._octets_sent += len(payload)
        self._keep_reports_honest(rtp_timestamp)

    def transmit(self, packet: bytes) -> bool:
        """Put one protected packet on the wire; returns whether it could leave. Never raises."""
        pair = self._nominated.get(1)
        if pair is None or pair.protocol.transport.is_closing():
            return False
        try:
            pair.protocol.transport.sendto(packet, pair.remote_addr)
        except (OSError, RuntimeError, ValueError):
            return False
        return True

    def unplug(self) -> None:
        """Take in nothing more, not even what keeps the connection alive: a pulled cable."""
        for protocol in self._hooked:
            protocol.datagram_received = _ignore  # type: ignore[method-assign,assignment]

    def close(self) -> None:
        """Give the sockets back to aiortc. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        for protocol in self._hooked:
            protocol.__dict__.pop("datagram_received", None)
        self._hooked.clear()
        self._receiver.__dict__.pop("_handle_rtp_packet", None)

    # --- the fast path

    def _attach_fast(self) -> None:
        dtls: Any = self._sender.transport
        connection = dtls.transport._connection
        self._nominated: dict[int, ice.CandidatePair] = connection._nominated
        self._protect: Callable[[bytes], bytes] = dtls._tx_srtp.protect
        self._unprotect: Callable[[bytes], bytes] = dtls._rx_srtp.unprotect
        self._ssrc: int = self._sender._ssrc
        # Every local socket, not just the nominated pair's: a pair nominated
        # later, or a far end that changes its path, is followed without delay.
        for protocol in connection._protocols:
            self._hook(protocol)

    def _hook(self, protocol: ice.StunProtocol) -> None:
        to_aiortc = protocol.datagram_received
        is_new_thread_gone = False

        def datagram_received(data: bytes, addr: tuple[Any, ...]) -> None:
            nonlocal is_new_thread_gone
            if (
                len(data) > _RTP_HEADER_BYTES
                and 128 <= data[0] < 192
                and not _FIRST_RTCP_TYPE <= data[1] <= _LAST_RTCP_TYPE
            ):
                if not is_new_thread_gone:
                    is_new_thread_gone = True
                    self._end_decoder_thread()
                self._receive_protected(data)
            else:
                to_aiortc(data, addr)

        protocol.datagram_received = datagram_received  # type: ignore[method-assign,assignment]
        self._hooked.append(protocol)

    def _end_decoder_thread(self) -> None:
        """Spare the thread that aiortc starts for each receiver to decode what never comes."""
        self._receiver._RTCRtpReceiver__stop_decoder()  # type: ignore[attr-defined]

    def _receive_protected(self, data: bytes) -> None:
        try:
            packet = self._unprotect(data)
        except pylibsrtp.Error as error:
            if "replay" in str(error):
                self.replayed += 1
            else:
                self.unprotect_failures += 1
            return
        except (TypeError, ValueError):
            self.malformed += 1
            return
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(packet)
        start, end = _RTP_HEADER_BYTES, len(packet)
        if first & 0x3F:
            start += 4 * (first & 0x0F)
            if first & 0x10 and start + 4 <= end:
                start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
            if first & 0x20:
                end -= packet[-1]
            if start > end:
                self.malformed += 1
                return
        self.packets_received += 1
        self._note_source(ssrc, sequence, timestamp)
        self._on_rtp(sequence, timestamp, second & 0x7F, packet[start:end], self._loop.time())

    def _note_source(self, ssrc: int, sequence: int, timestamp: int) -> None:
        """Let aiortc's receiver reports tell what really came."""
        statistics = self._sources.get(ssrc)
        if statistics is None:
            if len(self._sources) >= _MOST_SOURCES:
                return
            statistics = StreamStatistics(self._clock_rate_hz)
            self._sources[ssrc] = statistics
            self._receiver._RTCRtpReceiver__remote_streams[ssrc] = statistics  # type: ignore[attr-defined]
        self._header.sequence_number = sequence
        self._header.timestamp = timestamp
        statistics.add(self._header)  # type: ignore[arg-type]

    def _keep_reports_honest(self, rtp_timestamp: int) -> None:
        """Let aiortc's sender reports tell what really went."""
        sender: Any = self._sender
        sender._RTCRtpSender__packet_count = self.packets_sent
        sender._RTCRtpSender__octet_count = self._octets_sent
        if self.packets_sent % _CLOCK_PAIR_EVERY_PACKETS == 1:
            sender._RTCRtpSender__rtp_timestamp = rtp_timestamp
            sender._RTCRtpSender__ntp_timestamp = clock.current_ntp_time()

    # --- the semi-public path

    async def _receive_parsed(self, packet: Any, arrival_time_ms: int) -> None:
        """Stand in for the receiver's jitter buffer; aiortc calls it once a packet."""
        del arrival_time_ms  # another clock than ours
        if self._closed:
            return
        self.packets_received += 1
        self._note_source(packet.ssrc, packet.sequence_number, packet.timestamp)
        self._on_rtp(
            packet.sequence_number,
            packet.timestamp,
            packet.payload_type,
            packet.payload,
            self._loop.time(),
        )


class _ReceivedHeader:
    """The two fields `StreamStatistics.add` reads of a packet."""

    __slots__ = ("sequence_number", "timestamp")

    def __init__(self) -> None:
        self.sequence_number = 0
        self.timestamp = 0


class _PacketTrack(MediaStreamTrack):
    """A track whose frames are already encoded; without any it just waits."""

    kind = "audio"

    def __init__(self, time_base: Fraction) -> None:
        super().__init__()
        self._time_base = time_base
        self._packets: deque[Packet[Any]] = deque(maxlen=_MOST_WAITING_PACKETS)
        self._is_there = asyncio.Event()

    def put(self, payload: bytes, timestamp: int) -> None:
        """Queue one packet; the oldest gives way."""
        packet = Packet(payload)
        packet.pts = timestamp
        packet.time_base = self._time_base
        self._packets.append(packet)
        self._is_there.set()

    async def recv(self) -> "Packet[Any]":
        """Give aiortc's sender its next packet."""
        while not self._packets:
            self._is_there.clear()
            await self._is_there.wait()
        return self._packets.popleft()


def _ignore(data: bytes, addr: tuple[Any, ...]) -> None:
    """Take a datagram in place of what was unplugged."""


def _names_in(code: CodeType) -> frozenset[str]:
    return frozenset(code.co_names)
