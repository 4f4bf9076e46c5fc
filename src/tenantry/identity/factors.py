"""The second factor of admin users: which codes are theirs, each of which counts once."""

from __future__ import annotations

from collections.abc import Sequence

from tenantry.codes import digest, step_of
from tenantry.errors import SignInRefused
from tenantry.identity import throttle
from tenantry.refusals import SecondFactorNeeded
from tenantry.registry import Registry, Transaction, people


def counted(row: people.AdminRow, device: str | None) -> list[tuple[str, str]]:
    """What wrong codes are counted for: a device that signed in before by itself, so that nobody who learned the

    password keeps the owner out.
    """
    kind, key = throttle.keys(f"second\0{row.id}", "", device)[0]
    return [(kind if kind == "device" else "second", key)]


async def check(
    registry: Registry, row: people.AdminRow, code: str | None, count: Sequence[tuple[str, str]], whence: str
) -> None:
    """Hold that the second factor is there. Raises `SecondFactorNeeded`, `SignInRefused` or `TooManyTries`."""
    if not code:
        raise SecondFactorNeeded
    async with registry.write(f"admin:{row.mail}") as tx:
        await throttle.begin(tx, count)
        row = await people.find(tx, row.id)  # of two at once, one finds the code used
        if await _uses(tx, registry, row, code):
            await throttle.passed(tx, count)
            return
        tx.audit("admin.refused", row.mail, factor="second", address=whence)
    raise SignInRefused(
        "The code is wrong, or was used before.", remedy="Wait for the next one, or use a recovery code."
    )


async def _uses(tx: Transaction, registry: Registry, row: people.AdminRow, code: str) -> bool:
    """Use a code up, of either kind; whether it is one."""
    if row.totp is None:
        return False
    step = step_of(registry.vault.open_platform(f"totp:{row.id}", row.totp), code, row.totp_used)
    if step is not None:
        await people.change(tx, row.id, totp_used=step)
        return True
    if await people.use_recovery_code(tx, row.id, digest(code)):
        tx.audit("admin.recovery_code", row.mail, left=await people.recovery_codes(tx, row.id))
        return True
    return False
