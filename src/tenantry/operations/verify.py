"""Verify the isolation of tenants: attack each from its neighbours, with canaries planted among their data."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from cronsim import CronSim
from sqlalchemy import func, select

from tenantry.errors import ConfigError, TenantryError
from tenantry.model import Attempt, Breach, Environment, Status, Untried, new_id
from tenantry.operations import fleet, verified
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal, tables, tenants
from tenantry.registry.database import now
from tenantry.resources import Resource

ATTACK: Final = "attack"

OTHERS: Final = 2
"""Tenants that each one is set against: a neighbour on its server, and others drawn by lot."""

BATCH: Final = 20
"""Tenants that carry canaries at a time; after a crash these are attacked once more."""

PARALLEL: Final = 4
"""Tenants attacked at a time."""

TOLD: Final = 50
"""The most breaches told of one tenant, and of what was not promised or not tried."""

EVIDENCE: Final = 300
"""The longest evidence kept, in characters."""

SCHEDULE: Final = "schedule"
"""Who asks for a verification that nobody asked for, as the audit log names it."""

CANARY: Final = "canary"
EVERYTHING: Final = "all attacks"
WHOLE: Final = frozenset({CANARY, EVERYTHING})
"""What leaves a resource unverified where it cannot be tried; of other attacks, one may be missing."""

TRACE: Final = "tenantry-canary-"
SESSIONS: Final = "sessions"

Chosen: TypeAlias = tuple[str, str]
"""A tenant's id and the id of one of its environments."""


class IsolationBroken(TenantryError):
    """'{tenant}' is not kept apart: {count} attacks got through, first '{attack}' on {resource}."""

    code = "isolation.broken"
    remedy = "`tenantry verify` shows each with its evidence. Close it, then run `tenantry verify {slug}`."


class NothingTried(TenantryError):
    """{what} of '{tenant}' could not be tried: {reason}"""

    code = "isolation.untried"
    remedy = "Make it reachable, then run `tenantry verify {slug}`."


class Outside(Protocol):
    """Attacks that do not come through a resource: as visitors of an application, with its sessions and its keys."""

    async def attack(self, env: Environment, other: Environment) -> list[Attempt]:
        """Everything that was tried from one environment on another."""
        ...

    async def seek(self, env: Environment, trace: str) -> Mapping[str, list[str]]:
        """The canaries that the application's own sessions of an environment see, by resource."""
        ...


Outdoors: TypeAlias = AbstractAsyncContextManager[Outside]


# --- who is attacked by whom --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """An environment as far as the choice of its attackers needs it."""

    tenant: str
    slug: str
    environment: str
    name: str
    blueprint: str
    servers: frozenset[str]


async def peers(tx: Transaction) -> list[Peer]:
    """Every environment of every tenant that is neither being made nor going, in the order they were made."""
    tenant, environment, resource = tables.tenant.c, tables.environment.c, tables.resource.c
    servers: dict[str, set[str]] = defaultdict(set)
    placed = select(resource.environment_id, resource.server).where(resource.server.is_not(None))
    for owner, server in await tx.all(placed):
        servers[owner].add(server)
    steady = [status.value for status in Status if status not in (Status.CREATING, Status.DESTROYING)]
    query = (
        select(
            tenant.id.label("tenant"),
            tenant.slug,
            environment.id.label("environment"),
            environment.name,
            tenant.blueprint,
        )
        .join_from(tables.environment, tables.tenant, environment.tenant_id == tenant.id)
        .where(tenant.status.in_(steady))
        .order_by(environment.id)
    )
    return [Peer(**row._mapping, servers=frozenset(servers[row.environment])) for row in await tx.all(query)]


def drawn(found: Sequence[Peer], sample: str | None, lot: random.Random) -> list[Peer]:
    """The environments of a number of tenants ("10"), or of a share of them ("10%"), drawn by lot; None: of all.

    Raises `ConfigError`.
    """
    if sample is None:
        return list(found)
    ids = list(dict.fromkeys(peer.tenant for peer in found))
    count = sample_size(sample, len(ids))
    chosen = set(lot.sample(ids, min(count, len(ids))))
    return [peer for peer in found if peer.tenant in chosen]


def sample_size(sample: str, total: int) -> int:
    """How many of so many tenants a sample is: at least one. Raises `ConfigError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%|(\d+)", sample.strip())
    if match is None or not float(match[1] or match[2]) > 0 or (match[1] and float(match[1]) > 100):
        raise ConfigError(f"'{sample}' is no sample.", remedy='Use a number of tenants ("20") or a share ("10%").')
    return math.ceil(total * float(match[1]) / 100) if match[1] else int(match[2])


class Lots:
    """Chooses the attackers of each environment: linear in their number, never everybody against everybody."""

    def __init__(self, found: Sequence[Peer], lot: random.Random, others: int = OTHERS) -> None:
        self._lot = lot
        self._others = others
        self._near: dict[tuple[str, str], list[Peer]] = defaultdict(list)
        for peer in found:
            for server in peer.servers or {""}:
                self._near[peer.blueprint, server].append(peer)
        self._index = {
            (key, peer.environment): number for key, some in self._near.items() for number, peer in enumerate(some)
        }
        self._all: dict[str, list[Peer]] = defaultdict(list)
        for peer in found:
            self._all[peer.blueprint].append(peer)

    def of(self, peer: Peer) -> list[Chosen]:
        """The next one on each of its servers, then others by lot; none where its blueprint has no other tenant."""
        chosen: dict[str, Chosen] = {}
        for server in sorted(peer.servers) or [""]:
            key = peer.blueprint, server
            some, start = self._near[key], self._index[key, peer.environment]
            following = (some[(start + step) % len(some)] for step in range(1, min(len(some), BATCH)))
            near = next((other for other in following if other.tenant != peer.tenant), None)
            if near is not None:
                chosen[near.tenant] = near.tenant, near.environment
        pool = self._all[peer.blueprint]
        for other in self._lot.sample(pool, min(len(pool), BATCH)):
            if len(chosen) >= self._others:
                break
            if other.tenant != peer.tenant:
                chosen.setdefault(other.tenant, (other.tenant, other.environment))
        return list(chosen.values())


async def submit(
    tx: Transaction, *, sample: str | None = None, slugs: Sequence[str] = (), scheduled: bool = False
) -> journal.Operation:
    """Enter a verification of all tenants, a sample, or those named. Raises `ConfigError` or `TenantNotFound`."""
    named = [(await tenants.find(tx, slug)).slug for slug in slugs]
    operation_id = new_id()
    lot = random.Random(operation_id)  # noqa: S311 -- so that a resumed run would choose alike; it keeps no secret
    found = await peers(tx)
    some = [peer for peer in found if peer.slug in named] if named else drawn(found, sample, lot)
    lots = Lots(found, lot)
    items = [
        journal.NewItem(
            step=0,
            subject=peer.slug,
            arguments={
                "tenant": peer.tenant,
                "environment": peer.environment,
                "name": peer.name,
                "others": lots.of(peer),
            },
        )
        for peer in some
    ]
    arguments = {"sample": sample, "tenants": named, "scheduled": scheduled, "of": len(found)}
    await journal.submit(tx, operation_id, Verify.name, [(ATTACK, "")], arguments=arguments, items=items)
    tx.audit("platform.verify", "platform", operation=operation_id, tenants=len(items), sample=sample)
    return await journal.get(tx, operation_id)


async def is_due(tx: Transaction, schedule: str, since: datetime) -> bool:
    """Whether a schedule (a cron expression, in UTC) asks for a verification that has not been since then.

    `since` is when whoever asks began: a platform that never was verified is not until the schedule's next moment.
    """
    due = next(CronSim(schedule, now() + timedelta(seconds=1), reverse=True))
    query = select(func.max(tables.operation.c.id)).where(tables.operation.c.verb == Verify.name)
    newest = await tx.scalar(query.where(tables.operation.c.actor == SCHEDULE))
    return due > ((await journal.get(tx, newest)).created if newest else since)


async def submit_due(tx: Transaction, schedule: str, sample: str, since: datetime) -> journal.Operation | None:
    """Enter the verification that a schedule asks for; None where it asks for none, or somebody was quicker."""
    return await submit(tx, sample=sample, scheduled=True) if await is_due(tx, schedule, since) else None


# --- what came of it ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What came of all attacks on one environment."""

    against: list[str]
    kept: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    breaches: list[dict[str, str]] = field(default_factory=list)
    not_promised: list[dict[str, str]] = field(default_factory=list)
    untried: list[dict[str, str]] = field(default_factory=list)

    def add(self, attempts: Iterable[Attempt], against: str) -> None:
        """Count attempts on one other tenant; what is not promised or not tried is told once."""
        for one in attempts:
            entry = {"resource": one.resource, "attack": one.attack, "against": against}
            entry["evidence"] = one.evidence[:EVIDENCE]
            if isinstance(one, Untried):
                _once(self.untried, entry)
            elif isinstance(one, Breach):
                _once(self.breaches if one.promised else self.not_promised, entry)
            else:
                self.kept[one.resource][one.attack] += 1

    def error(self, slug: str, name: str) -> TenantryError | None:
        """Why this environment is not in order; None where every attack that was tried was kept out."""
        shown = f"{slug}/{name}"
        if self.breaches:
            first = self.breaches[0]
            return IsolationBroken(
                tenant=shown, slug=slug, count=len(self.breaches), attack=first["attack"], resource=first["resource"]
            )
        if not self.against:
            return NothingTried(tenant=shown, slug=slug, what="Any attack", reason="its blueprint has no other tenant.")
        tried = {resource for resource, names in self.kept.items() if names.keys() - {CANARY}}
        tried |= {entry["resource"] for entry in self.not_promised}
        missing = next((one for one in self.untried if one["attack"] in WHOLE or one["resource"] not in tried), None)
        if missing is not None:
            what = f"'{missing['attack']}' on {missing['resource']}"
            return NothingTried(tenant=shown, slug=slug, what=what, reason=missing["evidence"])
        return None if tried else NothingTried(tenant=shown, slug=slug, what="Any attack", reason="it has nothing.")

    def text(self) -> str:
        """The whole of it as JSON, as it is kept with the operation's item."""
        return json.dumps(
            {
                "against": self.against,
                "kept": self.kept,
                "breaches": self.breaches,
                "not_promised": self.not_promised,
                "untried": self.untried,
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )


def _once(entries: list[dict[str, str]], entry: dict[str, str]) -> None:
    same = any((one["resource"], one["attack"]) == (entry["resource"], entry["attack"]) for one in entries)
    if not same and len(entries) < TOLD:
        entries.append(entry)


# --- the verb -----------------------------------------------------------------------------------------------------


class Verify(Verb):
    """Attacks the environments that its items name."""

    name: ClassVar[str] = "verify"  # undone: the canaries of the batch it was killed or cancelled in are removed

    async def perform(self, work: Work, step: journal.Step) -> str:
        async with _outdoors(work.tools) as outside:
            run = _Run(work, outside)
            count = await fleet.work_through(
                work,
                step,
                run.attack,
                run.record,
                tenant_of=lambda item: str(item.arguments["tenant"]),
                manner=fleet.Manner(size=BATCH, first=BATCH),
            )
        return f"{count.done} kept apart, {count.failed} not"

    async def undo(self, work: Work, step: journal.Step) -> None:
        async with work.tools.registry.read() as tx:
            pending = journal.StepState.PENDING
            items = await journal.items(tx, work.operation.id, step=step.position, state=pending, limit=BATCH * 5)
            found = await work.tools.all_environments(tx, {str(item.arguments["tenant"]) for item in items})
        for environment in found:
            await _uproot(work.tools, environment)

    async def digest(self, work: Work) -> str | None:
        async with work.tools.registry.read() as tx:
            return await verified.digest(tx, work.operation.id)

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        operation = await journal.get(tx, work.operation.id)
        found = verified.kept(await journal.digest(tx, operation.id))
        facts = {"verified": operation.done, "failed": operation.failed, "tenantry": version("tenantry")}
        return {**found.counts, **facts}


@asynccontextmanager
async def _outdoors(tools: Toolbox) -> AsyncIterator[Outside | str]:
    """The application's side, or why there is none."""
    if tools.outdoors is None:
        yield "this process has no runtime"
        return
    async with AsyncExitStack() as stack:
        try:
            outside: Outside | str = await stack.enter_async_context(tools.outdoors())
        except TenantryError as error:
            outside = str(error)
        yield outside


class _Run:
    """One worker's run."""

    def __init__(self, work: Work, outside: Outside | str) -> None:
        self.tools = work.tools
        self.outside = outside
        self.trace = f"{TRACE}{work.operation.id[-12:]}-"

    async def attack(self, items: Sequence[journal.Item]) -> list[fleet.Result]:
        """Attack a batch, whose environments carry canaries meanwhile."""
        found = await self._load(items)
        mine = [found[item.arguments["environment"]] for item in items if item.arguments["environment"] in found]
        others = {e: found[e] for item in items for _, e in item.arguments["others"] if e in found}
        tallies: dict[str, Tally] = {}
        async with self._planted(mine) as (owners, failed):
            gate = asyncio.Semaphore(PARALLEL)

            async def one(item: journal.Item) -> fleet.Result:
                async with gate:
                    return await self._one(item, found, tallies)

            results = await asyncio.gather(*(one(item) for item in items))
            await self._search(mine, others, owners, failed, tallies)
        return [self._judged(result, tallies) for result in results]

    async def _load(self, items: Sequence[journal.Item]) -> dict[str, Environment]:
        """The environments of a batch and those it is set against, their secrets opened."""
        ids = {str(item.arguments["tenant"]) for item in items}
        ids |= {tenant for item in items for tenant, _ in item.arguments["others"]}
        async with self.tools.registry.read() as tx:
            return {e.id: e for tenant in sorted(ids) for e in await self.tools.environments(tx, tenant)}

    async def _one(
        self, item: journal.Item, found: Mapping[str, Environment], tallies: dict[str, Tally]
    ) -> fleet.Result:
        watch = fleet.Stopwatch()
        env = found.get(item.arguments["environment"])
        if env is None:
            return fleet.Result(item, detail="destroyed meanwhile")
        others = [found[e] for _, e in item.arguments["others"] if e in found]
        tally = tallies[env.id] = Tally([other.tenant.slug for other in others])
        for other in others:
            for resource in self._resources(env):
                tally.add(await _attempts(resource, env, other), other.tenant.slug)
            tally.add(await self._from_outside(env, other), other.tenant.slug)
        return fleet.Result(item, seconds=watch.seconds)

    async def _from_outside(self, env: Environment, other: Environment) -> list[Attempt]:
        if isinstance(self.outside, str):
            return [Untried("application", EVERYTHING, self.outside)]
        try:
            return await self.outside.attack(env, other)
        except Exception as error:  # also what the platform's own application throws
            return [Untried("application", EVERYTHING, _reason(error))]

    def _judged(self, result: fleet.Result, tallies: Mapping[str, Tally]) -> fleet.Result:
        tally = tallies.get(str(result.item.arguments["environment"]))
        if tally is None:
            return result
        error = tally.error(result.item.subject, result.item.arguments["name"])
        return fleet.Result(result.item, error, tally.text(), result.seconds)

    def _resources(self, env: Environment) -> tuple[Resource, ...]:
        return tuple(self.tools.resources[env.tenant.blueprint])

    async def record(self, tx: Transaction, results: Sequence[fleet.Result]) -> None:
        """Enter each breach into the audit log."""
        for result in results:
            if isinstance(result.error, IsolationBroken):
                arguments = result.item.arguments
                told = {"id": arguments["tenant"], "environment": arguments["name"], "what": result.error.message}
                tx.audit("tenant.breach", result.item.subject, **told)

    # --- canaries ---

    @asynccontextmanager
    async def _planted(
        self, environments: Sequence[Environment]
    ) -> AsyncIterator[tuple[dict[str, tuple[Environment, str]], dict[tuple[str, str], str]]]:
        """A canary of its own in each resource of each environment, for the length of the block.

        Gives whose each canary is, and why some could not be planted.
        """
        owners: dict[str, tuple[Environment, str]] = {}
        failed: dict[tuple[str, str], str] = {}
        try:
            for env in environments:
                for resource in self._resources(env):
                    if not resource.plants:
                        continue
                    canary = f"{self.trace}{secrets.token_hex(16)}"
                    owners[canary] = env, resource.name
                    try:
                        await resource.plant(env, canary)
                    except TenantryError as error:
                        failed[env.id, resource.name] = error.message
            yield owners, failed
        finally:
            for env in environments:
                await _uproot(self.tools, env)

    async def _search(
        self,
        mine: Sequence[Environment],
        others: Mapping[str, Environment],
        owners: Mapping[str, tuple[Environment, str]],
        failed: Mapping[tuple[str, str], str],
        tallies: Mapping[str, Tally],
    ) -> None:
        """Look for the canaries wherever they must not be: in all these environments, and through the application."""
        for (env_id, name), reason in failed.items():
            tallies[env_id].add([Untried(name, CANARY, reason)], "")
        for env in {**{e.id: e for e in mine}, **others}.values():
            planted = {(name, canary) for canary, (owner, name) in owners.items() if owner.id == env.id}
            for resource in self._resources(env):
                seen = await self._seen(resource, env, tallies)
                if seen is None:
                    continue
                own = {canary for name, canary in planted if name == resource.name}
                if own - set(seen) and (env.id, resource.name) not in failed:
                    reason = "its own canary was not found, so that the search sees nothing"
                    tallies[env.id].add([Untried(resource.name, CANARY, reason)], "")
                self._strays(env, resource.name, [canary for canary in seen if canary not in own], owners, tallies)
                if env.id in tallies and own <= set(seen):
                    tallies[env.id].add([Attempt(resource.name, CANARY)], "")
            await self._search_application(env, owners, tallies)

    async def _seen(self, resource: Resource, env: Environment, tallies: Mapping[str, Tally]) -> list[str] | None:
        try:
            return await resource.seek(env, self.trace)
        except TenantryError as error:
            if env.id in tallies:
                tallies[env.id].add([Untried(resource.name, CANARY, error.message)], "")
            return None

    async def _search_application(
        self, env: Environment, owners: Mapping[str, tuple[Environment, str]], tallies: Mapping[str, Tally]
    ) -> None:
        if isinstance(self.outside, str) or env.id not in tallies:
            return
        for name, seen in (await self.outside.seek(env, self.trace)).items():
            where = f"{name} by the application's session"
            own = {canary for canary, (owner, planted) in owners.items() if (owner.id, planted) == (env.id, name)}
            strays = [canary for canary in seen if owners.get(canary, (env, ""))[0].id != env.id]
            self._strays(env, where, strays, owners, tallies)
            if not own <= set(seen):
                reason = f"its own canary in {name} was not found by the application's session"
                tallies[env.id].add([Untried(SESSIONS, CANARY, reason)], "")
            elif not strays:
                tallies[env.id].add([Attempt(SESSIONS, CANARY)], "")

    @staticmethod
    def _strays(
        env: Environment,
        where: str,
        seen: Sequence[str],
        owners: Mapping[str, tuple[Environment, str]],
        tallies: Mapping[str, Tally],
    ) -> None:
        """Canaries seen from an environment that they were not planted in."""
        for canary in seen:
            if canary in owners:
                owner, name = owners[canary]
                evidence = f"the canary of {owner.tenant.slug} is seen in {where} of {env.tenant.slug}"
                tallies[owner.id].add([Breach(name, CANARY, evidence)], env.tenant.slug)


async def _attempts(resource: Resource, env: Environment, other: Environment) -> list[Attempt]:
    try:
        return await resource.attack(env, other)
    except Exception as error:  # a driver at fault must not keep the others from being tried
        return [Untried(resource.name, EVERYTHING, _reason(error))]


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, TenantryError) else f"{type(error).__name__}: {error}"


async def _uproot(tools: Toolbox, env: Environment) -> None:
    for resource in tools.resources[env.tenant.blueprint]:
        with suppress(TenantryError):  # gone, or not reachable: then it holds no canary either, or a later run's
            await resource.uproot(env)
