"""The people who run the platform, their tokens, and organizations."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tenantry.config import Config
from tenantry.errors import AccountError
from tenantry.identity import Reach, current_principal, verb
from tenantry.identity.links import letter, new_link
from tenantry.identity.principal import SCOPES, AdminRole, digest, refuse_unproved
from tenantry.identity.signin import BEGINNING
from tenantry.mail import Post, check_mail
from tenantry.model import check_name, new_id
from tenantry.refusals import AdminRefused, Forbidden, OrganizationNotFound, TokenNotFound
from tenantry.registry import Registry, Transaction, leaving, letters, people, support, tenants
from tenantry.registry.database import now
from tenantry.registry.people import AdminRow, OrganizationRow, SessionRow, TokenRow

LISTED: Final = 500
"""How many are listed where nothing else is said."""

NEWEST: Final = 40
"""Sessions and tokens of somebody that are told with her."""

TOKEN_DAYS: Final = 90
LONGEST_DAYS: Final = 3660
TENANTS_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Invitation:
    """A link of one use by which somebody chooses a password; shown once."""

    admin: AdminRow
    link: str  # the secret part: the address is /admin/link/<link>
    mailed: bool  # whether a letter with it is on its way
    fault: str  # why none is, where mail is set up


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token, shown once."""

    token: str
    row: TokenRow


@dataclass(frozen=True, slots=True)
class AdminDetails:
    """An admin user with what is hers."""

    row: AdminRow
    assigned: int  # how many tenants are hers
    tenants: Sequence[str]  # a page of them
    sessions: Sequence[SessionRow]  # the newest, as of tokens; `token.list` tells of all
    tokens: Sequence[TokenRow]
    held: letters.Hold | None = None  # why no mail is sent to her


@dataclass(frozen=True, slots=True)
class OrganizationDetails:
    """An organization with its tenants, whose number is the row's."""

    row: OrganizationRow
    tenants: Sequence[str]  # a page of them


class Admins:
    """Every verb on admin users."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config
        self._post = Post(config)

    @verb("admin.list", "people:read", Reach.PLATFORM)
    async def list(
        self, search: str | None = None, limit: int = LISTED, after: str | None = None
    ) -> Sequence[AdminRow]:
        """Admin users by mail address; `after` is the last one of the page before."""
        async with self._registry.read() as tx:
            return await people.admins(tx, search, limit, after)

    @verb("admin.show", "people:read", Reach.PLATFORM)
    async def show(
        self, admin: str, search: str | None = None, limit: int = LISTED, after: str | None = None
    ) -> AdminDetails:
        """One admin user, by mail address or id, with the tenants assigned to her. Raises `AdminNotFound`.

        Of the tenants, those whose slug or name holds `search`; `after` is the last slug of the page before.
        """
        async with self._registry.read() as tx:
            row = await people.find(tx, admin)
            return AdminDetails(
                row,
                await people.assigned_number(tx, row.id),
                await people.assigned(tx, row.id, search, limit, after),
                await people.sessions(tx, row.id, NEWEST),
                await people.tokens(tx, row.id, NEWEST),
                held=(await letters.holds(tx, [row.mail])).get(row.mail),
            )

    @verb("admin.invite", "people:write", Reach.PLATFORM)
    async def invite(self, mail: str, name: str = "", role: AdminRole = AdminRole.ADMIN) -> Invitation:
        """Make somebody an admin user, or invite her again who chose no password yet; the link is shown once."""
        address = check_mail(mail)
        async with self._registry.write() as tx:
            row = await people.by_mail(tx, address)
            if row is not None and not row.invited:
                reason = "there is one of this address already"
                raise AdminRefused(
                    admin=address, reason=reason, remedy="Send a link to a new password: `tenantry admin reset`."
                )
            if row is None:
                entered = {
                    "id": new_id(),
                    "mail": address,
                    "name": check_name(name or address),
                    "role": AdminRole(role).value,
                }
                await people.add(tx, {**entered, "active": True, "created": now()})
            row = await people.find(tx, address)
            link = await new_link(tx, row, "invite")
            tx.audit("admin.invite", address, role=row.role)
            return await self._posted(tx, row, "invite", link)

    @verb("admin.reset", "people:write", Reach.PLATFORM)
    async def reset(self, admin: str) -> Invitation:
        """A link by which somebody chooses a new password; the old one holds until then."""
        async with self._registry.write() as tx:
            row = await people.find(tx, admin)
            link = await new_link(tx, row, "reset")
            tx.audit("admin.reset", row.mail)
            return await self._posted(tx, row, "reset", link)

    async def _posted(self, tx: Transaction, row: AdminRow, purpose: str, link: str) -> Invitation:
        """The link, in a letter where mail is set up; it is shown all the same."""
        if not self._post.is_set_up:
            return Invitation(row, link, False, "")
        posted = await self._post.queue(tx, row.mail, letter(self._config, row, purpose, link))
        fault = f"Nothing is sent to {row.mail}: {posted.held}" if posted.held else ""
        return Invitation(row, link, not posted.held, fault)

    @verb("admin.edit", "people:write", Reach.PLATFORM)
    async def edit(self, admin: str, name: str | None = None, role: AdminRole | None = None) -> AdminRow:
        """Change a name or a role. Raises `AdminRefused` for the last superadmin."""
        async with self._registry.write() as tx:
            row = await people.find(tx, admin)
            if name is not None:
                await people.change(tx, row.id, name=check_name(name))
            if role is not None:
                await people.change(tx, row.id, role=AdminRole(role).value)
                await _keep_one(tx, row)
                if role != AdminRole.SUPERADMIN:
                    await support.end_of_admin(tx, row.id, "admin.edit", foreign_only=True)
            tx.audit("admin.edit", row.mail, name=name, role=role)
            return await people.find(tx, row.id)

    @verb("admin.disable", "people:write", Reach.PLATFORM)
    async def disable(self, admin: str) -> AdminRow:
        """Keep somebody out: all sessions end, tokens and links open nothing. Raises `AdminRefused`."""
        async with self._registry.write() as tx:
            row = await people.find(tx, admin)
            await people.change(tx, row.id, active=False)
            await _keep_one(tx, row)
            await people.end_sessions(tx, row.id)
            await support.end_of_admin(tx, row.id, "admin.disable")
            tx.audit("admin.disable", row.mail)
            return await people.find(tx, row.id)

    @verb("admin.enable", "people:write", Reach.PLATFORM)
    async def enable(self, admin: str) -> AdminRow:
        """Let somebody in again."""
        async with self._registry.write() as tx:
            row = await people.find(tx, admin)
            await people.change(tx, row.id, active=True)
            tx.audit("admin.enable", row.mail)
            return await people.find(tx, row.id)

    @verb("admin.remove", "people:write", Reach.PLATFORM)
    async def remove(self, admin: str) -> None:
        """Forget somebody; the audit log keeps what she did. Raises `AdminRefused` for the last superadmin."""
        async with self._registry.write() as tx:
            row = await people.find(tx, admin)
            await support.end_of_admin(tx, row.id, "admin.remove")
            await people.remove(tx, row.id)
            await _keep_one(tx, row)
            tx.audit("admin.remove", row.mail)

    @verb("admin.assign", "people:write", Reach.PLATFORM)
    async def assign(self, admin: str, slugs: Sequence[str]) -> int:
        """Assign tenants to an admin; how many are hers now. Raises `TenantNotFound`."""
        return await self._assignment(admin, slugs, True)

    @verb("admin.unassign", "people:write", Reach.PLATFORM)
    async def unassign(self, admin: str, slugs: Sequence[str]) -> int:
        """Take tenants from an admin; how many are hers still. Raises `TenantNotFound`."""
        return await self._assignment(admin, slugs, False)

    async def _assignment(self, admin: str, slugs: Sequence[str], hers: bool) -> int:
        async with self._registry.write() as tx:
            row = await people.find(tx, admin)
            ids = await _ids(tx, slugs)
            await (people.assign if hers else people.unassign)(tx, row.id, ids)
            if row.role != AdminRole.SUPERADMIN:
                await support.end_of_admin(tx, row.id, "admin.unassign", foreign_only=True)
            tx.audit("admin.assign" if hers else "admin.unassign", row.mail, tenants=sorted(set(slugs)))
            return await people.assigned_number(tx, row.id)

    @verb("admin.drop_factor", "people:write", Reach.PLATFORM)
    async def drop_factor(self, admin: str) -> AdminRow:
        """Take the second factor away from somebody who lost it; all sessions end. A new password is not needed."""
        async with self._registry.write() as tx:
            row = await people.find(tx, admin)
            await people.drop_factor(tx, row.id)
            await people.end_sessions(tx, row.id)
            tx.audit("admin.drop_factor", row.mail)
            return await people.find(tx, row.id)

    @verb("admin.end_sessions", "people:write", Reach.PLATFORM)
    async def end_sessions(self, admin: str) -> int:
        """Sign somebody out everywhere; how many sessions there were."""
        async with self._registry.write() as tx:
            row = await people.find(tx, admin)
            ended = await people.end_sessions(tx, row.id)
            tx.audit("admin.end_sessions", row.mail, sessions=ended)
            return ended


class Tokens:
    """API tokens: each person's own; superadmins see and revoke everybody's."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @verb("token.list", "people:read", Reach.OWN)
    async def list(
        self, admin: str | None = None, limit: int = LISTED, before: str | None = None
    ) -> Sequence[TokenRow]:
        """Tokens, newest first: an admin's own, or everybody's where a superadmin or the platform itself asks.

        `before` is the id of the last one of the page before.
        """
        async with self._registry.read() as tx:
            return await people.tokens(tx, await _whose(tx, admin), limit, before)

    @verb("token.create", "people:write", Reach.OWN)
    async def create(
        self, name: str, scopes: Sequence[str] = (), days: int | None = None, admin: str | None = None
    ) -> NewToken:
        """A new token, shown once; it holds for 90 days where nothing else is said.

        A token makes none with scopes that it has not itself, and none that outlives it. Raises `AccountError` for
        that, for a name that is taken and for values that keep no rule; `ProofNeeded` in a browser where the person
        signed in a while ago.
        """
        refuse_unproved()
        wanted, until = _scopes(scopes), _until(days)
        async with self._registry.write() as tx:
            owner = await _whose(tx, admin) or _own_id()
            if owner is None:
                raise AccountError("A token belongs to somebody.", remedy="Name the admin user.")
            if any(row.name == name for row in await people.tokens(tx, owner)):
                raise AccountError(f"There is a token '{name}' already.", remedy="Choose another name, or revoke it.")
            token = BEGINNING + secrets.token_urlsafe(32)
            entered = {"id": new_id(), "admin_id": owner, "name": check_name(name), "scopes": wanted, "created": now()}
            await people.add_token(tx, {**entered, "digest": digest(token), "expires": until})
            row = await people.token(tx, digest(token))
            assert row is not None
            tx.audit("token.create", row.mail, token=name, scopes=wanted, expires=until.isoformat())
            return NewToken(token, row)

    @verb("token.revoke", "people:write", Reach.OWN)
    async def revoke(self, token: str) -> None:
        """Let a token open nothing any more; by its id, or its name where that is one's own. Raises `TokenNotFound`."""
        async with self._registry.write() as tx:
            own, known = _own_id(), await people.tokens(tx, await _whose(tx, None))
            named = (one for one in known if one.name == token and own in (None, one.admin_id))
            row = next((one for one in known if one.id == token), None) or next(named, None)
            if row is None:
                raise TokenNotFound(token=token)
            await people.drop_token(tx, row.id)
            tx.audit("token.revoke", row.mail, token=row.name)


class Organizations:
    """Every verb on organizations."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @verb("org.list", "platform:read", Reach.PLATFORM)
    async def list(
        self, search: str | None = None, limit: int = LISTED, after: str | None = None
    ) -> Sequence[OrganizationRow]:
        """Organizations by name; `after` is the last name of the page before."""
        async with self._registry.read() as tx:
            return await people.organizations(tx, search, limit, after)

    @verb("org.show", "platform:read", Reach.PLATFORM)
    async def show(
        self, organization: str, search: str | None = None, limit: int = LISTED, after: str | None = None
    ) -> OrganizationDetails:
        """One organization, by name or id, with its tenants. Raises `OrganizationNotFound`.

        Of the tenants, those whose slug or name holds `search`; `after` is the last slug of the page before.
        """
        async with self._registry.read() as tx:
            row = await _organization(tx, organization)
            return OrganizationDetails(row, await people.tenants_in(tx, row.id, search, limit, after))

    @verb("org.create", "platform:write", Reach.PLATFORM)
    async def create(self, name: str, mail: str) -> OrganizationRow:
        """A new organization; the address is its administrator's."""
        name, address = check_name(name), check_mail(mail)
        async with self._registry.write() as tx:
            await _is_free(tx, name)
            await people.add_organization(tx, {"id": new_id(), "name": name, "mail": address, "created": now()})
            tx.audit("org.create", name, mail=address)
            return await _organization(tx, name)

    @verb("org.edit", "platform:write", Reach.PLATFORM)
    async def edit(self, organization: str, name: str | None = None, mail: str | None = None) -> OrganizationRow:
        """Change an organization's name or its administrator's address."""
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            name = row.name if name is None else check_name(name)
            await _is_free(tx, name, row.id)
            address = row.mail if mail is None else check_mail(mail)
            await people.change_organization(tx, row.id, name=name, mail=address)
            tx.audit("org.edit", row.name, name=name, mail=address)
            return await _organization(tx, row.id)

    @verb("org.assign", "platform:write", Reach.PLATFORM)
    async def assign(self, organization: str, slugs: Sequence[str]) -> OrganizationRow:
        """Put tenants into an organization, out of any other."""
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            ids = await _ids(tx, slugs)
            await people.link_tenants(tx, row.id, ids)
            await leaving.arrive(tx, row.id, ids)
            tx.audit("org.assign", row.name, tenants=sorted(set(slugs)))
            return await _organization(tx, row.id)

    @verb("org.unassign", "platform:write", Reach.PLATFORM)
    async def unassign(self, organization: str, slugs: Sequence[str]) -> OrganizationRow:
        """Take tenants out of an organization."""
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            theirs = sorted(await people.those_in(tx, row.id, set(slugs)))
            await people.link_tenants(tx, None, await _ids(tx, theirs))
            tx.audit("org.unassign", row.name, tenants=theirs)
            return await _organization(tx, row.id)

    @verb("org.remove", "platform:write", Reach.PLATFORM)
    async def remove(self, organization: str) -> Sequence[str]:
        """Forget an organization; its tenants, whose slugs these are, stay and belong to none."""
        async with self._registry.write() as tx:
            row = await _organization(tx, organization)
            freed = await people.drop_organization(tx, row.id)
            tx.audit("org.remove", row.name, tenants=freed)
            return freed


async def _keep_one(tx: Transaction, row: AdminRow) -> None:
    """Somebody must be left who can run the platform; a change that leaves nobody is rolled back."""
    able = row.role == people.SUPERADMIN and row.active and not row.invited
    if able and not await people.superadmins(tx):
        raise AdminRefused(admin=row.mail, reason="it is the last superadmin who can sign in")


async def _ids(tx: Transaction, slugs: Sequence[str]) -> list[str]:
    if len(slugs) > TENANTS_AT_ONCE:
        raise AccountError(f"{len(slugs)} tenants are too many at once.", remedy=f"Name at most {TENANTS_AT_ONCE}.")
    return [(await tenants.find(tx, slug)).id for slug in dict.fromkeys(slugs)]


async def _organization(tx: Transaction, wanted: str) -> OrganizationRow:
    row = await people.organization(tx, wanted)
    if row is None:
        raise OrganizationNotFound(organization=wanted)
    return row


async def _is_free(tx: Transaction, name: str, own: str | None = None) -> None:
    there = await people.organization(tx, name)
    if there is not None and there.id != own:
        raise AccountError(f"There is an organization '{name}' already.", remedy="Choose another name.")


def _scopes(scopes: Sequence[str]) -> list[str]:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise AccountError(f"There is no scope '{unknown[0]}'.", remedy=f"There are: {', '.join(SCOPES)}.")
    if not scopes:
        raise AccountError("A token without scopes opens nothing.", remedy=f"Name some of: {', '.join(SCOPES)}.")
    principal = current_principal()
    if principal is not None and principal.scopes is not None:
        more = [scope for scope in scopes if scope not in principal.scopes]
        if more:
            raise AccountError(f"This token has no scope '{more[0]}' to give on.", remedy="Sign in in a browser.")
    return sorted(set(scopes))


def _until(days: int | None) -> datetime:
    """When a new token runs out: no later than the one that makes it."""
    length = TOKEN_DAYS if days is None else days
    if not 1 <= length <= LONGEST_DAYS:
        raise AccountError(f"A token cannot hold for {length} days.", remedy=f"Give 1 to {LONGEST_DAYS}.")
    principal, until = current_principal(), now() + timedelta(days=length)
    if principal is None or principal.until is None or until <= principal.until:
        return until
    if days is None:
        return principal.until
    raise AccountError(f"This token itself holds until {principal.until:%Y-%m-%d}.", remedy="Give fewer days, or none.")


async def _whose(tx: Transaction, admin: str | None) -> str | None:
    """The id of the person whose own things are meant; None: everybody's. Raises `Forbidden` for another's."""
    principal = current_principal()
    if principal is None or principal.is_superadmin:
        return None if admin is None else (await people.find(tx, admin)).id
    if admin is not None and admin.strip().lower() not in (principal.mail, principal.admin_id):
        raise Forbidden(who=principal.mail, verb=f"act for '{admin}'", wanted="a superadmin")
    return principal.admin_id


def _own_id() -> str | None:
    """The id of the person who is asking; None where a process acts for itself."""
    principal = current_principal()
    return None if principal is None else principal.admin_id
