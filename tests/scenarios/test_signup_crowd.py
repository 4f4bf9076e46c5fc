"""Many who sign up at once at a server that runs, and the server and its worker killed in the middle of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

import ground as g
import people_world as w
import servers
import signup_world as s
from tenantry.platform import Platform
from tenantry.registry import tables
from tenantry.registry.database import now

APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})
"""
MANY = httpx.Limits(max_connections=None)


@dataclass
class Server:
    """A platform that `tenantry serve` serves, with a worker beside, and its mailbox."""

    ground: g.Ground
    inbox: w.Inbox
    port: int
    gone: bool = False  # it was killed, and nobody waits for its letters

    @property
    def base(self) -> str:
        """Where it is."""
        return f"http://localhost:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Run it; its worker ends with it."""
        with (self.ground.root / "serve.log").open("a") as log:
            process = self.ground.command("serve", "--port", str(self.port))
            try:
                yield process
            finally:
                g.end(process)
                log.write(process.communicate()[0])

    async def answers(self, client: httpx.AsyncClient) -> None:
        """Wait until it does."""

        async def there() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/signup")).status_code == 200
            return False

        await g.until(there, "the first answer")


@dataclass
class Person:
    """Somebody who signs up, and what she was told."""

    slug: str
    mail: str
    told: list[int] = field(default_factory=list)  # the status of each answer that came

    async def begin(self, client: httpx.AsyncClient) -> httpx.Response:
        """Fill the form, and send it."""
        challenge = s.challenge_of((await client.get("/signup")).text)
        form = {"slug": self.slug, "name": "Ana Ruiz", "mail": self.mail, "organization": self.slug.title()}
        form |= {"terms": "1", "challenge": challenge, "answer": s.solve(challenge)}
        answer = await client.post("/signup", data=form)
        self.told.append(answer.status_code)
        return answer

    async def confirm(self, client: httpx.AsyncClient, link: str) -> httpx.Response:
        """Follow the link of the mail."""
        answer = await client.post(link)
        self.told.append(answer.status_code)
        return answer


@contextlib.asynccontextmanager
async def server(root: Path) -> AsyncIterator[tuple[Server, Platform, httpx.AsyncClient]]:
    """A server that is not there yet, the platform past it, and a client."""
    ground, port = g.Ground(root / "platform"), servers.free_port()
    with w.inbox(root) as inbox:
        w.mailing(ground, inbox, url=f"http://localhost:{port}")
        ground.config.write_text(ground.config.read_text() + s.SIGNUP + '[serve]\napp = "served:app"\n')
        (ground.root / "served.py").write_text(APP)
        async with (
            ground.open() as platform,
            httpx.AsyncClient(base_url=f"http://localhost:{port}", timeout=g.PATIENCE, limits=MANY) as client,
        ):
            yield Server(ground, inbox, port), platform, client


def links(here: Server) -> dict[str, str]:
    """The path of the newest link in a mail to each address."""
    return {mail["To"]: w.text_of(mail).partition(here.base)[2].split()[0] for mail in here.inbox.mails}


async def whole(here: Server, platform: Platform) -> set[str]:
    """The tenants that are there, each served, with one admin who may choose a password; nothing is half made."""
    for operation in await platform.operations.list(limit=1000):
        assert (await g.ended(platform, operation)).operation.state == "done"
    found = {row.slug: row for row in await platform.tenants.list(limit=1000)}
    for slug, row in found.items():
        ((login, role, password),) = here.ground.sql(slug, "SELECT login, role, password FROM tenantry_user")
        assert (row.status, role, password) == ("active", "admin", "")
        assert login.endswith("@crowd.example")
    assert len(list(here.ground.data.glob("tenants/*"))) == len(found)
    assert not await g.rows(platform, "secret")
    assert not await g.faults_of(platform)
    return set(found)


async def test_fifty_at_once_ten_of_them_for_one_name(tmp_path: Path) -> None:
    """One gets it, nine are told, and nothing is left of the nine: no tenant, name, letter, file or user."""
    names = [*(f"crowd-{number:02}" for number in range(40)), *["wanted"] * 10]
    people = [Person(slug, f"p{number}@crowd.example") for number, slug in enumerate(names)]
    async with server(tmp_path) as (here, platform, client):
        with here.running():
            await here.answers(client)
            answers = await asyncio.gather(*(one.begin(client) for one in people))
            assert {answer.status_code for answer in answers[:40]} == {303}
            assert sorted(answer.status_code for answer in answers[40:]) == [303, *[409] * 9]
            assert all("is taken" in answer.text for answer in answers[40:] if answer.status_code == 409)
            held = {one.mail for one in people if one.told == [303]}
            await here.inbox.wait(len(held))
            waiting = links(here)
            mine = [one for one in people if one.mail in held]
            made = await asyncio.gather(*(one.confirm(client, waiting[one.mail]) for one in mine))
            assert {answer.status_code for answer in made} == {303}
            assert await whole(here, platform) == set(names)
            shown = await asyncio.gather(*(client.get(answer.headers["location"]) for answer in made))
            assert all(" is ready</h1>" in page.text for page in shown)
        assert {mail["To"] for mail in here.inbox.seen} == held
        assert {row["recipient"] for row in await g.rows(platform, "letter")} == held
        assert sorted(row["mail"] for row in await g.rows(platform, "sign_up")) == sorted(held)


async def test_killed_in_the_middle_of_twenty(tmp_path: Path) -> None:
    """Server and worker gone and begun again: each ends whole, or whoever signed up is told."""
    people = [Person(f"site-{number:02}", f"p{number}@crowd.example") for number in range(20)]
    async with server(tmp_path) as (here, platform, client):
        with here.running() as first:
            await here.answers(client)
            under_way = [asyncio.create_task(_sign_up(here, client, one)) for one in people]
            await g.until(lambda: _confirmed(platform, 3), "the third confirmation")
            for pid in (*await g.pids(platform), first.pid):
                os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(first.wait)
            here.gone = True
            ended = await asyncio.gather(*under_way, return_exceptions=True)
        cut_off = [one for one, end in zip(people, ended, strict=True) if end is not None]
        assert cut_off  # else nothing was in the middle
        await _two_minutes_later(platform)
        here.gone = False
        with here.running():
            await here.answers(client)
            for one in cut_off:
                await _again(here, platform, client, one)
            assert await whole(here, platform) == {one.slug for one in people}
        assert not [row for row in await g.rows(platform, "sign_up") if row["tenant_id"] is None]


async def _sign_up(here: Server, client: httpx.AsyncClient, one: Person) -> None:
    assert (await one.begin(client)).status_code == 303
    link = await _link(here, one)
    assert (await one.confirm(client, link)).status_code == 303


async def _link(here: Server, one: Person) -> str:
    async def came() -> str | None:
        if here.gone:
            raise ConnectionError
        return links(here).get(one.mail)

    found: str = await g.until(came, f"a mail to {one.mail}")
    return found


async def _confirmed(platform: Platform, number: int) -> bool:
    return sum(row["tenant_id"] is not None for row in await g.rows(platform, "sign_up")) >= number


async def _two_minutes_later(platform: Platform) -> None:
    """Let letters go that were in the hands of the worker that is gone."""
    async with platform.registry.write() as tx:
        await tx.execute(tables.letter.update().where(tables.letter.c.state == "queued").values(due=now()))


async def _again(here: Server, platform: Platform, client: httpx.AsyncClient, one: Person) -> None:
    """Go on as somebody whose browser said that the server is gone: send the form again, then follow the mail's link.

    What she is told is always what there is: a name that she holds herself by now is taken, a link that did its work
    opens nothing.
    """
    held = {row["slug"]: row["tenant_id"] for row in await g.rows(platform, "sign_up")}
    before = await one.begin(client)
    assert before.status_code == (409 if one.slug in held else 303)
    if held.get(one.slug) is not None:
        return
    answer = await one.confirm(client, await _link(here, one))
    assert answer.status_code == 303, answer.text
