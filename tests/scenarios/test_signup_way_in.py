"""Into the new tenant: a code of one use, the wizard of the platform, and the values it fills."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

import ground as g
import people_world as w
import signup_world as s
from entrances import Browser
from tenantry.application import connect
from tenantry.context import current_tenant, tenant_context
from tenantry.registry import signups
from tenantry.runtime import Runtime, TenantMiddleware

pytestmark = pytest.mark.asyncio(loop_scope="module")

WIZARD = """
[[signup.wizard]]
title = "Your site"
text = "What visitors see first."
fields = [
  {value = "site_name", label = "What is it called?", required = true},
  {value = "color", kind = "color", label = "Its color"},
]
[[signup.wizard]]
title = "Some numbers"
fields = [
  {value = "share", kind = "number", label = "Share"},
  {value = "kind", kind = "choice", label = "Kind", options = ["shop", "blog"]},
  {value = "news", kind = "yes/no", label = "Send news"},
]
"""
LOOK = '\n[users]\ncolor = "color"\n'
VALUES = 'site_name = "{{name}}"\ncolor = "#000000"\nkind = "blog"\nnews = true\n'


class Here(s.World):
    """The platform, its pages, its mail, and the runtime of its application."""

    runtime: Runtime
    served: Any

    async def enter(self, slug: str, page: str) -> httpx.AsyncClient:
        """Send the form of the platform's page to the tenant."""
        code = re.search(r'name="code" value="([^"]+)"', page)
        assert code, page
        client = await self.at(slug)
        answer = await client.post("/.tenantry/enter", data={"code": code[1]}, headers={"Sec-Fetch-Site": "same-site"})
        assert answer.status_code == 303, answer.text
        assert "HttpOnly" in answer.headers["set-cookie"]
        return client

    async def send(self, client: httpx.AsyncClient, step: int, data: dict[str, str], **headers: str) -> httpx.Response:
        """Send a step of the wizard, by the form of the page."""
        csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', (await client.get(f"/.tenantry/welcome/{step}")).text)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"csrf": csrf[1] if csrf else ""} | data
        return await client.post(f"/.tenantry/welcome/{step}", data=sent, headers=named)

    async def users(self, slug: str) -> list[tuple[str, str, str]]:
        """Login, name and role of a tenant's users."""
        with tenant_context(self.runtime.environment(slug)):
            return [(user.login, user.name, user.role.value) for user in await self.runtime.accounts.list()]

    async def at(self, slug: str) -> httpx.AsyncClient:
        """A browser at a tenant's own host."""
        transport = httpx.ASGITransport(self.served, raise_app_exceptions=False)
        made = httpx.AsyncClient(transport=transport, base_url=f"http://{slug}.localhost")
        return await self.stack.enter_async_context(made)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Tells whose it is."""
    body = current_tenant().name.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Here]:
    """One platform for all of them, with a worker and an application."""
    toml = g.TOML.replace('site_name = "{{name}}"\n', VALUES)
    root = tmp_path_factory.mktemp("welcome")
    settings = s.SIGNUP + WIZARD + LOOK + "\n[runtime]\nsecure_cookies = false\n"
    async with s.world(root, settings, toml) as made, g.working(made.platform):
        found = Here(made.platform, made.inbox, made.app, made.stack, made.ground)
        found.runtime = connect(made.platform.config)
        await found.runtime.start()
        found.served = TenantMiddleware(application, runtime=found.runtime)
        try:
            yield found
        finally:
            await found.runtime.stop()


async def test_she_is_signed_in_and_led_through_the_wizard(here: Here) -> None:
    """From the platform's page into the tenant, as its admin by her name; each answer is one of the tenant's values."""
    browser = await here.browser()
    page = (await browser.get(await here.signed_up("acme", browser))).text
    client = await here.enter("acme", page)
    first = await client.get("/.tenantry/welcome/1")
    assert (first.status_code, "Step 1 of 2" in first.text, "Your site" in first.text) == (200, True, True)
    assert "/entrance/color/000000.css" in first.text  # in the tenant's own look, as its other pages
    users = await here.users("acme")
    assert users == [("acme@example.com", "Ana Ruiz", "admin")]
    refused = await here.send(client, 1, {"site_name": " ", "color": "#12ab9f"})
    assert (refused.status_code, "is empty" in refused.text, "#12ab9f" in refused.text) == (422, True, True)
    sent = await here.send(client, 1, {"site_name": "Acmé <b>", "color": "#12ab9f"})
    assert sent.status_code == 303
    left = await client.get("/")  # it can be left, and taken up again
    assert left.text == "Acme"
    second = await client.get(sent.headers["location"])
    assert "Step 2 of 2" in second.text
    assert "Acmé &lt;b&gt;" in (await client.get("/.tenantry/welcome/1")).text
    last = await here.send(client, 2, {"share": "7", "kind": "shop"})
    assert (last.status_code, last.headers["location"]) == (303, "/")
    settings = (await here.platform.tenants.show("acme")).tenant.settings
    assert settings == {"site_name": "Acmé <b>", "color": "#12ab9f", "share": 7, "kind": "shop", "news": False}
    assert (await client.get("/.tenantry/welcome/1")).headers["location"] == "/"
    actors = {entry.actor for entry in await here.platform.audit.list(tenant="acme") if entry.action == "tenant.edit"}
    assert actors == {"tenant:acme@example.com"}


async def test_the_way_in_is_good_once_and_at_one_tenant(here: Here) -> None:
    """Used, altered, late, of another tenant, or sent by GET, it opens nothing."""
    browser = await here.browser()
    page = (await browser.get(await here.signed_up("once", browser))).text
    await here.signed_up("other")
    code = re.search(r'name="code" value="([^"]+)"', page)
    assert code
    other, client = await here.at("other"), await here.at("once")
    refused = [await other.post("/.tenantry/enter", data={"code": code[1]})]
    refused.append(await client.get("/.tenantry/enter", params={"code": code[1]}))
    refused += [await client.post("/.tenantry/enter", data={"code": bad}) for bad in ("", "x", f"{code[1]}0", "ö.ö")]
    assert (await client.post("/.tenantry/enter", data={"code": code[1]})).status_code == 303
    refused.append(await client.post("/.tenantry/enter", data={"code": code[1]}))
    assert {answer.status_code for answer in refused} == {410}
    assert not any("set-cookie" in answer.headers for answer in refused)


async def test_the_wizard_is_the_admins(here: Here) -> None:
    """A stranger is led to sign in; another site's form, a step too far and nonsense change nothing."""
    browser = await here.browser()
    client = await here.enter("mine", (await browser.get(await here.signed_up("mine", browser))).text)
    stranger = await here.at("mine")
    asked = await stranger.get("/.tenantry/welcome")
    assert asked.headers["location"] == "/.tenantry/sign-in?next=/.tenantry/welcome"
    data = {"site_name": "Mine"}
    for forged in (here.send(client, 1, data, Sec_Fetch_Site="cross-site"), here.send(client, 1, data | {"csrf": "0"})):
        answer = await forged
        assert (answer.status_code, 'value="Mine"' in answer.text) == (403, True)
    assert (await client.get("/.tenantry/welcome/2")).headers["location"] == "/.tenantry/welcome/1"
    for odd in ("0", "3", "x", "１", "99999999999999999999"):
        assert (await client.get(f"/.tenantry/welcome/{odd}")).status_code == 404
    for bad in ({"color": "red"}, {"color": "#12345g"}, {"site_name": "x" * 3000}, {"site_name": "a\x00b"}):
        assert (await here.send(client, 1, data | bad)).status_code == 422
    assert not (await here.platform.tenants.show("mine")).tenant.settings
    row = (await here.platform.tenants.show("mine")).row
    async with here.platform.registry.read() as tx:
        assert await signups.welcome(tx, row.id) == 0


async def test_the_wizard_is_not_for_those_who_are_no_admins(here: Here) -> None:
    """Somebody else who is signed in is told so, in place of being sent to sign in again and again."""
    await here.signed_up("staffed")
    with tenant_context(here.runtime.environment("staffed")):
        user = await here.runtime.accounts.create("bo@example.com", s.PASSWORD)
        cookie = here.runtime.sessions.set_cookie(await here.runtime.accounts.begin(user), "")
    client = await here.at("staffed")
    client.headers["Cookie"] = cookie.partition(";")[0]
    page = await client.get("/.tenantry/welcome")
    assert (page.status_code, "for the admins" in page.text) == (403, True)


async def test_she_chooses_a_password_within_it(here: Here) -> None:
    """At first, and others at her account; a short one and another site's form are refused."""
    browser = await here.browser()
    client = await here.enter("chosen", (await browser.get(await here.signed_up("chosen", browser))).text)
    mine = Browser(client)
    page = (await mine.get("welcome")).text
    assert ("Choose a password" in page, 'href="/.tenantry/welcome/1">Later' in page) == (True, True)
    assert "You have no password" not in (await mine.get("me")).text  # she has just proved who she is
    refused = await mine.send("welcome/password", {"password": "short"})
    assert (refused.status_code, "8 to 1024 characters" in refused.text) == (422, True)
    assert (await mine.send("welcome/password", {"csrf": "0", "password": s.PASSWORD})).status_code == 403
    kept = await mine.send("welcome/password", {"password": s.PASSWORD})
    assert (kept.status_code, kept.headers["location"]) == (303, "/.tenantry/welcome/1")
    assert "Step 1 of 2" in (await mine.get("welcome")).text
    assert (await Browser(await here.at("chosen")).sign_in("chosen@example.com", s.PASSWORD)).status_code == 303
    await mine.send("welcome/password", {"password": "another one of hers"})  # that is for the first one alone
    again = await Browser(await here.at("chosen")).sign_in("chosen@example.com", "another one of hers")
    assert again.status_code == 401


async def test_without_a_password_she_comes_back_by_a_mail(here: Here) -> None:
    """Who left it for later signs in by no password at all; a link to a new one comes to her mailbox."""
    browser = await here.browser()
    client = await here.enter("later", (await browser.get(await here.signed_up("later", browser))).text)
    here.ground.sql("later", "UPDATE tenantry_session SET proved = proved - 3600")  # she signed in an hour ago
    for page, form in (("welcome/password", {"password": s.PASSWORD}), ("me/password", {"new": s.PASSWORD})):
        late = await Browser(client).send(page, form)
        assert (late.status_code, "Password forgotten?" in late.text) == (403, True)
    other = Browser(await here.at("later"))
    for wrong in ("", s.PASSWORD):
        assert (await other.sign_in("later@example.com", wrong)).status_code == 401
    await other.send("forgot", {"login": "later@example.com"})

    async def came() -> list[str]:
        letters = [w.text_of(mail) for mail in await here.mails("later@example.com")]
        return [link for text in letters for link in re.findall(r"/\.tenantry/(link/[\w-]+)", text)]

    (link,) = await g.until(came, "the letter")
    assert (await other.send(link, {"password": s.PASSWORD})).status_code == 303
    assert (await Browser(await here.at("later")).sign_in("later@example.com", s.PASSWORD)).status_code == 303
