"""What `make demo PLATFORM=planner` runs: 120 laboratories, each with a PostgreSQL database, told in one table.

PostgreSQL is the one that Tenantry brings itself: nothing is installed, nobody is root, and nothing is left behind.
The laboratories are named after universities. Exit status 1 where anything is not as it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import shutil
import subprocess
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy.engine import make_url

import tenantry
from staging import Ledger, Server, Site, Wrong, expect, for_each, kill_in_the_middle, main, suspended
from tenantry import embedded
from tenantry.model import Login
from tenantry.platform import Platform

HERE = Path(__file__).parent
BAD_ROWS = (["api", "Application Programmers"], ["Not a slug!", "Nowhere"], ["", "Universität Basel"])
"""A reserved slug, an invalid one, and a laboratory that is there already: their slug and name."""

SUSPENDED, DESTROYED, ROTATED = "Uniwersytet Łódzki", "Universitatea din București", "Universidade de Évora"
PASSWORDS = 10
"""Laboratories whose first admin signs in with the password; each costs about 0.1 s of processor time, on purpose."""

YEAR = date.today().year
LIMIT = 400
"""Seconds after which the demo gives up."""


@dataclass
class Lab:
    """One tenant, and what the demo wrote there."""

    name: str
    city: str
    slug: str = ""
    proof: dict[str, str] = field(default_factory=dict)  # the header by which its admin is known
    ids: dict[str, int] = field(default_factory=dict)

    @property
    def project(self) -> str:
        return f"Clocks of {self.city}"

    def bookings(self, plan: dict[str, Any]) -> list[tuple[str, str, int]]:
        """Line, project and per cent of each booking in a plan."""
        lines = [line for site in plan["sites"] for line in site["lines"]]
        return [(line["name"], bar["project"], bar["percent"]) for line in lines for bar in line["bookings"]]


def laboratories() -> list[Lab]:
    """Those of the list."""
    with (HERE / "labs" / "universities.csv").open(encoding="utf-8", newline="") as file:
        return [Lab(row["name"], row["city"]) for row in csv.DictReader(file)]


def write_csv(path: Path, labs: list[Lab]) -> list[int]:
    """The list to import, with bad rows in it; returns the lines they stand on."""
    rows = [["", lab.name, lab.city] for lab in labs]
    places = (30, 60, 90)
    for place, bad in zip(reversed(places), BAD_ROWS, strict=True):
        rows.insert(place, [*bad, ""])
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["slug", "name", "city"], *rows])
    return [place + offset + 2 for offset, place in enumerate(places)]  # lines count from 1, the heading is line 1


def ask(
    client: httpx.AsyncClient, lab: Lab, method: str, path: str, by: Lab | None = None, **more: Any
) -> Awaitable[httpx.Response]:
    """One request to a laboratory, by path; `by` whose admin, unless it is its own."""
    headers = {"host": "localhost", **(by or lab).proof}
    return client.request(method, f"/t/{lab.slug}{path}", headers=headers, **more)


async def post(client: httpx.AsyncClient, lab: Lab, path: str, **values: Any) -> int:
    """Enter one thing through the API; its id."""
    answer = await ask(client, lab, "POST", f"/api/{path}", json=values)
    expect(answer.status_code == 201, f"{lab.slug}: {path} answered {answer.status_code} {answer.text[:200]}")
    return int(answer.json()["id"])


class Story:
    """What the demo does, step by step."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self.site = site
        self.ledger = ledger
        self.all = laboratories()
        self.servers: list[Server] = []
        self.workers: list[subprocess.Popen[bytes]] = []

    async def tell(self) -> None:
        """Everything, in order."""
        await self.set_up()
        try:
            async with contextlib.AsyncExitStack() as stack:
                platform = await self.open(stack)
                await self.start()
                await self.bring_in()
                await self.sign_in(platform)
                await self.write_and_read()
                await self.refuse_too_much()
                await self.cross()
                await self.attack(platform)
                await self.migrate(platform)
                await self.rotate(platform)
                await self.suspend(platform)
                await self.destroy(platform)
                await self.prove(platform)
        finally:
            self.site.stop()
        await self.end()

    async def set_up(self) -> None:
        with self.ledger.step("write a platform") as row:
            await self.site.command("init", str(self.site.root), "--name", "Planner")
            self.site.lay_out(HERE, "tenantry.toml", "planner", "migrations", "seed.sql")
            self.site.environment["TENANTRY_RUNTIME__TOKEN"] = f"{LIMIT}s"  # no token is refreshed here
            await self.site.command("config", "check")
            row.result = "its key, its tenantry.toml, checked"

    async def open(self, stack: contextlib.AsyncExitStack) -> Platform:
        """Open the platform: the first to need PostgreSQL starts it."""
        with self.ledger.step("start the PostgreSQL it brings") as row:
            platform = await stack.enter_async_context(Platform.open(self.site.root / "tenantry.toml"))
            query = "SELECT current_setting('server_version'), rolsuper FROM pg_roles WHERE rolname = current_user"
            version, superuser = await self._admin(query)
            expect(not superuser, "Tenantry is a superuser")
            row.result = f"PostgreSQL {version} on 127.0.0.1, with a role that is no superuser"
        return platform

    async def _admin(self, query: str, *values: Any) -> tuple[Any, ...]:
        """The one row of a query, asked by the role that Tenantry has."""
        async with await psycopg.AsyncConnection.connect(embedded.admin_url(self.site.data)) as connection:
            found = await (await connection.execute(query, values)).fetchone()  # type: ignore[call-overload]
        assert found is not None
        return tuple(found)

    async def start(self) -> None:
        with self.ledger.step("start serve, 2 × worker", 3) as row:
            self.workers = [self.site.start("worker") for _ in range(2)]
            self.servers = [await self.site.serve()]
            row.result = "it answers"

    async def bring_in(self) -> None:
        lines = write_csv(self.site.root / "laboratories.csv", self.all)
        with self.ledger.step("import tenants", len(self.all)) as row:
            told = await self.site.command("tenant", "import", "laboratories.csv", status=1)
            named = [line for line in lines if f"line {line}: " in told]
            expect(named == lines, f"not all bad rows were named: {told[-400:]}")
            (count,) = await self._admin("SELECT count(*) FROM pg_database WHERE starts_with(datname, 'milestone_')")
            expect(count == len(self.all), f"{count} databases instead of {len(self.all)}: {told[-400:]}")
            row.result = f"a database and a role each; bad rows named by their lines ({', '.join(map(str, lines))})"

    async def sign_in(self, platform: Platform) -> None:
        """Some sign in with their first password; for the others a session is made as a single sign-on makes it."""
        slugs = {row.name: row.slug for row in await platform.tenants.list(limit=1000)}
        for lab in self.all:
            lab.slug = slugs[lab.name]
        with self.ledger.step("sign in with the first password", PASSWORDS) as row:
            async with self.servers[0].client() as client:

                async def one(lab: Lab) -> None:
                    found = await platform.tenants.credentials(lab.slug)
                    assert found is not None
                    sent = {"grant_type": "password", "username": found.login, "password": found.password}
                    answer = await ask(client, lab, "POST", "/.tenantry/token", data=sent)
                    expect(
                        answer.status_code == 200,
                        f"{lab.slug}: sign-in answered {answer.status_code} {answer.text[:300]}",
                    )
                    lab.proof = {"authorization": f"Bearer {answer.json()['access_token']}"}

                await for_each(self.all[:PASSWORDS], one)
            row.result = "for a token, over HTTP, by path"
        others = self.all[PASSWORDS:]
        with self.ledger.step("make sessions through the library", len(others)) as row:
            runtime = tenantry.connect(platform.config)
            await runtime.start()

            async def session(lab: Lab) -> None:
                with tenantry.tenant_context(runtime.environment(lab.slug)):
                    (admin,) = await runtime.accounts.list()
                    lab.proof = {"cookie": f"{runtime.sessions.name()}={await runtime.accounts.begin(admin)}"}

            try:
                await for_each(others, session)
            finally:
                await runtime.stop()
            row.result = "as an application's single sign-on does"

    async def write_and_read(self) -> None:
        with self.ledger.step("enter a person, a project, a booking", 3 * len(self.all)) as row:
            async with self.servers[0].client() as client:
                await for_each(self.all, lambda lab: self._enter(client, lab))
            row.result = "POST /t/{slug}/api/…"
        await self._read("read each plan", "its own booking, and no other")

    async def _enter(self, client: httpx.AsyncClient, lab: Lab) -> None:
        lab.ids["staff"] = await post(client, lab, "staff", name=f"Ada of {lab.city}", site_id=1, percent=80)
        dates = {"starts": f"{YEAR}-03-02", "ends": f"{YEAR}-06-26"}
        lab.ids["project"] = await post(client, lab, "projects", name=lab.project, **dates)
        who = {"project_id": lab.ids["project"], "staff_id": lab.ids["staff"]}
        lab.ids["booking"] = await post(client, lab, "bookings", **who, **dates, percent=60)

    async def _read(self, what: str, result: str, without: frozenset[str] = frozenset()) -> None:
        labs = [lab for lab in self.all if lab.name not in without]
        with self.ledger.step(what, len(labs)) as row:
            async with self.servers[0].client() as client:

                async def read(lab: Lab) -> None:
                    answer = await ask(client, lab, "GET", f"/api/plan?year={YEAR}")
                    expect(answer.status_code == 200, f"{lab.slug}: reading answered {answer.status_code}")
                    found = lab.bookings(answer.json())
                    expect(found == [(f"Ada of {lab.city}", lab.project, 60)], f"{lab.slug} shows {found}")

                await for_each(labs, read)
            row.result = result

    async def refuse_too_much(self) -> None:
        """The database itself keeps anybody from being booked for more than a day holds."""
        with self.ledger.step("book each person once more", len(self.all)) as row:
            async with self.servers[0].client() as client:

                async def one(lab: Lab) -> None:
                    values = {"project_id": lab.ids["project"], "staff_id": lab.ids["staff"], "percent": 50}
                    days = {"starts": f"{YEAR}-06-01", "ends": f"{YEAR}-07-31"}
                    answer = await ask(client, lab, "POST", "/api/bookings", json=values | days)
                    told = answer.json().get("error", "")
                    expect(answer.status_code == 409 and "110 percent" in told, f"{lab.slug} answered {answer.text}")

                await for_each(self.all, one)
            row.result = "all refused: 409, 'with this booking it is 110 percent'"

    async def cross(self) -> None:
        """Every session is tried at the next tenant."""
        neighbours = dict(zip((lab.slug for lab in self.all), self.all[1:] + self.all[:1], strict=True))
        with self.ledger.step("use each token and session at another tenant", len(self.all)) as row:
            async with self.servers[0].client() as client:

                async def one(lab: Lab) -> None:
                    answer = await ask(client, neighbours[lab.slug], "GET", "/api/bookings", by=lab)
                    expect(answer.status_code == 401, f"{lab.slug}'s admin got {answer.status_code} next door")

                await for_each(self.all, one)
            row.result = "all refused: 401"

    # --- the server itself ----------------------------------------------------------------------------------------

    async def attack(self, platform: Platform) -> None:
        """As one laboratory's role, try to get into another's database."""
        mine, other = self.all[0], self.all[1]
        with self.ledger.step(f"as {mine.slug}'s role, reach {other.slug}'s database", 3, each=False) as row:
            own, login = await self._place(platform, mine)
            foreign, their = await self._place(platform, other)
            told = [
                await self._refusal(login, foreign, "SELECT 1"),
                await self._refusal(login, own, f'SET ROLE "{their.user}"'),
                await self._refusal(login, "postgres", "CREATE DATABASE mine"),
            ]
            row.result = f"psql: {told[0]}"
            self.ledger.console.print(*(f"         {line}" for line in told), sep="\n", markup=False, soft_wrap=True)

    async def _place(self, platform: Platform, lab: Lab) -> tuple[str, Login]:
        """A laboratory's database and login, as the registry has them."""
        details = await platform.tenants.show(lab.slug)
        async with platform.registry.read() as tx:
            (environment,) = await platform.tools.environments(tx, details.tenant.id)
        place = environment.place("db")
        assert place is not None
        return place.location, environment.logins["db"]

    async def _refusal(self, login: Login, database: str, statement: str) -> str:
        url = make_url(embedded.admin_url(self.site.data)).set(
            username=login.user, password=login.password, database=database
        )
        try:
            connection = await psycopg.AsyncConnection.connect(url.render_as_string(False), autocommit=True)
            async with connection:
                await connection.execute(statement)  # type: ignore[call-overload]
        except psycopg.Error as error:
            lines = str(error).strip().splitlines()
            return next((line for line in lines if "denied" in line), lines[0]).strip().rpartition("FATAL:")[2].strip()
        raise Wrong(f"{login.user} was allowed: {statement} in {database}")

    async def migrate(self, platform: Platform) -> None:
        """Migrate everything, with one worker killed while it is at it."""
        for file in (HERE / "later").iterdir():
            shutil.copy(file, self.site.root / "migrations")
        with self.ledger.step("migrate with a canary, kill -9 in the middle", len(self.all)) as row:
            waves = ("--canary", "5", "--waves", "10%,30%,60%,100%")
            run = asyncio.create_task(self.site.command("migrate", "run", *waves))
            try:
                done, start = await kill_in_the_middle(platform, self.workers, run, len(self.all))
                await run
            finally:
                run.cancel()
            row.result = f"killed after {done}; the other worker ended it {time.perf_counter() - start:.1f} s later"
        with self.ledger.step("look at each database", len(self.all)) as row:
            await for_each(self.all, lambda lab: self._is_migrated(platform, lab))
            live = [found for found in await platform.operations.list(limit=1000) if found.state.live]
            expect(not live, f"{len(live)} operations did not end")
            row.result = "migrated once, counted right; every operation ended"
        with self.ledger.step("restart the server for the new schema", 1) as row:
            old = self.servers
            self.servers = [await self.site.serve()]
            self.site.stop([server.process for server in old])
            row.result = "the new one answers, the old one ended"
        await self._read("read each plan again", "as it was before the migration")

    async def _is_migrated(self, platform: Platform, lab: Lab) -> None:
        database, login = await self._place(platform, lab)
        url = make_url(embedded.admin_url(self.site.data)).set(
            username=login.user, password=login.password, database=database
        )
        async with await psycopg.AsyncConnection.connect(url.render_as_string(False)) as connection:
            row = await (await connection.execute("SELECT effort FROM project")).fetchone()
        days = (date(YEAR, 3, 2) + timedelta(days=number) for number in range(117))
        wanted = 0.6 * sum(day.isoweekday() < 6 for day in days)
        expect(row is not None and abs(float(row[0]) - wanted) < 0.01, f"{lab.slug} counted {row}, not {wanted}")

    async def rotate(self, platform: Platform) -> None:
        """Give one laboratory another password while it is read without a pause."""
        rotated = next(lab for lab in self.all if lab.name == ROTATED)
        _, before = await self._place(platform, rotated)
        with self.ledger.step(f"rotate the login of {rotated.slug} under load") as row:
            async with self.servers[0].client() as client:
                ending = asyncio.Event()
                load = [asyncio.create_task(self._load(client, rotated, ending)) for _ in range(4)]
                try:
                    await self.site.command("tenant", "rotate", rotated.slug)
                    await asyncio.sleep(0.3)  # some more with the new login
                finally:
                    ending.set()
                    row.count = sum(await asyncio.gather(*load))
            database, after = await self._place(platform, rotated)
            expect(after.password != before.password, "the password is the old one")
            told = await self._refusal(before, database, "SELECT 1")
            row.result = (
                f"{row.count} requests meanwhile, none failed; the old login: {told.partition(': ')[2] or told}"
            )

    async def _load(self, client: httpx.AsyncClient, lab: Lab, ending: asyncio.Event) -> int:
        count = 0
        while not ending.is_set():
            answer = await ask(client, lab, "GET", "/api/bookings")
            expect(answer.status_code == 200, f"{lab.slug} answered {answer.status_code} while its login was rotated")
            count += 1
        return count

    async def suspend(self, platform: Platform) -> None:
        lab = next(lab for lab in self.all if lab.name == SUSPENDED)
        with self.ledger.step(f"suspend {lab.slug}", each=False) as row:
            slowest = await suspended(
                self.site, platform, lab.slug, self.servers, lambda client: ask(client, lab, "GET", "/api/bookings")
            )
            row.result = f"refused with 403 {1000 * slowest:.0f} ms after it was entered"

    async def destroy(self, platform: Platform) -> None:
        lab = next(lab for lab in self.all if lab.name == DESTROYED)
        database, login = await self._place(platform, lab)
        with self.ledger.step(f"destroy {lab.slug}", each=False) as row:
            await self.site.command("tenant", "destroy", lab.slug, "--yes")
            await self._is_gone(database, login.user)
            async with self.servers[0].client() as client:
                answer = await ask(client, lab, "GET", "/api/bookings")
            expect(answer.status_code == 404, f"its address answers {answer.status_code}")
            told = await self.site.command("tenant", "check", lab.slug)
            expect("Nothing is left" in told, told)
            row.result = f"no database {database}, no role {login.user}; its address answers 404"
        await self._read("read each other plan", "as it was", frozenset({SUSPENDED, DESTROYED}))

    async def _is_gone(self, database: str, user: str) -> None:
        """A worker drops databases aside: it is gone soon."""
        query = (
            "SELECT (SELECT count(*) FROM pg_database WHERE datname = %s), "
            "(SELECT count(*) FROM pg_roles WHERE rolname IN (%s, %s))"
        )
        until = time.monotonic() + 20
        while (left := await self._admin(query, database, user, f"{user}_b")) != (0, 0):
            expect(time.monotonic() < until, f"{left[0]} databases and {left[1]} roles of it are left")
            await asyncio.sleep(0.05)

    async def prove(self, platform: Platform) -> None:
        with self.ledger.step("verify the audit log") as row:
            await self.site.command("audit", "verify")
            row.count = (await platform.audit.verify()).entries
            row.result = "every entry is as it was written"

    async def end(self) -> None:
        """When nobody uses it any more, PostgreSQL ends by itself."""
        with self.ledger.step("leave PostgreSQL alone", each=False) as row:
            expect(await self.site.rest(), "PostgreSQL goes on though nobody uses it")
            row.result = "it ended by itself"


if __name__ == "__main__":
    main("120 laboratories, each with a PostgreSQL database of its own", Story, LIMIT)
