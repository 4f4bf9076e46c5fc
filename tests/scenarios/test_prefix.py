"""The life of tenants whose tables lie in one database under a prefix each, on PostgreSQL and on MariaDB."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, String, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import ground as g
from prefix_world import PrefixGround, maria_database
from staying import stays
from tenantry.application import connect
from tenantry.context import tenant_context
from tenantry.credentials import Role
from tenantry.errors import ForeignTenant, NoTenant, ServerUnfit, SignInRefused
from tenantry.platform import Platform
from tenantry.registry.journal import Operation, State
from tenantry.resources import kinds
from tenantry.runtime import Runtime, table_prefix

NOTES = """
CREATE TABLE {prefix}note (
  id integer PRIMARY KEY, page integer NOT NULL REFERENCES {prefix}page (id), said varchar(99)
);
CREATE VIEW {prefix}said AS SELECT title, said FROM {prefix}note n JOIN {prefix}page p ON p.id = n.page;
"""


class Base(DeclarativeBase):
    """Models whose tables have the current tenant's prefix."""


class Page(Base):
    __tablename__ = "{prefix}page"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    notes: Mapped[list[Note]] = relationship(order_by="Note.id")


class Note(Base):
    __tablename__ = "{prefix}note"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    page: Mapped[int] = mapped_column(ForeignKey("{prefix}page.id"))
    said: Mapped[str] = mapped_column(String(99))


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.postgres), "mysql"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrefixGround]:
    """A platform on a server of each kind, with a login that can make neither databases nor users."""
    if request.param == "mysql":
        with maria_database(request.getfixturevalue("mariadb_server")) as url:
            yield PrefixGround(tmp_path / "platform", "mysql", url)
    else:
        yield PrefixGround(tmp_path / "platform", "postgres", request.getfixturevalue("postgres_url"))


async def done(platform: Platform, operation: Operation) -> None:
    """Let an operation end well."""
    details = await platform.operations.finish(operation.id)
    assert details.operation.state is State.DONE, details.operation.error or [item.error for item in details.items]


@contextlib.asynccontextmanager
async def serving(ground: PrefixGround) -> AsyncIterator[Runtime]:
    """An application that is connected to the platform."""
    runtime = connect(ground.config)
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


async def test_a_life_under_a_prefix(ground: PrefixGround) -> None:
    """Tenants with names that begin alike are made, used by one application, migrated, renamed and gone."""
    slugs = ["acme", "acme-eu", "acme-e", "eu", "9lives"]
    async with ground.open() as platform, g.working(platform):
        for slug in slugs:
            await done(platform, await platform.tenants.create(slug))
        async with serving(ground) as runtime:
            for slug in slugs:
                await _write(runtime, slug)
            assert [await _titles(runtime, slug) for slug in slugs] == [[f"of {slug}"] for slug in slugs]
        ground.migration("0002_notes.sql", NOTES)
        await done(platform, await platform.migrations.run())
        await done(platform, await platform.tenants.rename("acme-e", "other"))
        await done(platform, await platform.tenants.destroy("acme"))
        assert await g.faults_of(platform) == []
        async with serving(ground) as runtime:
            assert await _titles(runtime, "other") == ["of acme-e"]
            await _relate(runtime, "acme-eu")
        assert not [one for one in ground.left() if "acme__" in one]
        for slug in ("acme-eu", "other", "eu", "9lives"):
            await done(platform, await platform.tenants.destroy(slug))
        assert await platform.tenants.leftovers("acme-eu") == []
    assert ground.left() == []


async def _write(runtime: Runtime, slug: str) -> None:
    with tenant_context(runtime.environment(slug)):
        async with runtime.session() as session:
            session.add(Page(title=f"of {slug}"))
            await session.commit()
        assert table_prefix() == {"acme": "acme__", "9lives": "t9lives__"}.get(slug, f"{slug.replace('-', '_')}__")


async def _titles(runtime: Runtime, slug: str) -> list[str]:
    with tenant_context(runtime.environment(slug)):
        async with runtime.session() as session:
            found = list(await session.scalars(select(Page.title).order_by(Page.id)))
            said = list(await session.scalars(text("SELECT title FROM {prefix}page ORDER BY id")))
        with runtime.session() as inner:
            assert list(inner.scalars(select(Page.title).order_by(Page.id))) == found == said
    return found


async def _relate(runtime: Runtime, slug: str) -> None:
    """What an application does with its models: add, join, change, load what belongs together, delete."""
    with tenant_context(runtime.environment(slug)), runtime.session() as session:
        page = session.scalars(select(Page)).one()
        page.notes = [Note(id=1, said="one"), Note(id=2, said="two")]
        session.commit()
        joined = select(Page.title, Note.said).join(Note).order_by(Note.id)
        assert session.execute(joined).all() == [(page.title, "one"), (page.title, "two")]
        page.notes[0].said = "{prefix}"  # as a value it stays as it is
        session.delete(page.notes[1])
        session.commit()
        assert session.execute(text("SELECT said FROM {prefix}said")).all() == [("{prefix}",)]


async def test_no_session_is_anothers(ground: PrefixGround) -> None:
    """Without a tenant nothing opens, a session refuses another tenant, and no statement finds a table by chance."""
    async with ground.open() as platform, g.working(platform):
        for slug in ("acme", "umbrella"):
            await done(platform, await platform.tenants.create(slug))
        async with serving(ground) as runtime:
            with pytest.raises(NoTenant):
                table_prefix()
            acme, umbrella = runtime.environment("acme"), runtime.environment("umbrella")
            with tenant_context(acme):
                async with runtime.session() as session:
                    with tenant_context(umbrella), pytest.raises(ForeignTenant):
                        await session.execute(text("SELECT title FROM {prefix}page"))
                with runtime.session() as plain, pytest.raises(DBAPIError, match="page"):
                    plain.execute(text("SELECT title FROM page"))
            await asyncio.gather(*(_mixed(runtime, slug) for slug in ("acme", "umbrella") * 20))


async def _mixed(runtime: Runtime, slug: str) -> None:
    with tenant_context(runtime.environment(slug)):
        async with runtime.session() as session:
            session.add(Page(title=slug))
            await session.commit()
            assert set(await session.scalars(select(Page.title))) == {slug}


async def test_users_sign_in_at_their_own_tenant(ground: PrefixGround) -> None:
    """Each prefix has a users' table of its own: first admin, accounts, and no sign-in anywhere else."""
    async with ground.open() as platform, g.working(platform):
        for slug in ("acme", "umbrella"):
            await done(platform, await platform.tenants.create(slug))
        first = await platform.tenants.credentials("acme")
        assert first is not None
        async with serving(ground) as runtime:
            with tenant_context(runtime.environment("acme")):
                admin = await runtime.accounts.authenticate(first.login, first.password)
                user = await runtime.accounts.create("bo@acme.test", "a long password")
                await runtime.accounts.set_role(user.id, Role.ADMIN)
                await runtime.accounts.disable(admin.id)
                assert [one.login for one in await runtime.accounts.list()] == [admin.login, "bo@acme.test"]
            with tenant_context(runtime.environment("umbrella")), pytest.raises(SignInRefused):
                await runtime.accounts.authenticate("bo@acme.test", "a long password")
            await stays(runtime, runtime.environment("acme"), runtime.environment("umbrella"))


async def test_what_is_not_promised_is_said(ground: PrefixGround) -> None:
    """The plan and the end of a create say what this isolation does not keep out, in words and in JSON."""
    caveat = kinds()["prefix"].caveat
    for arguments, where in ((["--dry-run"], f"db: {caveat}"), ([], f"db: {caveat}"), (["--json"], caveat)):
        slug = f"t{len(arguments)}{len(where)}"
        with ground.command("tenant", "create", slug, *arguments) as process:
            output = process.communicate()[0]
            assert process.returncode == 0, output
            assert where in " ".join(output.split())
    shown = ground.command("tenant", "credentials", slug, "--resource", "db", "--json")
    login = json.loads(shown.communicate()[0])
    assert (login["prefix"], login["database"]) == (f"{slug}__", ground.url.partition("?")[0].rpartition("/")[2])


async def test_a_check_asks_for_no_more_than_is_needed(ground: PrefixGround, request: pytest.FixtureRequest) -> None:
    """A login that can make tables and nothing else is fit; one that cannot is told what grants it."""
    with contextlib.ExitStack() as stack:
        if ground.kind == "mysql":
            server = request.getfixturevalue("mariadb_server")
            database = make_url(ground.url).database
            user, password = stack.enter_context(server.administrator(f"SELECT, INSERT ON `{database}`.*"))
            unfit = make_url(server.url(user, password)).set(database=database).render_as_string(hide_password=False)
        else:
            unfit = request.getfixturevalue("postgres").administrator()  # of a database in which it may make no table
        async with ground.open() as platform:
            findings = (await platform.servers.check())["db"]
            assert [one.what for one in findings if not one.ok] == []
            assert any("may make tables in" in one.what for one in findings)
            assert not any(word in one.what for one in findings for word in ("CREATEDB", "CREATEROLE", "users"))
            await platform.servers.add("more", ground.kind, ground.url)
            with pytest.raises(ServerUnfit, match=r"may not make tables|lacks UPDATE, DELETE, CREATE") as caught:
                await platform.servers.add("unfit", ground.kind, unfit)
            assert "GRANT" in caught.value.hint


async def test_a_changed_password_is_followed(ground: PrefixGround) -> None:
    """A password that was changed at the host and in the address is the application's as well, from its next start."""
    async with ground.open() as platform, g.working(platform):
        await done(platform, await platform.tenants.create("acme"))
    ground.change_password("another one, äö")
    async with ground.open() as platform:
        assert [one.what for one in await platform.tenants.check("acme") if not one.ok] == []
        async with serving(ground) as runtime:
            await _write(runtime, "acme")
