"""Migrations killed (SIGKILL) around every step and inside statements, on every kind with a schema: nothing stays half.

A kind joins by one `Kind` in `KINDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import ground as g
from ground import Ground
from kills import AT_ONCE, CLAIMED, END, Killed, Moment, inside, populate, steps
from prefix_world import PrefixGround, maria_database
from shelves import MariaShelves, RowsShelves, Shelves
from tenantry.operations import migrate
from tenantry.platform import Platform
from tenantry.registry.journal import Operation, State
from tenantry.resources.rows_plan import SETTING

TENANTS = 3  # of each operation: a canary and two of the first wave
SLOW_SECONDS = 600  # a statement that a test ends by killing; nobody waits for it

PLAIN = """
CREATE TABLE more_{n} (id INTEGER PRIMARY KEY);
INSERT INTO more_{n} VALUES (1);
INSERT INTO page VALUES ({n}, 'once');
-- down
DROP TABLE more_{n};
DELETE FROM page WHERE id = {n};
"""
TEMPO = "CREATE TABLE tempo (n INTEGER NOT NULL);\n"


@dataclass(frozen=True)
class Kind:
    """A kind with a schema, and where inside its migrations workers are killed."""

    name: str
    open: Callable[[pytest.FixtureRequest, Path], contextlib.AbstractContextManager[Ground]]
    look: Callable[[Ground, Platform, str, str], Any]  # one statement on a tenant's database; a coroutine
    moments: list[Moment]
    slow: str  # a statement that changes every page, and takes as many seconds as `tempo` holds
    busy: str | None  # counts slow statements that run; None: nobody but SQLite can write then
    text: str = PLAIN
    seen: str = "SELECT * FROM more_{n}"  # gives 1 where the migration's statements ran once
    named: Callable[[str], str] = str  # how names of tables stand in migrations
    shared: bool = False  # one run migrates the tables of all tenants of a blueprint


def at(owner: str, name: str) -> list[Moment]:
    """Before and after a function, in the canary."""
    return [inside("canary", owner, name, when) for when in ("before", "after")]


# --- the kinds ----------------------------------------------------------------------------------------------------


async def on_file(ground: Ground, _: Platform, slug: str, statement: str) -> list[Any]:
    return ground.sql(slug, statement)


async def on_postgres(ground: Ground, platform: Platform, slug: str, statement: str) -> list[Any]:
    assert isinstance(ground, Shelves)
    return ground.query("pg1", statement, f"{ground.prefix}_{slug}")


async def on_maria(ground: Ground, platform: Platform, slug: str, statement: str) -> list[Any]:
    assert isinstance(ground, MariaShelves)
    name = f"{ground.prefix}_{slug}"
    return ground.server.run(f"USE `{name}`", statement)


async def on_rows(ground: Ground, platform: Platform, slug: str, statement: str) -> list[Any]:
    """As the application's role, which sees the rows of one tenant."""
    assert isinstance(ground, RowsShelves)
    details = await platform.tenants.show(slug)
    place = details.environments[0].place("db")
    assert place is not None
    with psycopg.connect(ground.known["pg1"].url(place.location), autocommit=True) as connection:
        connection.execute("SELECT set_config(%s, %s, false)", (SETTING, details.row.id))
        connection.execute(f'SET ROLE "{place.location}_app"'.encode())
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


async def on_prefix(ground: Ground, platform: Platform, slug: str, statement: str) -> list[Any]:
    assert isinstance(ground, PrefixGround)
    place = (await platform.tenants.show(slug)).environments[0].place("db")
    assert place is not None
    return ground.ask(prefixed(statement).replace("{prefix}", place.location.partition("/")[2]))


def prefixed(text: str) -> str:
    """SQL with the placeholder before the names of the tables here."""
    return re.sub(r"\b(?=page\b|tempo\b|more_)", "{prefix}", text)


@contextlib.contextmanager
def shelved(request: pytest.FixtureRequest, root: Path) -> Iterator[Ground]:
    made = Shelves(root, request.getfixturevalue("postgres"))
    yield made
    made.clear()


@contextlib.contextmanager
def shared(request: pytest.FixtureRequest, root: Path) -> Iterator[Ground]:
    """Tables to share for each of those that are killed at once: they would wait for one another."""
    made = RowsShelves(root, request.getfixturevalue("postgres"), blueprints=AT_ONCE)
    (root / "seed.sql").write_text("INSERT INTO page VALUES (0, 'seeded');")
    yield made
    made.clear()


@contextlib.contextmanager
def with_prefixes(request: pytest.FixtureRequest, root: Path) -> Iterator[Ground]:
    yield PrefixGround(root, "postgres", request.getfixturevalue("postgres_url"))


@contextlib.contextmanager
def with_prefixes_on_maria(request: pytest.FixtureRequest, root: Path) -> Iterator[Ground]:
    with maria_database(request.getfixturevalue("mariadb_server")) as url:
        yield PrefixGround(root, "mysql", url)


DIALECT, STEPS = "tenantry.resources.postgres_dialect", "tenantry.resources.postgres_steps.Steps"
SLOW_POSTGRES = "UPDATE page SET title = title || '!' FROM (SELECT pg_sleep((SELECT max(n) FROM tempo))) AS slow"

SQLITE = Kind(
    "sqlite",
    lambda _, root: contextlib.nullcontext(Ground(root)),
    on_file,
    [*at("tenantry.resources.migrator", "_up"), *at("tenantry.resources.migrator", "_check_references")],
    "UPDATE page SET title = title || '!' WHERE (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
    "WHERE i < (SELECT max(n) FROM tempo) * 1000000) SELECT count(*) FROM n) > 0",
    None,
)
POSTGRES = Kind(
    "postgres",
    shelved,
    on_postgres,
    at(DIALECT, "run"),
    SLOW_POSTGRES,
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
)
OFF = Kind(
    "postgres, no transaction",
    shelved,
    on_postgres,
    [*at(STEPS, "_begin"), *at(STEPS, "_one"), *at(STEPS, "_finish")],
    "-- tenantry: transaction=off\n"
    "CREATE FUNCTION slowly(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS "
    "$$ BEGIN PERFORM pg_sleep((SELECT max(n) FROM tempo)); RETURN $1; END $$;\n"
    f"{SLOW_POSTGRES.replace('FROM (SELECT pg_sleep((SELECT max(n) FROM tempo))) AS slow', '')};\n"
    "CREATE INDEX CONCURRENTLY page_slowly ON page (slowly(title))",
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    "-- tenantry: transaction=off\n"
    + PLAIN.replace("INSERT INTO page", "CREATE INDEX CONCURRENTLY more_{n}_id ON more_{n} (id);\nINSERT INTO page", 1),
)
MARIA = Kind(
    "mysql",
    lambda request, root: contextlib.nullcontext(MariaShelves(root, request.getfixturevalue("mariadb_server"))),
    on_maria,
    [
        inside("canary", "tenantry.resources.mysql_dialect", "_begin"),
        *at("tenantry.resources.mysql_dialect", "_run"),
        *at("tenantry.resources.mysql_dialect", "_write"),
    ],
    "UPDATE page SET title = concat(title, '!') WHERE sleep((SELECT max(n) FROM tempo) / 60) = 0",
    "SELECT id FROM information_schema.processlist WHERE db = database() AND state = 'User sleep'",
)
ROWS = Kind(
    "rows",
    shared,
    on_rows,
    [
        *at("tenantry.resources.rows.Rows", "_ready"),
        *at("tenantry.resources.rows_dialect.Shared", "_secure"),
        *at("tenantry.resources.rows_dialect", "_let_owner_see"),
    ],
    SLOW_POSTGRES,
    "SELECT pid FROM pg_locks WHERE relation = 'page'::regclass AND mode = 'RowExclusiveLock' AND granted",
    "ALTER TABLE page ADD COLUMN more_{n} INTEGER NOT NULL DEFAULT 0;\nUPDATE page SET more_{n} = more_{n} + 1;\n"
    "-- down\nALTER TABLE page DROP COLUMN more_{n};\n",
    "SELECT more_{n} FROM page",
    shared=True,
)
PREFIX = replace(POSTGRES, name="prefix, postgres", open=with_prefixes, look=on_prefix, named=prefixed)
PREFIX_MARIA = replace(MARIA, name="prefix, mysql", open=with_prefixes_on_maria, look=on_prefix, named=prefixed)
KINDS = [SQLITE, POSTGRES, OFF, MARIA, ROWS, PREFIX, PREFIX_MARIA]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name.replace(", ", "-"))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind in turn."""
    found: Kind = request.param
    return found


@pytest.fixture
def ground(request: pytest.FixtureRequest, kind: Kind, tmp_path: Path) -> Iterator[Ground]:
    """A platform with databases of the kind."""
    with kind.open(request, tmp_path / "platform") as made:
        made.migration("0001_pages.sql", kind.named(f"{TEMPO}{g.FIRST}"))
        yield made


@pytest.fixture(autouse=True)
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs over different tenants may be queued together here, so that as many workers are killed at once."""

    async def allow(_: Any) -> None:
        """A platform lets one run be under way at a time; the rest of it does not rely on that."""

    monkeypatch.setattr(migrate, "refuse_second", allow)


# --- what is killed -----------------------------------------------------------------------------------------------


async def renew(platform: Platform) -> None:
    """Make the golden template, so that what is hooked is called for tenants first."""
    async with platform.registry.read() as tx:
        await platform.tools.learn_servers(tx)
    for resources in platform.tools.resources.values():
        for resource in resources:
            await resource.prepare()


def slugs_of(name: str) -> list[str]:
    """The tenants of one operation."""
    return [f"{name}-{i}" for i in range(TENANTS)]


@pytest.fixture
def submit(kind: Kind) -> Any:
    """Makes tenants, a new migration, and an operation for three tenants each."""

    async def submitting(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
        blueprints = {name: f"lab{number}" if kind.shared else None for number, name in enumerate(names)}
        await populate(ground, platform, {slug: blueprints[name] for name in names for slug in slugs_of(name)})
        number = len(list((ground.root / "schema").iterdir())) + 1
        ground.migration(f"{number:04}_more.sql", kind.named(kind.text).replace("{n}", str(number)))
        await renew(platform)
        run = platform.migrations.run
        return [
            await (run(blueprint=blueprint) if blueprint else run(slugs=slugs_of(name)))
            for name, blueprint in blueprints.items()
        ]

    return submitting


async def test_killed_around_every_step(kind: Kind, ground: Ground, submit: Any, killed: Killed) -> None:
    """A migration whose worker is killed anywhere brings each tenant to the new schema, each statement once."""
    waves = () if kind.shared else ("wave 1",)  # shared tables are one of one
    moments = [CLAIMED, *steps("template", "canary", *waves), *kind.moments, *END]
    async with ground.open() as platform:
        cases = await killed(f"migrate, {kind.name}", ground, platform, moments, submit)
        for order, case in enumerate(cases):
            items = await platform.operations.items(case.operation.id)
            assert len(items) == (1 if kind.shared else TENANTS)
            for slug in slugs_of(f"t{order:02}"):
                number = int(items[0].arguments["to"][:4])
                assert await version_of(platform, slug) >= number
                rows = await kind.look(ground, platform, slug, kind.seen.replace("{n}", str(number)))
                assert [int(row[0]) for row in rows] == [1]
        rest = await platform.migrations.run()  # those of the first kills are behind what was written for the last
        assert (await platform.operations.finish(rest.id)).operation.state is State.DONE
        assert await g.faults_of(platform) == []


async def version_of(platform: Platform, slug: str) -> int:
    """The number of the schema that the registry has of a tenant's database."""
    (environment,) = (await platform.tenants.show(slug)).environments
    (version,) = [place.version for place in environment.places if place.name == "db"]
    return int(str(version)[:4])


# --- in the middle of a statement ---------------------------------------------------------------------------------


async def test_killed_inside_a_statement(kind: Kind, ground: Ground, tmp_path: Path, record_property: Any) -> None:
    """A worker killed while a statement runs leaves a tenant that serves; the next run changes each row once."""
    async with ground.open() as platform:
        await populate(ground, platform, {"acme": "lab0" if kind.shared else None})

        async def look(statement: str) -> list[Any]:
            found: list[Any] = await kind.look(ground, platform, "acme", statement)
            return found

        await look("INSERT INTO page VALUES (1, 'a')")
        await look(f"INSERT INTO tempo VALUES ({SLOW_SECONDS})")
        ground.migration("0002_slow.sql", kind.named(f"{kind.slow};\n"))
        await renew(platform)
        operation = await platform.migrations.run()
        with ground.worker() as doomed:
            await g.until(lambda: running(kind, ground, look), "the slow statement")
            doomed.send_signal(signal.SIGKILL)
            doomed.wait()
        assert [tuple(row) for row in await look("SELECT title FROM page WHERE id = 1")] in ([("a",)], [("a!",)])
        assert await version_of(platform, "acme") == 1
        await g.until(lambda: hurried(look), "the end of what the killed one holds")
        with ground.worker() as fresh:
            await g.lives(platform, fresh)
            ended = await g.ended(platform, operation)
        assert ended.operation.state is State.DONE, ended
        assert [tuple(row) for row in await look("SELECT title FROM page WHERE id = 1")] == [("a!",)]
        assert await version_of(platform, "acme") == 2
        assert await g.faults_of(platform) == []


async def running(kind: Kind, ground: Ground, look: Any) -> bool:
    """Whether the slow statement runs just now."""
    if kind.busy is not None:
        return bool(await look(kind.busy))
    with contextlib.suppress(Exception):
        return await asyncio.to_thread(_is_locked, ground.database("acme"))
    return False


def _is_locked(path: Path) -> bool:
    import sqlite3

    with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


async def hurried(look: Any) -> bool:
    """Let the slow statement be quick from now on."""
    await look("UPDATE tempo SET n = 0")
    return True


# --- around a program ---------------------------------------------------------------------------------------------

PROGRAM = """
import contextlib, os, sqlite3

with contextlib.closing(sqlite3.connect(os.environ["TENANTRY_DATABASE_FILE"])) as connection, connection:
    connection.execute("CREATE TABLE IF NOT EXISTS step (version TEXT PRIMARY KEY)")
    connection.execute("INSERT OR IGNORE INTO step VALUES (?)", (os.environ["TENANTRY_TO"],))
"""
COMMAND = "tenantry.resources.command.Program"
AROUND_PROGRAM = [
    CLAIMED,
    *at(COMMAND, "run"),
    *at("tenantry.resources.migrator", "enter"),
    *steps("canary")[1:],
    END[1],
]


async def programmed(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    await populate(ground, platform, names)
    (ground.root / "VERSION").write_text(f"{len(names)}.1")
    await renew(platform)
    return [await platform.migrations.run(slugs=[name]) for name in names]


async def test_killed_around_a_program(tmp_path: Path, killed: Killed) -> None:
    """An application's own program is run until its version is recorded; one that had run is run again."""
    declared = f'schema = {{{{command = "{sys.executable} upgrade.py", version = "cat VERSION", files = ["VERSION"]}}}}'
    ground = Ground(tmp_path / "platform", g.TOML.replace('schema = "schema/"', declared))
    (ground.root / "upgrade.py").write_text(PROGRAM)
    (ground.root / "VERSION").write_text("1")
    async with ground.open() as platform:
        cases = await killed("migrate, a program", ground, platform, AROUND_PROGRAM, programmed)
        for case in cases:
            (item,) = await platform.operations.items(case.operation.id)
            assert ground.sql(item.subject, "SELECT version FROM step ORDER BY version")[-1] == (item.arguments["to"],)
        assert await g.faults(ground, platform) == []
