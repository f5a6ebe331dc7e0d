"""Tool calls: how often each was tried, the silence it cost, and what it repeated."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003_tool_calls"
down_revision: str | None = "0002_money"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "tool_calls", sa.Column("attempts", sa.BigInteger, nullable=False, server_default="1")
    )
    op.add_column("tool_calls", sa.Column("silence_ms", sa.BigInteger))
    op.add_column("tool_calls", sa.Column("repeats", sa.Text))


def downgrade() -> None:
    for column in ("repeats", "silence_ms", "attempts"):
        op.drop_column("tool_calls", column)
