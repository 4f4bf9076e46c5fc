"""A migration that some tenants' data break, over a fleet on PostgreSQL: the others get it, those go on serving."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import servers
from shelves import Shelves
from tenantry import TenantMiddleware, connect, tenant_session
from tenantry.platform import Platform
from tenantry.platform.operations import OperationDetails
from tenantry.runtime import Runtime

pytestmark = pytest.mark.postgres

TENANTS = int(os.environ.get("FLEET_TENANTS", "100"))
"""How many databases; 300 as well, where there is time."""

BAD = 7
OLD, NEW = "0001_pages", "0002_unique"
UNIQUE = "CREATE UNIQUE INDEX page_title ON page (title);\n-- down\nDROP INDEX page_title;\n"
"""A migration that fails where two pages have one title."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Adds a page, and answers how many there are."""
    async with tenant_session() as session:
        await session.execute(text("INSERT INTO page (id, title) SELECT count(*) + 1, 'new ' || count(*) FROM page"))
        number = (await session.execute(text("SELECT count(*) FROM page"))).scalar_one()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(number).encode()})


@asynccontextmanager
async def served(shelves: Shelves, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    """The application, started with the files as they are now, and a client of it."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    runtime = connect(shelves.config)
    await runtime.start()
    try:
        transport = httpx.ASGITransport(TenantMiddleware(application, runtime))
        async with httpx.AsyncClient(transport=transport) as client:
            yield runtime, client
    finally:
        await runtime.stop()


async def answers(client: httpx.AsyncClient, slugs: list[str]) -> set[int | str]:
    """The statuses with which requests to these tenants are answered; of refused ones also what is said."""
    found = [await client.get(f"http://{slug}.localhost/") for slug in slugs]
    return {one.status_code if one.status_code < 400 else f"{one.status_code} {one.text}" for one in found}


async def populate(shelves: Shelves, platform: Platform) -> list[str]:
    """Make the tenants; their slugs in the order in which they are migrated."""
    rows = shelves.root / "list.csv"
    rows.write_text("\n".join(["slug", *(f"lab-{number:03}" for number in range(TENANTS))]))
    made = await platform.operations.finish((await platform.tenants.import_csv(rows)).id)
    assert made.operation.state == "done", made.items[:1]
    shelves.migration("0002_unique.sql", UNIQUE)
    return [one.slug for one in await platform.migrations.plan()]


def spoil(shelves: Shelves, slugs: list[str]) -> None:
    """Give tenants two pages of one title."""
    for slug in slugs:
        shelves.query(
            "pg1", "INSERT INTO page (id, title) VALUES (1001, 'twice'), (1002, 'twice')", name(shelves, slug)
        )


def name(shelves: Shelves, slug: str) -> str:
    return f"{shelves.prefix}_{slug}"


def has_index(shelves: Shelves, slug: str) -> bool:
    """Whether a tenant's database has what the migration makes, past Tenantry."""
    return bool(shelves.query("pg1", "SELECT 1 FROM pg_class WHERE relname = 'page_title'", name(shelves, slug)))


async def versions(platform: Platform) -> dict[str | None, int]:
    (fleet,) = await platform.migrations.status()
    return dict(fleet.versions)


async def migrate(platform: Platform, state: str, **options: Any) -> OperationDetails:
    details = await platform.operations.finish((await platform.migrations.run(**options)).id)
    assert details.operation.state == state, details.operation.error
    return details


@pytest.fixture
def shelves(tmp_path: Path, postgres: servers.Postgres) -> Iterator[Shelves]:
    """A platform with one server, whose tenants have pages."""
    made = Shelves(tmp_path / "platform", postgres)
    toml = made.config.read_text()
    host = '[blueprints.lab.hostnames]\nproduction = "{slug}.{domain}"\n'
    made.config.write_text(toml.replace("[blueprints.lab.values]", f"{host}\n[blueprints.lab.values]"))
    yield made
    made.clear()


async def test_seven_fail_and_the_others_get_it(shelves: Shelves, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seven are named with the cause, unchanged, and serve; mended, the next run does those alone."""
    async with shelves.open() as platform:
        slugs = await populate(shelves, platform)
        (shelves.root / "schema" / "0002_unique.sql").rename(shelves.root / "later")
        async with served(shelves, monkeypatch) as (_, client):  # the code that runs while the fleet is migrated
            (shelves.root / "later").rename(shelves.root / "schema" / "0002_unique.sql")
            bad = slugs[5 :: TENANTS // BAD][:BAD]
            spoil(shelves, bad)
            details = await migrate(platform, "failed", canary=3, waves=("10%", "50%", "100%"))
            assert (details.operation.done, details.operation.failed) == (TENANTS - BAD, BAD)
            assert {item.subject for item in details.items} == set(bad)
            for item in details.items:
                assert item.error is not None
                assert (item.error["code"], item.detail) == ("migration.failed", f"stays at {OLD}")
                assert "0002_unique" in item.error["message"]
                assert "twice" in item.error["message"]
            assert await versions(platform) == {OLD: BAD, NEW: TENANTS - BAD}
            assert not any(has_index(shelves, slug) for slug in bad)
            assert has_index(shelves, slugs[0])
            assert await answers(client, bad) == {200}
            assert await answers(client, [slug for slug in slugs if slug not in bad]) == {200}
            for slug in bad:
                shelves.query("pg1", "DELETE FROM page WHERE title = 'twice'", name(shelves, slug))
            again = await migrate(platform, "done")
            assert (again.operation.total, again.operation.done) == (BAD, BAD)
            assert {item.subject for item in await platform.operations.items(again.operation.id)} == set(bad)
            assert await versions(platform) == {NEW: TENANTS}
            assert all(has_index(shelves, slug) for slug in bad)
            assert await answers(client, bad) == {200}
        nothing = await migrate(platform, "done")
        assert nothing.operation.total <= 1  # its one step: the template


async def test_a_stop_rule_ends_it_in_the_first_waves(shelves: Shelves) -> None:
    """With one per cent allowed the run ends soon; nobody of a later wave was touched, and mended it goes on."""
    async with shelves.open() as platform:
        slugs = await populate(shelves, platform)
        bad = slugs[5 : 5 + BAD]
        spoil(shelves, bad)
        waves = ("20%", "50%", "100%")
        details = await migrate(platform, "failed", canary=3, waves=waves, stop_after="1%")
        error = details.operation.error
        assert error is not None
        assert error["code"] == "operation.stopped"
        assert "--stop-after 1%" in error["message"]
        assert 0 < details.operation.failed <= BAD
        assert {item.subject for item in details.items} <= set(bad)
        assert {step.name: step.state.value for step in details.steps} == {
            "template": "done",
            "canary": "done",
            "wave 1": "failed",
            "wave 2": "pending",
            "wave 3": "pending",
        }
        touched = 3 + -(-(TENANTS - 3) * 20 // 100)
        assert not any(has_index(shelves, slug) for slug in slugs[touched:])
        assert (await versions(platform))[OLD] >= TENANTS - touched + details.operation.failed
        for slug in bad:
            shelves.query("pg1", "DELETE FROM page WHERE title = 'twice'", name(shelves, slug))
        await platform.operations.resume(details.operation.id)
        ended = await platform.operations.finish(details.operation.id)
        assert (ended.operation.state, ended.operation.done, ended.operation.failed) == ("done", TENANTS, 0)
        assert await versions(platform) == {NEW: TENANTS}
