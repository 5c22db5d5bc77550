"""Sessions without a wire: heartbeats, leases, losses, and what the sidecar is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hub.core import attach
from hub.core.agent import State as AgentState
from hub.core.agent_state import derive
from hub.core.attach import Heartbeat, Progress, Report
from hub.core.event import Event
from hub.core.holding import Holding
from hub.core.task import Attribution, Check, Failure, State
from hub.engine.live.session import Sequenced, Stream
from hub.engine.script import agents, queue, work
from hub.store.lmdb import LmdbStore
from kit import errors
from tests.support.stage import DONE, PASSED, Stage

HOUR = 3600.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


async def said(stream: Stream) -> list[Any]:
    """The bodies that are to be written now."""
    return [out.body for out in await stream.next()]


async def beat(stage: Stage, stream: Stream, *holdings: Holding, **fields: Any) -> attach.Desired:
    stage.sessions.heard(stream.session, stream.session.outbox.last)
    await stage.sessions.heartbeat(stream.session, Heartbeat(holdings=holdings, **fields))
    desired = [body for body in await said(stream) if isinstance(body, attach.Desired)]
    return desired[-1]


async def reported(stage: Stage, stream: Stream, *reports: Report | attach.Goodbye) -> None:
    for report in reports:
        await stream.session.receive(stream, Sequenced(stream.session.inbox.applied + 1, report))
    await stream.reports.put(None)
    await stage.worker.pump(stream)


async def working(stage: Stage, stream: Stream, **changes: Any) -> Holding:
    """A task that the agent of this stream has accepted."""
    holding = Holding(await stage.submit(**changes), 1)
    assert stage.held(stream.session.agent).count(holding) == 1
    await reported(stage, stream, Report(holding, attach.Accepted()))
    await beat(stage, stream, holding, progress=(Progress(phase="execute"),))
    return holding


def state(stage: Stage, agent: str) -> AgentState:
    return derive(stage.dispatcher.fleet.seat(agent).facts(stage.clock.now()))


async def test_the_welcome_is_the_first_word_and_names_pace_and_lease(stage: Stage) -> None:
    stream = await stage.online("a1")
    await stage.submit()
    welcome, assign = await said(stream)
    assert isinstance(welcome, attach.Welcome)
    assert 9.0 <= welcome.heartbeat_s <= 10.0
    assert welcome.lease_s == 30.0
    assert isinstance(assign, attach.Assign)


async def test_a_heartbeat_writes_nothing_to_the_store(stage: Stage) -> None:
    stream = await stage.online("a1")
    before = stage.store.facts().writes
    for _ in range(10):
        await beat(stage, stream)
    assert stage.store.facts().writes == before


async def test_the_pace_slows_down_for_a_large_fleet_and_never_beyond_half_a_lease() -> None:
    stage = Stage(heartbeats_per_s_max=0.25)
    assert stage.sessions.interval_s == 10.0
    for number in range(3):
        await stage.online(f"a{number}")
    assert stage.sessions.interval_s == 12.0
    for number in range(3, 9):
        await stage.online(f"a{number}")
    assert stage.sessions.interval_s == 15.0
    await stage.close()


async def test_heartbeats_keep_the_holdings_of_a_live_session(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream, run_timeout_s=HOUR)
    for number in range(20):
        stage.clock.advance(10.0)
        stage.sessions.heard(stream.session, 0)
        await beat(stage, stream, holding, progress=(Progress(phase="execute", tool_calls=number),))
        await stage.sweep.run_once(stage.clock.now())
    assert stage.state(holding.task) is State.RUNNING


async def test_a_stream_that_is_open_and_silent_for_a_lease_is_cut_and_loses_its_work(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    await stage.pass_time(30.0)
    assert stream.cut.is_set() and isinstance(stream.problem, errors.Unavailable)
    assert stage.state(holding.task) is State.QUEUED
    assert stage.sessions.get("a1") is None
    assert state(stage, "a1") is AgentState.OFFLINE


async def test_a_clock_that_jumps_costs_no_lease(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream, run_timeout_s=24 * HOUR)
    stage.clock.jump(HOUR)
    await stage.sweep.run_once(stage.clock.now())
    assert stage.state(holding.task) is State.RUNNING


async def test_a_hub_that_stood_still_blames_nobody_for_it(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream, run_timeout_s=24 * HOUR)
    await stage.pass_time(200.0)
    assert stage.state(holding.task) is State.RUNNING
    await stage.pass_time(30.0)
    assert stage.state(holding.task) is State.QUEUED


async def test_an_idle_session_without_a_stream_is_forgotten_after_a_lease(stage: Stage) -> None:
    stream = await stage.online("a1")
    stage.sessions.close(stream, "lost")
    assert stage.sessions.get("a1") is not None
    await stage.pass_time(30.0)
    assert stage.sessions.get("a1") is None


async def test_a_holding_that_two_heartbeats_do_not_list_is_lost(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    await beat(stage, stream)
    assert stage.state(holding.task) is State.RUNNING
    await beat(stage, stream)
    assert stage.state(holding.task) is State.QUEUED
    assert stage.task(holding.task).attempts_used == 0


async def test_an_assignment_on_its_way_is_not_missed(stage: Stage) -> None:
    stream = await stage.online("a1")
    task = await stage.submit()
    for _ in range(5):  # nothing is acked
        await stage.sessions.heartbeat(stream.session, Heartbeat())
    assert stage.state(task) is State.ASSIGNED


async def test_a_holding_whose_report_is_being_applied_is_not_missed(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    await stream.session.receive(stream, Sequenced(2, Report(holding, DONE)))
    for _ in range(3):
        await beat(stage, stream)
    assert stage.state(holding.task) is State.RUNNING


async def test_what_a_sidecar_holds_and_should_not_is_left_out_of_desired(stage: Stage) -> None:
    stream = await stage.online("a1", slots=2)
    holding = await working(stage, stream)
    desired = await beat(stage, stream, holding, Holding("0" * 20, 1))
    assert desired.holdings == (holding,)


async def test_the_evidence_in_heartbeats_is_kept_with_the_holding(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    await beat(stage, stream, holding, progress=(Progress(phase="checks", commits=2),))
    assert stream.session.told[holding].progress.commits == 2


async def test_an_attempt_without_progress_is_noted_and_taken_back_beyond_its_own_limits(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream, silence_timeout_s=400.0, run_timeout_s=HOUR)
    for _ in range(45):
        await asyncio.sleep(0)
        stage.sessions.heard(stream.session, 0)
        await beat(stage, stream, holding, progress=(Progress(phase="execute"),))
        await stage.pass_time(10.0)
    assert stage.events(f"tasks/{holding.task}").count("task.stuck") == 1
    assert stage.state(holding.task) is State.RUNNING
    await stage.pass_time(10.0)
    task = stage.task(holding.task)
    assert task.state is State.QUEUED
    assert task.attempts_used == 0
    assert task.failure is not None and task.failure.reason == "STUCK"
    assert task.failure.attribution is Attribution.AGENT
    assert any(isinstance(body, attach.Revoke) and body.reason == "STUCK" for body in await said(stream))


async def test_what_could_show_no_progress_while_the_hub_stood_still_is_not_taken_for_stuck(stage: Stage) -> None:
    stream = await stage.online("a1")
    task = await stage.submit()
    await beat(stage, stream, Holding(task, 1))
    await stage.do(lambda txn: work.accept(txn, Holding(task, 1), "a1", stage.clock.now()))
    stage.clock.advance(1000.0)  # beyond what an attempt may be silent, within what it may run
    await stage.sweep.run_once(stage.clock.now())
    assert stage.state(task) is State.RUNNING
    await beat(stage, stream, Holding(task, 1), progress=(Progress(tool_calls=1),))
    await stage.pass_time(20.0)
    await beat(stage, stream, Holding(task, 1), progress=(Progress(tool_calls=2),))
    await stage.pass_time(20.0)
    assert stage.state(task) is State.RUNNING


async def test_a_drain_that_comes_with_the_hello_is_not_forgotten(stage: Stage) -> None:
    """Found by the simulator (seed 20055): both in one commit, and the drained agent was given work."""
    await stage.enrol("a1")
    opening = asyncio.create_task(stage.online("a1"))
    await asyncio.sleep(0)  # the hello is written, and whoever said it has not gone on yet
    await stage.do(lambda txn: agents.drain(txn, "a1", stage.clock.now(), actor="me"))
    await opening
    seat = stage.dispatcher.fleet.get("a1")
    assert seat is not None and seat.draining
    task = await stage.submit()
    await stage.dispatch()
    assert stage.state(task) is State.QUEUED


async def test_a_look_at_the_store_between_a_commit_and_its_news_hides_nothing(stage: Stage) -> None:
    """Found by the simulator (seed 10133): what the look had taken off the seat, nobody was told had ended."""
    stream = await stage.online("a1")
    task = await stage.submit()
    assert Holding(task, 1) in stream.session.told
    told: list[Sequence[Event]] = []
    listeners, stage.store._listeners = stage.store._listeners, [told.append]  # type: ignore[attr-defined]  # beyond what its protocol says
    await stage.do(lambda txn: queue.cancel(txn, task, stage.clock.now(), actor="me"))
    stage.dispatcher.fleet.recount("a1")
    stage.store._listeners = listeners  # type: ignore[attr-defined]  # beyond what its protocol says
    for listener in listeners:
        listener(told[0])
    assert not stream.session.told
    assert [out.body.reason for out in stream._collect() if isinstance(out.body, attach.Revoke)] == ["CANCELLED"]


async def test_a_long_check_is_not_taken_for_a_stuck_attempt(stage: Stage) -> None:
    stream = await stage.online("a1")
    await working(stage, stream, checks=(Check(id="slow", run="make", timeout_s=5000.0),))
    assert min(told.stuck_s for told in stream.session.told.values()) == 5060.0


async def test_a_task_that_is_not_accepted_in_time_comes_back_at_no_cost(stage: Stage) -> None:
    stream = await stage.online("a1")
    task = await stage.submit()
    for _ in range(6):
        stage.sessions.heard(stream.session, stream.session.outbox.last)
        await stage.pass_time(10.0)
    assert stage.state(task) is State.QUEUED
    assert stage.task(task).attempts_used == 0
    told = await said(stream)
    assert [body.reason for body in told if isinstance(body, attach.Revoke)] == ["START_TIMEOUT"]


async def test_a_task_that_was_lost_with_three_agents_is_dead_lettered(stage: Stage) -> None:
    task = ""
    for name in ("a1", "a2", "a3"):
        stream = await stage.online(name)
        task = task or await stage.submit()
        await stage.dispatch()
        assert stage.task(task).agent == name
        await reported(stage, stream, Report(Holding(task, stage.task(task).generation), attach.Accepted()))
        stage.sessions.close(stream, "lost")
        await stage.pass_time(30.0)
    assert stage.state(task) is State.DEAD
    assert stage.task(task).attempts_used == 0


async def test_goodbye_with_a_report_before_it_takes_both(stage: Stage) -> None:
    stream = await stage.online("a1", slots=2)
    done, open_ = await working(stage, stream), Holding(await stage.submit(), 1)
    await reported(stage, stream, Report(done, DONE), attach.Goodbye("stop"))
    assert stage.state(done.task) is State.SUCCEEDED
    assert stage.state(open_.task) is State.QUEUED
    assert stream.left and stream.session.stored == 3


async def test_a_batch_of_reports_is_one_write_and_brings_the_next_tasks(stage: Stage) -> None:
    stream = await stage.online("a1", slots=4)
    first = [Holding(await stage.submit(), 1) for _ in range(4)]
    waiting = [await stage.submit() for _ in range(4)]
    before = stage.store.facts().writes
    await reported(stage, stream, *(Report(holding, DONE) for holding in first))
    assert stage.store.facts().writes == before + 1
    assert {stage.state(holding.task) for holding in first} == {State.SUCCEEDED}
    assert {stage.state(id) for id in waiting} == {State.ASSIGNED}


async def test_a_class_that_a_report_has_emptied_is_known_to_be_empty(stage: Stage) -> None:
    stream = await stage.online("a1")
    first, second = Holding(await stage.submit(), 1), await stage.submit()
    assert stage.dispatcher.waiting.is_work_for(stream.session.seat)
    await reported(stage, stream, Report(first, DONE))
    assert stage.state(second) is State.ASSIGNED
    assert not stage.dispatcher.waiting.is_work_for(stream.session.seat)


async def test_one_report_that_cannot_be_applied_does_not_take_the_others_with_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await stage.online("a1", slots=2)
    good, bad = [Holding(await stage.submit(), 1) for _ in range(2)]
    complete = work.complete

    def broken(txn: Any, holding: Holding, *rest: Any, **named: Any) -> Any:
        if holding == bad:
            raise errors.IllegalState("broken", state="X")
        return complete(txn, holding, *rest, **named)

    monkeypatch.setattr(work, "complete", broken)
    await reported(stage, stream, Report(good, DONE), Report(bad, DONE))
    assert stage.state(good.task) is State.SUCCEEDED
    failure = stage.task(bad.task).failure
    assert failure is not None and failure.reason == "REPORT_REFUSED"
    assert stream.session.stored == 2


async def test_a_store_that_takes_nothing_acks_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)

    async def full(fn: Any, *, essential: bool = False) -> Any:
        monkeypatch.undo()  # it has room again at once: the report must come back, and not be turned into a failure
        raise errors.Exhausted("full", reason="STORE_FULL")

    monkeypatch.setattr(stage.store, "write", full)
    with pytest.raises(errors.Exhausted):
        await reported(stage, stream, Report(holding, DONE))
    assert stream.session.stored == 1
    assert stage.state(holding.task) is State.RUNNING
    stage.sessions.close(stream, "STORE_FULL")
    again = await stage.online("a1", session=stream.session.id, holdings=(holding,), ack=0)
    await reported(stage, again, Report(holding, DONE))  # the same number again: it was never stored
    assert stage.state(holding.task) is State.SUCCEEDED
    assert again.session.stored == 2


async def test_of_two_streams_that_open_at_once_the_later_one_stays(tmp_path: Path) -> None:
    stage = Stage(LmdbStore.open(tmp_path / "store"))  # its writes take their time, so that the two overlap
    await stage.enrol("a1")
    opening = asyncio.gather(stage.online("a1"), stage.online("a1"), return_exceptions=True)
    first: Any
    second: Any
    first, second = await opening
    assert isinstance(first, errors.Conflict) and first.reason == "SUPERSEDED"
    assert isinstance(second, Stream)
    assert stage.sessions.get("a1") is second.session
    assert stage.dispatcher.fleet.seat("a1").online
    assert stage.sessions.live_count == 1
    await stage.close()


async def test_to_lose_what_was_reported_meanwhile_changes_nothing(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    await reported(stage, stream, Report(holding, DONE))
    await stage.sessions.lose([holding], reason="FORGOTTEN", message="too late", died=True)
    assert stage.state(holding.task) is State.SUCCEEDED
    assert stage.ctx.figures.lost == 0


async def test_a_drained_agent_keeps_what_it_holds_and_gets_nothing_new(stage: Stage) -> None:
    stream = await stage.online("a1", slots=2)
    holding = await working(stage, stream)
    await stage.do(lambda txn: agents.drain(txn, "a1", stage.clock.now(), actor="test"))
    assert (await said(stream))[-1].draining
    assert state(stage, "a1") is AgentState.DRAINING
    assert stage.state(await stage.submit()) is State.QUEUED
    assert stage.state(holding.task) is State.RUNNING
    await stage.do(lambda txn: agents.resume(txn, "a1", stage.clock.now(), actor="test"))
    assert await stage.dispatch() == 1


async def test_a_sidecar_that_says_it_is_leaving_gets_nothing_new(stage: Stage) -> None:
    stream = await stage.online("a1")
    assert (await beat(stage, stream, draining=True)).draining
    assert stage.state(await stage.submit()) is State.QUEUED


async def test_a_self_test_that_fails_makes_an_agent_unavailable_until_it_passes(stage: Stage) -> None:
    stream = await stage.online("a1")
    await beat(stage, stream, self_test=attach.SelfTest(False, (attach.Finding("disk", False, "full"),)))
    assert state(stage, "a1") is AgentState.BLOCKED
    assert stage.state(await stage.submit()) is State.QUEUED
    await beat(stage, stream)
    assert state(stage, "a1") is AgentState.BLOCKED  # absent: nothing newer
    stage.dispatcher.wake.clear()
    await beat(stage, stream, self_test=PASSED)
    assert stage.dispatcher.wake.is_set()
    assert await stage.dispatch() == 1
    assert state(stage, "a1") is AgentState.ASSIGNED


async def test_a_rotated_token_ends_the_session_for_good(stage: Stage) -> None:
    stream = await stage.online("a1")
    await stage.do(lambda txn: txn.append(0.0, "agent.token_rotated", "agents/a1"))
    goaway = (await said(stream))[-1]
    assert (goaway.reason, goaway.final) == ("REVOKED", True)


async def test_events_tell_when_an_agent_came_and_went(stage: Stage) -> None:
    stream = await stage.online("a1")
    stage.sessions.close(stream, "lost")
    assert stage.sweep.wake.is_set()
    await stage.sweep.run_once(stage.clock.now())
    assert stage.events("agents/a1") == ["agent.attached", "agent.detached"]


async def test_a_holding_cancelled_while_its_agent_was_away_is_revoked_at_its_return(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    stage.sessions.close(stream, "lost")
    await stage.do(lambda txn: queue.cancel(txn, holding.task, stage.clock.now(), actor="test"))
    again = await stage.online("a1", session=stream.session.id, holdings=(holding,))
    told = await said(again)
    assert told[0].holdings == ()
    assert {body.holding for body in told if isinstance(body, attach.Revoke)} == {holding}


async def test_a_new_process_without_the_work_of_the_old_one_gives_it_back_as_lost(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    stage.sessions.close(stream, "lost")
    await stage.online("a1")
    assert stage.state(holding.task) is State.QUEUED
    assert stage.task(holding.task).killed_agents == ("a1",)


async def test_a_store_that_takes_nothing_costs_no_lease_and_calls_its_sidecars_back_soon(stage: Stage) -> None:
    await stage.online("a1")
    problem = errors.Exhausted("full", reason="STORE_FULL", retry_delay_s=30.0)
    stage.clock.advance(29.0)
    stage.sessions.not_now(problem)
    assert problem.retry_delay_s == 7.5
    stage.clock.advance(29.0)
    assert stage.sessions.silence.overdue(stage.clock.monotonic()) == []
    assert not stage.sessions.silence.is_suspicious
    assert stage.sessions.get("a1") is not None
    await stage.pass_time(1.0)
    assert stage.sessions.get("a1") is None


async def test_the_failure_that_isolates_an_agent_brings_it_no_next_task_and_what_it_still_held_is_refunded(
    stage: Stage,
) -> None:
    stream = await stage.online("a1", slots=4)
    held = [Holding(await stage.submit(), 1) for _ in range(4)]
    waiting = [await stage.submit() for _ in range(3)]
    bad = attach.Failed(failure=Failure(reason="COMMAND_FAILED", attribution=Attribution.TASK))
    stage.clock.advance(1.0)  # so that what comes back waits behind what waits already
    for holding in held[:2]:
        await reported(stage, stream, Report(holding, attach.Accepted()), Report(holding, bad))
    assert [stage.state(id) for id in waiting] == [State.ASSIGNED, State.ASSIGNED, State.QUEUED]
    await reported(stage, stream, Report(held[2], bad))
    assert state(stage, "a1") is AgentState.ISOLATED
    assert stage.state(waiting[2]) is State.QUEUED, "its slot is free, and the agent is not to be trusted"
    await reported(stage, stream, Report(held[3], bad), Report(Holding(waiting[0], 1), bad))
    assert [stage.task(id).attempts_used for id in (*[h.task for h in held], waiting[0])] == [0, 0, 0, 0, 0]
