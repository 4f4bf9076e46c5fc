"""Following an operation: a line for each step, or one bar over many tenants."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from tenantry.cli.output import Output
from tenantry.errors import Cancelled, OperationFailed, Paused

if TYPE_CHECKING:
    from rich.progress import Progress

    from tenantry.platform import Platform
    from tenantry.platform.operations import OperationDetails
    from tenantry.registry.journal import Item, Operation, Step

FLEET = frozenset({"import", "migrate", "rehearse", "rotate", "verify"})
"""Verbs that work on many tenants."""

SPEAK = 5.0
"""Seconds between two lines about a long wave, where nobody watches."""

MARKS = {"done": "✓", "failed": "✗", "undone": "↺"}
STYLES = {"done": "green", "failed": "red", "undone": "yellow"}


async def carry_out(platform: Platform, operation: Operation, out: Output, wait: bool) -> OperationDetails | None:
    """Follow an operation to its end, or leave it to a worker; None where it is left.

    Raises `OperationFailed` or `Cancelled` where it did not end well. With --json prints it as it ended.
    """
    if not wait:
        if out.as_json:
            out.data(operation)
        out.line(f"{operation.verb} is queued as {operation.id}. Follow it: `tenantry operation watch {operation.id}`.")
        return None
    return await watch(platform, operation, out, finish=True)


async def watch(platform: Platform, operation: Operation, out: Output, finish: bool = False) -> OperationDetails:
    """Show an operation's progress until it is over; with `finish` run it here where no worker lives."""
    work = asyncio.create_task(platform.operations.finish(operation.id)) if finish else None
    try:
        details = await _show(platform, operation, out, work)
    except asyncio.CancelledError:
        logging.disable()  # the engine tells at length that it was interrupted
        where = f"`tenantry operation watch {operation.id}`"
        out.line(f"A worker goes on with it; where none lives, start `tenantry worker`. Follow it: {where}.")
        raise
    finally:
        if work is not None and not work.done():
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
    _ended(details, out)
    _raise(details)
    return details


async def _show(
    platform: Platform, operation: Operation, out: Output, work: asyncio.Task[OperationDetails] | None
) -> OperationDetails:
    with view_of(operation, out) as view:
        following = asyncio.create_task(_follow(platform, operation.id, view))
        tasks = [following] if work is None else [following, work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
            return await following
        finally:
            following.cancel()


async def _follow(platform: Platform, operation_id: str, view: View) -> OperationDetails:
    last = None
    async for details in platform.operations.follow(operation_id):
        view.update(details)
        last = details
    assert last is not None, "an operation that is followed tells itself at least once"
    return last


def _ended(details: OperationDetails, out: Output) -> None:
    """What became of an operation on many tenants; with --json of every one that did not end well."""
    operation = details.operation
    if out.as_json and operation.state != "done":
        out.data(details)
    if operation.verb in FLEET:
        unnamed = operation.failed - len(details.items)
        if unnamed > 0:
            out.line(f"  and {unnamed} more failed: `tenantry operation show {operation.id} --json`.", "red")
        out.line(f"{operation.done} of {operation.total} done, {operation.failed} failed.", "bold")


def failures(details: OperationDetails, out: Output) -> None:
    """A line for each tenant that failed, with its error and what to do."""
    for item in details.items:
        out.paragraph(failure_line(item), "red")


def failure_line(item: Item, *, remedied: bool = False) -> str:
    """A tenant that failed: its error, what to do where that is not `remedied` already, and where it stays."""
    error = item.error or {}
    remedy = None if remedied else error.get("remedy")
    told = "  ".join(part for part in (error.get("message"), remedy, item.detail) if part)
    return f"  ✗ {item.subject}: {told}"


def _raise(details: OperationDetails) -> None:
    operation = details.operation
    error = operation.error or {}
    if operation.state == "paused":
        raise Paused(operation=operation.id)
    if operation.state == "cancelled":
        raise Cancelled(operation=operation.id)
    if operation.state == "failed":
        reason = f"{error.get('message', 'it stopped')} {error.get('remedy', '')}".rstrip()
        raise OperationFailed(operation=operation.id, verb=operation.verb, reason=reason)


# --- what is seen -------------------------------------------------------------------------------------------------


class View(Protocol):
    """How progress is shown."""

    def update(self, details: OperationDetails) -> None: ...


@contextmanager
def view_of(operation: Operation, out: Output) -> Iterator[View]:
    """The view that suits the operation and the reader."""
    if operation.verb in FLEET and out.live:
        with _bar(out) as progress:
            yield Waves(out, Bar(progress))
    elif operation.verb in FLEET:
        yield Waves(out)
    elif out.live:
        with out.console.status(f"{operation.verb} {operation.tenant_slug or ''}") as status:
            yield Lines(out, status)
    else:
        yield Lines(out)


class Lines:
    """A line for each step as it ends."""

    def __init__(self, out: Output, status: Any = None) -> None:
        self._out = out
        self._status = status
        self._told: dict[int, str] = {}

    def update(self, details: OperationDetails) -> None:
        for step in details.steps:
            state = step.state.value
            if state in MARKS and self._told.get(step.position) != state:
                self._told[step.position] = state
                self._out.line(step_line(step), STYLES[state])
            elif state == "running" and self._status is not None:
                self._status.update(f"{step.name} …")


def step_line(step: Step) -> str:
    """A step as one line: how it ended, its name and kind, how long it took, what it made."""
    mark = MARKS.get(step.state.value, "·")
    return f"  {mark} {step.name:<12} {step.kind:<10} {_took(step.seconds):>9}   {step.detail}".rstrip()


def _took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


# --- many tenants -------------------------------------------------------------------------------------------------


class Waves:
    """A line for each wave as it ends, one for each tenant as it fails, and on a terminal a bar for the wave at hand.

    Where nobody watches, a wave that takes long tells how far it is every few seconds.
    """

    def __init__(self, out: Output, bar: Bar | None = None) -> None:
        self._out = out
        self._bar = bar
        self._told: set[int] = set()
        self._failed: set[int] = set()
        self._remedies: set[str | None] = set()  # that were told
        self._since = self._spoken = time.monotonic()
        self._before = 0  # tenants of the wave at hand that had ended when it was first seen
        self._wave = -1

    def update(self, details: OperationDetails) -> None:
        for item in details.items:
            if item.position not in self._failed:
                self._failed.add(item.position)
                self._tell(item)
        for step in details.steps:
            if step.state.value in ("done", "failed") and step.position not in self._told:
                self._told.add(step.position)
                states = details.tally.get(step.position, {})
                style = "yellow" if step.state.value == "done" and _counts(states)[1] else STYLES[step.state.value]
                self._out.paragraph(wave_line(step, states), style)
            elif step.state.value == "running":
                self._running(step, details.tally.get(step.position, {}))

    def _tell(self, item: Item) -> None:
        """Tell of a tenant that failed; one who watches is told once what is to be done about many."""
        remedy = (item.error or {}).get("remedy")
        again = self._bar is not None and remedy in self._remedies
        self._remedies.add(remedy)
        self._out.paragraph(failure_line(item, remedied=again), "red")

    def _running(self, step: Step, states: Mapping[Any, int]) -> None:
        ended, failed, total = _counts(states)
        moment = time.monotonic()
        if self._wave != step.position:
            self._wave, self._since, self._spoken, self._before = step.position, moment, moment, ended
        seconds = moment - self._since
        rate = (ended - self._before) / seconds if seconds > 0 and ended > self._before else None
        left = (total - ended) / rate if rate else None
        if self._bar is not None:
            self._bar.show(step.name, ended, total, _told(rate, failed, left))
        elif total and moment - self._spoken >= SPEAK:
            self._spoken = moment
            self._out.line(f"    {step.name:<12} {ended:>6}/{total:<6} {_told(rate, failed, left)}".rstrip())


def wave_line(step: Step, states: Mapping[Any, int]) -> str:
    """A wave as one line: how many of its tenants ended, how they did, and how many a second."""
    ended, failed, total = _counts(states)
    if not total:
        return step_line(step)
    told = f"{failed} failed" if failed else "ok"
    rate = f"{ended / step.seconds:.0f}/s" if step.seconds and ended else ""
    stopped = f"  {step.detail}" if step.state.value == "failed" else ""
    mark = "!" if failed and step.state.value == "done" else MARKS[step.state.value]
    return f"  {mark} {step.name:<12} {f'{ended}/{total}':>13}   {told:<10} {rate:>7}{stopped}".rstrip()


def _counts(states: Mapping[Any, int]) -> tuple[int, int, int]:
    """Of a wave's tenants: how many have ended, how many of these failed, and how many there are."""
    done, failed, pending = (states.get(state, 0) for state in ("done", "failed", "pending"))
    return done + failed, failed, done + failed + pending


def _told(rate: float | None, failed: int, left: float | None) -> str:
    parts = [f"{rate:.0f}/s" if rate else "", f"{failed} failed" if failed else "", _left(left)]
    return "   ".join(part for part in parts if part)


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"


@contextmanager
def _bar(out: Output) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("    {task.description:<12}", markup=False),
        BarColumn(complete_style="cyan", finished_style="green"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    )
    with Progress(*columns, console=out.console, transient=True) as progress:  # the waves' own lines stay
        yield progress


class Bar:
    """The wave at hand: how many of its tenants have ended, how fast, how many failed, how long still."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, told="", visible=False)

    def show(self, name: str, ended: int, total: int, told: str) -> None:
        self._progress.update(
            self._task, completed=ended, total=total or None, description=name, told=told, visible=True
        )
