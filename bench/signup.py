"""What signing up costs: from the click that confirms it to the first page of the new tenant, its admin signed in.

A client does by real HTTP what the browser does, and waits for nobody: so all the time is that of the servers. The
floor is the same by bare statements, one after another in one process, with nothing kept for when it is killed.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import secrets
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from sqlalchemy.engine import make_url

from bench import postgres
from bench.create import living
from bench.report import Report
from bench.server import DURABLE, servers
from bench.site import Site, site
from tenantry.platform import Platform
from tenantry.platform.signup import Application
from tenantry.registry import journal

import people_world as world  # isort: skip - bench.server tells where it is

ROUNDS = 20
WARM = 3
BOUND = 100.0
"""Milliseconds."""

SPARES = 3

PLATFORM = """
[servers.db]
kind = "postgres"
url = {env = "PG"}
[platform]
control = {env = "CONTROL"}"""
SETTINGS = """
[signup]
open = true
work = 0
per_address = 0
per_domain = 0
trial = "14d"
[runtime]
secure_cookies = false
"""
APPLICATION = """
import tenantry
from sqlalchemy import text

async def app(scope, receive, send):
    assert scope["type"] == "http"
    user = tenantry.require("admin")
    async with tenantry.tenant_session() as session:
        number = await session.scalar(text("SELECT count(*) FROM thing_0"))
    body = f"{tenantry.current_tenant().name}: {user.login} has {number} things".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@dataclass
class Parts:
    """What each part took in each round, in milliseconds."""

    times: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure one."""
        start = time.perf_counter()
        yield
        self.note(name, 1000 * (time.perf_counter() - start))

    def note(self, name: str, milliseconds: float) -> None:
        """Enter one that was measured elsewhere."""
        self.times.setdefault(name, []).append(milliseconds)

    def middle(self, name: str) -> float:
        """The median, without the first rounds."""
        return statistics.median(self.times[name][WARM:])


class Browser:
    """Asks by one connection, and keeps cookies: the least that a client does, since what it costs counts, too."""

    def __init__(self, port: int, host: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"host": host, "accept": "text/html"}
        self._cookies = SimpleCookie()

    def ask(self, method: str, path: str, form: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """An answer's status, its text, and where it leads."""
        headers = {**self._headers, "cookie": "; ".join(f"{one.key}={one.value}" for one in self._cookies.values())}
        if form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, urlencode(form or {}), headers)
        answer = self._connection.getresponse()
        for cookie in answer.headers.get_all("set-cookie", []):
            self._cookies.load(cookie)
        return answer.status, answer.read().decode(), answer.headers.get("location", "")

    def led(self, where: str) -> str:
        """The page that leads into the tenant; where it takes long, steps are shown before."""
        while True:
            _, page, _ = self.ask("GET", where)
            if "sse-connect" not in page:
                return page


@dataclass
class Served:
    """A platform that is served, with a worker, and the mailbox of those who sign up."""

    place: Site
    platform: Platform
    inbox: world.Inbox
    port: int
    pid: int

    def browser(self, host: str) -> Browser:
        """A browser at a host of this platform."""
        return Browser(self.port, host)

    async def link(self, slug: str) -> str:
        """Begin, and look into the mailbox: the path of the link."""
        form = Application(slug, "Ana Ruiz", f"{slug}@example.com", slug.title())
        await self.platform.signups.begin(form, "203.0.113.9")
        (mail,) = [one for one in await self._mails(slug) if one["To"] == form.mail]
        found = re.search(r"/signup/link/\S+", world.text_of(mail))
        assert found
        return found[0]

    async def _mails(self, slug: str) -> list[Any]:
        while not any(one["To"].startswith(f"{slug}@") for one in self.inbox.mails):
            await asyncio.sleep(0.01)
        return self.inbox.mails

    def worked(self) -> float:
        """Milliseconds of processor time that its processes have used so far."""
        ticks = 0
        for pid in self._family(self.pid):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(stat[11]) + int(stat[12])
        return 1000 * ticks / os.sysconf("SC_CLK_TCK")

    def _family(self, pid: int) -> list[int]:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(one for child in children for one in self._family(int(child)))]


async def sign_up(here: Served, parts: Parts, slug: str) -> None:
    """One sign-up, as a browser goes on with it."""
    link = await here.link(slug)
    await asyncio.to_thread(_go_on, here, parts, slug, link)
    await inside_of(here, parts, slug)


def _go_on(here: Served, parts: Parts, slug: str, link: str) -> None:
    browser, inside = here.browser("localhost"), here.browser(f"{slug}.localhost")
    browser.ask("GET", "/signup/nothing")  # connections are there already, as those of a browser
    inside.ask("GET", "/.tenantry/entrance/entrance.css")
    start = time.perf_counter()
    with parts.part("the click: reserved, queued"):
        status, text, where = browser.ask("POST", link)
        assert status == 303, text
    with parts.part("the page that waits for it, and leads into it"):
        page = browser.led(where)
    code = re.search(r'name="code" value="([^"]+)"', page)
    assert code, page
    with parts.part("into it, signed in"):
        status, text, where = inside.ask("POST", "/.tenantry/enter", {"code": code[1]})
        assert status == 303, text
    with parts.part("its first page, where the password is chosen"):
        assert "Choose a password" in inside.ask("GET", where)[1]
    parts.note("all", 1000 * (time.perf_counter() - start))
    with parts.part("after it: the application's first page"):
        text = inside.ask("GET", "/")[1]
        assert text == f"{slug.title()}: {slug}@example.com has 0 things", text


async def inside_of(here: Served, parts: Parts, slug: str) -> None:
    """What the operation says of itself."""
    (operation,) = await here.platform.operations.list(tenant=slug, verb="create")
    details = await here.platform.operations.finish(operation.id)
    assert details.operation.state is journal.State.DONE, details.operation.error
    created, started, ended = operation.created, operation.started, operation.ended
    assert started is not None and ended is not None  # noqa: PT018
    parts.note("of it: waits for the worker", 1000 * (started - created).total_seconds())
    parts.note("of it: made", 1000 * (ended - started).total_seconds())
    for step in details.steps:
        parts.note(f"of it: step {step.name}", 1000 * (step.seconds or 0))


@dataclass
class Kind:
    """Where tenants' databases are, and the platform's own."""

    name: str
    floor: Callable[[int], float]
    warm: Callable[[], bool] = lambda: True  # whether spares are ready


async def rounds(place: Site, kind: Kind) -> tuple[Parts, float]:
    """Sign-ups one after another, in turns with the floor; and the processor time of each."""
    parts, worked, port = Parts(), 0.0, servers.free_port()
    with world.inbox(place.root) as inbox:
        world.mailing(place, inbox, url=f"http://localhost:{port}")  # type: ignore[arg-type]
        with place.process("serve", "--port", str(port)) as process:
            async with place.platform() as platform:
                await living(platform)
                here = Served(place, platform, inbox, port, process.pid)
                for number in range(ROUNDS + WARM):
                    while not await asyncio.to_thread(kind.warm):  # nobody signs up five times a second
                        await asyncio.sleep(0.05)
                    before = here.worked()
                    await sign_up(here, parts, f"one-{number}")
                    worked += here.worked() - before if number >= WARM else 0
                    parts.note("floor", await asyncio.to_thread(kind.floor, number))
                return parts, worked / ROUNDS


# --- the floor ------------------------------------------------------------------------------------------------------

TENANT = "CREATE TABLE tenant (id TEXT PRIMARY KEY, slug TEXT NOT NULL UNIQUE, name TEXT NOT NULL)"
ADMIN = "INSERT INTO tenantry_user (id, login, role, password, created) VALUES ({0}, {0}, 'admin', {0}, {0})"
SESSION = """INSERT INTO tenantry_session (id, user_id, epoch, via, created, proved, seen, expires)
VALUES ({0}, {0}, 0, 'password', 0, 0, 0, 0)"""


def least(control: Any, mark: str, number: int, database: Callable[[str], Any]) -> float:
    """Milliseconds for the least it takes: each statement commits."""
    slug, user = f"floor-{number}", secrets.token_hex(16)
    start = time.perf_counter()
    control.execute(f"INSERT INTO tenant VALUES ({mark}, {mark}, {mark})", (secrets.token_hex(16), slug, slug))
    with closing(database(slug)) as own:
        own.execute(ADMIN.format(mark), (user, "ana@example.com", "", "2026-11-21"))
        own.execute(SESSION.format(mark), (secrets.token_hex(32), user))
        own.execute("SELECT count(*) FROM thing_0").fetchone()
    return 1000 * (time.perf_counter() - start)


def of_files(place: Site) -> Kind:
    """Databases as files."""
    home = place.root / "floor"
    home.mkdir()

    def opened(path: Path) -> sqlite3.Connection:
        made = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("PRAGMA synchronous=FULL")
        return made

    control = opened(home / "control.sqlite")
    control.execute(TENANT)

    def database(slug: str) -> sqlite3.Connection:
        (template,) = (place.data / "templates").glob("*.sqlite")
        (home / slug).mkdir()
        return opened(Path(shutil.copyfile(template, home / slug / "db.sqlite")))

    return Kind("SQLite", lambda number: least(control, "?", number, database))


def of_server(place: Site, server: servers.Postgres) -> Kind:
    """Databases on a PostgreSQL server, the platform's own, too; new ones are spares that are warm."""
    admin = server.administrator()
    control = psycopg.connect(admin, autocommit=True)
    toml = place.config.read_text().replace("[platform]", PLATFORM)
    toml = toml.replace('kind = "sqlite",', f'kind = "postgres", spares = {SPARES},')
    place.config.write_text(toml)
    (place.root / "schema/0001_start.sql").write_text(
        "".join(postgres.TABLE.format(number=number) for number in range(postgres.TABLES))
    )
    control.execute("CREATE DATABASE control")
    with (place.root / ".env").open("a") as env:
        env.write(f"PG='{admin}'\nCONTROL='{make_url(admin).set(database='control').render_as_string(False)}'\n")
    bare = psycopg.connect(server.url(), autocommit=True)
    bare.execute(TENANT)

    def named(pattern: str) -> list[str]:
        return [row[0] for row in control.execute("SELECT datname FROM pg_database WHERE datname ~ %s", [pattern])]

    def database(slug: str) -> psycopg.Connection[Any]:
        (template,) = named(r"^tenantry_t_[0-9a-f]+_[0-9a-f]{12}$")
        postgres.floor(control, template, slug)
        return psycopg.connect(server.url(slug), autocommit=True)

    return Kind(
        "PostgreSQL",
        lambda number: least(bare, "%s", number, database),
        lambda: len(named(r"_s[0-9a-f]{8}$")) >= SPARES,
    )


# --- all of it ------------------------------------------------------------------------------------------------------


def measure(report: Report, kind: Callable[[Site], Kind]) -> None:
    """Sign-ups on one kind of database."""
    with site() as place:
        (place.root / "answer.py").write_text(APPLICATION)
        place.config.write_text(place.config.read_text() + SETTINGS)
        where = kind(place)
        parts, worked = asyncio.run(rounds(place, where))
    whole, bare = parts.middle("all"), parts.middle("floor")
    for name in parts.times:
        if name not in ("all", "floor"):
            report.add(f"{where.name}: {name}", parts.middle(name), "ms")
    report.add(f"{where.name}: the bare statements", bare, "ms")
    report.add(f"{where.name}: processor time of the platform's processes", worked, "ms")
    pairs = zip(parts.times["all"][WARM:], parts.times["floor"][WARM:], strict=True)
    ratio = statistics.median(mine / other for mine, other in pairs)
    named = f"{where.name}: from the click to the first page"
    report.add(named, whole, "ms", "the bare statements", ratio, f"< {BOUND:.0f}", whole < BOUND)


def main() -> int:
    """Run all and report."""
    report = Report("signup")
    measure(report, of_files)
    with servers.postgres(**DURABLE) as server:
        measure(report, lambda place: of_server(place, server))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
