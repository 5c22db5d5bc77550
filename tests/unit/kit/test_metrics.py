"""The catalogue is sound, the tally counts what it is told within its bounds, and both forms tell the same."""

from __future__ import annotations

import math
import re

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.parser import text_string_to_metric_families

from hub.core import change, goal, task
from hub.core.agent import State as AgentState
from hub.core.alerts import alert
from hub.core.alerts import rule as alert_rule
from hub.engine.desk.hubstate import State as HubState
from kit import metrics, otlp, promtext, tally
from kit.metrics import CATALOGUE, Kind

NAME = re.compile(r"agentcom(\.[a-z][a-z_]*)+")
UNIT = re.compile(r"s|By|1|\{[a-z]+\}")
SERIES_MAX = 100
"""Of one metric, as a page for Prometheus counts: a bucket is a series."""


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda one: one.name)
def test_an_entry_has_a_name_a_unit_a_sentence_and_few_series(metric):
    assert NAME.fullmatch(metric.name)
    assert UNIT.fullmatch(metric.unit)
    assert metric.meaning.endswith(".")
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.bounds)
    assert list(metric.bounds) == sorted(set(metric.bounds))
    assert len(list(metric.series)) * (len(metric.bounds) + 3 if metric.bounds else 1) <= SERIES_MAX


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda one: one.name)
def test_no_attribute_is_an_id(metric):
    for attribute in metric.attributes:
        assert attribute.name not in {"task", "goal", "agent", "repo", "session", "change", "id", "name", "principal"}
        assert 1 < len(attribute.values) <= 16


def test_names_are_unique_in_both_spellings():
    assert len({one.name for one in CATALOGUE}) == len(CATALOGUE)
    assert len({one.prometheus for one in CATALOGUE}) == len(CATALOGUE)


def names(states):
    return tuple(one.name.lower() for one in states)


def test_the_values_of_attributes_are_those_of_the_tables():
    assert metrics.LANE.values == names(task.Lane)
    assert metrics.STATE.values == names(task.State)
    assert metrics.ATTRIBUTION.values == names(task.Attribution)
    assert metrics.PHASE.values == names(task.Phase)
    assert metrics.VERDICT.values == names(task.Verdict)
    assert set(metrics.TASK_END.values) == set(names(task.FINAL))
    assert set(metrics.GOAL_END.values) == set(names(goal.FINAL))
    assert set(metrics.CHANGE_END.values) == set(names(change.FINAL))
    assert set(metrics.AGENT_STATE.values) == set(names(AgentState))
    assert metrics.SEVERITY.values == names(alert.Severity)
    assert metrics.ALERT_RULE.values == tuple(alert_rule.BY_ID)
    assert metrics.HUB_STATE.values == names(HubState)


def test_a_counter_begins_at_zero_for_every_series_and_counts():
    counter = tally.Counter(metrics.FAILED)
    assert counter.cells == {(value,): 0 for value in metrics.ATTRIBUTION.values}
    counter.add("agent")
    counter.add("agent", by=2)
    assert counter.cells["agent",] == 3


def test_values_that_are_not_in_the_catalogue_are_one_series():
    counter, histogram = tally.Counter(metrics.FAILED), tally.Histogram(metrics.WAIT)
    for number in range(1_000):
        counter.add(f"fault {number}")
        histogram.observe(1.0, f"lane {number}")
    assert counter.cells[metrics.UNKNOWN,] == 1_000
    assert len(counter.cells) == len(metrics.ATTRIBUTION.values) + 1
    assert histogram.spreads()[metrics.UNKNOWN,].size == 1_000
    assert len(histogram.spreads()) == len(metrics.LANE.values) + 1


def test_a_value_falls_into_the_first_bucket_that_is_not_below_it():
    histogram = tally.Histogram(metrics.END_TO_END)
    bounds = metrics.END_TO_END.bounds
    for value in (*bounds, -5.0, math.nextafter(bounds[0], math.inf), bounds[-1] + 1):
        histogram.observe(value)
    spread = histogram.spreads()[()]
    assert spread.counts == (2, 2, *[1] * (len(bounds) - 2), 1)
    assert spread.size == len(bounds) + 3
    assert spread.total == pytest.approx(sum(bounds) + bounds[0] + bounds[-1] + 1)


def filled() -> tally.Snapshot:
    made = tally.Tally(started_at=1_000.0)
    made.counter(metrics.FAILED).add("agent", by=3)
    made.histogram(metrics.WAIT).observe(0.01, "high")
    made.histogram(metrics.WAIT).observe(70.0, "high")
    given = {metrics.SLOTS: 4.0, metrics.UTILISATION: 0.25, metrics.STORE_USED: 4096}
    return made.snapshot(1_060.0, {metric: {(): value} for metric, value in given.items()})


def test_a_snapshot_does_not_change_when_more_is_counted():
    made = tally.Tally(started_at=0.0)
    counter = made.counter(metrics.FENCED)
    before = made.snapshot(1.0, {})
    counter.add()
    assert before.families[0].numbers == {(): 0}
    assert made.snapshot(2.0, {}).families[0].numbers == {(): 1}


def test_what_prometheus_reads_is_what_was_counted():
    page = promtext.Page(filled)
    head, _, body = page.answer("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert found["agentcom_attempt_failed_total", "agent"] == 3
    assert found["agentcom_attempt_failed_total", "task"] == 0
    assert found["agentcom_slots",] == 4
    assert found["agentcom_slots_utilisation_ratio",] == 0.25
    assert found["agentcom_store_used_bytes",] == 4096
    assert found["agentcom_task_wait_seconds_count", "high"] == 2
    assert found["agentcom_task_wait_seconds_sum", "high"] == pytest.approx(70.01)
    assert found["agentcom_task_wait_seconds_bucket", "high", "0.02"] == 1
    assert found["agentcom_task_wait_seconds_bucket", "high", "+Inf"] == 2


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", b"404"),
        ("GET /metrics/../x HTTP/1.1", b"404"),
        ("POST /metrics HTTP/1.1", b"405"),
        ("GET /metrics?name[]=x HTTP/1.0", b"200"),
        ("\0\0\0", b"404"),
    ],
)
def test_anything_but_the_page_is_refused(request_line, status):
    assert promtext.Page(filled).answer(f"{request_line}\r\n\r\n").split(b" ")[1] == status


def test_a_head_request_has_no_body():
    assert promtext.Page(filled).answer("HEAD /metrics HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_openmetrics_is_told_to_who_asks_for_it():
    asked = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    assert promtext.Page(filled).answer(asked).endswith(b"# EOF\n")


def test_what_a_collector_reads_is_what_was_counted():
    data = otlp.data(filled(), Resource({"service.name": "x"}), InstrumentationScope("agentcom", "1"))
    encoded = encode_metrics(data).resource_metrics[0].scope_metrics[0].metrics
    found = {metric.name: metric for metric in encoded}
    failed = found["agentcom.attempt.failed"].sum
    assert failed.is_monotonic
    assert failed.aggregation_temporality == 2  # cumulative
    assert {point.attributes[0].value.string_value: point.as_int for point in failed.data_points}["agent"] == 3
    assert failed.data_points[0].start_time_unix_nano == 1_000_000_000_000
    assert failed.data_points[0].time_unix_nano == 1_060_000_000_000
    assert found["agentcom.slots.utilisation"].gauge.data_points[0].as_double == 0.25
    assert found["agentcom.slots.utilisation"].unit == "1"
    wait = {
        point.attributes[0].value.string_value: point for point in found["agentcom.task.wait"].histogram.data_points
    }
    assert wait["high"].count == 2
    assert list(wait["high"].explicit_bounds) == list(metrics.WAIT.bounds)
    assert sum(wait["high"].bucket_counts) == 2
    assert wait["low"].count == 0
    assert not wait["high"].HasField("max")


def seen_twice() -> tally.Snapshot:
    made = tally.Tally(started_at=1_000.0)
    made.histogram(metrics.WAIT).observe(0.01, "high", seen=tally.Seen(1_010.0, 0xA, 0xB))
    made.histogram(metrics.WAIT).observe(0.011, "high", seen=tally.Seen(1_020.0, 0xC, 0xD))
    made.histogram(metrics.WAIT).observe(70.0, "high", seen=tally.Seen(1_030.0, 0xE, 0xF))
    made.histogram(metrics.WAIT).observe(71.0, "high")
    return made.snapshot(1_060.0, {})


def exemplars_of(exemplars_after: float = 0.0) -> dict[int, tuple[int, float]]:
    data = otlp.data(seen_twice(), Resource({}), InstrumentationScope("agentcom", "1"), exemplars_after)
    points = encode_metrics(data).resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points
    return {
        int.from_bytes(one.trace_id, "big"): (int.from_bytes(one.span_id, "big"), one.as_double)
        for point in points
        for one in point.exemplars
    }


def test_each_bucket_keeps_where_its_newest_value_was_seen():
    assert exemplars_of() == {0xC: (0xD, 0.011), 0xE: (0xF, 70.0)}


def test_an_exemplar_is_told_to_a_collector_once():
    assert exemplars_of(exemplars_after=1_020.0) == {0xE: (0xF, 70.0)}


def test_every_metric_is_told_by_a_program_that_is_known():
    assert {one.node for one in metrics.CATALOGUE} == {"hub", "sidecar", "hub, sidecar"}
