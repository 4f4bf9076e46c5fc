"""What a tenant's session may leave on its connection for whoever gets it next, from a pool or from a pooler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that outlasts a transaction; what is left holds a mark, by which it is known again."""

    name: str
    leave: str
    look: str
    clear: str
    data: bool = True  # False: it is text of a program, and does for whoever runs it what it would do anyway


POSTGRES: Final = (
    Leftover(
        "setting",
        "SELECT set_config('tenantry.verify', '{mark}', false)",
        "SELECT current_setting('tenantry.verify', true)",
        "SELECT set_config('tenantry.verify', '', false)",
    ),
    Leftover(
        "temporary table",
        "CREATE TEMPORARY TABLE tenantry_verify AS SELECT '{mark}' AS mark",
        "SELECT mark FROM pg_temp.tenantry_verify",
        "DROP TABLE pg_temp.tenantry_verify",
    ),
    Leftover(
        "cursor",
        "DECLARE tenantry_verify CURSOR WITH HOLD FOR SELECT '{mark}'",
        "FETCH ALL FROM tenantry_verify",
        "CLOSE tenantry_verify",
    ),
    Leftover(
        "prepared statement",
        "PREPARE tenantry_verify AS SELECT '{mark}'",
        "EXECUTE tenantry_verify",
        "DEALLOCATE tenantry_verify",
        data=False,
    ),
)
MYSQL: Final = (
    Leftover(
        "setting",
        "SET @tenantry_verify = '{mark}'",
        "SELECT @tenantry_verify",
        "SET @tenantry_verify = NULL",
    ),
    Leftover(
        "temporary table",
        "CREATE TEMPORARY TABLE tenantry_verify AS SELECT '{mark}' AS mark",
        "SELECT mark FROM tenantry_verify",
        "DROP TEMPORARY TABLE tenantry_verify",
    ),
    Leftover(
        "prepared statement",
        "PREPARE tenantry_verify FROM 'SELECT ''{mark}'''",
        "EXECUTE tenantry_verify",
        "DEALLOCATE PREPARE tenantry_verify",
        data=False,
    ),
)
KINDS: Final = {"postgresql": POSTGRES, "mysql": MYSQL, "mariadb": MYSQL}
"""What there is to leave, by the dialect of a session."""


def known(session: AsyncSession) -> Sequence[Leftover]:
    """What a session can leave; nothing where each connection is opened anew."""
    return KINDS.get(session.get_bind().dialect.name, ())


async def leave(session: AsyncSession, mark: str) -> None:
    """Leave all of it; what the server refuses is not there."""
    for one in known(session):
        await _run(session, one.leave.replace("{mark}", mark))
    await session.commit()


async def look(session: AsyncSession, mark: str) -> dict[Leftover, bool]:
    """Whether each is there."""
    return {one: mark in await _run(session, one.look) for one in known(session)}


async def clear(session: AsyncSession) -> None:
    """Remove what is there."""
    for one in known(session):
        await _run(session, one.clear)
    await session.commit()


async def _run(session: AsyncSession, statement: str) -> str:
    """What a statement gives, as text; nothing where the server refuses it."""
    try:
        async with session.begin_nested():
            result: Any = await session.execute(text(statement))
            return str(result.all()) if result.returns_rows else ""
    except SQLAlchemyError:
        return ""
