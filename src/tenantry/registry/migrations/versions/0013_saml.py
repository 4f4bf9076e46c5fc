"""Organizations' SAML providers: their metadata, or where these are."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0013"
down_revision: Final = "0012"


def upgrade() -> None:
    op.add_column("sso", sa.Column("metadata_url", sa.String(length=500), server_default="", nullable=False))
    op.add_column("sso", sa.Column("metadata", sa.Text(), server_default="", nullable=False))
