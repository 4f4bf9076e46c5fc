"""The tab of admin users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form
from starlette.responses import Response

from tenantry.errors import NotConfirmed, TenantryError, UsageError
from tenantry.identity.links import address
from tenantry.identity.principal import AdminRole
from tenantry.platform.people import NEWEST, Invitation
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting
from tenantry.web.portal.picking import After, Picker, Search, Slugs, picked

HERE: Final = "/admin/admins"
PAGE: Final = 50

router = APIRouter(prefix="/admins", route_class=Page)

Text = Annotated[str, Form(max_length=2000)]


@router.get("")
@asks("admin.list")
async def index(visit: Visiting, search: Search = "", after: After = "") -> Response:
    """Admin users by mail address, as wanted."""
    return await _index(visit, search=search, after=after)


async def _index(visit: Visit, *, search: str = "", after: str = "", status: int = 200, **more: Any) -> Response:
    with visit.acting():
        rows = await visit.platform.admins.list(search or None, PAGE + 1, after or None)
    onward = urlencode({"search": search, "after": rows[PAGE - 1].mail}) if len(rows) > PAGE else ""
    shown = {
        "rows": rows[:PAGE],
        "search": search,
        "onward": onward,
        "typed": {"name": "", "mail": "", "role": "admin"},
        **more,
    }
    return visit.page("admins.html", current=HERE, status=status, **shown)


@router.post("")
@asks("admin.invite", gives=200)
async def invite(visit: Visiting, mail: Text = "", name: Text = "", role: Text = "admin") -> Response:
    """Invite somebody; the link is shown once."""
    try:
        with visit.acting():
            invited = await visit.platform.admins.invite(mail, name, _role(role))
    except TenantryError as error:
        typed = {"mail": mail, "name": name, "role": role}
        return await _index(visit, status=error.status, problem=error, typed=typed)
    return _shown(visit, invited, f"{invited.admin.mail} is invited", "7 days")


def _shown(visit: Visit, made: Invitation, title: str, holds: str) -> Response:
    link = address(visit.platform.config, made.link)
    back = f"{HERE}/{made.admin.id}"
    return visit.page(
        "link_once.html", current=HERE, made=made, link=link, heading=title, holds=holds, back=back, told=None
    )


@router.get("/{admin}")
@asks("admin.show")
async def show(visit: Visiting, admin: str, search: Search = "", after: After = "", only: Search = "") -> Response:
    """One admin user."""
    return await _show(visit, admin, search=search, after=after, only=only)


async def _show(
    visit: Visit, admin: str, *, search: str = "", after: str = "", only: str = "", **more: Any
) -> Response:
    pick, show = Picker(search, after, only), visit.platform.admins.show
    with visit.acting():
        found = await show(admin, *pick.page)

        async def known() -> Sequence[str]:
            return (await show(found.row.id, *pick.same)).tenants

        picker = await pick.shown(visit, f"{HERE}/{found.row.id}", found.tenants, found.assigned, known)
    typed = {"name": found.row.name, "role": found.row.role}
    shown: dict[str, Any] = {"found": found, "row": found.row, "typed": typed, "most": NEWEST}
    return visit.page("admin.html", current=HERE, **(shown | picker | more))


@router.post("/{admin}")
@asks("admin.edit")
async def edit(visit: Visiting, admin: str, name: Text = "", role: Text = "") -> Response:
    """Change a name or a role."""
    try:
        with visit.acting():
            row = await visit.platform.admins.edit(admin, name, _role(role))
    except TenantryError as error:
        return await _show(visit, admin, status=error.status, problem=error, typed={"name": name, "role": role})
    return visit.go(f"{HERE}/{row.id}", f"{row.mail} is now {row.name}, {row.role}.")


@router.post("/{admin}/assign")
@asks("admin.assign")
async def assign(visit: Visiting, admin: str, slugs: Slugs = ()) -> Response:
    """Assign tenants."""
    with visit.acting():
        hers = await visit.platform.admins.assign(admin, picked(slugs))
    return visit.go(f"{HERE}/{admin}", f"Assigned: {', '.join(slugs)}; {hers} in all.")


@router.post("/{admin}/unassign")
@asks("admin.unassign")
async def unassign(visit: Visiting, admin: str, slugs: Slugs = ()) -> Response:
    """Take tenants away."""
    with visit.acting():
        hers = await visit.platform.admins.unassign(admin, picked(slugs))
    return visit.go(f"{HERE}/{admin}", f"No longer assigned: {', '.join(slugs)}; {hers} in all.")


@router.post("/{admin}/reset")
@asks("admin.reset", gives=200)
async def reset(visit: Visiting, admin: str) -> Response:
    """A link to a new password, shown once."""
    with visit.acting():
        made = await visit.platform.admins.reset(admin)
    return _shown(visit, made, f"A new password for {made.admin.mail}", "an hour")


@router.post("/{admin}/disable")
@asks("admin.disable")
async def disable(visit: Visiting, admin: str) -> Response:
    """Keep somebody out."""
    return await _done(visit, admin, "disable", "{} is kept out: sessions are ended, tokens and links open nothing.")


@router.post("/{admin}/enable")
@asks("admin.enable")
async def enable(visit: Visiting, admin: str) -> Response:
    """Let somebody in again."""
    return await _done(visit, admin, "enable", "{} is let in again.")


@router.post("/{admin}/end-sessions")
@asks("admin.end_sessions")
async def end_sessions(visit: Visiting, admin: str) -> Response:
    """Sign somebody out everywhere."""
    return await _done(visit, admin, "end_sessions", "{} is signed out everywhere.")


@router.post("/{admin}/drop-factor")
@asks("admin.drop_factor")
async def drop_factor(visit: Visiting, admin: str) -> Response:
    """Take a lost second factor away."""
    return await _done(visit, admin, "drop_factor", "{} signs in by the password alone, until a new factor is set up.")


async def _done(visit: Visit, admin: str, verb: str, told: str) -> Response:
    try:
        with visit.acting():
            row = (await visit.platform.admins.show(admin, limit=1)).row
            await getattr(visit.platform.admins, verb)(row.id)
    except TenantryError as error:
        return await _show(visit, admin, status=error.status, problem=error)
    return visit.go(f"{HERE}/{row.id}", told.format(row.mail))


@router.post("/{admin}/remove")
@asks("admin.remove")
async def remove(visit: Visiting, admin: str, confirm: Text = "") -> Response:
    """Forget somebody, once the address was typed."""
    try:
        with visit.acting():
            row = (await visit.platform.admins.show(admin, limit=1)).row
            if confirm.strip().lower() != row.mail:
                raise NotConfirmed(slug=row.mail, remedy="Type the address exactly as it is shown.")
            await visit.platform.admins.remove(row.id)
    except (NotConfirmed, TenantryError) as error:
        return await _show(visit, admin, status=error.status, problem=error)
    return visit.go(HERE, f"{row.mail} is removed. The audit log keeps what was done in that name.")


def _role(given: str) -> AdminRole:
    if given not in list(AdminRole):
        raise UsageError(given=given[:50], wanted="admin or superadmin")
    return AdminRole(given)
