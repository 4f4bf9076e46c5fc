"""Import: many tenants out of one list, made in batches; a row that cannot be made is named and holds nobody up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from tenantry.errors import HostTaken, SlugTaken, TenantryError
from tenantry.model import Environment, Status
from tenantry.operations import create, drop, due, fleet, placement
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal, tenants
from tenantry.resources import Resource

STEP: Final = "tenants"
REFUSED: Final = -1
"""The step of items that were refused as the list was read."""

AT_ONCE: Final = 8
"""Tenants made at the same time: each waits for the disk most of its time, and the disk writes several at once."""


class Import(Verb):
    """Makes the tenants that its items describe."""

    name: ClassVar[str] = "import"
    reversible: ClassVar[bool] = False  # a cancelled import keeps the tenants that are ready
    pausable: ClassVar[bool] = True

    async def perform(self, work: Work, step: journal.Step) -> str:
        run = _Run(work)
        count = await fleet.work_through(
            work, step, run.make, run.record, tenant_of=lambda item: str(item.arguments["id"])
        )
        return f"{count.done} made, {count.failed} failed"

    async def complete(self, tx: Transaction, work: Work) -> Mapping[str, Any] | None:
        operation = await journal.get(tx, work.operation.id)
        return {"made": operation.done, "failed": operation.failed}


class _Run:
    """One worker's run through an import."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tools = work.tools
        self.secrets: list[tuple[str, str, bytes]] = []
        self.versions: dict[Resource, str | None] = {}  # that the batch is made at

    async def make(self, items: Sequence[journal.Item]) -> list[fleet.Result]:
        """Reserve, make and enrol a batch."""
        watch = fleet.Stopwatch()
        self.secrets = []
        errors: dict[str, TenantryError] = {}
        environments = await self._reserve(items, errors)
        by_blueprint: dict[str, list[Environment]] = {}
        for environment in environments:
            by_blueprint.setdefault(environment.tenant.blueprint, []).append(environment)
        for blueprint, some in by_blueprint.items():
            for resource in self.tools.resources[blueprint]:
                await self._create(resource, some, errors)
            self.secrets += await self._enrol(some, errors)
        await self._clear(environments, errors)
        each = watch.seconds / len(items)
        return [fleet.Result(item, errors.get(item.arguments["id"]), seconds=each) for item in items]

    async def _reserve(self, items: Sequence[journal.Item], errors: dict[str, TenantryError]) -> list[Environment]:
        """Enter the batch's tenants; one that is there already, from before a crash, is taken as it is."""
        ids = [str(item.arguments["id"]) for item in items]
        async with self.work.write() as tx:
            await self.tools.learn_released(tx)
            self.versions = {one: one.golden for one in due.with_schema(self.tools)}
            found = await self.tools.all_environments(tx, ids)
            there = {environment.tenant.id for environment in found}
            fresh = [item for item in items if item.arguments["id"] not in there]
            drafted = {str(item.arguments["id"]): create.again(self.tools, item.arguments) for item in fresh}
            drafts = await self._fitting(tx, drafted, errors)
            entered = [environment for some in drafts.values() for environment in some]
            if entered:
                vault = self.tools.registry.vault
                keys = {tenant_id: vault.new_data_key(tenant_id) for tenant_id in drafts}
                placed, homeless = await placement.place_each(tx, self.tools, entered, keys)
                errors.update(homeless)
                keys = {tenant_id: key for tenant_id, key in keys.items() if tenant_id not in homeless}
                await tenants.insert_many(tx, placed, keys)
                found += await self.tools.all_environments(tx, keys)
        return found

    async def _fitting(
        self, tx: Transaction, drafts: Mapping[str, list[Environment]], errors: dict[str, TenantryError]
    ) -> dict[str, list[Environment]]:
        """The drafts that can be entered together; why the others cannot goes to `errors`."""
        slugs = await tenants.taken(tx, [draft[0].tenant.slug for draft in drafts.values()])
        hosts = await tenants.hosts_taken(
            tx, [host for draft in drafts.values() for e in draft for host in e.hostnames]
        )
        room = await create.room(tx, self.tools)
        fitting: dict[str, list[Environment]] = {}
        for tenant_id, draft in drafts.items():
            slug, names = draft[0].tenant.slug, [host for e in draft for host in e.hostnames]
            clash = next((host for host in names if host in hosts), None)
            if slug in slugs:
                errors[tenant_id] = SlugTaken(f"'{slug}' is {slugs[slug]}.")
            elif clash is not None:
                errors[tenant_id] = HostTaken(host=clash)
            elif len(fitting) >= room:
                errors[tenant_id] = create.full(self.tools)
            else:
                fitting[tenant_id] = draft
                hosts.update(names)
        return fitting

    async def _create(
        self, resource: Resource, environments: list[Environment], errors: dict[str, TenantryError]
    ) -> None:
        wanted = [environment for environment in environments if environment.tenant.id not in errors]
        for environment, error in zip(wanted, await resource.create_many(wanted, AT_ONCE), strict=True):
            if error is not None:
                errors[environment.tenant.id] = error

    async def _enrol(
        self, environments: list[Environment], errors: dict[str, TenantryError]
    ) -> list[tuple[str, str, bytes]]:
        wanted = [environment for environment in environments if environment.tenant.id not in errors]
        if not wanted:
            return []
        made, failed = await self.tools.enrol_admins(wanted, AT_ONCE)
        errors.update(failed)
        return made

    async def _clear(self, environments: list[Environment], errors: Mapping[str, TenantryError]) -> None:
        """Remove what was made of tenants that failed."""
        for environment in environments:
            if environment.tenant.id in errors:
                for resource in self.tools.resources[environment.tenant.blueprint]:
                    await drop.gone(self.work, resource, environment)
        self.tools.remove_homes(e for e in environments if e.tenant.id in errors)

    async def record(self, tx: Transaction, results: Sequence[fleet.Result]) -> None:
        """Let the batch go live."""
        made = [str(result.item.arguments["id"]) for result in results if result.error is None]
        failed = [str(result.item.arguments["id"]) for result in results if result.error is not None]
        environments = await tenants.environments(tx, made)
        versions = [
            (environment.id, resource.name, self.versions[resource])
            for environment in environments
            for resource in self.tools.resources[environment.tenant.blueprint]
            if resource in self.versions
        ]
        await tenants.set_versions(tx, versions)
        await tenants.put_secrets(tx, self.secrets)
        await tenants.set_status(tx, made, Status.ACTIVE)
        if failed:
            await tenants.remove(tx, failed)
        for result in results:
            if result.error is None:
                arguments = result.item.arguments
                tx.audit("tenant.create", result.item.subject, id=arguments["id"], blueprint=arguments["blueprint"])
