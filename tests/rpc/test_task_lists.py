"""Pages of tasks: every task once, whatever the filter and the order, and a token only for the list that made it."""

from __future__ import annotations

import pytest

from agentcom.v1 import agent_service_pb2, registry_service_pb2, task_pb2, task_service_pb2
from hub.engine.desk import listing
from kit import errors
from tests.support.hub import fields, refused, running

List = task_service_pb2.ListTasksRequest
COUNT = 500
LANES = ("LANE_URGENT", "LANE_HIGH", "LANE_NORMAL", "LANE_LOW")


@pytest.fixture(params=["memory", "lmdb"])
async def filled(tmp_path, request):
    """A hub with 500 tasks: each fourth one in each lane, each fifth cancelled, each seventh labelled."""
    async with running(tmp_path, store__kind=request.param) as caller:
        await caller.registry.CreateRepo(
            registry_service_pb2.CreateRepoRequest(repo_id="r", repo={"url": "https://example.org/r.git"})
        )
        specs = [
            task_pb2.TaskSpec(
                title=f"{number}",
                command="true",
                lane=LANES[number % 4],
                repo="repos/r" if number % 10 == 0 else "",
                labels={"seven": "yes"} if number % 7 == 0 else {},
            )
            for number in range(COUNT)
        ]
        names = (await caller.tasks.BatchCreateTasks(task_service_pb2.BatchCreateTasksRequest(specs=specs))).tasks
        for number in range(0, COUNT, 5):
            await caller.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=names[number]))
        yield caller


async def walk(caller, filter_="", order_by="", page_size=37):
    """All titles, page by page."""
    titles, token = [], ""
    for _ in range(2 * COUNT):
        answer = await caller.tasks.ListTasks(
            List(filter=filter_, order_by=order_by, page_size=page_size, page_token=token)
        )
        assert len(answer.tasks) <= page_size
        titles += [int(task.spec.title) for task in answer.tasks]
        token = answer.next_page_token
        if not token:
            return titles
    raise AssertionError("the list has no end")


FILTERS = {
    "": lambda n: True,
    "state = CANCELLED": lambda n: n % 5 == 0,
    "state = QUEUED": lambda n: n % 5 != 0,
    "lane = HIGH": lambda n: n % 4 == 1,
    "state = CANCELLED AND lane = URGENT": lambda n: n % 20 == 0,
    "kind = WORK": lambda n: True,
    "kind = MERGE": lambda n: False,
    "repo = repos/r": lambda n: n % 10 == 0,
    "labels.seven = yes": lambda n: n % 7 == 0,
    "labels.seven = no": lambda n: False,
    "state = QUEUED AND labels.seven = yes AND lane = LOW": lambda n: n % 5 != 0 and n % 28 == 7,
    "goal = goals/00000000000000000000": lambda n: False,
    "agent = agents/nobody": lambda n: False,
}


@pytest.mark.parametrize("filter_", FILTERS)
async def test_every_page_together_is_the_list_in_both_orders(filled, filter_):
    wanted = [number for number in range(COUNT) if FILTERS[filter_](number)]
    assert await walk(filled, filter_) == wanted
    assert await walk(filled, filter_, "create_time desc") == wanted[::-1]


async def test_the_order_is_that_of_creation_by_either_name(filled):
    assert await walk(filled, order_by="create_time", page_size=499) == list(range(COUNT))
    assert await walk(filled, order_by="create_time asc", page_size=1000) == list(range(COUNT))


async def test_a_page_has_fifty_unless_asked_and_a_thousand_at_most(filled):
    assert len((await filled.tasks.ListTasks(List())).tasks) == 50
    assert len((await filled.tasks.ListTasks(List(page_size=10**6))).tasks) == COUNT


async def test_a_rare_match_makes_short_pages_and_not_long_ones(filled, monkeypatch):
    monkeypatch.setattr(listing, "SCAN_MAX", 100)
    monkeypatch.setattr(listing, "CHUNK", 30)
    first = await filled.tasks.ListTasks(List(filter="labels.seven = no"))
    assert not first.tasks
    assert first.next_page_token
    assert await walk(filled, "labels.seven = yes") == [n for n in range(COUNT) if n % 7 == 0]


@pytest.mark.parametrize("other", [{"filter": "lane = LOW"}, {"order_by": "create_time desc"}, {"filter": " "}])
async def test_a_token_of_another_list_is_refused(filled, other):
    token = (await filled.tasks.ListTasks(List(page_size=5))).next_page_token
    assert fields(await refused(filled.tasks.ListTasks(List(page_token=token, **other)))) == ["page_token"]


async def test_what_an_agent_holds_is_listed(filled):
    await filled.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="anna"))
    queued = (await filled.tasks.ListTasks(List(filter="state = QUEUED", page_size=3))).tasks
    for task in queued:
        await filled.tasks.ClaimTask(task_service_pb2.ClaimTaskRequest(name=task.name, agent="agents/anna"))
    wanted = [int(task.spec.title) for task in queued]
    assert await walk(filled, "agent = agents/anna", page_size=2) == wanted
    assert await walk(filled, "agent = agents/anna", "create_time desc", page_size=2) == wanted[::-1]
    assert await walk(filled, "agent = agents/anna AND state = DEAD") == []


@pytest.mark.parametrize("token", ["x", "AAAA", "%%%", "äöü", "A" * 1024])
async def test_a_token_that_nobody_made_is_refused(filled, token):
    problem = await refused(filled.tasks.ListTasks(List(page_token=token)))
    assert isinstance(problem, errors.Invalid)
    assert fields(problem) == ["page_token"]
