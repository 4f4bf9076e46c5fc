"""The documentation keeps up with the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def test_every_dependency_says_why_it_is_here() -> None:
    """docs/explanation/dependencies.md names every direct dependency, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split(r"[\[<>=,;! ]", requirement)[0] for requirement in wanted}
    page = (ROOT / "docs/explanation/dependencies.md").read_text("utf-8")
    kept, _, _ = page.partition("## Looked at and left")
    named = set(re.findall(r"^\| (.+?) \|", kept, re.MULTILINE))
    assert {name for cell in named for name in re.findall(r"`([^`]+)`", cell)} == names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page is there."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_the_lock_has_hashes_and_no_addresses() -> None:
    """requirements.lock pins every package by its hash, and names no host."""
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    assert "://" not in lock
    blocks = re.split(r"\n(?=[a-z0-9])", lock)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)


def test_nothing_names_a_place_on_somebodys_machine() -> None:
    """No text of the project holds a path of the machine it was written on."""
    telling = re.compile(r"/(?:root|home/[a-z]+|work)/|pypi\.org/simple|files\.pythonhosted")
    suffixes = {".py", ".md", ".toml", ".sh", ".html", ".css", ".js", ".sql", ".lock", ".svg", ".j2"}
    searched = [p for folder in ("src", "docs", "bench", "examples", "scripts") for p in (ROOT / folder).rglob("*")]
    found = [str(p) for p in searched if p.suffix in suffixes and telling.search(p.read_text("utf-8"))]
    assert found == []
