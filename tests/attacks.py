"""What tests attack with: every form of the portal, what a control database holds, and texts that mean something."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi.routing import APIRoute

import ground as g
from tenantry.web.portal import PARTS

OPEN = ("/sign-in", "/passkey", "/forgot", "/link/{link}")
"""Forms for whoever is not signed in yet."""

EVERY = {
    "slug": "acme",
    "name": "backup",
    "organization": "Nord",
    "admin": "ana@example.org",
    "link": "none",
    "session": "none",
    "token": "none",
    "passkey": "none",
    "action": "resume",
    "kind": "json",
}
"""What stands in a path where nothing else is said."""

WORDS = {
    "slug": "eve",
    "to": "eve",
    "name": "Eve",
    "mail": "eve@example.org",
    "role": "superadmin",
    "password": "eve's password",
    "old": "correct horse battery",
    "new": "eve's password",
    "host": "eve.example",
    "reason": "eve",
    "confirm": "Nord",
    "confirmed": "acme",
    "typed": "backup",
    "scopes": "people:write",
    "slugs": "acme",
    "text": "slug\neve\n",
    "tenant": "acme",
    "action": "suspend",
    "do": "create",
    "answer": "{}",
    "code": "123456",
    "days": "7",
    "resource": "db",
    "environment": "production",
}
"""A form that every page could take something of."""

VOLATILE = {"admin_session": ("seen", "expires"), "admin_user": ("seen",), "api_token": ("used",)}
"""What changes where somebody only looks."""

IGNORED = ("worker", "throttle", "idempotency", "spent")


def routes(method: str) -> list[str]:
    """Every path of the portal that takes this method, below /admin, from the portal itself."""
    found = [route for part in PARTS for route in part.router.routes if isinstance(route, APIRoute)]
    return [route.path for route in found if method in route.methods]


def filled(path: str, values: Mapping[str, str] = EVERY, **more: str) -> str:
    """A path with something in each of its places."""
    return re.sub(r"\{(\w+)\}", lambda name: {**values, **more}.get(name[1], "none"), path)


def state(ground: g.Ground) -> dict[str, list[Any]]:
    """All that the control database holds, but for who was seen when."""
    with contextlib.closing(sqlite3.connect(ground.data / "control.sqlite", timeout=g.PATIENCE)) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        names = [row[0] for row in connection.execute(query)]
        return {name: _rows(connection, name) for name in names if name not in IGNORED}


def _rows(connection: sqlite3.Connection, table: str) -> list[Any]:
    hidden = VOLATILE.get(table, ())
    rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
    return sorted(str({key: row[key] for key in row.keys() if key not in hidden}) for row in rows)  # noqa: SIM118


def changed(before: Mapping[str, list[Any]], after: Mapping[str, list[Any]]) -> Iterator[str]:
    """What is another between two states."""
    for table in sorted({*before, *after}):
        yield from (f"{table}: {row}" for row in {*before.get(table, ())} ^ {*after.get(table, ())})
