"""What happened to the accounts of a tenant's users: kept in its own database, bounded, shown to whom it concerns."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pyotp
import pytest

import entrances as e
import ground as g
import people_world as w
from tenantry import tries
from tenantry.codes import STEP
from tenantry.context import acting, reading, tenant_context
from tenantry.credentials import Role
from tenantry.errors import AccountError, InvalidToken, SignInRefused
from tenantry.refusals import InvalidRequest, TokenReused
from tenantry.runtime import proofs, trail
from tenantry.runtime.trail import SAID, What

ANA = "ana@example.org"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> g.Ground:
    """A platform with two tenants."""
    ground = g.Ground(tmp_path_factory.mktemp("events") / "platform", e.TOML)
    asyncio.run(e.prepare(ground, "acme", "umbrella"))
    return ground


@pytest.fixture
async def here(platform: g.Ground, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[e.Entry]:
    """Their entrances, to whose users nothing happened yet."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    monkeypatch.setattr(proofs, "wait", lambda kind, count: w.waits(kind, count))
    for slug in ("acme", "umbrella"):
        for table in ("tenantry_try", "tenantry_event"):
            platform.sql(slug, f"DELETE FROM {table}")
        platform.sql(slug, "DELETE FROM tenantry_user WHERE login <> 'admin@' || 'acme.localhost'")
    async with e.entry(platform) as found:
        yield found


async def events(here: e.Entry, user: str | None = None, slug: str = "acme") -> list[tuple[str, str]]:
    """What happened, and how, the oldest first."""
    with tenant_context(here.runtime.environment(slug)):
        found = await here.runtime.accounts.events(user)
    return [(one.what, one.detail) for one in reversed(found)]


# --- what is kept ---------------------------------------------------------------------------------------------------


async def test_a_visit_leaves_a_trail(here: e.Entry) -> None:
    """Account, refusal, sign-in, sign-out: with address and browser, at this tenant alone."""
    ana = await here.user(ANA)
    browser = await here.browser(address="203.0.113.9")
    await browser.sign_in(ANA, "a secret typed wrong")
    await browser.sign_in(ANA)
    await browser.send("sign-out")
    with tenant_context(here.runtime.environment("acme")):
        found = list(reversed(await here.runtime.accounts.events(ana.id)))
    assert [(one.what, one.detail) for one in found] == [
        (What.MADE, "user"),
        (What.REFUSED, "password"),
        (What.SIGN_IN, "password"),
        (What.SIGN_OUT, ""),
    ]
    assert [one.address for one in found] == ["", *["203.0.113.9"] * 3]
    assert {one.agent for one in found[1:]} == {browser.client.headers["user-agent"]}
    assert {(one.user, one.login, one.by, one.times) for one in found} == {(ana.id, ANA, "", 1)}
    assert await events(here, slug="umbrella") == []


async def test_what_one_does_to_ones_own_account(here: e.Entry) -> None:
    """Factor on and off, recovery codes and their use, password, name of nobody's concern, sessions ended."""
    ana = await here.user(ANA)
    browser = await here.signed_in(ANA)
    sealed, secret = await _enrolment(browser)
    code = pyotp.TOTP(secret).at(int(time.time()) - STEP)
    shown = await browser.send("me/second-factor", {"sealed": sealed, "code": code})
    recovery = shown.text.partition("<code>")[2].partition("</code>")[0]
    await browser.send("me/name", {"name": "Ana"})
    await browser.send("me/second-factor/codes", {"code": "000000"})
    assert (await browser.send("me/second-factor/off", {"code": recovery})).status_code == 303
    await browser.send("me/password", {"old": e.PASSWORD, "new": "another good one"})
    await browser.send("me/sessions")
    assert (await events(here, ana.id))[2:] == [
        (What.FACTOR_ON, ""),
        (What.SIGN_IN, "again"),
        (What.REFUSED, "code"),
        (What.RECOVERED, ""),
        (What.FACTOR_OFF, ""),
        (What.SIGN_IN, "again"),
        (What.PASSWORD, ""),
        (What.SIGN_IN, "again"),
        (What.SESSIONS_ENDED, ""),
        (What.SIGN_IN, "again"),
    ]


async def _enrolment(browser: e.Browser) -> tuple[str, str]:
    page = (await browser.get("me/second-factor")).text
    sealed = page.partition('name="sealed" value="')[2].partition('"')[0]
    return sealed, page.partition('<code class="key">')[2].partition("</code>")[0].replace(" ", "")


async def test_what_an_admin_does_names_the_admin(here: e.Entry) -> None:
    """Invitation, link, role, disabling and enabling: whose account it is, and by whom."""
    await here.user("root@example.org", Role.ADMIN)
    admin = await here.signed_in("root@example.org")
    await admin.send("users", {"login": ANA, "name": "Ana", "role": "user"})
    with tenant_context(here.runtime.environment("acme")):
        ana = await here.runtime.accounts.by_login(ANA)
    assert ana is not None
    for what, form in (("role", {"role": "superuser"}), ("sessions", {}), ("disable", {}), ("enable", {})):
        assert (await admin.send(f"users/{ana.id}/{what}", form)).status_code == 303
    with tenant_context(here.runtime.environment("acme")):
        found = list(reversed(await here.runtime.accounts.events(ana.id)))
        own = await here.runtime.accounts.events((await here.runtime.accounts.get(ana.id)).id, 1)
    assert [(one.what, one.detail) for one in found] == [
        (What.MADE, "invited, user"),
        (What.LINK, "invite"),
        (What.ROLE, "superuser"),
        (What.SESSIONS_ENDED, ""),
        (What.DISABLED, ""),
        (What.ENABLED, ""),
    ]
    assert {one.by for one in found} == {"root@example.org"}
    assert own[0].said == "Enabled"


async def test_outside_a_request_whoever_acts_is_named(here: e.Entry) -> None:
    """An application's job says who it is by `acting`; what nobody says is nobody's."""
    with tenant_context(here.runtime.environment("acme")):
        ana = await here.runtime.accounts.create(ANA, e.PASSWORD)
        with acting("import"):
            await here.runtime.accounts.rename(ana.id, "ana@example.net")
        found = await here.runtime.accounts.events(ana.id)
    assert [(one.what, one.detail, one.by) for one in found] == [
        (What.LOGIN, "ana@example.net", "import"),
        (What.MADE, "user", ""),
    ]


async def test_tokens_and_one_that_was_stolen(here: e.Entry) -> None:
    """Given out, ended, and used twice; a refresh is none."""
    ana = await here.user(ANA)
    runtime = here.runtime
    with tenant_context(runtime.environment("acme")):
        given = await runtime.grants.give(ana)
        await runtime.grants.refresh(given.refresh)
        with pytest.raises(TokenReused):
            await runtime.grants.refresh(given.refresh)
        ended = await runtime.grants.give(ana)
        for _ in range(2):
            await runtime.grants.end(ended.refresh)
    whats = [what for what, _ in await events(here, ana.id)]
    assert whats == [What.MADE, What.TOKENS, What.TOKEN_REUSED, What.TOKENS, What.TOKENS_ENDED]


async def test_what_came_to_nothing_is_no_event(here: e.Entry) -> None:
    """A role that the last admin keeps, a login that is taken, a session that is over, a passkey nobody has."""
    ana = await here.user(ANA)
    runtime = here.runtime
    with tenant_context(runtime.environment("acme")):
        admin = await runtime.accounts.by_login("admin@acme.localhost")
        assert admin is not None
        with pytest.raises(AccountError, match="last active admin"):
            await runtime.accounts.set_role(admin.id, Role.USER)
        with pytest.raises(AccountError, match="taken"):
            await runtime.accounts.create(ANA, e.PASSWORD)
        with pytest.raises(AccountError, match="taken"):
            await runtime.accounts.rename(ana.id, "admin@acme.localhost")
        assert not await runtime.accounts.end_session(ana.id, "none")
        assert not await runtime.proofs.remove_passkey(ana.id, "none")
        await runtime.proofs.drop_factor(ana.id)
    assert await events(here) == [(What.MADE, "user")]


async def test_support_that_looks_in_is_among_them(here: e.Entry) -> None:
    """The tenant's admins read who of the platform it was, and why."""
    opened = await here.platform.support.open("acme", "Ticket 7: the list is empty")

    async def known() -> bool:
        return bool(here.runtime.environment("acme").tenant.support)

    await g.until(known)
    browser = await here.browser()
    answer = await browser.client.post(opened.path, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 303
    with tenant_context(here.runtime.environment("acme")):
        (found,) = await here.runtime.accounts.events()
    assert (found.what, found.detail, found.user) == (What.SUPPORT, "Ticket 7: the list is empty", "")
    assert found.by == f"support:{opened.row.who}"
    await here.platform.support.end("acme", opened.row.id)


# --- what is bounded ------------------------------------------------------------------------------------------------


async def test_whoever_guesses_fills_no_disk(here: e.Entry) -> None:
    """Refusals of an hour are one row for a user, and one for all whom nobody knows; what was typed is not kept."""
    await here.user(ANA)
    runtime = here.runtime
    with tenant_context(runtime.environment("acme")):
        guesses = [runtime.accounts.authenticate(ANA, "guess") for _ in range(12)]
        guesses += [runtime.accounts.authenticate(f"my-secret-{one}", "guess") for one in range(12)]
        found = await asyncio.gather(*guesses, return_exceptions=True)
        assert {type(one) for one in found} == {SignInRefused}
        listed = [one for one in await runtime.accounts.events() if one.what == What.REFUSED]
        with reading(), pytest.raises(SignInRefused):
            await runtime.accounts.authenticate(ANA, "guess")
    hours = len({one.at.hour for one in listed})  # an hour may end just here
    assert len(listed) <= 2 * hours
    assert sum(one.times for one in listed if one.login == ANA) == 12
    assert sum(one.times for one in listed if one.user == "") == 12
    assert "my-secret" not in str(here.ground.sql("acme", "SELECT * FROM tenantry_event"))


async def test_guesses_that_wait_are_counted_by_none(here: e.Entry) -> None:
    """Beyond the free ones nothing is looked at, so nothing is written."""
    await here.user(ANA)
    stranger = await here.browser(address="203.0.113.9")
    form = {"csrf": await stranger.csrf(), "login": ANA, "password": "guess"}
    answers = [await stranger.client.post("/.tenantry/sign-in", data=form) for _ in range(tries.FREE["unknown"] + 6)]
    assert answers[-1].status_code == 429
    numbers = here.ground.sql("acme", "SELECT number FROM tenantry_event WHERE what = 'refused'")
    assert sum(number for (number,) in numbers) == [one.status_code for one in answers].count(401)


async def test_what_is_old_goes_and_nobody_loses_for_others(here: e.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that is configured; and beyond the most that are kept of one user the oldest of hers alone."""
    monkeypatch.setattr(trail, "MOST", 3)
    monkeypatch.setattr(trail, "_LAST", trail._LAST.replace(" OFFSET 999", " OFFSET 2"))
    ana, bob = await here.user(ANA), await here.user("bob@example.org")
    now = time.time_ns() // 1_000_000
    row = "INSERT INTO tenantry_event (id, moment, what, user_id) VALUES ('{}', {}, 'sign_out', '{}')"
    for number in range(8):
        for user in (ana.id, bob.id):
            here.ground.sql("acme", row.format(f"{user[:30]}{number}{user[-5:]}", now - 100 + number, user))
    here.ground.sql("acme", row.format("x" * 36, now - 181 * 86_400_000, bob.id))
    assert len(await events(here, bob.id)) == 9  # one is over, and not shown any more
    with tenant_context(here.runtime.environment("acme")):
        await here.runtime.accounts.begin(ana)
    counted = dict(here.ground.sql("acme", "SELECT user_id, count(*) FROM tenantry_event GROUP BY user_id"))
    assert counted == {ana.id: 3, bob.id: 9}
    assert (What.SIGN_IN, "password") in await events(here, ana.id)


async def test_a_sign_in_is_no_event_unless_it_begins(here: e.Entry) -> None:
    """Disabled in between: no session, and no trail of one."""
    ana = await here.user(ANA)
    with tenant_context(here.runtime.environment("acme")):
        await here.runtime.accounts.disable(ana.id)
        with pytest.raises(SignInRefused):
            await here.runtime.accounts.begin(ana)
        with pytest.raises((InvalidToken, SignInRefused)):
            await here.runtime.accounts.authenticate(ANA, e.PASSWORD)
    assert [what for what, _ in await events(here)] == [What.MADE, What.DISABLED, What.REFUSED]


# --- who reads them -------------------------------------------------------------------------------------------------


async def test_a_list_goes_on_where_the_page_before_ended(here: e.Entry) -> None:
    """Each once, also of those within one second; a mark that is none is refused."""
    ana = await here.user(ANA)
    accounts = here.runtime.accounts
    with tenant_context(here.runtime.environment("acme")):
        for _ in range(7):
            await accounts.end_sessions(ana.id)
        every, paged, after = await accounts.events(), [], ""
        while page := await accounts.events(limit=3, after=after):
            paged += page
            after = page[-1].mark
        assert paged == every
        assert len({one.id for one in paged}) == 8
        for wrong in (
            "x",
            "5",
            "5.x",
            "x." + every[0].id,
            "9" * 20 + "." + every[0].id,
            "5.' OR 1=1",
            "٣." + every[0].id,
        ):
            with pytest.raises(InvalidRequest):
                await accounts.events(after=wrong)


async def test_one_sees_ones_own_and_admins_see_all(here: e.Entry) -> None:
    """On the account page the latest, on a page of its own all; nobody else's, by no address."""
    await here.user("root@example.org", Role.ADMIN)
    ana = await here.user(ANA)
    browser, admin = await here.signed_in(ANA), await here.signed_in("root@example.org")
    page = (await browser.get("me")).text
    assert "Recent activity" in page
    assert "Signed in: by password" in page
    own = (await browser.get("me/activity")).text
    assert "Account made: user" in own
    assert "root@" not in own
    for address in ("users/activity", f"users/activity?user={ana.id}"):
        assert (await browser.get(address)).status_code == 403
    everybody = (await admin.get("users/activity")).text
    assert ANA in everybody
    assert "root@example.org" in everybody
    hers = (await admin.get(f"users/activity?user={ana.id}")).text
    assert hers.count("Signed in: by password") == 1
    assert (await admin.get("users/activity?user=nobody")).status_code == 422
    assert (await admin.get("users/activity?after=nonsense")).status_code == 422
    assert (await (await here.browser()).get("me/activity")).status_code == 303


async def test_a_page_of_many(here: e.Entry) -> None:
    """Fifty on a page, and a way to those before."""
    ana = await here.user(ANA)
    browser = await here.signed_in(ANA)
    with tenant_context(here.runtime.environment("acme")):
        for _ in range(60):
            await here.runtime.proofs.new_codes(ana.id)
    first = (await browser.get("me/activity")).text
    assert first.count("<li>") == 50
    older = first.partition('href="?after=')[2].partition('"')[0]
    second = (await browser.get(f"me/activity?after={older}")).text
    assert second.count("<li>") == 12
    assert "Older" not in second


async def test_an_export_holds_them(here: e.Entry, tmp_path: Path) -> None:
    """They are the tenant's own, and leave with it."""
    await here.user(ANA)
    await here.platform.tenants.export("acme", tmp_path / "out", "json")
    (file,) = (tmp_path / "out").rglob("tenantry_event*")
    assert [one["what"] for one in json.loads(file.read_text())] == [What.MADE]


async def test_operators_read_them_and_are_audited(here: e.Entry, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, also of a tenant that is suspended; the audit log has who asked. A login nobody has is told."""
    ana = await here.user(ANA)
    with tenant_context(here.runtime.environment("umbrella")):
        await here.runtime.accounts.create("bob@example.org", e.PASSWORD)
    found = await here.platform.tenants.events("acme", ANA.upper())
    assert [(one.user, one.said) for one in found] == [(ana.id, "Account made: user")]
    await here.platform.operations.finish((await here.platform.tenants.suspend("umbrella", "unpaid")).id)
    command, _ = await asyncio.to_thread(here.ground.command("tenant", "events", "umbrella").communicate)
    assert "bob@example.org" in command
    assert "Account made: user" in command
    await here.platform.operations.finish((await here.platform.tenants.resume("umbrella")).id)
    with pytest.raises(AccountError, match="Nobody has the login"):
        await here.platform.tenants.events("acme", "bob@example.org")
    asked = [one.subject for one in await here.platform.audit.list(action="tenant.events")]
    assert asked == ["acme", "umbrella", "acme"]


async def test_by_wsgi_too(here: e.Entry) -> None:
    """Address and browser are known there as well."""
    ana = await here.user(ANA)
    runtime = e.connect(here.ground.config)
    transport = httpx.WSGITransport(e.wsgi_application(runtime), remote_addr="203.0.113.7")

    def visit() -> int:
        with httpx.Client(transport=transport, base_url="http://acme.localhost") as client:
            page = client.get("/.tenantry/sign-in").text
            csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
            form = {"csrf": csrf, "login": ANA, "password": e.PASSWORD}
            return client.post("/.tenantry/sign-in", data=form).status_code

    try:
        assert await asyncio.to_thread(visit) == 303
    finally:
        await asyncio.to_thread(runtime.stop_thread)
    with tenant_context(here.runtime.environment("acme")):
        found = await here.runtime.accounts.events(ana.id)
    assert (found[0].what, found[0].address) == (What.SIGN_IN, "203.0.113.7")


def test_each_has_words() -> None:
    """Nothing that can happen is shown by its name in the code."""
    assert set(SAID) == set(What)
