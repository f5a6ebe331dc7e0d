"""The journal: what happens in a call is on its way to SQL while it happens.

::

    call ──► journal(record) ──► queue, by row ──► writer, every 250 ms ──► SQL

`journal(record)` is a call that puts a note in a dictionary: it never blocks
and never raises, because a call must not stumble over its own log. A record is
a whole statement about one row, so a newer one takes the place of an older one
that was not written yet, and writing one twice changes nothing.

The writer is one task. A database that is locked or gone makes it wait and try
again while the queue holds; a record that the database refuses is set aside
and logged, and the others are written. Nothing here waits for a call, and no
call waits for anything here.
"""

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.call.records import (
    CallAnswered,
    CallCost,
    CallEnded,
    CallEventRecord,
    CallOffered,
    ChargeRecord,
    Record,
    ToolCallRecord,
    TurnRecord,
)
from agent.store.database import FAILURES, Database, DatabaseUnavailable, explain
from agent.store.tables import (
    Upsert,
    call_events,
    calls,
    charges,
    insert_into,
    nano_usd,
    tool_calls,
    turns,
)
from agent.store.workers import (
    RENEW_EVERY_S,
    close_what_is_open,
    mark_orphans,
    renew,
    this_worker,
)

log = structlog.get_logger()

BATCH_MS = 250
"""A killed process loses at most what came in the last batch time and one write."""

CAPACITY = 10_000
"""Rows that may wait: minutes of a full house without a database."""

MAX_BATCH = 500
_BEGIN_TIMEOUT_S = 5.0
_LAST_TRANSACTION_S = 2.0
_RETRY_FIRST_S, _RETRY_LONGEST_S = 0.25, 5.0
_REMEMBERED_ENDINGS = 1000
_CALL_ENDED = "call ended"
_TABLES: dict[type[Record], sa.Table] = {
    CallOffered: calls,
    TurnRecord: turns,
    ToolCallRecord: tool_calls,
    ChargeRecord: charges,
    CallEventRecord: call_events,
}


class SqlJournal:
    """The journal of one process. Call it with a record; belongs to one event loop.

    Attributes:
        written: Rows written so far.
        dropped: Records lost because the queue was full.
        set_aside: Records the database refused.
        worker: The name under which this process carries its calls.
    """

    def __init__(self, database: Database, worker: str, capacity: int = CAPACITY) -> None:
        self.written = 0
        self.dropped = 0
        self.set_aside = 0
        self.worker = worker
        self._database = database
        self._capacity = capacity
        dialect = database.engine.dialect.name
        self._upserts = {kind: _upsert(kind, dialect) for kind in _TABLES}
        self._waiting: OrderedDict[Hashable, Record] = OrderedDict()
        self._writing: dict[Hashable, Record] = {}
        self._arrived = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        # Starts with the clock, so a later journal's events follow an earlier one's.
        self._sequence = itertools.count(time.time_ns() // 1000)
        # What comes late for a call that is over must not open it again. A set, in order.
        self._over: OrderedDict[str, None] = OrderedDict()
        self._is_failing = False

    def __call__(self, record: Record) -> None:
        """Put a record on its way. Never blocks, never raises; full: drop and count."""
        # An update stays where the row first stood: behind the call it belongs to.
        self._waiting[self._row_of(record)] = record
        if len(self._waiting) > self._capacity:
            self._drop_one()
        self._settled.clear()
        self._arrived.set()

    @property
    def waiting(self) -> int:
        """How many rows are not in the database yet."""
        return len(self._waiting) + len(self._writing)

    async def written_so_far(self) -> None:
        """Wait until everything told so far is in the database or set aside."""
        await self._settled.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._arrived.wait()
            # Wait for company: one transaction for what a moment brings.
            await asyncio.sleep(BATCH_MS / 1000)
            await self.drain()

    async def drain(self) -> None:
        """Write all that waits, however long the database takes."""
        retry_s = _RETRY_FIRST_S
        while self._waiting or self._writing:
            if not self._writing:
                self._take_batch()
            try:
                await self._write_batch()
            except Exception as error:  # noqa: BLE001  (style.md: one of its two homes)
                self._say_failing(error)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _RETRY_LONGEST_S)
            else:
                retry_s = _RETRY_FIRST_S
                self._say_working()
        self._arrived.clear()
        self._settled.set()

    async def keep_alive(self, now: Callable[[], datetime]) -> None:
        """Renew this process's row, and end the calls of processes that died."""
        while True:
            try:
                await self.beat(now())
            except FAILURES as error:
                # The next beat is soon, and the writer says when the database is gone.
                log.debug("! heartbeat not written", reason=explain(error, self._database.name))
            await asyncio.sleep(RENEW_EVERY_S)

    async def begin(self, now: Callable[[], datetime]) -> None:
        """Register this process; wait a little for a predecessor that still lets go.

        Raises:
            DatabaseUnavailable: The database could not be written all that time.
        """
        deadline_s = time.monotonic() + _BEGIN_TIMEOUT_S
        while True:
            try:
                return await self.beat(now())
            except FAILURES as error:
                if time.monotonic() > deadline_s:
                    raise DatabaseUnavailable(explain(error, self._database.name)) from error
            await asyncio.sleep(_RETRY_FIRST_S)

    async def beat(self, now: datetime) -> None:
        """Say once that this process lives, and look once for orphans."""
        await _whole(self._beat(now))

    async def _beat(self, now: datetime) -> None:
        async with self._database.engine.begin() as connection:
            await renew(connection, self.worker, now)
            orphans = await mark_orphans(connection, self.worker, now)
        if orphans:
            log.info("x ended the calls of a process that is gone", calls=orphans)

    def _row_of(self, record: Record) -> Hashable:
        match record:
            case TurnRecord():
                return TurnRecord, record.call_id, record.item_id
            case ToolCallRecord():
                return ToolCallRecord, record.call_id, record.tool_call_id
            case ChargeRecord():
                return ChargeRecord, record.call_id, record.source_id
            case CallEventRecord():
                return CallEventRecord, record.call_id, next(self._sequence)
            case _:
                return type(record), record.call_id

    def _drop_one(self) -> None:
        """Let the oldest row give way, but a call itself only when nothing else is left."""
        details = (TurnRecord, ToolCallRecord, CallEventRecord)
        oldest = next(
            (row for row, record in self._waiting.items() if isinstance(record, details)),
            next(iter(self._waiting)),
        )
        del self._waiting[oldest]
        self.dropped += 1
        if self.dropped == 1 or self.dropped % self._capacity == 0:
            log.warning("! journal full, oldest records dropped", dropped=self.dropped)

    def _take_batch(self) -> None:
        for row in list(itertools.islice(self._waiting, MAX_BATCH)):
            self._writing[row] = self._waiting.pop(row)

    async def _write_batch(self) -> None:
        try:
            await _whole(self._write(list(self._writing.items())))
        except Exception as error:
            if not _is_the_records_fault(error):
                raise
            # One of them is bad: find it by writing each on its own, in order.
            for row, record in list(self._writing.items()):
                await self._write_alone(row, record)
        else:
            self._writing.clear()

    async def _write_alone(self, row: Hashable, record: Record) -> None:
        try:
            await _whole(self._write([(row, record)]))
        except Exception as error:
            if not _is_the_records_fault(error):
                raise
            self.set_aside += 1
            # The database's own words may quote what was said: only the kind goes to the log.
            log.error(
                "! record set aside",
                call_id=record.call_id,
                record=type(record).__name__,
                reason=type(error).__name__,
            )
            log.debug("! record set aside because", exc_info=error)
        del self._writing[row]

    async def _write(self, batch: Sequence[tuple[Hashable, Record]]) -> None:
        """Write records in one transaction, in order."""
        to_close: dict[str, None] = {}
        async with self._database.engine.begin() as connection:
            # Neighbours of one kind are one statement: a twentieth of the work.
            for kind, run in itertools.groupby(batch, key=lambda item: type(item[1])):
                await self._write_run(connection, kind, list(run))
            for _, record in batch:
                if isinstance(record, CallEnded):
                    self._over[record.call_id] = None
                if record.call_id in self._over:
                    to_close[record.call_id] = None
            await close_what_is_open(connection, list(to_close), _CALL_ENDED)
        while len(self._over) > _REMEMBERED_ENDINGS:
            self._over.popitem(last=False)
        self.written += len(batch)

    async def _write_run(
        self,
        connection: AsyncConnection,
        kind: type[Record],
        run: Sequence[tuple[Hashable, Record]],
    ) -> None:
        """Write records of one kind, in order."""
        if kind in _TABLES:
            rows = [self._columns(row, record) for row, record in run]
            await connection.execute(self._upserts[kind], rows)
            return
        for _, record in run:
            match record:
                case CallAnswered():
                    await _update_call(
                        connection,
                        record.call_id,
                        state=sa.case((calls.c.state == "ended", "ended"), else_="active"),
                        realtime_call_id=record.realtime_call_id,
                        answered_at=record.answered_at,
                        answer_delay_ms=record.answer_delay_ms,
                    )
                case CallEnded():
                    await _update_call(
                        connection,
                        record.call_id,
                        state="ended",
                        ended_at=record.ended_at,
                        duration_ms=record.duration_ms,
                        ending_by=record.ending.by,
                        ending_reason=record.ending.reason,
                        quality=record.quality,
                    )
                case CallCost():
                    await _update_call(
                        connection,
                        record.call_id,
                        cost_nano_usd=nano_usd(record.cost_usd),
                        usage=record.usage,
                    )

    def _columns(self, row: Hashable, record: Record) -> dict[str, object]:
        """Give a record's row: its fields are columns of the same name."""
        values = {name: getattr(record, name) for name in record.__slots__}
        match record:
            case CallOffered():
                values["id"] = values.pop("call_id")
                return values | {"state": "ringing", "worker": self.worker}
            case ChargeRecord():
                values["cost_nano_usd"] = nano_usd(values.pop("cost_usd"))
                return values
            case CallEventRecord():
                assert isinstance(row, tuple)
                return values | {"sequence": row[2]}
            case _:
                return values

    def _say_failing(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            reason = explain(error, self._database.name)
            log.error("! journal cannot write, keeps trying", reason=reason, waiting=self.waiting)
            # With the traceback also what was said: not for the log of every day.
            log.debug("! journal cannot write because", exc_info=error)

    def _say_working(self) -> None:
        if self._is_failing:
            self._is_failing = False
            log.warning("= journal writes again", waiting=self.waiting, dropped=self.dropped)


@asynccontextmanager
async def open_journal(
    database: Database,
    *,
    worker: str | None = None,
    capacity: int = CAPACITY,
    close_timeout_s: float = 5,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[SqlJournal]:
    """Start the journal of this process; on leaving, write what still waits.

    First registers the process and ends the calls of those that died before.

    Args:
        database: An open database, which must stay open as long as this.
        worker: This process's name; made from host, pid and start time if None.
        capacity: How many rows may wait.
        close_timeout_s: How long the last rows may take; what is left is logged.
        now: The wall clock, for the heartbeat.

    Raises:
        DatabaseUnavailable: The database failed before the journal began.
    """
    journal = SqlJournal(database, worker or this_worker(), capacity)
    await journal.begin(now)
    tasks = [
        asyncio.create_task(journal.run(), name="journal"),
        asyncio.create_task(journal.keep_alive(now), name="journal heartbeat"),
    ]
    try:
        yield journal
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        try:
            async with asyncio.timeout(close_timeout_s):
                await journal.drain()
        except TimeoutError:
            log.error("! journal closed with records unwritten", waiting=journal.waiting)


async def _whole(transaction: Coroutine[Any, Any, None]) -> None:
    """Carry a transaction to its end, also when the task around it is cancelled.

    One that is cut in the middle holds SQLite's write lock until its connection
    is collected, and whoever opens the database next finds it locked.
    """
    task = asyncio.ensure_future(transaction)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,), timeout=_LAST_TRANSACTION_S)
        if not task.cancel() and not task.cancelled():
            task.exception()  # seen: what failed is written again by whoever drains the queue
        raise


def _is_the_records_fault(error: Exception) -> bool:
    """Tell a record that can never be written from a database that cannot write now.

    Anything that went wrong before the database was asked is the record's
    fault (a number too large, a time without zone), and so is what the database
    says about values. What it says about itself is not: locked, gone, full.
    """
    match error:
        case sa.exc.DataError() | sa.exc.IntegrityError():
            return True
        case sa.exc.ProgrammingError():
            # Without an SQLSTATE the driver said it: it has no form for the value.
            return getattr(error.orig, "sqlstate", None) is None
        case sa.exc.DBAPIError():
            return False
        case sa.exc.StatementError():
            return True
        case sa.exc.SQLAlchemyError() | OSError():
            return False
        case _:
            return True


def _upsert(kind: type[Any], dialect: str) -> Upsert:
    """Build the statement that inserts rows, or updates those with the same key."""
    table = _TABLES[kind]
    key = [column.name for column in table.primary_key]
    told = {field.name for field in fields(kind) if field.name in table.c} - {*key}
    statement = insert_into(table, dialect)
    # What the record does not speak of stays as it is, such as the state of a call.
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: statement.excluded[name] for name in sorted(told)}
    )


async def _update_call(connection: AsyncConnection, call_id: str, **values: object) -> None:
    result = await connection.execute(
        sa.update(calls).where(calls.c.id == call_id).values(**values)
    )
    if result.rowcount == 0:
        msg = f"call {call_id} was never offered"
        raise LookupError(msg)
