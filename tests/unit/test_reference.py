"""The reference pages are what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_reference_is_up_to_date() -> None:
    """Every setting, command and error stands in the reference as it is; `scripts/reference` writes the pages."""
    script = [sys.executable, str(ROOT / "scripts/reference"), "--check"]
    found = subprocess.run(script, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_settings_stand_in_it_word_for_word() -> None:
    """The page of settings holds the example file as it is."""
    page = (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    assert (ROOT / "src/tenantry/example.toml").read_text("utf-8") in page
