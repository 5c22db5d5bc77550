"""TaskService over the wire: what is taken, what it answers, and what it remembers."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from agentcom.v1 import hub_service_pb2, task_pb2, task_service_pb2
from kit import errors
from tests.support.hub import fields, refused, running

Create = task_service_pb2.CreateTaskRequest
Batch = task_service_pb2.BatchCreateTasksRequest
Get = task_service_pb2.GetTaskRequest
Cancel = task_service_pb2.CancelTaskRequest
Retry = task_service_pb2.RetryTaskRequest
Delete = task_service_pb2.DeleteTaskRequest
Events = task_service_pb2.ListTaskEventsRequest
Spec = task_pb2.TaskSpec
NOBODY = "tasks/" + "0" * 20


@pytest.fixture(params=["memory", "lmdb"])
async def caller(tmp_path, request):
    async with running(tmp_path, store__kind=request.param) as made:
        yield made


async def history(caller, name):
    answer = await caller.tasks.ListTaskEvents(Events(name=name))
    return [event.type for event in answer.events]


async def test_a_task_that_was_filed_is_there(caller):
    made = await caller.task("do it", labels={"os": "linux"})
    found = (await caller.tasks.GetTask(Get(name=made.name))).task
    assert found == made
    assert found.state == task_pb2.Task.STATE_QUEUED
    assert (found.spec.title, dict(found.spec.labels)) == ("do it", {"os": "linux"})
    assert await history(caller, made.name) == ["task.created"]


async def test_the_states_of_a_new_task_follow_from_its_contract(caller):
    first = await caller.task()
    second = await caller.task(depends_on=[first.name])
    third = await caller.task(start_time={"seconds": 4_000_000_000})
    assert second.state == task_pb2.Task.STATE_PENDING
    assert third.state == task_pb2.Task.STATE_SCHEDULED


async def test_validate_only_files_nothing(caller):
    before = await caller.position()
    answer = await caller.tasks.CreateTask(Create(spec=Spec(title="t", command="true"), validate_only=True))
    assert answer.task.name == ""
    assert answer.task.spec.attempts_max == 3
    assert await caller.position() == before


@pytest.mark.parametrize(
    ("spec", "kind", "reason"),
    [
        (Spec(title="t", command="true", repo="repos/none"), errors.NotFound, "REPO_NOT_FOUND"),
        (
            Spec(title="t", command="true", requirement=task_pb2.Requirement(agent="agents/none")),
            errors.NotFound,
            "AGENT_NOT_FOUND",
        ),
        (Spec(title="t", command="true", depends_on=[NOBODY]), errors.NotFound, "TASK_NOT_FOUND"),
    ],
)
@pytest.mark.parametrize("validate_only", [False, True])
async def test_a_contract_that_names_what_is_not_there_is_refused(caller, spec, kind, reason, validate_only):
    before = await caller.position()
    problem = await refused(caller.tasks.CreateTask(Create(spec=spec, validate_only=validate_only)))
    assert (type(problem), problem.reason) == (kind, reason)
    assert problem.metadata["field"].startswith("spec.")
    assert await caller.position() == before


async def test_a_dependency_that_is_gone_is_refused(caller):
    gone = await caller.task()
    await caller.tasks.CancelTask(Cancel(name=gone.name))
    problem = await refused(
        caller.tasks.CreateTask(Create(spec=Spec(title="t", command="true", depends_on=[gone.name])))
    )
    assert isinstance(problem, errors.IllegalState)
    assert problem.state == "CANCELLED"


async def test_a_repeated_request_is_answered_with_the_same_task(caller):
    request_id = str(uuid.uuid4())
    answers = await asyncio.gather(*[caller.task(request_id=request_id) for _ in range(8)])
    assert len({answer.name for answer in answers}) == 1
    stats = (await caller.hubs.GetStats(hub_service_pb2.GetStatsRequest())).stats
    assert sum(count.count for count in stats.tasks) == 1


async def test_a_request_id_for_another_request_is_refused(caller):
    request_id = str(uuid.uuid4())
    await caller.task("one", request_id=request_id)
    before = await caller.position()
    problem = await refused(
        caller.tasks.CreateTask(Create(spec=Spec(title="two", command="true"), request_id=request_id))
    )
    assert (type(problem), problem.reason) == (errors.AlreadyExists, "REQUEST_ID_REUSED")
    assert await caller.position() == before


async def test_a_batch_is_filed_in_order_and_once(caller):
    request = Batch(specs=[Spec(title=f"{n}", command="true") for n in range(30)], request_id=str(uuid.uuid4()))
    first = await caller.tasks.BatchCreateTasks(request)
    again = await caller.tasks.BatchCreateTasks(request)
    assert list(first.tasks) == list(again.tasks) == sorted(first.tasks)
    titles = [(await caller.tasks.GetTask(Get(name=name))).task.spec.title for name in first.tasks]
    assert titles == [f"{n}" for n in range(30)]


async def test_a_batch_with_one_bad_task_files_none(caller):
    before = await caller.position()
    specs = [
        Spec(title="good", command="true"),
        Spec(title="bad"),
        Spec(title="bad", command="x", delivery="DELIVERY_MERGE"),
    ]
    assert fields(await refused(caller.tasks.BatchCreateTasks(Batch(specs=specs)))) == [
        "specs[1].command",
        "specs[2].delivery",
    ]
    specs = [Spec(title="good", command="true"), Spec(title="bad", command="true", repo="repos/none")]
    problem = await refused(caller.tasks.BatchCreateTasks(Batch(specs=specs)))
    assert problem.metadata["field"] == "specs[1].repo"
    assert await caller.position() == before


async def test_a_full_queue_refuses_and_says_when_to_come_back(tmp_path):
    async with running(tmp_path, engine__queue_max=3) as caller:
        for _ in range(3):
            await caller.task()
        before = await caller.position()
        problem = await refused(caller.tasks.CreateTask(Create(spec=Spec(title="t", command="true"))))
        assert (type(problem), problem.reason) == (errors.Exhausted, "QUEUE_FULL")
        assert problem.retry_delay_s is not None
        assert await caller.position() == before


async def test_a_cancelled_task_can_be_retried_and_not_cancelled_twice(caller):
    made = await caller.task()
    ended = (await caller.tasks.CancelTask(Cancel(name=made.name, reason="not needed"))).task
    assert (ended.state, ended.state_reason) == (task_pb2.Task.STATE_CANCELLED, "not needed")
    before = await caller.position()
    problem = await refused(caller.tasks.CancelTask(Cancel(name=made.name)))
    assert isinstance(problem, errors.IllegalState)
    assert problem.state == "CANCELLED"
    assert await caller.position() == before
    revived = (await caller.tasks.RetryTask(Retry(name=made.name, etag=ended.etag))).task
    assert revived.state == task_pb2.Task.STATE_QUEUED
    assert await history(caller, made.name) == ["task.created", "task.cancelled", "task.revived"]


async def test_a_repeated_retry_revives_once(caller):
    made = await caller.task()
    await caller.tasks.CancelTask(Cancel(name=made.name))
    request = Retry(name=made.name, request_id=str(uuid.uuid4()))
    first = await caller.tasks.RetryTask(request)
    assert (await caller.tasks.RetryTask(request)).task == first.task
    problem = await refused(caller.tasks.RetryTask(Retry(name=made.name)))
    assert isinstance(problem, errors.IllegalState)


async def test_only_a_task_at_its_end_is_deleted_and_its_history_stays(caller):
    made = await caller.task()
    problem = await refused(caller.tasks.DeleteTask(Delete(name=made.name)))
    assert isinstance(problem, errors.IllegalState)
    assert problem.state == "QUEUED"
    await caller.tasks.CancelTask(Cancel(name=made.name))
    await caller.tasks.DeleteTask(Delete(name=made.name))
    assert isinstance(await refused(caller.tasks.GetTask(Get(name=made.name))), errors.NotFound)
    assert await history(caller, made.name) == ["task.created", "task.cancelled", "task.deleted"]


@pytest.mark.parametrize("verb", ["CancelTask", "RetryTask", "DeleteTask"])
async def test_a_stale_etag_is_refused_and_changes_nothing(caller, verb):
    made = await caller.task()
    before = await caller.position()
    request = {"CancelTask": Cancel, "RetryTask": Retry, "DeleteTask": Delete}[verb](name=made.name, etag="99")
    problem = await refused(getattr(caller.tasks, verb)(request))
    assert (type(problem), problem.reason) == (errors.Conflict, "ETAG_MISMATCH")
    assert problem.metadata["name"] == made.name
    assert await caller.position() == before
    assert (await caller.tasks.GetTask(Get(name=made.name))).task == made


@pytest.mark.parametrize(
    ("verb", "request_"),
    [
        ("GetTask", Get(name=NOBODY)),
        ("CancelTask", Cancel(name=NOBODY)),
        ("RetryTask", Retry(name=NOBODY)),
        ("DeleteTask", Delete(name=NOBODY)),
        ("ExplainTask", task_service_pb2.ExplainTaskRequest(name=NOBODY)),
        ("ListTaskEvents", Events(name=NOBODY)),
        ("TailTaskLog", task_service_pb2.TailTaskLogRequest(name=NOBODY)),
        ("GetTaskArtifact", task_service_pb2.GetTaskArtifactRequest(name=NOBODY, artifact="diff")),
        (
            "ReportTask",
            task_service_pb2.ReportTaskRequest(
                holding=task_pb2.Holding(task=NOBODY, generation=1), result=task_pb2.Result()
            ),
        ),
    ],
)
async def test_an_unknown_task_is_not_found_by_its_name(caller, verb, request_):
    problem = await refused(getattr(caller.tasks, verb)(request_))
    assert isinstance(problem, errors.NotFound)
    assert problem.metadata["name"] == NOBODY


async def test_events_come_in_pages(caller):
    made = await caller.task()
    for _ in range(4):
        await caller.tasks.CancelTask(Cancel(name=made.name))
        await caller.tasks.RetryTask(Retry(name=made.name))
    seen, token = [], ""
    while True:
        answer = await caller.tasks.ListTaskEvents(Events(name=made.name, page_size=2, page_token=token))
        seen += [event.type for event in answer.events]
        token = answer.next_page_token
        if not token:
            break
    assert seen == ["task.created", *["task.cancelled", "task.revived"] * 4]


async def test_a_waiting_task_is_explained(caller):
    made = await caller.task()
    answer = await caller.tasks.ExplainTask(task_service_pb2.ExplainTaskRequest(name=made.name))
    assert answer.state == task_pb2.Task.STATE_QUEUED
    assert answer.summary == "there is no agent"
    assert answer.unblock
    blocked = await caller.task(depends_on=[made.name])
    answer = await caller.tasks.ExplainTask(task_service_pb2.ExplainTaskRequest(name=blocked.name))
    assert list(answer.waits_for) == [made.name]
