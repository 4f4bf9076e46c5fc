"""Verifying the isolation of tenants, and reports of it that prove themselves."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tenantry.errors import OperationRefused, TenantryError
from tenantry.identity import Reach, verb
from tenantry.operations import verified, verify
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verified import Found
from tenantry.registry import Transaction, journal
from tenantry.registry.journal import StepState

FORMAT: Final = "tenantry-verify/1"

KEPT_APART: Final = "kept apart"

REPORT_BYTES: Final = 1 << 30
"""The largest report that is read."""

MAX_AGE: Final = timedelta(days=30)
"""How old a report may be to prove anything about today, unless told otherwise."""


class ReportBroken(TenantryError):
    """'{path}' is no whole report: {reason}."""

    code = "report.broken"
    remedy = "Take the file as `tenantry verify --report` wrote it; this one may be cut short."


class ReportForeign(TenantryError):
    """'{path}' was signed by another platform, or with a platform key that is gone: public key {public}."""

    code = "report.foreign"
    remedy = "This platform signs with {own}. Check the report where it was made."


class ReportTampered(TenantryError):
    """'{path}' is not as it was signed: somebody changed it."""

    code = "report.tampered"
    remedy = "Believe nothing in it; write it anew: `tenantry verify --report FILE`."


class ReportOld(TenantryError):
    """'{path}' is genuine and {days} days old, which is more than {limit}."""

    code = "report.old"
    remedy = "Run `tenantry verify --report FILE` again, or allow more with --max-age."


@dataclass(frozen=True, slots=True)
class Checked:
    """What a genuine report says."""

    platform: str
    operation: str
    ended: str
    state: str  # "done" where all that were chosen were verified, and kept apart
    environments: int  # that were to be verified
    kept_apart: int
    of: int  # that there were
    breaches: int
    untried: int
    public_key: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a verification found, over all tenants; the signed report holds what became of each."""

    operation: journal.Operation
    found: Found
    public_key: str


class Verification:
    """Attacks on the isolation of tenants."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry

    @verb("verify.run", "platform:write", Reach.PLATFORM)
    async def run(self, sample: str | None = None, slugs: Sequence[str] = ()) -> journal.Operation:
        """Queue a verification of all tenants, of a sample ("20", "10%"), or of those named.

        Raises `ConfigError` for what is no sample, `TenantNotFound`.
        """
        async with self._registry.write() as tx:
            return await verify.submit(tx, sample=sample, slugs=slugs)

    @verb("verify.report", "platform:read", Reach.PLATFORM)
    async def report(self, operation_id: str) -> dict[str, Any]:
        """What a verification that is over found, signed. Raises `OperationNotFound`, `OperationRefused`."""
        async with self._registry.read() as tx:
            operation = await _over(tx, operation_id)
            tenants = [_tenant(item) async for item in journal.all_items(tx, operation.id)]
        content = self._content(operation, tenants)
        signature = await asyncio.to_thread(lambda: self._registry.vault.sign_report(canonical(content)))
        return {**content, "signature": signature}

    def _content(self, operation: journal.Operation, tenants: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "platform": {
                "name": self._tools.config.platform.name,
                "domain": self._tools.config.platform.domain,
                "id": self._registry.identity,
            },
            "tenantry": (operation.result or {}).get("tenantry", version("tenantry")),
            "public_key": self.public_key,
            "operation": operation.id,
            "asked_by": operation.actor,
            "began": _time(operation.created),
            "ended": _time(operation.ended),
            "state": operation.state.value,
            "sample": operation.arguments.get("sample"),
            "environments": operation.arguments.get("of"),
            "counts": {"environments": len(tenants), **verified.summed(tenants)},
            "attacks": _names(tenants),
            "tenants": tenants,
        }

    @verb("verify.summary", "platform:read", Reach.PLATFORM)
    async def summary(self, operation_id: str) -> Summary:
        """What a verification that is over found, in short. Raises as `report` does."""
        async with self._registry.read() as tx:
            operation = await _over(tx, operation_id)
            content = await journal.digest(tx, operation.id)
            found = verified.kept(content) if content else await verified.counted(tx, operation.id)
            return Summary(operation, found, self.public_key)

    @property
    def public_key(self) -> str:
        """The public key of this platform's reports (Ed25519, RFC 8032), in hex."""
        return self._registry.vault.public_keys()[0]

    @verb("verify.list", "platform:read", Reach.PLATFORM)
    async def list(self, limit: int = 50) -> list[journal.Operation]:
        """The newest verifications, newest first, those under way too."""
        async with self._registry.read() as tx:
            return await journal.latest(tx, verb=verify.Verify.name, limit=limit)

    @verb("verify.last", "platform:read", Reach.PLATFORM)
    async def last(self) -> journal.Operation | None:
        """The newest verification that is over."""
        return next((operation for operation in await self.list(20) if not operation.state.live), None)

    async def metrics(self) -> str:
        """What Prometheus may know of the newest verification that went to its end, in its text format."""
        from tenantry.platform.verify_metrics import exposition

        return exposition(await self.last_ended())

    async def last_ended(self) -> journal.Operation | None:
        """The newest verification that went to its end."""
        ended = (one for one in await self.list(20) if one.state in (journal.State.DONE, journal.State.FAILED))
        return next(ended, None)

    def check(self, path: Path, max_age: timedelta = MAX_AGE) -> Checked:
        """Prove that a report is genuine, unchanged and not too old.

        Every byte counts: what is spelled otherwise than `written` spells it could show a reader what was never signed.
        Raises `ReportBroken`, `ReportForeign`, `ReportTampered` or `ReportOld`.
        """
        raw, content, signature = _read(path)
        public, vault = str(content["public_key"]), self._registry.vault
        if public not in vault.public_keys():
            raise ReportForeign(path=path, public=public[:64], own=self.public_key)
        if raw != written(content) or not vault.verify_report(public, canonical(content), signature):
            raise ReportTampered(path=path)
        ended = datetime.fromisoformat(content["ended"])
        age = datetime.now(UTC) - ended
        if age > max_age:
            raise ReportOld(path=path, days=age.days, limit=max_age.days)
        counts = content["counts"]
        return Checked(
            platform=content["platform"]["name"],
            operation=content["operation"],
            ended=content["ended"],
            state=content["state"],
            environments=counts["environments"],
            kept_apart=sum(tenant["outcome"] == KEPT_APART for tenant in content["tenants"]),
            of=content["environments"],
            breaches=counts["breaches"],
            untried=counts["untried"],
            public_key=public,
        )


def canonical(content: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: JSON with sorted keys and no spaces, in UTF-8, without the signature itself."""
    rest = {key: value for key, value in content.items() if key != "signature"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def written(report: Mapping[str, Any]) -> bytes:
    """A report as a file holds it."""
    return json.dumps(report, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass") + b"\n"


def _read(path: Path) -> tuple[bytes, dict[str, Any], str]:
    """A report's bytes, its content and its signature. Raises `ReportBroken`."""
    try:
        if path.stat().st_size > REPORT_BYTES:
            raise ReportBroken(path=path, reason=f"it has more than {REPORT_BYTES} bytes")
        raw = path.read_bytes()
        content = json.loads(raw.decode())
    except OSError as error:
        raise ReportBroken(path=path, reason=str(error.strerror or error)) from error
    except (ValueError, RecursionError) as error:
        raise ReportBroken(path=path, reason=f"it is no JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ReportBroken(path=path, reason=f"it is not of the format {FORMAT}")
    signature, public = content.get("signature"), content.get("public_key")
    if not isinstance(signature, str) or not isinstance(public, str) or not re.fullmatch("[0-9a-f]{64}", public):
        raise ReportBroken(path=path, reason="it carries no signature")
    return raw, content, signature


async def _over(tx: Transaction, operation_id: str) -> journal.Operation:
    """A verification that is over. Raises `OperationNotFound`, `OperationRefused`."""
    operation = await journal.get(tx, operation_id)
    if operation.verb != verify.Verify.name or operation.state.live:
        state = operation.state.value if operation.verb == verify.Verify.name else operation.verb
        raise OperationRefused(state=state, action="reported", operation=operation.id)
    return operation


def _tenant(item: journal.Item) -> dict[str, Any]:
    record = verified.tally_of(item)
    outcome = {StepState.DONE: KEPT_APART, StepState.FAILED: "not kept apart"}.get(item.state, "not verified")
    if item.state is StepState.FAILED and not record["breaches"]:
        outcome = "not verified"
    return {
        "tenant": item.subject,
        "environment": item.arguments["name"],
        "id": item.arguments["tenant"],
        "outcome": outcome,
        "seconds": round(item.seconds, 3) if item.seconds is not None else None,
        **record,
    }


def _names(tenants: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The names of all attacks that were tried, by what they were tried on."""
    found: dict[str, set[str]] = {}
    for tenant in tenants:
        for resource, counts in tenant["kept"].items():
            found.setdefault(resource, set()).update(counts)
        for entry in (*tenant["breaches"], *tenant["not_promised"]):
            found.setdefault(entry["resource"], set()).add(entry["attack"])
    return {resource: sorted(names) for resource, names in sorted(found.items())}


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
