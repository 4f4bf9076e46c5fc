"""Users of a tenant and their sessions."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher
from itsdangerous import URLSafeTimedSerializer

from staying import stays
from tenantry.context import reading, tenant_context
from tenantry.credentials import Role, derive_key, hash_generated, new_password
from tenantry.errors import AccountError, ForeignSession, InvalidToken, NoTenant, SignInRefused
from tenantry.model import new_id
from tenantry.runtime.sessions import Client, digest

# --- cookies ------------------------------------------------------------------------------------------------------


async def test_cookie_of_a_tenant(world: Any, started: Any) -> None:
    """A cookie is good at its own tenant and refused at every other."""
    acme, other = world.tenant("acme"), world.tenant("other")
    sessions = (await started()).sessions
    with tenant_context(acme):
        value = sessions.issue("user-1", "secret")
        found = sessions.read(value)
        assert (found.user, found.id) == ("user-1", digest("secret"))
        assert sessions.find({sessions.name(): value}) == found
        assert sessions.find({}) is None
    with tenant_context(other), pytest.raises(ForeignSession):
        sessions.read(value)
    with pytest.raises(NoTenant):
        sessions.read(value)


async def test_forged_cookies(world: Any, started: Any) -> None:
    """A cookie that was altered, cut short, made up or signed for another tenant under its own key is refused."""
    acme, other = world.tenant("acme"), world.tenant("other")
    sessions = (await started()).sessions
    with tenant_context(other):
        foreign = sessions.issue("user-1", "secret")
        key = derive_key(sessions._keys(other), "session")
    forged = URLSafeTimedSerializer(key, "tenantry.session").dumps([acme.tenant.id, "production", "user-1", "secret"])
    with tenant_context(acme):
        value = sessions.issue("user-1", "secret")
        for wrong in ("", "x", "a.b.c", value[:-1], value[1:], value + "x", forged, "é" * 10, value * 100):
            with pytest.raises(InvalidToken):
                sessions.read(wrong)
        with pytest.raises(ForeignSession):
            sessions.read(foreign)


async def test_cookie_ends(world: Any, started: Any) -> None:
    """A cookie that is too old is refused."""
    acme = world.tenant("acme")
    sessions = (await started(session_seconds=-1)).sessions
    with tenant_context(acme), pytest.raises(InvalidToken, match="over"):
        sessions.read(sessions.issue("user-1", "secret"))


async def test_cookie_attributes(world: Any, started: Any) -> None:
    """A cookie is HttpOnly and Lax, secure by setting, bound to its host where it may be, else to its path."""
    plain, secure = (await started()).sessions, (await started(secure_cookies=True)).sessions
    end = "Max-Age=1209600; HttpOnly; SameSite=Lax"
    assert plain.set_cookie("v") == f"tenantry_session=v; Path=/; {end}"
    assert secure.set_cookie("v") == f"__Host-tenantry_session=v; Path=/; {end}; Secure"
    assert secure.set_cookie("v", "/t/acme") == f"tenantry_session=v; Path=/t/acme; {end}; Secure"
    assert secure.end_cookie().startswith("__Host-tenantry_session=; Path=/; Max-Age=0;")


# --- accounts -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def accounts(world: Any, started: Any) -> Any:
    """The accounts of a tenant that is the current one during the test."""
    acme = world.tenant("acme")
    runtime = await started()
    return acme, runtime.accounts


async def test_create_and_authenticate(accounts: Any) -> None:
    """A user signs in with login and password; capitals and outer spaces of the login do not matter."""
    acme, users = accounts
    with tenant_context(acme):
        eva = await users.create(" Eva@Example.com ", "correct horse", name="Eva", role=Role.ADMIN)
        assert (eva.login, eva.role, eva.active) == ("eva@example.com", Role.ADMIN, True)
        assert await users.authenticate("EVA@example.com", "correct horse") == eva
        assert await users.list() == [eva] == [await users.get(eva.id)]
        for login, password in (
            ("eva@example.com", "wrong horse"),
            ("nobody", "correct horse"),
            ("", ""),
            ("\ud800", "\ud800"),
        ):
            with pytest.raises(SignInRefused):
                await users.authenticate(login, password)
        with pytest.raises(AccountError, match="taken"):
            await users.create("EVA@example.com", "another one")
        for login, password in (
            ("", "long enough"),
            ("a\nb", "long enough"),
            ("x" * 300, "long enough"),
            ("x", "short"),
        ):
            with pytest.raises(AccountError):
                await users.create(login, password)
        for password in ("x" * 1025, "long enough \ud800"):
            with pytest.raises(AccountError):
                await users.create("x", password)
        assert len(await users.list()) == 1


async def test_users_of_two_tenants(world: Any, accounts: Any) -> None:
    """A user of one tenant is unknown at another."""
    acme, users = accounts
    other = world.tenant("other")
    with tenant_context(acme):
        eva = await users.create("eva", "correct horse")
    await asyncio.sleep(0.05)
    with tenant_context(other):
        with pytest.raises(SignInRefused):
            await users.authenticate("eva", "correct horse")
        with pytest.raises(AccountError):
            await users.get(eva.id)
    with pytest.raises(NoTenant):
        await users.list()


async def test_generated_password(world: Any, accounts: Any) -> None:
    """The password that was made with the tenant opens it, and stays as it is stored."""
    acme, users = accounts
    password = new_password()
    stored = hash_generated(password, derive_key(users._keys(acme), "password"))
    insert(world, acme, "admin", "admin", stored)
    with tenant_context(acme):
        assert (await users.authenticate("admin", password)).role == Role.ADMIN
        with pytest.raises(SignInRefused):
            await users.authenticate("admin", password[:-1])
        with pytest.raises(SignInRefused):
            await users.authenticate("admin", stored)
    assert password_of(world, acme) == stored


async def test_outdated_hash(world: Any, accounts: Any) -> None:
    """A hash of weaker parameters is replaced at the next sign-in, without ending sessions."""
    acme, users = accounts
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")
    insert(world, acme, "eva", "user", weak)
    with tenant_context(acme):
        assert (await users.authenticate("eva", "correct horse")).epoch == 0
        strong = password_of(world, acme)
        assert strong != weak
        assert (await users.authenticate("eva", "correct horse")).epoch == 0
    assert password_of(world, acme) == strong


async def test_the_last_admin_stays(accounts: Any) -> None:
    """The last active admin can be neither disabled nor made something else; a disabled admin does not count."""
    acme, users = accounts
    with tenant_context(acme):
        eva = await users.create("eva", "correct horse", role=Role.ADMIN)
        bob = await users.create("bob", "correct horse", role=Role.ADMIN)
        results = await asyncio.gather(users.disable(eva.id), users.disable(bob.id), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["AccountError", "NoneType"]
        (last,) = [user for user in await users.list() if user.active]
        for attempt in (
            users.disable(last.id),
            users.set_role(last.id, Role.USER),
            users.set_role(last.id, Role.SUPERUSER),
        ):
            with pytest.raises(AccountError, match=f"'{last.login}' is the last active admin"):
                await attempt
        await users.set_role(last.id, Role.ADMIN)
        for user in (eva, bob):
            await users.enable(user.id)
        await users.set_role(last.id, Role.USER)
        with pytest.raises(AccountError, match="no such user"):
            await users.disable(new_id())
        with pytest.raises(ValueError):
            await users.set_role(last.id, "god")


async def test_sessions_end(world: Any, accounts: Any) -> None:
    """A new password, being disabled and `end_sessions` each end a user's sessions at once."""
    acme, users = accounts
    sessions = world.runtimes[0].sessions
    with tenant_context(acme):
        eva = await users.create("eva", "correct horse")
        for end in (
            users.end_sessions(eva.id),
            users.set_password(eva.id, "another horse"),
            users.disable(eva.id),
        ):
            now = await users.get(eva.id)
            cookie = sessions.read(await users.begin(now))
            assert await users.signed_in(cookie) == now
            await end
            with pytest.raises(InvalidToken):
                await users.signed_in(cookie)
            assert list(await users.sessions(eva.id)) == []
            with pytest.raises(SignInRefused):
                await users.begin(now)
        with pytest.raises(SignInRefused):
            await users.authenticate("eva", "another horse")
        await users.enable(eva.id)
        assert (await users.authenticate("eva", "another horse")).id == eva.id
        with pytest.raises(SignInRefused):
            await users.authenticate("eva", "correct horse")


async def test_sessions_are_listed_and_ended_one_by_one(world: Any, accounts: Any) -> None:
    """A user's sessions tell where they came from; one that is ended opens nothing more, the others go on."""
    acme, users = accounts
    sessions = world.runtimes[0].sessions
    with tenant_context(acme):
        eva, bob = await users.create("eva", "correct horse"), await users.create("bob", "correct horse")
        first = await users.begin(eva, Client("192.0.2.7", "Firefox\0\n" * 100))
        second = await users.begin(eva, Client("2001:db8::1"), via="passkey")
        await users.begin(bob)
        found = {one.via: one for one in await users.sessions(eva.id)}
        assert (found["password"].address, found["password"].agent) == ("192.0.2.7", ("Firefox" * 100)[:300])
        assert found["passkey"].expires - found["passkey"].created == timedelta(days=14)
        assert found["passkey"].id == sessions.read(second).id
        assert not await users.end_session(bob.id, found["password"].id)
        assert await users.end_session(eva.id, found["password"].id)
        assert not await users.end_session(eva.id, found["password"].id)
        with pytest.raises(InvalidToken, match="over"):
            await users.signed_in(sessions.read(first))
        assert await users.signed_in(sessions.read(second)) == eva
        third = await users.begin(eva, Client(session=second))  # whoever signs in leaves the session before
        with pytest.raises(InvalidToken, match="over"):
            await users.signed_in(sessions.read(second))
        assert [one.id for one in await users.sessions(eva.id)] == [sessions.read(third).id]
        for broken in ("", "x", first[:-1], "\0"):
            await users.begin(eva, Client(session=broken))


async def test_what_is_kept_opens_nothing(world: Any, accounts: Any) -> None:
    """A session is kept as a hash, and one that the key of the tenant did not sign is asked for nowhere."""
    acme, users = accounts
    sessions = world.runtimes[0].sessions
    with tenant_context(acme):
        eva = await users.create("eva", "correct horse")
        cookie = await users.begin(eva)
        (kept,) = await users.sessions(eva.id)
        with pytest.raises(InvalidToken, match="over"):
            await users.signed_in(sessions.read(sessions.issue(eva.id, kept.id)))
        bob = await users.create("bob", "correct horse")
        secret = sessions._serializer(acme).loads(cookie)[3]
        with pytest.raises(InvalidToken, match="over"):
            await users.signed_in(sessions.read(sessions.issue(bob.id, secret)))
        odd = sessions._serializer(acme).dumps([acme.tenant.id, "production", eva.id, 0])
        with pytest.raises(InvalidToken, match="over"):
            await users.signed_in(sessions.read(odd))
        short = sessions._serializer(acme).dumps([acme.tenant.id, "production", eva.id])
        with pytest.raises(InvalidToken):
            sessions.read(short)


async def test_sessions_run_out(world: Any, started: Any) -> None:
    """A session that is too old is over wherever it is looked at, and its row goes with the next sign-in."""
    acme = world.tenant("acme")
    made = await started(session_seconds=0)
    users = made.accounts
    with tenant_context(acme):
        eva = await users.create("eva", "correct horse")
        cookie = made.sessions.read(await users.begin(eva))
        with pytest.raises(InvalidToken, match="over"):
            await users.signed_in(cookie)
        assert list(await users.sessions(eva.id)) == []
        await users.begin(eva)
    connection = sqlite3.connect(world.root / acme.home / "db.sqlite")
    assert connection.execute("SELECT count(*) FROM tenantry_session").fetchone() == (0,)
    connection.close()


async def test_when_a_session_was_seen(world: Any, accounts: Any) -> None:
    """The moment of its last use is written once in some minutes, and not while nothing may be changed."""
    acme, users = accounts
    connection = sqlite3.connect(world.root / acme.home / "db.sqlite")
    with tenant_context(acme):
        eva = await users.create("eva", "correct horse")
        cookie = world.runtimes[0].sessions.read(await users.begin(eva))
        (begun,) = connection.execute("SELECT seen FROM tenantry_session").fetchone()
        for before, quiet, written in ((299, False, False), (301, True, False), (301, False, True)):
            connection.execute("UPDATE tenantry_session SET seen = ?", (begun - before,))
            connection.commit()
            with reading() if quiet else nullcontext():
                await users.signed_in(cookie)
            (seen,) = connection.execute("SELECT seen FROM tenantry_session").fetchone()
            assert (seen >= begun) is written
    connection.close()


# --- a provider's users -------------------------------------------------------------------------------------------


async def test_users_of_a_provider(accounts: Any) -> None:
    """A provider's user is made once and brought up to date; no password opens it."""
    acme, users = accounts
    with tenant_context(acme):
        made = await users.provision("https://idp.example", "s-1", "Eva@Example.com", "Eva", Role.ADMIN)
        assert (made.login, made.role, made.issuer, made.subject) == (
            "eva@example.com",
            Role.ADMIN,
            "https://idp.example",
            "s-1",
        )
        again = await users.provision("https://idp.example", "s-1", "eva.new@example.com", "Eva N.", Role.USER)
        assert (again.id, again.login, again.name) == (made.id, "eva.new@example.com", "Eva N.")
        assert again.role is Role.ADMIN  # the last admin stays one
        await users.create("bob", "correct horse", role=Role.ADMIN)
        assert (await users.provision("https://idp.example", "s-1", "eva.new@example.com")).role is Role.ADMIN
        demoted = await users.provision("https://idp.example", "s-1", "eva.new@example.com", "Eva N.", Role.USER)
        assert demoted.role is Role.USER
        for password in ("", "correct horse"):
            with pytest.raises(SignInRefused):
                await users.authenticate("eva.new@example.com", password)
        other = await users.provision("https://other.example", "s-1", "otto@example.com")
        assert (other.id != made.id, other.role) == (True, Role.USER)
        await users.disable(other.id)
        with pytest.raises(SignInRefused, match="disabled"):
            await users.provision("https://other.example", "s-1", "otto@example.com")


async def test_no_local_user_is_taken_over(accounts: Any) -> None:
    """A provider that asserts somebody by a local user's login, or by another provider's, gets neither."""
    acme, users = accounts
    with tenant_context(acme):
        eva = await users.create("eva@example.com", "correct horse")
        for login in ("eva@example.com", " EVA@example.com"):
            with pytest.raises(AccountError, match="another user's login"):
                await users.provision("https://idp.example", "s-1", login)
        made = await users.provision("https://idp.example", "s-1", "eva2@example.com")
        with pytest.raises(AccountError, match="another user's login"):
            await users.provision("https://idp.example", "s-1", "eva@example.com")
        with pytest.raises(AccountError, match="another user's login"):
            await users.provision("https://evil.example", "s-1", "eva2@example.com")
        assert (await users.get(eva.id), await users.get(made.id)) == (eva, made)
        await users.rename(eva.id, "eva.local@example.com")
        taken = await users.provision("https://idp.example", "s-1", "eva@example.com")
        assert (taken.id, (await users.get(eva.id)).login) == (made.id, "eva.local@example.com")
        with pytest.raises(AccountError, match="taken"):
            await users.rename(eva.id, "eva@example.com")
        for issuer, subject in (("", "s"), ("i", ""), ("i" * 301, "s"), ("i", "s" * 256), ("i\0", "s")):
            with pytest.raises(AccountError, match="names nobody"):
                await users.provision(issuer, subject, "x@example.com")


async def test_users_stay_at_their_tenant(world: Any, accounts: Any) -> None:
    """Sessions, tokens and a provider's users lie in the tenant's own database."""
    acme, _ = accounts
    other = world.tenant("other")
    await stays(world.runtimes[0], acme, other)


async def test_a_provider_asserts_one_user_many_times_at_once(accounts: Any) -> None:
    """Of sign-ins of a new person at the same moment, one makes the user and the others find it."""
    acme, users = accounts
    with tenant_context(acme):
        asserted = [users.provision("https://idp.example", "s-1", "eva@example.com", "Eva") for _ in range(8)]
        assert len({user.id for user in await asyncio.gather(*asserted)}) == 1
        assert len(await users.list()) == 1


async def test_blueprint_without_users(world: Any, started: Any) -> None:
    """A blueprint without a users' table says so."""
    acme = world.tenant("acme")
    users = (await started(users={"site": None})).accounts
    with tenant_context(acme), pytest.raises(AccountError, match="no users' table"):
        await users.list()


def test_accounts_without_an_event_loop(world: Any) -> None:
    """Code without an event loop waits for accounts, and the tenant goes along."""
    acme = world.tenant("acme")
    runtime = world.runtime()
    with tenant_context(acme):
        eva = runtime.wait(runtime.accounts.create("eva", "correct horse"))
        assert runtime.wait(runtime.accounts.authenticate("eva", "correct horse")) == eva
    with pytest.raises(NoTenant):
        runtime.wait(runtime.accounts.list())


def insert(world: Any, environment: Any, login: str, role: str, password: str) -> None:
    connection = sqlite3.connect(world.root / environment.home / "db.sqlite")
    values = (new_id(), login, role, password, "2026-01-01T00:00:00+00:00")
    connection.execute("INSERT INTO tenantry_user (id, login, role, password, created) VALUES (?, ?, ?, ?, ?)", values)
    connection.commit()
    connection.close()


def password_of(world: Any, environment: Any) -> str:
    connection = sqlite3.connect(world.root / environment.home / "db.sqlite")
    (found,) = connection.execute("SELECT password FROM tenantry_user").fetchone()
    connection.close()
    return str(found)
