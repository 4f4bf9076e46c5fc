"""Payments: a signed webhook of whoever takes them activates a tenant.

Each message counts once by its id, for as long as senders try again. A copy of a message that came is refused; the
same message, signed anew by a sender who got no answer, is answered and does nothing more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tenantry.config import Config
from tenantry.errors import MoveRefused, OperationInProgress
from tenantry.model import Status
from tenantry.platform.tenants import Tenants
from tenantry.refusals import WebhookRefused, WebhookRepeated
from tenantry.registry import Registry, people, signups, tenants
from tenantry.registry.database import now, plain

TOLERANCE: Final = timedelta(minutes=5)
"""How far the time that a message signs may be from this one."""

KNOWN: Final = timedelta(days=30)
"""How long an id counts once; senders give up long before."""

PAID: Final = frozenset({"payment.succeeded", "invoice.paid", "checkout.session.completed"})
"""The types of messages that activate a tenant."""

NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Message:
    """What a sender says, once its signature was checked."""

    id: str
    signature: str  # of this very copy
    kind: str
    tenant: str  # an id
    plan: str | None


class Payments:
    """Messages about payments."""

    def __init__(self, registry: Registry, config: Config, tenants: Tenants) -> None:
        self._registry = registry
        self._config = config
        self._tenants = tenants

    async def take(self, body: bytes, headers: Mapping[str, str]) -> str:
        """Do what a message asks for; "activated", or "nothing" with what it is about left as it is.

        Raises `WebhookRefused` for one that is forged, late or no message, `WebhookRepeated` for a copy.
        """
        message = self._stripe(body, headers) if "stripe-signature" in headers else self._standard(body, headers)
        if message.kind not in PAID:
            return NOTHING
        async with self._registry.read() as tx:
            if await people.is_spent(tx, _digest("copy", message.signature)):
                raise WebhookRepeated
            if await people.is_spent(tx, _digest("id", message.id)):
                return NOTHING
        done = await self._activate(message)
        async with self._registry.write() as tx:
            await people.spend(tx, _digest("copy", message.signature), now() + 2 * TOLERANCE)
            await people.spend(tx, _digest("id", message.id), now() + KNOWN)
        return done

    async def _activate(self, message: Message) -> str:
        """What was suspended for another reason than the end of its trial stays so: somebody else decides that."""
        async with self._registry.write("payment") as tx:
            row = await tenants.by_id(tx, plain(message.tenant, 36))
            if row is None:
                raise WebhookRefused(reason="it names no tenant of this platform", remedy="Send the tenant's id.")
            tx.audit("payment.take", row.slug, id=row.id, message=message.id[:200], kind=message.kind)
            trial = await signups.trial(tx, row.id)
            if row.status == Status.SUSPENDED and trial is not None and trial.ended is None:
                await signups.end_trial(tx, row.id)  # once it is resumed it is active
        over = trial is not None and trial.ended is not None
        if row.status == Status.ACTIVE or (row.status == Status.SUSPENDED and not over):
            return NOTHING
        try:
            await self._tenants.activate(row.slug, message.plan)
        except (MoveRefused, OperationInProgress) as error:
            raise WebhookRefused(reason=error.message, remedy="Send it again in a moment.") from error
        return "activated"

    def _standard(self, body: bytes, headers: Mapping[str, str]) -> Message:
        """A message by Standard Webhooks."""
        from standardwebhooks import Webhook, WebhookVerificationError

        secret = self._config.payment.secret
        if secret is None:
            raise WebhookRefused(reason="no secret is set for Standard Webhooks")
        try:
            told = Webhook(secret.get_secret_value()).verify(body, dict(headers))
            data = told["data"]
            kind, tenant, plan = str(told["type"]), str(data["tenant"]), data.get("plan")
        except (WebhookVerificationError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WebhookRefused(reason=_reason(error)) from error
        return Message(headers["webhook-id"], headers["webhook-signature"], kind, tenant, plan)

    def _stripe(self, body: bytes, headers: Mapping[str, str]) -> Message:
        """An event of Stripe's."""
        import stripe

        secret, signature = self._config.payment.stripe_secret, headers["stripe-signature"]
        if secret is None:
            raise WebhookRefused(reason="no signing secret of Stripe is set")
        try:
            seconds = int(TOLERANCE.total_seconds())
            stripe.WebhookSignature.verify_header(body.decode(), signature, secret.get_secret_value(), seconds)
            told = json.loads(body)
            subject: Mapping[str, Any] = told["data"]["object"]
            named = subject.get("metadata") or {}
            tenant = str(subject.get("client_reference_id") or named.get("tenant", ""))
            unpaid = told["type"].startswith("checkout.") and subject.get("payment_status") == "unpaid"
            kind = "unpaid" if unpaid else str(told["type"])
            return Message(str(told["id"]), signature, kind, tenant, named.get("plan"))
        except (stripe.SignatureVerificationError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WebhookRefused(reason=_reason(error)) from error


def _digest(kind: str, value: str) -> str:
    return hashlib.sha256(f"webhook\0{kind}\0{value}".encode(errors="replace")).hexdigest()


def _reason(error: Exception) -> str:
    """Why it is refused: what is wrong with a body is nothing for somebody who has no signature."""
    name = type(error).__name__
    return str(error)[:200] if name.endswith("VerificationError") else "it is no message"
