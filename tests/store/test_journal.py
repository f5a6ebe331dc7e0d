"""The journal writes what calls tell it: all of it, in order, whatever the database does."""

import asyncio
import math
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from agent.call.records import Ending, Record
from agent.store.calls import CallDetail, CallLog
from agent.store.database import Database, open_database, upgrade
from agent.store.journal import open_journal
from agent.store.settings import DatabaseSettings
from agent.store.tables import calls, processes
from agent.store.workers import SILENCE_MEANS_DEAD_S, mark_orphans, this_worker
from tests.store.telling import NOON, answered, charge, cost, ended, event, offered, tool, turn


async def tell(database: Database, *batches: Sequence[Record]) -> CallDetail:
    """Tell a journal these records, each batch written before the next, and read the call."""
    async with open_journal(database) as journal:
        for batch in batches:
            for record in batch:
                journal(record)
            await journal.written_so_far()
    found = await CallLog(database).get_call("call-1")
    assert found is not None
    return found


async def test_whole_call(database: Database) -> None:
    """What was told is what is read, to the microsecond, in the order of positions."""
    told = [
        turn("a", position=0, latency_ms=300),
        turn("c", position=2, latency_ms=900, interrupted=True, heard_text="Hello"),
        turn("b", position=1, speaker="caller", text="¿Qué tal? 🥖", heard_text=""),
    ]
    last = ended(quality={"rx": {"lost": 1, "jitter_ms": 2.5}})
    found = await tell(
        database,
        [offered(), answered(), *told, tool(), event(detail={"code": "x"})],
        [cost("0.0000006", text_in=12), charge(), last],
    )
    call = found.call
    assert (call.state, call.started_at, call.answered_at, call.ended_at) == (
        "ended",
        NOON,
        answered().answered_at,
        last.ended_at,
    )
    assert (call.duration_ms, call.answer_delay_ms, call.ending) == (
        10_000,
        700,
        Ending("caller", "hung up"),
    )
    assert [row.item_id for row in found.turns] == ["a", "b", "c"]
    for row in found.turns:
        same = next(record for record in told if record.item_id == row.item_id)
        assert all(getattr(same, name) == getattr(row, name) for name in row.__slots__)
    assert found.tool_calls[0].arguments == tool().arguments
    assert found.events[0].detail == {"code": "x"}
    assert found.quality == {"rx": {"lost": 1, "jitter_ms": 2.5}}
    assert found.usage == {"text_in": 12}
    assert call.cost_usd == Decimal("0.0000006")
    [paid] = found.charges
    assert all(getattr(charge(), name) == getattr(paid, name) for name in paid.__slots__)
    assert call.turn_latency is not None
    assert (call.turn_latency.p50_ms, call.turn_latency.p95_ms) == (300, 900)


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "many batches"])
async def test_told_again(database: Database, *, together: bool) -> None:
    """A row told several times is one row as it was told last; events are only added."""
    records: list[Record] = [
        offered(),
        answered(),
        turn(text="Hel", ended_ms=None),
        event("first"),
        turn(text="Hello", ended_ms=None),
        offered(),
        event("second"),
        turn(text="Hello!", position=3),
        tool(status="running", output=None, duration_ms=None),
        tool(),
    ]
    batches = [records] if together else [[record] for record in records]
    found = await tell(database, *batches)
    assert found.call.state == "active"
    assert [(row.text, row.position) for row in found.turns] == [("Hello!", 3)]
    assert [row.status for row in found.tool_calls] == ["completed"]
    assert [row.kind for row in found.events] == ["first", "second"]


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "many batches"])
async def test_end_closes(database: Database, *, together: bool) -> None:
    """With the call ends what was open in it, also what is told of it too late."""
    records: list[Record] = [
        offered(),
        answered(),
        turn("open", started_ms=4000, ended_ms=None),
        tool("running", status="running", output=None, duration_ms=None),
        ended(),
        turn("late", position=1, started_ms=9000, ended_ms=None),
        answered(),
    ]
    found = await tell(database, *([records] if together else [[record] for record in records]))
    assert found.call.state == "ended"
    assert [(row.item_id, row.ended_ms) for row in found.turns] == [
        ("open", 10_000),
        ("late", 10_000),
    ]
    row = found.tool_calls[0]
    assert (row.status, row.error, row.duration_ms) == ("failed", "call ended", 7000)


HUGE = 2**70


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        pytest.param(turn("bad", position=HUGE), "OverflowError|DataError", id="number too large"),
        pytest.param(
            event(at=datetime(2026, 1, 1)),  # noqa: DTZ001
            "StatementError",
            id="time without zone",
        ),
        pytest.param(turn("bad", call_id="nobody"), "IntegrityError", id="unknown call"),
        pytest.param(ended("nobody"), "LookupError", id="end of an unknown call"),
        pytest.param(
            turn("bad", position=object()),
            "ProgrammingError|StatementError|DataError",
            id="not a number",
        ),
    ],
)
async def test_poison(database: Database, poison: Record, reason: str) -> None:
    """A record that no database takes is set aside and logged; its neighbours are written."""
    with capture_logs() as logs:
        async with open_journal(database) as journal:
            for record in (offered(), turn("before"), poison, turn("after", position=1)):
                journal(record)
            await journal.written_so_far()
            journal(turn("later", position=2))
        assert (journal.set_aside, journal.waiting) == (1, 0)
    found = await CallLog(database).get_call("call-1")
    assert found is not None
    assert [row.item_id for row in found.turns] == ["before", "after", "later"]
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["event"] for entry in errors] == ["! record set aside"]
    assert errors[0]["reason"] in reason.split("|")


async def test_hostile_text(database: Database) -> None:
    """Text and numbers that databases refuse are made harmless, and nothing else is touched."""
    found = await tell(
        database,
        [
            offered(caller_number="a\x00b\udc80c"),
            turn(text="é\x00\ud800\x1b[31m'); DROP TABLE calls;--"),
            event(
                detail={
                    "a\x00": "\udfff",
                    "nan": math.nan,
                    "deep": ({"inf": [math.inf, b"x"]},),
                    "at": NOON,
                }
            ),
        ],
    )
    assert found.call.caller_number == "a\ufffdb\ufffdc"
    assert found.turns[0].text == "é\ufffd\ufffd\x1b[31m'); DROP TABLE calls;--"
    assert found.events[0].detail == {
        "a\ufffd": "\ufffd",
        "nan": None,
        "deep": [{"inf": [None, "b'x'"]}],
        "at": str(NOON),
    }


@asynccontextmanager
async def outage(database: Database, settings: DatabaseSettings) -> AsyncIterator[None]:
    """No writing for a while: SQLite locked by somebody, PostgreSQL refusing all connections."""
    if database.engine.dialect.name == "sqlite":
        other = sqlite3.connect(database.name, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
        other.close()
        return
    name = sa.make_url(settings.url).database
    with psycopg.connect(settings.url.replace(f"/{name}?", "/postgres?"), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=%s", [name]
        )
        yield
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


async def test_outage(database: Database, settings: DatabaseSettings) -> None:
    """Two seconds without a database lose nothing and are two log lines; no call waits."""
    with capture_logs() as logs:
        async with open_journal(database) as journal:
            async with outage(database, settings):
                started_s = asyncio.get_running_loop().time()
                journal(offered())
                for position in range(1200):
                    journal(turn(f"item-{position}", position=position))
                assert asyncio.get_running_loop().time() - started_s < 0.5
                await asyncio.sleep(2)
                assert journal.waiting == 1201
            async with asyncio.timeout(10):
                await journal.written_so_far()
            assert (journal.written, journal.dropped, journal.set_aside) == (1201, 0, 0)
    found = await CallLog(database).get_call("call-1")
    assert found is not None
    assert [row.position for row in found.turns] == list(range(1200))
    said = [entry["event"] for entry in logs if entry["log_level"] in ("error", "warning")]
    assert said == ["! journal cannot write, keeps trying", "= journal writes again"]


async def test_close_during_outage(database: Database, settings: DatabaseSettings) -> None:
    """Closing waits for a database that is gone, but not for ever, and says what was lost."""
    with capture_logs() as logs:
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(open_journal(database, close_timeout_s=0.5))
            async with outage(database, settings):
                journal(offered())
                async with asyncio.timeout(4):
                    await stack.aclose()
    lost = [entry for entry in logs if entry["event"].startswith("! journal closed")]
    assert [entry["waiting"] for entry in lost] == [1]


async def test_closing_lets_go_of_the_database(tmp_path: Path) -> None:
    """However early a journal is closed, the next program finds the database unlocked."""
    settings = DatabaseSettings(url=f"sqlite:///{tmp_path}/calls.db")
    upgrade(settings)
    async with open_database(settings) as database:
        for number in range(25):
            async with open_journal(database) as journal:
                journal(offered())
                await asyncio.sleep(number * 0.002)
            with closing(sqlite3.connect(tmp_path / "calls.db", timeout=0)) as other:
                other.execute("BEGIN IMMEDIATE")


async def test_full(database: Database) -> None:
    """A full queue lets its oldest details give way, counted, and keeps the calls themselves."""
    async with open_journal(database, capacity=10) as journal:
        journal(offered())
        for position in range(30):
            journal(turn(f"item-{position}", position=position))
        journal(ended())
        assert (journal.waiting, journal.dropped) == (10, 22)
    found = await CallLog(database).get_call("call-1")
    assert found is not None
    assert found.call.state == "ended"
    assert [row.position for row in found.turns] == list(range(22, 30))


_ENDLESS_CALL = """
import asyncio, sys
from agent.store.database import open_database
from agent.store.journal import open_journal
from agent.store.settings import DatabaseSettings
from tests.store.telling import answered, event, offered, turn

async def main():
    async with open_database(DatabaseSettings(url=sys.argv[1])) as database:
        async with open_journal(database) as journal:
            journal(offered())
            journal(answered())
            for position in range(10_000):
                journal(turn(f"i{position}", position=position, started_ms=position * 20, ended_ms=None))
                print(position, flush=True)
                await asyncio.sleep(0.02)

asyncio.run(main())
"""


async def test_killed(database: Database, settings: DatabaseSettings) -> None:
    """A kill -9 in mid-call loses at most the last second; the next start ends the call."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ENDLESS_CALL, settings.url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    told = -1
    async with asyncio.timeout(20):
        while told < 100:
            told = int(await process.stdout.readline())
        # A call that is alive is nobody's orphan.
        async with open_journal(database):
            alive = await CallLog(database).get_call("call-1")
        os.kill(process.pid, signal.SIGKILL)
        told = max([told, *map(int, (await process.stdout.read()).split())])
        await process.wait()
    assert alive is not None
    assert alive.call.state == "active"

    with capture_logs() as logs:
        async with open_journal(database):
            pass
    found = await CallLog(database).get_call("call-1")
    assert found is not None
    assert told - found.turns[-1].position <= 50, "more than a second of rows was lost"
    assert found.call.ending == Ending("trunkline", "process ended")
    assert found.call.answered_at is not None
    last_known = timedelta(milliseconds=found.turns[-1].started_ms)
    assert found.call.ended_at == found.call.answered_at + last_known
    assert found.call.duration_ms == found.turns[-1].started_ms
    assert all(row.ended_ms is not None for row in found.turns)
    assert [entry["calls"] for entry in logs if entry["event"].startswith("x ended")] == [1]


HERE = this_worker()


@pytest.mark.parametrize(
    ("worker", "silent_s", "expected"),
    [
        pytest.param("far/pid:[1]:7:1", 0, "active", id="alive elsewhere"),
        pytest.param("far/pid:[1]:7:1", SILENCE_MEANS_DEAD_S + 1, "ended", id="silent elsewhere"),
        pytest.param("far/pid:[1]:7:1", None, "ended", id="never registered"),
        pytest.param(HERE.rpartition(":")[0] + ":1", 0, "ended", id="pid used again"),
        pytest.param(
            HERE.rpartition(":")[0].rpartition(":")[0] + ":4194305:1", 0, "ended", id="gone"
        ),
        pytest.param(HERE, SILENCE_MEANS_DEAD_S + 1, "active", id="our own"),
    ],
)
async def test_orphans(
    database: Database, worker: str, silent_s: int | None, expected: str
) -> None:
    """Calls of dead processes are ended; calls of living ones are let be."""
    now = datetime.now(UTC)
    async with open_journal(database, worker=worker) as journal:
        journal(offered())
        journal(answered())
    async with database.engine.begin() as connection:
        await connection.execute(sa.delete(processes))
        if silent_s is not None:
            seen_at = now - timedelta(seconds=silent_s)
            await connection.execute(
                sa.insert(processes).values(worker=worker, started_at=seen_at, seen_at=seen_at)
            )
    async with database.engine.begin() as connection:
        assert await mark_orphans(connection, HERE, now) == (expected == "ended")
        assert await connection.scalar(sa.select(calls.c.state)) == expected
