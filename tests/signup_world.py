"""A platform with sign-up, a real mail server beside it, and people who sign up by plain HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx

import ground as g
import people_world as w
from tenantry.config import load
from tenantry.platform import Platform
from tenantry.web.site import site

HERE = "http://localhost"
PASSWORD = "correct horse battery"

SIGNUP = """
[signup]
open = true
plan = "free"
terms = "https://example.com/terms"
terms_version = "2026-11"
work = 4
per_address = 0
per_domain = 0
"""


@dataclass
class World:
    """A platform, its pages, and its mail."""

    platform: Platform
    inbox: w.Inbox
    app: Any
    stack: contextlib.AsyncExitStack
    ground: g.Ground

    async def browser(self, address: str = "127.0.0.1", **headers: str) -> httpx.AsyncClient:
        """Somebody's browser, as far as cookies go."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(address, 1))
        client = httpx.AsyncClient(transport=transport, base_url=HERE, headers=headers)
        return await self.stack.enter_async_context(client)

    async def begin(self, slug: str, browser: httpx.AsyncClient | None = None, **changes: str) -> httpx.Response:
        """Fill the form and send it."""
        browser = browser or await self.browser()
        return await browser.post("/signup", data=await self.form(slug, browser, **changes))

    async def form(self, slug: str, browser: httpx.AsyncClient, **changes: str) -> dict[str, str]:
        """The form filled, with the work done."""
        challenge = challenge_of((await browser.get("/signup")).text)
        filled = {"slug": slug, "name": "Ana Ruiz", "mail": f"{slug}@example.com", "organization": slug.title()}
        answer = solve(challenge) if challenge else ""
        return {**filled, "terms": "1", "challenge": challenge, "answer": answer, **changes}

    async def mails(self, to: str) -> list[EmailMessage]:
        """The mails that came to an address, once there is one."""

        async def came() -> list[EmailMessage]:
            return [mail for mail in self.inbox.mails if mail["To"] == to]

        found: list[EmailMessage] = await g.until(came, f"a mail to {to}")
        return found

    async def signed_up(self, slug: str, browser: httpx.AsyncClient | None = None) -> str:
        """Sign up by the link of the mail, and have the tenant made: the path of the page that shows it."""
        browser = browser or await self.browser()
        sent = await self.begin(slug, browser)
        assert sent.status_code == 303, told(sent)
        link = link_of((await self.mails(f"{slug}@example.com"))[-1])
        answer = await browser.post(link)
        assert answer.status_code == 303, told(answer)
        await self.finish()
        return answer.headers["location"]

    async def finish(self) -> None:
        """Wait until every operation is over."""
        for operation in await self.platform.operations.list(limit=1000):
            await self.platform.operations.finish(operation.id)


@contextlib.asynccontextmanager
async def world(root: Path, settings: str = SIGNUP, toml: str = g.TOML) -> AsyncIterator[World]:
    """The platform within this process, and a mail server."""
    ground = g.Ground(root / "platform", toml)
    with w.inbox(root) as inbox:
        w.mailing(ground, inbox, url=HERE)
        ground.config.write_text(ground.config.read_text() + settings)
        app = site(load(ground.config))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(app.state.house.close)
            yield World((await app.state.house.opened()).platform, inbox, app, stack, ground)


def challenge_of(page: str) -> str:
    """What the form's script has to work on."""
    found = re.search(r'name="challenge" value="([^"]+)"', page)
    return found[1] if found else ""


def solve(challenge: str) -> str:
    """The answer, as the script of the page computes it."""
    bits = int(challenge.split(".")[0])
    for number in itertools.count():
        digest = hashlib.sha256(f"{challenge}:{number}".encode()).digest()
        if int.from_bytes(digest, "big") >> (256 - bits) == 0:
            return str(number)
    raise AssertionError


def link_of(mail: EmailMessage) -> str:
    """The path of the link in a mail."""
    found = re.search(rf"{re.escape(HERE)}(/signup/\S+)", w.text_of(mail))
    assert found, w.text_of(mail)
    return found[1]


def code_of(mail: EmailMessage) -> str:
    """The code in a mail."""
    found = re.search(r"\b(\d{6})\b", w.text_of(mail))
    assert found, w.text_of(mail)
    return found[1]


def told(answer: httpx.Response) -> str:
    """What the note of a page says, and what it says of the slug."""
    slug = re.search(r'id="slug-told".*?</p>', answer.text, re.DOTALL)
    return w.told(answer) + (" " + re.sub(r"<.*?>|\s+", " ", slug[0]) if slug else "")
