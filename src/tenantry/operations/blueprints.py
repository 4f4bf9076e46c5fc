"""The blueprints of a configuration, with the drivers of their resources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from tenantry.config import Blueprint, Config, load
from tenantry.errors import TenantryError
from tenantry.model import Environment, Place, Tenant, expand, facts_of
from tenantry.resources import Limits, Resource, Servers, Setting, build, kinds, options


class UnknownBlueprint(TenantryError):
    """There is no blueprint '{blueprint}'."""

    code = "blueprint.unknown"
    remedy = "Known blueprints: {known}."
    status = 422
    exit_code = 2


def read_config(path: Path) -> Config:
    """Read tenantry.toml, the options of its resources checked by their drivers. Raises `ConfigError`."""
    return load(path, kinds=options())


class Blueprints:
    """What the configuration says a tenant is made of."""

    def __init__(self, config: Config, identity: str = "") -> None:
        self.config = config
        self.identity = identity  # of the platform, as its registry knows it
        self.servers = Servers()

    @cached_property
    def resources(self) -> Mapping[str, tuple[Resource, ...]]:
        """The resources of each blueprint, in the order they are made."""
        return {name: self._build(name, blueprint) for name, blueprint in self.config.blueprints.items()}

    def _build(self, name: str, blueprint: Blueprint) -> tuple[Resource, ...]:
        users = self.users_of(blueprint)
        values = {key: value.default for key, value in blueprint.values.items()}
        secret = frozenset(key for key, value in blueprint.values.items() if value.secret)
        chosen = self.config.migrate
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
                servers=self.servers,
                server_kinds={name: server.kind for name, server in self.config.servers.items()},
                limits=Limits(chosen.lock_timeout, chosen.statement_timeout, chosen.retries),
                platform=self.identity,
            )
            made.append(build(resource, spec, setting))
        return tuple(made)

    def users_of(self, blueprint: Blueprint) -> str | None:
        """The resource that carries a blueprint's users: its first one that can; None where it wants none."""
        if not blueprint.admin:
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

    def hostnames(self, tenant: Tenant, environment: str) -> tuple[str, ...]:
        """The hostnames a blueprint gives an environment."""
        entry = self.blueprint(tenant.blueprint).hostnames.get(environment)
        if entry is None:
            return ()
        return (expand(entry.pattern, facts_of(tenant, environment, self.config.platform.domain)).lower(),)

    def spot(self, environment: Environment, place: Place) -> str:
        """Where a part lies, as people read it."""
        return f"{place.location} on {place.server}" if place.server else str(self.home(environment) / place.location)

    def home(self, environment: Environment) -> Path:
        """The absolute directory of an environment."""
        return self.config.data / environment.home
