"""Tenants on PostgreSQL, with a database each or rows in shared tables: `tenantry.integrations.django.postgresql`."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from django.db.backends.postgresql import base
from psycopg import sql
from psycopg.adapt import AdaptersMap

from tenantry.integrations.django.backend import PooledDatabase


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """Django's engine for PostgreSQL, on connections out of the budget of the tenant's server.

    In shared tables the tenant is set for one transaction at a time. So a statement outside `transaction.atomic()`,
    which Django lets commit itself, is there a transaction of its own: begun for the tenant, and committed behind it.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"postgres", "rows"})

    @property
    def _shares(self) -> bool:
        return self._link is not None and self._link.whose is not None

    def _prepare(self, connection: Any, conn_params: dict[str, Any]) -> None:
        """Have cursors and values as Django expects them."""
        factory = conn_params["cursor_factory"]
        connection.cursor_factory, connection.commits = _committing(factory) if self._shares else factory, False
        connection.prepare_threshold = conn_params.get("prepare_threshold")
        connection._adapters = AdaptersMap(conn_params["context"].adapters)
        self.isolation_level = base.IsolationLevel.READ_COMMITTED
        if "isolation_level" in self.settings_dict["OPTIONS"]:
            self.isolation_level = base.IsolationLevel(self.settings_dict["OPTIONS"]["isolation_level"])
            connection.isolation_level = self.isolation_level

    def _set_autocommit(self, autocommit: bool) -> None:
        if self._shares:
            self.connection.commits = autocommit
        else:
            super()._set_autocommit(autocommit)

    def _configure_timezone(self, connection: Any) -> bool:
        """Have each transaction in Django's time zone: what is set for a session is reset before it."""
        if not self._shares:
            return bool(super()._configure_timezone(connection))
        name = self.timezone_name
        if name:
            connection.setup = sql.SQL("SET TIME ZONE {}; ").format(name).as_bytes(connection)
        return False

    def chunked_cursor(self) -> Any:
        """A cursor on the server, as long as a transaction lasts; where each statement is one, an ordinary one."""
        self.ensure_connection()
        return self.cursor() if self._shares and not self.in_atomic_block else super().chunked_cursor()


@cache
def _committing(factory: type[Any]) -> type[Any]:
    """Cursors whose connection commits behind each statement while it is told to."""

    class Committing(factory):
        """A cursor that ends the transaction its statement began."""

        def execute(self, *arguments: Any, **options: Any) -> Any:
            """Run a statement."""
            return self._alone(super().execute, *arguments, **options)

        def executemany(self, *arguments: Any, **options: Any) -> Any:
            """Run a statement for each of many values, all of them or none."""
            return self._alone(super().executemany, *arguments, **options)

        def _alone(self, run: Any, *arguments: Any, **options: Any) -> Any:
            connection = self.connection
            if not connection.commits:
                return run(*arguments, **options)
            try:
                done = run(*arguments, **options)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
            return done

    return Committing
