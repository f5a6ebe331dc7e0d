"""What others spent today is summed exactly, without our own calls and without yesterday's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from agent.call.brakes import UNKNOWN_CALLER, Spent
from agent.call.cost import PriceList
from agent.call.diary import Diary
from agent.call.purse import Purse, SpendingUnknown
from agent.call.records import CallCost, CallEventRecord, Record
from agent.call.settings import LimitSettings
from agent.store.calls import CallLog
from agent.store.database import Database
from agent.store.journal import SqlJournal, open_journal
from agent.store.spending import SqlSpending
from tests.store.telling import NOON, charge, cost, ended, offered

MIDNIGHT = NOON.replace(hour=0, minute=0, second=0, microsecond=0)


@asynccontextmanager
async def journals(database: Database) -> AsyncIterator[tuple[SqlJournal, SqlJournal]]:
    """Two programs on one database."""
    async with (
        open_journal(database, worker="ours") as ours,
        open_journal(database, worker="theirs") as theirs,
    ):
        yield ours, theirs
        await asyncio.gather(ours.written_so_far(), theirs.written_so_far())


def a_purse(database: Database) -> Purse:
    limits = LimitSettings.model_validate({"budget": {"day_usd": 5}})
    return Purse(limits, PriceList(()), SqlSpending(database, "ours"))


@pytest.mark.parametrize(
    ("payer", "expected"),
    [
        pytest.param("+1", Spent(Decimal("0.3"), Decimal("5.300000003")), id="a caller"),
        pytest.param("+9", Spent(Decimal(0), Decimal("5.300000003")), id="a new caller"),
        pytest.param(
            UNKNOWN_CALLER,
            Spent(Decimal("5.000000003"), Decimal("5.300000003")),
            id="all without a number",
        ),
    ],
)
async def test_others_today(database: Database, payer: str, expected: Spent) -> None:
    """The calls of other processes count from midnight on, running or ended, to the billionth."""
    async with journals(database) as (ours, theirs):
        for journal, call_id, number, hours, usd in (
            (theirs, "running", "+1", 0, "0.1"),
            (theirs, "over", "+1", 1, "0.2"),
            (theirs, "nameless", "", 2, "5.000000002"),
            (theirs, "withheld", "Anonymous", 2, "0.000000001"),
            (theirs, "yesterday", "+1", -13, "70"),
            (theirs, "not known", "+1", 3, None),
            (ours, "own", "+1", 0, "80"),
        ):
            started_at = NOON + timedelta(hours=hours)
            journal(offered(call_id, caller_number=number, started_at=started_at))
            journal(cost(usd, call_id))
        theirs(ended("over"))
    assert await SqlSpending(database, "ours").since(MIDNIGHT, payer) == expected


async def test_nobody_called(database: Database) -> None:
    """An empty log is no spending."""
    assert await SqlSpending(database, "ours").since(MIDNIGHT, "+1") == Spent()


async def test_no_answer(database: Database) -> None:
    """A database without the table is no zero: it is not known."""
    async with database.engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE calls RENAME TO elsewhere"))
    with pytest.raises(SpendingUnknown, match=r"database .*calls"):
        await SqlSpending(database, "ours").since(MIDNIGHT, "+1")


async def test_an_exhausted_pool(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller does not wait for a database that is too busy, and the next one asks it again."""
    monkeypatch.setattr("agent.call.purse._ASK_TIMEOUT_S", 0.05)
    log: list[Record] = []
    purse = a_purse(database)
    async with AsyncExitStack() as stack:
        for _ in range(15):  # five, and ten more: all that SQLAlchemy's pool hands out
            await stack.enter_async_context(database.engine.connect())
        assert await purse.open(Diary("call-1", log.append), "+1", NOON).refusal() is None
    assert [record.kind for record in log if isinstance(record, CallEventRecord)] == [
        "spending_unknown"
    ]
    assert await purse.open(Diary("call-2", log.append), "+1", NOON).refusal() is None
    assert len(log) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_locked_table(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that is stuck is given up, and its connection with it."""
    monkeypatch.setattr("agent.call.purse._ASK_TIMEOUT_S", 0.2)
    log: list[Record] = []
    purse = a_purse(database)
    async with database.engine.begin() as connection:
        await connection.execute(sa.text("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE"))
        assert await purse.open(Diary("call-1", log.append), "+1", NOON).refusal() is None
    assert [record.kind for record in log if isinstance(record, CallEventRecord)] == [
        "spending_unknown"
    ]
    assert await purse.open(Diary("call-2", log.append), "+1", NOON).refusal() is None
    assert len(log) == 1


async def test_live_cost(database: Database) -> None:
    """While the call runs its cost and each of its charges can be read; told twice is once."""
    log = CallLog(database)
    async with open_journal(database) as journal:
        journal(offered())
        for source_id, so_far in (("r1", "0.0036"), ("r2", "0.0072"), ("r2", "0.0072")):
            journal(charge(source_id))
            journal(cost(so_far, text_in=100))
            await journal.written_so_far()
        found = await log.get_call("call-1")
        assert found is not None
        assert found.call.cost_usd == Decimal("0.0072")
        assert [entry.source_id for entry in found.charges] == ["r1", "r2"]
        journal(charge("r3", cost_usd=None, remark="no price for this model"))
        journal(CallCost("call-1", None, {"text_in": 200}))
        await journal.written_so_far()
        [listed] = (await log.list_calls()).items
        assert listed.cost_usd is None
        found = await log.get_call("call-1")
        assert found is not None
        assert (found.charges[-1].cost_usd, found.charges[-1].remark) == (
            None,
            "no price for this model",
        )
        assert found.usage == {"text_in": 200}
