"""One trace from a goal to its merge: spans are made of committed events, and named so that everybody finds them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from hub.core import attach
from hub.core.event import EVENT_TYPES
from hub.core.repo import Repo
from hub.core.task import Delivery, Kind, Phase, Receipt, Result, State, Verdict
from hub.engine.live import traces as module
from hub.engine.live import worker
from hub.engine.live.tallies import Tallies
from hub.engine.live.traces import Traces
from hub.engine.script import queue
from hub.rpc import translate_attach
from kit import metrics, tracing
from kit.backlog import Backlog
from tests.support.stage import DONE, Stage, offer, spec
from tests.unit.hub.test_tallies import failed, reported


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


@pytest.fixture
def spans():
    return Backlog()


@pytest.fixture
def traces(stage, spans):
    made = Traces(stage.ctx, spans)
    stage.sessions.trace = made.of_assignment
    return made


async def submitted(stage, goal=""):
    now = stage.clock.now()
    task = stage.ctx.ids.new(now)
    await stage.do(lambda txn: queue.submit(txn, task, spec(), now, actor="test", goal=goal))
    await stage.dispatch()
    return task


def test_every_event_that_ends_a_span_is_in_the_catalogue():
    named = {*module._STAYS, *module._TASK_ENDS, *module._GOAL_ENDS, *module._CHANGE_ENDS, *module._REVIVALS}
    assert named <= set(EVENT_TYPES)


async def test_a_retry_is_a_span_of_its_own_with_a_link_to_the_one_before(stage, traces, spans):
    stream = await stage.online("a1")
    task = await submitted(stage)
    stage.clock.advance(5.0)
    await reported(stage, stream, task, attach.Accepted())
    stage.clock.advance(10.0)
    await reported(stage, stream, task, failed())
    await stage.dispatch()
    await reported(stage, stream, task, attach.Accepted())
    stage.clock.advance(20.0)
    await reported(stage, stream, task, DONE)
    first, second, whole = spans
    assert [span.name for span in (first, second, whole)] == ["attempt", "attempt", "task"]
    assert len({span.trace for span in spans}) == 1
    assert (first.good, second.good, whole.good) == (False, True, True)
    assert first.parent == second.parent == whole.id
    assert (first.link, second.link) == (0, first.id)
    assert first.ended_at - first.started_at == pytest.approx(15.0), "from the assignment on: its children are inside"
    assert whole.ended_at - whole.started_at == pytest.approx(35.0, abs=0.01)
    assert first.attributes["agentcom.reason"] == "CHECK_FAILED"
    assert first.attributes["agentcom.generation"] == "1"


async def test_the_sidecar_is_told_the_span_of_its_attempt(stage, traces, spans):
    stream = await stage.online("a1")
    task = await submitted(stage)
    told = [out.body for out in await stream.next() if isinstance(out.body, attach.Assign)]
    into = translate_attach.attach_pb2.Assign()
    translate_attach.write_assign(told[0], into)
    version, trace, span, flags = into.traceparent.split("-")
    assert re.fullmatch(r"[0-9a-f]{32} [0-9a-f]{16}", f"{trace} {span}")
    assert (version, flags) == ("00", "01")
    await reported(stage, stream, task, attach.Accepted(), DONE)
    assert (int(trace, 16), int(span, 16)) == next((span.trace, span.id) for span in spans)


async def test_without_tracing_the_sidecar_is_told_nothing(stage):
    stream = await stage.online("a1")
    await submitted(stage)
    assert [out.body.traceparent for out in await stream.next() if isinstance(out.body, attach.Assign)] == [""]


async def test_all_tasks_of_a_goal_are_in_the_trace_of_the_goal(stage, traces, spans):
    now = stage.clock.now()
    goal = stage.ctx.ids.new(now)
    stream = await stage.online("a1", slots=2)
    for _ in range(2):
        await reported(stage, stream, await submitted(stage), attach.Accepted())
    await stage.do(lambda txn: txn.append(now + 60.0, "goal.succeeded", f"goals/{goal}", goal=goal))
    task = stage.ctx.ids.new(now)
    await stage.do(lambda txn: txn.append(now + 50.0, "task.dead", f"tasks/{task}", goal=goal, reason="X"))
    whole, part = spans
    assert (whole.name, whole.parent, part.name, part.parent) == ("goal", 0, "task", whole.id)
    assert whole.trace == part.trace == tracing.trace_of(goal, "")
    assert not part.good


async def test_an_assignment_that_was_not_taken_is_an_attempt_too_so_that_no_link_leads_nowhere(stage, traces, spans):
    stream = await stage.online("a1")
    task = await submitted(stage)
    stage.clock.advance(2.0)
    await reported(stage, stream, task, attach.Rejected(reason="NO_SLOT", message="all are taken"))
    (refused,) = spans
    assert (refused.name, refused.good, refused.id) == ("attempt", False, tracing.span_of(f"tasks/{task}", 1))
    assert refused.ended_at - refused.started_at == pytest.approx(2.0)
    assert refused.attributes["agentcom.outcome"] == "rejected"


async def test_what_a_dead_hub_did_not_push_is_made_again_from_the_log_with_the_same_ids(stage, traces, spans):
    stream = await stage.online("a1")
    before = stage.ctx.bus.position
    task = await submitted(stage)
    stage.clock.advance(5.0)
    await reported(stage, stream, task, attach.Accepted())
    stage.clock.advance(10.0)
    await reported(stage, stream, task, failed())
    again = Backlog()
    reborn = Traces(stage.ctx, again)
    assert len(again) == 0, "only what is asked for"
    assert reborn.replay(before) == 1
    assert list(again) == list(spans)
    assert (again.pushed, again.mark) == (before, stage.ctx.bus.position), "it counts as pushed when it is pushed"
    await stage.dispatch()
    await reported(stage, stream, task, attach.Accepted(), DONE)
    assert [span.name for span in again] == ["attempt", "attempt", "task"]
    assert len({span.id for span in again}) == 3


async def test_a_start_looks_through_a_bounded_part_of_the_log(stage, traces, spans, monkeypatch):
    monkeypatch.setattr(module, "REPLAY_MAX", 3)
    monkeypatch.setattr(module, "CHUNK", 2)
    stream = await stage.online("a1")
    for _ in range(3):
        await reported(stage, stream, await submitted(stage), attach.Accepted(), DONE)
    again = Backlog()
    assert 0 < Traces(stage.ctx, again).replay(0) < len(spans)


async def test_what_is_retried_by_hand_has_a_span_of_its_own_from_then_on(stage, traces, spans):
    stream = await stage.online("a1")
    task = await submitted(stage)
    await stage.do(lambda txn: queue.cancel(txn, task, stage.clock.now(), actor="test"))
    stage.clock.advance(100.0)
    await stage.do(lambda txn: queue.revive(txn, task, stage.clock.now(), actor="test"))
    await stage.dispatch()
    await reported(stage, stream, task, attach.Accepted(), DONE)
    first, last = (span for span in spans if span.name == "task")
    assert first.id != last.id and last.link == first.id == tracing.span_of(f"tasks/{task}")
    assert last.started_at == pytest.approx(first.ended_at + 100.0)


async def test_traces_that_are_not_kept_have_no_span_and_no_exemplar_and_the_sidecar_is_told_so(stage, spans):
    stage.sessions.trace = Traces(stage.ctx, spans, ratio=0.0).of_assignment
    stream = await stage.online("a1")
    task = await submitted(stage)
    (told,) = [out.body.traceparent for out in await stream.next() if isinstance(out.body, attach.Assign)]
    assert told.endswith("-00")
    await reported(stage, stream, task, attach.Accepted(), DONE)
    assert len(spans) == 0
    assert Traces(stage.ctx, spans, ratio=0.0).seen("", task, 1, 1.0) is None


async def test_a_measured_value_leads_to_the_trace_that_it_was_seen_in(stage, traces, spans):
    tallies = Tallies(stage.ctx, traces.seen)
    stream = await stage.online("a1")
    task = await submitted(stage)
    receipt = Receipt(check="c1", phase=Phase.HEAD, verdict=Verdict.PASS, duration_s=2.0)
    await stream.next()
    await reported(stage, stream, task, attach.Accepted(), attach.Completed(Result(receipts=(receipt,))))
    attempt, whole = spans
    of = {}
    for metric, key in (
        (metrics.WAIT, ("normal",)), (metrics.RUN, ("completed",)), (metrics.END_TO_END, ()),
        (metrics.CHECK_DURATION, ("head",)),
    ):  # fmt: skip
        (found,) = [one for one in tallies.tally.histogram(metric).spreads()[key].exemplars if one is not None]
        assert found.seen.trace == attempt.trace
        of[metric] = found.seen.span
    assert of == {
        metrics.WAIT: attempt.id,
        metrics.RUN: attempt.id,
        metrics.CHECK_DURATION: attempt.id,
        metrics.END_TO_END: whole.id,
    }


def test_names_of_spans_follow_from_what_they_are_of_and_from_nothing_else():
    assert tracing.trace_of("g1", "t1") == tracing.trace_of("g1", "t2") != tracing.trace_of("", "t1")
    spans = {tracing.span_of("tasks/t1"), tracing.span_of("tasks/t1", 1), tracing.span_of("tasks/t1", 2)}
    assert len(spans) == 3
    assert tracing.traceparent(1, 2) == f"00-{'0' * 31}1-{'0' * 15}2-01"


@pytest.mark.parametrize(
    "text",
    ["", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 32 + "-" + "0" * 16 + "-01", "ff-1-1-01", "nonsense"],
)
def test_a_trace_context_that_says_nothing_is_none(text):
    assert tracing.parse(text) is None


def test_a_trace_context_is_read_as_it_was_written():
    assert tracing.parse(tracing.traceparent(5, 7)) == tracing.Parent(5, 7, sampled=True)
    assert tracing.parse(tracing.traceparent(5, 7, sampled=False)) == tracing.Parent(5, 7, sampled=False)
    assert tracing.parse(f"01-{5:032x}-{7:016x}-01-more") == tracing.Parent(5, 7), "a later version may say more"


def test_about_as_many_traces_are_kept_as_was_asked_for():
    traces = [tracing.trace_of("", str(number)) for number in range(2_000)]
    assert 800 < sum(tracing.is_sampled(one, 0.5) for one in traces) < 1_200
    assert all(tracing.is_sampled(one, 1.0) for one in traces)
    assert not any(tracing.is_sampled(one, 0.0) for one in traces)


async def test_a_record_of_a_refused_report_says_of_what_it_is(stage, traces, monkeypatch):
    goal = stage.ctx.ids.new(stage.clock.now())
    stream = await stage.online("a1")
    task = await submitted(stage, goal=goal)
    real, failures = worker.apply, [ZeroDivisionError("a fault of ours")]

    def apply(txn, batch):
        if failures:
            raise failures.pop()
        return real(txn, batch)

    monkeypatch.setattr(worker, "apply", apply)
    with capture_logs() as records:
        await reported(stage, stream, task, attach.Accepted())
    (refused,) = [one for one in records if one["event"] == "report.refused"]
    assert (refused["task"], refused["generation"], refused["goal"]) == (task, 1, goal)
    assert refused["trace_id"] == f"{tracing.trace_of(goal, task):032x}"
    assert refused["span_id"] == f"{tracing.span_of(f'tasks/{task}', 1):016x}"


async def merging(stage, stream):
    """A task without a goal whose change is given its MERGE task; both ids."""
    await stage.do(lambda txn: txn.repos.put(Repo(id="app", url="/srv/app")))
    work = await stage.submit(repo="app", delivery=Delivery.MERGE)
    pushed = Result(summary="x", branch="agentcom/a1/x", base_sha="b" * 40, head_sha="a" * 40)
    await reported(stage, stream, work, attach.Accepted(), attach.Completed(pushed))
    await stage.dispatch()
    (held,) = stage.held("a1")
    return work, held.task


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_the_merge_of_a_task_without_a_goal_is_in_the_trace_of_that_task(stage, traces, spans, is_restarted):
    stream = await stage.online("a1", offer=offer(repos=frozenset({"app"}), kinds=frozenset({Kind.WORK, Kind.MERGE})))
    work, merge = await merging(stage, stream)
    if is_restarted:
        stage.sessions.trace = Traces(stage.ctx, Backlog()).of_assignment  # it looks into the trains
    told = stage.sessions.trace(stage.task(merge))
    assert tracing.parse(told).trace == tracing.trace_of("", work)
    await reported(stage, stream, merge, attach.Accepted(), attach.Completed(Result(summary="x", merge_sha="c" * 40)))
    assert stage.task(work).state is State.SUCCEEDED
    assert {span.trace for span in spans} == {tracing.trace_of("", work)}
    by_id = {span.id: span for span in spans}
    (change,) = [span for span in spans if span.name == "change"]
    (brought_in,) = [span for span in spans if span.id == tracing.span_of(f"tasks/{merge}")]
    assert by_id[brought_in.parent] is change
    assert by_id[change.parent].id == tracing.span_of(f"tasks/{work}")
    assert by_id[change.link].name == "attempt"
    assert traces._authors == {}, "nothing is kept of what has ended"
