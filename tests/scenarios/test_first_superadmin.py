"""The first superadmin: made by a link that the terminal shows, once, and never twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import pytest

import ground as g
from portals import PASSWORD, Desk, desk
from tenantry.identity import first
from tenantry.identity.principal import AdminRole

ANA = {"mail": "Ana@Example.org", "name": "Ana & Söhne", "password": PASSWORD}


@pytest.fixture
async def empty(ground: g.Ground) -> AsyncIterator[Desk]:
    """A portal without anybody."""
    async with desk(ground) as found:
        yield found


async def offered(at: Desk) -> str:
    """The path of a fresh link."""
    link = await at.platform.first_link()
    assert link is not None
    return urlsplit(link).path


@contextlib.asynccontextmanager
async def stranger(at: Desk) -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which nobody is signed in."""
    async with httpx.AsyncClient(transport=at.transport, base_url="http://localhost", follow_redirects=True) as client:
        yield client


async def superadmins(at: Desk) -> list[str]:
    """The mail addresses of those who chose a password."""
    return [row.mail for row in await at.platform.admins.list() if row.role == "superadmin" and not row.invited]


async def test_the_link_makes_a_superadmin_who_is_signed_in(empty: Desk) -> None:
    """The page asks who one is; afterwards the link leads nowhere, no other is made, and the log tells all of it."""
    async with stranger(empty) as browser:
        assert "Nobody runs this platform yet" in (await browser.get("/admin/sign-in")).text
        link = await offered(empty)
        page = await browser.get(link)
        assert all(f'name="{field}"' in page.text for field in ("mail", "name", "password"))
        entered = await browser.post(link, data=ANA)
        assert (entered.status_code, entered.url.path) == (200, "/admin/")
        assert "ana@example.org" in entered.text
        again = await browser.post(link, data=ANA | {"mail": "eve@example.org"})
        assert again.status_code == 410
        assert "Nobody runs this platform" not in (await browser.get("/admin/sign-in")).text
    assert await superadmins(empty) == ["ana@example.org"]
    assert await empty.platform.first_link() is None
    actions = [entry.action for entry in await empty.platform.audit.list()]
    assert {"admin.first", "admin.password", "admin.sign_in"} <= set(actions)
    await empty.platform.audit.verify()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def shared(
    ground: g.Ground, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    """The same, whose control database is on SQLite or on PostgreSQL."""
    if request.param == "postgres":
        monkeypatch.setenv("TENANTRY_PLATFORM__CONTROL", request.getfixturevalue("postgres_url"))
    async with desk(ground) as found:
        yield found


async def test_a_fresh_link_voids_the_one_before(shared: Desk) -> None:
    """Of any number of processes that start at once, one link opens."""
    links = [
        urlsplit(str(link)).path for link in await asyncio.gather(*(shared.platform.first_link() for _ in "12345"))
    ]
    async with stranger(shared) as browser:
        opens = [link for link in links if (await browser.get(link)).status_code == 200]
    assert len(set(links)) == 5
    assert len(opens) == 1


async def test_two_at_once_by_one_link_make_one_superadmin(shared: Desk) -> None:
    """The other one is told that it was used."""
    link = await offered(shared)
    async with stranger(shared) as browser, stranger(shared) as other:
        sent = (one.post(link, data=ANA | {"mail": f"{n}@example.org"}) for n, one in enumerate((browser, other)))
        answers = await asyncio.gather(*sent)
    assert sorted(answer.status_code for answer in answers) == [200, 410]
    assert len(await superadmins(shared)) == 1


async def test_the_link_runs_out(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a day it opens nothing, and the page says how to get another one."""
    monkeypatch.setattr(first, "HOLDS", timedelta(seconds=-1))
    link = await offered(empty)
    async with stranger(empty) as browser:
        for answer in (await browser.get(link), await browser.post(link, data=ANA)):
            assert answer.status_code == 410
            assert "tenantry serve" in answer.text
    assert await superadmins(empty) == []


async def test_the_link_leads_nowhere_once_an_invited_one_came_first(empty: Desk) -> None:
    """Whoever was invited by a command as a superadmin leaves nothing to be had by the terminal's link."""
    link = await offered(empty)
    await empty.person("root")
    async with stranger(empty) as browser:
        assert (await browser.post(link, data=ANA)).status_code == 410
    assert await superadmins(empty) == ["root@example.org"]


WRONG = (
    ({"mail": "no address"}, "is no mail address"),
    ({"mail": ""}, "is no mail address"),
    ({"mail": "x@example.org\r\nBcc: y@example.org"}, "is no mail address"),
    ({"mail": "staff@example.org"}, "superadmin"),
    ({"name": "x" * 500}, "longer than"),
    ({"password": "short"}, "8 to"),
)


async def test_what_is_wrong_is_told_and_the_link_still_opens(empty: Desk) -> None:
    """What was typed is kept, but for the password; nobody's own password is changed by it."""
    await empty.person("staff", AdminRole.ADMIN)
    link = await offered(empty)
    async with stranger(empty) as browser:
        for wrong, told in WRONG:
            answer = await browser.post(link, data=ANA | wrong)
            assert answer.status_code in (409, 422), wrong
            assert told in answer.text, wrong
            assert PASSWORD not in answer.text
            assert ("Ana &amp; Söhne" in answer.text) == ("name" not in wrong)
        assert await superadmins(empty) == []
        assert (await browser.post(link, data=ANA)).url.path == "/admin/"


async def test_somebody_invited_may_come_by_the_link(empty: Desk) -> None:
    """Her invitation is used up by it, and she runs the whole platform."""
    invited = await empty.platform.admins.invite("ana@example.org")
    link = await offered(empty)
    async with stranger(empty) as browser:
        assert (await browser.post(link, data=ANA)).url.path == "/admin/"
        assert (await browser.get(f"/admin/link/{invited.link}")).status_code == 410
    assert await superadmins(empty) == ["ana@example.org"]


async def test_a_form_of_another_site_makes_nobody(empty: Desk) -> None:
    """A link that leaked is not taken by a page elsewhere in somebody's browser."""
    link = await offered(empty)
    async with stranger(empty) as browser:
        answer = await browser.post(link, data=ANA, headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 403
    assert await superadmins(empty) == []
