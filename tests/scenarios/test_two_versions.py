"""An update without downtime: an old and a new version of Planner serve while `pre` and `post` are migrated.

TWO_VERSIONS_TENANTS says how many laboratories there are.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from ground import PATIENCE, TENANTRY
from servers import Postgres, free_port
from tenantry.platform import Platform

pytestmark = pytest.mark.postgres

EXAMPLE = Path(__file__).parents[2] / "examples" / "planner"
TENANTS = int(os.environ.get("TWO_VERSIONS_TENANTS", "40"))
VISITORS = 4  # of each version at a time
LONG = 10 * PATIENCE + 10 * TENANTS

PRE = """-- A note's text is called so from now on; `body` is kept equal while old code writes it.
-- tenantry: phase=pre
ALTER TABLE note ADD COLUMN text text CHECK (length(text) BETWEEN 1 AND 4000), ALTER COLUMN body DROP NOT NULL;
UPDATE note SET text = body;
CREATE FUNCTION note_text() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.body IS DISTINCT FROM OLD.body THEN
    NEW.text := NEW.body;
  ELSE
    NEW.text := coalesce(NEW.text, NEW.body);
  END IF;
  NEW.body := NEW.text;
  RETURN NEW;
END
$$;
CREATE TRIGGER note_text BEFORE INSERT OR UPDATE ON note FOR EACH ROW EXECUTE FUNCTION note_text();
-- down
DROP TRIGGER note_text ON note;
DROP FUNCTION note_text;
ALTER TABLE note DROP COLUMN text, ALTER COLUMN body SET NOT NULL;
"""
POST = """-- No code writes `body` any more.
-- tenantry: phase=post
DROP TRIGGER note_text ON note;
DROP FUNCTION note_text;
ALTER TABLE note DROP COLUMN body, ALTER COLUMN text SET NOT NULL;
"""


@dataclass
class Version:
    """One version of the application, on disk and served."""

    root: Path
    column: str  # what it calls the text of a note
    environment: dict[str, str]
    port: int = field(default_factory=free_port)

    async def run(self, *command: str) -> str:
        """What a command of this version prints."""
        process = await asyncio.create_subprocess_exec(
            str(TENANTRY), *command, cwd=self.root, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        told, _ = await asyncio.wait_for(process.communicate(), LONG)
        assert process.returncode == 0, told.decode()
        return told.decode()

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        """`tenantry serve`, which takes requests inside the block."""
        log = self.root / "serve.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(TENANTRY), "serve", "--no-worker", "--port", str(self.port)],
                cwd=self.root, env=self.environment, stdout=out, stderr=out,
            )  # fmt: skip
        try:
            await self._answers(process, log)
            yield process
            assert "Traceback" not in log.read_text()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)

    async def _answers(self, process: subprocess.Popen[bytes], log: Path) -> None:
        async with asyncio.timeout(PATIENCE), self.client() as client:
            while True:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    await client.get("/.tenantry/health")
                    return
                await asyncio.sleep(0.05)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers={"host": "localhost"}, timeout=PATIENCE, trust_env=False
        )


@dataclass
class Lab:
    """A laboratory, somebody who is signed in, and the notes that were written there."""

    slug: str
    proof: dict[str, str]
    person: int
    notes: list[str] = field(default_factory=list)


class Visitors:
    """People at work at one version of the application, laboratory after laboratory."""

    def __init__(self, version: Version, labs: list[Lab]) -> None:
        self.version = version
        self.labs = labs
        self.done: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.bears_behind = False  # whether laboratories may still be refused since they are at the old schema
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """They work inside the block, and have all been served at its end."""
        self._tasks = [asyncio.create_task(self._visit(self.labs[first::VISITORS])) for first in range(VISITORS)]
        try:
            yield
            await self.serves(1)  # everybody once more, after all that
        finally:
            self._over.set()
            await asyncio.gather(*self._tasks)

    async def serves(self, rounds: int) -> None:
        """Wait until each laboratory was served so often from now on, as long as nothing went wrong."""
        wanted = {lab.slug: self.done[lab.slug] + 3 * rounds for lab in self.labs}
        async with asyncio.timeout(LONG):
            while any(self.done[slug] < count for slug, count in wanted.items()):
                assert self.faults == []
                assert not any(task.done() for task in self._tasks)
                await asyncio.sleep(0.05)

    async def _visit(self, labs: list[Lab]) -> None:
        async with self.version.client() as client:
            while not self._over.is_set():
                for lab in labs:
                    await self._note(client, lab)
                await asyncio.sleep(0.01)  # with fewer laboratories than visitors somebody has nothing to do

    async def _note(self, client: httpx.AsyncClient, lab: Lab) -> None:
        """Write a note, change it, and find every note that anybody wrote."""
        column, text = self.version.column, secrets.token_hex(8)
        made = await self._ask(client, lab, "POST", "notes", {column: "first", "staff_id": lab.person})
        if made is None:
            return
        changed = await self._ask(client, lab, "PATCH", f"notes/{made['id']}", {column: text})
        if changed is None or changed[column] != text:
            self.faults.append(f"{lab.slug}: {changed} instead of {text}")
            return
        lab.notes.append(text)
        known = set(lab.notes)
        found = await self._ask(client, lab, "GET", "notes")
        missing = known - {row[column] for row in found or ()}
        if missing:
            self.faults.append(f"{lab.slug}: {len(missing)} of {len(known)} notes are not there")

    async def _ask(self, client: httpx.AsyncClient, lab: Lab, method: str, what: str, sent: Any = None) -> Any:
        answer = await client.request(
            method, f"/t/{lab.slug}/api/{what}", json=sent, headers={**lab.proof, "connection": "close"}
        )
        self.done[lab.slug] += answer.is_success
        if answer.is_success:
            return answer.json()
        if not (self.bears_behind and answer.status_code == 503 and "schema.behind" in answer.text):
            self.faults.append(f"{lab.slug}: {method} {what} {answer.status_code} {answer.text[:200]}")
        return None


# --- the two versions ---------------------------------------------------------------------------------------------


@pytest.fixture
def versions(tmp_path: Path, postgres: Postgres) -> Iterator[tuple[Version, Version]]:
    """Planner as it is, and the Planner whose notes have a `text` in place of a `body`; one platform."""
    prefix = f"v{secrets.token_hex(4)}"
    admin = postgres.administrator()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")} | {
        "TENANTRY_PLATFORM__DATA": str(tmp_path / "var"),
        "TENANTRY_SECRET_KEY": secrets.token_hex(32),
        "TENANTRY_RUNTIME__TOKEN": "1h",  # nobody has to refresh here
        "PG_ADMIN_URL": admin,
    }
    made = [Version(_copy(tmp_path / name, prefix), column, environment) for name, column in NAMES.items()]
    kinds = made[1].root / "planner" / "kinds.py"
    text = kinds.read_text()
    assert 'Field("body", "Note"' in text
    kinds.write_text(text.replace('Field("body", "Note"', 'Field("text", "Note"'))
    (made[1].root / "migrations" / "0010_note_text.sql").write_text(PRE)
    (made[1].root / "migrations" / "0011_no_body.sql").write_text(POST)
    yield made[0], made[1]
    _clear(postgres, prefix, admin)


NAMES = {"old": "body", "new": "text"}


def _copy(root: Path, prefix: str) -> Path:
    """The example, on a server of the test's."""
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("var", ".env", "__pycache__", "later"))
    config = root / "tenantry.toml"
    text = config.read_text()
    embedded = next(line for line in text.splitlines() if line.startswith("embedded = true"))
    text = text.replace(embedded, 'url = {env = "PG_ADMIN_URL"}')
    text = text.replace("connections = 40", "connections = 20").replace("milestone_{slug}", f"{prefix}_{{slug}}")
    config.write_text(text)
    return root


def _clear(postgres: Postgres, prefix: str, admin: str) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        owned = "SELECT datname FROM pg_database WHERE starts_with(datname, %s) OR pg_get_userbyid(datdba) = %s"
        role = psycopg.conninfo.conninfo_to_dict(admin)["user"]
        for (name,) in connection.execute(owned, (prefix, role)).fetchall():
            connection.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE false'.encode())
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
        roles = connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (prefix,)).fetchall()
        for (name,) in [*roles, (role,)]:
            connection.execute(f'DROP ROLE "{name}"'.encode())


async def _made(version: Version, tmp_path: Path, *slugs: str) -> list[str]:
    """Make laboratories; their slugs."""
    (tmp_path / "labs.csv").write_text("\n".join(["slug", *slugs]))
    await version.run("tenant", "import", str(tmp_path / "labs.csv"))
    return list(slugs)


async def _entered(version: Version, slugs: list[str]) -> list[Lab]:
    """Sign in at each laboratory and enter a person, about whom notes are written."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in version.environment.items():
            patch.setenv(name, value)
        async with Platform.open(version.root / "tenantry.toml", actor="test") as platform:
            passwords = {slug: await platform.tenants.credentials(slug) for slug in slugs}
    labs = []
    async with version.client() as client:
        for slug, found in passwords.items():
            assert found is not None
            api = f"/t/{slug}/api"
            form = {"grant_type": "password", "username": found.login, "password": found.password}
            answer = await client.post(f"/t/{slug}/.tenantry/token", data=form)
            assert answer.status_code == 200, answer.text
            proof = {"authorization": f"Bearer {answer.json()['access_token']}"}
            sent = {"name": "Ada", "site_id": 1}
            person = await client.post(f"{api}/staff", json=sent, headers=proof)
            assert person.status_code == 201, person.text
            labs.append(Lab(slug, proof, person.json()["id"]))
    return labs


async def test_an_update_without_downtime(versions: tuple[Version, Version], tmp_path: Path) -> None:
    """No request fails: old code serves while `pre` runs, new code while `post` does, and both in between.

    The new version is there from the beginning; a laboratory that is not at `pre` yet is all it refuses. One that is
    made meanwhile is served by both, and brought along.
    """
    old, new = versions
    slugs = await _made(old, tmp_path, *(f"lab{number:03}" for number in range(TENANTS)))
    async with old.served() as first:
        labs = await _entered(old, slugs)
        before = Visitors(old, labs)
        async with new.served():
            after = Visitors(new, labs)
            after.bears_behind = True
            async with after.at_work():
                async with before.at_work():
                    await new.run("migrate", "run", "--phase", "pre")
                    after.bears_behind = False
                    await after.serves(3)  # both versions serve them all
                    made = await _made(new, tmp_path, "late")  # by the new version, and the old one bears it
                    (late,) = await _entered(old, made)
                    for version in versions:
                        async with Visitors(version, [late]).at_work():
                            pass
                first.send_signal(signal.SIGTERM)  # post is for when no old code is left
                first.wait(PATIENCE)
                await new.run("migrate", "run")
                async with Visitors(new, [late]).at_work():
                    pass
    assert before.faults == []
    assert after.faults == []
    assert set(before.done) == set(after.done) == {lab.slug for lab in labs}
    shown = await new.run("migrate", "status", "--json")
    assert "0011_no_body" in shown
    assert "0010_note_text" not in shown
