"""What operators watch and do: series, reports, versions, stances, actions and the forgetting matrix."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "series",
        sa.Column("scenario", sa.String(255), nullable=False),
        sa.Column("signal", sa.String(64), nullable=False),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Float, nullable=False),
        sa.Column("total", sa.Float, nullable=False),
        sa.Column("least", sa.Float, nullable=False),
        sa.Column("most", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("scenario", "signal", "seconds", "at", name="pk_series"),
    )
    op.create_table(
        "reports",
        sa.Column("report_id", sa.String(255), nullable=False),
        sa.Column("scenario", sa.String(255), nullable=False),
        sa.Column("signal", sa.String(64), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("reference", sa.Float),
        sa.Column("threshold", sa.Float),
        sa.Column("window", sa.BigInteger, nullable=False),
        sa.Column("detected_at", sa.Float, nullable=False),
        sa.Column("action", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("report_id", name="pk_reports"),
    )
    op.create_index("ix_reports_scenario_detected_at", "reports", ["scenario", "detected_at"])
    op.create_index("ix_reports_detected_at", "reports", ["detected_at"])
    op.create_table(
        "versions",
        sa.Column("scenario", sa.String(255), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("lineage", sa.String(64), nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("checkpoint", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("scenario", "version", name="pk_versions"),
    )
    op.create_table(
        "stances",
        sa.Column("scenario", sa.String(255), nullable=False),
        sa.Column("learning", sa.String(16), nullable=False),
        sa.Column("restores", sa.BigInteger),
        sa.Column("good", sa.BigInteger),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("pairs", sa.BigInteger, nullable=False),
        sa.Column("difference", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("scenario", name="pk_stances"),
    )
    op.create_table(
        "actions",
        sa.Column("action_id", sa.String(256), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("scenario", sa.String(255)),
        sa.Column("version", sa.BigInteger),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_at", sa.Float, nullable=False),
        sa.Column("performed_at", sa.Float, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("action_id", name="pk_actions"),
    )
    op.create_table(
        "probe_recalls",
        sa.Column("scenario", sa.String(255), nullable=False),
        sa.Column("window", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("began_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("recall", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("scenario", "window", "at", name="pk_probe_recalls"),
    )
