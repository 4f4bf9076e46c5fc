"""What Prometheus may know of the control plane: its own requests, and the platform in numbers as it asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, FastAPI, Request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.responses import Response

from tenantry.errors import RuntimeMissing
from tenantry.identity import Principal, acting_as
from tenantry.platform import Measured
from tenantry.platform.verify_metrics import VerifyMetrics
from tenantry.runtime.runtime import connected
from tenantry.web import COUNTED
from tenantry.web.api.access import bearer
from tenantry.web.api.guard import Guarded
from tenantry.web.api.problems import problems_of
from tenantry.web.doors import Says, says
from tenantry.web.house import opened

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Requests:
    """Counts requests by route, never by address: so there are as many series as routes, whatever is asked for."""

    def __init__(self) -> None:
        self.together = COUNTED in os.environ
        self.registry = CollectorRegistry()
        own = None if self.together else self.registry
        self._requests = Counter(
            "tenantry_http_requests", "Requests to the portal and the API", ["method", "route", "status"], registry=own
        )
        self._seconds = Histogram(
            "tenantry_http_request_seconds",
            "How long it took until an answer began",
            ["route"],
            buckets=BUCKETS,
            registry=own,
        )
        if self.together:
            MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call]

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request that was answered."""
        self._requests.labels(method if method in METHODS else "other", route, status).inc()
        self._seconds.labels(route).observe(seconds)


GAUGES: Final[tuple[tuple[str, str, Callable[[Measured], float]], ...]] = (
    ("operations_waiting_seconds", "How long the oldest operation waits for a worker", lambda one: one.waiting),
    ("workers", "Workers that live", lambda one: one.workers),
    ("storage_bytes", "What all tenants take up, as it was last measured", lambda one: one.storage.bytes),
    ("resources", "Resources of all tenants", lambda one: one.storage.resources),
    ("resources_measured", "Of these, those whose size is known", lambda one: one.storage.measured),
    ("admin_users", "Admin users", lambda one: one.people["admins"]),
    ("admin_sessions", "Sessions of admin users that hold", lambda one: one.people["sessions"]),
    ("api_tokens", "API tokens that hold", lambda one: one.people["tokens"]),
    ("organizations", "Organizations", lambda one: one.people["organizations"]),
    ("audit_entries", "Number of the newest entry of the audit log", lambda one: one.head[0]),
    ("changes", "Number of the newest change that processes follow", lambda one: one.head[1]),
)

SPLIT: Final[tuple[tuple[str, str, str, Callable[[Measured], Mapping[str, int]]], ...]] = (
    ("tenants", "Tenants by their status", "status", lambda one: one.tenants),
    ("operations", "Operations by their state", "state", lambda one: one.operations),
)


class PlatformMetrics(Collector):
    """The platform in numbers; every name begins with `tenantry_`."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        """A gauge for each."""
        for name, text, number in GAUGES:
            yield GaugeMetricFamily(f"tenantry_{name}", text, value=float(number(self._measured)))
        for name, text, label, numbers in SPLIT:
            gauge = GaugeMetricFamily(f"tenantry_{name}", text, labels=(label,))
            for value, count in numbers(self._measured).items():
                gauge.add_metric((value,), float(count))
            yield gauge


def add(app: FastAPI, requests: Requests) -> None:
    """Let the application answer at /api/metrics: who reads it has a token of its own, of the scope platform:read."""

    @says(Says(("platform.metrics",)))
    async def metrics(request: Request, principal: Annotated[Principal, Depends(bearer)]) -> Response:
        """What Prometheus may know of the platform and of this server, in its text format."""
        here = await opened(request)
        with acting_as(principal):
            measured = await here.platform.metrics()
        parts = [PlatformMetrics(measured), VerifyMetrics(measured.verified), *_pools(requests)]
        return Response(exposition(requests, parts), media_type=CONTENT_TYPE_LATEST)

    text: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    app.router.add_api_route(
        "/api/metrics",
        metrics,
        methods=["GET"],
        operation_id="platform_metrics",
        summary="Platform: metrics",
        description="In the text format of Prometheus.\n\nTakes the scope `platform:read`; reaches: platform.",
        tags=["platform"],
        response_class=Response,
        responses={200: {"description": "The metrics.", **text}, **problems_of()},
        route_class_override=Guarded,
    )


def exposition(requests: Requests, parts: list[Collector]) -> bytes:
    """All of them in Prometheus' text format."""
    platform = CollectorRegistry()
    for part in parts:
        platform.register(part)
    return generate_latest(requests.registry) + generate_latest(platform)


def _pools(requests: Requests) -> list[Collector]:
    """The connections of this process, where it is the only one: those of others it does not know."""
    try:
        return [] if requests.together else [connected().collector()]
    except RuntimeMissing:
        return []
