"""What visitors see: pages, stories, search, feed, pictures."""

from __future__ import annotations

import re
from email.utils import formatdate

from markupsafe import escape
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import tenantry
from storyfront import media, pages, text
from storyfront.site import STORIES
from storyfront.tables import Media, Page
from storyfront.web import Here, here, templates


async def home(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        page = None if at.site.home == STORIES else await pages.find(session, at.site.home)
        if page is None:
            return await _list(at, session, 1, is_home=True)
        newest = await pages.stories(session, 6)
        newest = newest[: 6 if len(newest) == 6 else 3]
    body = text.render(page.body, at.root) if page.body.strip() != page.summary.strip() else ""
    return _counted(at, page, at.render("home.html", page=page, body=body, stories=newest))


async def stories(request: Request) -> Response:
    number = request.query_params.get("page", "1")
    if not re.fullmatch(r"[1-9]\d{0,3}", number):
        raise HTTPException(404)
    async with tenantry.tenant_session() as session:
        return await _list(await here(request, session), session, int(number))


async def _list(at: Here, session: pages.AsyncSession, number: int, is_home: bool = False) -> Response:
    found = await pages.stories(session, pages.PER_LIST + 1, (number - 1) * pages.PER_LIST)
    if not found and number > 1:
        raise HTTPException(404)
    more = len(found) > pages.PER_LIST
    return at.render("stories.html", stories=found[: pages.PER_LIST], number=number, more=more, is_home=is_home)


async def page(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        found = await pages.find(session, request.path_params["slug"], drafts=at.user is not None)
        if found is None:
            raise HTTPException(404)
        others = await pages.stories(session, 4) if found.kind == "story" else ()
    answer = at.render(
        "page.html", page=found, body=text.render(found.body, at.root), minutes=text.minutes(found.body),
        stories=[story for story in others if story.id != found.id][:3],
    )  # fmt: skip
    return _counted(at, found, answer)


def _counted(at: Here, page: Page, answer: Response) -> Response:
    """Views of readers are counted after the answer has gone out; those of the site's own people are not."""
    if at.user is None and at.request.method == "GET" and page.published:
        answer.background = BackgroundTask(_count, page.id)
    return answer


async def _count(page_id: int) -> None:
    async with tenantry.tenant_session() as session:
        await pages.count_view(session, page_id)
        await session.commit()


async def search(request: Request) -> Response:
    query = request.query_params.get("q", "").strip()[:200]
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        found = await pages.search(session, query)
    return at.render("search.html", query=query, found=found)


async def feed(request: Request) -> Response:
    """The newest stories as an Atom feed (RFC 4287)."""
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
        newest = await pages.stories(session, 20)
    root = at.address("").rstrip("/")
    entries = [(story, str(text.render(story.body, root))) for story in newest]
    updated = max((story.revised_at for story in newest), default="1970-01-01T00:00:00Z")
    xml = templates.get_template("feed.xml").render(site=at.site, entries=entries, updated=updated, address=at.address)
    return Response(xml, media_type="application/atom+xml")


async def look(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
    keep = "private, max-age=31536000, immutable" if request.query_params.get("v") == at.site.version else "no-cache"
    return Response(at.site.stylesheet, media_type="text/css", headers={"cache-control": keep})


async def icon(request: Request) -> Response:
    async with tenantry.tenant_session() as session:
        at = await here(request, session)
    return Response(icon_of(at.site.title, at.site.accent), media_type="image/svg+xml")


def icon_of(title: str, accent: str) -> str:
    """The first letter of a title on the site's colour."""
    from storyfront.colour import ink_on

    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">'
        f'<rect width="64" height="64" rx="14" fill="{accent}"/>'
        f'<text x="32" y="45" font-family="sans-serif" font-weight="700" font-size="38" text-anchor="middle" '
        f'fill="{ink_on(accent)}">{escape(title[:1].upper())}</text></svg>'
    )


async def file(request: Request) -> Response:
    """A file of the media library, if it is known there."""
    name = request.path_params["name"]
    async with tenantry.tenant_session() as session:
        found = await session.get(Media, name)
    if found is None:
        raise HTTPException(404)
    try:
        content = tenantry.tenant_storage("media").read(name)
    except FileNotFoundError as error:
        raise HTTPException(404) from error
    return Response(content, headers={**media.headers(name, found.type), "date": formatdate(usegmt=True)})
