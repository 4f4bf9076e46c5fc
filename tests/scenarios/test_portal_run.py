"""The portal's pages for running the platform: who may see and do what, and what bad input does."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import ground as g
from tenantry.config import load
from tenantry.errors import AuditBroken
from tenantry.identity.principal import AdminRole
from tenantry.identity.signin import Client, SignIn
from tenantry.operations.measure import measure_some
from tenantry.platform import Platform
from tenantry.web.site import site

ROOT, ANA = "root@example.org", "ana@example.org"


@dataclass
class Visitor:
    """Somebody who is signed in."""

    client: httpx.AsyncClient
    csrf: str = ""

    async def get(self, path: str, **query: Any) -> httpx.Response:
        """A page."""
        return await self.client.get(f"/admin/{path}", params=query or None)

    async def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form, and look at the page it leads to."""
        return await self.client.post(f"/admin/{path}", data={"csrf": self.csrf, **fields}, follow_redirects=True)


@dataclass
class World:
    """A platform's portal, and who visits it."""

    platform: Platform
    root: Visitor
    ana: Visitor
    nobody: Visitor


@contextlib.asynccontextmanager
async def world(ground: g.Ground) -> AsyncIterator[World]:
    """The portal of a platform with two tenants, of which one is Ana's; called within this process."""
    app = site(load(ground.config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(app.state.house.close)
        platform = (await app.state.house.opened()).platform
        visitors = []
        for mail, role in ((ROOT, AdminRole.SUPERADMIN), (ANA, AdminRole.ADMIN), (None, None)):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://localhost")
            )
            visitor = Visitor(client)
            if mail and role:
                invited = await platform.admins.invite(mail, role=role)
                signed = await SignIn(platform.registry).take(
                    invited.link, "correct horse battery", Client("127.0.0.1")
                )
                client.cookies.set("tenantry_admin", signed.session)
                found = re.search(r'name="csrf" value="([^"]+)"', (await visitor.get("")).text)
                assert found
                visitor.csrf = found[1]
            visitors.append(visitor)
        for slug in ("acme", "umbrella"):
            await platform.operations.finish((await platform.tenants.create(slug)).id)
        await platform.admins.assign(ANA, ["acme"])
        yield World(platform, *visitors)


SHARED = ("operations", "audit", "palette")
SUPERADMINS = ("migrations", "servers", "verify", "settings")


async def test_pages_show_for_whom_they_are(ground: g.Ground) -> None:
    """A superadmin sees every page, an admin those that are about her tenants, nobody else any."""
    async with world(ground) as here:
        for page in (*SHARED, *SUPERADMINS):
            assert (await here.root.get(page)).status_code == 200, page
            assert (await here.ana.get(page)).status_code == (403 if page in SUPERADMINS else 200), page
            turned = await here.nobody.get(page)
            assert (turned.status_code, turned.headers["location"].split("?")[0]) == (303, "/admin/sign-in"), page
        bar = (await here.ana.get("operations")).text
        assert "/admin/audit" in bar
        assert "/admin/servers" not in bar


async def test_another_admins_operations_are_not_there(ground: g.Ground) -> None:
    """Lists leave them out; their pages, steps and buttons answer as if they did not exist."""
    async with world(ground) as here:
        hers, other = [(await here.platform.operations.list(tenant=slug))[0].id for slug in ("acme", "umbrella")]
        listed = (await here.ana.get("operations")).text
        assert hers in listed
        assert other not in listed
        assert (await here.ana.get(f"operations/{hers}")).status_code == 200
        for path in (f"operations/{other}", f"operations/{other}/failures", f"operations/{other}/steps"):
            assert (await here.ana.get(path)).status_code == 404, path
        assert (await here.ana.post(f"operations/{other}/cancel")).status_code == 404


async def test_a_form_without_its_secret_does_nothing(ground: g.Ground) -> None:
    """Whatever a form asks for, it carries what no other site knows."""
    async with world(ground) as here:
        here.root.csrf = "guessed"
        before = len(await here.platform.operations.list())
        for path in ("migrations", "migrations/rollback", "verify", "servers", "servers/db1/close", "audit/verify"):
            assert (await here.root.post(path, tenant="acme", typed="db1")).status_code == 403, path
        assert len(await here.platform.operations.list()) == before


async def test_operations_are_found_paused_and_cancelled(ground: g.Ground) -> None:
    """Filtered by state, tenant and verb; what cannot be done is told with its remedy on the same page."""
    async with world(ground) as here:
        made = await here.platform.tenants.suspend("acme", "unpaid")
        found = (await here.root.get("operations", state="queued", tenant="acme", verb="suspend")).text
        assert found.count(f"operations/{made.id}") == 1
        assert "No worker lives" in found
        assert "No operation is like that" in (await here.root.get("operations", tenant="'; DROP TABLE tenant")).text
        refused = await here.root.post(f"operations/{made.id}/pause")
        assert refused.status_code == 409
        assert "does not work on many tenants" in refused.text
        cancelled = await here.root.post(f"operations/{made.id}/cancel")
        assert cancelled.status_code == 200
        assert "It stops" in cancelled.text
        await here.platform.operations.finish(made.id)
        assert "cancelled" in (await here.root.get(f"operations/{made.id}")).text
        assert (await here.root.post(f"operations/{made.id}/explode")).status_code == 409


async def test_a_migration_is_planned_started_and_taken_back(ground: g.Ground) -> None:
    """What was typed stays where it is refused; the picture counts the versions in words, too."""
    async with world(ground):
        ground.migration("0002_body.sql", g.SECOND)
    async with again(ground) as here:
        page = (await here.root.get("migrations")).text
        assert "<title>Versions of site.db</title><desc>2 0001_pages</desc>" in page
        refused = await here.root.post("migrations", waves="50%, 20%", canary="1", stop_after="3")
        assert refused.status_code == 422
        assert 'value="50%, 20%"' in refused.text
        assert "do not rise" in refused.text
        plan = (await here.root.post("migrations", what="plan")).text
        assert "2 to be migrated" in plan
        begun = await here.root.post("migrations", waves="50%, 100%", canary="1")
        assert "The migration is queued." in begun.text
        operation = await here.platform.migrations.under_way()
        assert "A migration is under way" in (await here.root.get("migrations")).text
        await here.platform.operations.finish(operation.id)
        report = await here.root.get(f"migrations/{operation.id}/report.json")
        assert report.json()["done"] == 2
        assert "# Migration" in (await here.root.get(f"migrations/{operation.id}/report.md")).text
        assert "at its schema already" in (await here.root.post("migrations")).text
        back = await here.root.post("migrations/rollback", tenant="acme", pin="true")
        assert "is queued" in back.text
        await here.platform.operations.finish((await here.platform.operations.list())[0].id)
        assert "Unpin" in (await here.root.get("migrations")).text
        assert "brings &#39;acme&#39; up again" in (await here.root.post("migrations/unpin", tenant="acme")).text
        assert (await here.root.post("migrations/rollback", tenant="nobody")).status_code == 404


@contextlib.asynccontextmanager
async def again(ground: g.Ground) -> AsyncIterator[World]:
    """The portal of a platform that is there already, for its superadmin."""
    app = site(load(ground.config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(app.state.house.close)
        platform = (await app.state.house.opened()).platform
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://localhost"))
        visitor = Visitor(client)
        signed = await SignIn(platform.registry).password(ROOT, "correct horse battery", Client("127.0.0.1"))
        client.cookies.set("tenantry_admin", signed.session)
        found = re.search(r'name="csrf" value="([^"]+)"', (await visitor.get("")).text)
        assert found
        visitor.csrf = found[1]
        yield World(platform, visitor, visitor, visitor)


async def test_the_audit_log_is_filtered_exported_and_proved(ground: g.Ground) -> None:
    """By who, what, about what and when; the file holds what the page shows; a change of an entry is told."""
    async with world(ground) as here:
        await here.platform.tenants.suspend("umbrella", "unpaid")
        page = (await here.root.get("audit", subject="umbrella", action="tenant")).text
        assert "tenant.suspend" not in page  # only queued
        assert "tenant.create" in page
        assert "admin.invite" not in page
        assert "admin.invite" in (await here.root.get("audit", actor=here.platform.registry.database.actor)).text
        assert "No entry is like that" in (await here.root.get("audit", until="2000-01-01")).text
        lines = (await here.root.get("audit/export", kind="jsonl", since="2000-01-01")).text.splitlines()
        entries = [json.loads(line) for line in lines]
        assert [entry["seq"] for entry in entries] == list(range(len(entries), 0, -1))
        table = list(csv.DictReader((await here.root.get("audit/export")).text.splitlines()))
        assert [row["hash"] for row in table] == [entry["hash"] for entry in entries]
        hers = list(csv.DictReader((await here.ana.get("audit/export")).text.splitlines()))
        assert {row["subject"] for row in hers} == {"acme"}
        assert (await here.root.get("audit/export", kind="exe")).status_code == 422
        assert "are as they were written" in (await here.root.post("audit/verify")).text
        assert (await here.ana.post("audit/verify")).status_code == 403
        ground.control("UPDATE audit SET subject = 'hooli' WHERE seq = 2")
        broken = await here.root.post("audit/verify")
        assert "was altered" in broken.text
        with pytest.raises(AuditBroken):
            await here.platform.audit.verify()


async def test_what_is_written_is_shown_and_never_run(ground: g.Ground) -> None:
    """Text that is HTML stays text on every page it shows on, and no formula in a table."""
    evil = "<script>alert(1)</script>"
    async with world(ground) as here:
        await here.platform.organizations.create(f"=1+1{evil}", "a@example.org")
        for page in ("audit", "operations?tenant=" + evil, "audit?subject=" + evil):
            assert evil not in (await here.root.get(page)).text, page
        refused = await here.root.post("servers", name=evil, kind=evil, url=evil)
        assert refused.status_code == 422
        assert evil not in refused.text
        table = (await here.root.get("audit/export", action="org")).text
        assert "'=1+1" in table or evil not in table


async def test_isolation_is_verified_and_reported(ground: g.Ground) -> None:
    """Started here, its report shows what was tried, and its signed file is genuine."""
    async with world(ground) as here:
        refused = await here.root.post("verify", sample="some")
        assert refused.status_code == 422
        assert 'value="some"' in refused.text
        assert "is queued" in (await here.root.post("verify", tenants="acme, umbrella")).text
        operation = (await here.platform.operations.list(verb="verify"))[0]
        await here.platform.operations.finish(operation.id)
        report = await here.root.get(f"verify/{operation.id}")
        assert "No attack got through" in report.text
        file = ground.root / "report.json"
        file.write_bytes((await here.root.get(f"verify/{operation.id}/report.json")).content)
        assert here.platform.verification.check(file).breaches == 0
        assert (
            await here.root.get(f"verify/{(await here.platform.operations.list(tenant='acme'))[0].id}")
        ).status_code == 409


async def test_a_server_is_drained_closed_by_name_and_opened(ground: g.Ground) -> None:
    """What cuts tenants off wants the name typed; one that is silent says so, and is shown without its password."""
    async with world(ground) as here:
        await here.platform.servers.add("db1", "postgres", "postgresql://adm:hush@127.0.0.1:1/x", 10, unchecked=True)
        page = (await here.root.get("servers", ask="1")).text
        assert "cannot be reached" in page
        assert "hush" not in page
        assert "No more tenants" in (await here.root.post("servers/db1/drain")).text
        refused = await here.root.post("servers/db1/close", typed="db2")
        assert refused.status_code >= 400
        assert "was to be typed" in refused.text
        assert (await here.platform.servers.show("db1", ask=False)).row.state == "draining"
        assert "Nobody is served" in (await here.root.post("servers/db1/close", typed="db1")).text
        assert "are placed on" in (await here.root.post("servers/db1/open")).text
        assert "✗" in (await here.root.get("servers/db1", check="1")).text
        assert (await here.root.post("servers", name="db2", url="postgresql://a:hush@127.0.0.1:1/x")).status_code >= 400
        assert (await here.root.get("servers/db9")).status_code == 404
        assert "is forgotten" in (await here.root.post("servers/db1/remove", typed="db1")).text


async def test_the_platform_is_counted(ground: g.Ground) -> None:
    """Tenants, what they take up once it was measured, operations of the day; each picture says it in words."""
    async with world(ground) as here:
        before = await here.platform.statistics.show()
        assert (before.storage.measured, before.storage.bytes, before.largest) == (0, 0, [])
        assert "Nothing was measured yet" in (await here.root.get("statistics")).text
        await measure_some(here.platform.tools)
        found = await here.platform.statistics.show(days=7)
        assert found.tenants == found.growth[-1].tenants == 2
        assert found.growth[0].tenants == 0
        assert len(found.growth) == len(found.operations) == 7
        assert (found.operations[-1].done, found.operations[-1].failed) == (2, 0)
        assert found.storage.measured == found.storage.resources == 6
        usage = [await here.platform.tenants.measure(slug) for slug in ("acme", "umbrella")]
        assert found.storage.bytes == sum(one.bytes for one in usage) > 0
        assert {one.name for one in found.largest} == {"acme", "umbrella"}
        assert (found.admins, found.sessions) == (2, 2)
        page = (await here.root.get("statistics", days=7)).text
        assert "<title>Operations by day</title><desc>2 done, 0 cancelled, 0 failed, 0 open</desc>" in page
        assert (await here.root.get("statistics", days=0)).status_code == 422


async def test_what_is_measured_stays_where_it_cannot_be_measured_again(ground: g.Ground) -> None:
    """A tenant's part that is out of reach keeps its last figure, and holds up no other."""
    async with world(ground) as here:
        await measure_some(here.platform.tools)
        before = (await here.platform.statistics.show()).storage
        ground.control("UPDATE resource SET measured = NULL")
        ground.sql("umbrella", "INSERT INTO page (title) VALUES ('one more')")
        ground.database("acme").write_bytes(b"this is no database" * 100)
        await measure_some(here.platform.tools)
        after = (await here.platform.statistics.show()).storage
        assert after.rows == before.rows + 1
        assert after.measured == before.measured


async def test_settings_say_where_they_come_from_and_no_secret(
    ground: g.Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of the file, a variable, or the default; what is secret is covered."""
    monkeypatch.setenv("TENANTRY_WORKER__CONCURRENCY", "3")
    monkeypatch.setenv("TENANTRY_BLUEPRINTS__SITE__VALUES__SMTP_PASSWORD", "hush-hush")
    async with world(ground) as here:
        found = {row.key: row for row in await here.platform.settings()}
        assert found["worker.concurrency"].source == "TENANTRY_WORKER__CONCURRENCY"
        assert (found["platform.name"].value, found["platform.name"].source) == ('"Ground"', "tenantry.toml:3")
        assert found["worker.heartbeat"].source == "default"
        page = (await here.root.get("settings")).text
        assert "hush-hush" not in page
        assert ground.key not in page
        only = (await here.root.get("settings", search="worker", written="true")).text
        assert "worker.concurrency" in only
        assert "worker.heartbeat" not in only
        assert "No setting is like that" in (await here.root.get("settings", search="<b>")).text


async def test_the_palette_finds_what_one_may_reach(ground: g.Ground) -> None:
    """Pages, actions and tenants; an admin is led nowhere that is closed to her."""
    async with world(ground) as here:
        found = (await here.root.get("palette", search="umb")).text
        assert 'href="/admin/tenants/umbrella"' in found
        assert "/admin/tenants/umbrella" not in (await here.ana.get("palette", search="umb")).text
        assert 'href="/admin/tenants/acme"' in (await here.ana.get("palette", search="acme")).text
        assert "Verify the isolation" in (await here.root.get("palette", search="isolation ver")).text
        assert "Verify the isolation" not in (await here.ana.get("palette")).text
        assert "Nothing is called so" in (await here.root.get("palette", search="<script>")).text
