"""Budgets: who pays, on which day, and when a call is warned, ended or refused."""

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from agent.call.brakes import Brakes, Calendar, Ledger, Spent, payer_of
from agent.call.settings import BudgetSettings

TODAY = date(2026, 11, 21)


def usd(text: str) -> Decimal:
    return Decimal(text)


@pytest.mark.parametrize(
    ("number", "payer"),
    [
        pytest.param("+15550199", "+15550199", id="a number"),
        pytest.param("alice", "alice", id="a name"),
        pytest.param("", "unknown", id="none"),
        pytest.param("Anonymous", "unknown", id="withheld"),
        pytest.param("unknown", "unknown", id="unknown"),
    ],
)
def test_payer(number: str, payer: str) -> None:
    """Callers without a number are one caller."""
    assert payer_of(number) == payer


CALL, CALLER, DAY = ({"call_usd": 1}, {"caller_day_usd": 2}, {"day_usd": 10})


@pytest.mark.parametrize(
    ("budget", "looks", "expected"),
    [
        pytest.param({}, [("99", "99", "99")], [], id="no budget, no brake"),
        pytest.param(CALL, [("0.79", "9", "99")], [], id="below the share"),
        pytest.param(CALL, [("0.80", "0", "0")], ["warn call"], id="at the share"),
        pytest.param(CALL, [("0.9", "0", "0")] * 3, ["warn call"], id="warned once"),
        pytest.param(CALL, [("1", "0", "0")] * 2, ["end call"], id="ended once, unwarned"),
        pytest.param(
            CALL, [("0.8", "0", "0"), ("1.2", "0", "0")], ["warn call", "end call"], id="in turn"
        ),
        pytest.param(
            CALL | {"warn_share": "0.5"}, [("0.5", "0", "0")], ["warn call"], id="another share"
        ),
        pytest.param(CALLER, [("0.1", "1.6", "0")], ["warn caller"], id="the caller's"),
        pytest.param(DAY, [("0.1", "0.1", "10")], ["end day"], id="everybody's"),
        pytest.param(
            CALL | CALLER | DAY,
            [("0.9", "1.9", "9"), ("0.9", "2", "10")],
            ["warn call", "warn caller", "warn day", "end caller", "end day"],
            id="each for itself",
        ),
    ],
)
def test_brakes(
    budget: dict[str, object], looks: list[tuple[str, str, str]], expected: list[str]
) -> None:
    """Each budget warns once at its share and ends once at its end."""
    brakes = Brakes(BudgetSettings.model_validate(budget))
    found = []
    for call, caller, day in looks:
        steps = brakes.look(usd(call), Spent(usd(caller), usd(day)))
        found += [f"{'end' if step.is_end else 'warn'} {step.scope}" for step in steps]
    assert found == expected


@pytest.mark.parametrize(
    ("caller", "day", "refused"),
    [
        pytest.param("1.99", "9.99", None, id="something is left"),
        pytest.param("2", "0", "caller", id="the caller's is used up"),
        pytest.param("0", "10", "day", id="the day's is used up"),
    ],
)
def test_refusal(caller: str, day: str, refused: str | None) -> None:
    """A call is refused by a used-up day, not by a near one, and not by a call's budget."""
    brakes = Brakes(BudgetSettings.model_validate(CALL | CALLER | DAY))
    step = brakes.refusal(Spent(usd(caller), usd(day)))
    assert (step and step.scope) == refused


def test_the_ledger_joins_ours_and_theirs() -> None:
    """Ours grow with each response; theirs are as last heard; days and callers stay apart."""
    ledger = Ledger()
    ledger.add(TODAY, "a", usd("1"))
    ledger.learn(TODAY, "a", Spent(caller_usd=usd("0.5"), day_usd=usd("7")))
    ledger.add(TODAY, "a", usd("0.25"))
    ledger.add(TODAY, "b", usd("2"))
    assert ledger.spent(TODAY, "a") == Spent(usd("1.75"), usd("10.25"))
    assert ledger.spent(TODAY, "b") == Spent(usd("2"), usd("10.25"))
    assert ledger.spent(date(2026, 11, 22), "a") == Spent()
    ledger.learn(TODAY, "a", Spent())
    assert ledger.spent(TODAY, "a") == Spent(usd("1.25"), usd("3.25"))


def test_the_ledger_forgets_old_days() -> None:
    """Yesterday's calls may still run; what is older is gone, and never comes back to charge."""
    ledger = Ledger()
    days = [date(2026, 11, number) for number in (20, 21, 22)]
    for day in days:
        ledger.add(day, "a", usd("1"))
    assert [ledger.spent(day, "a").day_usd for day in days] == [0, 1, 1]


@pytest.mark.parametrize(
    ("zone", "at", "day", "start", "left_s"),
    [
        pytest.param(
            "UTC", "2026-11-21T23:59:30", "2026-11-21", "2026-11-21T00:00", 30, id="UTC"
        ),
        pytest.param(
            "America/New_York", "2026-11-21T04:59", "2026-11-20", "2026-11-20T05:00", 60,
            id="west",
        ),
        pytest.param(
            "Asia/Kolkata", "2026-11-21T18:30", "2026-11-22", "2026-11-21T18:30", 86400, id="east"
        ),
        pytest.param(
            "Europe/Brussels", "2026-10-25T00:00", "2026-10-25", "2026-10-24T22:00", 23 * 3600,
            id="a day of 25 hours",
        ),
    ],
)  # fmt: skip
def test_days(zone: str, at: str, day: str, start: str, left_s: int) -> None:
    """A day begins at midnight where the admin lives, however long it is."""
    calendar = Calendar(UTC if zone == "UTC" else ZoneInfo(zone))
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert calendar.day_of(moment) == date.fromisoformat(day)
    began = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert calendar.start_of(date.fromisoformat(day)) == began
    assert calendar.seconds_left(moment) == left_s
