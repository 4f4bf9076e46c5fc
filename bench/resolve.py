"""What finding the tenant costs: time in process, requests a second under a server, memory."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from report import Report
from tenantry.model import Changes, Environment, Loaded, Place, Status, Tenant, new_id
from tenantry.runtime import Runtime, Settings, TenantMiddleware
from tenantry.runtime.table import Table

SIZES = (100, 100_000, 1_000_000)
ROUNDS = 60
PLACES = (Place("db", "sqlite", "db.sqlite", "0007_pages"), Place("media", "directory", "media"))


def environment(number: int) -> Environment:
    """A tenant as the registry gives it, with nothing shared but what the registry shares."""
    slug = f"tenant-{number}"
    tenant = Tenant(new_id(), slug, f"Tenant {number}", "site", "free", Status.ACTIVE, f"{number:010}")
    home = f"tenants/{slug}-{number:08x}/production"
    return Environment(new_id(), "production", tenant, home, PLACES, (f"{slug}.localhost",), (), number.to_bytes(60))


class Fixed:
    """A source whose tenants never change."""

    def __init__(self, environments: Collection[Environment]) -> None:
        self._environments = environments

    async def load(self) -> Loaded:
        return Loaded(1, self._environments)

    async def follow(self, since: int) -> AsyncIterator[Changes]:
        await asyncio.Event().wait()
        yield Changes(since, frozenset(), ())


def runtime_of(count: int) -> Runtime:
    source = Fixed([environment(number) for number in range(count)])
    return Runtime(Settings("localhost", Path("/nowhere")), source, lambda _: b"")


# --- in process ---------------------------------------------------------------------------------------------------

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"hello"}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send(START)
        await send(BODY)


async def send(message: Any) -> None:
    """What a server does with a message is no part of this measurement."""


def scopes_of(numbers: list[int]) -> list[dict[str, Any]]:
    """Requests as a browser sends them, each with header bytes of its own, as a server makes them."""
    return [
        {
            "type": "http",
            "path": "/pages/1",
            "headers": [
                (b"host", b"tenant-%d.localhost" % number),
                (b"user-agent", b"Mozilla/5.0"),
                (b"accept", b"text/html"),
                (b"accept-language", b"en"),
                (b"accept-encoding", b"gzip, br"),
                (b"cookie", b"a=b"),
            ],
        }
        for number in numbers
    ]


def seconds(app: Any, scopes: list[dict[str, Any]]) -> float:
    """Seconds for each request, driven without an event loop."""
    began = time.perf_counter()
    for scope in scopes:
        try:
            app(scope, None, send).send(None)
        except StopIteration:
            continue
    return (time.perf_counter() - began) / len(scopes)


def added(runtime: Runtime, numbers: list[int]) -> float:
    """Microseconds that the middleware adds: the median over alternating rounds with and without it."""
    wrapped = TenantMiddleware(bare, runtime)
    differences = []
    gc.disable()
    for _ in range(ROUNDS):
        scopes = scopes_of(numbers)
        differences.append(seconds(wrapped, scopes) - seconds(bare, scopes))
    gc.enable()
    assert runtime.usage.take(), "no request was counted"
    return 1e6 * statistics.median(differences)


async def in_process(report: Report) -> None:
    """Time added for 100 busy tenants spread over platforms of each size, and for tenants that are all cold."""
    first = 0.0
    for size in SIZES:
        runtime = runtime_of(size)
        await runtime.start()
        busy = random.Random(1).sample(range(size), 100) * 20
        took = added(runtime, busy)
        first = first or took
        holds = took <= 2.0 and took <= 1.5 * first
        bound = "≤ 2 µs" if size == SIZES[0] else "≤ 2 µs and ≤ 1.5 × of 100"
        report.add(
            f"added to a request, {size:,} hostnames", took, "µs", "bare, in process", took / first, bound, holds
        )
        if size == SIZES[-1]:
            cold = [random.randrange(size) for _ in range(2000)]
            report.add("added where every request is another tenant's", added(runtime, cold), "µs", "bare, in process")
        await runtime.stop()
        del runtime
        gc.collect()


# --- memory -------------------------------------------------------------------------------------------------------


def memory(report: Report, count: int = 100_000) -> None:
    """Bytes for each hostname: the dictionaries, and all together with the tenants themselves."""
    gc.collect()
    tracemalloc.start()
    environments = [environment(number) for number in range(count)]
    before = tracemalloc.get_traced_memory()[0]
    table = Table(Loaded(1, environments))
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(table.live) == count
    report.add("memory of the map", (after - before) / count, "bytes/hostname")
    report.add("memory with the tenants themselves", after / count, "bytes/hostname")


# --- under a server -----------------------------------------------------------------------------------------------


def with_tenants() -> Any:
    """What uvicorn loads: the bare application behind the middleware."""
    return TenantMiddleware(bare, runtime_of(1_000))


def starlette() -> Any:
    """The least a framework makes of the same answer: one route of Starlette."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hello(_: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/", hello)])


def starlette_with_tenants() -> Any:
    """The same behind the middleware."""
    return TenantMiddleware(starlette(), runtime_of(1_000))


def on_core(number: int) -> list[str]:
    """Keep a program to one processor core, so that server and client do not push each other about."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return ["taskset", "-c", str(cores[number])] if len(cores) > 1 and shutil.which("taskset") else []


def serve(target: str, *options: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = ["--no-access-log", "--log-level", "error", "--port", str(port), "--app-dir", str(Path(__file__).parent)]
    command = [*on_core(0), sys.executable, "-m", "uvicorn", f"resolve:{target}", "--http", "httptools"]
    process = subprocess.Popen([*command, *options, *quiet])
    for _ in range(300):
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return process, port
        time.sleep(0.1)
    raise SystemExit(f"{target} does not start")


def load(port: int, time_limit: str = "2s") -> float:
    """Requests a second."""
    argv = [
        *on_core(1),
        "wrk",
        "-t1",
        "-c16",
        f"-d{time_limit}",
        "-H",
        f"Host: tenant-7.localhost:{port}",
        f"http://127.0.0.1:{port}/",
    ]
    output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise SystemExit(output)
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found
    return float(found[1])


def under_a_server(report: Report, what: str, without: str, tenants: str, rounds: int = 7) -> None:
    """Alternating short rounds, so that noise of the machine meets both alike."""
    servers = [serve(target, *([] if target == "bare" else ["--factory"])) for target in (without, tenants)]
    try:
        for _, port in servers:
            load(port, "1s")
        pairs = []
        for turn in range(rounds):
            order = (0, 1) if turn % 2 else (1, 0)
            found = {side: load(servers[side][1]) for side in order}
            pairs.append((found[0], found[1]))
    finally:
        for process, _ in servers:
            process.terminate()
            process.wait()
    alone, served = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    report.add(f"{what} without tenants", alone, "requests/s")
    report.add(f"{what} with tenants", served, "requests/s", "without", ratio, "≥ 0.95", ratio >= 0.95)


def main() -> int:
    """Run all and report."""
    report = Report("resolve")
    asyncio.run(in_process(report))
    memory(report)
    under_a_server(report, "uvicorn, a function", "bare", "with_tenants")
    under_a_server(report, "uvicorn, a route of Starlette", "starlette", "starlette_with_tenants")
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
