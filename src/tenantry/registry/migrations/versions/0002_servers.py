"""Servers, and which part of a tenant lies on which, by which login."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    op.create_table(
        "server",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("capacity", sa.Integer(), nullable=True),
        sa.Column("connections", sa.Integer(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_server")),
    )
    op.add_column("resource", sa.Column("server", sa.String(length=200), nullable=True))
    op.add_column("resource", sa.Column("sealed", sa.LargeBinary(), nullable=True))
    op.create_index(op.f("ix_resource_server"), "resource", ["server"], unique=False)
