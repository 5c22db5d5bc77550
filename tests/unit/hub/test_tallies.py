"""What the engine counts for the metrics: it follows the committed events, and what passes by."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hub.core import attach
from hub.core.attach import Report
from hub.core.event import EVENT_TYPES
from hub.core.holding import Holding
from hub.core.task import Attribution, Failure, Lane, Phase, Receipt, Result, State, Verdict
from hub.engine.live import tallies as module
from hub.engine.live.session import Sequenced
from hub.engine.live.tallies import Tallies
from hub.engine.script import queue
from kit import metrics
from tests.support.stage import DONE, Stage, spec


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


@pytest.fixture
def tallies(stage):
    return Tallies(stage.ctx)


def count(tallies, metric, *key):
    return tallies.tally.counter(metric).cells[key]


def spread(tallies, metric, *key):
    return tallies.tally.histogram(metric).spreads()[key]


async def reported(stage, stream, task, *outcomes):
    """What a sidecar says of the task that it holds arrives and is applied."""
    holding = Holding(task, stage.task(task).generation)
    for outcome in outcomes:
        await stream.session.receive(stream, Sequenced(stream.session.inbox.applied + 1, Report(holding, outcome)))
    await stream.reports.put(None)
    await stage.worker.pump(stream)


def failed(attribution=Attribution.TASK, **more):
    return attach.Failed(failure=Failure(reason="CHECK_FAILED", attribution=attribution), **more)


def test_every_event_that_is_counted_is_in_the_catalogue_of_events():
    assert {*module._PLAIN, *module._SPLIT, *module._STAYS, *module._BEFORE, *module._OUTCOMES} <= set(EVENT_TYPES)


async def test_a_task_is_counted_from_its_filing_to_its_end(stage, tallies):
    stream = await stage.online("a1")
    now = stage.clock.now()
    task = stage.ctx.ids.new(now)
    await stage.do(lambda txn: queue.submit(txn, task, spec(lane=Lane.HIGH), now, actor="test"))
    stage.clock.advance(7.0)
    await stage.dispatch()
    stage.clock.advance(1.0)
    await reported(stage, stream, task, attach.Accepted())
    stage.clock.advance(100.0)
    await reported(stage, stream, task, DONE)
    assert stage.state(task) is State.SUCCEEDED
    assert count(tallies, metrics.SUBMITTED) == count(tallies, metrics.ASSIGNED) == 1
    assert count(tallies, metrics.RETRIED) == 0
    assert count(tallies, metrics.TASK_ENDED, "succeeded") == 1
    assert (spread(tallies, metrics.WAIT, "high").size, spread(tallies, metrics.WAIT, "high").total) == (1, 7.0)
    assert spread(tallies, metrics.WAIT, "high").exemplars == (), "nobody traces"
    assert spread(tallies, metrics.RUN, "completed").total == pytest.approx(100.0)
    assert spread(tallies, metrics.END_TO_END).total == pytest.approx(108.0, abs=0.01)


async def test_a_failure_counts_once_by_its_fault_and_its_next_assignment_as_a_retry(stage, tallies):
    stream = await stage.online("a1")
    task = await stage.submit()
    await reported(stage, stream, task, attach.Accepted())
    stage.clock.advance(20.0)
    await reported(stage, stream, task, failed())
    await stage.dispatch()
    assert stage.task(task).generation == 2
    assert count(tallies, metrics.FAILED, "task") == 1
    assert count(tallies, metrics.RETRIED) == 1
    assert spread(tallies, metrics.RUN, "failed").total == pytest.approx(20.0)
    assert spread(tallies, metrics.RUN, "returned").size == 0


async def test_a_dead_letter_counts_by_its_fault(stage, tallies):
    stream = await stage.online("a1")
    task = await stage.submit(attempts_max=1)
    await reported(stage, stream, task, attach.Accepted(), failed())
    assert stage.state(task) is State.DEAD
    assert count(tallies, metrics.DEAD, "task") == count(tallies, metrics.TASK_ENDED, "dead") == 1
    assert spread(tallies, metrics.END_TO_END).size == 0


async def test_checks_count_by_phase_and_verdict_whether_the_attempt_succeeds_or_not(stage, tallies):
    stream = await stage.online("a1", slots=2)
    good, bad = await stage.submit(), await stage.submit()
    red = Receipt(check="c1", phase=Phase.BASE, verdict=Verdict.FAIL, duration_s=2.0)
    green = Receipt(check="c1", phase=Phase.HEAD, verdict=Verdict.PASS, duration_s=3.0)
    odd = Receipt(check="c2")
    await reported(stage, stream, good, attach.Completed(Result(receipts=(red, green))))
    await reported(stage, stream, bad, failed(receipts=(red, odd)))
    assert count(tallies, metrics.CHECKS, "base", "fail") == 2
    assert count(tallies, metrics.CHECKS, "head", "pass") == 1
    assert count(tallies, metrics.CHECKS, metrics.UNKNOWN, metrics.UNKNOWN) == 1
    assert spread(tallies, metrics.CHECK_DURATION, "base").total == pytest.approx(4.0)


async def test_checks_of_a_report_that_is_said_twice_or_fenced_count_once(stage, tallies):
    stream = await stage.online("a1")
    task = await stage.submit()
    green = Receipt(check="c1", phase=Phase.HEAD, verdict=Verdict.PASS)
    done = attach.Completed(Result(receipts=(green,)))
    await reported(stage, stream, task, done, done)
    late = Report(Holding(task, 9), done)
    await stream.session.receive(stream, Sequenced(stream.session.inbox.applied + 1, late))
    await stream.reports.put(None)
    await stage.worker.pump(stream)
    assert count(tallies, metrics.CHECKS, "head", "pass") == 1
    assert count(tallies, metrics.FENCED) == 1


async def test_what_is_cancelled_while_it_runs_is_neither_completed_nor_failed(stage, tallies):
    stream = await stage.online("a1")
    task = await stage.submit()
    await reported(stage, stream, task, attach.Accepted())
    await stage.do(lambda txn: queue.cancel(txn, task, stage.clock.now(), actor="test"))
    assert spread(tallies, metrics.RUN, "returned").size == 1
    assert count(tallies, metrics.TASK_ENDED, "cancelled") == 1


async def test_a_reconnect_is_told_apart_from_a_new_session(stage, tallies):
    stream = await stage.online("a1")
    stage.sessions.close(stream, "test")
    await stage.sessions.flush(stage.clock.now())
    await stage.online("a1", session=stream.session.id)
    assert count(tallies, metrics.SESSION_OPENED, "new") == 1
    assert count(tallies, metrics.SESSION_OPENED, "resumed") == 1
    assert count(tallies, metrics.SESSION_ENDED) == 1


async def test_the_run_of_an_attempt_that_began_before_the_hub_did_is_counted_in_full(stage):
    stream = await stage.online("a1")
    task = await stage.submit()
    await reported(stage, stream, task, attach.Accepted())
    stage.clock.advance(50.0)
    later = Tallies(stage.ctx)
    stage.clock.advance(10.0)
    await reported(stage, stream, task, DONE)
    assert spread(later, metrics.RUN, "completed").total == pytest.approx(60.0)


async def test_what_is_remembered_of_running_attempts_is_bounded_and_forgotten(stage, tallies, monkeypatch):
    monkeypatch.setattr(module, "RUNNING_MAX", 2)
    stream = await stage.online("a1", slots=4)
    tasks = [await stage.submit() for _ in range(4)]
    for task in tasks:
        await reported(stage, stream, task, attach.Accepted())
    assert len(tallies._accepted) == 2
    for task in tasks:
        await reported(stage, stream, task, DONE)
    assert tallies._accepted == {}
    assert spread(tallies, metrics.RUN, "completed").size == 2
    assert count(tallies, metrics.TASK_ENDED, "succeeded") == 4


async def test_the_time_of_the_dispatcher_is_taken_also_when_it_fails(tallies):
    async def fails(_now):
        raise ValueError("x")

    with pytest.raises(ValueError):
        await tallies.timed(fails)(0.0)
    assert spread(tallies, metrics.DISPATCH).size == 1
