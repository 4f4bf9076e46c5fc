"""One suite for every kind of resource: what its contract says holds for each driver alike."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tenantry import paths, users
from tenantry.config import ResourceSpec
from tenantry.errors import ConfigError, MigrationError, MigrationInvalid, ResourceError, UnknownKind
from tenantry.model import Attempt, Environment, Finding, Migrated, Untried, Usage, breaches
from tenantry.resources import Resource, Setting, build, database, kinds
from worlds import BROKEN, FIRST, SECOND, RenderedWorld, SqliteWorld, World, environment


@pytest.fixture
def schema_world(world: World) -> World:
    """A platform for each kind that has a schema; the others skip."""
    if not kinds()[world.kind].has_schema:
        pytest.skip(f"{world.kind} has no schema")
    return world


@pytest.fixture
def sqlite_world(tmp_path: Path) -> World:
    """A platform with SQLite files and an empty schema directory."""
    (tmp_path / "schema").mkdir()
    return SqliteWorld("sqlite", tmp_path, {"schema": "schema"})


# --- life ---------------------------------------------------------------------------------------------------------


async def test_create_makes_it_once_and_keeps_it(world: World) -> None:
    """It is not there, then it is; a second create keeps what is in it."""
    resource, env = world.resource(), world.environment()
    assert not await resource.exists(env)
    await resource.create(env)
    assert await resource.exists(env)
    if world.kind == "rendered":  # it holds nothing of its own: a create writes it anew
        return
    world.use(resource, env, "kept")
    await resource.create(env)
    assert "kept" in world.look(resource, env)


async def test_check_finds_it_sound(world: World) -> None:
    """A new resource has findings, and all are good."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    findings = await resource.check(env)
    assert findings
    assert [finding for finding in findings if not finding.ok] == []


async def test_check_names_what_is_missing(world: World) -> None:
    """A resource that is not there is one finding that says so, with a remedy."""
    (finding,) = await world.resource().check(world.environment())
    assert not finding.ok
    assert "missing" in finding.what
    assert finding.remedy


async def test_check_names_the_damage(world: World) -> None:
    """A damaged resource has a finding that says what is wrong and what to do."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.damage(resource, env)
    faults = [finding for finding in await resource.check(env) if not finding.ok]
    assert faults
    assert any(word in faults[0].what for word in ("damaged", "leads to /etc", "differs"))
    assert all(fault.remedy for fault in faults)


async def test_what_is_dumped_can_be_loaded(world: World, tmp_path: Path) -> None:
    """A dump brings back exactly what was there, over a changed resource and after a drop."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.use(resource, env, "before")
    before = world.look(resource, env)
    await resource.dump(env, tmp_path / "dump")
    world.use(resource, env, "after")
    assert world.look(resource, env) != before or world.kind == "directory"
    await resource.load(env, tmp_path / "dump")
    assert world.look(resource, env) == before
    await resource.drop(env)
    await resource.load(env, tmp_path / "dump")
    assert world.look(resource, env) == before


async def test_a_dump_that_is_missing_changes_nothing(world: World, tmp_path: Path) -> None:
    """Loading from where no dump lies is an error that names the resource, and what was there stays."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    before = world.look(resource, env)
    with pytest.raises(ResourceError, match=f"{world.kind} 'part' of 'acme': load failed"):
        await resource.load(env, tmp_path / "nothing")
    assert world.look(resource, env) == before


async def test_measure_grows_with_use(world: World) -> None:
    """What is put in shows in the figures."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    before = await resource.measure(env)
    world.use(resource, env, secrets.token_hex(9000))
    after = await resource.measure(env)
    assert after.bytes > before.bytes
    assert after.rows == before.rows + (1 if resource.has_schema else 0)


async def test_no_attack_crosses(world: World) -> None:
    """No attack that a kind promises to keep out gets through, and the attempts leave nothing behind."""
    resource, env, other = world.resource(), world.environment(), world.environment("umbrella")
    await resource.create(env)
    await resource.create(other)
    before = world.files()
    for attempts in (await resource.attack(env, other), await resource.attack(other, env)):
        assert attempts
        assert breaches(attempts) == []
        assert [one for one in attempts if isinstance(one, Untried)] == []
    assert world.files() == before


async def test_an_attack_finds_what_is_shared(world: World) -> None:
    """Two environments that lie in one place are a breach: the attacks are able to find one."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    assert breaches(await resource.attack(env, env))


async def test_a_canary_is_seen_where_it_was_planted_alone(world: World) -> None:
    """A canary is found by its own environment alone, changes no schema, and is gone when it is removed."""
    resource, env, other = world.resource(), world.environment(), world.environment("umbrella")
    for one in (env, other):
        await resource.create(one)
    before = world.look(resource, env)
    await resource.plant(env, "canary-1")
    await resource.plant(env, "canary-2")
    assert await resource.seek(env, "canary-") in (["canary-2"], [])  # what holds no data takes no canary
    assert await resource.seek(other, "canary-") == []
    if resource.has_schema:
        assert await resource.seek(env, "canary-") == ["canary-2"]
        assert [finding.what for finding in await resource.check(env) if not finding.ok] == []
    for _ in range(2):
        await resource.uproot(env)
    assert await resource.seek(env, "canary-") == []
    assert world.look(resource, env) == before


async def test_drop_leaves_nothing_and_repeats(world: World) -> None:
    """A drop removes every file, can be repeated, and a create after it begins anew."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.use(resource, env, "old")
    await resource.drop(env)
    await resource.drop(env)
    assert not await resource.exists(env)
    assert world.files() == set()
    await resource.create(env)
    assert "old" not in world.look(resource, env)
    assert all(finding.ok for finding in await resource.check(env))


async def test_many_are_made_in_order_and_errors_stay_in_place(world: World) -> None:
    """A batch gives one result for each environment, in order; one that fails does not stop the others."""
    resource = world.resource()
    envs = [world.environment(f"t{number}") for number in range(5)]
    spoiled = world.spoil(resource, envs[2])
    if spoiled is not None:
        envs[2] = spoiled
    results = await resource.create_many(envs, parallel=3)
    failed = [place for place, result in enumerate(results) if result is not None]
    assert failed == ([] if spoiled is None else [2])
    made = [env for number, env in enumerate(envs) if number not in failed]
    assert [await resource.exists(env) for env in made] == [True] * (5 - len(failed))
    assert not (world.root / "outside").exists()


async def test_two_tasks_may_create_the_same(world: World) -> None:
    """Two creates of one environment at once make one sound resource."""
    resource, env = world.resource(), world.environment()
    await asyncio.gather(*(resource.create(env) for _ in range(8)))
    assert all(finding.ok for finding in await resource.check(env))
    assert len(world.files()) == world.pieces


async def test_place_says_where_it_lies(world: World) -> None:
    """The place has the resource's name, kind, location and version."""
    resource, env = world.resource(), world.environment()
    place = resource.place(env, resource.newest)
    assert (place.name, place.kind, place.version) == ("part", world.kind, resource.newest)
    assert place.location == resource.locate(env)


@pytest.mark.parametrize("file", ["half", "dead"])
async def test_tidy_removes_what_a_killed_process_left(world: World, file: str) -> None:
    """A file in the making whose maker is dead is removed and named, nothing else."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    if world.kind == "memory":
        pytest.skip("memory leaves no files")
    before = world.files()
    left = world.leave(resource, env, file)
    assert await resource.tidy() == [left]
    assert world.files() == before
    assert await resource.tidy() == []


async def test_unknown_options_and_kinds_are_named(world: World) -> None:
    """A wrong option is named with the ones there are, a wrong kind with all kinds."""
    with pytest.raises(ConfigError, match=r"blueprints\.site\.resources\.part\.colour: .* has no such option"):
        world.resource(**world.options, colour="red")
    with pytest.raises(UnknownKind, match="There is no resource kind 'cassette'"):
        build("part", ResourceSpec(kind="cassette"), world.setting())


class Remote(Resource):
    """A driver written with coroutines, as one for a server is; what it cannot do raises an error of its own."""

    kind = "remote"
    faults = (ConnectionError, LookupError)

    def __init__(self, setting: Setting) -> None:
        super().__init__("part", None, setting)
        self.there: set[str] = set()

    async def _exists(self, env: Environment) -> bool:
        await asyncio.sleep(0)
        return env.id in self.there

    async def _create(self, env: Environment) -> None:
        await asyncio.sleep(0)
        if env.tenant.slug == "full":
            raise ConnectionError("no room")
        self.there.add(env.id)

    async def _check(self, env: Environment) -> list[Finding]:
        return [Finding(self.name, True, "there")]

    async def _measure(self, env: Environment) -> Usage:
        return Usage(rows=1)

    async def _dump(self, env: Environment, into: Path) -> None:
        (into / self.name).touch()

    async def _load(self, env: Environment, source: Path) -> None:
        self.there.add(env.id)

    async def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        return []

    async def _drop(self, env: Environment) -> None:
        self.there.discard(env.id)


async def test_a_driver_may_be_written_with_coroutines(tmp_path: Path) -> None:
    """The contract calls coroutines as it calls functions: errors named once, batches in order."""
    resource = Remote(Setting("site", tmp_path, tmp_path / "var"))
    envs = [environment("a"), environment("full"), environment("b")]
    results = await resource.create_many(envs)
    assert [type(result) for result in results] == [type(None), ResourceError, type(None)]
    assert str(results[1]).startswith("remote 'part' of 'full': create failed, no room.")
    assert [await resource.exists(env) for env in envs] == [True, False, True]


# --- schema -------------------------------------------------------------------------------------------------------


async def test_a_new_one_is_at_the_newest_schema(schema_world: World) -> None:
    """Create leaves the newest version, the seed and nothing pending."""
    resource, env = schema_world.resource(), schema_world.environment()
    assert await resource.prepare() == "0002_bodies"
    await resource.create(env)
    assert await resource.version(env) == resource.newest == "0002_bodies"
    assert resource.pending("0002_bodies") == ()
    assert resource.pending("0001_pages") == ("0002_bodies",)
    assert schema_world.query(resource, env, "SELECT title, body FROM page") == [("Welcome", "; -- down")]


async def test_an_older_one_is_migrated(schema_world: World) -> None:
    """A new file brings old databases to it, their data kept; a second run has nothing to do."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    schema_world.use(resource, env, "kept")
    schema_world.migration("0003_index.sql", schema_world.third)
    assert any("behind" in finding.what for finding in await resource.check(env))
    done = await resource.migrate(env)
    assert (done.before, done.after, done.applied) == ("0002_bodies", "0003_index", ("0003_index",))
    assert "kept" in schema_world.look(resource, env)
    assert (await resource.migrate(env)).applied == ()
    assert all(finding.ok for finding in await resource.check(env))


async def test_a_create_brings_an_older_one_forward(schema_world: World) -> None:
    """A create that finds an older database leaves it at the newest schema."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    schema_world.migration("0003_index.sql", schema_world.third)
    await resource.create(env)
    assert await resource.version(env) == "0003_index"


async def test_a_failing_migration_changes_nothing(schema_world: World) -> None:
    """A failing migration is named with the database's error; its earlier statements are undone where that can be."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    schema_world.migration("0003_half.sql", BROKEN)
    with pytest.raises(MigrationError, match=f"0003_half: {schema_world.no_table}, in: INSERT INTO (acme__)?nowhere"):
        await resource.migrate(env)
    assert await resource.version(env) == "0002_bodies"
    assert ("half" in schema_world.tables(resource, env)) is not schema_world.rolls_back


async def test_migrations_before_a_failing_one_stay(schema_world: World) -> None:
    """Each migration is a transaction of its own: those before the failing one are done."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    schema_world.migration("0003_index.sql", schema_world.third)
    schema_world.migration("0004_half.sql", BROKEN)
    with pytest.raises(MigrationError, match="0004_half"):
        await resource.migrate(env)
    assert await resource.version(env) == "0003_index"


async def test_a_broken_reference_is_rolled_back(schema_world: World) -> None:
    """A migration that leaves a row without the row it refers to is refused, with table and row."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    schema_world.migration(
        "0003_link.sql", "CREATE TABLE link (page INTEGER REFERENCES page (id)); INSERT INTO link VALUES (99);"
    )
    with pytest.raises(MigrationError, match=schema_world.broken_reference):
        await resource.migrate(env)
    assert await resource.version(env) == "0002_bodies"


async def test_a_changed_file_is_refused(schema_world: World) -> None:
    """A file that was changed after it had been applied is named and nothing runs."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    schema_world.migration("0002_bodies.sql", SECOND + "-- a remark\n")
    schema_world.migration("0003_index.sql", schema_world.third)
    with pytest.raises(MigrationInvalid, match=r"0002_bodies\.sql: it was changed"):
        await resource.migrate(env)


async def test_a_database_newer_than_the_files_is_refused(schema_world: World) -> None:
    """A database with a migration that is not among the files is refused by that name, by check and migrate."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    (schema_world.root / "schema" / "0002_bodies.sql").unlink()
    with pytest.raises(MigrationInvalid, match="0002_bodies"):
        await resource.migrate(env)
    assert ["0002_bodies" in finding.what for finding in await resource.check(env)] == [True]


async def test_it_goes_back_down(schema_world: World) -> None:
    """An older version is reached by the down sections in reverse; one without such a section is named."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    done = await resource.migrate(env, "0001_pages")
    assert (done.after, done.applied) == ("0001_pages", ("0002_bodies",))
    assert schema_world.query(resource, env, "SELECT * FROM page") == [(1, "Welcome")]
    await resource.migrate(env)
    schema_world.migration("0003_index.sql", schema_world.third.partition("-- down")[0])
    await resource.migrate(env)
    with pytest.raises(MigrationError, match="0003_index: it cannot be taken back"):
        await resource.migrate(env, "0001_pages")
    assert await resource.version(env) == "0003_index"


async def test_unknown_versions_are_refused(schema_world: World) -> None:
    """A version nobody declared is named with the newest one."""
    resource = schema_world.resource()
    with pytest.raises(MigrationInvalid, match="no migration '0009_no'; the newest is 0002_bodies"):
        resource.pending("0009_no")
    with pytest.raises(MigrationInvalid, match="0009_no"):
        await resource.migrate(schema_world.environment(), "0009_no")


async def test_many_are_migrated_and_a_failed_one_holds_no_other(schema_world: World) -> None:
    """A batch migrates in order; a tenant whose data does not fit has its error in its place."""
    if schema_world.kind == "rows":
        pytest.skip("tenants that share tables share their schema")
    resource, envs = schema_world.resource(), [schema_world.environment(f"t{number}") for number in range(7)]
    assert await resource.create_many(envs) == [None] * 7
    schema_world.use(resource, envs[3], "Welcome")
    schema_world.migration("0003_unique.sql", "CREATE UNIQUE INDEX one_title ON page (title);")
    results = await resource.migrate_many(envs)
    assert [type(result) for result in results] == [Migrated] * 3 + [MigrationError] + [Migrated] * 3
    assert schema_world.not_unique in str(results[3])
    assert [await resource.version(env) for env in envs[2:5]] == ["0003_unique", "0002_bodies", "0003_unique"]


async def test_drift_is_named(schema_world: World) -> None:
    """A table made by hand and an index that is gone are both named."""
    schema_world.migration("0003_index.sql", schema_world.third)
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    schema_world.query(resource, env, "CREATE TABLE stray (id INTEGER)")
    schema_world.query(resource, env, schema_world.undo_third)
    found = " ".join(finding.what for finding in await resource.check(env))
    assert re.search("index page_by_title( of page)? is missing", found)
    assert "table stray is not declared" in found


async def test_users_are_enrolled_once(schema_world: World) -> None:
    """A login is one user however often enrolled; each time after the first ends the sessions of that user."""
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    await resource.enrol(env, "admin@acme", "one", "user")
    await resource.enrol(env, "ADMIN@acme", "two", "admin")
    rows = schema_world.query(resource, env, "SELECT login, password, role, active, epoch FROM tenantry_user")
    assert rows == [("admin@acme", "two", "admin", 1, 1)]


@pytest.mark.parametrize("way", ["migrate", "create"])
async def test_users_tables_grow_with_tenantry(schema_world: World, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Those an older version of ours made get its columns, keys and tables by what brings a tenant up to date."""
    older = {name: text for name, text in users._DECLARED.items() if name != "tenantry_try"}
    kept = older["tenantry_user"].partition(",\n  totp ")[0]
    assert kept != older["tenantry_user"]
    with monkeypatch.context() as past:
        past.setattr(users, "_DECLARED", older | {"tenantry_user": f"{kept}\n"})
        forget()
        resource, env = schema_world.resource(), schema_world.environment()
        await resource.create(env)
        await resource.enrol(env, "admin@acme", "one", "admin")
    forget()
    if schema_world.kind != "memory":  # its content goes with it
        resource = schema_world.resource()
    told = " ".join(finding.what for finding in await resource.check(env) if not finding.ok)
    assert "tenantry_user" in told
    for _ in range(2):
        await getattr(resource, way)(env)
        assert [finding.what for finding in await resource.check(env) if not finding.ok] == []
    query = "SELECT login, role, totp, totp_used, issuer FROM tenantry_user"
    assert schema_world.query(resource, env, query) == [("admin@acme", "admin", None, 0, None)]


def forget() -> None:
    """Let the users' tables be looked up anew."""
    users.statements.cache_clear()
    database._declared_users.cache_clear()


async def test_no_users_without_their_table(schema_world: World) -> None:
    """A resource that carries no users' table refuses to enrol anybody."""
    schema_world.users = False
    resource, env = schema_world.resource(), schema_world.environment()
    await resource.create(env)
    with pytest.raises(ResourceError, match="no users' table"):
        await resource.enrol(env, "admin@acme", "one", "admin")


# --- sqlite -------------------------------------------------------------------------------------------------------

PREPARE = """
import asyncio, json, sys
from pathlib import Path
from tenantry.config import ResourceSpec
from tenantry.resources import Setting, build
root = Path(sys.argv[1])
setting = Setting("site", root, root / "var")
resource = build("part", ResourceSpec.model_validate({"kind": "sqlite", "schema": "schema"}), setting)
sys.stdin.readline()
print(json.dumps(asyncio.run(resource.prepare())))
"""


def test_two_processes_prepare_one_template(sqlite_world: World) -> None:
    """Two processes that prepare the same template at the same moment end with one, whole."""
    for number in range(1, 30):
        sqlite_world.migration(f"{number:04}_t.sql", f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY);")
    command = [sys.executable, "-c", PREPARE, str(sqlite_world.root)]
    pair = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in pair:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    assert [json.loads(process.communicate()[0]) for process in pair] == ["0029_t", "0029_t"]
    assert len(list((sqlite_world.root / "var" / "templates").iterdir())) == 1


async def test_templates_of_older_blueprints_are_tidied(sqlite_world: World) -> None:
    """A changed schema has a template of its own, with which the one before goes, and halves of one with any tidy."""
    sqlite_world.migration("0001_pages.sql", FIRST)
    resource = sqlite_world.resource()
    await resource.prepare()
    (old,) = (sqlite_world.root / "var" / "templates").iterdir()
    sqlite_world.migration("0002_bodies.sql", SECOND)
    await resource.prepare()
    (new,) = old.parent.iterdir()
    assert new.name != old.name
    (old.parent / f"{paths.TEMPORARY}dead-wal").write_text("half")
    assert await resource.tidy() == [f"templates/{paths.TEMPORARY}dead-wal"]
    assert list(old.parent.iterdir()) == [new]


async def test_an_open_connection_sees_what_is_loaded(sqlite_world: World, tmp_path: Path) -> None:
    """A load reaches connections that are open already, so that no application works on a file that is gone."""
    sqlite_world.migration("0001_pages.sql", FIRST)
    resource, env = sqlite_world.resource(), environment()
    await resource.create(env)
    await resource.dump(env, tmp_path / "dump")
    with closing(sqlite3.connect(sqlite_world.root / "var" / env.home / "part.sqlite")) as connection:
        connection.execute("INSERT INTO page (title) VALUES ('later')")
        connection.commit()
        await resource.load(env, tmp_path / "dump")
        assert connection.execute("SELECT count(*) FROM page").fetchone() == (0,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_damaged_database_is_replaced_by_a_load(sqlite_world: World, tmp_path: Path) -> None:
    """A load brings back a database that nobody can read any more."""
    sqlite_world.migration("0001_pages.sql", FIRST)
    resource, env = sqlite_world.resource(), environment()
    await resource.create(env)
    await resource.dump(env, tmp_path / "dump")
    (sqlite_world.root / "var" / env.home / "part.sqlite").write_bytes(b"no database at all" * 1000)
    await resource.load(env, tmp_path / "dump")
    assert all(finding.ok for finding in await resource.check(env))


async def test_a_log_of_an_older_database_is_not_replayed(sqlite_world: World) -> None:
    """A new database does not take the log that was left beside a lost one for its own."""
    sqlite_world.migration("0001_pages.sql", FIRST)
    resource, env = sqlite_world.resource(), environment()
    await resource.create(env)
    path = sqlite_world.root / "var" / env.home / "part.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO page (title) VALUES ('lost')")
        connection.commit()
        log = path.with_name("part.sqlite-wal").read_bytes()
    path.unlink()
    path.with_name("part.sqlite-wal").write_bytes(log)
    await resource.create(env)
    assert sqlite_world.look(resource, env) == "[]"


async def test_a_link_in_place_of_the_database_is_refused(sqlite_world: World) -> None:
    """A database file that was exchanged for a link to another tenant's is not opened."""
    sqlite_world.migration("0001_pages.sql", FIRST)
    resource, env, other = sqlite_world.resource(), environment(), environment("umbrella")
    await resource.create(env)
    await resource.create(other)
    path = sqlite_world.root / "var" / env.home / "part.sqlite"
    path.unlink()
    path.symlink_to(sqlite_world.root / "var" / other.home / "part.sqlite")
    assert [finding.ok for finding in await resource.check(env)] == [False]
    await resource.drop(env)
    assert all(finding.ok for finding in await resource.check(other))


async def test_wide_permissions_are_found(sqlite_world: World) -> None:
    """A database others may read is a finding with the command that closes it."""
    resource, env = sqlite_world.resource(), environment()
    await resource.create(env)
    path = sqlite_world.root / "var" / env.home / "part.sqlite"
    path.chmod(0o644)
    (finding,) = await resource.check(env)
    assert not finding.ok
    assert finding.remedy == f"Run `chmod 600 {path}`."


# --- Python files and Alembic -------------------------------------------------------------------------------------

PYTHON = """
from sqlalchemy import text

def upgrade(connection):
    connection.execute(text("CREATE TABLE page (id INTEGER PRIMARY KEY, title TEXT)"))
    with connection.begin_nested():
        connection.execute(text("INSERT INTO page (title) VALUES (:title)"), {"title": "from Python"})

def downgrade(connection):
    connection.execute(text("DROP TABLE page"))
"""


async def test_python_files_migrate(sqlite_world: World) -> None:
    """A Python file runs inside the migration's transaction, up and down, beside SQL files."""
    sqlite_world.migration("0001_pages.py", PYTHON)
    sqlite_world.migration("0002_bodies.sql", SECOND)
    resource, env = sqlite_world.resource(), environment()
    await resource.create(env)
    assert sqlite_world.query(resource, env, "SELECT title, body FROM page") == [("from Python", "; -- down")]
    sqlite_world.migration("0003_more.py", PYTHON.replace("page", "more"))
    assert (await resource.migrate(env)).applied == ("0003_more",)
    assert (await resource.migrate(env, "0002_bodies")).applied == ("0003_more",)
    assert sqlite_world.query(resource, env, "SELECT name FROM sqlite_schema WHERE name = 'more'") == []


ESCAPE = """
    connection.execute(text("CREATE TABLE one (id UNIQUE)"))
    connection.execute(text("INSERT INTO one VALUES (1)"))
    try:
        connection.exec_driver_sql("INSERT OR ROLLBACK INTO one VALUES (1)")
    except Exception:
        connection.exec_driver_sql("CREATE TABLE half (id)")
"""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("connection.commit()", "cannot begin, commit or roll back"),
        ("connection.rollback()", "cannot begin, commit or roll back"),
        ("connection.execute(text('COMMIT'))", "not authorized"),
        ("connection.execute(text(\"ATTACH DATABASE ':memory:' AS other\"))", "not authorized"),
        ("connection.execute(text('INSERT INTO nowhere VALUES (1)'))", "no such table: nowhere"),
        ("raise KeyError('plan')", "KeyError: 'plan'"),
        (ESCAPE, "not authorized"),
    ],
)
async def test_python_files_cannot_leave_their_transaction(sqlite_world: World, line: str, reason: str) -> None:
    """Whatever a Python file tries, its transaction ends with its record or not at all."""
    resource, env = sqlite_world.resource(), environment()
    await resource.create(env)
    start = "from sqlalchemy import text\ndef upgrade(connection):\n"
    table = "    connection.execute(text('CREATE TABLE half (id)'))\n"
    sqlite_world.migration("0001_bad.py", f"{start}{table}    {line}\n")
    with pytest.raises(MigrationError, match="0001_bad: ") as caught:
        await resource.migrate(env)
    assert reason in str(caught.value)
    assert await resource.version(env) is None
    assert sqlite_world.query(resource, env, "SELECT name FROM sqlite_schema WHERE name = 'half'") == []


async def test_the_documented_migrations_run(sqlite_world: World) -> None:
    """The files shown in docs/howto/write-migrations.md do what they say."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "write-migrations.md").read_text()
    blocks = [part.partition("```")[0] for part in page.split("```")[1::2]]
    sql, *_ = [block.removeprefix("sql\n") for block in blocks if block.startswith("sql\n")]  # then a server's own
    (python,) = [block.removeprefix("python\n") for block in blocks if block.startswith("python\n")]
    sqlite_world.migration("0001_pages.sql", sql)
    resource, env = sqlite_world.resource(), environment()
    await resource.create(env)
    sqlite_world.query(resource, env, "INSERT INTO page (title) VALUES ('About us')")
    sqlite_world.migration("0002_slugs.py", python)
    await resource.migrate(env)
    assert sqlite_world.query(resource, env, "SELECT slug FROM page") == [("about-us",)]
    assert (await resource.migrate(env, "0001_pages")).applied == ("0002_slugs",)


REVISION = """
from alembic import op
import sqlalchemy as sa
revision = "{revision}"
down_revision = {before}
def upgrade():
    op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("title", sa.String))
    {more}
def downgrade():
    op.drop_table("{table}")
"""


def revision(world: World, name: str, before: str | None, more: str = "pass") -> None:
    """A file of an Alembic directory."""
    folder = world.root / "schema" / "versions"
    folder.mkdir(exist_ok=True)
    text = REVISION.format(revision=name, before=repr(before), table=f"t_{name}", more=more)
    (folder / f"{name}_x.py").write_text(text)


async def test_an_alembic_directory_migrates(sqlite_world: World) -> None:
    """An Alembic directory needs no env.py: its revisions go up and down, several databases at once."""
    revision(sqlite_world, "aa11", None)
    revision(sqlite_world, "0b22", "aa11")
    resource, envs = sqlite_world.resource(), [environment(f"t{number}") for number in range(4)]
    assert resource.versions() == ("aa11", "0b22")
    assert await resource.create_many(envs) == [None] * 4
    assert await resource.version(envs[0]) == "0b22"
    assert all(finding.ok for finding in await resource.check(envs[0]))
    revision(sqlite_world, "cc33", "0b22")
    assert [done.applied for done in await resource.migrate_many(envs) if isinstance(done, Migrated)] == [("cc33",)] * 4
    assert (await resource.migrate(envs[0], "aa11")).applied == ("cc33", "0b22")
    assert sqlite_world.query(resource, envs[0], "SELECT version_num FROM alembic_version") == [("aa11",)]


async def test_a_failing_revision_changes_nothing(sqlite_world: World) -> None:
    """A revision that fails is named, and the tables it had made are gone."""
    revision(sqlite_world, "aa11", None)
    resource, env = sqlite_world.resource(), environment()
    await resource.create(env)
    revision(sqlite_world, "bb22", "aa11", more="op.execute('INSERT INTO nowhere VALUES (1)')")
    with pytest.raises(MigrationError, match="bb22: no such table: nowhere"):
        await resource.migrate(env)
    assert await resource.version(env) == "aa11"
    assert sqlite_world.query(resource, env, "SELECT name FROM sqlite_schema WHERE name = 't_bb22'") == []


async def test_two_heads_are_refused(sqlite_world: World) -> None:
    """An Alembic directory whose history forks is refused with both heads."""
    for name in ("aa11", "bb22"):
        revision(sqlite_world, name, None)
    with pytest.raises(MigrationInvalid, match="several heads: aa11, bb22"):
        sqlite_world.resource().versions()


# --- rendered -----------------------------------------------------------------------------------------------------


@pytest.fixture
def render(tmp_path: Path) -> Callable[..., Resource]:
    """A rendered resource of a template's text and options."""
    (tmp_path / "templates").mkdir()

    def make(text: str, **options: object) -> Resource:
        (tmp_path / "templates" / "app.env.j2").write_text(text)
        return RenderedWorld("rendered", tmp_path, {"template": "templates/app.env.j2", **options}).resource()

    return make


def content(resource: Resource, env: Environment) -> str:
    """The text of a rendered file."""
    return (resource.setting.data / env.home / resource.locate(env)).read_text()


async def test_values_settings_and_secrets_are_rendered(render: Callable[..., Resource]) -> None:
    """Defaults are filled, settings override them, secrets are merged in, and close the file to the group."""
    env = environment("muller-sohne", secrets={"smtp_password": 'p"w'})
    env = replace(env, tenant=replace(env.tenant, name="Müller & Söhne"))
    resource = render("{{ values.site_name | json }} {{ domain }} {{ hostnames | json }}")
    await resource.create(env)
    assert content(resource, env) == '"Müller & Söhne" example.test ["muller-sohne.example.test"]'
    path = resource.setting.data / env.home / resource.location
    assert path.stat().st_mode & 0o777 == 0o640
    resource = render("{{ values.smtp_password | quote }} {{ values | json }}")
    await resource.create(replace(env, tenant=replace(env.tenant, settings={"site_name": "Own"})))
    assert content(resource, env) == '\'p"w\' {"site_name": "Own", "smtp_password": "p\\"w"}'
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_tenant_may_have_a_file_of_its_own(render: Callable[..., Resource]) -> None:
    """overrides/<slug>/<template> is used instead of the template, for that tenant alone."""
    resource, env, other = render("common"), environment(), environment("umbrella")
    own = resource.setting.root / "overrides" / "acme" / "app.env.j2"
    own.parent.mkdir(parents=True)
    own.write_text("own of {{ slug }}")
    await resource.create(env)
    await resource.create(other)
    assert (content(resource, env), content(resource, other)) == ("own of acme", "common")


async def test_text_no_file_can_hold_is_an_error(render: Callable[..., Resource]) -> None:
    """A setting that is no valid text is refused, not written by halves."""
    env = environment()
    env = replace(env, tenant=replace(env.tenant, settings={"site_name": "\ud800"}))
    with pytest.raises(ResourceError, match=r"the template app\.env\.j2"):
        await render("{{ values.site_name }}").create(env)


async def test_an_unknown_name_is_an_error(render: Callable[..., Resource]) -> None:
    """A template that names what is not there is refused with that name; nothing is written."""
    resource, env = render("{{ values.colour }}"), environment()
    with pytest.raises(ResourceError, match=r"rendered 'part' of 'acme': the template app.env.j2.*colour"):
        await resource.create(env)
    assert not await resource.exists(env)


@pytest.mark.parametrize("text", ["{{ ''.__class__.__mro__ }}", "{{ values.__init__.__globals__ }}"])
async def test_templates_are_sandboxed(render: Callable[..., Resource], text: str) -> None:
    """A template cannot reach into Python."""
    with pytest.raises(ResourceError, match="unsafe"):
        await render(text).create(environment())


async def test_a_target_with_the_slug_moves_on_a_rename(render: Callable[..., Resource], tmp_path: Path) -> None:
    """An absolute target is recorded as such; after a rename the new file is made and the old one can be dropped."""
    resource, env = render("{{ slug }}", target=f"{tmp_path}/config/{{slug}}/app.env"), environment()
    await resource.create(env)
    assert resource.place(env).location == f"{tmp_path}/config/acme/app.env"
    renamed = replace(env, tenant=replace(env.tenant, slug="acme-new"))
    await resource.create(renamed)
    await resource.drop(env)
    assert (tmp_path / "config" / "acme-new" / "app.env").read_text() == "acme-new"
    assert [path.name for path in (tmp_path / "config").iterdir()] == ["acme-new"]
    (tmp_path / "config" / "acme-new" / f"{paths.TEMPORARY}dead").write_text("")
    assert len(await resource.tidy()) == 1


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc/app.env", "needs {slug}"),
        ("../../{slug}", "leads out"),
        ("{name}/app.env", "knows no {name}"),
        ("/srv/{environment}/app.env", "needs {slug}"),
    ],
)
def test_targets_that_meet_or_escape_are_refused(render: Callable[..., Resource], target: str, reason: str) -> None:
    """A target where tenants meet, or that leads out, is refused with its option and value."""
    with pytest.raises(ConfigError) as caught:
        render("", target=target)
    assert "blueprints.site.resources.part.target" in str(caught.value)
    assert reason in str(caught.value)
    assert repr(target) in str(caught.value)
