"""What rehearsals found: counted over all their items, and told as text."""

from __future__ import annotations

import json
import statistics
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from tenantry.operations.forecast import Expected, Measured, Share, forecast
from tenantry.registry import Transaction, journal
from tenantry.registry.journal import Item, State, StepState

NAMED: Final = 1000
"""Tenants that are named of each sort; of more only the number is. `operation items` names all that failed."""

SO_FAR: Final = 300
"""Tenants that went well, and that failed, that a report counts before all are over: as many as take a moment."""


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
    ended: int  # of those due, however they ended
    counted: int  # of those that ended; the rest of this is about them
    failed: int
    passed_over: int
    failures: tuple[Failure, ...]  # at most `NAMED`, as are those below
    skipped: tuple[Skipped, ...]
    parts: tuple[Part, ...]
    migrations: tuple[Line, ...]
    forecast: tuple[Expected, ...]

    @property
    def well(self) -> bool:
        """Whether it came to its end, and every tenant would go well."""
        return self.state == State.DONE and not self.failed

    @property
    def seconds(self) -> float:
        """What the fleet is expected to take: its servers work side by side."""
        return max((one.seconds for one in self.forecast), default=0.0)

    @property
    def error(self) -> float:
        """How many seconds the fleet may take more or less."""
        return max((one.error for one in self.forecast), default=0.0)


# --- counting -----------------------------------------------------------------------------------------------------


async def report(tx: Transaction, operation: journal.Operation) -> Report:
    """What a rehearsal found: as it was counted when it was over; before, what some found that ended."""
    content = await journal.digest(tx, operation.id)
    if content is not None:
        return replace(_kept.validate_json(content), state=operation.state.value)
    return _report(operation, await (_some(tx, operation.id) if operation.ended is None else _all(tx, operation.id)))


async def digest(tx: Transaction, operation: journal.Operation) -> str:
    """The report of all, to be kept; in which state the operation is, the operation itself tells."""
    return json.dumps(asdict(_report(operation, await _all(tx, operation.id))), ensure_ascii=False)


async def _all(tx: Transaction, operation_id: str) -> _Seen:
    seen = _Seen()
    async for item in journal.all_items(tx, operation_id):
        seen.add(item)
    return seen


async def _some(tx: Transaction, operation_id: str) -> _Seen:
    seen = _Seen()
    for state in (StepState.DONE, StepState.FAILED):
        for item in await journal.items(tx, operation_id, state=state, limit=SO_FAR):
            seen.add(item)
    return seen


def _report(operation: journal.Operation, seen: _Seen) -> Report:
    arguments = operation.arguments
    fleet = {server: Share(**share) for server, share in arguments["fleet"].items()}
    return Report(
        operation=operation.id,
        state=operation.state.value,
        rehearsed=seen.rehearsed,
        due=arguments["due"],
        seed=arguments["seed"],
        parallel=arguments["parallel"],
        disk=arguments["disk"],
        ended=operation.done + operation.failed,
        counted=seen.counted,
        failed=seen.failed,
        passed_over=seen.passed_over,
        failures=tuple(seen.failures),
        skipped=tuple(seen.skipped),
        parts=tuple(seen.parts),
        migrations=tuple(line.told(*key) for key, line in sorted(seen.lines.items())),
        forecast=tuple(forecast(seen.measured, fleet, arguments["parallel"])),
    )


class _Seen:
    """What the items tell, one after the other."""

    def __init__(self) -> None:
        self.counted = self.rehearsed = self.failed = self.passed_over = 0
        self.failures: list[Failure] = []
        self.skipped: list[Skipped] = []
        self.parts: list[Part] = []
        self.lines: dict[tuple[str, str, str], _Counting] = {}
        self.measured: list[Measured] = []

    def add(self, item: Item) -> None:
        if not item.state.ended:
            return
        found: Mapping[str, Any] = json.loads(item.detail) if item.detail else {}
        self.counted += 1
        self.rehearsed += "tried" in found
        if item.state is StepState.FAILED:
            self.failed += 1
            error = item.error or {}
            _name(self.failures, Failure(item.subject, error.get("message", ""), error.get("remedy", "")))
        if "skipped" in found:
            self.passed_over += 1
            _name(self.skipped, Skipped(item.subject, found["skipped"]))
        if "part" in found:
            _name(self.parts, Part(item.subject, *found["part"]))
        for one in found.get("tried", ()):
            key = (item.arguments["blueprint"], item.arguments["resource"], one["version"])
            self.lines.setdefault(key, _Counting()).add(item.subject, one)
        if item.state is StepState.DONE and "tried" in found:
            self.measured.append(_measured(item.lane, found))


def _name(names: list[Any], one: Any) -> None:
    if len(names) < NAMED:
        names.append(one)


def _measured(server: str, found: Mapping[str, Any]) -> Measured:
    """How long one took whose migrations all went well; a part of shared tables as if it were all of them."""
    whole = max(found["bytes"], found.get("whole", 0))
    seconds = sum(one["seconds"] for one in found["tried"])
    return Measured(server, whole, seconds * whole / max(1, found["bytes"]))


@dataclass(slots=True)
class _Counting:
    """One migration over the copies."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    slowest: float = -1.0
    tenant: str = ""
    locks: dict[tuple[str, str, str], tuple[float, int]] = field(default_factory=dict)
    rewritten: set[str] = field(default_factory=set)

    def add(self, tenant: str, tried: Mapping[str, Any]) -> None:
        self.seconds.append(tried["seconds"])
        if tried["seconds"] > self.slowest:
            self.slowest, self.tenant = tried["seconds"], tenant
        self.rewritten.update(tried["rewritten"])
        for held in tried["locks"]:
            key = (held["table"], held["mode"], held["blocks"])
            longest, number = self.locks.get(key, (0.0, 0))
            self.locks[key] = (max(longest, held["seconds"]), number + 1)

    def told(self, blueprint: str, resource: str, version: str) -> Line:
        median = statistics.median(self.seconds)
        locks = tuple(Lock(*key, *found) for key, found in sorted(self.locks.items()))
        parts = (len(self.seconds), median, self.slowest, self.tenant, locks, tuple(sorted(self.rewritten)))
        return Line(blueprint, resource, version, *parts)


_kept: Final = TypeAdapter(Report)


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
    lines += ["", f"## Would fail: {report.failed}", ""]
    lines += [f"- **{one.tenant}**: {one.message} {one.remedy}".rstrip() for one in report.failures]
    lines += _more(report.failed - len(report.failures))
    if report.skipped:
        lines += ["", f"## Skipped: {report.passed_over}", ""]
        lines += [f"- **{one.tenant}**: {one.reason}" for one in report.skipped]
        lines += _more(report.passed_over - len(report.skipped))
    lines += ["", *(f"- {one.told}" for one in report.parts)] if report.parts else []
    lines += ["", "## Migrations", "", "| migration | copies | median | slowest | locks | written anew |"]
    lines += ["| --- | --- | --- | --- | --- | --- |", *map(_row, report.migrations)]
    lines += ["", "## Forecast", "", "| server | tenants | measured | expected |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {one.server} | {one.tenants} | {one.measured} | {duration(one.seconds)} ± {duration(one.error)} |"
        for one in report.forecast
    ]
    return "\n".join([*lines, "", f"With {report.parallel} at a time on each server. {METHOD}", ""])


def _more(number: int) -> list[str]:
    return [f"- and {number} more"] if number else []


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
