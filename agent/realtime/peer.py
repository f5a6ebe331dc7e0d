"""One WebRTC connection to the model: an audio line and a channel for events.

    offer -> (someone carries it) -> accept -> ready -> RTP and text, both ways

aiortc does SDP, ICE, DTLS and SCTP; media passes by it in `rtp_path`. Nothing
is decided here about what is said: RTP and text are handed on as they come.
Handlers run inside aiortc's receive loop and must not raise.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError

from agent.realtime.codec import CodecName
from agent.realtime.pulse import until_gone
from agent.realtime.rtp_path import (
    NAMES,
    Gathering,
    OnRtp,
    RtpPath,
    guard_text_messages,
    pass_by_silent_servers,
)
from agent.realtime.settings import IceServerSettings

CHANNEL_LABEL = "oai-events"

_AUDIO = re.compile(r"m=audio \d+ \S+ ([\d ]+)")
_STATIC_CODECS = {"0": "PCMU/8000", "8": "PCMA/8000"}

_CLOSE_TIMEOUT_S = 2
_MOST_UNSENT_BYTES = 1_000_000
# What aiortc's SDP parser and negotiation raise for an answer that makes no sense.
_ANSWER_ERRORS = (
    ValueError,
    AssertionError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    InvalidAccessError,
    InvalidStateError,
    OperationError,
)


class PeerError(Exception):
    """The connection cannot be made, or was lost while it was being made."""


class Peer:
    """A connection to the model. Made by `open_peer`.

    Attributes:
        path: RTP's way, once connected.
        unreadable: Messages that were not UTF-8 text.
        unsent: Messages that could not be sent.
    """

    def __init__(
        self,
        pc: RTCPeerConnection,
        on_rtp: OnRtp,
        on_text: Callable[[str], None],
        on_lost: Callable[[str], None],
        codecs: Sequence[CodecName],
        *,
        fast: bool,
    ) -> None:
        """Prepare the line and the channel; nothing is sent before the answer."""
        self._pc = pc
        self._on_rtp = on_rtp
        self._on_text = on_text
        self._on_lost = on_lost
        self._fast = fast
        self._lost_reason = ""
        self._is_closing = False
        self._gathering = Gathering(pc)
        self._changed = asyncio.Event()
        self.path: RtpPath | None = None
        self._pulse: asyncio.Task[None] | None = None
        self.unreadable = 0
        self.unsent = 0
        self._transceiver = pc.addTransceiver("audio", direction="sendrecv")
        known = RTCRtpSender.getCapabilities("audio").codecs
        by_name = {NAMES.get(codec.mimeType.lower()): codec for codec in known}
        self._transceiver.setCodecPreferences([by_name[name] for name in codecs])
        # Before the offer, so that the offer has it; the far end looks for this label.
        self._channel = pc.createDataChannel(CHANNEL_LABEL)
        guard_text_messages(pc, self._note_unreadable)
        self._channel.on("open", self._changed.set)
        self._channel.on("message", self._receive)
        self._channel.on("close", lambda: self._lose("the data channel was closed"))
        pc.on("connectionstatechange", self._follow_state)

    @property
    def waiting_for(self) -> str:
        """What `ready` still waits for, in words that help whoever is called at night."""
        if self._pc.iceConnectionState != "completed":
            return "no way through to the far end was found (UDP must be able to leave)"
        if self.path is None:
            return "the encryption (DTLS) was not agreed"
        return "the data channel did not open"

    async def offer(self) -> str:
        """Gather candidates and describe our side.

        Returns:
            SDP that ends in CRLF; a trimmed one is refused.
        """
        await self._gathering.describe(await self._pc.createOffer())
        return self._pc.localDescription.sdp

    async def accept(self, answer: str) -> None:
        """Take the far end's SDP and start to connect.

        Raises:
            PeerError: It makes no sense.
        """
        try:
            sdp = name_static_codecs(answer)
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="answer"))
        except _ANSWER_ERRORS as error:
            raise PeerError(f"the SDP answer makes no sense ({type(error).__name__})") from error

    async def ready(self) -> None:
        """Wait until audio can flow and the channel is open.

        Raises:
            PeerError: The connection failed instead.
        """
        while self.path is None or self._channel.readyState != "open":
            if self._lost_reason:
                raise PeerError(self._lost_reason)
            self._changed.clear()
            await self._changed.wait()

    def send_text(self, text: str) -> None:
        """Send one event. Never raises; counted when it cannot be sent."""
        if self._channel.bufferedAmount > _MOST_UNSENT_BYTES:
            self.unsent += 1
            return
        try:
            self._channel.send(text)
        except (InvalidStateError, ValueError, ConnectionError):
            self.unsent += 1

    async def close(self) -> None:
        """Close everything, within two seconds."""
        self._is_closing = True
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        if self.path is not None:
            self.path.close()
        if not await self._gathering.close(_CLOSE_TIMEOUT_S):
            structlog.get_logger().warning("! the peer connection did not close in time")

    def _follow_state(self) -> None:
        state = self._pc.connectionState
        if state == "connected" and self.path is None:
            try:
                self.path = RtpPath(self._pc, self._transceiver, self._on_rtp, fast=self._fast)
            except RuntimeError as error:
                self._lose(str(error))
            else:
                self._pulse = asyncio.create_task(self._feel_pulse(self.path))
        elif state == "failed" and self._pc.iceConnectionState == "failed" and self.path is None:
            self._lose(self.waiting_for)
        elif state in ("failed", "closed"):
            self._lose("the connection was lost" if self.path else "the connection failed")
        self._changed.set()

    async def _feel_pulse(self, path: RtpPath) -> None:
        await until_gone(lambda: path.packets_received, path.is_answered)
        self._lose("the far end fell silent and does not answer")

    def _receive(self, message: object) -> None:
        if isinstance(message, str):
            self._on_text(message)
        else:
            self._note_unreadable()

    def _note_unreadable(self) -> None:
        self.unreadable += 1

    def _lose(self, reason: str) -> None:
        if self._lost_reason or self._is_closing:
            return
        self._lost_reason = reason
        self._changed.set()
        self._on_lost(reason)


def name_static_codecs(sdp: str) -> str:
    """Add what an answer may leave out and aiortc needs: `a=rtpmap` of PCMU and PCMA.

    Source: RFC 3551, 6 (their payload types are fixed), RFC 8866, 6.6 (rtpmap may be absent).
    """
    sections = re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)
    for number, section in enumerate(sections):
        audio = _AUDIO.match(section)
        if audio is None:
            continue
        missing = [
            f"a=rtpmap:{kind} {_STATIC_CODECS[kind]}\r\n"
            for kind in audio.group(1).split()
            if kind in _STATIC_CODECS and f"a=rtpmap:{kind} " not in section
        ]
        sections[number] = section.rstrip("\r\n") + "\r\n" + "".join(missing)
    return "".join(sections)


@asynccontextmanager
async def open_peer(
    ice_servers: Sequence[IceServerSettings],
    on_rtp: OnRtp,
    on_text: Callable[[str], None],
    on_lost: Callable[[str], None],
    codecs: Sequence[CodecName],
    *,
    fast: bool = True,
) -> AsyncIterator[Peer]:
    """Hold one peer connection; close it however the block is left.

    Args:
        ice_servers: STUN and TURN; normally none, the far end has public addresses.
        on_rtp: Told of every packet, see `RtpPath`.
        on_text: Told of every text message of the channel.
        on_lost: Told once, with the reason, when the connection ends by itself.
        codecs: What is offered, in this order.
        fast: See `RtpPath`.

    Raises:
        PeerError: An ICE server's URL cannot be used.
    """
    pass_by_silent_servers()
    configuration = RTCConfiguration(
        iceServers=[
            RTCIceServer(
                urls=list(server.urls),
                username=server.username,
                credential=server.credential.get_secret_value() if server.credential else None,
            )
            for server in ice_servers
        ],
        bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
    )
    try:
        peer = Peer(RTCPeerConnection(configuration), on_rtp, on_text, on_lost, codecs, fast=fast)
    except ValueError as error:
        raise PeerError(f"realtime.ice_servers cannot be used: {error}") from error
    try:
        yield peer
    finally:
        await peer.close()
