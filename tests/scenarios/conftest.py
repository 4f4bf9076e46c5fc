"""A platform for each scenario."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleets import LIMITS, Fleet, PoolLimits
from ground import Ground
from tenantry.runtime import Runtime

Start = Callable[..., Awaitable[Runtime]]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A platform without tenants."""
    return Ground(tmp_path / "platform")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A platform without tenants and servers."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.clear()


@pytest.fixture
async def started(fleet: Fleet) -> AsyncIterator[Start]:
    """Makes and starts runtimes in the test's event loop, and stops them."""
    made: list[Runtime] = []

    async def start(pool: PoolLimits = LIMITS, **changes: Any) -> Runtime:
        runtime = fleet.runtime(pool, **changes)
        made.append(runtime)
        await runtime.install().start()
        return runtime

    yield start
    for runtime in made:
        await runtime.stop()
    await asyncio.sleep(0.1)  # connections say good-bye aside
