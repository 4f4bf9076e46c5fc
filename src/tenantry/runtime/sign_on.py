"""Signing in by the tenant's organization, at the tenant: where it begins, and where it ends with a session here.

The cookie that begins it holds a secret of this browser, for this tenant. The platform hands over whoever the provider
vouches for by a code of one use, which opens nothing but this browser at this tenant.
"""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import urlsplit

from tenantry.context import support_access
from tenantry.credentials import Role
from tenantry.errors import AccountError, SignInRefused, UnknownHost
from tenantry.model import Environment, Person, SignOn, new_id
from tenantry.runtime import pages
from tenantry.runtime.accounts import Accounts
from tenantry.runtime.asked import Asked
from tenantry.runtime.sessions import COOKIE as SESSION
from tenantry.runtime.sessions import Client, Sessions, digest
from tenantry.runtime.settings import Settings, SignOnDesk
from tenantry.sso_refusals import HandoverWrong, SsoRefused, TenantOfAnother

COOKIE: Final = "tenantry_sso"

HERE: Final = "/.tenantry/sso"

SECONDS: Final = 600
"""How long a sign-in may take."""

LONGEST: Final = 1000
"""The longest address to come back to, in characters."""

VIA: Final = "sso"


class SignOnPages:
    """Answers `/.tenantry/sso/start`, `finish` and `sign-out`."""

    def __init__(self, settings: Settings, sessions: Sessions, accounts: Accounts, desk: SignOnDesk | None) -> None:
        self._settings = settings
        self._sessions = sessions
        self._accounts = accounts
        self._desk = desk

    async def answer(self, environment: Environment, asked: Asked) -> pages.Answer:
        """One of the pages; nothing is here where the tenant's organization has no provider."""
        known, what = environment.tenant.sign_on, asked.path.removeprefix(HERE).strip("/")
        if self._desk is None or known is None or support_access() is not None:
            raise UnknownHost(host=HERE)
        try:
            if what == "start" and asked.method == "GET":
                return self._start(self._desk, environment, known, asked)
            if what == "finish" and asked.method == "GET":
                return await self._finish(self._desk, environment, known, asked)
            if what == "sign-out":
                return await self._sign_out(self._desk, known, asked)
        except (SsoRefused, AccountError, SignInRefused) as error:
            again = f"{asked.root}{HERE}/start"
            return pages.told(
                error.status, "You are not signed in", f"{error.message} {error.hint}", again, "Try again"
            )
        raise UnknownHost(host=HERE)

    def _start(self, desk: SignOnDesk, environment: Environment, known: SignOn, asked: Asked) -> pages.Answer:
        browser = secrets.token_urlsafe(32)
        address = desk.start(environment, known, asked.host, asked.root, digest(browser), _inner(asked))
        return pages.see_other(address, self._set(asked.root, browser, SECONDS))

    async def _finish(self, desk: SignOnDesk, environment: Environment, known: SignOn, asked: Asked) -> pages.Answer:
        browser = asked.cookies.get(self._name(asked.root), "")
        code = asked.arguments.get("code", "")
        if not browser or not code:
            raise HandoverWrong
        person, back = await desk.take(environment, code, digest(browser))
        if person.organization != known.organization:
            raise TenantOfAnother
        cookie = await self._begin(desk, environment, person, asked)
        answer = pages.see_other(f"{asked.root}{back}", self._sessions.set_cookie(cookie, asked.root))
        answer.headers.append(("set-cookie", self._set(asked.root, "", 0)))
        return answer

    async def _begin(self, desk: SignOnDesk, environment: Environment, person: Person, asked: Asked) -> str:
        """A session of the person's, which the provider can end; noted first, so that none begins that it cannot."""
        who = person.issuer, person.subject, person.mail, person.name
        user = await self._accounts.provision(*who, Role(person.role))
        outside = new_id()
        await desk.began(environment, person, outside, self._settings.session_seconds)
        before = asked.cookies.get(self._sessions.name(asked.root))
        client = Client(asked.address, asked.headers.get("user-agent", ""), before)
        return await self._accounts.begin(user, client, VIA, f"{person.organization}/{person.way}/{outside}")

    async def _sign_out(self, desk: SignOnDesk, known: SignOn, asked: Asked) -> pages.Answer:
        """Out here; the provider, and with it every other tenant, is one more step, which leads to another host."""
        out = f"{asked.root}{HERE}/sign-out"
        if asked.method != "POST" or asked.is_foreign:
            return pages.ask("Sign out", f"You signed in with {known.name}.", out, "Sign out here")
        session = self._sessions.find(asked.cookies, asked.root)
        if session is not None:
            await self._accounts.sign_out(session)
        told = f"You can end the sign-in with {known.name} as well: then you are out everywhere."
        answer = pages.told(200, "You are signed out here", told, desk.leave(known), f"Sign out of {known.name}")
        answer.headers.append(("set-cookie", self._sessions.end_cookie(asked.root)))
        return answer

    # --- the cookie -------------------------------------------------------------------------------------------------

    def _name(self, root: str) -> str:
        return self._sessions.name(root).replace(SESSION, COOKIE)

    def _set(self, root: str, value: str, seconds: int) -> str:
        secure = "; Secure" if self._settings.secure_cookies else ""
        where = root.rstrip("/") or "/"
        return f"{self._name(root)}={value}; Path={where}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"


def _inner(asked: Asked) -> str:
    """Where somebody wanted to go: a path within the tenant, and nothing that leads out of it."""
    wanted = asked.arguments.get("next", "/")
    odd = not wanted.isprintable() or not wanted.isascii() or "\\" in wanted or len(wanted) > LONGEST
    if odd or not wanted.startswith("/") or wanted.startswith("//") or urlsplit(wanted).netloc:
        return "/"
    return wanted
