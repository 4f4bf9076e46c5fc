"""A platform with the seven persons of docs/reference/rights.md, and a right request for each of its addresses."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import re
import shutil
import sqlite3
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import httpx
import pyotp
from sqlalchemy.exc import SADeprecationWarning

from authenticator import Authenticator
from providers import Names, names
from servers import Postgres
from tenantry.application import connect
from tenantry.config import Config, load
from tenantry.identity.principal import SCOPES, AdminRole, digest
from tenantry.identity.signin import Client
from tenantry.mail import Letter
from tenantry.model import new_id
from tenantry.operations import trials
from tenantry.platform import Platform
from tenantry.registry import journal, letters, people, signups
from tenantry.registry.database import now
from tenantry.runtime import TenantMiddleware
from tenantry.web.doors import PROVISIONING
from tenantry.web.house import Opened
from tenantry.web.portal.frame import SESSION, csrf
from tenantry.web.site import site

ROOT: Final = Path(__file__).parents[1]
PERSONS: Final = ("anonymous", "tenant user", "other admin", "admin", "superadmin", "expired", "small token")
PASSWORD: Final = "correct horse battery"
HERE: Final = "http://localhost"
NOBODYS: Final = "0" * 64

NAMES: Final = {"acme": "Zyzzyva & Söhne", "vault": "Zyzzyva's vault"}
"""Names of the admin's tenants, which stand nowhere else."""

SETTINGS: Final = """
[mail]
host = "127.0.0.1"
port = 9

[api]
token_rate = 0
address_rate = 0

[signup]
open = true
verify_mail = false
work = 0
blueprint = "blog"

[blueprints.archive]
title = "What lies on a server"
[blueprints.archive.resources]
pg = {kind = "postgres", name = "NAME_{slug}", schema = "archive/"}
[blueprints.archive.hostnames]
production = "{slug}.{domain}"
"""


@dataclass
class Somebody:
    """What a person has to show, and what is her own."""

    headers: Mapping[str, str] = field(default_factory=dict)  # to the API
    cookie: str = ""  # to the pages
    csrf: str = NOBODYS
    own: Mapping[str, str] = field(default_factory=dict)


@dataclass
class World:
    """The platform as it is before each request."""

    here: Opened
    live: sqlite3.Connection  # the control database, beside the platform
    base: sqlite3.Connection  # a copy of it
    client: httpx.AsyncClient
    persons: dict[str, Somebody] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    seen: int = -1
    device: Authenticator = field(default_factory=lambda: Authenticator("", ""))

    @property
    def file(self) -> str:
        """The control database."""
        return str(self.platform.registry.database.url.database)

    @property
    def platform(self) -> Platform:
        """Past all rights."""
        return self.here.platform

    def keep(self) -> None:
        """Take the control database as it is for what stands before each request."""
        self.live.backup(self.base)
        self.seen = self._version()

    async def renew(self) -> None:
        """Let everything be as it was kept. Whoever writes just now, in this event loop too, comes to an end first."""
        if self._version() != self.seen:
            await asyncio.to_thread(self.base.backup, self.live)
            self.seen = self._version()

    def _version(self) -> int:
        """Another one after each change that was made by others."""
        version: int = self.live.execute("PRAGMA data_version").fetchone()[0]
        return version

    def written(self) -> tuple[int, ...]:
        """How much was written: changes leave an entry in the audit log, or an operation."""
        query = "SELECT (SELECT max(seq) FROM audit), (SELECT count(*) FROM operation)"
        found: tuple[int, ...] = self.live.execute(query).fetchone()
        return found

    def nameless(self) -> list[str]:
        """Entries about the tenant that do not hold which one of its slug it was."""
        query = "SELECT action FROM audit WHERE subject = 'acme' AND instr(detail, '\"id\":') = 0"
        return [row[0] for row in self.live.execute(query)]

    def run(self, statement: str, *given: str) -> None:
        """Change something past the platform."""
        with contextlib.closing(sqlite3.connect(self.file)) as other, other:
            other.execute(statement, given)

    async def send(self, address: str, person: str) -> httpx.Response:
        """The right request to an address, as this person."""
        method, path = address.split(" ")
        request, who = REQUESTS[address], self.persons[person]
        values = {**self.values, **(who.own or self.persons["superadmin"].own)}
        if request.given is not None:
            values |= await request.given(self, values) or {}
        path = re.sub(r"{(\w+)}", lambda found: values[found[1]], path) + request.more.format(**values)
        body = request.body(values) if callable(request.body) else request.body
        self.client.cookies.clear()
        if path.startswith("/api") or address == PROVISIONED:
            return await self.client.request(method, path, json=body, headers=dict(who.headers))
        headers = {**who.headers, "Cookie": who.cookie} if who.cookie else dict(who.headers)
        form = None if method == "GET" else {"csrf": who.csrf, **(body or {})}
        return await self.client.request(method, path, data=form, headers=headers)


# --- what is to be there ------------------------------------------------------------------------------------------

Values = dict[str, str]
Given = Callable[[World, Values], Awaitable[Values | None]]


async def looking_in(world: World, values: Values) -> Values:
    """Support looks into the tenant."""
    return {"access": (await world.platform.support.open("acme", "a slow page")).row.id}


async def suspended(world: World, values: Values) -> None:
    """The tenant is suspended."""
    world.run("UPDATE tenant SET status = 'suspended' WHERE slug = 'acme'")


async def trialing(world: World, values: Values) -> None:
    """The tenant is tried out."""
    world.run("UPDATE tenant SET status = 'trialing' WHERE slug = 'acme'")


async def signing_up(world: World, values: Values) -> Values:
    """Somebody is about to confirm a sign-up."""
    row = {"slug": "fresh", "held": "fresh", "name": "Eve", "mail": "eve@example.org", "organization": "Fresh"}
    row |= {"id": "sign-up", "address": "", "ticket": digest("ticket"), "link": digest("link"), "created": now()}
    row["code"] = world.platform.signups._keyed("sign-up", "123456")
    async with world.platform.registry.write() as tx:
        await signups.add(tx, row | {"expires": now() + timedelta(hours=1)})
    return {"ticket": "ticket", "link": "link"}


async def signed_up(world: World, values: Values) -> Values:
    """Somebody confirmed a sign-up, and her tenant is there."""
    found = await signing_up(world, values)
    tenant = (await world.platform.tenants.show("acme")).row.id
    async with world.platform.registry.write() as tx:
        await signups.change(tx, "sign-up", tenant_id=tenant, operation_id=values["operation_id"])
    return found


async def scim_token(world: World, values: Values) -> Values:
    """The organization's provider has a token."""
    return {"token": world.values["scim_token"]}


async def invited_to_sign_up(world: World, values: Values) -> Values:
    """Somebody is invited to sign up."""
    return {"invitation": (await world.platform.signups.invite()).row.id}


async def over(world: World, values: Values) -> Values:
    """A trial is over, and the mail about it was read."""
    row = (await world.platform.tenants.show("vault")).row
    world.run("UPDATE tenant SET status = 'suspended' WHERE slug = 'vault'")
    async with world.platform.registry.write() as tx:
        await signups.begin_trial(tx, row.id, "eve@example.org", now())
        await signups.note_trial(tx, row.id, ended=now())
    return {"token": trials.export_token(world.platform.registry.vault, row.id, now())}


async def queued(world: World, values: Values) -> Values:
    """An operation on the tenant waits."""
    return {"operation_id": (await world.platform.tenants.suspend("acme")).id}


async def pausable(world: World, values: Values) -> Values:
    """An operation waits that could rest."""
    return {"operation_id": (await world.platform.tenants.rotate(["vault"])).id}


async def failed(world: World, values: Values) -> Values:
    """An operation on the tenant failed."""
    found = await queued(world, values)
    async with world.platform.registry.write() as tx:
        await journal.set_state(tx, found["operation_id"], journal.State.FAILED)
    return found


async def hosted(world: World, values: Values) -> Values:
    """The tenant has a hostname of its own."""
    return {"host": await world.platform.hostnames.add("acme", "www.acme.example")}


async def migrated(world: World, values: Values) -> Values:
    """The fleet was migrated."""
    return {"operation_id": (await world.platform.migrations.run()).id}


async def migrating(world: World, values: Values) -> None:
    """The fleet is being migrated."""
    async with world.platform.registry.write() as tx:
        await journal.submit(tx, token_hex(18), "migrate", [("canary", "")])


async def rehearsed(world: World, values: Values) -> Values:
    """A migration is rehearsed."""
    return {"operation_id": (await world.platform.rehearsals.run(slugs=["acme"])).id}


async def verified(world: World, values: Values) -> Values:
    """The isolation was verified."""
    operation = await world.platform.verification.run()
    async with world.platform.registry.write() as tx:
        await journal.set_state(tx, operation.id, journal.State.DONE, result={})
    return {"operation_id": operation.id}


async def invited(world: World, values: Values) -> Values:
    """Somebody has a link."""
    return {"link": (await world.platform.admins.invite("new@example.org")).link}


async def failed_letter(world: World, values: Values) -> Values:
    """A letter to an address that nothing is sent to failed."""
    made, moment = new_id(), now()
    sealed = world.platform.registry.vault.seal_platform(letters.field_of(made), Letter("x", ("y",)).packed())
    row = {"id": made, "kind": "test", "state": "failed", "recipient": "held@example.org", "subject": "x"}
    async with world.platform.registry.write() as tx:
        await letters.add(tx, {**row, "sealed": sealed, "created": moment})
        await letters.hold(tx, "held@example.org", "550 5.1.1")
    return {"letter": made}


async def with_factor(world: World, values: Values) -> Values:
    """The person has a second factor."""
    secret, vault = pyotp.random_base32(), world.platform.registry.vault
    async with world.platform.registry.write() as tx:
        sealed = vault.seal_platform(f"totp:{values['id']}", secret)
        await people.change(tx, values["id"], totp=sealed, totp_used=0)
    return {"code": pyotp.TOTP(secret).now()}


async def enrolling(world: World, values: Values) -> Values:
    """The person is about to have one."""
    secret, vault = pyotp.random_base32(), world.platform.registry.vault
    sealed = vault.seal_platform(f"enrol:{values['id']}:{values['session']}", secret)
    return {"sealed": sealed.hex(), "code": pyotp.TOTP(secret).now()}


async def with_passkey(world: World, values: Values) -> Values:
    """The person has a passkey, and is asked to sign by it."""
    device = world.device = Authenticator(world.device.origin, world.device.domain)
    async with world.platform.registry.write() as tx:
        row = {"id": device.name, "admin_id": values["id"], "name": "phone", "public_key": device.public}
        await people.add_passkey(tx, {**row, "sign_count": 0, "created": now()})
    return {"passkey": device.name, "answer": device.sign(world.here.passkeys.to_sign_in())}


async def making_passkey(world: World, values: Values) -> Values:
    """The person is asked to make a passkey."""
    device = world.device = Authenticator(world.device.origin, world.device.domain)
    async with world.platform.registry.read() as tx:
        row = await people.find(tx, values["id"])
    return {"answer": device.register(world.here.passkeys.to_register(row, []))}


# --- requests -----------------------------------------------------------------------------------------------------

Body = Mapping[str, Any] | Callable[[Values], Mapping[str, Any]] | None


@dataclass(frozen=True)
class Request:
    """A request that is right, whoever sends it."""

    body: Body = None
    given: Given | None = None
    more: str = ""  # of the address


PROVISIONED: Final = " ".join(PROVISIONING)
FRESH: Final = {"slug": "fresh", "blueprint": "blog"}
LIST: Final = "slug,name\nfirst,First\nsecond,Second\n"
ACME: Final = {"slugs": ["acme"]}
PLAIN: Final = Request()
SIGN_ON: Final = {"client_id": "tenantry", "secret": "s", "issuer": "http://localhost:1"}


def _server(values: Values) -> dict[str, Any]:
    return {"name": "third", "kind": "postgres", "url": values["url"]}


API: Final[dict[str, Request]] = {
    "GET /openapi.json": PLAIN,
    "GET /platform": PLAIN,
    "GET /metrics": PLAIN,
    "GET /statistics": PLAIN,
    "GET /settings": PLAIN,
    "GET /tenants": PLAIN,
    "POST /tenants": Request(FRESH),
    "POST /tenants/-/plan": Request(FRESH),
    "GET /tenants/-/slugs/{slug}": Request(given=lambda *_: _other("fresh")),
    "POST /tenants/-/import": Request({"text": LIST, "blueprint": "blog"}),
    "POST /tenants/-/rotate": Request({"slugs": ["vault"]}),
    "POST /tenants/-/announce": Request({"begins": "2036-11-28T02:00", "ends": "2036-11-28T04:00"}),
    "GET /tenants/{slug}": PLAIN,
    "PATCH /tenants/{slug}": Request({"name": "Acme & Söhne"}),
    "DELETE /tenants/{slug}": PLAIN,
    "GET /tenants/{slug}/destroy": PLAIN,
    "POST /tenants/{slug}/rename": Request({"to": "acme-2"}),
    "POST /tenants/{slug}/suspend": Request({"reason": "unpaid"}),
    "POST /tenants/{slug}/resume": Request(given=suspended),
    "POST /tenants/{slug}/activate": Request(given=trialing),
    "POST /tenants/{slug}/check": PLAIN,
    "GET /tenants/{slug}/usage": PLAIN,
    "GET /tenants/{slug}/caveats": PLAIN,
    "POST /tenants/{slug}/credentials": PLAIN,
    "POST /tenants/{slug}/login": Request({"resource": "pg"}, lambda *_: _other("vault")),
    "POST /tenants/{slug}/rotate-keys": PLAIN,
    "GET /tenants/{slug}/events": PLAIN,
    "GET /tenants/{slug}/leftovers": Request(given=lambda *_: _other("gone")),
    "POST /tenants/{slug}/support": Request({"reason": "a slow page"}),
    "POST /tenants/{slug}/support/{access}/end": Request(given=looking_in),
    "GET /support": PLAIN,
    "GET /signups": PLAIN,
    "GET /signups/-/invitations": PLAIN,
    "POST /signups/-/invitations": PLAIN,
    "DELETE /signups/-/invitations/{invitation}": Request(given=invited_to_sign_up),
    "GET /hostnames": PLAIN,
    "POST /hostnames": Request({"slug": "acme", "host": "www.acme.example"}),
    "DELETE /hostnames/{host}": Request(given=hosted),
    "GET /operations": PLAIN,
    "GET /operations/-/workers": PLAIN,
    "GET /operations/{operation_id}": PLAIN,
    "GET /operations/{operation_id}/items": PLAIN,
    "GET /operations/{operation_id}/events": PLAIN,
    "POST /operations/{operation_id}/resume": Request(given=failed),
    "POST /operations/{operation_id}/pause": Request(given=pausable),
    "POST /operations/{operation_id}/cancel": Request(given=queued),
    "GET /servers": PLAIN,
    "POST /servers": Request(_server),
    "POST /servers/-/plan": Request(_server),
    "POST /servers/-/check": Request({"name": "pg-spare"}),
    "GET /servers/{name}": PLAIN,
    "PATCH /servers/{name}": Request({"capacity": 10}),
    "DELETE /servers/{name}": PLAIN,
    "POST /servers/{name}/open": PLAIN,
    "POST /servers/{name}/drain": PLAIN,
    "POST /servers/{name}/close": PLAIN,
    "GET /migrations": PLAIN,
    "POST /migrations": PLAIN,
    "POST /migrations/-/plan": PLAIN,
    "GET /migrations/-/under-way": Request(given=migrating),
    "POST /migrations/-/rollback": Request({"slug": "acme"}),
    "POST /migrations/-/unpin": Request({"slug": "acme"}),
    "POST /migrations/-/rehearse": Request({"slugs": ["acme"]}),
    "GET /migrations/-/rehearsals/{operation_id}": Request(given=rehearsed),
    "GET /migrations/{operation_id}": Request(given=migrated),
    "GET /verifications": PLAIN,
    "POST /verifications": Request(ACME),
    "GET /verifications/-/last": PLAIN,
    "GET /verifications/{operation_id}": Request(given=verified),
    "GET /verifications/{operation_id}/summary": Request(given=verified),
    "GET /audit": PLAIN,
    "POST /audit/-/verify": PLAIN,
    "POST /secrets/-/rotate": PLAIN,
    "GET /admins": PLAIN,
    "POST /admins": Request({"mail": "new@example.org"}),
    "GET /admins/{admin}": PLAIN,
    "PATCH /admins/{admin}": Request({"name": "Eve"}),
    "DELETE /admins/{admin}": PLAIN,
    "POST /admins/{admin}/reset": PLAIN,
    "POST /admins/{admin}/disable": PLAIN,
    "POST /admins/{admin}/enable": PLAIN,
    "POST /admins/{admin}/assign": Request(ACME),
    "POST /admins/{admin}/unassign": Request(ACME),
    "POST /admins/{admin}/end-sessions": PLAIN,
    "POST /admins/{admin}/drop-factor": PLAIN,
    "GET /account": PLAIN,
    "PATCH /account": Request({"name": "Somebody else"}),
    "POST /account/password": Request({"old": PASSWORD, "new": PASSWORD + "!"}),
    "POST /account/end-other-sessions": PLAIN,
    "DELETE /account/sessions/{session}": PLAIN,
    "GET /tokens": PLAIN,
    "POST /tokens": Request({"name": "new", "scopes": ["tenants:read"]}),
    "DELETE /tokens/{token}": PLAIN,
    "GET /mail": PLAIN,
    "GET /mail/letters": PLAIN,
    "POST /mail/letters/{letter}/retry": Request(given=failed_letter),
    "GET /mail/held": PLAIN,
    "POST /mail/held/release": Request({"address": "held@example.org"}, failed_letter),
    "POST /mail/keys": Request({"algorithm": "ed25519"}),
    "GET /mail/check": PLAIN,
    "GET /organizations": PLAIN,
    "POST /organizations": Request({"name": "New", "mail": "it@example.org"}),
    "GET /organizations/{organization}": PLAIN,
    "PATCH /organizations/{organization}": Request({"name": "Renamed"}),
    "DELETE /organizations/{organization}": PLAIN,
    "POST /organizations/{organization}/assign": Request(ACME),
    "POST /organizations/{organization}/unassign": Request(ACME),
    "GET /organizations/{organization}/sso": PLAIN,
    "PUT /organizations/{organization}/sso": Request(SIGN_ON),
    "DELETE /organizations/{organization}/sso": PLAIN,
    "POST /organizations/{organization}/sso/check": PLAIN,
    "POST /organizations/{organization}/sso/trial": PLAIN,
    "POST /organizations/{organization}/sso/domains": Request({"domain": "new.example"}),
    "POST /organizations/{organization}/sso/domains/{domain}/prove": PLAIN,
    "DELETE /organizations/{organization}/sso/domains/{domain}": PLAIN,
    "GET /organizations/{organization}/scim": PLAIN,
    "PATCH /organizations/{organization}/scim": Request({"required": True}),
    "DELETE /organizations/{organization}/scim": PLAIN,
    "GET /organizations/{organization}/scim/people": PLAIN,
    "POST /organizations/{organization}/scim/tokens": Request({"name": "second"}),
    "DELETE /organizations/{organization}/scim/tokens/{token}": Request(given=scim_token),
}

PAGES: Final[dict[str, Request]] = {
    "GET ": PLAIN,
    "GET /": PLAIN,
    "GET /static": Request(more="/portal.css"),
    "GET /sign-in": PLAIN,
    "POST /sign-in": Request({"mail": "eve@example.org", "password": PASSWORD}),
    "POST /sign-out": PLAIN,
    "GET /link/{link}": Request(given=invited),
    "POST /link/{link}": Request({"password": PASSWORD}, invited),
    "GET /passkey/options": PLAIN,
    "POST /passkey": Request(lambda values: {"answer": values["answer"]}, with_passkey),
    "GET /forgot": PLAIN,
    "POST /forgot": Request({"mail": "nobody@example.org"}),  # for somebody a link is made once the answer is out
    "GET /palette": Request(more="?search=acme"),
    # tenants
    "GET /tenants/-/export.csv": PLAIN,
    "GET /tenants/-/import": PLAIN,
    "POST /tenants/-/import": Request({"text": LIST, "blueprint": "blog"}),
    "POST /tenants/-/many": Request({"slug": "acme", "action": "suspend"}),
    "GET /tenants/-/slug": Request(more="?slug=fresh"),
    "GET /tenants/-/made/{operation_id}": PLAIN,
    "GET /tenants/new": PLAIN,
    "POST /tenants/new": Request({**FRESH, "do": "create"}),
    "GET /tenants/{slug}": PLAIN,
    "GET /tenants/{slug}/connection": PLAIN,
    "POST /tenants/{slug}/credentials": PLAIN,
    "POST /tenants/{slug}/login": Request({"resource": "pg", "environment": "production"}, lambda *_: _other("vault")),
    "GET /tenants/{slug}/edit": PLAIN,
    "POST /tenants/{slug}/edit": Request({"name": "Acme & Söhne"}),
    "POST /tenants/{slug}/rename": Request({"to": "acme-2"}),
    "POST /tenants/{slug}/suspend": PLAIN,
    "POST /tenants/{slug}/activate": Request(given=trialing),
    "POST /tenants/{slug}/resume": Request(given=suspended),
    "POST /tenants/{slug}/hostnames": Request({"host": "www.acme.example"}),
    "POST /tenants/{slug}/hostnames/remove": Request({"host": "www.acme.example"}, hosted),
    "POST /tenants/{slug}/support": Request({"reason": "a slow page", "minutes": "5"}),
    "POST /tenants/{slug}/support/{access}/end": Request(given=looking_in),
    "GET /tenants/{slug}/delete": PLAIN,
    "POST /tenants/{slug}/delete": Request({"confirmed": "acme"}),
    # organizations
    "GET /organizations": PLAIN,
    "POST /organizations": Request({"name": "New", "mail": "it@example.org"}),
    "GET /organizations/{organization}": PLAIN,
    "POST /organizations/{organization}": Request({"name": "Renamed", "mail": "it@example.org"}),
    "POST /organizations/{organization}/assign": Request(ACME),
    "POST /organizations/{organization}/unassign": Request(ACME),
    "POST /organizations/{organization}/remove": Request({"confirm": "Holding"}),
    "GET /organizations/{organization}/sso": PLAIN,
    "POST /organizations/{organization}/sso": Request(SIGN_ON),
    "POST /organizations/{organization}/sso/remove": PLAIN,
    "POST /organizations/{organization}/sso/check": PLAIN,
    "POST /organizations/{organization}/sso/trial": PLAIN,
    "POST /organizations/{organization}/sso/domains": Request({"domain": "new.example"}),
    "POST /organizations/{organization}/sso/domains/prove": Request({"domain": "holding.example"}),
    "POST /organizations/{organization}/sso/domains/remove": Request({"domain": "holding.example"}),
    "GET /organizations/{organization}/scim": PLAIN,
    "POST /organizations/{organization}/scim/tokens": Request({"name": "second"}),
    "POST /organizations/{organization}/scim/tokens/{token}/revoke": Request(given=scim_token),
    "POST /organizations/{organization}/scim/require": Request({"required": "1"}),
    "POST /organizations/{organization}/scim/remove": Request({"confirm": "Holding"}),
    # sign-ups
    "GET /signups": PLAIN,
    "POST /signups": Request({"mail": "new@example.org"}),
    "POST /signups/invitations/{invitation}/remove": Request(given=invited_to_sign_up),
    # mail
    "GET /mail": PLAIN,
    "GET /mail/preview": PLAIN,
    "GET /mail/preview/html": PLAIN,
    "POST /mail/letters/{letter}/retry": Request(given=failed_letter),
    "POST /mail/release": Request({"address": "held@example.org"}, failed_letter),
    # admin users
    "GET /admins": PLAIN,
    "POST /admins": Request({"mail": "new@example.org"}),
    "GET /admins/{admin}": PLAIN,
    "POST /admins/{admin}": Request({"name": "Eve", "role": "admin"}),
    "POST /admins/{admin}/assign": Request(ACME),
    "POST /admins/{admin}/unassign": Request(ACME),
    "POST /admins/{admin}/reset": PLAIN,
    "POST /admins/{admin}/disable": PLAIN,
    "POST /admins/{admin}/enable": PLAIN,
    "POST /admins/{admin}/end-sessions": PLAIN,
    "POST /admins/{admin}/drop-factor": PLAIN,
    "POST /admins/{admin}/remove": Request({"confirm": "eve@example.org"}),
    # one's own account
    "GET /me": PLAIN,
    "POST /me/name": Request({"name": "Somebody else"}),
    "POST /me/prove": Request({"password": PASSWORD}),
    "POST /me/prove/passkey": Request(lambda values: {"answer": values["answer"]}, with_passkey),
    "POST /me/password": Request({"old": PASSWORD, "new": PASSWORD + "!"}),
    "POST /me/sessions/end-others": PLAIN,
    "POST /me/sessions/{session}/end": PLAIN,
    "POST /me/tokens": Request({"name": "new", "scopes": ["tenants:read"]}),
    "POST /me/tokens/{token}/revoke": PLAIN,
    "GET /me/second-factor": PLAIN,
    "POST /me/second-factor": Request(lambda values: {"sealed": values["sealed"], "code": values["code"]}, enrolling),
    "POST /me/second-factor/codes": Request(lambda values: {"code": values["code"]}, with_factor),
    "POST /me/second-factor/off": Request(lambda values: {"code": values["code"]}, with_factor),
    "GET /me/passkeys/options": PLAIN,
    "POST /me/passkeys": Request(lambda values: {"name": "phone", "answer": values["answer"]}, making_passkey),
    "POST /me/passkeys/{passkey}/remove": Request(given=with_passkey),
    # running the platform
    "GET /statistics": PLAIN,
    "GET /operations": PLAIN,
    "GET /operations/{operation_id}": PLAIN,
    "GET /operations/{operation_id}/steps": PLAIN,
    "GET /operations/{operation_id}/failures": PLAIN,
    "POST /operations/{operation_id}/{action}": Request(given=queued),
    "GET /migrations": PLAIN,
    "POST /migrations": PLAIN,
    "POST /migrations/rollback": Request({"tenant": "acme"}),
    "POST /migrations/unpin": Request({"tenant": "acme"}),
    "GET /migrations/{operation_id}/report.{kind}": Request(given=migrated),
    "GET /migrations/rehearsals/{operation_id}": Request(given=rehearsed),
    "GET /servers": PLAIN,
    "POST /servers": Request(_server),
    "GET /servers/{name}": PLAIN,
    "POST /servers/{name}/{action}": Request(given=lambda *_: _draining()),
    "GET /audit": PLAIN,
    "POST /audit/verify": PLAIN,
    "GET /audit/export": PLAIN,
    "GET /verify": PLAIN,
    "POST /verify": Request({"tenants": "acme"}),
    "GET /verify/{operation_id}": Request(given=verified),
    "GET /verify/{operation_id}/report.json": Request(given=verified),
    "GET /settings": PLAIN,
}


FORM: Final = {"slug": "fresh", "name": "Eve", "mail": "eve@example.com", "organization": "Fresh", "password": PASSWORD}

SIGNING_UP: Final[dict[str, Request]] = {
    "GET ": PLAIN,
    "POST ": Request(FORM),
    "GET /-/slug": Request(more="?slug=fresh"),
    "GET /link/{link}": Request(given=signing_up),
    "POST /link/{link}": Request({"password": PASSWORD}, signing_up),
    "GET /{ticket}": Request(given=signing_up),
    "POST /{ticket}": Request({"code": "123456", "password": PASSWORD}, signing_up),
    "GET /{ticket}/steps": Request(given=signed_up),
    "GET /export/{token}": Request(given=over),
    "POST /export/{token}": Request(given=over),
}


def _below(prefix: str, requests: Mapping[str, Request]) -> dict[str, Request]:
    return {address.replace(" ", f" {prefix}", 1): request for address, request in requests.items()}


PROVIDERS: Final[dict[str, Request]] = {
    "GET /{organization}/start": PLAIN,
    "GET /{organization}/callback": PLAIN,
    "GET /{organization}/metadata": PLAIN,
    "POST /{organization}/acs": PLAIN,
    "GET /{organization}/sign-out": PLAIN,
    "GET /{organization}/signed-out": PLAIN,
    "POST /{organization}/back-channel": PLAIN,
    "GET /{organization}/front-channel": PLAIN,
}

DIRECTORY: Final[dict[str, Request]] = {
    f"{method} /{{organization}}/v2{path}": PLAIN
    for path, methods in (
        ("/ServiceProviderConfig", "GET"),
        ("/ResourceTypes", "GET"),
        ("/ResourceTypes/{name}", "GET"),
        ("/Schemas", "GET"),
        ("/Schemas/{name}", "GET"),
        ("/Users", "GET POST"),
        ("/Users/{person}", "GET PUT PATCH DELETE"),
        ("/Groups", "GET POST"),
        ("/Groups/{group}", "GET PUT PATCH DELETE"),
        ("/Bulk", "POST"),
        ("/Me", "GET"),
        ("/.search", "POST"),
    )
    for method in methods.split()
}

REQUESTS: Final = {
    **_below("/api", API),
    **_below("/admin", PAGES),
    **_below("/signup", SIGNING_UP),
    **_below("/sso", PROVIDERS),
    **_below("/scim", DIRECTORY),
    PROVISIONED: Request(FRESH),
    "POST /hooks/payment": PLAIN,
}


async def _other(slug: str) -> Values:
    return {"slug": slug}


async def _draining() -> Values:
    return {"action": "drain"}


# --- making it ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def world(root: Path, postgres: Postgres) -> AsyncIterator[World]:
    """A storyfront with tenants, and everybody who comes to it."""
    place = root / "storyfront"
    shutil.copytree(ROOT / "examples" / "storyfront", place, ignore=shutil.ignore_patterns("__pycache__", "var"))
    asked = contextlib.ExitStack()
    known = asked.enter_context(names())
    with (place / "tenantry.toml").open("a") as toml:
        own = SETTINGS.replace("NAME", f"m{token_hex(4)}")  # others may have been on this server
        toml.write(own + f'[sso]\nresolvers = ["127.0.0.1:{known.port}"]\n')
    (place / "archive").mkdir()
    (place / "archive" / "0001_start.sql").write_text("CREATE TABLE page (id int);\n-- down\nDROP TABLE page;\n")
    (place / ".env").write_text(f"TENANTRY_SECRET_KEY={token_hex(32)}\n")
    config = load(place / "tenantry.toml")
    app = site(config)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(app.state.house.close)
        stack.callback(asked.close)
        base = stack.enter_context(contextlib.closing(sqlite3.connect(root / "base.sqlite", check_same_thread=False)))
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=HERE, trust_env=False))
        opened = await app.state.house.opened()
        live = stack.enter_context(
            contextlib.closing(sqlite3.connect(config.data / "control.sqlite", check_same_thread=False))
        )
        live.execute("PRAGMA synchronous = OFF")
        made = World(opened, live, base, client)
        made.device = Authenticator(config.url, "localhost")
        await _fill(made, postgres.administrator())
        await _sign_on(made, known)
        made.keep()
        made.persons["tenant user"] = await _tenant_user(config, made)
        yield made


async def _fill(world: World, url: str) -> None:
    platform = world.platform
    await platform.servers.add("pg-first", "postgres", url)
    await platform.servers.add("pg-spare", "postgres", url)
    await platform.servers.drain("pg-spare")
    for slug, blueprint in (("acme", "site"), ("umbrella", "site"), ("gone", "blog"), ("vault", "archive")):
        created = await platform.tenants.create(slug, NAMES.get(slug), blueprint=blueprint)
        made = (await platform.operations.finish(created.id)).operation
        assert made.state is journal.State.DONE, made.error
        if slug == "acme":
            world.values["operation_id"] = created.id
    await platform.operations.finish((await platform.tenants.destroy("gone")).id)
    await platform.organizations.create("Holding", "it@example.org")
    await platform.organizations.assign("Holding", ["vault"])
    world.values |= {"slug": "acme", "name": "pg-spare", "organization": "Holding", "kind": "json", "action": "cancel"}
    world.values |= {"admin": "eve@example.org", "url": url}
    await _admin(world, "eve", AdminRole.ADMIN)
    world.persons |= {
        "anonymous": Somebody(),
        "superadmin": await _admin(world, "root", AdminRole.SUPERADMIN),
        "admin": await _admin(world, "ana", AdminRole.ADMIN),
        "other admin": await _admin(world, "bob", AdminRole.ADMIN),
    }
    await platform.admins.assign("ana@example.org", ["acme", "vault"])
    await platform.admins.assign("bob@example.org", ["umbrella"])
    small = await platform.tokens.create("small", ["tenants:read"], admin="root@example.org")
    world.persons["small token"] = Somebody({"Authorization": f"Bearer {small.token}"})
    world.persons["expired"] = await _expired(world)


async def _sign_on(world: World, known: Names) -> None:
    sso = world.platform.sso
    await sso.set("Holding", **SIGN_ON)
    claimed = (await sso.add_domain("Holding", "holding.example")).domains[0]
    known.texts[claimed.record] = [claimed.value]
    world.values |= {"domain": claimed.domain, "person": "-", "group": "-"}
    world.values["scim_token"] = (await world.platform.scim.token("Holding", "provider")).row.id


async def _admin(world: World, name: str, role: AdminRole) -> Somebody:
    platform, mail = world.platform, f"{name}@example.org"
    link = (await platform.admins.invite(mail, role=role)).link
    signed = await world.here.sign_in.take(link, PASSWORD, Client("127.0.0.1"))
    assert signed is not None
    who = await world.here.sign_in.by_session(signed.session)
    token = await platform.tokens.create(name, SCOPES, admin=mail)
    other = await platform.tokens.create("other", SCOPES, admin=mail)
    own = {"id": who.admin_id, "session": str(who.session), "token": other.row.id}
    headers = {"Authorization": f"Bearer {token.token}"}
    return Somebody(headers, f"{SESSION}={signed.session}", csrf(world.here, signed.session), own)


async def _expired(world: World) -> Somebody:
    """What a superadmin had until a moment ago."""
    found = await _admin(world, "past", AdminRole.SUPERADMIN)
    past = "datetime('now', '-1 second')"
    world.run(f"UPDATE admin_session SET expires = {past} WHERE id = '{found.own['session']}'")
    world.run(f"UPDATE api_token SET expires = {past} WHERE admin_id = '{found.own['id']}'")
    return Somebody(found.headers, found.cookie, found.csrf)


async def _tenant_user(config: Config, world: World) -> Somebody:
    """The tenant's first admin, signed in at its own address; all that her browser got is shown here, too."""
    first = await world.platform.tenants.credentials("acme")
    assert first is not None
    sys.path.insert(0, str(config.root))
    try:
        application = importlib.import_module("storyfront.app").app
    finally:
        sys.path.remove(str(config.root))
    runtime = connect(config)
    await runtime.start()
    warnings.filterwarnings("ignore", category=SADeprecationWarning)  # of the example's; undone with the fixture
    transport = httpx.ASGITransport(TenantMiddleware(application, runtime=runtime))
    address = "http://acme.localhost"
    try:
        async with httpx.AsyncClient(transport=transport, base_url=address, follow_redirects=True) as browser:
            entrance = "/.tenantry/sign-in"
            form = re.search(r'name="csrf" value="([^"]+)"', (await browser.get(entrance)).text)
            assert form is not None
            data = {"csrf": form[1], "login": first.login, "password": first.password, "next": "/desk"}
            desk = await browser.post(entrance, data=data)
            assert desk.url.path == "/desk", desk.text
            cookies = dict(browser.cookies)
    finally:
        await runtime.stop()
    session = max(cookies.values(), key=len)
    shown = "; ".join(f"{name}={value}" for name, value in {**cookies, SESSION: session}.items())
    return Somebody({"Authorization": f"Bearer {session}"}, shown)
