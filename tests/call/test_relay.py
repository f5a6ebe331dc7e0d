"""One agent for a whole call: what the caller, the model and the log notice of its sessions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.audio.frame import SILENCE, Frame
from agent.call.diary import Diary
from agent.call.events import (
    AgentGone,
    AgentLost,
    AgentSpeaking,
    CallerSpeechStarted,
    CallerText,
    CallEvent,
    ToolCallRequested,
    TurnBegan,
    UsageReported,
)
from agent.call.history import Item, PastNote, PastTool, PastTurn
from agent.call.ports import AgentProfile, AgentUnavailable
from agent.call.records import CallEventRecord, Record
from agent.call.relay import AgentRelay, open_relay
from agent.call.settings import RecoverySettings
from agent.call.succession import Switch
from tests.fakes.legs import FakeAgent, FakeCaller, FakeConnector

PROFILE = AgentProfile("receptionist", "Be brief.", "Hello!", "marin")
QUICK = RecoverySettings(attempts=1, backoff_s=0)
VOICE: Frame = b"\x00\x10" * 160


class Stage:
    """A relay between two or more sessions, and what it told."""

    def __init__(self, relay: AgentRelay, log: list[Record]) -> None:
        self.relay = relay
        self.log = log
        self.events: list[CallEvent] = []

    async def listen(self) -> None:
        async for event in self.relay.events():
            self.events.append(event)

    async def switched(self, *chain: Item) -> None:
        """Look on until another session takes over."""
        async with asyncio.timeout(2):
            while (switch := self.relay.look(is_quiet=True)) is None:
                await asyncio.sleep(0.001)
        assert isinstance(switch, Switch)
        self.relay.succeed(switch, chain)

    def notes(self, kind: str) -> list[dict[str, object]]:
        return [
            dict(record.detail)
            for record in self.log
            if isinstance(record, CallEventRecord) and record.kind == kind
        ]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def stage(
    *connectors: FakeConnector, settings: RecoverySettings = QUICK
) -> AsyncIterator[Stage]:
    """A connected relay, listened to; afterwards every session is closed."""
    log: list[Record] = []
    diary = Diary("call-1", log.append)
    diary.start()
    others = asyncio.all_tasks()
    async with open_relay(connectors, PROFILE, FakeCaller().offer, diary, settings) as relay:
        await relay.connect()
        on_stage = Stage(relay, log)
        listener = asyncio.create_task(on_stage.listen())
        await settle()
        yield on_stage
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
    assert asyncio.all_tasks() == others
    assert sum(connector.open_count for connector in connectors) == 0


async def test_a_lost_session_is_followed_by_one_that_knows_the_past() -> None:
    """What was said, noted and found out is told in order; a tool that runs is answered there."""
    first, second = FakeAgent("rtc_1"), FakeAgent("rtc_2")
    async with stage(FakeConnector(first, second)) as on:
        for event in (
            TurnBegan("u1", None, "caller"),
            CallerText("u1", "What is the weather?"),
            ToolCallRequested("t1", "f1", "r1", "weather", "{}"),
            ToolCallRequested("t2", "f2", "r1", "weather", "[]"),
        ):
            first.script.put_nowait(event)
        await settle()
        on.relay.note("The caller pressed 1.")
        on.relay.give_tool_output("t1", "sunny")
        first.script.put_nowait(AgentGone("dropped"))
        await settle()
        assert on.events[-1] == AgentLost("dropped")
        assert on.relay.lost_for_ms > 0
        chain = (Item("u1", "caller", "What is the weather?"), Item("f1"), Item("f2"))
        await on.switched(*chain)
        assert second.past == [
            PastTurn("caller", "What is the weather?"),
            PastNote("The caller pressed 1."),
            PastTool("s1_t1", "weather", "{}", "sunny"),
            PastTool("s1_t2", "weather", "[]", None),
        ]
        on.relay.give_tool_output("t2", "rain")
        assert second.did == ["output s1_t2 rain reply=True"]
        assert on.relay.lost_for_ms == 0
        [succeeded] = on.notes("session_succeeded")
        assert (succeeded["realtime_call_id"], succeeded["session"]) == ("rtc_2", 2)
        assert on.notes("session_lost") == [{"reason": "dropped", "session": 1}]


async def test_names_of_two_sessions_never_meet() -> None:
    """A far end that counts its items from 1 each time does not overwrite the log."""
    first, second = FakeAgent(), FakeAgent()
    async with stage(FakeConnector(first, second)) as on:
        said: list[CallEvent] = [
            TurnBegan("item_1", None, "agent"),
            AgentSpeaking("resp_1"),
            ToolCallRequested("call_1", "item_2", "resp_1", "weather", "{}"),
            UsageReported("response", "resp_1", "m", None),
        ]
        for event in (*said, AgentGone("dropped")):
            first.script.put_nowait(event)
        await settle()
        await on.switched()
        for event in said:
            second.script.put_nowait(event)
        await settle()
        assert on.events == [
            *said,
            AgentLost("dropped"),
            TurnBegan("s2_item_1", None, "agent"),
            AgentSpeaking("s2_resp_1"),
            ToolCallRequested("s2_call_1", "s2_item_2", "s2_resp_1", "weather", "{}"),
            UsageReported("response", "s2_resp_1", "m", None),
        ]
        on.relay.give_tool_output("s2_call_1", "sunny")
        assert second.did == ["output call_1 sunny reply=True"]


async def test_what_the_caller_said_into_the_gap_is_said_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Words that no session wrote down reach the next one, from their beginning."""
    first, second = FakeAgent(), FakeAgent()
    heard_first, heard_second = ear_of(first, monkeypatch), ear_of(second, monkeypatch)
    async with stage(FakeConnector(first, second)) as on:
        on.relay.write_frame(VOICE)
        first.script.put_nowait(CallerSpeechStarted("u1"))
        await settle()
        on.relay.write_frame(VOICE)
        first.script.put_nowait(AgentGone("dropped"))
        await settle()
        on.relay.write_frame(VOICE)
        await on.switched()
        assert on.relay.is_catching_up
        for _ in range(20):
            on.relay.write_frame(SILENCE)
        assert heard_first == [VOICE] * 2
        assert heard_second[:3] == [VOICE] * 3
        assert VOICE not in heard_second[3:]
        assert not on.relay.is_catching_up


async def test_what_was_understood_is_not_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that was written down is told as text, and as text only."""
    first, second = FakeAgent(), FakeAgent()
    heard = ear_of(second, monkeypatch)
    async with stage(FakeConnector(first, second)) as on:
        first.script.put_nowait(CallerSpeechStarted("u1"))
        await settle()
        for _ in range(50):
            on.relay.write_frame(VOICE)
        first.script.put_nowait(CallerText("u1", "Hello"))
        first.script.put_nowait(AgentGone("dropped"))
        await settle()
        await on.switched()
        on.relay.write_frame(SILENCE)
        assert heard == [SILENCE]


async def test_the_standby_is_asked_after_the_first() -> None:
    """Another provider carries the call on, and the log says so."""
    first, second = FakeAgent(), FakeAgent("rtc_other")
    other = FakeConnector(second)
    async with stage(FakeConnector(first), other) as on:
        first.script.put_nowait(AgentGone("dropped"))
        await settle()
        await on.switched()
        assert on.notes("session_unavailable") == [{"reason": "no agent is left", "place": 0}]
        assert on.notes("session_succeeded")[0]["provider"] == "standby"
        assert on.relay.realtime_call_id == "rtc_other"


async def test_no_session_is_to_be_had() -> None:
    """After the last attempt the agent is gone, with both reasons."""
    first = FakeAgent()
    async with stage(FakeConnector(first)) as on:
        first.script.put_nowait(AgentGone("dropped"))
        async with asyncio.timeout(2):
            while not isinstance(on.events[-1] if on.events else None, AgentGone):
                on.relay.look(is_quiet=False)
                await asyncio.sleep(0.001)
        assert on.events[-1] == AgentGone("dropped; no agent is left")


async def test_a_session_whose_time_runs_out_is_left_in_silence() -> None:
    """The next is opened beside it, and nothing is lost between them."""
    first, second = FakeAgent(lasts_s=0.1), FakeAgent("rtc_2")
    async with stage(FakeConnector(first, second)) as on:
        await on.switched(Item("a1", "agent", "Hello!"))
        assert second.past == [PastTurn("agent", "Hello!")]
        assert on.notes("session_succeeded")[0]["gap_ms"] == 0
        assert AgentLost not in map(type, on.events)


async def test_what_was_to_be_said_is_said_by_the_next_session() -> None:
    """A wish that comes while there is no session is kept."""
    first, second = FakeAgent(), FakeAgent()
    async with stage(FakeConnector(first, second)) as on:
        first.script.put_nowait(AgentGone("dropped"))
        await settle()
        on.relay.speak("Say goodbye.")
        on.relay.hold(True)
        on.relay.answer()
        assert on.relay.interrupt() == on.relay.flush() == on.relay.buffered_ms() == 0
        assert on.relay.read_frame() == SILENCE
        await on.switched()
        assert second.did == ["speak Say goodbye."]


@pytest.mark.parametrize(
    ("first_error", "other_error", "reason"),
    [
        pytest.param("401", None, None, id="the stand-by has one"),
        pytest.param("401", "500", "401", id="neither: the first one's reason"),
    ],
)
async def test_at_the_first_ring(
    first_error: str, other_error: str | None, reason: str | None
) -> None:
    """Who is refused by the first provider asks the other before the caller is refused."""
    connectors = [
        FakeConnector(FakeAgent(), error=AgentUnavailable(error) if error else None)
        for error in (first_error, other_error)
    ]
    if reason is None:
        async with stage(*connectors) as on:
            assert on.notes("session_unavailable") == [{"reason": "401", "place": 0}]
    else:
        with pytest.raises(AgentUnavailable) as caught:
            async with stage(*connectors):
                pass
        assert caught.value.reason == reason


def ear_of(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """Keep what an agent is sent."""
    heard: list[Frame] = []
    monkeypatch.setattr(agent, "write_frame", heard.append)
    return heard
