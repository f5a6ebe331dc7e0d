"""The call log as it is read: lists of calls, and one call with all that was said.

Rows become plain frozen values here; the API and the terminal show them without
knowing SQL. Lists are newest first and are continued by a cursor that names the
last call seen, so that calls arriving meanwhile shift nothing. The rows are
written by the journal.
"""

import base64
import binascii
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.call.events import Speaker, UsagePurpose
from agent.call.records import Ending, ToolStatus
from agent.store.database import FAILURES, Database, DatabaseUnavailable, explain
from agent.store.tables import call_events, calls, charges, storable, tool_calls, turns, usd_of

CallState = Literal["ringing", "active", "ended"]
MAX_LIMIT = 200
DEFAULT_LIMIT = 50


class InvalidCursor(ValueError):
    """The cursor is not one that a list handed out."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls to list; None means any.

    Attributes:
        q: Words that were said in the call, in any case.
        state: Ringing, active or ended.
        trunk: Exactly this trunk.
        agent: Exactly this agent.
        did: Exactly this number dialled.
        caller: Exactly this caller number.
        since: Calls that started then or later.
        until: Calls that started before.
    """

    q: str | None = None
    state: CallState | None = None
    trunk: str | None = None
    agent: str | None = None
    did: str | None = None
    caller: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class TurnLatency:
    """How long callers waited for the agent's first sound, over the turns of a call."""

    p50_ms: int
    p95_ms: int


@dataclass(frozen=True, slots=True)
class Call:
    """A call as a list shows it."""

    id: str
    direction: Literal["inbound", "outbound"]
    state: CallState
    trunk: str
    did: str
    caller_number: str
    agent: str
    source: Literal["sip", "web"]
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    answer_delay_ms: int | None
    ending: Ending | None
    turn_count: int
    tool_call_count: int
    turn_latency: TurnLatency | None
    cost_usd: Decimal | None
    has_recording: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What one party said in one go. Offsets count from the answer."""

    item_id: str
    position: int
    speaker: Speaker
    text: str
    heard_text: str
    interrupted: bool
    started_ms: int
    ended_ms: int | None
    latency_ms: int | None
    endpointing_ms: int | None = None
    model_ms: int | None = None
    network_ms: int | None = None
    buffer_ms: int | None = None
    tool_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call, finished or not."""

    tool_call_id: str
    name: str
    arguments: str
    output: str | None
    error: str | None
    status: ToolStatus
    started_ms: int
    duration_ms: int | None
    attempts: int = 1
    silence_ms: int | None = None
    repeats: str | None = None


@dataclass(frozen=True, slots=True)
class ChargeEntry:
    """What one response or one transcription used and cost."""

    source_id: str
    purpose: UsagePurpose
    model: str
    offset_ms: int
    usage: Mapping[str, Any]
    cost_usd: Decimal | None
    remark: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth an admin's attention."""

    at: datetime
    offset_ms: int
    kind: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallDetail:
    """One call with everything known of it."""

    call: Call
    sip_call_id: str
    realtime_call_id: str | None
    quality: Mapping[str, Any] | None
    usage: Mapping[str, Any] | None
    turns: Sequence[Turn] = field(default=())
    tool_calls: Sequence[ToolCall] = field(default=())
    charges: Sequence[ChargeEntry] = field(default=())
    events: Sequence[Event] = field(default=())


@dataclass(frozen=True, slots=True)
class CallPage:
    """A stretch of the list; `next_cursor` None at its end."""

    items: Sequence[Call]
    next_cursor: str | None


class CallLog:
    """The call log for its readers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_calls(
        self,
        wanted: CallFilter | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> CallPage:
        """List calls, newest first.

        Args:
            wanted: Which calls; None for all.
            limit: How many at most, 1 to 200.
            cursor: Where an earlier page said to go on.

        Raises:
            InvalidCursor: The cursor was not handed out by this method.
            ValueError: The limit is outside its range.
            DatabaseUnavailable: The database does not answer.
        """
        if not 1 <= limit <= MAX_LIMIT:
            msg = f"limit is {limit}, expected 1 to {MAX_LIMIT}"
            raise ValueError(msg)
        query = (
            sa.select(calls)
            .where(*_conditions(wanted or CallFilter()))
            .order_by(calls.c.started_at.desc(), calls.c.id.desc())
            .limit(limit + 1)
        )
        if cursor is not None:
            started_at, call_id = _read_cursor(cursor)
            query = query.where(
                sa.or_(
                    calls.c.started_at < started_at,
                    sa.and_(calls.c.started_at == started_at, calls.c.id < call_id),
                )
            )
        try:
            async with self._database.engine.connect() as connection:
                rows = (await connection.execute(query)).all()
                items = await _with_figures(connection, rows[:limit])
        except FAILURES as error:
            raise DatabaseUnavailable(explain(error, self._database.name)) from error
        is_last = len(rows) <= limit
        return CallPage(items, None if is_last else _write_cursor(items[-1]))

    async def get_call(self, call_id: str) -> CallDetail | None:
        """Read one call with its turns, tool calls and events; None if there is none.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        try:
            async with self._database.engine.connect() as connection:
                return await _read_call(connection, storable(call_id))
        except FAILURES as error:
            raise DatabaseUnavailable(explain(error, self._database.name)) from error


def percentile(values: Sequence[int], percent: int) -> int:
    """Give the nearest-rank percentile of some values, of which there is at least one."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _conditions(wanted: CallFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    for column, value in (
        (calls.c.state, wanted.state),
        (calls.c.trunk, wanted.trunk),
        (calls.c.agent, wanted.agent),
        (calls.c.did, wanted.did),
        (calls.c.caller_number, wanted.caller),
    ):
        if value is not None:
            found.append(column == storable(value))
    if wanted.since is not None:
        found.append(calls.c.started_at >= wanted.since)
    if wanted.until is not None:
        found.append(calls.c.started_at < wanted.until)
    if wanted.q is not None:
        said = turns.c.text.icontains(storable(wanted.q), autoescape=True)
        found.append(sa.exists().where(turns.c.call_id == calls.c.id, said))
    return found


async def _with_figures(connection: AsyncConnection, rows: Sequence[Any]) -> list[Call]:
    """Add to the rows of calls what is counted from other tables."""
    ids = [row.id for row in rows]
    turn_counts: dict[str, int] = defaultdict(int)
    latencies: dict[str, list[int]] = defaultdict(list)
    for call_id, latency_ms in await connection.execute(
        sa.select(turns.c.call_id, turns.c.latency_ms).where(turns.c.call_id.in_(ids))
    ):
        turn_counts[call_id] += 1
        if latency_ms is not None:
            latencies[call_id].append(latency_ms)
    counted = await connection.execute(
        sa.select(tool_calls.c.call_id, sa.func.count())
        .where(tool_calls.c.call_id.in_(ids))
        .group_by(tool_calls.c.call_id)
    )
    tool_counts: dict[str, int] = {call_id: count for call_id, count in counted}  # noqa: C416
    return [
        _call(row, turn_counts[row.id], tool_counts.get(row.id, 0), latencies[row.id])
        for row in rows
    ]


def _call(row: Any, turn_count: int, tool_call_count: int, latencies: Sequence[int]) -> Call:
    latency = None
    if latencies:
        latency = TurnLatency(percentile(latencies, 50), percentile(latencies, 95))
    ending = None
    if row.ending_by is not None:
        ending = Ending(by=row.ending_by, reason=row.ending_reason or "")
    return Call(
        id=row.id,
        direction=row.direction,
        state=row.state,
        trunk=row.trunk,
        did=row.did,
        caller_number=row.caller_number,
        agent=row.agent,
        source=row.source,
        started_at=row.started_at,
        answered_at=row.answered_at,
        ended_at=row.ended_at,
        duration_ms=row.duration_ms,
        answer_delay_ms=row.answer_delay_ms,
        ending=ending,
        turn_count=turn_count,
        tool_call_count=tool_call_count,
        turn_latency=latency,
        cost_usd=None if row.cost_nano_usd is None else usd_of(row.cost_nano_usd),
    )


async def _read_call(connection: AsyncConnection, call_id: str) -> CallDetail | None:
    row = (await connection.execute(sa.select(calls).where(calls.c.id == call_id))).one_or_none()
    if row is None:
        return None

    async def rows_of(table: sa.Table, kind: type[Any], *order: sa.Column[Any]) -> list[Any]:
        columns = [table.c[name] for name in kind.__slots__]
        query = sa.select(*columns).where(table.c.call_id == call_id).order_by(*order)
        return list((await connection.execute(query)).all())

    # Two items that claim one position stay in the order of the conversation.
    said = await rows_of(turns, Turn, turns.c.position, turns.c.started_ms, turns.c.item_id)
    tools = await rows_of(tool_calls, ToolCall, tool_calls.c.started_ms, tool_calls.c.tool_call_id)
    paid = await connection.execute(
        sa.select(charges)
        .where(charges.c.call_id == call_id)
        .order_by(charges.c.offset_ms, charges.c.source_id)
    )
    noticed = await rows_of(call_events, Event, call_events.c.at, call_events.c.sequence)
    latencies = [turn.latency_ms for turn in said if turn.latency_ms is not None]
    return CallDetail(
        call=_call(row, len(said), len(tools), latencies),
        sip_call_id=row.sip_call_id,
        realtime_call_id=row.realtime_call_id,
        quality=row.quality,
        usage=row.usage,
        turns=[Turn(*turn) for turn in said],
        tool_calls=[ToolCall(*tool) for tool in tools],
        charges=[_charge(row) for row in paid],
        events=[Event(*event) for event in noticed],
    )


def _charge(row: Any) -> ChargeEntry:
    return ChargeEntry(
        source_id=row.source_id,
        purpose=row.purpose,
        model=row.model,
        offset_ms=row.offset_ms,
        usage=row.usage,
        cost_usd=None if row.cost_nano_usd is None else usd_of(row.cost_nano_usd),
        remark=row.remark,
    )


def _write_cursor(call: Call) -> str:
    text = json.dumps([call.started_at.isoformat(), call.id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        started_at, call_id = cast("list[str]", json.loads(text))
        return datetime.fromisoformat(started_at).astimezone(UTC), storable(str(call_id))
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        msg = "the cursor is not one that a list of calls handed out"
        raise InvalidCursor(msg) from error
