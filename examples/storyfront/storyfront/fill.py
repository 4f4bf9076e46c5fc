"""Puts the pages of files into the sites they are named after: `python -m storyfront.fill sites/acme.toml`.

A file is TOML: a table `settings`, and `page` tables with slug, kind, title, summary, body, position and days (its
age). It is an example of work outside a request, done for one tenant by name.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncSession

import tenantry
from storyfront import pages, site
from storyfront.tables import Page, Revision, Visit


async def fill(runtime: tenantry.Runtime, slug: str, content: Mapping[str, Any]) -> int:
    """Replace all pages of a tenant by those of the file; returns how many there are now."""
    with tenantry.tenant_context(runtime.environment(slug)):
        async with tenantry.tenant_session() as session:
            for table in (Revision, Visit, Page):
                await session.execute(delete(table))
            for fields in content["page"]:
                await _add(session, fields)
            settings = content["settings"]
            await site.store(session, {name: str(value) for name, value in settings.items()})
            await _views(session, slug)
            await session.commit()
    return len(content["page"])


async def _add(session: AsyncSession, fields: Mapping[str, Any]) -> None:
    moment = (datetime.now(UTC) - timedelta(days=fields.get("days", 0))).strftime("%Y-%m-%dT%H:%M:%SZ")
    page = Page(created_at=moment)
    wrong = await pages.save(session, page, {name: str(value) for name, value in fields.items()}, True, "fill")
    if wrong:
        raise SystemExit(f"{fields.get('slug')}: {'; '.join(wrong.values())}")


async def _views(session: AsyncSession, slug: str) -> None:
    """Thirty days of made-up readers, the same each time, so that the chart shows something."""
    chance = random.Random(slug)
    for page_id in await session.scalars(select(Page.id)):
        for day in range(30):
            date = datetime.now(UTC).date() - timedelta(days=day)
            views = round(chance.gauss(16, 5) * (0.45 if date.weekday() > 4 else 1) * (1.5 - day / 40))
            await session.execute(insert(Visit).values(page_id=page_id, day=date.isoformat(), views=max(0, views)))


async def main(*files: str) -> None:
    runtime = tenantry.connect("tenantry.toml")
    await runtime.start()
    try:
        for file in map(Path, files):
            count = await fill(runtime, file.stem, tomllib.loads(file.read_text("utf-8")))
            print(f"{file.stem} has {count} pages now")
    finally:
        await runtime.stop()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m storyfront.fill sites/SLUG.toml …")
    asyncio.run(main(*sys.argv[1:]))
