"""The life of tenants whose databases lie on a MariaDB server with TLS, from create to destroy."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import text

import ground as g
import kinds_world as k
from mariadb import MariaDB
from mysql_world import mysql_grants
from tenantry.application import connect
from tenantry.context import tenant_context
from tenantry.errors import InvalidToken
from tenantry.platform import Platform, Source
from tenantry.refusals import GrantRefused
from tenantry.registry.journal import Operation, State
from tenantry.runtime import Runtime

TOML = """
[platform]
name = "Ground"
domain = "localhost"
data = "var"
[servers.db]
kind = "mysql"
url = {{env = "DB_ADMIN_URL"}}
[worker]
overlap = "3s"

[blueprints.shop]
environments = ["dev", "production"]
[blueprints.shop.resources]
db = {{kind = "mysql", name = "PREFIX_{{slug}}_{{environment}}", schema = "schema/"}}
[blueprints.shop.hostnames]
dev = "dev.{{slug}}.{{domain}}"
production = "{{slug}}.{{domain}}"
"""
FIRST = "CREATE TABLE page (id INT PRIMARY KEY AUTO_INCREMENT, title TEXT);\n"
SECOND = "ALTER TABLE page ADD COLUMN body TEXT;\nCREATE VIEW titles AS SELECT title FROM page;\n"


class Shop(g.Ground):
    """A platform of shops on one MariaDB server."""

    def __init__(self, root: Path, server: MariaDB, url: str, prefix: str) -> None:
        super().__init__(root, TOML.replace("PREFIX", prefix))
        self.server, self.prefix = server, prefix
        self.migration("0001_pages.sql", FIRST)
        with (root / ".env").open("a") as file:
            file.write(f"DB_ADMIN_URL='{url.replace(chr(39), '%27')}'\n")

    def left(self) -> set[str]:
        """Databases and users of this platform's tenants on the server."""
        return {name for name in self.server.databases() | self.server.users() if name.startswith(self.prefix)}


@pytest.fixture
def shop(tmp_path: Path, mariadb_server: MariaDB) -> Iterator[Shop]:
    """A platform whose administrator has the documented privileges only."""
    prefix = f"s{secrets.token_hex(4)}"
    with mariadb_server.administrator(*mysql_grants(prefix)) as (name, password):
        made = Shop(tmp_path / "platform", mariadb_server, mariadb_server.url(name, password), prefix)
        yield made
        for one in made.left() & mariadb_server.databases():
            mariadb_server.run(f"DROP DATABASE `{one}`")
        for one in made.left() & mariadb_server.users():
            mariadb_server.run(f"DROP USER `{one}`@'%'")


async def done(platform: Platform, operation: Operation) -> None:
    """Let an operation end well."""
    details = await platform.operations.finish(operation.id)
    assert details.operation.state is State.DONE, details.operation.error or [item.error for item in details.items]


async def sound(platform: Platform, slug: str) -> bool:
    """Whether a check finds no fault with a tenant."""
    return all(finding.ok for finding in await platform.tenants.check(slug))


@contextlib.asynccontextmanager
async def serving(shop: Shop) -> Any:
    """An application that is connected to the platform."""
    runtime = connect(shop.config)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


async def titles(runtime: Runtime, slug: str, environment: str = "production") -> list[Any]:
    """What an application reads in a tenant's database, and adds to it."""
    with tenant_context(runtime.environment(slug, environment)):
        async with runtime.session() as session:
            found = list((await session.execute(text("SELECT title FROM page ORDER BY id"))).scalars())
            await session.execute(text("INSERT INTO page (title) VALUES (:title)"), {"title": f"{slug} ä"})
            await session.commit()
    return found


async def test_a_life_on_mariadb(shop: Shop) -> None:
    """Two environments each, read and written by an application, migrated, and gone without a trace."""
    async with shop.open() as platform, g.working(platform):
        for slug in ("acme", "other"):
            await done(platform, await platform.tenants.create(slug))
        assert len(shop.left()) == 4
        async with serving(shop) as runtime:
            assert await titles(runtime, "acme") == []
            assert await titles(runtime, "acme") == ["acme ä"]
            assert await titles(runtime, "acme", "dev") == []
            assert await titles(runtime, "other") == []
        shop.migration("0002_bodies.sql", SECOND)
        async with shop.open() as newer:
            await done(newer, await newer.migrations.run())
            assert await sound(newer, "acme")
            await done(newer, await newer.tenants.destroy("acme"))
            assert await sound(newer, "other")
            await done(newer, await newer.tenants.destroy("other"))
    assert shop.left() == set()
    names = {name for (name,) in shop.server.run("SELECT name FROM tenantry_book.part")}
    assert not {name for name in names if name.startswith(shop.prefix)}


async def test_a_login_is_exchanged_under_load(shop: Shop) -> None:
    """An application goes on reading and writing while the logins change; the old password ends."""
    shop.migration("0002_bodies.sql", SECOND)
    async with shop.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
        before = await platform.tenants.login("acme", "db", "production")
        async with serving(shop) as runtime:
            counted = 0

            async def ask() -> None:
                nonlocal counted
                while True:
                    assert len(await titles(runtime, "acme")) == counted
                    counted += 1

            asking = asyncio.create_task(ask())
            for _ in range(2):
                await done(platform, await platform.tenants.rotate(["acme"]))
                seen = counted
                while counted < seen + 3 and not asking.done():
                    await asyncio.sleep(0.01)
                assert not asking.done(), asking.exception()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        with pytest.raises(pymysql.OperationalError):
            shop.server.connect(before.user, before.password)
        after = await platform.tenants.login("acme", "db", "production")
        with contextlib.closing(shop.server.connect(after.user, after.password, after.database)) as connection:
            assert connection.cursor().execute("SELECT * FROM titles") >= 3  # by a view that the first user had made
        assert await sound(platform, "acme")
        await done(platform, await platform.tenants.destroy("acme"))
    assert shop.left() == set()


async def test_who_left_is_out(shop: Shop) -> None:
    """By the directory of her organization, through a worker: her session and her tokens end with it."""
    with shop.config.open("a") as file:
        file.write(
            '\n[blueprints.desk]\nadmin = "admin"\n[blueprints.desk.resources]\n'
            f'db = {{kind = "mysql", name = "{shop.prefix}_{{slug}}"}}\n'
        )
    async with shop.open() as platform:
        await done(platform, await platform.tenants.create("acme", blueprint="desk"))
        tell = await k.told_of(platform, ["acme"], "eva@example.org")
        runtime = connect(shop.config)
        await runtime.start()
        try:
            with tenant_context(runtime.environment("acme")):
                eva = await runtime.accounts.create("eva@example.org", "correct horse battery")
                session = runtime.sessions.read(await runtime.accounts.begin(eva))
                tokens = await runtime.grants.give(eva)

                async def out() -> bool:
                    try:
                        return not await runtime.accounts.signed_in(session)
                    except InvalidToken:
                        return True

                with shop.worker():
                    await tell(False)
                    await g.until(out)
                with pytest.raises(InvalidToken):
                    await runtime.grants.user(tokens.access.encode())
                with pytest.raises(GrantRefused):
                    await runtime.grants.refresh(tokens.refresh)
                (event,) = await runtime.accounts.events(eva.id, limit=1)
                assert (event.what, event.by) == ("disabled", "directory")
        finally:
            await runtime.stop()


async def test_an_old_database_is_adopted(shop: Shop) -> None:
    """What was on the server before becomes a tenant's environment with its data; the other environment is made."""
    old = f"{shop.prefix}_before"
    shop.server.run(
        f"CREATE DATABASE {old} CHARACTER SET utf8mb4",
        f"CREATE TABLE {old}.page (id INT PRIMARY KEY AUTO_INCREMENT, title TEXT)",
        f"INSERT INTO {old}.page (title) VALUES ('old')",
    )
    async with shop.open() as platform, g.working(platform):
        source = Source("db", "0001_pages", server="db", database=old, environment="production")
        await done(platform, await platform.tenants.adopt("acme", source))
        assert await sound(platform, "acme")
        async with serving(shop) as runtime:
            assert await titles(runtime, "acme") == ["old"]
            assert await titles(runtime, "acme", "dev") == []
