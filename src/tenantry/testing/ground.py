"""The application's platform as tests have it: a registry and data of their own, and a stock of tenants made ahead."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import threading
import time
import weakref
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from tenantry import application
from tenantry.config import Config
from tenantry.errors import ConfigError, TenantryError
from tenantry.model import Environment, Status, new_id
from tenantry.operations import create
from tenantry.operations.blueprints import read_config
from tenantry.platform import Platform
from tenantry.registry import tenants
from tenantry.runtime import Runtime
from tenantry.testing import shared

SLOTS: Final = 64
"""Processes of one user that run the tests of one application at the same time."""

STOCK: Final = 4
"""Tenants that are ready before a test asks; where fewer are left, `BATCH` more are made while tests run."""

BATCH: Final = 8

PATIENCE: Final = 60.0
"""Seconds until something that never comes is given up."""

KEY: Final = "TENANTRY_SECRET_KEY"

Result = TypeVar("Result")


class Slot:
    """A directory that one process has for itself, and which the next one takes over with the templates in it."""

    def __init__(self, above: Path) -> None:
        above.mkdir(parents=True, exist_ok=True)
        for number in range(SLOTS):
            self.path = above / f"slot-{number}"
            self._lock = os.open(above / f"slot-{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.path.mkdir(mode=0o700, exist_ok=True)
                return
            os.close(self._lock)
        raise ConfigError(f"All {SLOTS} places for tests in '{above}' are in use.", remedy="Run fewer tests at once.")

    def key(self) -> str:
        """The platform key of the tests: never the real one."""
        file = self.path / "key"
        if not file.exists():
            file.write_text(secrets.token_hex(32))
        return file.read_text()

    def clear(self) -> None:
        """Forget what earlier runs left, but the key."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "key":
                path.unlink()

    def close(self) -> None:
        """Let the next process have it."""
        os.close(self._lock)


class Ground:
    """One platform for all tests of a process. Its methods are for threads without an event loop."""

    def __init__(self, file: Path, slot: Slot) -> None:
        self.file = file
        self.slot = slot
        self._runtimes: list[weakref.ref[Runtime]] = []
        self._own: Runtime | None = None
        self._platform: Platform | None = None
        self._stack = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tenantry-tests", daemon=True)
        self._stock: deque[Environment] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._going: set[asyncio.Task[None]] = set()
        self.slugs: dict[str, str] = {}  # by what marks a tenant (slug, ids): the slug; of all that ever were

    # --- in place of the real platform --------------------------------------------------------------------------

    def adapt(self, config: Config) -> Config:
        """The same platform, with the data, the control database and the shared tables of the tests."""
        chosen = {"data": str(self.slot.path / "var"), "control": None, "max_tenants": None, "mode": "multi-tenant"}
        platform = config.platform.model_copy(update=chosen)
        return shared.renamed(config.model_copy(update={"platform": platform}), self.slot.path)

    def connected(self, runtime: Runtime) -> None:
        """Know a runtime that the application connected."""
        self._runtimes.append(weakref.ref(runtime))

    @property
    def runtime(self) -> Runtime:
        """The application's runtime; one of our own where it has none."""
        made = [found for each in self._runtimes if (found := each()) is not None]
        if not made:
            self._own = application.connect(self.file)
            return self._own
        return made[-1]

    @property
    def config(self) -> Config:
        """What tenantry.toml says, with the data directory of the tests."""
        return self._opened().config

    # --- opening and closing ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the platform; what a run that was cut off left is removed first."""
        self._thread.start()
        try:
            self._wait(self._open())
        except ConfigError:
            raise
        except TenantryError:
            self.slot.clear()  # made by another version of Tenantry, or damaged
            self._wait(self._open())

    async def _open(self) -> None:
        config = self.adapt(read_config(self.file))
        self._platform = await self._stack.enter_async_context(Platform.open(config, actor="tests"))
        async with self._platform.registry.read() as tx:
            left = [row.id for row in await tenants.page(tx, limit=10_000)]
        if left:
            await self._remove(left)
        await shared.renew(self._platform, self.slot.path)

    def close(self) -> None:
        """Remove every tenant and stop; the golden templates stay for the next run."""
        for each in self._runtimes:
            runtime = each()
            if runtime is not None and runtime.started:
                runtime.stop_thread()
        if self._thread.is_alive():
            self._wait(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self.slot.close()

    async def _close(self) -> None:
        if self._filling is not None:
            await asyncio.gather(self._filling, return_exceptions=True)
        await asyncio.gather(*self._going, return_exceptions=True)
        if self._platform is not None:
            async with self._platform.registry.read() as tx:
                left = [row.id for row in await tenants.page(tx, limit=10_000)]
            await self._remove(left)
        await self._stack.aclose()

    def _opened(self) -> Platform:
        assert self._platform is not None, "the platform is open while there are tests"
        return self._platform

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- tenants ------------------------------------------------------------------------------------------------

    def pair(self) -> tuple[Environment, Environment]:
        """Two tenants that nobody used, known to every runtime of this process."""
        taken = self._wait(self._take(2))
        self._await_known(taken)
        return taken[0], taken[1]

    def create(
        self,
        slug: str,
        name: str | None = None,
        blueprint: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Environment:
        """One more tenant, with a slug, a blueprint, a plan or settings of its own."""
        made = self._wait(self._make([slug], name, blueprint, plan, settings))
        self._await_known(made)
        return made[0]

    def remove(self, environments: Sequence[Environment]) -> None:
        """Let tenants go, while the next tests run."""
        self._loop.call_soon_threadsafe(self._let_go, [environment.tenant.id for environment in environments])

    def _let_go(self, ids: list[str]) -> None:
        task = self._loop.create_task(self._remove(ids))
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    async def _take(self, count: int) -> list[Environment]:
        while len(self._stock) < count:
            await self._fill()
        taken = [self._stock.popleft() for _ in range(count)]
        if len(self._stock) < STOCK:
            self._begin_to_fill()
        return taken

    async def _fill(self) -> None:
        await asyncio.shield(self._begin_to_fill())

    def _begin_to_fill(self) -> asyncio.Task[None]:
        if self._filling is None or self._filling.done():
            self._filling = self._loop.create_task(self._stock_up())
        return self._filling

    async def _stock_up(self) -> None:
        self._stock.extend(await self._make([f"t{secrets.token_hex(6)}" for _ in range(BATCH)]))

    async def _make(
        self,
        slugs: Sequence[str],
        name: str | None = None,
        blueprint: str | None = None,
        plan: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> list[Environment]:
        """Make tenants at once, past the durable engine: a test that dies is run again from its beginning."""
        platform = self._opened()
        tools, registry = platform.tools, platform.registry
        blueprint = blueprint or next(iter(platform.config.blueprints))
        plan = plan or next(iter(platform.config.plans), None)
        drafts = [tools.draft(slug, name or f"Tenant {slug}", blueprint, plan, settings or {}) for slug in slugs]
        ids = [draft[0].tenant.id for draft in drafts]
        async with registry.write() as tx:
            await create.reserve(tx, tools, [environment for draft in drafts for environment in draft])
            found = await tools.all_environments(tx, ids)
        for resource in tools.resources[blueprint]:
            _raise_first(await resource.create_many(found))
        sealed, errors = await tools.enrol_admins(found)
        _raise_first(errors.values())
        versions = [(e.id, r.name, r.golden) for e in found for r in tools.resources[blueprint] if r.has_schema]
        async with registry.write() as tx:
            await tenants.set_versions(tx, versions)
            await tenants.put_secrets(tx, sealed)
            await tenants.set_status(tx, ids, Status.ACTIVE)
            tx.audit("tenant.test", slugs[0], tenants=len(ids), run=new_id())
            made = await tenants.environments(tx, ids)
        for environment in made:
            marks = (environment.tenant.slug, environment.tenant.id, environment.id)
            self.slugs.update(dict.fromkeys(marks, environment.tenant.slug))
        first = {environment.tenant.id: environment for environment in reversed(made)}
        return [first[tenant_id] for tenant_id in ids]

    async def _remove(self, ids: Sequence[str]) -> None:
        platform = self._opened()
        tools = platform.tools
        async with platform.registry.read() as tx:
            found = await tools.all_environments(tx, ids)
        for environment in found:
            for resource in tools.resources.get(environment.tenant.blueprint, ()):
                await resource.drop(environment)
        tools.remove_homes(found)
        async with platform.registry.write() as tx:
            await tenants.remove(tx, list(ids))

    def _await_known(self, environments: Sequence[Environment]) -> None:
        """Wait until the application's runtimes know these tenants."""
        self.runtime.start_thread()  # with a thread, whatever event loops the tests have
        until = time.monotonic() + PATIENCE
        for each in self._runtimes:
            runtime = each()
            while runtime is not None and runtime.started and not all(_known(runtime, e) for e in environments):
                if time.monotonic() > until:
                    raise TenantryError("The application's runtime does not learn of the tenants made for a test.")
                time.sleep(0.001)


def _known(runtime: Runtime, environment: Environment) -> bool:
    found = runtime.resolver.table.current(environment)
    return found is not None and found.tenant.status.served


def _raise_first(errors: Any) -> None:
    for error in errors:
        if error is not None:
            raise error
