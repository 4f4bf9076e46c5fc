"""The clock of trials: owners are reminded, a trial that is over suspends its tenant, and at last it is removed.

Each turn is given the moment it is about, and does what is due then, in one transaction for each tenant: whoever dies
in between leaves nothing half done, and of two workers one does it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from tenantry.config import Config
from tenantry.errors import OperationInProgress, TenantryError
from tenantry.mail import Letter, Post, sample
from tenantry.model import Status, new_id
from tenantry.operations import change, destroy, drop
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Transaction, Vault, journal, signups, tenants
from tenantry.registry.database import now
from tenantry.registry.signups import TrialRow

AT_ONCE: Final = 100
"""Tenants that one turn does the same for; the next one goes on."""

OVER: Final = "its trial is over"
"""Why a tenant is suspended then."""

WARNED: Final = timedelta(days=3)
"""How long before it is removed its owner is offered an export."""

EXPORTED: Final = timedelta(days=90)
"""How long the link to an export holds, while the tenant is there."""

EXPORT: Final = "export\0"
"""What tells such a link from other things that are signed."""

ACTOR: Final = "trials"

log: Final = logging.getLogger("tenantry.worker")


async def turn(tools: Toolbox, moment: datetime) -> None:
    """Do what is due at this moment."""
    settings = tools.config.signup
    for ahead in sorted(settings.remind):
        async with tools.registry.read() as tx:
            due = await signups.to_remind(tx, ahead, moment, AT_ONCE)
        for row in due:
            await _do(tools, _remind, row, moment, ahead)
    async with tools.registry.read() as tx:
        over = await signups.over(tx, moment, AT_ONCE)
    for row in over:
        await _do(tools, _suspend, row, moment)
    if settings.delete_after is None:
        return
    since = moment - timedelta(seconds=settings.delete_after)
    async with tools.registry.read() as tx:
        warned = await signups.to_warn(tx, since + WARNED, AT_ONCE)
        gone = await signups.to_remove(tx, since, moment - WARNED, AT_ONCE)
    for row in warned:
        await _do(tools, _warn, row, moment)
    for row in gone:
        await _do(tools, _remove, row, moment)


async def _do(tools: Toolbox, what: Any, row: TrialRow, moment: datetime, *more: Any) -> None:
    """One thing for one tenant; what cannot be done now is tried again at the next turn, and holds up nobody."""
    try:
        async with tools.registry.write(ACTOR) as tx:
            standing = await signups.trial(tx, row.tenant_id)
            if standing != row:  # another worker was quicker, or it was activated meanwhile
                return
            letter, post = await what(tx, tools, row, moment, *more), Post(tools.config)
            if letter is not None and post.is_set_up:
                await post.queue(tx, row.mail, letter)
    except OperationInProgress:
        log.debug("the trial of %s waits for an operation", row.slug)
    except TenantryError as error:
        log.warning("the trial of %s: %s", row.slug, error)


async def _remind(tx: Transaction, tools: Toolbox, row: TrialRow, moment: datetime, ahead: float) -> Letter:
    await signups.note_trial(tx, row.tenant_id, reminded=ahead)
    tx.audit("trial.remind", row.slug, id=row.tenant_id, until=row.until)
    found = await tenants.environments(tx, [row.tenant_id])
    host = next((one.hostnames[0] for one in found if one.hostnames), None)
    return _reminder(tools.config, row.name, row.until, moment, tools.config.address(row.slug, host))


async def _suspend(tx: Transaction, tools: Toolbox, row: TrialRow, moment: datetime) -> Letter | None:
    arguments = {"status": Status.SUSPENDED.value, "before": row.status.value, "reason": OVER}
    tenant, steps = (row.tenant_id, row.slug), change.steps(tools, [])
    await journal.submit(tx, new_id(), "suspend", steps, tenant=tenant, arguments=arguments)
    if row.ended is not None:  # it was told
        return None
    await signups.note_trial(tx, row.tenant_id, ended=moment)
    return _over(tools.config, row.name, moment, _export(tools, row, moment))


async def _warn(tx: Transaction, tools: Toolbox, row: TrialRow, moment: datetime) -> Letter:
    await signups.note_trial(tx, row.tenant_id, warned=moment)
    tx.audit("trial.warn", row.slug, id=row.tenant_id)
    return _warning(tools.config, row.name, _export(tools, row, moment))


async def _remove(tx: Transaction, tools: Toolbox, row: TrialRow, _: datetime) -> None:
    environments = await tools.all_environments(tx, [row.tenant_id])
    steps: Sequence[tuple[str, str]] = destroy.steps(tools, environments)
    arguments = {
        "homes": [environment.home for environment in environments],
        "remnants": drop.remnants_of(tools, environments),
    }
    await journal.submit(tx, new_id(), "destroy", steps, tenant=(row.tenant_id, row.slug), arguments=arguments)


def _export(tools: Toolbox, row: TrialRow, moment: datetime) -> str:
    """The address at which an owner takes the data of a closed tenant."""
    return f"{tools.config.url}/signup/export/{export_token(tools.registry.vault, row.tenant_id, moment)}"


def export_token(vault: Vault, tenant_id: str, moment: datetime) -> str:
    """What lets somebody take a tenant's data while it is suspended because its trial is over."""
    text = f"{tenant_id}.{int((moment + EXPORTED).timestamp())}"
    return f"{text}.{vault.sign_head(EXPORT + text)}"


def exportable(vault: Vault, token: str, moment: datetime) -> str | None:
    """The id of the tenant whose data this lets somebody take; None where it is nothing, or too old."""
    text, _, seal = token.rpartition(".")
    tenant_id, _, until = text.partition(".")
    if not token.isascii() or not vault.verify_head(EXPORT + text, seal) or int(until) < moment.timestamp():
        return None
    return tenant_id


# --- what the letters say -----------------------------------------------------------------------------------------


def _reminder(config: Config, name: str, until: datetime, moment: datetime, where: str) -> Letter:
    left = max(1, round((until - moment).total_seconds() / 86400))
    days = "in a day" if left == 1 else f"in {left} days"
    told = (
        f"You try out {name} on {config.platform.name} until {until:%Y-%m-%d %H:%M} UTC.",
        "If it is not activated by then, it closes. Its data is kept, and it can be activated afterwards, too.",
    )
    return Letter(f"The trial of {name} ends {days}", told, f"{where}/", "Open it", "trial.remind", until=until)


def _over(config: Config, name: str, moment: datetime, link: str) -> Letter:
    told = [f"The trial of {name} on {config.platform.name} is over, so it is closed. Its data is kept."]
    if config.signup.delete_after is not None:
        last = moment + timedelta(seconds=config.signup.delete_after)
        told.append(f"On {last:%Y-%m-%d} it is removed, unless it was activated. You can take your data with you.")
    return Letter(f"The trial of {name} is over", told, link, "Take the data", "trial.over")


def _warning(config: Config, name: str, link: str) -> Letter:
    told = (
        f"{name} on {config.platform.name} is removed in {WARNED.days} days, with all its data. This is the last mail."
    )
    return Letter(f"{name} is about to be removed", (told,), link, "Take the data", "trial.warn")


@sample("trial.remind")
def _sample_reminder(config: Config) -> Letter:
    moment = now()
    return _reminder(config, "Acme & Söhne", moment + timedelta(days=3), moment, config.address("made-up", None))


@sample("trial.over")
def _sample_over(config: Config) -> Letter:
    return _over(config, "Acme & Söhne", now(), f"{config.url}/signup/export/made-up")


@sample("trial.warn")
def _sample_warning(config: Config) -> Letter:
    return _warning(config, "Acme & Söhne", f"{config.url}/signup/export/made-up")
