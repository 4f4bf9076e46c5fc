"""The pages of an agency: its campaigns, their boards, briefs and files, and the library that all agencies share."""

from __future__ import annotations

import re
from datetime import date
from pathlib import PurePosixPath
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Path, Request, Response
from starlette.datastructures import FormData, UploadFile

import tenantry
from agency import store
from agency.picture import late, timeline
from agency.store import Refused
from agency.web import Signed, day_of, field, go, number_of, render, sent, size, today

pages = APIRouter()
Id = Annotated[int, Path(ge=1, lt=2**63)]
BRIEF: Final = ("title", "audience", "message", "body")
FILE: Final = 5_000_000
"""The largest file, in bytes."""

PICTURES: Final = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.S),
}
"""How pictures begin. They are shown; everything else is only ever offered as a download."""


def found(row: Any, what: str) -> Any:
    """The row, or 404: what another agency has is not there."""
    if row is None:
        raise HTTPException(404, f"There is no such {what} here.")
    return row


# --- campaigns ----------------------------------------------------------------------------------------------------


@pages.get("/")
async def home(request: Request, user: Signed) -> Response:
    return await _home(request, user)


async def _home(request: Request, user: tenantry.User, wrong: str = "") -> Response:
    async with tenantry.tenant_session() as session:
        campaigns, tasks = await store.campaigns(session), await store.tasks(session)
    drawn = timeline(campaigns, tasks, today())
    status = 422 if wrong else 200
    return render(request, "home.html", status, user=user, campaigns=campaigns, drawn=drawn, wrong=wrong)


@pages.post("/campaigns")
async def add_campaign(request: Request, user: Signed) -> Response:
    form = await sent(request)
    try:
        async with tenantry.tenant_session() as session:
            made = await store.add_campaign(session, *_campaign(form))
            await session.commit()
    except Refused as error:
        return await _home(request, user, str(error))
    return go(request, f"/campaigns/{made}")


def _campaign(form: FormData) -> tuple[str, str, str, tuple[date, date]]:
    """What the form of a campaign says: name, client, colour, first and last day. Raises `Refused`."""
    days = day_of(form, "starts"), day_of(form, "ends")
    return field(form, "name"), field(form, "client"), field(form, "colour").lower(), days


@pages.get("/campaigns/{campaign_id}")
async def board(request: Request, user: Signed, campaign_id: Id) -> Response:
    return await _board(request, user, campaign_id)


async def _board(request: Request, user: tenantry.User, campaign_id: int, wrong: str = "") -> Response:
    async with tenantry.tenant_session() as session:
        campaign = found(await store.campaign(session, campaign_id), "campaign")
        tasks = await store.tasks(session, campaign_id)
        briefs = await store.rows(
            session, "SELECT id, title, audience FROM brief WHERE campaign_id = :id ORDER BY id", id=campaign_id
        )
        assets, guides = await store.assets(session, campaign_id), await store.guides(session)
    columns = {state: [task for task in tasks if task["state"] == state] for state in store.STATES}
    return render(
        request, "board.html", 422 if wrong else 200, user=user, campaign=campaign, columns=columns, briefs=briefs,
        assets=assets, guides=guides, wrong=wrong, late=lambda task: late(task, today()),
    )  # fmt: skip


@pages.post("/campaigns/{campaign_id}")
async def change_campaign(request: Request, user: Signed, campaign_id: Id) -> Response:
    form = await sent(request)
    try:
        async with tenantry.tenant_session() as session:
            found(await store.change_campaign(session, campaign_id, *_campaign(form)), "campaign")
            await session.commit()
    except Refused as error:
        return await _board(request, user, campaign_id, str(error))
    return go(request, f"/campaigns/{campaign_id}")


@pages.post("/campaigns/{campaign_id}/delete")
async def remove_campaign(request: Request, user: Signed, campaign_id: Id) -> Response:
    async with tenantry.tenant_session() as session:
        found(await store.remove_campaign(session, campaign_id), "campaign")
        await session.commit()
    return go(request, "/")


# --- tasks --------------------------------------------------------------------------------------------------------


@pages.post("/campaigns/{campaign_id}/tasks")
async def add_task(request: Request, user: Signed, campaign_id: Id) -> Response:
    form = await sent(request)
    try:
        due = day_of(form, "due")
        async with tenantry.tenant_session() as session:
            title, who, guide = (field(form, name) for name in ("title", "who", "guide"))
            await store.add_task(session, campaign_id, title, who, due, guide)
            await session.commit()
    except Refused as error:
        return await _board(request, user, campaign_id, str(error))
    return go(request, f"/campaigns/{campaign_id}")


@pages.get("/tasks/{task_id}")
async def task(request: Request, user: Signed, task_id: Id) -> Response:
    return await _task(request, user, task_id)


async def _task(request: Request, user: tenantry.User, task_id: int, wrong: str = "", **given: str) -> Response:
    async with tenantry.tenant_session() as session:
        row = found(await store.task(session, task_id), "task")
        campaign, guides = await store.campaign(session, row["campaign_id"]), await store.guides(session)
    status, shown = 422 if wrong else 200, dict(row) | given
    return render(request, "task.html", status, user=user, task=shown, campaign=campaign, guides=guides, wrong=wrong)


@pages.post("/tasks/{task_id}/change")
async def change_task(request: Request, user: Signed, task_id: Id) -> Response:
    form = await sent(request)
    given = {name: field(form, name) for name in ("title", "who", "due", "guide")}
    try:
        due = day_of(form, "due")
        async with tenantry.tenant_session() as session:
            values = given["title"], given["who"], due, given["guide"]
            campaign = found(await store.change_task(session, task_id, *values), "task")
            await session.commit()
    except Refused as error:
        return await _task(request, user, task_id, str(error), **given)
    return go(request, f"/campaigns/{campaign}#task-{task_id}")


@pages.post("/tasks/{task_id}/delete")
async def remove_task(request: Request, user: Signed, task_id: Id) -> Response:
    async with tenantry.tenant_session() as session:
        campaign = found(await store.remove_task(session, task_id), "task")
        await session.commit()
    return go(request, f"/campaigns/{campaign}")


@pages.post("/tasks/{task_id}")
async def move_task(request: Request, user: Signed, task_id: Id) -> Response:
    state = field(await sent(request), "state")
    try:
        async with tenantry.tenant_session() as session:
            campaign = found(await store.move_task(session, task_id, state), "task")
            await session.commit()
    except Refused as error:
        raise HTTPException(422, str(error)) from error
    return go(request, f"/campaigns/{campaign}#task-{task_id}")


# --- briefs -------------------------------------------------------------------------------------------------------


@pages.post("/campaigns/{campaign_id}/briefs")
async def add_brief(request: Request, user: Signed, campaign_id: Id) -> Response:
    values = dict.fromkeys(BRIEF, "") | {"title": field(await sent(request), "title")}
    try:
        async with tenantry.tenant_session() as session:
            found(await store.campaign(session, campaign_id), "campaign")
            made = await store.add_brief(session, campaign_id, values)
            await session.commit()
    except Refused as error:
        return await _board(request, user, campaign_id, str(error))
    return go(request, f"/briefs/{made}")


@pages.get("/briefs/{brief_id}")
async def brief(request: Request, user: Signed, brief_id: Id) -> Response:
    async with tenantry.tenant_session() as session:
        row = found(await _brief(session, brief_id), "brief")
    return render(request, "brief.html", user=user, brief=row)


async def _brief(session: Any, brief_id: int) -> store.Row | None:
    query = (
        "SELECT brief.id, title, audience, message, body, campaign_id, name AS campaign, colour "
        "FROM brief JOIN campaign ON campaign.id = campaign_id WHERE brief.id = :id"
    )
    return await store.one(session, query, id=brief_id)


@pages.post("/briefs/{brief_id}")
async def change_brief(request: Request, user: Signed, brief_id: Id) -> Response:
    form = await sent(request)
    values = {name: field(form, name).replace("\r\n", "\n") for name in BRIEF}
    statement = (
        "UPDATE brief SET title = :title, audience = :audience, message = :message, body = :body WHERE id = :id "
        "RETURNING id"
    )
    async with tenantry.tenant_session() as session:
        row = found(await _brief(session, brief_id), "brief")
        try:
            await store.write(session, statement, id=brief_id, **values)
            await session.commit()
        except Refused as error:
            return render(request, "brief.html", 422, user=user, brief=dict(row) | values, wrong=str(error))
    return go(request, f"/briefs/{brief_id}")


# --- files --------------------------------------------------------------------------------------------------------


@pages.get("/assets")
async def assets(request: Request, user: Signed) -> Response:
    return await _assets(request, user)


async def _assets(request: Request, user: tenantry.User, wrong: str = "") -> Response:
    async with tenantry.tenant_session() as session:
        rows, campaigns = await store.assets(session), await store.campaigns(session)
    status = 422 if wrong else 200
    return render(request, "assets.html", status, user=user, assets=rows, campaigns=campaigns, wrong=wrong, limit=FILE)


def kind_of(content: bytes) -> str:
    """The type of a file by its first bytes, whatever its name says."""
    return next((kind for kind, magic in PICTURES.items() if magic.match(content)), "application/octet-stream")


async def keep(session: Any, name: str, content: bytes, who: str, campaign: int | None) -> int:
    """Keep a file, in the place of one of the same name; its id. The row comes first, as it may be refused."""
    made = await store.put_asset(session, name, kind_of(content), len(content), who, campaign)
    tenantry.tenant_storage("assets").write(str(made), content)
    await session.commit()
    return made


@pages.post("/assets")
async def upload(request: Request, user: Signed) -> Response:
    form = await sent(request, FILE + 10_000, files=1)
    file = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        return await _assets(request, user, "Choose a file.")
    content = await file.read(FILE + 1)
    if not 0 < len(content) <= FILE:
        return await _assets(request, user, f"A file has content, and at most {size(FILE)} of it.")
    name = "".join(filter(str.isprintable, PurePosixPath(file.filename.replace("\\", "/")).name))
    try:
        async with tenantry.tenant_session() as session:
            campaign = await store.campaign(session, number_of(form, "campaign") or 0)
            await keep(session, name, content, user.name or user.login, campaign and campaign["id"])
    except Refused as error:
        return await _assets(request, user, str(error))
    return go(request, "/assets")


@pages.get("/assets/{asset_id}")
async def asset(user: Signed, asset_id: Id) -> Response:
    async with tenantry.tenant_session() as session:
        query = "SELECT name, kind FROM asset WHERE id = :id"
        row = found(await store.one(session, query, id=asset_id), "file")
    try:
        content = tenantry.tenant_storage("assets").read(str(asset_id))
    except FileNotFoundError:
        raise HTTPException(404, "This file is gone.") from None
    shown = "inline" if row["kind"] in PICTURES else "attachment"
    headers = {
        "content-disposition": f"{shown}; filename*=utf-8''{quote(row['name'], safe='')}",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-cache",
    }
    return Response(content, media_type=row["kind"], headers=headers)


# --- the library --------------------------------------------------------------------------------------------------


@pages.get("/library")
async def library(request: Request, user: Signed) -> Response:
    async with tenantry.tenant_session() as session:
        rows = await store.guides(session)
    return render(request, "library.html", user=user, guides=rows)


@pages.get("/library/{slug}")
async def guide(request: Request, user: Signed, slug: str) -> Response:
    async with tenantry.tenant_session() as session:
        query = "SELECT title, about, minutes, body FROM platform_guides WHERE slug = :slug"
        row = found(await store.one(session, query, slug=slug.replace("\0", "")), "guide")
    return render(request, "guide.html", user=user, guide=row)
