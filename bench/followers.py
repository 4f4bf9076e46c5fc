"""What browsers that follow one operation cost a server: 1 and 200 of them, over real sockets, and 1,000 and more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.registry import places
from bench.report import Report
from bench.site import Site
from tenantry.identity.principal import SCOPES, AdminRole
from tenantry.identity.signin import Client, SignIn
from tenantry.model import new_id
from tenantry.platform import Platform
from tenantry.registry import journal, people
from tenantry.registry.journal import NewItem, State, StepState
from tenantry.web.hub import FOLLOWERS

CHANGES: Final = 60
EVERY: Final = 0.25
"""Seconds between two changes, as a migration with 50 tenants in a batch records them."""

ITEMS: Final = 10_000
BATCH: Final = ITEMS // CHANGES
FAILS: Final = 20  # of each batch is one that failed

DONE: Final = re.compile(rb'(?:<progress max="\d+" value="|"done":)(\d+)')
REQUEST: Final = "GET {path} HTTP/1.1\r\nHost: localhost\r\n{who}\r\n\r\n"
PORTAL: Final = REQUEST.format(path="/admin/operations/{operation}/steps", who="Cookie: tenantry_admin={who}")
API: Final = REQUEST.format(path="/api/operations/{operation}/events", who="Authorization: Bearer {who}")

TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A process of `tenantry serve`, as the kernel counts it."""

    pid: int
    port: int

    @property
    def cpu(self) -> float:
        """Seconds it computed so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def memory(self) -> float:
        """MiB it holds."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    @property
    def sockets(self) -> int:
        """Sockets it has open."""
        links = [file.readlink() for file in Path(f"/proc/{self.pid}/fd").iterdir() if file.is_symlink()]
        return sum(str(link).startswith("socket:") for link in links)


@dataclass
class Follower(asyncio.Protocol):
    """A browser that follows."""

    request: bytes
    seen: dict[int, float] = field(default_factory=dict)  # when it heard of so many that are done
    status: int = 0
    over: bool = False
    _rest: bytes = b""
    _transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Ask."""
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Note what came, and when."""
        moment = time.perf_counter()
        text = self._rest + data
        if not self.status and b" " in text:
            self.status = int(text.split(b" ", 2)[1])
        for found in DONE.finditer(text):
            self.seen.setdefault(int(found[1]), moment)
        self.over = self.over or b"event: over" in text
        self._rest = text[-60:]

    def close(self) -> None:
        """Go away, as a closed tab does."""
        self._transport.abort()


@contextlib.asynccontextmanager
async def serving(place: Site) -> AsyncIterator[Server]:
    """A real server, that has answered once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with place.process("serve", "--no-worker", "--port", str(port)) as process:
        await asyncio.to_thread(page, port)
        yield Server(process.pid, port)


def page(port: int, path: str = "/admin/sign-in") -> float:
    """Milliseconds until a page is there, once the server listens."""
    for _ in range(1200):
        start = time.perf_counter()
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"host": "localhost"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
                return 1000 * (time.perf_counter() - start)
        except urllib.error.URLError:
            time.sleep(0.05)
    raise AssertionError("it never answered")


async def begun(platform: Platform) -> str:
    """A migration of the fleet that runs."""
    operation_id = new_id()
    items = [NewItem(1, f"tenant-{n}", {"tenant": new_id()}) for n in range(ITEMS)]
    async with platform.registry.write() as tx:
        await journal.submit(tx, operation_id, "migrate", [("template", ""), ("wave 1", "")], items=items)
        await journal.set_state(tx, operation_id, State.RUNNING)
    return operation_id


async def worked(platform: Platform, operation_id: str) -> dict[int, float]:
    """Record batch after batch as a worker does: how many were done then, and when that was committed."""
    told, done = {}, 0
    error = {"code": "x", "message": "duplicate key value violates a unique constraint", "remedy": "Mend the rows."}
    for number in range(CHANGES):
        positions = range(number * BATCH, (number + 1) * BATCH)
        rows: list[dict[str, Any]] = [
            {"position": at, "state": StepState.DONE.value, "seconds": 0.1} for at in positions
        ]
        if number % FAILS == 0:
            rows[0] |= {"state": StepState.FAILED.value, "error": error}
        failed = int(number % FAILS == 0)
        done += BATCH - failed
        async with platform.registry.write() as tx:
            await journal.set_items(tx, operation_id, rows)
            await journal.progress(tx, operation_id, done=BATCH - failed, failed=failed)
        told[done] = time.perf_counter()
        await asyncio.sleep(EVERY)
    return told


async def ended(platform: Platform, operation_id: str) -> None:
    """Let it be over."""
    async with platform.registry.write() as tx:
        await journal.set_state(tx, operation_id, State.DONE)


async def signed_in(platform: Platform) -> str:
    """The cookie of a superadmin who is signed in."""
    await platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)
    async with platform.registry.read() as tx:
        row = await people.find(tx, "root@example.org")
    return (await SignIn(platform.registry).begin(row, Client("127.0.0.1"))).session


async def follow(server: Server, number: int, request: str) -> list[Follower]:
    """So many, that have heard of the operation once or were refused."""
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(number):
        found.append((await loop.create_connection(lambda: Follower(request.encode()), "127.0.0.1", server.port))[1])
    for _ in range(6000):
        if all(one.seen or one.status >= 400 for one in found):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("some never heard anything")


def delays(followers: Sequence[Follower], told: dict[int, float]) -> list[float]:
    """Milliseconds from each record to each browser that heard of it."""
    return [1000 * (one.seen[done] - at) for done, at in told.items() for one in followers if done in one.seen]


def answered(platform: Platform) -> int | None:
    """How many transactions a control database on PostgreSQL has answered; None on SQLite, which does not count."""
    url = platform.registry.database.url
    if not url.drivername.startswith("postgresql"):
        return None
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(False), autocommit=True) as link:
        link.execute("SELECT pg_stat_force_next_flush()")
        row = link.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").fetchone()
        return int(row[0]) if row else None


async def one_run(
    report: Report,
    platform: Platform,
    server: Server,
    name: str,
    number: int,
    request: tuple[str, str],
    floor: float | None,
) -> float:
    """So many followers from the beginning to the end of an operation; the server's CPU for each change."""
    operation_id = await begun(platform)
    filled = request[0].format(operation=operation_id, who=request[1])
    sockets, before = server.sockets, server.memory
    followers = await follow(server, number, filled)
    held, asked, start, clock = server.memory, answered(platform), server.cpu, time.perf_counter()
    told = await worked(platform, operation_id)
    cpu, seconds = server.cpu - start, time.perf_counter() - clock
    if asked is not None:
        each = ((answered(platform) or 0) - asked) / CHANGES
        report.add(f"{name}, {number}: transactions for each change, the writer's too", each, "")
    await ended(platform, operation_id)
    await asyncio.sleep(1)
    late = delays(followers, told)
    each = 1000 * cpu / CHANGES
    share = f"{100 * cpu / seconds:.1f} % of a core, {seconds:.0f} s"
    report.add(f"{name}, {number}: CPU of the server for each change", each, "ms", share, floor and each / floor)
    report.add(f"{name}, {number}: from record to browser, median", statistics.median(late), "ms")
    report.add(f"{name}, {number}: the same, p95", statistics.quantiles(late, n=20)[-1], "ms")
    report.add(f"{name}, {number}: memory for each follower", 1024 * (held - before) / number, "KiB")
    for one in followers:
        one.close()
    await asyncio.sleep(1)
    left = server.sockets - sockets
    report.add(f"{name}, {number}: sockets left when all are gone", left, "", bound="few", holds=left < 10)
    return each


async def crowded(report: Report, platform: Platform, server: Server, where: str, cookie: str) -> None:
    """More followers than a process takes: those beyond are told so, the others follow on, and pages are served."""
    operation_id = await begun(platform)
    followers = await follow(server, FOLLOWERS + 50, PORTAL.format(operation=operation_id, who=cookie))
    taken, refused = (sum(one.status == status for one in followers) for status in (200, 503))
    waited = await asyncio.to_thread(page, server.port)
    start = time.perf_counter()
    async with platform.registry.write() as tx:
        await journal.progress(tx, operation_id, done=7)
    while sum(7 in one.seen for one in followers) < taken and time.perf_counter() - start < 60:
        await asyncio.sleep(0.01)
    whole = sum(7 in one.seen for one in followers) == taken and taken + refused == len(followers)
    name = f"{where}: {len(followers):,} followers"
    report.add(f"{name}: taken", taken, "", f"{refused} refused with 503", bound=f"≤ {FOLLOWERS}", holds=whole)
    report.add(f"{name}: until the last one heard of a change", 1000 * (time.perf_counter() - start), "ms")
    report.add(f"{name}: a page meanwhile", waited, "ms")
    for one in followers:
        one.close()
    await ended(platform, operation_id)


async def measure(report: Report, place: Site, where: str) -> None:
    """Everything on one control database."""
    with place.config.open("a") as config:
        config.write("\n[api]\nperson_streams = 0\naddress_streams = 0\n")  # all of them are one person here
    async with place.platform() as platform:
        cookie = await signed_in(platform)
        token = (await platform.tokens.create("bench", SCOPES, admin="root@example.org")).token
        async with serving(place) as server:
            for name, request in (("portal", (PORTAL, cookie)), ("API", (API, token))):
                floor = await one_run(report, platform, server, f"{where}: {name}", 1, request, None)
                await one_run(report, platform, server, f"{where}: {name}", 200, request, floor)
            await crowded(report, platform, server, where, cookie)


def main() -> int:
    """Run all and report."""
    report = Report("followers")
    with places() as found:
        for where, place in found.items():
            asyncio.run(measure(report, place, where))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
