"""`tenantry verify` on shared tables: each of the holes that the plan knows, opened on a running platform, is named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from ground import PATIENCE
from holes_rows import HOLES, SCHEMA, SHARED, Hole
from servers import NoServer, Postgres, pgbouncer
from shelves import RowsShelves
from tenantry.model import Attempt, Breach
from tenantry.platform import Platform
from tenantry.registry.journal import State


class Holed(RowsShelves):
    """A platform with the schema that the holes are opened in, whose shared database can be put back as it was."""

    def __init__(self, root: Path, server: Postgres) -> None:
        super().__init__(root, server)
        (root / "schema" / "0001_pages.sql").write_text(SCHEMA)
        (root / "seed.sql").write_text(
            "INSERT INTO project (id, slug) SELECT nextval('number'), gen_random_uuid();"
            "INSERT INTO note (project, text) SELECT id, slug FROM project; INSERT INTO log VALUES (1, 'made');"
        )
        text = self.config.read_text()
        self.config.write_text(text.replace('seed = "seed.sql"', f'seed = "seed.sql", shared = {sorted(SHARED)}'))
        self.names = {"role": f"{self.database}_app", "owner": f"{self.database}_owner", "database": self.database}

    def keep(self) -> None:
        """Remember the shared database as it is."""
        self._copy(self.database, f"{self.database}_kept")

    def put_back(self) -> None:
        """Make it that again, with the rights on it, which a copy does not take along."""
        self._copy(f"{self.database}_kept", self.database)

    def _copy(self, source: str, target: str) -> None:
        with psycopg.connect(self.known["pg1"].url("postgres"), autocommit=True) as connection:
            for statement in (
                "DROP DATABASE IF EXISTS {target} WITH (FORCE)",
                "CREATE DATABASE {target} TEMPLATE {source} OWNER {owner}",
            ):
                names = {"source": source, "target": target, "owner": self.names["owner"]}
                connection.execute(sql.SQL(statement).format(**{k: sql.Identifier(v) for k, v in names.items()}))
            rights = "(SELECT datacl FROM pg_database WHERE datname = %s)"
            connection.execute(f"UPDATE pg_database SET datacl = {rights} WHERE datname = %s", (source, target))

    @contextmanager
    def opened(self, hole: Hole) -> Iterator[None]:
        """A hole in the shared database, for the time of a block."""
        with psycopg.connect(self.known["pg1"].url(self.database)) as connection:
            connection.execute(hole.opening(**self.names))
        try:
            yield
        finally:
            with psycopg.connect(self.known["pg1"].url(self.database)) as connection:
                connection.execute(hole.closing(**self.names))
            self.put_back()


@pytest.fixture
def holed(tmp_path: Path, postgres: Postgres) -> Iterator[Holed]:
    """Such a platform."""
    made = Holed(tmp_path / "platform", postgres)
    yield made
    made.clear()


async def populated(platform: Platform) -> None:
    """Two tenants, each with the rows of the seed."""
    for slug in ("acme", "umbrella"):
        operation = await platform.tenants.create(slug)
        details = await platform.operations.finish(operation.id)
        assert details.operation.state is State.DONE, details.operation.error


async def verified(platform: Platform, *slugs: str) -> dict[str, Any]:
    """The report on a run."""
    operation = await platform.verification.run(slugs=slugs)
    await platform.operations.finish(operation.id)
    return await platform.verification.report(operation.id)


def breaches(report: dict[str, Any], kind: str = "breaches") -> set[str]:
    """Each breach as "resource: attack"."""
    return {f"{one['resource']}: {one['attack']}" for tenant in report["tenants"] for one in tenant[kind]}


LIVE = 22
"""Of the holes, those that an attack gets through today; the others wait for a row, a table or a call to come."""

BY_ATTACK = {
    "superuser": "run a program",
    "bypassing role": "read the other's rows of note",
    "policy that lets all in": "read the other's rows of note",
    "security off": "add a row for the other to note",
    "key over all tenants": "collide with the other's keys in note",
    "exclusion over all tenants": "collide with the other's keys in note",
    "making tables": "shadow the server's functions in public",
    "temporary tables": "put a table before others on the search path",
}
"""Attacks that get through some of them."""


async def test_every_hole_in_shared_tables_is_found_and_named(holed: Holed) -> None:
    """Each of the 65 holes that the plan knows is named by `verify` on a platform that runs; closed again, none is."""
    assert len(HOLES) == 65
    live = set()
    async with holed.open() as platform:
        await populated(platform)
        holed.keep()
        for hole in HOLES:
            with holed.opened(hole):
                report = await verified(platform, "acme")
            found = breaches(report)
            assert f"db: find a weakness: {hole.found}" in found, hole.name
            assert hole.name not in BY_ATTACK or f"db: {BY_ATTACK[hole.name]}" in found
            assert report["state"] == "failed"
            live |= {hole.name for one in found if "find a weakness" not in one}
        assert breaches(await verified(platform, "acme")) == set()
    assert len(live) == LIVE, live


SLOW = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE there boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM %s t WHERE to_jsonb(t) - ''tenant_id'' = $1)', TG_RELID::regclass)
    INTO there USING to_jsonb(NEW) - 'tenant_id';
  IF there THEN PERFORM pg_sleep(0.005); END IF;
  RETURN NEW;
END $$;
"""
"""It takes its time where any tenant has the like of a row."""


async def test_keys_that_tell_by_the_time_they_take_are_found(holed: Holed) -> None:
    """A trigger that works longer where another tenant has the key is told by the clock; without it, nothing is."""
    tables = ("project", "note", "tenantry_trace", "tenantry_user")
    async with holed.open() as platform:
        await populated(platform)
        timed = [one for one in await attempts(platform) if one.attack == "time collisions of keys"]
        assert timed
        assert not any(isinstance(one, Breach) for one in timed)
        holed.query("pg1", SLOW, holed.database)
        for table in tables:
            trigger = f"CREATE TRIGGER linger BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION linger()"
            holed.query("pg1", trigger, holed.database)
        (one,) = [one for one in await attempts(platform) if one.attack == "time collisions of keys"]
        assert isinstance(one, Breach), one
        assert re.search(r"of \w+: \+5\d\d\d µs where the other has it", one.evidence)


async def attempts(platform: Platform) -> list[Attempt]:
    """What one tenant tried on the other's rows."""
    async with platform.registry.read() as tx:
        found = {e.tenant.slug: e for e in await platform.tools.all_environments(tx, await ids(platform))}
    (db,) = [one for one in platform.tools.resources["lab"] if one.name == "db"]
    return await db.attack(found["acme"], found["umbrella"])


async def ids(platform: Platform) -> set[str]:
    """The tenants' ids."""
    return {row.id for row in await platform.tenants.list(limit=10)}


# --- connections that come back -----------------------------------------------------------------------------------

KEEPS = """
import tenantry
import tenantry.runtime.rows as rows
rows._FRESH = b""
runtime = tenantry.connect({config!r})
async def answer(scope, receive, send):
    await send({{"type": "http.response.start", "status": 204, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})
app = tenantry.TenantMiddleware(answer, runtime=runtime)
"""
"""An application whose pool gives connections to the next tenant as the last one left them."""

LEFT = {f"sessions: {what} that another tenant left on db" for what in ("setting", "cursor")}


async def test_a_pool_that_hands_on_what_a_tenant_left_is_found(tmp_path: Path, postgres: Postgres) -> None:
    """Without what Tenantry sends before each transaction, settings and cursors of one tenant reach the next."""
    shared = RowsShelves(tmp_path / "platform", postgres)
    with shared.config.open("a") as file:
        file.write('\n[verify]\napp = "keeps:app"\n')
    (shared.root / "keeps.py").write_text(KEEPS.format(config=str(shared.config)))
    try:
        async with shared.open() as platform:
            await populated(platform)
        process = shared.command("verify", "--json")
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        found = json.loads(output[output.index("{") : output.rindex("}") + 1])
        assert breaches(found) == LEFT
    finally:
        shared.clear()


async def test_what_a_pooler_keeps_is_told_as_not_promised(tmp_path: Path, postgres: Postgres) -> None:
    """Behind pgbouncer, what a session leaves reaches another tenant: that is told, and fails nothing."""
    shared = RowsShelves(tmp_path / "platform", postgres)
    own = f'kind = "rows", database = "{shared.database}"'
    try:
        with pgbouncer(postgres, connections=1) as address:
            text = shared.config.read_text()
            shared.config.write_text(text.replace(own, f'{own}, pooler = "{address}"'))
            async with shared.open() as platform:
                await populated(platform)
                report = await verified(platform)
    except NoServer as error:
        pytest.skip(str(error))
    finally:
        shared.clear()
    assert breaches(report) == set()
    assert report["state"] == "done"
    assert breaches(report, "not_promised") >= LEFT
