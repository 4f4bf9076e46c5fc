"""A worker: shows signs of life, takes queued operations, and takes over those of workers that show none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Final

from tenantry.errors import RegistryUnavailable
from tenantry.model import new_id
from tenantry.operations.engine import Engine
from tenantry.operations.runner import Runner
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Feed, journal, tenants
from tenantry.registry.database import now

log: Final = logging.getLogger("tenantry.worker")

ORPHAN_POLL: Final = 0.5
TIDY_POLL: Final = 60.0
DRAIN_SECONDS: Final = 30.0
"""How long an ending worker waits for what it is doing; what is left goes on at another one."""


class Worker:
    """One worker process, or one operation run by a command when no worker lives."""

    def __init__(self, tools: Toolbox, concurrency: int | None = None) -> None:
        self.tools = tools
        self.registry = tools.registry
        self.settings = tools.config.worker
        self.concurrency = concurrency or self.settings.concurrency
        self.id = new_id()
        self.runner = Runner(tools, self.id)
        url = self.registry.database.url.render_as_string(hide_password=False)
        self.engine = Engine(url, self.id, self.runner.drive)
        self._resumed: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""
        async with self._employed():
            chores = [asyncio.create_task(chore()) for chore in (self._take_orphans, self._tidy)]
            try:
                await self._take_queued(stop)
            finally:
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, return_exceptions=True)
                await self._drain()

    async def run_one(self, operation_id: str) -> None:
        """Run this one operation to its end."""
        async with self._employed():
            async with self.registry.write() as tx:
                operation = await journal.claim(tx, self.id, operation_id)
            if operation is not None:
                await self.engine.run(operation.id, operation.attempt)
            while True:
                async with self.registry.read() as tx:
                    current = await journal.get(tx, operation_id)
                if not current.state.live:
                    return
                await self._resume_orphans(operation_id)
                await asyncio.sleep(0.01 if operation else ORPHAN_POLL)

    @contextlib.asynccontextmanager
    async def _employed(self) -> AsyncIterator[None]:
        moment = now()
        entry = journal.Worker(self.id, socket.gethostname(), os.getpid(), moment, moment, self.concurrency)
        async with self.registry.write() as tx:
            await journal.enlist(tx, entry)
        self.engine.start()
        heart = asyncio.create_task(self._beat(entry))
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            await self.engine.stop()
            async with self.registry.write() as tx:
                await journal.dismiss(tx, self.id)

    async def _beat(self, entry: journal.Worker) -> None:
        while True:
            await asyncio.sleep(self.settings.heartbeat)
            with contextlib.suppress(RegistryUnavailable):
                async with self.registry.write() as tx:
                    if not await journal.beat(tx, self.id):
                        await journal.enlist(tx, entry)

    async def _take_queued(self, stop: asyncio.Event) -> None:
        async with Feed.signal(self.registry.database) as signal:
            while not stop.is_set():
                try:
                    while len(self.runner.running) < self.concurrency and await self._take_one():
                        pass
                except RegistryUnavailable as error:
                    log.warning("%s", error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await signal.wait()

    async def _take_one(self) -> bool:
        async with self.registry.read() as tx:
            if not await journal.anything_queued(tx):
                return False
        async with self.registry.write() as tx:
            operation = await journal.claim(tx, self.id)
        if operation is None:
            return False
        log.info("operation %s: %s %s", operation.id, operation.verb, operation.tenant_slug or "")
        self.runner.begin(operation.id)
        await self.engine.run(operation.id, operation.attempt)
        return True

    async def _take_orphans(self) -> None:
        while True:
            await asyncio.sleep(ORPHAN_POLL)
            try:
                await self._resume_orphans()
            except RegistryUnavailable as error:
                log.warning("%s", error)

    async def _resume_orphans(self, only: str | None = None) -> None:
        """Have the engine go on with operations whose worker died, and with those this process let fall."""
        async with self.registry.read() as tx:
            lost = await journal.orphans(tx, self.settings.dead_after, self.id)
        for operation in lost:
            if operation.id in self.runner.running or (only is not None and operation.id != only):
                continue
            asked = self._resumed.get(operation.id, -self.settings.dead_after * 2)
            if time.monotonic() - asked < self.settings.dead_after:
                continue
            async with self.registry.write() as tx:
                if not await journal.adopt(tx, operation, self.id):
                    continue
            self._resumed[operation.id] = time.monotonic()
            log.info("operation %s (%s) goes on", operation.id, operation.verb)
            await self.engine.resume(operation.id, operation.attempt)

    async def _tidy(self) -> None:
        """Clear away what dead processes left, once; then end workers and redirects whose time is over, on and on."""
        for resources in self.tools.resources.values():
            for resource in resources:
                for gone in await resource.tidy():
                    log.info("removed %s", gone)
        while True:
            with contextlib.suppress(RegistryUnavailable):
                async with self.registry.write() as tx:
                    await journal.bury(tx, self.settings.dead_after)
                    await tenants.forget_former(tx)
            await asyncio.sleep(TIDY_POLL)

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.runner.idle()
