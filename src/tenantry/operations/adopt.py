"""Adopt: a tenant around a database that is there already, made like any other one but for that part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from tenantry.model import Environment
from tenantry.operations import create, placement
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Work
from tenantry.registry import Transaction, journal, tenants
from tenantry.resources import Resource

CLEAR_STEP: Final = "source"
"""The step that removes a file which was moved."""


def steps(tools: Toolbox, environments: Sequence[Environment], adopted: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Like those of a create; the adopted part comes first, since it is what may turn out not to be as it was said."""
    made = create.steps(tools, environments)
    ours = step_of(environments, adopted)
    ordered = [*(step for step in made if step[0] == ours), *(step for step in made if step[0] != ours)]
    return [*ordered, (CLEAR_STEP, "")] if adopted.get("move") else ordered


def step_of(environments: Sequence[Environment], adopted: Mapping[str, Any]) -> str:
    """The name of the adopted part's step."""
    several = len(environments) > 1
    return f"{adopted['resource']}@{adopted['environment']}" if several else str(adopted["resource"])


def choice(adopted: Mapping[str, Any]) -> placement.Choice:
    """Where the adopted part lies."""
    if not adopted.get("database"):
        return placement.ANY
    where = (adopted["server"], adopted["database"])
    return placement.Choice(given={(adopted["environment"], adopted["resource"]): where})


def _remove(path: Path) -> str:
    """Remove a file that was moved in. Where it cannot be, that is told: the tenant is live, and stays so."""
    try:
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    except OSError as error:
        return f"{path} stays: {error.strerror}"
    return f"{path} is removed"


class Adopt(create.Create):
    """Makes one tenant around a database. Arguments: those of a create, and `adopted`.

    `adopted` has resource, environment and version; server and database, or file and whether to move it.
    """

    name: ClassVar[str] = "adopt"

    async def perform(self, work: Work, step: journal.Step) -> str:
        if step.name == CLEAR_STEP and not step.kind:
            return _remove(Path(self._adopted(work)["file"]))
        return await super().perform(work, step)

    async def undo(self, work: Work, step: journal.Step) -> None:
        adopted = self._adopted(work)
        environments = await work.environments()
        if environments and not adopted.get("file") and step.name == step_of(environments, adopted):
            resource, environment = await work.parts(step)
            await resource.release(environment)
        elif step.name != CLEAR_STEP:
            await super().undo(work, step)

    async def again(self, tx: Transaction, tools: Toolbox, operation: journal.Operation) -> None:
        await create.refuse_full(tx, tools, 1)
        await create.refuse_taken(tx, str(operation.tenant_slug))
        drafted = create.again(tools, operation.arguments)
        await create.reserve(tx, tools, drafted, choice=choice(operation.arguments["adopted"]))

    async def _settle(self, work: Work, resource: Resource, environment: Environment) -> str | None:
        """Take over what is there at the version it has, which is to be recorded; every other part is made."""
        adopted = self._adopted(work)
        if (resource.name, environment.name) != (adopted["resource"], adopted["environment"]):
            return await super()._settle(work, resource, environment)
        version: str | None = adopted["version"]
        place = environment.place(resource.name)
        if place is None or place.version is None or place.version != version:
            source = Path(adopted["file"]) if adopted.get("file") else None
            await resource.adopt(environment, version, source)
            work.later(lambda tx: tenants.set_versions(tx, [(environment.id, resource.name, version)]))
        return version

    def _behind(self, work: Work, environments: Sequence[Environment]) -> list[tuple[Resource, Environment]]:
        """What was adopted stays at its own version; a migration brings it along."""
        adopted = self._adopted(work)
        itself = adopted["resource"], adopted["environment"]
        return [one for one in super()._behind(work, environments) if (one[0].name, one[1].name) != itself]

    @staticmethod
    def _adopted(work: Work) -> Mapping[str, Any]:
        found: Mapping[str, Any] = work.operation.arguments["adopted"]
        return found
