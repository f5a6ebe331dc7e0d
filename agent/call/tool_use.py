"""The tools of one call: run when the model asks, each a row from its first moment on.

A tool goes on when the caller interrupts: its result is still wanted, and asking for
it again gives the same one. Meanwhile the caller does not wait in silence.
"""

import asyncio
from collections import deque

from agent.call.bridge import Bridge
from agent.call.clean import clean
from agent.call.diary import Diary
from agent.call.events import CallerSpeechStarted, CallEvent, ToolCallRequested
from agent.call.farewell import Farewell
from agent.call.filler import Filler, heard_ms
from agent.call.keypad import Keypad
from agent.call.line import PhoneLine
from agent.call.ports import (
    AgentLeg,
    AgentProfile,
    CallerLeg,
    Toolbox,
    ToolContext,
    ToolResult,
)
from agent.call.records import Ending, ToolCallRecord, ToolStatus
from agent.call.silence import say_exactly
from agent.call.tool_ledger import Refuse, Repeat, Run, ToolLedger

_SAY_GOODBYE = "Say a short goodbye to the caller. The line is closed right after it."
_SAY_IT_FAILED = (
    "Tell the caller in one short sentence that you could not do this, and ask how to go on."
)
_REFUSED = '{"error":"Refused. Call no tool now; speak with the caller."}'
_CHECK_S = 0.02
_LONGEST_ANNOUNCEMENT_MS = 12_000
_MOST_ARGUMENT_CHARS = 16_000
"""What a row keeps of arguments; the tool itself gets them whole."""


class ToolUse:
    """Runs what the model asks for, and hands back what came of it."""

    def __init__(
        self,
        toolbox: Toolbox,
        profile: AgentProfile,
        caller: CallerLeg,
        agent: AgentLeg,
        bridge: Bridge,
        keypad: Keypad,
        farewell: Farewell,
        diary: Diary,
    ) -> None:
        """Serve one conversation."""
        settings = toolbox.settings
        self._toolbox = toolbox
        self._profile = profile
        self._caller = caller
        self._agent = agent
        self._bridge = bridge
        self._keypad = keypad
        self._farewell = farewell
        self._announcement = Farewell(_LONGEST_ANNOUNCEMENT_MS)
        self._diary = diary
        self._ledger = ToolLedger(settings)
        self._filler = Filler(int(settings.filler_after_s * 1000), profile.tool_filler)
        self._results: dict[str, asyncio.Future[ToolResult]] = {}
        self._running: dict[str, int] = {}
        self._is_running = asyncio.Event()
        self._tones: deque[tuple[int, int]] = deque(maxlen=256)
        self._apologized_for = ""
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    @property
    def is_busy(self) -> bool:
        """The caller waits for a tool."""
        return bool(self._running)

    def receive(self, event: CallEvent) -> None:
        """Follow who speaks."""
        self._announcement.receive(event)
        if isinstance(event, CallerSpeechStarted):
            self._ledger.caller_spoke()

    async def ended(self) -> Ending:
        """Wait until a tool has ended the call: the caller is in other hands."""
        return await asyncio.shield(self._ended)

    async def use(self, request: ToolCallRequested) -> None:
        """Answer one tool call; cancelled, its row says so."""
        match self._ledger.take(request, self._diary.now_ms()):
            case Run():
                await self._run(request)
            case Repeat(first_id):
                await self._repeat(request, first_id)
            case Refuse() as refusal:
                self._refuse(request, refusal)

    async def fill(self) -> None:
        """Keep the caller from waiting in silence, as long as this runs."""
        while True:
            await self._is_running.wait()
            tone_began_ms: int | None = None
            while self._running:
                now_ms = self._diary.now_ms()
                fill = self._filler.look(self._quiet_since_ms(now_ms), now_ms)
                if fill == "phrase":
                    self._agent.speak(say_exactly(self._profile.tool_filler))
                self._bridge.set_tone(is_on=fill == "tone")
                if fill == "tone":
                    if tone_began_ms is None:
                        tone_began_ms = now_ms
                        self._tones.append((now_ms, now_ms))
                    self._tones[-1] = (tone_began_ms, now_ms)
                else:
                    tone_began_ms = None
                await asyncio.sleep(_CHECK_S)
            self._filler.look(None, self._diary.now_ms())
            self._bridge.set_tone(is_on=False)

    # --- one request

    async def _run(self, request: ToolCallRequested) -> None:
        started_ms = self._diary.now_ms()
        self._record(request, "running", started_ms)
        self._results[request.tool_call_id] = asyncio.get_running_loop().create_future()
        self._running[request.tool_call_id] = started_ms
        self._is_running.set()
        try:
            result = await self._toolbox.run(
                request.name, request.arguments, self._context(request)
            )
        except asyncio.CancelledError:
            error = "the call ended before the tool did"
            self._record(request, "failed", started_ms, ToolResult("", error))
            raise
        finally:
            del self._running[request.tool_call_id]
            if not self._running:
                self._is_running.clear()
                self._bridge.set_tone(is_on=False)
        self._ledger.finish(request, result, self._diary.now_ms())
        self._results[request.tool_call_id].set_result(result)
        self._record(request, "failed" if result.error else "completed", started_ms, result)
        self._hand_over(request, result)

    async def _repeat(self, request: ToolCallRequested, first_id: str) -> None:
        started_ms = self._diary.now_ms()
        self._record(request, "running", started_ms, repeats=first_id)
        try:
            result = await asyncio.shield(self._results[first_id])
        except asyncio.CancelledError:
            error = "the call ended before the tool did"
            self._record(request, "failed", started_ms, ToolResult("", error), repeats=first_id)
            raise
        status: ToolStatus = "failed" if result.error else "completed"
        self._record(request, status, started_ms, result, repeats=first_id)
        is_over = result.ends_call or result.ending is not None
        self._agent.give_tool_output(request.tool_call_id, result.output, reply=not is_over)

    def _refuse(self, request: ToolCallRequested, refusal: Refuse) -> None:
        """Answer without running, and without inviting the next attempt."""
        if refusal.is_recorded:
            result = ToolResult(_REFUSED, refusal.reason, attempts=0)
            self._record(request, "failed", self._diary.now_ms(), result)
        if refusal.is_first:
            name = clean(request.name, 64)
            self._diary.note("tool_calls_refused", name=name, reason=refusal.reason)
        self._agent.give_tool_output(request.tool_call_id, _REFUSED, reply=False)
        if request.response_id != self._apologized_for:
            self._apologized_for = request.response_id
            self._agent.speak(_SAY_IT_FAILED)

    def _hand_over(self, request: ToolCallRequested, result: ToolResult) -> None:
        if result.ending is not None:
            if not self._ended.done():
                self._ended.set_result(result.ending)
            return
        if not result.ends_call:
            self._agent.give_tool_output(request.tool_call_id, result.output)
            return
        spoken = self._farewell.ask(request.response_id, self._diary.now_ms())
        self._agent.give_tool_output(request.tool_call_id, result.output, reply=False)
        if not spoken:
            self._agent.speak(_SAY_GOODBYE)

    def _context(self, request: ToolCallRequested) -> ToolContext:
        offer, profile = self._caller.offer, self._profile
        return ToolContext(
            call_id=offer.call_id,
            agent=profile.name,
            trunk=offer.trunk,
            did=offer.did,
            caller_number=offer.caller_number,
            timezone=profile.timezone,
            tools=frozenset(tool.name for tool in profile.tools),
            line=PhoneLine(
                self._caller,
                self._agent,
                self._keypad,
                self._diary,
                self._announcement,
                request.response_id,
            ),
        )

    def _quiet_since_ms(self, now_ms: int) -> int | None:
        if self._keypad.is_collecting:
            return None  # it is the caller who is waited for
        heard_until_ms = self._bridge.agent_track.last_voiced_before(now_ms) or 0
        return max(heard_until_ms, min(self._running.values()))

    def _record(
        self,
        request: ToolCallRequested,
        status: ToolStatus,
        started_ms: int,
        result: ToolResult | None = None,
        *,
        repeats: str | None = None,
    ) -> None:
        now_ms = self._diary.now_ms()
        is_over = status != "running"
        was_run = is_over and repeats is None and result is not None and result.attempts > 0
        self._diary.tell(
            ToolCallRecord(
                call_id=self._diary.call_id,
                tool_call_id=request.tool_call_id,
                item_id=request.item_id,
                name=request.name,
                arguments=request.arguments[:_MOST_ARGUMENT_CHARS],
                output=(result.output or None) if result else None,
                error=result.error if result else None,
                status=status,
                started_ms=started_ms,
                duration_ms=now_ms - started_ms if is_over else None,
                attempts=0 if repeats else result.attempts if result else 1,
                silence_ms=self._silence_ms(started_ms, now_ms) if was_run else None,
                repeats=repeats,
            )
        )

    def _silence_ms(self, from_ms: int, to_ms: int) -> int:
        voice_ms = heard_ms(self._bridge.agent_track.runs, from_ms, to_ms)
        return max(0, to_ms - from_ms - voice_ms - heard_ms(self._tones, from_ms, to_ms))
