"""Nothing of `Platform` is called by a page or the API that does not ask for a right itself."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry import web
from tenantry.identity import RIGHTS
from tenantry.platform import Platform

BESIDE = {
    "Platform.open": "opens it",
    "Platform.work": "what a worker process does",
    "Platform.refuse_weak": "as a process starts",
    "Platform.first_link": "printed on the terminal of whoever starts the platform",
    "Platform.ready": "tells a load balancer whether to send requests here, and nothing else",
    "Mails.bounce": "reads what the mail server of this machine hands over",
    "Mails.deliver": "what a worker process does",
    "Mails.test": "a command of this machine alone",
    "Operations.finish": "carries operations out in this process",
    "Operations.pausable": "tells of a verb, of no operation",
    "Tenants.closed": "shown what a mail brought the owner of a tenant whose trial is over",
    "Tenants.drafted": "checks words, and makes nothing",
    "Tenants.export": "writes files on this machine",
    "Tenants.import_csv": "reads a file on this machine",
    "SignUps.begin": "a stranger's form",
    "SignUps.challenge": "for a stranger's form",
    "SignUps.check": "for a stranger's form: tells that a name is taken, and not by whom",
    "SignUps.confirm": "shown the link of a mail",
    "SignUps.confirm_by_code": "shown the ticket of a browser, and the code of a mail",
    "SignUps.followed": "shown the link of a mail",
    "SignUps.invited": "shown an invitation",
    "SignUps.refuse_closed": "tells whether strangers may sign up",
    "SignUps.show": "shown the ticket of a browser",
    "SignUps.way_in": "shown the ticket of a browser",
    "Payments.take": "shown a message with a signature",
    "Servers.drop_shared": "a command of this machine alone",
    "Migrations.make_room": "makes a directory on this machine",
    "Migrations.write_report": "writes files on this machine",
    "Verification.check": "reads a file on this machine",
    "Verification.metrics": "asks for what verify.list asks",
    "Verification.last_ended": "asks for what verify.list asks",
}
"""What asks for no right, and why."""

FOR_ALL = {"Operations.pausable"}
"""What pages may call of it."""

PARTS = inspect.get_annotations(Platform, eval_str=True)
ROOT = Path(web.__file__).parent
FILES = sorted(path for folder in ("portal", "api") for path in (ROOT / folder).glob("*.py"))
ASKING = {right.call for right in RIGHTS.values()}


def test_what_asks_for_no_right_is_named_with_its_reason() -> None:
    """Each other method of the platform and its parts is a verb; who adds one decides."""
    found = {
        f"{kind.__name__}.{name}"
        for kind in (Platform, *PARTS.values())
        for name, method in inspect.getmembers(kind, callable)
        if not name.startswith("_") and method not in ASKING
    }
    assert found == set(BESIDE)


def test_every_part_of_the_platform_is_known_by_its_name() -> None:
    """So that a platform elsewhere has each of them, too."""
    made = {node.attr for node in ast.walk(_tree(Path(inspect.getfile(Platform)))) if _is_part(node)}
    assert made == set(PARTS)


def _is_part(node: ast.AST) -> bool:
    """Whether this is `self.part`, of which `self.part = Part(...)` makes one."""
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.attr not in ("config", "registry", "_registry", "tools", "outdoors", "counter", "leavers")
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pages_call_verbs_alone(path: Path) -> None:
    """Whatever a page or an address does to a part of the platform asks for a right."""
    for part, name in (found for block in _tree(path).body for found in _called(block)):
        method = getattr(PARTS[part], name)
        known = isinstance(method, property) or f"{PARTS[part].__name__}.{name}" in FOR_ALL
        assert known or method in ASKING, f"{part}.{name}"


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _called(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each part of the platform with what is taken of it, also where the part was given a name first."""
    named: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (part := _part(node.value, {})) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = part
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (part := _part(node.value, named)):
            yield part, node.attr


def _part(node: ast.AST, named: dict[str, str]) -> str | None:
    """The part that an expression such as `visit.platform.tenants` means."""
    if isinstance(node, ast.Name):
        return named.get(node.id)
    if not isinstance(node, ast.Attribute) or node.attr not in PARTS:
        return None
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return node.attr if name == "platform" else None
