"""One request to a page of the entrance: who is there, what the page looks like, and what the browser keeps."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from tenantry.credentials import Role, derive_key
from tenantry.errors import ForeignSession, InvalidToken, TenantryError
from tenantry.model import Environment
from tenantry.refusals import CsrfFailed
from tenantry.runtime.accounts import User
from tenantry.runtime.asked import OWN, Asked
from tenantry.runtime.entrance import look
from tenantry.runtime.pages import Answer
from tenantry.runtime.sessions import COOKIE as SESSION
from tenantry.runtime.sessions import Client, SignedIn, serializer
from tenantry.runtime.visit import current_visit

if TYPE_CHECKING:
    from itsdangerous import URLSafeTimedSerializer

    from tenantry.authenticators import Passkeys
    from tenantry.runtime.entrance import Entrance

FORM: Final = "tenantry_form"
"""The cookie to which forms are bound."""

DEVICE: Final = "tenantry_device"
"""The cookie by which a browser in which somebody signed in before is known."""

DEVICE_SECONDS: Final = 400 * 86400

TOLD: Final = "tenantry_told"
"""The cookie by which the next page tells what was done; it is signed, so that nobody else puts words here."""

TOLD_SECONDS: Final = 60

NEXT: Final = 2000
"""The longest path to go on to, in characters."""

POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS: Final = (
    ("content-security-policy", POLICY),
    ("cache-control", "no-store"),
    ("referrer-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)


@dataclass(slots=True)
class Who:
    """Who is signed in."""

    user: User
    session: SignedIn


@dataclass
class Visit:
    """A request to a page, within its tenant's context."""

    here: Entrance
    environment: Environment
    asked: Asked
    who: Who | None = None
    kept: list[str] = field(default_factory=list)  # Set-Cookie headers of the answer

    @property
    def user(self) -> User:
        """Who is signed in, at a page that asks for it."""
        assert self.who is not None
        return self.who.user

    @property
    def tenant(self) -> str:
        """What people call the tenant."""
        return self.environment.tenant.name

    @property
    def base(self) -> str:
        """Where the entrance's pages begin, as the browser sees it."""
        return f"{self.asked.root}{OWN}"

    def key(self, purpose: str) -> bytes:
        """A key of the tenant's."""
        return derive_key(self.here.keys(self.environment), f"entrance/{purpose}")

    def signer(self, purpose: str) -> URLSafeTimedSerializer:
        """Signs values that go by way of the browser and come back within seconds."""
        return serializer(self.key(purpose), f"tenantry.{purpose}")

    # --- who -------------------------------------------------------------------------------------------------------

    async def find(self) -> None:
        """Look who is signed in."""
        try:
            session = self.here.sessions.find(self.asked.cookies, self.asked.root)
            if session is not None:
                self.who = Who(await self.here.accounts.signed_in(session), session)
                request = current_visit()
                if request is not None:
                    request.is_of(self.who.user)
        except (ForeignSession, InvalidToken):
            self.who = None

    @property
    def client(self) -> Client:
        """Where the request comes from."""
        session = self.asked.cookies.get(self.here.sessions.name(self.asked.root))
        return Client(self.asked.address, self.asked.headers.get("user-agent", ""), session)

    async def enter(self, user: User, via: str, where: str, told: str = "") -> Answer:
        """Sign somebody in, by a new session, and go on."""
        value = await self.here.accounts.begin(user, self.client, via)
        self.kept.append(self.here.sessions.set_cookie(value, self.asked.root))
        self.keep(DEVICE, self._new_device(user.login), DEVICE_SECONDS)
        return self.go(where, told)

    def leave(self) -> None:
        """Let the browser forget the session."""
        self.kept.append(self.here.sessions.end_cookie(self.asked.root))

    @property
    def site(self) -> Passkeys:
        """The tenant as passkeys know it, at the host of this request. Only a local one is reached without TLS."""
        host = self.asked.host
        domain = urlsplit(f"//{host}").hostname or ""
        local = domain == "localhost" or domain.endswith(".localhost")
        origins = [f"https://{host}", *([f"http://{host}"] if local else [])]
        return self.here.proofs.site(domain, origins)

    # --- devices ----------------------------------------------------------------------------------------------------

    def device(self, login: str) -> str | None:
        """The name of a browser in which this login signed in before."""
        name, _, signature = self.asked.cookies.get(self._cookie(DEVICE), "").partition(".")
        return name if name and hmac.compare_digest(signature, self._seal("device", login, name)) else None

    def _new_device(self, login: str) -> str:
        name = secrets.token_urlsafe(12)
        return f"{name}.{self._seal('device', login, name)}"

    def _seal(self, purpose: str, *parts: str) -> str:
        text = "\0".join((self.environment.id, *parts)).encode(errors="replace")
        return hmac.new(self.key(purpose), text, hashlib.sha256).hexdigest()

    # --- forms -----------------------------------------------------------------------------------------------------

    @cached_property
    def _bound(self) -> str:
        """What the forms of this browser are bound to; the browser keeps a new one where it has none."""
        known = self.asked.cookies.get(self._cookie(FORM), "")
        if len(known) == 43:
            return known
        self.keep(FORM, made := secrets.token_urlsafe(32))
        return made

    @property
    def csrf(self) -> str:
        """What forms carry, and no other site can know: bound to the browser, and to the session in it."""
        session = self.who.session.id if self.who else ""
        return self._seal("csrf", self._bound, session)

    @property
    def _hidden(self) -> str:
        """The field by which forms carry it."""
        from markupsafe import Markup

        return Markup('<input type="hidden" name="csrf" value="{}">').format(self.csrf)

    def refuse_foreign(self) -> None:
        """Raise `CsrfFailed` for a form that another site may have sent."""
        given = self.asked.form.get("csrf", "").encode(errors="replace")
        if self.asked.is_foreign or not hmac.compare_digest(given, self.csrf.encode()):
            raise CsrfFailed

    def typed(self, name: str, longest: int = 2000) -> str:
        """What was typed into a field of the form."""
        return self.asked.form.get(name, "")[:longest]

    # --- answers ----------------------------------------------------------------------------------------------------

    def page(
        self, template: str, /, *, status: int = 200, problem: TenantryError | None = None, **values: Any
    ) -> Answer:
        """A page within the frame."""
        if problem is not None:
            status = 422 if problem.status == 401 and self.who else problem.status
        given: Mapping[str, Any] = {
            "base": self.base,
            "root": self.asked.root,
            "tenant": self.tenant,
            "look": look.of(self.here.brand, self.here.values(self.environment), self.asked.root),
            "user": self.who.user if self.who else None,
            "hidden": self._hidden,
            "problem": problem,
            "told": self._told(),
            "trial": self.environment.tenant.trial if self.who and self.user.role is Role.ADMIN else None,
            "current": "",
            **values,
        }
        body = look.rendered(template, given).encode()
        return self._answer(status, "text/html; charset=utf-8", body, HEADERS)

    def data(self, text: str) -> Answer:
        """JSON for a script of ours."""
        return self._answer(200, "application/json", text.encode(), HEADERS)

    def go(self, where: str, told: str = "") -> Answer:
        """On to another page, which tells what was done."""
        if told:
            value = self.signer("told").dumps(told)
            self.keep(TOLD, value if isinstance(value, str) else value.decode(), TOLD_SECONDS)
        return self._answer(303, "text/plain", b"", (("location", where), ("cache-control", "no-store")))

    def back(self, page: str, told: str = "") -> Answer:
        """On to a page of the entrance."""
        return self.go(self.base + page, told)

    @property
    def next(self) -> str:
        """Where somebody wanted to go: a path of this tenant, and nothing that leads out of it."""
        given = (self.asked.form if self.asked.method == "POST" else self.asked.arguments).get("next", "")
        return target(given, self.asked.root)

    def to_sign_in(self) -> Answer:
        """On to the sign-in page, and from there back here."""
        path = self.asked.root + self.asked.path + (f"?{self.asked.query}" if self.asked.query else "")
        where = path if self.asked.method in ("GET", "HEAD") else f"{self.base}me"
        return self.back(f"sign-in?next={quote(where)}")

    def keep(self, name: str, value: str, seconds: int | None = None) -> None:
        """Let the browser keep a cookie that no script reads."""
        secure = "; Secure" if self.here.secure else ""
        age = "" if seconds is None else f"; Max-Age={seconds}"
        where = self.asked.root.rstrip("/") or "/"
        self.kept.append(f"{self._cookie(name)}={value}; Path={where}{age}; HttpOnly; SameSite=Lax{secure}")

    def _cookie(self, name: str) -> str:
        return self.here.sessions.name(self.asked.root).replace(SESSION, name)

    def _told(self) -> str:
        from itsdangerous import BadData

        value = self.asked.cookies.get(self._cookie(TOLD), "")
        if not value:
            return ""
        self.keep(TOLD, "", 0)
        try:
            return str(self.signer("told").loads(value, TOLD_SECONDS))
        except BadData:
            return ""

    def _answer(self, status: int, kind: str, body: bytes, headers: tuple[tuple[str, str], ...]) -> Answer:
        cookies = [("set-cookie", one) for one in self.kept]
        told = [("content-type", kind), ("content-length", str(len(body))), *headers, *cookies]
        return Answer(status, told, body)


def target(path: str, root: str) -> str:
    """A path within a tenant to go on to; its first page in place of whatever leads elsewhere."""
    bare = unquote(path.partition("?")[0].partition("#")[0])  # browsers go up by %2e%2e, too
    inside = path.startswith(f"{root}/") and not path.startswith(("//", "/\\")) and len(path) <= NEXT
    plain = path.isprintable() and path.isascii() and "\\" not in bare and not {".", ".."} & set(bare.split("/"))
    doors = (f"{root}{OWN}sign-in", f"{root}{OWN}sign-out", f"{root}{OWN}link")
    good = inside and plain and "//" not in bare and not bare.startswith(doors)
    return path if good else f"{root}/"


# --- addresses ------------------------------------------------------------------------------------------------------

Page: TypeAlias = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """A page: the parts of its address, `*` for what varies, and whom it is for."""

    method: str
    parts: tuple[str, ...]
    page: Page
    role: Role | None  # None: anybody


ROUTES: Final[list[Route]] = []


def opens(method: str, path: str, role: Role | None) -> Callable[[Page], Page]:
    """Answer an address by a function of a visit and what varies. Each says whom it is for; None is anybody."""

    def entered(page: Page) -> Page:
        ROUTES.append(Route(method, tuple(path.split("/")), page, role))
        return page

    return entered


def find(method: str, path: str) -> tuple[Route | None, list[str], list[str]]:
    """The page at an address (within the entrance) with what varies in it; and the methods that the address takes."""
    parts = path.strip("/").split("/")
    fits = [
        one
        for one in ROUTES
        if len(one.parts) == len(parts) and all(want in ("*", has) for want, has in zip(one.parts, parts, strict=True))
    ]
    wanted = "GET" if method == "HEAD" else method
    route = next((one for one in fits if one.method == wanted), None)
    varying = [has for want, has in zip(route.parts, parts, strict=True) if want == "*"] if route else []
    return route, varying, sorted({one.method for one in fits})
