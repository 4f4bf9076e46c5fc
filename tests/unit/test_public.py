"""What is public: docs/reference/runtime.md says it, and the examples and the documentation keep to it."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tenantry

ROOT = Path(__file__).parents[2]
SOURCE = Path(tenantry.__file__).parents[1]
REFERENCE = (ROOT / "docs/reference/runtime.md").read_text("utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])

EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
APPLICATIONS = [file for file in EXAMPLES if file.name not in ("demo.py", "staging.py")]
FOR_APPLICATIONS = re.compile(r"tenantry(?:\.(?:integrations\.\w+|errors|refusals|model))?")
"""Of these applications import; programs that run a platform, such as the demos, of the others too."""


def section(heading: str) -> str:
    """The part of the reference below a heading."""
    return REFERENCE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


PUBLIC = set(re.findall(r"`(tenantry[\w.]*)`", "".join(re.findall(r"^\| (.+?) \|", section("What is public"), re.M))))
RUNTIME = {
    name: set(re.findall(r"\w+", row))
    for row in re.findall(r"^\| .+ \|$", section("`Runtime`"), re.M)
    for name in re.findall(r"`(\w+)", row.split(" | ")[0])
}
"""What a `Runtime` is documented to have, and all words of its row."""


def is_module(name: str) -> bool:
    path = SOURCE / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def home(module: str, name: str) -> tuple[str, str]:
    """A name and its module; what is a module itself has no name in it."""
    return (f"{module}.{name}", "") if name and is_module(f"{module}.{name}") else (module, name)


def is_public(module: str, name: str = "") -> bool:
    """Whether a name of a module is public; without a name, the module."""
    module, name = home(module, name)
    inside_django = module.startswith("tenantry.integrations.django.")  # its engines, which Django imports by name
    if module not in PUBLIC and not inside_django:
        return False
    names = getattr(importlib.import_module(module), "__all__", None) if name else None
    return not name.startswith("_") and (names is None or name in names)


def imported(source: str) -> Iterator[tuple[str, str]]:
    """Each module of Tenantry's that is imported, with each name out of it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((one.name, "") for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, one.name) for one in node.names)


def ours(source: str) -> list[tuple[str, str]]:
    return [one for one in imported(source) if one[0].partition(".")[0] == "tenantry"]


def chain(node: ast.AST) -> list[str]:
    """The words of `a.b().c`: "a", "b", "c"; none for what is no such thing."""
    if isinstance(node, ast.Call):
        return chain(node.func)
    if isinstance(node, ast.Attribute):
        return [*before, node.attr] if (before := chain(node.value)) else []
    return [node.id] if isinstance(node, ast.Name) else []


def test_public_modules_are_there() -> None:
    """Every module that the reference calls public can be imported, and has something."""
    assert {"tenantry", "tenantry.errors", "tenantry.integrations.fastapi"} < PUBLIC
    for name in PUBLIC:
        assert vars(importlib.import_module(name))


def test_every_name_of_applications_is_in_the_reference() -> None:
    """The reference tells of each name in `tenantry.__all__`."""
    assert [name for name in tenantry.__all__ if not re.search(rf"`(?:tenantry\.)?{name}\b", REFERENCE)] == []


def test_importing_tenantry_loads_nothing_else() -> None:
    """`import tenantry` costs nothing until a name of it is used; each name is there then."""
    code = "import sys, tenantry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.startswith("tenantry.") or name in ("sqlalchemy", "pydantic")] == []
    assert all(getattr(tenantry, name) for name in tenantry.__all__)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.relative_to(ROOT / "examples")))
def test_examples_import_public_names_alone(file: Path) -> None:
    """No example imports what lies below the public names; an application none that is for other programs."""
    found = ours(file.read_text("utf-8"))
    assert [one for one in found if not is_public(*one)] == []
    if file in APPLICATIONS:
        assert [one for one in found if not FOR_APPLICATIONS.fullmatch(home(*one)[0])] == []


@pytest.mark.parametrize("file", APPLICATIONS, ids=lambda file: str(file.relative_to(ROOT / "examples")))
def test_examples_use_of_a_runtime_what_is_documented(file: Path) -> None:
    """`connected().…` and `runtime.…` are names of the reference, and so is what hangs on them."""
    wrong = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        match chain(node) if isinstance(node, ast.Attribute) else []:
            case ["tenantry", name] if name not in tenantry.__all__ and not is_module(f"tenantry.{name}"):
                wrong.append(name)
            case ["runtime" | "connected", *names] | ["tenantry", "connected", *names] if names:
                row = RUNTIME.get(names[0])
                if row is None or not row >= set(names):
                    wrong.append(".".join(names))
    assert wrong == []


def test_the_three_examples_have_no_page_of_their_own_for_users() -> None:
    """Signing in and out, passwords, second factors, passkeys and people are Tenantry's pages in all three."""
    for name in ("storyfront", "planner", "agency"):
        files = [*(ROOT / "examples" / name / name).rglob("*.py"), *(ROOT / "examples" / name / name).rglob("*.html")]
        texts = [file.read_text("utf-8") for file in files]
        assert any("/.tenantry/users" in text and "/.tenantry/me" in text for text in texts), name
        for text in texts:
            assert 'type="password"' not in text
            assert not re.search(r"\.(?:accounts|proofs|grants|enter|leave)\b", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_documentation_names_public_modules_alone(page: Path) -> None:
    """Whatever a page imports, or calls by its whole name, is public."""
    text = page.read_text("utf-8")
    lines = re.findall(r"^ *((?:from|import) tenantry\b(?:[^(\n]*\([^)]*\)|[^\n]*))", text, re.M)
    wrong = [one for line in lines for one in ours(line) if not is_public(*one)]
    for whole in re.findall(r"\btenantry(?:\.\w+)+", text):
        module = whole
        while not is_module(module):
            module = module.rpartition(".")[0]
        name = whole[len(module) + 1 :].partition(".")[0]
        if module != "tenantry" and not is_public(module, name):
            wrong.append((module, name))
    assert wrong == []
