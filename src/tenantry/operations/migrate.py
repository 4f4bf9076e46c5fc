"""Migrate the fleet: golden templates first, then a canary, then wave after wave; the finished are never repeated."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from tenantry.errors import ConfigError, MigrationInvalid, TenantryError
from tenantry.model import Environment, Migrated
from tenantry.operations import fleet
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal, tenants
from tenantry.resources import Resource

TEMPLATE: Final = "template"
CANARY: Final = "canary"
SAMPLES: Final = 3
"""Tenants of each version that are asked before a run whether the files are still what was applied."""

CANARY_RULE: Final = "a canary failed"


@dataclass(frozen=True, slots=True)
class Due:
    """One resource of one tenant that is not at the schema it should have."""

    slug: str
    tenant_id: str
    environment_id: str
    environment: str
    version: str | None
    blueprint: str
    resource: str
    target: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """How many resources of a blueprint stand at which schema."""

    blueprint: str
    resource: str
    newest: str | None
    versions: Mapping[str | None, int]


def targets(tools: Toolbox, blueprint: str | None = None, to: str | None = None) -> dict[tuple[str, str], str]:
    """The schema each resource should have: (blueprint, resource) → version."""
    found: dict[tuple[str, str], str] = {}
    for name, resources in tools.resources.items():
        for resource in resources:
            if resource.has_schema and (blueprint is None or name == blueprint) and resource.newest is not None:
                found[name, resource.name] = _target(resource.versions(), to) or resource.newest
    return found


def _target(versions: Sequence[str], to: str | None) -> str | None:
    if to is None:
        return None
    chosen = [version for version in versions if version == to or version.split("_")[0] == to]
    if not chosen:
        raise ConfigError(f"There is no migration '{to}'.", remedy=f"Known: {', '.join(versions)}.")
    return chosen[0]


async def due(
    tx: Transaction, tools: Toolbox, *, blueprint: str | None = None, to: str | None = None, slugs: Sequence[str] = ()
) -> list[Due]:
    """What is not at its target, in one query a resource, in the order the tenants were made."""
    found: list[Due] = []
    for (name, part), target in targets(tools, blueprint, to).items():
        rows = await tenants.not_at(tx, name, part, target, slugs)
        found += [Due(*row, blueprint=name, resource=part, target=target) for row in rows]
    return found


async def refuse_edited(tx: Transaction, tools: Toolbox, found: Sequence[Due]) -> None:
    """Raise `MigrationInvalid` where the files contradict what is applied, before anything is made out of them.

    One tenant at fault may be at fault itself, so that a few of each version are asked, and all have to say so.
    """
    samples: dict[tuple[str, str, str | None], list[Due]] = {}
    for one in found:
        some = samples.setdefault((one.blueprint, one.resource, one.version), [])
        if len(some) < SAMPLES:
            some.append(one)
    for (blueprint, name, _), some in samples.items():
        resource = tools.resource(blueprint, name)
        environments = {e.id: e for e in await tools.all_environments(tx, list({one.tenant_id for one in some}))}
        faults = [await _contradiction(resource, environments[one.environment_id]) for one in some]
        if faults[0] is not None and all(faults):
            raise faults[0]


async def _contradiction(resource: Resource, environment: Environment) -> MigrationInvalid | None:
    try:
        await resource.version(environment)
    except MigrationInvalid as error:
        return error
    except TenantryError:  # it cannot be asked; the run names it
        return None
    return None


def waves(found: Sequence[Due], canary: int, percents: Sequence[float]) -> list[tuple[str, Sequence[Due]]]:
    """Cut what is due into a canary and waves. The percentages count up to 100 of what follows the canary."""
    cut: list[tuple[str, Sequence[Due]]] = []
    if canary and found:
        cut.append((CANARY, found[:canary]))
    rest = found[canary:]
    start = 0
    for number, percent in enumerate([*percents, 100.0], start=1):
        end = max(start, min(len(rest), math.ceil(len(rest) * percent / 100)))
        if end > start:
            cut.append((f"wave {number}", rest[start:end]))
        start = end
    return cut


def parse_percents(texts: Sequence[str]) -> list[float]:
    """Percentages such as "10%", rising. Raises `ConfigError`."""
    numbers = []
    for text in texts:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
        if match is None or not 0 < float(match[1]) <= 100:
            raise ConfigError(f"'{text}' is no wave.", remedy='Use rising percentages such as "10%,50%,100%".')
        numbers.append(float(match[1]))
    if numbers != sorted(set(numbers)):
        raise ConfigError(f"The waves {', '.join(texts)} do not rise.", remedy='Write them like "10%,50%,100%".')
    return numbers


def parse_stop(text: str | None) -> Callable[[int, int], str | None]:
    """The rule by which a run stops: after a number of failures ("3") or a share of those ended ("1%")."""
    if text is None:
        return lambda _failed, _ended: None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if match is None:
        raise ConfigError(f"'{text}' is no stop rule.", remedy='Use a number of failures ("3") or a share ("1%").')
    limit, percent = float(match[1]), bool(match[2])

    def rule(failed: int, ended: int) -> str | None:
        reached = failed > ended * limit / 100 if percent else failed >= max(limit, 1)
        return f"--stop-after {text}" if failed and reached else None

    return rule


def plan(cut: Sequence[tuple[str, Sequence[Due]]]) -> tuple[list[tuple[str, str]], list[journal.NewItem]]:
    """The steps and items of a run over these waves."""
    steps = [(TEMPLATE, "")] + [(name, "") for name, _ in cut]
    items = [
        journal.NewItem(
            step=position,
            subject=one.slug,
            arguments={
                "tenant": one.tenant_id,
                "environment": one.environment_id,
                "blueprint": one.blueprint,
                "resource": one.resource,
                "from": one.version,
                "to": one.target,
            },
        )
        for position, (_, some) in enumerate(cut, start=1)
        for one in some
    ]
    return steps, items


class Migrate(Verb):
    """Migrates the resources that its items name. Arguments: `stop_after`, `parallel`."""

    name: ClassVar[str] = "migrate"
    reversible: ClassVar[bool] = False  # a cancelled run keeps what is migrated; each tenant is whole at any time

    async def perform(self, work: Work, step: journal.Step) -> str:
        if step.name == TEMPLATE:
            return await self._template(work)
        run = _Run(work)
        stop = parse_stop(work.operation.arguments.get("stop_after"))
        if step.name == CANARY:
            stop = lambda failed, _ended: CANARY_RULE if failed else None  # noqa: E731
        done, failed = await fleet.work_through(
            work,
            step,
            run.migrate,
            run.record,
            tenant_of=lambda item: str(item.arguments["tenant"]),
            stop=stop,
            size=max(1, min(fleet.BATCH, int(work.operation.arguments.get("batch", fleet.BATCH)))),
        )
        return f"{done} ok, {failed} failed"

    async def _template(self, work: Work) -> str:
        """New tenants get the newest schema from here on, so that none is behind when the run ends."""
        wanted = {(i.arguments["blueprint"], i.arguments["resource"]) for i in await self._items(work)}
        made = [str(await work.tools.resource(*names).prepare()) for names in sorted(wanted)]
        return ", ".join(made)

    async def _items(self, work: Work) -> list[journal.Item]:
        async with work.tools.registry.read() as tx:
            return await journal.items(tx, work.operation.id)

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        operation = await journal.get(tx, work.operation.id)
        return {"migrated": operation.done, "failed": operation.failed}


class _Run:
    """One worker's run through a wave."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tools = work.tools

    async def migrate(self, items: Sequence[journal.Item]) -> list[fleet.Result]:
        """Migrate a batch, each resource's environments in one go."""
        async with self.tools.registry.read() as tx:
            found = {e.id: e for e in await self.tools.all_environments(tx, [i.arguments["tenant"] for i in items])}
        groups: dict[tuple[str, str, str], list[journal.Item]] = {}
        results = []
        for item in items:
            if item.arguments["environment"] not in found:
                results.append(fleet.Result(item, detail="destroyed meanwhile"))
                continue
            key = (item.arguments["blueprint"], item.arguments["resource"], item.arguments["to"])
            groups.setdefault(key, []).append(item)
        for key, some in groups.items():
            results += await self._group(key, some, found)
        return results

    async def _group(
        self, key: tuple[str, str, str], items: Sequence[journal.Item], found: Mapping[str, Environment]
    ) -> list[fleet.Result]:
        blueprint, name, to = key
        resource = self.tools.resource(blueprint, name)
        environments = [found[item.arguments["environment"]] for item in items]
        parallel = int(self.work.operation.arguments.get("parallel", 2))
        outcomes = await resource.migrate_many(environments, to, parallel)
        return [_result(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]

    async def record(self, tx: Transaction, results: Sequence[fleet.Result]) -> None:
        """Record the versions that were reached; every process then serves those tenants by them."""
        good = [r for r in results if r.error is None and r.seconds is not None]
        await tenants.set_versions(
            tx, [(r.item.arguments["environment"], r.item.arguments["resource"], r.item.arguments["to"]) for r in good]
        )
        tx.changed(*(r.item.arguments["tenant"] for r in good))
        for result in good:
            arguments = result.item.arguments
            tx.audit("tenant.migrate", result.item.subject, to=arguments["to"], resource=arguments["resource"])


def _result(item: journal.Item, outcome: Migrated | TenantryError) -> fleet.Result:
    if isinstance(outcome, Migrated):
        return fleet.Result(item, detail=f"{outcome.before or 'nothing'} → {outcome.after}", seconds=outcome.seconds)
    return fleet.Result(item, outcome)
