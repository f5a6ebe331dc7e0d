"""Who carries which call, and what becomes of the calls of a dead process.

Several programs may share one database. Each has a row in `processes` and
renews it while it lives; each call names the process that carries it. A call
that has not ended is an orphan once its process is dead: at once when that can
be seen from here (same machine, the process is gone), otherwise when its row
was not renewed for `SILENCE_MEANS_DEAD_S`.

A process wrongly taken for dead (suspended for minutes, say) loses nothing:
its own next records about the call overwrite what was assumed here.
"""

import os
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.store.tables import call_events, calls, insert_into, processes, tool_calls, turns

RENEW_EVERY_S = 10
SILENCE_MEANS_DEAD_S = 60

PROCESS_ENDED = "process ended"


def this_worker() -> str:
    """Name this process: unlike any other, before or after it, here or elsewhere.

    Returns:
        `host/pid-namespace:pid:start`, where start is the kernel's start time
        of the process: a pid is used again, the two together are not. Two
        containers may share host name and pid, but not the namespace.
    """
    pid = os.getpid()
    return f"{_machine()}:{pid}:{_start_of(pid)}"


def is_gone(worker: str) -> bool:
    """Tell whether a process is dead for certain; False when it cannot be seen from here."""
    where, _, start = worker.rpartition(":")
    machine, _, process = where.rpartition(":")
    if machine != _machine() or not process.isdecimal():
        return False
    return _start_of(int(process)) != start


async def renew(connection: AsyncConnection, worker: str, now: datetime) -> None:
    """Say that this process is alive, and forget the long dead."""
    await connection.execute(
        insert_into(processes, connection.dialect.name)
        .values(worker=worker, started_at=now, seen_at=now)
        .on_conflict_do_update(index_elements=["worker"], set_={"seen_at": now})
    )
    long_ago = now - timedelta(days=1)
    await connection.execute(sa.delete(processes).where(processes.c.seen_at < long_ago))


async def mark_orphans(connection: AsyncConnection, worker: str, now: datetime) -> int:
    """End the calls whose process is dead, at the last thing known of each.

    Args:
        connection: In a transaction of its own.
        worker: This process; its calls are let be.
        now: The current time.

    Returns:
        How many calls were ended.
    """
    silent_since = now - timedelta(seconds=SILENCE_MEANS_DEAD_S)
    rows = (
        await connection.execute(
            sa.select(
                calls.c.id,
                calls.c.started_at,
                calls.c.answered_at,
                calls.c.worker,
                processes.c.seen_at,
            )
            .outerjoin(processes, processes.c.worker == calls.c.worker)
            .where(calls.c.state.in_(("ringing", "active")), calls.c.worker != worker)
        )
    ).all()
    orphans = [
        row
        for row in rows
        if row.seen_at is None or row.seen_at < silent_since or is_gone(row.worker)
    ]
    for orphan in orphans:
        ended_at = await _last_known(connection, orphan)
        duration_ms = 0
        if orphan.answered_at is not None:
            duration_ms = round((ended_at - orphan.answered_at) / timedelta(milliseconds=1))
        await connection.execute(
            sa.update(calls)
            # The process may have ended the call while we looked.
            .where(calls.c.id == orphan.id, calls.c.state != "ended")
            .values(
                state="ended",
                ended_at=ended_at,
                duration_ms=duration_ms,
                ending_by="trunkline",
                ending_reason=PROCESS_ENDED,
            )
        )
    await close_what_is_open(connection, [orphan.id for orphan in orphans], PROCESS_ENDED)
    return len(orphans)


async def close_what_is_open(
    connection: AsyncConnection, call_ids: Sequence[str], reason: str
) -> None:
    """Let no turn and no tool call go on in calls that are over.

    An open turn ends with its call; a running tool call failed, for `reason`.
    Calls that have not ended are left alone.
    """
    if not call_ids:
        return

    def end_after(started_ms: sa.Column[int], call_id: sa.Column[str]) -> sa.ColumnElement[int]:
        duration_ms = (
            sa.select(sa.func.coalesce(calls.c.duration_ms, 0))
            .where(calls.c.id == call_id)
            .scalar_subquery()
        )
        return sa.case((duration_ms > started_ms, duration_ms), else_=started_ms)

    over = sa.select(calls.c.id).where(calls.c.id.in_(call_ids), calls.c.state == "ended")
    await connection.execute(
        sa.update(turns)
        .where(turns.c.call_id.in_(over), turns.c.ended_ms.is_(None))
        .values(ended_ms=end_after(turns.c.started_ms, turns.c.call_id))
    )
    await connection.execute(
        sa.update(tool_calls)
        .where(tool_calls.c.call_id.in_(over), tool_calls.c.status == "running")
        .values(
            status="failed",
            error=reason,
            duration_ms=end_after(tool_calls.c.started_ms, tool_calls.c.call_id)
            - tool_calls.c.started_ms,
        )
    )


async def _last_known(connection: AsyncConnection, orphan: Any) -> datetime:
    """Find the latest point in time that any row of a call speaks of."""
    known: list[datetime] = [orphan.started_at]
    noticed_at = await connection.scalar(
        sa.select(sa.func.max(call_events.c.at)).where(call_events.c.call_id == orphan.id)
    )
    if noticed_at is not None:
        known.append(noticed_at)
    if orphan.answered_at is not None:
        last_turn_ms = await connection.scalar(
            sa.select(sa.func.max(sa.func.coalesce(turns.c.ended_ms, turns.c.started_ms))).where(
                turns.c.call_id == orphan.id
            )
        )
        last_tool_ms = await connection.scalar(
            sa.select(
                sa.func.max(tool_calls.c.started_ms + sa.func.coalesce(tool_calls.c.duration_ms, 0))
            ).where(tool_calls.c.call_id == orphan.id)
        )
        offset_ms = max(last_turn_ms or 0, last_tool_ms or 0)
        known.append(orphan.answered_at + timedelta(milliseconds=int(offset_ms)))
    return max(known)


def _machine() -> str:
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = "?"
    return f"{socket.gethostname()}/{namespace}"


def _start_of(pid: int) -> str:
    """Read when a process started, in clock ticks after boot; empty when there is none.

    Source: proc(5), /proc/pid/stat, field 22. The name in field 2 may hold
    spaces and brackets, so we count from behind its last bracket. A zombie has
    started but carries no calls.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
