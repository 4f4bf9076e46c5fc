"""What is counted: things in tenants' databases, requests to the API by day; each admin sees her tenants' alone."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from starlette.responses import PlainTextResponse

import ground as g
from people_world import portal
from portals import desk
from tenantry.application import connect
from tenantry.context import tenant_context
from tenantry.identity.principal import AdminRole
from tenantry.operations.measure import measure_some
from tenantry.platform import Platform, counting
from tenantry.registry import tables
from tenantry.registry.statistics import API
from tenantry.runtime import TenantMiddleware
from verifying import KINDS

COUNTS = (
    "\n[blueprints.site.counts]\npages = \"SELECT count(*) FROM page WHERE title <> ':none'\"\n"
    'spoilt = "DELETE FROM page RETURNING 1"\nendless = "WITH RECURSIVE n(x) AS '
    '(SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"\nnothing = "SELECT nothing FROM nowhere"\n'
)
BEGUN = (
    "INSERT INTO tenantry_session (id, user_id, epoch, via, created, proved, seen, expires) "
    "SELECT 'session{number}', id, epoch, 'password', 0, 0, 0, {expires} FROM tenantry_user LIMIT 1"
)


async def counted(ground: g.Ground, platform: Platform) -> None:
    """Two tenants, with two pages at one and none at the other."""
    for slug in ("acme", "umbrella"):
        await platform.operations.finish((await platform.tenants.create(slug)).id)
    ground.sql("acme", "INSERT INTO page (title) VALUES ('one'), ('two')")
    await measure_some(platform.tools)


async def test_users_and_declared_things_are_counted(ground: g.Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its statement, read only and within its time; one that fails is left out, and spoils nothing."""
    monkeypatch.setattr(counting, "SECONDS", 0.5)
    toml = ground.config.read_text()
    ground.config.write_text(toml.replace("\n[plans.free]", f"{COUNTS}\n[plans.free]"))
    async with ground.open() as platform:
        await counted(ground, platform)
        found = await platform.statistics.show(7)
        assert [(one.name, one.number) for one in found.things] == [("users", 2), ("active_sessions", 0), ("pages", 2)]
        users, _, pages = found.things
        assert (users.days[-1].number, users.days[0].number) == (2, None)
        assert [(one.name, one.number) for one in pages.most] == [("acme", 2), ("umbrella", 0)]
        assert ground.sql("acme", "SELECT count(*) FROM page")[0][0] == 2
        ground.sql("acme", "INSERT INTO page (title) VALUES ('three')")
        for number, expires in enumerate((32_503_680_000, 32_503_680_000, 1)):  # two that hold, one that ran out
            ground.sql("acme", BEGUN.format(number=number, expires=expires))
        ground.control("UPDATE resource SET measured = NULL")
        await measure_some(platform.tools)
        found = await platform.statistics.show()
        assert [one.days[-1].number for one in found.things] == [2, 2, 3]
        ground.sql("acme", "UPDATE tenantry_user SET epoch = epoch + 1")  # as a new password does
        ground.control("UPDATE resource SET measured = NULL")
        await measure_some(platform.tools)
        assert (await platform.statistics.show()).things[1].number == 0
        await platform.operations.finish((await platform.tenants.destroy("acme")).id)
        assert [(one.name, one.number) for one in (await platform.statistics.show()).things] == [
            ("users", 1),
            ("active_sessions", 0),
            ("pages", 0),
        ]
    told = subprocess.run(
        [str(g.TENANTRY), "statistics", "--json", "--config", str(ground.config)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {one["name"]: one["number"] for one in json.loads(told.stdout)["things"]} == {
        "users": 1,
        "active_sessions": 0,
        "pages": 0,
    }


ENDLESS = {"mysql": "SELECT sleep(600)", "prefix on MariaDB": "SELECT sleep(600)"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "files"])
async def test_every_kind_of_database_is_counted_in(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tenant's own rows alone, of shared tables too; nothing is changed, and no statement goes on for ever."""
    monkeypatch.setattr(counting, "SECONDS", 0.5)
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    ground = KINDS[kind].made(tmp_path / "platform", request)
    blueprint = re.search(r"\[blueprints\.(\w+)", ground.config.read_text())
    assert blueprint
    with ground.config.open("a") as toml:
        toml.write(f"\n[blueprints.{blueprint[1]}.counts]\n" + 'pages = "SELECT count(*) FROM {prefix}page"\n')
        toml.write(f'spoilt = "DELETE FROM {{prefix}}page"\nendless = "{ENDLESS.get(kind, "SELECT pg_sleep(600)")}"\n')
    async with ground.open() as platform:
        for slug in ("acme", "umbrella"):
            await platform.operations.finish((await platform.tenants.create(slug)).id)
        await measure_some(platform.tools)
        before = {one.name: one for one in (await platform.statistics.show()).things}["pages"]
        runtime = connect(ground.config)
        await runtime.start()
        with tenant_context(runtime.environment("acme")):
            prefix = runtime.place()[1].prefix
            async with runtime.session() as session:
                await session.execute(text(f"INSERT INTO {prefix}page (id, title) VALUES (901, 'one'), (902, 'two')"))
                await session.commit()
        await runtime.stop()
        async with platform.registry.write() as tx:
            await tx.execute(tables.resource.update().values(measured=None))
        await measure_some(platform.tools)
        found = {one.name: one for one in (await platform.statistics.show()).things}
        assert found.keys() <= {"users", "active_sessions", "pages"}
        assert found["pages"].number == before.number + 2
        most = {one.name: one.number for one in found["pages"].most}
        assert most == {one.name: one.number + 2 * (one.name == "acme") for one in before.most}
    await asyncio.sleep(0.1)  # connections say good-bye aside


async def test_an_admin_sees_her_tenants_figures(ground: g.Ground) -> None:
    """Counts, storage and operations of hers; nothing of the platform's own, on the page and by the verb."""
    async with desk(ground) as here:
        await counted(ground, here.platform)
        ana = await here.person("ana", AdminRole.ADMIN)
        page = (await ana.get("/statistics")).text
        assert "API requests" not in page
        assert "umbrella" not in page
        await here.platform.admins.assign("ana@example.org", ["umbrella"])
        page = (await ana.get("/statistics")).text
        assert "umbrella" in page
        assert "acme" not in page
        root = await here.person("root")
        page = (await root.get("/statistics")).text
        assert "API requests by day" in page
        assert "Users by day" in page


async def test_requests_to_the_api_are_counted_by_all_processes(ground: g.Ground) -> None:
    """Each process writes down what it counted, and at its end the rest; strangers do not count."""
    async with portal(ground) as here:
        token = (await here.platform.tokens.create("count", ["tenants:read"], admin="root@example.org")).token
        tally, registry = here.app.state.house.tally, here.platform.registry
        browser = await here.browser(Authorization=f"Bearer {token}")
        for _ in range(3):
            assert (await browser.get("/api/tenants")).status_code == 200
        assert (await (await here.browser()).get("/api/tenants")).status_code == 401
        await asyncio.gather(*(tally.write(registry) for _ in range(3)))
        requests = (await here.platform.statistics.show(7)).requests
        assert requests is not None
        assert requests[-1].number == 3
        await browser.get("/api/tenants")
    async with ground.open() as platform:
        requests = (await platform.statistics.show(7)).requests
        assert requests is not None
        assert [one.number for one in requests] == [0, 0, 0, 0, 0, 0, 4]
    assert ground.control("SELECT count(*) FROM day_total WHERE name = ?".replace("?", f"'{API}'"))[0][0] == 1


async def test_requests_to_tenants_and_their_sessions_are_counted(
    ground: g.Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the application's process: none twice, none lost while the control database is away, nor at its end."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    control, away = ground.data / "control.sqlite", ground.data / "away.sqlite"
    async with ground.open() as platform:
        for slug in ("acme", "umbrella"):
            await platform.operations.finish((await platform.tenants.create(slug)).id)
    runtime = connect(ground.config)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/in":
            runtime.sessions.issue("somebody", 1)
        await PlainTextResponse("here")(scope, receive, send)

    transport = httpx.ASGITransport(TenantMiddleware(application, runtime=runtime))
    async with httpx.AsyncClient(transport=transport) as client:

        async def ask(*paths: str) -> None:
            for slug in ("acme", "umbrella"):
                for path in paths:
                    assert (await client.get(f"http://{slug}.localhost{path}")).text == "here"

        await ask("/", "/in")
        assert (await client.get("http://nobody.localhost/")).status_code == 404
        written = runtime._written
        assert written is not None
        await asyncio.gather(*(written.write() for _ in range(3)))
        control.rename(away)
        await ask("/")
        await written.write()
        away.rename(control)
        assert await served(ground) == (4, 2)
        await written.write()
        assert await served(ground) == (6, 2)
        await ask("/in")
        await runtime.stop()
    assert await served(ground) == (8, 4)
    async with desk(ground) as here:
        page = (await (await here.person("root")).get("/statistics")).text
        assert "Site requests by day" in page
        assert "8 today" in page
        ana = await here.person("ana", AdminRole.ADMIN)
        assert "Site requests" not in (await ana.get("/statistics")).text


async def served(ground: g.Ground) -> tuple[int | None, int | None]:
    """Requests to tenants' sites today, and sessions that began."""
    async with ground.open() as platform:
        found = await platform.statistics.show(7)
    assert found.served is not None
    assert found.begun is not None
    return found.served[-1].number, found.begun[-1].number


def test_settings_are_listed_by_command(ground: g.Ground) -> None:
    """As the portal shows them: in force, with their source."""
    with_name = [str(g.TENANTRY), "settings", "platform.n", "--json", "--config", str(ground.config)]
    rows = json.loads(subprocess.run(with_name, capture_output=True, text=True, check=True).stdout)
    assert [(row["key"], row["value"]) for row in rows] == [("platform.name", '"Ground"')]
    assert "tenantry.toml" in rows[0]["source"]
