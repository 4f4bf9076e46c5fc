"""Letters that are to be sent, addresses that nothing is sent to, and keys that sign mail."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0009"
down_revision: Final = "0006"


def upgrade() -> None:
    _letter()
    op.create_table(
        "mail_hold",
        sa.Column("address", sa.String(length=254), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_mail_hold")),
    )
    op.create_table(
        "mail_key",
        sa.Column("selector", sa.String(length=63), nullable=False),
        sa.Column("algorithm", sa.String(length=10), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("selector", name=op.f("pk_mail_key")),
    )


def _letter() -> None:
    op.create_table(
        "letter",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("recipient", sa.String(length=254), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("once", sa.String(length=64), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claim", sa.String(length=36), nullable=True),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("due", tables.Moment(), nullable=True),
        sa.Column("until", tables.Moment(), nullable=True),
        sa.Column("ended", tables.Moment(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_letter")),
        sa.UniqueConstraint("once", name=op.f("uq_letter_once")),
    )
    for column in ("recipient", "tenant_id", "due"):
        op.create_index(op.f(f"ix_letter_{column}"), "letter", [column], unique=False)
    op.create_index("ix_letter_state", "letter", ["state", "id"], unique=False)
