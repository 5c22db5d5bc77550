"""WatchTasks and WatchEvents: resumable by position, told at once that they are on, ended well with the hub."""

from __future__ import annotations

import asyncio

import pytest

from agentcom.v1 import hub_service_pb2, task_pb2, task_service_pb2
from hub import app
from kit import errors
from tests.support.hub import Caller, configuration, fields, refused, running

Watch = task_service_pb2.WatchTasksRequest
Cancel = task_service_pb2.CancelTaskRequest


@pytest.fixture
async def caller(tmp_path):
    async with running(tmp_path) as made:
        yield made


class Reader:
    """A watch that is read one message at a time."""

    def __init__(self, call):
        self._call = call
        self._messages = call.__aiter__()

    async def next(self):
        async with asyncio.timeout(10):
            return await self._messages.__anext__()

    async def event(self):
        """The next message that is not only progress."""
        while not (message := await self.next()).HasField("event"):
            pass
        return message

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self._call.cancel()


async def test_a_watch_is_told_at_once_where_it_stands(caller):
    await caller.task()
    async with Reader(caller.tasks.WatchTasks(Watch())) as watch:
        first = await watch.next()
        assert not first.HasField("event")
        assert first.position == await caller.position()


async def test_a_watch_tells_what_happens_from_now_on(caller):
    await caller.task("before")
    async with Reader(caller.tasks.WatchTasks(Watch())) as watch:
        await watch.next()
        made = await caller.task("after")
        message = await watch.event()
        assert (message.event.type, message.event.subject) == ("task.created", made.name)
        assert message.task == made
        assert message.position == message.event.position


async def test_a_watch_from_the_beginning_tells_everything(caller):
    names = [(await caller.task()).name for _ in range(3)]
    async with Reader(caller.tasks.WatchTasks(Watch(position=-1))) as watch:
        assert [(await watch.event()).event.subject for _ in names] == names


async def test_a_resumed_watch_neither_misses_nor_repeats(caller):
    names = [(await caller.task()).name for _ in range(6)]
    async with Reader(caller.tasks.WatchTasks(Watch(position=-1))) as watch:
        seen = [await watch.event() for _ in range(3)]
    async with Reader(caller.tasks.WatchTasks(Watch(position=seen[-1].position))) as watch:
        seen += [await watch.event() for _ in range(3)]
    assert [message.event.subject for message in seen] == names
    positions = [message.position for message in seen]
    assert positions == sorted(set(positions))


async def test_a_watch_of_some_tasks_hears_nothing_of_others(caller):
    first, second, third = [(await caller.task()).name for _ in range(3)]
    async with Reader(caller.tasks.WatchTasks(Watch(names=[first, third], position=-1))) as watch:
        assert (await watch.event()).event.subject == first
        assert (await watch.event()).event.subject == third
        await caller.tasks.CancelTask(Cancel(name=second))
        await caller.tasks.CancelTask(Cancel(name=third))
        message = await watch.event()
        assert (message.event.subject, message.event.type) == (third, "task.cancelled")
        assert message.task.state == task_pb2.Task.STATE_CANCELLED


async def test_the_task_of_an_event_is_absent_when_it_is_deleted(caller):
    made = await caller.task()
    await caller.tasks.CancelTask(Cancel(name=made.name))
    await caller.tasks.DeleteTask(task_service_pb2.DeleteTaskRequest(name=made.name))
    async with Reader(caller.tasks.WatchTasks(Watch(position=-1))) as watch:
        messages = [await watch.event() for _ in range(3)]
    assert [message.event.type for message in messages] == ["task.created", "task.cancelled", "task.deleted"]
    assert not any(message.HasField("task") for message in messages)


@pytest.mark.parametrize("method", ["WatchTasks", "WatchEvents"])
async def test_a_position_beyond_the_log_is_refused(caller, method):
    position = await caller.position() + 1
    if method == "WatchTasks":
        call = caller.tasks.WatchTasks(Watch(position=position))
    else:
        call = caller.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest(position=position))
    assert fields(await refused(call)) == ["position"]


async def test_events_are_watched_by_the_beginning_of_their_type(caller):
    request = hub_service_pb2.WatchEventsRequest(type_prefix="hub.pa", position=-1)
    async with Reader(caller.hubs.WatchEvents(request)) as watch:
        await caller.task()
        await caller.hubs.PauseHub(hub_service_pb2.PauseHubRequest(reason="lunch"))
        message = await watch.event()
        assert (message.event.type, dict(message.event.fields)) == ("hub.paused", {"reason": "lunch"})
        assert (message.event.actor, message.event.subject) == ("local", "hub")
        assert len(message.event.hash) == 32


async def test_watches_end_at_once_and_say_why_when_the_hub_goes(tmp_path):
    hub = app.Hub(configuration(tmp_path, server__stop_grace_s=60.0))
    async with asyncio.timeout(20):
        async with app.serving_hub(hub):
            caller = Caller(hub)
            watch = caller.tasks.WatchTasks(Watch())
            reader = Reader(watch)
            await reader.next()
        problem = await refused(watch)
        await caller.channel.close()
    assert (type(problem), problem.reason) == (errors.Unavailable, "SHUTDOWN")
