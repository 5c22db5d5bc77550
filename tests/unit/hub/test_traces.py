"""One trace from a goal to its merge: spans are made of committed events, and named so that everybody finds them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from hub.core import attach
from hub.core.event import EVENT_TYPES
from hub.engine.live import traces as module
from hub.engine.live.traces import Traces
from hub.engine.script import queue
from hub.rpc import translate_attach
from kit import tracing
from tests.support.stage import DONE, Stage, spec
from tests.unit.hub.test_tallies import failed, reported


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


@pytest.fixture
def traces(stage):
    made = Traces(stage.ctx)
    stage.sessions.trace = made.of_assignment
    return made


async def submitted(stage, goal=""):
    now = stage.clock.now()
    task = stage.ctx.ids.new(now)
    await stage.do(lambda txn: queue.submit(txn, task, spec(), now, actor="test", goal=goal))
    await stage.dispatch()
    return task


def test_every_event_that_ends_a_span_is_in_the_catalogue():
    assert {*module._STAYS, *module._TASK_ENDS, *module._GOAL_ENDS, *module._GOOD} <= set(EVENT_TYPES)


async def test_a_retry_is_a_span_of_its_own_with_a_link_to_the_one_before(stage, traces):
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
    first, second, whole = traces.ended
    assert [span.name for span in (first, second, whole)] == ["attempt", "attempt", "task"]
    assert len({span.trace for span in traces.ended}) == 1
    assert (first.good, second.good, whole.good) == (False, True, True)
    assert first.parent == second.parent == whole.id
    assert (first.link, second.link) == (0, first.id)
    assert first.ended_at - first.started_at == pytest.approx(10.0)
    assert whole.ended_at - whole.started_at == pytest.approx(35.0, abs=0.01)
    assert first.attributes["agentcom.reason"] == "CHECK_FAILED"
    assert first.attributes["agentcom.generation"] == "1"


async def test_the_sidecar_is_told_the_span_of_its_attempt(stage, traces):
    stream = await stage.online("a1")
    task = await submitted(stage)
    told = [out.body for out in await stream.next() if isinstance(out.body, attach.Assign)]
    into = translate_attach.attach_pb2.Assign()
    translate_attach.write_assign(told[0], into)
    version, trace, span, flags = into.traceparent.split("-")
    assert re.fullmatch(r"[0-9a-f]{32} [0-9a-f]{16}", f"{trace} {span}")
    assert (version, flags) == ("00", "01")
    await reported(stage, stream, task, attach.Accepted(), DONE)
    assert (int(trace, 16), int(span, 16)) == (traces.ended[0].trace, traces.ended[0].id)


async def test_without_tracing_the_sidecar_is_told_nothing(stage):
    stream = await stage.online("a1")
    await submitted(stage)
    assert [out.body.traceparent for out in await stream.next() if isinstance(out.body, attach.Assign)] == [""]


async def test_all_tasks_of_a_goal_are_in_the_trace_of_the_goal(stage, traces):
    now = stage.clock.now()
    goal = stage.ctx.ids.new(now)
    stream = await stage.online("a1", slots=2)
    for _ in range(2):
        await reported(stage, stream, await submitted(stage), attach.Accepted())
    await stage.do(lambda txn: txn.append(now + 60.0, "goal.succeeded", f"goals/{goal}", goal=goal))
    task = stage.ctx.ids.new(now)
    await stage.do(lambda txn: txn.append(now + 50.0, "task.dead", f"tasks/{task}", goal=goal, reason="X"))
    whole, part = traces.ended
    assert (whole.name, whole.parent, part.name, part.parent) == ("goal", 0, "task", whole.id)
    assert whole.trace == part.trace == tracing.trace_of(goal, "")
    assert not part.good


async def test_spans_that_nobody_takes_and_attempts_that_nobody_ends_are_bounded(stage, traces, monkeypatch):
    monkeypatch.setattr(module, "BEGUN_MAX", 1)
    assert traces.ended.maxlen == module.SPANS_MAX
    stream = await stage.online("a1", slots=2)
    tasks = [await submitted(stage) for _ in range(2)]
    for task in tasks:
        await reported(stage, stream, task, attach.Accepted())
    assert len(traces._begun) == 1
    for task in tasks:
        await reported(stage, stream, task, DONE)
    assert traces._begun == {}
    assert [span.name for span in traces.ended] == ["attempt", "task", "task"]


def test_names_of_spans_follow_from_what_they_are_of_and_from_nothing_else():
    assert tracing.trace_of("g1", "t1") == tracing.trace_of("g1", "t2") != tracing.trace_of("", "t1")
    spans = {tracing.span_of("tasks/t1"), tracing.span_of("tasks/t1", 1), tracing.span_of("tasks/t1", 2)}
    assert len(spans) == 3
    assert tracing.traceparent(1, 2) == f"00-{'0' * 31}1-{'0' * 15}2-01"
