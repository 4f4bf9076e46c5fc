"""What a MariaDB database for a tenant costs: 40 tables, against the bare statements in one round trip."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
from pymysql.constants import CLIENT

from bench.report import Report
from tenantry.config import ResourceSpec
from tenantry.model import Environment, Place, Server, Status, Tenant, new_id
from tenantry.resources import Resource, Servers, Setting, build

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mariadb import MariaDB, running  # the tests' own

TABLES = 40
ROUNDS = 30
PARALLEL = 4
BULK = 24

TABLE = """
CREATE TABLE thing_{number} (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(200) NOT NULL,
  amount INT NOT NULL DEFAULT 0,
  note TEXT,
  made DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
  KEY thing_{number}_by_name (name)
) ENGINE = InnoDB"""


def schema() -> str:
    """The statements that make all tables."""
    return ";\n".join(TABLE.format(number=number) for number in range(TABLES))


def connect(server: MariaDB, user: str, password: str, database: str | None = None) -> Any:
    """A connection that takes several statements at once, encrypted as the driver's is."""
    return pymysql.connect(
        host="127.0.0.1",
        port=server.port,
        user=user,
        password=password.encode(),
        database=database,
        ssl_ca=str(server.home / "ca.pem"),
        ssl_verify_identity=True,
        charset="utf8mb4",
        autocommit=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
    )


def floor(server: MariaDB, administrator: Any, name: str) -> None:
    """The least it takes: database, user, grant, and the same tables in one round trip by that user."""
    password = secrets.token_urlsafe(24)
    with administrator.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s REQUIRE SSL", (name, password))
        cursor.execute(f"GRANT ALL PRIVILEGES ON `{name}`.* TO %s@'%%'", (name,))
    with contextlib.closing(connect(server, name, password, name)) as own, own.cursor() as cursor:
        cursor.execute(schema())
        while cursor.nextset():
            pass


def drop(administrator: Any, name: str) -> None:
    """Undo what `floor` did."""
    with administrator.cursor() as cursor:
        cursor.execute(f"DROP DATABASE `{name}`")
        cursor.execute("DROP USER %s@'%%'", (name,))


def resource(server: MariaDB, root: Path) -> Resource:
    """The kind as a platform has it."""
    (root / "schema").mkdir()
    (root / "schema" / "0001_things.sql").write_text(schema())
    url = server.url()
    known = Server("db", "mysql", "mysql://" + url.rpartition("@")[2], url)
    setting = Setting("site", root, root / "var", servers=Servers([known]))
    return build("db", ResourceSpec.model_validate({"kind": "mysql", "schema": "schema"}), setting)


def environment(made_of: Resource, slug: str) -> Environment:
    """An environment that is placed on the server."""
    tenant = Tenant(new_id(), slug, slug, "site", None, Status.ACTIVE)
    bare = Environment(new_id(), "production", tenant, f"tenants/{slug}")
    placed = replace(bare, places=(Place("db", "mysql", made_of.names(bare)[0], server="db"),))
    return replace(placed, logins={"db": made_of.new_login(placed)})


def size(server: MariaDB, names: list[str]) -> float:
    """What databases take on disk each, in MiB."""
    files = [file for name in names for file in (server.home / "data").glob(f"{name.replace('-', '@002d')}/*")]
    return sum(file.stat().st_blocks * 512 for file in files) / len(names) / 2**20


async def single(report: Report, server: MariaDB, part: Resource) -> None:
    """One after another, in turns with the floor; each is dropped at once, so that the server stays as it is."""
    ours, least = [], []
    away: list[tuple[float, float]] = []
    with contextlib.closing(connect(server, "root", server.password)) as administrator:
        for number in range(ROUNDS + 2):
            env = environment(part, f"ours-{number}")

            async def make(env: Environment = env) -> float:
                start = time.perf_counter()
                await part.create(env)
                return time.perf_counter() - start

            if number % 2:
                ours.append(await make())
            start = time.perf_counter()
            floor(server, administrator, f"floor-{number}")
            least.append(time.perf_counter() - start)
            if not number % 2:
                ours.append(await make())
            start = time.perf_counter()
            await part.drop(env)
            between = time.perf_counter()
            drop(administrator, f"floor-{number}")
            away.append((between - start, time.perf_counter() - between))
    middle, bare = 1000 * statistics.median(ours[2:]), 1000 * statistics.median(least[2:])
    ratio = statistics.median(mine / other for mine, other in zip(ours[2:], least[2:], strict=True))
    report.add(f"database, user, grant, {TABLES} tables", bare, "ms")
    report.add("create", middle, "ms", "the bare statements", ratio, "≤ 1.3", ratio <= 1.3)
    ratio = statistics.median(mine / other for mine, other in away)
    report.add("drop", 1000 * statistics.median(mine for mine, _ in away), "ms", "DROP DATABASE, DROP USER", ratio)


async def bulk(report: Report, server: MariaDB, part: Resource) -> None:
    """Many at once, and what they take on disk."""
    envs = [environment(part, f"bulk-{number}") for number in range(BULK)]
    start = time.perf_counter()
    results = await part.create_many(envs, parallel=PARALLEL)
    seconds = time.perf_counter() - start
    assert results == [None] * BULK, results
    report.add(f"create, {PARALLEL} at a time", BULK / seconds, "tenants/s")
    names = [part.locate(env) for env in envs]
    report.add("disk per tenant", size(server, names), "MiB")


async def run(report: Report) -> None:
    """Everything on one server."""
    with tempfile.TemporaryDirectory() as root, running() as server:
        part = resource(server, Path(root))
        start = time.perf_counter()
        await part.prepare()
        report.add("golden script, once for each schema", 1000 * (time.perf_counter() - start), "ms")
        await single(report, server, part)
        await bulk(report, server, part)


def main() -> int:
    """Run all and report."""
    report = Report("mysql")
    asyncio.run(run(report))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
