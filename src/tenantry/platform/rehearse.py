"""Rehearsals of migrations, and what they found."""

from __future__ import annotations

import json
import secrets
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ByteSize, TypeAdapter, ValidationError

from tenantry.errors import ConfigError
from tenantry.identity import Reach, verb
from tenantry.model import new_id
from tenantry.operations import due, migrate, rehearse
from tenantry.operations.due import Wanted
from tenantry.operations.forecast import Expected, Measured, Share, forecast
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import journal, tenants
from tenantry.registry.journal import Item, State, StepState
from tenantry.resources import Phase
from tenantry.resources.scratch import need

DISK: Final = "5GB"
"""The room that all copies have together, unless another is given."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A tenant whose migration would fail, or that could not be rehearsed."""

    tenant: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A tenant that was passed over, and why."""

    tenant: str
    reason: str


@dataclass(frozen=True, slots=True)
class Part:
    """Shared tables, and of how many of their tenants the copy had the rows."""

    tables: str
    tenants: int
    sharing: int

    @property
    def told(self) -> str:
        """It in words."""
        return f"{self.tables}: with the rows of {self.tenants} of {self.sharing} tenants"


@dataclass(frozen=True, slots=True)
class Lock:
    """The strongest lock that a migration takes on a table."""

    table: str
    mode: str
    blocks: str  # what waits for it
    seconds: float  # the longest that one copy saw it held
    tenants: int  # on how many copies


@dataclass(frozen=True, slots=True)
class Line:
    """What one migration did on the copies."""

    blueprint: str
    resource: str
    version: str
    tenants: int
    median: float  # seconds
    slowest: float
    tenant: str  # on whose copy that was
    locks: tuple[Lock, ...]
    rewritten: tuple[str, ...]  # tables that are written anew, on one copy at least


@dataclass(frozen=True, slots=True)
class Report:
    """What a rehearsal found."""

    operation: str
    state: str
    rehearsed: int
    due: int
    seed: int
    parallel: int
    disk: int
    failures: tuple[Failure, ...]
    skipped: tuple[Skipped, ...]
    parts: tuple[Part, ...]
    migrations: tuple[Line, ...]
    forecast: tuple[Expected, ...]

    @property
    def well(self) -> bool:
        """Whether it came to its end, and every tenant would go well."""
        return self.state == State.DONE and not self.failures

    @property
    def seconds(self) -> float:
        """What the fleet is expected to take: its servers work side by side."""
        return max((one.seconds for one in self.forecast), default=0.0)

    @property
    def error(self) -> float:
        """How many seconds the fleet may take more or less."""
        return max((one.error for one in self.forecast), default=0.0)


class Rehearsals:
    """Trying migrations on scratch copies before they touch a tenant."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry

    @verb("migrate.rehearse", "platform:write", Reach.PLATFORM)
    async def run(
        self,
        sample: str | None = None,
        *,
        disk: str = DISK,
        parallel: int | None = None,
        seed: int | None = None,
        to: str | None = None,
        phase: Phase | None = None,
        blueprint: str | None = None,
        slugs: Sequence[str] = (),
    ) -> journal.Operation:
        """Queue a rehearsal of what `migrations.run` would do, on copies of all tenants or of a sample ("20", "10%").

        All copies together come to no more than `disk` ("5GB"); `parallel` are worked on at a time on each server. The
        same seed chooses the same sample. Raises `ConfigError`, `TenantNotFound` or `MigrationInvalid`.
        """
        count, room, wanted = (
            rehearse.parse_sample(sample),
            parse_size(disk),
            Wanted(blueprint, to, phase, tuple(slugs)),
        )
        wanted.check()
        at_once = migrate.check_parallel(self._tools.config.migrate.parallel if parallel is None else parallel)
        seed = secrets.randbelow(1_000_000) if seed is None else seed
        async with self._registry.read() as tx:
            for slug in slugs:
                await tenants.find(tx, slug)
            await self._tools.learn_servers(tx)
            found = await due.due(tx, self._tools, wanted)
            await due.refuse_edited(tx, self._tools, found)
        known = await rehearse.candidates(self._tools, found)
        chosen = rehearse.choose(known, count(len(known)), seed)
        arguments = {"parallel": at_once, "disk": room, "seed": seed, "sample": sample, "due": len(known)}
        fleet = {server: asdict(share) for server, share in rehearse.shares(known).items()}
        operation_id = new_id()
        async with self._registry.write() as tx:
            steps, items = [(rehearse.STEP, "")], [one.item for one in chosen]
            await journal.submit(
                tx, operation_id, rehearse.Rehearse.name, steps, arguments={**arguments, "fleet": fleet}, items=items
            )
            tx.audit("platform.rehearse", "platform", operation=operation_id, tenants=len(items), to=to)
            return await journal.get(tx, operation_id)

    @verb("migrate.rehearsal", "platform:read", Reach.PLATFORM)
    async def report(self, operation_id: str) -> Report:
        """What a rehearsal found so far. Raises `OperationNotFound`, or `ConfigError` for another operation."""
        async with self._registry.read() as tx:
            operation = await journal.get(tx, operation_id)
            if operation.verb != rehearse.Rehearse.name:
                raise ConfigError(f"'{operation.id}' is no rehearsal; it is {operation.verb}.")
            items = await journal.items(tx, operation.id)
        arguments = operation.arguments
        told = [(item, _told(item)) for item in items]
        fleet = {server: Share(**share) for server, share in arguments["fleet"].items()}
        return Report(
            operation=operation.id,
            state=operation.state.value,
            rehearsed=sum("tried" in found for _, found in told),
            due=arguments["due"],
            seed=arguments["seed"],
            parallel=arguments["parallel"],
            disk=arguments["disk"],
            failures=tuple(_failure(item) for item in items if item.state is StepState.FAILED),
            skipped=tuple(Skipped(item.subject, found["skipped"]) for item, found in told if "skipped" in found),
            parts=tuple(Part(item.subject, *found["part"]) for item, found in told if "part" in found),
            migrations=tuple(_lines(told)),
            forecast=tuple(forecast(list(_measured(told)), fleet, arguments["parallel"])),
        )


def parse_size(text: str) -> int:
    """Bytes from "5GB", "500MiB" or "1e9". Raises `ConfigError`."""
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text.strip()))
    except ValidationError as error:
        raise ConfigError(f"'{text}' is no size.", remedy='Write it like "5GB" or "500MiB".') from error
    if size < need(0):
        raise ConfigError(f"{text} is less than the smallest copy takes.", remedy=f"Give {need(0)} bytes or more.")
    return size


def _told(item: Item) -> Mapping[str, Any]:
    """What the rehearsal of one item found; nothing where it did not come so far."""
    if item.state not in (StepState.DONE, StepState.FAILED) or not item.detail:
        return {}
    found: Mapping[str, Any] = json.loads(item.detail)
    return found


def _failure(item: Item) -> Failure:
    error = item.error or {}
    return Failure(item.subject, error.get("message", ""), error.get("remedy", ""))


def _measured(told: Iterable[tuple[Item, Mapping[str, Any]]]) -> Iterable[Measured]:
    """How long those took whose migrations all went well; a part of shared tables as if it were all of them."""
    for item, found in told:
        if item.state is StepState.DONE and "tried" in found:
            whole = max(found["bytes"], found.get("whole", 0))
            seconds = sum(one["seconds"] for one in found["tried"])
            yield Measured(item.lane, whole, seconds * whole / max(1, found["bytes"]))


def _lines(told: Iterable[tuple[Item, Mapping[str, Any]]]) -> Iterable[Line]:
    """Each migration over all copies, in the order they come."""
    groups: dict[tuple[str, str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for item, found in told:
        for one in found.get("tried", ()):
            key = (item.arguments["blueprint"], item.arguments["resource"], one["version"])
            groups.setdefault(key, []).append((item.subject, one))
    for (blueprint, resource, version), some in sorted(groups.items()):
        tenant, slowest = max(some, key=lambda pair: float(pair[1]["seconds"]))
        median = statistics.median(one["seconds"] for _, one in some)
        rewritten = sorted({table for _, one in some for table in one["rewritten"]})
        locks = tuple(_locks([one for _, one in some]))
        yield Line(blueprint, resource, version, len(some), median, slowest["seconds"], tenant, locks, tuple(rewritten))


def _locks(some: Iterable[Mapping[str, Any]]) -> Iterable[Lock]:
    groups: dict[tuple[str, str, str], list[float]] = {}
    for one in some:
        for held in one["locks"]:
            groups.setdefault((held["table"], held["mode"], held["blocks"]), []).append(held["seconds"])
    for (table, mode, blocks), seconds in sorted(groups.items()):
        yield Lock(table, mode, blocks, max(seconds), len(seconds))


# --- as text ------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Seconds as people read them: "40 ms", "3.2 s", "12.5 min"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


METHOD: Final = (
    "A straight line through seconds and bytes of the copies, by least squares, for each server with three or more of "
    "them, otherwise for all. ± is two standard errors. Counted is what the migrations themselves took on copies that "
    "nobody used; connecting, recording and waiting for other sessions' locks come on top."
)


def markdown(report: Report) -> str:
    """A report as Markdown."""
    lines = [
        f"# Rehearsal {report.operation}",
        "",
        f"{report.rehearsed} of {report.due} rehearsed, seed {report.seed}.",
    ]
    lines += ["", f"## Would fail: {len(report.failures)}", ""]
    lines += [f"- **{one.tenant}**: {one.message} {one.remedy}".rstrip() for one in report.failures]
    if report.skipped:
        lines += ["", f"## Skipped: {len(report.skipped)}", ""]
        lines += [f"- **{one.tenant}**: {one.reason}" for one in report.skipped]
    lines += ["", *(f"- {one.told}" for one in report.parts)] if report.parts else []
    lines += ["", "## Migrations", "", "| migration | copies | median | slowest | locks | written anew |"]
    lines += ["| --- | --- | --- | --- | --- | --- |", *map(_row, report.migrations)]
    lines += ["", "## Forecast", "", "| server | tenants | measured | expected |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {one.server} | {one.tenants} | {one.measured} | {duration(one.seconds)} ± {duration(one.error)} |"
        for one in report.forecast
    ]
    return "\n".join([*lines, "", f"With {report.parallel} at a time on each server. {METHOD}", ""])


def _row(line: Line) -> str:
    locks = "; ".join(locked(lock) for lock in line.locks) or "–"
    times = f"{duration(line.median)} | {duration(line.slowest)} ({line.tenant})"
    return f"| {line.version} | {line.tenants} | {times} | {locks} | {', '.join(line.rewritten) or '–'} |"


def locked(lock: Lock) -> str:
    """A lock in words: "page ACCESS EXCLUSIVE 120 ms, blocks reads and writes"."""
    held = f" {duration(lock.seconds)}" if lock.seconds else ""
    return f"{lock.table} {lock.mode}{held}" + (f", blocks {lock.blocks}" if lock.blocks else "")


def write(report: Report, where: Path) -> None:
    """Write a report as Markdown where the file's name ends so, otherwise as JSON."""
    text = markdown(report) if where.suffix == ".md" else json.dumps(asdict(report), ensure_ascii=False, indent=2)
    where.write_text(text, "utf-8")
