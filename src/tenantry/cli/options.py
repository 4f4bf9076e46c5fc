"""The options that commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, cast

from cyclopts import Group, Parameter

from tenantry.cli.output import Output
from tenantry.errors import NotConfirmed, UsageError

if TYPE_CHECKING:
    from tenantry.platform import Platform
    from tenantry.web.api.client import RemotePlatform

SERVER: Final = "TENANTRY_SERVER"
TOKEN: Final = "TENANTRY_TOKEN"  # noqa: S105 the name of a variable
"""Where `tenantry --server URL --token TOKEN` puts what it was given."""

GROUP: Final = Group("Options of every command", sort_key=1000)
LISTED: Final = 100
"""Tenants of somebody that are named where nothing else is said."""

FLAG: Final = Parameter(show_default=False, negative="")

Slug: TypeAlias = Annotated[str, Parameter(help="The tenant's slug.")]
Settings: TypeAlias = Annotated[
    list[str] | None, Parameter(name="--set", help="KEY=VALUE of the blueprint's values; may be repeated.")
]
Search: TypeAlias = Annotated[str | None, Parameter(help="Only tenants whose slug or name holds this.")]
Limit: TypeAlias = Annotated[int, Parameter(help="How many tenants at most.")]
After: TypeAlias = Annotated[str | None, Parameter(help="Only tenants after this slug: the last of the page before.")]
DryRun: TypeAlias = Annotated[bool, FLAG, Parameter(help="Print what it is going to do, and do nothing.")]
Wait: TypeAlias = Annotated[
    bool,
    FLAG,
    Parameter(negative="--no-wait", help="Follow the operation to its end (as it does), or leave it to a worker."),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    config: Annotated[Path, Parameter(group=GROUP, env_var="TENANTRY_CONFIG", help="The platform's tenantry.toml.")] = (
        Path("tenantry.toml")
    )
    json: Annotated[bool, FLAG, Parameter(group=GROUP, help="Print JSON, and errors as JSON on stderr.")] = False
    verbose: Annotated[bool, FLAG, Parameter(group=GROUP, alias="-v", help="Tell more on stderr.")] = False

    @cached_property
    def out(self) -> Output:
        """Where the command prints."""
        return Output(self.json)

    @property
    def elsewhere(self) -> bool:
        """Whether the platform is another machine's, asked by its API."""
        return bool(os.environ.get(SERVER))

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[Platform]:
        """The platform, open while the block runs: the one of tenantry.toml, or with --server the one there."""
        import logging

        from tenantry.platform import Platform

        level = logging.INFO if self.verbose else logging.WARNING
        logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
        server = os.environ.get(SERVER)
        if server:
            async with _elsewhere(server) as remote:
                yield cast("Platform", remote)
            return
        async with Platform.open(self.config) as platform:
            yield platform


def _elsewhere(server: str) -> AbstractAsyncContextManager[RemotePlatform]:
    from tenantry.web.api.client import RemotePlatform

    token = os.environ.get(TOKEN)
    if not token:
        raise UsageError(given=f"--server {server}", wanted=f"--token or {TOKEN} beside it")
    return RemotePlatform.open(server, token)


COMMON: Final = Common()


def assignments(pairs: Sequence[str] | None) -> Mapping[str, Any]:
    """KEY=VALUE pairs as a mapping. Raises `UsageError` for one without "="."""
    return dict(map(_assignment, pairs or ()))


def _assignment(pair: str) -> tuple[str, str]:
    key, equals, text = pair.partition("=")
    if not equals or not key.strip():
        raise UsageError(given=pair, wanted="KEY=VALUE")
    return key.strip(), text


def confirm(name: str, warning: str, common: Common) -> None:
    """Ask for a name to be typed. Raises `NotConfirmed` where it is not typed, or nobody is there to be asked."""
    if common.json or not sys.stdin.isatty():
        raise NotConfirmed(slug=name)
    common.out.line(warning, "red")
    try:
        typed = input("Type its name to go on: ")
    except EOFError:
        typed = ""
    if typed.strip() != name:
        raise NotConfirmed(slug=name)
