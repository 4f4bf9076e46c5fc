"""Carries out at tenants what organizations' directories say of their people: by marks, of which none is lost.

A mark is made in the same transaction as the change, taken by one worker at a time, and removed when it is done.
Each step can be done twice: whoever finds a mark again after a kill reads anew what the directory says by then.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from tenantry.context import tenant_context
from tenantry.errors import TenantryError
from tenantry.model import Environment, Status
from tenantry.operations import placement
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import directory, leaving
from tenantry.registry.directory import PersonRow
from tenantry.registry.leaving import Mark

if TYPE_CHECKING:
    from tenantry.runtime.databases import Databases
    from tenantry.runtime.leavers import Account, Leavers
    from tenantry.runtime.settings import Settings

AT_ONCE: Final = 8
"""Marks that a worker takes, and carries out together."""

SECONDS: Final = 20.0
"""How long one tenant may take: less than the time for which a worker has a mark."""

ACTOR: Final = "scim"

log: Final = logging.getLogger("tenantry.worker")


class LeaverDesk:
    """Carries marks out, one tenant at a time for each."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._opened: tuple[Databases, Settings, Leavers] | None = None

    async def __call__(self) -> int:
        """Carry out what is due; how many marks that were."""
        registry = self._tools.registry
        async with registry.read() as tx:
            if not await leaving.anything(tx):
                return 0
        async with registry.write(ACTOR) as tx:
            marks = await leaving.take(tx, AT_ONCE)
            ids = sorted({mark.tenant_id for mark in marks if mark.tenant_id})
            places = {one.id: one for one in await self._tools.all_environments(tx, ids)}
        await asyncio.gather(*(self._carry_out(mark, places.get(mark.environment_id)) for mark in marks))
        await self._databases().forget(set(ids))
        return len(marks)

    async def _carry_out(self, mark: Mark, environment: Environment | None) -> None:
        registry = self._tools.registry
        try:
            async with asyncio.timeout(SECONDS):
                if environment is not None:
                    await self._at(mark, environment)
            async with registry.write(ACTOR) as tx:
                await leaving.done(tx, mark)
        except Exception as error:  # its server may be away: the others go on, and this one comes again
            reason = str(error) or type(error).__name__
            known = isinstance(error, TenantryError | TimeoutError)
            log.warning("a leaver at %s waits: %s", environment and environment.tenant.slug, reason, exc_info=not known)
            async with registry.write(ACTOR) as tx:
                await leaving.put_off(tx, mark)

    async def _at(self, mark: Mark, environment: Environment) -> None:
        """Bring somebody's users of one tenant to what the directory says now."""
        users = self._users()
        if self._settings().users.get(environment.tenant.blueprint) is None:
            return
        async with self._tools.registry.read() as tx:
            person = await directory.by_id(tx, mark.person_id)
        if person is None:
            return
        with tenant_context(environment):
            found = await self._hers(users, person)
            if person.is_in:
                await self._let_in(users, environment, person, found, mark.ends)
            else:
                await self._shut_out(users, environment, person, found)

    async def _hers(self, users: Leavers, person: PersonRow) -> Sequence[Account]:
        """Her users: as whom a provider asserted her, and who have her address and are nobody else's."""
        found = await users.found(person.issuer or "", person.subject or "", person.folded, person.mail)
        if not found:
            return ()
        subjects = {one.subject for one in found if one.subject and one.subject != person.subject}
        logins = {one.login for one in found}
        async with self._tools.registry.read() as tx:
            theirs = await leaving.others(tx, person.organization_id, person.id, subjects, logins)

        def is_hers(one: Account) -> bool:
            if one.subject is not None and (one.issuer, one.subject) == (person.issuer, person.subject):
                return True
            return one.subject not in theirs[0] and one.login not in theirs[1]

        return [one for one in found if is_hers(one)]

    async def _shut_out(
        self, users: Leavers, environment: Environment, person: PersonRow, found: Sequence[Account]
    ) -> None:
        active = {one.id for one in found if one.active}
        if not active:
            return
        async with self._tools.registry.write(ACTOR) as tx:  # first: who is shut out unnoted stays so for ever
            await leaving.shut(tx, person.organization_id, environment.id, active)
            tenant, logins = environment.tenant, sorted(one.login for one in found if one.active)
            tx.audit("scim.shut_out", tenant.slug, id=tenant.id, environment=environment.name, logins=logins)
        await users.shut(active)

    async def _let_in(
        self, users: Leavers, environment: Environment, person: PersonRow, found: Sequence[Account], ends: bool
    ) -> None:
        async with self._tools.registry.read() as tx:
            back = await leaving.was_shut(tx, environment.id, {one.id for one in found})
        if back:
            await users.open(back)  # who is let in already, by a worker that died, is noted below all the same
            async with self._tools.registry.write(ACTOR) as tx:
                await leaving.opened(tx, environment.id, back)
                tenant, logins = environment.tenant, sorted(one.login for one in found if one.id in back)
                tx.audit("scim.let_in", tenant.slug, id=tenant.id, environment=environment.name, logins=logins)
        if ends:
            await users.end({one.id for one in found if one.active and one.issuer})

    # --- what reaches tenants -------------------------------------------------------------------------------------

    def _open(self) -> tuple[Databases, Settings, Leavers]:
        """A runtime's sessions, which take a while to import; also of tenants that are not served just now."""
        if self._opened is None:
            from tenantry.application import settings
            from tenantry.runtime.databases import Databases
            from tenantry.runtime.leavers import Leavers
            from tenantry.runtime.userbase import UserBase

            known, tools = settings(self._tools.config), self._tools
            databases = Databases(
                known, _as_served, tools.servers.find, partial(placement.unseal, tools.registry.vault)
            )
            self._opened = databases, known, Leavers(UserBase(known, databases))
        return self._opened

    def _databases(self) -> Databases:
        return self._open()[0]

    def _settings(self) -> Settings:
        return self._open()[1]

    def _users(self) -> Leavers:
        return self._open()[2]

    async def close(self) -> None:
        """Close what is open."""
        if self._opened is not None:
            await self._opened[0].close()


def _as_served(environment: Environment) -> Environment:
    """A tenant that is suspended loses its leavers, too: it may be resumed."""
    return dataclasses.replace(environment, tenant=dataclasses.replace(environment.tenant, status=Status.ACTIVE))
