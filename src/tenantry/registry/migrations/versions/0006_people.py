"""Admin users with their sessions, factors and tokens; organizations; access for support; keys of repeated requests."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0006"
down_revision: Final = "0005"

COUNT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _admin_user()
    _idempotency()
    _organization()
    _throttle()
    _spent()
    _admin_link()
    _admin_session()
    _api_token()
    _passkey()
    _recovery_code()
    _support_access()
    _counted()
    _admin_tenant()
    op.execute(  # SQLite takes no constraint after its column
        "ALTER TABLE tenant ADD COLUMN organization_id VARCHAR(36) "
        "CONSTRAINT fk_tenant_organization_id REFERENCES organization (id)"
    )
    op.create_index("ix_tenant_organization_id", "tenant", ["organization_id"])
    for name in ("used_bytes", "used_rows", "used_files"):
        op.add_column("resource", sa.Column(name, COUNT, nullable=True))
    op.add_column("resource", sa.Column("measured", tables.Moment(), nullable=True))
    _operation_digest()
    _for_pages()


def _admin_user() -> None:
    op.create_table(
        "admin_user",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("mail", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("totp", sa.LargeBinary(), nullable=True),
        sa.Column("totp_used", COUNT, server_default="0", nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("seen", tables.Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_user")),
        sa.UniqueConstraint("mail", name=op.f("uq_admin_user_mail")),
    )


def _idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created"), "idempotency", ["created"], unique=False)


def _organization() -> None:
    op.create_table(
        "organization",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("mail", sa.String(length=254), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organization")),
        sa.UniqueConstraint("name", name=op.f("uq_organization_name")),
    )


def _throttle() -> None:
    op.create_table(
        "throttle",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("until", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_throttle")),
    )
    op.create_index(op.f("ix_throttle_until"), "throttle", ["until"], unique=False)


def _spent() -> None:
    op.create_table(
        "spent",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("until", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_spent")),
    )
    op.create_index(op.f("ix_spent_until"), "spent", ["until"], unique=False)


def _admin_link() -> None:
    op.create_table(
        "admin_link",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("admin_id", sa.String(length=36), nullable=True),
        sa.Column("purpose", sa.String(length=10), nullable=False),
        sa.Column("expires", tables.Moment(), nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["admin_user.id"], name=op.f("fk_admin_link_admin_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_admin_link")),
    )
    op.create_index(op.f("ix_admin_link_admin_id"), "admin_link", ["admin_id"], unique=False)


def _admin_session() -> None:
    op.create_table(
        "admin_session",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("admin_id", sa.String(length=36), nullable=False),
        sa.Column("address", sa.String(length=45), nullable=False),
        sa.Column("agent", sa.String(length=200), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("proved", tables.Moment(), nullable=False),
        sa.Column("seen", tables.Moment(), nullable=False),
        sa.Column("expires", tables.Moment(), nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["admin_user.id"], name=op.f("fk_admin_session_admin_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_session")),
        sa.UniqueConstraint("digest", name=op.f("uq_admin_session_digest")),
    )
    op.create_index(op.f("ix_admin_session_admin_id"), "admin_session", ["admin_id"], unique=False)


def _api_token() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("admin_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("expires", tables.Moment(), nullable=False),
        sa.Column("used", tables.Moment(), nullable=True),
        sa.ForeignKeyConstraint(["admin_id"], ["admin_user.id"], name=op.f("fk_api_token_admin_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("admin_id", "name", name=op.f("uq_api_token_admin_id")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_token_digest")),
    )
    op.create_index(op.f("ix_api_token_admin_id"), "api_token", ["admin_id"], unique=False)


def _passkey() -> None:
    op.create_table(
        "passkey",
        sa.Column("id", sa.String(length=1400), nullable=False),
        sa.Column("admin_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", COUNT, nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("used", tables.Moment(), nullable=True),
        sa.ForeignKeyConstraint(["admin_id"], ["admin_user.id"], name=op.f("fk_passkey_admin_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passkey")),
    )
    op.create_index(op.f("ix_passkey_admin_id"), "passkey", ["admin_id"], unique=False)


def _recovery_code() -> None:
    op.create_table(
        "recovery_code",
        sa.Column("admin_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["admin_user.id"], name=op.f("fk_recovery_code_admin_id")),
        sa.PrimaryKeyConstraint("admin_id", "digest", name=op.f("pk_recovery_code")),
    )


def _support_access() -> None:
    op.create_table(
        "support_access",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("admin_id", sa.String(length=36), nullable=True),
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("writes", sa.Boolean(), nullable=False),
        sa.Column("link", sa.String(length=64), nullable=True),
        sa.Column("link_until", tables.Moment(), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("expires", tables.Moment(), nullable=False),
        sa.Column("used", tables.Moment(), nullable=True),
        sa.Column("ended", tables.Moment(), nullable=True),
        sa.ForeignKeyConstraint(["admin_id"], ["admin_user.id"], name=op.f("fk_support_access_admin_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_support_access")),
        sa.UniqueConstraint("link", name=op.f("uq_support_access_link")),
    )
    for column in ("admin_id", "tenant_id", "expires"):
        op.create_index(op.f(f"ix_support_access_{column}"), "support_access", [column], unique=False)
    op.add_column("tenant", sa.Column("support_until", tables.Moment(), nullable=True))


def _counted() -> None:
    op.create_table(
        "counted",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("number", COUNT, nullable=False),
        sa.Column("at", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_counted")),
    )
    op.create_table(
        "day_total",
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("number", COUNT, nullable=False),
        sa.PrimaryKeyConstraint("day", "name", name=op.f("pk_day_total")),
    )


def _admin_tenant() -> None:
    op.create_table(
        "admin_tenant",
        sa.Column("admin_id", sa.String(length=36), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["admin_user.id"], name=op.f("fk_admin_tenant_admin_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_admin_tenant_tenant_id")),
        sa.PrimaryKeyConstraint("admin_id", "tenant_id", name=op.f("pk_admin_tenant")),
    )
    op.create_index(op.f("ix_admin_tenant_tenant_id"), "admin_tenant", ["tenant_id"], unique=False)


def _operation_digest() -> None:
    op.create_table(
        "operation_digest",
        sa.Column("operation_id", sa.String(length=36), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name=op.f("fk_operation_digest_operation_id")),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_operation_digest")),
    )


def _for_pages() -> None:
    """Indexes by which a page of a list is read from where it begins, however long the list."""
    op.drop_index("ix_tenant_status", table_name="tenant")
    op.drop_index("ix_resource_server", table_name="resource")
    for table, name, columns in (
        ("tenant", "status", ["status", "slug"]),
        ("resource", "pinned", ["pinned"]),
        ("resource", "server", ["server", "used_bytes", "used_rows", "used_files", "measured"]),
        ("resource", "used", ["environment_id", "used_bytes"]),
        ("tenant", "created", ["created", "slug"]),
        ("operation", "slug", ["tenant_slug", "id"]),
        ("operation", "verb", ["verb", "id"]),
        ("audit", "actor", ["actor", "seq"]),
        ("audit", "action", ["action", "seq"]),
        ("audit", "at", ["at"]),
    ):
        op.create_index(f"ix_{table}_{name}", table, columns)
