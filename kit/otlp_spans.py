"""Spans as OpenTelemetry wants them, and the exporter that takes them; `kit.otlp` pushes them."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from kit import tracing

HTTP_PATH = "/v1/traces"
"""What OTLP over HTTP adds to an endpoint, by its specification."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def readable(span: tracing.Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    """One span."""
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace, span.id),
        parent=_context(span.trace, span.parent) if span.parent else None,
        resource=resource,
        attributes=dict(span.attributes),
        links=[Link(_context(span.trace, span.link))] if span.link else [],
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.OK if span.good else StatusCode.ERROR),
        start_time=round(span.started_at * 1e9),
        end_time=round(max(span.ended_at, span.started_at) * 1e9),
        instrumentation_scope=scope,
    )


def exporter(endpoint: str, protocol: str, timeout_s: float) -> SpanExporter:
    """Where they go: the same place as the metrics."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as by_grpc

        return by_grpc.OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as by_http

    return by_http.OTLPSpanExporter(endpoint.rstrip("/").removesuffix("/v1/metrics") + HTTP_PATH, timeout=timeout_s)


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=_SAMPLED)
