"""Trials, with the clock moved: reminded, suspended, removed; activated by an admin or by a signed message."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from standardwebhooks import Webhook

import ground as g
import people_world as w
import signup_world as s
from tenantry.operations import trials
from tenantry.registry import signups
from tenantry.registry.database import now
from tenantry.registry.signups import TrialRow

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
STRIPE = "whsec_of_stripe"

SETTINGS = """trial = "14d"
delete_after = "30d"

[payment]
secret = {env = "PAYMENT"}
stripe_secret = {env = "STRIPE"}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[s.World]:
    """One platform for all of them, with a worker."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PAYMENT", SECRET)
    patch.setenv("STRIPE", STRIPE)
    async with s.world(tmp_path_factory.mktemp("trials"), s.SIGNUP + SETTINGS) as made, g.working(made.platform):
        yield made
    patch.undo()


async def trial(here: s.World, slug: str) -> TrialRow:
    """A tenant that is tried out."""
    await here.signed_up(slug)
    row = (await here.platform.tenants.show(slug)).row
    assert row.status == "trialing"
    async with here.platform.registry.read() as tx:
        found = await signups.trial(tx, row.id)
    assert found is not None
    assert timedelta(days=13, hours=23) < found.until - now() <= timedelta(days=14)
    assert (await here.platform.tenants.show(slug)).tenant.trial == found.until  # as applications see it
    return found


async def turn(here: s.World, moment: Any) -> None:
    """Let the clock turn twice, as of two workers, and what it asked for be done."""
    await trials.turn(here.platform.tools, moment)
    await trials.turn(here.platform.tools, moment)
    await here.finish()


async def status(here: s.World, slug: str) -> str:
    """The status of a tenant; "" for none."""
    return next((row.status for row in await here.platform.tenants.list(search=slug) if row.slug == slug), "")


async def subjects(here: s.World, slug: str, count: int) -> list[str]:
    """The subjects of the mails to a tenant's owner, behind the first one, once there are so many."""

    async def came() -> list[str]:
        found = [str(mail["Subject"]) for mail in here.inbox.mails if mail["To"] == f"{slug}@example.com"][1:]
        return found if len(found) >= count else []

    found: list[str] = await g.until(came, f"{count} mails to {slug}")
    assert len(found) == count
    return found


async def test_a_trial_from_its_beginning_to_its_end(here: s.World) -> None:
    """Reminded twice, suspended at its end, its data offered, removed after a warning; each of it once."""
    found = await trial(here, "tried")
    await turn(here, found.until - timedelta(days=4))
    await turn(here, found.until - timedelta(days=2, hours=20))
    assert await subjects(here, "tried", 1) == ["The trial of Tried ends in 3 days"]
    await turn(here, found.until - timedelta(hours=20))
    assert (await subjects(here, "tried", 2))[1] == "The trial of Tried ends in a day"
    assert await status(here, "tried") == "trialing"
    await turn(here, found.until)
    assert await status(here, "tried") == "suspended"
    assert (await here.platform.tenants.show("tried")).row.reason == trials.OVER
    assert (await subjects(here, "tried", 3))[2] == "The trial of Tried is over"
    link = s.link_of((await here.mails("tried@example.com"))[-1])
    browser = await here.browser()
    assert "Take the data" in (await browser.get(link)).text
    taken = await browser.post(link)
    assert taken.status_code == 200, taken.text
    with zipfile.ZipFile(io.BytesIO(taken.content)) as archive:
        assert "production/db/page.csv" in archive.namelist()
        assert not [name for name in archive.namelist() if "session" in name]
    for forged in (f"{link}0", link.replace(".", "x"), "/signup/export/x", "/signup/export/ö"):
        assert (await browser.get(forged)).status_code == 410
    await turn(here, found.until + timedelta(days=26))
    await turn(here, found.until + timedelta(days=28))
    assert (await subjects(here, "tried", 4))[3] == "Tried is about to be removed"
    assert await status(here, "tried") == "suspended"  # it was warned of a moment ago, by that clock
    await turn(here, found.until + timedelta(days=31))
    assert await status(here, "tried") == ""
    assert (await browser.get(link)).status_code == 410
    assert not await g.faults_of(here.platform)


async def test_an_admin_activates_it(here: s.World) -> None:
    """During the trial and after it; then its clock stands still, also where it is suspended for something else."""
    for slug, moved in (("early", timedelta()), ("late", timedelta(days=1))):
        found = await trial(here, slug)
        if moved:
            await turn(here, found.until + moved)
            assert await status(here, slug) == "suspended"
        await here.platform.tenants.activate(slug, "pro")
        await here.finish()
        row = (await here.platform.tenants.show(slug)).row
        assert (row.status, row.plan) == ("active", "pro")
        assert (await here.platform.tenants.show(slug)).tenant.trial is None
        await here.platform.tenants.suspend(slug, "something else")
        await here.finish()
        await turn(here, found.until + timedelta(days=100))
        await turn(here, found.until + timedelta(days=200))
        assert await status(here, slug) == "suspended"


async def test_a_trial_goes_on_after_a_suspension(here: s.World) -> None:
    """Suspended in the middle and resumed, it is tried out until the same moment as before, and then it is over."""
    found = await trial(here, "paused")
    await here.platform.tenants.suspend("paused", "asked for it")
    await here.finish()
    await turn(here, found.until - timedelta(hours=1))
    await here.platform.tenants.resume("paused")
    await here.finish()
    shown = await here.platform.tenants.show("paused")
    assert (shown.row.status, shown.trial) == ("trialing", found.until)
    await turn(here, found.until)
    assert await status(here, "paused") == "suspended"


async def test_the_worker_turns_the_clock(here: s.World) -> None:
    """A trial whose end has passed is over without anybody asking."""
    found = await trial(here, "by-itself")
    async with here.platform.registry.write() as tx:
        await signups.note_trial(tx, found.tenant_id, until=now())

    async def over() -> bool:
        return await status(here, "by-itself") == "suspended"

    await g.until(over, "the end of a trial")


# --- messages -----------------------------------------------------------------------------------------------------


def standard(tenant: str, name: str, moment: Any = None, kind: str = "payment.succeeded") -> dict[str, Any]:
    """A message by Standard Webhooks, as its sender's library signs it."""
    moment = moment or now()
    body = json.dumps({"type": kind, "data": {"tenant": tenant, "plan": "pro"}})
    headers = {"webhook-id": name, "webhook-timestamp": str(int(moment.timestamp()))}
    return {"content": body, "headers": headers | {"webhook-signature": Webhook(SECRET).sign(name, moment, body)}}


def stripes(tenant: str, name: str, seconds: float | None = None, secret: str = STRIPE) -> dict[str, Any]:
    """The event of a checkout that is paid."""
    return checkout(tenant, name, "paid", seconds, secret)


def checkout(
    tenant: str, name: str, payment: str, seconds: float | None = None, secret: str = STRIPE
) -> dict[str, Any]:
    """The event of a checkout."""
    subject = {"object": "checkout.session", "client_reference_id": tenant, "payment_status": payment}
    return event("checkout.session.completed", name, subject, seconds, secret)


def event(
    kind: str, name: str, subject: dict[str, Any], seconds: float | None = None, secret: str = STRIPE
) -> dict[str, Any]:
    """An event of Stripe's, signed as its documentation says."""
    told = {"id": name, "object": "event", "type": kind, "data": {"object": subject}}
    body, stamp = json.dumps(told), int(seconds or time.time())
    signed = hmac.new(secret.encode(), f"{stamp}.{body}".encode(), hashlib.sha256).hexdigest()
    return {"content": body, "headers": {"stripe-signature": f"t={stamp},v1={signed}"}}


async def send(here: s.World, message: dict[str, Any]) -> httpx.Response:
    """Send a message."""
    answer = await (await here.browser()).post("/hooks/payment", **message)
    await here.finish()
    return answer


@pytest.mark.parametrize("made", [standard, stripes])
async def test_a_signed_message_activates_once(here: s.World, made: Any) -> None:
    """A copy is refused; the same message signed anew is answered, and does nothing."""
    slug = f"paid-{made.__name__}"
    found = await trial(here, slug)
    message = made(found.tenant_id, f"first-{slug}")
    assert (await send(here, message)).json() == {"done": "activated"}
    assert await status(here, slug) == "active"
    assert (await send(here, message)).status_code == 409
    earlier = now() - timedelta(seconds=60)
    again = made(found.tenant_id, f"first-{slug}", earlier if made is standard else earlier.timestamp())
    assert (await send(here, again)).json() == {"done": "nothing"}


async def test_copies_at_once_activate_once(here: s.World) -> None:
    """Of ten that come in one moment one does it; each of the others is refused, or does nothing."""
    for made in (standard, stripes):
        found = await trial(here, f"copied-{made.__name__}")
        browsers, message = [await here.browser() for _ in range(10)], made(found.tenant_id, f"copy-{made.__name__}")
        answers = await asyncio.gather(*(browser.post("/hooks/payment", **message) for browser in browsers))
        await here.finish()
        assert [one.json() for one in answers].count({"done": "activated"}) == 1
        assert {one.status_code for one in answers} <= {200, 401, 409}
        verbs = [one.verb for one in await here.platform.operations.list(tenant=f"copied-{made.__name__}")]
        assert sorted(verbs) == ["activate", "create"]
        assert await status(here, f"copied-{made.__name__}") == "active"


async def test_of_stripes_events_those_that_are_paid_count(here: s.World) -> None:
    """An invoice names the tenant and the plan in its metadata; a checkout that is not paid yet does nothing."""
    found = await trial(here, "invoiced")
    assert (await send(here, checkout(found.tenant_id, "later", "unpaid"))).json() == {"done": "nothing"}
    assert await status(here, "invoiced") == "trialing"
    subject = {"object": "invoice", "metadata": {"tenant": found.tenant_id, "plan": "pro"}}
    assert (await send(here, event("invoice.paid", "invoice", subject))).json() == {"done": "activated"}
    assert (await here.platform.tenants.show("invoiced")).row.plan == "pro"
    for nothing in ({"object": "invoice", "metadata": None}, {"object": "invoice"}):
        assert (await send(here, event("invoice.paid", "nobody", nothing))).status_code == 401


async def test_what_is_forged_or_late_is_refused(here: s.World) -> None:
    """Another secret, another body, an old or a coming time, no signature, nonsense: the trial goes on."""
    found = await trial(here, "unpaid")
    name = found.tenant_id
    old, coming = now() - timedelta(minutes=6), now() + timedelta(minutes=6)
    altered = standard("x", "altered")
    altered["content"] = altered["content"].replace('"x"', f'"{name}"')
    refused = [
        standard(name, "old", old),
        standard(name, "coming", coming),
        altered,
        stripes(name, "old-2", old.timestamp()),
        stripes(name, "foreign", secret="another"),
        {"content": standard(name, "bare")["content"]},
        {"content": b"\xff", "headers": standard(name, "bytes")["headers"]},
        {"content": "{}", "headers": {"stripe-signature": "t=x,v1="}},
        {"content": "{}", "headers": {"webhook-id": "1", "webhook-timestamp": "nan", "webhook-signature": "v1"}},
        standard("nobody", "nobody"),
    ]
    assert {(await send(here, message)).status_code for message in refused} == {401}
    assert (await send(here, standard(name, "other", kind="payment.failed"))).json() == {"done": "nothing"}
    assert await status(here, "unpaid") == "trialing"


async def test_a_payment_opens_nothing_that_was_closed_for_another_reason(here: s.World) -> None:
    """What an admin suspended stays so, and is active once it is resumed; what the end of its trial did is undone."""
    for slug, reopened in (("abuse", False), ("forgot", True)):
        found = await trial(here, slug)
        if reopened:
            await turn(here, found.until)
        else:
            await here.platform.tenants.suspend(slug, "abuse")
            await here.finish()
        done = (await send(here, standard(found.tenant_id, f"pays-{slug}"))).json()
        assert done == {"done": "activated" if reopened else "nothing"}
        assert await status(here, slug) == ("active" if reopened else "suspended")
    await here.platform.tenants.resume("abuse")
    await here.finish()
    assert await status(here, "abuse") == "active"  # it was paid for
    assert w.text_of((await here.mails("forgot@example.com"))[-1])
