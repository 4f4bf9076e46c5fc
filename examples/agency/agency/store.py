"""Reads and writes what an agency has. No query names the tenant; what the database refuses becomes a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

Row = Mapping[str, Any]
STATES: Final = {"planned": "Planned", "doing": "In the making", "review": "In review", "done": "Done"}
AT_MOST: Final = 500
"""Rows of one list."""

REFUSALS: Final = {
    "campaign_once": "There is a campaign of this name already.",
    "campaign_name": "A campaign has a name of 1 to 80 characters.",
    "campaign_client": "The client's name has at most 80 characters.",
    "campaign_colour": "A colour is written like #5b3fd6.",
    "campaign_dates": "A campaign ends after it begins, within three years.",
    "brief_title": "A brief has a title of 1 to 120 characters.",
    "task_title": "A task has a title of 1 to 120 characters.",
    "task_who": "A name has at most 80 characters.",
    "task_state": "Choose one of the four states.",
    "task_guide": "There is no such guide.",
    "task_campaign": "There is no such campaign.",
    "asset_name": "A file's name has 1 to 120 characters.",
}
"""What the constraints of migrations/0002_campaigns.sql mean."""

CAMPAIGNS: Final = """
SELECT campaign.id, name, client, colour, starts, ends, coalesce(tasks, 0) AS tasks, coalesce(done, 0) AS done
FROM campaign LEFT JOIN campaign_progress ON campaign_id = campaign.id
"""
TASKS: Final = """
SELECT task.id, campaign_id, task.title, who, state, due, slug AS guide, platform_guides.title AS guide_title
FROM task LEFT JOIN platform_guides ON platform_guides.id = guide_id
"""
ASSETS: Final = """
SELECT asset.id, asset.name, kind, size, added, added_by, campaign_id, campaign.name AS campaign
FROM asset LEFT JOIN campaign ON campaign.id = campaign_id
"""


class Refused(Exception):
    """The database's rules do not allow it; says why in a sentence."""


async def rows(session: AsyncSession, query: str, **values: Any) -> Sequence[Row]:
    """What a query finds."""
    return (await session.execute(text(f"{query} LIMIT {AT_MOST}"), values)).mappings().all()


async def one(session: AsyncSession, query: str, **values: Any) -> Row | None:
    """The first row of a query; None where there is none, or it is another agency's."""
    return (await session.execute(text(query), values)).mappings().first()


async def write(session: AsyncSession, statement: str, **values: Any) -> Any:
    """Write one row; what it returns, None where there is no such row here. Commit afterwards. Raises `Refused`."""
    try:
        return (await session.execute(text(statement), values)).scalar()
    except IntegrityError as error:
        await session.rollback()
        name = str(getattr(getattr(error.orig, "diag", None), "constraint_name", ""))
        raise Refused(REFUSALS.get(name, "The database does not take this.")) from error


async def campaigns(session: AsyncSession) -> Sequence[Row]:
    """All campaigns, the first to begin first."""
    return await rows(session, f"{CAMPAIGNS} ORDER BY starts, name")


async def campaign(session: AsyncSession, campaign_id: int) -> Row | None:
    """One campaign."""
    return await one(session, f"{CAMPAIGNS} WHERE campaign.id = :id", id=campaign_id)


async def tasks(session: AsyncSession, campaign_id: int | None = None) -> Sequence[Row]:
    """The tasks of a campaign, or of all, the first to be done first."""
    if campaign_id is None:
        return await rows(session, f"{TASKS} ORDER BY due, task.id")
    return await rows(session, f"{TASKS} WHERE campaign_id = :id ORDER BY due, task.id", id=campaign_id)


async def assets(session: AsyncSession, campaign_id: int | None = None) -> Sequence[Row]:
    """The files of a campaign, or of all, the newest first."""
    if campaign_id is None:
        return await rows(session, f"{ASSETS} ORDER BY added DESC, asset.id DESC")
    return await rows(session, f"{ASSETS} WHERE campaign_id = :id ORDER BY asset.name", id=campaign_id)


async def guides(session: AsyncSession) -> Sequence[Row]:
    """The library, the same for every agency."""
    return await rows(session, "SELECT id, slug, title, about, minutes FROM platform_guides ORDER BY id")


async def add_campaign(session: AsyncSession, name: str, client: str, colour: str, days: tuple[date, date]) -> int:
    """Enter a campaign; its id."""
    statement = (
        "INSERT INTO campaign (name, client, colour, starts, ends) VALUES (:name, :client, :colour, :starts, :ends) "
        "RETURNING id"
    )
    first, last = days
    return int(await write(session, statement, name=name, client=client, colour=colour, starts=first, ends=last))


async def change_campaign(
    session: AsyncSession, campaign_id: int, name: str, client: str, colour: str, days: tuple[date, date]
) -> int | None:
    """Change a campaign; its id, None where there is no such one."""
    statement = (
        "UPDATE campaign SET name = :name, client = :client, colour = :colour, starts = :starts, ends = :ends "
        "WHERE id = :id RETURNING id"
    )
    values = {"name": name, "client": client, "colour": colour, "starts": days[0], "ends": days[1]}
    found: int | None = await write(session, statement, id=campaign_id, **values)
    return found


async def remove_campaign(session: AsyncSession, campaign_id: int) -> int | None:
    """Delete a campaign with its tasks and briefs; its files stay. Its id, None where there is no such campaign."""
    found: int | None = await write(session, "DELETE FROM campaign WHERE id = :id RETURNING id", id=campaign_id)
    return found


async def add_brief(session: AsyncSession, campaign_id: int, values: Mapping[str, str]) -> int:
    """Enter a brief; its id. Values: title, audience, message, body."""
    statement = (
        "INSERT INTO brief (campaign_id, title, audience, message, body) "
        "VALUES (:campaign, :title, :audience, :message, :body) RETURNING id"
    )
    return int(await write(session, statement, campaign=campaign_id, **values))


async def add_task(session: AsyncSession, campaign_id: int, title: str, who: str, due: date, guide: str = "") -> int:
    """Enter a task; its id. A guide is named by its slug."""
    statement = (
        "INSERT INTO task (campaign_id, title, who, due, guide_id) VALUES (:campaign, :title, :who, :due, "
        "(SELECT id FROM platform_guides WHERE slug = :guide)) RETURNING id"
    )
    return int(await write(session, statement, campaign=campaign_id, title=title, who=who, due=due, guide=guide))


async def task(session: AsyncSession, task_id: int) -> Row | None:
    """One task."""
    return await one(session, f"{TASKS} WHERE task.id = :id", id=task_id)


async def change_task(
    session: AsyncSession, task_id: int, title: str, who: str, due: date, guide: str = ""
) -> int | None:
    """Change a task; the id of its campaign, None where there is no such task."""
    statement = (
        "UPDATE task SET title = :title, who = :who, due = :due, "
        "guide_id = (SELECT id FROM platform_guides WHERE slug = :guide) WHERE id = :id RETURNING campaign_id"
    )
    found: int | None = await write(session, statement, id=task_id, title=title, who=who, due=due, guide=guide)
    return found


async def remove_task(session: AsyncSession, task_id: int) -> int | None:
    """Delete a task; the id of its campaign, None where there is no such task."""
    found: int | None = await write(session, "DELETE FROM task WHERE id = :id RETURNING campaign_id", id=task_id)
    return found


async def move_task(session: AsyncSession, task_id: int, state: str) -> int | None:
    """Put a task into another state; the id of its campaign, None where there is no such task."""
    statement = "UPDATE task SET state = :state WHERE id = :id RETURNING campaign_id"
    found: int | None = await write(session, statement, id=task_id, state=state)
    return found


async def put_asset(session: AsyncSession, name: str, kind: str, size: int, who: str, campaign_id: int | None) -> int:
    """Enter a file, or replace the one of this name; its id. The key begins with the tenant in shared tables."""
    statement = (
        "INSERT INTO asset (name, kind, size, added_by, campaign_id) VALUES (:name, :kind, :size, :who, :campaign) "
        "ON CONFLICT ON CONSTRAINT asset_once DO UPDATE SET kind = excluded.kind, size = excluded.size, "
        "added_by = excluded.added_by, campaign_id = excluded.campaign_id, added = now() RETURNING id"
    )
    return int(await write(session, statement, name=name, kind=kind, size=size, who=who, campaign=campaign_id))
