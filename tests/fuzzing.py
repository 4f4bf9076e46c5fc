"""Schemathesis against a platform that is served, has tenants, people and a worker, and survives what it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

import ground as g
from tenantry.config import load
from tenantry.identity.principal import SCOPES, AdminRole
from tenantry.platform import Platform
from tenantry.web.site import site

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
SEED = 1

CONFIG = """
[checks.positive_data_acceptance]
# 400 and 422 also say that a well-formed value names nothing of this platform, or that two do not go together.
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422", "429"]
[checks.negative_data_rejection]
# 413: a list of more than 10,000 texts is longer than a body may be.
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429"]
[checks.use_after_free]
enabled = false # what is removed by an operation is there until a worker has carried it out
"""


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What came of it."""

    status: int
    told: str
    cases: int


@contextlib.asynccontextmanager
async def served(ground: g.Ground, platform: Platform) -> AsyncIterator[str]:
    """The platform's site at an address of this machine."""
    with ground.config.open("a") as config:
        config.write("\n[api]\ntoken_rate = 0\naddress_rate = 0\n")
    app = site(load(ground.config))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            async with g.working(platform):
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await app.state.house.close()
            server.should_exit = True
            await serving


async def furnish(platform: Platform) -> tuple[str, dict[str, list[str]]]:
    """A superadmin's token, and the names of what is there."""
    made = [await platform.tenants.create(slug) for slug in ("acme", "umbrella", "globex", "initech", "hooli")]
    for operation in made:
        await platform.operations.finish(operation.id)
    people = ("root", "ana", "bob", "eve")
    for name in people:
        await platform.admins.invite(f"{name}@example.org", role=AdminRole.SUPERADMIN)
    await platform.organizations.create("Uni Basel", "it@unibas.example")
    token = await platform.tokens.create("fuzz", SCOPES, admin="root@example.org")
    await platform.tokens.create("spare", SCOPES, admin="root@example.org")
    rows = {row.mail: row for row in await platform.admins.list()}
    root = rows["root@example.org"]
    known = {
        "slug": ["acme", "umbrella", "globex", "initech", "hooli"],
        "operation_id": [operation.id for operation in made],
        "admin": [row.id for mail, row in rows.items() if mail != root.mail],
        "organization": [row.id for row in await platform.organizations.list()],
        "token": ["spare"],
        "host": ["acme.localhost", "www.acme.example"],
        "own": [root.id, root.mail, "fuzz", *(row.id for row in await platform.tokens.list() if row.name == "fuzz")],
    }
    return token.token, known


async def fuzz(ground: g.Ground, platform: Platform, *options: str) -> Fuzzed:
    """Run schemathesis over the whole description."""
    token, known = await furnish(platform)
    (ground.root / "schemathesis.toml").write_text(CONFIG)
    report = ground.root / "report.json"
    environment = {
        **ground.environment(),
        "SCHEMATHESIS_HOOKS": "fuzz_hooks",
        "PYTHONPATH": str(Path(__file__).parent),
        "FUZZ_KNOWN": json.dumps(known),
        "FUZZ_SEED": str(SEED),
    }
    async with served(ground, platform) as url:
        arguments = ["run", f"{url}/api/openapi.json", "--header", f"Authorization: Bearer {token}", "--no-color"]
        arguments += ["--seed", str(SEED), "--generation-deterministic", "--continue-on-failure", "--warnings", "off"]
        arguments += ["--report", "json", "--report-json-path", str(report), "--request-timeout", "60", *options]
        process = await asyncio.create_subprocess_exec(
            SCHEMATHESIS,
            *arguments,
            cwd=ground.root,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
    found: Any = json.loads(report.read_text()) if report.exists() else {}
    if os.environ.get("FUZZ_SHOW"):
        print(told.decode(), json.dumps(found)[:3000])
    return Fuzzed(process.returncode or 0, told.decode(), _cases(told.decode()))


def _cases(told: str) -> int:
    """How many requests were made up."""
    words = told.partition("Test cases:")[2].split()
    return int(words[0].replace(",", "")) if words else 0
