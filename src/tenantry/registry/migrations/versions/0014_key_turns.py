"""Token keys that are rotated out of turn."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0014"
down_revision: Final = "0013"


def upgrade() -> None:
    op.add_column("tenant", sa.Column("key_turns", sa.JSON(), nullable=True))
