"""A platform in a temporary directory, for benchmarks: a database of 40 tables, media, a rendered file, an admin."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tenantry.platform import Platform

TENANTRY = Path(sys.executable).with_name("tenantry")
TABLES = 40

PLATFORM = """
[platform]
name = "Benchmark"
domain = "localhost"
[blueprints.site.resources]
db = {kind = "sqlite", schema = "schema/"}
media = {kind = "directory"}
config = {kind = "rendered", template = "env.json.j2", target = "env.json"}
[blueprints.site.hostnames]
production = "{slug}.{domain}"
[serve]
app = "answer:app"
"""
TEMPLATE = '{"tenant": {{ slug | json }}, "hostname": {{ hostname | json }}}\n'
APPLICATION = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})
"""
TABLE = """
CREATE TABLE thing_{number} (
  id INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, made TEXT NOT NULL, owner INTEGER, amount REAL, note TEXT
) STRICT;
CREATE INDEX thing_{number}_by_owner ON thing_{number} (owner, made);
"""


class Site:
    """A platform's directory, with the key that every process of it gets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "tenantry.toml"
        self.data = root / "var"
        (root / "schema").mkdir()
        self.config.write_text(PLATFORM)
        (root / ".env").write_text(f"TENANTRY_SECRET_KEY={secrets.token_hex(32)}\n")
        (root / "env.json.j2").write_text(TEMPLATE)
        (root / "answer.py").write_text(APPLICATION)
        (root / "schema/0001_start.sql").write_text("".join(TABLE.format(number=n) for n in range(TABLES)))

    def list_of(self, count: int, first: int = 0) -> Path:
        """A CSV file that names this many tenants, but for the first so many."""
        path = self.root / f"{count}.csv"
        path.write_text("slug,name\n" + "".join(f"tenant-{n:06},Tenant {n}\n" for n in range(first, count)))
        return path

    def command(self, *arguments: str) -> float:
        """Run one command as a process of its own: its seconds from start to end."""
        start = time.perf_counter()
        subprocess.run([TENANTRY, *arguments], cwd=self.root, check=True, capture_output=True)
        return time.perf_counter() - start

    @contextlib.contextmanager
    def process(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that stays while the block runs."""
        process = subprocess.Popen([TENANTRY, *arguments], cwd=self.root)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    @contextlib.asynccontextmanager
    async def platform(self) -> AsyncIterator[Platform]:
        """The platform, opened in this process."""
        async with Platform.open(self.config) as platform:
            yield platform


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """A fresh platform, gone after the block. TENANTRY_BENCH_DIRECTORY says where, such as another disk."""
    for name in [name for name in os.environ if name.startswith("TENANTRY_") and name != "TENANTRY_BENCH_DIRECTORY"]:
        del os.environ[name]
    root = Path(tempfile.mkdtemp(prefix="tenantry-bench-", dir=os.environ.get("TENANTRY_BENCH_DIRECTORY")))
    try:
        yield Site(root)
    finally:
        shutil.rmtree(root)
