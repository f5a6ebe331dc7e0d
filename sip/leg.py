"""One caller's side of a call: an INVITE, its dialog and its audio.

    INVITE -> offered -> answer() -> 200, ACK, media -> hang_up() | BYE -> closed()

PJSIP's callbacks run on the event loop but inside PJSIP; they read what happened
and post it. Everything else runs from the posted steps or from the call's own
task. Nothing here may let an exception into a callback, or drop a PJSIP object
that could still be called.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import pjsua2 as pj
import structlog

from agent.call.ports import CallOffer, LegClosed, LineRefused, MediaPort
from agent.call.records import Ending
from sip.caller_port import CallerPort
from sip.handover import Handover
from sip.rtp_guard import RtpGuard
from sip.rtp_watch import RtpWatch, Verdict
from sip.sdp import audio_address, keep_codecs
from sip.stack import SipStack

log = structlog.get_logger()

_HOLDS = (pj.PJSUA_CALL_MEDIA_LOCAL_HOLD, pj.PJSUA_CALL_MEDIA_REMOTE_HOLD)

_FAULT = Ending("trunkline", "internal error")
_TRANSFERRED = Ending("agent", "transferred")

_ADDRESS = re.compile(r'(sips?|tel):[^\s<>"]{1,255}')
_KEYS = frozenset("0123456789*#ABCD")  # RFC 4733, 3.2
_MOST_DIGITS = 64
_TRANSFER_TIMEOUT_S = 45.0
"""A telephone may ring for half a minute before somebody or a mailbox answers."""


def call_parameters(status: int = 0) -> pj.CallOpParam:
    """PJSIP's parameters for a call with one audio stream and nothing else."""
    parameters = pj.CallOpParam(True)
    parameters.statusCode = status
    parameters.opt.audioCount = 1
    parameters.opt.videoCount = 0
    if hasattr(parameters.opt, "textCount"):  # from PJSIP 2.16 on
        parameters.opt.textCount = 0
    return parameters


def ending_of(status: int, *, answered: bool, confirmed: bool) -> Ending:
    """Say in a few words how a dialog ended that we did not end.

    Args:
        status: PJSIP's last status code of the call.
        answered: We sent a 200.
        confirmed: The ACK came.
    """
    if confirmed:
        if status == pj.PJSIP_SC_REQUEST_TIMEOUT:
            return Ending("trunkline", "the caller stopped answering")
        return Ending("caller", "hung up")
    if status == pj.PJSIP_SC_NOT_ACCEPTABLE_HERE:
        return Ending("trunkline", "no common codec")
    if answered and status != pj.PJSIP_SC_REQUEST_TERMINATED:
        return Ending("caller", "never acknowledged the answer")
    return Ending("caller", "cancelled")


class PjCall(pj.Call):  # type: ignore[misc]
    """PJSIP's call object. Its callbacks read, post, and let nothing out."""

    def __init__(self, account: pj.Account, pj_call_id: int, stack: SipStack) -> None:
        super().__init__(account, pj_call_id)
        self._stack = stack
        self.forget()

    def forget(self) -> None:
        """Tell nobody any more.

        No cycle may keep this object for the garbage collector: deleted after
        PJSIP has stopped, it would end the process.
        """
        self.on_state: Callable[[int, int, str], None] = lambda *_: None
        self.on_media: Callable[[int, int, str], None] = lambda *_: None
        self.on_sdp: Callable[[str, str], str] = lambda ours, _: ours
        self.on_last_look: Callable[[], object] = lambda: None
        self.on_digit: Callable[[str], None] = lambda _: None
        self.on_transfer: Callable[[int, str, bool], None] = lambda *_: None
        self.on_fault: Callable[[Exception], None] = lambda _: None

    def onCallState(self, _: Any) -> None:  # noqa: N802
        """Post state, last status and reason of the dialog."""
        try:
            info = self.getInfo()
            if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
                self._stack.slot_ended(info.id, self)
            facts = (info.state, info.lastStatusCode, info.lastReason)
            self._stack.post(partial(self.on_state, *facts))
        except Exception as fault:  # noqa: BLE001 - it would end the process; the leg logs it
            self._fault(fault)

    def onCallMediaState(self, _: Any) -> None:  # noqa: N802
        """Post index and status of the audio stream and where its RTP comes from."""
        try:
            # `info` must stay in a variable: members of a temporary are freed memory.
            info = self.getInfo()
            for media in info.media:
                if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status != pj.PJSUA_CALL_MEDIA_NONE:
                    remote = ""
                    if media.status in (pj.PJSUA_CALL_MEDIA_ACTIVE, *_HOLDS):
                        remote = self.getStreamInfo(media.index).remoteRtpAddress
                    facts = (media.index, media.status, remote)
                    self._stack.post(partial(self.on_media, *facts))
                    return
        except Exception as fault:  # noqa: BLE001 - as above
            self._fault(fault)

    def onStreamDestroyed(self, _: Any) -> None:  # noqa: N802
        """Let the leg read the statistics; before DISCONNECTED is reported they are gone."""
        try:
            self.on_last_look()
        except Exception as fault:  # noqa: BLE001 - as above
            self._fault(fault)

    def onCallSdpCreated(self, prm: Any) -> None:  # noqa: N802
        """Show the leg our SDP and the caller's, and send what it makes of ours."""
        try:
            ours = prm.sdp.wholeSdp
            changed = self.on_sdp(ours, prm.remSdp.wholeSdp)
            if changed != ours:
                prm.sdp.wholeSdp = changed
        except Exception as fault:  # noqa: BLE001 - as above
            self._fault(fault)

    def onDtmfDigit(self, prm: Any) -> None:  # noqa: N802
        """Post a key of the caller: RFC 4733, or INFO (application/dtmf-relay)."""
        try:
            self._stack.post(partial(self.on_digit, prm.digit))
        except Exception as fault:  # noqa: BLE001 - as above
            self._fault(fault)

    def onCallTransferStatus(self, prm: Any) -> None:  # noqa: N802
        """Post what the far end tells of a transfer we asked for."""
        try:
            facts = (prm.statusCode, prm.reason, bool(prm.finalNotify))
            self._stack.post(partial(self.on_transfer, *facts))
        except Exception as fault:  # noqa: BLE001 - as above
            self._fault(fault)

    def onCallTransferRequest(self, prm: Any) -> None:  # noqa: N802
        """Refuse a REFER: unanswered, PJSIP calls whomever the caller names, at our cost."""
        prm.statusCode = pj.PJSIP_SC_DECLINE

    def onCallReplaceRequest(self, prm: Any) -> None:  # noqa: N802
        """Refuse an INVITE with Replaces: PJSIP would answer it with a call nobody carries."""
        prm.statusCode = pj.PJSIP_SC_DECLINE

    def _fault(self, fault: Exception) -> None:
        self._stack.post(lambda: self.on_fault(fault))


class SipLeg:
    """An incoming call. Satisfies `agent.call.ports.CallerLeg`.

    Attributes:
        offer: What the INVITE said.
        agent_name: The agent its number is routed to; None for the default one.
    """

    def __init__(
        self,
        stack: SipStack,
        pj_call: PjCall,
        offer: CallOffer,
        *,
        source_ip: str,
        codecs: tuple[str, ...],
        no_rtp_timeout_s: float,
        on_closed: Callable[["SipLeg"], None],
    ) -> None:
        """Take over a PJSIP call that was just created. Called inside a callback."""
        self.offer = offer
        self.agent_name: str | None = None
        self._stack = stack
        self._loop = asyncio.get_running_loop()
        self._log = log.bind(call_id=offer.call_id)
        self._call: PjCall | None = pj_call
        self._codecs = codecs
        self._guard = RtpGuard(source_ip)
        self._watch = RtpWatch(no_rtp_timeout_s)
        self._on_closed = on_closed
        self._media: MediaPort | None = None
        self._port: CallerPort | None = None
        self._stream: int | None = None
        self._audio_is_up = False
        self._on_hold = False
        self._answered = False
        self._confirmed = False
        self._intended: Ending | None = None
        self._ending: Ending | None = None
        self._last_quality: Mapping[str, object] = {}
        self._settled = asyncio.Event()
        self._closed = asyncio.Event()
        self._digits: asyncio.Queue[str | None] = asyncio.Queue()
        self._handover: Handover | None = None
        self._handover_told = asyncio.Event()
        pj_call.on_state = self._state_changed
        pj_call.on_media = self._media_changed
        pj_call.on_sdp = self._sdp_created
        pj_call.on_last_look = self._read_quality
        pj_call.on_digit = self._digit_came
        pj_call.on_transfer = self._transfer_told
        pj_call.on_fault = self._failed

    @property
    def is_over(self) -> bool:
        """Whether the dialog has ended."""
        return self._ending is not None

    def connect(self, media: MediaPort) -> None:
        """Let the phone's clock drive this bridge, from the first media on."""
        self._media = media
        if self._audio_is_up and self._stream is not None:
            self._join_bridge(self._stream)

    def ring(self) -> None:
        """Send 180."""
        self._send(lambda call: call.answer(call_parameters(pj.PJSIP_SC_RINGING)))

    async def answer(self) -> None:
        """Send 200 and wait until audio can flow (ACK seen, media up).

        Raises:
            LegClosed: The caller gave up first, or never sent the ACK (PJSIP
                waits 32 s for it: RFC 3261, 13.3.1.4).
        """
        if self._ending is None and not self._answered:
            self._answered = True
            self._send(lambda call: call.answer(call_parameters(pj.PJSIP_SC_OK)))
        await self._settled.wait()
        if self._ending is not None:
            raise LegClosed(self._ending.reason)

    def reject(self, status: int, retry_after_s: int | None = None) -> None:
        """Refuse the INVITE with a final SIP status. Harmless once it is over."""
        if self._answered or self._intended is not None:
            return
        self._intended = Ending("trunkline", f"refused with {status}")
        parameters = call_parameters(status)
        if retry_after_s is not None:
            header = pj.SipHeader()
            header.hName = "Retry-After"
            header.hValue = str(retry_after_s)
            headers = pj.SipHeaderVector()
            headers.append(header)
            parameters.txOption.headers = headers
        self._send(lambda call: call.hangup(parameters))

    async def digits(self) -> AsyncIterator[str]:
        """Keys as the caller presses them; see `agent.call.ports.CallerLeg.digits`."""
        while not self.is_over or not self._digits.empty():
            if (digit := await self._digits.get()) is None:
                return
            yield digit

    def send_digits(self, digits: str) -> None:
        """Press keys towards the caller's side, as RFC 4733 events.

        Raises:
            LineRefused: The far end did not offer to take them, or there is no media.
        """
        if self._call is None:
            raise LineRefused("the call is over")
        try:
            self._call.dialDtmf(digits)
        except pj.Error as error:
            raise LineRefused(f"the far end takes no keys: {error.reason}") from None

    async def transfer(self, target: str) -> None:
        """Ask the caller's side to call `target` instead (REFER), and await the outcome.

        Raises:
            LineRefused: It was refused, failed, or its outcome was not told in time.
        """
        if not _ADDRESS.fullmatch(target):  # PJSIP would write anything into the REFER
            raise LineRefused("the target is no SIP or telephone address")
        if self._call is None or not self._confirmed:
            raise LineRefused("there is no call to transfer")
        if self._handover is not None and not self._handover.is_over:
            raise LineRefused("another transfer is under way")
        handover = self._handover = Handover()
        try:
            self._call.xfer(target, pj.CallOpParam(True))
            async with asyncio.timeout(_TRANSFER_TIMEOUT_S):
                while not handover.is_over:
                    self._handover_told.clear()
                    await self._handover_told.wait()
        except pj.Error as error:
            handover.told(500, error.reason, is_last=True)
        except TimeoutError:
            handover.told(408, f"no outcome within {_TRANSFER_TIMEOUT_S:g} s", is_last=True)
        finally:
            handover.is_over = True
        if handover.problem:
            raise LineRefused(handover.problem)

    def hang_up(self) -> None:
        """BYE, or a 603 before the answer. Harmless once it is over."""
        self._hang_up(Ending("trunkline", "hung up"))

    def abandon(self) -> None:
        """Take the dialog for over, whatever PJSIP still waits for."""
        self._close(self._intended or _FAULT)

    async def closed(self) -> Ending:
        """Wait until the dialog is over, and say how it ended."""
        await self._closed.wait()
        assert self._ending is not None
        return self._ending

    def quality(self) -> Mapping[str, object]:
        """Packets, loss and jitter so far, both directions; {} before media.

        `received` is what the caller sent us, `sent` what the caller's RTCP
        reports of ours. Counts are packets, since the last re-INVITE.
        """
        self._read_quality()
        return self._last_quality

    def watch(self, now_s: float) -> None:
        """Look once a second whether the caller's audio still arrives."""
        if not self._audio_is_up or self._ending is not None or self._intended is not None:
            return
        packets = self._read_quality()
        if packets is None:
            return
        match self._watch.look(packets, now_s, on_hold=self._on_hold):
            case Verdict.OTHER_PORT:
                self._guard.loosen()
            case Verdict.GONE:
                silent_s = f"{self._watch.timeout_s:g}"
                self._hang_up(Ending("trunkline", f"no audio from the caller for {silent_s} s"))
            case Verdict.FINE:
                pass

    def _hang_up(self, ending: Ending) -> None:
        if self._ending is not None or self._intended is not None:
            return
        self._intended = ending
        self._read_quality()
        status = 0 if self._answered else pj.PJSIP_SC_DECLINE
        self._send(lambda call: call.hangup(call_parameters(status)))

    def _send(self, request: Callable[[PjCall], None]) -> None:
        """Ask PJSIP for something; if it will not, the call cannot go on."""
        if self._call is None:
            return
        try:
            request(self._call)
        except pj.Error as error:
            # Usually the caller's CANCEL or BYE was read a moment ago; its state follows.
            self._log.debug("! PJSIP would not", reason=error.reason)
            self._stack.post(self._recover)

    def _recover(self) -> None:
        if self._call is None:
            return
        if self._intended is None and self._call.isActive():
            self._hang_up(_FAULT)
        else:
            cancelled = ending_of(
                pj.PJSIP_SC_REQUEST_TERMINATED, answered=self._answered, confirmed=self._confirmed
            )
            self._close(self._intended or cancelled)

    def _sdp_created(self, ours: str, theirs: str) -> str:
        """Inside PJSIP: guard the sockets before a packet is read from them."""
        local, remote = audio_address(ours), audio_address(theirs)
        if local is not None:
            ip, port = (remote.ip, remote.port) if remote is not None else ("", None)
            self._guard.expect(local.port, ip, port)
        return keep_codecs(ours, self._codecs)

    def _state_changed(self, state: int, status: int, reason: str) -> None:
        if state == pj.PJSIP_INV_STATE_CONFIRMED:
            self._confirmed = True
            self._settle()
        elif state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self._log.debug("x dialog over", status=status, reason=reason)
            if self._handover is not None and self._handover.is_likely:
                # Many ends say BYE as soon as the other call stands, before or without telling.
                self._intended = self._intended or _TRANSFERRED
            self._close(
                self._intended
                or ending_of(status, answered=self._answered, confirmed=self._confirmed)
            )

    def _digit_came(self, digit: str) -> None:
        if digit.upper() not in _KEYS or self._ending is not None:
            return
        if self._digits.qsize() >= _MOST_DIGITS:
            self._digits.get_nowait()
        self._digits.put_nowait(digit.upper())

    def _transfer_told(self, status: int, reason: str, is_last: bool) -> None:
        if self._handover is not None:
            self._handover.told(status, reason, is_last=is_last)
            self._handover_told.set()

    def _media_changed(self, stream: int, status: int, remote: str) -> None:
        if self._ending is not None:
            return
        if status == pj.PJSUA_CALL_MEDIA_ERROR:
            self._hang_up(Ending("trunkline", "no audio could be agreed on"))
            return
        self._stream = stream
        self._on_hold = status in _HOLDS
        self._expect_rtp_from(remote)
        if not self._audio_is_up:
            self._audio_is_up = True
            self._watch.begin(self._loop.time())
        if status == pj.PJSUA_CALL_MEDIA_ACTIVE:
            self._join_bridge(stream)
        self._settle()

    def _expect_rtp_from(self, remote: str) -> None:
        """After a late offer this is the first we know of the caller's address."""
        ip, _, port = remote.rpartition(":")
        local = self._guard.local_port
        if ip and port.isdigit() and local:
            self._guard.expect(local, ip.strip("[]"), int(port))

    def _settle(self) -> None:
        if self._confirmed and self._audio_is_up:
            self._settled.set()

    def _join_bridge(self, stream: int) -> None:
        """Connect the stream with our port; after each re-INVITE it is a new stream."""
        if self._media is None or self._call is None:
            return
        try:
            if self._port is None:
                name = self.offer.call_id
                self._port = CallerPort(name, self._media, self._stack.buffers, self._failed_later)
            audio = self._call.getAudioMedia(stream)
            audio.startTransmit(self._port)
            self._port.startTransmit(audio)
        except pj.Error as error:
            self._log.debug("! no bridge", reason=error.reason)
            self._stack.post(self._recover)

    def _read_quality(self) -> int | None:
        """Refresh the statistics; return packets received, or None without media."""
        if self._stream is None or self._call is None:
            return None
        try:
            statistics = self._call.getStreamStat(self._stream)
        except pj.Error:
            return None
        rtcp = statistics.rtcp
        received, sent = rtcp.rxStat, rtcp.txStat
        self._last_quality = {
            "received": {
                "packets": received.pkt,
                "lost": received.loss,
                "reordered": received.reorder,
                "jitter_ms": round(received.jitterUsec.mean / 1000, 1),
            },
            "sent": {
                "packets": sent.pkt,
                "lost": sent.loss,
                "jitter_ms": round(sent.jitterUsec.mean / 1000, 1),
            },
            "round_trip_ms": round(rtcp.rttUsec.mean / 1000, 1),
        }
        return int(received.pkt)

    def _failed_later(self, fault: Exception) -> None:
        """Told by the port, inside a tick."""
        self._stack.post(lambda: self._failed(fault))

    def _failed(self, fault: Exception) -> None:
        self._log.error("! the call failed inside a callback", exc_info=fault)
        self._hang_up(_FAULT)

    def _close(self, ending: Ending) -> None:
        if self._ending is not None:
            return
        self._ending = ending
        if self._port is not None:
            self._port.mute()
            self._stack.bury(self._port)
            self._port = None
        if self._call is not None:
            self._call.forget()
            self._stack.slot_released(self._call)
            self._call = None
        self._media = None
        self._digits.put_nowait(None)
        if self._handover is not None:
            self._handover.told(487, "the call ended", is_last=True)
            self._handover_told.set()
        self._settled.set()
        self._closed.set()
        self._on_closed(self)
