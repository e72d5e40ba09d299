"""Erasures: receipts of what was removed, and what keeps an erased user from coming back."""

from __future__ import annotations

import os

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("erasure_id", sa.String(256), nullable=False),
        sa.Column("part", sa.String(16), nullable=False),
        sa.Column("requested_at", sa.Float, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("begun_at", sa.Float, nullable=False),
        sa.Column("done_at", sa.Float),
        sa.PrimaryKeyConstraint("erasure_id", "part", name="pk_erasures"),
    )
    op.create_table(
        "erasure_counts",
        sa.Column("erasure_id", sa.String(256), nullable=False),
        sa.Column("place", sa.String(32), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("erasure_id", "place", name="pk_erasure_counts"),
    )
    op.create_table(
        "erased_users",
        sa.Column("user_hash", sa.String(64), nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("erased_at", sa.Float, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user_hash", name="pk_erased_users"),
    )
    op.create_index("ix_erased_users_sequence", "erased_users", ["sequence"])
    keys = op.create_table(
        "erasure_keys",
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_erasure_keys"),
    )
    op.bulk_insert(keys, [{"number": 1, "key": os.urandom(32)}])
