"""What every operation works with: the configuration, the registry, and the resources of each blueprint."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tenantry import credentials
from tenantry.config import Blueprint, Config
from tenantry.errors import TenantryError
from tenantry.model import (
    Environment,
    Status,
    Tenant,
    expand,
    facts_of,
    new_client_id,
    new_id,
)
from tenantry.registry import Registry, Transaction, tenants
from tenantry.resources import Resource, Setting, build, kinds

VALUE = "value:"
"""Fields of sealed values begin so."""

ADMIN = "admin"
"""The field under which the first admin's credentials wait to be shown once."""


class Toolbox:
    """The configuration, the registry, and the resources that the configuration names."""

    def __init__(self, config: Config, registry: Registry) -> None:
        self.config = config
        self.registry = registry

    @cached_property
    def resources(self) -> Mapping[str, tuple[Resource, ...]]:
        """The resources of each blueprint, in the order they are made."""
        return {name: self._build(name, blueprint) for name, blueprint in self.config.blueprints.items()}

    def _build(self, name: str, blueprint: Blueprint) -> tuple[Resource, ...]:
        users = self.users_of(blueprint)
        values = {key: value.default for key, value in blueprint.values.items()}
        secret = frozenset(key for key, value in blueprint.values.items() if value.secret)
        made = []
        for resource, spec in blueprint.resources.items():
            setting = Setting(
                blueprint=name,
                root=self.config.root,
                data=self.config.data,
                domain=self.config.platform.domain,
                values=values,
                secret_values=secret,
                users=resource == users,
            )
            made.append(build(resource, spec, setting))
        return tuple(made)

    def users_of(self, blueprint: Blueprint) -> str | None:
        """The resource that carries a blueprint's users: its first one that can; None where it wants none."""
        if blueprint.admin is None:
            return None
        able = (name for name, spec in blueprint.resources.items() if kinds()[spec.kind].has_users)
        return next(able, None)

    def blueprint(self, name: str) -> Blueprint:
        """The blueprint of this name. Raises `TenantryError` when tenantry.toml has lost it."""
        try:
            return self.config.blueprints[name]
        except KeyError:
            known = ", ".join(self.config.blueprints)
            raise UnknownBlueprint(blueprint=name, known=known) from None

    def resource(self, blueprint: str, name: str) -> Resource:
        """One resource of a blueprint."""
        self.blueprint(blueprint)
        for resource in self.resources[blueprint]:
            if resource.name == name:
                return resource
        raise UnknownBlueprint(f"The blueprint '{blueprint}' has no resource '{name}' any more.")

    def users_resource(self, blueprint: str) -> Resource | None:
        """The resource that carries the users, or None."""
        name = self.users_of(self.blueprint(blueprint))
        return self.resource(blueprint, name) if name else None

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

    def hostnames(self, tenant: Tenant, environment: str) -> tuple[str, ...]:
        """The hostnames a blueprint gives an environment."""
        entry = self.blueprint(tenant.blueprint).hostnames.get(environment)
        if entry is None:
            return ()
        return (expand(entry.pattern, facts_of(tenant, environment, self.config.platform.domain)).lower(),)

    async def environments(self, tx: Transaction, tenant_id: str) -> list[Environment]:
        """A tenant's environments, their secret values opened for drivers."""
        found = await tenants.environments(tx, [tenant_id])
        if not found:
            return []
        sealed = await tenants.secrets(tx, tenant_id)
        opened = self.open_values(found[0], sealed)
        return [dataclasses.replace(environment, secrets=opened) for environment in found] if opened else found

    def open_values(self, environment: Environment, sealed: Mapping[str, bytes]) -> dict[str, Any]:
        """The secret values among a tenant's sealed fields."""
        vault, tenant = self.registry.vault, environment.tenant
        return {
            field.removeprefix(VALUE): json.loads(vault.open(tenant.id, environment.sealed_key, field, value))
            for field, value in sealed.items()
            if field.startswith(VALUE)
        }

    def home(self, environment: Environment) -> Path:
        """The absolute directory of an environment."""
        return self.config.data / environment.home

    def remove_homes(self, environments: Iterable[Environment]) -> None:
        """Remove the directories of tenants with all that is left in them; links in them are not followed."""
        for tenant_home in {self.home(environment).parent for environment in environments}:
            shutil.rmtree(tenant_home, ignore_errors=False) if tenant_home.exists() else None

    # --- the first admin ----------------------------------------------------------------------------------------

    async def enrol_admin(self, environments: Sequence[Environment]) -> tuple[str, str, bytes] | None:
        """Make the first admin in each environment of one tenant, with a fresh password.

        Returns the secret to keep (tenant id, field, sealed), or None where the blueprint has no users.
        """
        first = environments[0]
        tenant = first.tenant
        resource = self.users_resource(tenant.blueprint)
        admin = self.blueprint(tenant.blueprint).admin
        if resource is None or admin is None:
            return None
        login = expand(admin, facts_of(tenant, first.name, self.config.platform.domain))
        password = credentials.new_password()
        data_key = self.registry.vault.open_data_key(tenant.id, first.sealed_key)
        stored = credentials.hash_generated(password, credentials.derive_key(data_key, "password"))
        for environment in environments:
            await resource.enrol(environment, login, stored, credentials.Role.ADMIN)
        shown = json.dumps({"login": login, "password": password})
        return tenant.id, ADMIN, self.registry.vault.seal(tenant.id, first.sealed_key, ADMIN, shown)


class UnknownBlueprint(TenantryError):
    """There is no blueprint '{blueprint}'."""

    code = "blueprint.unknown"
    remedy = "Known blueprints: {known}."
    status = 422
    exit_code = 2
