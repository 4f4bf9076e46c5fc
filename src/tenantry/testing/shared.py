"""Tables that all tenants share: tests have them in a database of their own, as the newest migrations make them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tenantry.config import Config, ResourceSpec
from tenantry.operations.toolbox import Toolbox
from tenantry.platform import Platform

KIND: Final = "rows"

TOKEN: Final = "shared"  # noqa: S105 - the name of a file
"""The file in a process's place that says how the names of its shared databases end."""

LONGEST: Final = 45
"""Characters that are kept of a declared database's name."""


def renamed(config: Config, place: Path) -> Config:
    """The configuration with other names for shared databases, which nobody but this place has."""
    blueprints = {
        name: blueprint.model_copy(update={"resources": dict(_renamed(blueprint.resources, place))})
        for name, blueprint in config.blueprints.items()
    }
    return config.model_copy(update={"blueprints": blueprints})


def _renamed(resources: Mapping[str, ResourceSpec], place: Path) -> Iterator[tuple[str, ResourceSpec]]:
    for name, spec in resources.items():
        database = spec.options.get("database")
        if spec.kind == KIND and isinstance(database, str):
            spec = spec.model_copy(update={"database": f"{database[:LONGEST]}_t{_token(place)}"})
        yield name, spec


def _token(place: Path) -> str:
    file = place / TOKEN
    if not file.exists():
        file.write_text(secrets.token_hex(4))
    return file.read_text()


async def renew(platform: Platform, place: Path) -> None:
    """Drop the shared databases that other migrations made: an edited file is none that was applied."""
    tools = platform.tools
    async with tools.registry.read() as tx:
        await tools.learn_servers(tx)
    for blueprint, resource in _rows(tools):
        file, mark = place / f"{TOKEN}-{blueprint}-{resource.name}", resource.fingerprint()
        if not file.exists() or file.read_text() != mark:
            for server in tools.servers.of(resource.server_kind):
                if resource.shared_database in server.shared:
                    await platform.servers.drop_shared(server.name, resource.shared_database)
            file.write_text(mark)


def _rows(tools: Toolbox) -> Iterator[tuple[str, Any]]:
    for blueprint, resources in tools.resources.items():
        for resource in resources:
            if resource.kind == KIND:
                yield blueprint, resource
