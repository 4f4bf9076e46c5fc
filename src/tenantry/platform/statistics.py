"""Counts over the whole platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tenantry.identity import Reach, verb
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import statistics
from tenantry.registry.database import now
from tenantry.registry.statistics import Share, Storage

LARGEST: Final = 10
"""Tenants that are named for what they take up."""


@dataclass(frozen=True, slots=True)
class Grown:
    """How many of today's tenants there were at the end of a day."""

    day: str
    tenants: int


@dataclass(frozen=True, slots=True)
class Worked:
    """How many operations were asked for on a day, by how they ended."""

    day: str
    done: int
    failed: int
    cancelled: int
    open: int  # not over


@dataclass(frozen=True, slots=True)
class Counted:
    """The platform in numbers. Storage is what workers measured last."""

    at: datetime
    tenants: int
    by_status: Mapping[str, int]
    by_blueprint: Mapping[str, int]
    by_plan: Mapping[str, int]
    growth: Sequence[Grown]
    admins: int
    sessions: int  # of admin users, that hold still
    tokens: int
    tokens_used: int  # within a day
    organizations: int
    storage: Storage
    by_server: Sequence[Share]
    largest: Sequence[Share]
    operations: Sequence[Worked]


class Statistics:
    """What is counted."""

    def __init__(self, tools: Toolbox) -> None:
        self._registry = tools.registry

    @verb("platform.statistics", "platform:read", Reach.PLATFORM)
    async def show(self, days: int = 30) -> Counted:
        """Tenants, storage, operations and people, with their last so many days (1 to 366)."""
        moment = now()
        length = min(max(days, 1), 366)
        since = (moment - timedelta(days=length - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
        dates = [f"{since + timedelta(days=at):%Y-%m-%d}" for at in range(length)]
        async with self._registry.read() as tx:
            made = await statistics.made_by_day(tx, since)
            worked = await statistics.operations_by_day(tx, since)
            kinds = await statistics.tenants_by(tx)
            storage, by_server = await statistics.storage(tx)
            tenants = sum(kinds["status"].values())
            return Counted(
                at=moment,
                tenants=tenants,
                by_status=kinds["status"],
                by_blueprint=kinds["blueprint"],
                by_plan=kinds["plan"],
                growth=_grown(dates, tenants - sum(made.values()), made),
                storage=storage,
                by_server=by_server,
                largest=await statistics.largest(tx, LARGEST),
                operations=[_worked(day, worked.get(day, {})) for day in dates],
                **await statistics.people(tx),
            )


def _grown(dates: Sequence[str], older: int, made: Mapping[str, int]) -> list[Grown]:
    found, total = [], older
    for day in dates:
        total += made.get(day, 0)
        found.append(Grown(day, total))
    return found


def _worked(day: str, counts: Mapping[str, int]) -> Worked:
    names = ("done", "failed", "cancelled", "open")
    return Worked(day, *(counts.get(name, 0) for name in names))
