"""The control database: what tenants there are, what is being done with them, and who changed what."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tenantry.errors import AuditBroken, RegistryUnavailable
from tenantry.registry import audit, journal, migrations, servers, tables, tenants
from tenantry.registry.audit import AuditReport, Entry
from tenantry.registry.database import Database, Transaction, head_content
from tenantry.registry.feed import Feed
from tenantry.registry.vault import Vault

__all__ = ["AuditReport", "Entry", "Feed", "Registry", "Transaction", "Vault", "journal", "servers", "tenants"]

VERIFY_PAGE: Final = 5000


class Registry:
    """The control database of one platform, opened."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.vault = database.vault
        self.feed = Feed(database)
        self.write = database.write
        self.read = database.read
        self.scrub = database.scrub

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, vault: Vault, *, actor: str = "system") -> AsyncIterator[Registry]:
        """Open a control database, bring it to the newest schema, and check that the platform key is its own.

        Raises `RegistryUnavailable` or `SecretKeyError`.
        """
        database = Database(url, vault, actor=actor)
        try:
            await _prepare(database)
            yield cls(database)
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
            await tenants.put_meta(tx, "check", self.vault.new_check())
            tx.changed(*(tenant_id for tenant_id, _ in keys))
            tx.audit("secret.rotate", "platform", keys=len(keys))
        return len(keys)

    async def entries(self, *, limit: int = 50, subject: str | None = None, before: int | None = None) -> list[Entry]:
        """The newest audit entries, newest first."""
        query = select(tables.audit).order_by(tables.audit.c.seq.desc()).limit(limit)
        if subject is not None:
            query = query.where(tables.audit.c.subject == subject)
        if before is not None:
            query = query.where(tables.audit.c.seq < before)
        async with self.read() as tx:
            return [Entry(**row._mapping) for row in await tx.all(query)]

    async def verify(self) -> AuditReport:
        """Walk the whole audit log. Raises `AuditBroken`, naming the first entry that is not as it was written."""
        seq, digest = 0, audit.GENESIS
        async with self.read() as tx:
            while True:
                query = select(tables.audit).where(tables.audit.c.seq > seq).order_by(tables.audit.c.seq)
                page = [Entry(**row._mapping) for row in await tx.all(query.limit(VERIFY_PAGE))]
                seq, digest, fault = audit.first_fault(page, digest, seq)
                if fault:
                    raise AuditBroken(reason=fault, seq=seq + 1)
                if len(page) < VERIFY_PAGE:
                    break
            head = await tx.first(select(tables.head))
        wrong = _head_fault(head, seq, digest)
        if wrong:
            raise AuditBroken(reason=wrong[0], seq=wrong[1])
        if not self.vault.verify_head(head_content(seq, digest), head.seal):
            raise AuditBroken(reason="its head is not sealed with the platform key", seq=seq)
        return AuditReport(seq, digest)


def _head_fault(head: Any, seq: int, digest: str) -> tuple[str, int] | None:
    """What is wrong between the head and the last entry found, and at which entry."""
    if head is None:
        return "its head was removed", seq
    if head.audit_seq > seq:
        return f"entries after {seq} were removed", seq + 1
    if head.audit_seq < seq:
        return f"entries after {head.audit_seq} were added by something else", int(head.audit_seq) + 1
    return None if head.audit_hash == digest else (f"entry {seq} is not the one its head names", seq)


async def _prepare(database: Database) -> None:
    try:
        async with database.read() as tx:
            ready = await tx.sync(migrations.current) == migrations.HEAD
            check = await tenants.get_meta(tx, "check") if ready else None
        if check is None:
            check = await _begin(database)
    except DBAPIError as error:
        raise RegistryUnavailable(reason=str(error.orig).strip().splitlines()[0]) from error
    database.vault.check(check)


async def _begin(database: Database) -> bytes:
    """Upgrade the schema and, in a new registry, begin the audit log and keep the check of the platform key."""
    async with database.write() as tx:
        await tx.sync(migrations.upgrade)
        check = await tenants.get_meta(tx, "check")
        if check is None:
            check = database.vault.new_check()
            await tenants.put_meta(tx, "check", check)
            await tx.begin_head()
    return check
