"""The contract of a verb: what its steps do, and how they are undone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from tenantry.errors import Cancelled, Handover, Paused, TenantNotFound
from tenantry.model import Environment
from tenantry.operations.blueprints import Blueprints
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Transaction, journal
from tenantry.resources import Resource

RECENT: Final = 1.0
"""Seconds for which short steps that follow on one another work on what one of them has read."""


@dataclass(frozen=True, slots=True)
class Work:
    """An operation in the hands of the worker that holds its fence."""

    tools: Toolbox
    operation: journal.Operation
    ending: Callable[[], bool]  # whether this worker is asked to end
    _unwritten: list[Callable[[Transaction], Awaitable[None]]] = field(default_factory=list, repr=False, compare=False)
    _read: list[tuple[float, list[Environment]]] = field(default_factory=list, repr=False, compare=False)

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """A transaction in the name of whoever asked for the operation. Raises `Fenced` when it was taken over."""
        async with self.tools.registry.write(self.operation.actor) as tx:
            await journal.guard(tx, self.operation)
            yield tx

    def later(self, write: Callable[[Transaction], Awaitable[None]]) -> None:
        """Have this written in the transaction that records the step as done: one that fails leaves neither."""
        self._unwritten.append(write)

    async def catch_up(self, tx: Transaction) -> None:
        """Write what was left for later."""
        while self._unwritten:
            await self._unwritten.pop(0)(tx)

    async def check(self) -> None:
        """Raise as `heed` does; long steps call this while they wait."""
        async with self.tools.registry.read() as tx:
            await self.heed(tx)

    async def heed(self, tx: Transaction) -> None:
        """Raise `Cancelled`, `Paused` or `Handover` when someone asked for it, `Fenced` when it was taken over."""
        if self.ending():
            raise Handover
        state = await journal.guard(tx, self.operation)
        if state is journal.State.CANCELLING:
            raise Cancelled
        if state is journal.State.PAUSING:
            raise Paused(operation=self.operation.id)

    async def environments(self) -> list[Environment]:
        """The tenant's environments as they are now, secret values opened; none when it is gone."""
        assert self.operation.tenant_id is not None
        async with self.tools.registry.read() as tx:
            await self.tools.learn_released(tx)
            found = await self.tools.environments(tx, self.operation.tenant_id)
        self._read[:] = [(time.monotonic(), found)]
        return found

    async def recent(self) -> list[Environment]:
        """The same as it was read a moment ago, for steps that change nothing of what the next ones look at."""
        if self._read and time.monotonic() - self._read[0][0] < RECENT:
            return self._read[0][1]
        return await self.environments()

    async def parts(self, step: journal.Step, recent: bool = False) -> tuple[Resource, Environment]:
        """The resource and the environment that a resource's step works on."""
        environments = await (self.recent() if recent else self.environments())
        if not environments:
            raise TenantNotFound(slug=self.operation.tenant_slug)
        name, _, environment = step.name.partition("@")
        chosen = next((e for e in environments if e.name == environment), environments[0])
        return self.tools.resource(chosen.tenant.blueprint, name), chosen


class Verb:
    """What a kind of operation does. Steps of a resource carry its kind; steps of the verb's own carry none."""

    name: ClassVar[str]
    reversible: ClassVar[bool] = True  # whether a failed or cancelled run is undone
    pausable: ClassVar[bool] = False  # whether it may rest between two batches

    async def perform(self, work: Work, step: journal.Step) -> str:
        """Do a step, idempotently; returns what to show behind its name."""
        raise AssertionError(f"{self.name} has no step {step.name}")

    async def undo(self, work: Work, step: journal.Step) -> None:
        """Undo what this run made in a step, idempotently."""

    async def digest(self, work: Work) -> str | None:
        """What all its items say together, as JSON, to be kept as it ends; None where nobody reads that."""
        return None

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        """Called in the transaction that ends the operation well; returns its result."""
        return None

    async def give_up(self, tx: Transaction, work: Work) -> None:
        """Called in the transaction that ends an operation which was undone."""

    def retry(self, work: Work, outcome: Mapping[str, Any]) -> float | None:
        """Seconds after which a failed run is tried again by itself; None where it stays failed."""
        return None

    async def again(self, tx: Transaction, tools: Toolbox, operation: journal.Operation) -> None:
        """Called in the transaction that queues a failed operation once more."""


def resource_steps(
    tools: Blueprints, environments: Sequence[Environment], *, following: bool = False
) -> list[tuple[str, str]]:
    """A step for each resource of each environment: (name, kind); the environment is named where there are several.

    With `following`, only for resources that are made out of a tenant's names and values.
    """
    several = len(environments) > 1
    return [
        (f"{resource.name}@{environment.name}" if several else resource.name, resource.kind)
        for environment in environments
        for resource in tools.resources[environment.tenant.blueprint]
        if resource.follows_tenant or not following
    ]
