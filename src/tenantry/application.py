"""Joins an application's runtime with the platform it belongs to.

runtime = tenantry.connect("tenantry.toml")
app.add_middleware(tenantry.TenantMiddleware, runtime=runtime)
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from tenantry.config import FILE, Config, secret_keys
from tenantry.embedded import Hold
from tenantry.errors import ConfigError, EmbeddedFailed, RegistryBehind, RegistryUnavailable, TenantryError
from tenantry.identity.principal import digest
from tenantry.model import Changes, Environment, Loaded, SupportAccess
from tenantry.operations import placement
from tenantry.operations.blueprints import Blueprints, read_config
from tenantry.refusals import SupportLinkInvalid
from tenantry.registry import Feed, Registry, Transaction, Vault, statistics, support
from tenantry.registry.database import Database
from tenantry.resources import Resource
from tenantry.runtime import Runtime, Settings
from tenantry.runtime.resolver import Request, Resolver
from tenantry.runtime.settings import Jwt, PoolLimits, SharedTables

SNAPSHOT: Final = "snapshot.json"
JWKS_BYTES: Final = 1_000_000
JWKS_SECONDS: Final = 10

SETUP_SECONDS: Final = 5.0
"""How long a control database without its tables is waited for, looked at every `SETUP_STEP` seconds."""

SETUP_STEP: Final = 0.1


class Elsewhere(Protocol):
    """Where platforms are while tests run: away from the real data and the real control database."""

    def adapt(self, config: Config) -> Config:
        """The configuration to use in place of the one that was read."""
        ...

    def connected(self, runtime: Runtime) -> None:
        """Told each runtime that was made."""
        ...


_elsewhere: Elsewhere | None = None


def stand_in(elsewhere: Elsewhere | None) -> None:
    """Let every `connect` of this process lead elsewhere; None ends it. For `tenantry.testing`."""
    global _elsewhere
    _elsewhere = elsewhere


def connect(config: Config | Path | str | None = None) -> Runtime:
    """The runtime of this process, for the platform that tenantry.toml describes.

    Without an argument the file is the one named by TENANTRY_CONFIG, or tenantry.toml in the current directory. Nothing
    is opened yet: the runtime loads the tenants when it is started. Raises `ConfigError` or `SecretKeyError`.
    """
    if not isinstance(config, Config):
        config = read_config(Path(config or os.environ.get("TENANTRY_CONFIG", FILE)))
    if _elsewhere is not None:
        config = _elsewhere.adapt(config)
    runtime = runtime_of(config, Vault(*secret_keys(config.root)), settings(config), counted=True).install()
    if _elsewhere is not None:
        _elsewhere.connected(runtime)
    return runtime


def runtime_of(config: Config, vault: Vault, known: Settings, *, counted: bool = False) -> Runtime:
    """A runtime of a platform that is not the one of this process; statistics tell of its requests where `counted`."""
    source = RegistrySource(config.control_url, vault, config.data if config.wants_embedded else None)
    opens = partial(open_key, vault), partial(placement.unseal, vault)
    return Runtime(known, source, *opens, Reception(source), partial(write_down, source) if counted else None)


async def write_down(source: RegistrySource, numbers: Mapping[str, int]) -> None:
    """Add what tenants were asked for to the platform's statistics of today."""
    async with source.write("runtime") as tx:
        for name, number in numbers.items():
            await statistics.add_to_days(tx, statistics.SERVED + name, {f"{datetime.now(UTC):%Y-%m-%d}": number})


def open_key(vault: Vault, environment: Environment) -> bytes:
    """The data key of an environment's tenant."""
    return vault.open_data_key(environment.tenant.id, environment.sealed_key)


def settings(config: Config) -> Settings:
    """What the runtime must know of a configuration. The schema files are read now: they are this code's own."""
    blueprints = Blueprints(config)
    parts = {(name, part.name): part for name, parts in blueprints.resources.items() for part in parts}
    with_schema = {key: part for key, part in parts.items() if part.has_schema}
    single = config.platform.mode == "single-tenant"
    return Settings(
        domain=config.platform.domain,
        data=config.data,
        by=config.routing.by,
        path=config.routing.path,
        health=config.routing.health,
        single=config.platform.tenant if single else None,
        values={
            name: {key: value.default for key, value in blueprint.values.items() if not value.secret}
            for name, blueprint in config.blueprints.items()
        },
        needs={key: part.needs for key, part in with_schema.items()},
        versions={key: part.versions() for key, part in with_schema.items()},
        users={name: blueprints.users_of(blueprint) for name, blueprint in config.blueprints.items()},
        open_databases=config.runtime.open_databases,
        pools={key: found for key, part in parts.items() if (found := _pool(part.options)) is not None},
        shared={key: tables for key, part in parts.items() if (tables := _shared(part)) is not None},
        leak_after=config.runtime.leak_after,
        session_seconds=int(config.runtime.session),
        secure_cookies=config.runtime.secure_cookies,
        trusted_proxies=config.serve.trusted_proxies,
        jwt=_jwt(config) if "jwt" in config.routing.by else None,
        snapshot=config.data / SNAPSHOT,
    )


def _pool(options: Any) -> PoolLimits | None:
    """The limits of a resource whose kind takes `pool = {size, overflow, idle}`."""
    found = getattr(options, "pool", None)
    if found is None:
        return None
    return PoolLimits(found.size, found.overflow, found.idle)


def _shared(part: Resource) -> SharedTables | None:
    """What the runtime must know of a resource whose tables tenants share under row-level security."""
    if part.kind != "rows":
        return None
    faults: Callable[[Any, str], Sequence[str]] = part.faults_of  # type: ignore[attr-defined]
    return SharedTables(faults, part.options.pooler)


def _jwt(config: Config) -> Jwt:
    jwt = config.routing.jwt
    return Jwt(keys=_key_set(config, jwt.jwks), claim=jwt.claim, issuer=jwt.issuer, audience=jwt.audience)


def _key_set(config: Config, where: str) -> dict[str, Any]:
    """A JSON Web Key Set (RFC 7517) from a file or an https address; "self" is jwks.json in the data directory."""
    path = config.data / "jwks.json" if where == "self" else config.root / where
    try:
        if where.startswith("https://"):
            with urlopen(where, timeout=JWKS_SECONDS) as answer:  # noqa: S310 - only https comes here
                raw = answer.read(JWKS_BYTES)
        else:
            raw = path.read_bytes()
        found: dict[str, Any] = json.loads(raw)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"routing.jwt.jwks: the keys at '{where}' cannot be read ({error}).",
            remedy="Name a file or an https address that holds a JSON Web Key Set.",
        ) from error
    return found


class RegistrySource:
    """The runtime's source of tenants: the control database, opened when it is asked, and again after it was gone."""

    def __init__(self, url: str, vault: Vault, embedded: Path | None = None) -> None:
        self._url = url
        self._vault = vault
        self._embedded = embedded  # the data directory of a platform that uses the embedded PostgreSQL
        self._hold: Hold | None = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A transaction that reads. Raises `RegistryUnavailable`."""
        database = await self._open()
        try:
            async with database.read() as tx:
                yield tx
        finally:
            await database.close()

    @asynccontextmanager
    async def write(self, actor: str) -> AsyncIterator[Transaction]:
        """A transaction that writes something down. Raises `RegistryUnavailable`."""
        database = await self._open()
        try:
            async with database.write(actor) as tx:
                yield tx
        finally:
            await database.close()

    async def load(self) -> Loaded:
        """All tenants. Raises `RegistryUnavailable`."""
        database = await self._open()
        until = time.monotonic() + SETUP_SECONDS
        try:
            while True:
                try:
                    return await Feed(database).load()
                except RegistryBehind as error:  # one without tables: the first command may be making them just now
                    if error.details["revision"] != "none" or time.monotonic() > until:
                        raise
                await asyncio.sleep(SETUP_STEP)
        finally:
            await database.close()

    async def follow(self, since: int) -> AsyncIterator[Changes]:
        """Changes after `since`. Raises `RegistryUnavailable` when the control database goes."""
        database = await self._open()
        try:
            async with aclosing(Feed(database).follow(since)) as changes:
                async for change in changes:
                    yield change
        except (asyncio.CancelledError, GeneratorExit):  # the runtime stops; a lost connection is made again
            self._let_go()
            raise
        finally:
            await database.close()

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    async def _open(self) -> Database:
        if self._embedded is not None and self._hold is None:
            try:
                self._hold = await asyncio.to_thread(Hold, self._embedded)
            except EmbeddedFailed as error:
                raise RegistryUnavailable(reason=error.message, remedy=error.hint) from error
        database = Database(self._url, self._vault, create=False)
        if database.is_sqlite and not Path(str(database.url.database)).exists():
            raise RegistryUnavailable(reason=f"'{database.url.database}' is not there")
        return database


class Reception:
    """Writes down what becomes of support access where tenants are served."""

    def __init__(self, source: RegistrySource) -> None:
        self._source = source

    async def take(self, environment: Environment, link: str) -> SupportAccess:
        """Use a link up. Raises `SupportLinkInvalid`."""
        async with self._source.write("support") as tx:
            access = await support.take(tx, environment.tenant.id, digest(link))
            if access is None:
                raise SupportLinkInvalid
            tx.actor = f"support:{access.who}"
            tenant = environment.tenant
            tx.audit("support.use", tenant.slug, id=tenant.id, access=access.id, who=access.who)
            return access

    async def end(self, environment: Environment, access: str, by: str) -> None:
        """End an access into this tenant."""
        async with self._source.write(by) as tx:
            await support.end_one(tx, environment.tenant.id, access, by)

    async def history(self, environment: Environment, limit: int) -> list[SupportAccess]:
        """The accesses into this tenant that were used."""
        async with self._source.read() as tx:
            return await support.history(tx, environment.tenant.id, limit)

    async def consent(self, environment: Environment) -> datetime | None:
        """Until when this tenant's people let support in."""
        async with self._source.read() as tx:
            return await support.consent(tx, environment.tenant.id)

    async def let_in(self, environment: Environment, until: datetime | None, by: str) -> None:
        """Let support in until then, or no more."""
        tenant = environment.tenant
        async with self._source.write(by) as tx:
            await support.put_consent(tx, tenant.id, until)
            tx.audit("support.consent", tenant.slug, id=tenant.id, until=until)
            if until is None:
                await support.end_of_tenant(tx, tenant.id, by)


async def why(config: Config, registry: Registry, url: str) -> list[str]:
    """Where an address leads, told in lines: the tenant, the rule, and what would refuse it."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    known = settings(config)
    resolver = Resolver(known)
    resolver.table = resolver.build(await registry.feed.load())
    asked = Request(hosts=(parts.netloc.encode(),), path=unquote(parts.path) or "/")
    lines = [f"host {parts.netloc or '(none)'}, path {asked.path}; rules in order: {', then '.join(known.by)}"]
    try:
        found = resolver.resolve(asked)
    except TenantryError as error:
        return [*lines, f"refused with {error.status}: {error.message}", error.hint]
    environment = found.environment
    if environment is None:
        return [*lines, "this is the platform's own address: no tenant is named"]
    tenant = environment.tenant
    rule = f"by its {found.rule}" if found.rule else "because this is a single-tenant installation"
    lines.append(f"tenant {tenant.slug} ({tenant.name}), environment {environment.name}, {rule}")
    if moved := found.redirect_host or found.redirect_path:
        lines.append(f"redirected to {moved}")
    return [*lines, f"{tenant.status.value}: served"]
