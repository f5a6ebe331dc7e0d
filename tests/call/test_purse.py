"""A call and its money: what the log is told, and how a budget ends it or keeps it out."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from agent.audio.frame import FRAME_BYTES, Frame
from agent.call import purse as purse_module
from agent.call.cost import NO_PRICE, PriceList
from agent.call.diary import Diary
from agent.call.events import (
    AgentSpeaking,
    AgentSpoke,
    CallerSpeechStarted,
    ResponseStarted,
    Usage,
    UsageReported,
)
from agent.call.fallback import Fallback
from agent.call.purse import Purse
from agent.call.records import (
    CallAnswered,
    CallCost,
    CallEnded,
    CallEventRecord,
    ChargeRecord,
    Ending,
    Record,
)
from agent.call.settings import LimitSettings, PriceSettings
from tests.call.test_handler import Stage
from tests.fakes.spending import FakeSpending

MILLION = 1_000_000
DOLLAR_A_MILLION = PriceList(
    [PriceSettings.model_validate({"model": "m", "from": "2026-01-01", "text_out": 1})]
)
SOUND = bytes(range(1, 161)) * (FRAME_BYTES // 160)
TARGET = "sip:reception@192.0.2.10"
BEGAN_AT = datetime(2026, 11, 21, 22, 59, 0, tzinfo=UTC)


def limits(**budget: Any) -> LimitSettings:
    return LimitSettings.model_validate({"budget": budget, "timezone": "Europe/Brussels"})


def used(usd: float, source_id: str = "r1", model: str = "m") -> UsageReported:
    return UsageReported("response", source_id, model, Usage(text_out=int(usd * MILLION)))


def notes(log: list[Record]) -> list[str]:
    return [record.kind for record in log if isinstance(record, CallEventRecord)]


async def test_the_log_is_told_while_the_call_runs() -> None:
    """Each response is a row, and the call's cost so far is there at once."""
    log: list[Record] = []
    purse = Purse(limits(), DOLLAR_A_MILLION, FakeSpending())
    account = purse.open(Diary("call-1", log.append), "+1", BEGAN_AT)
    account.charge(used(0.5))
    account.charge(used(0.25, "r2"))
    charges = [record for record in log if isinstance(record, ChargeRecord)]
    costs = [record for record in log if isinstance(record, CallCost)]
    assert [(row.source_id, row.cost_usd) for row in charges] == [
        ("r1", Decimal("0.5")),
        ("r2", Decimal("0.25")),
    ]
    assert [row.cost_usd for row in costs] == [Decimal("0.5"), Decimal("0.75")]
    assert costs[-1].usage == {"response": {"text_out": 750_000}}
    assert notes(log) == []


async def test_an_unknown_price_is_said_once() -> None:
    """A model without a price makes the cost unknown, with one event that names it."""
    log: list[Record] = []
    purse = Purse(limits(call_usd=1), DOLLAR_A_MILLION, FakeSpending())
    account = purse.open(Diary("call-1", log.append), "+1", BEGAN_AT)
    for number in range(3):
        assert account.charge(used(9, f"r{number}", model="new")) == []
    [remark] = [record for record in log if isinstance(record, CallEventRecord)]
    assert (remark.kind, remark.detail) == ("cost_remark", {"model": "new", "remark": NO_PRICE})
    assert [r.cost_usd for r in log if isinstance(r, CallCost)] == [None] * 3


@pytest.mark.parametrize(
    ("others", "budget", "reason"),
    [
        pytest.param({}, {"day_usd": 5}, None, id="nobody spent anything"),
        pytest.param(
            {"day_usd": "5"}, {"day_usd": 5}, "the budget of the day is used up", id="others did"
        ),
        pytest.param(
            {"caller_usd": "2", "day_usd": "2"},
            {"day_usd": 5, "caller_day_usd": 2},
            "the caller's budget of the day is used up",
            id="this caller did",
        ),
    ],
)
async def test_refusal(others: dict[str, str], budget: dict[str, Any], reason: str | None) -> None:
    """A day that is used up refuses calls until the next begins, and says whose it is."""
    log: list[Record] = []
    spending = FakeSpending(**others)
    purse = Purse(limits(**budget), DOLLAR_A_MILLION, spending)
    refusal = await purse.open(Diary("call-1", log.append), "Anonymous", BEGAN_AT).refusal()
    assert (refusal and refusal.reason) == reason
    # In Brussels it is a minute to midnight, and the day began there.
    assert refusal is None or refusal.retry_after_s == 60
    assert spending.asked == [(datetime(2026, 11, 20, 23, tzinfo=UTC), "unknown")]
    assert notes(log) == (["budget_refused"] if reason else [])


async def test_without_a_budget_nobody_is_asked() -> None:
    """Who set no budget pays no query for it."""
    spending = FakeSpending()
    purse = Purse(limits(call_usd=1), DOLLAR_A_MILLION, spending)
    assert await purse.open(Diary("c", lambda _: None), "+1", BEGAN_AT).refusal() is None
    assert spending.asked == []


@pytest.mark.parametrize("is_stuck", [False, True], ids=["refuses", "does not answer"])
async def test_a_silent_database_is_decided_without(
    is_stuck: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this process knows decides, with what it heard of others last; the log says so."""
    monkeypatch.setattr(purse_module, "_ASK_TIMEOUT_S", 0.01)
    log: list[Record] = []
    spending = FakeSpending(day_usd="3")
    purse = Purse(limits(day_usd=5), DOLLAR_A_MILLION, spending)
    first = purse.open(Diary("call-1", log.append), "+1", BEGAN_AT)
    assert await first.refusal() is None
    spending.is_stuck, spending.trouble = is_stuck, "database x: gone"
    assert await purse.open(Diary("call-2", log.append), "+2", BEGAN_AT).refusal() is None
    first.charge(used(2))
    assert first.is_used_up
    refusal = await purse.open(Diary("call-3", log.append), "+3", BEGAN_AT).refusal()
    assert refusal is not None
    assert notes(log) == [
        "spending_unknown",
        "budget_reached",
        "spending_unknown",
        "budget_refused",
    ]


async def test_a_call_is_wrapped_up_and_ended() -> None:
    """Near the end the agent hears of it; at the end it says goodbye, and then the line closes."""
    stage = Stage(limits=limits(call_usd=1), prices=DOLLAR_A_MILLION)
    ending = await stage.play(
        ResponseStarted("r1"),
        used(0.8, "r1"),
        ResponseStarted("r2"),
        used(0.3, "r2"),
        AgentSpeaking("r2"),
        AgentSpoke("r2"),
        # The caller goes on talking: that does not take this goodbye back.
        CallerSpeechStarted("u1"),
        lambda: stage.agent.did.append("--"),
        ResponseStarted("r3"),
        AgentSpeaking("r3"),
        AgentSpoke("r3"),
    )
    assert ending == Ending("trunkline", "budget reached")
    assert stage.caller.did == ["200", "BYE"]
    told = [line for line in stage.agent.did if line.startswith(("note", "speak", "--"))]
    assert told[0].startswith("note This call has used up")
    assert told[1].startswith("speak Tell the caller politely")
    assert told[2] == "--"
    assert [kind for kind in notes(stage.log) if kind.startswith("budget")] == [
        "budget_warning",
        "budget_reached",
    ]


async def test_a_refused_call_rings_nowhere() -> None:
    """503 until the day is over, no session, and the reason in the log."""
    stage = Stage(limits=limits(day_usd=5), spending=FakeSpending(day_usd="5"))
    ending = await stage.play()
    assert ending == Ending("trunkline", "the budget of the day is used up")
    [answer] = stage.caller.did
    status, _, retry_after_s = answer.partition(" Retry-After ")
    assert status == "503"
    assert 0 < int(retry_after_s) <= 25 * 3600
    assert stage.agent.did == []
    assert isinstance(stage.log[-1], CallEnded)


@pytest.mark.parametrize(
    ("fallback", "refuses", "expected", "steps"),
    [
        pytest.param(Fallback(SOUND), "", ["200", "BYE"], ["announcement"], id="words"),
        pytest.param(
            Fallback(target=TARGET),
            "",
            ["200", f"REFER {TARGET}", "BYE"],
            ["transfer"],
            id="a person",
        ),
        pytest.param(
            Fallback(target=TARGET, goodbye=SOUND),
            "486 Busy Here",
            ["200", f"REFER {TARGET}", "BYE"],
            ["transfer", "goodbye"],
            id="nobody takes them: an apology",
        ),
    ],
)
async def test_a_refused_caller_gets_the_fallback(
    fallback: Fallback, refuses: str, expected: list[str], steps: list[str]
) -> None:
    """What is set for callers without an agent, also without money; no session is opened."""
    spent = FakeSpending(day_usd="5")
    stage = Stage(limits=limits(day_usd=5), spending=spent, fallback=fallback)
    stage.caller.refuses = refuses
    heard: list[Frame] = []

    def listen() -> None:
        assert stage.caller.media is not None
        heard.extend(stage.caller.media.speak_to_caller() for _ in range(20))

    ending = await stage.play(listen)
    assert ending == Ending("trunkline", "the budget of the day is used up")
    assert stage.caller.did == expected
    assert (SOUND in heard) == (steps != ["transfer"])
    events = [record for record in stage.log if isinstance(record, CallEventRecord)]
    assert [event.kind for event in events] == ["budget_refused"] + ["fallback"] * len(steps)
    assert [event.detail["step"] for event in events[1:]] == steps
    assert [r.realtime_call_id for r in stage.log if isinstance(r, CallAnswered)] == [""]
    assert stage.agent.did == []


async def test_a_refused_caller_who_hangs_up_was_refused_all_the_same() -> None:
    """The log says what was wrong, not who put the receiver down first."""
    stage = Stage(
        limits=limits(day_usd=5), spending=FakeSpending(day_usd="5"), fallback=Fallback(SOUND)
    )
    ending = await stage.play(lambda: stage.caller.go(Ending("caller", "hung up")))
    assert ending == Ending("trunkline", "the budget of the day is used up")
