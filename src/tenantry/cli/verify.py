"""`tenantry verify`: attack the isolation of tenants, and prove reports of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tenantry.cli.options import COMMON, FLAG, Common, Wait
from tenantry.errors import OperationFailed, UsageError

if TYPE_CHECKING:
    from tenantry.platform import Platform
    from tenantry.registry.journal import Operation

RUN = ("id", "ended", "by", "state", "environments", "kept_apart", "breaches", "not_tried")
ENTRY = ("tenant", "environment", "resource", "attack", "against", "evidence")
SUMMED = ("resource", "attacks", "kept_out", "got_through", "not_promised", "not_tried")


async def verify(
    *slugs: Annotated[str, Parameter(help="The tenants to attack; else all of them.")],
    sample: Annotated[str | None, Parameter(help="Only so many tenants (20), or such a share (10%), by lot.")] = None,
    report: Annotated[Path | None, Parameter(help="Write the signed report, as JSON, to this file.")] = None,
    list_: Annotated[
        bool, FLAG, Parameter(name="--list", help="Attack nobody; list the newest verifications.")
    ] = False,
    show: Annotated[
        str | None, Parameter(help="Attack nobody; show once more what this one, by its id, found.")
    ] = None,
    check_report: Annotated[Path | None, Parameter(help="Attack nobody; prove that this report is genuine.")] = None,
    max_age: Annotated[int, Parameter(help="How many days old a report to be proved may be.")] = 30,
    public_key: Annotated[bool, FLAG, Parameter(help="Print the public key of this platform's reports.")] = False,
    metrics: Annotated[bool, FLAG, Parameter(help="Print what Prometheus may know of the newest one.")] = False,
    wait: Wait = True,
    common: Common = COMMON,
) -> int:
    """Attack the isolation of tenants from all sides; 1 where anything gets through."""
    if sum((public_key, metrics, list_, show is not None, check_report is not None)) > 1:
        raise UsageError(given="--show with --list, --metrics, …", wanted="one question")
    if slugs and sample:
        raise UsageError(given=f"{slugs[0]} --sample {sample}", wanted="tenants or a sample")
    if report is not None and not (wait and os.access(report.parent, os.W_OK) and not report.is_dir()):
        raise UsageError(given=f"--report {report}", wanted="a file that can be written, and a run that is waited for")
    async with common.platform() as platform:
        if public_key:
            common.out.record({"public_key": platform.verification.public_key}, {"": platform.verification.public_key})
            return 0
        if metrics:
            print(await platform.verification.metrics(), end="")
            return 0
        if list_:
            common.out.table(RUN, map(_run, await platform.verification.list()), "There was no verification yet.")
            return 0
        if check_report is not None:
            return _proved(platform, common, check_report, max_age)
        if show is not None:
            return _told(await platform.verification.report(show), common, report)
        return await _attack(platform, common, slugs, sample, report, wait)


def _proved(platform: Platform, common: Common, path: Path, days: int) -> int:
    found = platform.verification.check(path, timedelta(days=days))
    fields = {
        "genuine": "yes, and as it was signed",
        "platform": found.platform,
        "ended": found.ended,
        "verification": found.state,
        "environments": f"{found.environments} of {found.of}, {found.kept_apart} kept apart",
        "breaches": found.breaches,
        "not tried": found.untried,
        "public key": found.public_key,
    }
    common.out.record(found, fields)
    return 0 if found.state == "done" else 1


async def _attack(
    platform: Platform, common: Common, slugs: Sequence[str], sample: str | None, report: Path | None, wait: bool
) -> int:
    from tenantry.cli.progress import carry_out

    operation = await platform.verification.run(sample, slugs)
    failure = None
    if common.json and wait:
        await platform.operations.finish(operation.id)
    else:
        try:
            if await carry_out(platform, operation, common.out, wait) is None:
                return 0
        except OperationFailed as error:
            failure = error
    found = await platform.verification.report(operation.id)
    code = _told(found, common, report)
    if failure is not None and not any(tenant["breaches"] for tenant in found["tenants"]):
        raise failure
    return code


def _told(found: Mapping[str, Any], common: Common, report: Path | None) -> int:
    """Print a report and write it where that is wanted: 1 where it does not say that all were kept apart."""
    if report is not None:
        from tenantry.platform.verify import written

        report.write_bytes(written(found))
    if common.json:
        common.out.data(found)
    else:
        _show(found, common, report)
    return 0 if found["state"] == "done" else 1


def _run(operation: Operation) -> dict[str, Any]:
    """A verification in a line."""
    result = operation.result or {}
    return {
        "id": operation.id,
        "ended": operation.ended,
        "by": operation.actor,
        "state": operation.state,
        "environments": f"{operation.total} of {operation.arguments.get('of', '–')}",
        "kept_apart": operation.done,
        "breaches": result.get("breaches"),
        "not_tried": result.get("untried"),
    }


def _show(found: Mapping[str, Any], common: Common, report: Path | None) -> None:
    out, tenants = common.out, found["tenants"]
    out.table(SUMMED, _summed(tenants), "No attack was tried: there are no two tenants of one blueprint.")
    for kind, title in (
        ("breaches", "Got through:"),
        ("untried", "Could not be tried, and counts as nothing:"),
        ("not_promised", "Got through where nothing else is promised (docs/explanation/isolation.md):"),
    ):
        entries = [{**entry, **_who(tenant)} for tenant in tenants for entry in tenant[kind]]
        if kind == "not_promised":
            entries = _once(entries)
        if entries:
            out.line(title, "bold red" if kind == "breaches" else "bold")
            out.table(ENTRY, entries)
    counts = found["counts"]
    told = f"{counts['environments']} of {found['environments']} environments, {counts['kept']} attacks kept out"
    out.line(f"{told}, {counts['breaches']} got through, {counts['untried']} not tried.", "bold")
    if report is not None:
        out.line(f"Signed report: {report} (public key {found['public_key']}).")


def _who(tenant: Mapping[str, Any]) -> dict[str, str]:
    return {"tenant": tenant["tenant"], "environment": tenant["environment"]}


def _once(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each such attack, of however many tenants."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    counts: dict[tuple[str, str], int] = {}
    for entry in entries:
        key = entry["resource"], entry["attack"]
        counts[key] = counts.get(key, 0) + 1
        found.setdefault(key, dict(entry))
    for key, entry in found.items():
        if counts[key] > 1:
            entry["tenant"] = f"{entry['tenant']} and {counts[key] - 1} more"
    return list(found.values())


def _summed(tenants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each resource and each other thing attacked, over all tenants."""
    rows: dict[str, dict[str, Any]] = {}

    def row(resource: str) -> dict[str, Any]:
        return rows.setdefault(resource, {"resource": resource, **dict.fromkeys(SUMMED[2:], 0), "names": set()})

    for tenant in tenants:
        for resource, names in tenant["kept"].items():
            row(resource)["kept_out"] += sum(names.values())
            row(resource)["names"].update(names)
        for kind, column in (("breaches", "got_through"), ("not_promised", "not_promised"), ("untried", "not_tried")):
            for entry in tenant[kind]:
                row(entry["resource"])[column] += 1
                row(entry["resource"])["names"].add(entry["attack"])
    return [{**one, "attacks": len(one.pop("names"))} for one in rows.values()]
