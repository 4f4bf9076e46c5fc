"""What an operator does with servers, and with tenants' databases on them, on real PostgreSQL servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import ground as g
import outages
import servers
from shelves import Shelves
from tenantry import cli
from tenantry.errors import (
    NoLogin,
    NoServer,
    ServerDeclared,
    ServerInUse,
    ServerTaken,
    ServerUnavailable,
    ServerUnfit,
    ServerUnknown,
)
from tenantry.model import ServerState
from tenantry.platform import Platform
from tenantry.registry.journal import Operation, State


@pytest.fixture
def shelves(tmp_path: Path, postgres: servers.Postgres) -> Iterator[Shelves]:
    """A platform with one server."""
    made = Shelves(tmp_path / "platform", postgres, more=("capacity = 3",))
    yield made
    made.clear()


@pytest.fixture
def two(tmp_path: Path, postgres: servers.Postgres, own_postgres: servers.Postgres) -> Iterator[Shelves]:
    """A platform with two servers; the test may end `pg2`, which new tenants go to first."""
    made = Shelves(tmp_path / "platform", postgres, own_postgres, more=("capacity = 5", "capacity = 50"))
    yield made
    made.clear()


async def done(platform: Platform, operation: Operation) -> None:
    """Let an operation end well."""
    details = await platform.operations.finish(operation.id)
    assert details.operation.state is State.DONE, details.operation.error or [item.error for item in details.items]


async def actions(platform: Platform) -> list[str]:
    return [entry.action for entry in await platform.audit.list(limit=100)]


@dataclass
class Told:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


Tell = Callable[..., Told]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Runs a command of a platform in this process."""

    def run(shelves: Shelves, *arguments: str) -> Told:
        capsys.readouterr()
        status = cli.run([*arguments, "--config", str(shelves.config)])
        out, err = capsys.readouterr()
        return Told(status, out, err)

    return run


# --- servers ------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_added(shelves: Shelves, own_postgres: servers.Postgres) -> None:
    """A server comes in by command, is checked first, sealed, changed, drained, and goes; the audit log has it all."""
    url = own_postgres.administrator()
    async with shelves.open() as platform:
        row = await platform.servers.add("extra", "postgres", url, capacity=7, labels=["eu"])
        assert (row.state, row.capacity, row.labels, row.declared) == (ServerState.OPEN, 7, ("eu",), False)
        assert url not in str(await g.rows(platform, "server"))
        with pytest.raises(ServerTaken):
            await platform.servers.add("extra", "postgres", url)
        changed = await platform.servers.set("extra", capacity=9, labels=["eu", "pro"])
        assert (changed.capacity, changed.labels, changed.connections) == (9, ("eu", "pro"), 80)
        assert (await platform.servers.set("extra", unlimited=True)).capacity is None
    async with shelves.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme", server="extra"))
        found = {row.name: row for row in await platform.servers.list()}
        assert (found["extra"].used, found["extra"].faults) == (1, ())
        assert found["extra"].answers is not None
        assert (await platform.servers.show("extra")).tenants == ["acme"]
        with pytest.raises(ServerInUse, match="acme"):
            await platform.servers.remove("extra")
        await done(platform, await platform.tenants.destroy("acme"))
        await platform.servers.remove("extra", dry_run=True)
        await platform.servers.remove("extra")
        with pytest.raises(ServerUnknown):
            await platform.servers.show("extra")
        assert {"server.add", "server.set", "server.remove"} <= set(await actions(platform))
        await platform.audit.verify()


async def test_servers_of_the_configuration(shelves: Shelves) -> None:
    """What tenantry.toml declares is changed there alone; its state is changed by command, and lasts."""
    async with shelves.open() as platform:
        for attempt in (platform.servers.remove("pg1"), platform.servers.set("pg1", capacity=9)):
            with pytest.raises(ServerDeclared):
                await attempt
        assert (await platform.servers.drain("pg1")).state is ServerState.DRAINING
    async with shelves.open() as platform:
        with pytest.raises(NoServer, match="none is open"):
            await platform.tenants.create("acme")
        await platform.servers.close("pg1")
        await platform.servers.open("pg1")
        assert [entry for entry in await actions(platform) if entry.startswith("server.")] == [
            "server.open",
            "server.close",
            "server.drain",
            "server.declare",
        ]


async def test_a_server_with_faults_is_not_added(shelves: Shelves, postgres: servers.Postgres) -> None:
    """A server that lacks a privilege, refuses the login or is silent is refused with the reason, unless unchecked."""
    weak = postgres.administrator()
    user = weak.split("//")[1].split(":")[0]
    postgres.run(f'ALTER ROLE "{user}" NOCREATEROLE')
    async with shelves.open() as platform:
        with pytest.raises(ServerUnfit, match="CREATEROLE"):
            await platform.servers.add("weak", "postgres", weak)
        with pytest.raises(ServerUnfit, match="password"):
            await platform.servers.add("wrong", "postgres", postgres.url(password="no"))
        nobody = f"postgresql://a:b@127.0.0.1:{servers.free_port()}/x"
        with pytest.raises(ServerUnfit):
            await platform.servers.add("nobody", "postgres", nobody)
        with pytest.raises(ServerUnfit, match="kind"):
            await platform.servers.add("other", "oracle", weak)
        assert [row.name for row in await platform.servers.list(ask=False)] == ["pg1"]
        await platform.servers.add("nobody", "postgres", nobody, unchecked=True)
        found = {row.name: row for row in await platform.servers.list()}
        assert found["pg1"].answers is not None
        assert found["nobody"].answers is None
        findings = await platform.servers.check("nobody")
        assert not any(finding.ok for finding in findings["nobody"])
    postgres.run(f'DROP ROLE "{user}"')


def test_commands(
    shelves: Shelves, own_postgres: servers.Postgres, command: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands print what an operator needs, in text and JSON, and never a password."""
    url = own_postgres.administrator()
    monkeypatch.setenv("NEW_URL", url)
    added = command(shelves, "server", "add", "extra", "--kind", "postgres", "--url-env", "NEW_URL")
    assert added.status == 0, added.err
    listed = command(shelves, "server", "list")
    assert "pg1" in listed.out
    assert "░░░░░░░░░░ 0 / 3" in listed.out
    as_json = json.loads(command(shelves, "server", "list", "--json").out)
    assert {row["name"]: row["state"] for row in as_json} == {"extra": "open", "pg1": "open"}
    checked = command(shelves, "server", "check")
    assert checked.status == 0, checked.out
    assert "CREATEDB" in checked.out
    assert command(shelves, "server", "drain", "extra").status == 0
    assert "draining" in command(shelves, "server", "show", "extra").out
    assert command(shelves, "server", "remove", "pg1").status == 3
    assert command(shelves, "server", "show", "none").status == 4
    assert command(shelves, "server", "add", "x", "--kind", "postgres", "--url-env", "NOT_SET").status == 2
    removed = command(shelves, "server", "remove", "extra", "--json")
    assert json.loads(removed.out)["name"] == "extra"
    secret = url.split(":")[2].split("@")[0]
    for told in (added, listed, checked, removed):
        assert secret not in told.out + told.err


# --- creating -----------------------------------------------------------------------------------------------------


async def test_where_a_tenant_goes(two: Shelves) -> None:
    """A dry run shows the server and writes nothing; a tenant goes to the one with most room, or to the named one."""
    async with two.open() as platform, g.working(platform):
        planned = await platform.tenants.plan_create("acme")
        assert {step.name: step.detail for step in planned}["db"] == f"{two.prefix}_acme on pg2"
        assert await platform.tenants.list() == []
        await done(platform, await platform.tenants.create("acme"))
        await done(platform, await platform.tenants.create("other", server="pg1"))
        assert {slug: where async for slug, where in places(platform)} == {"acme": "pg2", "other": "pg1"}
        assert f"database {two.prefix}_acme" in two.left("pg2")
        details = await platform.tenants.show("acme")
        assert details.users == {"production/db": f"{two.prefix}_acme"}
        assert await g.faults_of(platform) == []


async def places(platform: Platform) -> AsyncIterator[tuple[str, str | None]]:
    for row in await platform.tenants.list():
        for environment in (await platform.tenants.show(row.slug)).environments:
            place = environment.place("db")
            assert place is not None
            yield row.slug, place.server


async def test_an_import_that_runs_out_of_room(shelves: Shelves) -> None:
    """Rows that find no place are named with the reason; the others are made."""
    path = shelves.root / "names.csv"
    path.write_text("slug\n" + "\n".join(f"t{number}" for number in range(5)))
    async with shelves.open() as platform, g.working(platform):
        ended = await platform.operations.finish((await platform.tenants.import_csv(path)).id)
        assert (ended.operation.done, ended.operation.failed) == (3, 2)
        assert {str((item.error or {})["code"]) for item in ended.items} == {"server.none"}
        assert len(await platform.tenants.list()) == 3
        assert await g.faults_of(platform) == []


async def test_a_create_that_meets_a_dead_server(two: Shelves) -> None:
    """A create on a server that is down fails with its name; tried again, it goes to another one."""
    async with two.open() as platform, g.working(platform):
        with outages.down(two.known["pg2"]):
            operation = await platform.tenants.create("acme")
            failed = await platform.operations.finish(operation.id)
            assert failed.operation.state is State.FAILED
            assert "pg2" in (failed.operation.error or {})["message"]
            assert await platform.tenants.list() == []
            await done(platform, await platform.operations.resume(operation.id))
            assert {slug: where async for slug, where in places(platform)} == {"acme": "pg1"}
        await until_dropped(platform)
        assert two.left("pg2") == []


async def until_dropped(platform: Platform) -> None:
    async def gone() -> bool:
        found = await platform.operations.list(verb="drop")
        return bool(found) and all(one.state is State.DONE for one in found)

    await g.until(gone, "the end of the drops")


# --- destroying ---------------------------------------------------------------------------------------------------


async def test_nothing_is_left(shelves: Shelves) -> None:
    """A destroyed tenant leaves neither database nor users on the server, and a check asks the server itself."""
    async with shelves.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
        await done(platform, await platform.tenants.rotate(["acme"]))
        assert len(shelves.left("pg1")) >= 2
        await done(platform, await platform.tenants.destroy("acme"))
        assert shelves.left("pg1") == []
        assert await platform.tenants.leftovers("acme") == []


async def test_a_server_that_is_down_at_the_end(two: Shelves) -> None:
    """A tenant is destroyed though its server is down: its slug is free at once, its database goes when the server is
    back, and nobody gets its name before."""
    async with two.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
        with outages.down(two.known["pg2"]):
            await done(platform, await platform.tenants.destroy("acme"))
            (drop,) = await platform.operations.list(verb="drop")
            assert drop.state.live
            assert drop.tenant_slug == "acme"
            (told,) = await platform.tenants.leftovers("acme")
            assert f"{two.prefix}_acme on pg2" in told
            with pytest.raises(ServerDeclared):
                await platform.servers.remove("pg2")
            assert (await platform.servers.show("pg1")).dropping == []
            await done(platform, await platform.tenants.create("acme", server="pg1"))
            (environment,) = (await platform.tenants.show("acme")).environments
            place = environment.place("db")
            assert place is not None
            assert place.location != f"{two.prefix}_acme"
        await until_dropped(platform)
        assert two.left("pg2") == []
        assert f"database {place.location}" in two.left("pg1")
        assert await g.faults_of(platform) == []
        assert {"tenant.drop_aside", "tenant.drop"} <= set(await actions(platform))


async def test_a_drop_that_is_given_up(two: Shelves) -> None:
    """Where a server never comes back the drop is cancelled, and the server no longer counts it."""
    async with two.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
        await platform.servers.close("pg2")
        await done(platform, await platform.tenants.destroy("acme"))
        assert (await platform.servers.show("pg2")).dropping == [f"{two.prefix}_acme"]
        (drop,) = await platform.operations.list(verb="drop")
        await g.until(lambda: _cancelled(platform, drop), "a moment between two tries")
        ended = await g.ended(platform, drop)
        assert ended.operation.state is State.CANCELLED
        assert (await platform.servers.show("pg2")).dropping == []
        assert f"database {two.prefix}_acme" in two.left("pg2")


async def _cancelled(platform: Platform, drop: Operation) -> bool:
    await platform.operations.cancel(drop.id)
    return True


# --- logins -------------------------------------------------------------------------------------------------------


async def test_rotating(tmp_path: Path, postgres: servers.Postgres) -> None:
    """The login changes while requests go on; none of them fails that takes what the registry says."""
    shelves = Shelves(tmp_path / "platform", postgres, overlap="3s")  # longer than a request on a busy machine
    with contextlib.ExitStack() as ending:
        ending.callback(shelves.clear)
        await _rotate_under_load(shelves)


async def _rotate_under_load(shelves: Shelves) -> None:
    async with shelves.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
        before = await platform.tenants.login("acme", "db")
        requests = Requests(shelves, platform, before.database)
        asking = asyncio.create_task(requests.ask())
        for _ in range(2):
            await done(platform, await platform.tenants.rotate(["acme"]))
            requests.asked.clear()
            await asyncio.wait([asking, asyncio.create_task(requests.asked.wait())], return_when="FIRST_COMPLETED")
            assert not asking.done(), asking.exception()
            after = await platform.tenants.login("acme", "db")
            assert (after.user, after.password) != (before.user, before.password)
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(shelves.known["pg1"].url(before.database, before.user, before.password))
            before = after
        requests.going = False  # to cancel it could leave a connection half opened
        await asking
        assert len([one for one in shelves.left("pg1") if one.startswith("database")]) == 1
        assert await secrets(platform) == ["admin"]
        assert await g.faults_of(platform) == []


class Requests:
    """An application that asks a tenant's database again and again, by the login that the registry has."""

    def __init__(self, shelves: Shelves, platform: Platform, database: str) -> None:
        self.shelves, self.platform, self.database = shelves, platform, database
        self.asked = asyncio.Event()
        self.going = True

    async def ask(self) -> None:
        """Go on until the first failure, or until it is enough."""
        tools = self.platform.tools
        ids = [row.id for row in await self.platform.tenants.list()]
        while self.going:
            async with self.platform.registry.read() as tx:
                (environment,) = await tools.all_environments(tx, ids)
            login = environment.logins["db"]
            url = self.shelves.known["pg1"].url(self.database, login.user, login.password)
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute("SELECT count(*) FROM page")
            self.asked.set()


async def secrets(platform: Platform) -> list[str]:
    return [row["field"] for row in await g.rows(platform, "secret")]


async def test_rendered_logins(shelves: Shelves) -> None:
    """A file that names a database's login is for its owner alone, and is written again when the login changes."""
    (shelves.root / "templates" / "env.json.j2").write_text('{"url": {{ databases.db.url | json }}}')
    async with shelves.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
        urls = []
        for _ in range(2):
            file = shelves.rendered("acme")
            urls.append(json.loads(file.read_text())["url"])
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            with psycopg.connect(urls[-1]) as connection:
                assert connection.execute("SELECT count(*) FROM page").fetchall() == [(0,)]
            await done(platform, await platform.tenants.rotate(["acme"]))
        assert urls[0] != urls[1]
        assert await g.faults_of(platform) == []


async def test_rotating_mends_a_login(shelves: Shelves) -> None:
    """A password that somebody changed by hand is found by the check, which names what gives a new one."""
    async with shelves.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
        login = await platform.tenants.login("acme", "db")
        shelves.known["pg1"].run(sql.SQL("ALTER ROLE {} PASSWORD 'other'").format(sql.Identifier(login.user)))
        (fault,) = [finding for finding in await platform.tenants.check("acme") if not finding.ok]
        assert "refuses its login" in fault.what
        assert "tenantry tenant rotate acme" in fault.remedy
        await done(platform, await platform.tenants.rotate(["acme"]))
        assert await g.faults_of(platform) == []


async def test_rotating_all(two: Shelves) -> None:
    """All tenants get new logins; one whose server is down keeps the old one, is named, and gets its turn later."""
    async with two.open() as platform, g.working(platform):
        for slug, server in (("one", "pg1"), ("two", "pg2"), ("three", "pg1")):
            await done(platform, await platform.tenants.create(slug, server=server))
        before = {slug: await platform.tenants.login(slug, "db") for slug in ("one", "two", "three")}
        with outages.down(two.known["pg2"]):
            ended = await platform.operations.finish((await platform.tenants.rotate()).id)
            assert (ended.operation.done, ended.operation.failed) == (2, 1)
            assert [item.subject for item in ended.items] == ["two"]
            assert await platform.tenants.login("two", "db") == before["two"]
        await done(platform, await platform.operations.resume(ended.operation.id))
        for slug, login in before.items():
            assert (await platform.tenants.login(slug, "db")).user != login.user
        assert sorted(await secrets(platform)) == ["admin"] * 3
        assert await g.faults_of(platform) == []


async def test_logins_are_shown_on_request(shelves: Shelves, command: Tell) -> None:
    """A database's login can be seen again and again; each time the audit log tells."""
    async with shelves.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
        login = await platform.tenants.login("acme", "db", "production")
        assert (login.server, login.database, login.user) == ("pg1", f"{shelves.prefix}_acme", f"{shelves.prefix}_acme")
        for resource, environment in (("config", None), ("db", "dev")):
            with pytest.raises(NoLogin):
                await platform.tenants.login("acme", resource, environment)
        assert (await actions(platform)).count("tenant.database_login") == 1
        shown = await asyncio.to_thread(command, shelves, "tenant", "credentials", "acme", "--resource", "db")
        assert login.password in shown.out
        overview = await asyncio.to_thread(command, shelves, "tenant", "show", "acme")
        assert f"{login.database} on pg1" in overview.out
        as_json = await asyncio.to_thread(command, shelves, "tenant", "show", "acme", "--json")
        assert json.loads(as_json.out)["users"] == {"production/db": login.user}
        assert login.password not in overview.out + as_json.out


# --- spares -------------------------------------------------------------------------------------------------------


async def test_spares_are_kept(tmp_path: Path, postgres: servers.Postgres) -> None:
    """A worker makes warm spares when it starts, and again when tenants have taken them."""
    shelves = Shelves(tmp_path / "platform", postgres, options=", spares = 2")
    with contextlib.ExitStack() as ending:
        ending.callback(shelves.clear)
        async with shelves.open() as platform, g.working(platform):
            await g.until(lambda: _spares(shelves, platform, 2), "two spares")
            await done(platform, await platform.tenants.create("one"))
            await done(platform, await platform.tenants.create("two"))
            await g.until(lambda: _spares(shelves, platform, 2), "two spares again")
            assert await g.faults_of(platform) == []


async def test_one_server_down_keeps_no_other_one_waiting(
    tmp_path: Path, postgres: servers.Postgres, own_postgres: servers.Postgres
) -> None:
    """Templates and spares are made on the servers that answer, though the first one does not; with none it is told."""
    shelves = Shelves(tmp_path / "platform", own_postgres, postgres, options=", spares = 1")
    with contextlib.ExitStack() as ending:
        ending.callback(shelves.clear)
        async with shelves.open() as platform:
            resource = platform.tools.resource("lab", "db")
            async with platform.registry.read() as tx:
                await platform.tools.learn_servers(tx)
            with outages.down(own_postgres):
                assert await resource.prepare() == "0001_pages"
                assert await resource.refill() == 1
                assert await resource.tidy() == []
                await platform.servers.close("pg2")
                async with platform.registry.read() as tx:
                    await platform.tools.learn_servers(tx)
                with pytest.raises(ServerUnavailable, match="pg1"):
                    await resource.prepare()
            assert await resource.refill() == 1


async def _spares(shelves: Shelves, platform: Platform, number: int) -> bool:
    """Whether there are so many warm spares of this platform, whole ones."""
    golden = platform.tools.resource("lab", "db")._golden  # type: ignore[attr-defined]
    query = "SELECT datname FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE '%\"spare\"%'"
    return len([name for (name,) in shelves.query("pg1", query) if name.startswith(golden.name)]) == number
