"""What a tenant has, row by row and file by file, and what came to the wrong one."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tenantry.context import tenant_context
from tenantry.errors import ResourceError, TenantryError
from tenantry.model import Environment, Place
from tenantry.runtime import Runtime
from tenantry.runtime import storage as files

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Select

ROWS: Final = 10_000
"""Rows of one table that are compared; of those behind, only that there are more."""

SHOWN: Final = 5
"""Rows that a message names of one table."""

WIDTH: Final = 300
"""Characters of one row that a message shows."""

CACHE: Final = "tenant_cache"
"""What stands in a message for the values of `tenantry.tenant_cache()`."""

MARK: Final = re.compile(r"t[0-9a-f]{12}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What can be a tenant's slug, as the tests make them, or an id."""

FORBIDDEN: Final = "42501"
"""What PostgreSQL says (appendix A of its manual) of a table that applications may not read, such as Tenantry's own."""

Spot = tuple[str, str]  # resource and table or path


class TenantLeak(TenantryError):
    """The test '{test}' leaked between tenants: {found}"""

    code = "tenant.leak"
    remedy = "Look for what outlives a request: a cache without the tenant, an engine kept open, a thread of its own."


@dataclass(frozen=True, slots=True)
class Leak:
    """One thing that is where it must not be."""

    where: str  # the tenant, and its resource and table
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one tenant has at a moment: how often each row or file occurs."""

    slug: str
    spots: Mapping[Spot, Counter[str]]

    def since(self, before: Snapshot) -> Iterator[tuple[str, str, Counter[str], Counter[str]]]:
        """Each table or directory that changed, with what came and what went."""
        for spot in sorted(self.spots.keys() | before.spots.keys()):
            now, then = self.spots.get(spot, Counter()), before.spots.get(spot, Counter())
            if now != then:
                yield (*spot, now - then, then - now)


class Search:
    """Reads everything that tenants have."""

    def __init__(self, runtime: Runtime, slugs: Mapping[str, str]) -> None:
        self._runtime = runtime
        self._slugs = slugs  # by what marks a tenant

    def look(self, environment: Environment) -> Snapshot:
        """All databases, directories and cached values of a tenant."""
        runtime, spots = self._runtime, {}
        with tenant_context(environment):
            for place in environment.places:
                if place.kind in files.KINDS:
                    spots[place.name, "files"] = Counter(self._files(runtime.storage(place.name)))
                else:
                    spots.update(self._tables(place))
            spots[CACHE, "values"] = Counter(self._shown({key: value}) for key, value in runtime.cache.items())
        return Snapshot(environment.tenant.slug, spots)

    def _tables(self, place: Place) -> Iterator[tuple[Spot, Counter[str]]]:
        from sqlalchemy import inspect

        try:
            opened = self._runtime.connection(place.name)
            with opened as connection:
                for table in inspect(connection).get_table_names():
                    if table.startswith(place.prefix):  # of a database that tenants share, its own
                        yield (place.name, table.removeprefix(place.prefix)), Counter(self._rows(connection, table))
        except ResourceError:  # no database
            return

    def _rows(self, connection: Connection, table: str) -> Iterator[str]:
        from sqlalchemy import literal_column, select
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.sql import table as named

        query: Select[Any] = select(literal_column("*")).select_from(named(table)).limit(ROWS + 1)
        try:
            found: Sequence[Row[Any]] = connection.execute(query).all()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != FORBIDDEN:
                raise
            connection.rollback()
            return
        if len(found) > ROWS:
            yield f"more than {ROWS} rows"
        for row in found[:ROWS]:
            yield self._shown(dict(row._mapping))

    def _files(self, storage: files.Storage, above: str = "") -> Iterator[str]:
        for entry in storage.list(above):
            path = f"{above}/{entry.name}".lstrip("/")
            if entry.kind == "directory":
                yield from self._files(storage, path)
            elif entry.kind == "file":
                content = storage.read(path)
                digest, named = hashlib.sha256(content).hexdigest()[:12], self._named(content.decode("latin-1"))
                yield f"{path} ({digest}, {entry.modified}{named})"  # the time: the same may have been written again

    def _shown(self, row: Mapping[str, Any]) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in row.items())
        if len(told) <= WIDTH:
            return told
        digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{told[:WIDTH]}… ({len(told)} characters, {digest}{self._named(told)})"

    def _named(self, text: str) -> str:
        """The tenants that something too long to be shown names."""
        found = {self._slugs[mark] for mark in MARK.findall(text) if mark in self._slugs}
        return f", names {', '.join(sorted(found))}" if found else ""


def changed(before: Snapshot, after: Snapshot, current: str) -> Iterator[Leak]:
    """What changed in a tenant that the test did not work for, while another one was the current tenant."""
    for resource, table, came, went in after.since(before):
        where = f"{after.slug} / {resource} / {table}"
        for verb, rows in (("written", came), ("removed", went)):
            shown = [] if resource == CACHE and verb == "removed" else list(rows.elements())  # a cache may forget
            if shown:
                more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
                rest = "; ".join(shown[:SHOWN])
                yield Leak(where, f"{verb} while the current tenant was {current}: {rest}{more}")


def strayed(before: Snapshot, after: Snapshot, slugs: Mapping[str, str]) -> Iterator[Leak]:
    """What came to a tenant and names another one."""
    for resource, table, came, _ in after.since(before):
        for row in came:
            for foreign in foreigners(row, after.slug, slugs):
                yield Leak(f"{after.slug} / {resource} / {table}", f"holds what belongs to {foreign}: {row}")


def foreigners(text: str, slug: str, slugs: Mapping[str, str]) -> list[str]:
    """The tenants beside this one that a text names."""
    found = {slugs[mark] for mark in MARK.findall(text) if mark in slugs}
    return sorted(found - {slug})
