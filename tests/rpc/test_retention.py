"""What callers see of retention: old tasks and events are gone, and whoever asks for them is told so, typed."""

from __future__ import annotations

import pytest

from agentcom.v1 import hub_service_pb2, task_service_pb2
from hub.store.base import Ended
from kit import clock as clocks
from kit import errors
from tests.support.hub import configuration, refused, running

KEEP = {
    "retention__tasks_s": 100,
    "retention__events_s": 200,
    "retention__look_s": 3600,
    "retention__settle_s": 0,
    "engine__request_window_s": 60,
}
Watch = hub_service_pb2.WatchEventsRequest


@pytest.fixture
async def caller(tmp_path):
    async with running(tmp_path, parts={"clock": clocks.ManualClock()}, **KEEP) as made:
        yield made


async def later(caller, seconds):
    clock = caller.hub._clock
    clock.advance(seconds)
    await caller.hub.retention.run_once(clock.now())


async def ended(caller):
    task = await caller.task()
    await caller.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=task.name))
    return task


async def hub_of(caller):
    return (await caller.hubs.GetHub(hub_service_pb2.GetHubRequest())).hub


async def test_a_task_that_ended_long_ago_is_not_found_and_its_history_still_is(caller):
    task = await ended(caller)
    await later(caller, 99)
    await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=task.name))
    await later(caller, 2)
    problem = await refused(caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=task.name)))
    assert (type(problem), problem.reason) == (errors.NotFound, "TASK_NOT_FOUND")
    told = await caller.tasks.ListTaskEvents(task_service_pb2.ListTaskEventsRequest(name=task.name))
    assert [event.type for event in told.events] == ["task.created", "task.cancelled", "task.deleted"]
    assert told.events[-1].fields["reason"] == "RETENTION"


async def test_the_hub_says_where_its_log_begins(caller):
    await ended(caller)
    before = await hub_of(caller)
    assert before.event_position_oldest == 1
    await later(caller, 201)
    after = await hub_of(caller)
    assert 1 < after.event_position_oldest <= after.event_position


async def test_a_watch_from_a_position_that_is_gone_is_out_of_range(caller):
    for _ in range(3):
        await ended(caller)
    await later(caller, 201)
    caller.hub.ctx.bus._ring.clear()  # what is still in memory can still be told
    oldest = (await hub_of(caller)).event_position_oldest
    problem = await refused(caller.hubs.WatchEvents(Watch(position=1)))
    assert (type(problem), problem.reason) == (errors.OutOfRange, "POSITION_GONE")
    assert problem.metadata == {"position": "1", "oldest": str(oldest)}
    request = task_service_pb2.WatchTasksRequest(position=1)
    assert (await refused(caller.tasks.WatchTasks(request))).reason == "POSITION_GONE"


@pytest.mark.parametrize("back", [-1, 1])
async def test_a_watch_from_the_beginning_or_just_before_the_oldest_is_told_all_that_is_kept(caller, back):
    for _ in range(3):
        await ended(caller)
    await later(caller, 201)
    caller.hub.ctx.bus._ring.clear()
    oldest = (await hub_of(caller)).event_position_oldest
    call = caller.hubs.WatchEvents(Watch(position=-1 if back < 0 else oldest - 1))
    async for message in call:
        assert message.event.position == oldest
        break
    call.cancel()


async def test_a_page_of_a_history_does_not_follow_a_gap(caller):
    task = await caller.task()
    for _ in range(2):
        await caller.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=task.name))
        await caller.tasks.RetryTask(task_service_pb2.RetryTaskRequest(name=task.name))
    request = task_service_pb2.ListTaskEventsRequest(name=task.name, page_size=1)
    request.page_token = (await caller.tasks.ListTaskEvents(request)).next_page_token
    caller.hub._clock.advance(201)
    await caller.task()
    await later(caller, 0)
    problem = await refused(caller.tasks.ListTaskEvents(request))
    assert (type(problem), problem.reason) == (errors.OutOfRange, "POSITION_GONE")


async def test_void_tokens_are_listed_for_a_while(caller):
    made = await caller.hubs.CreateToken(hub_service_pb2.CreateTokenRequest(scope=5, display_name="x"))
    await caller.hubs.RevokeToken(hub_service_pb2.RevokeTokenRequest(name=made.token.name))
    await later(caller, 29 * 86_400)
    tokens = (await caller.hubs.ListTokens(hub_service_pb2.ListTokensRequest())).tokens
    assert made.token.name in {token.name for token in tokens}
    await later(caller, 2 * 86_400)
    tokens = (await caller.hubs.ListTokens(hub_service_pb2.ListTokensRequest())).tokens
    assert made.token.name not in {token.name for token in tokens}
    assert caller.hub.store.read(lambda reader: reader.ended(Ended.TOKEN, until=1e12, limit=9)) == []


def test_tasks_are_not_forgotten_before_their_requests(tmp_path):
    with pytest.raises(errors.Invalid, match="a repeated request must find what it made"):
        configuration(tmp_path, retention__tasks_s=100.0, engine__request_window_s=200.0)
