"""Users of a tenant and their sessions."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest
from argon2 import PasswordHasher
from itsdangerous import URLSafeTimedSerializer

from tenantry.context import tenant_context
from tenantry.credentials import Role, derive_key, hash_generated, new_password
from tenantry.errors import AccountError, ForeignSession, InvalidToken, NoTenant, SignInRefused
from tenantry.model import new_id

# --- cookies ------------------------------------------------------------------------------------------------------


async def test_cookie_of_a_tenant(world: Any, started: Any) -> None:
    """A cookie is good at its own tenant and refused at every other."""
    acme, other = world.tenant("acme"), world.tenant("other")
    sessions = (await started()).sessions
    with tenant_context(acme):
        value = sessions.issue("user-1", 3)
        found = sessions.read(value)
        assert (found.user, found.epoch) == ("user-1", 3)
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
        foreign = sessions.issue("user-1", 3)
        key = derive_key(sessions._keys(other), "session")
    forged = URLSafeTimedSerializer(key, "tenantry.session").dumps([acme.tenant.id, "production", "user-1", 3])
    with tenant_context(acme):
        value = sessions.issue("user-1", 3)
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
        sessions.read(sessions.issue("user-1", 0))


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
            cookie = sessions.read(sessions.issue(now.id, now.epoch))
            assert await users.signed_in(cookie) == now
            await end
            with pytest.raises(InvalidToken):
                await users.signed_in(cookie)
        with pytest.raises(SignInRefused):
            await users.authenticate("eva", "another horse")
        await users.enable(eva.id)
        assert (await users.authenticate("eva", "another horse")).id == eva.id
        with pytest.raises(SignInRefused):
            await users.authenticate("eva", "correct horse")


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
