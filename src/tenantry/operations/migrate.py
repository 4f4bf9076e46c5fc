"""Migrate the fleet: golden templates first, then a canary, then wave after wave; the finished are never repeated."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from tenantry.errors import ConfigError, MigrationUnderWay, TenantryError
from tenantry.model import Environment, Migrated
from tenantry.operations import fleet, report
from tenantry.operations.due import Due
from tenantry.operations.fleet import Count, Stop
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal, schemas, servers, tenants
from tenantry.resources import PARALLEL, Resource

TEMPLATE: Final = "template"
CANARY: Final = "canary"
CANARY_RULE: Final = "a canary failed"

_RATES: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


async def refuse_second(tx: Transaction) -> None:
    """Raise `MigrationUnderWay` while another run is not over."""
    for operation in await journal.open_ones(tx, Migrate.name):
        raise MigrationUnderWay(operation=operation.id, state=operation.state.value)


# --- the shape of a run -------------------------------------------------------------------------------------------


def waves(found: Sequence[Due], canary: int, percents: Sequence[float]) -> list[tuple[str, Sequence[Due]]]:
    """Cut what is due into a canary and waves. The percentages count up to 100 of what follows the canary.

    The canaries lie on as many servers as there are, so that one that is silent is not all that was tried.
    """
    first = _spread(found, canary)
    chosen = {id(one) for one in first}
    cut: list[tuple[str, Sequence[Due]]] = [(CANARY, first)] if first else []
    rest = [one for one in found if id(one) not in chosen]
    start = 0
    for number, percent in enumerate([*percents, 100.0], start=1):
        end = max(start, min(len(rest), math.ceil(len(rest) * percent / 100)))
        if end > start:
            cut.append((f"wave {number}", rest[start:end]))
        start = end
    return cut


def _spread(found: Sequence[Due], number: int) -> list[Due]:
    """So many of them, the first of each server before the second of any."""
    turns: dict[str | None, int] = {}
    ranked = []
    for position, one in enumerate(found):
        turn = turns[one.server] = turns.get(one.server, 0) + 1
        if turn <= number:
            ranked.append((turn, position, one))
    return [one for *_, one in sorted(ranked, key=lambda rank: rank[:2])[:number]]


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


def parse_stop(text: str | None) -> Stop:
    """The rule by which a run stops: after a number of failures ("3"), or more than a share of those tried ("1%").

    Both count over the whole run. Tenants whose server does not answer were not tried. Raises `ConfigError`.
    """
    if text is None:
        return lambda _run, _step: None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if match is None:
        raise ConfigError(f"'{text}' is no stop rule.", remedy='Use a number of failures ("3") or a share ("1%").')
    limit, percent = float(match[1]), bool(match[2])

    def rule(run: Count, _: Count) -> str | None:
        failed = run.failed - run.unreached
        reached = failed > (run.done + failed) * limit / 100 if percent else failed >= max(limit, 1)
        return f"--stop-after {text}" if failed and reached else None

    return rule


def _canary_rule(_: Count, step: Count) -> str | None:
    return CANARY_RULE if step.failed > step.unreached else None


def parse_rate(text: str | None) -> float | None:
    """Tenants a second, from "20/s", "300/m" or "5000/h". Raises `ConfigError`."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*([smh])", text.strip())
    if match is None or float(match[1]) == 0:
        raise ConfigError(
            f"'{text}' is no rate.", remedy='Use tenants a second, minute or hour: "20/s", "300/m", "5000/h".'
        )
    return float(match[1]) / _RATES[match[2]]


def check_parallel(number: int) -> int:
    """So many at a time. Raises `ConfigError` outside of 1 to `PARALLEL`."""
    if not 1 <= number <= PARALLEL:
        raise ConfigError(f"{number} tenants at a time on each server cannot be.", remedy=f"Use 1 to {PARALLEL}.")
    return number


def check_canary(number: int) -> int:
    """So many canaries. Raises `ConfigError` for less than none."""
    if number < 0:
        raise ConfigError(f"{number} canaries cannot be.", remedy="Use 0 for none, or a small number such as 3.")
    return number


def plan(cut: Sequence[tuple[str, Sequence[Due]]]) -> tuple[list[tuple[str, str]], list[journal.NewItem]]:
    """The steps and items of a run over these waves."""
    steps = [(TEMPLATE, "")] + [(name, "") for name, _ in cut]
    items = [_item(position, one) for position, (_, some) in enumerate(cut, start=1) for one in some]
    return steps, items


def _item(position: int, one: Due) -> journal.NewItem:
    arguments: dict[str, Any] = {
        "tenant": one.tenant_id,
        "environment": one.environment_id,
        "blueprint": one.blueprint,
        "resource": one.resource,
        "from": one.version,
        "to": one.target,
    }
    if one.shared:
        server = str(one.server)
        held = servers.mark(server, one.location)
        arguments |= {"tenant": held, "server": server, "location": one.location, "tenants": one.tenants}
    return journal.NewItem(step=position, subject=one.slug, arguments=arguments, lane=one.server or "")


# --- the run ------------------------------------------------------------------------------------------------------


class Migrate(Verb):
    """Migrates the resources that its items name. Arguments: `resources`, `parallel`, `rate`, `stop_after`."""

    name: ClassVar[str] = "migrate"
    reversible: ClassVar[bool] = False  # a cancelled run keeps what is migrated; each tenant is whole at any time
    pausable: ClassVar[bool] = True

    async def perform(self, work: Work, step: journal.Step) -> str:
        if step.name == TEMPLATE:
            return await self._template(work)
        count = await self._wave(work, step)
        while step.name == CANARY and not count.done and count.unreached and await _stand_in(work, step):
            count = await self._wave(work, step)
        return f"{count.done} ok, {count.failed} failed"

    async def _wave(self, work: Work, step: journal.Step) -> Count:
        run = _Run(work)
        return await fleet.work_through(
            work,
            step,
            run.migrate,
            run.record,
            tenant_of=lambda item: str(item.arguments["tenant"]),
            ahead=run.look_up,
            manner=_manner(work, step),
        )

    async def _template(self, work: Work) -> str:
        """Make what new tenants are made of: they get the schema of the run since it was entered, so none is behind."""
        async with work.tools.registry.read() as tx:
            wanted = await _resources_of(tx, work)
            await work.tools.learn_servers(tx)
            await work.tools.learn_released(tx)
        made = [str(await resource.prepare()) for resource in wanted]
        return ", ".join(made)

    async def again(self, tx: Transaction, tools: Toolbox, operation: journal.Operation) -> None:
        await refuse_second(tx)

    async def digest(self, work: Work) -> str | None:
        async with work.tools.registry.read() as tx:
            return await report.digest(tx, work.operation.id)

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        operation = await journal.get(tx, work.operation.id)
        return {"migrated": operation.done, "failed": operation.failed}


def _manner(work: Work, step: journal.Step) -> fleet.Manner:
    arguments = work.operation.arguments
    rate, parallel = parse_rate(arguments.get("rate")), int(arguments["parallel"])
    size = max(1, min(fleet.BATCH, int(arguments.get("batch", fleet.BATCH)), int(rate or fleet.BATCH)))
    stop = _canary_rule if step.name == CANARY else parse_stop(arguments.get("stop_after"))
    return fleet.Manner(size=size, first=min(size, parallel), depth=2, rate=rate, stop=stop)


async def _resources_of(tx: Transaction, work: Work) -> list[Resource]:
    """What a run migrates."""
    names = work.operation.arguments["resources"]
    return [work.tools.resource(blueprint, name) for blueprint, name in names]


async def _stand_in(work: Work, step: journal.Step) -> bool:
    """Where no canary's server answered, let tenants of other servers take their place; False where there are none."""
    operation_id = work.operation.id
    async with work.write() as tx:
        first = await journal.items(tx, operation_id, step=step.position)
        silent, chosen = {item.lane for item in first}, dict[str, journal.Item]()
        for later in await journal.steps(tx, operation_id):
            if later.position > step.position:
                for lane in set(await journal.lanes(tx, operation_id, later.position)) - silent - set(chosen):
                    (chosen[lane],) = await journal.items(
                        tx, operation_id, step=later.position, lane=lane, state=journal.StepState.PENDING, limit=1
                    )
        positions = [item.position for item in chosen.values()][: len(first)]
        await journal.move_items(tx, operation_id, positions, step.position)
    return bool(positions)


class _Run:
    """One worker's run through a wave."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tools = work.tools
        self.parallel = int(work.operation.arguments["parallel"])
        self._there: dict[int, Environment | str] = {}  # by the position of items that were looked up

    async def migrate(self, items: Sequence[journal.Item]) -> list[fleet.Result]:
        """Migrate a batch, each resource's environments in one go."""
        there = {item.position: self._there.pop(item.position) for item in items}
        groups: dict[tuple[str, str, str | None], list[journal.Item]] = {}
        results = []
        for item in items:
            if isinstance(there[item.position], str):
                results.append(fleet.Result(item, detail=str(there[item.position])))
                continue
            key = (item.arguments["blueprint"], item.arguments["resource"], item.arguments["to"])
            groups.setdefault(key, []).append(item)
        done = await asyncio.gather(*(self._group(key, some, there) for key, some in groups.items()))
        return [*results, *(result for some in done for result in some)]

    async def look_up(self, items: Sequence[journal.Item]) -> None:
        """Find the environment of each item, or why there is nothing to do."""
        async with self.tools.registry.read() as tx:
            ids = {item.position: await self._ids(tx, item) for item in items}
            wanted = dict.fromkeys(tenant for tenant, _ in filter(None, ids.values()))
            found = {environment.id: environment for environment in await self.tools.all_environments(tx, wanted)}
            pinned = await schemas.pinned_among(tx, list(found))
        for item in items:
            environment = found.get((ids[item.position] or ("", ""))[1])
            if environment is None:
                self._there[item.position] = "destroyed meanwhile"
            elif (environment.id, item.arguments["resource"]) in pinned:
                self._there[item.position] = "pinned meanwhile"
            else:
                self._there[item.position] = environment

    async def _ids(self, tx: Transaction, item: journal.Item) -> tuple[str, str] | None:
        """The tenant and the environment that an item is done on."""
        arguments = item.arguments
        if not is_shared(item):
            return arguments["tenant"], arguments["environment"]
        return await schemas.sharing(tx, arguments["server"], arguments["location"], arguments["resource"])

    async def _group(
        self, key: tuple[str, str, str | None], items: Sequence[journal.Item], there: Mapping[int, Environment | str]
    ) -> list[fleet.Result]:
        blueprint, name, to = key
        resource = self.tools.resource(blueprint, name)
        environments = [one for item in items if isinstance(one := there[item.position], Environment)]
        try:
            outcomes = await resource.migrate_many(environments, to, self.parallel)
        except TenantryError as error:  # the files are at fault: each tenant stays where it is
            outcomes = [error] * len(items)
        return [_result(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]

    async def record(self, tx: Transaction, results: Sequence[fleet.Result]) -> None:
        """Record the versions that were reached; every process then serves those tenants by them."""
        good = [result.item for result in results if result.error is None and result.seconds is not None]
        for item in good:
            if is_shared(item):
                await self._record_shared(tx, item.arguments)
        own = [item for item in good if not is_shared(item)]
        await tenants.set_versions(
            tx, [(item.arguments["environment"], item.arguments["resource"], item.arguments["to"]) for item in own]
        )
        tx.changed(*(item.arguments["tenant"] for item in own))
        for item in own:
            told = {"id": item.arguments["tenant"], **{key: item.arguments[key] for key in ("to", "resource")}}
            tx.audit("tenant.migrate", item.subject, **told)

    async def _record_shared(self, tx: Transaction, arguments: Mapping[str, Any]) -> None:
        server, location, resource = (str(arguments[key]) for key in ("server", "location", "resource"))
        await schemas.set_shared_version(tx, server, location, resource, arguments["to"])
        tx.audit("database.migrate", f"{server}/{location}", to=arguments["to"], resource=resource)


def is_shared(item: journal.Item) -> bool:
    """Whether an item stands for tables that tenants share."""
    return "location" in item.arguments


def _result(item: journal.Item, outcome: Migrated | TenantryError) -> fleet.Result:
    if isinstance(outcome, Migrated):
        return fleet.Result(item, detail=f"{outcome.before or 'nothing'} → {outcome.after}", seconds=outcome.seconds)
    return fleet.Result(item, outcome, detail=f"stays at {item.arguments['from'] or 'no schema'}")
