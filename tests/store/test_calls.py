"""The call log as it is read: newest first, filtered, page by page."""

from datetime import timedelta, timezone
from typing import Any

import pytest

from agent.store.calls import CallFilter, CallLog, InvalidCursor, percentile
from agent.store.database import Database, DatabaseUnavailable
from agent.store.journal import open_journal
from tests.store.telling import NOON, answered, ended, offered, tool, turn


async def fill(database: Database, count: int = 7) -> None:
    """Some calls, a minute apart, but the last two at the very same moment."""
    async with open_journal(database) as journal:
        for number in range(count):
            minute = min(number, count - 2)
            journal(
                offered(
                    f"call-{number}",
                    started_at=NOON + timedelta(minutes=minute),
                    trunk="b" if number == 1 else "a",
                    agent="b" if number == 2 else "a",
                    did=f"+1{number}",
                    caller_number=f"+2{number}",
                )
            )
        for call_id in ("call-3", "call-4"):
            journal(answered(call_id))
        journal(ended("call-4"))
        journal(turn("1", "call-3", text="Do you bake 100% RYE bread, or_not?"))
        journal(turn("2", "call-3", position=1, text="rye again", latency_ms=500))
        journal(tool(call_id="call-3"))


ALL = ["call-6", "call-5", "call-4", "call-3", "call-2", "call-1", "call-0"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({}, ALL, id="all, newest first"),
        pytest.param({"state": "ended"}, ["call-4"], id="ended"),
        pytest.param({"state": "active"}, ["call-3"], id="active"),
        pytest.param({"trunk": "b"}, ["call-1"], id="trunk"),
        pytest.param({"agent": "b"}, ["call-2"], id="agent"),
        pytest.param({"did": "+15"}, ["call-5"], id="did"),
        pytest.param({"caller": "+20"}, ["call-0"], id="caller"),
        pytest.param({"q": "rye"}, ["call-3"], id="words, in any case"),
        pytest.param({"q": "100%"}, ["call-3"], id="percent is a character"),
        pytest.param({"q": "or_not"}, ["call-3"], id="underscore is a character"),
        pytest.param({"q": "10_%"}, [], id="and no wildcard"),
        pytest.param({"q": "a\x00b\ud800"}, [], id="hostile words"),
        pytest.param({"q": "rye", "state": "ended"}, [], id="both must hold"),
        pytest.param({"since": NOON + timedelta(minutes=4)}, ALL[:3], id="since includes"),
        pytest.param({"until": NOON + timedelta(minutes=1)}, ["call-0"], id="until excludes"),
        pytest.param(
            {"since": (NOON + timedelta(minutes=5)).astimezone(timezone(timedelta(hours=-7)))},
            ALL[:2],
            id="another time zone",
        ),
    ],
)
async def test_filters(database: Database, wanted: dict[str, Any], expected: list[str]) -> None:
    """A filter leaves exactly the calls it names."""
    await fill(database)
    page = await CallLog(database).list_calls(CallFilter(**wanted))
    assert [call.id for call in page.items] == expected
    assert page.next_cursor is None


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
async def test_pages(database: Database, limit: int) -> None:
    """Every call is on exactly one page, also while newer calls arrive."""
    await fill(database)
    log = CallLog(database)
    seen: list[str] = []
    cursor = None
    for _ in range(8):
        page = await log.list_calls(limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        seen += [call.id for call in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        async with open_journal(database) as journal:
            journal(offered(f"new-{len(seen)}", started_at=NOON + timedelta(days=1)))
    assert seen == ALL


async def test_figures(database: Database) -> None:
    """A call in the list carries its counts and latencies; one without turns has none."""
    await fill(database)
    page = await CallLog(database).list_calls()
    found = {call.id: call for call in page.items}
    assert (found["call-3"].turn_count, found["call-3"].tool_call_count) == (2, 1)
    assert found["call-3"].turn_latency is not None
    assert found["call-3"].turn_latency.p50_ms == 500
    assert found["call-2"].turn_latency is None
    assert found["call-2"].turn_count == 0
    assert (found["call-2"].cost_usd, found["call-2"].has_recording) == (None, False)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "%%%", "e30", "WzEsMl0", "W10", "WyIyMDI2IiwgbnVsbF0", "Ww" * 5000, "é"],
)
async def test_foreign_cursor(database: Database, cursor: str) -> None:
    """A cursor that no list handed out is refused, not guessed at."""
    with pytest.raises(InvalidCursor):
        await CallLog(database).list_calls(cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_limit(database: Database, limit: int) -> None:
    """A page has 1 to 200 calls."""
    with pytest.raises(ValueError, match="expected 1 to 200"):
        await CallLog(database).list_calls(limit=limit)


async def test_no_such_call(database: Database) -> None:
    """A call that is not there is None, whatever it is called."""
    log = CallLog(database)
    assert await log.get_call("call-9") is None
    assert await log.get_call("\x00\ud800'; --") is None


async def test_database_gone(database: Database) -> None:
    """A database that fails while it is read is said to be unavailable."""
    await fill(database)
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE tool_calls")
    with pytest.raises(DatabaseUnavailable, match="tool_calls"):
        await CallLog(database).get_call("call-1")
    with pytest.raises(DatabaseUnavailable, match="tool_calls"):
        await CallLog(database).list_calls()


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        pytest.param([7], 50, 7, id="one"),
        pytest.param([7], 95, 7, id="one, high"),
        pytest.param([40, 10, 30, 20], 50, 20, id="nearest rank"),
        pytest.param(list(range(1, 101)), 95, 95, id="hundred"),
        pytest.param([1, 2], 0, 1, id="least"),
    ],
)
def test_percentile(values: list[int], percent: int, expected: int) -> None:
    """Percentiles are values that were measured."""
    assert percentile(values, percent) == expected
