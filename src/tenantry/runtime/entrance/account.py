"""One's own account: name and password, the second factor, passkeys, sessions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tenantry import codes, tries
from tenantry.credentials import Role
from tenantry.errors import AccountError, SignInRefused, TenantryError
from tenantry.refusals import ProofNeeded, TooManyTries
from tenantry.runtime.accounts import User
from tenantry.runtime.entrance.door import check
from tenantry.runtime.entrance.visit import Visit, opens
from tenantry.runtime.pages import Answer
from tenantry.runtime.proofs import Counted

FRESH: Final = timedelta(minutes=10)
"""How long after one proved who one is new ways to sign in may be made: who finds a browser open makes none."""

RECENT: Final = 5
"""Events of one's own that the page shows."""

EVENTS: Final = 50
"""Events on a page of their own."""

PROVED: Final = "For ten minutes you may add a passkey or a second factor."

WRONG: Final = "The password is wrong."


@opens("GET", "me", Role.USER)
async def show(visit: Visit) -> Answer:
    """The account."""
    return await _show(visit)


async def _show(visit: Visit, problem: TenantryError | None = None, **typed: str) -> Answer:
    here, user = visit.here, visit.user
    assert visit.who is not None
    return visit.page(
        "me.html",
        problem=problem,
        current="me",
        sessions=await here.accounts.sessions(user.id),
        events=await here.accounts.events(user.id, RECENT),
        this=visit.who.session.id,
        passkeys=await here.proofs.passkeys(user.id),
        codes_left=await here.proofs.codes_left(user.id),
        proved=await _proved(visit),
        typed={"name": user.name, "passkey": ""} | typed,
    )


async def _proved(visit: Visit) -> bool:
    assert visit.who is not None
    own = [one for one in await visit.here.accounts.sessions(visit.user.id) if one.id == visit.who.session.id]
    return bool(own) and datetime.now(UTC) - own[0].proved < FRESH


async def _refuse_unproved(visit: Visit) -> None:
    """Raise `ProofNeeded`; or `AccountError` for a provider's user, who would come in past it by what is made here."""
    if visit.user.issuer is not None:
        raise AccountError("You sign in by your organization.", remedy="Have it ask you for more than a password.")
    if not await _proved(visit):
        raise ProofNeeded


def _counted(visit: Visit) -> Counted:
    return [("own", tries.keys(f"own\0{visit.user.id}", "", None)[0][1])]


async def _right(visit: Visit, password: str) -> None:
    """Hold that a password is one's own. Raises `AccountError` or `TooManyTries`."""
    counted = _counted(visit)
    await visit.here.proofs.begin(counted)
    try:
        await visit.here.accounts.authenticate(visit.user.login, password)
    except SignInRefused as error:
        raise AccountError(WRONG, remedy="Try again, or sign out and ask for a new one.") from error
    await visit.here.proofs.passed(counted)


async def _again(visit: Visit, told: str) -> Answer:
    """Go on by a new session, once all of one's own have ended."""
    user = await visit.here.accounts.get(visit.user.id)
    return await visit.enter(user, "again", f"{visit.base}me", told)


@opens("POST", "me/name", Role.USER)
async def rename(visit: Visit) -> Answer:
    """Change the name."""
    await visit.here.accounts.call(visit.user.id, visit.typed("name"))
    return visit.back("me", "Your name is changed.")


@opens("POST", "me/password", Role.USER)
async def password(visit: Visit) -> Answer:
    """Choose another password; every other session ends, and no link leads anywhere any more."""
    try:
        if visit.user.issuer is not None:
            raise AccountError("You have no password here.", remedy="Change the one by which you sign in elsewhere.")
        if visit.user.invited:
            return await choose(visit, visit.typed("new"), f"{visit.base}me")
        await _right(visit, visit.typed("old"))
        await visit.here.accounts.set_password(visit.user.id, visit.typed("new"))
        await visit.here.proofs.drop_links(visit.user.id)
    except (AccountError, ProofNeeded, TooManyTries) as error:
        return await _show(visit, error)
    return await _again(visit, "The password is changed. You are signed out everywhere else.")


async def choose(visit: Visit, password: str, onward: str) -> Answer:
    """Choose the first password, as long as it is sure who one is, and go on. Raises `AccountError`, `ProofNeeded`."""
    if visit.here.postman is not None and not await _proved(visit):
        raise ProofNeeded(remedy="Sign out, and ask for a link at “Password forgotten?”.")
    await visit.here.accounts.set_password(visit.user.id, password)
    await visit.here.proofs.drop_links(visit.user.id)
    user = await visit.here.accounts.get(visit.user.id)
    return await visit.enter(user, "again", onward, "The password is kept. You sign in by it from now on.")


@opens("POST", "me/prove", Role.USER)
async def prove(visit: Visit) -> Answer:
    """Prove by the password who one is."""
    assert visit.who is not None
    try:
        await _right(visit, visit.typed("password"))
    except (AccountError, TooManyTries) as error:
        return await _show(visit, error)
    await visit.here.accounts.prove(visit.who.session)
    return visit.back("me", PROVED)


@opens("POST", "me/prove/passkey", Role.USER)
async def prove_by_passkey(visit: Visit) -> Answer:
    """Prove by a passkey who one is."""
    assert visit.who is not None
    counted = _counted(visit)
    try:
        await visit.here.proofs.begin(counted)
        owner = await visit.here.proofs.by_passkey(visit.site, visit.typed("answer", 20_001))
        if owner.id != visit.user.id:
            raise SignInRefused("This passkey is somebody else's.", remedy="Use one of yours.")
        await visit.here.proofs.passed(counted)
    except (SignInRefused, TooManyTries) as error:
        return await _show(visit, error)
    await visit.here.accounts.prove(visit.who.session)
    return visit.back("me", PROVED)


# --- what happened --------------------------------------------------------------------------------------------------


@opens("GET", "me/activity", Role.USER)
async def activity(visit: Visit) -> Answer:
    """What happened to one's own account."""
    return await show_events(visit, visit.user, "me")


async def show_events(visit: Visit, user: User | None, current: str) -> Answer:
    """Events of one user, or of all, newest first."""
    after = visit.asked.arguments.get("after", "")
    events = await visit.here.accounts.events(user.id if user else None, EVENTS + 1, after)
    onward = events[EVENTS - 1].mark if len(events) > EVENTS else ""
    shown: dict[str, Any] = {"whose": user, "events": events[:EVENTS], "onward": onward}
    return visit.page("activity.html", current=current, **shown)


# --- sessions -------------------------------------------------------------------------------------------------------


@opens("POST", "me/sessions/*/end", Role.USER)
async def end(visit: Visit, session: str) -> Answer:
    """End one session."""
    await visit.here.accounts.end_session(visit.user.id, session)
    return visit.back("me", "That session is ended.")


@opens("POST", "me/sessions", Role.USER)
async def end_others(visit: Visit) -> Answer:
    """Sign out everywhere else."""
    await visit.here.accounts.end_sessions(visit.user.id)
    if visit.user.issuer is not None:  # whose provider alone begins a session
        visit.leave()
        return visit.back("sign-in", "You are signed out everywhere.")
    return await _again(visit, "You are signed out everywhere else.")


# --- the second factor ----------------------------------------------------------------------------------------------


@opens("GET", "me/second-factor", Role.USER)
async def begin(visit: Visit) -> Answer:
    """A picture for an authenticator app."""
    assert visit.who is not None
    try:
        await _refuse_unproved(visit)
        if visit.user.second_factor:
            raise AccountError("There is a second factor already.", remedy="Turn it off first.")
    except (ProofNeeded, AccountError) as error:
        return await _show(visit, error)
    return _enrol(visit, *visit.here.proofs.enrol(visit.user, visit.who.session.id))


def _enrol(visit: Visit, secret: str, uri: str, sealed: str, problem: TenantryError | None = None) -> Answer:
    groups = [secret[at : at + 4] for at in range(0, len(secret), 4)]
    shown: dict[str, Any] = {"picture": codes.picture(uri), "groups": groups, "sealed": sealed}
    return visit.page("second_factor.html", problem=problem, current="me", **shown)


@opens("POST", "me/second-factor", Role.USER)
async def confirm(visit: Visit) -> Answer:
    """Turn it on by a first code; the recovery codes are shown once, and every other session ends."""
    assert visit.who is not None
    proofs, sealed, secret = visit.here.proofs, visit.typed("sealed"), ""
    try:
        await _refuse_unproved(visit)
        secret = proofs.enrolled(visit.user, visit.who.session.id, sealed)
        given = await proofs.confirm(visit.user, secret, visit.typed("code"))
    except (ProofNeeded, AccountError) as error:
        if secret and not visit.user.second_factor:
            return _enrol(visit, secret, codes.address(secret, visit.user.login, visit.tenant), sealed, error)
        return await _show(visit, error)
    await _again(visit, "")
    return visit.page("codes.html", current="me", codes=given)


@opens("POST", "me/second-factor/codes", Role.USER)
async def new_codes(visit: Visit) -> Answer:
    """New recovery codes, shown once."""
    try:
        await _has_code(visit)
    except TenantryError as error:
        return await _show(visit, error)
    return visit.page("codes.html", current="me", codes=await visit.here.proofs.new_codes(visit.user.id))


@opens("POST", "me/second-factor/off", Role.USER)
async def turn_off(visit: Visit) -> Answer:
    """Turn it off by a code."""
    try:
        await _has_code(visit)
    except TenantryError as error:
        return await _show(visit, error)
    await visit.here.proofs.drop_factor(visit.user.id)
    return await _again(visit, "The second factor is off; its recovery codes open nothing.")


async def _has_code(visit: Visit) -> None:
    if not visit.user.second_factor:
        raise AccountError("There is no second factor here.", remedy="Turn it on first.")
    await check(visit, visit.user, visit.typed("code"))


# --- passkeys -------------------------------------------------------------------------------------------------------


@opens("GET", "me/passkeys/options", Role.USER)
async def passkey_options(visit: Visit) -> Answer:
    """What the browser is asked to make."""
    await _refuse_unproved(visit)
    return visit.data(await visit.here.proofs.to_register(visit.site, visit.user))


@opens("POST", "me/passkeys", Role.USER)
async def add_passkey(visit: Visit) -> Answer:
    """Keep the passkey that the browser made."""
    name = visit.typed("name", 200).strip()
    try:
        await _refuse_unproved(visit)
        if not name or not name.isprintable():
            raise AccountError("The passkey has no name.", remedy="Give it one, such as: my laptop.")
        await visit.here.proofs.add_passkey(visit.site, visit.user, name, visit.typed("answer", 20_001))
    except (ProofNeeded, AccountError) as error:
        return await _show(visit, error, passkey=name)
    return visit.back("me", f"The passkey {name} is kept. Sign in by it from the sign-in page.")


@opens("POST", "me/passkeys/*/remove", Role.USER)
async def remove_passkey(visit: Visit, passkey: str) -> Answer:
    """Forget a passkey."""
    await visit.here.proofs.remove_passkey(visit.user.id, passkey)
    return visit.back("me", "The passkey opens nothing here any more. Remove it from your device, too.")
