"""Organizations' single sign-on. Each function takes the transaction it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, select, update

from tenantry.model import SignOn
from tenantry.registry import tables
from tenantry.registry.database import Transaction, now, plain
from tenantry.registry.vault import Vault

SEALED: Final = "sso:"
"""Under this and the organization's id its client secret is sealed."""


@dataclass(frozen=True, slots=True)
class SsoRow:
    """How an organization signs in."""

    organization_id: str
    preset: str  # oidc, entra, saml
    issuer: str
    client_id: str
    secret: bytes = field(repr=False)
    default_role: str
    claim: str
    roles: Mapping[str, str]
    only: bool
    metadata_url: str
    metadata: str = field(repr=False)
    changed: datetime
    way: str
    worked: datetime | None


@dataclass(frozen=True, slots=True)
class DomainRow:
    """A mail domain that an organization claims."""

    domain: str
    token: str
    proven: datetime | None


@dataclass(frozen=True, slots=True)
class SessionAt:
    """A session at a tenant that was begun by a provider."""

    id: str
    organization_id: str
    tenant_id: str
    environment_id: str
    way: str

    @property
    def outside(self) -> str:
        """What the tenant calls it."""
        return f"{self.organization_id}/{self.way}/{self.id}"


_SSO: Final = [tables.sso.c[name] for name in SsoRow.__slots__]
_DOMAIN: Final = [tables.sso_domain.c[name] for name in DomainRow.__slots__]


async def find(tx: Transaction, organization_id: str) -> SsoRow | None:
    """How an organization signs in; None where it has no provider."""
    row = await tx.first(select(*_SSO).where(tables.sso.c.organization_id == plain(organization_id)))
    return SsoRow(*row) if row else None


async def put(tx: Transaction, organization_id: str, **values: Any) -> None:
    """Set it up anew."""
    await tx.execute(delete(tables.sso).where(tables.sso.c.organization_id == organization_id))
    await tx.insert(tables.sso, [{"organization_id": organization_id, "changed": now(), **values}])


async def works(tx: Transaction, row: SsoRow) -> None:
    """Note that somebody came in by it, unless it was set up anew meanwhile."""
    table = tables.sso
    same = (table.c.organization_id == row.organization_id, table.c.changed == row.changed, table.c.worked.is_(None))
    await tx.execute(update(table).where(*same).values(worked=now()))


async def drop(tx: Transaction, organization_id: str) -> None:
    """Let an organization sign in by no provider any more; the domains that it has proven stay its own."""
    await drop_sessions(tx, organization_id)
    await tx.execute(delete(tables.sso).where(tables.sso.c.organization_id == organization_id))


async def drop_sessions(tx: Transaction, organization_id: str) -> None:
    """Forget the sessions of a way in that is no more."""
    await tx.execute(delete(tables.sso_session).where(tables.sso_session.c.organization_id == organization_id))


async def is_way(tx: Transaction, organization_id: str, way: str) -> bool:
    """Whether an organization's people still come in this way."""
    found: str | None = await tx.scalar(select(tables.sso.c.way).where(tables.sso.c.organization_id == organization_id))
    return found == way


async def forget(tx: Transaction, organization_id: str) -> None:
    """Forget all of it, with the domains."""
    await drop(tx, organization_id)
    await tx.execute(delete(tables.sso_domain).where(tables.sso_domain.c.organization_id == organization_id))


async def reseal(tx: Transaction, vault: Vault) -> None:
    """Seal every client secret with the current platform key."""
    table = tables.sso
    for organization_id, sealed in await tx.all(select(table.c.organization_id, table.c.secret)):
        again = vault.seal_platform(SEALED + organization_id, vault.open_platform(SEALED + organization_id, sealed))
        await tx.execute(update(table).where(table.c.organization_id == organization_id).values(secret=again))


_SIGN_ONS: Final = select(
    tables.organization.c.id, tables.organization.c.name, tables.sso.c.only, tables.sso.c.way
).join(tables.sso, tables.sso.c.organization_id == tables.organization.c.id)


async def sign_ons(tx: Transaction, ids: Sequence[str] | None) -> dict[str, SignOn]:
    """By tenant, how its organization signs in."""
    tenant = tables.tenant
    found = {row[0]: SignOn(*row) for row in await tx.all(_SIGN_ONS)}
    if not found:
        return {}
    query = select(tenant.c.id, tenant.c.organization_id).where(tenant.c.organization_id.is_not(None))
    rows = await tx.all(query if ids is None else query.where(tenant.c.id.in_(ids)))
    return {tenant_id: found[organization_id] for tenant_id, organization_id in rows if organization_id in found}


# --- domains ------------------------------------------------------------------------------------------------------


async def domains(tx: Transaction, organization_id: str) -> list[DomainRow]:
    """The mail domains that an organization claims, by name."""
    table = tables.sso_domain.c
    query = select(*_DOMAIN).where(table.organization_id == organization_id).order_by(table.domain)
    return [DomainRow(*row) for row in await tx.all(query)]


async def owner(tx: Transaction, domain: str) -> str | None:
    """The id of the organization that has proven that a domain is its own."""
    table = tables.sso_domain.c
    query = select(table.organization_id).where(table.domain == domain, table.proven.is_not(None))
    found: str | None = await tx.scalar(query)
    return found


async def claim(tx: Transaction, organization_id: str, domain: str, token: str) -> None:
    """Enter that an organization claims a domain."""
    row = {"organization_id": organization_id, "domain": domain, "token": token}
    await tx.insert(tables.sso_domain, [row])


async def prove(tx: Transaction, organization_id: str, domain: str) -> None:
    """Enter that it is proven."""
    table = tables.sso_domain
    mine = (table.c.organization_id == organization_id, table.c.domain == domain)
    await tx.execute(update(table).where(*mine).values(proven=now()))


async def let_go(tx: Transaction, organization_id: str, domain: str) -> bool:
    """Forget a domain; whether it was claimed."""
    table = tables.sso_domain
    mine = (table.c.organization_id == organization_id, table.c.domain == plain(domain))
    return (await tx.execute(delete(table).where(*mine))).rowcount > 0


# --- what is handed over ------------------------------------------------------------------------------------------


async def put_code(tx: Transaction, **values: Any) -> None:
    """Keep what a code stands for; those that have run out are forgotten."""
    await tx.execute(delete(tables.sso_code).where(tables.sso_code.c.until < now()))
    await tx.insert(tables.sso_code, [values])


async def take_code(tx: Transaction, digest: str, environment_id: str, browser: str) -> bytes | None:
    """Use a code up; what it stands for, or None where it opens nothing here.

    One that is tried at another tenant or in another browser is gone, too: somebody has it who should not.
    """
    table = tables.sso_code
    row = await tx.first(select(table).where(table.c.digest == digest))
    await tx.execute(delete(table).where(table.c.digest == digest))
    if row is None or row.until < now() or (row.environment_id, row.browser) != (environment_id, browser):
        return None
    found: bytes = row.person
    return found


# --- sessions -----------------------------------------------------------------------------------------------------


async def add_session(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Note which session at a tenant a sign-in began; those that have run out are forgotten."""
    await tx.execute(delete(tables.sso_session).where(tables.sso_session.c.until < now()))
    await tx.insert(tables.sso_session, [row])


async def sessions(tx: Transaction, organization_id: str, subject: str, sid: str) -> list[SessionAt]:
    """The sessions of a session at the provider, or of somebody wherever she is where no such session is named."""
    table = tables.sso_session.c
    own = [table[name] for name in ("id", "organization_id", "tenant_id", "environment_id")]
    query = select(*own, tables.sso.c.way).join(tables.sso, tables.sso.c.organization_id == table.organization_id)
    query = query.where(table.organization_id == organization_id)
    for column, wanted in ((table.sid, sid), (table.subject, subject)):
        if wanted:
            query = query.where(column == plain(wanted))
    return [SessionAt(*row) for row in await tx.all(query)] if sid or subject else []


async def drop_session(tx: Transaction, session_id: str) -> None:
    """Forget a session that is over."""
    await tx.execute(delete(tables.sso_session).where(tables.sso_session.c.id == session_id))
