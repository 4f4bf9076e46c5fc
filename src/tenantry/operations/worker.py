"""A worker: shows signs of life, takes queued operations, and takes over those of workers that show none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final

from tenantry.errors import RegistryUnavailable, TenantryError
from tenantry.mail.bounces import listen
from tenantry.mail.delivery import Delivery
from tenantry.model import new_id
from tenantry.operations import trials, verify
from tenantry.operations.engine import Engine
from tenantry.operations.measure import measure_some
from tenantry.operations.runner import Runner
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Feed, journal, signups, support, tenants
from tenantry.registry.database import now
from tenantry.resources import Resource

log: Final = logging.getLogger("tenantry.worker")

ORPHAN_POLL: Final = 0.5
QUEUE_LOOK: Final = 1.0
BUSY_LOOK: Final = 0.03
"""Seconds between two looks while something is under way here: each of its steps is a sign to look, too."""

AFTER_FAULT: Final = 0.5

TIDY_EVERY: Final = 10
"""How often a worker tidies up, in multiples of `worker.dead_after`."""

TIDY_AFTER: Final = 1.0
"""Seconds in which a worker that begins takes what is queued, before it tidies up."""

FRESH: Final = 60.0
"""Seconds for which the engine's notes of an operation that is over are kept: whoever ran it may be about to write."""

STALLED: Final = 0.75
"""The share of `worker.dead_after` after which a worker that could not say it lives stops judging others by that."""

SCHEDULE_LOOK: Final = 5.0
"""Seconds between two looks at what is to be done on a schedule."""

LEAVERS_LOOK: Final = 0.5
"""Seconds between two looks at whom organizations' directories shut out of tenants."""

MEASURE_LOOK: Final = 10.0
"""Seconds between two looks at what of the tenants is to be measured."""

LISTEN_AGAIN: Final = 5.0
"""Seconds after which the port for mail that comes back is tried again, where another worker has it."""

TURN: Final = 0.02

REFILL_EVERY: Final = 10.0
"""Seconds between two looks at the warm spares, where no tenant is made meanwhile."""

REFILL_BUSY: Final = 1.0
"""Seconds until a worker whose hands are full thinks of spares again."""

DRAIN_SECONDS: Final = 30.0
"""How long an ending worker waits for the ends of its steps; what is left goes on at another one."""


_here: Worker | None = None


class Worker:
    """One worker process, or one operation run by a command when no worker lives."""

    def __init__(self, tools: Toolbox, concurrency: int | None = None) -> None:
        self.tools = tools
        self.registry = tools.registry
        self.settings = tools.config.worker
        self.concurrency = concurrency or self.settings.concurrency
        self.id = new_id()
        self.runner = Runner(tools, self.id)
        self.delivery = Delivery(self.registry, tools.config)
        self.engine = Engine(self.registry.database, self.id, self.runner.drive)
        self._resumed: dict[str, float] = {}
        self._beaten = time.monotonic()
        self._fair_after = 0.0
        self._untidy = asyncio.Event()
        self._untidy.set()
        self._began = now()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""
        async with self._employed():
            chores = [
                asyncio.create_task(_ever(self._resume_orphans, ORPHAN_POLL)),
                asyncio.create_task(_ever(self._tidy, TIDY_AFTER)),
                asyncio.create_task(_ever(self._refill, 0)),
                asyncio.create_task(_ever(self._verify_when_due, SCHEDULE_LOOK)),
                asyncio.create_task(_ever(partial(measure_some, self.tools), MEASURE_LOOK)),
                asyncio.create_task(_ever(self._trials, SCHEDULE_LOOK)),
                asyncio.create_task(_ever(self._leavers, LEAVERS_LOOK)),
                asyncio.create_task(_ever(partial(listen, self.registry, self.tools.config), LISTEN_AGAIN)),
            ]
            post = asyncio.create_task(self.delivery.run(stop))
            try:
                await self._take_queued(stop)
            finally:
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, return_exceptions=True)
                await self._drain(post)

    async def run_one(self, operation_id: str) -> None:
        """Run this one operation to its end."""
        async with self._employed():
            mine = False
            while True:
                async with self.registry.read() as tx:
                    current = await journal.get(tx, operation_id)
                if not current.state.live:
                    return
                if current.state is journal.State.QUEUED:
                    mine = await self._take_one(operation_id) or mine
                await self._resume_orphans(operation_id)
                await (self.runner.rest if mine else asyncio.sleep)(ORPHAN_POLL)

    @staticmethod
    def one_is_here() -> bool:
        """Whether a worker has this process's engine."""
        return _here is not None

    @contextlib.asynccontextmanager
    async def _employed(self) -> AsyncIterator[None]:
        """Have the engine, which is a global of the process: one worker at a time."""
        global _here
        while _here is not None:  # noqa: ASYNC110 - it may belong to another event loop
            await asyncio.sleep(TURN)
        _here = self
        try:
            async with self._at_work():
                yield
        finally:
            _here = None

    @contextlib.asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        moment = now()
        entry = journal.Worker(self.id, socket.gethostname(), os.getpid(), moment, moment, self.concurrency)
        async with self.registry.write() as tx:
            await journal.enlist(tx, entry)
        await self.engine.start()
        self._beaten = time.monotonic()
        heart = asyncio.create_task(_ever(partial(self._beat, entry), self.settings.heartbeat))
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            await self.engine.stop()
            async with self.registry.write() as tx:
                await journal.dismiss(tx, self.id)

    async def _beat(self, entry: journal.Worker) -> None:
        async with self.registry.write() as tx:
            if not await journal.beat(tx, self.id):
                await journal.enlist(tx, entry)
        moment = time.monotonic()
        if moment - self._beaten > self.settings.dead_after * STALLED:
            self._fair_after = moment + self.settings.dead_after
        self._beaten = moment

    def _may_judge(self) -> bool:
        """Whether silence of others means anything: not while this worker could not write either, nor just after."""
        moment = time.monotonic()
        return moment >= self._fair_after and moment - self._beaten <= self.settings.dead_after * STALLED

    async def _take_queued(self, stop: asyncio.Event) -> None:
        async with Feed.signal(self.registry.database) as signal:
            while not stop.is_set():
                try:
                    while len(self.runner.running) < self.concurrency and await self._take_one():
                        pass
                except RegistryUnavailable as error:
                    log.warning("%s", error)
                if self.runner.running:
                    await asyncio.sleep(BUSY_LOOK)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(QUEUE_LOOK):
                        await signal.wait()

    async def _take_one(self, operation_id: str | None = None) -> bool:
        async with self.registry.read() as tx:
            if not await journal.anything_queued(tx):
                return False
        async with self.registry.write() as tx:
            claimed = await journal.claim(tx, self.id, operation_id)
            if claimed is None:
                return False
            operation = await self.runner.take(tx, claimed.id)
        log.info("operation %s: %s %s", operation.id, operation.verb, operation.tenant_slug or "")
        self.runner.begin(operation.id)
        try:
            await self.engine.run(operation.id, operation.attempt)
        except Exception:  # the engine's own database may be out of reach; it is asked again as one let fall
            log.exception("operation %s did not begin", operation.id)
            self.runner.over(operation.id)
        return True

    async def _resume_orphans(self, only: str | None = None) -> None:
        """Have the engine go on with operations whose worker died, and with those this process let fall."""
        if not self._may_judge():
            return
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
            self._untidy.set()
            log.info("operation %s (%s) goes on", operation.id, operation.verb)
            await self.engine.resume(operation.id, operation.attempt)

    async def _tidy(self) -> None:
        """End workers and redirects whose time is over; clear away what dead processes left where there may be some."""
        await self.runner.rest(self.settings.dead_after)  # to remove a database costs a server a checkpoint
        if self._untidy.is_set():
            self._untidy.clear()
            await self._learn()
            for resource in self._resources():
                try:
                    for gone in await resource.tidy():
                        log.info("removed %s", gone)
                except TenantryError as error:  # a server that is down must not keep the others untidy
                    log.warning("%s", error)
        async with self.registry.write() as tx:
            await journal.bury(tx, self.settings.dead_after)
            await tenants.forget_former(tx)
            await support.end_over(tx)
            await signups.forget_over(tx, now())
        await self.delivery.tidy()
        await self._forget_ended()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.dead_after * TIDY_EVERY):
                await self._untidy.wait()

    async def _refill(self) -> None:
        """Keep warm spares ready where blueprints want them, when there is a hand free; their drivers take turns."""
        if len(self.runner.running) >= self.concurrency:
            await asyncio.sleep(REFILL_BUSY)
            return
        self.runner.made.clear()
        wanted = [resource for resource in self._resources() if getattr(resource.options, "spares", 0)]
        if wanted:
            await self._learn()
        for resource in wanted:
            try:
                made = await resource.refill()
            except TenantryError as error:
                log.warning("%s", error)
            else:
                if made:
                    log.info("made %d spares of %s.%s", made, resource.setting.blueprint, resource.name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFILL_EVERY):
                await self.runner.made.wait()

    async def _verify_when_due(self) -> None:
        """Enter a verification when its schedule says so; of several workers the first one does."""
        settings = self.tools.config.verify
        if settings.schedule is None:
            return
        async with self.registry.read() as tx:
            due = await verify.is_due(tx, settings.schedule, self._began)
        if due:
            async with self.registry.write(verify.SCHEDULE) as tx:
                await verify.submit_due(tx, settings.schedule, settings.sample, self._began)

    async def _trials(self) -> None:
        """Do what trials that end want done."""
        await trials.turn(self.tools, now())

    async def _leavers(self) -> None:
        """Carry out at tenants what organizations' directories say of their people."""
        while self.tools.leave is not None and await self.tools.leave():
            continue

    def _resources(self) -> list[Resource]:
        return [resource for resources in self.tools.resources.values() for resource in resources]

    async def _learn(self) -> None:
        async with self.registry.read() as tx:
            await self.tools.learn_released(tx)
            if any(resource.server_kind for resource in self._resources()):
                await self.tools.learn_servers(tx)

    async def _forget_ended(self) -> None:
        """Clear the engine's notes of operations that have been over for a while."""
        notes = await self.engine.notes()
        async with self.registry.read() as tx:
            live = await journal.live_or_fresh(tx, sorted(set(notes.values())), FRESH)
        gone = [workflow for workflow, operation in notes.items() if operation not in live]
        if gone:
            await self.engine.forget(gone)

    async def _drain(self, post: asyncio.Task[None]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.runner.idle()
                await asyncio.shield(post)  # a letter that was taken is recorded, or it comes twice
        post.cancel()
        await asyncio.gather(post, return_exceptions=True)


async def _ever(chore: Callable[[], Awaitable[None]], pause: float) -> None:
    """Do a chore again and again; what it raises is logged and holds up nothing."""
    while True:
        await asyncio.sleep(pause)
        try:
            await chore()
        except RegistryUnavailable as error:
            log.warning("%s", error)
            await asyncio.sleep(AFTER_FAULT)
        except Exception:
            log.exception("a chore of this worker failed")
            await asyncio.sleep(AFTER_FAULT)
