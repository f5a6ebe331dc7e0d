"""The money of this process: each call pays from it, by its own account.

::

    INVITE  -> Account.refusal   others' spending is asked for once, briefly
    usage   -> Account.charge    priced, put into the log, held against the budgets

The decisions are made in `cost` and `brakes`; here they are joined with the log
and with the question what other processes have spent.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from agent.call.brakes import Brakes, Calendar, Ledger, Scope, Spent, Step, payer_of
from agent.call.cost import Meter, PriceList, amounts
from agent.call.diary import Diary
from agent.call.events import UsageReported
from agent.call.records import CallCost, ChargeRecord
from agent.call.settings import LimitSettings

_ASK_TIMEOUT_S = 0.5
"""The caller waits for it, hearing nothing worse than the ringing tone."""

_WHOSE: dict[Scope, str] = {
    "call": "the call's budget",
    "caller": "the caller's budget of the day",
    "day": "the budget of the day",
}


class SpendingUnknown(Exception):
    """Nobody can say now what others have spent; the text says why."""


class OthersSpending(Protocol):
    """Knows what other processes have spent."""

    async def since(self, day_start: datetime, payer: str) -> Spent:
        """Sum up the calls of other processes that began then or later.

        Args:
            day_start: When the day began.
            payer: A caller number, or `brakes.UNKNOWN_CALLER` for all without one.

        Raises:
            SpendingUnknown: There is no answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that must not be taken."""

    reason: str
    retry_after_s: int


class Purse:
    """Prices, budgets and the spending of all calls of this process."""

    def __init__(self, limits: LimitSettings, prices: PriceList, others: OthersSpending) -> None:
        self.budget = limits.budget
        self.calendar = Calendar(limits.zone)
        self.prices = prices
        self.others = others
        self.ledger = Ledger()

    def open(self, diary: Diary, caller_number: str, began_at: datetime) -> "Account":
        """Open the account of one call."""
        return Account(self, diary, payer_of(caller_number), began_at)


class Account:
    """What one call may spend, and has.

    Attributes:
        is_used_up: A budget was reached: the call must come to its end.
    """

    def __init__(self, purse: Purse, diary: Diary, payer: str, began_at: datetime) -> None:
        """Made by `Purse.open`."""
        self.is_used_up = False
        self._purse = purse
        self._diary = diary
        self._payer = payer
        self._began_at = began_at
        self._day = purse.calendar.day_of(began_at)
        self._meter = Meter(purse.prices, self._day)
        self._brakes = Brakes(purse.budget)
        self._remarks: set[tuple[str, str]] = set()

    async def refusal(self) -> Refusal | None:
        """Before the call is taken: look whether somebody's budget is used up."""
        purse = self._purse
        if not purse.budget.spans_calls:
            return None
        day_start = purse.calendar.start_of(self._day)
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                others = await purse.others.since(day_start, self._payer)
            purse.ledger.learn(self._day, self._payer, others)
        except (SpendingUnknown, TimeoutError) as error:
            reason = str(error) or f"no answer within {_ASK_TIMEOUT_S:g} s"
            self._diary.note("spending_unknown", reason=reason)
        step = self._brakes.refusal(self._spent())
        if step is None:
            return None
        self._note("budget_refused", step)
        retry_after_s = purse.calendar.seconds_left(self._began_at)
        return Refusal(f"{_WHOSE[step.scope]} is used up", retry_after_s)

    def charge(self, report: UsageReported) -> list[Step]:
        """Pay for what was used, and tell the log; say which budgets that brought near their end."""
        charge = self._meter.receive(report)
        self._diary.tell(
            ChargeRecord(
                call_id=self._diary.call_id,
                source_id=report.source_id,
                purpose=report.purpose,
                model=report.model,
                offset_ms=self._diary.now_ms(),
                usage=amounts(report.usage),
                cost_usd=charge.cost_usd,
                remark=charge.remark,
            )
        )
        self._diary.tell(CallCost(self._diary.call_id, self._meter.cost_usd, self._meter.used))
        self._remark(report.model, charge.remark)
        self._purse.ledger.add(self._day, self._payer, charge.cost_usd or Decimal(0))
        steps = self._brakes.look(self._meter.known_usd, self._spent())
        for step in steps:
            self._note("budget_reached" if step.is_end else "budget_warning", step)
        self.is_used_up = self.is_used_up or any(step.is_end for step in steps)
        return steps

    def _spent(self) -> Spent:
        return self._purse.ledger.spent(self._day, self._payer)

    def _remark(self, model: str, remark: str) -> None:
        """What makes a sum of money untrue is worth one event a call."""
        if remark and (model, remark) not in self._remarks:
            self._remarks.add((model, remark))
            self._diary.note("cost_remark", model=model, remark=remark)

    def _note(self, kind: str, step: Step) -> None:
        self._diary.note(
            kind,
            budget=_WHOSE[step.scope],
            spent_usd=float(step.spent_usd),
            budget_usd=float(step.budget_usd),
        )
