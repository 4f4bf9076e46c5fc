"""Attacks of one tenant on another one's tables in the database they share.

The login is one, so what is done by SQL of one's own succeeds, and was never promised to fail: these are told, but are
no broken promise. That the names lead nowhere else is promised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tenantry.errors import MigrationInvalid
from tenantry.model import Breach
from tenantry.resources.prefix_names import check

if TYPE_CHECKING:
    from tenantry.resources.prefix import Prefix


def attack(resource: Prefix, connection: Any, own: str, other: str) -> Iterator[Breach]:
    """Try to come from the tables of one prefix to those of another one."""
    name = resource.name
    if own.startswith(other) or other.startswith(own):
        yield Breach(name, "take its names", f"what begins with '{own}' and with '{other}' is the same")
    for what in resource._crossings(connection, own):
        if f" {other}" in what:
            yield Breach(name, "lead to its tables", what)
    for attempt, statement in _files(other):
        if _accepted(resource, statement):
            yield Breach(name, attempt, f"a migration may say: {statement}")
    for table in resource._tables(connection, other):
        evidence = f"the login that all share reads {other}{table}"
        yield Breach(name, "read its rows by SQL of one's own", evidence, promised=False)


def _files(other: str) -> Iterator[tuple[str, str]]:
    """What a migration might try."""
    table = f"{other}tenantry_user"
    yield "read its rows in a migration", f"INSERT INTO {{prefix}}a SELECT * FROM {table}"  # noqa: S608
    yield "lead a foreign key to it", f"CREATE TABLE {{prefix}}a (b varchar(36) REFERENCES {table} (id))"
    yield "show its rows in a view", f"CREATE VIEW {{prefix}}a AS SELECT * FROM {table}"  # noqa: S608
    yield "remove its tables", f"DROP TABLE {table}"
    yield "change its tables", f"ALTER TABLE {table} ADD COLUMN a integer"


def _accepted(resource: Prefix, statement: str) -> bool:
    try:
        check(resource.dialect.parser, statement, "attack")
    except MigrationInvalid:
        return False
    return True
