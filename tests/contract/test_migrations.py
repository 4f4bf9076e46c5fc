"""Migrations of one database beside an application at work: locks, limits, phases, and steps without a transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ground import PATIENCE
from mysql_world import MysqlWorld
from tenantry.errors import MigrationError, MigrationInvalid
from tenantry.model import Environment
from tenantry.resources import Resource, limits
from worlds import OPTIONS, WORLDS, PostgresWorld, World, furnish

WIDER = "ALTER TABLE page ADD COLUMN wide INTEGER;\n-- down\nALTER TABLE page DROP COLUMN wide;\n"
IMPATIENT = {"lock_timeout": "300ms", "retries": 2}
SLOW = {
    "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n;",
    "postgres": "SELECT pg_sleep(3600);",
    "mysql": "SELECT sleep(3600) FROM page;",
}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres), "mysql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A platform for each kind whose databases an application uses while they are migrated."""
    made = {"schema": "schema", "seed": "seed.sql"}
    if request.param == "mysql":
        yield request.getfixturevalue("mysql_world")
    elif request.param == "postgres":
        found = PostgresWorld("postgres", tmp_path, dict(made), server=request.getfixturevalue("postgres"))
        furnish(found)
        yield found
        found.clear()
    else:
        found = WORLDS["sqlite"]("sqlite", tmp_path, dict(OPTIONS.get("sqlite", made)))
        furnish(found)
        yield found


async def made(world: World, **own: object) -> tuple[Resource, Environment]:
    """A resource with limits of its own, and an environment's database at version 0002."""
    resource, env = world.resource(**{**world.options, "migrate": own}), world.environment()
    await resource.create(env)
    return resource, env


@contextlib.contextmanager
def in_use(world: World, resource: Resource, env: Environment) -> Iterator[Callable[[], None]]:
    """A transaction of the application's that a change of the table waits for; called, it ends."""
    if isinstance(world, PostgresWorld | MysqlWorld):
        connection: Any = world.connect(resource, env)
        begin, query = "BEGIN", "SELECT * FROM page"
    else:
        connection = sqlite3.connect(world.path(resource, env), isolation_level=None, check_same_thread=False)
        begin, query = "BEGIN IMMEDIATE", "SELECT * FROM page"
    with contextlib.closing(connection), contextlib.closing(connection.cursor()) as cursor:
        for statement in (begin, query):
            cursor.execute(statement)
        cursor.fetchall()
        yield lambda: cursor.execute("COMMIT")


async def test_a_lock_that_goes_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that does not get its lock in time is tried again, and done when the lock is free."""
    resource, env = await made(world, **IMPATIENT)
    world.migration("0003_wider.sql", WIDER)
    with in_use(world, resource, env) as end:
        pauses: list[int] = []

        def pause(retry: int) -> float:
            pauses.append(retry)
            if len(pauses) == 2:
                end()
            return 0.0

        monkeypatch.setattr(limits, "pause", pause)
        assert (await resource.migrate(env)).applied == ("0003_wider",)
    assert pauses == [0, 1]
    assert all(finding.ok for finding in await resource.check(env))


async def test_a_lock_that_stays_ends_it(world: World) -> None:
    """After the last try the error says how often it was tried, and the database is at its old version, in use."""
    resource, env = await made(world, **IMPATIENT)
    world.migration("0003_wider.sql", WIDER)
    with in_use(world, resource, env), pytest.raises(MigrationError, match="tried 3 times") as caught:
        await resource.migrate(env)
    assert "lock_timeout" in caught.value.hint
    if world.kind == "postgres":
        assert "in the way: process" in caught.value.message
        assert "idle in transaction" in caught.value.message
    assert await resource.version(env) == "0002_bodies"
    world.use(resource, env, "still at work")
    assert (await resource.migrate(env)).applied == ("0003_wider",)


async def test_only_waits_are_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that is wrong fails at once."""
    resource, env = await made(world)
    monkeypatch.setattr(limits, "pause", lambda _: pytest.fail("it was tried again"))
    world.migration("0003_wrong.sql", "INSERT INTO nowhere VALUES (1);")
    with pytest.raises(MigrationError, match="nowhere"):
        await resource.migrate(env)


async def test_a_statement_has_its_time(world: World) -> None:
    """A statement that runs too long is ended, by the limit that its own file sets."""
    resource, env = await made(world)
    text = SLOW[world.kind]
    world.migration("0003_slow.sql", f"-- tenantry: statement_timeout=300ms\n{text}")
    world.use(resource, env, "a row to be slow at")
    with pytest.raises(MigrationError, match=r"0003_slow: .*(timeout|interrupted|max_statement_time)"):
        await asyncio.wait_for(resource.migrate(env), PATIENCE)
    assert await resource.version(env) == "0002_bodies"


async def test_a_python_file_has_its_limits(world: World) -> None:
    """What a Python file runs waits and runs no longer than a file of SQL."""
    resource, env = await made(world, statement_timeout="300ms")
    slow = SLOW[world.kind].rstrip(";")
    world.migration("0003_slow.py", f"def upgrade(connection):\n    connection.exec_driver_sql({slow!r})\n")
    world.use(resource, env, "a row to be slow at")
    with pytest.raises(MigrationError, match=r"0003_slow: .*(timeout|interrupted|max_statement_time)"):
        await asyncio.wait_for(resource.migrate(env), PATIENCE)
    assert await resource.version(env) == "0002_bodies"


async def test_new_ones_do_not_run_ahead_of_the_fleet(world: World) -> None:
    """Until the fleet is brought to a `post`, a new database ends before it; later ones have it; none goes back."""
    resource, env = await made(world)
    world.migration("0003_wider.sql", WIDER)
    world.migration("0004_seen.sql", "-- tenantry: phase=post\nALTER TABLE page ADD COLUMN seen INTEGER;\n")
    world.migration("0005_last.sql", "ALTER TABLE page ADD COLUMN last INTEGER;\n")
    resource.released = "0002_bodies"
    early, late = world.environment("early"), world.environment("late")
    assert await resource.prepare() == "0003_wider"
    await resource.create(early)
    assert await resource.version(early) == "0003_wider"
    await resource.create(env)
    assert await resource.version(env) == "0003_wider"
    assert any("is behind 0005_last" in finding.what for finding in await resource.check(early))
    await resource.migrate(early)
    await resource.create(early)
    assert await resource.version(early) == "0005_last"
    assert all(finding.ok for finding in await resource.check(early))
    resource.released = "0005_last"
    assert await resource.prepare() == "0005_last"
    await resource.create(late)
    assert all(finding.ok for finding in await resource.check(late))


async def test_two_processes_migrate_at_once(world: World) -> None:
    """Two migrations of one database at the same moment: it is run once, and both find it done."""
    resource, env = await made(world, lock_timeout="20ms", retries=100)
    world.migration("0003_once.sql", "INSERT INTO page (title) VALUES ('once');")
    both = await asyncio.gather(*(world.resource().migrate(env) for _ in range(4)))
    assert [one.after for one in both] == ["0003_once"] * 4
    assert world.look(resource, env).count("once") == 1


async def test_phases_are_migrated_apart(world: World) -> None:
    """`pre` brings a database before the first `post`; the rest brings it to the newest; back goes all the way."""
    resource, env = await made(world)
    world.migration("0003_wider.sql", WIDER)
    drop = "ALTER TABLE page DROP COLUMN body" if world.kind == "sqlite" else "ALTER TABLE page DROP body"
    add = "ALTER TABLE page ADD COLUMN body VARCHAR(9) NOT NULL DEFAULT ''"
    world.migration("0004_gone.sql", f"-- tenantry: phase=post\n{drop};\n-- down\n{add};\n")
    assert (resource.needs, resource.newest) == ("0003_wider", "0004_gone")
    assert (await resource.migrate(env, resource.target("pre", "0002_bodies"))).applied == ("0003_wider",)
    assert resource.target("pre", "0003_wider") == "0003_wider"
    world.query(resource, env, "SELECT body, wide FROM page")
    assert (await resource.migrate(env, resource.target("post", "0003_wider"))).applied == ("0004_gone",)
    assert all(finding.ok for finding in await resource.check(env))
    assert (await resource.migrate(env, "0002_bodies")).applied == ("0004_gone", "0003_wider")


@pytest.mark.parametrize("line", ["-- tenantry: phase=post\n", "-- tenantry: retries=1\n"])
async def test_an_edited_first_line_is_refused(world: World, line: str) -> None:
    """A file whose phase or limits were changed after a database had it is refused as any other change."""
    resource, env = await made(world)
    world.migration("0003_wider.sql", WIDER)
    await resource.migrate(env)
    world.migration("0003_wider.sql", line + WIDER)
    with pytest.raises(MigrationInvalid, match="changed after it had been applied"):
        await resource.migrate(env)


async def test_only_postgresql_runs_without_a_transaction(world: World) -> None:
    """Elsewhere `transaction=off` is refused before any database is touched."""
    resource, env = await made(world)
    world.migration("0003_off.sql", "-- tenantry: transaction=off\nSELECT 1;")
    if world.kind == "postgres":
        assert (await resource.migrate(env)).applied == ("0003_off",)
        return
    with pytest.raises(MigrationInvalid, match="it says transaction=off"):
        await resource.migrate(env)


# --- without a transaction, on PostgreSQL -------------------------------------------------------------------------

INDEX = """-- tenantry: transaction=off
INSERT INTO page (title) VALUES ('before');
CREATE INDEX CONCURRENTLY page_by_title ON page (title);
INSERT INTO page (title) VALUES ('after');
-- down
DROP INDEX CONCURRENTLY page_by_title;
DELETE FROM page WHERE title IN ('before', 'after');
"""


@pytest.fixture
async def indexed(postgres_world: PostgresWorld) -> tuple[PostgresWorld, Resource, Environment]:
    """A database at 0002, and a migration that makes an index without a transaction."""
    resource, env = await made(postgres_world, lock_timeout="50ms", retries=0)
    postgres_world.migration("0003_index.sql", INDEX)
    return postgres_world, resource, env


Indexed = tuple[PostgresWorld, Resource, Environment]


def valid(world: PostgresWorld, resource: Resource, env: Environment) -> list[Any]:
    """The indexes on titles, and whether each is whole."""
    query = "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname ~ 'title'"
    found: list[Any] = world.query(resource, env, query)
    return found


async def test_an_index_is_made_beside_the_application(indexed: Indexed) -> None:
    """`CREATE INDEX CONCURRENTLY` runs in a migration without a transaction, and can be taken back."""
    world, resource, env = indexed
    assert (await resource.migrate(env)).applied == ("0003_index",)
    assert valid(world, resource, env) == [("page_by_title", True)]
    assert all(finding.ok for finding in await resource.check(env))
    assert (await resource.migrate(env)).applied == ()
    assert (await resource.migrate(env, "0002_bodies")).applied == ("0003_index",)
    assert valid(world, resource, env) == []
    assert world.look(resource, env) == "[('Welcome',)]"


async def test_half_an_index_is_made_anew(indexed: Indexed) -> None:
    """An index that a run left half is dropped by the next one, which goes on where it stopped."""
    world, resource, env = indexed
    with world.connect(resource, env) as writer:
        writer.execute("BEGIN")
        writer.execute("INSERT INTO page (title) VALUES ('in the way')")
        with pytest.raises(
            MigrationError, match=r"lock timeout, in: CREATE INDEX .* \(statement 2 of 3; what is before"
        ):
            await resource.migrate(env)
        assert valid(world, resource, env) == [("page_by_title", False)]
        assert await resource.version(env) == "0002_bodies"
        assert any("stopped in the middle, behind statement 1" in f.what for f in await resource.check(env))
        writer.execute("ROLLBACK")
    assert (await resource.migrate(env)).applied == ("0003_index",)
    assert valid(world, resource, env) == [("page_by_title", True)]
    assert world.look(resource, env).count("before") == world.look(resource, env).count("after") == 1


async def test_an_index_that_was_made_but_not_recorded_is_kept(indexed: Indexed) -> None:
    """A run that was cut off between a statement and its record takes what is there for done."""
    world, resource, env = indexed
    with world.connect(resource, env) as writer:
        writer.execute("BEGIN")
        writer.execute("INSERT INTO page (title) VALUES ('in the way')")
        with pytest.raises(MigrationError):
            await resource.migrate(env)
        writer.execute("ROLLBACK")
        writer.execute("REINDEX INDEX page_by_title")
        writer.execute("UPDATE tenantry_schema SET begun = true WHERE version = '0003_index'")
    assert valid(world, resource, env) == [("page_by_title", True)]
    assert (await resource.migrate(env)).applied == ("0003_index",)


async def test_statements_that_ran_stay_as_they_were(indexed: Indexed) -> None:
    """Of a migration that stopped only what did not run yet may be corrected."""
    world, resource, env = indexed
    world.migration("0003_index.sql", INDEX.replace("page (title);", "nowhere (title);", 1))
    with pytest.raises(MigrationError, match="statement 2 of 3"):
        await resource.migrate(env)
    world.migration("0003_index.sql", INDEX.replace("'before'", "'other'", 1))
    with pytest.raises(MigrationError, match="its first 1 statements ran already and were changed since"):
        await resource.migrate(env)
    world.migration("0003_index.sql", INDEX)
    assert (await resource.migrate(env)).applied == ("0003_index",)


async def test_an_index_without_a_name_is_refused(indexed: Indexed) -> None:
    """A half index could not be found again without its name."""
    world, resource, env = indexed
    world.migration("0003_index.sql", INDEX.replace("CONCURRENTLY page_by_title ON", "CONCURRENTLY ON", 1))
    with pytest.raises(MigrationInvalid, match="an index without a name"):
        await resource.migrate(env)


async def test_the_way_out_of_the_transaction_is_told(indexed: Indexed) -> None:
    """What cannot run in a transaction fails with the line that lets it run without."""
    world, resource, env = indexed
    world.migration("0003_index.sql", INDEX.removeprefix("-- tenantry: transaction=off\n"))
    with pytest.raises(MigrationError, match="cannot run inside a transaction block") as caught:
        await resource.migrate(env)
    assert "transaction=off" in caught.value.hint


async def test_one_process_at_a_time_runs_without_a_transaction(indexed: Indexed) -> None:
    """Two runs at once: one waits, and finds it done."""
    world, resource, env = indexed
    both = await asyncio.gather(*(world.resource().migrate(env) for _ in range(3)))
    assert [one.after for one in both] == ["0003_index"] * 3
    assert world.look(resource, env).count("before") == 1
    with pytest.raises(psycopg.errors.UniqueViolation):
        world.query(
            resource, env, "INSERT INTO tenantry_schema (version, name, checksum) VALUES ('0003_index', '', '')"
        )
