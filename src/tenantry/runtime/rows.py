"""Connections to tables that tenants share: each transaction begins with whose it is, in the same message as BEGIN.

So a connection, also one behind a pooler of transactions, never carries a tenant over from one transaction to the next.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from collections.abc import Mapping
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from tenantry.errors import AutocommitRefused, SharedTablesWeak
from tenantry.model import Login, Place, Server
from tenantry.runtime.settings import SharedTables
from tenantry.runtime.wire import CONNECT_SECONDS, Wire

if TYPE_CHECKING:
    from sqlalchemy import Dialect

SETTING: Final = "tenantry.tenant"
"""What the policies of shared tables compare a row's `tenant_id` with."""

REMEMBERED: Final = 10_000
"""Tenants whose first statement is kept at hand."""

_FRESH: Final = b"CLOSE ALL; UNLISTEN *; RESET ALL; "
"""Ends what outlasts a transaction: cursors WITH HOLD, which hold rows, what the session listens to, settings.

DEALLOCATE is not among it: the driver prepares statements itself, and one runs as whoever executes it.
"""

AGAIN: Final = 1.0
"""Seconds for which weak tables are refused without looking at them anew."""


@lru_cache(maxsize=REMEMBERED)
def _beginning(key: str) -> bytes:
    # Only the simple protocol takes several statements, and it binds nothing: so nothing but a UUID is let in.
    return f"SELECT set_config('{SETTING}', '{uuid.UUID(key)}', true)".encode()


class Whose:
    """The tenant that a shared connection works for just now."""

    __slots__ = ("begin",)

    def __init__(self) -> None:
        self.begin = b""  # what follows BEGIN; empty: it works for nobody, and the policies show it no row

    def set(self, key: str) -> None:
        """Work for the tenant whose rows carry this key."""
        self.begin = _beginning(key)

    def clear(self) -> None:
        """Work for nobody."""
        self.begin = b""


@cache
def _classes() -> tuple[Any, Any]:
    """Connections for threads, and for event loops; psycopg is imported where somebody needs it."""
    import psycopg
    from psycopg import generators
    from psycopg.pq import ExecStatus, TransactionStatus

    idle, good = TransactionStatus.IDLE, ExecStatus.TUPLES_OK

    class Shared:
        """What a connection does otherwise where tenants share it."""

        whose: Whose = Whose()
        resets: bool = True
        setup: bytes = b""  # statements that each transaction is preceded by, beside the reset

        def _start_query(self: Any) -> Any:
            """Begin a transaction, where none is under way, as the tenant's own, without what another one left."""
            begin = self.whose.begin
            if begin and self._autocommit:
                raise AutocommitRefused
            if self.pgconn.transaction_status != idle:
                return
            if not begin:
                yield from super()._start_query()  # type: ignore[misc]
            elif self._pipeline:
                yield from super()._start_query()  # type: ignore[misc]
                yield from self._exec_command(begin)
            else:
                self._check_connection_ok()
                reset = _FRESH if self.resets else b""
                self.pgconn.send_query(reset + self.setup + self._get_tx_start_command() + b"; " + begin)
                *_, last = yield from generators.execute(self.pgconn)
                if last.status != good:
                    raise psycopg.errors.error_from_result(last, self.pgconn._encoding)

    threads = type("SharedConnection", (Shared, psycopg.Connection), {})
    return threads, type("SharedAsyncConnection", (Shared, psycopg.AsyncConnection), {})


def address(server: Server, shared: SharedTables) -> Server:
    """The server as applications reach it: its pooler, where there is one."""
    return server if shared.pooler is None else dataclasses.replace(server, address=shared.pooler)


def opened(
    dialect: Dialect, whose: Whose, shared: SharedTables, arguments: Any, options: Mapping[str, Any], *, awaits: bool
) -> Any:
    """A new connection as SQLAlchemy's dialect has it; in an event loop this is run in a greenlet."""
    if shared.pooler is not None:
        options = {**options, "prepare_threshold": None}  # a pooler's server does not know what another one prepared
    resets = shared.pooler is None  # a pooler keeps count of some settings itself
    threads, loops = _classes()
    if not awaits:
        return _belonging(threads.connect(*arguments, **options), whose, resets)

    async def create(*given: Any, **named: Any) -> Any:
        return _belonging(await loops.connect(*given, **named), whose, resets)

    return dialect.connect(*arguments, **options, async_creator_fn=create)


def _belonging(connection: Any, whose: Whose, resets: bool) -> Any:
    connection.whose, connection.resets = whose, resets
    return connection


class Safety:
    """Refuses shared tables that do not keep tenants apart: looked at once, and again after each migration."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str | None, str, str | None], tuple[float, SharedTablesWeak | None]] = {}

    def known(self, place: Place) -> bool:
        """Whether tables were found safe; raises `SharedTablesWeak` where a moment ago they were not."""
        when, error = self._known.get(_key(place), (0.0, None))
        if error is not None and time.monotonic() - when < AGAIN:
            raise error
        return bool(when) and error is None

    def look(self, place: Place, server: Server, login: Login, shared: SharedTables, wire: Wire) -> None:
        """Look at the tables by the application's own login. Raises `SharedTablesWeak`, or what psycopg raises."""
        with self._lock:  # whoever waited here finds it done
            if not self.known(place):
                found = self._faults(place, address(server, shared), login, shared, wire)
                error = None
                if found:
                    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
                    error = SharedTablesWeak(database=place.database, server=server.name, what=f"{found[0]}{more}")
                self._known[_key(place)] = time.monotonic(), error
            self.known(place)

    def _faults(self, place: Place, server: Server, login: Login, shared: SharedTables, wire: Wire) -> list[str]:
        import psycopg

        url = wire.url(server, login, place.database, None).set(drivername="postgresql")
        connect = partial(psycopg.connect, url.render_as_string(hide_password=False), prepare_threshold=None)
        with connect(connect_timeout=CONNECT_SECONDS) as connection:
            return list(shared.faults(connection, login.user))


def _key(place: Place) -> tuple[str | None, str, str | None]:
    return place.server, place.database, place.version
