"""Sign-up closed, by invitation, without a mail, with limits; and a worker killed in the middle of it."""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path

import ground as g
import people_world as w
import signup_world as s
from tenantry.config import load
from tenantry.identity import work
from tenantry.registry import tables
from tenantry.registry.database import now
from tenantry.web import Own
from tenantry.web.front import front

CLOSED = s.SIGNUP.replace("open = true", "open = false")
INVITED = s.SIGNUP + "invite_only = true\n"
UNPROVED = s.SIGNUP.replace("work = 4", "work = 0") + "verify_mail = false\n"


async def test_closed_says_so(tmp_path: Path) -> None:
    """There is no form, and nothing that is sent is taken."""
    async with s.world(tmp_path, CLOSED) as here:
        browser = await here.browser()
        page = await browser.get("/signup")
        assert (page.status_code, "Nobody can sign up" in page.text, "<form" in page.text) == (403, True, False)
        form = {"slug": "acme", "name": "Ana", "mail": "a@example.com", "organization": "Acme", "terms": "1"}
        assert (await browser.post("/signup", data=form)).status_code == 403
        assert not await g.rows(here.platform, "sign_up")


async def test_an_invitation_is_good_once_and_for_its_address(tmp_path: Path) -> None:
    """Sent by mail; without one, used, taken back or by another address nobody signs up."""
    async with s.world(tmp_path, INVITED) as here, g.working(here.platform):
        browser = await here.browser()
        assert (await browser.get("/signup")).status_code == 403
        made = await here.platform.signups.invite("ana@example.com")
        assert made.mailed
        (mail,) = await here.mails("ana@example.com")
        assert made.link in w.text_of(mail)
        page = await browser.get(made.link)
        assert 'value="ana@example.com"' in page.text
        invitation = made.link.partition("=")[2]
        form = {"slug": "acme", "name": "Ana", "organization": "Acme", "terms": "1", "invitation": invitation}

        async def send(mail: str, slug: str = "acme") -> int:
            challenge = s.challenge_of((await browser.get("/signup", params={"invitation": invitation})).text)
            answer = s.solve(challenge) if challenge else ""
            sent = form | {"slug": slug, "mail": mail, "challenge": challenge, "answer": answer}
            return (await browser.post("/signup", data=sent)).status_code

        assert await send("eve@example.com") == 403
        assert await send("ana@example.com") == 303
        assert await send("ana@example.com", "second") in (403, 429)
        other = await here.platform.signups.invite()
        assert [row.id for row in await here.platform.signups.invitations()] == [other.row.id]
        await here.platform.signups.uninvite(other.row.id)
        assert (await browser.get(other.link)).status_code == 403
        late = await here.platform.signups.invite()
        assert (await browser.get(late.link)).status_code == 200
        async with here.platform.registry.write() as tx:
            table = tables.sign_up_invitation
            await tx.execute(table.update().where(table.c.id == late.row.id).values(expires=g.EPOCH))
        assert (await browser.get(late.link)).status_code == 403


async def test_without_a_mail_the_tenant_is_made_at_once(tmp_path: Path) -> None:
    """By the form alone, where `verify_mail = false`."""
    async with s.world(tmp_path, UNPROVED) as here, g.working(here.platform):
        browser = await here.browser()
        place = (await here.begin("acme", browser)).headers["location"]
        await here.finish()
        assert "Acme is ready" in (await browser.get(place)).text
        assert not here.inbox.mails


async def test_limits_hold_for_an_address_and_a_domain(tmp_path: Path) -> None:
    """One more is refused, from elsewhere it goes on; a network of IPv6 is one address."""
    limited = s.SIGNUP.replace("per_address = 0", "per_address = 2").replace("per_domain = 0", "per_domain = 4")
    async with s.world(tmp_path, limited) as here:

        async def send(number: int, address: str, domain: str = "one.example") -> int:
            browser = await here.browser(address)
            return (await here.begin(f"site-{number}", browser, mail=f"p{number}@{domain}")).status_code

        assert [await send(number, "203.0.113.9") for number in range(3)] == [303, 303, 429]
        assert [await send(number, f"2001:db8::{number}") for number in range(3, 6)] == [303, 303, 429]
        assert await send(6, "203.0.113.10") == 429  # the fifth of this domain
        assert await send(7, "203.0.113.10", "two.example") == 303


async def test_disposable_addresses_are_taken_where_a_platform_says_so(tmp_path: Path) -> None:
    """`disposable = true`; else they are refused."""
    async with s.world(tmp_path, s.SIGNUP + "disposable = true\n") as here:
        assert (await here.begin("acme", mail="me@mailinator.com")).status_code == 303


async def test_without_scripts_one_waits(tmp_path: Path) -> None:
    """A form that grew old enough is taken without an answer, once; too old, it is not."""
    async with s.world(tmp_path) as here:
        browser = await here.browser()
        form = await here.form("slow", browser, answer="")
        early = await browser.post("/signup", data=form)
        assert early.status_code == 429
        assert s.challenge_of(early.text) == form["challenge"]  # so that it goes on to grow old
        here.platform.signups.clock = lambda: now() + work.HOLDS + timedelta(minutes=1)
        assert (await browser.post("/signup", data=form)).status_code == 429
        here.platform.signups.clock = lambda: now() + work.WAIT
        assert (await browser.post("/signup", data=form)).status_code == 303
        again = form | {"slug": "slow-2", "mail": "b@example.com"}
        assert (await browser.post("/signup", data=again)).status_code == 429


async def test_the_second_address_is_the_same_page(tmp_path: Path) -> None:
    """At /sandbox/register, too, behind the platform's own host."""
    settings = s.SIGNUP + 'also_at = "/sandbox/register"\n'
    async with s.world(tmp_path, settings) as here:
        config = load(tmp_path / "platform" / "tenantry.toml")
        own = Own(config, front(config))
        here.app = own
        browser = await here.browser()
        try:
            for path in ("/signup", "/sandbox/register"):
                page = await browser.get(path)
                assert (page.status_code, 'action="/signup"' in page.text) == (200, True)
            assert (await browser.get("/sandbox")).status_code == 404
        finally:
            await own.close()


async def test_a_worker_killed_in_the_middle_loses_nobody(tmp_path: Path) -> None:
    """Another one goes on: the owner is the one admin, and no second one waits."""
    async with s.world(tmp_path) as here:
        ground, browser, slugs = here.ground, await here.browser(), [f"killed-{number}" for number in range(6)]
        with ground.worker() as first:
            await g.lives(here.platform, first)
            for slug in slugs:
                await here.begin(slug, browser)
            for slug in slugs:
                link = s.link_of((await here.mails(f"{slug}@example.com"))[0])
                assert (await browser.post(link)).status_code == 303
            first.send_signal(signal.SIGKILL)
            first.wait()
        with ground.worker():
            for operation in await here.platform.operations.list(verb="create"):
                assert (await g.ended(here.platform, operation)).operation.state == "done"
        for slug in slugs:
            users = ground.sql(slug, "SELECT login, role, password FROM tenantry_user")
            assert users == [(f"{slug}@example.com", "admin", "")]
            assert not (await here.platform.tenants.show(slug)).credentials_wait
        assert not await g.rows(here.platform, "secret")
        assert not await g.faults_of(here.platform)
