"""Where the time of each wait went: the parts of a turn's latency."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004_turn_latency"
down_revision: str | None = "0003_tool_calls"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_PARTS = ("endpointing_ms", "model_ms", "network_ms", "buffer_ms", "tool_ms")


def upgrade() -> None:
    for part in _PARTS:
        op.add_column("turns", sa.Column(part, sa.BigInteger))


def downgrade() -> None:
    for part in _PARTS:
        op.drop_column("turns", part)
