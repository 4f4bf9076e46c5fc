"""An organization's single sign-on: its provider, its mail domains, and a try of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form
from starlette.responses import Response

from tenantry.errors import TenantryError
from tenantry.identity.sso.entities import LONGEST
from tenantry.identity.sso.people import ENTRA, HOST, OIDC
from tenantry.platform.sso import NOBODY, SsoFinding
from tenantry.registry.sso import SsoRow
from tenantry.sso_refusals import SsoInvalid
from tenantry.web.portal.asking import Page, asks
from tenantry.web.portal.frame import Visit, Visiting

HERE: Final = "/admin/organizations"

router = APIRouter(prefix="/organizations/{organization}/sso", route_class=Page)

Text = Annotated[str, Form(max_length=2000)]
Lines = Annotated[str, Form(max_length=50_000)]
Metadata = Annotated[str, Form(max_length=LONGEST)]


@router.get("")
@asks("sso.show")
async def show(visit: Visiting, organization: str) -> Response:
    """How an organization signs in."""
    return await _show(visit, organization)


@router.post("")
@asks("sso.set")
async def change(
    visit: Visiting,
    organization: str,
    client_id: Text = "",
    secret: Text = "",
    issuer: Text = "",
    directory: Text = "",
    metadata_url: Text = "",
    metadata: Metadata = "",
    default_role: Text = "user",
    claim: Text = "",
    roles: Lines = "",
    only: Text = "",
) -> Response:
    """Set it up, or change it."""
    places = {"issuer": issuer, "directory": directory, "metadata_url": metadata_url, "metadata": metadata}
    typed = {**places, "client_id": client_id, "default_role": default_role}
    typed |= {"claim": claim, "roles": roles, "only": only}
    try:
        with visit.acting():
            provider = {name: given.strip() or None for name, given in places.items()}
            await visit.platform.sso.set(
                organization,
                client_id,
                secret or None,
                **provider,
                default_role=default_role,
                claim=claim or None,
                roles=_roles(roles),
                only=bool(only),
            )
    except TenantryError as error:
        return await _show(visit, organization, status=error.status, problem=error, typed=typed)
    return visit.go(f"{HERE}/{organization}/sso", "The single sign-on is saved. Try it below.")


@router.post("/remove")
@asks("sso.remove")
async def remove(visit: Visiting, organization: str) -> Response:
    """Sign in by no provider any more."""
    return await _done(visit, organization, "remove", "Nobody signs in by a provider any more.")


@router.post("/check")
@asks("sso.check", gives=200)
async def check(visit: Visiting, organization: str) -> Response:
    """Ask the provider what it says of itself."""
    try:
        with visit.acting():
            findings = await visit.platform.sso.check(organization)
    except TenantryError as error:
        return await _show(visit, organization, status=error.status, problem=error)
    return await _show(visit, organization, findings=findings)


@router.post("/trial")
@asks("sso.trial", gives=200)
async def trial(visit: Visiting, organization: str) -> Response:
    """The way to the provider: a link, since a form may lead to no other host."""
    try:
        with visit.acting():
            address = await visit.platform.sso.trial(organization)
    except TenantryError as error:
        return await _show(visit, organization, status=error.status, problem=error)
    return await _show(visit, organization, trial=address)


@router.post("/domains")
@asks("sso.add_domain")
async def add_domain(visit: Visiting, organization: str, domain: Text = "") -> Response:
    """Claim a mail domain."""
    return await _done(visit, organization, "add_domain", "Now put the TXT record into its DNS.", domain)


@router.post("/domains/prove")
@asks("sso.prove_domain")
async def prove_domain(visit: Visiting, organization: str, domain: Text = "") -> Response:
    """Look whether the DNS proves it."""
    return await _done(visit, organization, "prove_domain", f"It is proven: {domain} is the organization's.", domain)


@router.post("/domains/remove")
@asks("sso.remove_domain")
async def remove_domain(visit: Visiting, organization: str, domain: Text = "") -> Response:
    """Let it go."""
    return await _done(visit, organization, "remove_domain", f"Nobody of {domain} signs in any more.", domain)


async def _done(visit: Visit, organization: str, verb: str, told: str, *arguments: str) -> Response:
    try:
        with visit.acting():
            await getattr(visit.platform.sso, verb)(organization, *arguments)
    except TenantryError as error:
        return await _show(visit, organization, status=error.status, problem=error)
    return visit.go(f"{HERE}/{organization}/sso", told)


async def _show(
    visit: Visit, organization: str, *, status: int = 200, findings: Sequence[SsoFinding] = (), **more: Any
) -> Response:
    with visit.acting():
        row = (await visit.platform.organizations.show(organization, limit=1)).row
        found = await visit.platform.sso.show(row.id)
    base = f"{HERE}/{row.id}/sso"
    shown = {"row": row, "found": found, "base": base, "typed": _typed(found.row), "findings": findings, "trial": ""}
    return visit.page("organization_sso.html", current=HERE, status=status, **(shown | more))


def _typed(row: SsoRow | None) -> Mapping[str, str]:
    """What stands in the fields; never the secret."""
    if row is None:
        fields = ("client_id", "issuer", "directory", "metadata_url", "metadata", "claim", "roles", "only")
        return dict.fromkeys(fields, "") | {"default_role": "user"}
    entra = row.preset == ENTRA
    return {
        "client_id": row.client_id,
        "issuer": row.issuer if row.preset == OIDC else "",
        "directory": row.issuer.removeprefix(HOST).partition("/")[0] if entra else "",
        "metadata_url": row.metadata_url,
        "metadata": row.metadata,
        "default_role": row.default_role or NOBODY,
        "claim": row.claim,
        "roles": "\n".join(f"{group} = {role}" for group, role in row.roles.items()),
        "only": "1" if row.only else "",
    }


def _roles(lines: str) -> dict[str, str]:
    """Which group has which role, a line for each. Raises `SsoInvalid`."""
    found = {}
    for line in filter(None, map(str.strip, lines.splitlines())):
        group, separator, role = line.rpartition("=")
        if not separator or not group.strip():
            raise SsoInvalid(reason=f"'{line[:80]}' is not of the form group = role")
        found[group.strip()] = role.strip()
    return found
