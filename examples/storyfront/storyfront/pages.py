"""Pages and stories of one tenant: find, list, save with their history, search, count."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from markupsafe import Markup, escape
from slugify import slugify
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncSession

from storyfront.tables import Page, Revision, Visit, now
from storyfront.text import plain

PER_LIST: Final = 12
BODY_LENGTH: Final = 200_000
TAKEN: Final = frozenset("desk feed media search static stories".split())
"""Addresses of the application itself, which no page can have."""

_SLUG: Final = re.compile(r"[a-z0-9](?:-?[a-z0-9]){0,79}")


async def find(session: AsyncSession, slug: str, drafts: bool = False) -> Page | None:
    """The page at an address; drafts only for those who may see them."""
    page = await session.scalar(select(Page).where(Page.slug == slug))
    return page if page and (page.published or drafts) else None


async def stories(session: AsyncSession, limit: int = PER_LIST, offset: int = 0) -> Sequence[Page]:
    """Published stories, newest first."""
    found = select(Page).where(Page.kind == "story", Page.published).order_by(Page.created_at.desc(), Page.id.desc())
    return (await session.scalars(found.limit(limit).offset(offset))).all()


async def everything(session: AsyncSession) -> Sequence[Page]:
    """All pages and stories for the desk: pages in the order of the menu, then stories, newest first."""
    return (await session.scalars(select(Page).order_by(Page.kind, Page.position, Page.created_at.desc()))).all()


async def count(session: AsyncSession) -> int:
    """How many pages and stories there are, drafts included."""
    return await session.scalar(select(func.count(Page.id))) or 0


async def save(session: AsyncSession, page: Page, fields: Mapping[str, str], publish: bool, who: str) -> dict[str, str]:
    """Store a page and a revision of it. Returns what is wrong by field, in which case nothing is stored."""
    slug = fields.get("slug", "").strip() or slugify(fields.get("title", ""), max_length=80)
    wrong = check(fields, slug)
    with session.no_autoflush:
        other = await session.scalar(select(Page.id).where(Page.slug == slug))
    if other is not None and other != page.id:
        wrong["slug"] = f"Another page is at /{slug} already."
    if wrong:
        return wrong
    page.slug, page.title, page.body = slug, fields["title"].strip(), fields.get("body", "").replace("\r\n", "\n")
    page.summary, page.cover = fields.get("summary", "").strip(), fields.get("cover", "")
    page.kind, page.position = fields.get("kind", "story"), int(fields.get("position") or 0)
    page.published, page.revised_at = publish, now()
    session.add(page)
    await session.flush()
    session.add(Revision(page_id=page.id, title=page.title, summary=page.summary, body=page.body, saved_by=who))
    return {}


def check(fields: Mapping[str, str], slug: str) -> dict[str, str]:
    """What is wrong with a page, by field."""
    wrong = {}
    if not 0 < len(fields.get("title", "").strip()) <= 160:
        wrong["title"] = "A title has 1 to 160 characters."
    if not _SLUG.fullmatch(slug):
        wrong["slug"] = "An address has 1 to 80 letters a-z, digits and single hyphens."
    elif slug in TAKEN:
        wrong["slug"] = f"/{slug} is an address of the application; choose another."
    if len(fields.get("summary", "")) > 300:
        wrong["summary"] = "A summary has at most 300 characters."
    if len(fields.get("body", "")) > BODY_LENGTH:
        wrong["body"] = f"A page has at most {BODY_LENGTH} characters."
    if fields.get("kind", "story") not in ("page", "story"):
        wrong["kind"] = "It is a page or a story."
    if not re.fullmatch(r"\d{0,4}", fields.get("position", "")):
        wrong["position"] = "A position is a number from 0 to 9999."
    return wrong


async def remove(session: AsyncSession, page: Page) -> None:
    """Remove a page with its history and its counts."""
    for table in (Revision, Visit):
        await session.execute(delete(table).where(table.page_id == page.id))
    await session.delete(page)


# --- history ------------------------------------------------------------------------------------------------------


async def history(session: AsyncSession, page: Page) -> Sequence[Revision]:
    """Every saved version, newest first."""
    return (
        await session.scalars(select(Revision).where(Revision.page_id == page.id).order_by(Revision.id.desc()))
    ).all()


def differences(old: str, new: str) -> list[tuple[str, str]]:
    """The lines of two texts, each with what became of it: 'same', 'gone' or 'came'."""
    kinds = {"  ": "same", "- ": "gone", "+ ": "came"}
    lines = difflib.ndiff(old.splitlines(), new.splitlines())
    return [(kinds[line[:2]], line[2:]) for line in lines if line[:2] in kinds]


# --- search -------------------------------------------------------------------------------------------------------

_FOUND: Final = text("""
SELECT page.slug, page.title, page.kind, snippet(page_words, -1, :open, :close, ' … ', 28)
FROM page_words JOIN page ON page.id = page_words.rowid
WHERE page_words MATCH :words AND page.published = 1
ORDER BY bm25(page_words, 8, 3, 1) LIMIT 30
""")
_OPEN, _CLOSE = "\ue000", "\ue001"  # private characters: they survive escaping and stand in no text


async def search(session: AsyncSession, query: str) -> list[tuple[str, str, str, Markup]]:
    """Published pages that have every word of the query, or a word that begins with it, best first."""
    words = re.findall(r"\w+", query)[:12]
    if not words:
        return []
    match = " ".join(f'"{word}"*' for word in words)
    rows = await session.execute(_FOUND, {"words": match, "open": _OPEN, "close": _CLOSE})
    return [(slug, title, kind, _marked(snippet)) for slug, title, kind, snippet in rows]


def _marked(snippet: str) -> Markup:
    safe = str(escape(plain(snippet)))
    return Markup(safe.replace(_OPEN, "<mark>").replace(_CLOSE, "</mark>"))


# --- views --------------------------------------------------------------------------------------------------------


def today() -> str:
    return datetime.now(UTC).date().isoformat()


async def count_view(session: AsyncSession, page_id: int) -> None:
    """Count one view of a page today. Nothing about the reader is kept."""
    row = insert(Visit).values(page_id=page_id, day=today(), views=1)
    await session.execute(row.on_conflict_do_update(index_elements=["page_id", "day"], set_={"views": Visit.views + 1}))


async def views_by_day(session: AsyncSession, days: int = 30) -> list[tuple[str, int]]:
    """Views of all pages on each of the last days, oldest first, days without a view included."""
    first = datetime.now(UTC).date() - timedelta(days=days - 1)
    counted = select(Visit.day, func.sum(Visit.views)).where(Visit.day >= first.isoformat()).group_by(Visit.day)
    views = dict((await session.execute(counted)).tuples().all())
    dates = ((first + timedelta(days=day)).isoformat() for day in range(days))
    return [(day, views.get(day, 0)) for day in dates]


async def views_by_page(session: AsyncSession, days: int = 30) -> dict[int, int]:
    """Views of each page in the last days."""
    first = (datetime.now(UTC).date() - timedelta(days=days - 1)).isoformat()
    counted = select(Visit.page_id, func.sum(Visit.views)).where(Visit.day >= first).group_by(Visit.page_id)
    return dict((await session.execute(counted)).tuples().all())
