"""Tools in a call: rows, repeats, floods, fillers, transfers; with a clock the test moves."""

import asyncio
from collections.abc import Awaitable, Callable

from agent.audio.frame import SILENCE
from agent.audio.voice import is_voiced
from agent.call.bridge import Bridge
from agent.call.diary import Diary
from agent.call.events import (
    AgentSpeaking,
    AgentSpoke,
    CallerSpeechStarted,
    CallEvent,
    ToolCallRequested,
)
from agent.call.farewell import Farewell
from agent.call.keypad import Keypad
from agent.call.ports import (
    AgentProfile,
    DigitsWanted,
    LineRefused,
    ToolContext,
    ToolResult,
    ToolSchema,
)
from agent.call.records import CallEventRecord, Ending, Record, ToolCallRecord
from agent.call.settings import ToolUseSettings
from agent.call.tool_use import ToolUse
from tests.fakes.legs import FakeAgent, FakeCaller

VOICE = b"\x00\x20" * 160
Body = Callable[[ToolContext], Awaitable[ToolResult]]


class StoppedDiary(Diary):
    """A diary whose clock the test sets."""

    at_ms = 0

    def now_ms(self) -> int:
        return self.at_ms


class Tools:
    """A toolbox with one tool, which does what the test says."""

    def __init__(self, body: Body, settings: ToolUseSettings) -> None:
        self.body = body
        self.settings = settings
        self.ran: list[tuple[str, str]] = []

    async def run(self, name: str, arguments: str, context: ToolContext) -> ToolResult:
        self.ran.append((name, arguments))
        return await self.body(context)


class Stage:
    """Everything a tool call touches, in the test's hands."""

    def __init__(self, body: Body, *, filler: str = "", **settings: int) -> None:
        self.caller = FakeCaller()
        self.agent = FakeAgent()
        self.log: list[Record] = []
        self.diary = StoppedDiary("call-1", self.log.append)
        self.bridge = Bridge(self.agent, self.diary.now_ms)
        self.keypad = Keypad(lambda _: None)
        self.tools = Tools(body, ToolUseSettings(**settings))
        profile = AgentProfile(
            "receptionist",
            "",
            "",
            "marin",
            tools=(ToolSchema("look_up", "", {}),),
            tool_filler=filler,
            timezone="Europe/Berlin",
        )
        self.use = ToolUse(
            self.tools,
            profile,
            self.caller,
            self.agent,
            self.bridge,
            self.keypad,
            Farewell(1000),
            self.diary,
        )
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, tool_call_id: str = "t1", arguments: str = "{}", response_id: str = "r1") -> None:
        request = ToolCallRequested(tool_call_id, "item", response_id, "look_up", arguments)
        self.tasks.append(asyncio.create_task(self.use.use(request)))

    def tell(self, *events: CallEvent) -> None:
        for event in events:
            self.use.receive(event)

    def hear(self, to_ms: int, frame: bytes = SILENCE) -> int:
        """Let the ear hear frames up to a moment; return how many had sound in them."""
        voiced = 0
        while self.diary.at_ms < to_ms:
            self.agent.ear.append(frame)
            voiced += is_voiced(self.bridge.speak_to_caller())
            self.diary.at_ms += 20
        return voiced

    @property
    def rows(self) -> dict[str, ToolCallRecord]:
        """Each tool call as the log has it last."""
        return {it.tool_call_id: it for it in self.log if isinstance(it, ToolCallRecord)}

    @property
    def events(self) -> list[str]:
        return [it.kind for it in self.log if isinstance(it, CallEventRecord)]

    async def done(self) -> None:
        async with asyncio.timeout(5):
            await asyncio.gather(*self.tasks)


async def settle() -> None:
    """Let tasks run, those too that look every 20 ms."""
    for _ in range(4):
        await asyncio.sleep(0.02)


async def test_the_tool_is_told_in_which_call_it_runs() -> None:
    """Who called whom, what the agent may use, and its time zone."""
    seen: list[ToolContext] = []

    async def body(context: ToolContext) -> ToolResult:
        seen.append(context)
        return ToolResult('"fine"', attempts=2)

    stage = Stage(body)
    stage.ask()
    await stage.done()
    context = seen[0]
    assert (context.call_id, context.agent, context.trunk) == ("call-1", "receptionist", "loopback")
    assert (context.did, context.caller_number) == ("agent", "alice")
    assert (context.timezone, context.tools) == ("Europe/Berlin", frozenset({"look_up"}))
    assert stage.rows["t1"].attempts == 2
    assert stage.agent.did == ['output t1 "fine" reply=True']


async def test_asked_twice_it_runs_once() -> None:
    """After a barge-in the model asks again: it gets the first result, and the row says so."""
    release = asyncio.Event()

    async def body(_: ToolContext) -> ToolResult:
        await release.wait()
        return ToolResult('"booked"')

    stage = Stage(body)
    stage.ask("t1", '{"day": 1}')
    await settle()
    stage.tell(CallerSpeechStarted("i"))
    stage.ask("t2", '{"day":1}', "r2")
    await settle()
    release.set()
    await stage.done()
    stage.ask("t3", '{ "day": 1 }', "r3")
    await stage.done()
    assert len(stage.tools.ran) == 1
    assert [row.output for row in stage.rows.values()] == ['"booked"'] * 3
    assert [row.repeats for row in stage.rows.values()] == [None, "t1", "t1"]
    assert [row.attempts for row in stage.rows.values()] == [1, 0, 0]
    assert len(stage.agent.did) == 3


async def test_a_thousand_calls_flood_nobody() -> None:
    """The session gets an answer to each but no new response; rows stay few; the caller is told."""

    async def body(_: ToolContext) -> ToolResult:
        return ToolResult("{}", "there is no tool 'look_up'")

    stage = Stage(body, max_failures_in_row=100, max_calls_per_call=10, max_calls_at_once=64)
    for number in range(1000):
        stage.ask(f"t{number}", f'{{"n":{number}}}')
    await stage.done()
    assert len(stage.rows) == 30
    assert stage.events == ["tool_calls_refused"]
    assert sum(it.startswith("output") for it in stage.agent.did) == 1000
    assert sum(it.endswith("reply=True") for it in stage.agent.did) == 10
    assert sum(it.startswith("speak") for it in stage.agent.did) == 1


async def test_waiting_is_filled_and_measured() -> None:
    """Long waiting sounds; the row tells how long the caller heard nothing at all."""
    release = asyncio.Event()

    async def body(_: ToolContext) -> ToolResult:
        await release.wait()
        return ToolResult("{}")

    stage = Stage(body)
    filling = asyncio.create_task(stage.use.fill())
    stage.hear(1000, VOICE)
    stage.ask()
    await settle()
    assert stage.hear(1200, VOICE) == 10
    assert stage.hear(2680) == 0, "a tone before the time"
    stage.diary.at_ms = 2700
    await settle()
    assert stage.hear(3700) > 5, "no tone"
    await settle()
    assert stage.bridge.agent_track.last_voiced_before(9999) == 1200, "the tone counts as voice"
    release.set()
    await stage.done()
    assert stage.hear(5700) == 0, "a tone after the tool"
    row = stage.rows["t1"]
    assert (row.duration_ms, row.silence_ms) == (2700, 1500)
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)


async def test_the_agent_says_that_it_takes_a_moment() -> None:
    """With words configured they are said once; while keys are waited for, nothing is."""
    release = asyncio.Event()

    async def body(context: ToolContext) -> ToolResult:
        await context.line.collect_digits(DigitsWanted(1, "#", 5))
        await release.wait()
        return ToolResult("{}")

    stage = Stage(body, filler="One moment, please.")
    filling = asyncio.create_task(stage.use.fill())
    listening = asyncio.create_task(stage.keypad.listen(stage.caller.digits()))
    stage.ask()
    await settle()
    stage.diary.at_ms = 5000
    await settle()
    assert stage.agent.did == []
    stage.caller.keys.put_nowait("1")
    await settle()
    assert [it for it in stage.agent.did if "One moment, please." in it] == stage.agent.did
    assert len(stage.agent.did) == 1
    release.set()
    await stage.done()
    for task in (filling, listening):
        task.cancel()
    await asyncio.gather(filling, listening, return_exceptions=True)


async def transfer(context: ToolContext) -> ToolResult:
    try:
        await context.line.transfer("sip:sales@pbx")
    except LineRefused as error:
        return ToolResult("{}", str(error))
    return ToolResult("{}", ending=Ending("agent", "transferred to sales"))


async def test_a_transfer_waits_until_its_announcement_was_heard() -> None:
    """The caller hears where they are put through to; then the call is no longer ours."""
    stage = Stage(transfer)
    stage.tell(AgentSpeaking("r1"))
    stage.ask()
    await settle()
    stage.agent.waiting_ms = 200
    stage.tell(AgentSpoke("r1"))
    await settle()
    assert stage.caller.did == []
    stage.agent.waiting_ms = 0
    await stage.done()
    assert stage.caller.did == ["REFER sip:sales@pbx"]
    async with asyncio.timeout(5):
        assert await stage.use.ended() == Ending("agent", "transferred to sales")
    assert stage.agent.did == []


async def test_a_transfer_the_caller_talks_into() -> None:
    """Who speaks up before has something to say: they are not put through."""
    stage = Stage(transfer)
    stage.tell(AgentSpeaking("r1"))
    stage.ask()
    await settle()
    stage.tell(CallerSpeechStarted("i"))
    await stage.done()
    assert stage.caller.did == []
    assert stage.rows["t1"].error == "the caller spoke up before the transfer"
    assert stage.agent.did == ["output t1 {} reply=True"]


async def test_a_transfer_that_fails_goes_on() -> None:
    """The model is told, and the call goes on."""
    stage = Stage(transfer)
    stage.caller.refuses = "486 Busy Here"
    stage.ask()
    await stage.done()
    assert stage.caller.did == ["REFER sip:sales@pbx"]
    assert stage.rows["t1"].status == "failed"
    assert stage.agent.did == ["output t1 {} reply=True"]


async def test_a_tool_that_outlives_the_call() -> None:
    """The row of a tool that was cut off says so, and so does that of its repeat."""

    async def body(_: ToolContext) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    stage = Stage(body)
    stage.ask("t1")
    await settle()
    stage.ask("t2")
    await settle()
    for task in stage.tasks:
        task.cancel()
    await asyncio.gather(*stage.tasks, return_exceptions=True)
    assert {row.error for row in stage.rows.values()} == {"the call ended before the tool did"}
