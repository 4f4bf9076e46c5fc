"""What the demos share: a platform in a temporary directory, its processes, and the table that tells what was done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from tenantry.platform import Platform

TENANTRY = Path(sys.executable).with_name("tenantry")
AT_ONCE = 8
"""Requests under way at a time."""

T = TypeVar("T")


class Wrong(Exception):
    """Something is not as it should be."""


def expect(right: bool, otherwise: str) -> None:
    """Go on only where this is right."""
    if not right:
        raise Wrong(otherwise)


# --- what is told -------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One line of the table."""

    what: str
    count: int = 1
    seconds: float = 0.0
    each: bool = True  # whether seconds ÷ count means something
    result: str = ""


@dataclass
class Ledger:
    """Tells each step as it ends, and all of them in the end."""

    console: Console
    title: str
    rows: list[Row] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, what: str, count: int = 1, each: bool = True) -> Iterator[Row]:
        """Time a step; whoever does it fills in the result."""
        row = Row(what, count, each=each)
        self.rows.append(row)
        start = time.perf_counter()
        try:
            yield row
        except BaseException as error:
            row.result = f"✗ {error}" if isinstance(error, Wrong) else f"✗ {type(error).__name__}"
            raise
        else:
            row.result = f"✓ {row.result}"
        finally:
            row.seconds = row.seconds or time.perf_counter() - start
            self.console.print(f"{row.seconds:6.2f} s  {row.what}: {row.result}", markup=False, soft_wrap=True)

    def table(self) -> Table:
        """Everything that was done."""
        table = Table(title=self.title, title_justify="left")
        table.add_column("what was done")
        for name in ("how many", "seconds", "ms each"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("result")
        for row in self.rows:
            each = f"{1000 * row.seconds / row.count:.1f}" if row.each and row.count else ""
            table.add_row(row.what, f"{row.count:,}", f"{row.seconds:.2f}", each, row.result)
        return table


# --- the platform -------------------------------------------------------------------------------------------------


class Site:
    """A platform in a temporary directory, and the processes that were started for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "var"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
        self.processes: list[subprocess.Popen[bytes]] = []

    async def command(self, *arguments: str, status: int = 0) -> str:
        """Run one `tenantry` command; what it printed. Wrong where it ends with another status."""
        process = await asyncio.create_subprocess_exec(
            TENANTRY,
            *arguments,
            cwd=self.root,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output = (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
        expect(process.returncode == status, f"tenantry {' '.join(arguments)}: {output.strip()[-400:]}")
        return output

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a process that stays, in a group of its own so that Ctrl-C reaches it through us alone."""
        log = (self.root / "processes.log").open("ab")
        process = subprocess.Popen(
            [TENANTRY, *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def stop(self, processes: Sequence[subprocess.Popen[bytes]] | None = None) -> None:
        """End processes: asked first, then made to."""
        ending = list(self.processes if processes is None else processes)
        for process in ending:
            process.terminate()
        for process in ending:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.processes.remove(process)

    async def rest(self, seconds: float = 60) -> bool:
        """Wait until the PostgreSQL it brought, if any, has ended by itself, since nobody uses it any more."""
        until = time.monotonic() + seconds
        while (self.data / "postgres" / "data" / "postmaster.pid").exists():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.1)
        return True

    def lay_out(self, source: Path, *names: str) -> None:
        """Copy files and directories of an example to the platform's place."""
        for name in names:
            if (source / name).is_dir():
                shutil.copytree(source / name, self.root / name, dirs_exist_ok=True)
            else:
                shutil.copy(source / name, self.root / name)

    async def serve(self) -> Server:
        """Start one more `tenantry serve`, on a free port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = Server(self.start("serve", "--no-worker", "--port", str(port)), f"http://127.0.0.1:{port}")
        while not await server.well():
            expect(server.process.poll() is None, f"serve ended: {(self.root / 'processes.log').read_text()[-400:]}")
            await asyncio.sleep(0.05)
        return server


@dataclass
class Server:
    """One process that answers requests."""

    process: subprocess.Popen[bytes]
    url: str

    def client(self) -> httpx.AsyncClient:
        """A client of this very process; each request names its tenant by its Host header or its path."""
        limits = httpx.Limits(max_connections=AT_ONCE)
        return httpx.AsyncClient(base_url=self.url, limits=limits, timeout=30, trust_env=False)

    async def well(self) -> bool:
        """Whether it answers."""
        async with self.client() as client:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/.tenantry/health")).status_code == 200
        return False


async def for_each(items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do this for every item, some at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> None:
        async with gate:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for item in items:
            group.create_task(one(item))


async def kill_in_the_middle(
    platform: Platform, workers: Sequence[subprocess.Popen[bytes]], run: asyncio.Task[str], total: int
) -> tuple[int, float]:
    """Kill the worker that migrates when some tenants are done and others are not: how many were, and when."""
    while True:
        expect(not run.done() or run.exception() is None, str(run.done() and run.exception()))
        found = await platform.operations.list(verb="migrate", limit=1)
        if found and found[0].done and found[0].worker_id:
            break
        expect(not run.done(), "the migration was over before anything was seen of it")
        await asyncio.sleep(0.002)
    pids = {worker["id"]: worker["pid"] for worker in (await platform.status())["workers"]}
    victim = next(w for w in workers if w.pid == pids[found[0].worker_id])
    victim.send_signal(signal.SIGKILL)
    start = time.perf_counter()
    victim.wait()
    now = await platform.operations.show(found[0].id)
    expect(now.operation.state == "running", "the migration was over before the worker was killed")
    expect(0 < now.operation.done < total, f"killed after {now.operation.done}: that is not the middle")
    return now.operation.done, start


async def first_refusal(client: httpx.AsyncClient, ask: Callable[[], Awaitable[httpx.Response]]) -> float:
    """Ask one process again and again: the moment of its first refusal, in seconds since 1970."""
    async with client:
        while (answer := await ask()).status_code == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        expect(answer.status_code == 403, f"{answer.url} answered {answer.status_code}")
        return time.time()


# --- playing ------------------------------------------------------------------------------------------------------


async def suspended(
    site: Site, platform: Platform, slug: str, servers: Sequence[Server], ask: Callable[..., Awaitable[httpx.Response]]
) -> float:
    """Suspend a tenant: seconds from its entry until the last process refused it. `ask` gets a client."""
    clients = [server.client() for server in servers]
    watches = [asyncio.create_task(first_refusal(client, partial(ask, client))) for client in clients]
    await site.command("tenant", "suspend", slug, "--reason", "unpaid")
    async with asyncio.timeout(10):
        moments = [await watch for watch in watches]
    since = (await platform.tenants.show(slug)).row.updated.timestamp()
    slowest = max(moments) - since
    expect(slowest < 1, f"it took {slowest:.2f} s until all processes refused")
    return slowest


class Story(Protocol):
    """What a demo does."""

    async def tell(self) -> None:
        """Everything, in order. Raises `Wrong`."""
        ...


async def play(title: str, story: Callable[[Site, Ledger], Story], seconds: float) -> int:
    """Tell a story within a time, then clean up, whatever happened. Returns the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    root = Path(tempfile.mkdtemp(prefix="tenantry-demo-"))
    site, ledger = Site(root), Ledger(console, title)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    status = 1
    try:
        async with asyncio.timeout(seconds):
            await story(site, ledger).tell()
        status = 0
    except* (Wrong, TimeoutError) as group:
        for error in _flat(group):
            console.print(f"✗ {error or type(error).__name__}", markup=False, soft_wrap=True)
    finally:
        site.stop()
        await site.rest()
        shutil.rmtree(root, ignore_errors=True)
        console.print(ledger.table())
    return status


def _flat(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error


def main(title: str, story: Callable[[Site, Ledger], Story], seconds: float) -> None:
    """What a demo's module runs."""
    try:
        sys.exit(asyncio.run(play(title, story, seconds)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
