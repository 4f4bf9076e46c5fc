"""What editors and admins work with: pages, media, settings."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import tenantry
from storyfront import art, chart, media, pages, site, text
from storyfront.site import LOOKS, MODES
from storyfront.tables import Media, Page, Revision
from storyfront.web import FORM_BYTES, Here, allow, here, text_of


async def overview(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        allow(at)
        items = await pages.everything(session)
        days = await pages.views_by_day(session)
        views = await pages.views_by_page(session)
    total = sum(count for _, count in days)
    return at.render("desk/pages.html", items=items, days=days, views=views, total=total, chart=chart.bars(days))


# --- pages --------------------------------------------------------------------------------------------------------

_FIELDS = ("title", "slug", "summary", "body", "kind", "position", "cover")


async def edit(request: Request) -> Response:
    """The editor: a new page, or one that is there."""
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        person = allow(at)
        page = await _page(request, session) if "id" in request.path_params else None
        if request.method == "GET":
            kind = "page" if request.query_params.get("kind") == "page" else "story"
            fields = {name: str(getattr(page, name)) for name in _FIELDS} if page else _blank(kind)
            return await _editor(at, session, page, fields, page.revised_at if page else "")
        fields = _blank("story") | text_of(await at.form())
        if fields.get("do") == "preview":
            return await _editor(at, session, page, fields, fields.get("seen", ""))
        if page and fields.get("seen") != page.revised_at:
            wrong = {
                "form": "Somebody saved this page meanwhile (see History). Save again to put your text over theirs."
            }
            return await _editor(at, session, page, fields, page.revised_at, wrong, 409)
        target = page or Page()
        publish = fields.get("do") == "publish"
        limit = int(tenantry.tenant_values()["max_pages"])
        if page is None and await pages.count(session) >= limit:
            wrong = {"form": f"This site has {limit} pages, and that is as many as it may have."}
            return await _editor(at, session, page, fields, "", wrong, 403)
        wrong = await pages.save(session, target, fields, publish, person.shown)
        if wrong:
            return await _editor(at, session, page, fields, fields.get("seen", ""), wrong, 422)
        await session.commit()
        return at.go(f"/desk/pages/{target.id}", "published" if publish else "saved")


def _blank(kind: str) -> dict[str, str]:
    return dict.fromkeys(_FIELDS, "") | {"kind": kind, "position": "10" if kind == "page" else "0"}


async def _page(request: Request, session: AsyncSession) -> Page:
    page = await session.get(Page, request.path_params["id"])
    if page is None:
        raise HTTPException(404)
    return page


async def _editor(
    at: Here, session: AsyncSession, page: Page | None, fields: Mapping[str, str], seen: str,
    wrong: Mapping[str, str] | None = None, status: int = 200,
) -> Response:  # fmt: skip
    pictures = [item for item in await _library(session) if item.type in media.PICTURES]
    preview = text.render(fields["body"], at.root)
    return at.render(
        "desk/editor.html", status, page=page, fields=fields, seen=seen, wrong=wrong, pictures=pictures, preview=preview
    )


async def preview(request: Request) -> Response:
    """The HTML of a Markdown text, for the pane beside the editor."""
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
    allow(at)
    form = text_of(await at.form())
    return HTMLResponse(str(text.render(form.get("body", "")[: pages.BODY_LENGTH], at.root)))


async def remove(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        allow(at)
        await at.form()
        await pages.remove(session, await _page(request, session))
        await session.commit()
    return at.go("/desk", "removed")


async def history(request: Request) -> Response:
    """All saved versions of a page; one of them against the one before it; one of them brought back."""
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        person = allow(at)
        page = await _page(request, session)
        revisions = await pages.history(session, page)
        if request.method == "POST":
            form = text_of(await at.form())
            chosen = _version(revisions, form.get("version", ""))
            fields = {name: str(getattr(page, name)) for name in _FIELDS}
            fields |= {"title": chosen.title, "summary": chosen.summary, "body": chosen.body}
            await pages.save(session, page, fields, page.published, person.shown)
            await session.commit()
            return at.go(f"/desk/pages/{page.id}", "restored")
        chosen = _version(revisions, request.query_params.get("version", "")) if revisions else None
        lines = []
        if chosen:
            older = [item for item in revisions if item.id < chosen.id]
            lines = pages.differences(older[0].body if older else "", chosen.body)
    return at.render("desk/history.html", page=page, revisions=revisions, chosen=chosen, lines=lines)


def _version(revisions: pages.Sequence[Revision], wanted: str) -> Revision:
    """The version asked for, the newest where none is."""
    found = [item for item in revisions if not wanted or str(item.id) == wanted]
    if not found:
        raise HTTPException(404)
    return found[0]


# --- media --------------------------------------------------------------------------------------------------------


async def library(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        person = allow(at)
        faults: list[str] = []
        if request.method == "POST":
            form = await at.form(limit=20 * media.LIMIT + FORM_BYTES)
            uploads = [item for item in form.getlist("file") if isinstance(item, UploadFile)]
            alt = str(form.get("alt", "")).strip()[:200]
            found = [await _take_in(session, upload, alt, person.shown) for upload in uploads]
            faults = [fault for fault in found if fault]
            await session.commit()
            if not faults:
                return at.go("/desk/media", "uploaded")
        items = await _library(session)
    pictures = [item for item in items if item.type in media.PICTURES]
    return at.render(
        "desk/media.html",
        422 if faults else 200,
        items=items,
        pictures=pictures,
        faults=faults,
        limit=media.LIMIT,
        files=[item for item in items if item not in pictures],
        used=sum(item.size for item in items),
        accept=media.ACCEPT,
    )


async def _take_in(session: AsyncSession, upload: UploadFile, alt: str, who: str) -> str | None:
    """Keep one uploaded file. Returns what is wrong with it."""
    content = await upload.read(media.LIMIT + 1)
    judged = media.judge(upload.filename or "", content)
    if isinstance(judged, str):
        return judged
    name = media.free_name(judged[0], set(await session.scalars(select(Media.name))))
    tenantry.tenant_storage("media").write(name, content)
    session.add(Media(name=name, alt=alt, type=judged[1], size=len(content), added_by=who))
    await session.flush()
    return None


async def _library(session: AsyncSession) -> pages.Sequence[Media]:
    return (await session.scalars(select(Media).order_by(Media.added_at.desc(), Media.name))).all()


async def remove_file(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        allow(at)
        item = await session.get(Media, text_of(await at.form()).get("name", ""))
        if item is None:
            raise HTTPException(404)
        await session.delete(item)
        await session.commit()
        tenantry.tenant_storage("media").delete(item.name)
    return at.go("/desk/media", "removed")


# --- settings -----------------------------------------------------------------------------------------------------


async def settings(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        allow(at, manage=True)
        now = at.site
        fields = {"title": now.title, "tagline": now.tagline, "look": now.look, "accent": now.accent, "mode": now.mode}
        fields |= {"home": now.home, "listed": "yes" if now.listed else "no"}
        wrong: dict[str, str] = {}
        if request.method == "POST":
            form = text_of(await at.form())
            fields, wrong = site.check(form)
            if fields["home"] != site.STORIES and await pages.find(session, fields["home"]) is None:
                wrong["home"] = "Choose a published page."
            if not wrong:
                await site.store(session, fields)
                await session.commit()
                return at.go("/desk/settings", "saved")
            fields["accent"] = fields["accent"] or now.accent
    looks = [(name, look, art.cover(at.site.title, now.accent, look.art)) for name, look in LOOKS.items()]
    support = await tenantry.connected().support.history()
    return at.render(
        "desk/settings.html",
        422 if wrong else 200,
        fields=fields,
        wrong=wrong,
        looks=looks,
        modes=MODES,
        support=support,
    )
