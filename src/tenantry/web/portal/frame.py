"""What every page of the portal has: who is signed in, the frame around it, and how an error is told."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote, urlsplit

from fastapi import Depends, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tenantry.config import Config
from tenantry.errors import TenantryError
from tenantry.identity import Principal, acting_as
from tenantry.identity.signin import Client
from tenantry.platform import Platform
from tenantry.refusals import CsrfFailed, SignInNeeded
from tenantry.web.house import Opened, opened

SESSION: Final = "tenantry_admin"
"""The cookie of a session; behind https its name begins with __Host-, which binds it to this host (RFC 6265bis)."""

DEVICE: Final = "tenantry_device"
"""The cookie by which a browser in which somebody signed in before is known."""

DEVICE_SECONDS: Final = 400 * 86400

TOLD: Final = "tenantry_told"
"""The cookie by which the next page tells what was done; it is signed, so that no other site puts words here."""

TOLD_LENGTH: Final = 1500

FACT: Final = 300
FACTS: Final = 12
"""Characters of each fact of an audit entry that a page shows, and how many facts."""

VISIT: Final = "tenantry.visit"
"""Where in the scope of a request it stands who visits, once it was asked whether she may."""


@dataclass(frozen=True, slots=True)
class Tab:
    """A part of the portal."""

    title: str
    path: str
    superadmin: bool = False  # whether it is theirs alone
    apart: bool = False  # whether it begins another group


TABS: Final[list[Tab]] = [
    Tab("Tenants", "/admin/"),
    Tab("Organizations", "/admin/organizations", superadmin=True),
    Tab("Sign-ups", "/admin/signups", superadmin=True),
    Tab("Admin users", "/admin/admins", superadmin=True),
    Tab("Statistics", "/admin/statistics"),
    Tab("Operations", "/admin/operations", apart=True),
    Tab("Migrations", "/admin/migrations", superadmin=True),
    Tab("Servers", "/admin/servers", superadmin=True),
    Tab("Mail", "/admin/mail", superadmin=True),
    Tab("Verify", "/admin/verify", superadmin=True),
    Tab("Audit", "/admin/audit", apart=True),
    Tab("Settings", "/admin/settings", superadmin=True),
]
"""In the order in which they stand."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is signed in."""

    request: Request
    here: Opened
    principal: Principal
    session: str

    @property
    def platform(self) -> Platform:
        """Every verb; within `acting`, in the person's name."""
        return self.here.platform

    def acting(self) -> AbstractContextManager[Principal]:
        """Do what is inside the block in the person's name."""
        return acting_as(self.principal)

    async def renewed(self) -> Visit:
        """The same visit by another cookie, once somebody is known by something else than before."""
        return replace(self, session=await self.here.sign_in.renew(self.principal))

    def page(self, template: str, /, *, status: int = 200, **values: Any) -> Response:
        """A page within the frame."""
        tabs = [tab for tab in TABS if self.principal.is_superadmin or not tab.superadmin]
        given = {"principal": self.principal, "tabs": tabs, "csrf": csrf(self.here, self.session), "current": None}
        told = self._told()
        response = self._keep(render(self.here, template, status=status, **(given | {"told": told} | values)))
        if told is not None and not self.request.headers.get("hx-request"):
            secure = self.request.url.scheme == "https"  # else a browser refuses to forget one of __Host-
            response.delete_cookie(cookie(TOLD, self.request), path="/", secure=secure)
        return response

    def go(self, path: str, told: str = "", mood: str = "good") -> Response:
        """On to another page, which tells what was done; the mood is good, warn or bad."""
        response = self._keep(RedirectResponse(path, 303))
        if told:
            text = base64.urlsafe_b64encode(json.dumps([mood, told[:TOLD_LENGTH]]).encode()).decode()
            keep(response, self.request, TOLD, f"{text}.{self._sign(text)}", 60)
        return response

    def _keep(self, response: Response) -> Response:
        if self.session != self.request.cookies.get(cookie(SESSION, self.request)):
            keep(response, self.request, SESSION, self.session)
        return response

    def _told(self) -> Mapping[str, str] | None:
        text, _, seal = self.request.cookies.get(cookie(TOLD, self.request), "").partition(".")
        if not text or not hmac.compare_digest(seal.encode(), self._sign(text).encode()):
            return None
        mood, told = json.loads(base64.urlsafe_b64decode(text))
        return {"mood": mood, "text": told}

    def _sign(self, text: str) -> str:
        return self.here.platform.registry.vault.sign_head(f"told\0{self.session}\0{text}")


async def visit(request: Request) -> Visit:
    """Who is signed in here. Raises `SignInNeeded`, or `CsrfFailed` for a change that another site may have sent."""
    here = await opened(request)
    session = request.cookies.get(cookie(SESSION, request), "")
    if not session:
        raise SignInNeeded
    principal = await here.sign_in.by_session(session)
    if request.method not in ("GET", "HEAD"):
        given = request.headers.get("x-csrf") or str((await request.form()).get("csrf", ""))
        if foreign(request) or not hmac.compare_digest(given.encode(), csrf(here, session).encode()):
            raise CsrfFailed
    return Visit(request, here, principal, session)


async def visiting(request: Request) -> AsyncIterator[Visit]:
    """Who visits a page that `asks` for a right, for as long as it is answered; files of a form are gone afterwards."""
    try:
        yield request.scope[VISIT]
    finally:
        await request.close()


Visiting = Annotated[Visit, Depends(visiting)]


def csrf(here: Opened, session: str) -> str:
    """What forms of this session carry, and no other site can know."""
    return here.platform.registry.vault.sign_head(f"csrf\0{session}")


def foreign(request: Request) -> bool:
    """Whether a browser says that another site sent this (Fetch Metadata; Origin, where a browser has none)."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def cookie(name: str, request: Request) -> str:
    """The name of a cookie here."""
    return f"__Host-{name}" if request.url.scheme == "https" else name


def keep(response: Response, request: Request, name: str, value: str, seconds: int | None = None) -> None:
    """Let the browser keep a cookie that no script reads."""
    secure = request.url.scheme == "https"
    response.set_cookie(cookie(name, request), value, seconds, path="/", secure=secure, httponly=True, samesite="lax")


def client_of(request: Request) -> Client:
    """Where a request comes from; uvicorn puts in the address that a trusted proxy names."""
    address = request.client.host if request.client else ""
    known = (request.cookies.get(cookie(name, request)) for name in (DEVICE, SESSION))
    return Client(address, request.headers.get("user-agent", ""), *known)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("tenantry.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["day"] = _day
    environment.filters["moment"] = _moment
    environment.filters["utc"] = _utc
    environment.filters["facts"] = _facts
    environment.filters["browser"] = _browser
    environment.filters["size"] = _size
    environment.filters["seconds"] = _seconds
    environment.filters["number"] = "{:,}".format
    return environment


def _day(value: datetime | None) -> str:
    return value.strftime("%Y-%m-%d") if value else "–"


def _utc(value: datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M UTC")


def _moment(value: datetime | str | None) -> Markup | str:
    """A moment, which the reader's browser tells in her own zone."""
    if not value:
        return "–"
    known = datetime.fromisoformat(value) if isinstance(value, str) else value
    return Markup('<time datetime="{}">{}</time>').format(known.isoformat(), _utc(known))


def _facts(detail: str) -> tuple[list[tuple[str, str]], bool]:
    """What an audit entry tells, as names and texts, its id last; and whether that is not all of it."""
    told, cut = [], False
    for name, value in sorted(json.loads(detail).items(), key=lambda pair: pair[0] == "id"):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            text = ", ".join(value)
        told.append((name.replace("_", " "), text[:FACT]))
        cut = cut or len(text) > FACT
    return told[:FACTS], cut or len(told) > FACTS


def _browser(agent: str) -> str:
    """What a browser calls itself, in two words; what it also claims to be comes later in this order."""
    names = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
    systems = {"iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Windows": "Windows", "Mac OS": "macOS"}
    name = next((word for sign, word in names.items() if sign in agent), agent.partition(" ")[0] or "unknown")
    system = next((word for sign, word in (systems | {"Linux": "Linux"}).items() if sign in agent), "")
    return f"{name} on {system}" if system else name


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def _size(octets: float) -> str:
    """Octets as people read them (IEC 80000-13 prefixes)."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if octets >= 10 or unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:,.1f} TiB"


def render(here: Opened, template: str, /, *, status: int = 200, **values: Any) -> Response:
    """A page, also for somebody who is not signed in."""
    return _framed(here.platform.config, template, status, **values)


def anonymous(config: Config, error: TenantryError) -> Response:
    """A page that tells an error, and knows nobody."""
    return _framed(config, "refused.html", error.status, problem=error, principal=None, tabs=(), current=None)


def _framed(config: Config, template: str, status: int, **values: Any) -> Response:
    given: Mapping[str, Any] = {"platform": config.platform, "csrf": "", "told": None, "problem": None, **values}
    return HTMLResponse(rendered(template, **given), status)


def rendered(template: str, /, **values: Any) -> str:
    """A template filled: a whole page, or a part of one."""
    return _templates().get_template(template).render(values)


def target(path: str) -> str:
    """A path of the portal to go to, and nothing that leads out of it."""
    bare = unquote(path.partition("?")[0])  # browsers go up by %2e%2e, too
    inner = bare.startswith("/admin/") and not {".", ".."} & set(bare.split("/")) and "\\" not in bare
    return path if inner and path.startswith("/admin/") and path.isprintable() else "/admin/"


Page = Callable[..., Awaitable[Response]]


async def refused(request: Request, error: TenantryError) -> Response:
    """How a page tells an error."""
    if isinstance(error, SignInNeeded):
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        where = f"/admin/sign-in?next={quote(path if request.method == 'GET' else '/admin/')}"
        if request.headers.get("hx-request"):
            return Response(status_code=200, headers={"HX-Redirect": where})
        return RedirectResponse(where, 303)
    here = await opened(request)
    try:
        found = await visit(request)
    except (TenantryError, HTTPException):  # the latter where a form is too large to be read
        return anonymous(here.platform.config, error)
    return found.page("problem.html", status=error.status, problem=error)
