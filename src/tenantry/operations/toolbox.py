"""What every operation works with: the configuration, the registry, and the resources of each blueprint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenantry import credentials, paths
from tenantry.config import Config
from tenantry.errors import TenantryError
from tenantry.model import (
    Environment,
    Place,
    Server,
    Status,
    Tenant,
    expand,
    facts_of,
    new_client_id,
    new_id,
)
from tenantry.operations import placement
from tenantry.operations.blueprints import Blueprints
from tenantry.registry import Registry, Transaction, schemas, servers, tenants
from tenantry.resources import Resource

if TYPE_CHECKING:
    from tenantry.operations.verify import Outdoors

VALUE = "value:"
"""Fields of sealed values begin so."""

ADMIN = "admin"
"""The field under which the first admin's credentials wait to be shown once."""


class Toolbox(Blueprints):
    """The configuration, the resources it names, and the registry."""

    def __init__(self, config: Config, registry: Registry) -> None:
        super().__init__(config, registry.identity)
        self.registry = registry
        self.outdoors: Callable[[], Outdoors] | None = None  # given by those who know the runtime
        self.count: Callable[[Environment], Awaitable[Mapping[str, int]]] | None = None  # likewise
        self.leave: Callable[[], Awaitable[int]] | None = None  # likewise

    # --- environments -------------------------------------------------------------------------------------------

    def draft(
        self,
        slug: str,
        name: str,
        blueprint: str,
        plan: str | None,
        settings: Mapping[str, Any],
        tenant_id: str | None = None,
    ) -> list[Environment]:
        """The environments of a tenant that does not exist yet."""
        tenant = Tenant(
            id=tenant_id or new_id(),
            slug=slug,
            name=name,
            blueprint=blueprint,
            plan=plan,
            status=Status.CREATING,
            client_id=new_client_id(),
            settings=dict(settings),
        )
        return [self._environment(tenant, environment) for environment in self.blueprint(blueprint).environments]

    def _environment(self, tenant: Tenant, name: str) -> Environment:
        bare = Environment(new_id(), name, tenant, home=f"tenants/{tenant.slug}-{tenant.id[-8:]}/{name}")
        places = tuple(resource.place(bare) for resource in self.resources[tenant.blueprint])
        return dataclasses.replace(bare, places=places, hostnames=self.hostnames(tenant, name))

    async def environments(self, tx: Transaction, tenant_id: str) -> list[Environment]:
        """A tenant's environments, their secret values opened for drivers."""
        found = await self.all_environments(tx, [tenant_id])
        if not found:
            return []
        sealed = await tenants.secrets(tx, tenant_id)
        opened = self.open_values(found[0], sealed)
        return [dataclasses.replace(environment, secrets=opened) for environment in found] if opened else found

    async def all_environments(self, tx: Transaction, tenant_ids: Iterable[str]) -> list[Environment]:
        """The environments of several tenants, their logins opened for drivers; the servers are then the known ones."""
        found = await tenants.environments(tx, tenant_ids)
        if any(place.server for environment in found for place in environment.places):
            await self.learn_servers(tx)
        return [self._with_logins(environment) for environment in found]

    def _with_logins(self, environment: Environment) -> Environment:
        logins = {
            place.name: placement.unseal(self.registry.vault, environment, place, server)
            for place in environment.places
            if place.server and (server := self.servers.find(place.server)) and self._has_login(place, server)
        }
        if not logins:
            return environment
        return dataclasses.replace(environment, logins=logins)

    @staticmethod
    def _has_login(place: Place, server: Server) -> bool:
        return bool(place.sealed) or place.database in server.shared

    async def learn_servers(self, tx: Transaction) -> None:
        """Know the servers as the registry has them now, with their administrators' logins."""
        known = await servers.known(tx, self.registry.vault)
        self.servers.replace(
            dataclasses.replace(server, admin=self._admins[server.name]) if server.name in self._admins else server
            for server in known.values()
        )

    async def learn_released(self, tx: Transaction) -> None:
        """Know to which versions the fleet was brought, as the registry has it now."""
        for resources in self.resources.values():
            for resource in resources:
                resource.released = await self._released(tx, resource) if resource.has_schema else None

    @staticmethod
    async def _released(tx: Transaction, resource: Resource) -> str | None:
        """The version that the last run was to reach; before the first one that of most tenants."""
        try:
            order = resource.versions() if resource.posts() else ()
        except TenantryError:  # whoever works with the files tells
            return None
        if not order:
            return None
        recorded = await schemas.released(tx, resource.setting.blueprint, resource.name)
        if recorded is not None:
            return recorded
        there = await schemas.versions(tx, resource.setting.blueprint, resource.name)
        known = [one for one in order if one in there]
        return max(reversed(known), key=lambda one: there[one], default=None)

    @cached_property
    def _admins(self) -> Mapping[str, str]:
        """The administrators' URLs of the servers that tenantry.toml declares."""
        return {server.name: server.admin for server in placement.declared(self.config)}

    def open_values(self, environment: Environment, sealed: Mapping[str, bytes]) -> dict[str, Any]:
        """The secret values among a tenant's sealed fields."""
        vault, tenant = self.registry.vault, environment.tenant
        return {
            field.removeprefix(VALUE): json.loads(vault.open(tenant.id, environment.sealed_key, field, value))
            for field, value in sealed.items()
            if field.startswith(VALUE)
        }

    def remove_homes(self, environments: Iterable[Environment]) -> None:
        """Remove the directories of tenants with all that is left in them; links in them are not followed."""
        for home in {str(Path(environment.home).parent) for environment in environments}:
            paths.remove_beneath(self.config.data, home)

    # --- the first admin ----------------------------------------------------------------------------------------

    async def enrol_admins(
        self, environments: Sequence[Environment], parallel: int = 2, owner: tuple[str, str] | None = None
    ) -> tuple[list[tuple[str, str, bytes]], dict[str, TenantryError]]:
        """Make the first admin in environments of one blueprint, a tenant's own with one fresh password.

        `owner`: login and name of who signed up for a tenant, who chooses a password within it: so none is kept.

        Returns the secrets to keep (tenant id, field, sealed), and the error of each tenant id that failed.
        """
        blueprint = environments[0].tenant.blueprint
        resource, admin = self.users_resource(blueprint), self.blueprint(blueprint).admin
        if resource is None or not admin:
            return [], {}
        passwords: dict[str, str] = {}  # stored forms, by tenant
        secrets: dict[str, bytes] = {}
        users = []
        for environment in environments:
            tenant = environment.tenant
            login, name = owner or (expand(admin, facts_of(tenant, environment.name, self.config.platform.domain)), "")
            if owner is not None:
                passwords[tenant.id] = ""
            elif tenant.id not in secrets:
                passwords[tenant.id], secrets[tenant.id] = self._new_password(environment, login)
            users.append((environment, login, passwords[tenant.id], credentials.Role.ADMIN.value, name))
        outcomes = await resource.enrol_many(users, parallel)
        errors = {e.tenant.id: error for e, error in zip(environments, outcomes, strict=True) if error is not None}
        return [(tenant, ADMIN, sealed) for tenant, sealed in secrets.items() if tenant not in errors], errors

    def _new_password(self, environment: Environment, login: str) -> tuple[str, bytes]:
        """A fresh password for a tenant's first admin: its stored form, and login and password sealed to be shown."""
        vault, tenant = self.registry.vault, environment.tenant
        password = credentials.new_password()
        data_key = vault.open_data_key(tenant.id, environment.sealed_key)
        stored = credentials.hash_generated(password, credentials.derive_key(data_key, "password"))
        shown = json.dumps({"login": login, "password": password})
        return stored, vault.seal(tenant.id, environment.sealed_key, ADMIN, shown)
