"""Spans as OpenTelemetry wants them, and the exporter that takes them; `kit.otlp` pushes them."""

from __future__ import annotations

from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from kit import secrecy, tracing
from kit.backlog import Backlog

HTTP_PATH: Final = "/v1/traces"
"""What OTLP over HTTP adds to an endpoint, by its specification."""

BATCH: Final = 512
"""Spans in one message: some hundred kilobytes."""

VALUE_CHARS_MAX: Final = 1_024
"""A longer attribute is cut: a span says what happened, and evidence has a place of its own."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def readable(span: tracing.Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    """One span. Secrets are taken out of its attributes here, so that nobody who makes one has to think of it."""
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace, span.id),
        parent=_context(span.trace, span.parent) if span.parent else None,
        resource=resource,
        attributes={key: _clean(value) for key, value in span.attributes.items()},
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


def push(waiting: Backlog, to: SpanExporter, resource: Resource, scope: InstrumentationScope) -> bool:
    """Push what waits, until nothing does; what a collector does not take waits for the next push. Did all get out?"""
    mark = waiting.mark
    while batch := waiting.take(BATCH):
        good = False
        try:
            good = to.export([readable(one, resource, scope) for one in batch]) is SpanExportResult.SUCCESS
        finally:
            if not good:
                waiting.give_back(batch)
        if not good:
            return False
    waiting.pushed = mark
    return True


def _clean(value: str) -> str:
    return secrecy.hide(value[: 2 * VALUE_CHARS_MAX])[:VALUE_CHARS_MAX]


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=_SAMPLED)
