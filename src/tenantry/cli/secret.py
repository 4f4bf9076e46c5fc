"""`tenantry secret`: the platform key."""

from __future__ import annotations

from cyclopts import App

from tenantry.cli.options import COMMON, Common

app = App(name="secret", help="The platform key, which seals every tenant's secrets.")


@app.command
def new(*, common: Common = COMMON) -> None:
    """Print a line with a fresh key for .env; nothing is changed."""
    import secrets

    line = f"TENANTRY_SECRET_KEY={secrets.token_hex(32)}"
    if common.json:
        common.out.data({"line": line})
    else:
        common.out.line(line)


@app.command
async def rotate(*, common: Common = COMMON) -> None:
    """Seal every tenant's own key anew, after the platform key was changed.

    Put the new key into TENANTRY_SECRET_KEY and the old one into TENANTRY_SECRET_KEY_PREVIOUS, start all processes
    anew, and run this; then remove the previous one.
    """
    async with common.platform() as platform:
        count = await platform.secrets.rotate()
    if common.json:
        common.out.data({"resealed": count})
    else:
        common.out.line(f"{count} keys sealed anew. Now remove TENANTRY_SECRET_KEY_PREVIOUS.")
