"""What is judged when tenants are to share tables: a database, the application's role, and the tables all may read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final

from psycopg import sql

from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.rows_inspect import PUBLIC, SETTING, TENANT, Found, Grant, Relation

CURRENT: Final = sql.SQL("nullif(current_setting({}, true), '')::uuid").format(SETTING)
"""The tenant that a transaction works for; null where none is set."""

DEFAULT: Final = f"(NULLIF(current_setting('{SETTING}'::text, true), ''::text))::uuid"
"""`CURRENT`, as the server writes it."""

MATCHES: Final = f"({TENANT} = {DEFAULT})"
"""The condition of every policy, as the server writes it."""

Text = sql.SQL | sql.Composed | sql.Identifier
"""What statements are put together of."""

Statement = sql.SQL | sql.Composed

COLUMN: Final = sql.Identifier(TENANT)


class Phase(IntEnum):
    """In which order steps are done."""

    REFERENCES_OFF = 1
    COLUMNS = 2
    KEYS_OFF = 3
    KEYS = 4
    REFERENCES = 5
    POLICIES = 6
    VIEWS = 7
    ACCESS = 8


TITLES: Final = {
    Phase.REFERENCES_OFF: "Foreign keys that name no tenant go",
    Phase.COLUMNS: "Every row belongs to a tenant",
    Phase.KEYS_OFF: "Keys and indexes that name no tenant go",
    Phase.KEYS: "Keys and indexes of each tenant",
    Phase.REFERENCES: "Foreign keys within a tenant",
    Phase.POLICIES: "Row-level security",
    Phase.VIEWS: "Views and functions",
    Phase.ACCESS: "What the application's role may do",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a plan, and why it is there."""

    phase: Phase
    statement: Statement
    reason: str


@dataclass(frozen=True, slots=True)
class Weakness:
    """Something that weakens the isolation of tenants in shared tables."""

    name: str  # stable: "table.policy"
    what: str
    remedy: str
    steps: tuple[Step, ...] = ()  # that mend it; none: it is the operator's to mend
    grave: bool = True  # False: nothing leaks, but it is slow, or the application may not do what it should

    @property
    def mending(self) -> str:
        """What whoever finds it in a database is to do."""
        statements = "; ".join(step.statement.as_string(None) for step in self.steps)
        return f"Run as the tables' owner: {statements}" if statements else self.remedy


@dataclass(frozen=True)
class Case:
    """A database as it was found, and who is to be kept to one tenant's rows in it."""

    found: Found
    shared: frozenset[str]  # names of tables, with their schema where that is not "public"
    role: str
    adopt: str | None = None  # the tenant that rows without one belong to

    @cached_property
    def identities(self) -> frozenset[str]:
        """The role, everybody, and all that it can become."""
        return self.found.identities(self.role)

    @cached_property
    def tenants(self) -> dict[int, Relation]:
        """The tables whose rows belong to tenants, with their partitions."""
        kept = (one for one in self.found.relations.values() if one.kind in ("r", "p") and not self.apart(one))
        return {one.oid: one for one in kept if not self.is_shared(one)}

    def is_shared(self, relation: Relation) -> bool:
        """Whether all tenants read it; a partition goes with its table."""
        if {relation.shown, f"{relation.schema}.{relation.name}"} & self.shared:
            return True
        return relation.partition and any(self.is_shared(self.found.relations[one]) for one in relation.parents)

    def apart(self, relation: Relation) -> bool:
        """Whether it is an extension's, or keeps the book of migrations."""
        return relation.extension or relation.name in BOOKKEEPING

    def held(self, grants: tuple[Grant, ...]) -> Iterator[Grant]:
        """The privileges that the role has in any way."""
        return (grant for grant in grants if grant.grantee in self.identities)

    def descendants(self, relation: Relation) -> Iterator[Relation]:
        """A table and all that inherit from it."""
        yield relation
        for oid in self.found.children.get(relation.oid, ()):
            yield from self.descendants(self.found.relations[oid])


def to_whom(grantee: str) -> Text:
    """A role in a GRANT or REVOKE."""
    return sql.SQL("PUBLIC") if grantee == PUBLIC else sql.Identifier(grantee)


def called(grantee: str) -> str:
    """A role for people."""
    return "everybody" if grantee == PUBLIC else f"the role {grantee}"


def columns(names: tuple[str, ...]) -> Text:
    """A list of columns."""
    return sql.SQL(", ").join(map(sql.Identifier, names))
