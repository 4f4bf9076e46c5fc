"""Rehearse a migration on scratch copies of all tenants or of a sample, within a limit on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

from tenantry.errors import ConfigError, TenantryError
from tenantry.model import Environment, Rehearsed
from tenantry.operations import rehearsal
from tenantry.operations.due import Due
from tenantry.operations.fleet import Stopwatch
from tenantry.operations.forecast import Share
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal, schemas
from tenantry.resources import Resource
from tenantry.resources.scratch import NoRoom, need

STEP: Final = "copies"
WEIGHED: Final = 200
"""Tenants whose sizes are asked together."""

WEIGHING: Final = 8
"""Tenants whose sizes are asked at a time."""

HERE: Final = "this host"
"""What stands for a server where a resource lies in a file."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One resource of one tenant, or of all that share its tables, that could be rehearsed."""

    due: Due
    bytes: int | None  # None: it could not be asked

    @property
    def server(self) -> str:
        """Where it lies."""
        return self.due.server or HERE

    @property
    def item(self) -> journal.NewItem:
        """It as an item of an operation."""
        due = self.due
        arguments = {
            "tenant": due.tenant_id,
            "environment": due.environment_id,
            "blueprint": due.blueprint,
            "resource": due.resource,
            "from": due.version,
            "to": due.target,
            "shared": [due.server, due.location] if due.shared else None,
        }
        return journal.NewItem(0, due.slug, arguments, lane=self.server)


# --- choosing -----------------------------------------------------------------------------------------------------


async def candidates(tools: Toolbox, found: Sequence[Due]) -> list[Candidate]:
    """What is due, with how large it is."""
    known: list[Candidate] = []
    for group in _by_resource(found):
        resource = tools.resource(group[0].blueprint, group[0].resource)
        for start in range(0, len(group), WEIGHED):
            known += await _weighed(tools, resource, group[start : start + WEIGHED])
    return known


def _by_resource(found: Sequence[Due]) -> list[list[Due]]:
    groups: dict[tuple[str, str], list[Due]] = {}
    for one in found:
        groups.setdefault((one.blueprint, one.resource), []).append(one)
    return list(groups.values())


async def _weighed(tools: Toolbox, resource: Resource, some: Sequence[Due]) -> list[Candidate]:
    if not resource.can_rehearse:
        return [Candidate(one, None) for one in some]
    async with tools.registry.read() as tx:
        spots = [
            await _spot(tx, (one.tenant_id, one.environment_id), (one.server, one.location), resource.name, one.shared)
            for one in some
        ]
        environments = {e.id: e for e in await tools.all_environments(tx, {tenant for tenant, _ in spots})}
    there = [(one, environments[spot[1]]) for one, spot in zip(some, spots, strict=True) if spot[1] in environments]
    sizes = await resource.weigh_many([environment for _, environment in there], WEIGHING)
    return [
        Candidate(one, size if isinstance(size, int) else None) for (one, _), size in zip(there, sizes, strict=True)
    ]


async def _spot(
    tx: Transaction, own: tuple[str, str], where: tuple[str | None, str], resource: str, shared: bool
) -> tuple[str, str]:
    """The tenant and the environment that something is looked at through; of shared tables any of those there."""
    if not shared:
        return own
    return await schemas.sharing(tx, str(where[0]), where[1], resource) or own


def parse_sample(text: str | None) -> Callable[[int], int]:
    """How many of so many tenants a sample has: "20" of them or "10%". Raises `ConfigError`."""
    if text is None:
        return lambda total: total
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*(%?)", text.strip(), re.ASCII)
    share = bool(match and match[2])
    if match is None or float(match[1]) <= 0 or (not share and "." in match[1]) or (share and float(match[1]) > 100):
        raise ConfigError(f"'{text}' is no sample.", remedy='Use a number of tenants ("20") or a share ("10%").')
    number = float(match[1])
    return lambda total: min(total, max(1, round(total * number / 100)) if share else int(number))


def choose(found: Sequence[Candidate], number: int, seed: int) -> list[Candidate]:
    """A sample that is spread over resources, servers, versions and sizes, the same for the same seed.

    The largest of each kind of them comes first, as far as the number goes; then every so many-th by size.
    """
    if number >= len(found):
        return list(found)
    chance = random.Random(seed)  # noqa: S311 - a sample is no secret
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    for one in found:
        due = one.due
        groups.setdefault((due.blueprint, due.resource, one.server, due.version or ""), []).append(one)
    ordered = [sorted(some, key=lambda one: (-(one.bytes or 0), chance.random())) for _, some in sorted(groups.items())]
    chance.shuffle(ordered)
    chosen = [some[0] for some in ordered][:number]
    rest = [one for some in ordered for one in some[1:]]
    left = number - len(chosen)
    step = len(rest) / left if left else 0.0
    start = chance.random() * step
    return [*chosen, *(rest[int(start + place * step)] for place in range(left))]


def shares(found: Sequence[Candidate]) -> dict[str, Share]:
    """What lies on each server."""
    made: dict[str, Share] = {}
    for one in found:
        before, size = made.get(one.server, Share(0, 0, 0)), one.bytes or 0
        made[one.server] = Share(before.tenants + 1, before.bytes + size, max(before.largest, size))
    return made


# --- working ------------------------------------------------------------------------------------------------------


class Rehearse(Verb):
    """Rehearses what its items name. Arguments: `parallel` at a time on each server, `disk` bytes for all copies."""

    name: ClassVar[str] = "rehearse"
    reversible: ClassVar[bool] = False  # no copy outlives its rehearsal
    pausable: ClassVar[bool] = True

    async def perform(self, work: Work, step: journal.Step) -> str:
        async with work.tools.registry.read() as tx:
            pending = await journal.items(tx, work.operation.id, state=journal.StepState.PENDING)
        lanes: list[asyncio.Task[None]] = []
        run = _Run(work)
        parallel = max(1, int(work.operation.arguments["parallel"]))
        for server in dict.fromkeys(item.lane for item in pending):
            waiting = iter([item for item in pending if item.lane == server])
            lanes += [asyncio.create_task(run.lane(waiting)) for _ in range(parallel)]
        ended = await asyncio.gather(*lanes, return_exceptions=True)  # each copy is gone before anybody goes on
        for error in ended:
            if error is not None:
                raise error
        return f"{run.good} would go well, {run.bad} would not"

    async def digest(self, work: Work) -> str | None:
        async with work.tools.registry.read() as tx:
            return await rehearsal.digest(tx, await journal.get(tx, work.operation.id))

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        operation = await journal.get(tx, work.operation.id)
        return {"rehearsed": operation.done, "failed": operation.failed}


class Disk:
    """The room that all copies have together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.most = 0  # the most that was ever set aside at a time
        self._used = 0
        self._freed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Set room aside for the time of a block, waiting until there is as much."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._used + size <= self.limit)
            self._used += size
            self.most = max(self.most, self._used)
        try:
            yield
        finally:
            async with self._freed:
                self._used -= size
                self._freed.notify_all()


class _Run:
    """One worker's run through a rehearsal."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tools = work.tools
        self.disk = Disk(int(work.operation.arguments["disk"]))
        self.good = self.bad = 0
        self._stopped = False

    async def lane(self, waiting: Iterator[journal.Item]) -> None:
        """Rehearse one after the other of what waits, as other lanes do, until somebody says stop."""
        try:
            for item in waiting:
                if self._stopped:
                    return
                await self.work.check()
                watch = Stopwatch()
                told, error = await self._one(item)
                await self._record(item, told, error, watch.seconds)
        except BaseException:
            self._stopped = True
            raise

    async def _one(self, item: journal.Item) -> tuple[Mapping[str, Any], TenantryError | None]:
        """What the rehearsal of one found, and why it would fail."""
        arguments = item.arguments
        resource = self.tools.resource(arguments["blueprint"], arguments["resource"])
        environment, others, sharing = await self._whose(item)
        if environment is None:
            return {"skipped": "it was destroyed meanwhile"}, None
        if not resource.can_rehearse:
            return {"skipped": f"a {resource.kind} cannot be rehearsed"}, None
        (size,) = await resource.weigh_many([environment])
        if isinstance(size, TenantryError):
            return {}, size
        room = min(need(size), self.disk.limit) if arguments["shared"] else need(size)
        if room > self.disk.limit:
            return {"skipped": f"its copy may take {room} bytes, and the limit is {self.disk.limit}"}, None
        try:
            async with self.disk.taken(room):
                done = await resource.rehearse(environment, arguments["to"], room, others)
        except NoRoom as error:
            return {"skipped": error.message}, None
        except TenantryError as error:
            return {}, error
        part = {"part": [done.tenants, sharing], "whole": done.whole} if arguments["shared"] else {}
        return tell(done) | part, done.failure

    async def _whose(self, item: journal.Item) -> tuple[Environment | None, list[Environment], int]:
        """The environment that something is rehearsed through, the others of the sample that share its tables, and how
        many do so in all."""
        arguments, chosen = item.arguments, self.work.operation.arguments
        ids = [(arguments["tenant"], arguments["environment"])]
        sharing = 1
        async with self.tools.registry.read() as tx:
            if arguments["shared"]:
                server, location = arguments["shared"]
                ids = await schemas.all_sharing(tx, server, location, arguments["resource"])
                sharing = len(ids)
                random.Random(chosen["seed"]).shuffle(ids)  # noqa: S311 - a sample is no secret
                ids = ids[: parse_sample(chosen["sample"])(sharing)]
            environments = {one.id: one for one in await self.tools.all_environments(tx, [one for one, _ in ids])}
        found = [environments[wanted] for _, wanted in ids if wanted in environments]
        return (found[0] if found else None), found[1:], sharing

    async def _record(
        self, item: journal.Item, told: Mapping[str, Any], error: TenantryError | None, seconds: float
    ) -> None:
        state = journal.StepState.FAILED if error else journal.StepState.DONE
        row = {
            "position": item.position,
            "state": state.value,
            "detail": json.dumps(told, separators=(",", ":")),
            "error": error.as_dict() if error else None,
            "seconds": seconds,
        }
        self.good, self.bad = self.good + (error is None), self.bad + (error is not None)
        async with self.work.write() as tx:
            await journal.set_items(tx, self.work.operation.id, [row])
            await journal.progress(tx, self.work.operation.id, done=int(error is None), failed=int(error is not None))


def tell(done: Rehearsed) -> dict[str, Any]:
    """What a rehearsal found, as an item keeps it."""
    return {
        "before": done.before,
        "target": done.target,
        "bytes": done.bytes,
        "copying": round(done.copying, 4),
        "tried": [asdict(one) for one in done.tried],
    }
