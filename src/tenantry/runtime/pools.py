"""Sessions on databases that lie on servers: connections of many tenants, out of one budget for each server.

The accounting is `budget`, the wire is `wire`; here they meet. What may block happens outside the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from tenantry.errors import ResourceError, ServerBusy, ServerUnavailable, ServerUnknown
from tenantry.model import Environment, Place, Server, ServerState
from tenantry.runtime.budget import Grant, Group, Loop, Waiter
from tenantry.runtime.links import Host, Link, Tenancy, connect
from tenantry.runtime.rows import Safety
from tenantry.runtime.settings import Logins, PoolLimits, Settings
from tenantry.runtime.wire import CONNECT_SECONDS, WIRES

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

log: Final = logging.getLogger("tenantry.runtime")

ROTATION_SECONDS: Final = 2.0
"""How long a refused login is taken for one that is being changed just now."""

ROTATION_STEP: Final = 0.02
"""Seconds between two looks for the changed one."""

SILENCE: Final = 2.0
"""Seconds without a sign of life from a server with connections in use, after which it is asked for one."""

PAUSES: Final = (0.1, 0.25, 1.0)
"""Seconds between two rounds of the keeper: while a server is away, while connections are in use, and else."""

Seen = TypeVar("Seen")
Look: TypeAlias = Callable[[Environment], Environment | None]
Origin: TypeAlias = tuple[str, int]


class Pools:
    """The connections of this process to all servers, used from event loops and threads alike."""

    def __init__(
        self,
        settings: Settings,
        current: Look,
        servers: Callable[[str], Server | None],
        logins: Logins,
    ) -> None:
        self._settings = settings
        self._current = current
        self._servers = servers
        self._logins = logins
        self._inherited: list[Any] = []
        self._safety = Safety()
        self._begin()

    def _begin(self) -> None:
        self.hosts: dict[str, Host] = {}
        self._lock = threading.Lock()
        self._lost: deque[Link] = deque()  # whose session was dropped; the garbage collector appends to it
        self._keeper: threading.Thread | None = None
        self._wake = threading.Event()

    def abandon(self) -> None:
        """Forget everything without closing it: after a fork the connections are the parent's.

        They are kept as they are, since their end would reach the parent's server and event loop.
        """
        self._inherited.append((self.hosts, self._lost))
        self._begin()

    def session(self, environment: Environment, place: Place, origin: Origin) -> ServerSession:
        """A session for `async with` (an AsyncSession) or `with` (a Session).

        Entering raises `ServerUnavailable`, `ServerBusy` or `ResourceError`.
        """
        return ServerSession(self, environment, place, origin)

    @contextmanager
    def connection(self, environment: Environment, place: Place, origin: Origin) -> Iterator[Connection]:
        """A connection, for code without an event loop; raises as `session` does."""
        link = self.take_sync(environment, place, origin)
        try:
            assert link.connection
            yield link.connection
        finally:
            self.leave(link)

    # --- taking ---------------------------------------------------------------------------------------------------

    async def take(self, environment: Environment, place: Place, origin: Origin) -> Link:
        """A connection for this event loop."""
        loop = asyncio.get_running_loop()
        if self._unproven(environment, place):
            await asyncio.to_thread(self._prove, environment, place)
        tenancy, grant = self._ask(environment, place, loop)
        if isinstance(grant, Waiter):
            grant = await self._wait(grant)
        link = self._usable(grant, place)
        if link is None:
            try:
                link = await self._open(tenancy, environment, place, loop)
            except BaseException:
                self._gone(tenancy)
                raise
        return self._taken(link, origin)

    async def _wait(self, waiter: Waiter[Link]) -> Grant[Link]:
        began = time.monotonic()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiter.event.wait(), self._settings.busy_seconds)
        except BaseException:
            self._give_up(waiter)
            raise
        return self._called(waiter, began)

    def take_sync(self, environment: Environment, place: Place, origin: Origin) -> Link:
        """A connection for this thread; blocks."""
        self.prove(environment, place)
        tenancy, grant = self._ask(environment, place, None)
        if isinstance(grant, Waiter):
            began = time.monotonic()
            try:
                grant.event.wait(self._settings.busy_seconds)
            except BaseException:
                self._give_up(grant)
                raise
            grant = self._called(grant, began)
        link = self._usable(grant, place)
        if link is None:
            try:
                link = self._open_sync(tenancy, environment, place)
            except BaseException:
                self._gone(tenancy)
                raise
        return self._taken(link, origin)

    def prove(self, environment: Environment, place: Place) -> None:
        """Look at shared tables that nobody has looked at yet; blocks. Raises `SharedTablesWeak`, or as `take` does."""
        if self._unproven(environment, place):
            self._prove(environment, place)

    def _unproven(self, environment: Environment, place: Place) -> bool:
        """Whether a place is among tables that tenants share, and it is not known yet that these keep them apart."""
        shared = self._settings.shared.get((environment.tenant.blueprint, place.name))
        return shared is not None and not self._safety.known(place)

    def _prove(self, environment: Environment, place: Place) -> None:
        """Look at shared tables before anybody uses them; blocks. Raises `SharedTablesWeak`."""
        import psycopg

        with self._lock:
            host = self._host(place)
            host.breaker.check(time.monotonic())
            tenancy = self._tenancy(host, environment, place)
        assert tenancy.shared
        login, began = self._logins(environment, place, host.server), time.monotonic()
        try:
            self._safety.look(place, host.server, login, tenancy.shared, host.wire)
        except psycopg.OperationalError as error:
            raise self._failed(tenancy, place, error, began) from error

    def _ask(self, environment: Environment, place: Place, loop: Loop) -> tuple[Tenancy, Grant[Link] | Waiter[Link]]:
        with self._lock:
            host = self._host(place)
            host.breaker.check(time.monotonic())
            tenancy = self._tenancy(host, environment, place)
            host.sessions[environment.tenant.slug, place.name] += 1
            grant = host.budget.ask(tenancy, loop)
            if grant is not None:
                return tenancy, grant
            waiter: Waiter[Link] = Waiter(tenancy, loop)
            host.budget.wait(waiter)
            return tenancy, waiter

    def _host(self, place: Place) -> Host:
        server = self._servers(place.server or "")
        if server is None:
            raise ServerUnknown(server=place.server, known=", ".join(self.hosts) or "none")
        host = self.hosts.get(server.name)
        if host is None:
            host = self.hosts[server.name] = Host(server, WIRES[server.kind])
        elif host.server is not server:
            host.follow(server)
        if server.state is ServerState.CLOSED:
            remedy = f"`tenantry server open {server.name}` ends its maintenance."
            raise ServerUnavailable(server=server.name, reason="it is closed for maintenance", remedy=remedy)
        return host

    def _tenancy(self, host: Host, environment: Environment, place: Place) -> Tenancy:
        key = (environment.id, place.name)
        tenancy = host.tenancies.get(key)
        if tenancy is None:
            limits = self._settings.pools.get((environment.tenant.blueprint, place.name), PoolLimits())
            most = max(1, limits.size + limits.overflow)
            tenancy = host.tenancies[key] = Tenancy(
                key, limits.size, most, host=host, environment=environment, place=place, idle_seconds=limits.idle
            )
            tenancy.shared = self._settings.shared.get((environment.tenant.blueprint, place.name))
            if tenancy.shared is not None:
                tenancy.group = host.groups.setdefault(place.database, Group(limits.size))
        tenancy.environment, tenancy.place = environment, place
        return tenancy

    def _called(self, waiter: Waiter[Link], began: float) -> Grant[Link]:
        """What somebody waited for. Raises `ServerBusy`, or what ended the waiting."""
        host, tenancy = _host_of(waiter), cast("Tenancy", waiter.share)
        with self._lock:
            host.waits.add(time.monotonic() - began)
            if waiter.grant is not None:
                return waiter.grant
            host.budget.give_up(waiter)
            if waiter.error is not None:
                raise waiter.error
            host.refused += 1
            full = tenancy.open >= tenancy.most
        slug, seconds = tenancy.environment.tenant.slug, f"{self._settings.busy_seconds:g}"
        if full:
            reason = f"the tenant '{slug}' uses all {tenancy.most} it may have"
            remedy = f"Try again; raise `pool` of the resource '{tenancy.key[1]}', or look for sessions left open."
            raise ServerBusy(server=host.server.name, seconds=seconds, reason=reason, remedy=remedy)
        reason = f"{host.budget.limit} is the budget of this process, and {host.budget.open} are open"
        raise ServerBusy(server=host.server.name, seconds=seconds, reason=reason)

    def _give_up(self, waiter: Waiter[Link]) -> None:
        with self._lock:
            _host_of(waiter).budget.give_up(waiter)

    def _usable(self, grant: Grant[Link], place: Place) -> Link | None:
        """The connection that was granted, or None where one has to be opened."""
        if grant.evicted is not None:
            grant.evicted.close()
        link = grant.slot
        if link is None or (link.fits(place) and not link.stale()):
            return link
        link.close()
        with self._lock:
            link.tenancy.host.budget.opening += 1
        return None

    def _taken(self, link: Link, origin: Origin) -> Link:
        try:
            link.begin(origin, time.monotonic())
        except BaseException:
            self.give_back(link, False)
            raise
        with self._lock:
            link.tenancy.host.busy.add(link)
        if self._keeper is None:
            self._keep()
        return link

    # --- opening --------------------------------------------------------------------------------------------------

    async def _open(self, tenancy: Tenancy, environment: Environment, place: Place, loop: Loop) -> Link:
        until = time.monotonic() + ROTATION_SECONDS
        try:
            return await self._attempt(tenancy, environment, place, loop)
        except ResourceError as error:
            refused = error
        finally:
            self._attempted(tenancy)
        while time.monotonic() < until:
            newer = self._newer(environment, place)
            if newer is not None:
                place = newer
                with contextlib.suppress(ResourceError):
                    return await self._attempt(tenancy, environment, place, loop)
            await asyncio.sleep(ROTATION_STEP)
        raise refused

    async def _attempt(self, tenancy: Tenancy, environment: Environment, place: Place, loop: Loop) -> Link:
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.util import greenlet_spawn

        server, began = tenancy.host.server, time.monotonic()
        login = self._logins(environment, place, server)
        try:
            async with _patience(tenancy.host):
                link = await greenlet_spawn(connect, tenancy, place, server, login, loop, self._broken)
        except (DBAPIError, OSError) as error:  # TimeoutError is one of these
            raise self._failed(tenancy, place, error, began) from error
        return self._opened(link, began)

    def _open_sync(self, tenancy: Tenancy, environment: Environment, place: Place) -> Link:
        until = time.monotonic() + ROTATION_SECONDS
        try:
            return self._attempt_sync(tenancy, environment, place)
        except ResourceError as error:
            refused = error
        finally:
            self._attempted(tenancy)
        while time.monotonic() < until:
            newer = self._newer(environment, place)
            if newer is not None:
                place = newer
                with contextlib.suppress(ResourceError):
                    return self._attempt_sync(tenancy, environment, place)
            time.sleep(ROTATION_STEP)
        raise refused

    def _attempt_sync(self, tenancy: Tenancy, environment: Environment, place: Place) -> Link:
        from sqlalchemy.exc import DBAPIError

        server, began = tenancy.host.server, time.monotonic()
        login = self._logins(environment, place, server)
        try:
            link = connect(tenancy, place, server, login, None, self._broken)
        except (DBAPIError, OSError) as error:
            raise self._failed(tenancy, place, error, began) from error
        return self._opened(link, began)

    def _attempted(self, tenancy: Tenancy) -> None:
        with self._lock:
            tenancy.host.budget.opened()

    def _opened(self, link: Link, began: float) -> Link:
        host, now = link.tenancy.host, time.monotonic()
        with self._lock:
            host.connects.add(now - began)
            host.alive = now
        return link

    def _newer(self, environment: Environment, place: Place) -> Place | None:
        """The place as it is now, where it is another one on the same server."""
        now = self._current(environment)
        found = now.place(place.name) if now else None
        return found if found != place and found and found.server == place.server else None

    def _failed(
        self, tenancy: Tenancy, place: Place, error: Exception, began: float
    ) -> ResourceError | ServerUnavailable:
        """Why there is no connection: the login is refused, which may pass, or the server is away."""
        host, slug = tenancy.host, tenancy.environment.tenant.slug
        cause = getattr(error, "orig", None) or error
        late = isinstance(error, TimeoutError)
        reason = f"it did not answer within {CONNECT_SECONDS} s" if late else " ".join(str(cause).split())[:300]
        if host.wire.refused(cause):
            reason = f"the server '{host.server.name}' does not let it in ({reason})"
            remedy = f"`tenantry tenant check {slug}` tells more; `tenantry tenant rotate {slug}` gives it a new login."
            return ResourceError(kind=place.kind, resource=place.name, tenant=slug, reason=reason, remedy=remedy)
        if late:
            self._trip(host, reason, began)
        self._suspect(host)
        return ServerUnavailable(server=host.server.name, reason=reason)

    # --- giving back ----------------------------------------------------------------------------------------------

    def leave(self, link: Link, session: Session | None = None) -> None:
        """The session is over; in an event loop this is run in a greenlet."""
        sound = False
        try:
            sound = link.leave(session)
        finally:
            self.give_back(link, sound)

    def give_back(self, link: Link, sound: bool) -> None:
        """Let others have a connection. What is not sound, changed meanwhile, or too many, is closed."""
        tenancy = link.tenancy
        host, now = tenancy.host, time.monotonic()
        surplus: Link | None = link
        with self._lock:
            host.busy.discard(link)
            if sound:
                host.alive = now
                if link.fits(tenancy.place):
                    surplus = host.budget.give_back(link, now)
        if surplus is not None:
            surplus.close()
            self._gone(surplus.tenancy)

    def _gone(self, tenancy: Tenancy) -> None:
        with self._lock:
            tenancy.host.budget.gone(tenancy)

    def refresh(self, tenants: Collection[str] | None = None) -> None:
        """Close idle connections of these tenants (any where None) and to servers that are not what they were."""
        found: list[Link] = []
        with self._lock:
            for name, host in self.hosts.items():
                server = self._servers(name)
                served = server is not None and server.state is not ServerState.CLOSED
                if server is not None:
                    host.follow(server)
                for tenancy in host.tenancies.values():
                    if not (served and self._kept(tenants, tenancy)):
                        tenancy.place = None
                        found += [host.budget.take_out(link) for link in host.budget.idle_of(tenancy)]
                found += host.outdated()
        self._close_all(found)

    def _kept(self, tenants: Collection[str] | None, tenancy: Tenancy) -> bool:
        """Whether a tenancy is what it was."""
        environment = tenancy.environment
        if tenants is not None and environment.tenant.id not in tenants:
            return True
        now = self._current(environment)
        return now is not None and now.tenant.status.served and now.place(tenancy.key[1]) == tenancy.place

    def leave_loop(self, loop: Loop) -> None:
        """Close the idle connections of an event loop that is about to end: afterwards they cannot be."""
        with self._lock:
            budgets = [host.budget for host in self.hosts.values()]
            found = [budget.take_out(link) for budget in budgets for link in list(budget.idle) if link.loop is loop]
        self._close_all(found)

    def shut(self) -> None:
        """Close everything: what is in use, when its session ends."""
        found: list[Link] = []
        with self._lock:
            for host in self.hosts.values():
                host.breaker.mend()  # nobody is to be told any more
                for tenancy in host.tenancies.values():
                    tenancy.place = None
                found += [host.budget.take_out(link) for link in list(host.budget.idle)]
        self._close_all(found)
        self._wake.set()

    def _close_all(self, links: Collection[Link]) -> None:
        for link in links:
            link.close()
            self._gone(link.tenancy)

    # --- servers that are away ------------------------------------------------------------------------------------

    def _broken(self, host: Host) -> ServerUnavailable:
        """What a statement raises whose connection broke off."""
        self._suspect(host)
        with self._lock:
            if host.breaker.is_open:
                return host.breaker.error(time.monotonic())
        return ServerUnavailable(server=host.server.name, reason="the connection broke off")

    def _suspect(self, host: Host) -> None:
        """Have a look, aside, whether a server lives."""
        with self._lock:
            if host.probing:
                return
            host.probing = True
            host.probes += 1
        threading.Thread(target=self._probe, args=(host,), name="tenantry-probe", daemon=True).start()

    def _probe(self, host: Host) -> None:
        began = time.monotonic()
        try:
            lives = host.answers(self._logins)
        except Exception:
            log.exception("The server '%s' could not be looked at", host.server.name)
            lives = True  # it is not known to be away
        if not lives:
            for link in self._trip(host, "it does not answer", began):
                link.cut()
        with self._lock:
            host.probing = False
            mended = lives and host.breaker.mend()
            if lives:
                host.alive = time.monotonic()
        if mended:
            log.warning("The server '%s' answers again", host.server.name)

    def _trip(self, host: Host, reason: str, since: float) -> list[Link]:
        """Refuse sessions from now on, unless the server gave a sign of life since; gives the connections in use."""
        now = time.monotonic()
        with self._lock:
            if host.alive > since:
                return []
            first = not host.breaker.is_open
            host.budget.fail(host.breaker.trip(reason, now))
            idle = [host.budget.take_out(link) for link in list(host.budget.idle)]
            busy = list(host.busy)
        if first:
            log.warning("The server '%s' is taken for unavailable: %s", host.server.name, reason)
        self._close_all(idle)
        self._keep()
        return busy

    # --- the keeper -----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Have a thread that looks after the connections, for as long as there are any."""
        with self._lock:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._tend, name="tenantry-pools", daemon=True)
                self._keeper.start()

    def _tend(self) -> None:
        wake = self._wake
        while True:
            wake.wait(self._pause())
            wake.clear()
            if self._keeper is not threading.current_thread():  # a fork's
                return
            try:
                self._round(time.monotonic())
            except Exception:
                log.exception("The connections to servers could not be looked after")
            with self._lock:
                if not any(host.budget.open or host.breaker.is_open for host in self.hosts.values()):
                    self._keeper = None
                    return

    def _pause(self) -> float:
        with self._lock:
            if any(host.breaker.is_open for host in self.hosts.values()):
                return PAUSES[0]
            return PAUSES[1] if any(host.budget.busy for host in self.hosts.values()) else PAUSES[2]

    def _round(self, now: float) -> None:
        self._recover()
        with self._lock:
            hosts = list(self.hosts.values())
            expired = [link for host in hosts for link in host.expired(now)]
            leaked = [link for host in hosts for link in host.leaked(now - self._settings.leak_after)]
            silent = [host for host in hosts if host.breaker.due(now) or (host.busy and now - host.alive > SILENCE)]
            for host in hosts:
                host.forget_empty()
        self._close_all(expired)
        for link in leaked:
            log.warning("%s is open for more than %g s", link.described(), self._settings.leak_after)
        for host in silent:
            self._suspect(host)

    def _recover(self) -> None:
        """Take back the connections of sessions that were dropped without being closed."""
        while self._lost:
            link = self._lost.popleft()
            log.warning("%s was never closed", link.described())
            link.tenancy.host.lost += 1
            link.detach()
            self.give_back(link, False)

    def look(self, at: Callable[[list[Host]], Seen]) -> Seen:
        """What is seen of all servers at one moment."""
        with self._lock:
            return at(list(self.hosts.values()))

    def watch(self, link: Link, session: Session) -> None:
        """Notice when a session is dropped. The garbage collector calls this wherever it runs: so no lock is taken."""
        link.watch(session, lambda _: self._lost.append(link))


@asynccontextmanager
async def _patience(host: Host) -> AsyncIterator[None]:
    """The limit of opening a connection, longer while the server shows that it lives: many may be opened at a time."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def look(since: float) -> None:
        nonlocal timer
        if host.alive >= since:
            limit.reschedule(loop.time() + CONNECT_SECONDS)
            timer = loop.call_later(0.9 * CONNECT_SECONDS, look, time.monotonic())

    async with asyncio.timeout(CONNECT_SECONDS) as limit:
        timer = loop.call_later(0.9 * CONNECT_SECONDS, look, time.monotonic())
        try:
            yield
        finally:
            timer.cancel()


def _host_of(waiter: Waiter[Link]) -> Host:
    return cast("Tenancy", waiter.share).host


class ServerSession:
    """A session on a server's database: opens when it is entered."""

    __slots__ = ("_environment", "_link", "_origin", "_place", "_pools", "_session")

    def __init__(self, pools: Pools, environment: Environment, place: Place, origin: Origin) -> None:
        self._pools = pools
        self._environment = environment
        self._place = place
        self._origin = origin
        self._link: Link | None = None
        self._session: Any = None

    async def __aenter__(self) -> AsyncSession:
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

        link = self._link = await self._pools.take(self._environment, self._place, self._origin)
        assert link.async_engine
        session = AsyncSession(AsyncConnection(link.async_engine, link.connection), expire_on_commit=False)
        self._session = session.sync_session
        self._pools.watch(link, session.sync_session)
        return session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from sqlalchemy.util import greenlet_spawn

        assert self._link
        if self._link.over(self._session):
            self._pools.leave(self._link, self._session)
        else:
            await greenlet_spawn(self._pools.leave, self._link, self._session)

    def __enter__(self) -> Session:
        from sqlalchemy.orm import Session

        link = self._link = self._pools.take_sync(self._environment, self._place, self._origin)
        self._session = Session(link.connection, expire_on_commit=False)
        self._pools.watch(link, self._session)
        return self._session  # type: ignore[no-any-return]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._link
        self._pools.leave(self._link, self._session)
