"""`tenantry sso`: how the people of an organization sign in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, FLAG, Common
from tenantry.errors import UsageError
from tenantry.identity.sso.people import SAML
from tenantry.platform.sso import SsoDetails

app = App(name="sso", help="Organizations' single sign-on by OpenID Connect or SAML 2.0.")

Organization: TypeAlias = Annotated[str, Parameter(help="The organization's name, or its id.")]
Domain: TypeAlias = Annotated[str, Parameter(help="A mail domain, such as acme.example.")]


@app.command
async def show(organization: Organization, /, *, common: Common = COMMON) -> None:
    """Show how an organization signs in, what its provider has to know, and its mail domains."""
    async with common.platform() as platform:
        _show(common, await platform.sso.show(organization))


@app.command(name="set")
async def set_(
    organization: Organization,
    /,
    *,
    client_id: Annotated[str, Parameter(help="The platform's client id at the provider.")] = "",
    secret: Annotated[
        str | None,
        Parameter(help="Its client secret; without it the one that is there is kept.", env_var="TENANTRY_SSO_SECRET"),
    ] = None,
    issuer: Annotated[str | None, Parameter(help="The provider's issuer, such as https://login.acme.example.")] = None,
    directory: Annotated[str | None, Parameter(help="For Microsoft Entra ID: the directory id.")] = None,
    metadata_url: Annotated[str | None, Parameter(help="For SAML 2.0: where the provider's metadata are.")] = None,
    metadata: Annotated[Path | None, Parameter(help="For SAML 2.0: a file with the provider's metadata.")] = None,
    default_role: Annotated[str, Parameter(help="admin, superuser, user; or none, which keeps out.")] = "user",
    claim: Annotated[str | None, Parameter(help="The claim that holds groups or app roles.")] = None,
    role: Annotated[list[str] | None, Parameter(help="GROUP=ROLE, as often as needed.")] = None,
    only: Annotated[bool, FLAG, Parameter(help="Turn passwords off at its tenants, once a sign-in worked.")] = False,
    common: Common = COMMON,
) -> None:
    """Let an organization sign in by its provider. What is not given here is not kept, but for the secret."""
    roles = dict(_pair(one) for one in role or ())
    known = _read(metadata) if metadata is not None else None
    async with common.platform() as platform:
        found = await platform.sso.set(
            organization, client_id, secret, issuer, directory, metadata_url, known, default_role, claim, roles, only
        )
        _show(common, found)


@app.command
async def remove(organization: Organization, /, *, common: Common = COMMON) -> None:
    """Let an organization sign in by no provider any more. Sessions that were begun by it end."""
    async with common.platform() as platform:
        _show(common, await platform.sso.remove(organization))


@app.command
async def check(organization: Organization, /, *, common: Common = COMMON) -> None:
    """Ask the provider what it says of itself, and tell what is right and what is not."""
    async with common.platform() as platform:
        found = await platform.sso.check(organization)
    common.out.table(("ok", "what", "remedy"), found, "")


@app.command
async def trial(organization: Organization, /, *, common: Common = COMMON) -> None:
    """Print an address at which a sign-in is tried: it shows each claim and each fault, and opens no tenant."""
    async with common.platform() as platform:
        address = await platform.sso.trial(organization)
    if common.json:
        common.out.data({"address": address})
        return
    common.out.line("Open this in a browser within 10 minutes:")
    common.out.line(f"  {address}")


@app.command
async def add_domain(organization: Organization, domain: Domain, /, *, common: Common = COMMON) -> None:
    """Claim a mail domain. Prints the TXT record that proves it."""
    async with common.platform() as platform:
        _show(common, await platform.sso.add_domain(organization, domain))


@app.command
async def prove_domain(organization: Organization, domain: Domain, /, *, common: Common = COMMON) -> None:
    """Look whether the DNS proves a mail domain."""
    async with common.platform() as platform:
        _show(common, await platform.sso.prove_domain(organization, domain))


@app.command
async def remove_domain(organization: Organization, domain: Domain, /, *, common: Common = COMMON) -> None:
    """Let a mail domain go: nobody with an address in it signs in any more."""
    async with common.platform() as platform:
        _show(common, await platform.sso.remove_domain(organization, domain))


def _show(common: Common, found: SsoDetails) -> None:
    row = found.row
    fields: dict[str, object] = {"organization": found.organization, "issuer": row.issuer if row else "none"}
    if row is not None:
        fields |= {"client_id": row.client_id, "default_role": row.default_role or "none", "only": row.only}
        fields["worked"] = row.worked or "not yet: `tenantry sso trial`"
        fields |= {"roles": [f"{group} ({row.claim}): {role}" for group, role in row.roles.items()]}
    if row is None or row.preset != SAML:
        fields |= {"redirect_uri": found.redirect_uri, "signed_out_uri": found.signed_out_uri}
        fields |= {"backchannel_uri": found.backchannel_uri, "frontchannel_uri": found.frontchannel_uri}
    if row is None or row.preset == SAML:
        fields |= {"entity_id": found.entity_id, "acs_uri": found.acs_uri}
    if row is not None and row.preset == SAML:
        fields["metadata_url"] = row.metadata_url
    fields["domains"] = [
        one.domain if one.proven else f"{one.domain} (not proven: TXT {one.record} {one.value})"
        for one in found.domains
    ]
    common.out.record(found, fields)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UsageError(given=str(file), wanted="a file with a provider's metadata") from error


def _pair(given: str) -> tuple[str, str]:
    group, separator, role = given.rpartition("=")
    if not separator or not group:
        raise UsageError(given=given[:100], wanted="GROUP=ROLE")
    return group, role
