"""Tenants for tests of the registry."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Any

from tenantry.model import Environment, Place, Status, Tenant, new_client_id, new_id
from tenantry.registry import Registry, tenants

KEY = "0f" * 32
SITE = (Place("db", "sqlite", "db.sqlite", "0002_search"), Place("media", "directory", "media"))


def draft(slug: str, **fields: Any) -> Environment:
    """An environment of a tenant that is not entered yet; fields are the tenant's, or the environment's."""
    inner = {key: fields.pop(key) for key in ("places", "hostnames") if key in fields}
    plain = {"name": slug.title(), "blueprint": "site", "plan": None, "status": Status.ACTIVE}
    tenant = Tenant(id=new_id(), slug=slug, client_id=new_client_id(), **plain | fields)
    home = f"tenants/{slug}-{tenant.id[-8:]}/production"
    given = {"places": SITE, "hostnames": (f"{slug}.example.test",)} | inner
    return replace(Environment(new_id(), "production", tenant, home), **given)


async def enter(registry: Registry, *environments: Environment) -> None:
    """Enter tenants and tell all processes."""
    keys = {e.tenant.id: registry.vault.new_data_key(e.tenant.id) for e in environments}
    async with registry.write() as tx:
        await tenants.insert_many(tx, environments, keys)
        tx.changed(*keys)


async def python(program: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start a Python program of its own process, with pipes to it."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )
