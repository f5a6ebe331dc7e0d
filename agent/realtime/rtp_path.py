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
from aioice import ice, stun
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

from agent.realtime.codec import CodecName

NAMES: dict[str, CodecName] = {
    "audio/opus": "opus",
    "audio/pcmu": "pcmu",
    "audio/pcma": "pcma",
}
"""The codecs spoken here, by their MIME types in lower case."""

OnRtp = Callable[[int, int, int, bytes, float], None]

_PINNED = {"aiortc": "1.16.", "aioice": "0.13.", "pylibsrtp": "1.0."}
_HEADER = struct.Struct("!BBHII")
_AIOICE_SERVER_TIMEOUT_S = 5
_SERVER_TIMEOUT_S = 1.5  # a question that was lost is repeated after 0.5 s: RFC 8489, 6.2.1
_MORE_QUESTIONS = 2
"""A single lost datagram is no reason to give somebody up."""
_RTP_HEADER_BYTES = 12
_FIRST_RTCP_TYPE, _LAST_RTCP_TYPE = 192, 223  # RFC 5761, section 4
_CLOCK_PAIR_EVERY_PACKETS = 50
_MOST_SOURCES = 8  # an authenticated peer may invent SSRCs; their statistics stay bounded
_MOST_WAITING_PACKETS = 10
_MOST_DROPOUT = 3000  # RFC 3550, A.1: a larger step is a new count
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
        (ice.Connection, "build_request"),
        (ice.StunProtocol, "datagram_received"),
        (ice.StunProtocol, "request"),
        (ice.CandidatePair, "remote_addr"),
        (pylibsrtp.Session, "protect"),
        (pylibsrtp.Session, "unprotect"),
        (StreamStatistics, "packets_expected"),
        (StreamStatistics, "fraction_lost"),
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


def pass_by_silent_servers() -> None:
    """Gather without a STUN or TURN server that says nothing for a second and a half.

    aioice waits five seconds for it, and the caller's telephone rings so long. Our
    own addresses are gathered anyway, and mostly enough. Harmless to call again.
    """
    gather = getattr(ice.Connection, "get_component_candidates", None)
    if gather is not None and gather.__defaults__ == (_AIOICE_SERVER_TIMEOUT_S,):
        gather.__defaults__ = (_SERVER_TIMEOUT_S,)


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
        codecs: What was negotiated, payload type to name ("opus"), in our order of preference:
            the far end may send any of them.
        payload_type: The first of them, which is sent.
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
        self._loop = asyncio.get_running_loop()
        self._on_rtp = on_rtp
        self._sender = transceiver.sender
        self._receiver = transceiver.receiver
        self._clock_rates_hz = {int(codec.payloadType or 0): codec.clockRate for codec in codecs}
        self.codecs: dict[int, CodecName] = {
            int(codec.payloadType or 0): NAMES[codec.mimeType.lower()]
            for codec in codecs
            if codec.mimeType.lower() in NAMES
        }
        if not self.codecs:
            raise RuntimeError("no audio codec was negotiated that is spoken here")
        self.payload_type = next(iter(self.codecs))
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
        self._sources: dict[int, _ReceivedStream] = {}
        self._hooked: list[ice.StunProtocol] = []
        # aiortc polls a sender without a track every 20 ms; this one never has anything to say
        # on the fast path, and carries the packets on the other.
        self._track = _PacketTrack(Fraction(1, codecs[0].clockRate))
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

    async def is_answered(self) -> bool:
        """Ask the far end for a sign of life; three times within 3.5 s, if it must be.

        True also where the private names cannot be used, and nobody can be asked.
        """
        if not self.is_fast or self._closed:
            return True
        dtls: Any = self._sender.transport
        connection: ice.Connection = dtls.transport._connection
        pair, password = self._nominated.get(1), connection.remote_password
        if pair is None or password is None:
            return False
        request = connection.build_request(pair, nominate=False)
        try:
            await pair.protocol.request(
                request,
                pair.remote_addr,
                integrity_key=password.encode(),
                retransmissions=_MORE_QUESTIONS,
            )
        except stun.TransactionFailed:
            return True  # an error, but an answer
        except (stun.TransactionError, OSError, RuntimeError):
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
        arrival_s = self._loop.time()
        payload_type = second & 0x7F
        self._note_source(ssrc, payload_type, sequence, timestamp, arrival_s)
        self._on_rtp(sequence, timestamp, payload_type, packet[start:end], arrival_s)

    def _note_source(
        self, ssrc: int, payload_type: int, sequence: int, timestamp: int, arrival_s: float
    ) -> None:
        """Let aiortc's receiver reports tell what really came."""
        stream = self._sources.get(ssrc)
        if stream is None:
            clock_rate_hz = self._clock_rates_hz.get(payload_type)
            if clock_rate_hz is None or len(self._sources) >= _MOST_SOURCES:
                return
            stream = _ReceivedStream(clock_rate_hz)
            self._sources[ssrc] = stream
            self._receiver._RTCRtpReceiver__remote_streams[ssrc] = stream  # type: ignore[attr-defined]
        stream.note(sequence, timestamp, arrival_s)

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
        arrival_s = self._loop.time()
        kind, sequence, timestamp = packet.payload_type, packet.sequence_number, packet.timestamp
        self._note_source(packet.ssrc, kind, sequence, timestamp, arrival_s)
        self._on_rtp(sequence, timestamp, kind, packet.payload, arrival_s)


class _ReceivedStream(StreamStatistics):
    """One source of RTP as aiortc's receiver reports tell of it (RFC 3550, 6.4.1, A.3, A.8).

    aiortc counts by the wall clock, which may jump; takes a wrapped timestamp for hours
    of jitter; and a source that starts to count anew for thousands of losses.
    """

    def __init__(self, clock_rate_hz: int) -> None:
        super().__init__(clock_rate_hz)
        self._rate_hz = clock_rate_hz
        self._transit = 0
        self._stranger = -1
        """The sequence that would prove a new count, after one from far away."""

    def note(self, sequence: int, timestamp: int, arrival_s: float) -> None:
        """Count one packet."""
        last = self.max_seq
        step = 0 if last is None else ((sequence - last + 0x8000) & 0xFFFF) - 0x8000
        if abs(step) > _MOST_DROPOUT and sequence != self._stranger:
            self._stranger = (sequence + 1) & 0xFFFF
            return
        transit = int(arrival_s * self._rate_hz) - timestamp
        if last is None or abs(step) > _MOST_DROPOUT:
            self._begin(sequence)
            self._transit = transit
        elif step > 0:
            self.cycles += 0x10000 if sequence < last else 0
            self.max_seq = sequence
            self._note_jitter(transit)
        self._stranger = -1
        self.packets_received += 1

    def _begin(self, sequence: int) -> None:
        """Count anew; what was lost before stays lost."""
        lost = self.packets_expected - self.packets_received if self.max_seq is not None else 0
        self.cycles = 0
        self.max_seq = sequence
        self.base_seq = sequence - lost - self.packets_received

    def _note_jitter(self, transit: int) -> None:
        change = ((transit - self._transit + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        self._transit = transit
        # A source that paused, or moved its clock, was not late.
        if abs(change) < self._rate_hz:
            self._jitter_q4 += abs(change) - ((self._jitter_q4 + 8) >> 4)


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
