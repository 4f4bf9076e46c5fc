"""What every page of the portal, and every list of the API, costs a server with 10,000 tenants: time and size."""

from __future__ import annotations

import asyncio
import gc
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment
from sqlalchemy import text

from bench.crowd import ADMIN_TENANTS, Crowd, gather
from bench.registry import places
from bench.report import Report
from bench.site import Site
from tenantry.config import load
from tenantry.identity.principal import SCOPES
from tenantry.identity.signin import Client
from tenantry.registry import people
from tenantry.registry.tenants import SORTS
from tenantry.web.api.routes import ROUTES
from tenantry.web.portal import PARTS
from tenantry.web.site import site

MOST_MS: Final = 100
MOST_KB: Final = 150
ROUNDS: Final = 25
WARM: Final = 3

PERSONS: Final = ("root", *ADMIN_TENANTS)

FILES: Final = ("/export", "/report.", ".json", "/events", "/steps")
"""What is no page: files, which are written as they are read, and streams."""

FAR: Final = "zzzzzzzz no tenant is called so"

Where = Sequence[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What answering an address took."""

    status: int
    size: int
    times: Sequence[float]  # milliseconds
    cpu: float  # milliseconds of this process, for each

    @property
    def median(self) -> float:
        """Of all."""
        return statistics.median(self.times)

    @property
    def worst(self) -> float:
        """The 99th percentile."""
        return sorted(self.times)[min(len(self.times) - 1, int(len(self.times) * 0.99))]


class Caller:
    """Somebody who asks an application for its pages, within this process: no socket and no client is measured."""

    def __init__(self, app: FastAPI, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]

    async def get(self, address: str) -> tuple[int, int]:
        """One answer: its status and its size."""
        path, _, query = address.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "root_path": "", "headers": self._headers, "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        }  # fmt: skip
        status = size = 0
        ended = asyncio.Event()
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Mapping[str, Any]:
            for message in asked:
                return message
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    ended.set()

        await self._app(scope, receive, send)
        return status, size

    async def ask(self, address: str, rounds: int = ROUNDS) -> Asked:
        """Many answers, after some that warm it up."""
        for _ in range(WARM):
            status, size = await self.get(address)
        times, began = [], time.process_time()
        for _ in range(rounds):
            start = time.perf_counter()
            status, size = await self.get(address)
            times.append(1000 * (time.perf_counter() - start))
        return Asked(status, size, times, 1000 * (time.process_time() - began) / rounds)


# --- what is asked for --------------------------------------------------------------------------------------------


def pages(crowd: Crowd) -> dict[str, Where]:
    """For each address of the portal by its route, what stands behind the path: all that makes it work hardest."""
    middle = f"tenant-{crowd.tenants // 2}"
    late = "ffffffff"
    orders = [f"?sort={way}{name}" for name in SORTS for way in ("", "-")]
    orders += [f"?sort={name}&after={place}" for name, place in _places(middle).items()]
    searches = [f"?search={one}" for one in ("tenant", "9", "%25", FAR.replace(" ", "+"), "nant-77")]
    filters = [
        "?status=suspended&sort=name",
        "?status=destroying",
        "?plan=none",
        "?search=9&sort=-created&status=active",
    ]
    same: dict[str, str] = {
        "{slug}": middle,
        "{admin}": crowd.admin,
        "{organization}": crowd.organization,
        "{name}": "db-07",
        "{operation_id}": crowd.migration,
    }
    own = {
        "/admin/": ["", *orders, *searches, *filters],
        "/admin/palette": ["", "?search=tenant-99", f"?search={late}", "?search=migr"],
        "/admin/organizations": ["", "?search=9", f"?search={late}", "?after=Organization+200"],
        "/admin/organizations/{organization}": ["", "?search=9", "?only=9", f"?after={middle}"],
        "/admin/admins": ["", "?search=9", f"?search={late}", "?after=admin-200@example.org"],
        "/admin/admins/{admin}": ["", "?search=9", "?only=9", f"?after={middle}"],
        "/admin/statistics": ["", "?days=366", "?days=7"],
        "/admin/operations": [
            "", "?state=failed", "?state=cancelled", "?verb=migrate", "?verb=drop", f"?tenant={middle}",
            f"?before={crowd.migration}", "?before=01", "?state=done&verb=create",
        ],
        "/admin/operations/{operation_id}": [
            "", *(f"/../{one}" for one in (crowd.under_way, crowd.rehearsal, crowd.live_rehearsal, crowd.verification)),
        ],
        "/admin/operations/{operation_id}/failures": ["", "?after=5000"],
        "/admin/audit": [
            "", "?actor=cli:rare", "?actor=nobody", "?action=tenant", "?action=admin.assign", "?subject=tenant-7",
            "?since=2020-01-01&until=2020-01-02", "?before=60000", "?action=tenant.export&actor=cli:rare",
            "?subject=cyd@example.org",
        ],
        "/admin/settings": ["", "?search=worker", "?written=true"],
        "/admin/verify/{operation_id}": [f"/../{crowd.verification}"],
        "/admin/migrations/rehearsals/{operation_id}": [f"/../{crowd.rehearsal}", f"/../{crowd.live_rehearsal}"],
        "/admin/verify/{operation_id}/report.json": [f"/../../{crowd.verification}/report.json"],
        "/admin/servers": [""],
    }  # fmt: skip
    return {path: own.get(path, [""]) for path in own} | {"": [f"{name}={value}" for name, value in same.items()]}


def _places(slug: str) -> dict[str, str]:
    """A cursor half way, for each order."""
    number = slug.removeprefix("tenant-")
    return {
        "slug": slug,
        "-slug": slug,
        "name": f"tenant+{number}+{slug}",
        "-name": f"tenant+{number}+{slug}",
        "created": f"2026-06-01T00:00:00%2B00:00+{slug}",
        "-created": f"2026-06-01T00:00:00%2B00:00+{slug}",
        "status": f"active+{slug}",
        "-status": f"active+{slug}",
    }


HERS: Final = ("/admin/", "/admin/palette", "/admin/operations", "/admin/audit", "/admin/me", "/admin/tenants/{slug}")
"""The pages whose cost depends on which tenants are assigned to somebody."""


def addresses(crowd: Crowd, own: str, everything: bool) -> Iterator[str]:
    """Every address of a page; each of a route, so that a new one is measured as soon as there is one."""
    known = pages(crowd)
    values = dict(one.split("=", 1) for one in known.pop(""))
    values["{slug}"] = own
    for path in dict.fromkeys(routes()):
        if not everything and path not in HERS:
            continue
        filled = path
        for name, value in values.items():
            filled = filled.replace(name, value)
        filled = filled.replace("{kind}", "json")
        if "{" in filled:  # a link, a session: nothing there depends on how many tenants there are
            filled = re.sub(r"\{[^}]*\}", "none", filled)
        for tail in known.get(path, [""]):
            yield _joined(filled, tail)


def _joined(path: str, tail: str) -> str:
    while tail.startswith("/../"):
        path, tail = path.rpartition("/")[0], tail[3:]
    return path + tail


def routes() -> Iterator[str]:
    """The paths of all pages."""
    for part in PARTS:
        for route in part.router.routes:
            if isinstance(route, APIRoute) and "GET" in route.methods:
                yield f"/admin{route.path}"


def lists(crowd: Crowd) -> Iterator[str]:
    """Every address of the API that answers with many, or with what many make up."""
    filled = {"{slug}": f"tenant-{crowd.tenants // 2}", "{admin}": crowd.admin, "{organization}": crowd.organization}
    filled |= {"{name}": "db-07", "{operation_id}": crowd.migration}
    other = {"migrate.rehearsal": crowd.rehearsal}
    other |= dict.fromkeys(("verify.report", "verify.summary"), crowd.verification)
    asking = {"server.list": "?ask=false", "server.show": "?ask=false"}
    for route in ROUTES:
        if route.method == "GET" and route.verb not in ("tenant.slug", "tenant.leftovers"):
            path = route.path.replace("{operation_id}", other.get(route.verb, crowd.migration))
            for name, value in filled.items():
                path = path.replace(name, value)
            yield f"/api{path}{asking.get(route.verb, '')}"
    yield from ("/api/tenants?search=9&limit=100", "/api/tenants?sort=-name", "/api/audit?actor=cli:rare")
    yield f"/api/operations/{crowd.migration}/items?state=failed"


# --- measuring ----------------------------------------------------------------------------------------------------


def bare() -> FastAPI:
    """The least that a page of fifty lines could cost: FastAPI, Jinja and no database."""
    app = FastAPI()
    template = Environment(autoescape=True).from_string("<table>{% for n in rows %}<tr><td>{{ n }}</td>{% endfor %}")

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(template.render(rows=range(50)))

    return app


@asynccontextmanager
async def portal(place: Site) -> AsyncIterator[tuple[FastAPI, dict[str, Caller], Caller]]:
    """The site, browsers of each person, and a program with a superadmin's token."""
    app = site(load(place.config))
    here = await app.state.house.opened()
    try:
        callers = {}
        for name in PERSONS:
            async with here.platform.registry.read() as tx:
                row = await people.find(tx, f"{name}@example.org")
            signed_in = await here.sign_in.begin(row, Client("127.0.0.1"))
            callers[name] = Caller(app, {"cookie": f"tenantry_admin={signed_in.session}"})
        token = (await here.platform.tokens.create(f"bench {time.time()}", SCOPES, admin="root@example.org")).token
        yield app, callers, Caller(app, {"authorization": f"Bearer {token}"})
    finally:
        await app.state.house.close()


def told(report: Report, name: str, asked: Asked, floor: float, bound: bool = True) -> None:
    """Enter one address; the bound is for the 99th percentile and the size."""
    good = asked.status == 200 and asked.worst <= MOST_MS and asked.size <= MOST_KB * 1000
    said = "" if asked.status == 200 else f", answered {asked.status}"
    against = f"p99 {asked.worst:.0f} ms, CPU {asked.cpu:.1f} ms, {asked.size / 1000:.1f} KB{said}"
    limit = f"p99 ≤ {MOST_MS} ms, ≤ {MOST_KB} KB" if bound else None
    report.add(name, asked.median, "ms", against, asked.median / floor, limit, good if bound else None)


async def measure(report: Report, place: Site, where: str) -> None:
    """Everything on one control database."""
    start = time.perf_counter()
    crowd = await gather(place)
    if not where.startswith("SQLite"):
        await _analyzed(place)
    gc.collect()
    gc.freeze()  # what filled the registry is no garbage of the site's
    print(f"  made in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    async with portal(place) as (app, callers, program):
        floor = (await Caller(bare(), {}).ask("/", 200)).median
        report.add(f"{where}: a bare page of FastAPI and Jinja", floor, "ms")
        for name, caller in callers.items():
            own = await _own(app, name)
            for address in addresses(crowd, own, everything=name == "root"):
                if address.endswith("/none") or "/none/" in address:
                    continue
                file = any(part in address.partition("?")[0] for part in FILES)
                if address.endswith("/steps"):
                    continue
                asked = await caller.ask(address, 3 if file else ROUNDS)
                told(report, f"{where}: {name} {address}", asked, floor, bound=not file)
        whole = f"/api/migrations/{crowd.migration}", f"/api/verifications/{crowd.verification}"  # reports, no lists
        for address in lists(crowd):
            asked = await program.ask(address, 10)
            told(report, f"{where}: {address}", asked, floor, "-/rehearsals/" not in address and address not in whole)


async def _analyzed(place: Site) -> None:
    """Know the tables as a server with its autovacuum does within a minute."""
    async with place.platform() as platform, platform.registry.write() as tx:
        await tx.execute(text("ANALYZE"))


async def _own(app: FastAPI, name: str) -> str:
    """A tenant that somebody may see."""
    opened = await app.state.house.opened()
    async with opened.platform.registry.read() as tx:
        hers = await people.assigned(tx, (await people.find(tx, f"{name}@example.org")).id)
    return hers[0] if hers else "tenant-1"


def main() -> int:
    """Run all and report."""
    report = Report("portal")
    with places() as found:
        for where, place in found.items():
            asyncio.run(measure(report, place, where))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
