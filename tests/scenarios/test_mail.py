"""Mail through a real SMTP server with TLS: invitations, and links to a new password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ground as g
import people_world as w
from tenantry.config import load
from tenantry.identity import throttle
from tenantry.mail import Letter, Post
from tenantry.refusals import MailFailed


@pytest.fixture(autouse=True)
def _waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_wait", w.waits)


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_an_invitation_comes_by_mail(ground: g.Ground, tmp_path: Path, tls: str) -> None:
    """In text and HTML, from whom the configuration says, encrypted, with a link that opens."""
    with w.inbox(tmp_path, tls) as inbox:
        w.mailing(ground, inbox, tls)
        async with ground.open() as platform:
            invited = await platform.admins.invite("ana@example.org", "Ana <b>&</b> Söhne")
            assert await platform.mails.deliver() == 1
        assert (invited.mailed, invited.fault) == (True, "")
        (mail,) = await inbox.wait(1)
        assert (mail["To"], mail["From"]) == ("ana@example.org", "Bücher & Söhne <noreply@example.org>")
        assert mail["Subject"] == "You are invited to Ground"
        link = f"https://portal.example/admin/link/{invited.link}"
        assert link in w.text_of(mail)
        assert "Ana <b>&</b> Söhne" in w.text_of(mail)
        assert f'href="{link}"' in w.text_of(mail, "html")
        assert "Ana &lt;b&gt;" in w.text_of(mail, "html")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('password = {env = "SMTP_PASSWORD"}', 'password = {env = "WRONG"}'), "SMTPAuthenticationError"),
        (("ca = ", "#ca = "), "CERTIFICATE_VERIFY_FAILED|certificate verify failed"),
        (('host = "localhost"', 'host = "localhost.invalid"'), "SMTPConnectError"),
        (('tls = "starttls"', 'tls = "off"'), "STARTTLS|TLS|530"),
    ],
    ids=["password", "certificate", "host", "plain"],
)
async def test_a_mail_that_is_not_taken_says_why(
    ground: g.Ground, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    """A wrong password, a certificate nobody trusts, no server, no TLS: nothing is sent, and the letter waits."""
    with w.inbox(tmp_path) as inbox:
        w.mailing(ground, inbox)
        with (ground.root / ".env").open("a") as env:
            env.write("WRONG=not-this\n")
        ground.config.write_text(ground.config.read_text().replace(*change))
        async with ground.open() as platform:
            await platform.admins.invite("ana@example.org")
            assert await platform.mails.deliver() == 0
            (row,) = await platform.mails.list()
        assert (row.state, row.attempts) == ("queued", 1)
        assert re.search(said, row.reason)
        assert "not-this" not in row.reason
        assert inbox.mails == []


async def test_no_header_comes_in_by_a_name(ground: g.Ground, tmp_path: Path) -> None:
    """A line break in an address or a subject sends nothing."""
    with w.inbox(tmp_path) as inbox:
        w.mailing(ground, inbox)
        post = Post(load(ground.config))
        async with ground.open() as platform:
            for to, subject in (
                ("ana@example.org\r\nBcc: eve@example.org", "x"),
                ("ana@example.org", "x\r\nBcc: eve@x.org"),
            ):
                with pytest.raises(MailFailed):
                    async with platform.registry.write() as tx:
                        await post.queue(tx, to, Letter(subject, ("Hello.",)))
            assert await platform.mails.list() == []


async def test_a_forgotten_password_is_chosen_anew(ground: g.Ground, tmp_path: Path) -> None:
    """The link comes by mail, whatever host the request names; it opens once, and ends all sessions."""
    with w.inbox(tmp_path) as inbox:
        w.mailing(ground, inbox, url="http://localhost")
        async with w.portal(ground) as here:
            inbox.mails.clear()
            before = await here.signed_in()
            stranger = await here.browser(Host="evil.example", X_Forwarded_Host="evil.example")
            assert (await stranger.post("/admin/forgot", data={"mail": " ROOT@example.org "})).status_code == 200
            await here.here.forgotten.close()
            assert await here.platform.mails.deliver() == 2  # the invitation of the world's superadmin, too
            mail = (await inbox.wait(2))[-1]
            assert "evil" not in mail.as_string()
            link = re.search(r"http://localhost(/admin/link/\S+)", w.text_of(mail))
            assert link
            browser = await here.browser()
            assert (await browser.post(link[1], data={"password": "short"})).status_code == 422
            assert (await browser.post(link[1], data={"password": "another horse"})).status_code == 303
            assert (await browser.get("/admin/")).status_code == 200
            assert (await before.get("/admin/")).status_code == 303
            assert (await browser.post(link[1], data={"password": "third horse"})).status_code == 410
            assert (await w.sign_in(await here.browser(), "root@example.org")).status_code == 401


async def test_nobody_learns_who_is_here(ground: g.Ground, tmp_path: Path) -> None:
    """Known, unknown and disabled addresses get the same answer before anything is looked up; mails go to one."""
    with w.inbox(tmp_path) as inbox:
        w.mailing(ground, inbox)
        async with w.portal(ground) as here:
            await here.add("off@example.org")
            await here.platform.admins.disable("off@example.org")
            inbox.mails.clear()
            answers = []
            for mail in ("nobody@example.org", "off@example.org", "root@example.org"):
                answer = await (await here.browser()).post("/admin/forgot", data={"mail": mail})
                answers.append((answer.status_code, answer.text.replace(mail, "…"), sorted(answer.headers)))
                assert not [row for row in await here.platform.audit.list() if row.action == "admin.forgot"]
            assert answers[0] == answers[1] == answers[2]
            await here.here.forgotten.close()
            asked = [row.recipient for row in await here.platform.mails.list() if row.kind == "admin.forgot"]
            assert asked == ["root@example.org"]


async def test_a_stranger_who_asks_takes_no_link_away(ground: g.Ground, tmp_path: Path) -> None:
    """Asking is throttled by address and by login alike for all; the owner's first link goes on to open."""
    with w.inbox(tmp_path) as inbox:
        w.mailing(ground, inbox, url="http://localhost")
        async with w.portal(ground) as here:
            inbox.mails.clear()
            codes = []
            for at in range(8):
                stranger = await here.browser(f"10.0.0.{at}")
                codes.append((await stranger.post("/admin/forgot", data={"mail": "root@example.org"})).status_code)
            assert codes == [200] * 5 + [429] * 3
            unknown = [
                (await (await here.browser("10.1.0.1")).post("/admin/forgot", data={"mail": f"{at}@x.org"})).status_code
                for at in range(8)
            ]
            assert unknown == codes
            await here.here.forgotten.close()
            assert await here.platform.mails.deliver() == 6
            first = next(mail for mail in inbox.mails if mail["Subject"].startswith("A new password"))
            link = re.search(r"http://localhost(/admin/link/\S+)", w.text_of(first))
            assert link
            assert (await (await here.browser()).get(link[1])).status_code == 200
            assert (await w.sign_in(await here.browser(), "root@example.org")).status_code == 303


async def test_without_a_mail_server_the_page_says_so(ground: g.Ground) -> None:
    """Nothing is promised that is not sent."""
    async with w.portal(ground) as here:
        page = await (await here.browser()).get("/admin/forgot")
        assert "No mail is sent here" in page.text
        assert "<form" not in page.text
