"""What Prometheus may know of the newest verification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tenantry.registry.journal import Operation, State

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

GAUGES: Final[tuple[tuple[str, str, Callable[[Operation], Any]], ...]] = (
    (
        "ended_timestamp_seconds",
        "When it ended, in seconds since 1970",
        lambda one: one.ended and one.ended.timestamp(),
    ),
    ("duration_seconds", "How long it took", lambda one: one.ended and (one.ended - one.created).total_seconds()),
    ("success", "1 where all that were chosen were verified, and kept apart", lambda one: one.state is State.DONE),
    ("environments", "Environments there were", lambda one: one.arguments.get("of")),
    ("environments_chosen", "Environments that were to be verified", lambda one: one.total),
    ("environments_kept_apart", "Environments that were, and were kept apart", lambda one: one.done),
    ("breaches", "Attacks that got through", lambda one: _counted(one, "breaches")),
    ("not_tried", "Attacks that could not be tried", lambda one: _counted(one, "untried")),
    ("kept", "Attacks that were kept out", lambda one: _counted(one, "kept")),
)


def _counted(operation: Operation, name: str) -> Any:
    return (operation.result or {}).get(name)


class VerifyMetrics(Collector):
    """The metrics of one verification, or of none; every name begins with `tenantry_verify_`."""

    def __init__(self, operation: Operation | None) -> None:
        self._operation = operation

    def collect(self) -> Iterator[Metric]:
        """A gauge for each; without a value where there is none."""
        for name, text, value in GAUGES:
            gauge = GaugeMetricFamily(f"tenantry_verify_{name}", f"{text}: the newest verification that ended")
            found = value(self._operation) if self._operation else None
            if found is not None:
                gauge.add_metric((), float(found))
            yield gauge


def exposition(operation: Operation | None) -> str:
    """The metrics in Prometheus' text format 0.0.4."""
    registry = CollectorRegistry()
    registry.register(VerifyMetrics(operation))
    return generate_latest(registry).decode()
