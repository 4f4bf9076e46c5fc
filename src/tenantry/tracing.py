"""Spans of what this process does, for OpenTelemetry; nothing, and at no cost, where no OTEL_* variable asks for any.

The variables are those of the OpenTelemetry specification: OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) switches
spans on, OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none off. They go by OTLP over HTTP.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from tenantry.errors import TenantryError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

Note = Callable[[str, Any], None]
"""Adds an attribute to the span under way."""

log: Final = logging.getLogger("tenantry.tracing")

_provider: TracerProvider | None = None
_looked = False
_nothing: Final = contextlib.nullcontext(lambda _name, _value: None)


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for spans."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return any(map(environ.get, ENDPOINTS)) and not off and environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"


def start() -> None:
    """Export spans from now on, if the environment asks for them; a second call does nothing."""
    global _provider, _looked
    if _looked:
        return
    _looked = True
    if not wanted(os.environ):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("OTEL_* asks for traces, and the library is missing: pip install 'tenantry[otel]'")
        return
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "tenantry"}
    _provider = TracerProvider(resource=Resource.create(named))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))


def stop() -> None:
    """Send what is left, and export no more."""
    global _provider, _looked
    if _provider is not None:
        _provider.shutdown()
    _provider, _looked = None, False


def span(
    name: str, attributes: Mapping[str, Any] | None = None, carrier: Mapping[str, str] | None = None
) -> AbstractContextManager[Note]:
    """A span around what is inside the block; gives what adds attributes to it.

    `carrier` holds the headers of a request, which may name the span it belongs to (W3C Trace Context): it is then a
    server's. An error ends it as failed, by its code: messages may hold what a trace is not to know.
    """
    return _nothing if _provider is None else _spanned(_provider, name, attributes or {}, carrier)


@contextlib.contextmanager
def _spanned(
    provider: TracerProvider, name: str, attributes: Mapping[str, Any], carrier: Mapping[str, str] | None
) -> Iterator[Note]:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer("tenantry")
    parent = None if carrier is None else TraceContextTextMapPropagator().extract(carrier)
    kind = SpanKind.INTERNAL if carrier is None else SpanKind.SERVER
    told = {key: value for key, value in attributes.items() if value is not None}
    with tracer.start_as_current_span(
        name, context=parent, kind=kind, attributes=told, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield lambda key, value: _note(current, key, value)
        except BaseException as error:
            fail(current, error)
            raise


def _note(current: Span, key: str, value: Any) -> None:
    if key == "name":
        current.update_name(value)
    elif value is not None:
        current.set_attribute(key, value)


def fail(current: Span, error: BaseException) -> None:
    """End a span as failed."""
    from opentelemetry.trace import Status, StatusCode

    code = error.code if isinstance(error, TenantryError) else type(error).__name__
    current.set_attribute("error.type", code)
    current.set_status(Status(StatusCode.ERROR, code))
