"""What differs between the kinds of database servers: addresses, drivers, and how their connections are looked at."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tenantry.model import Login, Server
from tenantry.runtime.budget import Loop

if TYPE_CHECKING:
    from sqlalchemy import URL

CONNECT_SECONDS: Final = 2
"""How long opening a connection may take; also how long a server may take to show that it lives."""


class Wire(ABC):
    """One kind of server. Connections are those of the driver itself, without SQLAlchemy's wrapping."""

    backend: ClassVar[str]
    drivers: ClassVar[tuple[str, str]]  # for threads, for event loops
    alike: ClassVar[bool] = True  # whether SQLAlchemy's dialect knows nothing of the single database
    dialect: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # options of SQLAlchemy's dialect

    def url(self, server: Server, login: Login, database: str, loop: object) -> URL:
        """The SQLAlchemy URL of a database; the query of the server's address holds its TLS settings."""
        from sqlalchemy import make_url

        driver = f"{self.backend}+{self.drivers[loop is not None]}"
        plain = make_url(server.address).set(drivername=driver, database=database)
        return plain.set(username=login.user, password=login.password)

    def options(self, server: Server, login: Login, loop: Loop) -> dict[str, Any]:
        """What the driver is told beside the URL."""
        return {}

    @abstractmethod
    def socket_of(self, connection: Any) -> int:
        """The descriptor of a connection's socket."""

    @abstractmethod
    def settled(self, connection: Any) -> bool:
        """Whether a connection is open and in no transaction, told without asking the server."""

    @abstractmethod
    def close(self, connection: Any, loop: Loop) -> None:
        """Close an idle connection, from any thread, without waiting."""

    @abstractmethod
    def refused(self, error: BaseException) -> bool:
        """Whether the server turned a login down, where it could have answered another one."""

    @abstractmethod
    def answers(self, server: Server, login: Login, database: str) -> bool:
        """Whether the server shows within `CONNECT_SECONDS` that it lives; blocks."""


class Postgres(Wire):
    """PostgreSQL, by psycopg."""

    backend = "postgresql"
    drivers = ("psycopg", "psycopg_async")
    dialect = MappingProxyType({"use_native_hstore": False})  # its number differs between databases, the dialect is one

    def socket_of(self, connection: Any) -> int:
        return int(connection.pgconn.socket)

    def settled(self, connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status == 0)  # PQTRANS_IDLE, also where it is in no pipeline

    def close(self, connection: Any, loop: Loop) -> None:
        connection.pgconn.finish()  # says good-bye and closes; no event loop has a part in it

    def refused(self, error: BaseException) -> bool:
        """The server asked for the password before it said no: libpq tells no SQLSTATE of a failed connection."""
        connection = getattr(error, "pgconn", None)
        crowded = "slots are reserved" in str(error) or "too many connections" in str(error)
        return bool(connection is not None and getattr(connection, "used_password", False)) and not crowded

    def answers(self, server: Server, login: Login, database: str) -> bool:
        """It answers a request for TLS with one octet, before any login (protocol 3.0, "SSL Session Encryption")."""
        from sqlalchemy import make_url

        url = make_url(server.address)
        try:
            with socket.create_connection((url.host, url.port or 5432), CONNECT_SECONDS) as probe:
                probe.sendall(struct.pack("!ii", 8, 80877103))
                return bool(probe.recv(1))
        except OSError:
            return False


class MySql(Wire):
    """MariaDB and MySQL, by asyncmy and PyMySQL."""

    backend = "mysql"
    drivers = ("pymysql", "asyncmy")
    alike = False  # its default schema is the database

    def url(self, server: Server, login: Login, database: str, loop: object) -> URL:
        url = super().url(server, login, database, loop)
        return url.set(query={"charset": url.query.get("charset", "utf8mb4")})

    def options(self, server: Server, login: Login, loop: Loop) -> dict[str, Any]:
        """The password in UTF-8, where the drivers take another alphabet; and TLS said in one way for both."""
        from sqlalchemy import make_url

        query = make_url(server.address).query
        given = tuple(str(query.get(name, "")) for name in _TLS)
        tls = {"ssl": _tls(*given)} if any(given) else {}
        creator = {} if loop is None else {"async_creator_fn": _asyncmy}
        return {"password": login.password.encode(), **tls, **creator}

    def socket_of(self, connection: Any) -> int:
        transport = getattr(connection, "_transport", None)
        if transport is not None:
            return int(transport.get_extra_info("socket").fileno())
        return int(connection._sock.fileno())

    def settled(self, connection: Any) -> bool:
        connected = connection.connected if hasattr(connection, "connected") else connection.open
        return bool(connected) and not connection.server_status & 1  # SERVER_STATUS_IN_TRANS

    def close(self, connection: Any, loop: Loop) -> None:
        if loop is None:
            connection.close()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(_part, loop, connection)

    def refused(self, error: BaseException) -> bool:
        return bool(error.args) and error.args[0] in _REFUSED

    def answers(self, server: Server, login: Login, database: str) -> bool:
        """It takes a login, or says why not. Anything less counts there as an attack (`max_connect_errors`)."""
        import pymysql
        from sqlalchemy import make_url

        url = make_url(server.address)
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": CONNECT_SECONDS}
        options = self.options(server, login, None) | limits
        try:
            pymysql.connect(host=url.host, port=url.port or 3306, user=login.user, database=database, **options).close()
        except pymysql.MySQLError as error:
            code = error.args[0] if error.args else 0
            return isinstance(code, int) and code > 0 and not 2000 <= code < 3000  # those are the client's own
        except OSError:
            return False
        return True


_REFUSED: Final = frozenset({1044, 1045, 1049, 1698, 3118, 4151})  # access denied, no such database, user locked

_TLS: Final = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_verify_identity")


@cache
def _tls(ca: str, certificate: str, key: str, verify: str, identity: str) -> ssl.SSLContext:
    """What an address's settings demand. A given authority has to vouch for the server, unless that is switched off."""
    context = ssl.create_default_context(cafile=ca or None)
    true = ("1", "true", "yes", "on")
    context.check_hostname = identity.lower() in true
    trusted = context.check_hostname or (verify.lower() in true if verify else bool(ca))
    context.verify_mode = ssl.CERT_REQUIRED if trusted else ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context


async def _asyncmy(**options: Any) -> Any:
    """A connection by asyncmy, which leaves the socket open where it is cancelled between its greetings."""
    from asyncmy.connection import Connection

    connection: Any = Connection(**options)  # type: ignore[no-untyped-call]
    try:
        await connection.connect()
    except BaseException:
        connection.close()
        raise
    return connection


def _part(loop: asyncio.AbstractEventLoop, connection: Any) -> None:
    """Say good-bye to the server and close."""
    task = loop.create_task(_end(connection))
    _ending.add(task)
    task.add_done_callback(_ending.discard)


async def _end(connection: Any) -> None:
    with contextlib.suppress(Exception):  # it may be broken in any way
        await asyncio.wait_for(connection.ensure_closed(), CONNECT_SECONDS)


async def until_closed() -> None:
    """Wait for the connections that are being closed in this event loop, before it ends."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)  # those that `close` has only announced
    ending = [task for task in _ending if task.get_loop() is loop]
    if ending:
        await asyncio.wait(ending)


_ending: Final[set[asyncio.Task[None]]] = set()  # event loops hold tasks by weak references alone

WIRES: Final[Mapping[str, Wire]] = MappingProxyType({"postgres": Postgres(), "mysql": MySql()})
"""By the kind of a server."""
