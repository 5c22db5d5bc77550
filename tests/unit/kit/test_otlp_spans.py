"""Spans on their way to a collector: no secret goes with them, and none is lost by a push that failed."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from kit import otlp_spans, tokens
from kit.backlog import Backlog
from kit.tracing import Span

RESOURCE, SCOPE = Resource({"service.name": "x"}), InstrumentationScope("agentcom", "1")


class Collector(SpanExporter):
    """Takes what it is given, or does not."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.taken: list[str] = []

    def export(self, spans):
        answer = self.answers.pop(0) if self.answers else SpanExportResult.SUCCESS
        if isinstance(answer, Exception):
            raise answer
        if answer is SpanExportResult.SUCCESS:
            self.taken += [span.name for span in spans]
        return answer


def waiting(*names: str) -> Backlog:
    made = Backlog(10)
    for number, name in enumerate(names, 1):
        made.add(Span(1, number, 0, name, 0.0, 1.0, good=True, attributes={}))
    made.mark = len(names)
    return made


def test_what_looks_like_a_secret_is_not_told_and_a_long_text_is_cut():
    token = tokens.new_token()
    told = {"agentcom.reason": f"sent {token} to https://bob:hunter2@example.org/x", "long": "x" * 10_000}
    made = otlp_spans.readable(Span(1, 2, 0, "x", 0.0, 1.0, good=False, attributes=told), RESOURCE, SCOPE)
    text = str(made.attributes)
    assert token not in text and "hunter2" not in text
    assert len(made.attributes["long"]) == otlp_spans.VALUE_CHARS_MAX


def test_a_secret_across_the_cut_does_not_slip_through():
    token = tokens.new_token()
    told = {"a": "x" * (otlp_spans.VALUE_CHARS_MAX - 10) + " " + token}
    made = otlp_spans.readable(Span(1, 2, 0, "x", 0.0, 1.0, good=False, attributes=told), RESOURCE, SCOPE)
    assert token[:9] not in made.attributes["a"]


def test_when_all_are_out_it_is_known_how_far_they_came():
    spans, collector = waiting("a", "b", "c"), Collector()
    assert otlp_spans.push(spans, collector, RESOURCE, SCOPE)
    assert (collector.taken, spans.pushed, len(spans)) == (["a", "b", "c"], 3, 0)


def test_what_a_collector_does_not_take_waits_for_the_next_push():
    spans, collector = waiting("a", "b"), Collector(SpanExportResult.FAILURE)
    assert not otlp_spans.push(spans, collector, RESOURCE, SCOPE)
    assert (len(spans), spans.pushed, spans.dropped) == (2, 0, 0)
    assert otlp_spans.push(spans, collector, RESOURCE, SCOPE)
    assert (collector.taken, spans.pushed) == (["a", "b"], 2)


def test_a_library_that_fails_costs_no_span(monkeypatch):
    monkeypatch.setattr(otlp_spans, "BATCH", 1)
    spans, collector = waiting("a", "b"), Collector(SpanExportResult.SUCCESS, RuntimeError("a fault of a library"))
    with pytest.raises(RuntimeError):
        otlp_spans.push(spans, collector, RESOURCE, SCOPE)
    assert (collector.taken, [one.name for one in spans], spans.pushed) == (["a"], ["b"], 0)
