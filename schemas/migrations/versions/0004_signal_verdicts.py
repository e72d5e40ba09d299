"""How each signal stands in the eyes of its detector."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "signal_verdicts",
        sa.Column("scenario", sa.String(255), nullable=False),
        sa.Column("signal", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("low", sa.Float),
        sa.Column("high", sa.Float),
        sa.PrimaryKeyConstraint("scenario", "signal", name="pk_signal_verdicts"),
    )
