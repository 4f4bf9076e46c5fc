"""Queries on the people who run the platform: admin users, their sessions, links and tokens; organizations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, or_, select, update

from tenantry.refusals import AdminNotFound
from tenantry.registry import directory, sso, support, tables, tenants
from tenantry.registry.database import IN_LIMIT, Transaction, chunks, now, plain

SUPERADMIN: Final = "superadmin"


@dataclass(frozen=True, slots=True)
class AdminRow:
    """An admin user."""

    id: str
    mail: str
    name: str
    role: str  # admin, superadmin
    active: bool
    invited: bool  # no password was chosen yet
    second_factor: bool
    created: datetime
    seen: datetime | None
    password: str | None = field(repr=False)
    totp: bytes | None = field(repr=False)
    totp_used: int = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A browser in which an admin user is signed in."""

    id: str
    admin_id: str
    address: str
    agent: str
    created: datetime
    proved: datetime
    seen: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class PasskeyRow:
    """A passkey: the public half of it (W3C WebAuthn, section 4)."""

    id: str  # the credential's, in base64url
    admin_id: str
    name: str
    public_key: bytes = field(repr=False)
    sign_count: int = field(repr=False)
    created: datetime
    used: datetime | None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token of an admin user, without the token itself."""

    id: str
    admin_id: str
    mail: str
    name: str
    scopes: Sequence[str]
    created: datetime
    expires: datetime
    used: datetime | None


@dataclass(frozen=True, slots=True)
class OrganizationRow:
    """An organization."""

    id: str
    name: str
    mail: str
    tenants: int
    created: datetime


# --- admin users --------------------------------------------------------------------------------------------------


def _admin(row: Any) -> AdminRow:
    values = dict(row._mapping)
    return AdminRow(**values, invited=row.password is None, second_factor=row.totp is not None)


async def admins(tx: Transaction, search: str | None, limit: int, after: str | None) -> list[AdminRow]:
    """Admin users by mail address, those after an address, at most `limit`."""
    table = tables.admin_user
    query = select(table).order_by(table.c.mail).limit(limit)
    if search:
        query = query.where(_holds(search, table.c.mail, table.c.name))
    if after:
        query = query.where(table.c.mail > plain(after))
    return [_admin(row) for row in await tx.all(query)]


def _holds(search: str, *columns: ColumnElement[str]) -> ColumnElement[bool]:
    wanted = plain(search).lower()
    return or_(*(func.lower(column).contains(wanted, autoescape=True) for column in columns))


async def find(tx: Transaction, who: str) -> AdminRow:
    """The admin user of an id or a mail address. Raises `AdminNotFound`."""
    table = tables.admin_user
    wanted = plain(who.strip())
    row = await tx.first(select(table).where(or_(table.c.id == wanted, table.c.mail == wanted.lower())))
    if row is None:
        raise AdminNotFound(admin=who)
    return _admin(row)


async def by_mail(tx: Transaction, mail: str) -> AdminRow | None:
    """The admin user of a mail address in small letters; None where it is nobody's."""
    row = await tx.first(select(tables.admin_user).where(tables.admin_user.c.mail == plain(mail)))
    return _admin(row) if row else None


async def add(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter an admin user."""
    await tx.insert(tables.admin_user, [row])


async def change(tx: Transaction, admin_id: str, **values: Any) -> None:
    """Change columns of an admin user."""
    await tx.execute(update(tables.admin_user).where(tables.admin_user.c.id == admin_id).values(**values))


async def remove(tx: Transaction, admin_id: str) -> None:
    """Forget an admin user with everything of hers; the audit log keeps what she did."""
    owned = (
        tables.admin_tenant,
        tables.admin_session,
        tables.admin_link,
        tables.recovery_code,
        tables.passkey,
        tables.api_token,
    )
    for table in owned:
        await tx.execute(delete(table).where(table.c.admin_id == admin_id))
    await support.forget_admin(tx, admin_id)
    await tx.execute(delete(tables.admin_user).where(tables.admin_user.c.id == admin_id))


async def superadmins(tx: Transaction) -> int:
    """How many superadmins can sign in."""
    table = tables.admin_user.c
    able = (table.role == SUPERADMIN, table.active, table.password.is_not(None))
    return int(await tx.scalar(select(func.count()).select_from(tables.admin_user).where(*able)))


# --- the tenants assigned to an admin -----------------------------------------------------------------------------


async def assigned(
    tx: Transaction, admin_id: str, search: str | None = None, limit: int | None = None, after: str | None = None
) -> list[str]:
    """The slugs of an admin's tenants: those that hold a text, behind a slug, at most `limit`."""
    query = select(tables.tenant.c.slug).join(tables.admin_tenant).where(tables.admin_tenant.c.admin_id == admin_id)
    return await _slugs(tx, query, search, limit, after)


async def _slugs(tx: Transaction, query: Any, search: str | None, limit: int | None, after: str | None) -> list[str]:
    slug = tables.tenant.c.slug
    if search:
        query = query.where(tenants.holds(search))
    if after:
        query = query.where(slug > plain(after))
    return [row[0] for row in await tx.all(query.order_by(slug).limit(limit))]


async def assigned_number(tx: Transaction, admin_id: str) -> int:
    """How many tenants are assigned to an admin."""
    table = tables.admin_tenant
    return int(await tx.scalar(select(func.count()).select_from(table).where(table.c.admin_id == admin_id)))


async def manages(tx: Transaction, admin_id: str, slug: str) -> bool:
    """Whether a tenant is assigned to an admin."""
    query = (
        select(tables.tenant.c.id)
        .join(tables.admin_tenant)
        .where(tables.admin_tenant.c.admin_id == admin_id, tables.tenant.c.slug == plain(slug))
    )
    return await tx.first(query) is not None


async def manages_id(tx: Transaction, admin_id: str, tenant_id: str | None) -> bool:
    """Whether the tenant of this id is assigned to an admin; None is nobody's."""
    table = tables.admin_tenant
    query = select(table.c.tenant_id).where(table.c.admin_id == admin_id, table.c.tenant_id == tenant_id)
    return tenant_id is not None and await tx.first(query) is not None


async def manages_host(tx: Transaction, admin_id: str, host: str) -> bool:
    """Whether a hostname leads to a tenant that is assigned to an admin."""
    hostname, environment = tables.hostname, tables.environment
    query = select(hostname.c.name).join(environment, environment.c.id == hostname.c.environment_id)
    hers = environment.c.tenant_id.in_(tables.tenants_of(admin_id))
    return await tx.first(query.where(hostname.c.name == plain(host), hers)) is not None


async def assign(tx: Transaction, admin_id: str, tenant_ids: Collection[str]) -> None:
    """Assign tenants to an admin; those that are stay so."""
    await unassign(tx, admin_id, tenant_ids)
    await tx.insert(tables.admin_tenant, [{"admin_id": admin_id, "tenant_id": one} for one in tenant_ids])


async def unassign(tx: Transaction, admin_id: str, tenant_ids: Collection[str]) -> None:
    """Take tenants from an admin."""
    table = tables.admin_tenant
    for some in chunks(list(tenant_ids), IN_LIMIT):
        await tx.execute(delete(table).where(table.c.admin_id == admin_id, table.c.tenant_id.in_(some)))


# --- sessions and links -------------------------------------------------------------------------------------------


async def add_session(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter a session."""
    await tx.insert(tables.admin_session, [row])


async def session(tx: Transaction, digest: str) -> SessionRow | None:
    """The session of a cookie that holds still."""
    table = tables.admin_session
    columns = [table.c[name] for name in SessionRow.__dataclass_fields__]
    row = await tx.first(select(*columns).where(table.c.digest == digest, table.c.expires > now()))
    return SessionRow(*row) if row else None


async def sessions(tx: Transaction, admin_id: str, limit: int | None = None) -> list[SessionRow]:
    """The sessions of an admin user that hold still, newest first, at most `limit`."""
    table = tables.admin_session
    columns = [table.c[name] for name in SessionRow.__dataclass_fields__]
    query = select(*columns).where(table.c.admin_id == admin_id, table.c.expires > now())
    return [SessionRow(*row) for row in await tx.all(query.order_by(table.c.id.desc()).limit(limit))]


async def see(tx: Transaction, row: SessionRow, expires: datetime) -> None:
    """Note that a session and its admin user were seen just now, and until when it holds."""
    moment, table = now(), tables.admin_session
    await tx.execute(update(table).where(table.c.id == row.id).values(seen=moment, expires=expires))
    await change(tx, row.admin_id, seen=moment)


async def renew_session(tx: Transaction, session_id: str, digest: str) -> None:
    """Let a session be of another cookie."""
    table = tables.admin_session
    await tx.execute(update(table).where(table.c.id == session_id).values(digest=digest))


async def end_sessions(tx: Transaction, admin_id: str, *, but: str | None = None, only: str | None = None) -> int:
    """End an admin user's sessions: all, all but one, or one; how many there were. Those run out go too."""
    table = tables.admin_session
    where = [table.c.admin_id == admin_id]
    if but is not None:
        where.append(table.c.id != but)
    if only is not None:
        where.append(table.c.id == only)
    ended = (await tx.execute(delete(table).where(*where))).rowcount
    await tx.execute(delete(table).where(table.c.expires <= now()))
    return ended


async def prove(tx: Transaction, session_id: str) -> None:
    """Note that the owner of a session proved just now who she is."""
    table = tables.admin_session
    await tx.execute(update(table).where(table.c.id == session_id).values(proved=now()))


async def end_session(tx: Transaction, digest: str) -> None:
    """End the session of a cookie."""
    await tx.execute(delete(tables.admin_session).where(tables.admin_session.c.digest == digest))


async def add_link(tx: Transaction, row: Mapping[str, Any], *, keep: bool = False) -> None:
    """Enter a link of one use; an earlier one for the same purpose leads nowhere any more, unless kept."""
    table = tables.admin_link
    earlier = () if keep else (table.c.purpose == row["purpose"],)
    gone = or_(table.c.expires <= now(), *earlier)
    await tx.execute(delete(table).where(table.c.admin_id == row["admin_id"], gone))
    await tx.insert(table, [row])


async def link(tx: Transaction, digest: str) -> tuple[str | None, str] | None:
    """The admin user's id, None where it is nobody's yet, and the purpose of a link that holds still."""
    table = tables.admin_link
    query = select(table.c.admin_id, table.c.purpose).where(table.c.digest == digest, table.c.expires > now())
    row = await tx.first(query)
    return (row[0], row[1]) if row else None


async def drop_links(tx: Transaction, admin_id: str | None) -> None:
    """Let no link of an admin user, or of nobody yet, lead anywhere any more."""
    await tx.execute(delete(tables.admin_link).where(tables.admin_link.c.admin_id == admin_id))


# --- second factors -----------------------------------------------------------------------------------------------


async def put_recovery_codes(tx: Transaction, admin_id: str, digests: Collection[str]) -> None:
    """Give an admin user these recovery codes in place of all earlier ones."""
    table = tables.recovery_code
    await tx.execute(delete(table).where(table.c.admin_id == admin_id))
    await tx.insert(table, [{"admin_id": admin_id, "digest": digest} for digest in digests])


async def use_recovery_code(tx: Transaction, admin_id: str, digest: str) -> bool:
    """Use a recovery code up; whether there was such a one."""
    table = tables.recovery_code
    where = (table.c.admin_id == admin_id, table.c.digest == digest)
    return (await tx.execute(delete(table).where(*where))).rowcount > 0


async def recovery_codes(tx: Transaction, admin_id: str) -> int:
    """How many recovery codes are left."""
    table = tables.recovery_code
    return int(await tx.scalar(select(func.count()).select_from(table).where(table.c.admin_id == admin_id)))


async def sealed_factors(tx: Transaction) -> list[tuple[str, bytes]]:
    """Every admin user's id and sealed secret of the second factor."""
    table = tables.admin_user.c
    return [(row[0], row[1]) for row in await tx.all(select(table.id, table.totp).where(table.totp.is_not(None)))]


async def drop_factor(tx: Transaction, admin_id: str) -> None:
    """Take the second factor away, with its recovery codes."""
    await change(tx, admin_id, totp=None)
    await put_recovery_codes(tx, admin_id, ())


# --- passkeys -----------------------------------------------------------------------------------------------------

_PASSKEY = [tables.passkey.c[name] for name in PasskeyRow.__dataclass_fields__]


async def add_passkey(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter a passkey."""
    await tx.insert(tables.passkey, [row])


async def passkey(tx: Transaction, passkey_id: str) -> PasskeyRow | None:
    """The passkey of this id."""
    row = await tx.first(select(*_PASSKEY).where(tables.passkey.c.id == plain(passkey_id)))
    return PasskeyRow(*row) if row else None


async def passkeys(tx: Transaction, admin_id: str) -> list[PasskeyRow]:
    """The passkeys of an admin user, oldest first."""
    query = select(*_PASSKEY).where(tables.passkey.c.admin_id == admin_id).order_by(tables.passkey.c.created)
    return [PasskeyRow(*row) for row in await tx.all(query)]


async def use_passkey(tx: Transaction, passkey_id: str, sign_count: int) -> None:
    """Note that a passkey was used just now, and how often it says it was."""
    table = tables.passkey
    await tx.execute(update(table).where(table.c.id == passkey_id).values(sign_count=sign_count, used=now()))


async def drop_passkey(tx: Transaction, admin_id: str, passkey_id: str) -> bool:
    """Forget an admin user's passkey; whether it was there."""
    table = tables.passkey
    where = (table.c.admin_id == admin_id, table.c.id == plain(passkey_id))
    return (await tx.execute(delete(table).where(*where))).rowcount > 0


# --- tokens -------------------------------------------------------------------------------------------------------

_TOKEN = [*(tables.api_token.c[name] for name in ("id", "admin_id")), tables.admin_user.c.mail]
_TOKEN += [tables.api_token.c[name] for name in ("name", "scopes", "created", "expires", "used")]


async def add_token(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter a token."""
    await tx.insert(tables.api_token, [row])


async def token(tx: Transaction, digest: str) -> TokenRow | None:
    """The token of this hash, also one that has run out."""
    row = await tx.first(select(*_TOKEN).join(tables.admin_user).where(tables.api_token.c.digest == digest))
    return TokenRow(*row) if row else None


async def tokens(
    tx: Transaction, admin_id: str | None = None, limit: int | None = None, before: str | None = None
) -> list[TokenRow]:
    """The tokens of an admin user, or of all, newest first; those before the id of one."""
    query = select(*_TOKEN).join(tables.admin_user).order_by(tables.api_token.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(tables.api_token.c.id < plain(before))
    if admin_id is not None:
        query = query.where(tables.api_token.c.admin_id == admin_id)
    return [TokenRow(*row) for row in await tx.all(query)]


async def use_token(tx: Transaction, token_id: str) -> None:
    """Note that a token was used just now."""
    await tx.execute(update(tables.api_token).where(tables.api_token.c.id == token_id).values(used=now()))


async def drop_token(tx: Transaction, token_id: str) -> None:
    """Forget a token."""
    await tx.execute(delete(tables.api_token).where(tables.api_token.c.id == token_id))


# --- failures -----------------------------------------------------------------------------------------------------


async def failures(tx: Transaction, keys: Collection[str]) -> dict[str, tuple[int, datetime]]:
    """By key: how often somebody failed, and until when no further try is looked at."""
    table = tables.throttle
    return {row.key: (row.failures, row.until) for row in await tx.all(select(table).where(table.c.key.in_(keys)))}


async def put_failures(tx: Transaction, key: str, count: int, until: datetime) -> None:
    """Keep how often somebody failed."""
    await drop_failures(tx, [key])
    await tx.insert(tables.throttle, [{"key": key, "failures": count, "until": until}])


async def drop_failures(tx: Transaction, keys: Collection[str]) -> None:
    """Forget failures."""
    await tx.execute(delete(tables.throttle).where(tables.throttle.c.key.in_(keys)))


async def forget_failures(tx: Transaction, before: datetime) -> None:
    """Forget failures that are so old, whosever they are: names that strangers made up do not pile up."""
    await tx.execute(delete(tables.throttle).where(tables.throttle.c.until < before))


async def is_spent(tx: Transaction, digest: str) -> bool:
    """Whether something that counts once was used up."""
    table = tables.spent
    return await tx.first(select(table.c.digest).where(table.c.digest == digest, table.c.until >= now())) is not None


async def spend(tx: Transaction, digest: str, until: datetime) -> bool:
    """Use something up that counts once, and need not be kept after a moment; whether it was unused."""
    table = tables.spent
    await tx.execute(delete(table).where(table.c.until < now()))
    if await tx.first(select(table.c.digest).where(table.c.digest == digest)) is not None:
        return False
    await tx.insert(table, [{"digest": digest, "until": until}])
    return True


# --- organizations ------------------------------------------------------------------------------------------------


_ORGANIZATION: list[ColumnElement[Any]] = [tables.organization.c[name] for name in ("id", "name", "mail")]
_ORGANIZATION += [
    select(func.count())
    .where(tables.tenant.c.organization_id == tables.organization.c.id)
    .scalar_subquery()
    .label("tenants"),
    tables.organization.c.created,
]


async def organizations(tx: Transaction, search: str | None, limit: int, after: str | None) -> list[OrganizationRow]:
    """Organizations by name, those after a name, at most `limit`, each with the number of its tenants."""
    table = tables.organization
    query = select(*_ORGANIZATION).order_by(table.c.name).limit(limit)
    if search:
        query = query.where(_holds(search, table.c.name, table.c.mail))
    if after:
        query = query.where(table.c.name > plain(after))
    return [OrganizationRow(*row) for row in await tx.all(query)]


async def organization(tx: Transaction, wanted: str) -> OrganizationRow | None:
    """The organization of an id or a name."""
    table, given = tables.organization.c, plain(wanted)
    row = await tx.first(select(*_ORGANIZATION).where(or_(table.id == given, table.name == given)))
    return OrganizationRow(*row) if row else None


async def add_organization(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Enter an organization."""
    await tx.insert(tables.organization, [row])


async def change_organization(tx: Transaction, organization_id: str, **values: Any) -> None:
    """Change columns of an organization."""
    table = tables.organization
    await tx.execute(update(table).where(table.c.id == organization_id).values(**values))
    await tell_of_sign_on(tx, organization_id)


async def drop_organization(tx: Transaction, organization_id: str) -> list[str]:
    """Forget an organization; its tenants, whose slugs these are, stay and belong to none."""
    slugs = await tenants_in(tx, organization_id)
    await link_tenants(tx, None, await _ids_in(tx, organization_id))
    await directory.forget(tx, organization_id)
    await sso.forget(tx, organization_id)
    await tx.execute(delete(tables.organization).where(tables.organization.c.id == organization_id))
    return slugs


async def organization_of(tx: Transaction, tenant_id: str) -> str | None:
    """The name of a tenant's organization; None where it belongs to none."""
    table, tenant = tables.organization, tables.tenant
    name: str | None = await tx.scalar(select(table.c.name).join(tenant).where(tenant.c.id == tenant_id))
    return name


async def tenants_in(
    tx: Transaction, organization_id: str, search: str | None = None, limit: int | None = None, after: str | None = None
) -> list[str]:
    """The slugs of an organization's tenants: those that hold a text, behind a slug, at most `limit`."""
    tenant = tables.tenant.c
    return await _slugs(tx, select(tenant.slug).where(tenant.organization_id == organization_id), search, limit, after)


async def those_in(tx: Transaction, organization_id: str, slugs: Collection[str]) -> list[str]:
    """Which of these tenants are an organization's."""
    tenant, found = tables.tenant.c, list[str]()
    for some in chunks([plain(slug) for slug in slugs], IN_LIMIT):
        query = select(tenant.slug).where(tenant.organization_id == organization_id, tenant.slug.in_(some))
        found += [row[0] for row in await tx.all(query)]
    return found


async def _ids_in(tx: Transaction, organization_id: str) -> list[str]:
    tenant = tables.tenant.c
    return [row[0] for row in await tx.all(select(tenant.id).where(tenant.organization_id == organization_id))]


async def tell_of_sign_on(tx: Transaction, organization_id: str) -> None:
    """Let all processes know that the tenants of an organization sign in by something else."""
    tx.changed(*await _ids_in(tx, organization_id))


async def link_tenants(tx: Transaction, organization_id: str | None, tenant_ids: Collection[str]) -> None:
    """Put tenants into an organization, or into none."""
    tenant = tables.tenant
    for some in chunks(list(tenant_ids), IN_LIMIT):
        await tx.execute(update(tenant).where(tenant.c.id.in_(some)).values(organization_id=organization_id))
    tx.changed(*tenant_ids)


async def mails_of(tx: Transaction, tenant_ids: Sequence[str]) -> dict[str, str]:
    """By tenant, the address of its organization's administrator, where it has an organization."""
    tenant, organization = tables.tenant.c, tables.organization.c
    joined = select(tenant.id, organization.mail).join(tables.organization, organization.id == tenant.organization_id)
    found: dict[str, str] = {}
    for some in chunks(tenant_ids, IN_LIMIT):
        found |= {row.id: row.mail for row in await tx.all(joined.where(tenant.id.in_(some)))}
    return found
