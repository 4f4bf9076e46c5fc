"""Signing in and out, forgotten passwords, and choosing one by a link."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import Any, Final

from tenantry import tries
from tenantry.errors import AccountError, SignInRefused, TenantryError
from tenantry.model import SignOn
from tenantry.refusals import LinkInvalid, TooManyTries
from tenantry.runtime.accounts import User
from tenantry.runtime.entrance.letters import send_link
from tenantry.runtime.entrance.visit import Visit, opens
from tenantry.runtime.pages import Answer
from tenantry.runtime.proofs import FORGOT, Counted

HALF_SECONDS: Final = 300
"""How long after the password the code of the second factor may come."""

PAUSE_MS: Final = (300, 700)
"""Before a forgotten password is looked after: at least, and at most so much more. Its answer is out by then."""


@opens("GET", "sign-in", None)
async def form(visit: Visit) -> Answer:
    """The form; whoever is signed in goes on."""
    if visit.who is not None:
        return visit.go(visit.next)
    return _form(visit)


def _form(visit: Visit, problem: TenantryError | None = None) -> Answer:
    login = visit.typed("login") if visit.asked.method == "POST" else ""
    return visit.page("sign_in.html", problem=problem, login=login, next=visit.next, sign_on=_sign_on(visit))


def _sign_on(visit: Visit) -> SignOn | None:
    return visit.environment.tenant.sign_on


def _only(visit: Visit) -> SignOn | None:
    """The organization by which alone people sign in here; passwords open nothing then."""
    found = _sign_on(visit)
    return found if found is not None and found.only else None


@opens("POST", "sign-in", None)
async def sign_in(visit: Visit) -> Answer:
    """Sign in by a password; whoever has a second factor is asked for its code next."""
    login = visit.typed("login").strip().lower()
    counted = tries.keys(login, visit.asked.address, visit.device(login))
    try:
        await visit.here.proofs.begin(counted)
        user = await visit.here.accounts.authenticate(login, visit.typed("password"))
        await visit.here.proofs.passed(counted)
    except (SignInRefused, TooManyTries) as error:
        return _form(visit, error)
    if user.second_factor:
        return _code(visit, _half(visit, user))
    return await visit.enter(user, "password", visit.next)


@opens("POST", "sign-in/code", None)
async def second(visit: Visit) -> Answer:
    """Sign in by the code of a second factor, once the password was right."""
    half = visit.typed("half")
    user = await _halfway(visit, half)
    if user is None:
        error = SignInRefused("That took too long.", remedy="Type your password once more.")
        return _form(visit, error)
    try:
        await check(visit, user, visit.typed("code"))
    except (SignInRefused, TooManyTries) as error:
        return _code(visit, half, error)
    return await visit.enter(user, "code", visit.next)


async def check(visit: Visit, user: User, code: str) -> None:
    """Hold that a code is the user's, each tried a few times alone. Raises `SignInRefused` or `TooManyTries`."""
    counted = _counted(user, visit.device(user.login))
    await visit.here.proofs.begin(counted)
    if not await visit.here.proofs.is_code(user.id, code[:100]):
        raise SignInRefused(
            "The code is wrong, or was used before.", remedy="Wait for the next one, or use a recovery code."
        )
    await visit.here.proofs.passed(counted)


def _counted(user: User, device: str | None) -> Counted:
    """What wrong codes count for: a device that signed in before by itself, so that nobody who learned the password

    keeps the owner out.
    """
    kind, key = tries.keys(f"second\0{user.id}", "", device)[0]
    return [(kind if kind == "device" else "second", key)]


def _code(visit: Visit, half: str, problem: TenantryError | None = None) -> Answer:
    return visit.page("code.html", problem=problem, half=half, next=visit.next)


def _half(visit: Visit, user: User) -> str:
    """Says for this browser alone whose password was right, until she has another one."""
    value = visit.signer("half").dumps([user.id, user.epoch, visit.csrf])
    return value if isinstance(value, str) else value.decode()


async def _halfway(visit: Visit, half: str) -> User | None:
    from itsdangerous import BadData

    try:
        identity, epoch, csrf = visit.signer("half").loads(half, HALF_SECONDS)
    except (BadData, ValueError, TypeError):
        return None
    user = await visit.here.accounts.get(str(identity))
    same = hmac.compare_digest(str(csrf), visit.csrf) and user.epoch == epoch
    return user if same and user.active and user.second_factor else None


@opens("POST", "sign-out", None)
async def sign_out(visit: Visit) -> Answer:
    """End the session here."""
    if visit.who is not None:
        await visit.here.accounts.sign_out(visit.who.session)
    visit.leave()
    return visit.back("sign-in", "You are signed out.")


# --- passkeys -------------------------------------------------------------------------------------------------------


@opens("GET", "passkey/options", None)
async def passkey_options(visit: Visit) -> Answer:
    """What the browser is asked to sign."""
    return visit.data(visit.site.to_sign_in())


@opens("POST", "passkey", None)
async def by_passkey(visit: Visit) -> Answer:
    """Sign in by a passkey: something one has that asks for something one knows or is, two factors itself."""
    counted = tries.keys("", visit.asked.address, None)[1:]
    try:
        await visit.here.proofs.begin(counted)
        user = await visit.here.proofs.by_passkey(visit.site, visit.typed("answer", 20_001))
        await visit.here.proofs.passed(counted)
    except (SignInRefused, TooManyTries) as error:
        return _form(visit, error)
    return await visit.enter(user, "passkey", visit.next)


# --- forgotten passwords, and links ---------------------------------------------------------------------------------


@opens("GET", "forgot", None)
async def forgot(visit: Visit) -> Answer:
    """The form by which a new password is asked for."""
    return visit.page("forgot.html", possible=visit.here.postman is not None, asked=False, login="", only=_only(visit))


@opens("POST", "forgot", None)
async def ask(visit: Visit) -> Answer:
    """Send a link to whoever has this address; the answer tells nobody whether somebody has it."""
    login, only = visit.typed("login", 254).strip().lower(), _only(visit)
    shown: dict[str, Any] = {"possible": visit.here.postman is not None, "login": login, "only": only}
    try:
        if shown["possible"] and only is None:
            whence = f"forgot\0{tries.network(visit.asked.address)}"
            await visit.here.proofs.begin([("forgot", key) for _, key in tries.keys(f"forgot\0{login}", whence, None)])
            visit.here.later(_send(visit, login))
    except TooManyTries as error:
        return visit.page("forgot.html", problem=error, asked=False, **shown)
    return visit.page("forgot.html", asked=True, **shown)


async def _send(visit: Visit, login: str) -> None:
    least, more = PAUSE_MS
    await asyncio.sleep((least + secrets.randbelow(more)) / 1000)
    user = await visit.here.accounts.by_login(login)
    if user is not None and user.active and user.issuer is None:
        await send_link(visit, user, FORGOT)


@opens("GET", "link/*", None)
async def follow(visit: Visit, link: str) -> Answer:
    """The form in which whoever holds a link chooses a password. It uses nothing up: programs look at links, too."""
    return await _by_link(visit, link)


@opens("POST", "link/*", None)
async def take(visit: Visit, link: str) -> Answer:
    """Choose the password, and be signed in; whoever has a second factor signs in by it, since a mailbox is none."""
    try:
        user = await visit.here.proofs.take(link, visit.typed("password"))
    except (LinkInvalid, AccountError) as error:
        return await _by_link(visit, link, error)
    if user.second_factor:
        visit.leave()
        return visit.back("sign-in", "The password is changed. Sign in by it and your second factor.")
    return await visit.enter(user, "link", f"{visit.asked.root}/")


async def _by_link(visit: Visit, link: str, problem: TenantryError | None = None) -> Answer:
    try:
        owner, purpose = await visit.here.proofs.owner(link)
    except LinkInvalid as error:
        return visit.page("link.html", problem=error, owner=None, purpose="")
    return visit.page("link.html", problem=problem, owner=owner, purpose=purpose)
