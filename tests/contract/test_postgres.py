"""What a database per tenant on PostgreSQL promises beside the contract of all kinds; on version 15 and on 18."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import servers
from tenantry.errors import (
    ConfigError,
    MigrationError,
    MigrationInvalid,
    NameTaken,
    ResourceError,
    ServerUnavailable,
    ServerUnfit,
)
from tenantry.model import Environment, Finding, Login, Migrated, Place, Server, breaches
from tenantry.resources import Resource, Servers, postgres_admin
from tenantry.resources.postgres import Postgres
from tenantry.resources.postgres_dialect import POSTGRES
from tenantry.resources.postgres_run import RECORD
from worlds import PostgresWorld

pytestmark = pytest.mark.postgres


@pytest.fixture
def world(postgres_world: PostgresWorld) -> PostgresWorld:
    """A platform with a PostgreSQL server."""
    return postgres_world


def refused(world: PostgresWorld, resource: Resource, env: Environment, **changes: Any) -> str:
    """What the server says to a login that it does not let in."""
    with pytest.raises(psycopg.OperationalError) as caught:
        world.connect(resource, env, **changes).close()
    return str(caught.value)


def faults(findings: list[Finding]) -> list[str]:
    """What is not as it should be."""
    return [finding.what for finding in findings if not finding.ok]


def marked(world: PostgresWorld, name: str) -> str | None:
    """The comment on a database."""
    with psycopg.connect(world.server.url()) as connection:
        row = connection.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,)
        ).fetchone()
    return row[0] if row else None


def memberships(world: PostgresWorld) -> int:
    """How many roles the administrator can act as."""
    with psycopg.connect(world.admin) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_roles WHERE pg_has_role(current_user, oid, 'USAGE') AND rolname <> current_user"
        ).fetchone()
    assert row is not None
    return int(row[0])


# --- isolation ----------------------------------------------------------------------------------------------------


async def test_a_login_reaches_its_own_database_alone(world: PostgresWorld) -> None:
    """As one tenant's login: connecting to the other's database, reading it, becoming its role are all refused."""
    resource, env, other = world.resource(), world.environment(), world.environment("umbrella")
    for one in (env, other):
        await resource.create(one)
    assert "permission denied for database" in refused(world, resource, env, database=resource.locate(other))
    for statement in (
        f'SET ROLE "{other.logins["part"].user}"',
        f'GRANT CONNECT ON DATABASE "{resource.locate(other)}" TO CURRENT_USER; SELECT 1/0',
        f'ALTER DATABASE "{resource.locate(other)}" SET work_mem TO 64',
        f'DROP DATABASE "{resource.locate(other)}"',
        f'CREATE DATABASE stolen TEMPLATE "{resource.locate(other)}"',
        f'ALTER DATABASE "{resource.locate(other)}" RENAME TO stolen',
        "CREATE DATABASE more",
        "CREATE ROLE more",
        "SELECT pg_read_file('PG_VERSION')",
        "COPY page FROM PROGRAM 'id'",
    ):
        with pytest.raises(psycopg.Error):
            world.query(resource, env, statement)
    assert faults(await resource.check(other)) == []


async def test_a_database_that_is_open_to_everybody_is_found(world: PostgresWorld) -> None:
    """Where somebody let every role in again, an attack crosses, and the check says how to close it."""
    resource, env, other = world.resource(), world.environment(), world.environment("umbrella")
    for one in (env, other):
        await resource.create(one)
    world.query(resource, other, f'GRANT CONNECT ON DATABASE "{resource.locate(other)}" TO PUBLIC')
    assert "connect to the other database" in [breach.attack for breach in breaches(await resource.attack(env, other))]
    (finding,) = [finding for finding in await resource.check(other) if not finding.ok]
    assert "every role may connect" in finding.what
    world.query(resource, other, finding.remedy.removeprefix("Run ").partition(";")[0])
    assert faults(await resource.check(other)) == []
    assert breaches(await resource.attack(env, other)) == []


async def test_a_role_that_was_raised_is_found(world: PostgresWorld) -> None:
    """A tenant's role that somebody gave more than its database is a finding."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.server.run(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(env.logins["part"].user)))
    assert any("may do more on the server" in what for what in faults(await resource.check(env)))


async def test_the_tenant_owns_all_that_the_template_brought(world: PostgresWorld) -> None:
    """What was cloned belongs to the tenant's login wholly: it may alter and drop each of it."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    for statement in (
        "ALTER TABLE page RENAME TO pages",
        "DROP FUNCTION trim_title() CASCADE",
        "CREATE SCHEMA own",
        "DROP TABLE tenantry_user",
    ):
        world.query(resource, env, statement)
    assert world.tables(resource, env) >= {"pages", "tenantry_schema"}


# --- names --------------------------------------------------------------------------------------------------------


async def test_a_database_of_somebody_else_is_not_touched(world: PostgresWorld) -> None:
    """A database under a tenant's name that is not the tenant's is refused by name, and neither opened nor dropped."""
    resource, env = world.resource(), world.environment()
    name = sql.Identifier(resource.locate(env))
    world.server.run(sql.SQL("CREATE DATABASE {}").format(name))
    with pytest.raises(NameTaken, match=f"a database '{resource.locate(env)}' on the server 'pg'"):
        await resource.create(env)
    assert not await resource.exists(env)
    await resource.drop(env)
    assert world.files() == {f"database {resource.locate(env)}"}
    assert marked(world, resource.locate(env)) is None


async def test_a_role_of_somebody_else_is_not_touched(world: PostgresWorld) -> None:
    """A role under a tenant's name that is not the tenant's is refused; it keeps its password."""
    resource, env = world.resource(), world.environment()
    user = env.logins["part"].user
    world.server.run(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'own'").format(sql.Identifier(user)))
    with pytest.raises(NameTaken, match=f"a role '{user}'"):
        await resource.create(env)
    await resource.drop(env)
    assert world.files() == {f"role {user}"}
    world.connect(resource, env, database="postgres", password="own").close()


async def test_another_tenants_database_is_not_touched(world: PostgresWorld) -> None:
    """Two environments that are said to lie under one name: the second is refused, and drops nothing of the first."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    second = world.environment()
    with pytest.raises(NameTaken):
        await resource.create(second)
    await resource.drop(second)
    assert faults(await resource.check(env)) == []


async def test_a_long_name_is_cut_and_told_apart(world: PostgresWorld) -> None:
    """A name that has no room is cut, ends with a part of the environment's id, and works, its second user too."""
    resource = world.resource()
    env, other = world.environment("a" * 63), world.environment("a" * 62 + "b")
    for one in (env, other):
        assert len(resource.locate(one)) == 63
        await resource.create(one)
        assert faults(await resource.check(one)) == []
        login = resource.new_login(one)
        await resource.admit(one, login)
        assert len(login.user) <= 63
        world.connect(resource, one, user=login.user, password=login.password).close()
        await resource.drop(one)
    assert world.files() == set()


def test_names_of_the_servers_own_are_not_taken(world: PostgresWorld) -> None:
    """A tenant cannot get the name of a database or role that PostgreSQL has already."""
    resource = world.resource(**{**world.options, "name": "{slug}"})
    for slug in ("postgres", "template1", "pg_monitor"):
        env = world.environment()
        env = replace(env, tenant=replace(env.tenant, slug=slug), places=())
        assert resource.names(env)[0] == f"{slug}_{env.id[-8:]}"


async def test_a_tenant_cannot_change_whose_its_database_is(world: PostgresWorld) -> None:
    """A tenant owns its database and may write any comment on it: checks, repairs and drops go on all the same."""
    resource, env, other = world.resource(), world.environment(), world.environment("umbrella")
    for one in (env, other):
        await resource.create(one)
    mine, theirs = (sql.Identifier(resource.locate(one)) for one in (env, other))
    stolen = sql.SQL("COMMENT ON DATABASE {} IS {}").format(mine, marked(world, resource.locate(other)))
    world.query(resource, env, stolen.as_string())
    for statement in (
        sql.SQL("COMMENT ON ROLE {} IS 'none'").format(sql.Identifier(env.logins["part"].user)),
        sql.SQL("ALTER DATABASE {} OWNER TO {}").format(mine, sql.Identifier(other.logins["part"].user)),
        sql.SQL("COMMENT ON DATABASE {} IS 'mine'").format(theirs),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            world.query(resource, env, statement.as_string())
    assert faults(await resource.check(env)) == []
    await resource.create(env)
    await resource.drop(env)
    assert faults(await resource.check(other)) == []
    assert len(world.files()) == 2


# --- making -------------------------------------------------------------------------------------------------------


async def test_many_at_once_share_one_template(world: PostgresWorld) -> None:
    """Eight creates at once, without a template before: one is made, and each tenant has its own database."""
    resource = world.resource()
    envs = [world.environment(f"t{number}") for number in range(8)]
    assert await resource.create_many(envs, parallel=8) == [None] * 8
    assert len(world.databases()) == 9
    for env in envs:
        assert faults(await resource.check(env)) == []
    assert memberships(world) == 0


async def test_a_create_that_was_cut_off_is_finished(world: PostgresWorld) -> None:
    """After a kill behind any of its steps the next create ends with a sound database, and a drop leaves nothing."""
    resource, env = world.resource(), world.environment()
    assert isinstance(resource, Postgres)
    await resource.prepare()
    user, name = (sql.Identifier(part) for part in (env.logins["part"].user, resource.locate(env)))
    with psycopg.connect(world.admin, autocommit=True) as admin:
        from tenantry.resources.postgres import There

        role = resource._admitting(admin, env, There(None, {}))
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} ALLOW_CONNECTIONS false").format(
            name, sql.Identifier(resource._golden.name), user
        )
        for steps in ([sql.SQL("; ").join(role)], [sql.SQL("; ").join(role), clone]):
            for step in steps:
                admin.execute(step)
            assert await resource.exists(env)
            await resource.create(env)
            assert faults(await resource.check(env)) == []
            await resource.drop(env)
            for step in steps:
                admin.execute(step)
            await resource.drop(env)
            assert world.files() == set()


@pytest.mark.parametrize("change", ["none", "a seed", "an edited file"])
async def test_a_template_grows_out_of_the_one_before(world: PostgresWorld, change: str) -> None:
    """It is built on where its migrations are the first of these files'; a seed, and an edited file, begin anew."""
    own = world.options if change == "a seed" else {**world.options, "seed": None}
    applied = "SELECT applied FROM tenantry_schema WHERE version = '0001_pages'"
    early, late = world.environment("early"), world.environment("late")
    await world.resource(**own).create(early)
    if change == "an edited file":
        file = world.root / "schema" / "0001_pages.sql"
        file.write_text(f"-- as it was meant\n{file.read_text()}")
    world.migration("0003_last.sql", "ALTER TABLE page ADD COLUMN last integer;")
    resource = world.resource(**own)
    assert await resource.tidy() == []  # a worker that begins with new files leaves what their template grows out of
    assert await resource.prepare() == "0003_last"
    assert len(await resource.tidy()) == (change != "none")
    await resource.create(late)
    assert faults(await resource.check(late)) == []
    grown = world.query(resource, late, applied) == world.query(resource, early, applied)
    assert grown is (change == "none")
    await world.resource(**own).create(world.environment("later"))


async def test_a_template_that_does_not_fit_stays(world: PostgresWorld) -> None:
    """Files whose past it is not take no template from those it belongs to; nor do files that go back behind it."""
    own = {**world.options, "seed": None}
    await world.resource(**own).prepare()
    there = world.databases()
    first = world.root / "schema" / "0001_pages.sql"
    text = first.read_text()
    first.write_text(f"-- as it was meant\n{text}")
    await world.resource(**own).prepare()
    assert len(world.databases()) == len(there) + 1
    assert there < world.databases()
    first.write_text(text)
    (world.root / "schema" / "0002_bodies.sql").unlink()
    await world.resource(**own).prepare()
    assert there < world.databases()
    assert len(world.databases()) == len(there) + 2


async def test_a_template_that_a_migration_breaks(world: PostgresWorld) -> None:
    """A migration that fails leaves no half of a template, and tenants are made as before with the files before it."""
    own = {**world.options, "seed": None}
    older = world.resource(**own)
    await older.prepare()
    world.migration("0003_more.sql", "CREATE TABLE more (id integer PRIMARY KEY);\n")
    world.migration("0004_broken.sql", "SELECT 1 / 0;\n")
    with pytest.raises(MigrationError, match="0004_broken"):
        await world.resource(**own).prepare()
    assert world.databases() == set()
    (world.root / "schema" / "0004_broken.sql").unlink()
    resource, env = world.resource(**own), world.environment()
    await resource.create(env)
    assert faults(await resource.check(env)) == []
    assert await resource.version(env) == "0003_more"


async def test_a_template_that_is_gone_is_made_again(world: PostgresWorld) -> None:
    """A process that knows a template does not fail where another one removed it meanwhile."""
    resource, env = world.resource(), world.environment()
    assert isinstance(resource, Postgres)
    await resource.prepare()
    name = sql.Identifier(resource._golden.name)
    world.server.run(
        sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(name), sql.SQL("DROP DATABASE {}").format(name)
    )
    await resource.create(env)
    assert faults(await resource.check(env)) == []


async def test_a_repair_mends_the_login(world: PostgresWorld) -> None:
    """A password that somebody changed by hand is found by the check, and set right by a create."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.server.run(
        sql.SQL("ALTER ROLE {} PASSWORD 'other'").format(sql.Identifier(env.logins["part"].user)),
    )
    assert any("refuses its login" in what for what in faults(await resource.check(env)))
    await resource.create(env)
    assert faults(await resource.check(env)) == []


async def test_options_shape_the_database(world: PostgresWorld) -> None:
    """Extensions, encoding, language, settings and the limit of connections are as the blueprint says."""
    language = {"icu_locale": "de"} if world.server.version == 15 else {"locale": "C"}  # the package has no ICU
    options: dict[str, Any] = {
        **world.options,
        **language,
        "extensions": ["hstore" if world.server.version == 15 else "plpgsql"],
        "encoding": "UTF8",
        "settings": {"statement_timeout": "7s", "jit": False, "search_path": ["$user", "public"]},
        "connection_limit": 7,
    }
    resource, env = world.resource(**options), world.environment()
    await resource.create(env)
    assert faults(await resource.check(env)) == []
    for query, expected in (
        ("SHOW statement_timeout", "7s"),
        ("SHOW jit", "off"),
        ("SHOW search_path", '"$user", public'),
        ("SELECT datconnlimit FROM pg_database WHERE datname = current_database()", 7),
        ("SELECT datlocprovider = 'i' OR datcollate = 'C' FROM pg_database WHERE datname = current_database()", True),
    ):
        assert world.query(resource, env, query) == [(expected,)], query
    extensions = world.query(resource, env, "SELECT extname FROM pg_extension ORDER BY 1")
    assert (options["extensions"][0],) in extensions
    await resource.dump(env, world.root / "dump")
    await resource.drop(env)
    await resource.load(env, world.root / "dump")
    assert world.query(resource, env, "SELECT extname FROM pg_extension ORDER BY 1") == extensions
    assert world.query(resource, env, "SHOW jit") == [("off",)]
    assert faults(await resource.check(env)) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("spares", -1), ("connection_limit", 0), ("pool", {"size": "many"}), ("pool", {"idle": "soon"}), ("name", "x")],
)
def test_wrong_options_are_named(world: PostgresWorld, option: str, value: object) -> None:
    """A value that cannot be is refused with the option's name."""
    with pytest.raises(ConfigError, match=rf"resources\.part\.{option}"):
        world.resource(**{**world.options, option: value})


# --- warm spares --------------------------------------------------------------------------------------------------


async def test_a_spare_becomes_the_tenants_database(world: PostgresWorld) -> None:
    """Spares are made ahead; a create takes one, and another one is made when asked for."""
    resource = world.resource(**world.options, spares=2)
    assert await resource.refill() == 2
    assert await resource.refill() == 0
    before = world.databases()
    env = world.environment()
    await resource.create(env)
    assert faults(await resource.check(env)) == []
    assert world.look(resource, env) == "[('Welcome',)]"
    assert len(before - world.databases()) == 1, "a spare was renamed"
    assert await resource.refill() == 1
    assert memberships(world) == 0
    await resource.drop(env)
    assert world.files() == set()


async def test_nobody_gets_the_spare_of_another(world: PostgresWorld) -> None:
    """Eight creates at once over three spares: three take one each, the others clone."""
    resource = world.resource(**world.options, spares=3)
    await resource.refill()
    envs = [world.environment(f"t{number}") for number in range(8)]
    assert await resource.create_many(envs, parallel=8) == [None] * 8
    for env in envs:
        world.use(resource, env, env.tenant.slug)
    assert [world.look(resource, env) for env in envs] == [f"[('Welcome',), ('{env.tenant.slug}',)]" for env in envs]
    assert len(world.databases()) == 9


async def test_spares_of_an_older_blueprint_go(world: PostgresWorld) -> None:
    """After a new migration no old spare is given out, and a tidy removes them with their template."""
    resource = world.resource(**world.options, spares=2)
    await resource.refill()
    old = world.databases()
    world.migration("0003_index.sql", "CREATE INDEX page_by_title ON page (title);")
    env = world.environment()
    await resource.create(env)
    assert await resource.version(env) == "0003_index"
    assert set(await resource.tidy()) == {f"pg/{name}" for name in old}
    assert not old & world.databases()


async def test_a_half_spare_is_finished(world: PostgresWorld) -> None:
    """A spare whose maker was killed is not given out before the next refill has finished it."""
    resource = world.resource(**world.options, spares=1)
    assert isinstance(resource, Postgres)
    await resource.prepare()
    half = f"{resource._golden.name}_s00000000"
    with psycopg.connect(world.admin, autocommit=True) as admin:
        statement = "CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false"
        admin.execute(sql.SQL(statement).format(sql.Identifier(half), sql.Identifier(resource._golden.name)))
    await resource.create(world.environment())
    assert half in world.databases()
    assert await resource.refill() == 0
    await resource.create(world.environment("umbrella"))
    assert half not in world.databases()


async def test_two_platforms_share_a_server(world: PostgresWorld) -> None:
    """What one platform tidies is its own: templates and spares of another one stay."""
    resource = world.resource(**world.options, spares=1)
    await resource.refill()
    mine = world.databases()
    world.root = world.root / "second"
    world.root.mkdir()
    (world.root / "seed.sql").write_text("SELECT 1")
    world.migration("0001_other.sql", "CREATE TABLE other (id int);")
    other = world.resource(**world.options, spares=1)
    await other.refill()
    assert await other.tidy() == []
    assert mine < world.databases()


# --- two users ----------------------------------------------------------------------------------------------------


async def test_users_take_turns(world: PostgresWorld) -> None:
    """A new login works beside the old one; the old one is then shut out, its connections too; and so on."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    for _ in range(3):
        old, login = env.logins["part"], resource.new_login(env)
        assert login.user != old.user
        await resource.admit(env, login)
        await resource.admit(env, login)
        renewed = replace(env, logins={"part": login})
        with world.connect(resource, env) as open_now:
            world.use(resource, renewed, "both")
            await resource.expel(renewed, old.user)
            await resource.expel(renewed, old.user)
            with pytest.raises(psycopg.OperationalError):
                open_now.execute("SELECT 1")
        assert "password authentication failed" in refused(world, resource, env)
        env = renewed
        assert faults(await resource.check(env)) == []
    world.migration("0003_index.sql", "ALTER TABLE page ADD COLUMN more int;")
    assert isinstance(await resource.migrate(env), Migrated)
    await resource.drop(env)
    assert world.files() == set()


async def test_what_the_second_user_makes_belongs_to_both(world: PostgresWorld) -> None:
    """Tables that were made through one login are altered through the other."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    login = resource.new_login(env)
    await resource.admit(env, login)
    second = replace(env, logins={"part": login})
    world.query(resource, second, "CREATE TABLE by_second (id int)")
    world.query(resource, env, "ALTER TABLE by_second ADD COLUMN more int")
    assert world.query(resource, second, "SELECT session_user::text, current_user::text") == [
        (login.user, env.logins["part"].user)
    ]


async def test_a_second_user_of_somebody_else_is_not_touched(world: PostgresWorld) -> None:
    """A role that has the name the second user is to get, and is not the tenant's, is refused."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    login = resource.new_login(env)
    world.server.run(sql.SQL("CREATE ROLE {}").format(sql.Identifier(login.user)))
    with pytest.raises(NameTaken, match=login.user):
        await resource.admit(env, login)


# --- migrations ---------------------------------------------------------------------------------------------------

HARD = """
-- a file; with semicolons
CREATE TABLE hard (id int, note text DEFAULT E'it\\'s; so', "odd;name" text);
/* a comment /* inside; another */ ; */
CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 ELSE 3 END; END;
CREATE PROCEDURE two() LANGUAGE plpgsql AS $body$ BEGIN PERFORM 'COMMIT; $$ ;'; END $body$;
DO $$ BEGIN INSERT INTO hard (id) VALUES (one()); END $$;
SET search_path = pg_catalog;
COMMENT ON TABLE public.hard IS 'a; b'
"""


async def test_hard_files_are_read_rightly(world: PostgresWorld) -> None:
    """Quotes, bodies, nested comments and settings of a file are the server's business, and end with it."""
    world.migration("0003_hard.sql", HARD)
    world.migration("0004_after.sql", "ALTER TABLE hard ADD COLUMN after int;")
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    assert world.query(resource, env, "SELECT id, note FROM hard") == [(2, "it's; so")]
    assert await resource.version(env) == "0004_after"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CREATE TABLE half (id int); COMMIT; SELECT 1", "it has the statement COMMIT"),
        ("/* x */ begin; SELECT 1", "it has the statement BEGIN"),
        ("PREPARE TRANSACTION 'x'", "it has the statement PREPARE"),
        ("COPY page FROM stdin;", "a COPY that reads from"),
        ("SELECT 'open", "it cannot be read"),
    ],
)
async def test_files_that_end_their_transaction_are_refused(world: PostgresWorld, text: str, reason: str) -> None:
    """What cannot run in one transaction with its record is refused before anything runs."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.migration("0003_bad.sql", text)
    with pytest.raises(MigrationInvalid, match=reason):
        await resource.migrate(env)
    assert "half" not in world.tables(resource, env)


PYTHON = """
from sqlalchemy import text

def upgrade(connection):
    connection.execute(text("CREATE TABLE made (id int PRIMARY KEY, title text)"))
    with connection.begin_nested():
        connection.execute(text("INSERT INTO made VALUES (1, :title)"), {"title": "from Python"})

def downgrade(connection):
    connection.execute(text("DROP TABLE made"))
"""


async def test_python_files_migrate(world: PostgresWorld) -> None:
    """A Python file runs inside the migration's transaction, up and down."""
    world.migration("0003_made.py", PYTHON)
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    assert world.query(resource, env, "SELECT title FROM made") == [("from Python",)]
    assert (await resource.migrate(env, "0002_bodies")).applied == ("0003_made",)
    assert "made" not in world.tables(resource, env)
    assert (await resource.migrate(env)).applied == ("0003_made",)


SWALLOW = """try:
        connection.execute(text("SELECT 1/0"))
    except Exception:
        pass"""
RAW = "connection.connection.driver_connection.cursor().execute('COMMIT')"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("connection.commit()", "cannot begin, commit or roll back"),
        ("connection.rollback()", "cannot begin, commit or roll back"),
        ("connection.execute(text('COMMIT'))", "cannot begin, commit or roll back"),
        ("connection.execute(text('SELECT 1; ROLLBACK; SELECT 1'))", "cannot begin, commit or roll back"),
        ("connection.execute(text('INSERT INTO nowhere VALUES (1)'))", 'relation "nowhere" does not exist'),
        ("raise KeyError('plan')", "KeyError: 'plan'"),
        (SWALLOW, "current transaction is aborted"),
    ],
)
async def test_python_files_cannot_leave_their_transaction(world: PostgresWorld, line: str, reason: str) -> None:
    """Whatever a Python file tries, its transaction ends with its record or not at all."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    start = "from sqlalchemy import text\ndef upgrade(connection):\n"
    table = "    connection.execute(text('CREATE TABLE half (id int)'))\n"
    world.migration("0003_bad.py", f"{start}{table}    {line}\n")
    with pytest.raises(MigrationError, match="0003_bad: ") as caught:
        await resource.migrate(env)
    assert reason in str(caught.value)
    assert await resource.version(env) == "0002_bodies"
    assert "half" not in world.tables(resource, env)


async def test_a_python_file_that_goes_past_everything_is_told(world: PostgresWorld) -> None:
    """A Python file that ends the transaction on the bare connection is an error, and is not recorded."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.migration("0003_bad.py", f"def upgrade(connection):\n    {RAW}\n")
    with pytest.raises(MigrationError, match="cannot begin, commit or roll back"):
        await resource.migrate(env)
    assert await resource.version(env) == "0002_bodies"


REVISION = """
from alembic import op
import sqlalchemy as sa
revision = "{revision}"
down_revision = {before}
def upgrade():
    op.create_table("t_{revision}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("title", sa.String))
    {more}
def downgrade():
    op.drop_table("t_{revision}")
"""


@pytest.fixture
def revise(world: PostgresWorld) -> Callable[..., None]:
    """Writes revisions of an Alembic directory, in place of the numbered files."""
    for file in (world.root / "schema").iterdir():
        file.unlink()
    (world.root / "seed.sql").write_text("")
    folder = world.root / "schema" / "versions"
    folder.mkdir()

    def write(name: str, before: str | None, more: str = "pass") -> None:
        (folder / f"{name}_x.py").write_text(REVISION.format(revision=name, before=repr(before), more=more))

    return write


async def test_an_alembic_directory_migrates(world: PostgresWorld, revise: Callable[..., None]) -> None:
    """Alembic's revisions go up and down; one that fails changes nothing and is named."""
    revise("aa11", None)
    revise("0b22", "aa11")
    resource, envs = world.resource(), [world.environment(f"t{number}") for number in range(3)]
    assert await resource.create_many(envs, parallel=3) == [None] * 3
    assert await resource.version(envs[0]) == "0b22"
    assert faults(await resource.check(envs[0])) == []
    revise("cc33", "0b22")
    assert [done.applied for done in await resource.migrate_many(envs) if isinstance(done, Migrated)] == [("cc33",)] * 3
    assert (await resource.migrate(envs[0], "aa11")).applied == ("cc33", "0b22")
    revise("dd44", "cc33", more="op.execute('INSERT INTO nowhere VALUES (1)')")
    with pytest.raises(MigrationError, match='dd44: relation "nowhere" does not exist'):
        await resource.migrate(envs[1])
    assert await resource.version(envs[1]) == "cc33"
    assert "t_dd44" not in world.tables(resource, envs[1])


async def test_two_processes_migrate_at_once(world: PostgresWorld) -> None:
    """Two migrations of one database at the same moment: it is run once, and both find it done."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.migration("0003_slow.sql", "SELECT pg_sleep(0.5); INSERT INTO page (title) VALUES ('once');")
    both = await asyncio.gather(*(world.resource().migrate(env) for _ in range(2)))
    assert [one.after for one in both] == ["0003_slow"] * 2
    assert world.look(resource, env).count("once") == 1
    assert (await resource.migrate(env)).applied == ()


async def test_drift_of_every_sort_is_named(world: PostgresWorld) -> None:
    """Columns, constraints, functions, views, types, triggers, policies and sequences are all compared."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    for statement, told in (
        ("ALTER TABLE page ALTER COLUMN title SET DEFAULT 'x'", "table page differs"),
        ("ALTER TABLE page ADD CONSTRAINT short CHECK (length(title) < 99)", "constraint page short is not declared"),
        ("CREATE OR REPLACE FUNCTION trim_title() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
         "function trim_title() differs"),
        ("CREATE VIEW titles AS SELECT title FROM page", "view titles is not declared"),
        ("CREATE TYPE mood AS ENUM ('ok')", "type mood is not declared"),
        ("DROP TRIGGER page_title ON page", "trigger page page_title is missing"),
        ("CREATE POLICY own ON page USING (true)", "policy page own is not declared"),
        ("CREATE SEQUENCE counter", "sequence counter is not declared"),
        ("CREATE SCHEMA aside", "schema aside is not declared"),
        ("CREATE TABLE aside.page (id int)", "table aside.page is not declared"),
        ("CREATE FUNCTION alembic_version() RETURNS int LANGUAGE sql AS 'SELECT 1'",
         "function alembic_version() is not declared"),
        ("ALTER TABLE page ADD CONSTRAINT tenantry_schema CHECK (true)", "constraint page tenantry_schema is not"),
        ("CREATE TABLE aside.tenantry_tenants (id int)", "table aside.tenantry_tenants is not declared"),
        ("ALTER TABLE tenantry_user DROP CONSTRAINT tenantry_user_login_key", "tenantry_user_login_key is missing"),
    ):  # fmt: skip
        world.query(resource, env, statement)
        assert any(told in what for what in faults(await resource.check(env))), told


# --- adopting -----------------------------------------------------------------------------------------------------


@pytest.fixture
def old(world: PostgresWorld) -> tuple[Environment, Login]:
    """An environment whose place is a database of an application that knows no Tenantry, and that database's owner."""
    env = world.environment()
    owner = Login(f"{world.prefix}_former", "former")
    name = f"{world.prefix}_shop"
    env = replace(env, places=(Place("part", "postgres", name, server="pg"),))
    env = replace(env, logins={"part": world.resource().new_login(replace(env, logins={}))})
    with psycopg.connect(world.admin, autocommit=True) as admin:  # as many installations have it: made by one admin
        role = sql.Identifier(owner.user)
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, owner.password))
        more = sql.SQL(" WITH SET TRUE" if world.server.version >= 16 else "")
        admin.execute(sql.SQL("GRANT {} TO CURRENT_USER{}").format(role, more))
        for database in (name, f"{name}_other"):
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), role))
        admin.execute(sql.SQL("REVOKE {} FROM CURRENT_USER").format(role))
    url = world.server.url(name, owner.user, owner.password)
    with psycopg.connect(url, autocommit=True) as connection:
        for file in ("0001_pages.sql", "0002_bodies.sql"):
            connection.execute((world.root / "schema" / file).read_text().partition("\n-- down")[0].encode())
        connection.execute("INSERT INTO page (title) VALUES ('of the old shop')")
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS 'our shop'").format(sql.Identifier(name)))
    return env, owner


def state(world: PostgresWorld, name: str) -> tuple[Any, ...]:
    """Owner, comment and privileges of a database, and who owns what in it."""
    with psycopg.connect(world.server.url(name)) as connection:
        outside = connection.execute(
            "SELECT pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'), "
            "ARRAY(SELECT a.grantee::regrole::text || a.privilege_type FROM aclexplode("
            "coalesce(datacl, acldefault('d', datdba))) a ORDER BY 1) FROM pg_database WHERE datname = %s",
            (name,),
        ).fetchall()
        inside = connection.execute(
            "SELECT relname, pg_get_userbyid(relowner) FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
    return (*outside, *inside)


async def test_a_database_is_adopted_and_given_back(world: PostgresWorld, old: tuple[Environment, Login]) -> None:
    """The database keeps its data, gets the environment's login and nobody else's; given back, it is as before."""
    resource, (env, owner) = world.resource(), old
    name = resource.locate(env)
    before, other = state(world, name), state(world, f"{name}_other")
    assert faults(await resource.survey(env, "0002_bodies")) == []
    assert "table page differs" in " ".join(faults(await resource.survey(env, "0001_pages")))
    assert state(world, name) == before, "a survey changes nothing"
    for _ in range(2):
        await resource.adopt(env, "0002_bodies")
    assert world.look(resource, env) == "[('of the old shop',)]"
    assert await resource.version(env) == "0002_bodies"
    assert faults(await resource.check(env)) == []
    assert "permission denied" in refused(world, resource, env, user=owner.user, password=owner.password)
    assert state(world, f"{name}_other") == other, "the former owner's other databases stay its own"
    world.migration("0003_index.sql", "ALTER TABLE page ADD COLUMN more int; ALTER TABLE page DROP COLUMN more;")
    assert (await resource.migrate(env)).applied == ("0003_index",)
    for _ in range(2):
        await resource.release(env)
    assert state(world, name) == before
    assert memberships(world) == 0
    assert not await resource.exists(env)


async def test_adopting_believes_the_databases_own_records(
    world: PostgresWorld, old: tuple[Environment, Login]
) -> None:
    """A database that records a version is adopted at that one and no other."""
    resource, (env, _) = world.resource(), old
    await resource.adopt(env, "0001_pages")
    await resource.release(env)
    with psycopg.connect(world.server.url(resource.locate(env)), autocommit=True) as connection:
        connection.execute(RECORD.format(record=POSTGRES.record))
        connection.execute(
            "INSERT INTO tenantry_schema (version, name, checksum) VALUES ('0001_pages', 'pages', %s)",
            (resource.schema().migrations[0].checksum,),  # type: ignore[attr-defined]
        )
        connection.execute(sql.SQL("ALTER TABLE tenantry_schema OWNER TO {}").format(sql.Identifier(old[1].user)))
    with pytest.raises(MigrationInvalid, match="at 0001_pages, not at 0002_bodies"):
        await resource.survey(env, "0002_bodies")
    with pytest.raises(MigrationInvalid, match="at 0001_pages, not at 0002_bodies"):
        await resource.adopt(env, "0002_bodies")
    assert not await resource.exists(env)


async def test_what_is_not_there_or_not_free_is_not_adopted(world: PostgresWorld) -> None:
    """A name without a database, and another tenant's database, are refused."""
    resource, env = world.resource(), world.environment()
    with pytest.raises(ResourceError, match="there is no database"):
        await resource.adopt(env, "0002_bodies")
    await resource.create(env)
    with pytest.raises(NameTaken):
        await resource.adopt(world.environment(), "0002_bodies")
    with pytest.raises(ResourceError, match="made here, not adopted"):
        await resource.release(env)
    assert faults(await resource.check(env)) == []


# --- what a server lacks ------------------------------------------------------------------------------------------


def on(world: PostgresWorld, **changes: Any) -> Resource:
    """A resource on the server as it is described otherwise."""
    world.known = Servers([world.described(**changes)])
    return world.resource()


async def probed(world: PostgresWorld, **changes: Any) -> list[Finding]:
    """What a look at the server finds."""
    return await Postgres.probe(world.described(**changes))


async def test_a_sound_server_is_found_sound(world: PostgresWorld) -> None:
    """Version, privileges, connections and room are told; what every role may reach is named."""
    findings = await probed(world, connections=20)
    assert faults(findings) == []
    told = " | ".join(finding.what for finding in findings)
    version = f"PostgreSQL {world.server.version}."
    for words in (version, "has CREATEDB", "has CREATEROLE", "one process may take 20", "no TLS"):
        assert words in told


async def test_what_every_role_may_enter_can_be_closed(world: PostgresWorld) -> None:
    """The statements that a look at the server names keep tenants out of its other databases; it goes on working."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    world.connect(resource, env, database="template1").close()
    (told,) = [finding.what for finding in await probed(world) if "every role may connect" in finding.what]
    name = str(psycopg.conninfo.conninfo_to_dict(world.admin)["user"])
    try:
        world.server.run(*told.rpartition("closes them: ")[2].rstrip(";").split("; "))
        for database in ("postgres", "template1"):
            assert "permission denied" in refused(world, resource, env, database=database)
        postgres_admin.forget()
        await resource.create(world.environment("umbrella"))
        assert not any("every role may connect" in finding.what for finding in await probed(world))
    finally:
        everyone = sql.SQL("GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC")
        own = sql.SQL("REVOKE CONNECT ON DATABASE postgres FROM {}").format(sql.Identifier(name))
        world.server.run(everyone, own)


@pytest.mark.parametrize("privilege", ["CREATEDB", "CREATEROLE"])
async def test_a_missing_privilege_is_named_and_nothing_is_left(world: PostgresWorld, privilege: str) -> None:
    """An administrator without a privilege: the check gives the statement that grants it; a create leaves nothing."""
    resource, env = world.resource(), world.environment()
    await resource.prepare()
    user = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(world.admin)["user"]))
    world.server.run(sql.SQL("ALTER ROLE {} NO{}").format(user, sql.SQL(privilege)))
    (finding,) = [finding for finding in await probed(world) if not finding.ok]
    assert privilege in finding.what
    with pytest.raises(ServerUnfit, match="lacks a privilege"):
        await resource.create(env)
    world.server.run(finding.remedy.removeprefix("As a superuser: "))
    await resource.drop(env)
    assert world.files() == set()
    await resource.create(env)
    assert faults(await probed(world)) == []


async def test_a_wrong_password_is_told_without_the_password(world: PostgresWorld) -> None:
    """An administrator whom the server refuses is an error that says so and holds no secret."""
    url = world.server.url("postgres", "nobody-here", "top-secret")
    with pytest.raises(ServerUnfit, match="refuses the administrator's user or password") as caught:
        await on(world, admin=url).create(world.environment())
    assert "top-secret" not in str(caught.value)
    (finding,) = await probed(world, admin=url)
    assert not finding.ok
    assert "top-secret" not in str(finding)


async def test_a_server_that_is_down_is_told_and_avoided(world: PostgresWorld) -> None:
    """A server nobody answers at is unavailable, and no new tenant is placed there for a while."""
    resource = on(world, admin="postgresql://admin:x@127.0.0.1:1/postgres")
    with pytest.raises(ServerUnavailable, match="The server 'pg' cannot be reached"):
        await resource.create(world.environment())
    assert world.known.shunned("pg")
    assert not (await probed(world, admin="postgresql://admin:x@127.0.0.1:1/postgres"))[0].ok


async def test_too_few_connections_are_told(world: PostgresWorld) -> None:
    """A budget that the server cannot serve is a finding; a login without a free connection is an error at once."""
    assert any("one process may take 5000" in what for what in faults(await probed(world, connections=5000)))
    resource, env = world.resource(**world.options, connection_limit=1), world.environment()
    await resource.create(env)
    with world.connect(resource, env), pytest.raises(ResourceError, match="too many connections"):
        await resource.version(env)


async def test_an_administrator_without_a_free_connection_is_told(world: PostgresWorld) -> None:
    """An administrator who gets no connection any more is told where to raise the limit."""
    user = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(world.admin)["user"]))
    world.server.run(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(user))
    with pytest.raises(ServerUnavailable, match="too many connections") as caught:
        await world.resource().create(world.environment())
    assert "max_connections" in caught.value.hint


async def test_broken_connections_are_made_anew(world: PostgresWorld) -> None:
    """A server that ended the administrator's connections, as a restart does, is worked on as before."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    user = psycopg.conninfo.conninfo_to_dict(world.admin)["user"]
    world.server.run(sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {}").format(user))
    await resource.create(world.environment("umbrella"))
    assert faults(await resource.check(env)) == []


async def test_one_server_that_is_down_holds_up_no_other(world: PostgresWorld) -> None:
    """Templates, spares and tidying go on where a server answers; where none does, that is an error."""
    down = Server("down", "postgres", "postgresql://127.0.0.1:1/", "postgresql://admin:x@127.0.0.1:1/postgres")
    world.known.replace([down, world.described()])
    resource = world.resource(**world.options, spares=1)
    assert await resource.prepare() == "0002_bodies"
    assert await resource.refill() == 1
    assert await resource.tidy() == []
    world.known.replace([down])
    for call in (resource.prepare, resource.refill, resource.tidy):
        with pytest.raises(ServerUnavailable):
            await call()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 60 MB, where one can be mounted."""
    place = Path(tempfile.mkdtemp(prefix="tenantry-disk-"))
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m,mode=777", "tmpfs", place], capture_output=True)
    if made.returncode:
        place.rmdir()
        pytest.skip(f"no small disk can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


async def test_a_full_disk_is_told_and_nothing_is_half_done(tmp_path: Path, small_disk: Path) -> None:
    """Where the disk is full the next tenants are refused with the reason; nothing of them is left; then it goes on."""
    with servers.postgres() as server:  # of its own: a full disk troubles everybody on a server
        home = small_disk / "data"
        home.mkdir()
        owner = Path(f"/proc/{server.process.pid}").stat()
        os.chown(home, owner.st_uid, owner.st_gid)
        server.run(
            sql.SQL("CREATE TABLESPACE small LOCATION {}").format(str(home)),
            "CREATE DATABASE base TEMPLATE template0 TABLESPACE small IS_TEMPLATE true",
        )
        world = PostgresWorld("postgres", tmp_path, {"schema": "schema", "base": "base"}, server=server)
        world.migration("0001_pages.sql", world.first)
        resource, envs = world.resource(), [world.environment(f"t{number}") for number in range(8)]
        results = await resource.create_many(envs, parallel=1)
        made = [env for env, result in zip(envs, results, strict=True) if result is None]
        refused = [result for result in results if result is not None]
        assert 0 < len(made) < len(envs)
        assert {type(error) for error in refused} == {ServerUnavailable}
        assert all("its disk is full" in error.message and "Free space" in error.hint for error in refused)
        subprocess.run(["mount", "-o", "remount,size=300m", small_disk], check=True)
        assert len(world.files()) == 2 * len(made)
        assert await resource.create_many(envs, parallel=1) == [None] * len(envs)
        assert [faults(await resource.check(env)) for env in envs] == [[]] * len(envs)
        postgres_admin.forget()


async def test_an_extension_that_is_not_there_is_told(world: PostgresWorld) -> None:
    """An extension the server does not have is named; no half template stays."""
    resource = world.resource(**world.options, extensions=["no_such_thing"])
    with pytest.raises(ServerUnfit, match="it has no extension 'no_such_thing'"):
        await resource.create(world.environment())
    assert world.databases() == set()
    assert world.files() == set()


async def test_an_extension_that_a_superuser_must_make_is_told(world: PostgresWorld) -> None:
    """An extension that is not trusted is named with the way there is: a base that has it already."""
    name = "pg_stat_statements" if world.server.version == 15 else "vector"
    options = {**world.options, "extensions": [name]}
    with pytest.raises(ServerUnfit, match=f"only a superuser may create the extension '{name}'"):
        await world.resource(**options).create(world.environment())
    base = f"{world.prefix}_base"
    world.server.run(
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 IS_TEMPLATE true").format(sql.Identifier(base)),
    )
    with psycopg.connect(world.server.url(base), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(name)))
    resource, env = world.resource(**options, base=base), world.environment()
    await resource.create(env)
    assert (name,) in world.query(resource, env, "SELECT extname FROM pg_extension")
    await resource.dump(env, world.root / "dump")
    await resource.load(env, world.root / "dump")
    assert faults(await resource.check(env)) == []


async def test_a_failing_schema_leaves_nothing(world: PostgresWorld) -> None:
    """A migration that fails in the template is named; neither template nor database nor role is left."""
    world.migration("0003_bad.sql", "CREATE TABLE half (id int); SELECT 1/0;")
    resource, env = world.resource(), world.environment()
    with pytest.raises(MigrationError, match="0003_bad: division by zero, in: SELECT 1/0"):
        await resource.create(env)
    await resource.drop(env)
    assert world.databases() == set()
    assert world.files() == set()


async def test_an_old_version_is_refused(world: PostgresWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server older than what Tenantry stands on is refused, with what the oldest is and why."""
    monkeypatch.setattr("tenantry.resources.postgres_admin.OLDEST", 99)
    assert any("is too old" in what for what in faults(await probed(world)))
    with pytest.raises(ServerUnfit, match="is too old"):
        await world.resource().create(world.environment())


async def test_a_drop_ends_whoever_is_connected(world: PostgresWorld) -> None:
    """A database goes although its application is connected."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    with world.connect(resource, env) as connection:
        await resource.drop(env)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert world.files() == set()


async def test_a_load_takes_the_place_of_a_database_in_use(world: PostgresWorld, tmp_path: Path) -> None:
    """A copy is loaded aside and exchanged in one step; who is connected then is cut off, and nothing is left aside."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    await resource.dump(env, tmp_path / "dump")
    assert (tmp_path / "dump" / "part").stat().st_mode & 0o777 == 0o600
    world.use(resource, env, "later")
    before = world.databases()
    with world.connect(resource, env) as connection:
        await resource.load(env, tmp_path / "dump")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert world.look(resource, env) == "[('Welcome',)]"
    assert world.databases() == before
    assert faults(await resource.check(env)) == []
    (tmp_path / "dump" / "part").write_bytes(b"no dump")
    with pytest.raises(Exception, match="pg_restore"):
        await resource.load(env, tmp_path / "dump")
    assert world.look(resource, env) == "[('Welcome',)]"
    assert world.databases() == before
    assert memberships(world) == 0


def test_an_address_holds_no_login(world: PostgresWorld) -> None:
    """What processes are told of a server has neither the administrator's user nor password."""
    from tenantry.operations.placement import described

    made = described("pg", "postgres", world.admin, None, 10)
    assert isinstance(made, Server)
    assert "admin_" not in made.address
    assert "@" not in made.address
