"""The ORM's sessions belong to one tenant, and no engine stands beside them: an application's own tests show it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from application import TOML, Application
from servers import Postgres

HOWTO = Path(__file__).parents[2] / "docs" / "howto"

MODELS = """
    import tenantry
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from tenantry.integrations.sqlalchemy import TenantSession, tenant_sessionmaker

    runtime = tenantry.connect("tenantry.toml")
    Sessions = tenant_sessionmaker(expire_on_commit=False)

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]
"""
TESTS = """
    import threading

    import pytest
    from sqlalchemy import create_engine, select, text
    from sqlalchemy.orm import Session
    from tenantry.errors import ForeignTenant, NoTenant, TenantNotServed
    from tenantry.integrations.sqlalchemy import RawEngine, refuse_raw_engines

    from app import Note, Sessions, TenantSession, runtime

    def texts(session):
        return session.scalars(select(Note.text).order_by(Note.id)).all()

    def test_no_session_without_a_tenant(tenants):
        for make in (Sessions, TenantSession):
            with pytest.raises(NoTenant):
                make()

    def test_each_tenant_has_its_own_rows(tenants, as_tenant):
        for environment in tenants:
            with as_tenant(environment), Sessions.begin() as session:
                session.add(Note(text=environment.tenant.slug))
        for environment in tenants:
            with as_tenant(environment), Sessions() as session:
                assert texts(session) == [environment.tenant.slug]
                session.add(Note(text="never committed"))
                session.flush()
            with as_tenant(environment), Sessions() as session:
                assert len(texts(session)) == 1

    def test_a_session_is_used_again_after_it_was_closed(as_tenant):
        with as_tenant():
            session = Sessions()
            for turn in range(20):
                session.add(Note(text=str(turn)))
                session.commit()
                assert len(texts(session)) == turn + 1
                session.close()

    def test_another_tenants_turn(tenant, other_tenant, as_tenant):
        with as_tenant(tenant):
            session = Sessions()
            session.add(Note(text="mine"))
            session.commit()
        with as_tenant(other_tenant), pytest.raises(ForeignTenant):
            texts(session)
        with pytest.raises(NoTenant):
            texts(session)
        caught = []
        def work():
            try:
                texts(session)
            except NoTenant as error:
                caught.append(error)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert caught
        with as_tenant(tenant):
            assert texts(session) == ["mine"]
            session.close()

    def test_objects_of_another_tenant(tenant, other_tenant, as_tenant):
        with as_tenant(tenant), Sessions() as session:
            made = Note(text="made")
            session.add(made)
            session.commit()
        with as_tenant(tenant), Sessions() as session:
            loaded = session.scalars(select(Note)).one()
            again = session.merge(made)
            assert again is loaded
        for note in (made, loaded):
            with as_tenant(other_tenant), Sessions() as session:
                for attach in (session.add, session.merge, lambda each: session.add_all([Note(text="own"), each])):
                    with pytest.raises(ForeignTenant):
                        attach(note)
        with as_tenant(other_tenant), Sessions() as session:
            assert texts(session) == []

    def test_connections_come_back(as_tenant):
        with as_tenant():
            for turn in range(50):
                session = Sessions()
                try:
                    texts(session)
                    if turn % 2:
                        session.execute(text("SELECT nothing FROM nowhere"))
                except Exception:
                    pass
                finally:
                    session.close()
            with Sessions() as one, Sessions() as two:
                assert texts(one) == texts(two) == []

    def test_raw_engines(tenant, as_tenant, tmp_path):
        with as_tenant(), runtime.connection() as connection:
            url = URL(connection)
        before = create_engine(url)
        refuse_raw_engines()
        for engine in (before, create_engine(url)):
            with pytest.raises(RawEngine) as caught, engine.connect():
                pass
            assert caught.value.details["database"] in str(caught.value)
        with create_engine(f"sqlite:///{tmp_path}/own.db").connect() as connection:
            connection.execute(text("CREATE TABLE own (id INTEGER)"))
        with create_engine("sqlite://").connect():
            pass
        with as_tenant(), Sessions() as session:
            assert texts(session) == []
        refuse_raw_engines(allow=[caught.value.details["database"]])
"""
SQLITE_URL = """
    def URL(connection):
        return "sqlite:///" + connection.exec_driver_sql("PRAGMA database_list").first()[2]
"""
POSTGRES_URL = """
    def URL(connection):
        return connection.engine.url
"""


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """A project with models."""
    made = Application(tmp_path / "application")
    made.write("app.py", MODELS)
    return made


def test_on_files(application: Application) -> None:
    """On SQLite, also interleaved."""
    application.write("test_app.py", TESTS)
    application.append("test_app.py", SQLITE_URL)
    for arguments in ((), ("--tenantry-interleave",)):
        done = application.pytest(*arguments)
        assert done.code == 0, done.text
        assert "7 passed" in done.text


@pytest.mark.postgres
def test_on_a_server(application: Application, postgres: Postgres) -> None:
    """On PostgreSQL, by the application's own tenantry.toml, whose server comes from the environment."""
    application.write("tenantry.toml", TOML.replace('"sqlite"', '"postgres"'))
    application.write("schema/0001_notes.sql", "CREATE TABLE note (id serial PRIMARY KEY, text text NOT NULL);\n")
    application.append("tenantry.toml", '\n[servers.main]\nkind = "postgres"\nurl = {env = "NOTES_SERVER"}\n')
    application.write("test_app.py", TESTS)
    application.append("test_app.py", POSTGRES_URL)
    done = application.pytest(NOTES_SERVER=postgres.administrator())
    assert done.code == 0, done.text
    assert "7 passed" in done.text


BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_on_sqlalchemy(application: Application) -> None:
    """The code of docs/howto/sqlalchemy.md serves two tenants, and refuses an engine of its own."""
    application.write("schema/0001_notes.sql", "CREATE TABLE note (text TEXT NOT NULL);\n")
    application.write("app.py", "\n".join(BLOCK.findall((HOWTO / "sqlalchemy.md").read_text("utf-8"))))
    application.write(
        "test_app.py",
        """
        import pytest
        from app import add, runtime
        from sqlalchemy import create_engine
        from tenantry.integrations.sqlalchemy import RawEngine

        def test_page(tenants, as_tenant):
            for environment in tenants:
                with as_tenant(environment):
                    assert add("one") == ["one"]
                    assert add("two") == ["one", "two"]
                    with runtime.connection() as connection:
                        path = connection.exec_driver_sql("PRAGMA database_list").first()[2]
            with pytest.raises(RawEngine), create_engine(f"sqlite:///{path}").connect():
                pass
        """,
    )
    done = application.pytest()
    assert done.code == 0, done.text


def test_the_page_on_tests(application: Application) -> None:
    """The tests of docs/howto/test-your-application.md pass, as one tenant and as two."""
    page = (HOWTO / "test-your-application.md").read_text("utf-8")
    application.write("test_page.py", "\n".join(BLOCK.findall(page)))
    application.write(
        "conftest.py",
        """
        import httpx
        import pytest
        import tenantry
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/notes")
        async def notes():
            return []

        app.add_middleware(tenantry.TenantMiddleware, runtime=tenantry.connect("tenantry.toml"))

        @pytest.fixture
        async def client():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
                yield client
        """,
    )
    for arguments in ((), ("--tenantry-interleave",)):
        done = application.pytest(*arguments)
        assert done.code == 0, done.text
        assert "2 passed" in done.text
