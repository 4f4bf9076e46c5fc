"""Placement: which server a new tenant's parts go to, under which name, and by which login."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tenantry import embedded
from tenantry.config import Config
from tenantry.config.models import ServerSpec
from tenantry.errors import NameTaken, NoServer, ServerUnfit, TenantryError
from tenantry.model import (
    Environment,
    Login,
    Place,
    Server,
    ServerState,
    expand,
    facts_of,
    login_field,
    shared_login_field,
)
from tenantry.registry import Registry, Transaction, Vault, servers, tenants
from tenantry.resources import Resource

if TYPE_CHECKING:
    from tenantry.operations.toolbox import Toolbox

BACKENDS: Final = {"postgres": {"postgresql", "postgres"}, "mysql": {"mysql", "mariadb"}}
PORTS: Final = {"postgres": 5432, "mysql": 3306}
_LOGIN: Final = frozenset({"user", "username", "password", "passwd", "passfile", "sslpassword"})
"""What a URL's query may say of a login, too."""

_URL: Final = 'Write it like "postgresql://admin:password@db.example.com:5432/postgres?sslmode=verify-full".'

_OTHER: Final = "Leave --server away, or name one of the kind that its resources lie on: `tenantry server list`."

LAST: Final = "placed:"
"""The registry keeps the server a kind's newest resource went to under this."""


def declared(config: Config) -> list[Server]:
    """The servers that tenantry.toml declares, with their administrators' logins."""
    return [
        described(name, spec.kind, _url_of(config, spec), spec.capacity, spec.connections, spec.labels)
        for name, spec in config.servers.items()
    ]


def _url_of(config: Config, spec: ServerSpec) -> str:
    """The administrator's URL of a declared server, which has one or is the embedded PostgreSQL."""
    return spec.url.get_secret_value() if spec.url is not None else embedded.admin_url(config.data)


def described(
    name: str, kind: str, url: str, capacity: int | None, connections: int, labels: Sequence[str] = ()
) -> Server:
    """A server as its administrator's URL leads to it. Raises `ServerUnfit` for what is no such URL."""
    try:
        parsed = make_url(url)
        host, port = parsed.host, parsed.port
    except (ArgumentError, ValueError) as error:
        raise ServerUnfit(server=name, reason="its address is no URL", remedy=_URL) from error
    if parsed.get_backend_name() not in BACKENDS[kind] or not host:
        raise ServerUnfit(server=name, reason=f"its address is no {kind} URL with a host", remedy=_URL)
    query = {key: value for key, value in parsed.query.items() if key.lower() not in _LOGIN}
    plain = URL.create(parsed.drivername, host=host, port=port or PORTS[kind], database=parsed.database, query=query)
    return Server(
        name=name,
        kind=kind,
        address=plain.render_as_string(hide_password=False),
        admin=url,
        capacity=capacity,
        connections=connections,
        labels=frozenset(labels),
    )


async def declare(registry: Registry, config: Config) -> None:
    """Enter the servers of tenantry.toml into the registry, or what is new of them; their state stays."""
    wanted = declared(config)
    async with registry.read() as tx:
        known = await servers.known(tx)
        changed = [one for one in wanted if one.name in known and _passwords(registry.vault, one, known[one.name])]
        if not changed and not await _news(tx, wanted):
            return
    async with registry.write() as tx:
        known = await servers.known(tx)
        for server in changed:
            await follow_password(tx, registry.vault, server, known[server.name])
        for server in await _news(tx, wanted):
            await servers.put(tx, server)
            tx.audit("server.declare", server.name, kind=server.kind, address=server.address, capacity=server.capacity)


async def follow_password(tx: Transaction, vault: Vault, server: Server, before: Server) -> None:
    """Keep the new password of a server's own login, where tenants share a database by it."""
    for database, sealed in _passwords(vault, server, before).items():
        await servers.put_shared(tx, server.name, database, sealed)


def _passwords(vault: Vault, server: Server, before: Server) -> dict[str, bytes]:
    """By database: the login anew, sealed, where it is the server's own and its password is another one now."""
    url, found = make_url(server.admin), dict[str, bytes]()
    for database, sealed in before.shared.items():
        field = shared_login_field(server.name, database)
        login = _login(vault.open_platform(field, sealed))
        if login.user == url.username and login.password != url.password:
            found[database] = vault.seal_platform(field, json.dumps([url.username, url.password]))
    return found


async def _news(tx: Transaction, wanted: Sequence[Server]) -> list[Server]:
    """The declared servers that the registry does not have, or not so, as it is to have them."""
    known, commanded = await servers.known(tx), await servers.added(tx)
    found = []
    for server in wanted:
        there = known.get(server.name)
        server = dataclasses.replace(server, admin="", state=there.state if there else server.state)
        server = dataclasses.replace(server, shared=there.shared if there else server.shared)
        if there != server or server.name in commanded:
            found.append(server)
    return found


@dataclass(frozen=True, slots=True)
class Choice:
    """What whoever makes a tenant says about where it goes."""

    server: str | None = None  # this one, for each part that can lie on it
    avoid: frozenset[str] = frozenset()  # not these, where there is another one
    given: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """(environment, resource) → (server, database): what is there already and is adopted."""


ANY: Final = Choice()


async def place(
    tx: Transaction,
    tools: Toolbox,
    environments: Sequence[Environment],
    keys: Mapping[str, bytes],
    choice: Choice = ANY,
) -> list[Environment]:
    """The environments, each part that lies on a server with its server, name and sealed login.

    `keys` holds the tenants' sealed data keys. Raises `NoServer`, or `ServerUnknown` for a choice.
    """
    placed, errors = await place_each(tx, tools, environments, keys, choice)
    for error in errors.values():
        raise error
    return placed


async def place_each(
    tx: Transaction,
    tools: Toolbox,
    environments: Sequence[Environment],
    keys: Mapping[str, bytes],
    choice: Choice = ANY,
    *,
    keep: bool = True,
) -> tuple[list[Environment], dict[str, TenantryError]]:
    """Like `place`, and by id the error of each tenant that finds no place; the others are placed.

    Without `keep` only to see: the transaction may be one that reads.
    """
    wanted = {e.tenant.blueprint for e in environments}
    kinds = {part.server_kind for blueprint in wanted for part in tools.resources[blueprint]} - {None}
    if not kinds and choice.server is None:
        return list(environments), {}
    await tools.learn_servers(tx)
    if choice.server is not None and tools.servers.get(choice.server).kind not in kinds:
        raise NoServer(f"Nothing of this blueprint can lie on the server '{choice.server}'.", remedy=_OTHER)
    chooser = _Chooser(tools, await servers.load(tx), choice, await _used(tx, tools, environments))
    placed: list[Environment] = []
    errors: dict[str, TenantryError] = {}
    for tenant_id, some in _by_tenant(environments).items():
        try:
            placed += await chooser.place(tx, some, keys[tenant_id])
        except NoServer as error:
            errors[tenant_id] = error
    if keep:
        await chooser.remember(tx)
        await _share(tx, tools, placed)
    return placed, errors


async def _share(tx: Transaction, tools: Toolbox, environments: Sequence[Environment]) -> None:
    """Decide and keep the login of each shared database that has none yet."""
    known = await servers.known(tx)
    decided: set[tuple[str, str]] = set()
    for environment in environments:
        for resource in tools.resources[environment.tenant.blueprint]:
            place = environment.place(resource.name)
            if not resource.shared or place is None or place.server is None:
                continue
            where = place.server, place.database
            if place.database not in known[place.server].shared and where not in decided:
                decided.add(where)
                login = resource.new_login(environment)
                sealed = tools.registry.vault.seal_platform(
                    shared_login_field(*where), json.dumps([login.user, login.password])
                )
                await servers.put_shared(tx, *where, sealed)


async def _used(tx: Transaction, tools: Toolbox, environments: Sequence[Environment]) -> set[tuple[str, str]]:
    """Which of the names that these environments want first, by kind, somebody has."""
    wanted: dict[str, list[str]] = {}
    for environment in environments:
        for resource in tools.resources[environment.tenant.blueprint]:
            if resource.server_kind is not None:
                wanted.setdefault(resource.kind, []).append(resource.names(environment)[0])
    return {(kind, name) for kind, names in wanted.items() for name in await servers.used_names(tx, kind, names)}


def _by_tenant(environments: Sequence[Environment]) -> dict[str, list[Environment]]:
    found: dict[str, list[Environment]] = {}
    for environment in environments:
        found.setdefault(environment.tenant.id, []).append(environment)
    return found


class _Chooser:
    """Places one tenant after the other, with what it placed before in mind."""

    def __init__(self, tools: Toolbox, load: dict[str, int], choice: Choice, names: set[tuple[str, str]]) -> None:
        self._tools = tools
        self._load = load
        self._names = names
        self._choice = choice
        self._only = tools.servers.get(choice.server) if choice.server else None
        self._last: dict[str, str] = {}

    async def place(self, tx: Transaction, environments: Sequence[Environment], sealed_key: bytes) -> list[Environment]:
        """A tenant's environments, all of them or none: where one finds no room, the others leave theirs free."""
        before = dict(self._load), dict(self._last), set(self._names)
        try:
            return [await self._place(tx, environment, sealed_key) for environment in environments]
        except NoServer:
            self._load, self._last, self._names = before
            raise

    async def _place(self, tx: Transaction, environment: Environment, sealed_key: bytes) -> Environment:
        places = list(environment.places)
        for resource in self._tools.resources[environment.tenant.blueprint]:
            if resource.server_kind is None:
                continue
            index = next(number for number, one in enumerate(places) if one.name == resource.name)
            server, database = await self._where(tx, resource, environment)
            bare = dataclasses.replace(places[index], server=server, location=database)
            there = dataclasses.replace(environment, places=(*places[:index], bare, *places[index + 1 :]))
            places[index] = bare if resource.shared else self._with_login(resource, there, bare, sealed_key)
        return dataclasses.replace(environment, places=tuple(places))

    def _with_login(self, resource: Resource, environment: Environment, bare: Place, sealed_key: bytes) -> Place:
        login = resource.new_login(environment, apart=(environment.name, resource.name) in self._choice.given)
        return dataclasses.replace(
            bare, sealed=seal(self._tools.registry.vault, environment, sealed_key, resource.name, login)
        )

    async def _where(self, tx: Transaction, resource: Resource, environment: Environment) -> tuple[str, str]:
        """Server and database of a resource."""
        given = self._choice.given.get((environment.name, resource.name))
        if given is None:
            server = await self._choose(tx, resource, environment)
            return server.name, self._name(resource, environment)
        server = self._tools.servers.get(given[0])
        if server.kind != resource.server_kind:
            raise NoServer(kind=resource.kind, resource=resource.name, reason=f"'{server.name}' is a {server.kind}")
        if await servers.has_name(tx, server.name, given[1]):
            raise NameTaken(kind=resource.kind, name=given[1], server=server.name)
        return given

    async def _choose(self, tx: Transaction, resource: Resource, environment: Environment) -> Server:
        candidates = self._candidates(resource, environment)
        if self._tools.config.placement.policy == "round-robin":
            chosen = await self._next(tx, resource.server_kind or "", candidates)
        else:
            chosen = max(candidates, key=self._room)
        self._load[chosen.name] = self._load.get(chosen.name, 0) + 1
        return chosen

    def _candidates(self, resource: Resource, environment: Environment) -> list[Server]:
        """The open servers of the right kind, name and label that have room; silent ones only if all of them are."""
        spec = self._tools.blueprint(environment.tenant.blueprint).resources[resource.name]
        kind = str(resource.server_kind)
        wanted, label = spec.server, self._label(spec.label, environment)
        if self._only is not None and self._only.kind == kind:
            wanted, label = self._only.name, None  # whoever names a server knows better than the blueprint
        found = self._tools.servers.of(kind)
        reason = f"no server of kind {kind} is known"
        tests: tuple[tuple[Callable[[Server], bool], str], ...] = (
            (lambda one: wanted in (None, one.name), f"there is no {kind} server '{wanted}'"),
            (lambda one: label is None or label in one.labels, f"none has the label '{label}'"),
            (lambda one: one.state is ServerState.OPEN, f"'{wanted}' is not open" if wanted else "none is open"),
            (lambda one: self._room(one)[0] > 0, f"'{wanted}' is full" if wanted else "all that are open are full"),
        )
        for test, otherwise in tests:
            if found:
                found, reason = [one for one in found if test(one)], otherwise
        if not found:
            raise NoServer(kind=resource.kind, resource=resource.name, reason=reason)
        return [one for one in found if not self._shunned(one)] or found

    def _shunned(self, server: Server) -> bool:
        return server.name in self._choice.avoid or self._tools.servers.shunned(server.name)

    def _label(self, pattern: str | None, environment: Environment) -> str | None:
        domain = self._tools.config.platform.domain
        return None if pattern is None else expand(pattern, facts_of(environment.tenant, environment.name, domain))

    def _room(self, server: Server) -> tuple[float, int]:
        """How many resources more it takes, and, among equals, how few it has."""
        load = self._load.get(server.name, 0)
        return (math.inf if server.capacity is None else server.capacity - load), -load

    async def _next(self, tx: Transaction, kind: str, candidates: Sequence[Server]) -> Server:
        last = self._last.get(kind)
        if last is None:
            last = (await tenants.get_meta(tx, LAST + kind) or b"").decode()
        chosen = next((one for one in candidates if one.name > last), candidates[0])
        self._last[kind] = chosen.name
        return chosen

    async def remember(self, tx: Transaction) -> None:
        """Keep the servers that were the last ones in their turn."""
        for kind, name in self._last.items():
            await tenants.put_meta(tx, LAST + kind, name.encode())

    def _name(self, resource: Resource, environment: Environment) -> str:
        first, apart = resource.names(environment)
        if first == apart:  # all share one
            return first
        chosen = apart if (resource.kind, first) in self._names else first
        self._names.add((resource.kind, chosen))
        return chosen


def seal(vault: Vault, environment: Environment, sealed_key: bytes, resource: str, login: Login) -> bytes:
    """A login under the tenant's data key."""
    text = json.dumps([login.user, login.password])
    return vault.seal(environment.tenant.id, sealed_key, login_field(environment, resource), text)


def unseal(vault: Vault, environment: Environment, place: Place, server: Server) -> Login:
    """The login of a place, the tenant's own or that of a database it shares. Raises `SealBroken`."""
    if place.sealed:
        field = login_field(environment, place.name)
        return _login(vault.open(environment.tenant.id, environment.sealed_key, field, place.sealed))
    return unseal_shared(vault, server, place.database)


def unseal_shared(vault: Vault, server: Server, database: str) -> Login:
    """The login of a database that tenants share. Raises `SealBroken`."""
    return _login(vault.open_platform(shared_login_field(server.name, database), server.shared.get(database, b"")))


def _login(text: str) -> Login:
    user, password, *_ = json.loads(text)  # what follows is of a rotation
    return Login(user, password)
