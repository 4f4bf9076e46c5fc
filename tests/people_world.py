"""A portal to sign in to, called within this process, and a real mail server that takes what it sends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import ipaddress
import re
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import ground as g
from tenantry.config import load
from tenantry.identity import throttle
from tenantry.identity.principal import AdminRole
from tenantry.identity.signin import Client, SignIn
from tenantry.platform import Platform
from tenantry.web.house import Opened
from tenantry.web.site import site

PASSWORD = "correct horse battery"
HERE = "http://localhost"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@dataclass
class Portal:
    """A platform and its portal, and browsers of those who use it."""

    here: Opened
    app: Any
    stack: contextlib.AsyncExitStack

    @property
    def platform(self) -> Platform:
        """Past the portal."""
        return self.here.platform

    async def browser(self, address: str = "127.0.0.1", **headers: str) -> httpx.AsyncClient:
        """Somebody's browser, as far as cookies go."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(address, 1))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client = httpx.AsyncClient(transport=transport, base_url=HERE, headers=named)
        return await self.stack.enter_async_context(client)

    async def add(self, mail: str, role: AdminRole = AdminRole.ADMIN) -> None:
        """Somebody who chose a password."""
        invited = await self.platform.admins.invite(mail, role=role)
        await SignIn(self.platform.registry).take(invited.link, PASSWORD, Client("127.0.0.1"))

    async def signed_in(self, mail: str = "root@example.org", address: str = "127.0.0.1") -> httpx.AsyncClient:
        """A browser in which somebody is signed in."""
        browser = await self.browser(address)
        assert (await sign_in(browser, mail)).status_code == 303
        return browser


async def sign_in(browser: httpx.AsyncClient, mail: str, password: str = PASSWORD, code: str = "") -> httpx.Response:
    """Send the form of the sign-in page."""
    return await browser.post("/admin/sign-in", data={"mail": mail, "password": password, "code": code})


async def csrf(browser: httpx.AsyncClient, page: str = "/admin/me") -> str:
    """What the forms of a page carry."""
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await browser.get(page)).text)
    assert found
    return found[1]


async def send(browser: httpx.AsyncClient, path: str, data: Any = None) -> httpx.Response:
    """Send a form of the portal."""
    return await browser.post(f"/admin{path}", data={"csrf": await csrf(browser)} | (data or {}))


def waits(kind: str, count: int) -> datetime.timedelta:
    """In place of `throttle._wait`: the longest wait at once, so that no test depends on how fast a machine is."""
    return throttle.LONGEST if count >= throttle.FREE[kind] else datetime.timedelta()


def told(page: httpx.Response) -> str:
    """What stands in a page's note."""
    found = re.search(r'<div class="note.*?</div>', page.text, re.DOTALL)
    return re.sub(r"<.*?>|\s+", " ", found[0]).strip() if found else ""


@contextlib.asynccontextmanager
async def portal(ground: g.Ground) -> AsyncIterator[Portal]:
    """A portal with one superadmin."""
    app = site(load(ground.config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(app.state.house.close)
        made = Portal(await app.state.house.opened(), app, stack)
        await made.add("root@example.org", AdminRole.SUPERADMIN)
        yield made


# --- mail ---------------------------------------------------------------------------------------------------------


@dataclass
class Inbox:
    """A real SMTP server and what it took."""

    port: int
    ca: Path
    mails: list[EmailMessage] = field(default_factory=list)
    seen: list[EmailMessage] = field(default_factory=list)  # those that were not kept, too
    raw: list[tuple[str, bytes]] = field(default_factory=list)  # whom they come back to, and all of them
    answers: list[str] = field(default_factory=list)  # to the next mails; then each is kept
    refused: set[str] = field(default_factory=set)  # addresses that are not here
    hangs: threading.Event = field(default_factory=threading.Event)  # while it is set, nothing is kept or answered
    pauses: threading.Event = field(default_factory=threading.Event)  # likewise, but mails are kept
    came: threading.Condition = field(default_factory=threading.Condition)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        """Know who is here."""
        if address in self.refused:
            return "550 5.1.1 there is nobody of this name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep a mail, where nothing else is to be said."""
        while self.hangs.is_set():
            await asyncio.sleep(0.01)
        mail: EmailMessage = message_from_bytes(envelope.content, policy=policy.default)  # type: ignore[arg-type]
        answer = self.answers.pop(0) if self.answers else "250 kept"
        with self.came:
            self.seen.append(mail)
            if answer.startswith("250"):
                self.mails.append(mail)
                self.raw.append((envelope.mail_from, envelope.content))
            self.came.notify_all()
        while self.pauses.is_set():
            await asyncio.sleep(0.01)
        return answer

    async def wait(self, count: int) -> list[EmailMessage]:
        """The mails, once there are so many."""
        await asyncio.to_thread(self._wait, count)
        return list(self.mails)

    def _wait(self, count: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.mails) >= count, g.PATIENCE)


def text_of(mail: EmailMessage, kind: str = "plain") -> str:
    """One part of a mail."""
    part = mail.get_body((kind,))
    assert part is not None
    content: str = part.get_content()
    return content


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost, as a file to trust and as a server's context."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.OID_COMMON_NAME, "ca")])
    moment = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(*encoding))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, secret)
    return pem, context


def _known(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
    right = LoginPassword(b"tenantry", b"let-me-send")
    return AuthResult(success=given == right, handled=False)


@contextlib.contextmanager
def inbox(folder: Path, tls: str = "starttls") -> Iterator[Inbox]:
    """A mail server that takes nothing without TLS and a sign-in."""
    ca, context = certificate(folder)
    found = Inbox(0, ca)
    options: dict[str, Any] = {"auth_required": True, "authenticator": _known, "hostname": "127.0.0.1", "port": 0}
    if tls == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    else:
        options |= {"ssl_context": context, "auth_require_tls": False, "auth_required": False}
    controller = _Controller(found, **options)
    controller.start()
    try:
        found.port = controller.server.sockets[0].getsockname()[1]
        yield found
    finally:
        controller.stop()


class _Controller(Controller):
    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # it would call at port 0
        super()._trigger_server()


def mailing(ground: g.Ground, found: Inbox, tls: str = "starttls", url: str = "https://portal.example") -> None:
    """Let a platform send through a mail server."""
    toml = ground.config.read_text().replace("[platform]\n", f'[platform]\nurl = "{url}"\n')
    mail = f'host = "localhost"\nport = {found.port}\ntls = "{tls}"\nca = "{found.ca}"\nuser = "tenantry"\n'
    mail += 'password = {env = "SMTP_PASSWORD"}\nsender = "Bücher & Söhne <noreply@example.org>"\n'
    ground.config.write_text(f"{toml}\n[mail]\n{mail}")
    with (ground.root / ".env").open("a") as env:
        env.write("SMTP_PASSWORD=let-me-send\n")
