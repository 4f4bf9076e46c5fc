"""Following an operation: a line for each step, or one bar over many tenants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from tenantry.cli.output import Output
from tenantry.errors import Cancelled, OperationFailed

if TYPE_CHECKING:
    from rich.progress import Progress

    from tenantry.platform import Platform
    from tenantry.platform.operations import OperationDetails
    from tenantry.registry.journal import Operation

FLEET = frozenset({"import", "migrate", "rotate", "verify"})
"""Verbs that work on many tenants."""

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
    failures(details, out)
    if operation.verb in FLEET:
        out.line(f"{operation.done} of {operation.total} done, {operation.failed} failed.", "bold")


def failures(details: OperationDetails, out: Output) -> None:
    """A line for each tenant that failed, with its error and what to do."""
    for item in details.items:
        error = item.error or {}
        out.line(f"  ✗ {item.subject}: {error.get('message', '')}  {error.get('remedy', '')}".rstrip(), "red")


def _raise(details: OperationDetails) -> None:
    operation = details.operation
    error = operation.error or {}
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
            yield Bar(progress, operation)
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


def step_line(step: Any) -> str:
    """A step as one line: how it ended, its name and kind, how long it took, what it made."""
    took = "" if step.seconds is None else f"{step.seconds * 1000:.0f} ms"
    mark = MARKS.get(step.state.value, "·")
    return f"  {mark} {step.name:<12} {step.kind:<10} {took:>9}   {step.detail}".rstrip()


@contextmanager
def _bar(out: Output) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description:<12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TextColumn("{task.fields[failed]}", style="red", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=out.console) as progress:
        yield progress


class Bar:
    """One bar over all tenants of an operation: how many, how fast, how many failed, how long still."""

    def __init__(self, progress: Progress, operation: Operation) -> None:
        self._progress = progress
        self._task = progress.add_task(operation.verb, total=operation.total or None, rate="", failed="")

    def update(self, details: OperationDetails) -> None:
        operation = details.operation
        running = next((step.name for step in details.steps if step.state == "running"), operation.verb)
        ended = operation.done + operation.failed
        task = self._progress.tasks[0]
        rate = f"{ended / task.elapsed:.0f}/s" if task.elapsed and ended else ""
        failed = f"{operation.failed} failed" if operation.failed else ""
        self._progress.update(
            self._task, completed=ended, total=operation.total, description=running, rate=rate, failed=failed
        )
