"""When a queued operation may be taken, at the earliest: one that is tried again by itself waits first."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    op.add_column("operation", sa.Column("due", tables.Moment(), nullable=True))
