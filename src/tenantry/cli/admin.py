"""`tenantry admin`: the people who run the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, FLAG, LISTED, After, Common, Limit, Search
from tenantry.cli.output import many

if TYPE_CHECKING:
    from tenantry.platform import Platform
    from tenantry.platform.people import Invitation

app = App(name="admin", help="The people who run the platform.")

Admin: TypeAlias = Annotated[str, Parameter(help="The mail address, or the id.")]
COLUMNS = ("mail", "name", "role", "active", "invited", "second_factor", "seen")


@app.command(name="list")
async def list_(
    *,
    search: Annotated[str | None, Parameter(help="Only those whose address or name holds this.")] = None,
    common: Common = COMMON,
) -> None:
    """List admin users by mail address."""
    async with common.platform() as platform:
        rows = await platform.admins.list(search)
    common.out.table(COLUMNS, rows, "Nobody is here. Invite the first one: `tenantry admin invite MAIL --superadmin`.")


@app.command
async def show(
    admin: Admin, /, *, search: Search = None, limit: Limit = LISTED, after: After = None, common: Common = COMMON
) -> None:
    """Show an admin user: role, tenants, sessions and tokens."""
    async with common.platform() as platform:
        found = await platform.admins.show(admin, search, limit, after)
    fields = {
        name.replace("_", " "): getattr(found.row, name) for name in ("mail", "name", "role", "active", "created")
    }
    fields |= {"second factor": found.row.second_factor, "seen": found.row.seen}
    fields |= {"assigned": many(found.assigned, "tenant"), "tenants": list(found.tenants)}
    common.out.record(found, fields)
    if not common.json:
        common.out.line()
        common.out.table(("address", "agent", "created", "seen"), found.sessions)
        common.out.table(("name", "scopes", "expires", "used"), found.tokens)


@app.command
async def invite(
    mail: Annotated[str, Parameter(help="Where the person reads mail; also what she signs in as.")],
    /,
    *,
    name: Annotated[str, Parameter(help="What people call her; else the address.")] = "",
    superadmin: Annotated[bool, FLAG, Parameter(help="She runs the whole platform.")] = False,
    common: Common = COMMON,
) -> None:
    """Make somebody an admin user. Prints the link by which she chooses a password, once."""
    from tenantry.identity.principal import AdminRole

    role = AdminRole.SUPERADMIN if superadmin else AdminRole.ADMIN
    async with common.platform() as platform:
        invited = await platform.admins.invite(mail, name, role)
        await _send(common, platform)
    _tell(common, invited, platform.config.portal + f"/link/{invited.link}", "7 days")


@app.command
async def reset(admin: Admin, /, *, common: Common = COMMON) -> None:
    """Print a link by which somebody chooses a new password. The old one holds until then."""
    async with common.platform() as platform:
        found = await platform.admins.reset(admin)
        await _send(common, platform)
    _tell(common, found, platform.config.portal + f"/link/{found.link}", "an hour")


async def _send(common: Common, platform: Platform) -> None:
    """Send what is queued, where no worker lives that does."""
    if not common.elsewhere:
        await platform.mails.deliver(alone=True)


def _tell(common: Common, found: Invitation, link: str, holds: str) -> None:
    if common.json:
        common.out.data({"admin": found.admin, "link": link})
    if found.mailed:
        common.out.line(f"A mail is on its way to {found.admin.mail}.")
    elif found.fault:
        common.out.line(found.fault)
    common.out.line(f"{found.admin.mail} chooses a password at this address, once, within {holds}:")
    common.out.line(f"  {link}")


@app.command
async def edit(
    admin: Admin,
    /,
    *,
    name: Annotated[str | None, Parameter(help="What people call her.")] = None,
    role: Annotated[str | None, Parameter(help="admin, or superadmin.")] = None,
    common: Common = COMMON,
) -> None:
    """Change an admin user's name or role."""
    from tenantry.errors import UsageError
    from tenantry.identity.principal import AdminRole

    if role is not None and role not in list(AdminRole):
        raise UsageError(given=role, wanted="admin or superadmin")
    async with common.platform() as platform:
        row = await platform.admins.edit(admin, name, AdminRole(role) if role else None)
    _done(common, row.mail, "is changed.")


@app.command
async def assign(
    admin: Admin, slugs: Annotated[list[str], Parameter(help="Tenants' slugs.")], /, *, common: Common = COMMON
) -> None:
    """Assign tenants to an admin."""
    async with common.platform() as platform:
        hers = await platform.admins.assign(admin, slugs)
    _done(common, admin, f"manages {many(hers, 'tenant')}.")


@app.command
async def unassign(
    admin: Admin, slugs: Annotated[list[str], Parameter(help="Tenants' slugs.")], /, *, common: Common = COMMON
) -> None:
    """Take tenants from an admin."""
    async with common.platform() as platform:
        hers = await platform.admins.unassign(admin, slugs)
    _done(common, admin, f"manages {many(hers, 'tenant')}.")


@app.command
async def disable(admin: Admin, /, *, common: Common = COMMON) -> None:
    """Keep somebody out: sessions end, tokens and links open nothing."""
    async with common.platform() as platform:
        await platform.admins.disable(admin)
    _done(common, admin, "is kept out.")


@app.command
async def enable(admin: Admin, /, *, common: Common = COMMON) -> None:
    """Let somebody in again."""
    async with common.platform() as platform:
        await platform.admins.enable(admin)
    _done(common, admin, "is let in again.")


@app.command
async def drop_factor(admin: Admin, /, *, common: Common = COMMON) -> None:
    """Take the second factor away from somebody who lost it."""
    async with common.platform() as platform:
        await platform.admins.drop_factor(admin)
    _done(common, admin, "signs in by the password alone.")


@app.command
async def remove(admin: Admin, /, *, common: Common = COMMON) -> None:
    """Forget an admin user. The audit log keeps what she did."""
    async with common.platform() as platform:
        await platform.admins.remove(admin)
    _done(common, admin, "is gone.")


def _done(common: Common, subject: str, what: str) -> None:
    if common.json:
        common.out.data({"admin": subject, "message": f"{subject} {what}"})
    common.out.line(f"{subject} {what}", "bold")
