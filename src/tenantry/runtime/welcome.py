"""The way into a new tenant for whoever signed up: by a code of one use; a password, then the platform's wizard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from tenantry import brand
from tenantry.credentials import Role
from tenantry.errors import TenantryError
from tenantry.model import Environment
from tenantry.refusals import HandoverInvalid, InvalidRequest, PageNotFound
from tenantry.runtime.asked import OWN, Asked
from tenantry.runtime.entrance import Entrance
from tenantry.runtime.pages import Answer, see_other
from tenantry.runtime.sessions import Client

if TYPE_CHECKING:
    from tenantry.runtime.entrance.visit import Visit

ENTER: Final = "enter"
WELCOME: Final = "welcome"
"""The names of its pages, below `/.tenantry/`."""

FIRST: Final = "password"
"""The name of the page below `welcome` at which the first password is chosen."""

TEXT: Final = 2000
"""The longest text of a field in characters."""

SUGGESTED: Final = "#2f6f4f"
"""The color in a field for one, until another is chosen: a browser shows black there else."""


@dataclass(frozen=True, slots=True)
class Field:
    """A question: its answer becomes one of the tenant's values."""

    value: str
    kind: str  # text, choice, number, yes/no, color
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
                raise InvalidRequest(where=f"'{self.label}'", reason="it is empty", remedy="Fill it in.")
            return None
        reason = self._fault(text)
        if reason:
            raise InvalidRequest(where=f"'{self.label}'", reason=reason, remedy="Correct it.")
        return _number(text) if self.kind == "number" else text

    def _fault(self, text: str) -> str:
        if self.kind == "number" and _number(text) is None:
            return "it is no number"
        if self.kind == "color" and not brand.is_color(text):
            return f"it is no color such as {SUGGESTED}"
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

    async def enter(self, environment: Environment, code: str) -> str:
        """Use a code up: the login of whoever it lets in. Raises `HandoverInvalid`."""
        ...

    async def standing(self, environment: Environment) -> int | None:
        """The step that comes next; None where there is none."""
        ...

    async def keep(self, environment: Environment, step: int, values: Mapping[str, Any], by: str) -> None:
        """Keep the answers of a step as the tenant's values, and go on behind it."""
        ...


class Welcome:
    """Answers its pages."""

    def __init__(self, entrance: Entrance, usher: Usher, steps: Mapping[str, Sequence[Step]]) -> None:
        self._entrance = entrance  # its pages look as those there
        self._usher = usher
        self._steps = steps  # by blueprint

    async def enter(self, environment: Environment, asked: Asked) -> Answer:
        """Sign whoever signed up in: the platform's page sends the code here, so it stands in no address."""
        if asked.method != "POST":
            raise HandoverInvalid
        login = await self._usher.enter(environment, asked.form.get("code", ""))
        accounts, sessions = self._entrance.accounts, self._entrance.sessions
        user = await accounts.by_login(login)
        if user is None or not user.active:
            raise HandoverInvalid
        client = Client(asked.address, asked.headers.get("user-agent", ""))
        cookie = sessions.set_cookie(await accounts.begin(user, client, via="sign-up"), asked.root)
        waits = user.invited or await self._usher.standing(environment) is not None
        return see_other(f"{asked.root}{OWN}{WELCOME}" if waits else f"{asked.root}/", cookie)

    async def answer(self, environment: Environment, asked: Asked) -> Answer:
        """The password, the step that comes next, or the page that the path names; what is sent is kept."""
        from tenantry.runtime.entrance.visit import Visit  # most processes show none of these pages

        visit = Visit(self._entrance, environment, asked)
        await visit.find()
        if visit.who is None:
            return visit.to_sign_in()
        if visit.user.role is not Role.ADMIN:
            return visit.page("refused.html", status=403)
        steps, on = self._steps.get(environment.tenant.blueprint, ()), await self._usher.standing(environment)
        which = asked.path.removeprefix(f"{OWN}{WELCOME}").strip("/")
        if which == FIRST or (not which and visit.user.invited):
            return await _password(visit, f"{visit.base}{WELCOME}/{on + 1}" if on is not None else f"{asked.root}/")
        if which and not (which.isascii() and which.isdigit() and 1 <= int(which[:4]) <= len(steps)):
            raise PageNotFound(remedy="Go on from the first page.")
        at = int(which) - 1 if which else on
        if at is None or on is None or at > on or at >= len(steps):
            return visit.go(f"{asked.root}/") if on is None or on >= len(steps) else visit.back(f"{WELCOME}/{on + 1}")
        if asked.method != "POST":
            return _page(visit, steps, at, environment.tenant.settings)
        try:
            visit.refuse_foreign()
            given = {one.value: one.read(asked.form.get(one.value, "")) for one in steps[at].fields}
            kept = {name: value for name, value in given.items() if value is not None}
            await self._usher.keep(environment, at, kept, visit.user.login)
        except TenantryError as error:
            return _page(visit, steps, at, dict(asked.form), error)
        return visit.back(f"{WELCOME}/{at + 2}") if at + 1 < len(steps) else visit.go(f"{asked.root}/")


async def _password(visit: Visit, onward: str) -> Answer:
    """The page of the first password; once it is chosen, or left for later, the browser goes onward."""
    from tenantry.runtime.entrance import account

    problem: TenantryError | None = None
    if not visit.user.invited:
        return visit.go(onward)
    if visit.asked.method == "POST":
        try:
            visit.refuse_foreign()
            return await account.choose(visit, visit.typed("password"), onward)
        except TenantryError as error:
            problem = error
    later = onward if visit.here.postman else ""  # by mail there is a second chance
    return visit.page("welcome_password.html", problem=problem, later=later)


def _page(
    visit: Visit, steps: Sequence[Step], at: int, typed: Mapping[str, Any], problem: TenantryError | None = None
) -> Answer:
    shown = {one.value: _shown(typed.get(one.value, "")) for one in steps[at].fields}
    words: dict[str, Any] = {"steps": steps, "at": at, "step": steps[at], "typed": shown, "suggested": SUGGESTED}
    return visit.page("welcome.html", problem=problem, **words)


def _number(text: str) -> int | float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    if found != found or abs(found) > 1e15:
        return None
    return int(found) if found == int(found) else found


def _shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
