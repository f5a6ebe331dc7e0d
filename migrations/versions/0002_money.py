"""What calls cost: a sum in the call, and a row for each response and transcription."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002_money"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("calls", sa.Column("cost_nano_usd", sa.BigInteger))
    op.create_table(
        "charges",
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("source_id", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("offset_ms", sa.BigInteger, nullable=False),
        sa.Column("usage", sa.JSON, nullable=False),
        sa.Column("cost_nano_usd", sa.BigInteger),
        sa.Column("remark", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("call_id", "source_id", name="pk_charges"),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name="fk_charges_call_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("charges")
    op.drop_column("calls", "cost_nano_usd")
