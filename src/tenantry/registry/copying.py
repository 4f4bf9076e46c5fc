"""Copies a registry into another database: all of it, compared row by row, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Table, delete, func, inspect, select
from sqlalchemy.exc import DBAPIError

from tenantry.errors import CopyFailed, RegistryBehind, RegistryInUse, RegistryNotEmpty
from tenantry.registry import journal, migrations, proof, tables, tenants
from tenantry.registry.database import Database, Transaction

BATCH: Final = 1000

LEFT_OUT: Final = frozenset({"worker", "tenant_lock"})
"""Who works and holds what: nobody does while a copy is made."""

BEGUN: Final = frozenset({"meta", "head"})
"""What a registry has that was only begun."""

Tell = Callable[[str, int, int], None]
"""Told the table, how many rows of it are copied, and how many it has."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy brought over."""

    source: str
    target: str
    rows: dict[str, int] = field(default_factory=dict)  # by table
    entries: int = 0  # of the audit log, whose chain was walked in the copy


async def copy(source: Database, target: Database, dead_after: float, tell: Tell) -> Copied:
    """Copy a registry, writers held off meanwhile. The target is written in one transaction.

    Raises `RegistryInUse` where workers live or operations are not over, `RegistryBehind`, `RegistryNotEmpty`,
    `CopyFailed`, `AuditBroken`, or `SecretKeyError` where the platform key is not the registry's.
    """
    async with source.write() as old:
        await _refuse_unready(old, source)
        await _refuse_used(old, dead_after)
        async with target.write() as new:
            await _make_room(new, target)
            copied = Copied(source.where, target.where)
            for table in tables.metadata.sorted_tables:
                if table.name not in LEFT_OUT:
                    copied.rows[table.name] = await _copy_table(old, new, table, tell)
            report = await proof.verify(new, target.vault)
            new.audit("registry.copy", "platform", source=source.where, rows=sum(copied.rows.values()))
    return Copied(copied.source, copied.target, copied.rows, report.entries)


async def _refuse_unready(tx: Transaction, database: Database) -> None:
    revision = await tx.sync(migrations.current)
    if revision != migrations.HEAD:
        await tx.sync(migrations.pending)
        raise RegistryBehind(revision=revision, newest=migrations.HEAD)
    database.vault.check(await tenants.get_meta(tx, "check") or b"")


async def _refuse_used(tx: Transaction, dead_after: float) -> None:
    workers = await journal.workers(tx, dead_after)
    if workers:
        named = ", ".join(f"{worker.host}/{worker.pid}" for worker in workers)
        raise RegistryInUse(reason=f"workers live ({named})")
    operation = tables.operation.c
    row = await tx.first(select(operation.id, operation.verb, operation.state).where(tables.LIVE).limit(1))
    if row is not None:
        raise RegistryInUse(reason=f"operation {row.id} ({row.verb}) is {row.state}")


async def _make_room(tx: Transaction, target: Database) -> None:
    """The tables, empty: made, or those of a registry that was begun and never used."""
    ours = {*tables.metadata.tables, "alembic_version"}
    if await tx.sync(migrations.current) is None:
        strange = ours & set(await tx.sync(lambda connection: inspect(connection).get_table_names()))
        if strange:
            raise RegistryNotEmpty(where=target.where, found=f"a table '{min(strange)}' of something else")
    await tx.sync(migrations.upgrade)
    for table in reversed(tables.metadata.sorted_tables):
        rows = await _count(tx, table)
        if rows and table.name not in BEGUN | LEFT_OUT:
            raise RegistryNotEmpty(where=target.where, found=f"a registry with {rows} rows in '{table.name}'")
        await tx.execute(delete(table))


async def _copy_table(old: Transaction, new: Transaction, table: Table, tell: Tell) -> int:
    """Copy a table, and compare what arrived with what was sent."""
    total = await _count(old, table)
    sent = _Sum()
    try:
        async for rows in old.batches(select(table), BATCH):
            await new.insert(table, [dict(row._mapping) for row in rows])
            sent.add(rows)
            tell(table.name, sent.rows, total)
        arrived = _Sum()
        async for rows in new.batches(select(table), BATCH):
            arrived.add(rows)
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise CopyFailed(table=table.name, reason=reason) from error
    if sent != arrived:
        raise CopyFailed(table=table.name, reason="what arrived is not what was sent")
    tell(table.name, total, total)
    return sent.rows


async def _count(tx: Transaction, table: Table) -> int:
    return int(await tx.scalar(select(func.count()).select_from(table)))


@dataclass
class _Sum:
    """A sum over rows in whatever order, for databases order text each in its own way."""

    rows: int = 0
    digest: int = 0

    def add(self, rows: Any) -> None:
        self.rows += len(rows)
        for row in rows:
            self.digest += int.from_bytes(hashlib.sha256(repr(tuple(row)).encode(errors="surrogatepass")).digest())
