"""What every page needs: the site, the person, addresses below the site's root, forms that cannot be forged."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
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

HERE: Final = Path(__file__).parent
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
        """A token that is good for this session, or this support access, and at no other tenant."""
        whose = tenantry.support_access() or tenantry.connected().sessions.find(self.request.cookies, self.root)
        key = tenantry.connected().secret("forms")
        return hmac.new(key, (whose.id if whose else "").encode(), hashlib.sha256).hexdigest()

    async def form(self, limit: int = FORM_BYTES) -> FormData:
        """The form that was sent. Refused where it is too large or was not made by this site for this session."""
        length = self.request.headers.get("content-length", "")
        if not length.isdigit():
            raise HTTPException(411)
        if int(length) > limit:
            raise HTTPException(413)
        form = await self.request.form(max_files=20, max_fields=40)
        if not hmac.compare_digest(str(form.get("csrf")).encode(), self.csrf().encode()):
            raise HTTPException(403, "This form is out of date. Go back, load the page again and send it once more.")
        return form

    # --- answers --------------------------------------------------------------------------------------------------

    def render(self, template: str, status: int = 200, /, **context: Any) -> Response:
        """A page of this site."""
        html = templates.get_template(template).render(
            site=self.site, user=self.user, to=self.to, address=self.address, path=self.path, static=self._static,
            here=lambda path: Markup(' aria-current="page"') if self.path == path else "",
            said=SAID.get(self.request.query_params.get("said", "")), csrf=self.csrf() if self.user else "", **context,
        )  # fmt: skip
        return HTMLResponse(html, status, {"cache-control": "no-cache" if self.user is None else "no-store"})

    def go(self, path: str, said: str = "") -> Response:
        """On to another page, after a form was taken."""
        return RedirectResponse(self.to(path) + (f"?said={said}" if said else ""), 303)

    def _static(self, name: str) -> str:
        return f"{self.root}/static/{name}?v={static_version(name)}"


async def here(request: Request, session: AsyncSession) -> Here:
    """The site and the person of a request."""
    return Here(request, await site.load(session, tenantry.tenant_values()), people.signed_in())


def allow(at: Here, *, manage: bool = False) -> Person:
    """The person, where they may edit (or manage) this site; Tenantry leads visitors to its sign-in page."""
    person = at.user or people.person_of(tenantry.require())
    if not (person.manages if manage else person.edits):
        raise HTTPException(403, "Ask an admin of this site for the right to do this.")
    return person


def text_of(form: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a form that are text, without their characters that no text has."""
    return {name: value.replace("\0", "") for name, value in form.items() if isinstance(value, str)}
