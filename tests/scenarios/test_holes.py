"""Holes opened on purpose, in every kind and in the application: `tenantry verify` finds each and names it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import ground as g
from mariadb import MariaDB
from prefix_world import PrefixGround, maria_database
from servers import Postgres
from shelves import MariaShelves, RowsShelves, Shelves
from tenantry.platform import Platform
from tenantry.registry import tables
from tenantry.registry.journal import State

SLUGS = ("acme", "umbrella")


async def populated(platform: Platform, *slugs: str, **settings: Any) -> None:
    """Tenants of these slugs, made at once."""
    for slug in slugs or SLUGS:
        operation = await platform.tenants.create(slug, **settings)
        details = await platform.operations.finish(operation.id)
        assert details.operation.state is State.DONE, details.operation.error


async def verified(platform: Platform) -> dict[str, Any]:
    """The report on all tenants."""
    operation = await platform.verification.run()
    await platform.operations.finish(operation.id)
    return await platform.verification.report(operation.id)


def found(report: dict[str, Any]) -> set[str]:
    """Each breach as "resource: attack"."""
    return {f"{one['resource']}: {one['attack']}" for tenant in report["tenants"] for one in tenant["breaches"]}


def media(ground: g.Ground, slug: str) -> Path:
    """A tenant's directory."""
    return next(ground.data.glob(f"tenants/{slug}-????????/production/media"))


# --- files --------------------------------------------------------------------------------------------------------


def link_out(ground: g.Ground) -> None:
    (media(ground, "acme") / "shared").symlink_to(media(ground, "umbrella"))


def link_hard(ground: g.Ground) -> None:
    secret = media(ground, "umbrella") / "invoice.pdf"
    secret.write_text("42")
    os.link(secret, media(ground, "acme") / "mine.pdf")


def one_directory(ground: g.Ground) -> None:
    theirs = media(ground, "umbrella")
    theirs.rmdir()
    theirs.symlink_to(media(ground, "acme"))


def one_database(ground: g.Ground) -> None:
    theirs = ground.database("umbrella")
    for ending in ("", "-wal", "-shm"):
        theirs.with_name(theirs.name + ending).unlink(missing_ok=True)
    os.link(ground.database("acme"), theirs)


def others_secret(ground: g.Ground) -> None:
    ground.rendered("acme").write_text('{"smtp": "hunter2-of-umbrella"}')


def file_holes() -> list[Any]:
    return [
        pytest.param(link_out, "media: canary", id="a link in a directory leads to another tenant's"),
        pytest.param(link_hard, "media: hard link", id="a file of two tenants by a hard link"),
        pytest.param(one_directory, "media: canary", id="a directory that is a link to another tenant's"),
        pytest.param(lambda f: media(f, "acme").chmod(0o755), "media: permissions", id="a directory open to the world"),
        pytest.param(lambda f: f.database("acme").chmod(0o644), "db: permissions", id="a database open to the world"),
        pytest.param(one_database, "db: same file", id="a database of two tenants by a hard link"),
        pytest.param(one_database, "db: canary", id="a canary of a database that two tenants have"),
        pytest.param(others_secret, "config: another tenant in the text", id="a file with another tenant's secret"),
        pytest.param(
            lambda f: f.rendered("acme").chmod(0o666), "config: permissions", id="a rendered file open to the world"
        ),
    ]


@pytest.mark.parametrize(("opening", "attack"), file_holes())
async def test_a_hole_in_files_is_found(ground: g.Ground, opening: Callable[[g.Ground], None], attack: str) -> None:
    """What somebody opened in files and directories is found, and named by resource and attack."""
    async with ground.open() as platform:
        await populated(platform, "acme")
        await populated(platform, "umbrella", settings={"smtp_password": "hunter2-of-umbrella"})
        opening(ground)
        report = await verified(platform)
    assert attack in found(report)
    assert report["state"] == "failed"


async def test_a_data_key_that_was_copied_is_found(ground: g.Ground) -> None:
    """Two tenants with one data key: their keys, cookies and passwords are found to be good at the other."""
    async with ground.open() as platform:
        await populated(platform)
        vault = platform.registry.vault
        rows = {row["tenant_id"]: row["sealed"] for row in await g.rows(platform, "data_key")}
        (first, sealed), (second, _) = rows.items()
        copied = vault.seal_data_key(second, vault.open_data_key(first, sealed))
        async with platform.registry.write() as tx:
            table = tables.data_key
            await tx.execute(table.update().where(table.c.tenant_id == second).values(sealed=copied))
        report = await verified(platform)
    assert {
        "keys: data key shared",
        "keys: password moved to another tenant",
        "sessions: cookie signed with another tenant's key",
    } <= found(report)


async def test_homes_that_overlap_are_found(ground: g.Ground) -> None:
    """Two tenants whose registry entries name one home directory."""
    async with ground.open() as platform:
        await populated(platform)
        (home,) = ground.control("SELECT home FROM environment LIMIT 1")[0]
        ground.control(f"UPDATE environment SET home = '{home}'")
        report = await verified(platform)
    assert {"media: shared home", "db: same file"} <= found(report)


# --- the application ----------------------------------------------------------------------------------------------

APP = """
import tenantry
from tenantry.context import _current
from tenantry.runtime import runtime as runtime_module

runtime = tenantry.connect({config!r})


async def answer(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"here"}})


inner = tenantry.TenantMiddleware(answer, runtime=runtime)


def rewritten(scope, **changes):
    headers = dict(scope["headers"]) | {{b"host": changes.pop("host", dict(scope["headers"])[b"host"])}}
    return {{**scope, "headers": list(headers.items()), **changes}}


{hole}
"""

BELIEVES_PROXY = """
async def app(scope, receive, send):
    forwarded = dict(scope["headers"]).get(b"x-forwarded-host")
    await inner(rewritten(scope, host=forwarded) if forwarded else scope, receive, send)
"""
ONE_HOST = """
async def app(scope, receive, send):  # the last of several Host headers wins, as in a dict
    await inner(rewritten(scope), receive, send)
"""
CUTS_HOSTS = """
async def app(scope, receive, send):
    host = dict(scope["headers"])[b"host"].partition(b",")[2].strip()
    await inner(rewritten(scope, host=host) if host else scope, receive, send)
"""
NORMALISES_PATHS = """
import posixpath
async def app(scope, receive, send):
    await inner({**scope, "path": posixpath.normpath(scope["path"]) + "/"}, receive, send)
"""
UNVERIFIED_TOKEN = """
import base64, json
async def app(scope, receive, send):
    token = dict(scope["headers"]).get(b"authorization", b"")
    if b"." in token:
        body = token.split(b".")[1]
        claimed = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))["tenant_id"]
        found = runtime.resolver.table.by_tenant(claimed)
        scope = rewritten(scope, host=found.hostnames[0].encode())
    await inner(scope, receive, send)
"""
WRONG_HOST = """
async def app(scope, receive, send):
    host = dict(scope["headers"])[b"host"]
    await inner(rewritten(scope, host=b"umbrella.localhost") if host == b"acme.localhost" else scope, receive, send)
"""
ONE_COOKIE_KEY = """
from tenantry.runtime.sessions import Sessions
runtime.sessions = Sessions(runtime.settings, lambda environment: b"one key for all tenants")
runtime.accounts._sessions = runtime.sessions
app = inner
"""
COOKIE_OF_ANYBODY = """
from tenantry.runtime.sessions import SignedIn, Sessions, digest
class Trusting(Sessions):
    def read(self, value):
        user, secret = self._serializer(None).loads_unsafe(value)[1][2:]
        return SignedIn(user, digest(secret))
    def _serializer(self, environment):
        return super()._serializer(environment or next(iter(runtime.resolver.table.environments())))
runtime.sessions = runtime.accounts._sessions = Trusting(runtime.settings, runtime._keys.get)
app = inner
"""
CENTRAL_ACCOUNTS = (
    COOKIE_OF_ANYBODY
    + """
from tenantry.context import tenant_context
from tenantry.errors import InvalidToken
from tenantry.runtime.accounts import Accounts
class Central(Accounts):  # one sign-in for the users of all tenants
    async def signed_in(self, session):
        for environment in runtime.resolver.table.environments():
            with tenant_context(environment):
                try:
                    return await super().signed_in(session)
                except InvalidToken:
                    pass
        raise InvalidToken(reason="nobody knows it")
runtime.accounts = Central(runtime.settings, runtime.accounts._base, runtime.sessions, runtime._keys.get)
"""
)
ONE_CACHE_KEY = """
import tenantry.runtime.cache
tenantry.runtime.cache.cache_key = lambda key: f"cache:{key}"
app = inner
"""
ONE_CACHE = """
from tenantry.runtime.cache import TenantCache
class Shared(TenantCache):
    def __init__(self):
        self._all = {}
    def get(self, key, default=None):
        return self._all.get(key, default)
    def set(self, key, value, seconds=0.0):
        self._all[key] = value
    def delete(self, key):
        self._all.pop(key, None)
    def forget(self, tenants=None):
        pass
runtime.cache = Shared()
app = inner
"""
UNGUARDED_ENGINES = """
import tenantry.runtime.files
tenantry.runtime.files.guard = lambda engine, environment: None
app = inner
"""
DEFAULT_TENANT = """
import tenantry.runtime.databases as databases
databases.current_environment = lambda: _current.get() or next(iter(runtime.resolver.table.environments()))
import tenantry.runtime.files
tenantry.runtime.files.guard = lambda engine, environment: None
app = inner
"""
STORAGE_OF_ANYBODY = """
from tenantry.runtime.storage import Storage
Storage._here = lambda self: self._root
app = inner
"""
SERVES_SUSPENDED = """
from tenantry.runtime.resolver import Resolver
Resolver._serve = lambda self, resolution: resolution
app = inner
"""


def app_holes() -> list[Any]:
    def hole(source: str, attack: str, what: str) -> Any:
        return pytest.param(source, attack, id=what)

    return [
        hole(BELIEVES_PROXY, "requests: forged X-Forwarded-Host", "a middleware that believes X-Forwarded-Host"),
        hole(ONE_HOST, "requests: two Host headers", "a middleware that takes the last of two hosts"),
        hole(CUTS_HOSTS, "requests: malformed Host", "a middleware that cuts a host in two"),
        hole(NORMALISES_PATHS, "requests: path traversal", "a middleware that resolves dots in paths"),
        hole(UNVERIFIED_TOKEN, "requests: token without a signature", "a token that nobody verifies"),
        hole(UNVERIFIED_TOKEN, "requests: token signed with the public key", "a token signed with a public key"),
        hole(WRONG_HOST, "requests: own hostname", "a hostname that leads to another tenant"),
        hole(ONE_COOKIE_KEY, "sessions: cookie signed with another tenant's key", "one cookie key for all tenants"),
        hole(COOKIE_OF_ANYBODY, "sessions: another tenant's cookie", "a cookie read without its signature"),
        hole(CENTRAL_ACCOUNTS, "sessions: another tenant's account", "one sign-in for the users of all tenants"),
        hole(ONE_CACHE_KEY, "cache: shared cache key", "keys of a cache without tenants"),
        hole(ONE_CACHE, "cache: value of another tenant", "a cache without tenants"),
        hole(UNGUARDED_ENGINES, "sessions: session carried to another tenant on db", "a session that goes anywhere"),
        hole(UNGUARDED_ENGINES, "sessions: engine of another tenant on db", "an engine that goes anywhere"),
        hole(DEFAULT_TENANT, "sessions: session without a tenant on db", "a default tenant"),
        hole(STORAGE_OF_ANYBODY, "files: storage carried to another tenant on media", "storage that goes anywhere"),
    ]


async def test_a_hole_in_an_application_is_found(ground: g.Ground, tmp_path: Path) -> None:
    """Each fault of an application, in its own process, is found by forged requests and by use of its runtime."""
    with ground.config.open("a") as file:
        file.write('\n[verify]\napp = "holed:app"\n')
    (ground.root / "holed.py").write_text(APP.format(config=str(ground.config), hole="app = inner\n"))
    async with ground.open() as platform:
        await populated(platform)
    assert report_of(ground) == set()
    for parameters in app_holes():
        hole, attack = parameters.values
        source = APP.format(config=str(ground.config), hole="{hole}").replace("{hole}", hole)
        (ground.root / "holed.py").write_text(source)
        assert attack in report_of(ground), parameters.id


async def test_a_suspended_tenant_that_is_served_is_found(ground: g.Ground) -> None:
    """A request to a suspended tenant that reaches it is a breach; refused, it is none."""
    with ground.config.open("a") as file:
        file.write('\n[verify]\napp = "holed:app"\n')
    async with ground.open() as platform:
        await populated(platform)
        operation = await platform.tenants.suspend("acme", "unpaid")
        await platform.operations.finish(operation.id)
    for hole, expected in (("app = inner\n", False), (SERVES_SUSPENDED, True)):
        (ground.root / "holed.py").write_text(APP.format(config=str(ground.config), hole=hole))
        assert ("requests: tenant that is not served" in report_of(ground)) is expected


def report_of(ground: g.Ground) -> set[str]:
    """The breaches that the command finds, which exits with 1 where there are any."""
    process = ground.command("verify", "--json")
    output, _ = process.communicate(timeout=g.PATIENCE)
    breaches = found(json.loads(output[output.index("{") : output.rindex("}") + 1]))
    assert process.returncode == bool(breaches), output
    return breaches


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shelves(tmp_path: Path, postgres: Postgres) -> Iterator[Shelves]:
    """A platform with one PostgreSQL server."""
    made = Shelves(tmp_path / "platform", postgres)
    yield made
    made.clear()


def postgres_holes() -> list[Any]:
    """What a superuser says, {acme} and {umbrella} being the names of databases and logins; and where."""

    def hole(statement: str, attack: str, what: str, where: str = "postgres") -> Any:
        return pytest.param(statement, f"db: {attack}", where, id=what)

    return [
        hole('GRANT CONNECT ON DATABASE "{umbrella}" TO PUBLIC', "connect to the other database", "CONNECT for all"),
        hole('GRANT "{umbrella}" TO "{acme}"', "member of other roles", "another tenant's role"),
        hole('GRANT "{umbrella}" TO "{acme}"', "become its role", "SET ROLE to another tenant's"),
        hole('ALTER ROLE "{acme}" SUPERUSER', "more than a login", "a superuser"),
        hole('ALTER ROLE "{acme}" CREATEROLE', "make a role", "CREATEROLE"),
        hole('ALTER ROLE "{acme}" CREATEROLE', "lead its search path elsewhere", "settings of another tenant's role"),
        hole("GRANT CREATE ON SCHEMA public TO PUBLIC", "shadow functions in postgres", "functions for administrators"),
        hole(
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "shadow functions in template1",
            "functions for every new database",
            "template1",
        ),
        hole('ALTER ROLE "{acme}" BYPASSRLS', "more than a login", "BYPASSRLS"),
        hole('GRANT pg_read_server_files TO "{acme}"', "read a file by COPY", "files of the server read"),
        hole('GRANT pg_write_server_files TO "{acme}"', "write a file by COPY", "files of the server written"),
        hole('GRANT pg_execute_server_program TO "{acme}"', "run a program", "programs of the server run"),
        hole('GRANT pg_read_all_stats TO "{acme}"', "read others' queries", "everybody's queries"),
        hole('GRANT pg_signal_backend TO "{acme}"', "end its connections", "connections of others ended"),
        hole('ALTER DATABASE "{umbrella}" OWNER TO "{acme}"', "change its settings", "the database of another"),
        hole("GRANT SELECT ON pg_authid TO PUBLIC", "read the passwords", "the passwords", "{acme}"),
        hole(
            "CREATE FUNCTION helper() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
            "run a function as its owner",
            "a function that runs as a superuser",
            "{acme}",
        ),
        hole(
            "CREATE EXTENSION postgres_fdw; CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw "
            "OPTIONS (dbname '{umbrella}'); GRANT USAGE ON FOREIGN SERVER away TO PUBLIC",
            "use a foreign server",
            "a foreign server that leads to another",
            "{acme}",
        ),
    ]


@pytest.mark.parametrize(("statement", "attack", "where"), postgres_holes())
async def test_a_hole_in_postgresql_is_found(shelves: Shelves, statement: str, attack: str, where: str) -> None:
    """What an administrator granted too much on a PostgreSQL server is found, and named."""
    names = {slug: f"{shelves.prefix}_{slug}" for slug in SLUGS}
    async with shelves.open() as platform:
        await populated(platform)
        with psycopg.connect(shelves.known["pg1"].url(names["umbrella"])) as somebody:
            somebody.execute("SELECT 1")  # so that there are queries of others
            shelves.query("pg1", statement.format(**names), where.format(**names))
            try:
                report = await verified(platform)
            finally:
                for role in names.values():  # what was granted would be in the way of the tests after this one
                    shelves.query("pg1", f'ALTER ROLE "{role}" NOSUPERUSER NOBYPASSRLS')
                for database in ("postgres", "template1"):
                    shelves.query("pg1", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    assert attack in found(report)
    assert report["state"] == "failed"


# --- shared tables ------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path, postgres: Postgres) -> Iterator[RowsShelves]:
    """A platform with one PostgreSQL server, whose tenants share tables."""
    made = RowsShelves(tmp_path / "platform", postgres)
    yield made
    made.clear()


def rows_holes() -> list[Any]:
    def hole(statement: str, attack: str, what: str) -> Any:
        return pytest.param(statement, f"db: {attack}", id=what)

    return [
        hole("ALTER TABLE tenantry_trace DISABLE ROW LEVEL SECURITY", "canary", "a shared table without its policies"),
        hole('ALTER ROLE "{database}_app" BYPASSRLS', "more than a login", "a shared login past all policies"),
        hole('GRANT CREATE ON SCHEMA public TO "{database}_app"', "make a table", "a shared login that makes tables"),
    ]


@pytest.mark.parametrize(("statement", "attack"), rows_holes())
async def test_a_hole_in_shared_tables_is_found(shared: RowsShelves, statement: str, attack: str) -> None:
    """What weakens the policies of shared tables, or the login that enters them, is found, and named."""
    async with shared.open() as platform:
        await populated(platform)
        shared.query("pg1", statement.format(database=shared.database), shared.database)
        report = await verified(platform)
    assert attack in found(report)
    assert report["state"] == "failed"


# --- MariaDB ------------------------------------------------------------------------------------------------------


@pytest.fixture
def maria(tmp_path: Path, mariadb_server: MariaDB) -> Iterator[MariaShelves]:
    """A platform with one MariaDB server."""
    made = MariaShelves(tmp_path / "platform", mariadb_server)
    yield made
    for one in made.left():
        kind, name = one.split()
        if kind in ("database", "user"):
            mariadb_server.run(f"DROP {kind} `{name}`" + ("@'%'" if kind == "user" else ""))


def maria_holes() -> list[Any]:
    def hole(grant: str, attack: str, what: str) -> Any:
        return pytest.param(f"GRANT {grant} TO '{{acme}}'@'%'", f"db: {attack}", id=what)

    return [
        hole("SELECT ON `{umbrella}`.*", "SELECT", "SELECT on another tenant's database"),
        hole("SELECT ON `{umbrella}`.*", "connect", "a login at another tenant's database"),
        hole("SELECT ON `{prefix}%`.*", "SHOW DATABASES", "a grant with a wildcard"),
        hole("CREATE ON `{umbrella}`.*", "CREATE", "CREATE in another tenant's database"),
        hole("FILE ON *.*", "LOAD_FILE", "files of the server"),
        hole("PROCESS ON *.*", "processes", "statements of others"),
        hole("SHOW DATABASES ON *.*", "SHOW DATABASES", "the names of others"),
        hole("SELECT ON mysql.*", "SELECT mysql.global_priv", "everybody's passwords"),
        hole("CREATE USER ON *.*", "CREATE USER", "making users"),
        hole("SUPER ON *.*", "rights on the whole server", "a right on the whole server"),
    ]


@pytest.mark.parametrize(("statement", "attack"), maria_holes())
async def test_a_hole_in_mariadb_is_found(maria: MariaShelves, statement: str, attack: str) -> None:
    """What an administrator granted too much on a MariaDB server is found, and named."""
    names = {slug: f"{maria.prefix}_{slug}" for slug in SLUGS}
    async with maria.open() as platform:
        await populated(platform)
        with maria.server.connect() as somebody:
            somebody.cursor().execute("SELECT 1")
            maria.server.run(statement.format(prefix=maria.prefix, **names))
            report = await verified(platform)
    assert attack in found(report)
    assert report["state"] == "failed"


# --- prefixes -----------------------------------------------------------------------------------------------------


def prefix_holes() -> list[Any]:
    def hole(kind: str, statement: str, what: str) -> Any:
        return pytest.param(kind, statement, "db: lead to its tables", id=f"{what}, {kind}")

    return [
        hole(kind, statement, what)
        for kind in ("postgres", "mysql")
        for statement, what in (
            ("CREATE VIEW {acme}peek AS SELECT * FROM {umbrella}page", "a view on another tenant's tables"),
            ("ALTER TABLE {acme}page ADD FOREIGN KEY (id) REFERENCES {umbrella}page (id)", "a key to another tenant's"),
        )
    ]


@pytest.mark.parametrize(("kind", "statement", "attack"), prefix_holes())
async def test_a_hole_between_prefixes_is_found(
    kind: str, statement: str, attack: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What leads from the tables of one prefix to those of another is found, and named."""
    if kind == "postgres":
        database = request.getfixturevalue("postgres").database()
    else:
        database = maria_database(request.getfixturevalue("mariadb_server"))
    with database as url:
        ground = PrefixGround(tmp_path / "platform", kind, url)
        async with ground.open() as platform:
            await populated(platform)
            environments = [(await platform.tenants.show(slug)).environments[0] for slug in SLUGS]
            placed = [place for one in environments for place in one.places if place.name == "db"]
            prefixes = dict(zip(SLUGS, (place.prefix for place in placed), strict=True))
            ground.ask(statement.format(**prefixes))
            report = await verified(platform)
    assert attack in found(report)
    assert report["state"] == "failed"


def test_there_are_enough_holes() -> None:
    """Fifty holes are opened here, each of them another one; beside them those of test_verify_rows.py."""
    every = [*file_holes(), *app_holes(), *postgres_holes(), *rows_holes(), *maria_holes(), *prefix_holes()]
    names = [parameters.id for parameters in every]
    assert len(set(names)) == len(names) == 60, sorted(names)
