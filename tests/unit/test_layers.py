"""The house: imports run one way, functions stay short, each outside tool has one home, errors tell what to do."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import tenantry
from tenantry.errors import TenantryError

SOURCE = Path(tenantry.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {file.relative_to(SOURCE).as_posix(): ast.parse(file.read_text()) for file in FILES}

LONGEST_FUNCTION, LONGEST_FILE, MOST_NAMES = 70, 700, 12
APPLICATIONS = 18
"""Names of `tenantry` itself: all that applications import, in one place (docs/reference/runtime.md)."""

HOMES = {
    "dbos": "operations/engine.py",
    "fastapi": ("web/", "integrations/fastapi.py"),
    "starlette": "web/",
    "subprocess": "process.py",
    "cyclopts": "cli/",
    "rich": "cli/",
    "alembic": ("registry/migrations/", "resources/history.py"),
    "argon2": "credentials.py",
    "joserfc": ("runtime/tokens.py", "identity/sso/tokens.py"),
    "dns": ("identity/sso/domains.py", "mail/names.py"),
    "cryptography": ("registry/vault.py", "seals.py", "mail/signing.py", "identity/sso/"),
    "lxml": "identity/sso/xml.py",
    "signxml": "identity/sso/xml.py",
    "dkim": "mail/signing.py",
    "aiosmtplib": "mail/delivery.py",
    "aiosmtpd": "mail/bounces.py",
    "dotenv": "config/",
    "tomllib": "config/",
}
"""Where alone each outside tool may be imported."""


def imports(tree: ast.AST) -> Iterator[str]:
    """The top packages of every import, also of those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function has."""
    return (function.end_lineno or 0) - function.lineno + 1


def public_names(tree: ast.Module) -> list[str] | None:
    """What `__all__` names, where there is one."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            found: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return found
    return None


def module_of(name: str) -> str:
    """The module that a file below the package is."""
    path = Path("tenantry", name).with_suffix("")
    return ".".join(path.parent.parts if path.name == "__init__" else path.parts)


def errors() -> list[type[TenantryError]]:
    """Every class of error in the whole package."""
    for name in TREES:
        if not name.startswith("registry/migrations/versions/") and not name.endswith("__main__.py"):
            importlib.import_module(module_of(name))

    def below(kind: type[TenantryError]) -> Iterator[type[TenantryError]]:
        for each in kind.__subclasses__():
            if each.__module__.startswith("tenantry."):
                yield each
            yield from below(each)

    return list(dict.fromkeys(below(TenantryError)))


def test_there_is_something_to_look_at() -> None:
    """These tests read the whole package."""
    assert len(TREES) > 50
    assert {"model.py", "registry/database.py", "operations/engine.py"} <= set(TREES)


def test_imports_run_one_way() -> None:
    """import-linter finds no import that goes up or across."""
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    root = SOURCE.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("name", TREES)
def test_functions_and_files_stay_short(name: str) -> None:
    """A function that needs scrolling, and a file that hides two decisions, are to be parted."""
    assert {f.name: length(f) for f in functions(TREES[name]) if length(f) > LONGEST_FUNCTION} == {}
    assert len((SOURCE / name).read_text().splitlines()) <= LONGEST_FILE


def test_most_functions_are_very_short() -> None:
    """The median is below eight lines of code."""
    lengths = sorted(length(function) for tree in TREES.values() for function in functions(tree))
    assert lengths[len(lengths) // 2] < 8


@pytest.mark.parametrize("tool", HOMES)
def test_each_outside_tool_has_one_home(tool: str) -> None:
    """Whoever replaces a tool has one place to look at."""
    homes = HOMES[tool] if isinstance(HOMES[tool], tuple) else (HOMES[tool],)
    users = [name for name, tree in TREES.items() if tool in imports(tree)]
    assert [user for user in users if not user.startswith(tuple(homes))] == []


@pytest.mark.parametrize("name", [name for name in TREES if public_names(TREES[name]) is not None])
def test_the_public_surface_is_small(name: str) -> None:
    """A dozen names at most, sorted, each of them there; some more where applications import from."""
    names = public_names(TREES[name]) or []
    assert len(names) <= (APPLICATIONS if name == "__init__.py" else MOST_NAMES)
    assert len(set(names)) == len(names)
    module = importlib.import_module(module_of(name))
    assert [missing for missing in names if not hasattr(module, missing)] == []


def test_every_error_says_what_to_do() -> None:
    """Each class has a message, a remedy and a code of its own, an HTTP status and an exit code that commands give."""
    found = errors()
    assert len(found) > 30
    for kind in found:
        own = vars(kind)
        assert (own.get("__doc__") or "").strip(), kind
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", own.get("code", "")), kind
        assert own.get("remedy", "").strip(), kind
        assert 400 <= kind.status <= 599, kind
        assert kind.exit_code in (1, 2, 3, 4), kind
    codes = Counter(kind.code for kind in [TenantryError, *found])
    assert {code: number for code, number in codes.items() if number > 1} == {}


def test_public_things_have_docstrings() -> None:
    """Every module, and every public class and function at its top, says what it is for."""
    silent = [name for name, tree in TREES.items() if not ast.get_docstring(tree) and tree.body]
    for name, tree in TREES.items():
        if name.startswith("registry/migrations/versions/") or name == "config/models.py":
            continue  # migrations have one form, and `example.toml` tells what each section is for
        for node in tree.body:
            kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{name}: {node.name}")
    assert silent == []


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    """A module is named for what it decides."""
    assert [name for name in TREES if Path(name).stem in ("utils", "util", "helpers", "common", "misc")] == []
