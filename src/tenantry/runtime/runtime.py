"""The runtime of one process: everything an application uses of a platform, tied together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from tenantry.context import current_environment
from tenantry.credentials import derive_key
from tenantry.errors import (
    ForeignSession,
    InvalidToken,
    RegistryUnavailable,
    ResourceError,
    RuntimeMissing,
    TenantNotFound,
    TenantryError,
)
from tenantry.model import Environment, Login, Place, Server, facts_of, resolve_values
from tenantry.runtime.accounts import Accounts, User
from tenantry.runtime.asked import OWN, Asked, Handler
from tenantry.runtime.cache import TenantCache
from tenantry.runtime.databases import Databases, Origin
from tenantry.runtime.entrance import ENTRANCE, FILES, Entrance
from tenantry.runtime.follower import Follower
from tenantry.runtime.grants import Grants
from tenantry.runtime.proofs import Proofs
from tenantry.runtime.recent import Recent
from tenantry.runtime.resolver import Resolver
from tenantry.runtime.sessions import Client, Sessions
from tenantry.runtime.settings import Logins, Postman, Settings, SignOnDesk, Source, SupportDesk
from tenantry.runtime.sign_on import SignOnPages
from tenantry.runtime.storage import Storage, open_storage
from tenantry.runtime.support import Support
from tenantry.runtime.table import default
from tenantry.runtime.usage import Book, Count, RequestUsage, Written
from tenantry.runtime.userbase import UserBase
from tenantry.runtime.visit import SIGN_IN, current_visit

if TYPE_CHECKING:
    from prometheus_client.registry import Collector
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

Result = TypeVar("Result")

REMEMBERED: Final = 10_000
"""Tenants whose opened keys and filled values are kept at hand."""

_installed: Runtime | None = None


def no_logins(environment: Environment, place: Place, server: Server) -> Login:
    """Stands where a runtime was given no way to open sealed logins: nothing on a server can be reached."""
    reason = "this runtime was not told how to open its login"
    raise ResourceError(kind=place.kind, resource=place.name, tenant=environment.tenant.slug, reason=reason)


class Runtime:
    """Knows all tenants, follows their changes, and gives the current one its database, files, cache and users.

    An ASGI process starts it with its event loop (`start`, called by the middleware), a WSGI process in a thread
    (`start_thread`). A process that is forked off begins anew with its first request.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        keys: Callable[[Environment], bytes],
        logins: Logins = no_logins,
        desk: SupportDesk | None = None,
        postman: Postman | None = None,
        sign_on: SignOnDesk | None = None,
        book: Book | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.resolver = Resolver(settings)
        self.databases = Databases(
            settings,
            lambda environment: self.resolver.table.current(environment),
            lambda name: self.resolver.table.servers.get(name),
            logins,
        )
        self._keys: _Remembered[bytes] = _Remembered(keys)
        self._values: _Remembered[Mapping[str, Any]] = _Remembered(self._resolve_values)
        self.sessions = Sessions(settings, self._keys.get)
        users = UserBase(settings, self.databases)
        self.accounts = Accounts(settings, users, self.sessions, self._keys.get)
        self.proofs = Proofs(users, self.accounts, self._keys.get)
        self.clock: Callable[[], float] = time.time  # by which tokens run out
        self.grants = Grants(
            settings, users, self.accounts, self.sessions, self.proofs, self._keys.get, desk, clock=lambda: self.clock()
        )
        self.resolver.signer = self.grants.signer
        self.recent = Recent(users)
        self.support = Support(
            settings,
            self._keys.get,
            self.sessions,
            desk,
            self.accounts.trail,
            lambda environment: self.resolver.table.current(environment),
            lambda: self._follower.status == "ok",
        )
        sso = SignOnPages(settings, self.sessions, self.accounts, sign_on)
        self.pages: dict[str, Handler] = {
            "support": self.support.answer,
            "sso": sso.answer,
            "token": self.grants.answer,
            "jwks.json": self.grants.key_set,
        }
        """The middleware's own pages at each tenant, by the first part of their path below `/.tenantry/`."""
        self.entrance = Entrance(
            settings, self.accounts, self.proofs, self.sessions, self._keys.get, self._values.get, postman
        )
        self.pages |= dict.fromkeys(ENTRANCE if settings.pages else (FILES,), self.entrance.answer)
        self._sign_in: str | None = None
        self._book = book
        self._forget_process()
        _children.add(self)

    def _forget_process(self) -> None:
        """Begin anew, as after a fork: threads, tasks, locks, connections and what was counted are the parent's."""
        self.usage = RequestUsage()
        self.sessions.begun = Count()
        self._written = self._new_written()
        self.cache = TenantCache()
        self.started = False
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        self.databases.abandon()
        self._follower = self._new_follower()

    def _new_written(self) -> Written | None:
        if self._book is None:
            return None
        return Written(self._book, requests=self.usage.number, sessions=self.sessions.begun.number)

    def _new_follower(self) -> Follower:
        return Follower(self.source, self.resolver, self.settings.snapshot, self._changed)

    def install(self) -> Runtime:
        """Make this the runtime that the functions of `tenantry` work on in this process."""
        global _installed
        _installed = self
        return self

    # --- start and stop -------------------------------------------------------------------------------------------

    async def start(self, *, prove: bool = True) -> None:
        """Load all tenants and follow their changes in this event loop; returns when they are there.

        Raises `RegistryUnavailable` where neither the control database nor a snapshot can be read, and
        `SharedTablesWeak` where tables that tenants share do not keep them apart: without `prove`, sessions there do.
        """
        if self.started:
            return
        if self._task is None:
            self._follower = self._new_follower()
            self._task = asyncio.create_task(self._follower.run(), name="tenantry-follower")
        follower = self._follower
        await follower.ready.wait()
        if follower.failed:
            self._task = None
            raise RegistryUnavailable(reason=str(follower.failed)) from follower.failed
        if prove and self.settings.shared:
            await self.databases.prove(one for some in self.resolver.table.tenants.values() for one in some)
        if self._written is not None:
            self._written.begin()
        self.started = True

    async def stop(self) -> None:
        """Stop following and close all databases of this process."""
        if self._loop is not None and self._loop is not asyncio.get_running_loop():  # a thread follows
            await asyncio.to_thread(self.stop_thread)
            return
        if self._written is not None:
            await self._written.close(in_reach=self._follower.status == "ok")
        task, self._task, self.started = self._task, None, False
        if task:
            async with self._follower.applying:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.entrance.close()
        await self.databases.close()

    def start_thread(self) -> None:
        """Follow the changes in a thread with an event loop of its own; returns when all tenants are loaded."""
        with self._starting:
            if self.started:
                return
            loop = self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="tenantry-follower", daemon=True)
            self._thread.start()
            try:
                asyncio.run_coroutine_threadsafe(self.start(), loop).result()
            except BaseException:
                asyncio.run_coroutine_threadsafe(self.stop(), loop).result()
                self._end_thread()
                raise

    def stop_thread(self) -> None:
        """Stop the thread and close all databases of this process."""
        with self._starting:
            if self._loop:
                asyncio.run_coroutine_threadsafe(self.stop(), self._loop).result()
                self._end_thread()

    def _end_thread(self) -> None:
        if self._loop and self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        self._loop = self._thread = None

    def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of asynchronous work, such as `accounts.authenticate(…)`, for code without an event loop.

        It runs in the thread of `start_thread`, for the tenant that is the current one here.
        """
        self.start_thread()
        if self._loop is None:
            work.close()
            raise RuntimeMissing("This runtime follows in an event loop.", remedy="Use `await` there.")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def page(self, path: str) -> Handler | None:
        """What answers a path within a tenant, where it is one of the middleware's own."""
        return self.pages.get(path[len(OWN) :].partition("/")[0]) if path.startswith(OWN) else None

    @property
    def sign_in(self) -> str | None:
        """The path, within a tenant, at which people sign in; None where there is no such page.

        An application that has a page of its own says so: `runtime.sign_in = "/sign-in"`.
        """
        return self._sign_in or (SIGN_IN if self.page(SIGN_IN) else None)

    @sign_in.setter
    def sign_in(self, path: str) -> None:
        self._sign_in = path

    async def enter(self, user: User, via: str = "password") -> str:
        """Sign a user in by the answer to this request; gives the Set-Cookie header for it.

        The session that came along ends. Raises `SignInRefused` for a user who has been disabled since it was read, and
        `RuntimeMissing` outside a request.
        """
        asked = self._asked()
        before = asked.cookies.get(self.sessions.name(asked.root))
        client = Client(asked.address, asked.headers.get("user-agent", ""), before)
        return self.sessions.set_cookie(await self.accounts.begin(user, client, via), asked.root)

    async def leave(self) -> str:
        """End the session of this request, if it has one; gives the Set-Cookie header that removes the cookie."""
        asked = self._asked()
        with contextlib.suppress(ForeignSession, InvalidToken):
            if session := self.sessions.find(asked.cookies, asked.root):
                await self.accounts.sign_out(session)
        return self.sessions.end_cookie(asked.root)

    def _asked(self) -> Asked:
        visit = current_visit()
        if visit is None:
            raise RuntimeMissing("No request is answered here.", remedy="Call it in a handler behind the middleware.")
        return visit.asked

    def health(self) -> dict[str, Any]:
        """Whether tenants are known, and how current that is; see `Follower.health`."""
        return self._follower.health()

    def metrics(self) -> str:
        """What Prometheus may know of the servers, their connections and the busiest tenants, in its text format."""
        from tenantry.runtime.metrics import exposition

        return exposition(self.collector())

    def collector(self) -> Collector:
        """The same for a registry of your own: `prometheus_client.REGISTRY.register(runtime.collector())`."""
        from tenantry.runtime.metrics import PoolMetrics

        return PoolMetrics(self.databases.pools)

    async def _changed(self, tenants: Collection[str] | None) -> None:
        """Let go of what was opened, kept or filled for tenants that changed."""
        self.cache.forget(tenants)
        self._keys.forget(tenants)
        self._values.forget(tenants)
        await self.databases.forget(tenants)

    # --- gates ----------------------------------------------------------------------------------------------------

    def refuse(self, tenant: str, error: TenantryError) -> None:
        """Answer every request of a tenant id with this error from now on, for instance where a quota is used up."""
        self.resolver.refused[tenant] = error

    def admit(self, tenant: str) -> None:
        """End a refusal."""
        self.resolver.refused.pop(tenant, None)

    # --- what belongs to the current tenant -----------------------------------------------------------------------

    def environment(self, slug: str, name: str | None = None) -> Environment:
        """The environment of a slug, for work outside requests: `with tenant_context(runtime.environment("acme")):`."""
        found = self.resolver.table.slugs.get(slug)
        if found and name is None:
            return self.resolver.table.by_tenant(found[0].tenant.id) or found[0]
        for environment in found or ():
            if environment.name == name:
                return environment
        raise TenantNotFound(slug=slug if found is None else f"{slug}/{name}")

    def environments(self) -> list[Environment]:
        """Of each tenant that is served now the environment that `environment(slug)` gives, by the tenant's name."""
        found = (default(some) for some in list(self.resolver.table.tenants.values()))
        return sorted((one for one in found if one.tenant.status.served), key=lambda one: one.tenant.name.casefold())

    def session(self, resource: str | None = None) -> TenantSession:
        """A session on the current tenant's database, for `async with` or `with`."""
        frame = sys._getframe(1)
        return TenantSession(self.databases, resource, (frame.f_code.co_filename, frame.f_lineno))

    @contextmanager
    def connection(self, resource: str | None = None) -> Iterator[Connection]:
        """A SQLAlchemy connection to the current tenant's database, for code without an event loop."""
        frame = sys._getframe(2)  # past contextlib's own
        origin = frame.f_code.co_filename, frame.f_lineno
        with self.databases.connection_sync(resource, origin) as connection:
            yield connection

    def place(self, resource: str | None = None) -> tuple[Environment, Place]:
        """The current tenant as it is now, and where its database lies; raises as opening a session does."""
        return self.databases.place(resource)

    def storage(self, resource: str = "media") -> Storage:
        """The files of the current tenant."""
        environment = current_environment()
        return open_storage(self.settings.data, self.resolver.table.current(environment) or environment, resource)

    def secret(self, purpose: str) -> bytes:
        """A key of the current tenant's own, 32 bytes, for a purpose of the application's; the same at every start."""
        return derive_key(self._keys.get(current_environment()), f"application/{purpose}")

    def values(self) -> Mapping[str, Any]:
        """The current tenant's values: its own settings where it has them, the blueprint's defaults elsewhere."""
        return self._values.get(current_environment())

    def _resolve_values(self, environment: Environment) -> Mapping[str, Any]:
        tenant = environment.tenant
        declared = self.settings.values.get(tenant.blueprint, {})
        facts = facts_of(tenant, environment.name, self.settings.domain)
        return MappingProxyType(resolve_values(declared, tenant.settings, facts))


class TenantSession:
    """Opens when it is entered: `async with` gives a SQLAlchemy AsyncSession, `with` a Session.

    What is not committed when the block ends is rolled back.
    """

    __slots__ = ("_async", "_databases", "_origin", "_resource", "_sync")

    def __init__(self, databases: Databases, resource: str | None, origin: Origin) -> None:
        self._databases = databases
        self._resource = resource
        self._origin = origin
        self._async: AbstractAsyncContextManager[AsyncSession] | None = None
        self._sync: AbstractContextManager[Session] | None = None

    async def __aenter__(self) -> AsyncSession:
        self._async = self._databases.session(self._resource, self._origin)
        return await self._async.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._async
        await self._async.__aexit__(kind, error, trace)

    def __enter__(self) -> Session:
        self._sync = self._databases.session_sync(self._resource, self._origin)
        return self._sync.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sync
        self._sync.__exit__(kind, error, trace)


class _Remembered(Generic[Result]):
    """Something made from an environment, kept until its tenant changes; bounded."""

    def __init__(self, make: Callable[[Environment], Result]) -> None:
        self._make = make
        self._kept: OrderedDict[str, tuple[Environment, Result]] = OrderedDict()

    def get(self, environment: Environment) -> Result:
        """What was made from this very environment, else made now."""
        kept = self._kept.get(environment.id)
        if kept is not None and kept[0] is environment:
            return kept[1]
        made = self._make(environment)
        self._kept[environment.id] = (environment, made)
        while len(self._kept) > REMEMBERED:
            with contextlib.suppress(KeyError):  # another thread was quicker
                self._kept.popitem(last=False)
        return made

    def forget(self, tenants: Collection[str] | None) -> None:
        """Let go of these tenants' (of all where None)."""
        for identity, (environment, _) in list(self._kept.items()):
            if tenants is None or environment.tenant.id in tenants:
                self._kept.pop(identity, None)


# --- forks --------------------------------------------------------------------------------------------------------

_children: Final[weakref.WeakSet[Runtime]] = weakref.WeakSet()


def _after_fork() -> None:
    for runtime in list(_children):
        runtime._forget_process()


os.register_at_fork(after_in_child=_after_fork)


# --- what applications call ---------------------------------------------------------------------------------------


def connected() -> Runtime:
    """The runtime installed in this process. Raises `RuntimeMissing`."""
    if _installed is None:
        raise RuntimeMissing
    return _installed


def tenant_session(resource: str | None = None) -> TenantSession:
    """A session on the current tenant's own database: `async with` gives an AsyncSession, `with` a Session.

    Entering raises `NoTenant`, `TenantNotServed`, `SchemaBehind`, `DatabasesBusy`, `ServerBusy` or `ServerUnavailable`.
    """
    runtime, frame = connected(), sys._getframe(1)
    return TenantSession(runtime.databases, resource, (frame.f_code.co_filename, frame.f_lineno))


def table_prefix(resource: str | None = None) -> str:
    """How the current tenant's tables begin; empty where it has a database of its own. Raises as `tenant_session` does.

    Statements and models in its sessions write it as `{prefix}`; this is for what goes past SQLAlchemy.
    """
    return connected().databases.prefix(resource)


def tenant_storage(resource: str = "media") -> Storage:
    """The files of the current tenant. Raises `NoTenant`."""
    return connected().storage(resource)


def tenant_cache() -> TenantCache:
    """The cache of the current tenant, in the memory of this process. Its every use raises `NoTenant` without one."""
    current_environment()
    return connected().cache


def tenant_values() -> Mapping[str, Any]:
    """The values of the current tenant, as the blueprint declares and the operator set them. Raises `NoTenant`."""
    return connected().values()
