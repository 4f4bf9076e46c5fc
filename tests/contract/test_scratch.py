"""Rehearsing on a scratch copy: what each migration would do is told, the tenant's own stays, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mysql_world import MysqlWorld
from prefix_world import MysqlPrefixWorld, PrefixWorld
from tenantry.errors import ResourceError, TenantryError
from tenantry.model import Environment, Held, Rehearsed
from tenantry.resources import Resource
from tenantry.resources.scratch import NoRoom, clear, folder, need
from tenantry.resources.sqlite import BESIDE
from worlds import BROKEN, PostgresWorld, World

MADE = {"schema": "schema", "seed": "seed.sql"}
ROOM = 1 << 30


@pytest.fixture
def world(world: World) -> World:
    """A platform for each kind that can be rehearsed."""
    if not world.resource().can_rehearse:
        pytest.skip(f"a {world.kind} cannot be rehearsed")
    return world


async def made(world: World, slug: str = "acme") -> tuple[Resource, Environment]:
    """A tenant at the second migration."""
    resource, env = world.resource(), world.environment(slug)
    await resource.create(env)
    return resource, env


def left(world: World) -> set[str]:
    """What there is of tenants, and of copies of them."""
    copies = {str(path) for path in (world.root / "var" / "scratch").rglob("*")}
    if isinstance(world, PostgresWorld):
        with psycopg.connect(world.server.url()) as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE 'tenantry\\_x\\_%' "
                "UNION SELECT rolname FROM pg_roles WHERE rolname LIKE 'tenantry\\_x\\_%'"
            )
            copies |= {str(row[0]) for row in rows}
    # SQLite's own files beside one: whether they stay hangs on which connection closes last
    return {name for name in world.files() | copies if not name.endswith(BESIDE)}


async def test_a_rehearsal_tells_each_migration_and_leaves_nothing(world: World) -> None:
    """Each pending migration is tried by itself; the tenant stays at its version with its rows; no copy is left."""
    resource, env = await made(world)
    world.use(resource, env, "kept")
    there = left(world)
    world.migration("0003_titles.sql", world.third)
    world.migration("0004_more.sql", "CREATE TABLE more (id INTEGER PRIMARY KEY);\n")
    resource = world.resource()
    found = await resource.rehearse(env, None, ROOM)
    assert (found.before, found.target, found.failure) == ("0002_bodies", "0004_more", None)
    assert [one.version for one in found.tried] == ["0003_titles", "0004_more"]
    assert found.bytes > 0
    assert await resource.version(env) == "0002_bodies"
    assert "kept" in world.look(resource, env)
    assert "more" not in world.tables(resource, env)
    assert left(world) == there


async def test_a_migration_that_would_fail(world: World) -> None:
    """What fails on the copy is told with the server's words; what is before it counts; the tenant is as it was."""
    resource, env = await made(world)
    world.migration("0003_titles.sql", world.third)
    world.migration("0004_half.sql", BROKEN)
    resource, there = world.resource(), left(world)
    found = await resource.rehearse(env, None, ROOM)
    assert [one.version for one in found.tried] == ["0003_titles"]
    assert found.failure is not None
    assert found.failure.code == "migration.failed"
    assert "0004_half" in found.failure.message
    assert await resource.version(env) == "0002_bodies"
    assert left(world) == there


async def test_data_decides(world: World) -> None:
    """The copy has the tenant's own rows: a migration that they break fails for this tenant, and not for another."""
    resource, env = await made(world)
    _, other = await made(world, "umbrella")
    for _ in range(2):
        world.use(resource, env, "twice")
    unique = "title(50)" if isinstance(world, MysqlWorld | MysqlPrefixWorld) else "title"
    world.migration("0003_one.sql", f"CREATE UNIQUE INDEX one_title ON page ({unique});\n")
    resource = world.resource()
    assert (await resource.rehearse(env, None, ROOM)).failure is not None
    assert (await resource.rehearse(other, None, ROOM)).failure is None


async def test_back_down(world: World) -> None:
    """A way back is rehearsed as the way up is."""
    resource, env = await made(world)
    found = await resource.rehearse(env, "0001_pages", ROOM)
    assert ([one.version for one in found.tried], found.target) == (["0002_bodies"], "0001_pages")
    assert (await resource.rehearse(env, "0002_bodies", ROOM)).tried == ()


async def test_two_at_once(world: World) -> None:
    """Rehearsals of one tenant at the same time do not meet, and a tidy meanwhile takes nothing from them."""
    resource, env = await made(world)
    world.migration("0003_titles.sql", world.third)
    resource = world.resource()
    there = left(world)
    found: list[Any] = await asyncio.gather(
        *(resource.rehearse(env, None, ROOM) for _ in range(3)), resource.tidy(), world.resource().tidy()
    )
    assert [one.failure for one in found if isinstance(one, Rehearsed)] == [None] * 3
    assert left(world) == there


async def test_a_copy_that_outgrows_its_room(world: World) -> None:
    """A migration that fills the copy beyond its room is stopped and told as that; nothing is left."""
    resource, env = await made(world)
    world.use(resource, env, "x")
    double = 13 * "INSERT INTO page (title) SELECT title FROM page;\n"
    grown = {
        "sqlite": double + "UPDATE page SET body = printf('%.8000c', 'x');\n",
        "mysql": double + "UPDATE page SET body = repeat('x', 8000);\n",
        "postgres": f"ALTER TABLE page ALTER body SET STORAGE PLAIN;\n{double}"
        "UPDATE page SET body = repeat('x', 7000);\n",
        "rows": "UPDATE page SET body = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000000) i);\n",
    }
    kind = world.server_kind if isinstance(world, PrefixWorld) else world.kind
    world.migration("0003_rows.sql", grown[kind])
    resource, there = world.resource(), left(world)
    (size,) = await resource.weigh_many([env])
    assert isinstance(size, int)
    with pytest.raises(NoRoom):
        await resource.rehearse(env, None, size + (8 << 20))
    assert left(world) == there


async def test_one_that_is_not_there(world: World) -> None:
    """A tenant without its database is told as that."""
    resource = world.resource()
    with pytest.raises(TenantryError):
        await resource.rehearse(world.environment(), None, ROOM)
    assert left(world) == set() or isinstance(world, MysqlWorld)


async def test_kinds_without_a_schema_refuse(tmp_path: Path) -> None:
    """A directory has no migrations to rehearse, and says so."""
    world = World("directory", tmp_path, {})
    resource = world.resource()
    assert not resource.can_rehearse
    with pytest.raises(ResourceError, match="cannot be rehearsed"):
        await resource.rehearse(world.environment(), None, ROOM)


# --- locks --------------------------------------------------------------------------------------------------------

LOCKING = """
ALTER TABLE page ALTER COLUMN title DROP NOT NULL;
CREATE INDEX page_body ON page (body);
CREATE TABLE link (id integer PRIMARY KEY, page integer REFERENCES page, more integer REFERENCES other);
UPDATE third SET id = id + 1;
"""


@pytest.mark.postgres
async def test_locks_on_postgresql(postgres_world: PostgresWorld) -> None:
    """The strongest lock on each table that was there is named with what waits for it, however short it was held."""
    world = postgres_world
    world.migration("0003_others.sql", "CREATE TABLE other (id integer PRIMARY KEY); CREATE TABLE third (id integer);")
    resource, env = await made(world)
    world.migration("0004_locking.sql", LOCKING)
    world.migration(
        "0005_python.py", "def upgrade(connection):\n    connection.exec_driver_sql('TRUNCATE other CASCADE')\n"
    )
    world.migration("0006_rows.sql", "SELECT count(*) FROM page;\n")
    resource = world.resource()
    found = await resource.rehearse(env, None, ROOM)
    assert found.failure is None
    first, second, third = found.tried
    told = {held.table: (held.mode, held.blocks) for held in first.locks}
    assert told == {
        "page": ("ACCESS EXCLUSIVE", "reads and writes"),
        "other": ("SHARE ROW EXCLUSIVE", "writes"),
        "third": ("ROW EXCLUSIVE", ""),
    }
    assert all(0 <= held.seconds <= 60 for held in first.locks)
    assert first.rewritten == ()
    assert ("other", "ACCESS EXCLUSIVE") in {(held.table, held.mode) for held in second.locks}
    assert "other" in second.rewritten
    assert third.locks == ()


@pytest.mark.postgres
async def test_a_lock_that_is_held_for_long(postgres_world: PostgresWorld) -> None:
    """How long a lock was held counts from when it was taken to the end of the transaction, not from its beginning."""
    _resource, env = await made(postgres_world)
    postgres_world.migration(
        "0003_slow.sql",
        "SELECT pg_sleep(0.6); ALTER TABLE page ALTER id TYPE bigint; SELECT pg_sleep(0.3); LOCK tenantry_user;",
    )
    (slow,) = (await postgres_world.resource().rehearse(env, None, ROOM)).tried
    held = {one.table: one for one in slow.locks}
    assert slow.rewritten == ("page",)
    assert 0.3 <= held["page"].seconds < slow.seconds - 0.3
    assert held["tenantry_user"].seconds < held["page"].seconds


async def test_locks_on_mariadb(mysql_world: MysqlWorld) -> None:
    """Each table whose definition changes is named, and those that are written anew."""
    _resource, env = await made(mysql_world)
    mysql_world.migration("0003_added.sql", "ALTER TABLE page ADD COLUMN more INT;\n")
    mysql_world.migration("0004_anew.sql", "ALTER TABLE page MODIFY more BIGINT;\n")
    first, second = (await mysql_world.resource().rehearse(env, None, ROOM)).tried
    for one in (first, second):
        assert one.locks == (Held("page", "exclusive metadata lock", "reads and writes", 0.0),)
    assert (first.rewritten, second.rewritten) == ((), ("page",))


# --- folders ------------------------------------------------------------------------------------------------------


def test_folders_of_the_living_stay(tmp_path: Path) -> None:
    """A folder in use is not cleared away; one that nobody holds is, and the folder of all with the last."""
    with folder(tmp_path) as mine:
        (tmp_path / mine / "file").write_text("in use")
        dead = tmp_path / "scratch" / "dead"
        (dead / "deep").mkdir(parents=True)
        assert clear(tmp_path) == ["scratch/dead"]
        assert (tmp_path / mine / "file").read_text() == "in use"
    assert not (tmp_path / "scratch").exists()
    assert clear(tmp_path) == []


def test_a_link_among_the_folders_is_no_way_out(tmp_path: Path) -> None:
    """A link in the folder of scratch copies leads `clear` nowhere."""
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (tmp_path / "data" / "scratch").mkdir(parents=True)
    (tmp_path / "data" / "scratch" / "link").symlink_to(outside)
    with contextlib.suppress(OSError):
        clear(tmp_path / "data")
    assert (outside / "kept").is_dir()


def test_room() -> None:
    """What is set aside for a copy grows with it, and is never nothing."""
    assert need(0) > 0
    assert need(1 << 30) >= 2 << 30
