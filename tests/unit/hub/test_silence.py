"""Who says nothing and who takes nothing in: found in time, not blamed for the hub's own pauses, and given no work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.core import attach
from hub.core.agent import State as AgentState
from hub.core.attach import Heartbeat, Report
from hub.core.holding import Holding
from hub.core.task import State
from hub.engine.desk.roster import Roster
from hub.engine.live import silence
from hub.engine.live.session import Sequenced, Stream
from kit import errors
from tests.support.stage import Stage
from tests.unit.hub.test_sessions import working


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


def state(stage: Stage, agent: str) -> AgentState:
    from hub.core import agent_state

    return agent_state.derive(stage.dispatcher.fleet.seat(agent).facts(stage.clock.now()))


async def beat(stage: Stage, stream: Stream, *holdings: Holding, ack: int = 0) -> None:
    """A heartbeat that acks nothing, unless told so."""
    stage.sessions.heard(stream.session, ack)
    await stage.sessions.heartbeat(stream.session, Heartbeat(holdings=holdings))


def reasons(stage: Stage, task: str) -> list[str]:
    events = stage.see(lambda reader: reader.events_of(f"tasks/{task}", limit=1000))
    return [event.fields["reason"] for event in events if event.type == "task.released"]


async def test_what_is_not_acked_within_ten_seconds_goes_back_although_heartbeats_come(stage: Stage) -> None:
    stream = await stage.online("a1")
    task = await stage.submit()
    for _ in range(2):
        await beat(stage, stream)
        await stage.pass_time(4.9)
    assert stage.state(task) is State.ASSIGNED and not stream.cut.is_set()
    await stage.pass_time(0.2)
    assert stage.state(task) is State.QUEUED
    assert reasons(stage, task) == ["UNDELIVERED"]
    assert stage.task(task).attempts_used == 0 and stage.task(task).killed_agents == ()
    assert stream.cut.is_set()
    assert isinstance(stream.problem, errors.Unavailable) and stream.problem.reason == "UNACKED"


async def test_what_is_acked_may_wait_for_its_accept_for_longer(stage: Stage) -> None:
    stream = await stage.online("a1")
    task = await stage.submit()
    await beat(stage, stream, ack=1)
    await stage.pass_time(29.0)
    assert stage.state(task) is State.ASSIGNED and not stream.cut.is_set()


async def test_an_ack_of_some_shows_that_the_rest_is_on_its_way(stage: Stage) -> None:
    stream = await stage.online("a1", slots=2)
    tasks = [await stage.submit() for _ in range(2)]
    await stage.pass_time(9.0)
    await beat(stage, stream, ack=1)
    await stage.pass_time(9.0)
    assert [stage.state(task) for task in tasks] == [State.ASSIGNED, State.ASSIGNED]
    await stage.pass_time(1.0)
    # The one that was acked is waited for, the other one is not.
    assert [stage.state(task) for task in tasks] == [State.ASSIGNED, State.QUEUED]


async def test_an_accepted_task_is_not_taken_from_an_agent_that_stops_acking(stage: Stage) -> None:
    stream = await stage.online("a1", slots=2)
    holding = await working(stage, stream)
    other = await stage.submit()
    await stage.pass_time(10.0)
    assert stage.state(holding.task) is State.RUNNING
    assert stage.state(other) is State.QUEUED


async def test_nothing_is_assigned_into_a_dead_stream_until_the_agent_shows_that_it_hears(stage: Stage) -> None:
    stream = await stage.online("a1")
    task = await stage.submit()
    await stage.pass_time(10.0)
    stage.sessions.close(stream, "UNACKED")
    again = await stage.online("a1", session=stream.session.id)
    assert await stage.dispatch() == 0
    assert state(stage, "a1") is AgentState.BLOCKED
    outs = await again.next()
    assert isinstance(outs[0].body, attach.Welcome)
    assert outs[0].body.heartbeat_s <= silence.PROOF_HEARTBEAT_S  # so that it is proven soon
    await beat(stage, again)  # it speaks, but the old assignment and its end are not acked yet
    assert await stage.dispatch() == 0
    await beat(stage, again, ack=again.session.outbox.last)
    assert await stage.dispatch() == 1
    assert stage.task(task).generation == 2


async def test_an_agent_that_was_silent_for_a_lease_gets_work_when_it_speaks_on_its_new_stream(stage: Stage) -> None:
    await stage.online("a1")
    await stage.pass_time(30.0)
    again = await stage.online("a1")
    task = await stage.submit()
    assert stage.state(task) is State.QUEUED and await stage.dispatch() == 0
    stage.sessions.heard(again.session, 0)
    assert await stage.dispatch() == 1


async def test_a_message_on_the_stream_that_is_being_cut_proves_nothing(stage: Stage) -> None:
    stream = await stage.online("a1")
    await stage.submit()
    await stage.pass_time(10.0)
    await beat(stage, stream, ack=stream.session.outbox.last)
    assert await stage.dispatch() == 0


async def test_a_reader_for_whom_the_writer_waits_is_a_slow_one(stage: Stage) -> None:
    stream = await stage.online("a1")
    stream.writing_since = stage.clock.monotonic()
    await stage.pass_time(10.0)
    assert isinstance(stream.problem, errors.Exhausted) and stream.problem.reason == "SLOW_READER"


@pytest.mark.parametrize("pause_s", [30.0, 31.0, 45.0, 59.0, 200.0])
async def test_a_hub_that_stood_still_reads_what_waits_before_it_blames_anybody(stage: Stage, pause_s: float) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    stage.clock.advance(pause_s)
    await stage.sweep.run_once(stage.clock.now())  # before the reader came to its turn
    await beat(stage, stream, holding)
    stage.clock.advance(silence.CONFIRM_S)
    await stage.sweep.run_once(stage.clock.now())
    assert stage.state(holding.task) is State.RUNNING
    assert not stream.cut.is_set()


async def test_two_pauses_in_a_row_are_not_a_confirmation(stage: Stage) -> None:
    stream = await stage.online("a1")
    holding = await working(stage, stream)
    for _ in range(3):
        stage.clock.advance(31.0)
        await stage.sweep.run_once(stage.clock.now())
    assert stage.state(holding.task) is State.RUNNING


async def test_the_sweep_rings_when_a_stream_may_be_deaf_and_when_a_lease_may_pass() -> None:
    stage = Stage(lease_s=0.3, ack_timeout_s=0.1, sweep_s=600.0)
    stream = await stage.online("a1")
    await stage.submit()
    stage.sweep.wake.clear()
    rings: list[Any] = []
    for _ in range(2):
        async with asyncio.timeout(5.0):
            await stage.sweep.wake.wait()
        stage.sweep.wake.clear()
        stage.clock.advance(silence.CONFIRM_S)
        await stage.sweep.run_once(stage.clock.now())
        rings.append(stream.cut.is_set())
    assert rings == [False, True]
    await stage.close()


async def test_reports_that_flow_excuse_heartbeats_that_do_not(stage: Stage) -> None:
    stream = await stage.online("a1", slots=2)
    busy = await working(stage, stream)
    for _ in range(10):
        holding = Holding(await stage.submit(), 1)
        stage.sessions.heard(stream.session, stream.session.outbox.last)
        seq = stream.session.inbox.applied + 1
        await stream.session.receive(stream, Sequenced(seq, Report(holding, attach.Accepted())))
        await stage.pass_time(9.0)
    assert stage.state(busy.task) is State.RUNNING


async def test_it_is_told_why_an_agent_in_doubt_gets_nothing(stage: Stage) -> None:
    stream = await stage.online("a1")
    task = await stage.submit()
    await stage.pass_time(10.0)
    stage.sessions.close(stream, "UNACKED")
    await stage.online("a1", session=stream.session.id)
    assert "it did not answer what it was told" in stage.explainer.explain(task).summary
    agent = stage.see(lambda reader: reader.agents.get("a1"))
    assert agent is not None
    view = Roster(stage.ctx, stage.dispatcher.fleet, stage.sessions).view(agent)
    assert view.state is AgentState.BLOCKED and "did not answer" in view.reason
