"""What a monitoring system learns: metrics, traces, and whether a process is ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

import ground as g
import outages
import servers
from tenantry import tracing
from tenantry.application import connect
from tenantry.config import load
from tenantry.identity.principal import SCOPES, AdminRole
from tenantry.platform import Platform
from tenantry.web.house import House
from tenantry.web.ready import ready
from tenantry.web.site import site

DOCS = Path(__file__).parents[2] / "docs"


@dataclass
class World:
    """A platform's site, and a superadmin's token."""

    app: Any
    platform: Platform
    client: httpx.AsyncClient

    async def token(self, mail: str, role: AdminRole, *scopes: str) -> dict[str, str]:
        """The header of a new token of somebody."""
        await self.platform.admins.invite(mail, role=role)
        made = await self.platform.tokens.create(mail, scopes or SCOPES, admin=mail)
        return {"Authorization": f"Bearer {made.token}"}


@contextlib.asynccontextmanager
async def world(ground: g.Ground) -> AsyncIterator[World]:
    """Within this process."""
    app = site(load(ground.config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(app.state.house.close)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://localhost"))
        yield World(app, (await app.state.house.opened()).platform, client)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Each sample by its name and its labels' values."""
    families = list(text_string_to_metric_families(text))
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


# --- metrics ------------------------------------------------------------------------------------------------------


async def test_metrics_tell_of_requests_and_of_the_platform(ground: g.Ground) -> None:
    """Requests by route and status, tenants by status, operations by state, workers, and the newest verification."""
    async with world(ground) as here:
        root = await here.token("root@example.org", AdminRole.SUPERADMIN)
        for slug in ("acme", "umbrella"):
            await here.platform.operations.finish((await here.platform.tenants.create(slug)).id)
        await here.platform.operations.finish((await here.platform.tenants.suspend("umbrella", "unpaid")).id)
        await here.platform.tenants.create("waiting")
        for slug in ("acme", "umbrella", "nobody"):
            await here.client.get(f"/api/tenants/{slug}", headers=root)
        await here.client.get("/admin/tenants/acme")
        answer = await here.client.get("/api/metrics", headers=root)
        assert answer.headers["content-type"].startswith("text/plain")
        found = samples(answer.text)
        assert found["tenantry_http_requests_total", "GET", "/api/tenants/{slug}", "200"] == 2
        assert found["tenantry_http_requests_total", "GET", "/api/tenants/{slug}", "404"] == 1
        assert found["tenantry_http_requests_total", "GET", "/admin/tenants/{slug}", "303"] == 1
        assert found["tenantry_http_request_seconds_count", "/api/tenants/{slug}"] == 3
        assert (found["tenantry_tenants", "active"], found["tenantry_tenants", "suspended"]) == (1, 1)
        assert (found["tenantry_operations", "done"], found["tenantry_operations", "queued"]) == (3, 1)
        assert found["tenantry_operations", "failed"] == 0
        assert found["tenantry_operations_waiting_seconds",] > 0
        assert found["tenantry_workers",] == 0
        async with g.working(here.platform):
            await g.until(lambda: _living(here, root), "a worker's sign of life")
        assert found["tenantry_api_tokens",] == 1
        assert found["tenantry_audit_entries",] > 5


async def _living(here: World, root: dict[str, str]) -> bool:
    text = (await here.client.get("/api/metrics", headers=root)).text
    return samples(text)["tenantry_workers",] == 1


async def test_metrics_have_as_many_series_as_there_are_routes(ground: g.Ground) -> None:
    """Addresses and methods that somebody makes up make no new ones."""
    async with world(ground) as here:
        root = await here.token("root@example.org", AdminRole.SUPERADMIN)
        for number in range(30):
            await here.client.get(f"/api/nothing-{number}")
            await here.client.request(f"BREW{number}", "/api/tenants")
            await here.client.get(f"/admin/static/nothing-{number}.css")
        text = (await here.client.get("/api/metrics", headers=root)).text
        counted = {labels: value for labels, value in samples(text).items() if labels[0].endswith("_requests_total")}
        assert counted == {
            ("tenantry_http_requests_total", "GET", "none", "404"): 30,
            ("tenantry_http_requests_total", "other", "/api/tenants", "405"): 30,
            ("tenantry_http_requests_total", "GET", "/admin/static", "404"): 30,
        }
        assert "nothing-" not in text


async def test_metrics_are_for_superadmins_tokens_of_the_scope(ground: g.Ground) -> None:
    """Nobody else learns how many tenants there are."""
    async with world(ground) as here:
        small = await here.token("root@example.org", AdminRole.SUPERADMIN, "tenants:read")
        ana = await here.token("ana@example.org", AdminRole.ADMIN)
        for headers, status in (({}, 401), (small, 403), (ana, 403)):
            answer = await here.client.get("/api/metrics", headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_every_metric_is_documented(ground: g.Ground) -> None:
    """docs/howto/monitor.md names each that the platform tells, and those of the pools and of verifications."""
    page = (DOCS / "howto/monitor.md").read_text("utf-8") + (DOCS / "reference/runtime.md").read_text("utf-8")
    async with world(ground) as here:
        root = await here.token("root@example.org", AdminRole.SUPERADMIN)
        await here.client.get("/api/account", headers=root)
        text = (await here.client.get("/api/metrics", headers=root)).text
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    verified = (DOCS / "howto/verify-isolation.md").read_text("utf-8")
    told = page + verified

    def is_told(name: str) -> bool:  # a row of several names its first, and of the others the ends
        return f"`{name}`" in told or f"`{name.removeprefix('tenantry_server')}`" in told

    assert {name for name in names if not is_told(name) and not name.endswith("_created")} == set()


# --- readiness and several processes ------------------------------------------------------------------------------


async def test_a_process_is_ready_once_it_can_answer_everything(ground: g.Ground) -> None:
    """Control database, key and tenants; where one is missing, its code tells which, and no more."""
    config = load(ground.config)
    house, runtime = House(config), connect(config)

    async def opened() -> House:
        return house

    try:
        missing = await ready(opened, runtime)
        assert (missing.status_code, json.loads(missing.body)["code"]) == (503, "registry.unavailable")
        async with ground.open() as platform:
            await platform.operations.finish((await platform.tenants.create("acme")).id)
        there = await ready(opened, runtime)
        assert (there.status_code, json.loads(there.body)) == (200, {"status": "ready", "code": "ok"})
    finally:
        await house.close()
        await runtime.stop()


async def test_a_process_with_another_key_is_not_ready(ground: g.Ground) -> None:
    """It could open no secret."""
    async with ground.open():
        pass
    (ground.root / ".env").write_text(f"TENANTRY_SECRET_KEY={secrets.token_hex(32)}\n")
    config = load(ground.config)
    house, runtime = House(config), connect(config)

    async def opened() -> House:
        return house

    try:
        answer = await ready(opened, runtime)
        assert (answer.status_code, json.loads(answer.body)["code"]) == (503, "secret.key")
    finally:
        await house.close()
        await runtime.stop()


@pytest.mark.postgres
async def test_a_lost_control_database_makes_a_process_unready_until_it_is_back(
    ground: g.Ground, own_postgres: servers.Postgres
) -> None:
    """It serves on meanwhile, by its snapshot: so health stays 200."""
    with own_postgres.database() as url:
        text = ground.config.read_text().replace("[platform]\n", '[platform]\ncontrol = {env = "CONTROL_URL"}\n', 1)
        ground.config.write_text(text)
        with (ground.root / ".env").open("a") as env:
            env.write(f"CONTROL_URL={url}\n")
        config = load(ground.config)
        async with ground.open():
            pass
        house, runtime = House(config), connect(config)

        async def opened() -> House:
            return house

        async def status() -> int:
            return (await ready(opened, runtime)).status_code

        try:
            assert await status() == 200
            with outages.down(own_postgres):
                lost = await ready(opened, runtime)
                assert (lost.status_code, json.loads(lost.body)["code"]) == (503, "registry.unavailable")

            async def back() -> bool:
                return await status() == 200

            await g.until(back, "readiness")
        finally:
            await house.close()
            await runtime.stop()


@contextlib.contextmanager
def served(ground: g.Ground, *arguments: str) -> Iterator[str]:
    """A `tenantry serve`, ended at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    (ground.root / "plain.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b''})\n"
    )
    process = ground.command("serve", "--app", "plain:app", "--port", str(port), *arguments)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        g.end(process)
        process.communicate()


async def test_several_processes_count_as_one(ground: g.Ground) -> None:
    """Whichever of two answers, it tells of the requests of both; each says at any host when it is ready."""
    async with ground.open() as platform:
        await platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)
        made = await platform.tokens.create("prometheus", ("platform:read",), admin="root@example.org")
    with served(ground, "--workers", "2", "--no-worker") as url:

        async def is_ready() -> bool:
            async with httpx.AsyncClient() as client:
                with contextlib.suppress(httpx.HTTPError):
                    return (await client.get(f"{url}/.tenantry/ready")).status_code == 200
                return False

        await g.until(is_ready, "a process that is ready")
        headers = {"Host": "localhost", "Authorization": f"Bearer {made.token}"}
        for _ in range(40):
            async with httpx.AsyncClient() as client:  # each on a connection of its own, which either process takes
                answer = await client.get(f"{url}/api/metrics", headers=headers)
                assert answer.status_code == 200
        found = samples(answer.text)
        assert found["tenantry_http_requests_total", "GET", "/api/metrics", "200"] == 39


@pytest.mark.parametrize(("trusted", "statuses"), [("127.0.0.1", [401, 401, 401]), ("192.0.2.1", [401, 401, 429])])
async def test_a_proxy_is_believed_where_it_is_named(ground: g.Ground, trusted: str, statuses: list[int]) -> None:
    """Only from `serve.trusted_proxies` do X-Forwarded-For and -Proto say who asks, and how."""
    with ground.config.open("a") as config:
        config.write(f'\n[serve]\ntrusted_proxies = ["{trusted}"]\n[api]\naddress_rate = 2\n')
    async with ground.open():
        pass
    with served(ground, "--no-worker") as url:
        async with httpx.AsyncClient(timeout=g.PATIENCE) as client:

            async def answers() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return (await client.get(f"{url}/.tenantry/ready")).status_code == 200
                return False

            await g.until(answers, "a process that is ready")
            found = []
            for number in range(3):
                headers = {"Host": "localhost", "X-Forwarded-For": f"203.0.113.{number}", "X-Forwarded-Proto": "https"}
                found.append(await client.get(f"{url}/api/account", headers=headers))
    assert [answer.status_code for answer in found] == statuses
    assert {"strict-transport-security" in answer.headers for answer in found} == {trusted == "127.0.0.1"}


# --- traces -------------------------------------------------------------------------------------------------------


@dataclass
class Collector:
    """A receiver of OTLP over HTTP."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Any]:
        """All spans that came."""
        found = []
        for body in self.bodies:
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                assert named["service.name"] == "tenantry"
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """One that this process exports to."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            made.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        tracing.stop()
        try:
            yield made
        finally:
            tracing.stop()
            server.shutdown()
            thread.join()
            tracing._looked = False


def attributes(span: Any) -> dict[str, Any]:
    """Those of a span."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def test_requests_verbs_and_steps_are_spans(ground: g.Ground, collector: Collector) -> None:
    """They come by OTLP to a real receiver, one within the other, with tenant and operation, and no secret."""
    async with world(ground) as here:
        root = await here.token("root@example.org", AdminRole.SUPERADMIN)
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        named = {**root, "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        body = {"slug": "acme", "settings": {"smtp_password": "hush-hush"}}
        made = (await here.client.post("/api/tenants", json=body, headers=named)).json()
        await here.platform.operations.finish(made["id"])
        await here.client.get("/api/tenants/nobody", headers=root)
    await asyncio.to_thread(tracing.stop)
    spans = {span.name: span for span in collector.spans}
    request, verb = spans["POST /api/tenants"], spans["tenant.create"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (trace, "00f067aa0ba902b7")
    assert attributes(request)["http.response.status_code"] == 202
    assert verb.parent_span_id == request.span_id
    assert attributes(verb) == {"tenantry.tenant": "acme", "tenantry.operation": made["id"]}
    operation, step = spans["operation create"], spans["create: db"]
    assert attributes(operation) == {
        "tenantry.tenant": "acme",
        "tenantry.operation": made["id"],
        "tenantry.state": "done",
    }
    assert step.trace_id == operation.trace_id
    assert attributes(step) == {"tenantry.tenant": "acme", "tenantry.operation": made["id"]}
    refused = spans["tenant.show"]
    assert (attributes(refused)["error.type"], refused.status.code) == ("tenant.not_found", 2)
    raw = b"".join(collector.bodies)
    assert b"hush-hush" not in raw
    assert root["Authorization"].removeprefix("Bearer ").encode() not in raw


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_environment_says_whether_there_are_spans(environ: dict[str, str], wanted: bool) -> None:
    """By the variables of the OpenTelemetry specification."""
    assert tracing.wanted(environ) is wanted


def test_without_them_nothing_of_it_is_loaded(ground: g.Ground) -> None:
    """Where no variable asks for spans, the library is not even imported, and each place costs one call."""
    code = (
        "import asyncio, sys\n"
        "from tenantry import tracing\n"
        "from tenantry.platform import Platform\n"
        "async def main():\n"
        "    async with Platform.open(sys.argv[1]) as platform:\n"
        "        await platform.tenants.list()\n"
        "asyncio.run(main())\n"
        "assert tracing.span('a') is tracing.span('b')\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n"
    )
    command = [sys.executable, "-c", code, str(ground.config)]
    done = subprocess.run(command, env=ground.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_library_is_told_once_and_stops_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names what to install; everything goes on without spans."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with caplog.at_level(logging.WARNING):
        tracing.start()
        tracing.start()
    assert [record.message for record in caplog.records if "tenantry[otel]" in record.message] == [
        "OTEL_* asks for traces, and the library is missing: pip install 'tenantry[otel]'"
    ]
    with tracing.span("nothing") as note:
        note("a", 1)
    assert collector.bodies == []
