"""Many real processes on one PostgreSQL control database: they start together, hear each other, and outlive it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

import outages
import programs
import servers
from tenantry.operations import engine
from tenantry.registry import database

pytestmark = pytest.mark.postgres

TENANTRY = str(Path(sys.executable).with_name("tenantry"))
EXAMPLE = Path(__file__).parents[2] / "examples" / "countries"
LIMIT = 180.0
"""Seconds after which a wait is given up; nothing is measured by it."""

Ask = Callable[..., httpx.Response]


class Site:
    """A platform on disk whose control database is on PostgreSQL, with the processes it runs."""

    def __init__(self, root: Path, control: str) -> None:
        self.root = root
        self.control = control
        own = {name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")}
        self.environment = own | {
            "TENANTRY_SECRET_KEY": secrets.token_hex(32),
            "TENANTRY_PLATFORM__CONTROL": control,
            "TENANTRY_RUNTIME__SECURE_COOKIES": "false",
        }

    def run(self, *arguments: str) -> str:
        """A command, to its end."""
        done = programs.run(
            [TENANTRY, *arguments], cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def process(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that stays while the block runs, and ends well when asked to."""
        with (self.root / f"{arguments[0]}-{secrets.token_hex(3)}.log").open("wb") as log:
            process = programs.Program(
                [TENANTRY, *arguments], cwd=self.root, env=self.environment, stdout=log, stderr=log
            )
        try:
            yield process
            process.terminate()
            assert process.wait(LIMIT) in (0, -15), log
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def serve(self) -> Iterator[Ask]:
        """A server process on a port of its own; gives a function that asks it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with (
            self.process("serve", "--no-worker", "--port", str(port)) as process,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
        ):

            def ask(path: str = "/", host: str = "acme.localhost") -> httpx.Response:
                return client.get(path, headers={"host": host})

            until(lambda: process.poll() is None and _answers(ask))
            yield ask

    def workers(self) -> set[int]:
        """The processes of the workers that live."""
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            return {pid for (pid,) in self.query("SELECT pid FROM worker WHERE heartbeat > now() - interval '2 s'")}
        return set()

    def query(self, statement: str, *parameters: Any) -> list[Any]:
        """Ask the control database, past Tenantry."""
        with psycopg.connect(self.control) as connection:
            return connection.execute(statement, parameters).fetchall()

    def connections(self) -> dict[str, int]:
        """How many connections there are to the control database, by what they are for."""
        rows = self.query(
            "SELECT application_name, count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1"
        )
        return dict(rows)


def _answers(ask: Ask) -> bool:
    try:
        return ask("/.tenantry/health").status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < LIMIT
        time.sleep(0.01)


def health(ask: Ask) -> str:
    """The word by which a server says whether it follows changes."""
    return str(ask("/.tenantry/health").json()["status"])


def example(root: Path, control: str) -> Site:
    """The example platform, without any tenant."""
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("var", ".env", "__pycache__"))
    return Site(root, control)


@pytest.fixture
def site(tmp_path: Path, postgres_url: str) -> Site:
    return example(tmp_path / "countries", postgres_url)


def test_workers_that_start_together_on_an_empty_database_all_live(site: Site) -> None:
    """The registry and the engine's tables are made once, by whoever is first; the others wait for their turn."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(site.process("worker")) for _ in range(4)]
        pids = {process.pid for process in started}
        until(lambda: {process.poll() for process in started} == {None} and site.workers() == pids)
        assert "acme" in site.run("tenant", "create", "acme", "--json")
        (count,) = site.query("SELECT count(*) FROM pg_index WHERE NOT indisvalid")[0]
        assert count == 0
    assert site.workers() == set()
    assert site.query("SELECT state FROM operation") == [("done",)]


def test_two_servers_and_two_workers_outlive_their_control_database(
    tmp_path: Path, own_postgres: servers.Postgres
) -> None:
    """Made, suspended and renamed is seen by all, before and after a restart of the server; meanwhile all is served."""
    with own_postgres.database() as url, contextlib.ExitStack() as stack:
        site = example(tmp_path / "countries", url)
        workers = [stack.enter_context(site.process("worker")) for _ in range(2)]
        until(lambda: len(site.workers()) == 2)
        asked = [stack.enter_context(site.serve()) for _ in range(2)]

        def all_answer(status: int, slug: str) -> bool:
            return all(ask(host=f"{slug}.localhost").status_code == status for ask in asked)

        site.run("tenant", "create", "acme")
        until(lambda: all_answer(200, "acme"))
        site.run("tenant", "suspend", "acme", "--reason", "unpaid")
        until(lambda: all_answer(403, "acme"))
        site.run("tenant", "resume", "acme")
        site.run("tenant", "rename", "acme", "apex")
        until(lambda: all_answer(308, "acme") and all_answer(200, "apex"))
        queued = json.loads(site.run("tenant", "create", "later", "--no-wait", "--json"))
        with outages.down(own_postgres):
            until(lambda: [health(ask) for ask in asked] == ["snapshot", "snapshot"])
            assert all_answer(200, "apex")
            assert all_answer(308, "acme")
            assert {process.poll() for process in workers} == {None}
        assert json.loads(site.run("operation", "watch", queued["id"], "--json"))["operation"]["state"] == "done"
        until(lambda: [health(ask) for ask in asked] == ["ok", "ok"])
        until(lambda: all_answer(200, "later"))
        site.run("tenant", "suspend", "apex")
        until(lambda: all_answer(403, "apex"))
        site.run("tenant", "create", "third")
        until(lambda: all_answer(200, "third"))
        until(lambda: site.workers() == {process.pid for process in workers})
        owners = {row[0] for row in site.query("SELECT worker_id FROM operation WHERE tenant_slug = 'third'")}
        assert owners <= {row[0] for row in site.query("SELECT id FROM worker")}
        assert "entries are whole" in site.run("audit", "verify")
        stack.close()


def test_each_process_keeps_to_its_share_of_connections(site: Site) -> None:
    """A server at rest has one connection that listens and one that reads; a worker stays below its bounds."""
    site.run("status")
    with site.serve() as ask:
        assert ask(host="nobody.localhost").status_code == 404
        until(lambda: site.connections() == {"tenantry feed": 1, "tenantry": 1})
    with site.process("worker") as worker:
        until(lambda: site.workers() == {worker.pid})
        operations = [
            json.loads(site.run("tenant", "create", f"t{number}", "--no-wait", "--json"))["id"] for number in range(6)
        ]
        seen: list[dict[str, int]] = []

        def over() -> bool:
            seen.append(site.connections())
            states = site.query("SELECT state FROM operation WHERE id = ANY(%s)", operations)
            return {state for (state,) in states} == {"done"}

        until(over)
        assert max(found.get("tenantry feed", 0) for found in seen) == 1
        assert 1 <= max(found.get("tenantry engine", 0) for found in seen) <= engine.CONNECTIONS
        assert 1 <= max(found.get("tenantry", 0) for found in seen) <= database.CONNECTIONS
        assert seen[-1].get("tenantry launch", 0) == 0
