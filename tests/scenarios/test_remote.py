"""`tenantry --server URL --token …`: the same commands, carried out on a platform elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvicorn

import ground as g
from tenantry.config import load
from tenantry.identity.principal import SCOPES, AdminRole
from tenantry.web.site import site

Run = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.asynccontextmanager
async def elsewhere(ground: g.Ground, nowhere: Path, scopes: tuple[str, ...] = SCOPES) -> AsyncIterator[Run]:
    """A platform that is served and has a worker; commands reach it by its address alone."""
    app = site(load(ground.config))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        async with ground.open() as platform:
            await platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)
            made = await platform.tokens.create("elsewhere", scopes, admin="root@example.org")
            named = {"TENANTRY_SERVER": f"http://127.0.0.1:{listener.getsockname()[1]}", "TENANTRY_TOKEN": made.token}

            def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
                environment = {**os.environ, **named, **more}
                command = [str(g.TENANTRY), *arguments]
                return subprocess.run(
                    command, cwd=nowhere, env=environment, capture_output=True, text=True, timeout=g.PATIENCE
                )

            try:
                async with g.working(platform):
                    yield run
            finally:
                await app.state.house.close()
                server.should_exit = True
                await serving


async def test_a_tenant_is_run_from_elsewhere(ground: g.Ground, tmp_path: Path) -> None:
    """Created and followed to its end, shown, listed, suspended, renamed and removed, as on the machine itself."""
    async with elsewhere(ground, tmp_path) as run:

        async def done(*arguments: str) -> str:
            answer = await asyncio.to_thread(run, *arguments)
            assert answer.returncode == 0, answer.stderr + answer.stdout
            return answer.stdout

        told = await done("tenant", "create", "acme", "--name", "Acme & Söhne", "--set", "share=3")
        assert "acme is ready: acme.localhost" in told
        assert "it is shown only now" in told
        shown = json.loads(await done("tenant", "show", "acme", "--json"))
        async with ground.open() as platform:
            assert shown["row"]["name"] == "Acme & Söhne"
            assert (
                shown["tenant"]["settings"]["share"] == (await platform.tenants.show("acme")).tenant.settings["share"]
            )
        assert "acme" in await done("tenant", "list", "--search", "söhne")
        assert "suspended" in await done("tenant", "suspend", "acme", "--reason", "unpaid")
        await done("tenant", "resume", "acme")
        await done("tenant", "check", "acme")
        assert "is now acme-2" in await done("tenant", "rename", "acme", "acme-2")
        assert "acme-2.localhost" in await done("hostname", "list", "acme-2")
        assert "rename" in await done("operation", "list")
        await done("tenant", "destroy", "acme-2", "--yes")
        assert "No tenant is here." in await done("tenant", "list")
        assert "Ground" in await done("status")
        assert "token:elsewhere of root@example.org" in await done("audit", "list")


async def test_an_error_from_elsewhere_is_the_same_error(ground: g.Ground, tmp_path: Path) -> None:
    """Its code, message, remedy and exit status are those of the machine itself."""
    async with elsewhere(ground, tmp_path) as run:
        there = await asyncio.to_thread(run, "tenant", "show", "nobody", "--json")
        here = await asyncio.to_thread(
            subprocess.run,
            [str(g.TENANTRY), "tenant", "show", "nobody", "--json", "--config", str(ground.config)],
            env=ground.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (there.returncode, there.stderr) == (here.returncode, here.stderr) == (4, here.stderr)
        wrong = await asyncio.to_thread(run, "tenant", "list", TENANTRY_TOKEN="tenantry_wrong")
        assert (wrong.returncode, "access.unknown" in wrong.stderr) == (3, True)


async def test_what_works_on_the_machine_alone_says_so(ground: g.Ground, tmp_path: Path) -> None:
    """A verb without an address is refused before anything is sent."""
    async with elsewhere(ground, tmp_path) as run:
        answer = await asyncio.to_thread(run, "migrate", "drift")
        assert (answer.returncode, "request.local_only" in answer.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--server", "http://127.0.0.1:9", "--token", "tenantry_x", "tenant", "list"], "remote.unreachable"),
        (["--server=http://127.0.0.1:9", "tenant", "list"], "usage"),
        (["--server"], "usage"),
    ],
)
def test_options_before_the_noun_lead_elsewhere(tmp_path: Path, arguments: list[str], code: str) -> None:
    """With = or without; an address where nothing answers is named."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")}
    command = [str(g.TENANTRY), *arguments]
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert f"error[{code}]" in answer.stderr
