"""The control database itself: how it is, bringing it to the newest schema, and moving it to another database.

Unlike `Platform.open`, nothing here changes a control database by opening it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from tenantry import embedded
from tenantry.config import Config, secret_keys
from tenantry.errors import RegistryMissing, UsageError
from tenantry.operations.blueprints import read_config
from tenantry.platform import default_actor
from tenantry.registry import Vault, begin, copying, migrations, state
from tenantry.registry.copying import Copied, Tell
from tenantry.registry.database import Database
from tenantry.registry.migrations import Revision
from tenantry.registry.state import State

FORM = "postgresql://user:password@host/database or sqlite:////path"


class Control:
    """The control database of one platform."""

    def __init__(self, config: Config | Path, actor: str | None = None) -> None:
        self.config = config if isinstance(config, Config) else read_config(config)
        self._vault = Vault(*secret_keys(self.config.root))
        self._actor = actor or default_actor()

    async def status(self) -> State:
        """Where it is, at which revision, and what it holds. Raises `RegistryUnavailable` or `RegistryMissing`."""
        async with self._opened() as database:
            return await state.look(database)

    async def migrate(self, dry_run: bool = False) -> Sequence[Revision]:
        """Bring it to the newest schema; what was missing, in its order. With `dry_run` nothing is changed.

        Several at once are safe: one does it, the others wait for it. Raises `RegistryUnavailable`, `RegistryMissing`
        or `SecretKeyError`.
        """
        async with self._opened() as database:
            async with database.read() as tx:
                missing = await tx.sync(migrations.pending)
            if missing and not dry_run:
                await begin(database)
        return missing

    async def copy(self, to: str, tell: Tell = lambda *_: None) -> Copied:
        """Copy it into the empty database of this address, compare the two, and walk the audit chain of the copy.

        Raises what `copying.copy` does; then the other database is as it was.
        """
        try:
            url = make_url(to)
        except ArgumentError as error:
            raise UsageError("The address of the other database is no URL.", remedy=f"Write it like {FORM}.") from error
        if url.get_backend_name() not in ("sqlite", "postgresql") or not url.database:
            raise UsageError(given=url.render_as_string(hide_password=True), wanted=FORM)
        async with self._opened() as source, self._database(to) as target:
            if source.where == target.where:
                raise UsageError(f"The control database is at '{source.where}' already.", remedy="Name another one.")
            return await copying.copy(source, target, self.config.worker.dead_after, tell)

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[Database]:
        """The control database as it is; none is made."""
        config = self.config
        async with (
            embedded.held(config.data, config.wants_embedded),
            self._database(config.control_url, create=False) as database,
        ):
            file = Path(str(database.url.database))
            if database.is_sqlite and not file.exists():
                raise RegistryMissing(f"There is no control database '{file}'.", remedy="`tenantry status` begins one.")
            yield database

    @contextlib.asynccontextmanager
    async def _database(self, url: str, create: bool = True) -> AsyncIterator[Database]:
        database = Database(url, self._vault, actor=self._actor, create=create)
        try:
            yield database
        finally:
            await database.close()
