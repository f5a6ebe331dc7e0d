"""A test caller on real SIP and RTP: the ears and mouth behind `trunkline call`.

    say(pcm) -> mouth -> RTP -> the agent
    heard    <- ear   <- RTP <- the agent

It shares clock, bridge port and PJSIP with the answering side but lives in a
process of its own, since PJSIP starts once per process. It neither recognises
nor makes speech and prints nothing: the command does.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pjsua2 as pj

from agent.audio.frame import FRAME_BYTES, FRAME_MS, SILENCE, Frame
from agent.audio.voice import VoiceTrack
from agent.call.records import Ending
from sip.caller_port import CallerPort
from sip.leg import PjCall, call_parameters
from sip.stack import SipStack, StackOptions, open_stack

_RTP_PORTS = (20000, 29998)
"""Away from the agent's default range, below the kernel's ephemeral one."""

_KEPT_FRAMES = 30 * 60 * 50
"""Half an hour of what was heard; older frames give way."""

_CLOSING_S = 2.0


class CallRefused(Exception):
    """The call was not answered.

    Attributes:
        status: The final SIP status; 0 if none came in time.
        reason: Its phrase.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}" if status else reason)
        self.status = status
        self.reason = reason


class Heard:
    """What came out of the receiver. Times are milliseconds since the answer.

    Attributes:
        voice: When it was voiced.
        frames: (time, frame), oldest first.
    """

    def __init__(self) -> None:
        self.voice = VoiceTrack()
        self.frames: deque[tuple[int, Frame]] = deque(maxlen=_KEPT_FRAMES)

    def note(self, frame: Frame, at_ms: int) -> None:
        """Take the next frame."""
        self.frames.append((at_ms, frame))
        self.voice.note(frame, at_ms)

    def pcm(self, since_ms: int = 0) -> bytes:
        """All samples heard from a time on: 8 kHz, 16 bit."""
        return b"".join(frame for at_ms, frame in self.frames if at_ms >= since_ms)


class _Handset:
    """The probe's end of the bridge: says what is queued, keeps what it hears."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.heard = Heard()
        self.spoken = VoiceTrack()
        self.queue: deque[Frame] = deque()

    def hear_caller(self, frame: Frame) -> None:
        """Take 20 ms from the far end."""
        self.heard.note(frame, self._now_ms())

    def speak_to_caller(self) -> Frame:
        """Give the next 20 ms of what is to be said."""
        if not self.queue:
            return SILENCE
        frame = self.queue.popleft()
        self.spoken.note(frame, self._now_ms())
        return frame


class Probe:
    """A call we have placed. Made by `open_probe`, answered when you get it.

    Attributes:
        heard: What the agent said.
        spoken: When what we said was voiced.
        answer_delay_ms: INVITE to 200.
        ringing_delay_ms: INVITE to 180; None if it never rang.
        status: The last SIP status.
        reason: Its phrase.
    """

    def __init__(self, stack: SipStack, account: pj.Account) -> None:
        self._stack = stack
        self._loop = asyncio.get_running_loop()
        self._call: PjCall | None = PjCall(account, pj.PJSUA_INVALID_ID, stack)
        self._call.on_state = self._state_changed
        self._call.on_media = self._media_changed
        self._call.on_fault = self._failed
        self._handset = _Handset(self._since_answer_ms)
        self._port: CallerPort | None = None
        self._invited_s = self._answered_s = 0.0
        self._confirmed = False
        self._hung_up = False
        self._up = asyncio.Event()
        self._closed = asyncio.Event()
        self._fault: Exception | None = None
        self.heard = self._handset.heard
        self.spoken = self._handset.spoken
        self.answer_delay_ms = 0
        self.ringing_delay_ms: int | None = None
        self.status = 0
        self.reason = ""

    @property
    def last_spoken_ms(self) -> int | None:
        """When our own last voiced speech ended; None before we said anything."""
        return self.spoken.last_voiced_before(self._since_answer_ms() + FRAME_MS)

    @property
    def is_speaking(self) -> bool:
        """Whether something is still queued to be said."""
        return bool(self._handset.queue)

    @property
    def now_ms(self) -> int:
        """Milliseconds since the answer."""
        return self._since_answer_ms()

    def say(self, pcm: bytes) -> None:
        """Queue speech: 8 kHz, mono, 16 bit little endian. Padded to whole frames."""
        for start in range(0, len(pcm), FRAME_BYTES):
            frame = pcm[start : start + FRAME_BYTES]
            self._handset.queue.append(frame.ljust(FRAME_BYTES, b"\0"))

    def turn_latency_ms(self, spoken_until_ms: int) -> int | None:
        """From the end of our voiced speech to the first voiced frame heard after it.

        Args:
            spoken_until_ms: What `last_spoken_ms` was when we had said our sentence.

        Returns:
            None as long as nothing was heard.
        """
        first_ms = self.heard.voice.first_voiced_since(spoken_until_ms)
        return None if first_ms is None else first_ms - spoken_until_ms

    async def wait_until_said(self) -> None:
        """Wait until all that is queued has left; returns at once when the call is over."""
        await self._wait(lambda: not self.is_speaking)

    async def wait_until_heard(self, since_ms: int, timeout_s: float) -> int | None:
        """Wait for the first voiced frame since a time; None if none came, or the call ended."""
        await self._wait(
            lambda: self.heard.voice.first_voiced_since(since_ms) is not None, timeout_s
        )
        return self.heard.voice.first_voiced_since(since_ms)

    async def wait_until_quiet(self, quiet_ms: int, timeout_s: float) -> bool:
        """Wait until nothing voiced was heard for so long, counted from now at the earliest.

        Returns:
            False if the time ran out first.
        """
        from_ms = self._since_answer_ms()

        def is_quiet() -> bool:
            now_ms = self._since_answer_ms()
            last_ms = self.heard.voice.last_voiced_before(now_ms + FRAME_MS)
            return now_ms - max(from_ms, last_ms or 0) >= quiet_ms

        return await self._wait(is_quiet, timeout_s)

    def hang_up(self) -> None:
        """BYE, or CANCEL before the answer. Harmless once it is over."""
        if self._call is None or self._hung_up:
            return
        self._hung_up = True
        try:
            self._call.hangup(call_parameters())
        except pj.Error:
            self._stack.post(self._close)

    async def closed(self) -> Ending:
        """Wait for the end of the call, and say who hung up."""
        await self._closed.wait()
        if self._fault is not None:
            raise RuntimeError("the test caller failed") from self._fault
        return Ending("caller" if self._hung_up else "trunkline", self.reason)

    async def dial(self, uri: str, answer_timeout_s: float) -> None:
        """Send the INVITE and wait until audio flows.

        Raises:
            CallRefused: It was answered with another status, or not in time.
        """
        assert self._call is not None
        self._invited_s = self._loop.time()
        try:
            self._call.makeCall(uri, call_parameters())
        except pj.Error as error:
            self._close()
            raise CallRefused(0, f"cannot call {uri}: {error.reason}") from None
        try:
            async with asyncio.timeout(answer_timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise CallRefused(0, f"no answer within {answer_timeout_s:g} s") from None
        if not self._confirmed:
            raise CallRefused(self.status, self.reason)

    async def end(self) -> None:
        """Hang up if need be and wait, but not for long, for the dialog's end."""
        self.hang_up()
        try:
            async with asyncio.timeout(_CLOSING_S):
                await self._closed.wait()
        except TimeoutError:
            self._close()

    def _since_answer_ms(self) -> int:
        return int((self._loop.time() - self._answered_s) * 1000)

    async def _wait(self, holds: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Look once per frame, as nothing can change in between."""
        until_s = None if timeout_s is None else self._loop.time() + timeout_s
        while not holds():
            if self._closed.is_set() or (until_s is not None and self._loop.time() > until_s):
                return False
            await asyncio.sleep(FRAME_MS / 1000)
        return True

    def _state_changed(self, state: int, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        since_ms = int((self._loop.time() - self._invited_s) * 1000)
        if state == pj.PJSIP_INV_STATE_EARLY and self.ringing_delay_ms is None:
            self.ringing_delay_ms = since_ms
        elif state == pj.PJSIP_INV_STATE_CONNECTING and not self._answered_s:
            self._answered_s = self._loop.time()
            self.answer_delay_ms = since_ms
        elif state == pj.PJSIP_INV_STATE_CONFIRMED:
            self._confirmed = True
            self._check_up()
        elif state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self._close()

    def _media_changed(self, stream: int, status: int, _: str) -> None:
        if self._call is None or status != pj.PJSUA_CALL_MEDIA_ACTIVE:
            return
        try:
            if self._port is None:
                self._port = CallerPort("probe", self._handset, self._stack.buffers, self._failed)
            audio = self._call.getAudioMedia(stream)
            audio.startTransmit(self._port)
            self._port.startTransmit(audio)
        except pj.Error as error:
            self._failed(error)
        self._check_up()

    def _check_up(self) -> None:
        if self._confirmed and self._port is not None:
            self._up.set()

    def _failed(self, fault: Exception) -> None:
        self._fault = fault
        self._stack.post(self.hang_up)

    def _close(self) -> None:
        if self._call is None:
            return
        if self._port is not None:
            self._port.mute()
            self._stack.bury(self._port)
        self._call.forget()
        self._stack.slot_released(self._call)
        self._port = self._call = None
        self._up.set()
        self._closed.set()


@asynccontextmanager
async def open_probe(
    uri: str,
    *,
    source_ip: str = "127.0.0.1",
    caller: str = "probe",
    answer_timeout_s: float = 60.0,
) -> AsyncIterator[Probe]:
    """Call a SIP URI; hang up and stop PJSIP however the block is left. Once per process.

    Args:
        uri: For example `sip:agent@127.0.0.1:5060`, `;transport=tcp` for TCP.
        source_ip: The local address to call from.
        caller: The user part of From.
        answer_timeout_s: How long it may ring.

    Raises:
        CallRefused: It was not answered.
        SipUnavailable: There is no such local address.
    """
    options = StackOptions(
        host=source_ip,
        port=0,
        tcp="transport=tcp" in uri.lower(),
        rtp_ports=_RTP_PORTS,
        log_level=0,
    )
    async with open_stack(options) as stack:
        account = pj.Account()
        account.create(stack.account_config(caller), True)
        probe = Probe(stack, account)
        try:
            await probe.dial(uri, answer_timeout_s)
            yield probe
        finally:
            await probe.end()
            await stack.quiet()
            account.shutdown()
