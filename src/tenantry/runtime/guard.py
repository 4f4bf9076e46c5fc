"""Keeps the connections of one tenant from being used while another one is the current tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tenantry.context import _current, is_reading
from tenantry.errors import ForeignTenant, NoTenant
from tenantry.model import Environment
from tenantry.refusals import SupportReadOnly

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext

SQLITE_READONLY: Final = 8
"""The result code of statements that write where nothing may (SQLite, "Result and Error Codes")."""

READ_ONLY: Final = "tenantry_read_only"
"""Says of a connection to a file that it writes nothing."""


def guard(engine: Engine, whose: Callable[[], Environment]) -> None:
    """Refuse every statement outside the context of the environment that an engine works for.

    Where support looks in without the right to write, its transactions are read only.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def same_tenant(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        now = _current.get()
        environment = whose()
        if now is None:
            raise NoTenant
        if now.id != environment.id:
            raise ForeignTenant(owner=environment.tenant.slug, current=now.tenant.slug)
        return statement, parameters

    begin = _begin_on_sqlite if engine.dialect.name == "sqlite" else _begin_on_server
    event.listen(engine, "begin", begin)
    event.listen(engine, "handle_error", _told_read_only)


def _begin_on_server(connection: Connection) -> None:
    """This one transaction alone (PostgreSQL; MySQL and MariaDB: the next one, which has not begun yet)."""
    if is_reading():
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _begin_on_sqlite(connection: Connection) -> None:
    """SQLite knows it of connections alone, which others use afterwards."""
    only = is_reading()
    if only or connection.info.get(READ_ONLY):
        connection.exec_driver_sql(f"PRAGMA query_only = {int(only)}")
        connection.info[READ_ONLY] = only


def _told_read_only(context: ExceptionContext) -> None:
    """Let the refusal of a server or of SQLite be told as what it is."""
    error = context.original_exception
    refused = (
        getattr(error, "sqlstate", None) == "25006"  # read_only_sql_transaction (PostgreSQL, appendix A)
        or getattr(error, "sqlite_errorcode", 0) & 0xFF == SQLITE_READONLY
        or error.args[:1] == (1792,)  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION (MySQL, MariaDB)
    )
    if refused and is_reading():
        raise SupportReadOnly from error
