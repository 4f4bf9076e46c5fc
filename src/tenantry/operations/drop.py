"""Drop what a tenant left on a server that did not answer: aside, tried again until the server is back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from tenantry.errors import ResourceError, ServerUnavailable
from tenantry.model import NOTHING, Environment, Login, Place, ServerState, Status, Tenant, new_id
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal, servers
from tenantry.resources import Resource

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
"""Seconds between two tries: at first, and at most. Each is twice the one before."""


def remnant(resource: Resource, environment: Environment) -> dict[str, Any]:
    """What a driver needs to find a part of a tenant on its server, when the registry has forgotten the tenant."""
    place, login = environment.place(resource.name), environment.logins.get(resource.name)
    assert place is not None
    return {
        "blueprint": environment.tenant.blueprint,
        "resource": resource.name,
        "kind": resource.kind,
        "server": place.server,
        "location": place.location,
        "user": login.user if login else "",
        "environment": environment.id,
        "environment_name": environment.name,
        "home": environment.home,
        "id": environment.tenant.id,
        "slug": environment.tenant.slug,
    }


def revive(left: Mapping[str, Any]) -> Environment:
    """The environment that `remnant` described, as far as drivers need it to find that part, and to drop it."""
    tenant = Tenant(left["id"], left["slug"], left["slug"], left["blueprint"], None, Status.DESTROYING)
    place = Place(left["resource"], left["kind"], left["location"], server=left["server"])
    logins = {left["resource"]: Login(left["user"], "")} if left["user"] else NOTHING
    return Environment(left["environment"], left["environment_name"], tenant, left["home"], (place,), logins=logins)


def remnants_of(tools: Toolbox, environments: list[Environment]) -> list[dict[str, Any]]:
    """What a tenant has on servers."""
    return [
        remnant(resource, environment)
        for environment in environments
        for resource in tools.resources[environment.tenant.blueprint]
        if (place := environment.place(resource.name)) is not None and place.server
    ]


async def gone(work: Work, resource: Resource, environment: Environment) -> bool:
    """Drop a resource now; or, where its server does not answer, leave that to an operation of its own: then False."""
    try:
        await _drop(work.tools, resource, environment)
    except ServerUnavailable:
        async with work.write() as tx:
            await _submit(tx, remnant(resource, environment))
        return False
    return True


async def _drop(tools: Toolbox, resource: Resource, environment: Environment) -> None:
    place = environment.place(resource.name)
    if place is not None and place.server and tools.servers.get(place.server).state is ServerState.CLOSED:
        raise ServerUnavailable(server=place.server, reason="it is closed")
    await resource.drop(environment)
    if await resource.exists(environment):
        raise ResourceError(
            kind=resource.kind, resource=resource.name, tenant=environment.tenant.slug, reason="it is still there"
        )


async def _submit(tx: Transaction, left: Mapping[str, Any]) -> None:
    """Queue the drop, once however often it is asked for."""
    same = ("environment", "resource", "server")
    for other in await servers.remnants(tx, tenant_id=left["id"]):
        if all(other.arguments[key] == left[key] for key in same):
            return
    steps = [(left["resource"], left["kind"])]
    who = (left["id"], left["slug"])
    await journal.submit(tx, new_id(), servers.DROP, steps, tenant=who, arguments=left, holds=False)
    tx.audit("tenant.drop_aside", left["slug"], **{key: left[key] for key in ("id", "server", "location")})


class Drop(Verb):
    """Drops one part of a tenant that is gone. Its arguments are the `remnant`."""

    name: ClassVar[str] = servers.DROP
    reversible: ClassVar[bool] = False

    async def perform(self, work: Work, step: journal.Step) -> str:
        left = work.operation.arguments
        async with work.tools.registry.read() as tx:
            await work.tools.learn_servers(tx)
        resource = work.tools.resource(left["blueprint"], left["resource"])
        await _drop(work.tools, resource, revive(left))
        async with work.write() as tx:
            tx.audit("tenant.drop", left["slug"], id=left["id"], server=left["server"], location=left["location"])
        return f"{left['location']} on {left['server']}"

    def retry(self, work: Work, outcome: Mapping[str, Any]) -> float | None:
        if outcome["code"] != ServerUnavailable.code:
            return None
        return float(min(FIRST_PAUSE * 2.0 ** min(work.operation.attempt - 1, 30), LONGEST_PAUSE))
