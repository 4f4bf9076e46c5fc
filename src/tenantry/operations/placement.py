"""Placement: which server a new tenant's parts go to, under which name, and by which login."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from tenantry.config import Config
from tenantry.errors import NoServer, ServerUnfit
from tenantry.model import Environment, Login, Place, Server, ServerState, expand, facts_of, login_field
from tenantry.registry import Registry, Transaction, Vault, servers, tenants
from tenantry.resources import Resource

if TYPE_CHECKING:
    from tenantry.operations.toolbox import Toolbox

BACKENDS: Final = {"postgres": {"postgresql", "postgres"}, "mysql": {"mysql", "mariadb"}}
PORTS: Final = {"postgres": 5432, "mysql": 3306}
_URL: Final = 'Write it like "postgresql://admin:password@db.example.com:5432/postgres?sslmode=verify-full".'

LAST: Final = "placed:"
"""The registry keeps the server a kind's newest resource went to under this."""


def declared(config: Config) -> list[Server]:
    """The servers that tenantry.toml declares, with their administrators' logins."""
    return [
        described(name, spec.kind, spec.url.get_secret_value(), spec.capacity, spec.connections, spec.labels)
        for name, spec in config.servers.items()
    ]


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
    plain = parsed.set(username=None, password=None, port=port or PORTS[kind])
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
        if not await _news(tx, wanted):
            return
    async with registry.write() as tx:
        for server in await _news(tx, wanted):
            await servers.put(tx, server)
            tx.audit("server.declare", server.name, kind=server.kind, address=server.address, capacity=server.capacity)


async def _news(tx: Transaction, wanted: Sequence[Server]) -> list[Server]:
    """The declared servers that the registry does not have, or not so, as it is to have them."""
    known, commanded = await servers.known(tx), await servers.added(tx)
    found = []
    for server in wanted:
        there = known.get(server.name)
        server = dataclasses.replace(server, admin="", state=there.state if there else server.state)
        if there != server or server.name in commanded:
            found.append(server)
    return found


async def place(
    tx: Transaction, tools: Toolbox, environments: Sequence[Environment], keys: Mapping[str, bytes]
) -> list[Environment]:
    """The environments, each part that lies on a server with its server, name and sealed login.

    `keys` holds the tenants' sealed data keys. Raises `NoServer`.
    """
    wanted = {e.tenant.blueprint for e in environments}
    if not any(part.server_kind for blueprint in wanted for part in tools.resources[blueprint]):
        return list(environments)
    await tools.learn_servers(tx)
    chooser = _Chooser(tools, await servers.load(tx))
    placed = [await chooser.place(tx, environment, keys[environment.tenant.id]) for environment in environments]
    await chooser.remember(tx)
    return placed


class _Chooser:
    """Places one environment after the other, with what it placed before in mind."""

    def __init__(self, tools: Toolbox, load: dict[str, int]) -> None:
        self._tools = tools
        self._load = load
        self._last: dict[str, str] = {}
        self._names: set[tuple[str, str]] = set()

    async def place(self, tx: Transaction, environment: Environment, sealed_key: bytes) -> Environment:
        places = list(environment.places)
        for resource in self._tools.resources[environment.tenant.blueprint]:
            if resource.server_kind is None:
                continue
            index = next(number for number, one in enumerate(places) if one.name == resource.name)
            server = await self._choose(tx, resource, environment)
            bare = dataclasses.replace(
                places[index], server=server.name, location=await self._name(tx, resource, environment)
            )
            there = dataclasses.replace(environment, places=(*places[:index], bare, *places[index + 1 :]))
            login = resource.new_login(there)
            sealed = seal(self._tools.registry.vault, environment, sealed_key, resource.name, login)
            places[index] = dataclasses.replace(bare, sealed=sealed)
        return dataclasses.replace(environment, places=tuple(places))

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
        found = self._tools.servers.of(kind)
        reason = f"no server of kind {kind} is known"
        tests: tuple[tuple[Callable[[Server], bool], str], ...] = (
            (lambda one: spec.server in (None, one.name), f"there is no {kind} server '{spec.server}'"),
            (lambda one: self._labelled(one, spec.label, environment), f"none has the label '{spec.label}'"),
            (lambda one: one.state is ServerState.OPEN, "none of them is open"),
            (lambda one: self._room(one)[0] > 0, "all of them are full"),
        )
        for test, otherwise in tests:
            if found:
                found, reason = [one for one in found if test(one)], otherwise
        if not found:
            raise NoServer(kind=resource.kind, resource=resource.name, reason=reason)
        return [one for one in found if not self._tools.servers.shunned(one.name)] or found

    def _labelled(self, server: Server, label: str | None, environment: Environment) -> bool:
        domain = self._tools.config.platform.domain
        facts = facts_of(environment.tenant, environment.name, domain)
        return label is None or expand(label, facts) in server.labels

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

    async def _name(self, tx: Transaction, resource: Resource, environment: Environment) -> str:
        first, apart = resource.names(environment)
        taken = (resource.kind, first) in self._names or await servers.used_names(tx, resource.kind, [first])
        chosen = apart if taken else first
        self._names.add((resource.kind, chosen))
        return chosen


def seal(vault: Vault, environment: Environment, sealed_key: bytes, resource: str, login: Login) -> bytes:
    """A login under the tenant's data key."""
    text = json.dumps([login.user, login.password])
    return vault.seal(environment.tenant.id, sealed_key, login_field(environment, resource), text)


def unseal(vault: Vault, environment: Environment, place: Place) -> Login:
    """The login of a place. Raises `SealBroken`."""
    field = login_field(environment, place.name)
    user, password = json.loads(vault.open(environment.tenant.id, environment.sealed_key, field, place.sealed))
    return Login(user, password)
