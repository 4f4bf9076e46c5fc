"""`tenantry verify` cut short on every kind, with a server that goes away, and with tenants that change meanwhile."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

import ground as g
from outages import down
from servers import Postgres
from shelves import Shelves
from tenantry.errors import TenantryError
from tenantry.model import Breach, Untried
from tenantry.operations import verify
from tenantry.platform import Platform
from tenantry.registry.journal import State
from tenantry.resources.postgres_attack import Attacker
from tenantry.resources.postgres_dialect import Connection
from verifying import KINDS, populated, verified

SLUGS = ("acme", "umbrella", "initech", "hooli")


async def canaries(platform: Platform) -> list[str]:
    """Where canaries are: the tenants and resources."""
    rows = await platform.tenants.list(limit=100)
    async with platform.registry.read() as tx:
        found = await platform.tools.all_environments(tx, {row.id for row in rows})
    planted = []
    for env in found:
        for resource in platform.tools.resources[env.tenant.blueprint]:
            if resource.plants:
                try:
                    planted += [f"{env.tenant.slug}: {resource.name}"] * bool(await resource.seek(env, verify.TRACE))
                except TenantryError:  # with a prefix there is no table to look into
                    continue
    return planted


def breaches(report: dict[str, Any]) -> list[Any]:
    """All that got through."""
    return [entry for tenant in report["tenants"] for entry in tenant["breaches"]]


async def until_planted(platform: Platform) -> None:
    """Wait until canaries are among the tenants' data, in a database too."""

    async def there() -> bool:
        return any(one.endswith(": db") for one in await canaries(platform))

    await g.until(there, "a canary", patience=3 * g.PATIENCE)


async def clean(platform: Platform) -> None:
    """Nothing that a verification made is there; what `check` finds would be tables, files and roles of its own."""
    assert await canaries(platform) == []
    assert await g.faults_of(platform) == []


@pytest.mark.parametrize("kind", list(KINDS)[1:])
async def test_a_run_that_is_killed_again_and_again(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Killed as it begins to attack and at some later moment: it is finished, and leaves nothing behind."""
    ground = KINDS[kind].made(tmp_path / "platform", request)
    async with ground.open() as platform:
        await populated(platform, *SLUGS)
        process = ground.command("verify")
        await until_planted(platform)
        process.kill()
        process.communicate()
        assert await canaries(platform)
        with ground.worker() as worker:  # it goes on with it, and is killed as well
            await g.lives(platform, worker)
            await asyncio.sleep(random.uniform(0, 2))
            worker.kill()
        (operation,) = await platform.verification.list()
        details = await platform.operations.finish(operation.id)
        assert (details.operation.state, details.operation.done) == (State.DONE, len(SLUGS))
        await clean(platform)


@pytest.mark.parametrize("kind", ["postgres", "mysql", "rows", "prefix on PostgreSQL"])
async def test_two_runs_at_once_on_a_server(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Two verifications of the same tenants take turns; neither takes the other for a breach."""
    ground = KINDS[kind].made(tmp_path / "platform", request)
    async with ground.open() as platform:
        await populated(platform, *SLUGS[:3])
        runs = [await platform.verification.run() for _ in range(2)]
        async with g.working(platform):
            ends = await asyncio.gather(*(g.ended(platform, one) for one in runs))
        assert [one.operation.state for one in ends] == [State.DONE, State.DONE]
        for run in runs:
            assert breaches(await platform.verification.report(run.id)) == []
        await clean(platform)


@pytest.mark.parametrize("kind", ["files", "postgres", "rows"])
async def test_tenants_that_go_or_change_meanwhile(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Destroyed, renamed or suspended while it runs: each operation ends well, and nobody is said to be broken into."""
    ground = KINDS[kind].made(tmp_path / "platform", request)
    async with ground.open() as platform:
        await populated(platform, *SLUGS)
        async with g.working(platform):
            run = await platform.verification.run()
            changes = [
                await platform.tenants.destroy("acme"),
                await platform.tenants.rename("umbrella", "corporation"),
                await platform.tenants.suspend("initech", "unpaid"),
            ]
            ends = await asyncio.gather(*(g.ended(platform, one) for one in (run, *changes)))
        assert [one.operation.state for one in ends[1:]] == [State.DONE] * 3
        report = await platform.verification.report(run.id)
        assert breaches(report) == []
        assert ends[0].operation.state is State.DONE, report
        again = await verified(platform)
        assert {one["tenant"]: one["outcome"] for one in again["tenants"]} == dict.fromkeys(
            ("corporation", "initech", "hooli"), "kept apart"
        )
        await clean(platform)


@pytest.fixture
def lone(tmp_path: Path, own_postgres: Postgres) -> Shelves:
    """A platform on a server of its own."""
    return Shelves(tmp_path / "platform", own_postgres)


async def test_a_server_that_goes_down_meanwhile(lone: Shelves, own_postgres: Postgres) -> None:
    """What could not be tried is told with its reason, and the command does not end as if all were well."""
    async with lone.open() as platform:
        await populated(platform, *SLUGS)
        process = lone.command("verify")
        await until_planted(platform)
        with down(own_postgres):
            output, _ = process.communicate(timeout=4 * g.PATIENCE)
        assert process.returncode == 1, output
        assert "Could not be tried, and counts as nothing:" in output
        (operation,) = await platform.verification.list()
        report = await platform.verification.report(operation.id)
        assert breaches(report) == []
        assert any(one["resource"] == "db" for tenant in report["tenants"] for one in tenant["untried"])
        await platform.operations.resume(operation.id)  # with the server back
        details = await platform.operations.finish(operation.id)
        assert (details.operation.state, details.operation.done) == (State.DONE, len(SLUGS))
        await clean(platform)


def test_a_victim_that_is_gone_is_no_breach(postgres: Postgres) -> None:
    """A superuser that attacks what is not there any more finds nothing, where it would get through otherwise."""
    with postgres.database() as url:
        name = make_url(url).database or ""
        for gone, found in ((False, Breach), (True, Untried)):

            def victim(gone: bool = gone) -> Connection:
                theirs = Connection.connect(url, autocommit=True)
                if gone:
                    postgres.run(f"SELECT pg_terminate_backend({theirs.info.backend_pid})")
                return theirs

            def connect(base: str) -> Connection:
                return Connection.connect(postgres.url(base), autocommit=True)

            attacker = Attacker("db", connect, "postgres", name, name)
            ends = [one for one in attacker.run(victim) if one.attack == "end its connections"]
            assert [type(one) for one in ends] == [found]
