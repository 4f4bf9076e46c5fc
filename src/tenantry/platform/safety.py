"""Before a process starts: whether the tables that tenants share keep them apart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from tenantry.errors import SharedTablesWeak
from tenantry.model import Finding, Server
from tenantry.operations import placement
from tenantry.operations.toolbox import Toolbox
from tenantry.resources import Resource

SHOWN: Final = 5
"""How many weaknesses an error names."""


async def refuse_weak(tools: Toolbox) -> None:
    """Raise `SharedTablesWeak`, with what weakens a shared database and what mends it.

    Databases that cannot be entered now are passed over: the first session in each looks.
    """
    async with tools.registry.read() as tx:
        await tools.learn_servers(tx)
    places = list(_places(tools))
    looked = [
        one.weaknesses(server, placement.unseal_shared(tools.registry.vault, server, one.shared_database))
        for one, server in places
    ]
    for (resource, server), found in zip(places, await asyncio.gather(*looked), strict=True):
        if found:
            raise _refusal(resource.shared_database, server, found)


def _places(tools: Toolbox) -> Iterator[tuple[Resource, Server]]:
    for resources in tools.resources.values():
        for resource in resources:
            for server in tools.servers.of(resource.server_kind) if resource.shared and resource.server_kind else ():
                if resource.shared_database in server.shared:
                    yield resource, server


def _refusal(database: str, server: Server, found: Sequence[Finding]) -> SharedTablesWeak:
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    what = "; ".join(one.what for one in found[:SHOWN]) + more
    remedy = " ".join(dict.fromkeys(one.remedy for one in found[:SHOWN]))
    return SharedTablesWeak(database=database, server=server.name, what=what, remedy=f"{remedy} Then start again.")
