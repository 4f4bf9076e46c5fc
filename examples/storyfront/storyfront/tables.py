"""The tables of one tenant's database, as `schema/` makes them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> str:
    """This moment in UTC, as every table stores it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Base(DeclarativeBase):
    pass


class Setting(Base):
    __tablename__ = "setting"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Page(Base):
    """A page stands in the menu; a story is listed by date."""

    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str]
    kind: Mapped[str] = mapped_column(default="story")
    title: Mapped[str]
    summary: Mapped[str] = mapped_column(default="")
    body: Mapped[str] = mapped_column(default="")
    cover: Mapped[str] = mapped_column(default="")  # the name of a picture in the library, or nothing
    published: Mapped[bool] = mapped_column(default=False)
    position: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[str] = mapped_column(default=now)
    revised_at: Mapped[str] = mapped_column(default=now)


class Revision(Base):
    __tablename__ = "revision"
    id: Mapped[int] = mapped_column(primary_key=True)
    page_id: Mapped[int] = mapped_column(ForeignKey("page.id"))
    title: Mapped[str]
    summary: Mapped[str]
    body: Mapped[str]
    saved_at: Mapped[str] = mapped_column(default=now)
    saved_by: Mapped[str]


class Media(Base):
    __tablename__ = "media"
    name: Mapped[str] = mapped_column(primary_key=True)
    alt: Mapped[str] = mapped_column(default="")
    type: Mapped[str]
    size: Mapped[int]  # bytes
    added_at: Mapped[str] = mapped_column(default=now)
    added_by: Mapped[str]


class Visit(Base):
    __tablename__ = "visit"
    page_id: Mapped[int] = mapped_column(ForeignKey("page.id"), primary_key=True)
    day: Mapped[str] = mapped_column(primary_key=True)  # in UTC, "2026-11-21"
    views: Mapped[int] = mapped_column(default=0)
