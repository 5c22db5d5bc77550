"""What a sidecar counts, the spans of an attempt, and that they belong to the hub's span of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from kit import clock, errors, metrics, promtext, tracing
from kit.telemetry import TelemetryConfig
from sidecar import telemetry
from sidecar.core.assignment import Assignment, Done, Failure, Holding, NotDone
from sidecar.core.meter import NOBODY
from sidecar.core.slots import Slots
from sidecar.core.trail import Trail

PARENT = tracing.Parent(trace=0xA, span=0xB)
HOLDING = Holding(task="t1", generation=2)


def assignment(parent: tracing.Parent = PARENT) -> Assignment:
    told = tracing.traceparent(parent.trace, parent.span, sampled=parent.sampled)
    return Assignment(holding=HOLDING, title="x", traceparent=told)


class Told:
    """A trail whose spans are kept."""

    def __init__(self, parent: tracing.Parent | None = PARENT) -> None:
        self.time = clock.ManualClock()
        self.spans: list[tracing.Span] = []
        self.trail = Trail(parent, self.time.now, self.spans.append)


def test_a_phase_ends_when_the_next_begins_and_all_are_below_the_attempt():
    told = Told()
    told.trail.enter("workspace")
    told.time.advance(3.0)
    told.trail.enter("execute")
    told.trail.leave(good=False, reason="TIMEOUT")
    first, second = told.spans
    assert (first.name, first.ended_at - first.started_at, first.good) == ("workspace", pytest.approx(3.0), True)
    assert (second.name, second.good, second.attributes) == ("execute", False, {"agentcom.reason": "TIMEOUT"})
    assert {(one.trace, one.parent) for one in told.spans} == {(0xA, 0xB)}
    assert first.id != second.id


def test_a_phase_that_comes_again_is_another_span():
    told = Told()
    for _ in range(3):
        told.trail.enter("checks")
    told.trail.leave(good=True)
    assert len({one.id for one in told.spans}) == 3


def test_what_happens_inside_of_a_phase_is_below_it_and_not_good_when_it_raises():
    told = Told()
    told.trail.enter("checks")
    with pytest.raises(KeyError), told.trail.inside("check", check="c1"):
        raise KeyError
    with told.trail.inside("check", check="c2") as step:
        assert step is not None
        step.good = False
    told.trail.leave(good=True)
    one, two, phase = told.spans
    assert one.parent == two.parent == phase.id
    assert (one.good, two.good, phase.good) == (False, False, True)
    assert one.attributes == {"agentcom.check": "c1"}


def test_a_child_is_told_the_innermost_span():
    told = Told()
    assert told.trail.traceparent == tracing.traceparent(0xA, 0xB)
    told.trail.enter("execute")
    inner = told.trail.traceparent
    with told.trail.inside("check"):
        assert told.trail.traceparent != inner
    assert told.trail.traceparent == inner
    told.trail.leave(good=True)
    assert inner == tracing.traceparent(0xA, told.spans[-1].id)


@pytest.mark.parametrize("parent", [None, PARENT._replace(sampled=False)])
def test_where_nobody_traces_or_the_hub_does_not_keep_it_there_are_no_spans(parent):
    told = Told(parent)
    told.trail.enter("execute")
    with told.trail.inside("check") as step:
        assert step is None
    told.trail.leave(good=True)
    assert told.spans == []
    expected = "" if parent is None else tracing.traceparent(0xA, 0xB, sampled=False)
    assert told.trail.traceparent == expected, "a child is told all the same, and that it is not kept"


def test_without_telemetry_a_child_is_told_the_attempts_span():
    trail = NOBODY.trail(assignment())
    trail.enter("execute")
    assert trail.traceparent == assignment().traceparent


def test_a_traceparent_of_nonsense_is_no_trace(manual):
    assert manual.trail(Assignment(holding=HOLDING, title="x", traceparent="$(reboot)")).traceparent == ""


@pytest.fixture
def time():
    return clock.ManualClock()


@pytest.fixture
def manual(time, tmp_path):
    config = TelemetryConfig(
        prometheus_listen="127.0.0.1:0", otlp_endpoint="http://127.0.0.1:1", otlp_traces=True, otlp_every_s=3_600.0
    )
    made = telemetry.Telemetry(config, telemetry.Who("1", "ada"), time)
    made._seen = telemetry.Seen(Slots(3), lambda: 77, tmp_path)
    return made


def samples(made: telemetry.Telemetry, accept: str = "application/openmetrics-text; version=1.0.0"):
    page = promtext.Page(made.snapshot).answer(f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n")
    families = text_string_to_metric_families(page.partition(b"\r\n\r\n")[2].decode())
    return {(one.name, *one.labels.values()): one for family in families for one in family.samples}


def test_everything_that_a_sidecar_does_is_counted(manual, time):
    manual.attached(resumed=False)
    manual.beat()
    time.advance(0.25)
    manual.answered()
    manual.answered()  # the hub says what ought to be without being asked, too
    manual.detached()
    manual.attached(resumed=True)
    manual.git("fetch", 2.0, good=False)
    manual.git("no-such-word", 0.1, good=True)
    manual.begun(assignment())
    manual.checked("head", "pass", 4.0, where=assignment().traceparent)
    manual.executed("shell", 5.0, good=True)
    manual.executed("a-new-one", 5.0, good=True)
    time.advance(10.0)
    manual.ended(assignment(), Done(summary="x"))
    failure = Failure(reason="X", message="x", attribution="task")
    manual.ended(assignment(), NotDone(failure=failure))
    manual.ended(assignment(), NotDone(failure=failure, stopped=True))
    found = {key: one.value for key, one in samples(manual).items()}
    attempts = {key[1:]: value for key, value in found.items() if key[0] == "agentcom_sidecar_attempts_total" and value}
    assert attempts == {("work", "completed"): 1, ("work", "failed"): 1, ("work", "stopped"): 1}
    assert found["agentcom_sidecar_attempt_run_seconds_sum", "work"] == pytest.approx(10.0)
    assert found["agentcom_sidecar_heartbeat_round_trip_seconds_count",] == 1
    assert found["agentcom_sidecar_heartbeat_round_trip_seconds_sum",] == pytest.approx(0.25)
    assert found["agentcom_sidecar_session_opened_total", "new"] == 1
    assert found["agentcom_sidecar_session_opened_total", "resumed"] == 1
    assert found["agentcom_sidecar_session_lost_total",] == 1
    assert found["agentcom_sidecar_git_failures_total", "fetch"] == 1
    assert found["agentcom_sidecar_git_duration_seconds_count", "other"] == 1
    assert found["agentcom_sidecar_check_runs_total", "head", "pass"] == 1
    assert found["agentcom_sidecar_executor_run_seconds_count", "shell", "completed"] == 1
    assert found["agentcom_sidecar_executor_run_seconds_count", "unknown", "unknown"] == 1
    assert found["agentcom_sidecar_slots",] == 3
    assert found["agentcom_sidecar_slots_used",] == 0
    assert found["agentcom_sidecar_journal_size_bytes",] == 77
    assert found["agentcom_sidecar_disk_free_bytes",] > 0


def test_every_metric_of_a_sidecar_is_on_its_page_and_none_of_the_hubs(manual):
    told = {name.removesuffix("_total").removesuffix("_count") for name, *_ in samples(manual)}
    own = {one.prometheus for one in metrics.CATALOGUE if "sidecar" in one.node}
    assert own <= told
    assert not {one.prometheus for one in metrics.CATALOGUE if one.node == "hub"} & told


def test_a_measured_value_leads_to_its_trace_where_the_monitor_asks_for_exemplars(manual):
    manual.checked("head", "pass", 4.0, where=assignment().traceparent)
    exemplars = [one.exemplar for one in samples(manual).values() if one.exemplar is not None]
    assert [(one.labels, one.value) for one in exemplars] == [
        ({"trace_id": f"{0xA:032x}", "span_id": f"{0xB:016x}"}, 4.0)
    ]
    plain = promtext.Page(manual.snapshot).answer("GET /metrics HTTP/1.1\r\n\r\n")
    assert b"version=0.0.4" in plain and b"trace_id" not in plain


def test_telling_the_outcome_is_a_span_from_the_journal_to_the_ack(manual, time):
    manual.ended(assignment(), Done(summary="x"))
    time.advance(7.0)
    manual.settled(HOLDING, acked=True)
    (report,) = manual.outlet.spans
    assert (report.name, report.parent, report.good) == ("report", 0xB, True)
    assert report.ended_at - report.started_at == pytest.approx(7.0)
    manual.settled(HOLDING, acked=True)
    manual.settled(Holding(task="t2", generation=1), acked=False)
    assert len(manual.outlet.spans) == 1


def test_outcomes_that_are_never_settled_are_bounded(manual):
    for number in range(1_000):
        holding = Holding(task=f"t{number}", generation=1)
        manual.ended(Assignment(holding=holding, title="x", traceparent=assignment().traceparent), Done(summary="x"))
    assert len(manual._telling) == 256


def test_without_configuration_there_is_nobody_to_tell(time):
    made = telemetry.of(TelemetryConfig(), telemetry.Who("1", "ada"), time)
    assert made is None
    assert telemetry.meter_of(made) is NOBODY


async def test_a_page_whose_port_is_taken_is_said(tmp_path):
    manual = telemetry.Telemetry(
        TelemetryConfig(prometheus_listen="127.0.0.1:0"), telemetry.Who("1", "ada"), clock.ManualClock()
    )
    await manual.start(telemetry.Seen(Slots(1), lambda: 0, Path(tmp_path)))
    taken = TelemetryConfig(prometheus_listen=manual.address, otlp_endpoint="http://127.0.0.1:1")
    other = telemetry.Telemetry(taken, telemetry.Who("1", "eve"), clock.ManualClock())
    with pytest.raises(errors.Unavailable, match="cannot listen"):
        await other.start(telemetry.Seen(Slots(1), lambda: 0, Path(tmp_path)))
    await other.stop()  # although its push was never begun
    await manual.stop()
