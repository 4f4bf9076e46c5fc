"""Counts over the whole platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tenantry.identity import Reach, sees_only, verb
from tenantry.operations.toolbox import Toolbox
from tenantry.platform.counting import OURS
from tenantry.registry import Transaction, statistics
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
class Day:
    """How much there was of something on a day; None: nobody counted."""

    day: str
    number: int | None


@dataclass(frozen=True, slots=True)
class Owner:
    """A tenant, and how much of something it has."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that is counted in each tenant."""

    name: str  # "users", "active_sessions", and what blueprints count
    number: int
    days: Sequence[Day]  # over all tenants, for those who see all
    most: Sequence[Owner]


@dataclass(frozen=True, slots=True)
class Counted:
    """The platform in numbers; for an admin, her tenants. Storage and things are as workers found them last."""

    at: datetime
    tenants: int
    by_status: Mapping[str, int]
    by_blueprint: Mapping[str, int]
    by_plan: Mapping[str, int]
    growth: Sequence[Grown]
    things: Sequence[Thing]
    admins: int | None  # None, here and below: not this person's to know
    sessions: int | None  # of admin users, that hold still
    tokens: int | None
    tokens_used: int | None  # within a day
    organizations: int | None
    requests: Sequence[Day] | None  # to the API
    served: Sequence[Day] | None  # requests to tenants' sites
    begun: Sequence[Day] | None  # sessions of tenants' users
    storage: Storage
    by_server: Sequence[Share]
    largest: Sequence[Share]
    operations: Sequence[Worked]


HIDDEN: Final = dict.fromkeys(("admins", "sessions", "tokens", "tokens_used", "organizations"))


class Statistics:
    """What is counted."""

    def __init__(self, tools: Toolbox) -> None:
        self._registry = tools.registry

    @verb("platform.statistics", "platform:read", Reach.LIST)
    async def show(self, days: int = 30) -> Counted:
        """Tenants, users, storage, operations and requests, with their last so many days (1 to 366).

        An admin sees what her tenants make of it, and nothing of the platform's own.
        """
        moment, only = now(), sees_only()
        length = min(max(days, 1), 366)
        since = (moment - timedelta(days=length - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
        dates = [f"{since + timedelta(days=at):%Y-%m-%d}" for at in range(length)]
        async with self._registry.read() as tx:
            made = await statistics.made_by_day(tx, since, only)
            worked = await statistics.operations_by_day(tx, since, only)
            kinds = await statistics.tenants_by(tx, only)
            storage, by_server = await statistics.storage(tx, only)
            tenants = sum(kinds["status"].values())
            people: Mapping[str, int | None] = HIDDEN if only else await statistics.people(tx)
            return Counted(
                at=moment,
                tenants=tenants,
                by_status=kinds["status"],
                by_blueprint=kinds["blueprint"],
                by_plan=kinds["plan"],
                growth=_grown(dates, tenants - sum(made.values()), made),
                things=await _things(tx, dates, only),
                requests=None if only else await _days(tx, statistics.API, dates, 0),
                served=None if only else await _days(tx, statistics.SERVED + "requests", dates, 0),
                begun=None if only else await _days(tx, statistics.SERVED + "sessions", dates, 0),
                storage=storage,
                by_server=by_server,
                largest=await statistics.largest(tx, LARGEST, only),
                operations=[_worked(day, worked.get(day, {})) for day in dates],
                **people,
            )


async def _things(tx: Transaction, dates: Sequence[str], only: str | None) -> list[Thing]:
    found = []
    for name, number in (await statistics.counts(tx, only)).items():
        days = [] if only else await _days(tx, statistics.COUNTED + name, dates, None)
        most = [Owner(slug, count) for slug, count in await statistics.most(tx, name, LARGEST, only)]
        found.append(Thing(name, number, days, most))
    first = list(OURS)
    return sorted(found, key=lambda thing: (first.index(thing.name) if thing.name in first else len(first), thing.name))


async def _days(tx: Transaction, name: str, dates: Sequence[str], missing: int | None) -> list[Day]:
    found = await statistics.totals_by_day(tx, name, dates[0])
    return [Day(day, found.get(day, missing)) for day in dates]


def _grown(dates: Sequence[str], older: int, made: Mapping[str, int]) -> list[Grown]:
    found, total = [], older
    for day in dates:
        total += made.get(day, 0)
        found.append(Grown(day, total))
    return found


def _worked(day: str, counts: Mapping[str, int]) -> Worked:
    names = ("done", "failed", "cancelled", "open")
    return Worked(day, *(counts.get(name, 0) for name in names))
