"""A call as a whole: every way it can begin, go on and end, each with its reason."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.call.cost import PriceList
from agent.call.events import (
    AgentError,
    AgentGone,
    AgentSpeaking,
    AgentSpoke,
    AgentTextDelta,
    CallerSpeechStarted,
    CallEvent,
    ToolCallRequested,
    TurnBegan,
)
from agent.call.fallback import Fallback
from agent.call.handler import Call
from agent.call.ports import AgentProfile, AgentUnavailable, ToolContext, ToolResult
from agent.call.purse import Purse
from agent.call.records import (
    CallAnswered,
    CallEnded,
    CallEventRecord,
    CallOffered,
    Ending,
    Record,
    ToolCallRecord,
    TurnRecord,
)
from agent.call.settings import LimitSettings, RecoverySettings, ToolUseSettings
from tests.fakes.legs import FakeAgent, FakeCaller, FakeConnector
from tests.fakes.spending import FakeSpending

PROFILE = AgentProfile("receptionist", "Be brief.", "Hello!", "marin")


class FakeToolbox:
    """One result for every tool; optionally never."""

    def __init__(self, result: ToolResult | None) -> None:
        self.result = result
        self.settings = ToolUseSettings()

    async def run(self, name: str, arguments: str, context: ToolContext) -> ToolResult:
        del name, arguments, context
        if self.result is None:
            await asyncio.Event().wait()
            raise AssertionError
        return self.result


class Stage:
    """A call with both its sides in the test's hands."""

    def __init__(
        self,
        *,
        error: AgentUnavailable | None = None,
        delay_s: float = 0,
        tool: ToolResult | None = None,
        limits: LimitSettings | None = None,
        prices: PriceList | None = None,
        spending: FakeSpending | None = None,
        recovery: RecoverySettings | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        limits = limits or LimitSettings()
        self.caller = FakeCaller()
        self.agent = FakeAgent()
        self.connector = FakeConnector(self.agent, error=error, delay_s=delay_s)
        self.log: list[Record] = []
        self.call = Call(
            self.caller,
            PROFILE,
            [self.connector],
            FakeToolbox(tool),
            self.log.append,
            limits,
            Purse(limits, prices or PriceList(()), spending or FakeSpending()),
            recovery or RecoverySettings(attempts=0),
            fallback or Fallback(),
        )

    async def play(self, *acts: CallEvent | Callable[[], None]) -> Ending:
        """Run the call; between acts everything that can happen, happens."""
        others = asyncio.all_tasks()
        running = asyncio.create_task(self.call.run())
        await settle()
        for act in acts:
            if callable(act):
                act()
            else:
                self.agent.script.put_nowait(act)
            await settle()
        async with asyncio.timeout(2):
            ending = await running
        assert self.connector.open_count == 0, "the agent's leg was left open"
        assert asyncio.all_tasks() == others, "a task outlived the call"
        assert isinstance(self.log[0], CallOffered)
        assert isinstance(self.log[-1], CallEnded)
        assert self.log[-1].ending == ending
        return ending

    def records(self, kind: type[Record]) -> list[Record]:
        return [record for record in self.log if isinstance(record, kind)]


async def settle() -> None:
    """Let every task run until all wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_caller_who_hangs_up() -> None:
    """Answered, greeted, ended by the caller; answered before greeted."""
    stage = Stage()
    ending = await stage.play(lambda: stage.caller.go(Ending("caller", "hung up")))
    assert ending == Ending("caller", "hung up")
    assert stage.caller.did == ["200"]
    assert stage.agent.did == ["greet Hello!"]
    assert len(stage.records(CallAnswered)) == 1
    ended = stage.log[-1]
    assert isinstance(ended, CallEnded)
    assert ended.quality == {"caller": {"rx_packets": 1}, "agent": {"packets_received": 2}}


async def test_no_agent_means_503_and_no_answer() -> None:
    """The caller never hears silence from a session that could not be opened."""
    stage = Stage(error=AgentUnavailable("429 from the Realtime API", retry_after_s=17))
    ending = await stage.play()
    assert ending == Ending("realtime", "429 from the Realtime API")
    assert stage.caller.did == ["503 Retry-After 17"]
    assert stage.records(CallAnswered) == []


async def test_cancel_while_the_session_opens() -> None:
    """A caller who gives up while it rings leaves nothing behind."""
    stage = Stage(delay_s=30)
    ending = await stage.play(lambda: stage.caller.go(Ending("caller", "cancelled")))
    assert ending == Ending("caller", "cancelled")
    assert stage.caller.did == []


@pytest.mark.parametrize(
    ("ending", "answer"),
    [
        pytest.param(Ending("trunkline", "shutting down"), "503 Retry-After 5", id="shutting down"),
        pytest.param(Ending("admin", "hung up"), "BYE", id="declined"),
    ],
)
async def test_told_to_end_while_it_rings(ending: Ending, answer: str) -> None:
    """A shutdown sends the caller elsewhere; an admin's hang-up declines."""
    stage = Stage(delay_s=30)
    assert await stage.play(lambda: stage.call.end(ending)) == ending
    assert stage.caller.did == [answer]


async def test_the_session_dies() -> None:
    """The far end goes: the caller is not left with a dead line."""
    stage = Stage()
    ending = await stage.play(AgentGone("the connection failed"))
    assert ending == Ending("realtime", "the connection failed")
    assert stage.caller.did == ["200", "BYE"]


async def test_maximum_duration() -> None:
    """No call lasts for ever."""
    stage = Stage(limits=LimitSettings.model_construct(max_call_s=0, goodbye_timeout_s=1))
    ending = await stage.play()
    assert ending.by == "trunkline"
    assert "maximum duration" in ending.reason
    assert stage.caller.did == ["200", "BYE"]


async def test_told_to_end_from_outside() -> None:
    """An admin or a shutdown ends the call with its own reason."""
    stage = Stage()
    ending = await stage.play(
        lambda: stage.call.end(Ending("admin", "hung up")),
        lambda: stage.call.end(Ending("trunkline", "too late")),
    )
    assert ending == Ending("admin", "hung up")
    assert stage.caller.did == ["200", "BYE"]


async def test_barge_in_clears_the_ear_at_once() -> None:
    """What was queued toward the phone is gone when the caller speaks."""
    stage = Stage()
    stage.agent.ear = [b"\x01" * 320] * 5
    await stage.play(
        TurnBegan("a1", None, "agent"),
        AgentTextDelta("a1", "r1", "We are open"),
        AgentSpeaking("r1"),
        CallerSpeechStarted("u1"),
        lambda: stage.caller.go(Ending("caller", "hung up")),
    )
    assert stage.agent.did == ["greet Hello!", "flush"]
    note = stage.records(CallEventRecord)[0]
    assert isinstance(note, CallEventRecord)
    assert (note.kind, note.detail) == ("barge_in", {"flushed_ms": 100})
    turn = stage.records(TurnRecord)[-1]
    assert isinstance(turn, TurnRecord)
    assert turn.interrupted


async def test_a_tool_call_is_a_row_before_and_after() -> None:
    """An admin sees a tool while it runs; the model gets its output."""
    stage = Stage(tool=ToolResult('{"temperature_c":21}'))
    await stage.play(
        ToolCallRequested("t1", "f1", "r1", "weather", '{"place":"Lisbon"}'),
        lambda: stage.caller.go(Ending("caller", "hung up")),
    )
    first, last = stage.records(ToolCallRecord)
    assert isinstance(first, ToolCallRecord)
    assert isinstance(last, ToolCallRecord)
    assert (first.status, first.arguments) == ("running", '{"place":"Lisbon"}')
    assert (last.status, last.output) == ("completed", '{"temperature_c":21}')
    assert last.duration_ms is not None
    assert stage.agent.did[-1] == 'output t1 {"temperature_c":21} reply=True'


async def test_a_tool_that_outlives_the_call_is_cancelled_and_said_so() -> None:
    """No row stays `running` after the call."""
    stage = Stage(tool=None)
    await stage.play(
        ToolCallRequested("t1", "f1", "r1", "weather", "{}"),
        lambda: stage.caller.go(Ending("caller", "hung up")),
    )
    last = stage.records(ToolCallRecord)[-1]
    assert isinstance(last, ToolCallRecord)
    assert last.status == "failed"
    assert "call ended" in (last.error or "")


async def test_hang_up_waits_for_the_goodbye() -> None:
    """The tool is called while the goodbye plays: BYE comes after the last syllable."""
    stage = Stage(tool=ToolResult("{}", ends_call=True))
    stage.agent.waiting_ms = 40
    order: list[str] = []

    def note_line_open() -> None:
        order.append("BYE" if "BYE" in stage.caller.did else "open")

    def drained() -> None:
        stage.agent.waiting_ms = 0

    ending = await stage.play(
        AgentTextDelta("a1", "r1", "Goodbye!"),
        AgentSpeaking("r1"),
        ToolCallRequested("t1", "f1", "r1", "hang_up", "{}"),
        note_line_open,
        AgentSpoke("r1"),
        note_line_open,
        drained,
    )
    assert order == ["open", "open"]
    assert ending == Ending("agent", "hung up")
    assert stage.caller.did == ["200", "BYE"]
    assert stage.agent.did[-1] == "output t1 {} reply=False"


async def test_hang_up_without_a_word_asks_for_one() -> None:
    """A model that only calls the tool is asked to say goodbye first."""
    stage = Stage(tool=ToolResult("{}", ends_call=True))
    ending = await stage.play(
        ToolCallRequested("t1", "f1", "r1", "hang_up", "{}"),
        AgentSpeaking("r2"),
        AgentSpoke("r2"),
    )
    assert ending == Ending("agent", "hung up")
    assert stage.agent.did[-1].startswith("speak Say a short goodbye")


async def test_errors_of_the_far_end_are_events_not_ends() -> None:
    """The session lives on after an error; the admin finds it in the log."""
    stage = Stage()
    await stage.play(
        AgentError("unknown_parameter", "Unknown parameter: 'session.x'."),
        lambda: stage.caller.go(Ending("caller", "hung up")),
    )
    note = stage.records(CallEventRecord)[0]
    assert isinstance(note, CallEventRecord)
    assert note.kind == "agent_error"
    assert note.detail["code"] == "unknown_parameter"


@pytest.mark.parametrize("broken", ["answer", "greet"])
async def test_a_bug_ends_one_call_with_a_reason(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever we got wrong, the caller gets a status or a BYE, and the log a row."""
    stage = Stage()

    async def fail_late() -> None:
        raise RuntimeError("bug")

    def fail(*_: object) -> None:
        raise RuntimeError("bug")

    wrong: Callable[..., Awaitable[None]] | Callable[..., None]
    wrong = fail_late if broken == "answer" else fail
    monkeypatch.setattr(stage.caller if broken == "answer" else stage.agent, broken, wrong)
    ending = await stage.play()
    assert ending == Ending("trunkline", "internal error")
    assert "RuntimeError: bug" in "".join(capsys.readouterr())
