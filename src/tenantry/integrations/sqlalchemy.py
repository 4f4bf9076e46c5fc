"""SQLAlchemy's ORM on the current tenant's database: sessions that belong to one tenant, and no engines beside them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from sqlalchemy import Connection, Engine, event, inspect, make_url
from sqlalchemy.orm import Session, sessionmaker

from tenantry.context import current_environment
from tenantry.errors import ForeignTenant, TenantryError
from tenantry.model import Environment
from tenantry.runtime import Runtime
from tenantry.runtime.files import _Confined
from tenantry.runtime.runtime import connected

__all__ = ["RawEngine", "TenantSession", "refuse_raw_engines", "tenant_sessionmaker"]

T = TypeVar("T")

OWNER: Final = "tenantry.environment"
"""Under this an object keeps whose it is."""


class RawEngine(TenantryError):
    """An engine that is not Tenantry's was to open '{database}', which is a tenant's."""

    code = "engine.raw"
    remedy = "Use `tenant_session()` or a TenantSession; let other databases through by `refuse_raw_engines(allow=…)`."


class TenantSession(Session):
    """An ORM session of the tenant that is the current one as it is made.

    `with TenantSession() as session:`, or as the `class_` of a `sessionmaker`. It opens the tenant's database at its
    first statement, out of the budget of all tenants, and gives the connection back when it is closed. Making it raises
    `NoTenant`; using it under another tenant, or with another one's objects, raises `ForeignTenant`.
    """

    def __init__(self, *arguments: Any, resource: str | None = None, **options: Any) -> None:
        self.environment: Environment = current_environment()
        self._resource = resource
        self._opened: AbstractContextManager[Connection] | None = None
        self._connection: Connection | None = None
        super().__init__(*arguments, **options)

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        """The connection to the tenant's database, for everything this session does."""
        self._check(current_environment())
        if self._connection is None:
            self._opened = connected().connection(self._resource)
            self._connection = self._opened.__enter__()
        return self._connection

    def _check(self, now: Environment) -> None:
        if now.id != self.environment.id:
            raise ForeignTenant(owner=self.environment.tenant.slug, current=now.tenant.slug)

    def merge(self, instance: T, *arguments: Any, **options: Any) -> T:
        """Copy an object's state into this session; one of another tenant is refused."""
        _own(self, instance)
        return super().merge(instance, *arguments, **options)

    def close(self) -> None:
        """Forget every object, and give the connection back."""
        try:
            super().close()
        finally:
            opened, self._opened, self._connection = self._opened, None, None
            if opened is not None:
                opened.__exit__(None, None, None)


@event.listens_for(TenantSession, "before_attach", propagate=True)
@event.listens_for(TenantSession, "loaded_as_persistent", propagate=True)
def _own(session: Session, instance: object) -> None:
    """Let an object belong to the tenant of its first session, and to no other one."""
    assert isinstance(session, TenantSession)
    mine = session.environment
    owner, slug = inspect(instance, raiseerr=True).info.setdefault(OWNER, (mine.id, mine.tenant.slug))
    if owner != mine.id:
        raise ForeignTenant(owner=slug, current=mine.tenant.slug)


def tenant_sessionmaker(resource: str | None = None, **options: Any) -> sessionmaker[TenantSession]:
    """A factory of sessions of the current tenant, with the options of SQLAlchemy's `sessionmaker`."""
    return sessionmaker(class_=TenantSession, resource=resource, **options)


def refuse_raw_engines(runtime: Runtime | None = None, allow: Collection[str] = ()) -> None:
    """From now on, refuse every engine of this process that opens a tenant's database past Tenantry.

    `RawEngine` is raised as such an engine connects. `allow` holds names of databases, or paths of files, that may be
    opened all the same. Databases that are no tenant's are never refused. Raises `RuntimeMissing`.
    """
    known = runtime or connected()

    @event.listens_for(Engine, "do_connect")
    def refuse(dialect: Any, record: object, arguments: Any, options: dict[str, Any]) -> None:
        found = _tenants(known, dialect.name, arguments, options)
        if found is not None and found not in allow:
            raise RawEngine(database=found)


def _tenants(runtime: Runtime, dialect: str, arguments: Any, options: dict[str, Any]) -> str | None:
    """The name of the tenant's database that is about to be opened; None where it is none."""
    if dialect == "sqlite":
        return _tenants_file(runtime, arguments, options)
    name = str(options.get("dbname") or options.get("database") or options.get("db") or "")
    place = (str(options.get("host", "")), int(options.get("port") or 0))
    table = runtime.resolver.table
    servers = {server.name for server in table.servers.values() if _reached(server.address, place)}
    taken = any(
        part.server in servers and part.database == name
        for environment in (table.environments() if servers else ())
        for part in environment.places
    )
    return name if taken else None


def _tenants_file(runtime: Runtime, arguments: Any, options: dict[str, Any]) -> str | None:
    if options.get("factory") is _Confined:  # Tenantry's own
        return None
    name = str(arguments[0] if arguments else options.get("database", ""))
    path = Path(unquote(name.removeprefix("file:").partition("?")[0]) if name.startswith("file:") else name)
    return str(path) if path.resolve().is_relative_to((runtime.settings.data / "tenants").resolve()) else None


def _reached(address: str, place: tuple[str, int]) -> bool:
    url = make_url(address)
    default = 5432 if url.get_backend_name() == "postgresql" else 3306
    same = {str(url.host), place[0]} <= {"localhost", "127.0.0.1", "::1"} or url.host == place[0]
    return same and (url.port or default) == (place[1] or default)
