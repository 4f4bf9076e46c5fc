"""Pages of a platform with many tenants: they ask the control database no more than those of one with few."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import portal
from bench.crowd import Crowd, gather
from bench.site import Site
from sqlalchemy import event

from tenantry.registry.database import Transaction

FEW, MANY = 120, 480

ROWS = 200
"""Rows that each page may read, however few tenants there are: fewer than there are tenants of many."""

GROWING = {
    "/admin/statistics": "a row for each day",
    "/admin/migrations/rehearsals/{live_rehearsal}": "what the first 300 found",
}
"""Pages that read more rows where there are more tenants, and what those rows are."""


@contextlib.contextmanager
def counted(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The statements asked of a control database, and the rows it gave."""
    found = [0, 0]
    plain = Transaction.all

    def note(*_: object) -> None:
        found[0] += 1

    async def read(self: Transaction, statement: Any, *values: Any) -> Any:
        rows = await plain(self, statement, *values)
        found[1] += len(rows)
        return rows

    monkeypatch.setattr(Transaction, "all", read)
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)
    monkeypatch.undo()


@contextlib.asynccontextmanager
async def asked(root: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, tuple[int, int]]]:
    """Statements and rows of each page of a platform with so many tenants, by its address on all platforms."""
    root.mkdir()
    place = Site(root)
    crowd = await gather(place, count, entries=2 * count, operations=count)
    names = {value: f"{{{name}}}" for name, value in vars(crowd).items() if isinstance(value, str) and value}
    found = {}
    async with portal.portal(place) as (app, callers, _):
        engine = (await app.state.house.opened()).platform.registry.database.engine.sync_engine
        for address in pages(crowd):
            with counted(engine, monkeypatch) as number:
                status, size = await callers["root"].get(address)
            assert status == 200, address
            assert size < portal.MOST_KB * 1000, address
            for value, name in names.items():
                address = address.replace(value, name)
            middle = str(count // 2)
            found[address.replace(f"-{middle}", "-{n}").replace(f"+{middle}+", "+{n}+")] = (number[0], number[1])
    yield found


def pages(crowd: Crowd) -> Iterator[str]:
    """The addresses of all pages that are no files and no streams, and of nobody's alone."""
    for address in portal.addresses(crowd, f"tenant-{crowd.tenants // 2}", everything=True):
        path = address.partition("?")[0]
        if not any(part in path for part in (*portal.FILES, "/none", "/connection")):
            yield address


async def test_no_page_asks_more_where_there_are_more_tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many tenants, and no page asks one statement more, or reads more rows, but for those named."""
    async with asked(tmp_path / "few", FEW, monkeypatch) as few, asked(tmp_path / "many", MANY, monkeypatch) as many:
        assert few.keys() == many.keys()
        assert len(few) > 60
        more = {page: (few[page][0], many[page][0]) for page in few if many[page][0] > few[page][0]}
        assert more == {}
        bound = {page: max(few[page][1], ROWS) for page in few if not page.startswith(tuple(GROWING))}
        assert {page: many[page][1] for page, most in bound.items() if many[page][1] > most} == {}
