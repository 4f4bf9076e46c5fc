"""A small platform for the runtime's tests: tenants with real files, and a feed that tells of them."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenantry import users
from tenantry.model import Changes, Environment, Loaded, Place, Status, Tenant, new_id
from tenantry.runtime import Runtime, Settings

DOMAIN = "example.com"
PLACES = (
    Place("db", "sqlite", "db.sqlite", "0002_two"),
    Place("media", "directory", "media"),
    Place("config", "rendered", "env.json"),
)


class Feed:
    """The registry in miniature: holds environments, numbers their changes and tells followers of each."""

    def __init__(self) -> None:
        self.seq = 0
        self.tenants: dict[str, list[Environment]] = {}
        self.log: list[Changes] = []
        self.gone = False

    def put(self, *environments: Environment) -> None:
        """Set all environments of their tenant."""
        tenant = environments[0].tenant.id
        self.tenants[tenant] = list(environments)
        self._tell(tenant)

    def remove(self, tenant: str) -> None:
        self.tenants.pop(tenant)
        self._tell(tenant)

    def _tell(self, tenant: str) -> None:
        self.seq += 1
        self.log.append(Changes(self.seq, frozenset({tenant}), tuple(self.tenants.get(tenant, ()))))

    async def load(self) -> Loaded:
        if self.gone:
            raise ConnectionError("the control database is gone")
        return Loaded(self.seq, [found for environments in self.tenants.values() for found in environments])

    async def follow(self, since: int) -> AsyncIterator[Changes]:
        while True:
            if self.gone:
                raise ConnectionError("the control database is gone")
            for changes in [changes for changes in self.log if changes.seq > since]:
                since = changes.seq
                yield changes
            await asyncio.sleep(0.005)


class World:
    """A platform below a temporary directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.feed = Feed()
        self.runtimes: list[Runtime] = []

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "domain": DOMAIN,
            "data": self.root,
            "values": {"site": {"site_name": "{name}", "home": "start"}},
            "users": {"site": "db"},
            "secure_cookies": False,
        }
        return Settings(**values | changes)

    def tenant(self, slug: str, **changes: Any) -> Environment:
        """A new tenant with its files on disk; changes go to the tenant or to its environment."""
        of_environment, of_tenant = split({"hostnames": (f"{slug}.{DOMAIN}",), "places": PLACES} | changes)
        values: dict[str, Any] = {"blueprint": "site", "plan": None, "status": Status.ACTIVE, "name": slug.title()}
        tenant = Tenant(new_id(), slug, **values | of_tenant)
        home = f"tenants/{slug}-{tenant.id[-8:]}/production"
        environment = Environment(new_id(), "production", tenant, home, **of_environment)
        self._files(environment)
        self.feed.put(environment)
        return environment

    def _files(self, environment: Environment) -> None:
        home = self.root / environment.home
        (home / "media").mkdir(parents=True)
        connection = sqlite3.connect(home / "db.sqlite")
        connection.executescript(f"{users.made_of('sqlite')}; CREATE TABLE note (text TEXT NOT NULL) STRICT")
        connection.execute("INSERT INTO note VALUES (?)", (environment.tenant.slug,))
        connection.commit()
        connection.close()

    def change(self, environment: Environment, **changes: Any) -> Environment:
        """Change a tenant or its environment, and tell the followers."""
        of_environment, of_tenant = split(changes)
        tenant = dataclasses.replace(environment.tenant, **of_tenant)
        new = dataclasses.replace(environment, tenant=tenant, **of_environment)
        self.feed.put(new)
        return new

    def runtime(self, **changes: Any) -> Runtime:
        runtime = Runtime(self.settings(**changes), self.feed, key_of)
        self.runtimes.append(runtime)
        return runtime


def split(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of these is an environment's, and what a tenant's; both have a name, and the tenant's is meant."""
    names = {field.name for field in dataclasses.fields(Environment)} - {"name", "former"}
    inner = {key: value for key, value in changes.items() if key in names}
    if "former_hosts" in changes:
        inner["former"] = changes["former_hosts"]
    return inner, {key: value for key, value in changes.items() if key not in names and key != "former_hosts"}


def key_of(environment: Environment) -> bytes:
    return hashlib.sha256(environment.tenant.id.encode()).digest()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A platform without tenants; its runtimes are stopped at the end."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    world = World(tmp_path)
    yield world
    for runtime in world.runtimes:
        runtime.stop_thread()


@pytest.fixture
async def started(world: World) -> AsyncIterator[Any]:
    """Makes and starts runtimes in the test's event loop, and stops them."""
    made: list[Runtime] = []

    async def start(**changes: Any) -> Runtime:
        runtime = world.runtime(**changes)
        made.append(runtime)
        await runtime.start()
        return runtime.install()

    yield start
    for runtime in made:
        await runtime.stop()


@pytest.fixture
def until() -> Any:
    """Waits until something holds; a test that waits in vain is ended by the limit."""

    async def wait(holds: Any) -> None:
        async with asyncio.timeout(120):
            while not holds():
                await asyncio.sleep(0.002)

    return wait
