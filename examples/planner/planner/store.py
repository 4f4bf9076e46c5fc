"""Reads and writes the things of the current tenant; what the database refuses becomes a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from planner.kinds import CONFLICTS, KINDS, Kind

Row = Mapping[str, Any]
AT_MOST: Final = 5000
"""Rows of one list."""

LOAD: Final = "with this booking it is"
"""How the database says that somebody has more to do than a day holds (migrations/0005_bookings.sql)."""


class Refused(Exception):
    """The database's rules do not allow it; says why in a sentence."""


async def every(session: AsyncSession, kind: Kind, where: Mapping[str, Any] | None = None) -> list[Row]:
    """All rows of a kind in their order, or those with these values."""
    table = kind.table
    query = select(table).order_by(*(table.c[name] for name in kind.order)).limit(AT_MOST)
    for name, value in (where or {}).items():
        query = query.where(table.c[name] == value)
    return [dict(row._mapping) for row in await session.execute(query)]


async def one(session: AsyncSession, kind: Kind, row_id: int) -> Row | None:
    """The row of an id."""
    found = (await session.execute(select(kind.table).where(kind.table.c.id == row_id))).first()
    return dict(found._mapping) if found else None


async def add(session: AsyncSession, kind: Kind, values: Row, who: str) -> int:
    """Enter a row and commit; its id. Raises `Refused`."""
    row = await _write(session, insert(kind.table).values(**values).returning(kind.table.c.id), who)
    assert row is not None
    return int(row)


async def change(session: AsyncSession, kind: Kind, row_id: int, values: Row, who: str) -> bool:
    """Change a row and commit; whether there is one. Raises `Refused`."""
    if not values:
        return await one(session, kind, row_id) is not None
    table = kind.table
    statement = update(table).where(table.c.id == row_id).values(**values).returning(table.c.id)
    return await _write(session, statement, who) is not None


async def remove(session: AsyncSession, kind: Kind, row_id: int, who: str) -> bool:
    """Remove a row and commit; whether there was one. Raises `Refused` where others need it."""
    table = kind.table
    return await _write(session, delete(table).where(table.c.id == row_id).returning(table.c.id), who) is not None


async def _write(session: AsyncSession, statement: Any, who: str) -> Any:
    try:
        await session.execute(text("SELECT set_config('planner.who', :who, true)"), {"who": who})
        found = (await session.execute(statement)).scalar()
        await session.commit()
    except IntegrityError as error:
        await session.rollback()
        raise Refused(_sentence(str(error.orig))) from error
    return found


def _sentence(told: str) -> str:
    if LOAD in told:
        line = next(line for line in told.splitlines() if LOAD in line)
        return line.rpartition(": ")[2] if line.startswith("<") else line
    for name, sentence in CONFLICTS.items():
        if f'"{name}"' in told:
            return sentence
    if "is still referenced" in told:
        return "Something else needs it still: bookings, people or equipment. Remove or change those first."
    if "foreign key" in told:
        return "What it names is not there any more."
    return "There is one like it already." if "unique" in told else "That is not allowed."


async def names(session: AsyncSession, kinds: Sequence[str]) -> dict[str, dict[int, str]]:
    """What the things of these kinds are called, by kind and id, in their order."""
    return {path: {row["id"]: _called(path, row) for row in await every(session, KINDS[path])} for path in kinds}


def _called(path: str, row: Row) -> str:
    return str(row["title"] if path == "columns" else row["name"])


async def settings(session: AsyncSession) -> dict[str, str]:
    """The laboratory's settings."""
    return {row["name"]: row["value"] for row in await every(session, KINDS["settings"])}


async def history(session: AsyncSession, booking: int) -> list[Row]:
    """Who changed a booking, newest first."""
    query = text("SELECT what, who, moment FROM change WHERE booking_id = :id ORDER BY id DESC LIMIT 20")
    return [dict(row._mapping) for row in await session.execute(query, {"id": booking})]
