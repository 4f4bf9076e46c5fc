"""The tables of the first version."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0001"
down_revision: Final = None

SLUG: Final = sa.String(length=63).with_variant(sa.String(length=63, collation="C"), "postgresql")
COUNT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _audit()
    _change()
    _head()
    _meta()
    _operation()
    _tenant()
    _worker()
    _data_key()
    _environment()
    _former_slug()
    _operation_item()
    _operation_step()
    _secret()
    _tenant_lock()
    _hostname()
    _resource()


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", COUNT, autoincrement=False, nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=200), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"], unique=False)


def _change() -> None:
    op.create_table(
        "change",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("seq", COUNT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_change")),
        sa.UniqueConstraint("seq", name=op.f("uq_change_seq")),
    )


def _head() -> None:
    op.create_table(
        "head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("audit_seq", COUNT, nullable=False),
        sa.Column("audit_hash", sa.String(length=64), nullable=False),
        sa.Column("change_seq", COUNT, nullable=False),
        sa.Column("seal", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_head")),
    )


def _meta() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )


def _operation() -> None:
    op.create_table(
        "operation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("verb", sa.String(length=20), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=True),
        sa.Column("tenant_slug", sa.String(length=63), nullable=True),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="1", nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("worker_id", sa.String(length=36), nullable=True),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("started", tables.Moment(), nullable=True),
        sa.Column("ended", tables.Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation")),
    )
    op.create_index(op.f("ix_operation_state"), "operation", ["state"], unique=False)
    op.create_index(op.f("ix_operation_tenant_id"), "operation", ["tenant_id"], unique=False)


def _tenant() -> None:
    op.create_table(
        "tenant",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("slug", SLUG, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("folded", sa.Text(), nullable=False),
        sa.Column("blueprint", sa.String(length=200), nullable=False),
        sa.Column("plan", sa.String(length=200), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("client_id", sa.String(length=10), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("updated", tables.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
        sa.UniqueConstraint("client_id", name=op.f("uq_tenant_client_id")),
        sa.UniqueConstraint("slug", name=op.f("uq_tenant_slug")),
    )
    op.create_index(op.f("ix_tenant_blueprint"), "tenant", ["blueprint"], unique=False)
    op.create_index(op.f("ix_tenant_status"), "tenant", ["status"], unique=False)


def _worker() -> None:
    op.create_table(
        "worker",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started", tables.Moment(), nullable=False),
        sa.Column("heartbeat", tables.Moment(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )


def _data_key() -> None:
    op.create_table(
        "data_key",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_data_key_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_data_key")),
    )


def _environment() -> None:
    op.create_table(
        "environment",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("home", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_environment_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environment")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_environment_tenant_id")),
    )


def _former_slug() -> None:
    op.create_table(
        "former_slug",
        sa.Column("slug", SLUG, nullable=False),
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("until", tables.Moment(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_former_slug_tenant_id")),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_former_slug")),
    )
    op.create_index(op.f("ix_former_slug_tenant_id"), "former_slug", ["tenant_id"], unique=False)


def _operation_item() -> None:
    op.create_table(
        "operation_item",
        sa.Column("operation_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name=op.f("fk_operation_item_operation_id")),
        sa.PrimaryKeyConstraint("operation_id", "position", name=op.f("pk_operation_item")),
    )
    op.create_index("ix_operation_item_state", "operation_item", ["operation_id", "step", "state"], unique=False)


def _operation_step() -> None:
    op.create_table(
        "operation_step",
        sa.Column("operation_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=200), server_default="", nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name=op.f("fk_operation_step_operation_id")),
        sa.PrimaryKeyConstraint("operation_id", "position", name=op.f("pk_operation_step")),
    )


def _secret() -> None:
    op.create_table(
        "secret",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("field", sa.String(length=200), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_secret_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "field", name=op.f("pk_secret")),
    )


def _tenant_lock() -> None:
    op.create_table(
        "tenant_lock",
        sa.Column("tenant_id", sa.String(length=36), nullable=False),
        sa.Column("operation_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name=op.f("fk_tenant_lock_operation_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant_lock")),
    )
    op.create_index(op.f("ix_tenant_lock_operation_id"), "tenant_lock", ["operation_id"], unique=False)


def _hostname() -> None:
    op.create_table(
        "hostname",
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("environment_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("custom", sa.Boolean(), nullable=False),
        sa.Column("former_until", tables.Moment(), nullable=True),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name=op.f("fk_hostname_environment_id")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_hostname")),
    )
    op.create_index(op.f("ix_hostname_environment_id"), "hostname", ["environment_id"], unique=False)


def _resource() -> None:
    op.create_table(
        "resource",
        sa.Column("environment_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name=op.f("fk_resource_environment_id")),
        sa.PrimaryKeyConstraint("environment_id", "name", name=op.f("pk_resource")),
    )
    op.create_index("ix_resource_version", "resource", ["kind", "version"], unique=False)
