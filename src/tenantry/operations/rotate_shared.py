"""Rotate the login of a database that tenants share: two users take turns, as they do where each tenant has its own.

The registry's one sealed entry holds the login that applications enter by and, while it changes, the other one beside
it. So each move is one write, and whoever goes on after a crash reads there how far it came.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace

from tenantry.errors import TenantNotFound, TenantryError
from tenantry.model import Environment, Login, shared_login_field
from tenantry.operations import fleet
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Work
from tenantry.registry import Transaction, journal, servers
from tenantry.resources import Resource


@dataclass(frozen=True, slots=True)
class State:
    """The logins of one shared database."""

    login: Login  # that applications enter by
    other: Login | None = None  # the next one, or the one before
    over: bool = False  # applications have the new one, and the other one is to end

    def text(self) -> str:
        """What is sealed. Its first two fields are the login of now: nobody else reads on."""
        more = [self.other.user, self.other.password, self.over] if self.other else []
        return json.dumps([self.login.user, self.login.password, *more])

    @classmethod
    def read(cls, text: str) -> State:
        """The opposite of `text`."""
        user, password, *more = json.loads(text)
        return cls(Login(user, password), Login(*more[:2]), more[2]) if more else cls(Login(user, password))


@dataclass(frozen=True, slots=True)
class Place:
    """A shared database, and some tenant that has its rows there."""

    server: str
    database: str
    resource: Resource
    environment: Environment
    tenants: frozenset[str]  # ids of all

    def by(self, login: Login) -> Environment:
        """The environment as one that enters by this login."""
        return replace(self.environment, logins={**self.environment.logins, self.resource.name: login})


async def databases(tx: Transaction, tools: Toolbox) -> list[tuple[str, str]]:
    """Server and name of the databases whose shared login can be changed: somebody has rows there."""
    names = {one.shared_database for some in tools.resources.values() for one in some if one.shared} - {""}
    return [
        (server.name, database)
        for server in (await servers.known(tx)).values()
        for database in server.shared
        if database in names and await servers.marked(tx, {servers.mark(server.name, database)})
    ]


def item(server: str, database: str) -> journal.NewItem:
    """The login of a database, as an item of a rotation."""
    arguments = {"id": servers.mark(server, database), "server": server, "database": database}
    return journal.NewItem(0, f"{server}/{database}", arguments)


async def turn(work: Work, item: journal.Item) -> fleet.Result:
    """Give a database a new login, and end the old one when every process has the new one."""
    watch = fleet.Stopwatch()
    try:
        user = await _Turn(work).run(str(item.arguments["server"]), str(item.arguments["database"]))
    except TenantryError as error:
        return fleet.Result(item, error, seconds=watch.seconds)
    return fleet.Result(item, None, user, watch.seconds)


class _Turn:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.tools = work.tools

    async def run(self, server: str, database: str) -> str:
        place, state = await self._decide(server, database)
        assert state.other is not None, "it was decided"
        if not state.over:
            await place.resource.admit(place.by(state.login), state.other)
            state = State(state.other, state.login, over=True)
            await self._keep(place, state)
        assert state.other is not None, "it is the one before"
        await self._render(place)
        await asyncio.sleep(self.tools.config.worker.overlap)
        await place.resource.expel(place.by(state.login), state.other.user)
        await self._keep(place, State(state.login))
        return state.login.user

    async def _decide(self, server: str, database: str) -> tuple[Place, State]:
        """The next login, sealed in the registry before the server hears of it, or the one that was decided before."""
        async with self.work.write() as tx:
            place = await self._find(tx, server, database)
            sealed = (await servers.known(tx))[server].shared[database]
            state = State.read(self.tools.registry.vault.open_platform(shared_login_field(server, database), sealed))
            if state.other is None:
                state = replace(state, other=place.resource.new_login(place.by(state.login)))
                await self._put(tx, place, state)
            return place, state

    async def _find(self, tx: Transaction, server: str, database: str) -> Place:
        tenants = await servers.marked(tx, {servers.mark(server, database)})
        for environment in await self.tools.all_environments(tx, sorted(tenants)[:1]):
            for resource in self.tools.resources[environment.tenant.blueprint]:
                there = environment.place(resource.name)
                if resource.shared and there and (there.server, there.database) == (server, database):
                    return Place(server, database, resource, environment, frozenset(tenants))
        raise TenantNotFound(
            f"No tenant has rows in '{database}' on '{server}' any more.", remedy="Nothing is left to do."
        )

    async def _keep(self, place: Place, state: State) -> None:
        async with self.work.write() as tx:
            await self._put(tx, place, state)

    async def _put(self, tx: Transaction, place: Place, state: State) -> None:
        field = shared_login_field(place.server, place.database)
        sealed = self.tools.registry.vault.seal_platform(field, state.text())
        await servers.put_shared(tx, place.server, place.database, sealed)

    async def _render(self, place: Place) -> None:
        """Make anew what is made out of tenants' values, which may name the login."""
        if not any(one.follows_tenant for some in self.tools.resources.values() for one in some):
            return
        for tenant_id in sorted(place.tenants):
            async with self.tools.registry.read() as tx:
                environments = await self.tools.environments(tx, tenant_id)
            for environment in environments:
                for resource in self.tools.resources[environment.tenant.blueprint]:
                    if resource.follows_tenant:
                        await resource.create(environment)
