"""Support access: the platform's people look into a tenant, for a while, for a reason, and seen by the tenant's own.

A link that is good once gives a cookie that is signed with the tenant's key. It counts for as long as the access stands
in the table of tenants that every process follows: an end is known everywhere as soon as any change of a tenant is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tenantry.context import current_environment
from tenantry.credentials import derive_key
from tenantry.errors import ForeignSession, InvalidToken, TenantryError, UnknownHost
from tenantry.model import Environment, SupportAccess
from tenantry.refusals import SupportLinkInvalid
from tenantry.runtime import pages
from tenantry.runtime.asked import Asked
from tenantry.runtime.banner import CSS, HERE, banner
from tenantry.runtime.sessions import COOKIE as SESSION
from tenantry.runtime.sessions import COOKIE_LENGTH, Sessions, serializer
from tenantry.runtime.settings import Settings, SupportDesk
from tenantry.runtime.trail import Trail

if TYPE_CHECKING:
    from itsdangerous import URLSafeTimedSerializer

COOKIE: Final = "tenantry_support"

HISTORY: Final = 50
"""Accesses that a tenant's people are told of."""

CONSENT_DAYS: Final = 30
"""The longest for which they let support in."""


class Support:
    """Knows by which access a request looks in, and answers the pages of its own."""

    def __init__(
        self,
        settings: Settings,
        keys: Callable[[Environment], bytes],
        sessions: Sessions,
        desk: SupportDesk | None,
        trail: Trail,
        current: Callable[[Environment], Environment | None],
        is_current: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._sessions = sessions
        self._desk = desk
        self._trail = trail
        self._current = current  # an environment as it is now
        self._is_current = is_current  # False while the control database is lost: an end cannot be heard of

    # --- what applications call -----------------------------------------------------------------------------------

    def running(self) -> list[SupportAccess]:
        """Who looks into the current tenant, or did a moment ago and may again."""
        now = self._current(current_environment())
        return [one for one in now.tenant.support if one.used and self._stands(one)] if now else []

    async def history(self) -> list[SupportAccess]:
        """The latest accesses into the current tenant, newest first: for its own people to read."""
        return await self._at_desk().history(current_environment(), HISTORY)

    async def end(self, access: str, by: str) -> None:
        """End an access into the current tenant; `by` is its user, for the audit log. One that is over is no fault."""
        await self._at_desk().end(current_environment(), access, f"tenant:{by}")

    async def consent(self) -> datetime | None:
        """Until when the current tenant's people let support in; None where they do not."""
        until = await self._at_desk().consent(current_environment())
        return until if until is not None and until > datetime.now(UTC) else None

    async def let_in(self, days: int, by: str) -> None:
        """Let support in for so many days; 0: no more, and whoever is in is out. `by` is the user who says so."""
        until = datetime.now(UTC) + timedelta(days=min(days, CONSENT_DAYS)) if days > 0 else None
        await self._at_desk().let_in(current_environment(), until, f"tenant:{by}")

    def _at_desk(self) -> SupportDesk:
        if self._desk is None:
            raise UnknownHost(host=HERE)
        return self._desk

    # --- what the middleware calls --------------------------------------------------------------------------------

    def of(self, environment: Environment, asked: Asked) -> SupportAccess | None:
        """The access by which a request looks in."""
        standing = {one.id: one for one in environment.tenant.support if self._stands(one)}
        if not standing or not self._is_current():
            return None
        value = asked.cookies.get(self._name(asked.root), "")
        return standing.get(self._read(environment, value)) if value else None

    def banner(self, environment: Environment, access: SupportAccess | None, asked: Asked) -> bytes | None:
        """What every page carries: for whoever looks in, and for the tenant's people meanwhile. None: nothing."""
        tenant = environment.tenant
        if access is not None:
            return banner(access, tenant.name, asked.root, own=True)
        shown = [one for one in tenant.support if one.used and self._stands(one)]
        if not shown or not self._is_of_the_tenant(asked):
            return None
        return b"".join(banner(one, tenant.name, asked.root, own=False) for one in shown[:1])

    async def answer(self, environment: Environment, asked: Asked) -> pages.Answer:
        """One of its own pages: the style sheet, following a link, the end. Called within the tenant's context."""
        what = asked.path.removeprefix(HERE).strip("/")
        try:
            if what == "banner.css":
                return pages.style(CSS)
            if what == "end":
                return await self._ended(environment, asked)
            return await self._followed(environment, asked, what)
        except TenantryError as error:
            return pages.refusal(error)

    async def _followed(self, environment: Environment, asked: Asked, link: str) -> pages.Answer:
        """Whoever opens the link sees a button: programs that look at links in advance use none up."""
        if not link:
            raise SupportLinkInvalid
        name = environment.tenant.name
        if asked.method != "POST":
            told = "Its people see who looks in, why, and until when; it is recorded."
            return pages.ask(f"Support access to {name}", told, f"{asked.root}{HERE}/{link}", "Look in")
        _refuse_foreign(asked)
        access = await self._at_desk().take(environment, link)
        if self._settings.users.get(environment.tenant.blueprint) is not None:
            await self._trail.looked_in(access)
        cookie = self._header(environment, access, asked.root)
        return pages.see_other(f"{asked.root}/", cookie)

    async def _ended(self, environment: Environment, asked: Asked) -> pages.Answer:
        _refuse_foreign(asked)
        access = self.of(environment, asked)
        if access is not None and asked.method == "POST":
            await self._at_desk().end(environment, access.id, f"support:{access.who}")
        title, told = f"Support access to {environment.tenant.name} is over", "You can close this window."
        return pages.tell(title, told, self._set(asked.root, "", 0))

    def _stands(self, access: SupportAccess) -> bool:
        return access.until > datetime.now(UTC)

    def _is_of_the_tenant(self, asked: Asked) -> bool:
        try:
            return self._sessions.find(asked.cookies, asked.root) is not None
        except (ForeignSession, InvalidToken):
            return False

    # --- the cookie -------------------------------------------------------------------------------------------------

    def _name(self, root: str) -> str:
        return self._sessions.name(root).replace(SESSION, COOKIE)

    def _signer(self, environment: Environment) -> URLSafeTimedSerializer:
        return serializer(derive_key(self._keys(environment), "support"), "tenantry.support")

    def _read(self, environment: Environment, value: str) -> str:
        """The access that a cookie names, if this environment's key signed it."""
        from itsdangerous import BadData

        signer = self._signer(environment)
        try:
            found, access = signer.loads(value) if len(value) <= COOKIE_LENGTH else ("", "")
        except (BadData, ValueError, TypeError):
            return ""
        return str(access) if found == environment.id else ""

    def _header(self, environment: Environment, access: SupportAccess, root: str) -> str:
        value = self._signer(environment).dumps([environment.id, access.id])
        seconds = max(1, round((access.until - datetime.now(UTC)).total_seconds()))
        return self._set(root, value if isinstance(value, str) else value.decode(), seconds)

    def _set(self, root: str, value: str, seconds: int) -> str:
        secure = "; Secure" if self._settings.secure_cookies else ""
        where = root.rstrip("/") or "/"
        return f"{self._name(root)}={value}; Path={where}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


def _refuse_foreign(asked: Asked) -> None:
    """Another site's form does nothing here (Fetch Metadata)."""
    if asked.site not in ("", "same-origin", "none"):
        raise SupportLinkInvalid
