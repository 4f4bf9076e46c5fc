"""Create a tenant: it is reserved as the operation is submitted, then each part is made, then it goes live."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from tenantry.errors import LimitReached, OperationRefused, SlugTaken
from tenantry.identity import sees_only
from tenantry.model import Environment, Status, Tenant, new_id
from tenantry.operations import drop, placement
from tenantry.operations.toolbox import VALUE, Toolbox
from tenantry.operations.verb import Verb, Work, resource_steps
from tenantry.registry import Transaction, journal, signups, tenants
from tenantry.registry.database import now
from tenantry.resources import Resource

ADMIN_STEP = "admin"
LIVE_STEP = "live"


def steps(tools: Toolbox, environments: Sequence[Environment]) -> list[tuple[str, str]]:
    """The steps that make these environments of one tenant."""
    planned = resource_steps(tools, environments)
    if tools.users_resource(environments[0].tenant.blueprint) is not None:
        planned.append((ADMIN_STEP, ""))
    return [*planned, (LIVE_STEP, "")]


async def room(tx: Transaction, tools: Toolbox) -> float:
    """How many tenants more the platform may have."""
    limit = tools.config.platform.max_tenants
    return math.inf if limit is None else limit - await tenants.count(tx)


def full(tools: Toolbox) -> LimitReached:
    """The error where there is no room."""
    return LimitReached(limit="platform.max_tenants", value=tools.config.platform.max_tenants)


async def refuse_full(tx: Transaction, tools: Toolbox, more: int) -> None:
    """Raise `LimitReached` where the platform has no room for so many tenants more."""
    if more > await room(tx, tools):
        raise full(tools)


async def refuse_taken(tx: Transaction, slug: str) -> None:
    """Raise `SlugTaken`, with the reason, for a slug that cannot be had."""
    why = (await tenants.taken(tx, [slug])).get(slug)
    if why:  # by whom it is held is nothing for the admin of other tenants
        raise SlugTaken(slug=slug) if sees_only() else SlugTaken(f"'{slug}' is {why}.")


async def reserve(
    tx: Transaction,
    tools: Toolbox,
    environments: Sequence[Environment],
    secret_values: Mapping[str, Mapping[str, bytes]] | None = None,
    keys: Mapping[str, bytes] | None = None,
    choice: placement.Choice = placement.ANY,
) -> None:
    """Enter tenants that do not exist yet, so that nobody else gets their slugs, hostnames or room on servers."""
    ids = list(dict.fromkeys(environment.tenant.id for environment in environments))
    vault = tools.registry.vault
    sealed_keys = keys or {tenant_id: vault.new_data_key(tenant_id) for tenant_id in ids}
    placed = await placement.place(tx, tools, environments, sealed_keys, choice)
    await tenants.insert_many(tx, placed, sealed_keys)
    rows = [(t, VALUE + name, sealed) for t, fields in (secret_values or {}).items() for name, sealed in fields.items()]
    await tenants.put_secrets(tx, rows)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who signed up for a tenant: its first admin, who chooses a password within it."""

    mail: str
    name: str
    trial: float | None = None  # seconds for which she tries it out


async def enter(
    tx: Transaction,
    tools: Toolbox,
    environments: Sequence[Environment],
    secret: Mapping[str, Any],
    server: str | None = None,
    owner: Owner | None = None,
) -> str:
    """Reserve a tenant and queue what makes it: the operation's id. Raises as `Tenants.create` does."""
    vault, tenant, operation_id = tools.registry.vault, environments[0].tenant, new_id()
    key = vault.new_data_key(tenant.id)
    sealed = {
        name: vault.seal(tenant.id, key, VALUE + name, json.dumps(value, ensure_ascii=False))
        for name, value in secret.items()
    }
    await refuse_full(tx, tools, 1)
    await refuse_taken(tx, tenant.slug)
    await reserve(tx, tools, environments, {tenant.id: sealed}, {tenant.id: key}, placement.Choice(server=server))
    arguments: dict[str, Any] = {**describe(environments[0]), "secrets": sorted(secret), "server": server}
    if owner is not None:
        arguments |= {"owner": owner.mail, "owner_name": owner.name, "trial": owner.trial}
    planned = steps(tools, environments)
    await journal.submit(tx, operation_id, "create", planned, tenant=(tenant.id, tenant.slug), arguments=arguments)
    tx.audit("tenant.reserve", tenant.slug, id=tenant.id, blueprint=tenant.blueprint, plan=tenant.plan)
    return operation_id


def describe(environment: Environment) -> dict[str, Any]:
    """What an operation must keep to reserve a tenant again."""
    tenant = environment.tenant
    return {
        "id": tenant.id,
        "slug": tenant.slug,
        "name": tenant.name,
        "blueprint": tenant.blueprint,
        "plan": tenant.plan,
        "settings": dict(tenant.settings),
    }


def again(tools: Toolbox, arguments: Mapping[str, Any]) -> list[Environment]:
    """The environments that `describe` described."""
    return tools.draft(
        arguments["slug"],
        arguments["name"],
        arguments["blueprint"],
        arguments["plan"],
        arguments["settings"],
        arguments["id"],
    )


class Create(Verb):
    """Makes one tenant."""

    name: ClassVar[str] = "create"

    async def perform(self, work: Work, step: journal.Step) -> str:
        if step.kind:
            return await self._make(work, step)
        return await (self._admin(work) if step.name == ADMIN_STEP else self._live(work))

    async def _make(self, work: Work, step: journal.Step) -> str:
        resource, environment = await work.parts(step, recent=True)
        version = await self._settle(work, resource, environment)
        if version:
            return f"schema {version}"
        place = environment.place(resource.name)
        return work.tools.spot(environment, place if place and place.server else resource.place(environment))

    async def _settle(self, work: Work, resource: Resource, environment: Environment) -> str | None:
        """Make a resource at the schema of new tenants, which is to be recorded."""
        version = resource.golden
        await resource.create(environment)
        if resource.has_schema:
            work.later(lambda tx: tenants.set_versions(tx, [(environment.id, resource.name, version)]))
        return version

    async def _admin(self, work: Work) -> str:
        told = work.operation.arguments
        owner = (told["owner"], told["owner_name"]) if told.get("owner") else None
        made, errors = await work.tools.enrol_admins(await work.recent(), owner=owner)
        for error in errors.values():
            raise error
        if not made:
            return owner[0] if owner else ""
        async with work.write() as tx:
            await tenants.put_secrets(tx, made)
        return "password waits to be shown once"

    async def _live(self, work: Work) -> str:
        while True:  # a release or a run may have come since their first step; no migration saw them
            async with work.write() as tx:
                assert work.operation.tenant_id is not None
                environments = await work.tools.environments(tx, work.operation.tenant_id)
                await work.tools.learn_released(tx)
                behind = self._behind(work, environments)
                if not behind:
                    tenant = environments[0].tenant
                    if tenant.status is Status.CREATING:  # else a worker came to here and no further
                        await self._open(tx, work, tenant)
                    return " ".join(name for environment in environments for name in environment.hostnames)
            for resource, environment in behind:
                await self._settle(work, resource, environment)
            async with work.write() as tx:
                await work.catch_up(tx)

    async def _open(self, tx: Transaction, work: Work, tenant: Tenant) -> None:
        """Let requests reach it: for good, or to be tried out."""
        arguments = work.operation.arguments
        trial = arguments.get("trial")
        await tenants.set_status(tx, [tenant.id], Status.TRIALING if trial else Status.ACTIVE)
        if trial:
            await signups.begin_trial(tx, tenant.id, arguments["owner"], now() + timedelta(seconds=trial))
        if arguments.get("owner") and work.tools.config.signup.wizard:
            await signups.set_welcome(tx, tenant.id, 0)
        tx.audit(f"tenant.{self.name}", tenant.slug, id=tenant.id, blueprint=tenant.blueprint, plan=tenant.plan)

    def _behind(self, work: Work, environments: Sequence[Environment]) -> list[tuple[Resource, Environment]]:
        """What is not at the schema of new tenants."""
        return [
            (resource, environment)
            for environment in environments
            for resource in work.tools.resources[environment.tenant.blueprint]
            if resource.has_schema
            if (place := environment.place(resource.name)) is not None and place.version != resource.golden
        ]

    async def undo(self, work: Work, step: journal.Step) -> None:
        if step.kind and await work.environments():
            resource, environment = await work.parts(step)
            await drop.gone(work, resource, environment)

    async def give_up(self, tx: Transaction, work: Work) -> None:
        operation = work.operation
        assert operation.tenant_id is not None
        environments = await tenants.environments(tx, [operation.tenant_id])
        used = {place.server for environment in environments for place in environment.places if place.server}
        silent = sorted(name for name in used if work.tools.servers.shunned(name))
        await journal.note(tx, operation, silent=silent)
        work.tools.remove_homes(environments)
        await tenants.remove(tx, [operation.tenant_id])
        tx.audit(f"tenant.{self.name}_undone", str(operation.tenant_slug), id=operation.tenant_id)

    async def again(self, tx: Transaction, tools: Toolbox, operation: journal.Operation) -> None:
        if operation.arguments.get("secrets"):
            raise OperationRefused(
                state=operation.state.value,
                action="resumed: its secret values were removed with it",
                remedy=f"Create '{operation.tenant_slug}' again.",
                operation=operation.id,
            )
        await refuse_full(tx, tools, 1)
        await refuse_taken(tx, str(operation.tenant_slug))
        choice = placement.Choice(
            server=operation.arguments.get("server"), avoid=frozenset(operation.arguments.get("silent", ()))
        )
        await reserve(tx, tools, again(tools, operation.arguments), choice=choice)
