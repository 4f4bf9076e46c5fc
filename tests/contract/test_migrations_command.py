"""Schemas that an application's own program migrates: what it is told, when it is run, and how it fails."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenantry.errors import ConfigError, MigrationError, MigrationInvalid, ResourceError
from tenantry.model import Environment, Place
from tenantry.resources import Resource
from worlds import PostgresWorld, SqliteWorld, World

PROGRAM = """
import contextlib, json, os, pathlib, subprocess, sys, time

env = {name[9:]: value for name, value in os.environ.items() if name.startswith("TENANTRY_")}
kind = env["DATABASE_KIND"]
if kind == "sqlite":
    import sqlite3
    connection = sqlite3.connect(env["DATABASE_FILE"])
elif kind == "postgres":
    import psycopg
    connection = psycopg.connect(env["DATABASE_URL"])
else:
    import pymysql
    connection = pymysql.connect(host=env["DATABASE_HOST"], port=int(env["DATABASE_PORT"]), charset="utf8mb4",
        user=env["DATABASE_USER"], password=env["DATABASE_PASSWORD"].encode(), database=env["DATABASE_NAME"])
mode = pathlib.Path("mode").read_text() if pathlib.Path("mode").exists() else ""
with contextlib.closing(connection), contextlib.closing(connection.cursor()) as cursor:
    cursor.execute("CREATE TABLE IF NOT EXISTS step (name VARCHAR(80) NOT NULL)")
    connection.commit()
    if mode == "fail":
        print("x" * 100_000)
        print("password:", env.get("DATABASE_PASSWORD"))
        sys.exit("no room for " + env.get("SLUG", "the template"))
    if mode == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        pathlib.Path("child").write_text(str(child.pid))
        time.sleep(3600)
    cursor.execute(f"INSERT INTO step VALUES ('{env['FROM']}>{env['TO']}')")
    connection.commit()
pathlib.Path(f"told-{env.get('SLUG', 'template')}.json").write_text(json.dumps(dict(os.environ)))
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres), "mysql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A platform for each kind that a program can migrate; the program is at version 1.0."""
    (tmp_path / "upgrade.py").write_text(PROGRAM)
    (tmp_path / "VERSION").write_text("1.0\n")
    found: Any
    if request.param == "mysql":
        found = request.getfixturevalue("mysql_world")
        yield declared(found)
    elif request.param == "postgres":
        found = PostgresWorld("postgres", tmp_path, {}, server=request.getfixturevalue("postgres"))
        yield declared(found)
        found.clear()
    else:
        yield declared(SqliteWorld("sqlite", tmp_path, {}))


def declared(world: World, **more: object) -> World:
    """The world, with a program for its schema."""
    run = f"{sys.executable} upgrade.py"
    program = {"command": run, "version": "cat VERSION", "files": ["VERSION"], **more}
    world.options = {**{key: value for key, value in world.options.items() if key == "name"}, "schema": program}
    return world


def release(world: World, version: str) -> Resource:
    """A new version of the program."""
    (world.root / "VERSION").write_text(f"{version}\n")
    return world.resource()


def steps(world: World, resource: Resource, env: Environment) -> list[str]:
    """What the program did in a database."""
    return [str(row[0]) for row in world.query(resource, env, "SELECT name FROM step")]


async def test_a_program_makes_and_migrates(world: World) -> None:
    """A new database is made by the program, an old one is brought forward by it, and both record its version."""
    resource, env = world.resource(), world.environment()
    assert resource.versions() == ("1.0",)
    assert await resource.prepare() == "1.0"
    await resource.create(env)
    assert await resource.version(env) == "1.0"
    assert steps(world, resource, env) == [">1.0"]
    await resource.create(env)
    assert steps(world, resource, env) == [">1.0"]
    resource = release(world, "1.1")
    assert resource.pending("1.0") == ("1.1",)
    assert any("behind" in finding.what for finding in await resource.check(env))
    done = await resource.migrate(env)
    assert (done.before, done.after, done.applied) == ("1.0", "1.1", ("1.1",))
    assert (await resource.migrate(env)).applied == ()
    assert steps(world, resource, env) == [">1.0", "1.0>1.1"]
    assert all(finding.ok for finding in await resource.check(env))


async def test_a_program_is_told_where_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenant's facts and the database stand in its environment, the platform's secrets do not."""
    monkeypatch.setenv("TENANTRY_SECRET_KEY", "0" * 64)
    monkeypatch.setenv("PG_ADMIN_URL", "secret")
    resource, env = world.resource(), world.environment()
    env = replace(env, places=(*env.places, Place("config", "rendered", "env.json")))
    await resource.create(env)
    resource = release(world, "2.0")
    await resource.migrate(env)
    told = json.loads((world.root / "told-acme.json").read_text())
    home = world.root / "var" / env.home
    wanted = {
        "SLUG": "acme", "NAME": "Acme", "TENANT_ID": env.tenant.id, "ENVIRONMENT": "production",
        "ENVIRONMENT_ID": env.id, "HOSTNAME": env.hostnames[0], "HOME": str(home), "RESOURCE": "part",
        "PATH_CONFIG": str(home / "env.json"), "FROM": "1.0", "TO": "2.0", "DATABASE_KIND": world.kind,
    }  # fmt: skip
    assert {name: told[f"TENANTRY_{name}"] for name in wanted} == wanted
    if world.kind != "sqlite":
        assert told["TENANTRY_DATABASE_PASSWORD"] == env.logins["part"].password
        assert told["TENANTRY_DATABASE_NAME"] == resource.locate(env)
    assert "TENANTRY_SECRET_KEY" not in told
    assert "PG_ADMIN_URL" not in told


async def test_a_program_that_fails_is_quoted(world: World) -> None:
    """The error has the program's last lines, without the password; the version stays, and the next run goes on."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    resource = release(world, "1.1")
    (world.root / "mode").write_text("fail")
    with pytest.raises(MigrationError, match=r"ended with 1: .*no room for acme") as caught:
        await resource.migrate(env)
    assert len(caught.value.message) < 3000
    if world.kind != "sqlite":
        assert env.logins["part"].password not in str(caught.value)
        assert "password: …" in caught.value.message
    assert await resource.version(env) == "1.0"
    (world.root / "mode").unlink()
    assert (await resource.migrate(env)).applied == ("1.1",)


def lives(pid: int) -> bool:
    """Whether a process runs, which one that waits for its parent to look after it does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_program_that_hangs_is_ended_with_all_it_started(world: World) -> None:
    """At its time limit the program is killed with its children."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    release(declared(world, timeout="3s"), "1.1")
    (world.root / "mode").write_text("hang")
    with pytest.raises(MigrationError, match="no answer in 3 s"):
        await world.resource().migrate(env)
    child = int((world.root / "child").read_text())
    for _ in range(1000):  # it was killed; the system may take a moment to end it
        if not lives(child):
            break
        await asyncio.sleep(0.01)
    assert not lives(child)
    (world.root / "mode").unlink()
    assert (await world.resource().migrate(env)).applied == ("1.1",)


async def test_one_program_at_a_time(world: World) -> None:
    """Migrations of one database at the same moment run the program once after the other, and the rest find it done."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    release(world, "1.1")
    done = await asyncio.gather(*(world.resource().migrate(env) for _ in range(3)))
    assert [one.after for one in done] == ["1.1"] * 3
    assert steps(world, resource, env) == [">1.0", "1.0>1.1"]


async def test_a_program_goes_back_where_it_can(world: World) -> None:
    """With `down` a database goes back to the version that is asked for; without it that is refused."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    await release(world, "1.1").migrate(env)
    with pytest.raises(MigrationInvalid, match=r"there is no migration '1\.0'"):
        await world.resource().migrate(env, "1.0")
    resource = declared(world, down=f"{sys.executable} upgrade.py").resource()
    assert (await resource.migrate(env, "1.0")).after == "1.0"
    assert steps(world, resource, env)[-1] == "1.1>1.0"
    assert await resource.version(env) == "1.0"


async def test_without_a_version_the_files_tell(world: World) -> None:
    """A program that prints no version has a new one with each change of its files."""
    world = declared(world, version=None)
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    first = resource.newest
    assert len(str(first)) == 16
    assert release(world, "changed").newest != first
    assert (await world.resource().migrate(env)).before == first


@pytest.mark.parametrize(
    ("more", "error", "told"),
    [
        ({"version": "false"}, MigrationInvalid, "does not tell its version"),
        ({"version": "echo two words"}, MigrationInvalid, "its version is 'two words'"),
        ({"version": "no-such-program"}, MigrationInvalid, "does not tell its version"),
        ({"files": ["missing"]}, ConfigError, "there is no 'missing'"),
        ({"command": "php 'upgrade"}, ConfigError, "a quote does not end"),
        ({"command": ""}, ConfigError, "schema"),
        ({"down": " "}, ConfigError, "it names no program|schema"),
        ({"files": ["VERSION"], "fils": 1}, ConfigError, "fils"),
    ],
)
def test_a_wrong_declaration_is_named(tmp_path: Path, more: dict[str, object], error: Any, told: str) -> None:
    """What cannot be run, or tells no version, is refused with the option's name."""
    (tmp_path / "VERSION").write_text("1.0\n")
    world = declared(SqliteWorld("sqlite", tmp_path, {}), **more)
    with pytest.raises(error, match=told):
        world.resource().versions()


async def test_what_a_program_migrates_is_not_adopted(world: World) -> None:
    """Nobody could tell at which version it is."""
    source = world.root / "old.sqlite"
    sqlite3.connect(source).close()
    given = source if world.kind == "sqlite" else None
    with pytest.raises(ResourceError, match="what a program migrates cannot be adopted"):
        await world.resource().adopt(world.environment(), "1.0", given)


@pytest.mark.parametrize("kind", ["memory"])
def test_kinds_without_a_place_for_it_refuse(tmp_path: Path, kind: str) -> None:
    """A database that another process cannot reach is not migrated by a program."""
    world = declared(SqliteWorld(kind, tmp_path, {}))
    with pytest.raises(ConfigError, match="a memory is not migrated by a program"):
        world.resource()


# --- rehearsals ---------------------------------------------------------------------------------------------------

ALEMBIC = """
import json, os, pathlib
from alembic import context
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

drivers = {"sqlite": "sqlite", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
url = make_url(os.environ["TENANTRY_DATABASE_URL"]).set(drivername=drivers[os.environ["TENANTRY_DATABASE_KIND"]])
with create_engine(url, poolclass=NullPool).begin() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
pathlib.Path("told.json").write_text(json.dumps(dict(os.environ)))
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = {name!r}, {before!r}

def upgrade():
    {body}
"""
TABLE = "op.create_table('page', sa.Column('id', sa.Integer, primary_key=True), sa.Column('title', sa.String(90)))"
INDEX = "op.create_index('page_title', 'page', ['title'], unique=True)"


def with_alembic(world: World, **more: object) -> World:
    """Alembic's own command line as the application's program, at revision 1."""
    (world.root / "revisions" / "versions").mkdir(parents=True)
    (world.root / "alembic.ini").write_text("[alembic]\nscript_location = revisions\n")
    (world.root / "revisions" / "env.py").write_text(ALEMBIC)
    revise(world, "1", None, TABLE)
    files = ["VERSION", "revisions/env.py"]
    return declared(world, command=f"{sys.executable} -m alembic upgrade head", files=files, **more)


def revise(world: World, name: str, before: str | None, body: str) -> None:
    """Write a revision."""
    path = world.root / "revisions" / "versions" / f"{name}.py"
    path.write_text(REVISION.format(name=name, before=before, body=body))
    (world.root / "VERSION").write_text(name)


async def test_a_real_program_is_rehearsed(world: World) -> None:
    """Alembic's command runs on a copy, told nothing else; whose data it fails on is named, and the tenants stay."""
    resource = with_alembic(world, rehearse=True).resource()
    env, other = world.environment(), world.environment("umbrella")
    env = replace(env, places=(*env.places, Place("config", "rendered", "env.json")))
    for one in (env, other):
        await resource.create(one)
        world.query(resource, one, "INSERT INTO page VALUES (1, 'x')")
    world.query(resource, env, "INSERT INTO page VALUES (2, 'x')")
    revise(world, "2", "1", INDEX)
    resource = world.resource()
    assert resource.can_rehearse
    failed = await resource.rehearse(env, None, 1 << 30)
    assert (failed.failure is not None, failed.tried) == (True, ())
    assert "page" in str(failed.failure)
    (world.root / "told.json").unlink()
    fine = await resource.rehearse(other, None, 1 << 30)
    assert (fine.failure, [one.version for one in fine.tried]) == (None, ["2"])
    told = json.loads((world.root / "told.json").read_text())
    assert told["TENANTRY_REHEARSAL"] == "1"
    assert "/scratch/" in told["TENANTRY_HOME"]
    assert "TENANTRY_PATH_CONFIG" not in told
    assert told["TENANTRY_SLUG"] == "umbrella"
    for one in (env, other):
        assert await resource.version(one) == "1"
        assert world.query(resource, one, "SELECT version_num FROM alembic_version") == [("1",)]
    assert not (world.root / "var" / "scratch").exists()
    assert (await resource.migrate(other)).applied == ("2",)
    assert "TENANTRY_REHEARSAL" not in json.loads((world.root / "told.json").read_text())


async def test_a_program_that_says_nothing_is_not_rehearsed(world: World) -> None:
    """It might read where the database is out of a file of its own, which names the tenant's."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    assert not resource.can_rehearse
    with pytest.raises(ResourceError, match="does not say `rehearse = true`"):
        await release(world, "1.1").rehearse(env, None, 1 << 30)


async def test_a_killed_programs_worker_leaves_the_lock(world: World) -> None:
    """While a program lives whose worker was killed, the next run waits for its end."""
    resource, env = world.resource(), world.environment()
    await resource.create(env)
    release(world, "1.1")
    (world.root / "mode").write_text("hang")
    pid = os.fork()
    if pid == 0:
        asyncio.run(world.resource().migrate(env))
        os._exit(0)
    while not (world.root / "child").exists() or not (world.root / "child").read_text():
        await asyncio.sleep(0.05)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    (world.root / "mode").unlink()
    waiting = asyncio.create_task(world.resource().migrate(env))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    os.kill(os.getpgid(int((world.root / "child").read_text())), 9)
    os.kill(int((world.root / "child").read_text()), 9)
    assert (await waiting).applied == ("1.1",)
