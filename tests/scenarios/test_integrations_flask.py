"""The Flask extension: an application with Flask-SQLAlchemy, written as for one customer, serves many."""

from __future__ import annotations

from pathlib import Path

import pytest

from application import TOML, Application

APP = """
    from flask import Flask, current_app, g, request, session
    from flask_sqlalchemy import SQLAlchemy
    from sqlalchemy.orm import Mapped, mapped_column

    db = SQLAlchemy()

    class Note(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]

    def create_app():
        app = Flask(__name__)
        app.config.update(SQLALCHEMY_DATABASE_URI="sqlite:///scratch.db", SECRET_KEY="of one customer", TITLE="Notes")
        db.init_app(app)

        @app.get("/")
        def home():
            return {"tenant": g.tenant.slug if "tenant" in g else "", "title": current_app.config["TITLE"]}

        @app.route("/notes", methods=["GET", "POST"])
        def notes():
            if request.method == "POST":
                db.session.add(Note(text=request.get_data(as_text=True)))
                db.session.commit()
            return [note.text for note in Note.query.order_by(Note.id)]

        @app.get("/fail")
        def fail():
            db.session.add(Note(text="never"))
            db.session.flush()
            raise ValueError("after the flush")

        @app.get("/engine")
        def engine():
            with db.engine.connect():
                return "opened"

        @app.post("/sign-in")
        def sign_in():
            session["user"] = "eva"
            return ""

        @app.get("/me")
        def me():
            return {"user": session.get("user")}

        return app
"""
MULTI = """
    from single import create_app, db
    from tenantry.integrations.flask import Tenantry

    app = create_app()
    Tenantry(app, config="tenantry.toml", db=db, settings={"TITLE": "site_name"})
"""
TESTS = """
    import pytest
    from app import app, db
    from single import Note
    from tenantry.errors import NoTenant

    @pytest.fixture
    def browse(tenants):
        def of(environment):
            client = app.test_client()
            def request(method, path, **options):
                return client.open(path, method=method, base_url=f"http://{environment.hostnames[0]}", **options)
            request.client = client
            return request
        return [of(environment) for environment in tenants]

    def test_each_tenant_has_its_own(browse, tenants):
        for request, environment in zip(browse, tenants):
            slug = environment.tenant.slug
            assert request("GET", "/").json == {"tenant": slug, "title": f"Tenant {slug}"}
            assert request("POST", "/notes", data="one").json == ["one"]
            assert request("POST", "/notes", data="two").json == ["one", "two"]

    def test_a_session_is_void_elsewhere(browse, tenants):
        mine, other = browse
        mine("POST", "/sign-in")
        assert mine("GET", "/me").json == {"user": "eva"}
        cookie = mine.client.get_cookie("session", domain=tenants[0].hostnames[0]).value
        mine.client.set_cookie("session", cookie, domain=tenants[0].hostnames[0])
        assert mine("GET", "/me").json == {"user": "eva"}
        other.client.set_cookie("session", cookie, domain=tenants[1].hostnames[0])
        assert other("GET", "/me").json == {"user": None}

    def test_what_failed_is_undone(browse):
        app.testing = False
        for turn in range(20):
            assert browse[0]("GET", "/fail").status_code == 500
        assert browse[0]("GET", "/notes").json == []

    def test_its_own_engine_opens_nothing(browse):
        answer = browse[0]("GET", "/engine", headers={"accept": "application/json"})
        assert (answer.status_code, answer.json["code"]) == (500, "engine.raw")

    def test_refusals(browse):
        client = app.test_client()
        assert client.get("/", base_url="http://nobody.example.com").status_code == 404
        assert client.get("/", base_url="http://example.com").status_code == 404

    def test_outside_requests(tenants, as_tenant):
        with app.app_context(), pytest.raises(NoTenant):
            db.session.add(Note(text="whose?"))
        with app.app_context(), pytest.raises(NoTenant):
            app.config["SECRET_KEY"]
        with as_tenant(), app.app_context():
            db.session.add(Note(text="mine"))
            db.session.commit()
        with as_tenant(tenants[1]), app.app_context():
            assert Note.query.all() == []
            assert app.config.get("SECRET_KEY") == app.secret_key
            assert app.config.get("NOTHING", 5) == 5
"""


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """A project that knows nothing of tenants, and the lines that make it serve many."""
    made = Application(tmp_path / "application")
    made.write("tenantry.toml", TOML)
    made.write("single.py", APP)
    made.write("app.py", MULTI)
    made.write("test_app.py", TESTS)
    return made


def test_an_application_for_one_serves_many(application: Application) -> None:
    """Rows, settings and sessions of each tenant are its own, also interleaved; the application's engine is closed."""
    for arguments in ((), ("--tenantry-interleave",)):
        done = application.pytest(*arguments)
        assert done.code == 0, done.text
        assert "6 passed" in done.text
