"""Rotate database logins: the new one is let in beside the old one, which ends when every process has the new one.

A tenant's next logins are decided and sealed in the registry before any server hears of them, and stay there until the
old ones are gone. So whoever goes on after a crash goes on with the same logins, and no user is ever left unknown.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from tenantry.errors import TenantNotFound, TenantryError
from tenantry.model import Environment, Login, Status
from tenantry.operations import fleet, placement, rotate_shared
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal, servers, tenants
from tenantry.resources import Resource

STEP: Final = "tenants"
NEXT: Final = "next:"
"""Fields of sealed logins that are on their way begin so."""

AT_ONCE: Final = 8
"""Logins that are changed at the same time."""

BATCH: Final = 50
"""Tenants that share one wait for the spread of their new logins."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One database whose login changes."""

    resource: Resource
    environment: Environment
    old: Login
    new: Login
    final: bool = False  # whether the old login may be gone already: then there is no way back

    @property
    def field(self) -> str:
        """The field of the registry's secrets under which both logins wait."""
        return f"{NEXT}{self.environment.id}/{self.resource.name}"

    def with_login(self, login: Login) -> Environment:
        """The environment as one that has this login."""
        return replace(self.environment, logins={**self.environment.logins, self.resource.name: login})


class Rotate(Verb):
    """Gives databases new logins. Its items are tenants, and databases that tenants share."""

    name: ClassVar[str] = "rotate"
    reversible: ClassVar[bool] = False  # each tenant ends with a whole login, the new one or the old one
    pausable: ClassVar[bool] = True

    async def perform(self, work: Work, step: journal.Step) -> str:
        run = _Run(work)
        manner = fleet.Manner(size=BATCH, first=BATCH)
        count = await fleet.work_through(
            work, step, run.turn, run.record, tenant_of=lambda item: str(item.arguments["id"]), manner=manner
        )
        return f"{count.done} done, {count.failed} failed"

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        operation = await journal.get(tx, work.operation.id)
        return {"done": operation.done, "failed": operation.failed}


def placed(tools: Toolbox, environment: Environment) -> list[Resource]:
    """The resources of an environment that it has a login for."""
    return [one for one in tools.resources[environment.tenant.blueprint] if one.name in environment.logins]


class _Run:
    """One worker's run through a rotation."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tools = work.tools
        self._ended: list[Turn] = []

    async def turn(self, items: Sequence[journal.Item]) -> list[fleet.Result]:
        """Give a batch of tenants, and databases that tenants share, new logins, and end the old ones."""
        shared = [item for item in items if "database" in item.arguments]
        own = [item for item in items if item not in shared]
        others = asyncio.gather(*(rotate_shared.turn(self.work, item) for item in shared))
        found, more = await asyncio.gather(self._turn_own(own), others)
        return [*found, *more]

    async def _turn_own(self, items: Sequence[journal.Item]) -> list[fleet.Result]:
        if not items:
            return []
        watch = fleet.Stopwatch()
        errors: dict[str, TenantryError] = {}
        turns = await self._decide(items, errors)
        await self._each(turns, self._admit, errors)
        good = await self._settle(turns, errors)
        if good:
            await asyncio.sleep(self.tools.config.worker.overlap)
            await self._keep([replace(turn, final=True) for turn in good])
            await self._each(good, self._expel, errors)
        self._ended = [turn for turn in good if turn.environment.tenant.id not in errors]
        users: dict[str, list[str]] = {}
        for turn in self._ended:
            users.setdefault(turn.environment.tenant.id, []).append(turn.new.user)
        each = watch.seconds / len(items)
        return [
            fleet.Result(item, errors.get(item.arguments["id"]), ", ".join(users.get(item.arguments["id"], ())), each)
            for item in items
        ]

    async def record(self, tx: Transaction, results: Sequence[fleet.Result]) -> None:
        """Forget the old logins of those that have new ones."""
        for turn in self._ended:
            await tenants.drop_secret(tx, turn.environment.tenant.id, turn.field)
        for result in results:
            if result.error is None:
                tx.audit("tenant.rotate", result.item.subject, id=result.item.arguments["id"], users=result.detail)

    # --- before any server hears of it ---

    async def _decide(self, items: Sequence[journal.Item], errors: dict[str, TenantryError]) -> list[Turn]:
        """The new logins, sealed in the registry; those that were decided before a crash are taken as they are."""
        ids = {str(item.arguments["id"]): item.subject for item in items}
        turns: list[Turn] = []
        async with self.work.write() as tx:
            found = await self.tools.all_environments(tx, ids)
            for environment in found:
                waiting = await tenants.secrets(tx, environment.tenant.id)
                turns += [self._turn(resource, environment, waiting) for resource in placed(self.tools, environment)]
            there = {e.tenant.id for e in found if e.tenant.status is not Status.DESTROYING}
            errors.update({key: TenantNotFound(slug=slug) for key, slug in ids.items() if key not in there})
            turns = [turn for turn in turns if turn.environment.tenant.id in there]
            await self._put(tx, turns)
        return turns

    async def _keep(self, turns: Sequence[Turn]) -> None:
        async with self.work.write() as tx:
            await self._put(tx, turns)

    async def _put(self, tx: Transaction, turns: Sequence[Turn]) -> None:
        await tenants.put_secrets(tx, [(turn.environment.tenant.id, turn.field, self._sealed(turn)) for turn in turns])

    def _turn(self, resource: Resource, environment: Environment, waiting: Mapping[str, bytes]) -> Turn:
        current = environment.logins[resource.name]
        turn = Turn(resource, environment, current, current)
        sealed = waiting.get(turn.field)
        if sealed is None:
            return replace(turn, new=resource.new_login(environment))
        vault, tenant_id = self.tools.registry.vault, environment.tenant.id
        old, new, final = json.loads(vault.open(tenant_id, environment.sealed_key, turn.field, sealed))
        return replace(turn, old=Login(*old), new=Login(*new), final=final)

    def _sealed(self, turn: Turn) -> bytes:
        old, new = ([login.user, login.password] for login in (turn.old, turn.new))
        vault, environment = self.tools.registry.vault, turn.environment
        text = json.dumps([old, new, turn.final])
        return vault.seal(environment.tenant.id, environment.sealed_key, turn.field, text)

    # --- on the servers ---

    async def _each(self, turns: Iterable[Turn], verb: Any, errors: dict[str, TenantryError]) -> None:
        """Do something for each turn of a tenant without an error, some at a time; an error is its tenant's."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(turn: Turn) -> None:
            async with slots:
                try:
                    await verb(turn)
                except TenantryError as error:
                    errors.setdefault(turn.environment.tenant.id, error)

        await asyncio.gather(*(one(turn) for turn in turns if turn.environment.tenant.id not in errors))

    @staticmethod
    async def _admit(turn: Turn) -> None:
        await turn.resource.admit(turn.with_login(turn.old), turn.new)

    @staticmethod
    async def _expel(turn: Turn) -> None:
        if turn.old.user != turn.new.user:
            await turn.resource.expel(turn.with_login(turn.new), turn.old.user)

    async def _settle(self, turns: Sequence[Turn], errors: dict[str, TenantryError]) -> list[Turn]:
        """Record the new logins where all went well, and write again what names them; take back the others."""
        good = [turn for turn in turns if turn.environment.tenant.id not in errors]
        await self._take_back([turn for turn in turns if turn.environment.tenant.id in errors])
        await self._record(good, "new")
        await self._render(good, errors)
        bad = [turn for turn in good if turn.environment.tenant.id in errors]
        await self._take_back(bad, spread=True)
        return [turn for turn in good if turn.environment.tenant.id not in errors]

    async def _record(self, turns: Sequence[Turn], which: str) -> None:
        if not turns:
            return
        vault = self.tools.registry.vault
        rows = [
            (e.tenant.id, e.id, turn.resource.name, placement.seal(vault, e, e.sealed_key, turn.resource.name, login))
            for turn in turns
            if (e := turn.environment) and (login := getattr(turn, which))
        ]
        async with self.work.write() as tx:
            await servers.set_login(tx, rows)

    async def _render(self, turns: Sequence[Turn], errors: dict[str, TenantryError]) -> None:
        """Make anew what is made out of a tenant's values, which may name the login."""
        ids = dict.fromkeys(turn.environment.tenant.id for turn in turns)
        for tenant_id in ids:
            async with self.tools.registry.read() as tx:
                environments = await self.tools.environments(tx, tenant_id)
            for environment in environments:
                for resource in self.tools.resources[environment.tenant.blueprint]:
                    try:
                        if resource.follows_tenant:
                            await resource.create(environment)
                    except TenantryError as error:
                        errors.setdefault(tenant_id, error)

    async def _take_back(self, turns: Sequence[Turn], *, spread: bool = False) -> None:
        """Let the old logins stand alone again. What a silent server keeps of a new one is taken up by the next try.

        `spread` says that processes may have the new ones, and need time to take the old ones up again.
        """
        turns = [turn for turn in turns if not turn.final]
        if not turns:
            return
        if spread:
            await self._record(turns, "old")
            await self._render(turns, {})
            await asyncio.sleep(self.tools.config.worker.overlap)
        silent: dict[str, TenantryError] = {}
        await self._each(turns, self._expel_new, silent)
        async with self.work.write() as tx:
            for turn in turns:
                if turn.environment.tenant.id not in silent:
                    await tenants.drop_secret(tx, turn.environment.tenant.id, turn.field)

    @staticmethod
    async def _expel_new(turn: Turn) -> None:
        if turn.old.user != turn.new.user:
            await turn.resource.expel(turn.with_login(turn.old), turn.new.user)
