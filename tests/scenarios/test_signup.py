"""Signing up: a form, a mail with a link and a code, and a tenant with its first admin."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import ground as g
import people_world as w
import signup_world as s
from tenantry.registry import tables

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[s.World]:
    """One platform for all of them, with a worker."""
    async with s.world(tmp_path_factory.mktemp("signup")) as made, g.working(made.platform):
        yield made


async def test_a_link_in_a_mail_makes_the_tenant(here: s.World) -> None:
    """Its first admin has the address as login, and no password yet; terms and address are in the audit log."""
    browser = await here.browser("203.0.113.9")
    sent = await here.begin("acme", browser, organization="Acme & Söhne")
    assert sent.status_code == 303
    waits = await browser.get(sent.headers["location"])
    assert "acme@example.com" in waits.text
    (mail,) = await here.mails("acme@example.com")
    assert mail["Subject"] == "Confirm Acme & Söhne"
    link = s.link_of(mail)
    looked = await browser.get(link)
    assert (looked.status_code, ">Make it<" in looked.text and "Acme &amp; Söhne" in looked.text) == (200, True)
    assert not await here.platform.tenants.list(search="acme")  # looking at a link spends nothing
    made = await browser.post(link)
    assert made.status_code == 303
    await here.finish()
    found = await here.platform.tenants.show("acme")
    assert (found.row.name, found.row.plan, found.row.status) == ("Acme & Söhne", "free", "active")
    assert not found.credentials_wait
    ready = await browser.get(made.headers["location"])
    assert "Acme &amp; Söhne is ready" in ready.text
    assert 'action="http://acme.localhost/.tenantry/enter"' in ready.text
    assert "form-action 'self' http://acme.localhost;" in ready.headers["content-security-policy"]
    entry = next(one for one in await here.platform.audit.list(tenant="acme") if one.action == "signup.confirm")
    detail = json.loads(entry.detail) if isinstance(entry.detail, str) else entry.detail
    assert (detail["terms"], detail["address"], detail["mail"]) == ("2026-11", "203.0.113.9", "acme@example.com")
    for path in (link, sent.headers["location"]):  # neither link nor first ticket opens anything any more
        assert (await browser.get(path)).status_code == 410


async def test_a_code_confirms_where_one_signed_up(here: s.World) -> None:
    """A wrong one is counted, and after five of them the right one is refused, too; the link holds."""
    browser = await here.browser()
    place = (await here.begin("coded", browser)).headers["location"]
    code = s.code_of((await here.mails("coded@example.com"))[0])
    wrong = f"{(int(code) + 1) % 10**6:06}"
    refused = await browser.post(place, data={"code": wrong})
    assert (refused.status_code, "4 tries are left" in refused.text) == (422, True)
    right = await browser.post(place, data={"code": f" {code[:3]} {code[3:]}"})
    assert right.status_code == 303
    await here.finish()
    assert "Coded is ready" in (await browser.get(place)).text
    place = (await here.begin("guessed", browser)).headers["location"]
    mail = (await here.mails("guessed@example.com"))[0]
    wrong = f"{(int(s.code_of(mail)) + 1) % 10**6:06}"
    guesses = [browser.post(place, data={"code": wrong}) for _ in range(8)]
    assert {answer.status_code for answer in await asyncio.gather(*guesses)} == {422}
    late = await browser.post(place, data={"code": s.code_of(mail)})
    assert (late.status_code, "Follow the link" in late.text, 'name="code"' in late.text) == (422, True, False)
    assert (await browser.post(s.link_of(mail))).status_code == 303


async def test_who_began_it_gets_nothing_where_another_confirms(here: s.World) -> None:
    """Somebody who signs up with another's address gets nowhere once she confirms it."""
    stranger, owner = await here.browser("198.51.100.1"), await here.browser()
    begun = await here.begin("hers", stranger)
    await owner.post(s.link_of((await here.mails("hers@example.com"))[0]))
    await here.finish()
    page = await stranger.get(begun.headers["location"])
    assert (page.status_code, ".tenantry/enter" in page.text) == (410, False)


@pytest.mark.parametrize(
    ("slug", "said"),
    [
        ("www", "kept for the platform"),
        ("Big", "capital letters"),
        ("a--b", "two hyphens"),
        ("-a", "begins or ends with a hyphen"),
        ("аcme", "letters of another script that look like"),
        ("taken", "'taken' is taken"),
        ("taker-0ne", "looks like 'taker-one', which is taken"),
        ("adrnin", "looks like 'admin', which is kept for the platform"),
        ("b1og", "looks like 'blog'"),
        ("x" * 64, "longer than 63"),
    ],
)
async def test_a_slug_is_checked_as_one_types(here: s.World, slug: str, said: str) -> None:
    """By its rules, names that are kept, taken, or look like one of these; another one is offered that is free."""
    for taken in ("taken", "taker-one"):
        if not await here.platform.tenants.list(search=taken):
            await here.platform.tenants.create(taken)
    browser = await here.browser()
    page = (await browser.get("/signup/-/slug", params={"slug": slug})).text.replace("&#39;", "'")
    assert said in page
    offered = re.search(r'data-take="([^"]+)"', page)
    assert offered
    assert "is free" in (await browser.get("/signup/-/slug", params={"slug": offered[1]})).text
    refused = await here.begin(slug, browser, mail="typed@example.com")
    assert refused.status_code in (409, 422)
    assert said in refused.text.replace("&#39;", "'")
    assert 'value="typed@example.com"' in refused.text


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"mail": "nobody"}, 422, "is no mail address"),
        ({"mail": "me@mailinator.com"}, 422, "gives addresses away"),
        ({"mail": "me@some.mailinator.com"}, 422, "gives addresses away"),
        ({"terms": ""}, 422, "terms are not accepted"),
        ({"name": " "}, 422, "Your name is empty"),
        ({"organization": "a\x00b"}, 422, "control characters"),
        ({"answer": ""}, 429, "Wait 10 seconds"),
        ({"answer": "-1"}, 429, "Wait 10 seconds"),
        ({"challenge": "0.0.x.y"}, 429, "Wait 10 seconds"),
        ({"challenge": "ö"}, 429, "Wait 10 seconds"),
        ({"name": "x" * 3000}, 422, ""),
    ],
)
async def test_a_form_that_keeps_no_rule_holds_nothing(
    here: s.World, changes: dict[str, str], status: int, said: str
) -> None:
    """What is wrong is told, and the name stays free."""
    refused = await here.begin("nothing-held", **changes)
    assert (refused.status_code, said in refused.text) == (status, True), s.told(refused)
    assert (await here.platform.signups.check("nothing-held")).problem is None


async def test_work_is_good_once(here: s.World) -> None:
    """The same answer does not carry a second form."""
    browser = await here.browser()
    form = await here.form("worked", browser)
    assert (await browser.post("/signup", data=form)).status_code == 303
    again = await browser.post("/signup", data=form | {"slug": "worked-2", "mail": "b@example.com"})
    assert again.status_code == 429


async def test_a_form_from_elsewhere_does_nothing(here: s.World) -> None:
    """Neither signing up nor confirming."""
    browser = await here.browser(**{"Sec-Fetch-Site": "same-site"})
    assert (await here.begin("forged", browser)).status_code == 403
    assert (await here.platform.signups.check("forged")).problem is None


async def test_links_name_the_platform_whatever_the_host_says(here: s.World) -> None:
    """A Host that somebody made up stands in no mail."""
    browser = await here.browser(Host="evil.example")
    form = await here.form("poison", browser)
    await browser.post("/signup", data=form, headers={"X-Forwarded-Host": "evil.example"})
    (mail,) = await here.mails("poison@example.com")
    assert "evil" not in w.text_of(mail) + w.text_of(mail, "html")


async def test_a_name_is_free_again_when_its_time_is_over(here: s.World) -> None:
    """A sign-up that nobody confirmed leaves no row, and its link opens nothing."""
    await here.begin("left-alone")
    link = s.link_of((await here.mails("left-alone@example.com"))[0])
    assert (await here.platform.signups.check("left-alone")).problem is not None
    async with here.platform.registry.write() as tx:
        await tx.execute(tables.sign_up.update().where(tables.sign_up.c.slug == "left-alone").values(expires=g.EPOCH))
    assert (await here.platform.signups.check("left-alone")).problem is None
    assert (await (await here.browser()).get(link)).status_code == 410
    assert (await here.begin("left-alone", mail="other@example.com")).status_code == 303
    assert len([row for row in await g.rows(here.platform, "sign_up") if row["slug"] == "left-alone"]) == 1
