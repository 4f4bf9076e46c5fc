"""The users of a tenant, for its admins: who there is, invitations, roles, who may come in, and sessions."""

from __future__ import annotations

from typing import Any, Final

from email_validator import EmailNotValidError, validate_email

from tenantry.credentials import Role
from tenantry.errors import AccountError, TenantryError
from tenantry.runtime.accounts import User
from tenantry.runtime.entrance.account import show_events
from tenantry.runtime.entrance.letters import address, send_link
from tenantry.runtime.entrance.visit import Visit, opens
from tenantry.runtime.pages import Answer
from tenantry.runtime.proofs import INVITE, RESET

LISTED: Final = 50
"""Users on one page."""


@opens("GET", "users", Role.ADMIN)
async def show(visit: Visit) -> Answer:
    """Who there is."""
    return await _show(visit)


async def _show(visit: Visit, problem: TenantryError | None = None) -> Answer:
    asked, posted = visit.asked.arguments, visit.asked.method == "POST"
    search, after = asked.get("search", "")[:200], asked.get("after", "")[:254]
    rows = await visit.here.accounts.search(search, after, LISTED + 1)
    typed = {name: visit.typed(name) if posted else "" for name in ("login", "name", "role")}
    onward = rows[LISTED - 1].login if len(rows) > LISTED else ""
    shown: dict[str, Any] = {
        "rows": rows[:LISTED],
        "onward": onward,
        "search": search,
        "typed": typed,
        "roles": list(Role),
    }
    return visit.page("users.html", problem=problem, current="users", **shown)


@opens("POST", "users", Role.ADMIN)
async def invite(visit: Visit) -> Answer:
    """Add a user, who chooses a password by a link."""
    try:
        user = await visit.here.accounts.invite(_mail(visit.typed("login")), visit.typed("name"), _role(visit))
    except AccountError as error:
        return await _show(visit, error)
    return await _linked(visit, user, INVITE, f"{user.login} is invited.")


@opens("POST", "users/*/reset", Role.ADMIN)
async def reset(visit: Visit, user: str) -> Answer:
    """Send a link to a new password; to somebody who never chose one, the invitation once more."""
    try:
        found = await visit.here.accounts.get(user)
        if found.issuer is not None:
            raise AccountError(f"{found.login} has no password here.", remedy="It is changed where this user signs in.")
        if not found.active:
            raise AccountError(f"{found.login} is disabled.", remedy="Enable this user first.")
    except AccountError as error:
        return await _show(visit, error)
    purpose = INVITE if found.invited else RESET
    return await _linked(visit, found, purpose, f"A link is on its way to {found.login}.")


async def _linked(visit: Visit, user: User, purpose: str, told: str) -> Answer:
    """Send a link; where no mail is sent, show it once."""
    if visit.here.postman is None or "@" not in user.login:
        link = await visit.here.proofs.new_link(user.id, purpose)
        return visit.page("link_once.html", current="users", owner=user, purpose=purpose, link=address(visit, link))
    visit.here.later(send_link(visit, user, purpose))
    return visit.back("users", told)


@opens("POST", "users/*/role", Role.ADMIN)
async def role(visit: Visit, user: str) -> Answer:
    """Give a user another role; the last admin stays one."""
    try:
        await visit.here.accounts.set_role(user, _role(visit))
        found = await visit.here.accounts.get(user)
    except AccountError as error:
        return await _show(visit, error)
    return visit.back("users", f"{found.login} is {found.role.value} now.")


@opens("POST", "users/*/disable", Role.ADMIN)
async def disable(visit: Visit, user: str) -> Answer:
    """Keep a user out; all sessions and links end."""
    try:
        await visit.here.accounts.disable(user)
        await visit.here.proofs.drop_links(user)
    except AccountError as error:
        return await _show(visit, error)
    return visit.back("users", "That user is signed out, and kept out.")


@opens("POST", "users/*/enable", Role.ADMIN)
async def enable(visit: Visit, user: str) -> Answer:
    """Let a user in again."""
    try:
        await visit.here.accounts.enable(user)
    except AccountError as error:
        return await _show(visit, error)
    return visit.back("users", "That user may sign in again.")


@opens("POST", "users/*/sessions", Role.ADMIN)
async def end_sessions(visit: Visit, user: str) -> Answer:
    """Sign a user out everywhere."""
    try:
        await visit.here.accounts.end_sessions(user)
    except AccountError as error:
        return await _show(visit, error)
    return visit.back("users", "That user is signed out everywhere.")


@opens("POST", "users/*/second-factor", Role.ADMIN)
async def drop_factor(visit: Visit, user: str) -> Answer:
    """Take a lost second factor away."""
    await visit.here.proofs.drop_factor(user)
    return visit.back("users", "The second factor is off; that user is signed out everywhere.")


@opens("GET", "users/activity", Role.ADMIN)
async def activity(visit: Visit) -> Answer:
    """What happened to the accounts of all users, or of the one whom `?user=` names."""
    user = visit.asked.arguments.get("user", "")
    try:
        whose = await visit.here.accounts.get(user) if user else None
    except AccountError as error:
        return await _show(visit, error)
    return await show_events(visit, whose, "users")


def _role(visit: Visit) -> Role:
    given = visit.typed("role") or Role.USER
    if given not in list(Role):
        raise AccountError(f"'{given[:40]}' is no role.", remedy=f"Take one of: {', '.join(Role)}.")
    return Role(given)


def _mail(login: str) -> str:
    try:
        return validate_email(login.strip(), check_deliverability=False).normalized.lower()
    except EmailNotValidError as error:
        raise AccountError(
            f"'{login[:100]}' is no mail address: {error}", remedy="Write it like ana@example.org."
        ) from error
