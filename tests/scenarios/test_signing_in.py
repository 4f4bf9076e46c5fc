"""Signing in, attacked: fixation, guesses at once and in turn, replays, a mailbox in place of a second factor."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import httpx
import pyotp
import pytest

import ground as g
import people_world as w
from tenantry import credentials
from tenantry.codes import CODES, STEP
from tenantry.identity import throttle
from tenantry.identity.principal import PROVED, AdminRole
from tenantry.registry import people, tables
from tenantry.registry.database import now

ROOT = "root@example.org"
OTHERS = "10.9.9.9"


@pytest.fixture(autouse=True)
def _waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_wait", w.waits)


async def enrol(browser: httpx.AsyncClient) -> tuple[str, list[str]]:
    """Turn the second factor on: its secret and the recovery codes."""
    page = (await browser.get("/admin/me/second-factor")).text
    sealed = re.search(r'name="sealed" value="([0-9a-f]+)"', page)
    key = re.search(r'class="key">([^<]+)<', page)
    assert sealed
    assert key
    assert 'src="data:image/svg+xml' in page
    secret = key[1].replace(" ", "")
    sent = {"sealed": sealed[1], "code": pyotp.TOTP(secret).now()}
    answer = await w.send(browser, "/me/second-factor", sent)
    codes = re.findall(r"<li><code>([\w-]+)</code>", answer.text)
    assert len(codes) == CODES, w.told(answer)
    return secret, codes


async def test_a_session_from_before_is_worth_nothing_after(ground: g.Ground) -> None:
    """A cookie that was planted is not taken over; one that was good ends when somebody signs in over it."""
    async with w.portal(ground) as here:
        browser = await here.browser()
        form = {"mail": ROOT, "password": w.PASSWORD}
        await browser.post("/admin/sign-in", data=form, headers={"Cookie": "tenantry_admin=planted"})
        first = browser.cookies["tenantry_admin"]
        assert first != "planted"
        await w.sign_in(browser, ROOT)
        assert browser.cookies["tenantry_admin"] != first
        old = await here.browser(Cookie=f"tenantry_admin={first}")
        assert (await old.get("/admin/")).status_code == 303
        assert (await browser.get("/admin/")).status_code == 200


async def test_unknown_users_take_as_long(ground: g.Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known, unknown, invited and disabled logins each cost one Argon2id of the same parameters, and answer alike."""
    costs: list[str] = []
    real = credentials._hasher().__class__.verify

    def verify(self: Any, stored: str, password: str) -> bool:
        costs.append(stored.rpartition("$")[0].rpartition("$")[0])
        return real(self, stored, password)

    monkeypatch.setattr(credentials._hasher().__class__, "verify", verify)
    async with w.portal(ground) as here:
        await here.add("off@example.org")
        await here.platform.admins.disable("off@example.org")
        await here.platform.admins.invite("new@example.org")
        answers = []
        for mail in (ROOT, "nobody@example.org", "new@example.org", "off@example.org"):
            answer = await w.sign_in(await here.browser(), mail, "not this one")
            answers.append((answer.status_code, answer.text.replace(mail, "…")))
    assert len(set(answers)) == 1
    assert len(costs) == 4
    assert len(set(costs)) == 1


async def test_guesses_at_once_count_each(ground: g.Ground) -> None:
    """Of many tries sent together no more are looked at than of as many in turn."""
    async with w.portal(ground) as here:
        browser = await here.browser(OTHERS)
        answers = await asyncio.gather(*(w.sign_in(browser, ROOT, f"guess {at}") for at in range(40)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {401, 429}
        assert codes.count(401) <= throttle.FREE["unknown"]


async def test_an_owner_is_not_locked_out(ground: g.Ground) -> None:
    """Whoever guesses from elsewhere uses up the tries of unknown devices; the owner's own browser signs in."""
    async with w.portal(ground) as here:
        owner = await here.signed_in()
        stranger = await here.browser(OTHERS)
        codes = [(await w.sign_in(stranger, ROOT, f"guess {at}")).status_code for at in range(12)]
        assert codes == [401] * 10 + [429] * 2
        assert (await w.sign_in(await here.browser("10.9.9.8"), ROOT)).status_code == 429
        assert (await w.sign_in(owner, ROOT, "mistyped")).status_code == 401
        assert (await w.sign_in(owner, ROOT)).status_code == 303
        stranger.cookies.set("tenantry_device", "made.up", domain="localhost")
        assert (await w.sign_in(stranger, ROOT)).status_code == 429


async def test_an_owners_own_mistakes_are_forgotten(ground: g.Ground) -> None:
    """After she signed in, her browser begins anew; what strangers did is not forgiven by it, and goes with time."""
    async with w.portal(ground) as here:
        owner = await here.signed_in()
        for _ in range(3):
            for at in range(throttle.FREE["device"] - 1):
                assert (await w.sign_in(owner, ROOT, f"mistyped {at}")).status_code == 401
            assert (await w.sign_in(owner, ROOT)).status_code == 303
        registry = here.platform.registry
        async with registry.write() as tx:
            await people.put_failures(tx, "old", 9, now() - throttle.FORGOTTEN - timedelta(seconds=1))
        await w.sign_in(await here.browser(OTHERS), "made-up@example.org")
        async with registry.read() as tx:
            assert await people.failures(tx, ["old"]) == {}


async def test_a_code_opens_once(ground: g.Ground) -> None:
    """Neither in turn nor at once: not the code that turned it on, not one that signed in, no recovery code."""
    async with w.portal(ground) as here:
        owner = await here.signed_in()
        secret, recovery = await enrol(owner)
        code = pyotp.TOTP(secret).now()
        asked = await w.sign_in(await here.browser(), ROOT)
        assert (asked.status_code, "second factor" in asked.text) == (401, True)
        assert (await w.sign_in(await here.browser(), ROOT, code=code)).status_code == 401
        for once in (pyotp.TOTP(secret).at(int(now().timestamp()) + STEP), recovery[0], recovery[1].upper()):
            async with here.platform.registry.write() as tx:
                await people.forget_failures(tx, now() + timedelta(days=1))
            tries = [w.sign_in(await here.browser(), ROOT, code=once) for _ in range(3)]
            codes = sorted([answer.status_code for answer in await asyncio.gather(*tries)])
            assert codes == ([303, 401, 401] if once != recovery[1].upper() else [401, 401, 401])


async def test_who_knows_the_password_keeps_nobody_out(ground: g.Ground) -> None:
    """Wrong codes from elsewhere are throttled; the owner's browser has tries of its own."""
    async with w.portal(ground) as here:
        owner = await here.signed_in()
        _, recovery = await enrol(owner)
        thief = await here.browser(OTHERS)
        codes = [(await w.sign_in(thief, ROOT, code="000000")).status_code for _ in range(7)]
        assert codes == [401] * 5 + [429] * 2
        assert (await w.sign_in(thief, ROOT, code=recovery[0])).status_code == 429
        assert (await w.sign_in(owner, ROOT, code=recovery[0])).status_code == 303


async def test_a_mailbox_is_no_second_factor(ground: g.Ground) -> None:
    """Whoever takes a link to a new password is not signed in by it where a second factor is on."""
    async with w.portal(ground) as here:
        _, recovery = await enrol(await here.signed_in())
        made = await here.platform.admins.reset(ROOT)
        browser = await here.browser()
        answer = await browser.post(f"/admin/link/{made.link}", data={"password": "another horse"})
        assert "Sign in by it and your second factor" in w.told(answer)
        assert (await browser.get("/admin/")).status_code == 303
        assert (await w.sign_in(browser, ROOT, "another horse")).status_code == 401
        assert (await w.sign_in(browser, ROOT, "another horse", recovery[0])).status_code == 303


async def test_the_second_factor_outlives_the_platform_key(ground: g.Ground) -> None:
    """Rotating the platform key seals its secret anew: nobody is locked out when the old key goes."""
    async with w.portal(ground) as here:
        await enrol(await here.signed_in())
    old = ground.key
    ground.key = "ab" * 32
    env = ground.root / ".env"
    env.write_text(f"TENANTRY_SECRET_KEY={ground.key}\nTENANTRY_SECRET_KEY_PREVIOUS={old}\n")
    async with ground.open() as platform:
        await platform.secrets.rotate()
    env.write_text(f"TENANTRY_SECRET_KEY={ground.key}\n")
    async with ground.open() as platform, platform.registry.read() as tx:
        row = await people.find(tx, ROOT)
        assert row.totp
        assert len(platform.registry.vault.open_platform(f"totp:{row.id}", row.totp)) == 32


async def test_ones_own_account_asks_who_one_is(ground: g.Ground) -> None:
    """A new password wants the old one, and no end of guesses; turning the factor off wants a code."""
    async with w.portal(ground) as here:
        browser, other = await here.signed_in(), await here.signed_in()  # beside that of the invitation
        for at in range(5):
            wrong = await w.send(browser, "/me/password", {"old": f"no {at}", "new": "another horse"})
            assert (wrong.status_code, "old password is wrong" in w.told(wrong)) == (422, True)
        assert (await w.send(browser, "/me/password", {"old": w.PASSWORD, "new": "another horse"})).status_code == 429
        async with here.platform.registry.write() as tx:
            await people.forget_failures(tx, now() + timedelta(days=1))
        assert (await w.send(browser, "/me/password", {"old": w.PASSWORD, "new": "another horse"})).status_code == 303
        assert "Signed out elsewhere: 2" in w.told(await browser.get("/admin/me"))
        assert (await other.get("/admin/me")).status_code == 303
        _, recovery = await enrol(browser)
        assert (await w.send(browser, "/me/second-factor/off", {"code": "123456"})).status_code == 422
        assert (await w.send(browser, "/me/second-factor/off", {"code": recovery[0]})).status_code == 303
        assert (await w.sign_in(await here.browser(), ROOT, "another horse")).status_code == 303


async def test_no_token_and_no_stranger_changes_what_somebody_is_known_by(ground: g.Ground) -> None:
    """A token sets up no factor and no passkey; a form of another site, or without its csrf value, changes nothing."""
    async with w.portal(ground) as here:
        browser = await here.signed_in()
        for path in ("/me/name", "/me/password", "/me/tokens", "/me/second-factor/off", "/admins", "/organizations"):
            answer = await browser.post(f"/admin{path}", data={"name": "Eve", "mail": "eve@example.org"})
            assert answer.status_code == 403, path
        token = await w.csrf(browser)
        crossed = {"Sec-Fetch-Site": "same-site"}
        for path in ("/me/name", "/sign-in", "/forgot", "/passkey"):
            data = {"csrf": token, "name": "Eve", "mail": ROOT, "password": w.PASSWORD, "answer": "{}"}
            assert (await browser.post(f"/admin{path}", data=data, headers=crossed)).status_code == 403, path
        made = await w.send(browser, "/me/tokens", {"name": "deploy", "scopes": ["people:write"], "days": "7"})
        bearer = re.search(r'data-copy="(tenantry_[\w-]+)"', made.text)
        assert bearer
        head = {"Authorization": f"Bearer {bearer[1]}"}
        assert (
            await browser.post("/api/account/password", json={"old": "x" * 9, "new": "y" * 9}, headers=head)
        ).status_code
        page = (await browser.get("/admin/me")).text
        assert bearer[1] not in page
        principal = await here.here.sign_in.by_token(bearer[1])
        from tenantry.identity import acting_as
        from tenantry.refusals import Forbidden

        with acting_as(principal), pytest.raises(Forbidden):
            await here.platform.account.enrol()


async def test_an_old_session_proves_once_more_who_it_is(ground: g.Ground) -> None:
    """Before a passkey, a factor or a token is added: by the password, for ten minutes, in this session alone."""
    async with w.portal(ground) as here:
        browser, other = await here.signed_in(), await here.signed_in()
        made = {"name": "deploy", "scopes": "tenants:read", "days": "30"}
        assert "It is me" not in (await browser.get("/admin/me")).text
        async with here.platform.registry.write() as tx:
            old = now() - PROVED - timedelta(seconds=1)
            await tx.execute(tables.admin_session.update().values(proved=old))
        page = (await browser.get("/admin/me")).text
        assert "It is me" in page
        assert 'action="/admin/me/tokens"' not in page
        for path, form in (("tokens", made), ("second-factor", {}), ("passkeys", {"name": "x", "answer": "{}"})):
            refused = await w.send(browser, f"/me/{path}", form)
            assert (refused.status_code, "prove once more" in w.told(refused)) == (403, True), path
        for path in ("second-factor", "passkeys/options"):
            assert (await browser.get(f"/admin/me/{path}")).status_code == 403
        wrong = await w.send(browser, "/me/prove", {"password": "wrong one"})
        assert "The password is wrong" in w.told(wrong)
        assert (await w.send(browser, "/me/prove/passkey", {"answer": "{}"})).status_code == 422
        assert (await w.send(browser, "/me/tokens", made)).status_code == 403
        assert (await w.send(browser, "/me/prove", {"password": w.PASSWORD})).status_code == 303
        assert (await w.send(browser, "/me/tokens", made)).status_code == 200
        assert (await browser.get("/admin/me/second-factor")).status_code == 200
        assert (await w.send(other, "/me/tokens", made | {"name": "other"})).status_code == 403
        for _ in range(throttle.FREE["own"] + 1):
            guessed = await w.send(other, "/me/prove", {"password": "wrong one"})
        assert guessed.status_code == 429


async def test_a_passkeys_challenge_is_ours_fresh_and_counts_once(ground: g.Ground) -> None:
    """Answers to no question, to another's and to an old one open nothing, whatever stands in them."""
    async with w.portal(ground) as here:
        browser = await here.browser()
        for answer in ("", "{}", "[]", "null", '{"id": "x"}', "{" * 500, '{"id":"AA","rawId":"AA","response":{}}'):
            refused = await browser.post("/admin/passkey", data={"answer": answer})
            assert refused.status_code in (401, 422), answer
        passkeys = here.here.passkeys._site
        challenge = passkeys.challenge("sign-in")
        assert passkeys.is_ours(challenge, "sign-in")
        assert not passkeys.is_ours(challenge, "register\0somebody")
        assert not passkeys.is_ours(challenge[:-1], "sign-in")
        aged = (int.from_bytes(challenge[16:24], "big") - 301).to_bytes(8, "big")
        old = challenge[:16] + aged
        assert not passkeys.is_ours(old + passkeys._seal("sign-in", old), "sign-in")
        async with here.platform.registry.write() as tx:
            assert await people.spend(tx, "once", now() + timedelta(minutes=1))
            assert not await people.spend(tx, "once", now() + timedelta(minutes=1))


@pytest.mark.parametrize("path", ["/admins", "/organizations", "/admins/x", "/organizations/x"])
async def test_people_are_superadmins_matter(ground: g.Ground, path: str) -> None:
    """An admin is refused, her tabs do not show them; without a session nobody sees any."""
    async with w.portal(ground) as here:
        await here.add("ana@example.org", AdminRole.ADMIN)
        ana = await here.signed_in("ana@example.org")
        page = await ana.get(f"/admin{path}")
        assert page.status_code == 403
        assert "Admin users</a>" not in page.text
        assert (await w.send(ana, f"{path}/remove")).status_code in (403, 404, 405)
        assert (await (await here.browser()).get(f"/admin{path}")).status_code == 303
