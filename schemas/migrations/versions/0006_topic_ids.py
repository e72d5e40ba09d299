"""Which topic stored offsets are of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("offsets", sa.Column("topic_id", sa.String(64)))
