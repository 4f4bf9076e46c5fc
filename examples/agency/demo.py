"""What `make demo PLATFORM=agency` runs: three agencies in one set of tables, told in one table.

PostgreSQL is the one that Tenantry brings itself: nothing is installed, nobody is root, and nothing is left behind.
Exit status 1 where anything is not as it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import tenantry
from staging import Ledger, Server, Site, Wrong, expect, main
from tenantry.model import Environment
from tenantry.platform import Platform

HERE = Path(__file__).parent
LEAVES, STAYS, SMALL = "northlight", "mosaik", "ember"
LIMIT = 200
"""Seconds after which the demo gives up."""

TABLES = ("campaign", "brief", "task", "asset")


def agencies() -> dict[str, dict[str, Any]]:
    """What each agency has, by slug."""
    files = sorted((HERE / "agencies").glob("*.toml"))
    return {file.stem: tomllib.loads(file.read_text("utf-8")) for file in files}


class Story:
    """What the demo does, step by step."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self.site = site
        self.ledger = ledger
        self.agencies = agencies()
        self.tokens: dict[str, str] = {}  # one for each agency's first admin

    async def tell(self) -> None:
        """Everything, in order."""
        await self.set_up()
        try:
            async with contextlib.AsyncExitStack() as stack:
                with self.ledger.step("start the PostgreSQL it brings") as row:
                    platform = await stack.enter_async_context(Platform.open(self.site.root / "tenantry.toml"))
                    row.result = "on 127.0.0.1, with a role that is no superuser"
                await self.bring_in()
                runtime = tenantry.connect(platform.config)
                await runtime.start()
                stack.push_async_callback(runtime.stop)
                await self.look(runtime)
                await self.forge(runtime)
                with self.ledger.step("start serve") as row:
                    server = await self.site.serve()
                    row.result = "it answers"
                await self.visit(platform, server)
                await self.leave_and_return(platform, runtime)
                await self.prove()
        finally:
            self.site.stop()
        with self.ledger.step("leave PostgreSQL alone", each=False) as row:
            expect(await self.site.rest(), "PostgreSQL goes on though nobody uses it")
            row.result = "it ended by itself"

    async def set_up(self) -> None:
        with self.ledger.step("write a platform") as row:
            await self.site.command("init", str(self.site.root), "--name", "Agency")
            self.site.lay_out(HERE, "tenantry.toml", "agency", "migrations", "seed.sql", "agencies")
            await self.site.command("config", "check")
            row.result = "its key, its tenantry.toml, checked"

    async def bring_in(self) -> None:
        with self.ledger.step("import tenants", len(self.agencies)) as row:
            await self.site.command("tenant", "import", "agencies/agencies.csv")
            row.result = "two migrations, once for all: one database, one login"
        with self.ledger.step("fill them", len(self.agencies)) as row:
            files = [f"agencies/{slug}.toml" for slug in self.agencies]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agency.fill", *files, cwd=self.site.root, env=self.site.environment,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            told = (await process.communicate())[0].decode()
            expect(process.returncode == 0, told[-400:])
            row.result = "campaigns, briefs, tasks, files"

    # --- the tables themselves ------------------------------------------------------------------------------------

    async def _ask(self, environment: Environment, statement: str, **values: Any) -> Sequence[Any]:
        """What a statement gives to one agency, as its application runs it."""
        with tenantry.tenant_context(environment):
            async with tenantry.tenant_session() as session:
                answer = await session.execute(text(statement), values)
                found = [tuple(row) for row in answer] if answer.returns_rows else []
                await session.commit()
        return found

    async def _refusal(self, environment: Environment, statement: str, **values: Any) -> str:
        """What the server says to a statement that it must not run."""
        try:
            await self._ask(environment, statement, **values)
        except DBAPIError as error:
            return str(error.orig).splitlines()[0]
        raise Wrong(f"{environment.tenant.slug} was allowed: {statement}")

    async def _rows(self, environment: Environment) -> dict[str, Sequence[Any]]:
        """All that an agency has, without any filter."""
        return {table: await self._ask(environment, f"SELECT * FROM {table} ORDER BY id") for table in TABLES}

    async def look(self, runtime: tenantry.Runtime) -> None:
        with self.ledger.step("SELECT without WHERE, as each agency", len(self.agencies)) as row:
            told = []
            for slug, given in self.agencies.items():
                found = {name for (name,) in await self._ask(runtime.environment(slug), "SELECT name FROM campaign")}
                expect(found == {one["name"] for one in given["campaign"]}, f"{slug} sees {sorted(found)}")
                told.append(f"{slug} {len(found)}")
            row.result = f"its own campaigns, no other: {', '.join(told)}"

    async def forge(self, runtime: tenantry.Runtime) -> None:
        """As one agency, use another's ids."""
        mine, other = runtime.environment(SMALL), runtime.environment(LEAVES)
        ((theirs,),) = await self._ask(other, "SELECT min(id) FROM campaign")
        with self.ledger.step(f"as {SMALL}, use an id of {LEAVES}'s", 4) as row:
            for statement in (
                "SELECT name FROM campaign WHERE id = :id",
                "SELECT title FROM task WHERE campaign_id = :id OR tenant_id = CAST(:key AS uuid)",
                "UPDATE campaign SET name = 'Mine now' WHERE id = :id RETURNING id",
                "DELETE FROM campaign WHERE id = :id RETURNING id",
            ):
                values = {"id": theirs, "key": other.key}
                found = await self._ask(mine, statement, **{k: v for k, v in values.items() if f":{k}" in statement})
                expect(not found, f"{statement} gave {found}")
            row.result = "no row is read, changed or removed"
        with self.ledger.step(f"as {SMALL}, write into {LEAVES} and into the library", 3) as row:
            campaign = "INSERT INTO campaign (tenant_id, name, starts, ends) VALUES (:key, 'Planted', now(), now())"
            task = "INSERT INTO task (campaign_id, title, due) VALUES (:id, 'Planted', now())"
            told = [
                await self._refusal(mine, campaign, key=other.key),
                await self._refusal(mine, task, id=theirs),
                await self._refusal(mine, "UPDATE platform_guides SET title = 'Mine now'"),
            ]
            self.ledger.console.print(*(f"         {line}" for line in told), sep="\n", markup=False, soft_wrap=True)
            row.result = "all three refused by the server"

    # --- the application ------------------------------------------------------------------------------------------

    async def _page(self, client: httpx.AsyncClient, slug: str, path: str, whose: str) -> httpx.Response:
        headers = {"host": "localhost", "authorization": f"Bearer {self.tokens[whose]}"}
        return await client.get(f"/t/{slug}{path}", headers=headers)

    async def visit(self, platform: Platform, server: Server) -> None:
        async with server.client() as client:
            with self.ledger.step("trade the first password for a token", len(self.agencies)) as row:
                for slug in self.agencies:
                    found = await platform.tenants.credentials(slug)
                    assert found is not None
                    sent = {"grant_type": "password", "username": found.login, "password": found.password}
                    answer = await client.post(f"/t/{slug}/.tenantry/token", data=sent, headers={"host": "localhost"})
                    expect(answer.status_code == 200, f"{slug}: the tokens' address answered {answer.status_code}")
                    self.tokens[slug] = answer.json()["access_token"]
                row.result = "over HTTP, by path"
            with self.ledger.step("ask for another's pages", 2) as row:
                own = await self._page(client, LEAVES, "/", LEAVES)
                address = own.text.partition('href="/t/northlight/campaigns/')[2].partition('"')[0]
                expect(own.status_code == 200 and address.isdigit(), "there is no campaign on the first page")
                there = await self._page(client, SMALL, f"/campaigns/{address}", SMALL)
                expect(there.status_code == 404, f"a foreign campaign answered {there.status_code}")
                shut = await self._page(client, SMALL, "/", LEAVES)
                expect(shut.status_code == 401, f"a foreign token answered {shut.status_code}")
                row.result = "a foreign id: 404; a foreign token: 401"

    # --- one agency out of the shared tables ----------------------------------------------------------------------

    async def _environment(self, platform: Platform, slug: str) -> Environment:
        details = await platform.tenants.show(slug)
        async with platform.registry.read() as tx:
            (environment,) = await platform.tools.environments(tx, details.tenant.id)
        return environment

    async def leave_and_return(self, platform: Platform, runtime: tenantry.Runtime) -> None:
        """Dump one agency, destroy it, make it anew from the dump; the others notice nothing."""
        copy = self.site.root / "copy"
        copy.mkdir()
        parts = platform.tools.resources["agency"]
        leaving = await self._environment(platform, LEAVES)
        others = [await self._environment(platform, slug) for slug in (STAYS, SMALL)]
        before = [await self._rows(one) for one in others]
        had = await self._rows(leaving)
        with self.ledger.step(f"dump {LEAVES} out of the shared tables") as row:
            for part in parts:
                await part.dump(leaving, copy)
            with zipfile.ZipFile(copy / "db") as archive:
                size = (copy / "db").stat().st_size
                row.result = f"its rows: {len(archive.namelist())} members, {size:,} bytes; and its files"
        with self.ledger.step(f"destroy {LEAVES}", each=False) as row:
            await self.site.command("tenant", "destroy", LEAVES, "--yes")
            expect("Nothing is left" in await self.site.command("tenant", "check", LEAVES), "something is left of it")
            expect(before == [await self._rows(one) for one in others], "another agency's rows changed")
            row.result = "nothing of it is left; the others' rows are as they were"
        with self.ledger.step(f"make {LEAVES} anew from the dump", each=False) as row:
            await self.site.command("tenant", "create", LEAVES, "--name", leaving.tenant.name)
            again = await self._environment(platform, LEAVES)
            for part in parts:
                await part.load(again, copy)
            now = await self._rows(again)
            same = {table: [one[:-1] for one in found] for table, found in now.items()}  # the last column is the tenant
            expect(same == {table: [one[:-1] for one in found] for table, found in had.items()}, "rows are missing")
            expect(before == [await self._rows(one) for one in others], "another agency's rows changed")
            row.result = f"{sum(map(len, now.values()))} rows as before, under a new tenant id"
        shutil.rmtree(copy)

    async def prove(self) -> None:
        with self.ledger.step("tenantry verify", len(self.agencies)) as row:
            told = await self.site.command("verify", "--report", "verify.json")
            self.ledger.console.print(told.rstrip(), markup=False, soft_wrap=True)
            await self.site.command("verify", "--check-report", "verify.json")
            row.result = "no breach; the signed report proves itself"
        with self.ledger.step("verify the audit log") as row:
            await self.site.command("audit", "verify")
            row.result = "every entry is as it was written"


if __name__ == "__main__":
    main("Three agencies in one set of tables", Story, LIMIT)
