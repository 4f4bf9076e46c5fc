"""What every page needs: the site, the person, addresses below the site's root, forms that cannot be forged."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

import tenantry
from storyfront import people, site
from storyfront.people import Person
from storyfront.site import Site
from tenantry.runtime.runtime import connected

HERE: Final = Path(__file__).parent
FORM_COOKIE: Final = "storyfront_form"
FORM_BYTES: Final = 1_000_000
"""The largest form without files, in bytes."""

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
}

SAID: Final = {
    "saved": "Saved.",
    "published": "Published.",
    "removed": "Removed.",
    "uploaded": "Uploaded.",
    "restored": "That version is back.",
    "changed": "Changed.",
    "password": "The password is changed. All other sessions have ended.",
}

templates: Final = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _day(moment: str) -> str:
    found = datetime.fromisoformat(moment)
    return f"{found.day} {found:%B %Y}"


def _size(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB" if size >= 1_000_000 else f"{max(1, round(size / 1000))} kB" if size else "0 kB"


templates.filters["day"] = _day
templates.filters["moment"] = lambda moment: f"{_day(moment)}, {datetime.fromisoformat(moment):%H:%M} UTC"
templates.filters["size"] = _size


@cache
def static_version(name: str) -> str:
    return hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()[:12]


@dataclass
class Here:
    """One request at one site."""

    request: Request
    site: Site
    user: Person | None
    _new_form_cookie: str = field(default="", init=False)

    @property
    def root(self) -> str:
        """What stands before every path of this site: '' by host, '/t/<slug>' by path."""
        return str(self.request.scope.get("root_path", ""))

    @property
    def path(self) -> str:
        """The path within the site."""
        return self.request.url.path.removeprefix(self.root) or "/"

    def to(self, path: str) -> str:
        """The address of a path within the site."""
        return self.root + path

    def address(self, path: str) -> str:
        """The full address of a path within the site."""
        return f"{self.request.url.scheme}://{self.request.url.netloc}{self.root}/{path}"

    # --- forms ----------------------------------------------------------------------------------------------------

    def csrf(self) -> str:
        """A token that is good for this browser, this session and this tenant."""
        cookie = self.request.cookies.get(FORM_COOKIE) or self._new_form_cookie
        if not cookie:
            cookie = self._new_form_cookie = secrets.token_urlsafe(24)
        return _token(cookie, self._session_cookie)

    @property
    def _session_cookie(self) -> str:
        return self.request.cookies.get(connected().sessions.name(self.root), "")

    async def form(self, limit: int = FORM_BYTES) -> FormData:
        """The form that was sent. Refused where it is too large or was not made by this site for this session."""
        length = self.request.headers.get("content-length", "")
        if not length.isdigit():
            raise HTTPException(411)
        if int(length) > limit:
            raise HTTPException(413)
        form = await self.request.form(max_files=20, max_fields=40)
        cookie = self.request.cookies.get(FORM_COOKIE, "")
        sent = form.get("csrf")
        if (
            not cookie
            or not isinstance(sent, str)
            or not hmac.compare_digest(sent, _token(cookie, self._session_cookie))
        ):
            raise HTTPException(403, "This form is out of date. Go back, load the page again and send it once more.")
        return form

    # --- answers --------------------------------------------------------------------------------------------------

    def render(self, template: str, status: int = 200, /, **context: Any) -> Response:
        """A page of this site."""
        html = templates.get_template(template).render(
            site=self.site, user=self.user, to=self.to, address=self.address, path=self.path, static=self._static,
            here=lambda path: Markup(' aria-current="page"') if self.path == path else "", roles=people.ROLES,
            said=SAID.get(self.request.query_params.get("said", "")), csrf=_Late(self.csrf), **context,
        )  # fmt: skip
        response = HTMLResponse(html, status, {"cache-control": "no-cache" if self.user is None else "no-store"})
        if self._new_form_cookie:
            response.set_cookie(
                FORM_COOKIE, self._new_form_cookie, path=self.root or "/", httponly=True, samesite="strict",
                secure=self.request.url.scheme == "https",
            )  # fmt: skip
        return response

    def go(self, path: str, said: str = "") -> Response:
        """On to another page, after a form was taken."""
        return RedirectResponse(self.to(path) + (f"?said={said}" if said else ""), 303)

    def _static(self, name: str) -> str:
        return f"{self.root}/static/{name}?v={static_version(name)}"


class _Late:
    """A token is made only when a template shows it, so that pages without a form set no cookie."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __str__(self) -> str:
        return str(self._make())


def _token(cookie: str, session: str) -> str:
    text = "\0".join((tenantry.current_tenant().id, session))
    return hmac.new(cookie.encode(), text.encode(), hashlib.sha256).hexdigest()


async def here(request: Request, session: AsyncSession) -> Here:
    """The site and the person of a request."""
    return Here(request, await site.load(session, tenantry.tenant_values()), people.signed_in())


def allow(at: Here, *, manage: bool = False) -> Person:
    """The person, where they may edit (or manage) this site; visitors are sent to the sign-in page."""
    if at.user is None:
        raise HTTPException(401)
    if not (at.user.manages if manage else at.user.edits):
        raise HTTPException(403, "Ask an admin of this site for the right to do this.")
    return at.user


def text_of(form: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a form that are text, without their characters that no text has."""
    return {name: value.replace("\0", "") for name, value in form.items() if isinstance(value, str)}
