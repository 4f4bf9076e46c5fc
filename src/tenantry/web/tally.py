"""Requests to the API, counted in the memory of each process and written down now and then, in one statement each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from datetime import UTC, datetime
from typing import Final

from tenantry.errors import TenantryError
from tenantry.registry import Registry, statistics

EVERY: Final = 30.0
"""Seconds between two times; a process that is killed loses no more than these."""

log: Final = logging.getLogger(__name__)


class Tally:
    """How many requests there were on each day since the last time."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def add(self) -> None:
        """Count one, of today."""
        self._counted[f"{datetime.now(UTC):%Y-%m-%d}"] += 1

    def begin(self, registry: Registry) -> None:
        """Write down now and then."""
        self._task = asyncio.create_task(self._ever(registry))

    async def _ever(self, registry: Registry) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.write(registry)

    async def write(self, registry: Registry) -> None:
        """Write down what was counted; where that fails, the next time does."""
        counted, self._counted = self._counted, Counter()
        if not counted:
            return
        try:
            async with registry.write() as tx:
                await statistics.add_to_days(tx, statistics.API, counted)
        except TenantryError as error:
            self._counted += counted
            log.warning("Requests were not written down: %s", error)

    async def close(self, registry: Registry) -> None:
        """Write down the last ones."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.write(registry)
