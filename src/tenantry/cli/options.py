"""The options that commands share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Group, Parameter

from tenantry.cli.output import Output

if TYPE_CHECKING:
    from tenantry.platform import Platform

GROUP = Group("Options of every command", sort_key=1000)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    config: Annotated[Path, Parameter(group=GROUP, env_var="TENANTRY_CONFIG", help="The platform's tenantry.toml.")] = (
        Path("tenantry.toml")
    )
    json: Annotated[bool, Parameter(group=GROUP, help="Print JSON, and errors as JSON on stderr.")] = False
    verbose: Annotated[bool, Parameter(group=GROUP, alias="-v", help="Tell more on stderr.")] = False

    @cached_property
    def out(self) -> Output:
        return Output(self.json)

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[Platform]:
        """The platform, open while the block runs."""
        import logging

        from tenantry.platform import Platform

        logging.basicConfig(level=logging.INFO if self.verbose else logging.WARNING, format="%(message)s")
        async with Platform.open(self.config, actor=actor()) as platform:
            yield platform


@Parameter(name="*")
@dataclass(frozen=True)
class Change(Common):
    """What commands take that change something by an operation."""

    dry_run: Annotated[bool, Parameter(help="Print the steps and do nothing.")] = False
    wait: Annotated[
        bool, Parameter(negative="--no-wait", help="Follow the operation to its end, or leave it to a worker.")
    ] = True


COMMON: Final = Common()
CHANGE: Final = Change()


def actor() -> str:
    """Who is at the command line, as the audit log names it: TENANTRY_ACTOR, or the login name."""
    import getpass

    return os.environ.get("TENANTRY_ACTOR") or f"cli:{getpass.getuser()}"


def assignments(pairs: list[str] | None) -> Mapping[str, Any]:
    """KEY=VALUE pairs as a mapping. A value is text, unless it reads as a number, true or false in TOML."""
    return dict(map(_assignment, pairs or ()))


def _assignment(pair: str) -> tuple[str, Any]:
    import tomllib

    from tenantry.errors import UsageError

    key, equals, text = pair.partition("=")
    if not equals or not key.strip():
        raise UsageError(given=pair, wanted="KEY=VALUE")
    try:
        value = tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip(), value if isinstance(value, bool | int | float) else text
