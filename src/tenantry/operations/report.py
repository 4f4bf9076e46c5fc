"""What a run over the fleet did, as JSON for programs and as Markdown for people."""

from __future__ import annotations

import heapq
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from tenantry.errors import ConfigError, OperationRefused
from tenantry.operations import fleet
from tenantry.registry import Transaction, journal
from tenantry.registry.journal import StepState

SLOWEST: Final = 10
"""Tenants that are named for having taken longest."""

TOLD: Final = 1_000
"""Failures that are told one by one where nothing else is said."""

NAMED: Final = 10_000
"""The most of them that are."""

PERCENTILES: Final = (50, 90, 99, 100)


@dataclass(frozen=True, slots=True)
class Wave:
    """How one wave went."""

    name: str
    state: str
    done: int
    failed: int
    waiting: int  # not tried
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A tenant that was not migrated, and why."""

    tenant: str
    wave: str
    resource: str
    version: str | None  # at which it stays
    code: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Move:
    """How many went from one version to another."""

    blueprint: str
    resource: str
    before: str | None
    after: str | None
    tenants: int


@dataclass(frozen=True, slots=True)
class Report:
    """A run over the fleet. Times are in seconds."""

    operation: str
    verb: str
    state: str
    actor: str
    created: datetime
    started: datetime | None
    ended: datetime | None
    arguments: Mapping[str, Any]
    total: int
    done: int
    failed: int
    unreached: int  # of those that failed: their server did not answer
    waves: Sequence[Wave]
    versions: Sequence[Move]
    seconds: Mapping[str, float] = field(default_factory=dict)  # of one tenant: "p50", "p90", "p99" and "p100"
    slowest: Sequence[tuple[str, float]] = ()
    failures: Sequence[Failure] = ()

    def as_json(self) -> str:
        """The whole report."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, default=str) + "\n"

    def as_markdown(self) -> str:
        """The whole report, for people."""
        return "\n".join(_markdown(self)) + "\n"


@dataclass(frozen=True, slots=True)
class Totals:
    """What all items of a run tell together."""

    unreached: int
    versions: Sequence[Move]
    seconds: Mapping[str, float]
    slowest: Sequence[tuple[str, float]]


async def report(tx: Transaction, operation: journal.Operation, failures: int = NAMED) -> Report:
    """What a migration of the fleet did so far, with the first failures.

    Its items are counted once, when it is over. Raises `OperationRefused` for an operation of another kind.
    """
    if operation.verb != "migrate":
        action = f"reported on: it is a {operation.verb}, not a migration of the fleet"
        raise OperationRefused(state=operation.state.value, action=action, operation=operation.id)
    steps = {step.position: step for step in await journal.steps(tx, operation.id)}
    tally = await journal.tally(tx, operation.id)
    content = await journal.digest(tx, operation.id)
    found = _totals.validate_json(content) if content else await totals(tx, operation.id)
    failed = await journal.items(tx, operation.id, state=StepState.FAILED, limit=failures) if operation.failed else ()
    return Report(
        operation=operation.id,
        verb=operation.verb,
        state=operation.state.value,
        actor=operation.actor,
        created=operation.created,
        started=operation.started,
        ended=operation.ended,
        arguments={key: value for key, value in operation.arguments.items() if value is not None},
        total=operation.total,
        done=operation.done,
        failed=operation.failed,
        unreached=found.unreached,
        waves=[_wave(step, tally.get(position, {})) for position, step in steps.items()],
        versions=found.versions,
        seconds=found.seconds,
        slowest=found.slowest,
        failures=[_failure(item, steps[item.step].name) for item in failed],
    )


async def totals(tx: Transaction, operation_id: str) -> Totals:
    """Count the items, never many of them in memory."""
    seen = _Seen()
    async for item in journal.all_items(tx, operation_id):
        seen.add(item)
    return seen.totals()


async def digest(tx: Transaction, operation_id: str) -> str:
    """What all its items tell together, to be kept."""
    return json.dumps(asdict(await totals(tx, operation_id)), ensure_ascii=False)


def write(found: Report, where: Path) -> tuple[Path, Path]:
    """Write a report as JSON and as Markdown: into a directory, or beside one another under a file's name.

    `where` is a directory if there is one, or if it has no suffix. Raises `ConfigError` as `make_room` does.
    """
    folder = make_room(where)
    name = f"{found.verb}-{found.operation}" if folder == where else where.stem
    files = folder / f"{name}.json", folder / f"{name}.md"
    try:
        for file, text in zip(files, (found.as_json(), found.as_markdown()), strict=True):
            file.write_text(text, "utf-8")
    except OSError as error:
        raise _unwritable(where, error) from error
    return files


def make_room(where: Path) -> Path:
    """The directory that a report is written to, made where it is missing. Raises `ConfigError` where it cannot be."""
    folder = where if where.is_dir() or not where.suffix else where.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(where, error) from error
    return folder


def _unwritable(where: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The report cannot be written to '{where}': {error.strerror}.",
        remedy="Name another place; `tenantry migrate report ID --into PLACE` writes it also afterwards.",
    )


def _wave(step: journal.Step, states: Mapping[StepState, int]) -> Wave:
    done, failed, waiting = (states.get(one, 0) for one in (StepState.DONE, StepState.FAILED, StepState.PENDING))
    return Wave(step.name, step.state.value, done, failed, waiting, step.seconds)


def _failure(item: journal.Item, wave: str) -> Failure:
    error, facts = item.error or {}, item.arguments
    told = (error.get(key, "") for key in ("code", "message", "remedy"))
    return Failure(item.subject, wave, facts["resource"], facts["from"], *told)


class _Seen:
    """What the items tell, one after the other."""

    def __init__(self) -> None:
        self._seconds = array("d")
        self._slowest: list[tuple[float, str]] = []
        self._moves: Counter[tuple[str, str, str | None, str | None]] = Counter()
        self._unreached = 0

    def add(self, item: journal.Item) -> None:
        facts = item.arguments
        self._unreached += item.state is StepState.FAILED and item.detail == fleet.UNREACHED
        if item.seconds is not None:
            self._seconds.append(item.seconds)
            heapq.heappush(self._slowest, (item.seconds, item.subject))
            if len(self._slowest) > SLOWEST:
                heapq.heappop(self._slowest)
        after = facts["to"] if item.state is StepState.DONE and item.seconds is not None else facts["from"]
        self._moves[facts["blueprint"], facts["resource"], facts["from"], after] += int(facts.get("tenants", 1))

    def totals(self) -> Totals:
        moves = sorted(self._moves.items(), key=lambda pair: str(pair[0]))
        slowest = [(name, seconds) for seconds, name in sorted(self._slowest, reverse=True)]
        return Totals(self._unreached, [Move(*key, number) for key, number in moves], self._percentiles(), slowest)

    def _percentiles(self) -> dict[str, float]:
        ordered = sorted(self._seconds)
        at = {percent: max(0, math.ceil(len(ordered) * percent / 100) - 1) for percent in PERCENTILES}
        return {f"p{percent}": round(ordered[index], 6) for percent, index in at.items()} if ordered else {}


_totals: Final = TypeAdapter(Totals)


# --- Markdown -----------------------------------------------------------------------------------------------------


def _markdown(found: Report) -> Iterator[str]:
    yield f"# Migration {found.operation}"
    yield ""
    yield f"{found.done} of {found.total} done, {found.failed} failed, {found.state}."
    yield ""
    facts = {"by": found.actor, "started": found.started, "ended": found.ended, **found.arguments}
    yield from (f"- {key.replace('_', ' ')}: {_cell(value)}" for key, value in facts.items() if value is not None)
    yield from _table("Waves", Wave.__slots__, map(_values, found.waves))
    yield from _table("Versions", Move.__slots__, map(_values, found.versions))
    yield from _table("Seconds of a tenant", tuple(found.seconds), [tuple(found.seconds.values())])
    yield from _table("Slowest", ("tenant", "seconds"), found.slowest)
    yield from _table("Failures", Failure.__slots__, map(_values, found.failures))
    if found.failed > len(found.failures):
        yield f"\nand {found.failed - len(found.failures)} more."


def _values(one: Any) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in one.__slots__)


def _table(title: str, columns: Sequence[str], rows: Any) -> Iterator[str]:
    """A table under its title; nothing where it has no rows."""
    lines = [tuple(row) for row in rows]
    if not lines or not columns:
        return
    yield from ("", f"## {title}", "")
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in lines:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(value: Any) -> str:
    """A value that cannot break out of its cell."""
    text = "–" if value is None or value == "" else f"{value:.3f}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
