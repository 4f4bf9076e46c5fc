"""Drift: what tenants' schemas are that the blueprint did not make them, and the SQL that would undo it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tenantry.errors import TenantryError
from tenantry.model import Environment
from tenantry.operations.toolbox import Toolbox
from tenantry.resources import Resource
from tenantry.resources.shapes import differences

Shape = tuple[str | None, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Drift:
    """Tenants that differ from the golden schema of their version in the same way."""

    blueprint: str
    resource: str
    kind: str  # of its server
    version: str | None
    tenants: tuple[str, ...]
    differences: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()  # what would make them as they are to be; never run
    error: str = ""  # why they could not be compared


class Comparison:
    """Compares resources with what new ones would be, each shape once."""

    def __init__(self, tools: Toolbox, *, with_sql: bool, parallel: int) -> None:
        self._tools = tools
        self._with_sql = with_sql
        self._parallel = parallel
        self._known: dict[tuple[str, ...], Drift | None] = {}
        self._declared: dict[tuple[str, ...], Mapping[str, str]] = {}
        self._seen: set[tuple[str, ...]] = set()
        self._slugs: dict[Drift, list[str]] = {}
        self.looked = 0
        self.left_out: set[str] = set()  # resources of kinds that cannot be compared

    async def look(self, environments: Sequence[Environment]) -> None:
        """Take in what these environments have: one query each, and more only for a shape not met before."""
        for blueprint, some in _by_blueprint(environments).items():
            for resource in self._tools.resources.get(blueprint, ()):
                if resource.has_schema and not resource.can_compare:
                    self.left_out.add(f"{blueprint}.{resource.name}, a {resource.kind}")
                elif resource.has_schema:
                    await self._resource(resource, [one for one in some if self._is_new(resource, one)])

    def groups(self) -> list[Drift]:
        """What differs, the most frequent first."""
        made = [replace(drift, tenants=tuple(sorted(slugs))) for drift, slugs in self._slugs.items()]
        return sorted(made, key=lambda one: (-len(one.tenants), one.blueprint, one.resource, one.tenants))

    def _is_new(self, resource: Resource, environment: Environment) -> bool:
        """Whether nobody was looked at who shares it."""
        place = environment.place(resource.name)
        if place is None:
            return False
        key = (resource.setting.blueprint, resource.name, str(place.server), place.location)
        if resource.shared and key in self._seen:
            return False
        self._seen.add(key)
        return True

    async def _resource(self, resource: Resource, some: Sequence[Environment]) -> None:
        answers = await resource.shapes(some, self._parallel)
        self.looked += len(some)
        for environment, answer in zip(some, answers, strict=True):
            drift = await self._compared(resource, environment, answer)
            if drift is not None:
                self._slugs.setdefault(drift, []).append(_name(environment))

    async def _compared(
        self, resource: Resource, environment: Environment, answer: Shape | TenantryError
    ) -> Drift | None:
        if isinstance(answer, TenantryError):
            return _drift(resource, None, error=f"{answer.message} {answer.hint}".strip())
        place = environment.place(resource.name)
        assert place is not None
        mark = hashlib.sha256(json.dumps(sorted(answer[1].items())).encode()).hexdigest()
        names = place.location if self._with_sql and resource.shared else ""  # a prefix is part of each statement
        where = (resource.setting.blueprint, resource.name, str(place.server), names)
        key = (*where, str(answer[0]), str(place.version), mark)
        if key not in self._known:
            try:
                self._known[key] = await self._difference(resource, environment, answer, place.version)
            except TenantryError as error:
                self._known[key] = _drift(resource, answer[0], error=f"{error.message} {error.hint}".strip())
        return self._known[key]

    async def _difference(
        self, resource: Resource, environment: Environment, answer: Shape, recorded: str | None
    ) -> Drift | None:
        version, found = answer
        told = differences(await self._golden(resource, environment, version), found)
        statements: tuple[str, ...] = ()
        if told and self._with_sql:
            statements = await resource.mend(environment, version)
        if version != recorded:
            told.append(f"its own records say version {version or 'none'}, the control database {recorded or 'none'}")
        return _drift(resource, version, tuple(told), statements) if told else None

    async def _golden(self, resource: Resource, environment: Environment, version: str | None) -> Mapping[str, str]:
        place = environment.place(resource.name)
        key = (resource.setting.blueprint, resource.name, str(place and place.server), str(version))
        if key not in self._declared:
            self._declared[key] = await resource.declared(environment, version)
        return self._declared[key]


def _drift(
    resource: Resource,
    version: str | None,
    told: tuple[str, ...] = (),
    statements: tuple[str, ...] = (),
    error: str = "",
) -> Drift:
    kind = resource.server_kind or resource.kind
    return Drift(resource.setting.blueprint, resource.name, kind, version, (), told, statements, error)


def _name(environment: Environment) -> str:
    """A tenant, and its environment where that is not production."""
    slug = environment.tenant.slug
    return slug if environment.name == "production" else f"{slug}@{environment.name}"


def _by_blueprint(environments: Iterable[Environment]) -> dict[str, list[Environment]]:
    groups: dict[str, list[Environment]] = {}
    for environment in environments:
        groups.setdefault(environment.tenant.blueprint, []).append(environment)
    return groups


# --- as SQL -------------------------------------------------------------------------------------------------------


def script(drift: Drift) -> str:
    """The statements of a group as a file for the client of its server."""
    many = f" and {len(drift.tenants) - 5} more" if len(drift.tenants) > 5 else ""
    head = f"-- {', '.join(drift.tenants[:5])}{many}: {drift.blueprint}.{drift.resource} at {drift.version or 'none'}\n"
    coded = drift.kind == "mysql" and any(";" in statement for statement in drift.statements)
    end = ";;" if coded else ";"
    body = "".join(f"{one}{'' if _is_comment(one) else end}\n" for one in drift.statements)
    return head + (f"DELIMITER ;;\n{body}DELIMITER ;\n" if coded else body)


def _is_comment(statement: str) -> bool:
    return all(line.startswith("--") for line in statement.split("\n"))
