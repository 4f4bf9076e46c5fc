"""The peer of several benchmarks: a django-tenants project with the same tables, in a directory of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psycopg

from bench.server import servers

SETUP = """
import json, sys, time
from pathlib import Path
import django
from django.conf import settings
url = json.loads(sys.argv[1])
settings.configure(
    DATABASES={"default": {"ENGINE": "django_tenants.postgresql_backend", **url}},
    DATABASE_ROUTERS=("django_tenants.routers.TenantSyncRouter",),
    INSTALLED_APPS=["django_tenants", "django.contrib.contenttypes", "peer_shared", "peer_tables"],
    SHARED_APPS=["django_tenants", "django.contrib.contenttypes", "peer_shared"], TENANT_APPS=["peer_tables"],
    TENANT_MODEL="peer_shared.Client", TENANT_DOMAIN_MODEL="peer_shared.Domain",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True,
)
sys.path.insert(0, str(Path.cwd()))
django.setup()
from django.core.management import call_command
"""
CREATE = """
call_command("makemigrations", "peer_shared", "peer_tables", verbosity=0)
call_command("migrate_schemas", "--shared", verbosity=0)
from peer_shared.models import Client
times = []
for number in range(int(sys.argv[2])):
    start = time.perf_counter()
    Client(schema_name=f"peer_{number}", name="Peer").save(verbosity=0)
    times.append(time.perf_counter() - start)
print(json.dumps(times))
"""
MIGRATE = """
call_command("migrate_schemas", "--tenant", "--executor", sys.argv[2], verbosity=0)
"""
CHANGE = """
call_command("makemigrations", "peer_tables", verbosity=0)
"""
SHARED = """
from django.db import models
from django_tenants.models import DomainMixin, TenantMixin
class Client(TenantMixin):
    name = models.CharField(max_length=100)
class Domain(DomainMixin):
    pass
"""
MODEL = """
class Thing{number}(models.Model):
    name = models.CharField(max_length=200, db_index=True)
    amount = models.IntegerField()
    note = models.TextField(null=True)
    made = models.DateTimeField()
"""


class Peer:
    """A project of django-tenants on a server."""

    def __init__(self, server: servers.Postgres, folder: Path, tables: int) -> None:
        parts = {"NAME": "peer", "USER": "postgres", "PASSWORD": server.password, "HOST": "127.0.0.1"}
        self._url = json.dumps(parts | {"PORT": str(server.port)})
        self._folder = folder
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE peer")
        for app in ("peer_shared", "peer_tables"):
            (folder / app / "migrations").mkdir(parents=True)
            (folder / app / "__init__.py").touch()
            (folder / app / "migrations" / "__init__.py").touch()
        (folder / "peer_shared" / "models.py").write_text(SHARED)
        self.models = folder / "peer_tables" / "models.py"
        self.models.write_text(
            "from django.db import models\n" + "".join(MODEL.format(number=n) for n in range(tables))
        )

    def create(self, count: int) -> list[float]:
        """Make so many tenants: the seconds each took."""
        times: list[float] = json.loads(self.run(CREATE, str(count)).splitlines()[-1])
        return times

    def run(self, program: str, *arguments: str) -> str:
        """Run a program inside the project: what it printed."""
        command = [sys.executable, "-c", SETUP + program, self._url, *arguments]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
