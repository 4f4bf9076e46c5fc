"""One connection to a server, and what is known of that server and of its tenants."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import socket
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from select import POLLIN, poll
from typing import TYPE_CHECKING, Any, Final, cast

from tenantry.errors import ServerUnavailable
from tenantry.model import Environment, Login, Place, Server
from tenantry.runtime import rows
from tenantry.runtime.breaker import Breaker
from tenantry.runtime.budget import Budget, Group, Loop, Share, Slot
from tenantry.runtime.guard import guard
from tenantry.runtime.prefixes import put_in
from tenantry.runtime.settings import Logins, SharedTables
from tenantry.runtime.wire import CONNECT_SECONDS, Wire

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect, Engine
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.orm import Session

log: Final = logging.getLogger("tenantry.runtime")

GONE_SECONDS: Final = 10
"""Seconds without an answer of the other machine after which a connection is taken for gone."""

PATIENCE: Final = 10
"""Seconds opening a connection may take in an event loop where the server is slow, but lives."""

STATEMENTS: Final = 500
"""Compiled statements kept for each server, over all tenants; on MariaDB for each connection."""


@dataclass(slots=True, eq=False)
class Tenancy(Share):
    """One resource of one environment on a server, as it is now."""

    host: Host = None  # type: ignore[assignment]
    environment: Environment = None  # type: ignore[assignment]
    place: Place | None = None  # None: it lies no longer here, or is not served
    idle_seconds: float = 300.0
    shared: SharedTables | None = None  # where its rows lie among those of other tenants


class Tally:
    """How many there were, and how long they took: a histogram."""

    BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[sum(seconds > bound for bound in self.BOUNDS)] += 1
        self.seconds += seconds


class Host:
    """One server, and every connection of this process to it."""

    def __init__(self, server: Server, wire: Wire) -> None:
        self.server = server
        self.wire = wire
        self.budget: Budget[Link] = Budget(server.connections)
        self.breaker = Breaker(server.name)
        self.tenancies: dict[tuple[str, str], Tenancy] = {}
        self.groups: dict[str, Group] = {}  # by database that tenants share
        self.busy: set[Link] = set()
        self.alive = 0.0  # when it last showed that it lives
        self.probing = False
        self.sample: tuple[Environment, Place] | None = None  # of those that were let in here
        self.sessions: Counter[tuple[str, str]] = Counter()  # by tenant's slug and resource
        self.waits, self.connects = Tally(), Tally()
        self.refused = self.leaks = self.lost = self.probes = 0
        self._dialects: dict[bool, Dialect] = {}
        self._learnt: set[bool] = set()
        self._cache: Any = None

    def follow(self, server: Server) -> None:
        """Take in what changed about the server."""
        self.server = server
        if self.budget.limit != server.connections:
            self.budget.limit = server.connections
            self.budget.serve()

    def outdated(self) -> list[Link]:
        """Idle connections to where the server was before."""
        return [self.budget.take_out(link) for link in list(self.budget.idle) if link.address != self.server.address]

    def expired(self, now: float) -> Iterator[Link]:
        """Idle connections that nobody used for long, or whose event loop is over."""
        for link in list(self.budget.idle):
            over = link.loop is not None and link.loop.is_closed()
            if over or now - link.since > link.tenancy.idle_seconds:
                yield self.budget.take_out(link)

    def leaked(self, before: float) -> Iterator[Link]:
        """Sessions opened before this, each once."""
        for link in self.busy:
            if link.taken < before and not link.named:
                link.named = True
                self.leaks += 1
                yield link

    def forget_empty(self) -> None:
        """Let go of tenancies without connections."""
        for key, tenancy in list(self.tenancies.items()):
            if not tenancy.open and tenancy not in self.budget.waiting:
                del self.tenancies[key]

    def learn(self, connection: Connection, loop: Loop) -> None:
        """Let the dialect ask the server what it can do, unless it knows."""
        if (loop is not None) not in self._learnt:
            connection.dialect.initialize(connection)
            connection.rollback()
            self._dialects[loop is not None] = connection.dialect
            self._learnt.add(loop is not None)

    def answers(self, logins: Logins) -> bool:
        """Whether the server shows that it lives; blocks."""
        if self.sample is None:
            return self.wire.answers(self.server, Login("", ""), "")
        return self.wire.answers(self.server, logins(*self.sample, self.server), self.sample[1].database)

    def dialect(self, loop: Loop, database: str) -> Dialect:
        """The dialect of a tenant's engines: one for all where that is right, so that the server is asked only once."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        found = self._dialects.get(loop is not None)
        if found is None:
            url = self.wire.url(self.server, Login("", ""), "", loop)
            found = create_engine(url, poolclass=NullPool, **self.wire.dialect).dialect
            self._dialects[loop is not None] = found
        if not self.wire.alike:
            found = copy.copy(found)
            found.default_schema_name = database
        return found

    def cache(self) -> dict[str, Any]:
        """Where engines keep compiled statements: together where their dialect is one."""
        from sqlalchemy.util import LRUCache

        if not self.wire.alike:
            return {"query_cache_size": STATEMENTS}
        if self._cache is None:
            self._cache = LRUCache(STATEMENTS)
        return {"query_cache_size": 0, "execution_options": {"compiled_cache": self._cache}}


class Link(Slot):
    """One open connection with an engine of its own around it; while it is in use, also whose it is."""

    __slots__ = (
        *("_engine", "_look", "_raw", "_tap", "_watch", "address", "async_engine", "connection"),
        *("named", "origin", "place", "sealed", "taken", "whose"),
    )

    def __init__(
        self, tenancy: Tenancy, place: Place, server: Server, loop: Loop, engine: Engine, connection: Connection
    ) -> None:
        super().__init__(tenancy, loop)
        self._engine = engine
        self._raw = connection.connection.driver_connection
        # The same socket once more: to look at and to shut from any thread, whatever becomes of the driver's own.
        self._tap = socket.socket(fileno=os.dup(tenancy.host.wire.socket_of(self._raw)))
        _notice_silence(self._tap)
        self._look = poll()
        self._look.register(self._tap, POLLIN)
        self._watch: weakref.ref[Session] | None = None
        self.place = place  # as it is when this is opened: the database and the login
        self.address = server.address
        self.sealed = server.shared.get(place.database)
        self.whose: rows.Whose | None = None  # where tenants share it
        self.async_engine = None if loop is None else _asynchronous(engine)
        self.connection: Connection | None = connection
        self.origin = ("", 0)  # file and line where the session was opened
        self.taken = 0.0
        self.named = False

    @property
    def tenancy(self) -> Tenancy:
        """Whose it is."""
        return cast("Tenancy", self.share)

    @property
    def driver(self) -> Any:
        """The driver's own connection, for frameworks that speak to no other. It is given back as unsound."""
        return self._raw

    def fits(self, place: Place | None) -> bool:
        """Whether it leads to a place, by the login of now."""
        server = self.tenancy.host.server
        if self.address != server.address or self.sealed != server.shared.get(self.place.database):
            return False
        return self.place is place or (place is not None and _reached(self.place) == _reached(place))

    def stale(self) -> bool:
        """Whether the server has closed it: there is something to read, though nothing was asked."""
        return bool(self._look.poll(0))

    def begin(self, origin: tuple[str, int], now: float) -> None:
        """Be in use."""
        self.origin, self.taken, self.named = origin, now, False
        if self.connection is None:
            self.connection = self._engine.connect()  # the pool has it open: nothing is awaited
        if self.whose is not None:
            self.whose.set(self.tenancy.environment.key)

    def watch(self, session: Session, dropped: Callable[[object], None]) -> None:
        """Have it told when the session is dropped without being closed."""
        self._watch = weakref.ref(session, dropped)

    def over(self, session: Session) -> bool:
        """Whether a session has ended all it began, so that nothing is to be awaited when it leaves."""
        plain = getattr(self._raw, "autocommit", True) is False  # setting that back would be awaited
        return plain and not session.in_transaction() and self.tenancy.host.wire.settled(self._raw)

    def leave(self, session: Session | None = None) -> bool:
        """End the use; True where the connection is as good as new. In an event loop it is run in a greenlet."""
        self._watch = None
        connection, self.connection = self.connection, None
        assert connection is not None
        try:
            if session is not None:
                session.close()
            sound = not connection.closed and not connection.invalidated and self._settle(connection)
            connection.close()  # also sets back the isolation level
        except Exception:
            log.debug("A connection is given up", exc_info=True)
            return False
        finally:
            if self.whose is not None:
                self.whose.clear()
        return sound

    def _settle(self, connection: Connection) -> bool:
        proxied = connection.connection
        if proxied.driver_connection is not self._raw:  # the session went on with a new one after the old one broke
            self._raw = proxied.driver_connection
            return False
        wire = self.tenancy.host.wire
        if not wire.settled(self._raw):
            proxied.rollback()
        return wire.settled(self._raw)

    def detach(self) -> None:
        """Take it away from a session that is no more."""
        if self.connection is not None:
            with contextlib.suppress(Exception):
                self.connection.detach()
            self.connection = None

    def cut(self) -> None:
        """Break it off, so that whoever waits for an answer gets an error."""
        with contextlib.suppress(OSError):
            self._tap.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it for good; nobody uses it."""
        with contextlib.suppress(Exception):  # it may be broken in any way
            self.tenancy.host.wire.close(self._raw, self.loop)
        self._tap.close()

    def described(self) -> str:
        """The session that uses it, for the log."""
        environment, (file, line) = self.tenancy.environment, self.origin
        what = f"A session on '{self.place.name}' of the tenant '{environment.tenant.slug}'"
        return f"{what} ({environment.name}), opened at {file}:{line},"


def _notice_silence(tap: socket.socket) -> None:
    """Let the system end a connection whose other side is gone without a word (RFC 5482, RFC 1122 section 4.2.3.6)."""
    if tap.family in (socket.AF_INET, socket.AF_INET6):
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_USER_TIMEOUT", 1000 * GONE_SECONDS), ("TCP_KEEPIDLE", GONE_SECONDS)):
            if hasattr(socket, name):  # not every system has them
                tap.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _reached(place: Place) -> tuple[str | None, str, bytes]:
    return place.server, place.location, place.sealed


def _asynchronous(engine: Engine) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import AsyncEngine

    return AsyncEngine(engine)


def connect(
    tenancy: Tenancy,
    place: Place,
    server: Server,
    login: Login,
    loop: Loop,
    broken: Callable[[Host], ServerUnavailable],
) -> Link:
    """Open a connection for a tenant; in an event loop this is run in a greenlet. Raises what the driver raises.

    `server` is the one that the login is of: it may change meanwhile.
    """
    from sqlalchemy import Engine
    from sqlalchemy.pool import StaticPool

    host = tenancy.host
    host.sample = tenancy.environment, place
    dialect = host.dialect(loop, place.database)
    shared, whose = tenancy.shared, rows.Whose()
    reached = server if shared is None else rows.address(server, shared)
    url = host.wire.url(reached, login, place.database, loop)
    arguments, options = dialect.create_connect_args(url)
    options.update(
        host.wire.options(server, login, loop), connect_timeout=CONNECT_SECONDS if loop is None else PATIENCE
    )
    prepare = dialect.on_connect()

    def creator() -> Any:
        if shared is None:
            opened = dialect.connect(*arguments, **options)
        else:
            opened = rows.opened(dialect, whose, shared, arguments, options, awaits=loop is not None)
        if prepare is not None:
            prepare(opened)
        return opened

    pool = StaticPool(creator, reset_on_return=None, dialect=dialect)
    engine = Engine(pool, dialect, url, **host.cache())
    connection = engine.connect()
    try:
        host.learn(connection, loop)
        link = Link(tenancy, place, server, loop, engine, connection)
    except BaseException:
        connection.invalidate()
        raise
    link.whose = None if shared is None else whose
    guard(engine, lambda: link.share.environment)  # type: ignore[attr-defined]
    if place.prefix:
        put_in(engine, place.prefix)
    _translate(engine, lambda: broken(host))
    return link


def _translate(engine: Engine, broken: Callable[[], ServerUnavailable]) -> None:
    """Let a statement whose connection breaks off raise `ServerUnavailable`."""
    from sqlalchemy import event

    @event.listens_for(engine, "handle_error")
    def told(context: ExceptionContext) -> None:
        context.invalidate_pool_on_disconnect = False
        if context.is_disconnect and isinstance(context.original_exception, Exception):
            raise broken() from context.original_exception
