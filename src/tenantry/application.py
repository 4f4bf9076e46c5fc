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
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from tenantry.config import FILE, Config, secret_keys
from tenantry.embedded import Hold
from tenantry.errors import ConfigError, EmbeddedFailed, RegistryBehind, RegistryUnavailable, TenantryError
from tenantry.identity import handover
from tenantry.identity.principal import digest
from tenantry.identity.scim.standing import let_in
from tenantry.identity.sso.tickets import CODE, Ticket
from tenantry.mail import Letter, Post
from tenantry.model import Changes, Environment, Loaded, Person, SignOn, SupportAccess, new_id, normalise_host
from tenantry.operations import change, placement
from tenantry.operations.blueprints import Blueprints, read_config
from tenantry.refusals import SupportLinkInvalid
from tenantry.registry import Feed, Registry, Transaction, Vault, journal, signups, sso, statistics, support, tenants
from tenantry.registry.database import NAME, Database, now, plain
from tenantry.resources import Resource
from tenantry.runtime import Runtime, Settings
from tenantry.runtime.resolver import Request, Resolver
from tenantry.runtime.settings import Brand, Jwt, Note, PoolLimits, SharedTables
from tenantry.runtime.welcome import ENTER, WELCOME, Field, Step, Welcome
from tenantry.sso_refusals import HandoverWrong

SNAPSHOT: Final = "snapshot.json"
JWKS_BYTES: Final = 1_000_000
JWKS_SECONDS: Final = 10

SETUP_SECONDS: Final = 5.0
"""How long a control database without its tables is waited for, looked at every `SETUP_STEP` seconds."""

SETUP_STEP: Final = 0.1


KEPT_SECONDS: Final = 3.0
"""How long the wizard waits for a worker to keep an answer, looked at every `KEPT_STEP` seconds."""

KEPT_STEP: Final = 0.02


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
    runtime = Runtime(
        known,
        source,
        partial(open_key, vault),
        partial(placement.unseal, vault),
        Reception(source),
        Letterbox(config, source),
        SignOnReception(config, vault, source),
        partial(write_down, source) if counted else None,
    )
    welcome = Welcome(runtime.entrance, NewTenants(config, vault, source), _wizard(config))
    runtime.pages |= {ENTER: welcome.enter, WELCOME: welcome.answer}
    return runtime


async def write_down(source: RegistrySource, numbers: Mapping[str, int]) -> None:
    """Add what tenants were asked for to the platform's statistics of today."""
    async with source.write("runtime") as tx:
        for name, number in numbers.items():
            await statistics.add_to_days(tx, statistics.SERVED + name, {f"{datetime.now(UTC):%Y-%m-%d}": number})


def _wizard(config: Config) -> dict[str, list[Step]]:
    """The steps of the wizard, for the blueprint of tenants that sign up."""
    blueprint = config.signup.blueprint or next(iter(config.blueprints))
    return {
        blueprint: [
            Step(step.title, step.text, tuple(Field(**one.model_dump() | {"label": one.shown}) for one in step.fields))
            for step in config.signup.wizard or ()
        ]
    }


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
        events_seconds=int(config.users.events),
        token_seconds=int(config.runtime.token),
        token_audience=(config.routing.jwt.audience or "") if config.routing.jwt.jwks == "self" else "",
        pages=config.users.pages,
        brand=Brand(config.users.color, config.users.logo, config.root),
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
    if jwt.jwks == "self":
        return Jwt({}, own=True)
    return Jwt(keys=_key_set(config, jwt.jwks), claim=jwt.claim, issuer=jwt.issuer, audience=jwt.audience)


def _key_set(config: Config, where: str) -> dict[str, Any]:
    """A JSON Web Key Set (RFC 7517) from a file or an https address."""
    try:
        if where.startswith("https://"):
            with urlopen(where, timeout=JWKS_SECONDS) as answer:  # noqa: S310 - only https comes here
                raw = answer.read(JWKS_BYTES)
        else:
            raw = (config.root / where).read_bytes()
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
    """Writes down what becomes of support access, and of tokens, where tenants are served."""

    def __init__(self, source: RegistrySource) -> None:
        self._source = source

    async def note(self, environment: Environment, action: str, by: str, **details: Any) -> None:
        """Enter in the audit log what somebody did at this tenant."""
        tenant = environment.tenant
        async with self._source.write(by) as tx:
            tx.audit(action, tenant.slug, id=tenant.id, environment=environment.name, **details)

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


class NewTenants:
    """Lets those in who signed up, and keeps what they answer the wizard."""

    def __init__(self, config: Config, vault: Vault, source: RegistrySource) -> None:
        self._vault = vault
        self._blueprints = Blueprints(config)
        self._steps = len(config.signup.wizard or ())
        self._source = source

    async def enter(self, environment: Environment, code: str) -> str:
        """Use a code up. Raises `HandoverInvalid`."""
        tenant = environment.tenant
        async with self._source.write("signup") as tx:
            given = await handover.take(tx, self._vault, code, tenant.id, now())
            tx.actor = plain(f"signup:{given.login}", NAME)
            tx.audit("signup.enter", tenant.slug, id=tenant.id)
        return given.login

    async def standing(self, environment: Environment) -> int | None:
        """The step that comes next."""
        async with self._source.read() as tx:
            step = await signups.welcome(tx, environment.tenant.id)
        return step if step is None or step < self._steps else None

    async def keep(self, environment: Environment, step: int, values: Mapping[str, Any], by: str) -> None:
        """Change the tenant's values as an admin would, and wait a moment until that is done.

        Raises `OperationInProgress` while something else is done to the tenant.
        """
        operation_id, tenant = new_id(), environment.tenant
        async with self._source.write(plain(f"tenant:{by}", NAME)) as tx:
            standing = await signups.welcome(tx, tenant.id)
            found = await tenants.environments(tx, [tenant.id])
            await signups.set_welcome(tx, tenant.id, max(step + 1, standing or 0) if step + 1 < self._steps else None)
            if not values or not found:
                return
            before = dict(found[0].tenant.settings)
            arguments = {"after": {"settings": before | dict(values)}, "before": {"settings": before}}
            steps, whose = change.steps(self._blueprints, found), (tenant.id, tenant.slug)
            await journal.submit(tx, operation_id, "edit", steps, tenant=whose, arguments=arguments)
        until = time.monotonic() + KEPT_SECONDS
        while time.monotonic() < until:
            async with self._source.read() as tx:
                if not (await journal.get(tx, operation_id)).state.live:
                    return
            await asyncio.sleep(KEPT_STEP)


class SignOnReception:
    """Sends people to the platform who sign in by their organization, and takes in those who come back."""

    def __init__(self, config: Config, vault: Vault, source: RegistrySource) -> None:
        self._config = config
        self._url = config.url
        self._vault = vault
        self._source = source

    def start(self, environment: Environment, sign_on: SignOn, host: str, root: str, browser: str, back: str) -> str:
        """The address at the platform. The way back is made of what is known of the tenant, not of the request."""
        way = self._root(environment, host, root)
        ticket = Ticket(environment.tenant.id, environment.id, way, browser, back)
        sealed = ticket.sealed(self._vault, sign_on.organization)
        return f"{self._url}/sso/{sign_on.organization}/start?ticket={sealed}"

    def _root(self, environment: Environment, host: str, root: str) -> str:
        """The name at which the browser is, where it is one of the tenant's; the port is the platform's in any case."""
        if root:
            return self._url + root
        name = normalise_host(host)
        known = name if name in environment.hostnames else next(iter(environment.hostnames), None)
        return self._config.address(environment.tenant.slug, known)

    async def take(self, environment: Environment, code: str, browser: str) -> tuple[Person, str]:
        """Use a code up. Raises `HandoverWrong`."""
        async with self._source.write("sso") as tx:
            sealed = await sso.take_code(tx, digest(code), environment.id, browser)
        if sealed is None:
            raise HandoverWrong
        person, back = json.loads(self._vault.open_platform(CODE + digest(code), sealed))
        return Person(**person), back

    async def began(self, environment: Environment, person: Person, outside: str, seconds: int) -> None:
        """Note a session."""
        tenant = environment.tenant
        row = {"id": outside, "organization_id": person.organization, "subject": person.subject, "sid": person.sid}
        places = {"tenant_id": tenant.id, "environment_id": environment.id, "until": now() + timedelta(seconds=seconds)}
        async with self._source.write(f"sso:{person.mail}") as tx:
            if not await sso.is_way(tx, person.organization, person.way):  # set up anew since she was handed over
                raise HandoverWrong
            await let_in(tx, person.organization, person.issuer, person.subject, person.mail)
            await sso.add_session(tx, row | places)
            tx.audit("sso.sign_in", tenant.slug, id=tenant.id, mail=person.mail, role=person.role)

    def leave(self, sign_on: SignOn) -> str:
        """The address at which somebody signs out of the organization."""
        return f"{self._url}/sso/{sign_on.organization}/sign-out"


class Letterbox:
    """Takes letters to tenants' users."""

    def __init__(self, config: Config, source: RegistrySource) -> None:
        self._config = config
        self._source = source
        self._post = Post(config)

    @property
    def is_set_up(self) -> bool:
        """Whether the configuration names a server."""
        return self._post.is_set_up

    def address(self, environment: Environment) -> str:
        """Where a tenant is reached: its canonical name, else its path at the platform."""
        return self._config.address(environment.tenant.slug, next(iter(environment.hostnames), None))

    async def send(self, environment: Environment, to: str, letter: Note) -> None:
        """Queue a letter in the tenant's look, for workers to send. Raises `MailFailed` or `RegistryUnavailable`."""
        tenant, given = environment.tenant, (letter.subject, letter.paragraphs, letter.link, letter.action)
        async with self._source.write(f"tenant:{letter.by}") as tx:
            await self._post.queue(tx, to, Letter(*given, kind=letter.kind, until=letter.until), tenant.id)
            tx.audit(letter.kind, tenant.slug, id=tenant.id, to=to)


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
