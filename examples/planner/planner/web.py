"""What every page and every call of the API needs: who asks, addresses below the laboratory's root, safe answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

import tenantry
from planner.kinds import KINDS, Kind

HERE: Final = Path(__file__).parent
LARGEST: Final = 100_000
"""The most that a form or a JSON document may hold, in bytes."""

POLICY: Final = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
HEADERS: Final = {
    "content-security-policy": POLICY + "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}

pages: Final = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
pages.filters["day"] = lambda day: f"{day.day} {day:%B %Y}" if isinstance(day, date) else ""
pages.filters["moment"] = lambda moment: f"{moment.day} {moment:%B %Y, %H:%M}" if isinstance(moment, datetime) else ""


@dataclass(frozen=True)
class Visitor:
    """One request, and who sent it."""

    request: Request
    user: tenantry.User

    @property
    def who(self) -> str:
        return self.user.name or self.user.login

    def may_change(self, kind: Kind) -> bool:
        """Readers change nothing; what a laboratory is made of is for its admins."""
        return self.user.role in (("admin",) if kind.manage else ("admin", "superuser"))

    def check_change(self, kind: Kind) -> None:
        if not self.may_change(kind):
            raise HTTPException(403, "Ask an admin of this laboratory for the right to do this.")


async def visitor(request: Request) -> Visitor:
    """The signed-in user of a request; others are sent to Tenantry's own page to sign in, or get 401.

    A write from another site's page gets 403.
    """
    same_origin(request)
    return Visitor(request, tenantry.require())


def same_origin(request: Request) -> None:
    """Refuse a write that another site's page makes a browser send (fetch.spec.whatwg.org, the Origin header)."""
    origin = request.headers.get("origin")
    if request.method in ("GET", "HEAD") or origin is None:  # not a browser, or one that only reads
        return
    if urlsplit(origin).netloc != request.url.netloc:
        raise HTTPException(403, "This came from another site's page.")


def root_of(request: Request) -> str:
    """What stands before every path of this laboratory: '' by host, '/t/<slug>' by path."""
    return str(request.scope.get("root_path", ""))


def path_of(request: Request) -> str:
    """The path within the laboratory."""
    return request.url.path.removeprefix(root_of(request)) or "/"


def go(request: Request, path: str) -> Response:
    """On to another page of this laboratory."""
    return RedirectResponse(root_of(request) + path, 303)


def kind_of(request: Request) -> Kind:
    """The kind that an address names."""
    kind = KINDS.get(request.path_params["kind"])
    if kind is None:
        raise HTTPException(404, "There is no such page.")
    return kind


async def form_of(request: Request) -> dict[str, str]:
    """The text fields of a form."""
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > LARGEST:
        raise HTTPException(413, "That was more than is taken at once.")
    form = await request.form(max_files=0, max_fields=40)
    return {name: value for name, value in form.items() if isinstance(value, str)}


def render(request: Request, template: str, status: int = 200, /, **context: Any) -> Response:
    """A page of this laboratory."""
    root = root_of(request)
    shown = {
        "to": lambda path: root + path,
        "path": path_of(request),
        "title": tenantry.tenant_values().get("title") or tenantry.current_tenant().name,
        "city": tenantry.tenant_values().get("city", ""),
        "kinds": KINDS,
        "style": f"{root}/static/style.css?v={_version('style.css')}",
        "visitor": None,
    }
    return HTMLResponse(pages.get_template(template).render(shown | context), status, HEADERS)


@cache
def _version(name: str) -> str:
    return hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()[:12]
