"""`tenantry serve` as people start it: what the terminal shows, the worker beside it, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

import ground as g
from portals import PASSWORD
from tenantry.identity.principal import AdminRole
from tenantry.identity.signin import Client, SignIn
from tenantry.registry import journal
from terminals import Terminal, family, free_port, gone, terminal, until

APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})
"""


@contextlib.contextmanager
def served(ground: g.Ground, *options: str) -> Iterator[Terminal]:
    """A terminal with `tenantry serve` in it."""
    (ground.root / "app.py").write_text(APP)
    port = free_port()
    command = [str(g.TENANTRY), "serve", "--app", "app:app", "--port", str(port), *options]
    with terminal([*command, "--config", str(ground.config)], ground.root, ground.environment(), port) as found:
        yield found


def workers(ground: g.Ground) -> set[int]:
    """The processes of workers that are entered."""
    with contextlib.suppress(Exception):  # no table yet
        return {row[0] for row in ground.control("SELECT pid FROM worker")}
    return set()


async def test_a_newcomer_finds_the_portal_and_a_worker_at_it(ground: g.Ground) -> None:
    """The terminal shows a link that opens; what is asked for is done without another command; Ctrl-C ends all."""
    with served(ground) as shown:
        link = shown.link()
        assert shown.get(urlsplit(link).path).status_code == 200
        for page in ("/", "/admin/sign-in", "/favicon.ico"):
            assert _icon(shown, page).headers["content-type"].startswith("image/svg+xml"), page
        async with ground.open() as platform:
            operation = await platform.tenants.create("acme")
            assert (await g.ended(platform, operation)).operation.state is journal.State.DONE
            pids = set(await g.pids(platform))
        assert len(pids) == 1
        assert pids == family(shown.process.pid)
        assert shown.tell(signal.SIGINT) == 0
        assert gone(pids)
        assert "Traceback" not in shown.text
    assert workers(ground) == set()
    assert link.encode() not in b"".join(path.read_bytes() for path in ground.root.rglob("*") if path.is_file())


def _icon(shown: Terminal, page: str) -> httpx.Response:
    """The picture that a browser asks for with a page, from the same host; or without one."""
    found = re.search(r'rel="icon" href="(/[^"]+)"', shown.get(page).text)
    return shown.get(found[1] if found else "/favicon.ico")


async def test_nothing_outlives_a_killed_server(ground: g.Ground) -> None:
    """`kill -9` takes the web processes and the worker along; what was under way is done by the next start."""
    with served(ground, "--workers", "2") as shown:
        shown.shows("Stop it with Ctrl-C.")
        until(lambda: len(workers(ground)) == 1 and shown.get("/.tenantry/health").status_code == 200)
        pids = family(shown.process.pid)
        assert len(pids) >= 3
        async with ground.open() as platform:
            operation = await platform.tenants.create("acme")
            os.kill(shown.process.pid, signal.SIGKILL)
            until(lambda: gone(pids))
            with served(ground) as again:
                assert (await g.ended(platform, operation)).operation.state is journal.State.DONE
                again.shows("Stop it with Ctrl-C.")  # the worker may be done before that
                until(lambda: again.get("/.tenantry/health").status_code == 200)
                assert again.tell(signal.SIGTERM) == 0
            assert await g.faults_of(platform) == []


async def test_a_worker_that_dies_is_begun_again(ground: g.Ground) -> None:
    """The server goes on meanwhile, and the log says so."""
    with served(ground) as shown:
        until(lambda: len(workers(ground)) == 1)
        (pid,) = workers(ground)
        os.kill(pid, signal.SIGKILL)
        shown.shows("the worker ended (-9)")
        async with ground.open() as platform:
            assert (await g.ended(platform, await platform.tenants.create("acme"))).operation.worker_id
        assert shown.get("/.tenantry/health").status_code == 200


@pytest.mark.parametrize("way", ["option", "setting"])
def test_a_server_may_be_alone(ground: g.Ground, way: str) -> None:
    """With --no-worker, or `serve.worker = false`, it only answers."""
    if way == "setting":
        ground.config.write_text(ground.config.read_text() + "\n[serve]\nworker = false\n")
    with served(ground, *(["--no-worker"] if way == "option" else [])) as shown:
        shown.shows("Stop it with Ctrl-C.")
        assert shown.get("/.tenantry/health").status_code == 200
        assert family(shown.process.pid) == set()


async def test_whoever_follows_an_operation_holds_nothing_up(ground: g.Ground) -> None:
    """Ctrl-C ends the server at once, without a word, while a page waits for steps that nobody does."""
    async with ground.open() as platform:
        invited = await platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)
        await SignIn(platform.registry).take(invited.link, PASSWORD, Client("127.0.0.1"))
        operation = await platform.tenants.create("acme")
        made = await platform.tokens.create("follower", ["operations:read"], admin="root@example.org")
    with served(ground, "--no-worker") as shown:
        shown.shows("Stop it with Ctrl-C.")
        address = f"http://127.0.0.1:{shown.port}/api/operations/{operation.id}/events"
        headers = {"host": "localhost", "authorization": f"Bearer {made.token}"}
        with httpx.stream("GET", address, headers=headers, timeout=g.PATIENCE, trust_env=False) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: operation"
            assert shown.tell(signal.SIGINT) == 0
            assert "queued" in "".join(lines)
        assert "Traceback" not in shown.text
        assert "Cancel" not in shown.text


def test_a_log_never_holds_the_link(ground: g.Ground) -> None:
    """Where the output is no terminal, no link is made at all."""
    (ground.root / "app.py").write_text(APP)
    with ground.command("serve", "--app", "app:app", "--port", "0") as process:
        until(lambda: len(workers(ground)) == 1)
        process.terminate()
        assert process.communicate(timeout=g.PATIENCE)[0] == ""
    assert process.returncode == 0
    assert ground.control("SELECT * FROM admin_link") == []


def test_a_second_start_at_the_same_port_changes_nothing(ground: g.Ground) -> None:
    """It is refused in words before it makes a link, so that the first one's opens still."""
    with served(ground, "--no-worker") as shown:
        link = shown.link()
        with ground.command("serve", "--app", "app:app", "--port", str(shown.port)) as process:
            told = process.communicate(timeout=g.PATIENCE)[0]
        assert process.returncode == 1
        assert f"error[serve.address]: Nothing can be served at 127.0.0.1, port {shown.port}" in told
        assert shown.get(urlsplit(link).path).status_code == 200


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_processes_run_on_the_platforms_own_machine(ground: g.Ground, command: str) -> None:
    """`--server` before them is refused."""
    argv = [str(g.TENANTRY), "--server", "http://127.0.0.1:9", "--token", "tenantry_x", command]
    done = subprocess.run(argv, cwd=ground.root, env=ground.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, "request.local_only" in done.stderr) == (2, True)
