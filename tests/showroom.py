"""A platform with something of everything on it, its portal served: what a browser is to see of each page."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Page

import ground as g
from people_world import Inbox, mailing
from servers import free_port
from tenantry.config import load
from tenantry.identity import Reach, acting_as
from tenantry.identity.principal import AdminRole, Principal
from tenantry.identity.signin import Client, SignIn
from tenantry.operations.measure import measure_some
from tenantry.platform import Platform
from tenantry.web.doors import Door, doors
from tenantry.web.site import site

PASSWORD = "correct horse battery"
ROOT, ANA = "root@example.org", "ana@example.org"

TOML = g.TOML.replace('name = "Ground"', 'name = "Harbour"').replace(
    "[plans.free]\n[plans.pro]",
    """
[blueprints.lab]
title = "A laboratory"

[blueprints.lab.resources]
db = {{kind = "postgres", name = "lab_{{slug}}", schema = "lab/"}}

[blueprints.lab.hostnames]
production = "{{slug}}.{{domain}}"

[plans.free]
[plans.pro]
""",
)

LIST = """slug,name,plan
acme,Acme & Söhne,pro
bistro,Bistro Nord,free
blumen,Blumen am Markt,free
cartographer,The Cartographer's Table,pro
dolphin,Dolphin Diving School,free
elbe,Elbe Schifffahrt,pro
falafel,Falafel Corner,free
gallery,Gallery of the Old Town,pro
initech,Initech,free
umbrella,Umbrella Repair,pro
"""

LONG = (
    "Verein der Freundinnen und Freunde des gepflegten Fahrtensegelns auf Binnengewässern und entlang der Küsten e. V."
)
ODD = {
    "long": "Verein der Freundinnen und Freunde des Fahrtensegelns auf Binnengewässern "
    + "Donaudampfschifffahrtskapitän" * 4,
    "salam": "شركة النور للتجارة والاستيراد",
    "party": "🎉 Party & Co 👩‍👩‍👧‍👦 <b>GmbH</b>",
    "a" * 50: "W" * 200,
}
"""Names that want room, run the other way, or are no letters."""


NO_PAGES = {
    "/tenants/-/export.csv",
    "/tenants/-/slug",
    "/audit/export",
    "/migrations/{operation_id}/report.{kind}",
    "/verify/{operation_id}/report.json",
    "/operations/{operation_id}/steps",
    "/mail/preview/html",  # a letter: no script runs in it, and so nothing that looks at it
    "/passkey/options",
    "/me/passkeys/options",
}
"""What the portal answers with that is no page: files, and parts of pages."""

SHOWN = {
    "/tenants/-/made/{operation_id}": "create",
    "/migrations/rehearsals/{operation_id}": "rehearse",
    "/verify/{operation_id}": "verify",
}
"""Of which verb the operation is that a page shows; others show a migration that failed for one."""


@dataclass
class Showroom:
    """Where it is served, and what is shown there."""

    ground: g.Ground
    port: int
    app: FastAPI
    operations: dict[str, str] = field(default_factory=dict)  # the newest, by verb
    parts: dict[str, str] = field(default_factory=dict)  # what stands in addresses of pages, as routes call it

    def url(self, path: str = "/") -> str:
        """A page's address."""
        return f"http://localhost:{self.port}/admin{path}"

    def sign_in(self, page: Page, mail: str) -> None:
        """By the page that people see."""
        page.goto(self.url("/sign-in"))
        page.get_by_label("Mail address").fill(mail)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url(self.url())

    def pages(self, mail: str | None) -> Iterator[str]:
        """Every page that the routes have and this person may see; None: nobody who is signed in."""
        for door in doors(self.app):
            path = door.path.removeprefix("/admin")
            if path == door.path or not door.is_page or door.method != "GET" or path in {*NO_PAGES, "", "/static"}:
                continue
            if bool(door.rights) == bool(mail) and (mail != ANA or _hers(door)):
                verb = "suspend" if mail == ANA else SHOWN.get(path, "migrate")
                yield path.format(**self.parts, operation_id=self.operations[verb])


def _hers(door: Door) -> bool:
    return all(right.reach is not Reach.PLATFORM for right in door.rights)


@contextmanager
def showroom(
    root: Path, postgres: str, inbox: Inbox | None = None, *, odd: bool = True, worker: bool = True
) -> Iterator[Showroom]:
    """The portal of such a platform, with a worker; `postgres` is an administrator's address of a server."""
    ground = g.Ground(root / "platform", TOML)
    address = f"http://localhost:{(port := free_port())}"
    if inbox:
        mailing(ground, inbox, url=address)
    else:
        ground.config.write_text(ground.config.read_text().replace("[platform]\n", f'[platform]\nurl = "{address}"\n'))
    (ground.root / "lab").mkdir()
    (ground.root / "lab" / "0001_bookings.sql").write_text(g.FIRST)
    app = site(load(ground.config))
    found = Showroom(ground, port, app)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))

    async def run() -> None:
        async with ground.open() as platform:
            await _fill(platform, found, postgres, ODD if odd else {})
        await server.serve()
        await app.state.house.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)  # Playwright keeps a loop in this one
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        if worker:
            with ground.worker():
                yield found
        else:
            yield found
    finally:
        server.should_exit = True
        thread.join(g.PATIENCE)


async def _fill(platform: Platform, found: Showroom, postgres: str, odd: dict[str, str]) -> None:
    root = await _person(platform, ROOT, "Rosa Root", AdminRole.SUPERADMIN)
    await _person(platform, ANA, "Ana Amato", AdminRole.ADMIN)
    with acting_as(root):
        await _tenants(platform, postgres, odd)
        await _people(platform, found)
        await _fleet(platform, found)
    await measure_some(platform.tools)
    _spread(found.ground)


async def _person(platform: Platform, mail: str, name: str, role: AdminRole) -> Principal:
    sign_in = SignIn(platform.registry)
    invited = await platform.admins.invite(mail, name, role)
    signed = await sign_in.take(invited.link, PASSWORD, Client("127.0.0.1", "Mozilla/5.0 (X11; Linux) Firefox/140.0"))
    assert signed is not None
    return await sign_in.by_session(signed.session)


async def _tenants(platform: Platform, postgres: str, odd: dict[str, str]) -> None:
    await platform.operations.finish((await platform.tenants.import_text(LIST, "customers.csv", "site", None)).id)
    for slug, name in odd.items():
        await platform.operations.finish((await platform.tenants.create(slug, name, blueprint="site")).id)
    await platform.servers.add("north", "postgres", postgres, 20, labels=["eu", "ssd"])
    await platform.operations.finish((await platform.tenants.create("glacier", "Glacier Lab", blueprint="lab")).id)
    await platform.operations.finish((await platform.tenants.suspend("initech", "unpaid since May")).id)
    await platform.hostnames.add("acme", "www.acme.example")


async def _people(platform: Platform, found: Showroom) -> None:
    agency = await platform.organizations.create("Nordlicht Agency", "office@nordlicht.example")
    await platform.organizations.create("Bakeries of the Coast", "bread@example.org")
    await platform.organizations.assign(agency.id, ["acme", "bistro", "gallery"])
    await platform.admins.assign(ANA, ["acme", "bistro", "initech"])
    invited = await platform.admins.invite("new@example.org", "Nia New")
    await platform.tokens.create("deploys", ["tenants:read", "operations:read"], 90)
    ana = (await platform.admins.show(ANA)).row.id
    found.parts = {"slug": "acme", "organization": agency.id, "admin": ana, "name": "north", "link": invited.link}


async def _fleet(platform: Platform, found: Showroom) -> None:
    verified = await platform.verification.run("3")
    await platform.operations.finish(verified.id)
    found.ground.migration("0002_body.sql", g.SECOND)
    found.ground.sql("bistro", "ALTER TABLE page ADD COLUMN body TEXT")
    rehearsed = await platform.rehearsals.run("4")
    await platform.operations.finish(rehearsed.id)
    migrated = await platform.migrations.run(0, ["40%", "100%"], slugs=("acme", "bistro", "elbe", "umbrella"))
    await platform.operations.finish(migrated.id)
    for row in await platform.operations.list(limit=1000):
        found.operations.setdefault(row.verb, row.id)


def _spread(ground: g.Ground) -> None:
    """Let tenants look as if they were made over a month, and as if people had come on each of its days."""
    for name, number in (("served:requests", 900), ("served:sessions", 40), ("api", 120)):
        ground.control(
            "WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < 29) INSERT INTO day_total "
            f"SELECT date('now', '-' || x || ' days'), '{name}', {number} * (60 - x + x * 37 % 11) / 40 FROM n"
        )
    ground.control(
        "UPDATE tenant SET created = datetime('now', '-' || (2 + abs(unicode(slug) * 7 % 26)) || ' days', '-3 hours')"
    )
