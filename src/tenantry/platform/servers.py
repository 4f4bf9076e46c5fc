"""Servers that tenants' databases lie on: brought in, looked at, taken out of use."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy.engine import make_url

from tenantry.errors import ServerDeclared, ServerInUse, ServerTaken, ServerUnfit, SharedInUse
from tenantry.identity import Reach, verb
from tenantry.model import Finding, Server, ServerState
from tenantry.operations import placement
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Transaction, servers
from tenantry.resources import Resource, kinds

ASKED_AT_ONCE: Final = 16
"""Servers that are asked at the same time."""

PATIENCE: Final = 2.0
"""Seconds that a server may take to answer a list."""

CHECK_PATIENCE: Final = 10.0
"""Seconds that a server may take to answer a check of itself."""

SHOWN: Final = 1000
"""Tenants of a server that are named at most."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_SILENT: Final = "See that it runs, and that its address, ports and firewalls let this machine reach it."


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A server as lists show it."""

    name: str
    kind: str
    address: str  # without user and password
    state: ServerState
    used: int  # databases of tenants on it, those that are still to be dropped among them
    capacity: int | None
    connections: int
    labels: tuple[str, ...]
    declared: bool  # in tenantry.toml
    answers: float | None = None  # milliseconds that it took to answer; None: it did not, or was not asked
    faults: tuple[str, ...] = ()  # what its administrator has to put right


@dataclass(frozen=True, slots=True)
class ServerDetails:
    """A server with what lies on it."""

    row: ServerRow
    tenants: list[str]  # slugs, at most `SHOWN`
    shared: Mapping[str, int]  # the databases that tenants share, and how many tenants have their rows in each
    dropping: list[str]  # databases that are still to be dropped


class Servers:
    """Every verb on servers."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry
        self._config = tools.config

    # --- reading ------------------------------------------------------------------------------------------------

    @verb("server.list", "platform:read", Reach.PLATFORM)
    async def list(self, *, ask: bool = True) -> Sequence[ServerRow]:
        """All servers by name; unless told otherwise each is asked whether it answers, all at the same time."""
        rows = await self._rows()
        return await self._asked(rows) if ask else rows

    @verb("server.show", "platform:read", Reach.PLATFORM)
    async def show(self, name: str, *, ask: bool = True) -> ServerDetails:
        """One server and the tenants on it; unless told otherwise it is asked whether it answers.

        Raises `ServerUnknown`.
        """
        rows = await self._rows()
        self._tools.servers.get(name)
        found = [row for row in rows if row.name == name]
        (row,) = await self._asked(found) if ask else found
        async with self._registry.read() as tx:
            left = [str(one.arguments["location"]) for one in await servers.remnants(tx, server=name)]
            shared = await self._shared(tx, self._tools.servers.get(name))
            return ServerDetails(row, await servers.tenants_on(tx, name, SHOWN), shared, left)

    async def _shared(self, tx: Transaction, server: Server) -> dict[str, int]:
        found = {one: await servers.marked(tx, {servers.mark(server.name, one)}) for one in sorted(server.shared)}
        return {database: len(tenants) for database, tenants in found.items()}

    @verb("server.check", "platform:read", Reach.PLATFORM)
    async def check(self, name: str | None = None) -> Mapping[str, Sequence[Finding]]:
        """What is found about one server, or each: what it answers, version, TLS, privileges, room.

        Raises `ServerUnknown`.
        """
        rows = {row.name: row for row in await self._rows()}
        chosen = [self._tools.servers.get(each) for each in ([name] if name is not None else rows)]
        found = await asyncio.gather(*(self._probe(server, CHECK_PATIENCE) for server in chosen))
        async with self._registry.read() as tx:
            left = {server.name: await self._unused(tx, server) for server in chosen}
        return {
            server.name: [*findings, *_room(rows[server.name]), *left[server.name]]
            for server, (findings, _) in zip(chosen, found, strict=True)
        }

    async def _unused(self, tx: Transaction, server: Server) -> Sequence[Finding]:
        """The shared databases that no tenant has rows in; it is a fault where no blueprint names them either."""
        named = {one.shared_database for some in self._tools.resources.values() for one in some}
        return [
            Finding(
                server.name,
                database in named,
                f"no tenant has rows in the shared database {database}"
                + ("" if database in named else ", and no blueprint names it"),
                f"`tenantry server drop-shared {server.name} {database}` drops it.",
            )
            for database, tenants in (await self._shared(tx, server)).items()
            if not tenants
        ]

    async def drop_shared(self, name: str, database: str) -> None:
        """Drop a database that tenants shared, with its roles, when nobody has a row there any more.

        What was begun and killed is ended by the next call. Raises `ServerUnknown`, `SharedInUse`, `ServerUnavailable`.
        """
        async with self._registry.read() as tx:
            await self._tools.learn_servers(tx)
            server = self._tools.servers.get(name)
            what = await self._keeping(tx, server, database)
        if what:
            raise SharedInUse(server=name, database=database, what=what)
        from tenantry.resources import rows_drop  # only here a command needs the driver

        whose = self._tools.identity or str(self._config.data)
        await asyncio.to_thread(rows_drop.drop, server, database, whose)
        async with self._registry.write() as tx:
            if await self._keeping(tx, server, database) is None:  # who came meanwhile makes it anew, by this login
                await servers.forget_shared(tx, name, database)
            tx.audit("server.drop_shared", name, database=database)

    async def _keeping(self, tx: Transaction, server: Server, database: str) -> str | None:
        """Why a shared database is not to be dropped, by what the registry knows."""
        shared = await self._shared(tx, server)
        if database not in shared:
            return "tenants never shared it"
        if shared[database]:
            return f"{shared[database]} tenants have their rows in it"
        left = [one for one in await servers.remnants(tx, server=server.name) if one.arguments["location"] == database]
        return f"rows of {len(left)} tenants are still to be removed from it" if left else None

    async def _rows(self) -> Sequence[ServerRow]:
        async with self._registry.read() as tx:
            await self._tools.learn_servers(tx)
            known, load = await servers.known(tx), await servers.load(tx)
            for one in await servers.remnants(tx):
                load[one.arguments["server"]] = load.get(one.arguments["server"], 0) + 1
            return [self._row(server, load.get(server.name, 0)) for server in known.values()]

    def _row(self, server: Server, used: int) -> ServerRow:
        return ServerRow(
            name=server.name,
            kind=server.kind,
            address=server.address,
            state=server.state,
            used=used,
            capacity=server.capacity,
            connections=server.connections,
            labels=tuple(sorted(server.labels)),
            declared=server.name in self._config.servers,
        )

    async def _asked(self, rows: Sequence[ServerRow]) -> Sequence[ServerRow]:
        turns = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(row: ServerRow) -> ServerRow:
            async with turns:
                findings, taken = await self._probe(self._tools.servers.get(row.name), PATIENCE)
            return replace(row, answers=taken, faults=tuple(one.what for one in findings if not one.ok))

        return await asyncio.gather(*map(ask, rows))

    async def _probe(self, server: Server, patience: float) -> tuple[Sequence[Finding], float | None]:
        """What the server's kind finds, and after how many milliseconds; None where it did not answer."""
        drivers = self._drivers(server)
        if not drivers:
            return [
                Finding(server.name, False, f"nothing here speaks {server.kind}", "Install a kind that does.")
            ], None
        start = time.perf_counter()
        hasty = replace(server, admin=_hasty(server.admin, patience))
        try:
            async with asyncio.timeout(patience):
                each = [await driver.probe(hasty) for driver in drivers]
        except TimeoutError:
            return [Finding(server.name, False, f"it does not answer within {patience:g} s", _SILENT)], None
        taken = 1000 * (time.perf_counter() - start)
        found = list(dict.fromkeys(finding for findings in each for finding in findings))
        return found, taken if any(one.ok for one in found) else None

    def _drivers(self, server: Server) -> Sequence[type[Resource]]:
        """The kinds that the blueprints may place there, so that no more is asked of it than they need."""
        placed = {
            type(resource)
            for blueprint, resources in self._tools.resources.items()
            for resource in resources
            if resource.server_kind == server.kind
            and self._config.blueprints[blueprint].resources[resource.name].server in (None, server.name)
        }
        usual = _driver(server.kind)
        return sorted(placed, key=lambda one: one.kind) or ([usual] if usual else [])

    # --- changing -----------------------------------------------------------------------------------------------

    @verb("server.plan_add", "platform:read", Reach.PLATFORM)
    async def plan_add(
        self,
        name: str,
        kind: str,
        url: str,
        capacity: int | None = None,
        connections: int = 80,
        labels: Sequence[str] = (),
    ) -> tuple[Server, Sequence[Finding]]:
        """The server as it is going to be known, and what is found about it. Raises as `add` does."""
        if not _NAME.fullmatch(name):
            raise ServerUnfit(server=name, reason="its name is to be of letters, digits, _ and -", remedy="Rename it.")
        if kind not in placement.BACKENDS:
            known = ", ".join(placement.BACKENDS)
            raise ServerUnfit(server=name, reason=f"there is no kind '{kind}'", remedy=f"Known kinds: {known}.")
        server = placement.described(name, kind, url, capacity, connections, labels)
        async with self._registry.read() as tx:
            await self._refuse_taken(tx, name)
        return server, (await self._probe(server, CHECK_PATIENCE))[0]

    async def _refuse_taken(self, tx: Transaction, name: str) -> None:
        if name in await servers.known(tx):
            raise ServerTaken(server=name)

    @verb("server.add", "platform:write", Reach.PLATFORM)
    async def add(
        self,
        name: str,
        kind: str,
        url: str,
        capacity: int | None = None,
        connections: int = 80,
        labels: Sequence[str] = (),
        *,
        unchecked: bool = False,
    ) -> ServerRow:
        """Let tenants be placed on a server; its administrator's URL is sealed with the platform key.

        Raises `ServerTaken`, or `ServerUnfit` for a bad address and, unless `unchecked`, where a check finds fault.
        """
        server, findings = await self.plan_add(name, kind, url, capacity, connections, labels)
        faults = [one for one in findings if not one.ok]
        if faults and not unchecked:
            raise ServerUnfit(server=name, reason="; ".join(one.what for one in faults), remedy=faults[0].remedy)
        async with self._registry.write() as tx:
            await self._refuse_taken(tx, name)
            await servers.put(tx, server, self._seal(server))
            tx.audit("server.add", name, kind=kind, address=server.address, **_told(server))
        return self._row(server, 0)

    def _seal(self, server: Server) -> bytes:
        return self._registry.vault.seal_platform(servers.CHANGED + server.name, server.admin)

    @verb("server.set", "platform:write", Reach.PLATFORM)
    async def set(
        self,
        name: str,
        *,
        capacity: int | None = None,
        unlimited: bool = False,
        connections: int | None = None,
        labels: Sequence[str] | None = None,
        url: str | None = None,
    ) -> ServerRow:
        """Change a server that was added by command. Raises `ServerUnknown`, `ServerDeclared` or `ServerUnfit`."""
        async with self._registry.write() as tx:
            before = await self._own(tx, name)
            server = placement.described(
                name,
                before.kind,
                url or before.admin,
                None if unlimited else before.capacity if capacity is None else capacity,
                before.connections if connections is None else connections,
                sorted(before.labels) if labels is None else labels,
            )
            server = replace(server, state=before.state)
            await servers.put(tx, server, self._seal(server))
            await placement.follow_password(tx, self._registry.vault, server, before)
            tx.audit("server.set", name, address=server.address, url=bool(url), **_told(server))
            return self._row(server, (await servers.load(tx)).get(name, 0))

    @verb("server.open", "platform:write", Reach.PLATFORM)
    async def open(self, name: str) -> ServerRow:
        """Let new tenants be placed on a server, and serve those that are there. Raises `ServerUnknown`."""
        return await self._stand(name, ServerState.OPEN, "server.open")

    @verb("server.drain", "platform:write", Reach.PLATFORM)
    async def drain(self, name: str) -> ServerRow:
        """Place no more tenants on a server; those that are there are served. Raises `ServerUnknown`."""
        return await self._stand(name, ServerState.DRAINING, "server.drain")

    @verb("server.close", "platform:write", Reach.PLATFORM)
    async def close(self, name: str) -> ServerRow:
        """Serve nobody from a server, for maintenance. Raises `ServerUnknown`."""
        return await self._stand(name, ServerState.CLOSED, "server.close")

    async def _stand(self, name: str, state: ServerState, action: str) -> ServerRow:
        async with self._registry.write() as tx:
            await servers.set_state(tx, name, state)
            tx.audit(action, name, state=state.value)
            return self._row((await servers.known(tx))[name], (await servers.load(tx)).get(name, 0))

    @verb("server.remove", "platform:write", Reach.PLATFORM)
    async def remove(self, name: str, *, dry_run: bool = False) -> None:
        """Forget a server that nothing lies on. Raises `ServerUnknown`, `ServerDeclared` or `ServerInUse`."""
        async with self._registry.write() as tx:
            await self._own(tx, name)
            used = (await servers.load(tx)).get(name, 0)
            if used:
                some = ", ".join(await servers.tenants_on(tx, name, 5))
                raise ServerInUse(server=name, what=f"{used} databases of tenants lie on it, such as those of {some}")
            left = await servers.remnants(tx, server=name)
            if left:
                first = left[0].arguments["location"]
                raise ServerInUse(
                    server=name,
                    what=f"{len(left)} databases on it are still to be dropped, such as {first}",
                    remedy=f"Wait for operation {left[0].operation}, or give it up with `tenantry operation cancel`.",
                )
            if not dry_run:
                await servers.remove(tx, name)
                tx.audit("server.remove", name)

    async def _own(self, tx: Transaction, name: str) -> Server:
        """A server that commands may change. Raises `ServerUnknown` or `ServerDeclared`."""
        await self._tools.learn_servers(tx)
        server = self._tools.servers.get(name)
        if name in self._config.servers:
            raise ServerDeclared(server=name)
        return server


def _driver(kind: str) -> type[Resource] | None:
    """The kind of resource that speaks with this kind of server: the one of the same name, where there are several."""
    able = [driver for driver in kinds().values() if driver.server_kind == kind]
    return next((driver for driver in able if driver.kind == kind), able[0] if able else None)


def _hasty(url: str, patience: float) -> str:
    """An administrator's URL by which a connection that does not come is given up, so that no thread stays behind."""
    parsed = make_url(url) if url else None
    if parsed is None or parsed.get_backend_name() not in placement.BACKENDS["postgres"]:
        return url  # MariaDB's driver has a limit of its own
    limited = parsed.difference_update_query(["connect_timeout"]).update_query_dict(
        {"connect_timeout": f"{patience:.0f}"}
    )
    return limited.render_as_string(hide_password=False)


def _room(row: ServerRow) -> list[Finding]:
    if row.capacity is None:
        return []
    if row.used < row.capacity:
        return [Finding(row.name, True, f"{row.used} of {row.capacity} databases")]
    return [Finding(row.name, False, f"it is full: {row.used} of {row.capacity} databases", "Raise its capacity.")]


def _told(server: Server) -> dict[str, object]:
    return {"capacity": server.capacity, "connections": server.connections, "labels": sorted(server.labels)}
