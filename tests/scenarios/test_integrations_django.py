"""The Django engines: a project with Django's own users, sessions and migrations serves many tenants."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

import programs
from application import TOML, Application
from mariadb import MariaDB
from prefix_world import maria_database
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
    return programs.run([made.root / "manage.py", *arguments], cwd=made.root, capture_output=True, text=True)


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


def placed(made: Application, kind: str, server: str, url: str, resource: str, **options: object) -> None:
    """Let the tenants' database be a resource on a server, and the platform's another database of that server."""
    made.write("tenantry.toml", TOML.replace('{kind = "sqlite", schema = "schema/"}', resource))
    made.append(
        "tenantry.toml", f'\n[servers.main]\nkind = "{kind}"\nurl = {{env = "NOTES_SERVER"}}\nconnections = 4\n'
    )
    at, vendor = make_url(url), {"postgres": "postgresql", "mysql": "mysql"}[kind]
    plain = {"NAME": at.database, "USER": at.username, "PASSWORD": at.password, "HOST": at.host, "PORT": at.port}
    if vendor == "mysql":
        plain["PASSWORD"] = str(at.password).encode()  # PyMySQL takes text for Latin-1
    plain |= {"ENGINE": f"django.db.backends.{vendor}", "OPTIONS": options}
    made.append("project/settings.py", f"DATABASES['platform'] = {plain}\n")


@pytest.mark.postgres
def test_a_project_on_postgresql(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    """On PostgreSQL, on connections out of the server's budget."""
    made = project(tmp_path / "project", "postgresql")
    placed(made, "postgres", "postgresql", postgres_url, '{kind = "postgres", schema = "schema/"}')
    schema(made, "--database", "platform")
    done = made.pytest(NOTES_SERVER=postgres.administrator())
    assert done.code == 0, done.text
    assert "6 passed" in done.text


def test_a_project_on_mariadb(tmp_path: Path, mariadb_server: MariaDB) -> None:
    """On MariaDB, by PyMySQL, with nothing to compile."""
    made = project(tmp_path / "project", "mysql")
    with maria_database(mariadb_server) as url:
        resource = f'{{kind = "mysql", name = "d{secrets.token_hex(3)}_{{slug}}", schema = "schema/"}}'
        placed(made, "mysql", "mysql", url, resource, ssl_ca=make_url(url).query["ssl_ca"])
        schema(made, "--database", "platform")
        done = made.pytest(NOTES_SERVER=mariadb_server.url())
    assert done.code == 0, done.text
    assert "6 passed" in done.text


def test_two_drivers_at_once_are_refused(tmp_path: Path) -> None:
    """Where mysqlclient is loaded already, the engine says what to write so that PyMySQL comes first."""
    (tmp_path / "MySQLdb.py").write_text("")  # it stands for mysqlclient, which is not to be had without a compiler
    engine = "tenantry.integrations.django.mysql"
    for first, told in (("MySQLdb", "at the top of the settings"), (engine, "MySQLdb is PyMySQL")):
        script = f"import {first}, {engine}, MySQLdb; print('MySQLdb is', MySQLdb.VERSION and 'PyMySQL')"
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert told in done.stdout + done.stderr


ROWS = """
    from datetime import datetime, timezone
    from django.db import connection
    from django.db.models import F
    from django.db.models.functions import ExtractHour, Now

    def titles():
        return sorted(Note.objects.values_list("title", flat=True))

    def test_autocommit_is_one_tenants(tenants, as_tenant):
        for environment, names in zip(tenants, ("ab", "cd")):
            with as_tenant(environment):
                for name in names:
                    Note.objects.create(title=name, extra={})
                assert not connections["default"].connection.pgconn.transaction_status, "something is not committed"
                with pytest.raises(IntegrityError):
                    Note.objects.create(title=names[0])
                assert titles() == list(names)
                assert sorted(note.title for note in Note.objects.iterator(chunk_size=1)) == list(names)
                with transaction.atomic():
                    assert sorted(note.title for note in Note.objects.iterator(chunk_size=1)) == list(names)
                with connections["default"].cursor() as cursor:
                    cursor.execute("SELECT count(*) FROM notes_note")
                    assert cursor.fetchone() == (2,)
                    cursor.execute("UPDATE notes_note SET title = title || '!'")
                    assert cursor.rowcount == 2
        for environment, names in zip(tenants, (["a!", "b!"], ["c!", "d!"])):
            with as_tenant(environment):
                connections["default"].close()
                assert titles() == names, "it was not committed"

    def test_ids_of_others_are_of_no_use(tenants, as_tenant):
        mine, other = tenants
        with as_tenant(mine):
            note = Note.objects.create(title="mine")
        with as_tenant(other):
            assert not Note.objects.filter(pk=note.pk).exists()
            assert Note.objects.filter(pk=note.pk).update(title="theirs") == 0
            assert Note.objects.filter(pk=note.pk).delete() == (0, {})
        with as_tenant(mine):
            note.refresh_from_db()
            assert note.title == "mine"

    def test_transactions(as_tenant):
        done = []
        with as_tenant():
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                Note.objects.create(title="never")
                1 / 0
            assert titles() == []
            with transaction.atomic():
                Note.objects.create(title="one")
                with pytest.raises(IntegrityError), transaction.atomic():
                    Note.objects.create(title="one")
                transaction.on_commit(lambda: done.append(titles()))
                Note.objects.create(title="two")
            assert done == [["one", "two"]]
            Note.objects.select_for_update().filter(title="one")
            connections["default"].connection.autocommit = True
            with pytest.raises(Exception, match="AUTOCOMMIT"):
                titles()

    def test_many_at_once(as_tenant, other_tenant):
        with as_tenant(other_tenant):
            Note.objects.create(title="theirs")
        with as_tenant():
            Note.objects.bulk_create([Note(title=str(number)) for number in range(5)])
            with connections["default"].cursor() as cursor:
                with cursor.copy("COPY notes_note (title) TO STDOUT") as copy:
                    assert sorted(row[0] for row in copy.rows()) == list("01234")

    def test_times(as_tenant):
        moment = datetime(2026, 6, 1, 23, 30, tzinfo=timezone.utc)
        with as_tenant():
            for _ in range(2):
                Note.objects.update_or_create(title="late", defaults={})
                Note.objects.update(made=moment)
                note = Note.objects.annotate(hour=ExtractHour("made", tzinfo=timezone.utc), now=Now()).get()
                assert (note.made, note.hour) == (moment, 23)
                assert abs(note.now - datetime.now(timezone.utc)).total_seconds() < 3600
                with connections["default"].cursor() as cursor:
                    cursor.execute("SHOW TimeZone")
                    assert cursor.fetchone() == ("UTC",)
"""


@pytest.mark.postgres
def test_a_project_in_shared_tables(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    """In tables that tenants share: each statement alone, each transaction and each cursor sees one tenant's rows."""
    made = project(tmp_path / "project", "postgresql")
    resource = f'kind = "rows", database = "d{secrets.token_hex(4)}", shared = ["django_migrations"]'
    placed(made, "postgres", "postgresql", postgres_url, f'{{{resource}, schema = "schema/"}}')
    made.append("test_app.py", ROWS)
    schema(made, "--database", "platform")
    administrator = postgres.administrator()
    for arguments in ((), ("--tenantry-interleave",)):
        done = made.pytest(*arguments, NOTES_SERVER=administrator)
        assert done.code == 0, done.text
        assert "11 passed" in done.text


@pytest.mark.postgres
def test_what_an_engine_is_not_for(tmp_path: Path, postgres_url: str) -> None:
    """Tables with a prefix, and a kind that an engine is not for, are refused with the way out."""
    made = project(tmp_path / "project", "postgresql")
    placed(made, "postgres", "postgresql", postgres_url, '{kind = "prefix"}')
    made.write("test_app.py", REFUSED)
    done = made.pytest(NOTES_SERVER=postgres_url)
    assert "no prefix can be put before. Give tenants a database each" in done.text.replace("\n", " "), done.text
    made = project(tmp_path / "other", "postgresql")
    made.write("test_app.py", REFUSED)
    done = made.pytest()
    assert 'Write "tenantry.integrations.django.sqlite3"' in done.text, done.text


REFUSED = """
    import app
    from notes.models import Note

    def test_refused(as_tenant):
        with as_tenant():
            try:
                Note.objects.count()
            except Exception as error:
                assert False, f"{error.message} {error.hint}"
"""


def test_keys_of_caches(tmp_path: Path) -> None:
    """With `tenant_key` Django's caches are apart; without it a run as two tenants names the key that both use."""
    made = project(tmp_path / "project", "sqlite3")
    schema(made)
    made.write("test_app.py", CACHED)
    common = """"platform": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "2"}}\n"""
    default = """CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache" KEY}, """
    settings = (made.root / "project/settings.py").read_text()
    made.write("project/settings.py", settings + default.replace(" KEY", "") + common)
    done = made.pytest("-k", "count")
    assert done.code == 0, done.text
    done = made.pytest("-k", "count", "--tenantry-interleave")
    told = r"t\w{12} / cache 'default': ':1:count' is a key of t\w{12} as well: it needs `KEY_FUNCTION`"
    assert re.search(told, done.text), done.text
    key = ', "KEY_FUNCTION": "tenantry.integrations.django.tenant_key"'
    made.write("project/settings.py", settings + default.replace(" KEY", key) + common)
    done = made.pytest("--tenantry-interleave")
    assert done.code == 0, done.text
    assert "2 passed" in done.text


CACHED = """
    import app
    import pytest
    from django.core.cache import cache, caches
    from notes.models import Note
    from tenantry.errors import NoTenant

    def test_count(as_tenant):
        with as_tenant():
            assert cache.get_or_set("count", Note.objects.count) == 0
            assert caches["platform"].get_or_set("rate", 7) == 7

    def test_apart(tenants, as_tenant):
        for environment in tenants:
            with as_tenant(environment):
                assert cache.get_or_set("whose", environment.tenant.slug) == environment.tenant.slug
        with pytest.raises(NoTenant):
            cache.get("whose")
"""


OWN = """
    import sys
    from tenantry.integrations.django import migrated

    DATABASES = migrated(DATABASES)
"""
PERMISSIONS = """
    def test_permissions(tenants, as_tenant):
        from django.contrib.auth.models import Permission

        for environment in tenants:
            with as_tenant(environment):
                assert Permission.objects.filter(codename="add_note").exists()
"""


def migrates_itself(made: Application, resource: str) -> str:
    """Let Django's own `migrate` be the resource's command, as the how-to says; how the resource is described."""
    made.append("project/settings.py", OWN)
    made.append("test_app.py", PERMISSIONS)
    toml = (ROOT / "docs/howto/django.md").read_text("utf-8").partition("schema = {command")[2].partition("}")[0]
    command = toml.replace('"python ', f'"{sys.executable} ')
    return f"{{{resource}, schema = {{command{command}}}}}"


def test_a_project_migrated_by_its_own_program(tmp_path: Path) -> None:
    """As a command, Django's own `migrate` makes the template, and the permissions that SQL files would leave out."""
    made = project(tmp_path / "project", "sqlite3")
    resource = migrates_itself(made, 'kind = "sqlite"')
    made.write("tenantry.toml", TOML.replace('{kind = "sqlite", schema = "schema/"}', resource))
    done = made.pytest("-k", "not takes_the_migrations")
    assert done.code == 0, done.text
    assert "6 passed" in done.text


@pytest.mark.postgres
def test_migrated_by_its_own_program_on_postgresql(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    """On PostgreSQL `migrate` runs in each tenant's database."""
    made = project(tmp_path / "project", "postgresql")
    placed(made, "postgres", "postgresql", postgres_url, migrates_itself(made, 'kind = "postgres"'))
    done = made.pytest("-k", "permissions or between", NOTES_SERVER=postgres.administrator())
    assert done.code == 0, done.text
    assert "2 passed" in done.text


def test_migrated_by_its_own_program_on_mariadb(tmp_path: Path, mariadb_server: MariaDB) -> None:
    """On MariaDB too, over TLS."""
    made = project(tmp_path / "project", "mysql")
    with maria_database(mariadb_server) as url:
        resource = migrates_itself(made, f'kind = "mysql", name = "d{secrets.token_hex(3)}_{{slug}}"')
        placed(made, "mysql", "mysql", url, resource, ssl_ca=make_url(url).query["ssl_ca"])
        done = made.pytest("-k", "permissions or between", NOTES_SERVER=mariadb_server.url())
    assert done.code == 0, done.text
    assert "2 passed" in done.text
