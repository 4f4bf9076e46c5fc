"""Attacks of one tenant on another one's tables in the database they share.

The login is one, so what is done by SQL of one's own succeeds, and was never promised to fail: these are told, but
they break none. That the names lead nowhere else is promised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tenantry.errors import MigrationInvalid
from tenantry.model import Attempt, Breach
from tenantry.resources.prefix_names import check

if TYPE_CHECKING:
    from tenantry.resources.prefix import Prefix


def attack(resource: Prefix, connection: Any, own: str, other: str) -> Iterator[Attempt]:
    """Try to come from the tables of one prefix to those of another one."""
    name = resource.name
    same = own.startswith(other) or other.startswith(own)
    yield _tried(name, "take its names", f"one of '{own}' and '{other}' begins with the other", same)
    crossings = [what for what in resource._crossings(connection, own) if f" {other}" in what]
    yield _tried(name, "lead to its tables", ", ".join(crossings) or "no key and no view does", bool(crossings))
    for attempt, statement in _files(other):
        yield _tried(name, attempt, f"in a migration: {statement}", _accepted(resource, statement, own == other))
    read = [f"{other}{table}" for table in resource._tables(connection, other)]
    evidence = f"the login that all share reads {', '.join(read[:3]) or 'all there is'}"
    yield Breach(name, "read its rows by SQL of one's own", evidence, promised=False)


def _tried(name: str, attempt: str, evidence: str, done: bool) -> Attempt:
    return (Breach if done else Attempt)(name, attempt, evidence[:200])


def _files(other: str) -> Iterator[tuple[str, str]]:
    """What a migration might try."""
    table = f"{other}tenantry_user"
    yield "read its rows in a migration", f"INSERT INTO {{prefix}}a SELECT * FROM {table}"  # noqa: S608
    yield "lead a foreign key to it", f"CREATE TABLE {{prefix}}a (b varchar(36) REFERENCES {table} (id))"
    yield "show its rows in a view", f"CREATE VIEW {{prefix}}a AS SELECT * FROM {table}"  # noqa: S608
    yield "remove its tables", f"DROP TABLE {table}"
    yield "change its tables", f"ALTER TABLE {table} ADD COLUMN a integer"


def _accepted(resource: Prefix, statement: str, same: bool) -> bool:
    """Whether a file may say so. Where both are one, the placeholder itself leads there."""
    try:
        check(resource.dialect.parser, statement, "attack")
    except MigrationInvalid:
        return same
    return True
