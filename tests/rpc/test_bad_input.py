"""Every RPC with fields that are missing, too large, malformed or contradict each other: each field is named."""

from __future__ import annotations

import pytest
from google.protobuf import message_factory

from agentcom.v1 import task_pb2
from hub import app
from kit import errors
from tests.support.hub import PATIENCE_S, fields, refused, running

TASK = "tasks/" + "0" * 20
SPEC = {"title": "t", "command": "true"}
LONG = "x" * 70_000
MANY = [TASK[:-4] + f"{n:04d}" for n in range(1_001)]


def spec(**changes):
    return {"spec": {**SPEC, **changes}}


RULE = "alertRules/disk-low"
ROWS: list[tuple[str, dict[str, object], list[str]]] = [
    # missing
    ("TaskService/CreateTask", {}, ["spec"]),
    ("TaskService/CreateTask", {"spec": {}}, ["spec.title"]),
    ("TaskService/BatchCreateTasks", {}, ["specs"]),
    ("TaskService/GetTask", {}, ["name"]),
    ("TaskService/CancelTask", {}, ["name"]),
    ("TaskService/RetryTask", {}, ["name"]),
    ("TaskService/DeleteTask", {}, ["name"]),
    ("TaskService/ExplainTask", {}, ["name"]),
    ("TaskService/ListTaskEvents", {}, ["name"]),
    ("TaskService/TailTaskLog", {}, ["name"]),
    ("TaskService/GetTaskArtifact", {}, ["name", "artifact"]),
    ("TaskService/ClaimTask", {}, ["name", "agent"]),
    ("TaskService/ReportTask", {}, ["holding", "outcome"]),
    ("TaskService/ReportTask", {"holding": {}, "result": {}}, ["holding.task", "holding.generation"]),
    ("AgentService/GetAgent", {}, ["name"]),
    ("AgentService/UpdateAgent", {}, ["agent", "update_mask"]),
    ("AgentService/UpdateAgent", {"agent": {"name": "agents/a"}, "update_mask": {}}, ["update_mask"]),
    ("AgentService/DrainAgent", {}, ["name"]),
    ("AgentService/ResumeAgent", {}, ["name"]),
    ("AgentService/DeleteAgent", {}, ["name"]),
    ("AgentService/RotateAgentToken", {}, ["name"]),
    ("HubService/CreateToken", {}, ["scope"]),
    ("HubService/RevokeToken", {}, ["name"]),
    ("GoalService/CreateGoal", {}, ["goal"]),
    ("GoalService/GetGoal", {}, ["name"]),
    ("GoalService/CancelGoal", {}, ["name"]),
    ("GoalService/PauseGoal", {}, ["name"]),
    ("GoalService/ResumeGoal", {}, ["name"]),
    ("GoalService/LintPlan", {}, ["goal"]),
    ("RegistryService/CreateRepo", {}, ["repo_id", "repo"]),
    ("RegistryService/GetRepo", {}, ["name"]),
    ("RegistryService/UpdateRepo", {}, ["repo", "update_mask"]),
    ("RegistryService/DeleteRepo", {}, ["name"]),
    ("RegistryService/PauseRepo", {}, ["name"]),
    ("RegistryService/ResumeRepo", {}, ["name"]),
    ("HubService/GetHistory", {"count": -1, "step": 9}, ["count", "step"]),
    ("HubService/GetHistory", {"count": 1441}, ["count"]),
    # too large
    ("TaskService/CreateTask", spec(title="x" * 201), ["spec.title"]),
    ("TaskService/CreateTask", spec(command=LONG, instructions=LONG), ["spec.instructions", "spec.command"]),
    ("TaskService/CreateTask", spec(checks=[{"run": "x"}] * 33), ["spec.checks"]),
    ("TaskService/CreateTask", spec(attempts_max=21), ["spec.attempts_max"]),
    ("TaskService/CreateTask", spec(run_timeout={"seconds": 90_000}), ["spec.run_timeout"]),
    ("TaskService/CreateTask", spec(labels={f"k{n}": "v" for n in range(33)}), ["spec.labels"]),
    ("TaskService/BatchCreateTasks", {"specs": [SPEC] * 1_001}, ["specs"]),
    ("TaskService/CancelTask", {"name": TASK, "reason": "x" * 501}, ["reason"]),
    ("TaskService/ListTasks", {"filter": "x" * 1_025}, ["filter"]),
    ("TaskService/WatchTasks", {"names": MANY}, ["names"]),
    ("AgentService/EnrollAgent", {"display_name": "x" * 101, "join_key": "x" * 129}, ["join_key", "display_name"]),
    ("AgentService/ListAgents", {"page_token": "x" * 1_025}, ["page_token"]),
    ("HubService/PauseHub", {"reason": "x" * 501}, ["reason"]),
    ("HubService/DrainHub", {"reason": "x" * 501}, ["reason"]),
    ("HubService/CreateToken", {"scope": 5, "ttl": {"seconds": 400_000_000}}, ["ttl"]),
    ("HubService/WatchEvents", {"type_prefix": "x" * 65}, ["type_prefix"]),
    # malformed
    ("TaskService/CreateTask", spec(repo="r", depends_on=["tasks/1"]), ["spec.repo", "spec.depends_on[0]"]),
    ("TaskService/CreateTask", spec(requirement={"capabilities": ["A B"]}), ["spec.requirement.capabilities[0]"]),
    ("TaskService/CreateTask", spec(requirement={"agent": "anna"}), ["spec.requirement.agent"]),
    ("TaskService/CreateTask", spec(lane=9, tier=9, kind=9), ["spec.kind", "spec.lane", "spec.tier"]),
    ("TaskService/CreateTask", {**spec(), "request_id": "no spaces here"}, ["request_id"]),
    ("TaskService/GetTask", {"name": "goals/" + "0" * 20}, ["name"]),
    ("TaskService/ListTasks", {"page_size": -1, "order_by": "title"}, ["page_size", "order_by"]),
    ("TaskService/ListTasks", {"filter": "colour = red"}, ["filter"]),
    ("TaskService/ListTaskEvents", {"name": TASK, "page_size": -1}, ["page_size"]),
    ("TaskService/WatchTasks", {"names": ["x"], "goal": "y", "position": -2}, ["names[0]", "goal", "position"]),
    ("TaskService/GetTaskArtifact", {"name": TASK, "generation": -1, "artifact": "../etc"}, ["generation", "artifact"]),
    ("TaskService/ClaimTask", {"name": TASK, "agent": "agents/A", "lease": {"seconds": 1}}, ["agent", "lease"]),
    ("AgentService/EnrollAgent", {"agent_id": "Not Good"}, ["agent_id"]),
    ("AgentService/ListAgents", {"page_size": -1}, ["page_size"]),
    ("AgentService/ListAgents", {"filter": "state = ASLEEP"}, ["filter"]),
    ("AgentService/UpdateAgent", {"agent": {"name": "x"}, "update_mask": {"paths": ["display_name"]}}, ["agent.name"]),
    (
        "AgentService/UpdateAgent",
        {"agent": {"name": "agents/a"}, "update_mask": {"paths": ["state", "offer.slots"]}},
        ["update_mask", "update_mask"],
    ),
    ("HubService/CreateToken", {"scope": 4}, ["scope"]),
    ("HubService/CreateToken", {"scope": 77}, ["scope"]),
    ("HubService/ListTokens", {"page_size": -1}, ["page_size"]),
    ("HubService/ListTokens", {"page_token": "garbage"}, ["page_token"]),
    ("HubService/RevokeToken", {"name": "act_secret"}, ["name"]),
    ("HubService/WatchEvents", {"position": -2}, ["position"]),
    ("HubService/ForgiveViolator", {}, ["principal"]),
    ("HubService/VerifyStore", {"backup": "backups/../../etc"}, ["backup"]),
    ("NotifyService/TestSink", {"name": "sinks/../x"}, ["name"]),
    (
        "NotifyService/CreatePushSubscription",
        {"endpoint": "http://", "auth": b"x", "display_name": "x" * 101},
        ["endpoint", "public_key", "auth", "display_name"],
    ),
    ("NotifyService/DeletePushSubscription", {"name": "push/x", "endpoint": "x" * 1001}, ["name", "endpoint"]),
    ("HubService/AckAlert", {"name": "alerts/Disk", "note": "x" * 501}, ["name", "note"]),
    ("HubService/AckAlert", {"name": "alertRules/disk-low"}, ["name"]),
    ("HubService/MuteAlert", {"name": "alerts/disk-low"}, ["duration"]),
    ("HubService/MuteAlert", {"name": "tasks/x", "duration": {"seconds": 7_776_001}}, ["name", "duration"]),
    ("HubService/UnmuteAlert", {"name": "disk-low"}, ["name"]),
    ("HubService/ResetAlertRule", {"name": "alerts/disk-low", "etag": "x" * 65}, ["name", "etag"]),
    ("HubService/UpdateAlertRule", {}, ["alert_rule", "update_mask"]),
    ("HubService/UpdateAlertRule", {"alert_rule": {}, "update_mask": {"paths": ["enabled"]}}, ["alert_rule.name"]),
    ("HubService/UpdateAlertRule", {"alert_rule": {"name": RULE}, "update_mask": {}}, ["update_mask"]),
    ("HubService/UpdateAlertRule", {"alert_rule": {"name": RULE}, "update_mask": {"paths": ["name"]}}, ["update_mask"]),
    (
        "HubService/UpdateAlertRule",
        {"alert_rule": {"name": RULE}, "update_mask": {"paths": ["*"]}},
        ["alert_rule.threshold", "alert_rule.severity"],
    ),
    (
        "HubService/UpdateAlertRule",
        {
            "alert_rule": {"name": RULE, "severity": 9, "hold_duration": {"seconds": -1}},
            "update_mask": {"paths": ["*"]},
        },
        ["alert_rule.severity", "alert_rule.hold_duration"],
    ),
    (
        "HubService/UpdateAlertRule",
        {"alert_rule": {"name": "alertRules/main-red", "threshold": 1.0}, "update_mask": {"paths": ["threshold"]}},
        ["alert_rule.threshold"],
    ),
    ("HubService/ListBackups", {"page_size": -1}, ["page_size"]),
    ("HubService/ListEvents", {"page_size": -1, "subject": "x" * 201}, ["page_size", "subject"]),
    ("HubService/ListEvents", {"page_token": "garbage"}, ["page_token"]),
    ("AgentService/RotateAgentToken", {"name": "agents/a", "grace": {"seconds": 604_801}}, ["grace"]),
    ("GoalService/ListGoals", {"page_size": -1}, ["page_size"]),
    ("GoalService/ListChanges", {"page_size": -1}, ["page_size"]),
    ("GoalService/WatchGoals", {"position": -2}, ["position"]),
    ("RegistryService/ListRepos", {"page_size": -1}, ["page_size"]),
    # contradictory
    ("TaskService/CreateTask", spec(command=""), ["spec.command"]),
    ("TaskService/CreateTask", spec(kind="TASK_KIND_MERGE"), ["spec.kind"]),
    ("TaskService/CreateTask", spec(delivery="DELIVERY_MERGE"), ["spec.delivery"]),
    ("TaskService/CreateTask", spec(kind="TASK_KIND_VERIFY"), ["spec.checks", "spec.repo"]),
    ("TaskService/CreateTask", spec(queue_deadline={"seconds": 1}), ["spec.queue_deadline"]),
    (
        "TaskService/CreateTask",
        spec(start_time={"seconds": 4_000_000_000}, queue_deadline={"seconds": 3_900_000_000}),
        ["spec.start_time"],
    ),
    ("TaskService/CreateTask", spec(checks=[{"id": "a", "run": "x"}, {"id": "a", "run": "y"}]), ["spec.checks[1].id"]),
    ("TaskService/BatchCreateTasks", {"specs": [SPEC, {**SPEC, "command": ""}]}, ["specs[1].command"]),
    ("TaskService/ListTasks", {"filter": "state = DEAD AND state = QUEUED"}, ["filter"]),
]

NOTHING_TO_GET_WRONG = {
    f"HubService/{method}"
    for method in (
        "ListViolators", "GetHub", "GetStats", "ResumeHub", "GetCaller", "ListAlerts", "ListAlertRules", "CreateBackup",
        "CompactStore", "DiagnoseHub",
    )
} | {f"NotifyService/{method}" for method in ("ListSinks", "GetPushKey", "ListPushSubscriptions")}  # fmt: skip
METHODS = {f"{service.name}/{method.name}": method for service in app.SERVICES for method in service.methods}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.mark.parametrize(("method", "request_", "wrong"), ROWS, ids=[f"{m}-{','.join(w)}" for m, _, w in ROWS])
async def test_a_bad_request_is_refused_and_every_field_is_named(folder, method, request_, wrong):
    async with running(folder) as caller:
        before = await caller.position()
        assert sorted(fields(await refused(call(caller, method, request_)))) == sorted(wrong)
        assert await caller.position() == before


def test_every_rpc_has_a_row_that_it_refuses():
    # Attach is told of in its own tests: it is a conversation.
    assert {method for method, _, _ in ROWS} | NOTHING_TO_GET_WRONG | {"AgentService/Attach"} == set(METHODS)


async def test_text_that_is_not_utf8_and_bytes_that_are_no_message_are_refused(tmp_path):
    async with running(tmp_path) as caller:
        before = await caller.position()
        raw = caller.channel.unary_unary("/agentcom.v1.TaskService/GetTask")
        for body in (b"\x0a\x02\xff\xfe", b"\xff\xff\xff"):
            problem = await refused(raw(body, timeout=PATIENCE_S))
            assert (type(problem), problem.reason) == (errors.Invalid, "GARBLED")
        assert await caller.position() == before


async def test_a_message_beyond_the_bound_is_refused_and_the_hub_lives(tmp_path):
    async with running(tmp_path) as caller:
        request = {"specs": [{**SPEC, "instructions": "x" * 65_000}] * 200}
        problem = await refused(call(caller, "TaskService/BatchCreateTasks", request))
        assert isinstance(problem, errors.Exhausted)
        assert (await caller.task()).state == task_pb2.Task.STATE_QUEUED


def call(caller, method, request_):
    """Call a method by name with a request made of plain values."""
    service, name = method.split("/")
    stub = {
        "TaskService": caller.tasks,
        "AgentService": caller.agents,
        "GoalService": caller.goals,
        "RegistryService": caller.registry,
        "HubService": caller.hubs,
        "NotifyService": caller.notify,
    }[service]
    return getattr(stub, name)(message_factory.GetMessageClass(METHODS[method].input_type)(**request_))
