"""How tenants' users prove who they are, on each kind of server that their tables lie on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pyotp
import pytest

import servers
from authenticator import Authenticator
from fleets import Fleet
from mariadb import MariaDB
from tenantry.codes import CODES, STEP
from tenantry.context import tenant_context
from tenantry.errors import AccountError, SignInRefused
from tenantry.model import Environment
from tenantry.refusals import LinkInvalid, TooManyTries
from tenantry.runtime import Runtime
from tenantry.runtime.proofs import FORGOT, INVITE, RESET
from tenantry.tries import FREE, keys

Start = Callable[..., Awaitable[Runtime]]


async def proves(runtime: Runtime, acme: Environment, other: Environment) -> None:
    """Everything that proves somebody, of one tenant; nothing of it is another's."""
    accounts, proofs = runtime.accounts, runtime.proofs
    with tenant_context(acme):
        ada = await accounts.invite("Ada@Example.com", "Ada")
        with pytest.raises(AccountError, match="taken"):
            await accounts.invite("ada@example.com")
        assert [user.login for user in await accounts.search("A_a")] == []
        assert await accounts.search("ADA") == [ada]
        first, second = [await proofs.new_link(ada.id, INVITE) for _ in range(2)]
        forgot = [await proofs.new_link(ada.id, FORGOT) for _ in range(2)]
        with pytest.raises(LinkInvalid):
            await proofs.owner(first)
        assert [await proofs.owner(link) for link in (second, *forgot)] == [(ada, INVITE), (ada, FORGOT), (ada, FORGOT)]
    with tenant_context(other), pytest.raises(LinkInvalid):
        await proofs.owner(second)
    with tenant_context(acme):
        taken = await asyncio.gather(
            *(proofs.take(second, "a long password") for _ in range(4)), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in taken) == ["LinkInvalid"] * 3 + ["User"]
        with pytest.raises(LinkInvalid):
            await proofs.owner(forgot[0])
        assert await accounts.authenticate("ada@example.com", "a long password") == await accounts.get(ada.id)
        assert len(await proofs.new_link(ada.id, RESET)) > 40
        secret = proofs.enrol(ada, "here")[0]
        codes = await proofs.confirm(ada, secret, pyotp.TOTP(secret).at(int(time.time()) - STEP))
        with pytest.raises(AccountError, match="already"):
            await proofs.confirm(ada, secret, pyotp.TOTP(secret).now())
        used = await asyncio.gather(*(proofs.is_code(ada.id, codes[0]) for _ in range(4)))
        assert (sorted(used), await proofs.codes_left(ada.id)) == ([False, False, False, True], CODES - 1)
        assert [await proofs.is_code(ada.id, pyotp.TOTP(secret).now()) for _ in range(2)] == [True, False]
        await proofs.drop_factor(ada.id)
        assert (await proofs.codes_left(ada.id), (await accounts.get(ada.id)).second_factor) == (0, False)
        await _passkeys(runtime, ada.id)
        await _tries(runtime)
        await _events(runtime, ada.id)
    with tenant_context(other):
        await proofs.begin(keys("ada", "10.0.0.1", None))  # nobody guessed here
        assert [one.what for one in await accounts.events() if one.user == ada.id] == []


async def _passkeys(runtime: Runtime, user: str) -> None:
    proofs, ada = runtime.proofs, await runtime.accounts.get(user)
    site = proofs.site("acme.example", ["https://acme.example"])
    device = Authenticator("https://acme.example", "acme.example")
    made = device.register(await proofs.to_register(site, ada))
    await proofs.add_passkey(site, ada, "Mäx’ phone", made)
    with pytest.raises(AccountError, match="too late, or twice"):
        await proofs.add_passkey(site, ada, "again", made)
    again = replace(device, count=3).register(await proofs.to_register(site, ada))
    with pytest.raises(AccountError, match="there already"):
        await proofs.add_passkey(site, ada, "again", again)
    signed = device.sign(site.to_sign_in())
    entered = await asyncio.gather(*(proofs.by_passkey(site, signed) for _ in range(3)), return_exceptions=True)
    assert [one for one in entered if not isinstance(one, SignInRefused)] == [ada]
    (kept,) = await proofs.passkeys(user)
    assert (kept.name, bool(kept.used)) == ("Mäx’ phone", True)
    assert [await proofs.remove_passkey(user, kept.id) for _ in range(2)] == [True, False]


async def _events(runtime: Runtime, user: str) -> None:
    accounts = runtime.accounts
    before = [one.what for one in reversed(await accounts.events(user))]
    kept = ["made", *["link"] * 4, "password", "link", "factor_on", "recovered", "factor_off", "passkey_added"]
    assert [what for what in before if what != "refused"] == [*kept, "passkey_removed"]
    unknown = [accounts.authenticate("nobody@example.com", "guess") for _ in range(6)]
    await asyncio.gather(*unknown, return_exceptions=True)
    ended = [accounts.begin(await accounts.get(user)) for _ in range(4)]
    cookies = await asyncio.gather(*ended)
    given = [runtime.grants.give(await accounts.get(user)) for _ in range(4)]
    await asyncio.gather(*given)
    await accounts.sign_out(runtime.sessions.read(cookies[0]))
    found = await accounts.events(limit=200)
    assert sum(one.times for one in found if (one.what, one.detail, one.user) == ("refused", "password", "")) == 6
    assert [one.what for one in found[:5]] == ["sign_out", *["tokens"] * 4]
    paged = [*(first := await accounts.events(limit=3)), *await accounts.events(after=first[-1].mark, limit=200)]
    assert paged == found
    runtime.accounts.trail._swept.clear()
    runtime.accounts.trail._seconds = 0  # nothing is kept
    await asyncio.gather(*(accounts.trail.sweep(user) for _ in range(3)))
    runtime.accounts.trail._seconds = 86400
    assert await accounts.events() == []


async def _tries(runtime: Runtime) -> None:
    counted = keys("ada", "10.0.0.1", None)
    tried = [runtime.proofs.begin(counted) for _ in range(FREE["unknown"] + 6)]
    found = await asyncio.gather(*tried, return_exceptions=True)
    assert found.count(None) == FREE["unknown"]
    assert all(isinstance(one, TooManyTries) for one in found if one is not None)
    await runtime.proofs.passed(counted)
    await runtime.proofs.begin(counted)


@pytest.mark.postgres
async def test_on_postgresql(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Links, second factors, passkeys and tries; of many at once each counts, and one wins."""
    fleet.server("pg1", postgres)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    await proves(await started(), acme, other)


@pytest.mark.postgres
async def test_in_tables_that_tenants_share(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Likewise behind row-level security."""
    fleet.server("pg1", postgres)
    acme, other = fleet.rows("pg1", postgres, ["acme", "other"])
    await proves(await started(), acme, other)


async def test_on_mariadb(fleet: Fleet, started: Start, mariadb_server: MariaDB) -> None:
    """Likewise."""
    acme, other = fleet.maria("db", mariadb_server, ["acme", "other"])
    await proves(await started(), acme, other)
