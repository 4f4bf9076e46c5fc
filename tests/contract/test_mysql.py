"""What the kind `mysql` promises beside the contract, on a real MariaDB server with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

import mariadb
from mysql_world import MysqlWorld, mysql_grants
from servers import NoServer, free_port
from tenantry.errors import (
    ConfigError,
    MigrationError,
    MigrationInvalid,
    NameTaken,
    ResourceError,
    ServerUnavailable,
    ServerUnfit,
)
from tenantry.model import Environment, Login, Server, ServerState, breaches
from tenantry.resources import Resource
from tenantry.resources.mysql import _lock
from tenantry.resources.mysql_dialect import MYSQL
from tenantry.resources.mysql_server import probe

REFUSED = (pymysql.OperationalError, pymysql.ProgrammingError)


def names(world: MysqlWorld) -> set[str]:
    """What stands in the book."""
    return {row[0] for row in world.server.run("SELECT name FROM tenantry_book.part")}


# --- isolation ----------------------------------------------------------------------------------------------------


async def test_a_login_reaches_its_own_database_only(mysql_world: MysqlWorld) -> None:
    """By its own connection, a tenant sees no other database, reads none, makes none, and passes nothing on."""
    resource, env, other = mysql_world.resource(), mysql_world.environment(), mysql_world.environment("umbrella")
    for one in (env, other):
        await resource.create(one)
    theirs, own = resource.locate(other), resource.locate(env)
    with contextlib.closing(mysql_world.connect(resource, env)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        assert {row[0] for row in cursor.fetchall()} == {own, "information_schema"}
        for statement in (
            f"USE `{theirs}`",
            f"SELECT * FROM `{theirs}`.page",
            "SELECT * FROM tenantry_book.part",
            "SELECT * FROM mysql.user",
            "CREATE DATABASE stolen",
            "CREATE USER thief",
            f"GRANT SELECT ON `{own}`.* TO `{theirs}`@'%'",
            f"SHOW GRANTS FOR `{theirs}`@'%'",
            "SELECT 1 INTO OUTFILE '/tmp/stolen'",
        ):
            with pytest.raises(REFUSED):
                cursor.execute(statement)


async def test_an_underscore_in_a_name_is_no_wildcard(mysql_world: MysqlWorld) -> None:
    """In GRANT `_` stands for any character: the login of w_acme does not get into wxacme."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    like = f"{mysql_world.prefix}xacme"
    mysql_world.server.run(f"CREATE DATABASE {like}", f"CREATE TABLE {like}.page (id INT)")
    assert resource.locate(env) == f"{mysql_world.prefix}_acme"
    with contextlib.closing(mysql_world.connect(resource, env)) as connection, connection.cursor() as cursor:
        with pytest.raises(REFUSED):
            cursor.execute(f"SELECT * FROM {like}.page")
        with pytest.raises(REFUSED):
            connection.select_db(like)


async def test_no_tenant_can_take_tenantrys_locks(mysql_world: MysqlWorld) -> None:
    """Locks have names that depend on the administrator's password, since any login may take one it can name."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    name = _lock(mysql_world.described(), resource.locate(env))
    assert len(name) <= 64
    assert name != _lock(mysql_world.described(admin="mysql://adm:other@127.0.0.1"), resource.locate(env))
    with contextlib.closing(mysql_world.connect(resource, env)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
        mysql_world.migration("0003_index.sql", mysql_world.third)
        running = asyncio.create_task(resource.migrate(env))
        await asyncio.sleep(0.3)
        assert not running.done()  # so this is the lock that a migration waits for
        cursor.execute("SELECT RELEASE_LOCK(%s)", (name,))
        assert (await running).applied == ("0003_index",)


async def test_tls_is_demanded_of_tenants_too(mysql_world: MysqlWorld) -> None:
    """Where the server's address demands TLS, a tenant's login is not let in without."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    login = env.logins["part"]
    with pytest.raises(REFUSED, match="Access denied"):
        pymysql.connect(
            host="127.0.0.1",
            port=mysql_world.server.port,
            user=login.user,
            password=login.password,
            ssl_disabled=True,
        )


async def test_a_privilege_more_is_found(mysql_world: MysqlWorld) -> None:
    """A grant that somebody added by hand, beyond the tenant's database, is a finding that names it."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    mysql_world.server.run(f"GRANT SELECT ON mysql.* TO `{env.logins['part'].user}`@'%'")
    (finding,) = await resource.check(env)
    assert not finding.ok
    assert "GRANT SELECT ON `mysql`.*" in finding.what
    found = breaches(await resource.attack(env, mysql_world.environment("umbrella")))
    assert any(breach.attack.startswith("SELECT mysql.") for breach in found)


# --- names --------------------------------------------------------------------------------------------------------


async def test_long_names_are_cut_and_stay_apart(mysql_world: MysqlWorld) -> None:
    """Two slugs of 63 letters get a database each, of at most 64 letters with GRANT's backslashes, and a user of 32."""
    resource = mysql_world.resource()
    envs = [mysql_world.environment("a" * 62 + letter) for letter in "bc"]
    assert await resource.create_many(envs) == [None, None]
    places = {resource.locate(env) for env in envs}
    users = {env.logins["part"].user for env in envs}
    assert len(places) == len(users) == 2
    assert {len(place) + place.count("_") for place in places} == {64}
    assert max(len(user) for user in users) <= 32
    for env in envs:
        assert mysql_world.query(resource, env, "SELECT title FROM page") == [("Welcome",)]


@pytest.mark.parametrize("what", ["database", "user"])
async def test_what_is_somebody_elses_is_not_touched(mysql_world: MysqlWorld, what: str) -> None:
    """A database or user of the wanted name that is not ours is an error; it stays as it was, also through a drop."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    name, server = resource.locate(env), mysql_world.server
    if what == "database":
        server.run(f"CREATE DATABASE `{name}`", f"CREATE TABLE `{name}`.theirs (id INT)")
    else:
        server.run(f"CREATE USER `{name}`@'%' IDENTIFIED BY 'theirs'")
    with pytest.raises(NameTaken, match=f"There is a {what} '{name}' on the server 'my'"):
        await resource.create(env)
    with pytest.raises(NameTaken):
        await resource.create(env)
    await resource.drop(env)
    assert not await resource.exists(env)
    if what == "database":
        assert server.run(f"SHOW TABLES FROM `{name}`") == [("theirs",)]
    else:
        server.connect(name, "theirs").close()
        assert f"database {name}" not in mysql_world.files()


async def test_another_environments_name_is_taken(mysql_world: MysqlWorld) -> None:
    """Two environments that come to one name do not share a database: the second is refused."""
    resource, env, other = mysql_world.resource(), mysql_world.environment(), mysql_world.environment()
    await resource.create(env)
    with pytest.raises(NameTaken):
        await resource.create(other)
    assert not await resource.exists(other)
    await resource.drop(other)
    assert mysql_world.query(resource, env, "SELECT title FROM page") == [("Welcome",)]


# --- killed at every point ----------------------------------------------------------------------------------------

KILLED = """
import json, os, pickle, sys
from tenantry.resources import mysql_server
resource, env, verb = pickle.loads(bytes.fromhex(sys.stdin.read()))()
method = getattr(resource, verb)
real = {name: getattr(mysql_server.Connection, name) for name in ("ask", "run")}
def patch(limit, when):
    count = [0]
    def wrapped(name):
        def call(self, *values):
            count[0] += 1
            if count[0] == limit and when == "before":
                os._exit(9)
            found = real[name](self, *values)
            if count[0] == limit:
                os._exit(9)
            return found
        return call
    for name in real:
        setattr(mysql_server.Connection, name, wrapped(name))
def forked(limit, when):
    child = os.fork()
    if not child:
        patch(limit, when)
        try:
            method(env)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def kill_points(world: MysqlWorld, env: Environment, verb: str) -> str:
    """A program that runs a verb in a child, killed before or after its n-th statement."""
    login = env.logins["part"]
    return (
        KILLED.replace("pickle.loads(bytes.fromhex(sys.stdin.read()))()", "make(json.loads(sys.argv[1]))").replace(
            "import json, os, pickle, sys",
            f"""
import dataclasses, json, os, sys
from pathlib import Path
from tenantry.config import ResourceSpec
from tenantry.model import Environment, Login, Place, Server, Status, Tenant
from tenantry.resources import Servers, Setting, build
def make(told):
    root = Path(told["root"])
    server = Server("my", "mysql", told["address"], told["admin"])
    setting = Setting("site", root, root / "var", users=True, servers=Servers([server]))
    resource = build("part", ResourceSpec.model_validate(told["options"]), setting)
    tenant = Tenant(told["tenant"], "acme", "Acme", "site", None, Status.ACTIVE)
    env = Environment(told["id"], "production", tenant, "tenants/acme",
        places=(Place("part", "mysql", told["name"], server="my"),), logins={{"part": Login(*told["login"])}})
    return resource, env, {verb!r}
""",
        )
        + """
for number in range(int(sys.argv[2]), 200):
    for when in ("before", "after"):
        status = forked(number, when)
        if status == 1:
            sys.exit("it failed")
        if status == 0:
            print("whole", number)
            sys.exit(0)
        print("killed", flush=True)
        sys.stdin.readline()
"""
        if login
        else ""
    )


@pytest.mark.parametrize("verb", ["_create", "_drop"])
async def test_killed_at_any_statement_the_next_run_ends_it(mysql_world: MysqlWorld, verb: str) -> None:
    """A process killed before or after any statement of create or drop leaves what the next run completes."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.prepare()
    server = mysql_world.described()
    told = {
        "root": str(mysql_world.root),
        "address": server.address,
        "admin": server.admin,
        "options": {"kind": "mysql", **mysql_world.options},
        "tenant": env.tenant.id,
        "id": env.id,
        "name": resource.locate(env),
        "login": [env.logins["part"].user, env.logins["part"].password],
    }
    command = [sys.executable, "-c", kill_points(mysql_world, env, verb), json.dumps(told), "1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    if verb == "_drop":
        await resource.create(env)
    killed = 0
    while (line := await asyncio.to_thread(process.stdout.readline)).startswith("killed"):
        killed += 1
        if verb == "_drop" or killed % 2:  # every second time the drop of a half-made one is the next run
            await resource.create(env)
            assert all(finding.ok for finding in await resource.check(env))
        if verb == "_create":
            await resource.drop(env)
            assert mysql_world.files() == set()
            assert names(mysql_world) == set()
        process.stdin.write("\n")
        process.stdin.flush()
    assert line.startswith("whole"), line
    process.communicate()
    assert killed > 15
    await resource.drop(env)
    assert mysql_world.files() == set()


# --- the golden script --------------------------------------------------------------------------------------------


async def test_the_golden_script_is_made_once(mysql_world: MysqlWorld) -> None:
    """Many creates at once make one golden script, another process finds it, and a changed schema replaces it."""
    resource, envs = mysql_world.resource(), [mysql_world.environment(f"t{number}") for number in range(6)]
    assert await resource.create_many(envs, parallel=6) == [None] * 6
    made = mysql_world.server.run("SELECT fingerprint, made FROM tenantry_book.golden")
    assert len(made) == 1
    await mysql_world.resource().create(mysql_world.environment("later"))
    assert mysql_world.server.run("SELECT fingerprint, made FROM tenantry_book.golden") == made
    mysql_world.migration("0003_index.sql", mysql_world.third)
    await mysql_world.resource().prepare()
    ((mark, _),) = mysql_world.server.run("SELECT fingerprint, made FROM tenantry_book.golden")
    assert mark != made[0][0]
    assert not any("scratch" in one for one in mysql_world.files())


async def test_a_migration_that_fails_on_an_empty_database_reaches_no_tenant(mysql_world: MysqlWorld) -> None:
    """A create whose schema does not run makes nothing."""
    mysql_world.migration("0003_half.sql", "CREATE TABLE half (id INT);\nINSERT INTO nowhere VALUES (1);\n")
    resource, env = mysql_world.resource(), mysql_world.environment()
    for call in (resource.prepare(), resource.create(env)):
        with pytest.raises(MigrationError, match="0003_half"):
            await call
    assert not await resource.exists(env)
    assert mysql_world.files() == set()


EVERYTHING = r"""
CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50));
CREATE TABLE a_child (
  id INT PRIMARY KEY, parent INT, CONSTRAINT to_parent FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE
);
CREATE TABLE odd (
  id BIGINT UNSIGNED PRIMARY KEY, bits BIT(12), raw VARBINARY(20), large LONGBLOB, amount DECIMAL(30, 10), ratio DOUBLE,
  day DATE, at DATETIME(6), stamp TIMESTAMP NULL, year YEAR, choice ENUM('a', 'b''c'), many SET('x', 'y'), doc JSON,
  latin VARCHAR(20) CHARACTER SET latin1, loud VARCHAR(30) AS (concat(id, '!')) STORED,
  asked VARCHAR(30) AS (concat('?', id)) VIRTUAL
);
CREATE SEQUENCE number START WITH 100;
CREATE TABLE numbered (id BIGINT PRIMARY KEY DEFAULT nextval(number), name VARCHAR(20)) WITH SYSTEM VERSIONING;
CREATE VIEW z_names AS SELECT name FROM parent;
CREATE VIEW a_count AS SELECT count(*) AS n FROM z_names;
CREATE FUNCTION answer(x INT) RETURNS INT DETERMINISTIC
BEGIN
  IF x > 0 THEN
    RETURN CASE WHEN x = 1 THEN 41 ELSE 42 END;
  END IF;
  RETURN 0;
END;
CREATE PROCEDURE clear_odd() DELETE FROM odd;
CREATE TRIGGER parent_name BEFORE INSERT ON parent FOR EACH ROW SET new.name = coalesce(new.name, 'none; really');
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM odd WHERE id = 0;
"""
ODD_ROWS = r"""
INSERT INTO odd (id, bits, raw, large, amount, ratio, day, at, stamp, year, choice, many, doc, latin) VALUES
(0, b'101010101010', X'00FF27', X'0D0A1A5C', 12345678901234567890.0123456789, 0.1, '2020-02-29',
 '2020-02-29 23:59:59.123456', '2020-06-01 12:00:00', 2024, 'b''c', 'x,y', '{"a": "ä\\n;"}', 'ÄÖ'),
(18446744073709551615, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO parent (name) VALUES (NULL), ('line\nbreak; -- '' "quote" \\ \0 end');
INSERT INTO a_child VALUES (1, 1);
INSERT INTO numbered (name) VALUES ('a'), ('b');
"""


async def test_everything_is_copied(mysql_world: MysqlWorld, tmp_path: Path) -> None:
    """Create and load bring over all types, keys, views, routines, triggers and events exactly."""
    mysql_world.migration("0003_all.sql", EVERYTHING)
    (mysql_world.root / "seed.sql").write_text("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';" + ODD_ROWS)
    resource, env, other = mysql_world.resource(), mysql_world.environment(), mysql_world.environment("umbrella")
    await resource.create(env)
    tables = ("odd", "numbered", "parent", "a_child", "z_names", "a_count")
    before = {table: mysql_world.query(resource, env, f"SELECT * FROM {table}") for table in tables}
    assert before["odd"][0][:3] == (0, b"\x0a\xaa", b"\x00\xff'")
    assert before["odd"][1][0] == 18446744073709551615
    assert before["parent"][0][1] == "none; really"
    assert mysql_world.query(resource, env, "SELECT answer(1), answer(2), answer(0)") == [(41, 42, 0)]
    assert all(finding.ok for finding in await resource.check(env))
    await resource.dump(env, tmp_path / "dump")
    mysql_world.query(resource, env, "CALL clear_odd()")
    mysql_world.query(resource, env, "DROP TABLE a_child")
    mysql_world.query(resource, env, "DELETE FROM numbered")
    await resource.create(other)
    for one in (env, other):
        await resource.load(one, tmp_path / "dump")
        after = {table: mysql_world.query(resource, one, f"SELECT * FROM {table}") for table in tables}
        assert after == before
        assert mysql_world.query(resource, one, "SELECT answer(2)") == [(42,)]
        mysql_world.query(resource, one, "INSERT INTO numbered (name) VALUES ('next')")
        assert mysql_world.query(resource, one, "SELECT id > 101 FROM numbered WHERE name = 'next'") == [(1,)]
        assert all(finding.ok for finding in await resource.check(one))
    mysql_world.query(resource, env, "DELETE FROM parent WHERE id = 1")
    assert mysql_world.query(resource, env, "SELECT * FROM a_child") == []


async def test_the_client_reads_a_dump(mysql_world: MysqlWorld, tmp_path: Path) -> None:
    """A dump is plain SQL that `mariadb` runs."""
    client = shutil.which("mariadb")
    if client is None:
        pytest.skip("the client mariadb is not installed")
    mysql_world.migration("0003_all.sql", EVERYTHING)
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    mysql_world.query(resource, env, "INSERT INTO parent (name) VALUES (';;\n')")
    await resource.dump(env, tmp_path)
    await resource.drop(env)
    target, server = f"{mysql_world.prefix}_copy", mysql_world.server
    server.run(f"CREATE DATABASE {target}")
    options = tmp_path / "options"
    escaped = server.password.replace("\\", "\\\\").replace('"', '\\"')
    options.write_text(f'[client]\nuser=root\npassword="{escaped}"\nhost=127.0.0.1\nport={server.port}\n')
    with (tmp_path / "part").open("rb") as file:
        command = [client, f"--defaults-file={options}", "--default-character-set=utf8mb4", target]
        done = subprocess.run(command, stdin=file, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert server.run(f"SELECT name FROM {target}.parent") == [(";;\n",)]
    assert server.run(f"SELECT {target}.answer(1)") == [(41,)]


async def test_half_a_dump_is_not_loaded(mysql_world: MysqlWorld, tmp_path: Path) -> None:
    """A copy that breaks off, or whose statements fail, is refused; what was there stays."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    await resource.dump(env, tmp_path)
    whole = (tmp_path / "part").read_text()
    mysql_world.use(resource, env, "kept")
    (tmp_path / "part").write_text(whole[:-20])
    with pytest.raises(ResourceError, match="it has no end"):
        await resource.load(env, tmp_path)
    (tmp_path / "part").write_text(whole.replace("-- code\n", "-- code\nCREATE VIEW v AS SELECT * FROM nowhere\n;;\n"))
    with pytest.raises(ResourceError, match="nowhere"):
        await resource.load(env, tmp_path)
    assert "kept" in mysql_world.look(resource, env)
    assert all(finding.ok for finding in await resource.check(env))
    assert len(mysql_world.files()) == 2


# --- migrations that stop in the middle ---------------------------------------------------------------------------

STOPS = "CREATE TABLE one (id INT);\nINSERT INTO one VALUES (1);\nCREATE TABLE two (id INTT);\n"
STOPS += "CREATE TABLE three (id INT);\n"


async def stopped(world: MysqlWorld, resource: Resource) -> Environment:
    """An environment whose migration 0003 stopped behind its second statement."""
    env = world.environment()
    await resource.create(env)
    world.migration("0003_stops.sql", STOPS)
    with pytest.raises(MigrationError) as caught:
        await resource.migrate(env)
    assert "in: CREATE TABLE two (id INTT) (statement 3 of 4; what is before it stays)" in caught.value.message
    assert "from statement 3 on" in caught.value.hint
    return env


async def test_a_corrected_migration_goes_on_where_it_stopped(mysql_world: MysqlWorld) -> None:
    """What is done is not done again; a check says meanwhile where the tenant stands."""
    resource = mysql_world.resource()
    env = await stopped(mysql_world, resource)
    assert await resource.version(env) == "0002_bodies"
    mysql_world.migration("0003_stops.sql", STOPS.replace("INTT", "INT"))
    found = [finding.what for finding in await resource.check(env)]
    assert found[0] == "the migration 0003_stops stopped in the middle, behind statement 2"
    done = await resource.migrate(env)
    assert done.applied == ("0003_stops",)
    assert mysql_world.query(resource, env, "SELECT * FROM one") == [(1,)]
    assert all(finding.ok for finding in await resource.check(env))


async def test_what_ran_already_may_not_change(mysql_world: MysqlWorld) -> None:
    """A correction that changes the statements that ran is refused, and nothing runs."""
    resource = mysql_world.resource()
    env = await stopped(mysql_world, resource)
    mysql_world.migration("0003_stops.sql", STOPS.replace("INTT", "INT").replace("VALUES (1)", "VALUES (2)"))
    with pytest.raises(MigrationError, match="its first 2 statements ran already and were changed since"):
        await resource.migrate(env)
    assert "two" not in mysql_world.tables(resource, env)


async def test_a_statement_that_was_cut_off_is_taken_as_done(mysql_world: MysqlWorld) -> None:
    """A process killed between a statement and its record does not hold the tenant up."""
    resource = mysql_world.resource()
    env = await stopped(mysql_world, resource)
    mysql_world.migration("0003_stops.sql", STOPS.replace("INTT", "INT"))
    mysql_world.query(resource, env, "CREATE TABLE two (id INT)")
    with pytest.raises(MigrationError, match="Table 'two' already exists"):
        await resource.migrate(env)
    with contextlib.closing(mysql_world.connect(resource, env)) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE tenantry_schema SET begun = 1 WHERE version = '0003_stops'")
    assert (await resource.migrate(env)).applied == ("0003_stops",)
    assert "three" in mysql_world.tables(resource, env)


async def test_one_that_stops_on_its_way_back_goes_on_back(mysql_world: MysqlWorld) -> None:
    """A migration half taken back is not taken for gone, and is taken back wholly by the next run that way."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    text = "CREATE TABLE one (id INT);\n-- down\nDROP TABLE one;\nDROP TABLE tow;\n"
    mysql_world.migration("0003_back.sql", text)
    await resource.create(env)
    with pytest.raises(MigrationError, match=r"tow.*statement 2 of 2"):
        await resource.migrate(env, "0002_bodies")
    assert await resource.version(env) == "0003_back"
    assert "half taken back, behind statement 1" in (await resource.check(env))[0].what
    mysql_world.query(resource, env, "CREATE TABLE tow (id INT)")
    assert (await resource.migrate(env, "0002_bodies")).applied == ("0003_back",)
    assert not {"one", "tow"} & mysql_world.tables(resource, env)


async def test_changes_of_rows_alone_are_one_transaction(mysql_world: MysqlWorld) -> None:
    """A migration that changes rows only is rolled back wholly where it fails."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    mysql_world.migration(
        "0003_rows.sql",
        "-- a remark\nUPDATE page SET title = 'x';\nINSERT INTO page (id, title) VALUES (1, 'twice');\n",
    )
    with pytest.raises(MigrationError, match="Duplicate entry"):
        await resource.migrate(env)
    assert mysql_world.look(resource, env) == "[('Welcome',)]"
    assert [finding.what for finding in await resource.check(env)] == ["schema 0002_bodies is behind 0003_rows"]


PYTHON = """
from sqlalchemy import text

def upgrade(connection):
    connection.execute(text("INSERT INTO page (title) VALUES (:title)"), {"title": "from Python"})
    assert connection.execute(text("SELECT count(*) FROM page")).scalar() == 2

def downgrade(connection):
    connection.execute(text("DELETE FROM page WHERE title = 'from Python'"))
"""


async def test_python_files_migrate(mysql_world: MysqlWorld) -> None:
    """A Python file runs on a SQLAlchemy connection, up and down, and can end its transaction by no means."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    mysql_world.migration("0003_python.py", PYTHON)
    assert (await resource.migrate(env)).applied == ("0003_python",)
    assert "from Python" in mysql_world.look(resource, env)
    assert (await resource.migrate(env, "0002_bodies")).applied == ("0003_python",)
    for end in ("connection.commit()", "connection.rollback()", "connection.exec_driver_sql('COMMIT')"):
        mysql_world.migration("0003_python.py", PYTHON.replace("    assert", f"    {end}\n    assert"))
        with pytest.raises(MigrationError, match="cannot begin, commit or roll back"):
            await resource.migrate(env)
        assert mysql_world.look(resource, env) == "[('Welcome',)]"


async def test_an_alembic_directory_migrates(mysql_world: MysqlWorld) -> None:
    """Alembic's revisions run on MariaDB, up and down."""
    shutil.rmtree(mysql_world.root / "schema")
    versions = mysql_world.root / "schema" / "versions"
    versions.mkdir(parents=True)
    for name, before in (("aa11", None), ("bb22", "aa11")):
        (versions / f"{name}.py").write_text(
            "from alembic import op\nimport sqlalchemy as sa\n"
            f"revision = {name!r}\ndown_revision = {before!r}\n"
            f"def upgrade():\n    op.create_table('t_{name}', sa.Column('id', sa.Integer, primary_key=True))\n"
            f"def downgrade():\n    op.drop_table('t_{name}')\n"
        )
    resource, env = (
        mysql_world.resource(schema="schema", name=f"{mysql_world.prefix}_{{slug}}"),
        mysql_world.environment(),
    )
    await resource.create(env)
    assert await resource.version(env) == "bb22"
    assert all(finding.ok for finding in await resource.check(env))
    assert (await resource.migrate(env, "aa11")).applied == ("bb22",)
    assert "t_bb22" not in mysql_world.tables(resource, env)


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("SELECT 1; SELECT 2", ("SELECT 1", "SELECT 2")),
        ("SELECT 'a;''b\\';'; # c;\nSELECT `x;` /* ; */;", ("SELECT 'a;''b\\';'", "SELECT `x;`")),
        (
            "CREATE PROCEDURE p() BEGIN SELECT 1; END; SELECT 2",
            ("CREATE PROCEDURE p() BEGIN SELECT 1; END", "SELECT 2"),
        ),
        (
            "UPDATE t SET a = CASE b WHEN 1 THEN 2 END; SELECT 2",
            ("UPDATE t SET a = CASE b WHEN 1 THEN 2 END", "SELECT 2"),
        ),
        (
            "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN IF 1 THEN SET @a = 1; END IF; CASE 1 WHEN 1 THEN "
            "SET @b = CASE 2 WHEN 2 THEN 3 END; END CASE; WHILE 0 DO SET @c = 1; END WHILE; END; SELECT 2",
            None,
        ),
    ],
)
def test_scripts_are_split(script: str, parts: tuple[str, ...] | None) -> None:
    """Quotes, comments and bodies of routines are told apart from ends of statements."""
    found = MYSQL.split(script, "x.sql")
    if parts is None:
        assert (len(found), found[1]) == (2, "SELECT 2")
    else:
        assert found == parts


@pytest.mark.parametrize("statement", ["COMMIT", "start transaction", "USE other", "DELIMITER //", "XA START 'x'"])
def test_statements_that_leave_the_migration_are_refused(statement: str) -> None:
    """What ends transactions, leaves the database or is the client's is named when the file is read."""
    with pytest.raises(MigrationInvalid, match=rf"x\.sql: it has the statement {statement.split()[0].upper()}"):
        MYSQL.split(f"SELECT 1;\n{statement};", "x.sql")


# --- logins -------------------------------------------------------------------------------------------------------


def rotated(env: Environment, login: Login) -> Environment:
    """The environment with its new login."""
    return replace(env, logins={"part": login})


async def test_a_login_rotates_beside_the_old_one(mysql_world: MysqlWorld) -> None:
    """Both logins work until the old one is expelled, which ends its connections; then it turns again."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    fresh = resource.new_login(env)
    assert fresh.user == env.logins["part"].user + "_b"
    for _ in range(2):
        await resource.admit(env, fresh)
    after = rotated(env, fresh)
    with contextlib.closing(mysql_world.connect(resource, env)) as old:
        assert mysql_world.query(resource, after, "SELECT title FROM page") == [("Welcome",)]
        for _ in range(2):
            await resource.expel(after, env.logins["part"].user)
        with pytest.raises(REFUSED), old.cursor() as cursor:
            cursor.execute("SELECT 1")
    with pytest.raises(REFUSED):
        mysql_world.connect(resource, env)
    mysql_world.use(resource, after, " trimmed still ")  # by a trigger that the old user had made
    assert "'trimmed still'" in mysql_world.look(resource, after)
    third = resource.new_login(after)
    assert third.user == env.logins["part"].user
    await resource.admit(after, third)
    await resource.expel(rotated(env, third), fresh.user)
    assert mysql_world.query(resource, rotated(env, third), "SELECT count(*) FROM page") == [(2,)]
    assert all(finding.ok for finding in await resource.check(rotated(env, third)))
    await resource.drop(rotated(env, third))
    assert mysql_world.files() == set()


async def test_an_old_user_goes_where_nothing_runs_as_it(mysql_world: MysqlWorld) -> None:
    """Without views, triggers or routines of its own, an expelled user is gone from the server."""
    mysql_world.migration("0001_pages.sql", "CREATE TABLE page (id INT PRIMARY KEY AUTO_INCREMENT, title TEXT);")
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    fresh = resource.new_login(env)
    await resource.admit(env, fresh)
    await resource.expel(rotated(env, fresh), env.logins["part"].user)
    assert {one for one in mysql_world.files() if one.startswith("user")} == {f"user {fresh.user}"}


async def test_a_database_is_adopted_and_released(mysql_world: MysqlWorld) -> None:
    """What was there before becomes a tenant's with its data, and again what it was."""
    resource, env, server = mysql_world.resource(), mysql_world.environment(), mysql_world.server
    name = resource.locate(env)
    server.run(
        f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4",
        f"CREATE TABLE `{name}`.page (id INT PRIMARY KEY AUTO_INCREMENT, title TEXT NOT NULL)",
        f"INSERT INTO `{name}`.page (title) VALUES ('old')",
    )
    before = server.run(f"SHOW TABLES FROM `{name}`")
    told = {version: await resource.survey(env, version) for version in ("0001_pages", "0002_bodies")}
    assert [finding.what for finding in told["0001_pages"]] == ["the schema differs: trigger page_title is missing"]
    assert "column body of page is missing" in " ".join(finding.what for finding in told["0002_bodies"])
    assert server.run(f"SHOW TABLES FROM `{name}`") == before
    assert mysql_world.files() == {f"database {name}"}
    for _ in range(2):
        await resource.adopt(env, "0001_pages")
    with pytest.raises(MigrationInvalid):  # its own records say otherwise
        await resource.survey(env, "0002_bodies")
    assert await resource.version(env) == "0001_pages"
    assert (await resource.migrate(env)).applied == ("0002_bodies",)
    assert mysql_world.look(resource, env) == "[('old',)]"
    assert "trigger page_title is missing" in " ".join(finding.what for finding in await resource.check(env))
    for _ in range(2):
        await resource.release(env)
    assert server.run(f"SHOW TABLES FROM `{name}`") == before
    assert mysql_world.files() == {f"database {name}"}
    assert not await resource.exists(env)
    with pytest.raises(ResourceError, match="there is no database"):
        await resource.adopt(mysql_world.environment("nobody"), None)


async def test_what_was_made_here_is_not_released(mysql_world: MysqlWorld) -> None:
    """Release is the way back of adopt only."""
    resource, env = mysql_world.resource(), mysql_world.environment()
    await resource.create(env)
    with pytest.raises(ResourceError, match="was made here, not adopted"):
        await resource.release(env)
    assert await resource.exists(env)


# --- errors -------------------------------------------------------------------------------------------------------


def known(world: MysqlWorld, **changes: Any) -> Resource:
    """The resource on a server that is known otherwise than it is."""
    world.known.replace([world.described(**changes)])
    return world.resource()


async def test_a_wrong_password_is_named(mysql_world: MysqlWorld) -> None:
    """The administrator's wrong password is an error that says which address to correct, without the password."""
    env = mysql_world.environment()
    resource = known(mysql_world, admin=mysql_world.server.url("root", "wr0ng"))
    with pytest.raises(ServerUnfit, match="it refuses its administrator's login: Access denied") as caught:
        await resource.create(env)
    assert "Correct the user or the password in the address of the server 'my'" in caught.value.hint
    assert "wr0ng" not in str(caught.value)
    (finding,) = probe(mysql_world.described(admin=mysql_world.server.url("root", "wr0ng")))
    assert not finding.ok


@pytest.mark.parametrize("number", range(3))
async def test_a_missing_privilege_is_named(mysql_world: MysqlWorld, number: int) -> None:
    """Without any of the documented privileges a create says what is missing and leaves nothing, and probe names it."""
    env = mysql_world.environment()
    grants = list(mysql_grants(mysql_world.prefix))
    lacking = grants.pop(number)
    with mysql_world.server.administrator(*grants) as login:
        resource = known(mysql_world, admin=mysql_world.server.url(*login))
        found = [finding for finding in probe(mysql_world.known.get("my")) if not finding.ok]
        assert found
        assert all(
            finding.remedy.startswith(f"Run GRANT {finding.what.rpartition('lacks ')[2]} TO '{login[0]}'@'%'")
            for finding in found
        )
        if number == 0:
            assert [f.what.rpartition("lacks ")[2] for f in found] == [
                "CREATE USER ON *.*",
                "PROCESS ON *.*",
                "CONNECTION ADMIN ON *.*",
            ]
        with pytest.raises(ServerUnfit, match="its administrator lacks a privilege") as caught:
            await resource.create(env)
        assert "Grant the administrator: " in caught.value.hint
        assert lacking
    resource = known(mysql_world)
    await resource.drop(env)
    assert {one for one in mysql_world.files() if "scratch" not in one} == set()
    await resource.tidy()
    assert mysql_world.files() == set()


async def test_a_fit_server_is_found_so(mysql_world: MysqlWorld) -> None:
    """The documented privileges are enough, and the findings tell version, TLS and room."""
    findings = probe(mysql_world.described())
    assert all(finding.ok for finding in findings), findings
    told = " ".join(finding.what for finding in findings)
    assert "MariaDB 10.11" in told
    assert "encrypted by TLSv1.3" in told
    assert "takes 200 connections" in told
    (short,) = [finding for finding in probe(mysql_world.described(connections=500)) if not finding.ok]
    assert "it takes 200 connections, and one process may open 500" in short.what


async def test_a_server_that_is_down_is_named_and_shunned(mysql_world: MysqlWorld) -> None:
    """A server that does not run is unavailable; no tenant is placed there for a while."""
    env, port = mysql_world.environment(), free_port()
    url = f"mysql://admin:secret@127.0.0.1:{port}"
    resource = known(mysql_world, address=f"mysql://127.0.0.1:{port}", admin=url)
    with pytest.raises(ServerUnavailable, match=r"The server 'my' cannot be reached: .*refused"):
        await resource.create(env)
    assert mysql_world.known.shunned("my")
    with pytest.raises(ServerUnavailable):
        await resource.prepare()


async def test_a_server_that_never_answers_is_given_up(mysql_world: MysqlWorld) -> None:
    """A server that accepts a connection and says nothing is unavailable, not waited for without end."""
    env = mysql_world.environment()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"mysql://127.0.0.1:{mute.getsockname()[1]}"
        resource = known(mysql_world, address=address, admin=address.replace("//", "//admin:secret@"))
        with pytest.raises(ServerUnavailable, match="timed out"):
            await resource.exists(env)
    assert mysql_world.known.shunned("my")


GREETING = b"\x0a5.5.5-10.5.9-MariaDB\0\x01\0\0\0saltsalt\0\xfe\xf7\x2d\x02\0\xff\xc1\x15" + b"\0" * 10
GREETING += b"saltsaltsalt\0mysql_native_password\0"


@contextlib.contextmanager
def old_server() -> Iterator[int]:
    """The port of something that greets as MariaDB 10.5 does, and agrees to everything."""
    agreed = b"\0\0\0\2\0\0\0"

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(len(GREETING).to_bytes(3, "little") + b"\0" + GREETING)
                    while header := connection.recv(4):
                        connection.recv(int.from_bytes(header[:3], "little"))
                        connection.sendall(len(agreed).to_bytes(3, "little") + bytes([header[3] + 1]) + agreed)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_a_server_that_is_too_old_is_refused(mysql_world: MysqlWorld) -> None:
    """A version before MariaDB 10.6 is refused with the oldest that does."""
    env = mysql_world.environment()
    with old_server() as port:
        address = f"mysql://127.0.0.1:{port}"
        resource = known(mysql_world, address=address, admin=address.replace("//", "//admin:secret@"))
        with pytest.raises(ServerUnfit, match=r"it is MariaDB 10\.5, and the oldest that does is 10\.6"):
            await resource.create(env)


async def test_a_strange_authority_is_refused(mysql_world: MysqlWorld, tmp_path: Path) -> None:
    """A server whose certificate the known authority did not sign is refused before any password is sent."""
    mariadb.certify(tmp_path)
    login = mysql_world.login
    url = mysql_world.server.url(login.user, login.password, ssl_ca=str(tmp_path / "ca.pem"))
    env = mysql_world.environment()
    resource = known(mysql_world, address="mysql://" + url.rpartition("@")[2], admin=url)
    with pytest.raises(ServerUnfit, match="there is no sound TLS to it"):
        await resource.create(env)
    gone = url.replace("ca.pem", "gone.pem")
    resource = known(mysql_world, address="mysql://" + gone.rpartition("@")[2], admin=gone)
    with pytest.raises(ServerUnfit, match="its TLS settings do not work, No such file"):
        await resource.create(env)
    odd = mysql_world.server.url(ssl_mode="maybe")
    resource = known(mysql_world, address="mysql://" + odd.rpartition("@")[2], admin=odd)
    with pytest.raises(ServerUnfit, match="its address has the setting 'ssl_mode'"):
        await resource.create(env)
    half = "mysql://admin:secret@127.0.0.1/?ssl_check_hostname=true"
    resource = known(mysql_world, address=half.replace("admin:secret@", ""), admin=half)
    with pytest.raises(ServerUnfit, match="ssl_ settings without ssl_ca"):
        await resource.create(env)


def small(**settings: Any) -> Any:
    """A MariaDB server of its own, without TLS."""
    try:
        return mariadb.running(tls=False, **settings)
    except NoServer as error:
        pytest.skip(str(error))


def described(server: mariadb.MariaDB, **query: str) -> Server:
    """A server as a platform knows it that trusts it."""
    url = server.url(**query)
    return Server("my", "mysql", "mysql://" + url.rpartition("@")[2], url, state=ServerState.OPEN)


async def test_a_server_without_tls_and_with_few_connections(mysql_world: MysqlWorld) -> None:
    """A server that offers no TLS is refused where TLS is demanded; one that is full says so."""
    env = mysql_world.environment()
    with small(max_connections="10") as server:
        mysql_world.known.replace([described(server, ssl_ca=str(mysql_world.server.home / "ca.pem"))])
        with pytest.raises(ServerUnfit, match="there is no sound TLS to it: SSL is required"):
            await mysql_world.resource().create(env)
        mysql_world.known.replace([described(server)])
        assert any("not encrypted, on this host" in finding.what for finding in probe(described(server)))
        resource = mysql_world.resource()
        await resource.prepare()
        with server.administrator() as (name, password), contextlib.ExitStack() as held:
            with contextlib.suppress(pymysql.OperationalError):
                while True:
                    held.callback(server.connect(name, password).close)
            with pytest.raises(ServerUnavailable, match="all its connections are in use") as caught:
                await mysql_world.resource().create(env)
            assert "Raise max_connections there" in caught.value.hint
        await resource.create(env)
        assert all(finding.ok for finding in await resource.check(env))


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A place with room for a server and little more."""
    place = Path(tempfile.mkdtemp(prefix="tenantry-disk-"))
    place.chmod(0o755)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", str(place)])
    try:
        if mounted.returncode:
            pytest.skip("mounting a small file system needs root")
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)])
        place.rmdir()


def fill(place: Path, left: int) -> Path:
    """A file that leaves so many bytes free."""
    path = place / "filler"
    with path.open("wb") as file:
        status = os.statvfs(place)
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_bsize - left)
    return path


@pytest.mark.parametrize("left", [4 << 20, 1 << 18, 1 << 12])
async def test_a_full_disk_is_named(mysql_world: MysqlWorld, small_disk: Path, left: int) -> None:
    """Where the server's disk is full, a create says so; with room again, it is completed."""
    tables = "".join(f"CREATE TABLE t{number} (id INT PRIMARY KEY, a INT, KEY (a));" for number in range(60))
    mysql_world.migration("0003_tables.sql", tables)
    env = mysql_world.environment()
    with small(place=small_disk) as server:
        mysql_world.known.replace([described(server)])
        resource = mysql_world.resource()
        await resource.prepare()
        filler = fill(small_disk, left)
        with pytest.raises(ServerUnfit, match="its disk is full") as caught:
            await resource.create(env)
        assert "what was begun is completed" in caught.value.hint
        filler.unlink()
        await resource.create(env)
        assert all(finding.ok for finding in await resource.check(env))
        await resource.drop(env)
        assert server.databases() == {"tenantry_book"}
        assert server.users() == set()


@pytest.mark.parametrize(
    ("options", "option"), [({"charset": "klingon"}, "charset"), ({"collation": "latin1_bin"}, "collation")]
)
async def test_an_unknown_charset_is_named(mysql_world: MysqlWorld, options: dict[str, str], option: str) -> None:
    """A character set or collation the server does not have is an error of the configuration; nothing is made."""
    resource, env = mysql_world.resource(**{**mysql_world.options, **options}), mysql_world.environment()
    with pytest.raises(ConfigError, match=rf"blueprints\.site\.resources\.part\.{option}: the server 'my' says"):
        await resource.create(env)
    assert mysql_world.files() == set()


@pytest.mark.parametrize("option", [{"charset": "utf8mb4; DROP"}, {"host": "a' b"}, {"collation": ""}])
async def test_options_that_are_no_words_are_refused(mysql_world: MysqlWorld, option: dict[str, str]) -> None:
    """Options that go into statements are words."""
    with pytest.raises(ConfigError, match=rf"part\.{next(iter(option))}"):
        mysql_world.resource(**{**mysql_world.options, **option})
