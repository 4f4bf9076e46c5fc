"""What `make demo` runs: a platform of 249 tenants, through real commands, real processes and HTTP, told in one table.

The tenants are the countries of ISO 3166-1 and their pages list the subdivisions of ISO 3166-2, both out of pycountry.
It needs no server and no root, works in a temporary directory, and leaves nothing behind. Exit status 1 where anything
is not as it should be.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import dataclasses
import shutil
import sqlite3
import subprocess
import time
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import httpx
import pycountry

import tenantry
from staging import Ledger, Server, Site, Wrong, expect, for_each, kill_in_the_middle, main, suspended
from tenantry.platform import Platform

HERE = Path(__file__).parent
BAD_ROWS = (["www", "World Wide Web"], ["Not a slug!", "Nowhere"], ["", "Åland Islands"])
"""A reserved slug, an invalid one, and a country that is there already: their slug and name."""

SUSPENDED, DESTROYED = "Åland Islands", "Côte d'Ivoire"
PASSWORDS = 25
"""Tenants whose editor signs in with a password; each costs about 0.1 s of processor time, on purpose."""

LIMIT = 170
"""Seconds after which the demo gives up."""


# --- the countries ------------------------------------------------------------------------------------------------


@dataclass
class Country:
    """One tenant: what ISO says of it, and what the platform made of that."""

    code: str
    name: str
    flag: str
    subdivisions: list[tuple[str, str, str]]
    slug: str = ""
    cookie: str = ""

    @property
    def text(self) -> str:
        """What the demo writes on its page."""
        return f"{self.name} & its {len(self.subdivisions)} subdivisions, as ISO 3166-2 <{self.code}> has them."

    @property
    def page(self) -> dict[str, Any]:
        return {"title": self.name, "text": self.text, "subdivisions": self.subdivisions}

    def shown_in(self, html: str) -> bool:
        """Whether a page shows this country: its own text, and its own subdivisions in order, and no others."""
        lines = [line for line in html.splitlines() if line.startswith("<li>")]
        own = [f"<li>{escape(name)} <small>{escape(kind)}, {code}</small>" for code, name, kind in self.subdivisions]
        return escape(self.text) in html and lines == own


def countries() -> list[Country]:
    """The countries of ISO 3166-1 with their subdivisions, in the order of their codes."""
    inside: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for part in sorted(pycountry.subdivisions, key=lambda part: part.code):
        inside[part.country_code].append((part.code, part.name, part.type))
    return [Country(c.alpha_2, c.name, c.flag, inside[c.alpha_2]) for c in pycountry.countries]


def write_csv(path: Path, all_of_them: Sequence[Country]) -> list[int]:
    """The list to import, with bad rows in it; returns the lines they stand on."""
    rows = [["", country.name, country.code, country.flag] for country in all_of_them]
    places = [100, 200, len(rows)]
    for place, bad in zip(reversed(places), reversed(BAD_ROWS), strict=True):
        rows.insert(place, [*bad, "", ""])
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["slug", "name", "code", "flag"], *rows])
    return [place + offset + 2 for offset, place in enumerate(places)]  # lines count from 1, the heading is line 1


def ask(client: httpx.AsyncClient, country: Country, method: str, path: str, **more: Any) -> Awaitable[httpx.Response]:
    """One request to a country, by its own Host."""
    headers = {"host": f"{country.slug}.localhost", "accept": "application/json", **more.pop("headers", {})}
    return client.request(method, path, headers=headers, **more)


async def session_for(runtime: tenantry.Runtime, country: Country) -> None:
    """Give the first editor of a country a session, in another process than those that serve."""
    with tenantry.tenant_context(runtime.environment(country.slug)):
        (editor,) = await runtime.accounts.list()
        country.cookie = f"{runtime.sessions.name()}={await runtime.accounts.begin(editor)}"


# --- the story ----------------------------------------------------------------------------------------------------


class Story:
    """What the demo does, step by step."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self.site = site
        self.ledger = ledger
        self.all = countries()
        self.servers: list[Server] = []
        self.workers: list[subprocess.Popen[bytes]] = []

    async def tell(self) -> None:
        """Everything, in order."""
        await self.set_up()
        async with Platform.open(self.site.root / "tenantry.toml") as platform:
            await self.start()
            await self.bring_in()
            await self.sign_in(platform)
            await self.write_and_read()
            await self.cross()
            await self.migrate(platform)
            await self.read_again()
            await self.suspend(platform)
            await self.destroy(platform)
            await self.prove(platform)

    async def set_up(self) -> None:
        with self.ledger.step("write a platform") as row:
            await self.site.command("init", str(self.site.root), "--name", "Countries")
            self.site.lay_out(HERE, "tenantry.toml", "countries.py", "schema", "templates")
            await self.site.command("config", "check")
            row.result = "its key, its tenantry.toml, checked"

    async def start(self) -> None:
        with self.ledger.step("start 2 × serve, 2 × worker", 4) as row:
            self.workers = [self.site.start("worker") for _ in range(2)]
            self.servers = await asyncio.gather(self.site.serve(), self.site.serve())
            row.result = "both servers answer"

    async def bring_in(self) -> None:
        lines = write_csv(self.site.root / "countries.csv", self.all)
        with self.ledger.step("import tenants", len(self.all)) as row:
            told = await self.site.command("tenant", "import", "countries.csv", status=1)
            named = [line for line in lines if f"line {line}: " in told]
            expect(named == lines, f"not all bad rows were named: {told[-400:]}")
            expect(f"{len(self.all)} tenants made" in told or "3 of" in told, told[-400:])
            row.result = f"{len(lines)} bad rows named by their lines ({', '.join(map(str, lines))})"

    async def sign_in(self, platform: Platform) -> None:
        """Some sign in with their first password, shown once; for the others a session is made as a sign-on makes it.

        A password costs an Argon2id, which is slow on purpose.
        """
        slugs = {row.name: row.slug for row in await platform.tenants.list(limit=1000)}
        expect(len(slugs) == len(self.all), f"{len(slugs)} tenants are there instead of {len(self.all)}")
        for country in self.all:
            country.slug = slugs[country.name]
        with_password, others = self.all[:PASSWORDS], self.all[PASSWORDS:]
        with self.ledger.step("sign in with the first password", len(with_password)) as row:
            async with self.servers[0].client() as client:

                async def one(country: Country) -> None:
                    found = await platform.tenants.credentials(country.slug)
                    expect(found is not None, f"{country.slug} has no first password")
                    answer = await ask(client, country, "POST", "/sign-in", json=dataclasses.asdict(found))
                    expect(answer.status_code == 204, f"{country.slug}: sign-in answered {answer.status_code}")
                    country.cookie = answer.headers["set-cookie"].partition(";")[0]

                await for_each(with_password, one)
            row.result = "over HTTP (Argon2id)"
        with self.ledger.step("make sessions through the library", len(others)) as row:
            runtime = tenantry.connect(platform.config)
            await runtime.start()
            try:
                await for_each(others, partial(session_for, runtime))
            finally:
                await runtime.stop()
            row.result = "as an application's single sign-on does"

    async def write_and_read(self) -> None:
        total = sum(len(country.subdivisions) for country in self.all)
        with self.ledger.step("write a page in each", len(self.all)) as row:
            async with self.servers[0].client() as client:

                async def write(country: Country) -> None:
                    answer = await self._put(client, country, country.cookie)
                    expect(answer.status_code == 204, f"{country.slug}: writing answered {answer.status_code}")

                await for_each(self.all, write)
            row.result = f"by its own Host, {total:,} subdivisions in all"
        await self._read("read each page", "at the other server: its own text and subdivisions, no others")

    def _put(self, client: httpx.AsyncClient, country: Country, cookie: str) -> Awaitable[httpx.Response]:
        return ask(client, country, "PUT", "/", json=country.page, headers={"cookie": cookie})

    async def _read(self, what: str, result: str) -> None:
        with self.ledger.step(what, len(self.all)) as row:
            async with self.servers[1].client() as client:

                async def read(country: Country) -> None:
                    answer = await ask(client, country, "GET", "/")
                    expect(answer.status_code == 200, f"{country.slug}: reading answered {answer.status_code}")
                    expect(country.shown_in(answer.text), f"{country.slug}: the page is not its own")

                await for_each(self.all, read)
            row.result = result

    async def cross(self) -> None:
        """Every session is tried at the next tenant."""
        with self.ledger.step("use each session at another tenant", len(self.all)) as row:
            neighbours = {
                country.code: other for country, other in zip(self.all, self.all[1:] + self.all[:1], strict=True)
            }
            async with self.servers[1].client() as client:

                async def write_there(country: Country) -> None:
                    answer = await self._put(client, neighbours[country.code], country.cookie)
                    refused = answer.status_code == 401 and answer.json().get("code") == "session.foreign"
                    expect(refused, f"{country.slug}'s session got {answer.status_code} at the next tenant")

                await for_each(self.all, write_there)
            row.result = "all refused: 401 session.foreign"

    async def migrate(self, platform: Platform) -> None:
        """Migrate everything, with one worker killed while it is at it."""
        for file in (HERE / "later").iterdir():
            shutil.copy(file, self.site.root / "schema")
        with self.ledger.step("migrate with a canary, kill -9 in the middle", len(self.all)) as row:
            waves = ("--canary", "5", "--waves", "10%,30%,60%,100%")
            run = asyncio.create_task(self.site.command("migrate", "run", *waves))
            try:
                done, start = await kill_in_the_middle(platform, self.workers, run, len(self.all))
                await run
            finally:
                run.cancel()
            took = time.perf_counter() - start
            row.result = f"killed after {done}; the other worker went on, ended {took:.1f} s later"
        with self.ledger.step("look at each database", len(self.all)) as row:
            environments = {e.tenant.slug: e for e in (await platform.registry.feed.load()).environments}
            for country in self.all:
                self._is_migrated(self.site.data / environments[country.slug].home / "db.sqlite", country)
            live = [o for o in await platform.operations.list(limit=1000) if o.state.live]
            expect(not live, f"{len(live)} operations did not end")
            row.result = "migrated once, counted right; every operation ended"

    def _is_migrated(self, file: Path, country: Country) -> None:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            versions = [version for (version,) in connection.execute("SELECT version FROM tenantry_schema")]
            (counted,) = connection.execute("SELECT subdivisions FROM page").fetchone()
        expect(versions == ["0001_start", "0002_counts"], f"{country.slug} is at {versions}")
        expect(counted == len(country.subdivisions), f"{country.slug} counted {counted}")

    async def read_again(self) -> None:
        """Roll the new release out: until then the old processes refuse a schema they do not know."""
        with self.ledger.step("restart the servers for the new schema", 2) as row:
            old = self.servers
            self.servers = await asyncio.gather(self.site.serve(), self.site.serve())
            self.site.stop([server.process for server in old])
            row.result = "new ones answer, old ones ended"
        await self._read("read each page again", "as it was before the migration")

    async def suspend(self, platform: Platform) -> None:
        country = next(c for c in self.all if c.name == SUSPENDED)
        with self.ledger.step(f"suspend {country.slug}", each=False) as row:
            slowest = await suspended(
                self.site, platform, country.slug, self.servers, lambda client: ask(client, country, "GET", "/")
            )
            row.result = f"refused with 403 by all processes {1000 * slowest:.0f} ms after it was entered"

    async def destroy(self, platform: Platform) -> None:
        country = next(c for c in self.all if c.name == DESTROYED)
        details = await platform.tenants.show(country.slug)
        with self.ledger.step(f"destroy {country.slug}", each=False) as row:
            await self.site.command("tenant", "destroy", country.slug, "--yes")
            told = await self.site.command("tenant", "check", country.slug)
            expect("Nothing is left" in told, told)
            async with self.servers[0].client() as client:
                answer = await ask(client, country, "GET", "/")
            expect(answer.status_code == 404, f"its address answers {answer.status_code}")
            await self._search(country, details)
            row.result = "no row, file, key or byte of its data is left; its address answers 404"

    async def _search(self, country: Country, details: Any) -> None:
        """Search all names and contents. The audit log and the list of operations alone still tell its name and id."""
        identity, own, key = details.tenant.id, country.subdivisions[0][1], details.environments[0].sealed_key
        names = (country.slug, identity[-8:])
        data = {
            "text": country.text.encode(),
            "subdivision": own.encode(),
            "key": key,
            "packed key": base64.b64encode(key),
        }
        named = {"id": identity.encode(), "slug": country.slug.encode()}
        left: list[str] = []
        for _ in range(100):  # the servers write their snapshot within a second
            left = []
            for path in self.site.data.rglob("*"):
                left += [f"the name {path}" for name in names if name in path.name]
                with contextlib.suppress(FileNotFoundError):  # a snapshot takes its name from a temporary one
                    content = path.read_bytes() if path.is_file() else b""
                    sought = data if path.name.startswith("control") else data | named
                    left += [f"its {what} in {path}" for what, value in sought.items() if value in content]
            if not left:
                return
            await asyncio.sleep(0.05)
        raise Wrong("left: " + "; ".join(left))

    async def prove(self, platform: Platform) -> None:
        with self.ledger.step("verify the audit log") as row:
            await self.site.command("audit", "verify")
            row.count = (await platform.audit.verify()).entries
            row.result = "every entry is as it was written"


if __name__ == "__main__":
    main("249 countries, each a tenant of its own", Story, LIMIT)
