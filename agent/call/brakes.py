"""The brakes on money: when a call is told to wrap up, ended, or not taken at all.

Three budgets, each of its own scope: one call, one caller on one day, everybody
on one day. A call counts, whole, on the day it began. Decides only; no I/O, no
clock: told what was spent, they say what follows.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Literal

from agent.call.settings import BudgetSettings

Scope = Literal["call", "caller", "day"]

UNKNOWN_CALLER = "unknown"
NAMELESS = frozenset({"", "anonymous", "unknown", "unavailable", "restricted", "private"})
"""How networks write that the caller's number is withheld (RFC 3323, 4.1, and habit)."""

_MOST_DAYS = 2
_MOST_CALLERS = 10_000


def payer_of(caller_number: str) -> str:
    """Say on whose account a call goes: all callers without a number share one."""
    return UNKNOWN_CALLER if caller_number.lower() in NAMELESS else caller_number


@dataclass(frozen=True, slots=True)
class Spent:
    """What one caller and everybody has spent on one day."""

    caller_usd: Decimal = Decimal(0)
    day_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Step:
    """A budget came near its end, or reached it."""

    scope: Scope
    is_end: bool
    spent_usd: Decimal
    budget_usd: Decimal


class Calendar:
    """Days as the admin counts them."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone

    def day_of(self, at: datetime) -> date:
        """Say on which day a moment lies."""
        return at.astimezone(self._zone).date()

    def start_of(self, day: date) -> datetime:
        """Say when a day begins, in UTC."""
        return datetime.combine(day, time(), self._zone).astimezone(UTC)

    def seconds_left(self, at: datetime) -> int:
        """Count the seconds until the next day begins; at least 1."""
        left = self.start_of(self.day_of(at) + timedelta(days=1)) - at
        return max(1, int(left.total_seconds()))


class Ledger:
    """What was spent on each of the last days: by this process's calls, and by others.

    Its own calls are known to the last response. What other processes spent is
    known as of the last call that came in, and stays valid when nobody can be asked.
    """

    def __init__(self) -> None:
        self._days: OrderedDict[date, _Day] = OrderedDict()

    def add(self, day: date, payer: str, usd: Decimal) -> None:
        """One of our calls spent this."""
        entry = self._day(day)
        entry.own_usd += usd
        entry.own_by_payer[payer] += usd

    def learn(self, day: date, payer: str, others: Spent) -> None:
        """Others have spent this so far."""
        entry = self._day(day)
        entry.others_usd = others.day_usd
        entry.others_by_payer[payer] = others.caller_usd
        entry.others_by_payer.move_to_end(payer)
        if len(entry.others_by_payer) > _MOST_CALLERS:
            entry.others_by_payer.popitem(last=False)

    def spent(self, day: date, payer: str) -> Spent:
        """Sum up a day."""
        entry = self._day(day)
        return Spent(
            entry.own_by_payer.get(payer, Decimal(0))
            + entry.others_by_payer.get(payer, Decimal(0)),
            entry.own_usd + entry.others_usd,
        )

    def _day(self, day: date) -> "_Day":
        if day not in self._days:
            self._days[day] = _Day()
            if len(self._days) > _MOST_DAYS:
                del self._days[min(self._days)]
        return self._days.get(day) or _Day()


class _Day:
    """One day of the ledger."""

    def __init__(self) -> None:
        self.own_usd = Decimal(0)
        self.others_usd = Decimal(0)
        self.own_by_payer: defaultdict[str, Decimal] = defaultdict(Decimal)
        self.others_by_payer: OrderedDict[str, Decimal] = OrderedDict()


class Brakes:
    """The brakes of one call: each budget warns once and ends once."""

    def __init__(self, budget: BudgetSettings) -> None:
        self._budget = budget
        self._told: set[tuple[Scope, bool]] = set()

    def refusal(self, spent: Spent) -> Step | None:
        """Before the call: say whose budget is used up, if any is."""
        return next((step for step in self._steps(None, spent) if step.is_end), None)

    def look(self, call_usd: Decimal, spent: Spent) -> list[Step]:
        """After something was spent: say what has come near or to its end by it."""
        news = [
            step
            for step in self._steps(call_usd, spent)
            if (step.scope, step.is_end) not in self._told
        ]
        for step in news:
            # Who is at the end need not be told later that it is near.
            self._told |= {(step.scope, False), (step.scope, step.is_end)}
        return news

    def _steps(self, call_usd: Decimal | None, spent: Spent) -> Iterator[Step]:
        budget = self._budget
        figures: tuple[tuple[Scope, Decimal | None, Decimal | None], ...] = (
            ("call", call_usd, budget.call_usd),
            ("caller", spent.caller_usd, budget.caller_day_usd),
            ("day", spent.day_usd, budget.day_usd),
        )
        for scope, spent_usd, budget_usd in figures:
            if spent_usd is None or budget_usd is None:
                continue
            if spent_usd >= budget_usd:
                yield Step(scope, True, spent_usd, budget_usd)
            elif spent_usd >= budget_usd * budget.warn_share:
                yield Step(scope, False, spent_usd, budget_usd)
