"""Whether somebody may sign in by her organization, as its directory has it."""

from __future__ import annotations

from typing import Final

from tenantry.registry import Transaction, directory
from tenantry.registry.directory import PersonRow
from tenantry.scim_refusals import PersonLeft, PersonUnknown

BEGINNING: Final = "tenantry_scim_"
"""How tokens begin, so that they are known where they are found."""


async def standing(
    tx: Transaction, organization_id: str, issuer: str, subject: str, mail: str
) -> tuple[PersonRow | None, set[str]]:
    """Who it is, with the names of her groups. Nobody where no directory is kept, or where it need not know her.

    Raises `PersonLeft` and `PersonUnknown`.
    """
    kept = await directory.find(tx, organization_id)
    if kept is None:
        return None, set()
    person, gone = await directory.known(tx, organization_id, issuer, subject, mail)
    if person is not None and not person.is_in:
        raise PersonLeft(mail=mail)
    if person is None or gone:
        if kept.required:
            raise PersonUnknown(mail=mail)
        return None, set()
    groups = [group for _, group in await directory.groups_of(tx, [person.id])]
    return person, {name for group in groups for name in (group.display, group.external_id) if name}


async def let_in(tx: Transaction, organization_id: str, issuer: str, subject: str, mail: str) -> None:
    """Likewise, right before a session begins; as whom she was asserted is noted. Raises the same."""
    person, _ = await standing(tx, organization_id, issuer, subject, mail)
    if person is not None and (person.issuer, person.subject) != (issuer, subject):
        await directory.bind(tx, person.id, issuer, subject)
