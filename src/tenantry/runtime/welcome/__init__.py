"""The way into a new tenant for whoever signed up: by a code of one use, then the steps of the platform's wizard."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Protocol

from tenantry.credentials import Role
from tenantry.errors import ForeignSession, InvalidToken, SignInRefused, TenantryError
from tenantry.model import Environment
from tenantry.refusals import CsrfFailed, HandoverInvalid, InvalidRequest, PageNotFound
from tenantry.runtime.accounts import Accounts, User
from tenantry.runtime.asked import OWN, Asked
from tenantry.runtime.pages import Answer, see_other, style
from tenantry.runtime.sessions import Client, Sessions

if TYPE_CHECKING:
    import jinja2

ENTER: Final = "enter"
WELCOME: Final = "welcome"
"""The names of its pages, below `/.tenantry/`."""

TEXT: Final = 2000
"""The longest text of a field in characters."""

_COLOUR: Final = re.compile(r"#[0-9a-fA-F]{6}", re.ASCII)

HEADERS: Final = (
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'",
    ),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """A question: its answer becomes one of the tenant's values."""

    value: str
    kind: str  # text, choice, number, yes/no, colour
    label: str
    help: str = ""
    options: tuple[str, ...] = ()
    required: bool = False

    def read(self, typed: str) -> Any:
        """The answer as a value; None where there is none. Raises `InvalidRequest`."""
        text = typed.strip()
        if self.kind == "yes/no":
            return text == "yes"
        if not text:
            if self.required:
                raise InvalidRequest(where=self.label, reason="it is empty", remedy="Fill it in.")
            return None
        reason = self._fault(text)
        if reason:
            raise InvalidRequest(where=self.label, reason=reason, remedy="Correct it.")
        return _number(text) if self.kind == "number" else text

    def _fault(self, text: str) -> str:
        if self.kind == "number" and _number(text) is None:
            return "it is no number"
        if self.kind == "colour" and not _COLOUR.fullmatch(text):
            return "it is no colour such as #2f6f4f"
        if self.kind == "choice" and text not in self.options:
            return "it is none of the choices"
        if len(text) > TEXT or not text.replace("\n", "").replace("\r", "").isprintable():
            return f"it holds what no text holds, or more than {TEXT} characters"
        return ""


@dataclass(frozen=True, slots=True)
class Step:
    """A page of questions."""

    title: str
    text: str
    fields: tuple[Field, ...]


class Usher(Protocol):
    """What the platform knows of a new tenant. Every method raises when the control database is gone."""

    async def enter(self, environment: Environment, code: str) -> tuple[str, str]:
        """Use a code up: login and name of whoever it lets in. Raises `HandoverInvalid`."""
        ...

    async def standing(self, environment: Environment) -> int | None:
        """The step that comes next; None where there is none."""
        ...

    async def keep(self, environment: Environment, step: int, values: Mapping[str, Any], by: str) -> None:
        """Keep the answers of a step as the tenant's values, and go on behind it."""
        ...


class Welcome:
    """Answers its pages."""

    def __init__(
        self, accounts: Accounts, sessions: Sessions, usher: Usher, steps: Mapping[str, Sequence[Step]]
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._usher = usher
        self._steps = steps  # by blueprint

    async def enter(self, environment: Environment, asked: Asked) -> Answer:
        """Sign whoever signed up in: the platform's page sends the code here, so it stands in no address."""
        if asked.method != "POST":
            raise HandoverInvalid
        login, name = await self._usher.enter(environment, asked.form.get("code", ""))
        user = await self._accounts.by_login(login)
        if user is None or not user.active:
            raise HandoverInvalid
        if name and not user.name:
            await self._accounts.call(user.id, name)
        client = Client(asked.address, asked.headers.get("user-agent", ""))
        cookie = self._sessions.set_cookie(await self._accounts.begin(user, client, via="sign-up"), asked.root)
        on = await self._usher.standing(environment)
        return see_other(f"{asked.root}{OWN}{WELCOME}" if on is not None else f"{asked.root}/", cookie)

    async def answer(self, environment: Environment, asked: Asked) -> Answer:
        """The step that comes next, or the one that the path names; a step that is sent is kept."""
        which = asked.path.removeprefix(f"{OWN}{WELCOME}").strip("/")
        if which == "welcome.css":
            return style((files(__package__) / "welcome.css").read_text("utf-8"))
        steps = self._steps.get(environment.tenant.blueprint, ())
        user = await self._admin(asked)
        if user is None:
            return _on(f"{asked.root}{OWN}sign-in?next={asked.root}{OWN}{WELCOME}")
        on = await self._usher.standing(environment)
        if which and not (which.isascii() and which.isdigit() and 1 <= int(which[:4]) <= len(steps)):
            raise PageNotFound(remedy="Go on from the first page.")
        at = int(which) - 1 if which else on
        if at is None or on is None or at > on or at >= len(steps):
            return _on(f"{asked.root}/" if on is None or on >= len(steps) else f"{asked.root}{OWN}{WELCOME}")
        if asked.method != "POST":
            return _page(environment, asked, steps, at, environment.tenant.settings)
        if asked.is_foreign:
            raise CsrfFailed
        try:
            given = {one.value: one.read(asked.form.get(one.value, "")) for one in steps[at].fields}
            kept = {name: value for name, value in given.items() if value is not None}
            await self._usher.keep(environment, at, kept, user.login)
        except TenantryError as error:
            return _page(environment, asked, steps, at, dict(asked.form), error)
        return _on(f"{asked.root}{OWN}{WELCOME}" if at + 1 < len(steps) else f"{asked.root}/")

    async def _admin(self, asked: Asked) -> User | None:
        """The tenant's admin who is signed in here."""
        try:
            session = self._sessions.find(asked.cookies, asked.root)
            user = await self._accounts.signed_in(session) if session else None
        except (ForeignSession, InvalidToken, SignInRefused):
            return None
        return user if user is not None and user.role is Role.ADMIN else None


def _number(text: str) -> int | float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    if found != found or abs(found) > 1e15:
        return None
    return int(found) if found == int(found) else found


def _on(where: str) -> Answer:
    return Answer(303, [("location", where), ("cache-control", "no-store"), ("content-length", "0")], b"")


def _page(
    environment: Environment,
    asked: Asked,
    steps: Sequence[Step],
    at: int,
    typed: Mapping[str, Any],
    problem: TenantryError | None = None,
) -> Answer:
    base = f"{asked.root}{OWN}{WELCOME}"
    shown = {one.value: _shown(typed.get(one.value, "")) for one in steps[at].fields}
    words = {"tenant": environment.tenant.name, "base": base, "root": asked.root, "steps": steps, "at": at}
    body = _template().render(words | {"step": steps[at], "typed": shown, "problem": problem}).encode()
    status = problem.status if problem else 200
    return Answer(status, [*HEADERS, ("content-length", str(len(body)))], body)


def _shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@cache
def _template() -> jinja2.Template:
    from jinja2 import Environment as Templates  # most processes show none of these pages
    from jinja2 import PackageLoader, StrictUndefined

    loader = PackageLoader("tenantry.runtime.welcome", "")
    return Templates(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(
        "step.html"
    )
