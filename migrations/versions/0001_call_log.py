"""The call log: calls, turns, tool calls, events, who is alive and who may read."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True)


def _call_id(table: str) -> tuple[sa.Column[str], sa.ForeignKeyConstraint]:
    return (
        sa.Column("call_id", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=f"fk_{table}_call_id", ondelete="CASCADE"
        ),
    )


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("sip_call_id", sa.Text, nullable=False),
        sa.Column("realtime_call_id", sa.Text),
        sa.Column("direction", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("trunk", sa.Text, nullable=False),
        sa.Column("did", sa.Text, nullable=False),
        sa.Column("caller_number", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("answered_at", TIME),
        sa.Column("ended_at", TIME),
        sa.Column("answer_delay_ms", sa.BigInteger),
        sa.Column("duration_ms", sa.BigInteger),
        sa.Column("ending_by", sa.Text),
        sa.Column("ending_reason", sa.Text),
        sa.Column("quality", sa.JSON),
        sa.Column("usage", sa.JSON),
        sa.Column("worker", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    op.create_index("ix_calls_started_at_id", "calls", ["started_at", "id"])
    for column in ("state", "trunk", "agent", "did", "caller_number"):
        op.create_index(f"ix_calls_{column}_started_at", "calls", [column, "started_at"])

    op.create_table(
        "turns",
        *_call_id("turns"),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("speaker", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("heard_text", sa.Text, nullable=False),
        sa.Column("interrupted", sa.Boolean, nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("latency_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("call_id", "item_id", name="pk_turns"),
    )
    op.create_index("ix_turns_call_id_position", "turns", ["call_id", "position"])

    op.create_table(
        "tool_calls",
        *_call_id("tool_calls"),
        sa.Column("tool_call_id", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("output", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("duration_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("call_id", "tool_call_id", name="pk_tool_calls"),
    )

    op.create_table(
        "call_events",
        *_call_id("call_events"),
        sa.Column("sequence", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("offset_ms", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("call_id", "sequence", name="pk_call_events"),
    )

    op.create_table(
        "processes",
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("worker", name="pk_processes"),
    )

    op.create_table(
        "api_tokens",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("token_hash", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME),
        sa.PrimaryKeyConstraint("name", name="pk_api_tokens"),
    )
    op.create_index("ix_api_tokens_token_hash", "api_tokens", ["token_hash"], unique=True)


def downgrade() -> None:
    for table in ("api_tokens", "processes", "call_events", "tool_calls", "turns", "calls"):
        op.drop_table(table)
