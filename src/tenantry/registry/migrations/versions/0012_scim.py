"""Organizations' directories, as SCIM tells of them, and what of that is to be carried out at tenants yet."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from tenantry.registry import tables

revision: Final = "0012"
down_revision: Final = "0011"


def upgrade() -> None:
    op.create_table(
        "scim",
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("required", sa.Boolean(), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        _organization("scim"),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("pk_scim")),
    )
    op.create_table(
        "scim_token",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("used", tables.Moment(), nullable=True),
        _organization("scim_token"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scim_token")),
        sa.UniqueConstraint("digest", name=op.f("uq_scim_token_digest")),
    )
    op.create_index(op.f("ix_scim_token_organization_id"), "scim_token", ["organization_id"])
    _people()
    _groups()
    _to_do()


def _organization(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_organization_id")
    return sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=name)


def _people() -> None:
    op.create_table(
        "scim_person",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("external_id", sa.String(length=255), nullable=True),
        sa.Column("user_name", sa.String(length=254), nullable=False),
        sa.Column("folded", sa.String(length=254), nullable=False),
        sa.Column("held", sa.String(length=254), nullable=True),
        sa.Column("mail", sa.String(length=254), nullable=False),
        sa.Column("display", sa.String(length=200), nullable=False),
        sa.Column("shown", sa.String(length=200), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("issuer", sa.String(length=500), nullable=True),
        sa.Column("subject", sa.String(length=255), nullable=True),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("changed", tables.Moment(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("gone", tables.Moment(), nullable=True),
        _organization("scim_person"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scim_person")),
        sa.UniqueConstraint("organization_id", "held", name=op.f("uq_scim_person_organization_id")),
    )
    for name, column in (("external", "external_id"), ("folded",) * 2, ("mail",) * 2, ("subject",) * 2):
        op.create_index(f"ix_scim_person_{name}", "scim_person", ["organization_id", column])
    op.create_index("ix_scim_person_created", "scim_person", ["organization_id", "created", "id"])


def _groups() -> None:
    op.create_table(
        "scim_group",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        sa.Column("external_id", sa.String(length=255), nullable=True),
        sa.Column("display", sa.String(length=255), nullable=False),
        sa.Column("shown", sa.String(length=255), nullable=False),
        sa.Column("created", tables.Moment(), nullable=False),
        sa.Column("changed", tables.Moment(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _organization("scim_group"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scim_group")),
    )
    op.create_index(op.f("ix_scim_group_organization_id"), "scim_group", ["organization_id"])
    op.create_table(
        "scim_member",
        sa.Column("group_id", sa.String(length=36), nullable=False),
        sa.Column("person_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["scim_group.id"], name=op.f("fk_scim_member_group_id")),
        sa.ForeignKeyConstraint(["person_id"], ["scim_person.id"], name=op.f("fk_scim_member_person_id")),
        sa.PrimaryKeyConstraint("group_id", "person_id", name=op.f("pk_scim_member")),
    )
    op.create_index(op.f("ix_scim_member_person_id"), "scim_member", ["person_id"])


def _to_do() -> None:
    op.create_table(
        "scim_mark",
        sa.Column("person_id", sa.String(length=36), nullable=False),
        sa.Column("environment_id", sa.String(length=36), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("ends", sa.Boolean(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due", tables.Moment(), nullable=False),
        sa.Column("taken", tables.Moment(), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["scim_person.id"], name=op.f("fk_scim_mark_person_id")),
        sa.PrimaryKeyConstraint("person_id", "environment_id", name=op.f("pk_scim_mark")),
    )
    op.create_index(op.f("ix_scim_mark_due"), "scim_mark", ["due"])
    op.create_table(
        "scim_shut",
        sa.Column("environment_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("organization_id", sa.String(length=36), nullable=False),
        _organization("scim_shut"),
        sa.PrimaryKeyConstraint("environment_id", "user_id", name=op.f("pk_scim_shut")),
    )
    op.create_index(op.f("ix_scim_shut_organization_id"), "scim_shut", ["organization_id"])
