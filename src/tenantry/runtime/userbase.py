"""The tables of the current tenant's users, in its own database, and statements on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from tenantry.context import current_environment
from tenantry.errors import AccountError
from tenantry.runtime.databases import Databases
from tenantry.runtime.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Row, TextClause
    from sqlalchemy.ext.asyncio import AsyncSession


SWEPT: Final = 100
"""Rows that one transaction lets go of."""


class UserBase:
    """Opens the users' tables of the current tenant; see `tenantry.users` for what they hold."""

    def __init__(self, settings: Settings, databases: Databases) -> None:
        self._settings = settings
        self._databases = databases
        self._turns: dict[str, int] = {}

    def turn(self) -> int:
        """Another number after each change that this process made to the current tenant's users."""
        return self._turns.get(current_environment().id, 0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Work]:
        """A transaction on them; what is not committed is rolled back.

        Raises `AccountError` for a blueprint without users, and what opening a session raises.
        """
        environment = current_environment()
        resource = self._settings.users.get(environment.tenant.blueprint)
        if resource is None:
            reason = f"Tenants of the blueprint '{environment.tenant.blueprint}' have no users' table."
            raise AccountError(reason, remedy="Give the blueprint an `admin` in tenantry.toml.")
        place = environment.place(resource)
        async with self._databases.session(resource) as session:
            yield Work(session, place.prefix if place else "", lambda: self._changed(environment.id))

    def _changed(self, environment: str) -> None:
        self._turns[environment] = self._turns.get(environment, 0) + 1


class Work:
    """Statements in one transaction, which name tables as `{prefix}tenantry_user` and values as `:login`."""

    def __init__(self, session: AsyncSession, prefix: str, changed: Callable[[], None]) -> None:
        self._session = session
        self._prefix = prefix
        self._changed = changed

    async def all(self, statement: str, **values: Any) -> Sequence[Row[Any]]:
        """The rows of a query."""
        return (await self._session.execute(self._text(statement), values)).all()

    async def first(self, statement: str, **values: Any) -> Row[Any] | None:
        """The first row of a query."""
        return (await self._session.execute(self._text(statement), values)).first()

    async def run(self, statement: str, **values: Any) -> int:
        """Change something; how many rows it was."""
        changed: Any = await self._session.execute(self._text(statement), values)
        return int(changed.rowcount)

    async def put(self, table: str, **values: Any) -> int:
        """Add a row unless there is one of its key; how many rows were added."""
        return await self.run(self._adding(table, values, "INSERT IGNORE", ""), **values)

    async def there(self, table: str, **values: Any) -> None:
        """Likewise; on MariaDB and MySQL it is locked at once for change, since two who share a lock could not."""
        await self.run(self._adding(table, values, "INSERT", " ON DUPLICATE KEY UPDATE id = id"), **values)

    def _adding(self, table: str, values: Mapping[str, Any], begins: str, ends: str) -> str:
        if self._session.get_bind().dialect.name != "mysql":
            begins, ends = "INSERT", " ON CONFLICT DO NOTHING"
        marks = ", ".join(f":{name}" for name in values)
        return f"{begins} INTO {{prefix}}{table} ({', '.join(values)}) VALUES ({marks}){ends}"

    async def sweep(self, table: str, where: str, **values: Any) -> None:
        """Delete some rows of an id that are over, each by itself: on MariaDB and MySQL a statement that looks for them

        locks what it passes, and of two who have added a row each waits for the other's.
        """
        found = await self.all(f"SELECT id FROM {{prefix}}{table} WHERE {where} ORDER BY id LIMIT {SWEPT}", **values)  # noqa: S608 -- constants
        for row in found:
            await self.run(f"DELETE FROM {{prefix}}{table} WHERE id = :id", id=row.id)  # noqa: S608 -- constants

    async def lock(self, query: str, **values: Any) -> None:
        """Keep others from changing the rows of a query until this transaction ends."""
        if self._session.get_bind().dialect.name != "sqlite":  # which lets one at a time write in any case
            await self._session.execute(self._text(f"{query} FOR UPDATE"), values)

    async def commit(self) -> None:
        """Make it last."""
        try:
            await self._session.commit()
        finally:
            self._changed()  # whatever came of it

    async def undo(self) -> None:
        """Begin the transaction anew."""
        await self._session.rollback()

    def _text(self, statement: str) -> TextClause:
        return _text(statement, self._prefix)


@lru_cache(maxsize=4096)
def _text(statement: str, prefix: str) -> TextClause:
    """Taken apart once: that takes as long as some of these statements."""
    from sqlalchemy import text

    return text(statement.replace("{prefix}", prefix))
