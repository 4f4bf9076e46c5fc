"""Sign-ups, invitations to them, and trials."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0011"
down_revision: Final = "0010"

SLUG: Final = sa.String(length=63).with_variant(sa.String(length=63, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sign_up",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("held", SLUG, nullable=True),
        sa.Column("slug", SLUG, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("mail", sa.String(length=254), nullable=False),
        sa.Column("organization", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=45), nullable=False),
        sa.Column("ticket", sa.String(length=64), nullable=False),
        sa.Column("link", sa.String(length=64), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("terms", sa.String(length=40), nullable=True),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("expires", tables.Moment(), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=True),
        sa.Column("operation_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_up")),
        sa.UniqueConstraint("held", name=op.f("uq_sign_up_held")),
        sa.UniqueConstraint("ticket", name=op.f("uq_sign_up_ticket")),
        sa.UniqueConstraint("link", name=op.f("uq_sign_up_link")),
    )
    op.create_index("ix_sign_up_expires", "sign_up", ["expires"])
    op.create_table(
        "sign_up_invitation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("mail", sa.String(length=254), nullable=True),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("expires", tables.Moment(), nullable=False),
        sa.Column("used", tables.Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_up_invitation")),
        sa.UniqueConstraint("digest", name=op.f("uq_sign_up_invitation_digest")),
    )
    op.create_table(
        "trial",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("mail", sa.String(length=254), nullable=False),
        sa.Column("until", tables.Moment(), nullable=False),
        sa.Column("reminded", sa.Float(), nullable=True),
        sa.Column("ended", tables.Moment(), nullable=True),
        sa.Column("warned", tables.Moment(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_trial_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_trial")),
    )
    op.create_table(
        "welcome",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_welcome_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_welcome")),
    )
    op.create_index("ix_trial_until", "trial", ["until"])
