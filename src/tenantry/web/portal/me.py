"""One's own account at /admin/me."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form
from starlette.responses import Response

from tenantry.codes import picture
from tenantry.errors import TenantryError
from tenantry.identity.principal import SCOPES
from tenantry.platform.account import Enrolment
from tenantry.platform.people import TOKEN_DAYS
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting

HERE: Final = "/admin/me"

PROVED: Final = "For ten minutes you may add a passkey, a second factor or a token."

router = APIRouter(prefix="/me", route_class=Page)

Text = Annotated[str, Form(max_length=2000)]
Answer = Annotated[str, Form(max_length=20_000)]
Scopes = Annotated[Sequence[str], Form(max_length=len(SCOPES))]


@router.get("")
@asks("account.show")
async def show(visit: Visiting) -> Response:
    """The account."""
    return await _show(visit)


async def _show(visit: Visit, problem: TenantryError | None = None, **typed: Any) -> Response:
    with visit.acting():
        found = await visit.platform.account.show()
    known = {"name": found.row.name, "token": "", "scopes": (), "days": TOKEN_DAYS, "passkey": ""}
    status = problem.status if problem else 200
    if status == 401:  # what was typed is wrong, not who asks
        status = 422
    shown = {"found": found, "scopes": SCOPES, "typed": known | typed, "problem": problem}
    return visit.page("me.html", current=HERE, status=status, **shown)


@router.post("/name")
@asks("account.edit")
async def rename(visit: Visiting, name: Text = "") -> Response:
    """Change the name."""
    try:
        with visit.acting():
            row = await visit.platform.account.edit(name)
    except TenantryError as error:
        return await _show(visit, error, name=name)
    return visit.go(HERE, f"You are {row.name} now.")


@router.post("/password")
@asks("account.password")
async def password(visit: Visiting, old: Text = "", new: Text = "") -> Response:
    """Choose another password."""
    try:
        with visit.acting():
            ended = await visit.platform.account.password(old, new)
    except TenantryError as error:
        return await _show(visit, error)
    return (await visit.renewed()).go(HERE, f"The password is changed. {_others(ended)}")


def _others(ended: int) -> str:
    return f"Signed out elsewhere: {ended}." if ended else "You were signed in nowhere else."


@router.post("/prove")
@asks("account.prove")
async def prove(visit: Visiting, password: Text = "") -> Response:
    """Prove by the password who one is."""
    try:
        with visit.acting():
            await visit.platform.account.prove(password)
    except TenantryError as error:
        return await _show(visit, error)
    return visit.go(HERE, PROVED)


@router.post("/prove/passkey")
@asks("account.prove_by_passkey")
async def prove_by_passkey(visit: Visiting, answer: Answer = "") -> Response:
    """Prove by a passkey who one is."""
    try:
        with visit.acting():
            await visit.platform.account.prove_by_passkey(answer)
    except TenantryError as error:
        return await _show(visit, error)
    return visit.go(HERE, PROVED)


@router.post("/sessions/end-others")
@asks("account.end_other_sessions")
async def end_others(visit: Visiting) -> Response:
    """Sign out everywhere else."""
    with visit.acting():
        ended = await visit.platform.account.end_other_sessions()
    return visit.go(HERE, _others(ended))


@router.post("/sessions/{session}/end")
@asks("account.end_session")
async def end_session(visit: Visiting, session: str) -> Response:
    """End one session."""
    with visit.acting():
        await visit.platform.account.end_session(session)
    return visit.go(HERE, "That session is ended.")


# --- tokens -------------------------------------------------------------------------------------------------------


@router.post("/tokens")
@asks("token.create", gives=200)
async def create_token(visit: Visiting, name: Text = "", scopes: Scopes = (), days: Text = str(TOKEN_DAYS)) -> Response:
    """A new token, shown once."""
    try:
        with visit.acting():
            made = await visit.platform.tokens.create(name, scopes, int(days) if days.isdecimal() else 0)
    except TenantryError as error:
        return await _show(visit, error, token=name, scopes=scopes, days=days)
    return visit.page("token_once.html", current=HERE, made=made, back=HERE)


@router.post("/tokens/{token}/revoke")
@asks("token.revoke")
async def revoke(visit: Visiting, token: str) -> Response:
    """Let a token open nothing any more."""
    try:
        with visit.acting():
            await visit.platform.tokens.revoke(token)
    except TenantryError as error:
        return await _show(visit, error)
    return visit.go(HERE, "The token opens nothing any more.")


# --- second factor ------------------------------------------------------------------------------------------------


@router.get("/second-factor")
@asks("account.enrol")
async def begin(visit: Visiting) -> Response:
    """A picture for an authenticator app."""
    try:
        with visit.acting():
            enrolment = await visit.platform.account.enrol()
    except TenantryError as error:
        return await _show(visit, error)
    return _enrol(visit, enrolment)


def _enrol(visit: Visit, enrolment: Enrolment) -> Response:
    groups = [enrolment.secret[at : at + 4] for at in range(0, len(enrolment.secret), 4)]
    return visit.page(
        "second_factor.html", current=HERE, enrolment=enrolment, picture=picture(enrolment.uri), groups=groups
    )


@router.post("/second-factor")
@asks("account.confirm", gives=200)
async def confirm(visit: Visiting, sealed: Text = "", code: Text = "") -> Response:
    """Turn it on by a first code; the recovery codes are shown once."""
    try:
        with visit.acting():
            codes = await visit.platform.account.confirm(sealed, code)
    except TenantryError as error:
        return await _show(visit, error)
    return (await visit.renewed()).page("codes_once.html", current=HERE, codes=codes, back=HERE)


@router.post("/second-factor/codes")
@asks("account.new_codes", gives=200)
async def new_codes(visit: Visiting, code: Text = "") -> Response:
    """New recovery codes, shown once."""
    try:
        with visit.acting():
            codes = await visit.platform.account.new_codes(code)
    except TenantryError as error:
        return await _show(visit, error)
    return visit.page("codes_once.html", current=HERE, codes=codes, back=HERE)


@router.post("/second-factor/off")
@asks("account.drop_factor")
async def turn_off(visit: Visiting, code: Text = "") -> Response:
    """Turn it off by a code."""
    try:
        with visit.acting():
            await visit.platform.account.drop_factor(code)
    except TenantryError as error:
        return await _show(visit, error)
    return (await visit.renewed()).go(HERE, "The second factor is off; its recovery codes open nothing.")


# --- passkeys -----------------------------------------------------------------------------------------------------


@router.get("/passkeys/options")
@asks("account.passkey_options")
async def passkey_options(visit: Visiting) -> Response:
    """What the browser is asked to make."""
    with visit.acting():
        return Response(await visit.platform.account.passkey_options(), media_type="application/json")


@router.post("/passkeys")
@asks("account.add_passkey")
async def add_passkey(visit: Visiting, name: Text = "", answer: Answer = "") -> Response:
    """Keep the passkey that the browser made."""
    try:
        with visit.acting():
            row = await visit.platform.account.add_passkey(name, answer)
    except TenantryError as error:
        return await _show(visit, error, passkey=name)
    return visit.go(HERE, f"The passkey {row.name} is kept. Sign in by it from the sign-in page.")


@router.post("/passkeys/{passkey}/remove")
@asks("account.remove_passkey")
async def remove_passkey(visit: Visiting, passkey: str) -> Response:
    """Forget a passkey."""
    try:
        with visit.acting():
            await visit.platform.account.remove_passkey(passkey)
    except TenantryError as error:
        return await _show(visit, error)
    return visit.go(HERE, "The passkey opens nothing here any more. Remove it from your device, too.")
