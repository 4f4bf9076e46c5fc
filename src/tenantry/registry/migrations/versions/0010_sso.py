"""Organizations' single sign-on: providers, mail domains, codes that hand over, sessions that a provider may end."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0010"
down_revision: Final = "0009"


def upgrade() -> None:
    op.create_table(
        "sso",
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("preset", sa.String(length=16), nullable=False),
        sa.Column("issuer", sa.String(length=500), nullable=False),
        sa.Column("client_id", sa.String(length=255), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("default_role", sa.String(length=10), nullable=False),
        sa.Column("claim", sa.String(length=100), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("only", sa.Boolean(), nullable=False),
        sa.Column("changed", tables.Moment(), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_sso_organization_id")),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("pk_sso")),
    )
    op.create_table(
        "sso_domain",
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("domain", sa.String(length=253), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("proven", tables.Moment(), nullable=True),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_sso_domain_organization_id")),
        sa.PrimaryKeyConstraint("organization_id", "domain", name=op.f("pk_sso_domain")),
    )
    op.create_index(op.f("ix_sso_domain_domain"), "sso_domain", ["domain"], unique=False)
    _passing()


def _passing() -> None:
    op.create_table(
        "sso_code",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("environment_id", sa.String(length=36), nullable=False),
        sa.Column("browser", sa.String(length=64), nullable=False),
        sa.Column("person", sa.LargeBinary(), nullable=False),
        sa.Column("until", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sso_code")),
    )
    op.create_table(
        "sso_session",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("environment_id", sa.String(length=36), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("sid", sa.String(length=255), nullable=False),
        sa.Column("until", tables.Moment(), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_sso_session_organization_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_session")),
    )
    op.create_index(op.f("ix_sso_session_until"), "sso_session", ["until"], unique=False)
    op.create_index("ix_sso_session_subject", "sso_session", ["organization_id", "subject"])
    op.create_index("ix_sso_session_sid", "sso_session", ["organization_id", "sid"])
