"""What tables with a prefix promise beside the contract of all kinds; on PostgreSQL and on MariaDB."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_world import MysqlPrefixWorld, PrefixWorld
from tenantry.config import ResourceSpec
from tenantry.errors import ConfigError, MigrationError, MigrationInvalid, NameTaken, ResourceError, ServerUnfit
from tenantry.model import Finding, Place
from tenantry.resources import Resource, Setting, build, prefix_names
from tenantry.resources.prefix import Prefix
from tenantry.resources.prefix_copy import CopyDamaged


@pytest.fixture
def world(prefix_world: PrefixWorld) -> PrefixWorld:
    """A platform whose tenants share a database."""
    return prefix_world


def faults(findings: list[Finding]) -> list[str]:
    """What is not as it should be."""
    return [finding.what for finding in findings if not finding.ok]


# --- names --------------------------------------------------------------------------------------------------------

SLUGS = st.from_regex(r"\A[a-z0-9](?:-?[a-z0-9]){0,40}\Z")


@given(SLUGS, SLUGS)
def test_no_prefix_begins_another(one: str, other: str) -> None:
    """Two slugs have two prefixes of which neither begins the other, or one and the same, which is seen as taken."""
    first, second = (prefix_names.prefixes("{slug}__", {"slug": slug}, "0" * 8) for slug in (one, other))
    for a in first:
        assert len(a) <= prefix_names.PREFIX_LIMIT
        assert a[0].isalpha()
        for b in second:
            assert a == b or not (a.startswith(b) or b.startswith(a))


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{slug}_", "it must end with __"),
        ("shop__", "tell tenants apart"),
        ("{name}__", "tell tenants apart"),
        ("{slug}_{plan}__", "not {plan}"),
        ("a__{slug}__", "single _"),
        ("_{slug}__", "begins with a letter"),
        ("7{slug}__", "begins with a letter"),
        ("Shop_{slug}__", "a-z"),
        ("{slug}___", "single _"),
        ("shop-{slug}__", "a-z"),
    ],
)
def test_patterns_that_could_meet_are_refused(tmp_path: Path, pattern: str, reason: str) -> None:
    """A pattern by which one prefix could begin another, or two tenants share one, is refused with its value."""
    spec = ResourceSpec.model_validate({"kind": "prefix", "on": "mysql", "prefix": pattern})
    with pytest.raises(ConfigError) as caught:
        build("part", spec, Setting("site", tmp_path, tmp_path))
    assert reason in str(caught.value)
    assert repr(pattern) in str(caught.value)


def test_the_kind_of_server_is_told_or_asked_for(tmp_path: Path) -> None:
    """`on`, the server's own kind or the only kind there is tells which server is meant; else that is asked for."""

    def made(kinds: dict[str, str], **options: object) -> str | None:
        setting = Setting("site", tmp_path, tmp_path, server_kinds=kinds)
        return build("part", ResourceSpec.model_validate({"kind": "prefix", **options}), setting).server_kind

    both = {"a": "mysql", "b": "postgres"}
    assert made({}, on="postgres") == "postgres"
    assert made({"a": "mysql"}) == "mysql"
    assert made(both, server="b") == "postgres"
    for kinds in ({}, both):
        with pytest.raises(ConfigError, match='Add on = "mysql" or on = "postgres"'):
            made(kinds)


def test_an_alembic_directory_is_refused(world: PrefixWorld) -> None:
    """Alembic's tables have fixed names: the directory is refused before anything is made."""
    (world.root / "schema" / "versions").mkdir()
    with pytest.raises(ConfigError, match="an Alembic directory"):
        world.resource()


async def test_a_long_or_second_name_ends_with_digits(world: PrefixWorld) -> None:
    """A slug that is too long is cut, and two environments of one tenant get two prefixes that both work."""
    resource = world.resource()
    env = world.environment("a-very-long-slug-of-a-tenant-that-goes-on")
    first, apart = resource.names(env)
    assert first == apart
    assert len(first.partition("/")[2]) <= prefix_names.PREFIX_LIMIT
    await resource.create(env)
    assert faults(await resource.check(env)) == []


# --- whose it is --------------------------------------------------------------------------------------------------


async def test_tables_of_somebody_else_are_never_touched(world: PrefixWorld) -> None:
    """Where tables begin so already the tenant is not made; a drop takes its own ones and no similar name."""
    resource, env = world.resource(), world.environment()
    strange = ["acme_page", "acme", "acmexxpage", "bacme__page", "page"]
    for name in strange:
        world.run(f"CREATE TABLE {name} (id INTEGER)")
    await resource.create(env)
    await resource.drop(env)
    assert {name for name in world.everything() if not name.startswith("tenantry_prefix")} == set(strange)
    world.run("CREATE TABLE acme__old (id INTEGER)")
    with pytest.raises(NameTaken, match="acme__old"):
        await resource.create(env)
    await resource.drop(env)
    assert "acme__old" in world.everything()


async def test_a_prefix_belongs_to_one_environment(world: PrefixWorld) -> None:
    """Another environment that comes to the same prefix is refused, and a drop of it leaves the owner's tables."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    twin = world.environment()
    with pytest.raises(NameTaken, match="acme__"):
        await resource.create(twin)
    await resource.drop(twin)
    assert not await resource.exists(twin)
    assert faults(await resource.check(env)) == []


async def test_what_others_need_is_not_dropped(world: PrefixWorld) -> None:
    """A foreign key from another prefix is found by the check, and keeps the tables from being dropped."""
    resource, env, other = world.resource(), world.environment(), world.environment("umbrella")
    for one in (env, other):
        await resource.create(one)
    world.run("CREATE TABLE umbrella__link (page INTEGER, CONSTRAINT lk FOREIGN KEY (page) REFERENCES acme__page (id))")
    assert "lk leads from umbrella__link to acme__page" in " ".join(faults(await resource.check(env)))
    assert "lk leads from umbrella__link to acme__page" in " ".join(faults(await resource.check(other)))
    assert "lead to its tables" in [one.attack for one in await resource.attack(other, env) if _through(one)]
    with pytest.raises(ResourceError, match="acme"):
        await resource.drop(env)
    assert await resource.exists(env)
    await resource.drop(other)
    await resource.drop(env)
    assert world.files() == set()


def _through(attempt: object) -> bool:
    return bool(getattr(attempt, "promised", False))


async def test_a_circle_of_foreign_keys_comes_and_goes(world: PrefixWorld, tmp_path: Path) -> None:
    """Tables that refer to one another in a circle, and to themselves, are copied, loaded and dropped."""
    world.migration(
        "0003_circle.sql",
        "CREATE TABLE {prefix}a (id INTEGER PRIMARY KEY, b INTEGER, up INTEGER REFERENCES {prefix}a (id));\n"
        "CREATE TABLE {prefix}b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES {prefix}a (id));\n"
        "ALTER TABLE {prefix}a ADD CONSTRAINT {prefix}a_b FOREIGN KEY (b) REFERENCES {prefix}b (id);\n",
    )
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    for statement in (
        "INSERT INTO acme__a VALUES (1, NULL, NULL), (2, NULL, 1)",
        "INSERT INTO acme__b VALUES (7, 1)",
        "UPDATE acme__a SET b = 7",
    ):
        world.run(statement)
    await resource.dump(env, tmp_path / "dump")
    world.run("UPDATE acme__a SET b = NULL")
    await resource.load(env, tmp_path / "dump")
    assert world.run("SELECT id, b, up FROM acme__a ORDER BY id") == [(1, 7, None), (2, 7, 1)]
    assert faults(await resource.check(env)) == []
    await resource.drop(env)
    assert world.files() == set()


# --- files --------------------------------------------------------------------------------------------------------

STRAY = [
    ("CREATE TABLE tag (id INTEGER);", "tag"),
    ("CREATE VIEW {prefix}v AS SELECT * FROM tag;", "tag"),
    ("CREATE VIEW tag AS SELECT 1 AS a;", "tag"),
    ("ALTER TABLE {prefix}page RENAME TO tag;", "tag"),
    ("ALTER TABLE {prefix}page ADD CONSTRAINT tag UNIQUE (id);", "tag"),
    ("CREATE TABLE {prefix}t (a INTEGER REFERENCES acme__page (id));", "acme__page"),
    ("INSERT INTO {prefix}page (title) SELECT title FROM umbrella__page;", "umbrella__page"),
    ("DROP TABLE tag;", "tag"),
    ("DROP TABLE IF EXISTS {prefix}page, tag;", "tag"),
    ("UPDATE {prefix}page SET title = (SELECT min(a) FROM tag);", "tag"),
    ("TRUNCATE TABLE tag;", "tag"),
    ('CREATE SEQUENCE "tag";', "tag"),
    ("CREATE TABLE {prefix}" + "x" * 36 + " (id INTEGER);", "longer than 35 letters"),
    ("CREATE DATABASE tag;", "DATABASE"),
]


@pytest.mark.parametrize(("statement", "name"), STRAY)
async def test_a_file_that_names_more_is_refused(world: PrefixWorld, statement: str, name: str) -> None:
    """A file that names anything without the placeholder is refused by name before any statement of it runs."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    if isinstance(world, MysqlPrefixWorld):
        statement = statement.replace('"', "`")
    world.migration("0003_stray.sql", f"CREATE TABLE {{prefix}}half (id INTEGER);\n{statement}\n")
    with pytest.raises(MigrationInvalid) as caught:
        await resource.migrate(env)
    assert name in str(caught.value)
    assert str(caught.value).startswith("0003_stray.sql: ")
    (world.root / "schema" / "0003_stray.sql").unlink()
    assert faults(await resource.check(env)) == []


GOOD = """
CREATE TABLE {prefix}tag (id INTEGER PRIMARY KEY, up INTEGER, said VARCHAR(50));
WITH few AS (SELECT id FROM {prefix}page) SELECT count(*) FROM few AS s JOIN {prefix}page p ON p.id = s.id;
INSERT INTO {prefix}tag (id, said) SELECT p.id, 'tag {prefix}' FROM {prefix}page p;
UPDATE {prefix}tag SET said = 'FROM other' WHERE id IN (SELECT id FROM {prefix}page);
DELETE FROM {prefix}tag WHERE id < 0;
ALTER TABLE {prefix}tag ADD COLUMN other INTEGER;
CREATE INDEX {prefix}tag_up ON {prefix}tag (up);
CREATE VIEW {prefix}tags AS SELECT t.said FROM {prefix}tag t;
DROP VIEW {prefix}tags;
"""


async def test_ordinary_files_run(world: PrefixWorld) -> None:
    """Aliases, common table expressions, texts and columns need no prefix."""
    world.migration("0003_good.sql", GOOD)
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    assert world.query(resource, env, "SELECT count(*) FROM {prefix}tag") == [(0,)]  # the seed comes behind
    assert faults(await resource.check(env)) == []


async def test_a_seed_that_names_more_is_refused(world: PrefixWorld) -> None:
    """The seed keeps the rules of migrations, and is looked at before any tenant is made."""
    (world.root / "seed.sql").write_text("INSERT INTO page (title) VALUES ('x');")
    with pytest.raises(MigrationInvalid, match=r"seed\.sql: it names 'page' without the prefix"):
        await world.resource().prepare()


PYTHON = """
from sqlalchemy import text

def upgrade(connection):
    connection.execute(text("CREATE TABLE {prefix}tag (id INTEGER PRIMARY KEY)"))
    connection.execute(text("INSERT INTO {prefix}tag VALUES (:id)"), {"id": 5})
    LINE
"""


async def test_python_files_have_the_prefix_put_in(world: PrefixWorld) -> None:
    """A Python file writes the placeholder as SQL files do."""
    world.migration("0003_tags.py", PYTHON.replace("LINE", ""))
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    assert world.run("SELECT id FROM acme__tag") == [(5,)]
    assert faults(await resource.check(env)) == []


async def test_python_files_keep_the_rules(world: PrefixWorld) -> None:
    """A statement of a Python file that names another table is refused before it is sent; the version stays."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.run("CREATE TABLE precious (id INTEGER)")
    world.migration("0003_tags.py", PYTHON.replace("LINE", "connection.exec_driver_sql('DROP TABLE precious')"))
    with pytest.raises((MigrationError, MigrationInvalid), match="it names 'precious' without the prefix"):
        await resource.migrate(env)
    assert "precious" in world.everything()
    assert await resource.version(env) == "0002_bodies"


# --- rehearsals ---------------------------------------------------------------------------------------------------


async def test_a_rehearsal_takes_the_tables_as_they_are(world: PrefixWorld) -> None:
    """A copy has what was changed by hand, too: one tenant's alone may refuse a migration."""
    resource, env, other = world.resource(), world.environment(), world.environment("umbrella")
    for one in (env, other):
        await resource.create(one)
    world.run("ALTER TABLE acme__page ADD COLUMN extra integer")
    world.run("UPDATE acme__page SET extra = 7")
    world.migration("0003_extra.sql", "ALTER TABLE {prefix}page ADD COLUMN extra integer;\n")
    resource, there = world.resource(), world.everything()
    failed, fine = [await resource.rehearse(one, None, 1 << 30) for one in (env, other)]
    assert failed.failure is not None
    assert "extra" in failed.failure.message
    assert (fine.failure, [one.version for one in fine.tried]) == (None, ["0003_extra"])
    (lock,) = fine.tried[0].locks
    assert (lock.table, lock.blocks) == ("page", "reads and writes")
    assert sorted(world.everything()) == sorted(there)
    world.run("ALTER TABLE acme__page DROP COLUMN extra")
    assert (await resource.rehearse(env, None, 1 << 30)).failure is None


async def test_a_migration_that_stopped_is_not_rehearsed(world: PrefixWorld) -> None:
    """What a server without transactions left half done is told, since a copy under other names cannot go on there."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.migration("0003_two.sql", "CREATE TABLE {prefix}half (id INTEGER PRIMARY KEY);\nSELECT * FROM {prefix}no;\n")
    with pytest.raises(MigrationError):
        await world.resource().migrate(env)
    world.migration("0003_two.sql", "CREATE TABLE {prefix}half (id INTEGER PRIMARY KEY);\nSELECT 1;\n")
    resource, there = world.resource(), world.everything()
    if world.server_kind == "mysql":
        with pytest.raises(ResourceError, match="0003_two stopped in the middle, behind statement 1"):
            await resource.rehearse(env, None, 1 << 30)
    else:
        assert (await resource.rehearse(env, None, 1 << 30)).failure is None
    assert sorted(world.everything()) == sorted(there)
    assert (await resource.migrate(env)).applied == ("0003_two",)


# --- what no file says --------------------------------------------------------------------------------------------

DO = """
DO $$ BEGIN EXECUTE 'CREATE TABLE hidden (id integer)'; END $$;
"""
LEADS = "DO $$ BEGIN EXECUTE 'ALTER TABLE {prefix}page ADD FOREIGN KEY (id) REFERENCES umbrella__page (id)'; END $$;"


@pytest.mark.parametrize(("statement", "name"), [(DO, "hidden"), (LEADS, "umbrella__page")])
async def test_the_catalog_tells_what_no_file_says(world: PrefixWorld, statement: str, name: str) -> None:
    """On PostgreSQL a migration that makes or binds what has no prefix, by whatever way, is rolled back by name.

    On MariaDB, whose catalog cannot tell, a text that is run as a statement is refused before.
    """
    resource, env = world.resource(), world.environment()
    for one in (env, world.environment("umbrella")):
        await resource.create(one)
    if world.server_kind == "mysql":
        refused, told = MigrationInvalid, "runs a text as a statement"
        statement = statement.replace("DO $$ BEGIN EXECUTE", "execute IMMEDIATE").replace(" END $$;", "")
    else:
        refused, told = MigrationError, f"makes or changes what has no prefix: .*{name}"
    world.migration("0003_hidden.sql", statement)
    with pytest.raises(refused, match=told):
        await resource.migrate(env)
    assert "hidden" not in world.everything()
    (world.root / "schema" / "0003_hidden.sql").unlink()
    assert await resource.version(env) == "0002_bodies"


# --- copies -------------------------------------------------------------------------------------------------------


async def test_a_copy_goes_to_another_prefix(world: PrefixWorld, tmp_path: Path) -> None:
    """What one tenant has is loaded to another one, rows, counters and users, and nothing of the first is changed."""
    resource, env, other = world.resource(), world.environment(), world.environment("umbrella")
    for one in (env, other):
        await resource.create(one)
    await resource.enrol(env, "a@acme", "hash", "admin")
    marks = ["it's \\ 'quoted'", "line one\nline two\t\\N \\.", "{prefix}page", "ä € 😀", "%s %(a)s"]
    for mark in marks:
        quoted = mark.replace("'", "''").replace("\\", "\\\\" if world.server_kind == "mysql" else "\\")
        world.run(f"INSERT INTO acme__page (title) VALUES ('{quoted}')")
    world.query(resource, env, "DELETE FROM page WHERE id = 6")
    before = world.look(resource, env)
    await resource.dump(env, tmp_path / "dump")
    await resource.load(other, tmp_path / "dump")
    assert world.look(resource, other) == before == world.look(resource, env)
    world.use(resource, other, "next")
    assert world.query(resource, other, "SELECT id FROM page WHERE title = 'next'") == [(7,)]  # 6 is not used again
    assert world.query(resource, other, "SELECT login FROM tenantry_user") == [("a@acme",)]
    for one in (env, other):
        assert faults(await resource.check(one)) == []


async def test_an_older_copy_is_loaded_at_its_version(world: PrefixWorld, tmp_path: Path) -> None:
    """A copy of an older schema brings that schema back; a migration brings it forward again."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.use(resource, env, "old")
    await resource.dump(env, tmp_path / "dump")
    world.migration("0003_index.sql", world.third)
    await resource.migrate(env)
    await resource.load(env, tmp_path / "dump")
    assert await resource.version(env) == "0002_bodies"
    assert "old" in world.look(resource, env)
    await resource.migrate(env)
    assert faults(await resource.check(env)) == []


@pytest.mark.parametrize("damage", ["cut", "format", "column", "row", "nothing"])
async def test_a_damaged_copy_changes_nothing(world: PrefixWorld, tmp_path: Path, damage: str) -> None:
    """A copy that was cut off, is of another format or holds what the schema has not is refused; all stays."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.use(resource, env, "kept")
    await resource.dump(env, tmp_path / "dump")
    path = tmp_path / "dump" / "part"
    text = path.read_bytes()
    changed = {
        "cut": text[:-5],
        "format": text.replace(b'"format": 1', b'"format": 9', 1),
        "column": text.replace(b'"title"', b'"titel"', 1),
        "row": text.replace(b"\n\\.\n", b"\nno row at all)\n\\.\n", 1),
        "nothing": b"",
    }
    path.write_bytes(changed[damage])
    before, files = world.look(resource, env), world.files()
    with pytest.raises((CopyDamaged, ResourceError)):
        await resource.load(env, tmp_path / "dump")
    assert world.look(resource, env) == before
    assert world.files() == files
    assert faults(await resource.check(env)) == []


async def test_many_rows_are_copied(world: PrefixWorld, tmp_path: Path) -> None:
    """A table of many rows and long texts is dumped and loaded in pieces."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    rows = ", ".join(f"('{'long ' * 40}{number}')" for number in range(5000))
    world.query(resource, env, f"INSERT INTO page (title) VALUES {rows}")
    await resource.dump(env, tmp_path / "dump")
    world.query(resource, env, "DELETE FROM page")
    await resource.load(env, tmp_path / "dump")
    assert world.query(resource, env, "SELECT count(*), count(DISTINCT title) FROM page") == [(5001, 5001)]


async def test_a_copy_keeps_no_null_or_bytes_back(world: PrefixWorld, tmp_path: Path) -> None:
    """Nulls, empty texts, bytes, dates and numbers come back as they were; computed columns are computed again."""
    blob, stored = ("bytea", "STORED") if world.server_kind == "postgres" else ("blob", "STORED")
    world.migration(
        "0003_types.sql",
        f"CREATE TABLE {{prefix}}t (id INTEGER PRIMARY KEY, a VARCHAR(9), b {blob}, c DATE, d DECIMAL(9, 3), "
        f"e INTEGER GENERATED ALWAYS AS (id * 2) {stored});",
    )
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    octets = "'\\x00ff5c0a'" if world.server_kind == "postgres" else "X'00ff5c0a'"
    world.run(f"INSERT INTO acme__t (id, a, b, c, d) VALUES (0, NULL, {octets}, '1999-12-31', -0.125), "
              "(1, '', NULL, NULL, NULL)")  # fmt: skip
    before = world.run("SELECT * FROM acme__t ORDER BY id")
    await resource.dump(env, tmp_path / "dump")
    world.run("DELETE FROM acme__t")
    await resource.load(env, tmp_path / "dump")
    assert world.run("SELECT * FROM acme__t ORDER BY id") == before


# --- servers ------------------------------------------------------------------------------------------------------


async def test_a_login_that_is_refused_is_told_without_the_password(world: PrefixWorld) -> None:
    """A wrong password is told with the server's name, and is in no message."""
    resource, env = world.resource(), world.environment()
    wrong = world.url.replace(":" + world.url.split(":")[2].partition("@")[0], ":s3cret")
    resource.setting.servers.replace([replace(world.described(), admin=wrong)])
    with pytest.raises(ServerUnfit) as caught:
        await resource.create(env)
    assert "s3cret" not in str(caught.value)
    assert "db" in str(caught.value)


async def test_an_unknown_database_is_told(world: PrefixWorld) -> None:
    """A place in a database that is not there is an error that names it."""
    resource, env = world.resource(), world.environment()
    lost = replace(env, places=(Place("part", "prefix", "nowhere_at_all/acme__", server="db"),))
    with pytest.raises((ServerUnfit, ResourceError), match="nowhere_at_all"):
        await resource.create(lost)


CREATE = """
import asyncio, sys
from pathlib import Path
from tenantry.config import ResourceSpec
from tenantry.model import Environment, Place, Server, Status, Tenant
from tenantry.resources import Servers, Setting, build
root, kind, url, location, environment = sys.argv[1:]
plain = url.partition("://")[0] + "://" + url.rpartition("@")[2]
setting = Setting(
    "site", Path(root), Path(root) / "var", users=True,
    servers=Servers([Server("db", kind, plain, url)]), server_kinds={"db": kind},
)
options = {"kind": "prefix", "schema": "schema", "seed": "seed.sql"}
resource = build("part", ResourceSpec.model_validate(options), setting)
tenant = Tenant("t", "acme", "Acme", "site", None, Status.ACTIVE)
env = Environment(environment, "production", tenant, "home", (Place("part", "prefix", location, server="db"),))
asyncio.run(resource.prepare())
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(resource.create(env))
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
async def test_a_killed_create_is_whole_after_the_next(world: PrefixWorld, delay: float) -> None:
    """A process that is killed at any moment of a create leaves what the next create makes whole, or a drop removes."""
    for number in range(3, 9):
        world.migration(f"{number:04}_t.sql", f"CREATE TABLE {{prefix}}t{number} (id INTEGER PRIMARY KEY);")
    resource, envs = world.resource(), [world.environment("acme"), world.environment("gone")]
    for env in envs:
        given = (str(world.root), world.server_kind, world.url, resource.locate(env), env.id)
        command = [sys.executable, "-c", CREATE, *given]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            process.stdin.write(b"\n")
            process.stdin.flush()
            time.sleep(delay)
            process.kill()
    await resource.create(envs[0])
    assert faults(await resource.check(envs[0])) == []
    await resource.drop(envs[1])
    await resource.drop(envs[0])
    assert world.files() == set()


async def test_tidy_leaves_what_is_in_use(world: PrefixWorld) -> None:
    """A prefix for the time of a call stays while its maker holds its lock."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    name = world.leave(resource, env, "half")
    assert isinstance(resource, Prefix)
    lock = f"{world.database}/zhalf__"
    with resource._connect(world.described(), world.database) as holder, resource._locked(holder, lock):
        assert await resource.tidy() == []
    assert await resource.tidy() == [name]


def dumped(path: Path) -> list[object]:
    """The lines of a copy that tell what comes."""
    return [json.loads(line) for line in path.read_bytes().splitlines() if line.startswith(b"{")]


async def test_a_copy_has_names_without_prefix(world: PrefixWorld, tmp_path: Path) -> None:
    """Nothing in a copy tells the prefix it came from."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    await resource.dump(env, tmp_path / "dump")
    assert b"acme" not in (tmp_path / "dump" / "part").read_bytes()
    assert {"whole": True} in dumped(tmp_path / "dump" / "part")


def test_one_resource_of_each_form(world: PrefixWorld) -> None:
    """Both forms are of one kind, under which the registry keeps their places."""
    resource: Resource = world.resource()
    assert (resource.kind, resource.server_kind, resource.shared) == ("prefix", world.server_kind, True)
