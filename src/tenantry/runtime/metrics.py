"""What the pools tell Prometheus: read from their own counts when it asks, so that sessions cost nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from tenantry.runtime.links import Host, Tally

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from tenantry.runtime.pools import Pools

BUSIEST: Final = 20
"""Tenants that have a line of their own: more of them make Prometheus slow."""

GAUGES: Final[tuple[tuple[str, str, Callable[[Host], float]], ...]] = (
    ("budget", "Connections this process may have to the server", lambda host: host.budget.limit),
    ("open", "Connections that are open", lambda host: host.budget.open),
    ("busy", "Connections in use", lambda host: host.budget.busy),
    ("idle", "Connections that nobody uses", lambda host: len(host.budget.idle)),
    ("waiting", "Sessions that wait for a connection", lambda host: host.budget.waiters),
    (
        "unavailable",
        "1 while sessions are refused because the server does not answer",
        lambda host: host.breaker.is_open,
    ),
)

COUNTERS: Final[tuple[tuple[str, str, Callable[[Host], float]], ...]] = (
    ("sessions", "Sessions", lambda host: sum(host.sessions.values())),
    ("refused", "Sessions refused because no connection came free", lambda host: host.refused),
    ("outages", "Times the server was taken for unavailable", lambda host: host.breaker.trips),
    ("probes", "Times the server was asked for a sign of life", lambda host: host.probes),
    ("leaked", "Sessions that were open for longer than runtime.leak_after", lambda host: host.leaks),
    ("lost", "Sessions that were dropped without being closed", lambda host: host.lost),
)

TALLIES: Final[tuple[tuple[str, str, Callable[[Host], Tally]], ...]] = (
    ("wait_seconds", "How long sessions waited for a connection", lambda host: host.waits),
    ("connect_seconds", "How long opening a connection took", lambda host: host.connects),
)


class PoolMetrics(Collector):
    """The metrics of all servers; every name begins with `tenantry_server_` or `tenantry_tenant_`."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def describe(self) -> Iterator[Metric]:
        """Nothing is promised: which servers there are turns out with use."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What it is now."""
        hosts = self._pools.snapshot()
        for name, text, value in GAUGES:
            gauge = GaugeMetricFamily(f"tenantry_server_{name}", text, labels=("server",))
            for host in hosts:
                gauge.add_metric((host.server.name,), float(value(host)))
            yield gauge
        for name, text, value in COUNTERS:
            counter = CounterMetricFamily(f"tenantry_server_{name}", text, labels=("server",))
            for host in hosts:
                counter.add_metric((host.server.name,), float(value(host)))
            yield counter
        for name, text, tally in TALLIES:
            yield _histogram(name, text, {host.server.name: tally(host) for host in hosts})
        yield _busiest(hosts)


def _histogram(name: str, text: str, tallies: dict[str, Tally]) -> Metric:
    family = HistogramMetricFamily(f"tenantry_server_{name}", text, labels=("server",))
    for server, tally in tallies.items():
        total, buckets = 0, []
        for bound, count in zip((*map(str, tally.BOUNDS), "+Inf"), tally.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric((server,), buckets, tally.seconds)
    return family


def _busiest(hosts: list[Host]) -> Metric:
    family = CounterMetricFamily(
        "tenantry_tenant_sessions",
        f"Sessions of the {BUSIEST} busiest tenants",
        labels=("server", "tenant", "resource"),
    )
    counted = [(count, host.server.name, *key) for host in hosts for key, count in host.sessions.items()]
    for count, *labels in sorted(counted, reverse=True)[:BUSIEST]:
        family.add_metric(labels, float(count))
    return family


def exposition(collector: Collector) -> str:
    """The metrics in Prometheus' text format 0.0.4."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()
