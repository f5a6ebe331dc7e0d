"""One Realtime call: from the offer to the end, told top to bottom.

    offer -> answer -> connected -> media and events -> somebody ends it -> closed

The peer connection is aiortc's; its private names stay in
`agent.realtime.rtp_path`. Nothing of a call outlives `run`.
"""

import asyncio
import re
from collections.abc import Callable
from datetime import datetime

import structlog
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError

from agent.embedded.codec import first_spoken
from agent.embedded.engines import Engines
from agent.embedded.media import Media, Pacer
from agent.embedded.protocol import JsonObject
from agent.embedded.scripted_media import Echo, open_media
from agent.embedded.session import Session
from agent.embedded.trace import SessionTrace
from agent.realtime.codec import CodecName, open_codec
from agent.realtime.rtp_path import Gathering, guard_text_messages

log = structlog.get_logger()

_CONNECT_TIMEOUT_S = 20
_CLOSE_TIMEOUT_S = 3
# A client that reads nothing for this much is gone, or as good as.
_MOST_UNREAD_BYTES = 2 * 1024 * 1024
# What aiortc's parser and negotiation throw at a description that makes no sense.
_BAD_OFFER = (
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    AssertionError,
    InvalidAccessError,
    InvalidStateError,
    OperationError,
)


class InvalidOffer(Exception):
    """The SDP offer cannot be answered; the text says why."""


class RealtimeCall:
    """One client's WebRTC call. `accept` the offer, then `run` until it is over.

    Args:
        call_id: `rtc_u0_...`, as in the Location header.
        config: The session object as merged from the offer.
        engines: Shared.
        pacer: Shared.
        limit_s: How long it may last.
        trace: Told what is said, and the end.

    Attributes:
        session: For a sideband.
    """

    def __init__(
        self,
        call_id: str,
        config: JsonObject,
        engines: Engines,
        pacer: Pacer,
        *,
        limit_s: float,
        trace: SessionTrace | None = None,
    ) -> None:
        self.call_id = call_id
        self._limit_s = limit_s
        self._pacer = pacer
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._gathering = Gathering(self._pc)
        self._transceiver: RTCRtpTransceiver | None = None
        self._codec: CodecName = "opus"
        self._channel: RTCDataChannel | None = None
        self._is_running = False
        self._connected = asyncio.Event()
        self._ended = asyncio.Event()
        self._why = ""
        self._media: Media | Echo | None = None
        self._trace = trace
        self.session = Session(engines, config, self._send, local_time, trace=trace)
        self._watchers: set[Callable[[str], None]] = set()

    async def accept(self, sdp: str) -> str:
        """Answer the offer.

        Args:
            sdp: With its final line break, all candidates in it.

        Returns:
            The SDP answer, lines ended by CRLF.

        Raises:
            InvalidOffer: It is no SDP, or has no audio in a codec spoken here. The call is closed.
        """
        self._pc.on("connectionstatechange", self._on_connection_state)
        self._pc.on("datachannel", self._on_channel)
        try:
            answer = await self._negotiate(sdp)
        except _BAD_OFFER as error:
            await self._close_peer()
            raise InvalidOffer("The SDP offer could not be understood.") from error
        except BaseException:
            await self._close_peer()
            raise
        guard_text_messages(self._pc, self.session.refuse_garbage)
        return answer

    async def _negotiate(self, sdp: str) -> str:
        if not sdp.startswith("v=0") or not sdp.endswith("\n"):
            raise InvalidOffer("The SDP offer must begin with v=0 and end with a line break.")
        if "a=fingerprint:" not in sdp:
            raise InvalidOffer("The SDP offer has no fingerprint.")
        # Before the offer is set: aiortc chooses the codecs while it reads it.
        audio = self._pc.addTransceiver("audio", direction="sendrecv")
        codec = first_spoken(sdp)
        if codec is None:
            raise InvalidOffer("The SDP offer has no audio in Opus, PCMU or PCMA.")
        if not _has_what_it_bundles(sdp):
            raise InvalidOffer("The SDP offer bundles a media section that it does not have.")
        self._codec = codec
        known = RTCRtpSender.getCapabilities("audio").codecs
        audio.setCodecPreferences([k for k in known if k.mimeType.lower() == f"audio/{codec}"])
        await self._pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        if audio.mid is None:
            raise InvalidOffer("The SDP offer has no audio.")
        for transceiver in self._pc.getTransceivers():
            if transceiver is not audio:
                transceiver.direction = "inactive"
        self._transceiver = audio
        stage = self.session.stage
        if stage is not None and not stage.opens_channel and self._pc.sctp is not None:
            self._pc.sctp.start = _never  # type: ignore[method-assign, assignment]
        await self._gathering.describe(await self._pc.createAnswer())
        answer = self._pc.localDescription.sdp
        return "\r\n".join(answer.splitlines()) + "\r\n"

    async def run(self) -> None:
        """Carry the call to its end. Raises nothing but cancellation."""
        try:
            await self._carry()
        except Exception:
            self._why = self._why or "internal error"
            log.exception("! the call broke", realtime_call_id=self.call_id)
        finally:
            await self._close()

    async def _carry(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._connected.wait()
        except TimeoutError:
            self.end("never connected")
            return
        if self._ended.is_set() or self._transceiver is None:
            return
        running = asyncio.create_task(self.session.run())
        ended = asyncio.create_task(self._ended.wait())
        try:
            self._is_running = True
            if self._channel is not None:
                self.session.opened()
            # The session's own tasks begin with it; let it enter before audio arrives.
            await asyncio.sleep(0)
            codec = open_codec(self._codec)
            self._media = open_media(self._pc, self._transceiver, codec, self.session)
            self._pacer.add(self._tick)
            log.debug("= realtime call connected", realtime_call_id=self.call_id)
            done, _ = await asyncio.wait(
                (running, ended), timeout=self._limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            if running in done:
                running.result()
            elif not done:
                self.session.expire(self._limit_s)
                self.end("session expired")
        finally:
            for task in (running, ended):
                task.cancel()
            await asyncio.gather(running, ended, return_exceptions=True)

    def end(self, why: str) -> None:
        """End the call. Harmless when repeated; the first reason stays."""
        self._why = self._why or why
        self._ended.set()
        self._connected.set()

    def on_end(self, told: Callable[[str], None]) -> Callable[[], None]:
        """Tell a sideband why the call has ended, or is ending; returns what calls that off."""
        self._watchers.add(told)
        if self._ended.is_set():
            told(self._why)
        return lambda: self._watchers.discard(told)

    def _tick(self) -> None:
        assert self._media is not None
        try:
            self._media.tick()
        except Exception:
            # The pacer is everyone's: one broken call must not silence the others.
            log.exception("! the call broke", realtime_call_id=self.call_id)
            self._pacer.remove(self._tick)
            self.end("internal error")

    def _send(self, text: str) -> None:
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return
        if channel.bufferedAmount > _MOST_UNREAD_BYTES:
            self.end("the client reads no events")
            return
        try:
            channel.send(text)
        except (InvalidStateError, ValueError):
            # ValueError: longer than the peer's max-message-size.
            log.warning("! an event could not be sent", chars=len(text))

    def _on_connection_state(self) -> None:
        state = self._pc.connectionState
        if state == "connected":
            self._connected.set()
        elif state in {"failed", "closed"}:
            self.end(f"connection {state}")

    def _on_channel(self, channel: RTCDataChannel) -> None:
        # With two channels the last one is used, as by the service.
        self._channel = channel
        channel.on("close", lambda: self._on_channel_closed(channel))
        if self._is_running:
            self.session.opened()
        # What comes sooner than the session runs is kept there until it does.
        channel.on("message", self._on_message)

    def _on_channel_closed(self, channel: RTCDataChannel) -> None:
        if channel is self._channel:
            self.end("data channel closed")

    def _on_message(self, message: object) -> None:
        try:
            self.session.receive(message if isinstance(message, str) else "")
        except Exception:
            log.exception("! the call broke", realtime_call_id=self.call_id)
            self.end("internal error")

    async def _close(self) -> None:
        self._ended.set()
        self._pacer.remove(self._tick)
        for told in tuple(self._watchers):
            told(self._why)
        if self._trace is not None:
            self._trace.ended(self._why, **(self._media.counts() if self._media else {}))
        if self._media is not None:
            self._media.close()
        await self._close_peer()
        log.debug("x realtime call ended", realtime_call_id=self.call_id, reason=self._why)

    async def _close_peer(self) -> None:
        if not await self._gathering.close(_CLOSE_TIMEOUT_S):
            log.warning("! the peer connection did not close in time")


def _has_what_it_bundles(sdp: str) -> bool:
    """Whether aiortc finds a transport for every section (RFC 9143, 7.1); it breaks where not."""
    groups = re.findall(r"^a=group:BUNDLE(.*)$", sdp, re.MULTILINE)
    sections = re.split(r"^m=", sdp, flags=re.MULTILINE)[1:]
    # As aiortc reads it: the last mid of a section counts.
    mids = [re.findall(r"^a=mid:(\S+)", section, re.MULTILINE)[-1:] for section in sections]
    return {mid for group in groups for mid in group.split()} <= {
        mid for one in mids for mid in one
    }


async def _never(*_: object) -> None:
    """Leave SCTP unopened, as a script may want it."""


def local_time() -> datetime:
    """What the clock on the wall shows."""
    return datetime.now().astimezone()
