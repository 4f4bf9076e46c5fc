"""The first superadmin: whoever opens the link that the terminal shows, where nobody can run the platform yet."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final

from tenantry.identity.links import follow
from tenantry.identity.principal import AdminRole, digest
from tenantry.identity.signin import hashed
from tenantry.mail import check_mail
from tenantry.model import check_name, new_id
from tenantry.refusals import AdminRefused, LinkInvalid
from tenantry.registry import Registry, Transaction, people
from tenantry.registry.database import now

PURPOSE: Final = "first"

HOLDS: Final = timedelta(days=1)
"""How long such a link holds."""


async def offer(tx: Transaction) -> str | None:
    """A link, after which earlier ones lead nowhere; None where there is a superadmin who can sign in."""
    if await people.superadmins(tx):
        return None
    link = secrets.token_urlsafe(32)
    entered = {"digest": digest(link), "admin_id": None, "purpose": PURPOSE, "expires": now() + HOLDS}
    await people.add_link(tx, entered)
    tx.audit("admin.first", "-")
    return link


async def take(registry: Registry, link: str, mail: str, name: str, password: str) -> people.AdminRow:
    """Become the first superadmin; of two at once one finds the link used.

    Raises `LinkInvalid`, `AccountError` for an address or a password that keeps no rule, `InvalidSlug` for a name, and
    `AdminRefused` where somebody of that address chose a password already.
    """
    async with registry.read() as tx:
        await follow(tx, link)
    address = check_mail(mail)
    chosen = {"name": check_name(name or address), "role": AdminRole.SUPERADMIN.value, "active": True}
    chosen["password"] = await hashed(password)
    async with registry.write(f"admin:{address}") as tx:
        owner, _ = await follow(tx, link)
        if owner is not None:
            raise LinkInvalid
        row = await people.by_mail(tx, address)
        if row is None:
            await people.add(tx, {"id": new_id(), "mail": address, "created": now(), **chosen})
        elif row.invited:
            await people.change(tx, row.id, **chosen)
            await people.drop_links(tx, row.id)
        else:
            reason, remedy = (
                "there is one of this address already",
                "`tenantry admin edit --role superadmin` raises it.",
            )
            raise AdminRefused(admin=address, reason=reason, remedy=remedy)
        await people.drop_links(tx, None)
        tx.audit("admin.password", address, by=PURPOSE, role=chosen["role"])
        return await people.find(tx, address)
