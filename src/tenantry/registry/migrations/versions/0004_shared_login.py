"""The login of each database that tenants share."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0004"
down_revision: Final = "0003"


def upgrade() -> None:
    op.create_table(
        "shared_login",
        sa.Column("server", sa.String(length=200), nullable=False),
        sa.Column("database", sa.String(length=200), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("server", "database", name=op.f("pk_shared_login")),
    )
