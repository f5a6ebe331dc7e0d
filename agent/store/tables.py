"""The call log's tables, the same on SQLite and PostgreSQL.

A call is one row in `calls`; what was said, done, paid and noticed in it are rows
in `turns`, `tool_calls`, `charges` and `call_events`, all keyed by the call. `processes`
tells which of the programs that share this database are alive, `api_tokens`
who may read it. `migrations/` makes these tables; a test compares the two.

Only `agent/store` reads or writes them.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect

# NUL ends a text for PostgreSQL, and a lone surrogate is not UTF-8 for anyone.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def storable(text: str) -> str:
    """Replace the characters no database takes by U+FFFD; keep all others."""
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def storable_json(value: object) -> Any:
    """Turn any value into JSON that both databases take.

    Texts become storable, numbers that JSON lacks (NaN, infinity) become None,
    and what JSON has no word for becomes its `str`.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable(str(key)): storable_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [storable_json(item) for item in value]
    return storable(str(value))


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A point in time: aware in Python, exact to the microsecond in both databases.

    SQLite has no time zones, so there it is written as UTC without one, in a
    form whose order as text is its order in time.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Write as UTC; a time without zone is an error, not a guess."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = f"a time without time zone cannot be stored: {value.isoformat()}"
            raise ValueError(msg)
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class StorableText(sa.types.TypeDecorator[str]):
    """Text that never makes a statement fail; see `storable`."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Replace what the databases refuse."""
        return None if value is None else storable(value)


class StorableJson(sa.types.TypeDecorator[Any]):
    """A JSON object that never makes a statement fail; see `storable_json`."""

    impl = sa.JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> Any:  # noqa: ARG002
        """Replace what JSON or the databases refuse."""
        return None if value is None else storable_json(value)


_NANO = 1_000_000_000


def nano_usd(usd: Decimal | None) -> int | None:
    """Write money as whole billionths of a dollar: exact, and summed alike, in both databases."""
    return None if usd is None else round(usd * _NANO)


def usd_of(nano: int) -> Decimal:
    """Read such money."""
    return Decimal(nano) / _NANO


def dump_json(value: object) -> str:
    """Serialise for the JSON columns; every number in it is finite by then."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


Upsert: TypeAlias = postgresql.Insert | sqlite.Insert


def insert_into(table: sa.Table, dialect: str) -> Upsert:
    """Begin an INSERT that may say ON CONFLICT, in the words of one of the two databases."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)


def _call_id() -> sa.Column[str]:
    return sa.Column(
        "call_id",
        StorableText,
        sa.ForeignKey("calls.id", ondelete="CASCADE"),
        primary_key=True,
    )


calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", StorableText, primary_key=True),
    sa.Column("sip_call_id", StorableText, nullable=False),
    sa.Column("realtime_call_id", StorableText),
    sa.Column("direction", StorableText, nullable=False),
    sa.Column("source", StorableText, nullable=False),
    sa.Column("state", StorableText, nullable=False),
    sa.Column("trunk", StorableText, nullable=False),
    sa.Column("did", StorableText, nullable=False),
    sa.Column("caller_number", StorableText, nullable=False),
    sa.Column("agent", StorableText, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("answered_at", UtcTime),
    sa.Column("ended_at", UtcTime),
    sa.Column("answer_delay_ms", sa.BigInteger),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("ending_by", StorableText),
    sa.Column("ending_reason", StorableText),
    sa.Column("quality", StorableJson),
    sa.Column("usage", StorableJson),
    # None: not known. One call with one response costs some ten million of them.
    sa.Column("cost_nano_usd", sa.BigInteger),
    # The process that carries the call: `processes.worker`.
    sa.Column("worker", StorableText, nullable=False),
    # Every listing is newest first, within one of these or overall.
    sa.Index(None, "started_at", "id"),
    sa.Index(None, "state", "started_at"),
    sa.Index(None, "trunk", "started_at"),
    sa.Index(None, "agent", "started_at"),
    sa.Index(None, "did", "started_at"),
    sa.Index(None, "caller_number", "started_at"),
)

turns = sa.Table(
    "turns",
    metadata,
    _call_id(),
    sa.Column("item_id", StorableText, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("speaker", StorableText, nullable=False),
    sa.Column("text", StorableText, nullable=False),
    sa.Column("heard_text", StorableText, nullable=False),
    sa.Column("interrupted", sa.Boolean, nullable=False),
    sa.Column("started_ms", sa.BigInteger, nullable=False),
    sa.Column("ended_ms", sa.BigInteger),
    sa.Column("latency_ms", sa.BigInteger),
    *(
        sa.Column(part, sa.BigInteger)
        for part in ("endpointing_ms", "model_ms", "network_ms", "buffer_ms", "tool_ms")
    ),
    sa.Index(None, "call_id", "position"),
)

tool_calls = sa.Table(
    "tool_calls",
    metadata,
    _call_id(),
    sa.Column("tool_call_id", StorableText, primary_key=True),
    sa.Column("item_id", StorableText, nullable=False),
    sa.Column("name", StorableText, nullable=False),
    sa.Column("arguments", StorableText, nullable=False),
    sa.Column("output", StorableText),
    sa.Column("error", StorableText),
    sa.Column("status", StorableText, nullable=False),
    sa.Column("started_ms", sa.BigInteger, nullable=False),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("attempts", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("silence_ms", sa.BigInteger),
    # The `tool_call_id` of the earlier call whose result was given again.
    sa.Column("repeats", StorableText),
)

charges = sa.Table(
    "charges",
    metadata,
    _call_id(),
    sa.Column("source_id", StorableText, primary_key=True),
    sa.Column("purpose", StorableText, nullable=False),
    sa.Column("model", StorableText, nullable=False),
    sa.Column("offset_ms", sa.BigInteger, nullable=False),
    sa.Column("usage", StorableJson, nullable=False),
    sa.Column("cost_nano_usd", sa.BigInteger),
    sa.Column("remark", StorableText, nullable=False),
)

call_events = sa.Table(
    "call_events",
    metadata,
    _call_id(),
    # Given by the journal and rising within a call, so that an event written
    # twice (a commit whose answer was lost) stays one row.
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("offset_ms", sa.BigInteger, nullable=False),
    sa.Column("kind", StorableText, nullable=False),
    sa.Column("detail", StorableJson, nullable=False),
)

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("worker", StorableText, primary_key=True),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("seen_at", UtcTime, nullable=False),
)

api_tokens = sa.Table(
    "api_tokens",
    metadata,
    sa.Column("name", StorableText, primary_key=True),
    sa.Column("role", StorableText, nullable=False),
    sa.Column("token_hash", StorableText, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("last_used_at", UtcTime),
    sa.Index(None, "token_hash", unique=True),
)
