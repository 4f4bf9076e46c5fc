"""`tenantry mail`: what is queued, sent and failed, whom nothing is sent to, and the keys that sign."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common

app = App(name="mail", help="Letters: queued, sent, failed and held back; keys that sign them.")


@app.command
async def status(*, common: Common = COMMON) -> None:
    """Show how mail is sent, and how much waits."""
    async with common.platform() as platform:
        found = await platform.mails.status()
    signed = [f"{key.selector} ({key.algorithm})" for key in found.keys]
    how = {"server": found.server, "sender": found.sender, "comes back to": found.comes_back_to, "signed by": signed}
    common.out.record(found, {**how, **found.counts, "held addresses": found.held, "workers": found.workers})


@app.command(name="list")
async def list_(
    *,
    state: Annotated[str | None, Parameter(help="Only these: queued, sent, failed or held.")] = None,
    search: Annotated[str | None, Parameter(help="Only those whose address, subject or kind holds this.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only those in this tenant's look.")] = None,
    limit: Annotated[int, Parameter(help="At most so many.")] = 100,
    common: Common = COMMON,
) -> None:
    """List letters, newest first, without what they say."""
    async with common.platform() as platform:
        rows = await platform.mails.list(state, search, tenant, limit)
    fields = ("recipient", "subject", "state", "attempts", "created", "due", "reason", "id")
    common.out.table(fields, rows, "No letter is here.")


@app.command
async def retry(
    letter: Annotated[str, Parameter(help="Its id, as `tenantry mail list` shows it.")], /, *, common: Common = COMMON
) -> None:
    """Try a letter again that failed or is held back."""
    async with common.platform() as platform:
        row = await platform.mails.retry(letter)
        if not common.elsewhere:
            await platform.mails.deliver(alone=True)
    if common.json:
        common.out.data(row)
    common.out.line(f"The letter to {row.recipient} is queued again.", "bold")


@app.command
async def held(*, common: Common = COMMON) -> None:
    """List the addresses that nothing is sent to, with why."""
    async with common.platform() as platform:
        rows = await platform.mails.held()
    common.out.table(("address", "reason", "since"), rows, "Mail goes to everybody.")


@app.command
async def release(address: Annotated[str, Parameter(help="The mail address.")], /, *, common: Common = COMMON) -> None:
    """Send to an address again, and what was held back for it."""
    async with common.platform() as platform:
        found = await platform.mails.release(address)
        if not common.elsewhere:
            await platform.mails.deliver(alone=True)
    if common.json:
        common.out.data(found)
    common.out.line(f"Mail goes to {found.address} again; {found.letters} letters were held back.", "bold")


@app.command
async def dkim(
    *,
    algorithm: Annotated[str, Parameter(help="rsa, which every receiver knows, or ed25519, beside it.")] = "rsa",
    common: Common = COMMON,
) -> None:
    """Make a key that signs mail from now on, and print the record that DNS is to hold.

    It takes the place of the one before; leave that one's record in DNS for a week, for mail that is under way.
    """
    async with common.platform() as platform:
        made = await platform.mails.dkim(algorithm)
        domain = (await platform.mails.status()).sender.rpartition("@")[2]
    if common.json:
        common.out.data({"name": f"{made.selector}._domainkey.{domain}", "key": made})
        return
    common.out.line(
        f"Mail is signed by {made.selector} from now on. Set this record, then `tenantry mail check`:", "bold"
    )
    common.out.line(f"  {made.selector}._domainkey.{domain}. TXT {quoted(made.record)}")


def quoted(record: str) -> str:
    """A record as zone files have it: in texts of at most 255 octets (RFC 1035)."""
    return " ".join(f'"{record[at : at + 255]}"' for at in range(0, len(record), 255))


@app.command
async def check(*, common: Common = COMMON) -> int:
    """Look in DNS for what receivers look for: SPF, DKIM, DMARC. Exit status 1 where something is missing."""
    async with common.platform() as platform:
        found = await platform.mails.check()
    if common.json:
        common.out.data(found)
    for one in found if not common.json else ():
        common.out.line(f"{'✓' if one.good else '✗'} {one.what:<6} {one.name}", "" if one.good else "red")
        common.out.line(f"         {one.told}")
    return 0 if all(one.good for one in found) else 1


@app.command
async def bounce(
    *,
    to: Annotated[str | None, Parameter(help="The address it came to; else what its headers say.")] = None,
    common: Common = COMMON,
) -> None:
    """Take in a message that came back, from standard input: for a pipe of the mail server."""
    from tenantry.mail.bounces import LARGEST

    async with common.platform() as platform:
        found = await platform.mails.bounce(sys.stdin.buffer.read(LARGEST), to)
    if common.json:
        common.out.data(found)
    elif found.reason:
        stop = " Nothing more is sent there." if found.hard else ""
        common.out.line(f"The letter to {found.recipient} {found.reason}.{stop}")
    else:
        common.out.line("It says of none of our letters that it failed; nothing is changed.")


@app.command
async def preview(
    *, port: Annotated[int, Parameter(help="Where it serves, on this machine alone.")] = 8025, common: Common = COMMON
) -> None:
    """Serve every kind of letter with made-up content, in the platform's look and tenants', until told to stop."""
    from tenantry.web.letters import serve

    async with common.platform() as platform:
        common.out.line(f"Letters are shown at http://127.0.0.1:{port}/  Stop it with Ctrl-C.")
        await serve(platform, port)


@app.command(name="test")
async def try_(to: Annotated[str, Parameter(help="The mail address.")], /, *, common: Common = COMMON) -> None:
    """Hand a letter over at once, beside the queue, to see whether the server takes it."""
    async with common.platform() as platform:
        await platform.mails.test(to)
    if common.json:
        common.out.data({"to": to, "taken": True})
    common.out.line(f"The server took a letter to {to}.", "bold")
