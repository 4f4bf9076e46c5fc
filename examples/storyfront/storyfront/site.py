"""What a site is like: its settings with their defaults, its look, its menu."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncSession

from storyfront import art, colour
from storyfront.tables import Page, Setting

STORIES: Final = "stories"
"""The home page that is no page: the list of stories."""


@dataclass(frozen=True)
class Look:
    title: str
    about: str
    art: str
    accent: str
    paper: tuple[str, str]  # what text stands on, by day and by night
    ink: tuple[str, str]


LOOKS: Final = {
    "paper": Look("Paper", "reads like a magazine", "hills", "#b4532a", ("#fbf8f3", "#171411"), ("#211c17", "#efe8de")),
    "studio": Look(
        "Studio", "loud, square, sure of itself", "tiles", "#2b4bf2", ("#ffffff", "#0d0e12"), ("#0c0d12", "#f4f5f8")
    ),
    "garden": Look("Garden", "round and friendly", "blooms", "#2f7d4f", ("#f4f8f1", "#101612"), ("#1a241d", "#e4eee6")),
    "ledger": Look("Ledger", "everything in order", "lines", "#0f766e", ("#f5f6f3", "#111413"), ("#181c1b", "#e3e8e6")),
}
MODES: Final = {"auto": "As the reader's device has it", "light": "Always light", "dark": "Always dark"}


@dataclass(frozen=True)
class Site:
    title: str
    tagline: str
    look: str
    accent: str
    mode: str
    home: str
    listed: bool
    menu: tuple[tuple[str, str], ...] = ()

    def cover(self, name: str) -> Markup:
        """The drawing that stands for a page without a picture."""
        return art.cover(name, self.accent, LOOKS[self.look].art)

    @property
    def stylesheet(self) -> str:
        """The site's own colours; everything else is in static/style.css."""
        look = LOOKS[self.look]
        day, night = (
            colour.readable(self.accent, colour.mix(paper, ink, 0.06), 4.6)
            for paper, ink in zip(look.paper, look.ink, strict=True)
        )
        deep, *_ = colour.palette(self.accent)
        return (
            f":root{{--paper:light-dark({look.paper[0]},{look.paper[1]});--ink:light-dark({look.ink[0]},{look.ink[1]});"
            f"--brand:{self.accent};--on-brand:{colour.ink_on(self.accent)};--accent:light-dark({day},{night});"
            f"--on-accent:light-dark({colour.ink_on(day)},{colour.ink_on(night)});--deep:{deep}}}\n"
        )

    @property
    def version(self) -> str:
        """Changes with the stylesheet, so that browsers may keep one for long."""
        return hashlib.sha256(self.stylesheet.encode()).hexdigest()[:12]


def site_of(values: Mapping[str, Any], stored: Mapping[str, str], menu: tuple[tuple[str, str], ...] = ()) -> Site:
    """The settings an editor stored, over the tenant's values, over the look's own."""
    look = stored.get("look", "paper")
    return Site(
        title=stored.get("title") or str(values.get("site_name", "")),
        tagline=stored.get("tagline", "Notes, news and everything worth telling."),
        look=look,
        accent=stored.get("accent") or colour.check(str(values.get("color", ""))) or LOOKS[look].accent,
        mode=stored.get("mode", "auto"),
        home=stored.get("home") or str(values.get("home", "home")),
        listed=stored.get("listed", "yes") == "yes",
        menu=menu,
    )


async def load(session: AsyncSession, values: Mapping[str, Any]) -> Site:
    """The site of the current tenant."""
    stored = dict((await session.execute(select(Setting.name, Setting.value))).tuples().all())
    pages = select(Page.slug, Page.title).where(Page.kind == "page", Page.published).order_by(Page.position, Page.title)
    menu = (await session.execute(pages)).tuples().all()
    return site_of(values, stored, tuple(menu))


async def store(session: AsyncSession, settings: Mapping[str, str]) -> None:
    """Keep settings; those not named stay as they are."""
    for name, value in settings.items():
        row = insert(Setting).values(name=name, value=value)
        await session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def check(form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The settings a form asks for, and what is wrong with them by field."""
    settings = {name: form.get(name, "").strip() for name in ("title", "tagline", "look", "mode", "home")}
    settings["listed"] = "yes" if form.get("listed") else "no"
    wrong: dict[str, str] = {}
    if not 0 < len(settings["title"]) <= 80:
        wrong["title"] = "A site has a title of 1 to 80 characters."
    if len(settings["tagline"]) > 160:
        wrong["tagline"] = "A tagline has at most 160 characters."
    if settings["look"] not in LOOKS:
        wrong["look"] = "Choose one of the looks."
    if settings["mode"] not in MODES:
        wrong["mode"] = "Choose one of the three."
    accent = colour.check(form.get("accent", ""))
    if accent is None:
        wrong["accent"] = "A colour is written like #2f7d4f."
    return {**settings, "accent": accent or ""}, wrong
