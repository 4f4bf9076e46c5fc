"""The pytest plugin, in the tests of applications: its fixtures, and what it finds when tests run as two tenants."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from application import Application

FLASK = """
    import tenantry
    from flask import Flask, request
    from sqlalchemy import text

    runtime = tenantry.connect("tenantry.toml")
    app = Flask(__name__)

    @app.post("/notes")
    def add():
        with tenantry.tenant_session() as session:
            session.execute(text("INSERT INTO note (text) VALUES (:text)"), {"text": request.get_data(as_text=True)})
            session.commit()
        return "", 201

    @app.get("/notes")
    def notes():
        with tenantry.tenant_session() as session:
            return list(session.scalars(text("SELECT text FROM note ORDER BY id")))

    app.wsgi_app = tenantry.WsgiTenantMiddleware(app.wsgi_app, runtime)
"""
SOUND_TEST = """
    import app

    def test_notes(tenant_url):
        client = app.app.test_client()
        assert client.get("/notes", base_url=tenant_url).json == []
        assert client.post("/notes", base_url=tenant_url, data="hello").status_code == 201
        assert client.get("/notes", base_url=tenant_url).json == ["hello"]
"""


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """A project without code."""
    return Application(tmp_path / "application")


def test_each_test_has_two_tenants_of_its_own(application: Application) -> None:
    """Tests and their asynchronous kin find two empty tenants, whatever those before left in theirs."""
    application.write("app.py", FLASK)
    application.write(
        "test_app.py",
        """
        import pytest
        import tenantry
        from sqlalchemy import text
        from tenantry.errors import NoTenant

        SEEN = []

        @pytest.mark.parametrize("turn", range(12))
        def test_sync(turn, tenant, other_tenant, as_tenant):
            SEEN.extend((tenant.id, other_tenant.id))
            for environment in (tenant, other_tenant):
                with as_tenant(environment), tenantry.tenant_session() as session:
                    assert session.scalars(text("SELECT text FROM note")).all() == []
                    session.execute(text("INSERT INTO note (text) VALUES ('mine')"))
                    session.commit()
                    tenantry.tenant_storage().write("a/b", b"mine")
            with pytest.raises(NoTenant):
                tenantry.current_tenant()

        @pytest.mark.parametrize("turn", range(3))
        async def test_async(turn, tenants, as_tenant):
            SEEN.extend(tenant.id for tenant in tenants)
            with as_tenant():
                assert not tenantry.tenant_storage().exists("a")
                async with tenantry.tenant_session() as session:
                    assert (await session.scalars(text("SELECT text FROM note"))).all() == []
                    await session.execute(text("INSERT INTO note (text) VALUES ('mine')"))
                    await session.commit()

        def test_all_were_different():
            assert len(set(SEEN)) == len(SEEN) == 30

        def test_more(tenantry_platform):
            made = tenantry_platform.create("acme", name="Acme", plan="pro", settings={"site_name": "Hers"})
            with tenantry.tenant_context(made):
                assert (tenantry.current_tenant().plan, tenantry.tenant_values()["site_name"]) == ("pro", "Hers")
            assert tenantry_platform.runtime.environment("acme").id == made.id
        """,
    )
    application.write("test_flask.py", SOUND_TEST)
    done = application.pytest()
    assert done.code == 0, done.text
    assert "18 passed" in done.text
    assert not (application.root / "var").exists(), "the real platform was touched"
    assert list(application.root.rglob("tenants/*")) == []
    assert list(application.root.rglob("templates/*.sqlite")), "templates outlive a run"


def test_the_real_platform_stays_as_it_is(application: Application) -> None:
    """A control database and a key that are there are neither opened nor read."""
    application.write("app.py", FLASK)
    application.write("test_app.py", SOUND_TEST)
    application.write(".env", "TENANTRY_SECRET_KEY=no key at all\n")
    control = application.write("var/control.sqlite", "no database")
    assert application.pytest().code == 0
    assert control.read_text() == "no database"
    assert {path.name for path in (application.root / "var").iterdir()} == {"control.sqlite"}


def test_an_interrupted_run_leaves_nothing_to_the_next(application: Application) -> None:
    """What a killed run left, half done or whole, is removed as the next one begins; a damaged place is made anew."""
    application.write(
        "test_app.py",
        """
        import os, signal

        def test_dies(tenants):
            if os.path.exists("die"):
                os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    application.write("die", "")
    assert application.pytest().code != 0
    left = list(application.root.rglob("tenants/*"))
    assert left
    (application.root / "die").unlink()
    assert application.pytest().code == 0
    assert list(application.root.rglob("tenants/*")) == []
    control = next(application.root.rglob("control.sqlite"))
    control.write_bytes(b"garbage" * 1000)
    done = application.pytest()
    assert done.code == 0, done.text
    with sqlite3.connect(control) as connection:
        assert connection.execute("SELECT count(*) FROM tenant").fetchone() == (0,)


def test_several_processes(application: Application) -> None:
    """pytest-xdist's workers have a platform each."""
    application.write("app.py", FLASK)
    for number in range(4):
        application.write(f"test_{number}.py", SOUND_TEST)
    done = application.pytest("-n", "2")
    assert done.code == 0, done.text
    assert "4 passed" in done.text
    done = application.pytest("-n", "2", "--tenantry-interleave")
    assert done.code == 0, done.text
    assert "4 passed" in done.text


def test_without_a_platform_the_plugin_is_at_rest(application: Application) -> None:
    """In a project without tenantry.toml other tests run, and what asks for a tenant is told what is missing."""
    (application.root / "tenantry.toml").unlink()
    application.write("test_a.py", "def test_a(): pass\n")
    assert application.pytest().code == 0
    application.write("test_b.py", "def test_b(tenant): pass\n")
    done = application.pytest()
    assert "There is no 'tenantry.toml' to make tenants from." in done.text
    done = application.pytest("--tenantry-interleave")
    assert (done.code, "Name it with `tenantry_config`" in done.text) == (4, True)


def test_every_test_as_its_tenant(application: Application) -> None:
    """With `tenantry_current` tests that name no tenant work for one, asynchronous ones too."""
    application.write("pytest.ini", (application.root / "pytest.ini").read_text() + "tenantry_current = true\n")
    application.write(
        "test_app.py",
        """
        import tenantry

        def test_sync():
            assert tenantry.current_tenant().slug.startswith("t")

        async def test_async():
            assert tenantry.current_tenant().slug.startswith("t")

        class TestMethods:
            def test_method(self, tenant):
                assert tenantry.current_environment() is tenant
        """,
    )
    for arguments in ((), ("--tenantry-interleave",)):
        done = application.pytest(*arguments)
        assert done.code == 0, done.text
        assert "3 passed" in done.text


# --- interleaved --------------------------------------------------------------------------------------------------


def test_a_sound_application_passes(application: Application) -> None:
    """Nothing is found where nothing crosses, also where a test works for both of its tenants."""
    application.write("app.py", FLASK)
    application.write("test_app.py", SOUND_TEST)
    application.write(
        "test_both.py",
        """
        import pytest
        import app
        import tenantry

        def test_apart(tenant, other_tenant, as_tenant):
            client = app.app.test_client()
            for environment in (tenant, other_tenant):
                client.post("/notes", base_url=f"http://{environment.hostnames[0]}", data="both")
            with as_tenant(other_tenant):
                tenantry.tenant_storage().write("letter", b"for the other")

        async def test_async(as_tenant):
            with as_tenant():
                tenantry.tenant_storage().write("letter", b"mine")

        @pytest.mark.tenantry_alone
        def test_alone(tenant):
            pass

        def test_without_tenants():
            pass
        """,
    )
    done = application.pytest("--tenantry-interleave")
    assert done.code == 0, done.text
    assert "5 passed" in done.text
    assert "3 tests ran as two tenants, 0 of them leaked" in done.text


def test_a_test_that_fails_fails_once(application: Application) -> None:
    """A failure that has nothing to do with tenants is told as the first tenant's, and the tests after it run."""
    application.write(
        "test_app.py",
        """
        import pytest

        def test_fails(tenant):
            assert 1 == 2

        @pytest.fixture
        def broken(tenant):
            raise ValueError("broken fixture")

        def test_error(broken):
            pass

        @pytest.mark.skip
        def test_skipped(tenant):
            pass

        def test_passes(tenant):
            pass

        @pytest.fixture(scope="module")
        def lasting():
            yield
            raise ValueError("broken end")

        def test_fails_last(tenant, lasting):
            assert 3 == 4
        """,
    )
    done = application.pytest("--tenantry-interleave")
    assert "2 failed, 1 passed, 1 skipped, 2 errors" in done.text, done.text
    assert "INTERNALERROR" not in done.text
    assert "It failed as the first tenant" in done.text


def test_tenants_that_cannot_be_made(application: Application) -> None:
    """Where a migration fails, each test has that error; tests without tenants run."""
    application.write("test_app.py", "def test_tenant(tenant): pass\n\ndef test_plain(): pass\n")
    application.write("schema/0002_broken.sql", "CREATE TABLE;\n")
    for arguments in ((), ("--tenantry-interleave",)):
        done = application.pytest(*arguments)
        assert "1 passed, 1 error" in done.text, done.text
        assert "MigrationError: 0002_broken" in done.text
        assert "INTERNALERROR" not in done.text


LEAKS = {
    "an engine kept open": (
        """
        from sqlalchemy import create_engine, text
        import tenantry

        runtime = tenantry.connect("tenantry.toml")
        engine = None

        def add(note):
            global engine
            if engine is None:
                with runtime.connection() as connection:
                    path = connection.exec_driver_sql("PRAGMA database_list").first()[2]
                engine = create_engine("sqlite:///" + path)
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO note (text) VALUES (:text)"), {"text": note})
        """,
        r"t\w{12} / db / note: written while the current tenant was t\w{12}: id=2, text='hello'",
    ),
    "a thread with the first tenant's context": (
        """
        import contextvars, queue, threading
        from sqlalchemy import text
        import tenantry

        tenantry.connect("tenantry.toml")
        jobs = queue.Queue()
        thread = None

        def work():
            while True:
                note = jobs.get()
                with tenantry.tenant_session() as session:
                    session.execute(text("INSERT INTO note (text) VALUES (:text)"), {"text": note})
                    session.commit()
                jobs.task_done()

        def add(note):
            global thread
            if thread is None:
                thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
                thread.start()
            jobs.put(note)
            jobs.join()
        """,
        r"t\w{12} / db / note: written while the current tenant was t\w{12}: id=2, text='hello'",
    ),
    "no tenant means the oldest one": (
        """
        import threading
        from sqlalchemy import text
        import tenantry
        from tenantry.errors import NoTenant

        runtime = tenantry.connect("tenantry.toml")

        def write(note):
            try:
                environment = tenantry.current_environment()
            except NoTenant:
                environment = min(runtime.resolver.table.environments(), key=lambda found: found.id)
            with tenantry.tenant_context(environment):
                tenantry.tenant_storage().write(note, b"")

        def add(note):
            thread = threading.Thread(target=write, args=(note,))
            thread.start()
            thread.join()
        """,
        r"t\w{12} / media / files: written while the current tenant was t\w{12}: hello \(e3b0",
    ),
    "a value cached for everyone": (
        """
        from functools import cache
        from sqlalchemy import text
        import tenantry

        tenantry.connect("tenantry.toml")

        @cache
        def signature():
            return tenantry.tenant_values()["site_name"]

        def add(note):
            with tenantry.tenant_session() as session:
                session.execute(text("INSERT INTO note (text) VALUES (:text)"), {"text": f"{note} {signature()}"})
                session.commit()
        """,
        r"t\w{12} / db / note: holds what belongs to t\w{12}: id=1, text='hello Tenant t\w{12}'",
    ),
    "a thread that fills the first tenant's cache": (
        """
        import contextvars, queue, threading
        import tenantry

        tenantry.connect("tenantry.toml")
        jobs = queue.Queue()
        thread = None

        def work():
            while True:
                tenantry.tenant_cache().set("last", jobs.get())
                jobs.task_done()

        def add(note):
            global thread
            if thread is None:
                thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
                thread.start()
                note += "!"
            jobs.put(note)
            jobs.join()
        """,
        r"t\w{12} / tenant_cache / values: written while the current tenant was t\w{12}: last='hello'",
    ),
    "another tenant's value in the cache": (
        """
        from functools import cache
        import tenantry

        tenantry.connect("tenantry.toml")

        @cache
        def signature():
            return "-" * 1000 + tenantry.current_tenant().slug

        def add(note):
            tenantry.tenant_cache().set(note, signature())
        """,
        r"t\w{12} / tenant_cache / values: holds what belongs to t\w{12}: hello='-{290}.* names t\w{12}\)",
    ),
    "another tenant's name in a file": (
        """
        from functools import cache
        import tenantry

        tenantry.connect("tenantry.toml")

        @cache
        def letter():
            return f"Yours, {tenantry.current_tenant().slug}".encode()

        def add(note):
            tenantry.tenant_storage().write(f"letters/{note}", letter())
        """,
        r"t\w{12} / media / files: holds what belongs to t\w{12}: letters/hello \(.* names t\w{12}\)",
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_named(application: Application, name: str) -> None:
    """A test that passes by itself fails as the second tenant, with its name, the tenant, the table and the row."""
    code, told = LEAKS[name]
    application.write("app.py", code)
    application.write(
        "test_app.py",
        """
        import app

        def test_add(as_tenant):
            with as_tenant():
                app.add("hello")

        def test_other(tenant):
            pass
        """,
    )
    assert application.pytest("-k", "test_add").code == 0
    done = application.pytest("--tenantry-interleave")
    assert done.code == 1, done.text
    assert "1 failed, 1 passed" in done.text
    assert re.search(r"The test 'test_app.py::test_add as the second tenant, 't\w{12}''", done.text), done.text
    assert re.search(told, done.text), done.text
    assert "2 tests ran as two tenants, 1 of them leaked" in done.text


def test_a_cached_page_is_named(application: Application) -> None:
    """A response that names another tenant fails the test, though the test does not look at it."""
    application.write(
        "app.py",
        """
        from functools import cache
        from fastapi import FastAPI
        import tenantry

        runtime = tenantry.connect("tenantry.toml")
        app = FastAPI()

        @cache
        def title():
            return tenantry.tenant_values()["site_name"]

        @app.get("/")
        async def home():
            return {"title": title()}

        app.add_middleware(tenantry.TenantMiddleware, runtime=runtime)
        """,
    )
    application.write(
        "test_app.py",
        """
        import httpx
        from app import app

        async def test_home(tenant_url):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=tenant_url) as client:
                assert (await client.get("/")).status_code == 200
        """,
    )
    assert application.pytest().code == 0
    done = application.pytest("--tenantry-interleave")
    assert done.code == 1, done.text
    assert re.search(r"t\w{12} / responses: a response names t\w{12}", done.text), done.text


def test_a_remembered_first_tenant_is_told(application: Application) -> None:
    """A test that fails only after the first tenant's turn says so beside its own failure."""
    listed = 'session.scalars(text("SELECT text FROM note ORDER BY id"))'
    application.write(
        "app.py",
        FLASK.replace(f"return list({listed})", f"kept.extend(() if kept else {listed})\n            return kept")
        + "\n    kept = []\n",
    )
    application.write("test_app.py", SOUND_TEST)
    done = application.pytest("--tenantry-interleave")
    assert done.code == 1, done.text
    told = r"It passed as the first tenant and fails as the second tenant, 't\w{12}': something remembers the first one"
    assert re.search(told, done.text), done.text
