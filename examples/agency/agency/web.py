"""What every page needs: who asks, what a form sent, addresses below the agency's root, safe answers."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

import tenantry
from agency.store import STATES, Refused

HERE: Final = Path(__file__).parent
LARGEST: Final = 100_000
"""The most that a form without files may hold, in bytes."""

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def size(count: int) -> str:
    """Bytes as people read them."""
    return f"{count} bytes" if count < 1000 else f"{count / 1000:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


pages: Final = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
pages.trim_blocks = pages.lstrip_blocks = True
pages.filters["day"] = lambda day: f"{day.day} {day:%b}"
pages.filters["size"] = size
pages.filters["initials"] = lambda name: "".join(word[0] for word in name.split() if word[0].isalnum())[:2].upper()


def today() -> date:
    """This day, the same for all agencies."""
    return datetime.now(UTC).date()


async def signed_in(request: Request) -> tenantry.User:
    """The user of a request; others are sent to Tenantry's own page to sign in.

    A write from another site's page, and one by a reader, get 403.
    """
    same_origin(request)
    user = tenantry.require()
    if request.method != "GET" and not may_write(user):
        raise HTTPException(403, "You may read here. Ask an admin of this agency for more.")
    return user


Signed = Annotated[tenantry.User, Depends(signed_in)]


def may_write(user: tenantry.User) -> bool:
    """Readers change nothing."""
    return user.role in ("admin", "superuser")


def same_origin(request: Request) -> None:
    """Refuse what another site's page makes a browser send (fetch.spec.whatwg.org, the Origin header)."""
    origin = request.headers.get("origin")
    if request.method != "GET" and origin is not None and urlsplit(origin).netloc != request.url.netloc:
        raise HTTPException(403, "This came from another site's page.")


def root_of(request: Request) -> str:
    """What stands before every path of this agency: '' by host, '/t/<slug>' by path."""
    return str(request.scope.get("root_path", ""))


def go(request: Request, path: str) -> Response:
    """On to another page of this agency."""
    return RedirectResponse(root_of(request) + path, 303)


async def sent(request: Request, largest: int = LARGEST, files: int = 0) -> FormData:
    """What a form sent, once it is known to be no larger than that. Call it when you know who asks."""
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > largest:
        raise HTTPException(413, f"Not more than {size(largest)} are taken at once.")
    return await request.form(max_files=files, max_fields=20)


def field(form: FormData, name: str) -> str:
    """A text field of a form, without what PostgreSQL does not store."""
    value = form.get(name, "")
    return value.replace("\0", "").strip() if isinstance(value, str) else ""


def day_of(form: FormData, name: str) -> date:
    """A date field of a form. Raises `Refused`."""
    try:
        found = date.fromisoformat(field(form, name))
    except ValueError:
        raise Refused("A day is written like 2026-11-21.") from None
    if not 2000 <= found.year < 2200:
        raise Refused("A day lies between 2000 and 2199.")
    return found


def number_of(form: FormData, name: str) -> int | None:
    """The id that a choice in a form stands for; None where nothing is chosen."""
    value = field(form, name)
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


def render(request: Request, template: str, status: int = 200, /, **context: Any) -> Response:
    """A page of this agency."""
    root, values = root_of(request), tenantry.tenant_values()
    shown = {
        "to": lambda path: root + path,
        "path": request.url.path.removeprefix(root) or "/",
        "title": values["title"] or tenantry.current_tenant().name,
        "city": values["city"],
        "color": values["color"],
        "states": STATES,
        "today": today(),
        "style": f"{root}/static/style.css?v={_version('style.css')}",
        "user": None,
        "may_write": may_write,
        "wrong": "",
    }
    return HTMLResponse(pages.get_template(template).render(shown | context), status, HEADERS)


@cache
def _version(name: str) -> str:
    return hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()[:12]
