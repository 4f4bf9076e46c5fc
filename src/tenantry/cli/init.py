"""`tenantry init`: the files of a platform to begin with."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from tenantry.cli.options import FLAG
from tenantry.cli.output import Output
from tenantry.errors import AlreadyThere

SCHEMA: Final = """\
-- The first migration of every tenant's database. The next one is 0002_<name>.sql; `tenantry migrate run` applies it
-- to all tenants. Leave a migration as it is once it was applied.
CREATE TABLE page (
  id INTEGER PRIMARY KEY,
  slug TEXT NOT NULL UNIQUE,
  title TEXT NOT NULL,
  body TEXT NOT NULL DEFAULT ''
);

-- down
DROP TABLE page;
"""

TEMPLATE: Final = """\
{
  "tenant": {{ slug | json }},
  "name": {{ name | json }},
  "environment": {{ environment | json }},
  "hostname": {{ hostname | json }},
  "values": {{ values | json }}
}
"""

IGNORED: Final = ("var/", ".env")


def init(
    directory: Annotated[Path, Parameter(help="Where to write it; made where it is missing.")] = Path(),
    /,
    *,
    name: Annotated[str | None, Parameter(help="The platform's name; else the directory's.")] = None,
    force: Annotated[bool, FLAG, Parameter(help="Overwrite what is there; .env is never overwritten.")] = False,
    dry_run: Annotated[bool, FLAG, Parameter(help="Print what it writes and do nothing.")] = False,
    json: Annotated[bool, FLAG, Parameter(help="Print JSON, and errors as JSON on stderr.")] = False,
) -> None:
    """Write a platform to begin with: tenantry.toml, a key in .env, a schema, a template."""
    from tenantry.config.example import starter

    out = Output(json)
    root = directory.resolve()
    texts = {
        root / "tenantry.toml": starter(name or root.name or "Tenantry"),
        root / "schema" / "0001_start.sql": SCHEMA,
        root / "templates" / "env.json.j2": TEMPLATE,
    }
    there = [path for path in texts if path.exists()]
    if there and not force:
        raise AlreadyThere(path=_relative(there[0]))
    made = [*map(_relative, texts), *_key(root / ".env", dry_run), *_ignore(root / ".gitignore", dry_run)]
    if not dry_run:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    _tell(out, made, dry_run)


def _key(path: Path, dry_run: bool) -> list[str]:
    """Write a fresh platform key, readable by its owner alone, unless there is a .env already."""
    if path.exists():
        return []
    if not dry_run:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("# Keep a copy of this key in a safe place: without it no tenant's secrets can be opened.\n")
            file.write(f"TENANTRY_SECRET_KEY={secrets.token_hex(32)}\n")
    return [_relative(path)]


def _ignore(path: Path, dry_run: bool) -> list[str]:
    """Keep data and key out of version control; lines that are there stay."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    missing = [line for line in IGNORED if line not in lines]
    if missing and not dry_run:
        path.write_text("\n".join([*lines, *missing, ""]), "utf-8")
    return [_relative(path)] if missing else []


def _relative(path: Path) -> str:
    return os.path.relpath(path)


def _tell(out: Output, made: list[str], dry_run: bool) -> None:
    if out.as_json:
        out.data({"written": made, "dry_run": dry_run})
        return
    for path in made:
        out.line(f"  {'would write' if dry_run else 'wrote'} {path}")
    if not any(path.endswith(".env") for path in made):
        out.line("  kept .env, which was there; it needs a line from `tenantry secret new`, if it has none")
    if not dry_run:
        out.line("Next: `tenantry config check`, then `tenantry tenant create acme`.")
