"""The talk itself: from the greeting until somebody ends it.

Events of the agent's leg come in; what follows from them is decided by `Conversation`,
`Farewell`, `Interruption`, `Watchdog` and `IdleCaller`, which know no clock and do no
I/O, and is done here, by `Floor` and by `Silence`.
"""

import asyncio

from agent.call.bridge import Bridge
from agent.call.conversation import Conversation
from agent.call.diary import Diary
from agent.call.events import (
    AgentError,
    AgentGone,
    AgentLost,
    CallerSpeechStarted,
    CallerSpeechStopped,
    CallerTextFailed,
    CallEvent,
    ResponseEnded,
    ToolCallRequested,
    UsageReported,
)
from agent.call.farewell import Farewell
from agent.call.floor import Floor
from agent.call.history import what_is_due
from agent.call.keypad import Keypad
from agent.call.latency import Latency
from agent.call.ports import AgentProfile, CallerLeg, Toolbox
from agent.call.purse import Account
from agent.call.records import Ending
from agent.call.relay import AgentRelay
from agent.call.settings import LimitSettings
from agent.call.silence import Silence
from agent.call.tasks import Tasks
from agent.call.tool_use import ToolUse

_LOOK_EVERY_S = 0.02
_QUIET_MS = 500
"""So long nobody was heard: another session may take over and nobody is cut off."""

_BRIDGED_MS = (400, 660)
"""A gap this long is bridged by one beep of the soft tone, from when to when."""

_GO_ON = (
    "A fault cut off your last words; the caller heard what the conversation shows, and no more."
    " Go on from there, without an apology and without saying again what was heard."
)
_ASK = (
    "The line was disturbed, and the caller may have said something that did not reach you."
    " Ask them in one short sentence to say it again."
)
_WRAP_UP = "This call has used up most of its time. Be brief now and bring it to a good end."
_TIME_IS_UP = (
    "Tell the caller politely, in one short sentence, that you have to end the call now,"
    " and say goodbye. The line is closed right after it."
)


class Talk:
    """One conversation over two joined legs."""

    def __init__(
        self,
        profile: AgentProfile,
        caller: CallerLeg,
        agent: AgentRelay,
        bridge: Bridge,
        toolbox: Toolbox,
        diary: Diary,
        limits: LimitSettings,
        account: Account,
    ) -> None:
        """Take legs that can hear and speak."""
        self._profile = profile
        self._caller = caller
        self._agent = agent
        self._diary = diary
        self._limits = limits
        self._latency = Latency(bridge.onsets)
        self._conversation = Conversation(
            diary.call_id, bridge.caller_track, bridge.agent_track, self._latency
        )
        self._farewell = Farewell(int(limits.goodbye_timeout_s * 1000))
        self._floor = Floor(profile, agent, bridge, self._conversation, diary)
        self._silence = Silence(
            profile, caller, agent, bridge, self._farewell, diary, agent.restart
        )
        self._caller_speaks = False
        self._was_cut = False
        """The agent spoke, or was about to, when its session ended."""
        self._was_deaf = False
        """Its session was of no use when it ended."""
        self._keypad = Keypad(self._key_pressed)
        self._tools = ToolUse(
            toolbox, profile, caller, agent, bridge, self._keypad, self._farewell, diary
        )
        self._account = account
        self._bridge = bridge

    async def run(self) -> Ending:
        """Greet, then serve the conversation until somebody ends it."""
        self._begin()
        try:
            async with asyncio.timeout(self._limits.max_call_s), Tasks() as tasks:
                tasks.start(self._keypad.listen(self._caller.digits()))
                tasks.start(self._tools.fill())
                ends = (
                    tasks.start(self._follow(tasks)),
                    tasks.start(self._look_after()),
                    tasks.start(self._tools.ended()),
                )
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                return next(end.result() for end in reversed(ends) if end.done())
        except TimeoutError:
            return Ending("trunkline", f"maximum duration of {self._limits.max_call_s} s reached")
        finally:
            for record in self._conversation.finish(self._diary.now_ms()):
                self._diary.tell(record)

    def _begin(self) -> None:
        """Let the agent speak first, in the words it is given or in answer to the message."""
        if self._profile.initial_message:
            self._agent.note(self._profile.initial_message)
        if self._profile.greeting:
            self._agent.greet(self._profile.greeting)
        elif self._profile.initial_message:
            self._agent.answer()

    async def _follow(self, tasks: Tasks) -> Ending:
        async for event in self._agent.events():
            self._take(event)
            match event:
                case ToolCallRequested():
                    tasks.start(self._use_tool(event))
                case UsageReported():
                    self._pay(event)
                case AgentGone(reason):
                    return Ending("realtime", reason)
                case _:
                    self._note_trouble(event)
        return Ending("realtime", "the session ended")

    async def _use_tool(self, request: ToolCallRequested) -> None:
        self._latency.tool_began(self._diary.now_ms())
        try:
            await self._tools.use(request)
        finally:
            self._latency.tool_ended(self._diary.now_ms())

    def _take(self, event: CallEvent) -> None:
        """Let everybody whom it may concern know."""
        now_ms = self._diary.now_ms()
        if isinstance(event, CallerSpeechStarted | CallerSpeechStopped):
            self._caller_speaks = isinstance(event, CallerSpeechStarted)
        if isinstance(event, AgentLost):
            self._caller_speaks = False
            self._was_cut = self._was_cut or self._conversation.agent_is_busy
            self._was_deaf = self._was_deaf or self._silence.has_doubt(now_ms)
        self._latency.receive(event, now_ms)
        is_answer_due = self._floor.receive(event, now_ms)
        for record in self._conversation.receive(event, now_ms):
            self._diary.tell(record)
        if not (self._floor.is_in_doubt and isinstance(event, CallerSpeechStarted)):
            self._farewell.receive(event)  # a cough does not take a goodbye back
        self._tools.receive(event)
        self._silence.receive(event, now_ms, is_answer_due=is_answer_due)

    def _key_pressed(self, digit: str) -> None:
        """Which key it was stays out of the log: it may be part of a secret."""
        self._diary.note("key_pressed")
        self._silence.stir()
        self._floor.press(digit, self._diary.now_ms())

    async def _look_after(self) -> Ending:
        """Every frame: what time alone brings, until it brings the end."""
        while True:
            now_ms = self._diary.now_ms()
            if self._farewell.is_due(now_ms, self._agent.buffered_ms()):
                if self._silence.gave_up_on_caller:
                    return Ending("trunkline", "the caller was silent")
                if self._account.is_used_up:
                    return Ending("trunkline", "budget reached")
                return Ending("agent", "hung up")
            self._look_for_successor(now_ms)
            if self._floor.look(now_ms):
                self._silence.expect_answer(now_ms)
            events, ending = self._silence.look(
                now_ms,
                is_waiting=self._tools.is_busy
                or self._floor.is_in_doubt
                or self._agent.is_changing,
                is_occupied=self._caller_speaks or self._conversation.agent_is_busy,
            )
            for event in events:
                self._take(event)
            if ending is not None:
                return ending
            await asyncio.sleep(_LOOK_EVERY_S)

    def _look_for_successor(self, now_ms: int) -> None:
        """Let another session take over where the last is lost, or nobody would notice."""
        agent, conversation = self._agent, self._conversation
        if not self._tools.is_busy:
            begin_ms, end_ms = _BRIDGED_MS
            self._bridge.set_tone(is_on=begin_ms <= agent.lost_for_ms < end_ms)
        switch = agent.look(is_quiet=self._is_quiet(now_ms))
        if switch is None:
            return
        self._take(AgentLost(switch.reason))
        past = agent.succeed(switch, conversation.chain)
        due = what_is_due(past, was_cut=self._was_cut, was_deaf=self._was_deaf)
        self._was_cut = self._was_deaf = False
        if agent.is_catching_up or due == "nothing":
            return
        if due == "greet":
            agent.greet(self._profile.greeting)
        elif due == "answer":
            agent.answer()
        else:
            agent.speak(_GO_ON if due == "go_on" else _ASK)
        self._silence.expect_answer(now_ms)

    def _is_quiet(self, now_ms: int) -> bool:
        """Nobody speaks or is about to, and nothing waits for an end."""
        bridge = self._bridge
        heard_ms = max(
            track.last_voiced_before(now_ms) or 0
            for track in (bridge.caller_track, bridge.agent_track)
        )
        return (
            now_ms - heard_ms >= _QUIET_MS
            and self._agent.buffered_ms() == 0
            and self._conversation.is_settled(now_ms)
            and not (self._caller_speaks or self._conversation.agent_is_busy)
            and not (self._tools.is_busy or self._floor.is_in_doubt)
            and not (self._farewell.is_pending or self._keypad.is_collecting)
        )

    def _pay(self, report: UsageReported) -> None:
        """Near the end of a budget the agent hears of it; at the end it takes its leave."""
        was_used_up = self._account.is_used_up
        if not self._account.charge(report):
            return
        if not self._account.is_used_up:
            self._agent.note(_WRAP_UP)
        elif not was_used_up and self._farewell.insist(self._diary.now_ms()):
            self._agent.speak(_TIME_IS_UP)

    def _note_trouble(self, event: CallEvent) -> None:
        """What went wrong at the far end belongs into the log, in its own words."""
        note = self._diary.note
        match event:
            case AgentError(code, message):
                note("agent_error", code=code, message=message)
            case CallerTextFailed(item_id, reason):
                note("transcript_failed", item_id=item_id, reason=reason)
            case ResponseEnded(response_id, "failed" | "incomplete" as status, reason):
                note(f"response_{status}", response_id=response_id, reason=reason)
            case _:
                pass
