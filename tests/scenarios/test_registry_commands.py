"""`tenantry registry`: a platform that began on SQLite moves to PostgreSQL, is looked at, and is brought up to date."""

from __future__ import annotations

import json
import subprocess

import psycopg
import pytest
from sqlalchemy.engine import make_url

import servers
from ground import PATIENCE, TOML, Ground, lives
from tenantry.platform import Platform

pytestmark = pytest.mark.postgres

NAME = "CONTROL_DATABASE_URL"


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> str:
    """A variable that holds the address of an empty database."""
    monkeypatch.setenv(NAME, postgres_url)
    return postgres_url


def run(ground: Ground, *arguments: str, status: int = 0) -> str:
    """A command, to its end; what it printed."""
    process = ground.command(*arguments)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == status, output
    return output


def moved(ground: Ground) -> None:
    """Let tenantry.toml name the other database."""
    toml = TOML.replace('data = "var"', f'data = "var"\ncontrol = {{{{env = "{NAME}"}}}}')
    ground.config.write_text(toml.format(root=ground.root))


async def test_a_platform_moves_to_postgresql(ground: Ground, environ: str) -> None:
    """Copied while no worker lives, it goes on there as it was; the address with its password is never printed."""
    password = str(make_url(environ).password)
    with ground.worker() as worker:
        async with Platform.open(ground.config) as platform:
            await lives(platform, worker)
        run(ground, "tenant", "create", "acme", "--name", "Ærø")
        refused = run(ground, "registry", "copy", "--to-env", NAME, status=3)
        assert "error[registry.in_use]" in refused
        assert f"/{worker.pid}" in refused
    moved(ground)
    lost = run(ground, "status", status=4)
    assert "error[registry.missing]" in lost
    assert "registry copy" in lost
    ground.config.write_text(TOML.format(root=ground.root))
    output = run(ground, "registry", "copy", "--to-env", NAME)
    assert f'control = {{env = "{NAME}"}}' in output
    assert "tenant " in output
    again = run(ground, "registry", "copy", "--to-env", NAME, status=3)
    assert "error[registry.not_empty]" in again
    moved(ground)
    for file in ground.data.glob("control*"):
        file.unlink()
    with ground.worker() as worker:
        async with Platform.open(ground.config) as platform:
            await lives(platform, worker)
        run(ground, "tenant", "create", "second")
        status = run(ground, "registry", "status")
    assert [row["slug"] for row in json.loads(run(ground, "tenant", "list", "--json"))] == ["acme", "second"]
    assert "entries are whole" in run(ground, "audit", "verify")
    assert "PostgreSQL" in status
    assert "schema tenantry_engine" in status
    assert "tenant: 2" in status
    assert "tenantry engine: " in status
    assert password not in "".join((refused, lost, output, again, status))
    back = ground.root / "back" / "control.sqlite"
    assert f'control = "sqlite:///{back}"' in run(ground, "registry", "copy", "--to", f"sqlite:///{back}")


@pytest.mark.usefixtures("environ")
def test_a_shared_registry_is_brought_up_to_date_by_command(ground: Ground, postgres_url: str) -> None:
    """An older one is refused by every other command; --dry-run names what is missing and changes nothing."""
    moved(ground)
    missing = [line.split()[1] for line in run(ground, "registry", "migrate", "--dry-run").splitlines()]
    assert missing[0] == "0001"
    assert "none: it is empty" in run(ground, "registry", "status")
    applied = [line.split()[1] for line in run(ground, "registry", "migrate").splitlines()]
    assert applied == missing
    assert run(ground, "registry", "migrate") == "It is at the newest revision.\n"
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    behind = run(ground, "tenant", "list", status=3)
    assert "error[registry.behind]" in behind
    assert "tenantry registry migrate" in behind
    assert "registry migrate" in run(ground, "registry", "status")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "Install the version" in run(ground, "registry", "migrate", status=1)


def test_what_cannot_be_copied_to_is_said(ground: Ground, postgres: servers.Postgres) -> None:
    """No control database, no address, an unset variable, both, no database's URL, a wrong password."""
    assert "error[registry.missing]" in run(ground, "registry", "copy", "--to", "sqlite:////tmp/x", status=4)
    run(ground, "status")
    assert "is not set" in run(ground, "registry", "copy", "--to-env", "NO_SUCH_VARIABLE", status=2)
    assert "both name" in run(ground, "registry", "copy", "--to", "x", "--to-env", "y", status=2)
    assert "is no URL" in run(ground, "registry", "copy", "--to", "nowhere", status=2)
    assert "is not of the form" in run(ground, "registry", "copy", "--to", "mysql://root:geheim@h/db", status=2)
    assert "already" in run(ground, "registry", "copy", "--to", f"sqlite:///{ground.data}/control.sqlite", status=2)
    wrong = run(ground, "registry", "copy", "--to", postgres.url(password="geheim"), status=1)
    assert "error[registry.unavailable]" in wrong
    assert "geheim" not in wrong
    process = ground.command("registry", "copy", stdin=subprocess.DEVNULL)
    assert "--to-env" in process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 2
