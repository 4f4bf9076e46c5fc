"""The control database: what tenants there are, what is being done with them, and who changed what."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.exc import DBAPIError

from tenantry.errors import RegistryBehind, RegistryMissing, RegistryUnavailable
from tenantry.model import new_id
from tenantry.registry import journal, letters, migrations, people, proof, servers, sso, tables, tenants
from tenantry.registry.audit import AuditReport, Entry
from tenantry.registry.database import Database, Transaction, plain
from tenantry.registry.feed import Feed
from tenantry.registry.vault import Vault

__all__ = [
    "AuditReport",
    "Entry",
    "Feed",
    "Registry",
    "Transaction",
    "Vault",
    "journal",
    "people",
    "servers",
    "tenants",
]


IDENTITY: Final = "identity"
"""The registry keeps under this what tells its platform from others; it moves with a copy."""

FEW: Final = 500
"""Up to so many tenants, entries about them are looked up for each; of more, most entries are about one of them."""

ELSEWHERE: Final = (
    "Copy the platform's own control database here with `tenantry registry copy`, or put it back from a backup."
)


class Registry:
    """The control database of one platform, opened."""

    def __init__(self, database: Database, identity: str) -> None:
        self.database = database
        self.identity = identity  # tells this platform from others that share a server with it
        self.vault = database.vault
        self.feed = Feed(database)
        self.write = database.write
        self.read = database.read
        self.scrub = database.scrub

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, url: str, vault: Vault, *, actor: str = "system", homes: Path | None = None
    ) -> AsyncIterator[Registry]:
        """Open a control database, begin an empty one, and check that the platform key is its own.

        One on SQLite is brought to the newest schema. One on a server may be in use by other hosts at their version: it
        is left as it is. `homes` is the directory of tenants that are there already: a registry that does not know them
        is not begun. Raises `RegistryUnavailable`, `RegistryBehind`, `RegistryMissing` or `SecretKeyError`.
        """
        database = Database(url, vault, actor=actor)
        try:
            yield cls(database, await _prepare(database, homes))
        finally:
            await database.close()

    async def rotate(self) -> int:
        """Seal every data key with the current platform key; how many there were."""
        async with self.write() as tx:
            keys = await tenants.data_keys(tx)
            for tenant_id, sealed in keys:
                opened = self.vault.open_data_key(tenant_id, sealed)
                await tenants.put_data_key(tx, tenant_id, self.vault.seal_data_key(tenant_id, opened))
            await servers.reseal(tx, self.vault)
            await letters.reseal(tx, self.vault)
            for admin_id, sealed in await people.sealed_factors(tx):
                field = f"totp:{admin_id}"
                again = self.vault.seal_platform(field, self.vault.open_platform(field, sealed))
                await people.change(tx, admin_id, totp=again)
            await sso.reseal(tx, self.vault)
            await tenants.put_meta(tx, "check", self.vault.new_check())
            tx.changed(*(tenant_id for tenant_id, _ in keys))
            tx.audit("secret.rotate", "platform", keys=len(keys))
        return len(keys)

    async def entries(
        self,
        *,
        limit: int = 50,
        subject: str | None = None,
        before: int | None = None,
        admin: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> list[Entry]:
        """The newest audit entries, newest first; of one admin, those about her tenants.

        `action` is one ("tenant.suspend") or the noun of many ("tenant"); `since` and `until` are moments in UTC (RFC
        3339) or the beginnings of such: the first counts, the last does not.
        """
        column = tables.audit.c
        query = select(tables.audit).order_by(column.seq.desc()).limit(limit)
        for wanted, condition in (
            (subject, column.subject == plain(subject or "")),
            (actor, column.actor == plain(actor or "")),
            (action, _is_action(plain(action or ""))),
            (before, column.seq < (before or 0)),
            (since, column.at >= plain(since or "")),
            (until, column.at < plain(until or "")),
        ):
            if wanted is not None:
                query = query.where(condition)
        async with self.read() as tx:
            if admin is not None:
                query = query.where(await _about_hers(tx, admin))
            return [Entry(**row._mapping) for row in await tx.all(query)]

    async def verify(self) -> AuditReport:
        """Walk the whole audit log. Raises `AuditBroken`, naming the first entry that is not as it was written."""
        async with self.read() as tx:
            return await proof.verify(tx, self.vault)


async def _about_hers(tx: Transaction, admin: str) -> ColumnElement[bool]:
    """Which audit entries are about tenants assigned to an admin: their slug is the subject, their id in the detail.

    What is named alike is something else: an organization, a server, a tenant that had this slug before. Of few tenants
    entries are found by the index of subjects; of many by looking on, entry by entry, until a page is full. The latter
    asks for a value, since PostgreSQL makes a join of what asks whether there is a row, and joins all entries first.
    """
    tenant, entry = tables.tenant.c, tables.audit.c
    hers = tenant.id.in_(tables.tenants_of(admin))
    itself = select(tenant.id).where(
        hers, tenant.slug == entry.subject, entry.detail.contains('"id":"' + tenant.id + '"')
    )
    if await people.assigned_number(tx, admin) > FEW:
        return itself.limit(1).scalar_subquery().is_not(None)
    return and_(entry.subject.in_(select(tenant.slug).where(hers)), itself.exists())


def _is_action(action: str) -> ColumnElement[bool]:
    """One action ("tenant.suspend"), or all of a noun ("tenant")."""
    column = tables.audit.c.action
    return column == action if "." in action else column.startswith(f"{action}.", autoescape=True)


async def _prepare(database: Database, homes: Path | None) -> str:
    """Make a control database ready; returns the platform's identity."""
    try:
        async with database.read() as tx:
            revision = await tx.sync(migrations.current)
            ready = revision == migrations.HEAD
            check = await tenants.get_meta(tx, "check") if ready else None
            identity = await tenants.get_meta(tx, IDENTITY) if ready else None
            if check is None:
                await _refuse(tx, database, revision, homes)
        if check is None or identity is None:
            check, identity = await begin(database)
    except DBAPIError as error:
        raise RegistryUnavailable(reason=str(error.orig).strip().splitlines()[0]) from error
    database.vault.check(check)
    return identity.decode()


async def _refuse(tx: Transaction, database: Database, revision: str | None, homes: Path | None) -> None:
    """Leave alone what only an operator may change: a lost registry, and one that other hosts use at their version."""
    if revision is None and homes is not None:
        raise RegistryMissing(path=database.where, tenants=homes, remedy=None if database.is_sqlite else ELSEWHERE)
    if revision is not None and not database.is_sqlite:
        await tx.sync(migrations.pending)  # raises for a newer one
        raise RegistryBehind(revision=revision, newest=migrations.HEAD)


async def begin(database: Database) -> tuple[bytes, bytes]:
    """Upgrade the schema and, in a new registry, begin the audit log; returns the key's check and the identity."""
    async with database.write() as tx:
        before = await tx.sync(migrations.current)
        upgraded = await tx.sync(migrations.upgrade)
        check = await tenants.get_meta(tx, "check")
        if check is None:
            check = database.vault.new_check()
            await tenants.put_meta(tx, "check", check)
            await tx.begin_head()
        else:
            database.vault.check(check)
            if upgraded:
                tx.audit("registry.migrate", "platform", before=before, after=migrations.HEAD)
        identity = await tenants.get_meta(tx, IDENTITY)
        if identity is None:
            identity = new_id().encode()
            await tenants.put_meta(tx, IDENTITY, identity)
    return check, identity
