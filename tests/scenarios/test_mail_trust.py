"""Mail that others can trust: signed, in a look of its own, and heard of when it comes back."""

from __future__ import annotations

import asyncio
import base64
import html
import re
import smtplib
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dkim
import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import httpx
import pytest

import ground as g
import people_world as w
import programs
from servers import free_port
from tenantry.mail import Letter, Post, bounces, names
from tenantry.mail.letter import SAMPLES
from tenantry.mail.look import of_tenant
from tenantry.platform import Platform
from tenantry.refusals import InvalidRequest, NoMail
from tenantry.registry.letters import LetterRow
from tenantry.web.letters import gallery


@pytest.fixture
def inbox(ground: g.Ground, tmp_path: Path) -> Iterator[w.Inbox]:
    """A mail server that the platform sends through; mail comes back to another domain."""
    with w.inbox(tmp_path) as found:
        w.mailing(ground, found)
        ground.config.write_text(f'{ground.config.read_text()}bounce_domain = "back.example.org"\n')
        yield found


async def queue(platform: Platform, to: str = "ana@example.org", tenant: str | None = None) -> str:
    """Queue a letter; its id."""
    letter = Letter("Grüße — hello", ("Hello.", "." * 200), "https://portal.example/x", "Begin", kind="test")
    async with platform.registry.write() as tx:
        return (await Post(platform.config).queue(tx, to, letter, tenant)).id


async def row_of(platform: Platform, letter: str) -> LetterRow:
    """A letter as it stands in the queue."""
    return next(row for row in await platform.mails.list() if row.id == letter)


# --- signed -------------------------------------------------------------------------------------------------------


@dataclass
class Zone:
    """A DNS server, and what it answers: by name and type, records in zone file form."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    port: int = 0

    def answer(self, wire: bytes) -> bytes:
        """The answer to a question."""
        asked = dns.message.from_wire(wire)
        question = asked.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        made = dns.message.make_response(asked)
        made.flags |= dns.flags.AA
        if texts := self.records.get((name, kind)):
            made.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        elif not any(known == name for known, _ in self.records):
            made.set_rcode(dns.rcode.NXDOMAIN)
        return made.to_wire()

    def resolver(self, kind: Any = dns.asyncresolver.Resolver) -> Any:
        """What asks this server alone."""
        made = kind(configure=False)
        made.nameservers, made.port = ["127.0.0.1"], self.port
        return made


@contextmanager
def zone() -> Iterator[Zone]:
    """A DNS server on a free port."""
    found = Zone()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request[1].sendto(found.answer(self.request[0]), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def quoted(record: str) -> str:
    """A record in texts of 255 octets."""
    return " ".join(f'"{record[at : at + 255]}"' for at in range(0, len(record), 255))


@pytest.mark.filterwarnings("default::DeprecationWarning")  # of the verifier, which no part of ours calls
async def test_signatures_hold_by_the_keys_in_dns(ground: g.Ground, inbox: w.Inbox) -> None:
    """RSA and Ed25519, both on each letter; a letter that was changed on the way, or another's key, does not hold."""
    with zone() as there:
        resolver = there.resolver(dns.resolver.Resolver)

        def texts(name: bytes, **_: Any) -> bytes | None:
            try:
                return b"".join(resolver.resolve(name.decode(), "TXT")[0].strings)
            except dns.resolver.NXDOMAIN:
                return None

        async with ground.open() as platform:
            keys = [await platform.mails.dkim(algorithm) for algorithm in ("rsa", "ed25519")]
            for key in keys:
                there.records[f"{key.selector}._domainkey.example.org", "TXT"] = [quoted(key.record)]
            await queue(platform)
            assert await platform.mails.deliver() == 1
            raw = inbox.raw[0][1]

            def holds(message: bytes) -> list[bool]:
                return [dkim.DKIM(message).verify(at, dnsfunc=texts) for at in range(2)]

            assert await asyncio.to_thread(holds, raw) == [True, True]
            changes = [(b"Begin", b"Begun"), (b"Subject: ", b"Subject: Re: "), (b"To: ana", b"To: eve")]
            for change in changes:
                assert change[0] in raw
                assert await asyncio.to_thread(_refused, raw.replace(*change, 1), texts)
            renewed = await platform.mails.dkim("rsa")
            assert renewed.selector != keys[0].selector
            signing = [key.selector for key in (await platform.mails.status()).keys]
            assert sorted(signing) == sorted([renewed.selector, keys[1].selector])
    stored = [path.read_bytes() for path in ground.data.rglob("control*") if path.is_file()]
    assert not any(b"PRIVATE KEY" in content for content in stored)


def _refused(message: bytes, texts: Any) -> bool:
    outcomes = []
    for at in range(2):
        try:
            outcomes.append(dkim.DKIM(message).verify(at, dnsfunc=texts))
        except dkim.ValidationError:
            outcomes.append(False)
    return outcomes == [False, False]


async def test_what_is_missing_in_dns_is_named(ground: g.Ground, inbox: w.Inbox) -> None:
    """Nothing there; then wrong records; then the right ones: each with what to set."""
    with zone() as there:
        async with ground.open() as platform:
            key = await platform.mails.dkim("ed25519")

            async def check() -> dict[str, tuple[bool, str]]:
                found = await names.check("mail.example.org", [key], "back.example.org", there.resolver())
                return {one.what: (one.good, one.told) for one in found}

            bare = await check()
            assert [good for good, _ in bare.values()] == [False] * 4
            assert key.record in bare["DKIM"][1]
            assert '"v=DMARC1' in bare["DMARC"][1]
            selector = f"{key.selector}._domainkey.mail.example.org"
            there.records |= {
                ("back.example.org", "TXT"): ['"v=spf1 +all"'],
                (selector, "TXT"): ['"v=DKIM1; k=rsa; p=AAAA"'],
                ("_dmarc.mail.example.org", "TXT"): ['"v=DMARC1; p=nonsense"'],
            }
            wrong = await check()
            assert [good for good, _ in wrong.values()] == [False] * 4
            assert "+all" in wrong["SPF"][1]
            assert wrong["DKIM"][1].startswith("another key")
            there.records |= {
                ("back.example.org", "TXT"): ['"v=spf1 a:mx.example.org -all"', '"something=else"'],
                ("back.example.org", "MX"): ["10 mx.example.org."],
                (selector, "TXT"): [quoted(key.record)],
                ("_dmarc.example.org", "TXT"): ['"v=DMARC1; p=reject"'],
            }
            there.records.pop(("_dmarc.mail.example.org", "TXT"))
            assert [good for good, _ in (await check()).values()] == [True] * 4


# --- coming back --------------------------------------------------------------------------------------------------


def notification(status: str = "5.1.1", action: str = "failed", to: str = "") -> bytes:
    """A delivery status notification, as a mail server writes it."""
    lines = [
        "From: Mail Delivery System <MAILER-DAEMON@mx.example.org>",
        f"To: {to}",
        "Subject: Undelivered Mail Returned to Sender",
        "MIME-Version: 1.0",
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"',
        "",
        "--b",
        "Content-Type: text/plain",
        "",
        "I am sorry.",
        "--b",
        "Content-Type: message/delivery-status",
        "",
        "Reporting-MTA: dns; mx.example.org",
        "",
        "Final-Recipient: rfc822; somebody.else@example.org",
        f"Action: {action}",
        f"Status: {status}",
        "Diagnostic-Code: smtp; 550 there is\r\n nobody of this name",
        "",
        "--b--",
        "",
    ]
    return "\r\n".join(lines).encode()


async def test_what_comes_back_marks_the_address(ground: g.Ground, inbox: w.Inbox) -> None:
    """A hard bounce holds the letter's own address, whatever it names; a full mailbox or a delay holds nothing."""
    async with ground.open() as platform:
        first, second = await queue(platform), await queue(platform, "bob@example.org")
        assert await platform.mails.deliver() == 2
        (to_first, to_second) = (sender for sender, _ in inbox.raw)
        assert to_first.endswith("@back.example.org")
        for harmless in (notification("4.4.1", "delayed"), b"", b"\xff" * 2000, notification(action="delivered")):
            assert (await platform.mails.bounce(harmless, to_first)).reason == ""
        assert (await row_of(platform, first)).state == "sent"
        full = await platform.mails.bounce(notification("5.2.2", to=to_second.upper()))  # by its headers alone
        assert (full.letter, full.hard) == (second, False)
        hard = await platform.mails.bounce(notification(), to_first)
        assert (hard.letter, hard.recipient, hard.hard) == (first, "ana@example.org", True)
        row = await row_of(platform, first)
        assert (row.state, row.reason) == ("failed", "came back: 5.1.1 550 there is nobody of this name")
        assert [hold.address for hold in await platform.mails.held()] == ["ana@example.org"]
        actions = [entry.action for entry in await platform.audit.list()]
        assert actions.count("mail.bounce") == 2


async def test_nobody_marks_an_address_with_a_token_of_his_own(ground: g.Ground, inbox: w.Inbox) -> None:
    """A forged signature, another letter's, none, and one of a letter that is not here change nothing."""
    async with ground.open() as platform:
        await queue(platform)
        await queue(platform, "bob@example.org")
        await platform.mails.deliver()
        (one, other) = (sender for sender, _ in inbox.raw)
        local, _, domain = one.partition("@")
        crossed = f"{local.partition('-')[0]}-{other.partition('@')[0].partition('-')[2]}"
        turned = f"{local[:-1]}{'0' if local[-1] != '0' else '1'}@{domain}"
        for forged in (turned, f"{crossed}@{domain}", f"bounces+@{domain}", "x@y"):
            assert (await platform.mails.bounce(notification(), forged)).letter is None
            assert (await platform.mails.bounce(notification(to=forged))).letter is None
        assert await platform.mails.held() == []


async def test_a_worker_takes_in_what_comes_back_and_nothing_else(ground: g.Ground, inbox: w.Inbox) -> None:
    """By SMTP: a notification is recorded before it is acknowledged; strangers' mail and large mail are refused."""
    port = free_port()
    ground.config.write_text(f'{ground.config.read_text()}bounces = "127.0.0.1:{port}"\n')
    async with ground.open() as platform:
        letter = await queue(platform)
        await platform.mails.deliver()
        back = inbox.raw[0][0]
        async with g.working(platform):

            async def listens() -> bool | None:
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                except OSError:
                    return None
                return True

            await g.until(listens)
            assert await asyncio.to_thread(_spoken, port, "eve@example.org", notification()) == 550
            assert await asyncio.to_thread(_spoken, port, back, b"x\r\n" * bounces.LARGEST) == 552
            assert (await row_of(platform, letter)).state == "sent"
            assert await asyncio.to_thread(_spoken, port, back, notification()) == 250
            assert (await row_of(platform, letter)).state == "failed"


def _spoken(port: int, to: str, content: bytes) -> int:
    with smtplib.SMTP("127.0.0.1", port) as client:
        try:
            client.sendmail("", [to], content)
        except smtplib.SMTPRecipientsRefused as error:
            return error.recipients[to][0]
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
        return 250


# --- looks and announcements --------------------------------------------------------------------------------------


VALUES = """mail_name = ""
brand_color = ""
brand_logo = ""
mail_reply_to = ""
"""
BRAND = '\n[users]\ncolor = "brand_color"\nlogo = "brand_logo"\n'


def with_looks(ground: g.Ground) -> None:
    """Let tenants have looks of their own."""
    ground.config.write_text(ground.config.read_text().replace("share = 1\n", f"share = 1\n{VALUES}") + BRAND)


async def test_a_tenants_letters_are_in_its_look(ground: g.Ground, inbox: w.Inbox) -> None:
    """Name, color, picture and whom answers go to; what makes no sense, or leads out of the directory, is left out."""
    with_looks(ground)
    picture = f"data:image/png;base64,{base64.b64encode(w.PNG).decode()}"
    look = {
        "mail_name": "Acme <Desk>",
        "brand_color": "#ffe08a",
        "brand_logo": picture,
        "mail_reply_to": "x@acme.example",
    }
    (ground.root.parent / "outside.png").write_bytes(w.PNG)
    bad = {"brand_color": "red;}", "brand_logo": "../outside.png", "mail_reply_to": "x@acme.example\r\nBcc: e@x.org"}
    async with ground.open() as platform:
        at_its_host = {"brand_logo": "/media/logo.svg"}  # for its pages: no letter can carry it
        for slug, settings in (("acme", look), ("odd", bad), ("path", at_its_host)):
            await platform.operations.finish((await platform.tenants.create(slug, settings=settings)).id)
        tenant = (await platform.tenants.show("acme")).tenant
        await queue(platform, tenant=tenant.id)
        assert await platform.mails.deliver() == 1
        mail = inbox.mails[0]
        assert mail["From"] == '"Acme <Desk>" <noreply@example.org>'
        assert mail["Reply-To"] == "x@acme.example"
        assert "#ffe08a" in w.text_of(mail, "html")
        assert "color:#000000" in w.text_of(mail, "html")  # white would not be read on it
        assert "cid:logo@tenantry" in w.text_of(mail, "html")
        assert [part.get_content() for part in mail.walk() if part.get_content_type() == "image/png"] == [w.PNG]
        assert mail["List-Unsubscribe"] is None
        odd = of_tenant(platform.config, (await platform.tenants.show("odd")).tenant)
        assert (odd.name, odd.color, odd.logo, odd.reply_to) == ("odd", "#1a5fb4", None, None)
        assert of_tenant(platform.config, (await platform.tenants.show("path")).tenant).logo is None


async def test_each_tenant_is_told_once(ground: g.Ground, inbox: w.Inbox) -> None:
    """The organization's address, else the first admin's login; a second run tells those who were not told yet."""
    text = ground.config.read_text().replace('title = "A site"', 'title = "A site"\nadmin = "admin@{slug}.example.org"')
    ground.config.write_text(text)
    window = ("2036-11-28T02:00", "2036-11-28T05:00+01:00", "More memory.")
    async with ground.open() as platform:
        for slug in ("acme", "vault", "away"):
            await platform.operations.finish((await platform.tenants.create(slug)).id)
        await platform.operations.finish((await platform.tenants.suspend("away")).id)
        await platform.organizations.create("Holding", "it@holding.example.org")
        await platform.organizations.assign("Holding", ["vault"])
        assert (await platform.tenants.announce(*window, slugs=["acme"])).queued == 1
        told = await platform.tenants.announce(*window)
        assert (told.queued, told.before) == (1, 1)
        assert (await platform.tenants.announce(*window)).before == 2
        assert (await platform.tenants.announce("2036-11-29", "2036-11-30")).queued == 2
        assert await platform.mails.deliver() == 4
        first = [mail for mail in inbox.mails if "28 November" in mail["Subject"]]
        assert sorted(mail["To"] for mail in first) == ["admin@acme.example.org", "it@holding.example.org"]
        assert "from Friday, 28 November 2036, 02:00 to 04:00 UTC" in " ".join(w.text_of(first[0]).split())
        for wrong in (("2036-11-28", "2036-11-27"), ("2020-01-01", "2020-01-02"), ("soon", "later")):
            with pytest.raises(InvalidRequest):
                await platform.tenants.announce(*wrong)


async def test_without_a_server_nothing_is_announced(ground: g.Ground) -> None:
    """It says so, in place of telling nobody."""
    async with ground.open() as platform:
        with pytest.raises(NoMail):
            await platform.tenants.announce("2036-11-28", "2036-11-29")


# --- the portal ---------------------------------------------------------------------------------------------------


async def test_the_page_shows_the_queue_and_releases(ground: g.Ground, inbox: w.Inbox) -> None:
    """Failed with the reason and retried, held and released; previews in looks; nothing of what letters say."""
    with_looks(ground)
    inbox.refused.add("ana@example.org")
    async with w.portal(ground) as here:
        browser = await here.signed_in()
        await queue(here.platform)
        await here.platform.mails.deliver()
        page = (await browser.get("/admin/mail")).text
        assert "550 5.1.1 there is nobody of this name" in page
        assert "https://portal.example/x" not in page
        assert "No worker lives" in page
        (letter,) = [row.id for row in await here.platform.mails.list(state="failed")]
        inbox.refused.clear()
        assert "No letter is like that" in (await browser.get("/admin/mail?search=nothing-like-it")).text
        answer = await w.send(browser, "/mail/release", {"address": "ana@example.org"})
        assert answer.status_code == 303
        assert (await w.send(browser, f"/mail/letters/{letter}/retry")).status_code == 303
        assert (await w.send(browser, f"/mail/letters/{letter}/retry")).status_code == 404
        assert await here.platform.mails.deliver() == 1
        await here.platform.operations.finish(
            (await here.platform.tenants.create("acme", settings={"brand_color": "#7a1f5c"})).id
        )
        for kind in ("admin.invite", "tenant.announce", "user.invite", "trial.over"):
            shown = await browser.get(f"/admin/mail/preview?kind={kind}&tenant=acme")
            assert "#7a1f5c" in shown.text
            assert f"<option selected>{kind}</option>" in shown.text
            letter_page = await browser.get(f"/admin/mail/preview/html?kind={kind}&tenant=acme")
            assert "#7a1f5c" in letter_page.text
            assert "href" not in letter_page.text
            assert "sandbox" in letter_page.headers["content-security-policy"]
        assert (await browser.get("/admin/mail/preview?tenant=nobody")).status_code == 404


# --- commands -----------------------------------------------------------------------------------------------------


def run(ground: g.Ground, *arguments: str, given: bytes = b"") -> str:
    """What a command prints, whatever its exit status."""
    done = programs.run(
        [g.TENANTRY, *arguments, "--config", ground.config],
        input=given.decode(),
        env=ground.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return str(done.stdout)


async def test_the_commands_of_a_day(ground: g.Ground, inbox: w.Inbox) -> None:
    """Without a worker an invitation goes at once; what comes back by a pipe is held, released, and sent again."""
    assert "A mail is on its way to ana@example.org" in run(ground, "admin", "invite", "ana@example.org")
    back = inbox.raw[0][0]
    assert "Mail goes to everybody" in run(ground, "mail", "held")
    told = run(ground, "mail", "bounce", given=notification(to=back))
    assert "came back: 5.1.1 550 there is nobody of this name. Nothing more is sent there." in " ".join(told.split())
    assert "none of our letters" in run(ground, "mail", "bounce", "--to", "eve@example.org", given=notification())
    assert "ana@example.org" in run(ground, "mail", "held")
    assert "Nothing is sent to ana@example.org" in run(ground, "admin", "reset", "ana@example.org")
    assert "1 letters were held back" in run(ground, "mail", "release", "ana@example.org")
    assert [mail["Subject"] for mail in inbox.mails] == ["You are invited to Ground", "A new password for Ground"]
    made = run(ground, "mail", "dkim", "--algorithm", "ed25519")
    assert "._domainkey.example.org. TXT" in made
    assert "usage" in run(ground, "mail", "dkim", "--algorithm", "md5")
    assert "The server took a letter" in run(ground, "mail", "test", "bob@example.org")
    assert b"DKIM-Signature:" in inbox.raw[-1][1]
    inbox.refused.add("bob@example.org")
    assert "error[mail.failed]" in run(ground, "mail", "test", "bob@example.org")
    assert "mail.not_found" in run(ground, "mail", "retry", "nothing")


async def test_letters_can_be_looked_at_while_one_designs_them(ground: g.Ground) -> None:
    """Every kind in every look, in HTML and text; links lead nowhere."""
    async with ground.open() as platform:
        await platform.operations.finish((await platform.tenants.create("acme")).id)
        transport = httpx.ASGITransport(gallery(platform))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            index = (await client.get("/")).text
            links = [html.unescape(link) for link in re.findall(r'href="([^"]+)"', index)]
            assert len(links) == len(SAMPLES) * 2 * 2
            for link in links:
                shown = await client.get(link)
                assert shown.status_code == 200
                assert ("acme" in shown.text) == ("tenant=acme" in link)
                assert "href" not in shown.text
            assert (await client.get("/html?tenant=nobody")).status_code == 404
