"""The proof that the audit log is as it was written."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import select

from tenantry.errors import AuditBroken
from tenantry.registry import audit, tables
from tenantry.registry.audit import AuditReport, Entry
from tenantry.registry.database import Transaction, head_content
from tenantry.registry.vault import Vault

PAGE: Final = 5000


async def verify(tx: Transaction, vault: Vault) -> AuditReport:
    """Walk the whole audit log. Raises `AuditBroken`, naming the first entry that is not as it was written."""
    seq, digest = 0, audit.GENESIS
    while True:
        query = select(tables.audit).where(tables.audit.c.seq > seq).order_by(tables.audit.c.seq)
        page = [Entry(**row._mapping) for row in await tx.all(query.limit(PAGE))]
        seq, digest, fault = audit.first_fault(page, digest, seq)
        if fault:
            raise AuditBroken(reason=fault, seq=seq + 1)
        if len(page) < PAGE:
            break
    head = await tx.first(select(tables.head))
    wrong = _head_fault(head, seq, digest)
    if wrong:
        raise AuditBroken(reason=wrong[0], seq=wrong[1])
    if not vault.verify_head(head_content(seq, digest), head.seal):
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
