"""Which way in an organization has by its provider, and when it was seen to work."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0015"
down_revision: Final = "0014"


def upgrade() -> None:
    op.add_column("sso", sa.Column("way", sa.String(36), nullable=False, server_default=""))
    op.add_column("sso", sa.Column("worked", tables.Moment(), nullable=True))
