"""What a process loads as it starts."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("tenantry.cli", {"sqlalchemy", "pydantic", "dbos", "fastapi", "alembic"}),
        ("tenantry.platform", {"dbos", "alembic", "fastapi", "argon2", "webauthn"}),
        ("tenantry.web", {"dbos", "alembic", "fastapi", "webauthn"}),
    ],
)
def test_a_start_loads_no_library_that_only_some_commands_need(module: str, heavy: set[str]) -> None:
    """Help needs none of them, a command needs no engine unless it runs an operation itself, a server never does."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert heavy.isdisjoint(loaded), heavy.intersection(loaded)
