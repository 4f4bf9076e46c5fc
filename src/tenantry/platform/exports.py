"""One tenant's rows as files for other programs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tenantry.errors import TenantryError
from tenantry.model import Environment, Exported, ExportForm
from tenantry.resources import Resource


class NothingToExport(TenantryError):
    """'{slug}' has nothing that is exported to files for other programs."""

    code = "tenant.no_export"
    remedy = (
        "SQLite files, databases on PostgreSQL and shared tables are; `tenantry tenant show {slug}` names its parts."
    )
    status = 422
    exit_code = 2


class ExportThere(TenantryError):
    """'{path}' is there already."""

    code = "tenant.export_there"
    remedy = "Name a directory that is not there yet."
    status = 409
    exit_code = 2


async def export(
    parts: Sequence[tuple[Environment, Resource]], slug: str, into: Path, form: ExportForm
) -> list[Exported]:
    """Write what can be exported to `into / environment / resource`; nothing stays of an export that fails."""
    if into.exists():
        raise ExportThere(path=into)
    able = [(environment, resource) for environment, resource in parts if resource.can_export]
    if not able:
        raise NothingToExport(slug=slug)
    found: list[Exported] = []
    try:
        for environment, resource in able:
            written = await resource.export(environment, into / environment.name, form)
            place = f"{environment.name}/{resource.name}"
            found += [replace(one, file=f"{place}/{one.file}") for one in written]
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise
    return found
