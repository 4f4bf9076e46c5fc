"""The Django engines: a project with Django's own users, sessions and migrations serves many tenants."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from application import TOML, Application
from servers import Postgres

ROOT = Path(__file__).parents[2]

SETTINGS = """
    SECRET_KEY = "of all tenants"
    ALLOWED_HOSTS = ["*"]
    ROOT_URLCONF = "project.urls"
    USE_TZ = True
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    INSTALLED_APPS = [
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "tenantry.integrations.django",
        "notes",
        "library",
    ]
    MIDDLEWARE = [
        "tenantry.integrations.django.TenantMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    DATABASES = {
        "default": {"ENGINE": "tenantry.integrations.django.ENGINE"},
        "platform": {"ENGINE": "django.db.backends.sqlite3", "NAME": "platform.sqlite"},
    }
    DATABASE_ROUTERS = ["tenantry.integrations.django.TenantRouter"]
    TENANTRY_SHARED_APPS = ["library"]
"""
MODELS = """
    from django.db import models

    class {name}(models.Model):
        title = models.CharField(max_length=100, unique=True)
        made = models.DateTimeField(auto_now_add=True)
        extra = models.JSONField(default=dict)
"""
URLS = """
    import json
    import tenantry
    from django.contrib.auth import authenticate, login
    from django.contrib.auth.models import User
    from django.core.wsgi import get_wsgi_application
    from django.db import transaction
    from django.http import JsonResponse
    from django.urls import path
    from library.models import Book
    from notes.models import Note

    def notes(request):
        if request.method == "POST":
            Note.objects.create(title=request.body.decode(), extra={"by": request.tenant.slug})
        return JsonResponse([[note.title, note.extra["by"]] for note in Note.objects.order_by("id")], safe=False)

    def sign_in(request):
        given = json.loads(request.body)
        user = authenticate(request, **given)
        if user is None:
            return JsonResponse({}, status=401)
        login(request, user)
        return JsonResponse({})

    def me(request):
        return JsonResponse({"user": request.user.get_username()})

    def books(request):
        return JsonResponse([book.title for book in Book.objects.all()], safe=False)

    def fail(request):
        with transaction.atomic():
            Note.objects.create(title="never")
            raise tenantry.current_tenant() and ValueError("after the insert")

    urlpatterns = [path("notes", notes), path("sign-in", sign_in), path("me", me), path("books", books),
                   path("fail", fail)]
"""
APP = """
    import os
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import tenantry
    from django.core.wsgi import get_wsgi_application

    runtime = tenantry.connect("tenantry.toml")
    application = tenantry.WsgiTenantMiddleware(get_wsgi_application(), runtime)
"""
TESTS = """
    import httpx
    import pytest
    from app import application
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import IntegrityError, connections, transaction
    from django.db.migrations.recorder import MigrationRecorder
    from library.models import Book
    from notes.models import Note
    from tenantry.errors import ForeignTenant, NoTenant

    @pytest.fixture(autouse=True)
    def closed():
        yield
        connections["default"].close()

    @pytest.fixture
    def browse(tenants):
        clients = [httpx.Client(transport=httpx.WSGITransport(application, raise_app_exceptions=False),
                                base_url=f"http://{environment.hostnames[0]}") for environment in tenants]
        yield clients
        for client in clients:
            client.close()

    def test_requests(browse, tenants):
        for client, environment in zip(browse, tenants):
            slug = environment.tenant.slug
            assert client.post("/notes", content="one").json() == [["one", slug]]
            assert client.post("/notes", content="two").json() == [["one", slug], ["two", slug]]
            assert client.get("/fail").status_code == 500
            assert len(client.get("/notes").json()) == 2

    def test_users_and_sessions(browse, tenants, as_tenant):
        for environment, password in zip(tenants, ("correct horse", "other horse")):
            with as_tenant(environment):
                User.objects.create_user("eva", password=password)
        mine, other = browse
        given = {"username": "eva", "password": "correct horse"}
        assert mine.post("/sign-in", json=given).status_code == 200
        assert mine.get("/me").json() == {"user": "eva"}
        assert other.post("/sign-in", json=given).status_code == 401
        cookie = mine.cookies["sessionid"]
        assert other.get("/me", headers={"cookie": f"sessionid={cookie}"}).json() == {"user": ""}

    def test_no_tenant(tenants, as_tenant):
        for query in (lambda: Note.objects.count(), lambda: Note.objects.create(title="whose?")):
            with pytest.raises(NoTenant):
                query()
        with as_tenant():
            kept = Note.objects.all()
        with pytest.raises(NoTenant):
            list(kept)

    def test_between_tenants(tenant, other_tenant, as_tenant):
        with as_tenant(tenant):
            Note.objects.create(title="mine")
        with as_tenant(other_tenant):
            assert not Note.objects.exists()
            Note.objects.create(title="mine")
            with pytest.raises(IntegrityError), transaction.atomic():
                Note.objects.create(title="mine")
        with as_tenant(tenant), transaction.atomic():
            assert Note.objects.get().title == "mine"
            with as_tenant(other_tenant), pytest.raises(ForeignTenant):
                Note.objects.count()
        with as_tenant(tenant):
            cursor = connections["default"].cursor()
            cursor.execute("SELECT title FROM notes_note")
            with as_tenant(other_tenant), pytest.raises((ForeignTenant, NoTenant)):
                cursor.execute("SELECT title FROM notes_note")
            cursor.close()

    def test_shared_tables(browse, tenants):
        call_command("migrate", database="platform", verbosity=0)
        Book.objects.get_or_create(title="Common")
        for client in browse:
            assert client.get("/books").json() == ["Common"]

    def test_django_takes_the_migrations_for_applied(as_tenant):
        with as_tenant():
            applied = MigrationRecorder(connections["default"]).applied_migrations()
            assert ("notes", "0002_unique") in applied and ("auth", "0001_initial") in applied
            assert ("library", "0001_initial") not in applied
            call_command("check", databases=["default"])
"""


def project(root: Path, engine: str) -> Application:
    """A Django project with an application of its own and a shared one."""
    made = Application(root)
    (root / "schema/0001_notes.sql").unlink()
    made.write("project/__init__.py", "")
    made.write("project/settings.py", SETTINGS.replace("django.ENGINE", f"django.{engine}"))
    made.write("project/urls.py", URLS)
    made.write("app.py", APP)
    made.write("test_app.py", TESTS)
    made.write(
        "manage.py",
        """
        import os, sys
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
        """,
    )
    for name, model in (("notes", "Note"), ("library", "Book")):
        made.write(f"{name}/__init__.py", "")
        made.write(f"{name}/models.py", MODELS.replace("{name}", model))
        made.write(f"{name}/migrations/__init__.py", "")
        first = """
            from django.db import migrations, models

            class Migration(migrations.Migration):
                initial = True
                operations = [migrations.CreateModel("MODEL", [
                    ("id", models.BigAutoField(primary_key=True)),
                    ("title", models.CharField(max_length=100)),
                    ("made", models.DateTimeField(auto_now_add=True)),
                    ("extra", models.JSONField(default=dict)),
                ])]
            """
        second = """
            from django.db import migrations, models

            class Migration(migrations.Migration):
                dependencies = [("NAME", "0001_initial")]
                operations = [migrations.AlterField("MODEL", "title", models.CharField(max_length=100, unique=True))]
            """
        made.write(f"{name}/migrations/0001_initial.py", first.replace("MODEL", model))
        made.write(f"{name}/migrations/0002_unique.py", second.replace("MODEL", model).replace("NAME", name))
    return made


def manage(made: Application, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py`."""
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=made.root, capture_output=True, text=True, check=False)


def schema(made: Application, *options: str) -> None:
    """Write Django's migrations down for Tenantry, twice: the second time nothing is missing."""
    refused = manage(made, "tenantry_schema", "schema", *options)
    assert refused.returncode != 0
    assert "has a step in Python, which is no SQL" in refused.stderr, refused.stderr
    done = manage(made, "tenantry_schema", "schema", "--without-python", *options)
    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (made.root / "schema").iterdir())
    assert any(name.endswith("_notes_0002_unique.sql") for name in written)
    assert not any("library" in name for name in written), "shared tables belong into no tenant"
    again = manage(made, "tenantry_schema", "schema", "--without-python", *options)
    assert (again.returncode, again.stdout) == (0, "")


def test_a_project_on_files(tmp_path: Path) -> None:
    """On SQLite: requests, users, sessions and shared tables, also interleaved."""
    made = project(tmp_path / "project", "sqlite3")
    schema(made)
    for arguments in ((), ("--tenantry-interleave",)):
        done = made.pytest(*arguments)
        assert done.code == 0, done.text
        assert "6 passed" in done.text


@pytest.mark.postgres
def test_a_project_on_a_server(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    """On PostgreSQL, on connections out of the server's budget."""
    made = project(tmp_path / "project", "postgresql")
    made.write("tenantry.toml", TOML.replace('"sqlite"', '"postgres"'))
    made.append("tenantry.toml", '\n[servers.main]\nkind = "postgres"\nurl = {env = "NOTES_SERVER"}\nconnections = 4\n')
    at = make_url(postgres_url)
    plain = {"NAME": at.database, "USER": at.username, "PASSWORD": at.password, "HOST": at.host, "PORT": at.port}
    made.append(
        "project/settings.py", f"DATABASES['platform'] = {plain | {'ENGINE': 'django.db.backends.postgresql'}}\n"
    )
    schema(made, "--database", "platform")
    done = made.pytest(NOTES_SERVER=postgres.administrator())
    assert done.code == 0, done.text
    assert "6 passed" in done.text


def test_a_project_migrated_by_its_own_program(tmp_path: Path) -> None:
    """As a command, Django's own `migrate` makes the template, and the permissions that SQL files would leave out."""
    made = project(tmp_path / "project", "sqlite3")
    toml = (ROOT / "docs/howto/django.md").read_text("utf-8").partition("db = {")[2].partition("\n")[0]
    command = toml.replace('"python ', f'"{sys.executable} ')
    made.write("tenantry.toml", TOML.replace('{kind = "sqlite", schema = "schema/"}', "{" + command))
    made.append(
        "project/settings.py",
        """
        import os
        if "TENANTRY_DATABASE_FILE" in os.environ:
            name = os.environ["TENANTRY_DATABASE_FILE"]
            DATABASES["default"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
        """,
    )
    made.append(
        "test_app.py",
        """
        def test_permissions(tenants, as_tenant):
            from django.contrib.auth.models import Permission

            for environment in tenants:
                with as_tenant(environment):
                    assert Permission.objects.filter(codename="add_note").exists()
        """,
    )
    done = made.pytest("-k", "not takes_the_migrations")
    assert done.code == 0, done.text
    assert "6 passed" in done.text
