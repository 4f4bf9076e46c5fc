"""An application's own project with its own tests, run by pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

TOML = """
[platform]
name = "Notes"
domain = "example.com"

[blueprints.site.resources]
db = {kind = "sqlite", schema = "schema/"}
media = {kind = "directory"}

[blueprints.site.hostnames]
production = "{slug}.{domain}"

[blueprints.site.values]
site_name = "{name}"

[plans.free]
[plans.pro]
"""
SCHEMA = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL);\n"
INI = "[pytest]\nfilterwarnings = error\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
UNUSED = ("-p", "no:hypothesispytest", "-p", "no:schemathesis")
"""What no such test uses; loading it takes a third of a run's time, where it is installed."""
LIMIT = 300.0
"""Seconds until a run that hangs is given up; nothing is measured by it."""


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest came to."""

    code: int
    text: str


@dataclass(frozen=True)
class Application:
    """A directory with an application and its tests."""

    root: Path

    def __post_init__(self) -> None:
        self.write("tenantry.toml", TOML)
        self.write("schema/0001_notes.sql", SCHEMA)
        self.write("pytest.ini", INI)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the application."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def append(self, name: str, text: str) -> None:
        """Write more at the end of a file."""
        with (self.root / name).open("a") as file:
            file.write(dedent(text))

    def pytest(self, *arguments: str, **variables: str) -> Outcome:
        """Run its tests as its developer would, with these environment variables."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("TENANTRY_", "PYTEST_"))}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-v", *UNUSED, *arguments],
            cwd=self.root,
            env=environ | variables,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return Outcome(done.returncode, done.stdout + done.stderr)
