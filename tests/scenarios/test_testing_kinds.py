"""The pytest plugin with databases on servers: two tenants for each test, cleaning up, and leaks that are found."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from application import TOML, Application
from mariadb import MariaDB
from prefix_world import maria_database
from servers import Postgres

SERVER = """
[servers.main]
kind = "{kind}"
url = {{env = "NOTES_SERVER"}}
connections = 8
"""
TABLE = "CREATE TABLE {prefix}note (id INTEGER PRIMARY KEY, text VARCHAR(200) NOT NULL);\n"
NOTES = """
    import tenantry
    from sqlalchemy import text
    from tenantry.runtime import table_prefix

    runtime = tenantry.connect("tenantry.toml")

    def add(number, note):
        with tenantry.tenant_session() as session:
            session.execute(text("INSERT INTO {prefix}note (id, text) VALUES (:id, :text)"),
                            {"id": number, "text": note})
            session.commit()

    def notes():
        with tenantry.tenant_session() as session:
            return list(session.scalars(text("SELECT text FROM {prefix}note ORDER BY id")))
"""
TESTS = """
    import os
    import signal
    import pytest
    import notes
    import tenantry
    from sqlalchemy import text
    from tenantry.errors import NoTenant

    @pytest.mark.parametrize("turn", range(12))
    def test_sync(turn, tenants, as_tenant):
        for environment in tenants:
            with as_tenant(environment):
                assert notes.notes() == []
                notes.add(1, environment.tenant.slug)
        for environment in tenants:
            with as_tenant(environment):
                assert notes.notes() == [environment.tenant.slug]
        with pytest.raises(NoTenant):
            notes.notes()

    @pytest.mark.parametrize("turn", range(3))
    async def test_async(turn, tenants, as_tenant):
        for environment in tenants:
            with as_tenant(environment):
                async with tenantry.tenant_session() as session:
                    assert (await session.scalars(text("SELECT text FROM {prefix}note"))).all() == []
                    await session.execute(text("INSERT INTO {prefix}note (id, text) VALUES (1, 'mine')"))
                    await session.commit()
"""


LEAKY = """
    import contextvars, queue, threading
    import notes

    jobs = queue.Queue()
    thread = None

    def work():
        while True:
            notes.add(*jobs.get())
            jobs.task_done()

    def test_leaks(as_tenant):
        global thread
        with as_tenant():
            if thread is None:
                thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
                thread.start()
                jobs.put((1, "hello"))
            else:
                jobs.put((2, "hello"))
            jobs.join()
"""
DIES = """
    import os, signal

    def test_dies(tenants):
        os.kill(os.getpid(), signal.SIGKILL)
"""
PLACE = '{kind = "sqlite", schema = "schema/"}'


@dataclass(frozen=True)
class Kind:
    """A resource on a server of a kind, and what tests may leave there."""

    address: str
    server: str
    resource: str
    left: Callable[[], list[str]]  # what is left of tenants

    def application(self, root: Path) -> Application:
        """A project with tests that hold wherever its notes lie."""
        prefix = "{prefix}" if '"prefix"' in self.resource else ""
        made = Application(root)
        made.write("tenantry.toml", TOML.replace(PLACE, self.resource))
        made.append("tenantry.toml", SERVER.format(kind=self.server))
        for name, text in (("schema/0001_notes.sql", TABLE), ("notes.py", NOTES), ("test_notes.py", TESTS)):
            made.write(name, text.replace("{prefix}", prefix))
        return made


@contextlib.contextmanager
def _postgres(server: Postgres) -> Iterator[Kind]:
    name = f"n{secrets.token_hex(4)}"
    query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
    yield Kind(
        server.administrator(),
        "postgres",
        f'{{kind = "postgres", name = "{name}_{{slug}}", schema = "schema/"}}',
        lambda: [found for (found,) in ask(server.url(), query, name)],
    )


@contextlib.contextmanager
def _rows(server: Postgres) -> Iterator[Kind]:
    name = f"n{secrets.token_hex(4)}"

    def left() -> list[str]:
        databases = shared(server, name)
        assert len(databases) == 1, databases
        tables = ("note", "tenantry_user", "tenantry_tenants")
        return [str(row) for table in tables for row in ask(server.url(databases[0]), f"SELECT * FROM {table}")]

    yield Kind(server.administrator(), "postgres", f'{{kind = "rows", database = "{name}", schema = "schema/"}}', left)


@contextlib.contextmanager
def _prefix_on_postgres(server: Postgres) -> Iterator[Kind]:
    with server.database() as url:
        query = "SELECT relname FROM pg_class WHERE relname LIKE '%%note' UNION SELECT prefix FROM tenantry_prefix"
        resource = '{kind = "prefix", schema = "schema/"}'
        yield Kind(url, "postgres", resource, lambda: [found for (found,) in ask(url, query)])


@contextlib.contextmanager
def _mysql(server: MariaDB) -> Iterator[Kind]:
    name = f"n{secrets.token_hex(4)}"
    yield Kind(
        server.url(),
        "mysql",
        f'{{kind = "mysql", name = "{name}_{{slug}}", schema = "schema/"}}',
        lambda: [found for found in (*server.databases(), *server.users()) if found.startswith(name)],
    )


@contextlib.contextmanager
def _prefix_on_mysql(server: MariaDB) -> Iterator[Kind]:
    with maria_database(server) as url:
        database = make_url(url).database
        query = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{database}'"
        yield Kind(
            url,
            "mysql",
            '{kind = "prefix", schema = "schema/"}',
            lambda: [found for (found,) in server.run(query) if found.endswith("note")],
        )


def ask(url: str, query: str, *values: str) -> list[tuple[str, ...]]:
    """What a PostgreSQL server answers."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), values).fetchall()


def shared(server: Postgres, name: str) -> list[str]:
    """The databases whose names begin so."""
    query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY datname"
    return [found for (found,) in ask(server.url(), query, name)]


KINDS = {
    "postgres": _postgres,
    "rows": _rows,
    "prefix on postgres": _prefix_on_postgres,
    "mysql": _mysql,
    "prefix on mysql": _prefix_on_mysql,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Each of them, on a real server."""
    server = request.getfixturevalue("mariadb_server" if "mysql" in request.param else "postgres")
    with KINDS[request.param](server) as found:
        yield found


def test_two_tenants_for_each_test(kind: Kind, tmp_path: Path) -> None:
    """Each test finds two empty tenants apart from each other; runs leave none, and a killed one's go with the next."""
    made = kind.application(tmp_path / "application")
    made.write("test_dies.py", DIES)
    assert made.pytest("test_dies.py", NOTES_SERVER=kind.address).code != 0
    assert kind.left(), "the killed run had tenants"
    (made.root / "test_dies.py").unlink()
    done = made.pytest(NOTES_SERVER=kind.address)
    assert done.code == 0, done.text
    assert "15 passed" in done.text
    assert kind.left() == []


def test_a_leak_is_named(kind: Kind, tmp_path: Path) -> None:
    """Interleaved, sound tests pass; what a thread writes for the first tenant is named by tenant, table and row."""
    made = kind.application(tmp_path / "application")
    made.write("test_leaky.py", LEAKY)
    done = made.pytest("-k", "0 or leaks", "--tenantry-interleave", NOTES_SERVER=kind.address)
    assert "1 failed, 3 passed" in done.text, done.text
    assert "4 tests ran as two tenants, 1 of them leaked" in done.text
    told = r"t\w{12} / db / note: written while the current tenant was t\w{12}: .*text='hello'"
    assert re.search(told, done.text), done.text
    assert kind.left() == []


@pytest.mark.postgres
def test_shared_tables_of_its_own(postgres: Postgres, tmp_path: Path) -> None:
    """Tests share none of the platform's tables, and have those that the migrations make as they are now."""
    name = f"n{secrets.token_hex(4)}"
    resource = f'{{kind = "rows", database = "{name}", schema = "schema/"}}'
    kind = Kind(postgres.administrator(), "postgres", resource, list)
    made = kind.application(tmp_path / "application")
    made.write(
        "test_notes.py",
        "import notes\n\ndef test_notes(as_tenant):\n    with as_tenant():\n        notes.add(1, 'x')\n",
    )
    assert made.pytest(NOTES_SERVER=kind.address).code == 0
    first = shared(postgres, name)
    assert len(first) == 1
    assert first != [name], "the platform's own database"
    kept = ask(postgres.url(), "SELECT oid::text FROM pg_database WHERE datname = %s", *first)
    assert made.pytest(NOTES_SERVER=kind.address).code == 0
    again = ask(postgres.url(), "SELECT oid::text FROM pg_database WHERE datname = %s", *first)
    assert again == kept, "it outlives a run"
    made.write("schema/0001_notes.sql", "CREATE TABLE note (id INTEGER PRIMARY KEY, text VARCHAR(7), more TEXT);")
    done = made.pytest(NOTES_SERVER=kind.address)
    assert done.code == 0, done.text
    assert shared(postgres, name) == first
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'note'"
    assert {column for (column,) in ask(postgres.url(first[0]), columns)} == {"id", "text", "more", "tenant_id"}
    roles = ask(postgres.url(), "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", name)
    assert len(roles) == 2
    made.append("test_notes.py", "\ndef test_more(tenants):\n    pass\n")
    done = made.pytest("-n", "2", NOTES_SERVER=kind.address)
    assert done.code == 0, done.text
    assert len(shared(postgres, name)) == 3, "two processes at once have one each"
