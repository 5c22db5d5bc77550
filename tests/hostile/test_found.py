"""What the generated, mutated and raw input found, each as it was first seen: these requests crashed a handler."""

from __future__ import annotations

import pytest
from google.protobuf import message_factory, text_format

from agentcom.v1 import attach_pb2, goal_pb2, goal_service_pb2, task_pb2, task_service_pb2
from hub.core import page
from hub.rpc import reply
from kit import wire
from tests.hostile import messages, samples, verdict, world

SERVICE = "/agentcom.v1.TaskService/"


@pytest.fixture(params=["memory", "lmdb"])
def here(request, tmp_path):
    with world.made(tmp_path, store__kind=request.param) as made:
        yield made


def refusal(here, path, message):
    error, _ = here.run(world.call(here.caller.channel, path, message.SerializeToString()))
    assert error is not None
    assert not verdict.fault(error)
    return error.details()


@pytest.mark.parametrize("generation", [2**32, 2**63 - 1])
def test_a_generation_that_no_key_can_hold_is_an_unknown_one(here, generation):
    report = samples.likely(f"{SERVICE}ReportTask", here.names)
    report.holding.generation = generation
    assert "there is no holding" in refusal(here, f"{SERVICE}ReportTask", report)
    asked = samples.likely(f"{SERVICE}GetTaskArtifact", here.names)
    asked.generation = generation
    assert "has no artifact" in refusal(here, f"{SERVICE}GetTaskArtifact", asked)


@pytest.mark.parametrize("generation", [-1, -(2**31), -(2**63)])
def test_a_report_of_a_generation_below_one_ends_the_stream_with_a_reason(here, generation):
    """Of a task that is there: what breaks the rules otherwise becomes a failure of its holding, and here is none."""
    hello = text_format.Parse(samples.HELLO, attach_pb2.AttachRequest())
    report = attach_pb2.AttachRequest(seq=1)
    task = here.names.of("tasks")[0]
    report.report.holding.CopyFrom(task_pb2.Holding(task=task, generation=generation))
    report.report.failed.failure.reason = "NO_CHANGE"
    error = here.run(world.converse(here.caller.channel, [one.SerializeToString() for one in (hello, report)]))
    assert error is not None
    assert not verdict.fault(error)
    assert "report.holding.generation" in error.details()


@pytest.mark.parametrize("field", ["start_time", "queue_deadline"])
@pytest.mark.parametrize("seconds", [2**63 - 1, 253_402_300_800, -1, -(2**63)])
def test_a_time_that_no_calendar_has_is_refused_and_nothing_is_filed(here, field, seconds):
    asked = samples.likely(f"{SERVICE}CreateTask", here.names)
    getattr(asked.spec, field).seconds = seconds
    assert f"spec.{field}" in refusal(here, f"{SERVICE}CreateTask", asked)


@pytest.mark.parametrize("cursor", [*messages.CURSORS[2:], None], ids=lambda cursor: repr(cursor)[:12])
def test_a_page_token_with_a_right_hash_and_an_odd_cursor_is_refused_or_leads_to_the_end(here, cursor):
    for path, method in world.METHODS.items():
        if "page_token" not in method.input_type.fields_by_name:
            continue
        asked = samples.likely(path, here.names)
        bound = messages.bound(asked)
        asked.page_token = messages.not_text(bound) if cursor is None else page.encode(cursor, *bound)[:1_024]
        error, _ = here.run(world.call(here.caller.channel, path, asked.SerializeToString()))
        assert not verdict.fault(error), path


LARGE = {"title": "t", "command": "x" * 65_536, "instructions": "x" * 65_536, "checks": [{"run": "x" * 8_192}] * 32}


def walk(here, path, **fields):
    """Every name of a list, page by page; how many pages there were."""
    method, names, token, pages = world.METHODS[path], [], "", 0
    while pages == 0 or token:
        asked = message_factory.GetMessageClass(method.input_type)(page_size=1_000, page_token=token, **fields)
        error, body = here.run(world.call(here.caller.channel, path, asked.SerializeToString()))
        assert error is None
        answer = message_factory.GetMessageClass(method.output_type).FromString(body)
        (records,) = [value for one, value in answer.ListFields() if one.is_repeated]
        names += [record.name for record in records]
        token, pages = answer.next_page_token, pages + 1
        assert len(body) < wire.MESSAGE_BYTES_MAX
    return names, pages


@pytest.mark.parametrize("order", ["create_time", "create_time desc"])
def test_tasks_that_are_too_large_for_one_reply_are_listed_in_several(here, order):
    path = f"{SERVICE}BatchCreateTasks"
    batch = task_service_pb2.BatchCreateTasksRequest(specs=[LARGE] * 16)
    filed = []
    for _ in range(3):
        _, body = here.run(world.call(here.caller.channel, path, batch.SerializeToString()))
        filed += task_service_pb2.BatchCreateTasksResponse.FromString(body).tasks
    names, pages = walk(here, f"{SERVICE}ListTasks", order_by=order)
    assert pages > 2
    assert len(names) == len(set(names))
    assert set(filed) <= set(names)
    assert names == sorted(names, reverse=order.endswith("desc"))
    assert not here.ailment()


def test_repos_that_are_too_large_for_one_reply_are_listed_in_several(here):
    for number in range(40):
        made = samples.likely("/agentcom.v1.RegistryService/CreateRepo", here.names)
        made.repo_id = f"large-{number:02}"
        made.repo.checks.extend(task_pb2.Check(id=f"c{n}", run="x" * 8_192) for n in range(32))
        here.run(world.call(here.caller.channel, "/agentcom.v1.RegistryService/CreateRepo", made.SerializeToString()))
    names, pages = walk(here, "/agentcom.v1.RegistryService/ListRepos")
    assert (len(names), len(set(names))) == (43, 43)
    assert pages > 1


def test_a_goal_that_could_not_be_read_again_is_refused_and_not_filed(here):
    path = "/agentcom.v1.GoalService/CreateGoal"
    made = samples.likely(path, here.names)
    made.goal.plan.tasks.extend(goal_pb2.PlanTask(id=f"X{n}", spec=LARGE) for n in range(12))
    before = here.state()
    assert "goal" in refusal(here, path, made)
    assert "goal" in refusal(
        here, "/agentcom.v1.GoalService/LintPlan", goal_service_pb2.LintPlanRequest(goal=made.goal)
    )
    assert here.state() == before
    assert not here.ailment()


def test_a_task_with_more_history_than_a_reply_holds_is_shown_without_the_oldest_of_it():
    task = task_pb2.Task(name="tasks/" + "0" * 20)
    for number in range(30):
        one = task.attempts.add(generation=number + 1)
        one.failure.evidence = "x" * 32_768
        one.result.receipts.extend(task_pb2.Receipt(output_tail="x" * 8_192) for _ in range(100))
    reply.thin(task)
    assert task.ByteSize() < wire.MESSAGE_BYTES_MAX
    assert [one.generation for one in task.attempts] == list(range(1, 31))
    assert len(task.attempts[-1].result.receipts[0].output_tail) == 8_192
    task.attempts.extend(
        task_pb2.Attempt(generation=99, failure={"message": "x" * 4_096, "reason": "X"}) for _ in range(5_000)
    )
    reply.thin(task)
    assert task.ByteSize() < wire.MESSAGE_BYTES_MAX
    assert task.attempts[-1].generation == 99
