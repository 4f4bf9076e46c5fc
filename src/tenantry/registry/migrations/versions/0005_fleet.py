"""The lanes of operations on many tenants, and resources that are pinned to their version."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"


def upgrade() -> None:
    lane = sa.Column("lane", sa.String(length=200), server_default="", nullable=False)
    op.add_column("operation_item", lane)
    op.drop_index("ix_operation_item_state", table_name="operation_item")
    columns = ["operation_id", "step", "state", "lane", "position"]
    op.create_index("ix_operation_item_lane", "operation_item", columns)
    op.add_column("resource", sa.Column("pinned", sa.Boolean(), server_default=sa.false(), nullable=False))
