"""Announcing maintenance: one letter to the admins of each tenant, in that tenant's look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tenantry.config import Config
from tenantry.errors import TenantryError
from tenantry.identity import Reach, verb
from tenantry.mail import Letter, Post, sample
from tenantry.model import PRODUCTION, Environment, Tenant, expand, facts_of
from tenantry.operations.toolbox import Toolbox
from tenantry.refusals import InvalidRequest, MailFailed, NoMail
from tenantry.registry import Registry, Transaction, letters, people, tenants
from tenantry.registry.database import chunks, now
from tenantry.registry.letters import Hold

ABOUT: Final = 1000
"""The longest text about it, in characters."""

AT_ONCE: Final = 200
"""Tenants whose letters are queued in one transaction: others write meanwhile."""


@dataclass(frozen=True, slots=True)
class Announced:
    """What became of an announcement."""

    queued: int
    before: int  # tenants that were told by an earlier run
    held: Sequence[str]  # tenants whose address nothing is sent to
    unreachable: Sequence[str]  # tenants without an address that mail can go to


@dataclass(frozen=True, slots=True)
class Window:
    """When something is maintained, and what that means."""

    begins: datetime
    ends: datetime
    about: str

    def letter(self, platform: str, tenant: str) -> Letter:
        """What a tenant's admins are told."""
        same_day = self.begins.date() == self.ends.date()
        until = f"{self.ends:%H:%M}" if same_day else f"{self.ends:%-d %B %Y, %H:%M}"
        when = f"from {self.begins:%A, %-d %B %Y, %H:%M} to {until} UTC"
        told = f"{platform} is maintained {when}. {tenant} may not answer while it lasts. You need not do anything."
        about = (self.about,) if self.about else ()
        subject = f"Maintenance on {self.begins:%-d %B %Y}: {tenant}"
        return Letter(subject, ("Hello,", told, *about), kind="tenant.announce", until=self.ends)

    def once(self, tenant_id: str) -> str:
        """What tells this announcement to this tenant from any other."""
        return "\0".join(("announce", self.begins.isoformat(), self.ends.isoformat(), self.about, tenant_id))


@sample("tenant.announce")
def _sample(config: Config) -> Letter:
    begins, ends = datetime(2026, 11, 28, 2, tzinfo=UTC), datetime(2026, 11, 28, 4, tzinfo=UTC)
    return Window(begins, ends, "The database servers get more memory.").letter(config.platform.name, "Acme & Söhne")


class Announcing:
    """The verb, for `Tenants`."""

    _tools: Toolbox
    _registry: Registry
    _config: Config

    @verb("tenant.announce", "platform:write", Reach.PLATFORM)
    async def announce(self, begins: str, ends: str, about: str = "", slugs: Sequence[str] = ()) -> Announced:
        """Tell the admins of each tenant that is served, or of these, when something is maintained, and why.

        Moments are in UTC where they name no zone. It goes to the organization's address, else to the first admin's
        login. Whoever was told of the same does not hear it twice, so it may be run again. Raises `NoMail`,
        `InvalidRequest` and `TenantNotFound`.
        """
        window = _window(begins, ends, about)
        post = Post(self._config)
        if not post.is_set_up:
            raise NoMail
        async with self._registry.read() as tx:
            ids = [(await tenants.find(tx, slug)).id for slug in dict.fromkeys(slugs)]
            found = _served(await tenants.environments(tx, ids or None))
        outcomes: dict[str, list[str]] = {"queued": [], "before": [], "held": [], "unreachable": []}
        for some in chunks(found, AT_ONCE):
            async with self._registry.write() as tx:
                for slug, outcome in (await self._tell(tx, post, window, some)).items():
                    outcomes[outcome].append(slug)
                tx.audit("tenant.announce", "platform", begins=begins, ends=ends, tenants=len(some))
        number = {name: len(outcomes[name]) for name in ("queued", "before")}
        return Announced(**number, held=outcomes["held"], unreachable=outcomes["unreachable"])

    async def _tell(
        self, tx: Transaction, post: Post, window: Window, some: Sequence[Environment]
    ) -> Mapping[str, str]:
        mails = await people.mails_of(tx, [environment.tenant.id for environment in some])
        outcomes = {}
        for environment in some:
            tenant = environment.tenant
            letter = window.letter(self._config.platform.name, tenant.name)
            to = mails.get(tenant.id) or self._first_admin(tenant)
            try:
                posted = await post.queue(tx, to, letter, tenant.id, window.once(tenant.id))
            except MailFailed:
                outcomes[tenant.slug] = "unreachable"
            else:
                outcomes[tenant.slug] = "held" if posted.held else "queued" if posted.new else "before"
        return outcomes

    async def _held(self, tx: Transaction, tenant: Tenant) -> Hold | None:
        """Why nothing is sent to the address that a tenant's admins are told things at."""
        to = (await people.mails_of(tx, [tenant.id])).get(tenant.id) or self._first_admin(tenant).lower()
        return (await letters.holds(tx, [to])).get(to)

    def _first_admin(self, tenant: Tenant) -> str:
        """The login of the first admin, as the blueprint says it; none where there is none."""
        try:
            pattern = self._tools.blueprint(tenant.blueprint).admin
        except TenantryError:  # tenantry.toml has lost it
            return ""
        return expand(pattern or "", facts_of(tenant, PRODUCTION, self._config.platform.domain))


def _served(found: Iterable[Environment]) -> list[Environment]:
    """One environment of each tenant that is served."""
    return list({one.tenant.id: one for one in found if one.tenant.status.served}.values())


def _window(begins: str, ends: str, about: str) -> Window:
    window = Window(_moment("begins", begins), _moment("ends", ends), " ".join(about.split()))
    if window.ends <= window.begins or window.ends <= now():
        raise InvalidRequest(where="ends", reason="it ends after it begins, and not in the past")
    if len(window.about) > ABOUT:
        raise InvalidRequest(where="about", reason=f"it has at most {ABOUT} characters")
    return window


def _moment(where: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(where=where, reason=f"'{text[:40]}' is no moment such as 2026-11-28T02:00") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
