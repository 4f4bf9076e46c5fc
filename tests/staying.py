"""What a tenant's user does between signing in and out, the same on every kind of database."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from tenantry.context import tenant_context
from tenantry.errors import AccountError, ForeignSession, InvalidToken
from tenantry.model import Environment
from tenantry.refusals import GrantRefused, TokenReused
from tenantry.runtime import Runtime
from tenantry.runtime.accounts import User
from tenantry.runtime.sessions import Client


async def stays(runtime: Runtime, here: Environment, other: Environment) -> None:
    """A user of `here` has sessions, tokens and a provider, and none of them is anything at `other`."""
    login = f"eva-{secrets.token_hex(4)}@example.com"
    with tenant_context(here):
        user = await runtime.accounts.create(login, "correct horse")
        cookie = await _sessions(runtime, user)
        access = await _tokens(runtime, user)
        await _provided(runtime, user)
    with tenant_context(other):
        with pytest.raises(ForeignSession):
            runtime.sessions.read(cookie)
        with pytest.raises(InvalidToken, match="another tenant"):
            await runtime.grants.user(access.encode())
        assert list(await runtime.accounts.sessions(user.id)) == []
        with pytest.raises(AccountError):
            await runtime.accounts.get(user.id)


async def _sessions(runtime: Runtime, user: User) -> str:
    accounts, sessions = runtime.accounts, runtime.sessions
    first = await accounts.begin(user, Client("192.0.2.1", "Büro 🙂"), outside="Sid-1")
    second = await accounts.begin(user)
    with pytest.raises(InvalidToken, match="over"):  # an organization's, whom this tenant has not
        await accounts.signed_in(sessions.read(first))
    assert {one.agent for one in await accounts.sessions(user.id)} == {"Büro 🙂", ""}
    assert (await accounts.end_outside("sid-1"), await accounts.end_outside("Sid-1")) == (0, 1)
    with pytest.raises(InvalidToken, match="over"):
        await accounts.signed_in(sessions.read(first))
    assert await accounts.signed_in(sessions.read(second)) == user
    return second


async def _tokens(runtime: Runtime, user: User) -> str:
    grants = runtime.grants
    stolen, kept = await grants.give(user), await grants.give(user)
    found = await asyncio.gather(*(grants.refresh(stolen.refresh) for _ in range(4)), return_exceptions=True)
    got = [one for one in found if not isinstance(one, BaseException)]
    assert (len(got), all(isinstance(one, GrantRefused) for one in found if one not in got)) == (1, True)
    assert any(isinstance(one, TokenReused) for one in found)
    with pytest.raises(GrantRefused):
        await grants.refresh(got[0].refresh)
    with pytest.raises(InvalidToken, match="signed out"):
        await grants.user(stolen.access.encode())
    again = await grants.refresh(kept.refresh)
    assert await grants.user(again.access.encode()) == user
    return again.access


async def _provided(runtime: Runtime, user: User) -> None:
    provision, login = runtime.accounts.provision, f"ada-{secrets.token_hex(4)}@example.com"
    made = await asyncio.gather(*(provision("https://idp.example", login, login) for _ in range(3)))
    assert len({one.id for one in made}) == 1
    with pytest.raises(AccountError, match="another user's login"):
        await provision("https://idp.example", login, user.login)
    assert (await provision("https://idp.example", login.upper(), f"x-{login}")).id != made[0].id
