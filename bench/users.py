"""What it costs to know who makes a request, by a session and by a token; and how soon a suspension ends both.

In process, one request after another, on each kind of database. The floor is the least that does the same without
Tenantry: a route of Starlette that hashes a cookie and asks SQLAlchemy one query of the same table.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from report import Report
from server import DURABLE, servers  # makes the tests' own modules known
from tenantry.registry import tables
from tenantry.runtime import TenantMiddleware
from tenantry.runtime.recent import SECONDS
from tenantry.runtime.sessions import digest

import kinds_world as k  # isort: skip
from shelves import RowsShelves  # isort: skip

ROUNDS = 15
REQUESTS = 100
SUSPENSIONS = 5

Call = Callable[[], Awaitable[Any]]


async def page(_: Request) -> PlainTextResponse:
    """A trivial page, which needs nobody."""
    return PlainTextResponse("hello")


def by_one_query(engine: AsyncEngine) -> Any:
    """What an application does that has one tenant alone and looks its sessions up itself."""
    query = text("SELECT user_id FROM tenantry_session WHERE id = :id")

    async def known(request: Request) -> PlainTextResponse:
        secret = request.cookies.get("own", "")
        async with AsyncSession(engine) as session:
            (await session.execute(query, {"id": digest(secret)})).first()
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/", known)])


def database(ground: RowsShelves, kind: str) -> str:
    """The address of a tenant's database, past Tenantry."""
    if kind == "sqlite":
        (file,) = ground.data.glob(f"tenants/{kind}-*/production/db.sqlite")
        return f"sqlite+aiosqlite:///{file}"
    name = ground.database if kind == "rows" else f"{ground.prefix}_{kind}"
    return ground.known["pg1"].url(name).replace("postgresql://", "postgresql+psycopg://")


def asks(app: Any, slug: str, headers: dict[str, str], path: str = "/") -> Call:
    """One request, driven as a server does it."""
    raw = [(b"host", f"{slug}.localhost".encode()), *((n.encode(), v.encode()) for n, v in headers.items())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": raw,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def ask() -> None:
        async def send(message: Any) -> None:
            assert message.get("status", 200) == 200, message

        await app(dict(scope), receive, send)

    return ask


async def took(calls: dict[str, Call]) -> dict[str, float]:
    """Microseconds of each, in the least disturbed of the rounds, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        gc.collect()
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(REQUESTS):
                await call()
            found[name].append(1e6 * (time.perf_counter() - began) / REQUESTS)
    return {name: min(some) for name, some in found.items()}


async def costs(report: Report, here: k.Here, kind: str, engine: AsyncEngine) -> None:
    """What each way to know somebody adds to a trivial page."""
    bare = Starlette(routes=[Route("/", page)])
    app = TenantMiddleware(bare, here.runtime)
    cookie = await here.signed_in(kind)
    token = {"authorization": f"Bearer {(await here.given(kind))['access_token']}"}
    floor, own = asks(bare, kind, {}), asks(by_one_query(engine), kind, {"cookie": "own=x"})
    each = {"cookie": asks(app, kind, cookie), "token": asks(app, kind, token)}
    here.runtime.recent.seconds = 0.0
    slow = await took({"bare": floor, "none": asks(app, kind, {}), "query": own, **each})
    here.runtime.recent.seconds = SECONDS
    quick = await took({"bare": floor, **each})
    alone, query = slow["bare"], slow["query"] - slow["bare"]
    report.add(f"{kind}: a page alone", alone, "µs")
    report.add(f"{kind}: with a tenant, nobody signed in, adds", slow["none"] - alone, "µs")
    report.add(f"{kind}: one query of one's own adds", query, "µs")
    for name, what in (("cookie", "a session"), ("token", "a token")):
        first, again = slow[name] - alone, quick[name] - quick["bare"]
        report.add(
            f"{kind}: {what}, looked up, adds", first, "µs", "one query", first / query, "≤ 2.00", first <= 2 * query
        )
        report.add(f"{kind}: {what}, known a moment ago, adds", again, "µs", "one query", again / query)


async def suspended(report: Report, here: k.Here, kind: str) -> None:
    """From the moment another process enters a suspension until an open session opens nothing here."""
    cookie, lags = await here.signed_in(kind), []
    for _ in range(SUSPENSIONS):
        while (await here.asked(kind, **cookie))[0] != 200:
            await asyncio.sleep(0.01)
        command = asyncio.create_task(here.command("tenant", "suspend", kind))
        while (await here.asked(kind, **cookie))[0] == 200:
            await asyncio.sleep(0.001)
        over = time.time()
        await command
        async with here.platform.registry.read() as tx:
            (row,) = await tx.all(select(tables.tenant.c.updated).where(tables.tenant.c.slug == kind))
        lags.append(over - row.updated.timestamp())
        await here.command("tenant", "resume", kind)
    worst = max(lags)
    report.add(
        f"{kind}: suspended by another process, over after",
        1e3 * worst,
        "ms, the longest",
        None,
        None,
        "< 1000",
        worst < 1,
    )


async def run(report: Report, ground: RowsShelves) -> None:
    """All kinds, one after another."""
    async with k.served(ground) as here:
        for kind in k.KINDS:
            engine = create_async_engine(database(ground, kind))
            await costs(report, here, kind, engine)
            await engine.dispose()
        for kind in k.KINDS:
            await suspended(report, here, kind)


def main() -> int:
    """Run all and report."""
    report = Report("users")
    with tempfile.TemporaryDirectory() as folder, servers.postgres(**DURABLE) as server:
        ground = k.platform(Path(folder) / "platform", server)
        try:
            asyncio.run(run(report, ground))
        finally:
            ground.clear()
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
