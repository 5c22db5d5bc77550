"""The command line against a scripted hub: what it asks, what it prints, how it ends."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, timestamp_pb2
from typer.testing import CliRunner

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    alert_pb2,
    event_pb2,
    goal_pb2,
    goal_service_pb2,
    history_pb2,
    hub_pb2,
    hub_service_pb2,
    registry_service_pb2,
    repo_pb2,
    task_pb2,
    task_service_pb2,
)
from cli import command, goal_watch, hub_care, output, session
from cli.failure import Code
from cli.main import app
from kit import errors
from tests.support.fake_hub import SERVICES, FakeHub

ID = "01hgw2n8abcdefghjkmn"
GOAL = "---\ntitle: t\nrepo: r\n---\nwhy\n"
HUB = hub_service_pb2.GetHubResponse(hub=hub_pb2.Hub(state=hub_pb2.Hub.STATE_SERVING, event_position=7))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (command.ENV_ADDRESS, command.ENV_TOKEN, command.ENV_TOKEN_FILE, command.ENV_OUTPUT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(session, "RESUME_BASE_S", 0.0)


@pytest.fixture
def run(hub: FakeHub) -> Callable[..., Any]:
    def run(*words: str, stdin: str | bytes | None = None) -> Any:
        return CliRunner().invoke(app, [*words, "--hub", hub.address], input=stdin)

    return run


def event(position: int, type: str, subject: str = f"tasks/{ID}") -> event_pb2.Event:
    return event_pb2.Event(position=position, type=type, subject=subject, fields={"agent": "a-1"})


def goal(state: int, **fields: Any) -> goal_pb2.Goal:
    return goal_pb2.Goal(name=f"goals/{ID}", title="t", repo="repos/r", state=state, **fields)  # type: ignore[arg-type]  # a number stands for its name


def task(state: int, **fields: Any) -> task_pb2.Task:
    return task_pb2.Task(name=f"tasks/{ID}", spec=task_pb2.TaskSpec(title="t"), state=state, **fields)  # type: ignore[arg-type]  # a number stands for its name


TASK = task_service_pb2.CreateTaskResponse(task=task(task_pb2.Task.STATE_QUEUED))
AGENT = agent_pb2.Agent(name="agents/a")
VIOLATOR = hub_pb2.Violator(principal="tokens/x", kinds=[hub_pb2.Violator.KindCount(kind="INVALID", count=3)])
REPO = repo_pb2.Repo(name="repos/r")
TOKEN = hub_pb2.Token(name="tokens/t")
ALERT = alert_pb2.Alert(
    name="alerts/disk-low",
    rule="alertRules/disk-low",
    severity=alert_pb2.Alert.SEVERITY_WARNING,
    ack=alert_pb2.AlertAck(principal="tokens/x", note="on it"),
    mute=alert_pb2.AlertMute(target="alerts/disk-low", principal="tokens/x", reason="known"),
)
ALERT_RULE = alert_pb2.AlertRule(name="alertRules/disk-low", unit="bytes", threshold=2.0**30, below=True, enabled=True)
PLAIN = {
    "goal submit -": ("GoalService/CreateGoal", goal_service_pb2.CreateGoalResponse(goal=goal(2))),
    "goal list": ("GoalService/ListGoals", goal_service_pb2.ListGoalsResponse(goals=[goal(2)])),
    "goal show X": ("GoalService/GetGoal", goal_service_pb2.GetGoalResponse(goal=goal(2))),
    "goal cancel X": ("GoalService/CancelGoal", goal_service_pb2.CancelGoalResponse(goal=goal(6))),
    "goal pause X": ("GoalService/PauseGoal", goal_service_pb2.PauseGoalResponse(goal=goal(2, paused=True))),
    "goal resume X": ("GoalService/ResumeGoal", goal_service_pb2.ResumeGoalResponse(goal=goal(2))),
    "goal changes": ("GoalService/ListChanges", goal_service_pb2.ListChangesResponse()),
    "plan lint -": ("GoalService/LintPlan", goal_service_pb2.LintPlanResponse()),
    "task create title": ("TaskService/CreateTask", TASK),
    "task list": ("TaskService/ListTasks", task_service_pb2.ListTasksResponse(tasks=[task(3)])),
    "task show X": ("TaskService/GetTask", task_service_pb2.GetTaskResponse(task=task(3))),
    "task explain X": ("TaskService/ExplainTask", task_service_pb2.ExplainTaskResponse(summary="no agent")),
    "task cancel X": ("TaskService/CancelTask", task_service_pb2.CancelTaskResponse(task=task(9))),
    "task retry X": ("TaskService/RetryTask", task_service_pb2.RetryTaskResponse(task=task(3))),
    "task delete X": ("TaskService/DeleteTask", task_service_pb2.DeleteTaskResponse()),
    "task events X": ("TaskService/ListTaskEvents", task_service_pb2.ListTaskEventsResponse(events=[event(1, "a")])),
    "task artifact X": (
        "TaskService/GetTaskArtifact",
        task_service_pb2.GetTaskArtifactResponse(artifact=task_pb2.Artifact(id="diff", content=b"+1\n")),
    ),
    "agent list": ("AgentService/ListAgents", agent_service_pb2.ListAgentsResponse(agents=[AGENT])),
    "agent show a": ("AgentService/GetAgent", agent_service_pb2.GetAgentResponse(agent=AGENT)),
    "agent enroll a": ("AgentService/EnrollAgent", agent_service_pb2.EnrollAgentResponse(token="act_secret")),
    "agent drain a": ("AgentService/DrainAgent", agent_service_pb2.DrainAgentResponse()),
    "agent resume a": ("AgentService/ResumeAgent", agent_service_pb2.ResumeAgentResponse()),
    "agent delete a": ("AgentService/DeleteAgent", agent_service_pb2.DeleteAgentResponse()),
    "agent rotate-token a": ("AgentService/RotateAgentToken", agent_service_pb2.RotateAgentTokenResponse(token="t")),
    "repo add r url": ("RegistryService/CreateRepo", registry_service_pb2.CreateRepoResponse()),
    "repo list": ("RegistryService/ListRepos", registry_service_pb2.ListReposResponse(repos=[REPO])),
    "repo show r": ("RegistryService/GetRepo", registry_service_pb2.GetRepoResponse()),
    "repo update r --branch b": ("RegistryService/UpdateRepo", registry_service_pb2.UpdateRepoResponse()),
    "repo pause r": ("RegistryService/PauseRepo", registry_service_pb2.PauseRepoResponse()),
    "repo resume r": ("RegistryService/ResumeRepo", registry_service_pb2.ResumeRepoResponse()),
    "repo delete r": ("RegistryService/DeleteRepo", registry_service_pb2.DeleteRepoResponse()),
    "hub status": ("HubService/GetHub", HUB),
    "hub stats": ("HubService/GetStats", hub_service_pb2.GetStatsResponse()),
    "hub stats --history": (
        "HubService/GetHistory",
        hub_service_pb2.GetHistoryResponse(
            history=history_pb2.History(samples=[history_pb2.Sample(submitted_count=3, observed=True)])
        ),
    ),
    "hub pause": ("HubService/PauseHub", hub_service_pb2.PauseHubResponse()),
    "hub resume": ("HubService/ResumeHub", hub_service_pb2.ResumeHubResponse()),
    "hub alerts": ("HubService/ListAlerts", hub_service_pb2.ListAlertsResponse()),
    "alert list": ("HubService/ListAlerts", hub_service_pb2.ListAlertsResponse(alerts=[ALERT])),
    "alert mutes": ("HubService/ListAlerts", hub_service_pb2.ListAlertsResponse(mutes=[ALERT.mute])),
    "alert ack disk-low --note x": ("HubService/AckAlert", hub_service_pb2.AckAlertResponse(alert=ALERT)),
    "alert mute disk-low --for 1h": ("HubService/MuteAlert", hub_service_pb2.MuteAlertResponse(mute=ALERT.mute)),
    "alert unmute disk-low --rule": (
        "HubService/UnmuteAlert", hub_service_pb2.UnmuteAlertResponse(mute=ALERT.mute)
    ),
    "alert rules": ("HubService/ListAlertRules", hub_service_pb2.ListAlertRulesResponse(alert_rules=[ALERT_RULE])),
    "alert set disk-low --hold 1m": (
        "HubService/UpdateAlertRule", hub_service_pb2.UpdateAlertRuleResponse(alert_rule=ALERT_RULE)
    ),
    "alert reset disk-low": (
        "HubService/ResetAlertRule", hub_service_pb2.ResetAlertRuleResponse(alert_rule=ALERT_RULE)
    ),
    "hub backup": ("HubService/CreateBackup", hub_service_pb2.CreateBackupResponse()),
    "hub backups": ("HubService/ListBackups", hub_service_pb2.ListBackupsResponse()),
    "hub verify": ("HubService/VerifyStore", hub_service_pb2.VerifyStoreResponse()),
    "hub compact": ("HubService/CompactStore", hub_service_pb2.CompactStoreResponse()),
    "hub doctor": ("HubService/DiagnoseHub", hub_service_pb2.DiagnoseHubResponse()),
    "hub drain": ("HubService/DrainHub", hub_service_pb2.DrainHubResponse()),
    "hub whoami": (
        "HubService/GetCaller", hub_service_pb2.GetCallerResponse(principal="local", scope=hub_pb2.SCOPE_ADMIN)
    ),
    "hub history": ("HubService/ListEvents", hub_service_pb2.ListEventsResponse(events=[event(1, "a")])),
    "hub violators": ("HubService/ListViolators", hub_service_pb2.ListViolatorsResponse(violators=[VIOLATOR])),
    "hub forgive tokens/x": (
        "HubService/ForgiveViolator", hub_service_pb2.ForgiveViolatorResponse(violator=VIOLATOR)
    ),
    "token create --scope viewer": ("HubService/CreateToken", hub_service_pb2.CreateTokenResponse(secret="act_x")),
    "token list": ("HubService/ListTokens", hub_service_pb2.ListTokensResponse(tokens=[TOKEN])),
    "token revoke X": ("HubService/RevokeToken", hub_service_pb2.RevokeTokenResponse()),
}  # fmt: skip


@pytest.mark.parametrize("words", PLAIN)
def test_a_command_calls_its_method_with_a_deadline_and_prints_json_or_text(words: str, hub: FakeHub, run):
    method, answer = PLAIN[words]
    hub.answers = {method: answer, "TaskService/ListTasks": task_service_pb2.ListTasksResponse(tasks=[task(3)])}
    shown = run(*words.split(), stdin=GOAL)
    assert (shown.exit_code, shown.stderr) == (0, ""), shown.output
    assert shown.stdout.strip()
    printed = run("--output", "json", *words.split(), stdin=GOAL)
    assert printed.exit_code == 0, printed.output
    assert isinstance(json.loads(printed.stdout), list if "list" in words or words in LISTS else dict)
    assert hub.asked(method)
    longest_s = hub_care.WHOLE_S + ROUNDED_S if words in WHOLE else 31
    assert all(deadline is not None and deadline < longest_s for deadline in hub.deadlines_s)


LISTS = (
    "hub stats --history", "hub violators", "hub history", "goal changes", "task events X", "plan lint -",
    "hub alerts", "hub backups", "hub doctor", "alert rules", "alert mutes",
)  # fmt: skip
WHOLE = ("hub backup", "hub verify", "hub compact", "hub doctor")
"""They take as long as the store is large."""
ROUNDED_S = 11.0
"""gRPC sends a timeout of over 1,000 s in tens of seconds, rounded up: 3,600.001 s arrive as 3,610 s."""


def test_every_method_of_the_contract_has_a_command():
    by_stream = {"WatchTasks", "TailTaskLog", "WatchGoals", "WatchEvents"}
    # Batches are for programs, the display name of an agent is set when it is enrolled, the rest is the sidecar's.
    for_others = {"Attach", "BatchCreateTasks", "ClaimTask", "ReportTask", "UpdateAgent"}
    methods = {method.name for service in SERVICES for method in service.methods}
    assert methods - by_stream - for_others == {method.partition("/")[2] for method, _ in PLAIN.values()}


REFUSALS: list[tuple[errors.Problem, Code, str]] = [
    (errors.Invalid.of("spec.title", "is empty"), Code.USAGE, "error: spec.title: is empty"),
    (errors.NotFound("task tasks/x is not there"), Code.NOT_FOUND, "error: task tasks/x is not there"),
    (errors.AlreadyExists("it is there"), Code.CONFLICT, "error: it is there"),
    (errors.IllegalState("task is dead", state="DEAD"), Code.CONFLICT, "error: task is dead"),
    (errors.Conflict("etag", reason="ETAG_MISMATCH"), Code.CONFLICT, "error: etag"),
    (errors.Fenced("old generation"), Code.CONFLICT, "error: old generation"),
    (errors.Exhausted("slow down", retry_delay_s=2.5), Code.UNAVAILABLE, "hint: try again in 2.5 s"),
    (errors.Unavailable("draining", reason="DRAINING"), Code.UNAVAILABLE, "error: draining"),
    (errors.Unauthenticated("who are you"), Code.FORBIDDEN, "hint: give a token"),
    (errors.Forbidden("not you"), Code.FORBIDDEN, "error: not you"),
    (errors.Problem("incident 7"), Code.REFUSED, "error: incident 7"),
]


@pytest.mark.parametrize(("problem", "code", "said"), REFUSALS, ids=lambda value: str(value)[:20])
def test_a_refusal_is_one_line_on_stderr_and_an_exit_code(problem, code: Code, said: str, hub: FakeHub, run):
    hub.answers["TaskService/CancelTask"] = problem
    result = run("task", "cancel", "X")
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_a_hub_that_is_not_there_is_told_with_its_address():
    result = CliRunner().invoke(app, ["hub", "status", "--hub", "127.0.0.1:1"])
    assert result.exit_code == Code.UNAVAILABLE
    assert "the hub at 127.0.0.1:1 cannot be reached" in result.stderr


def test_a_hub_that_does_not_answer_in_time_is_a_time_out(hub: FakeHub, run):
    def wait(_request: object) -> object:
        hub.release.wait()
        return HUB

    hub.answers["HubService/GetHub"] = wait
    result = run("hub", "status", "--timeout", "0.2")
    assert result.exit_code == Code.UNAVAILABLE
    assert "did not answer in time" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hub", "status", "--hub", "nonsense"], "--hub: 'nonsense' is not of the form"),
        (["task", "create", "t", "--lane", "fast"], "--lane: must be one of urgent, high, normal, low"),
        (["task", "create", "t", "--label", "x"], "--label: must be key=value"),
        (["task", "create", "t", "--run-timeout", "soon"], "--run-timeout: must be a duration"),
        (["task", "create", "t", "--start", "soon"], "--start: must be a time"),
        (["task", "watch", "X", "--goal", "Y"], "--goal: is not needed"),
        (["repo", "update", "r"], "nothing to change"),
        (["token", "create", "--scope", "root"], "--scope: must be one of admin"),
        (["hub", "status", "--token-file", "/nowhere"], "--token-file: /nowhere: No such file"),
        (["hub", "status", "--token", "act_x", "--hub", "192.0.2.1:1"], "without TLS"),
        (["goal", "submit", "/nowhere.md"], "FILE: /nowhere.md: No such file"),
        (["goal", "submit"], "Missing"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_names_the_field_and_ends_with_2(words: list[str], said: str):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == Code.USAGE
    assert said in re.sub(r"\s+", " ", result.stderr)


def test_a_bad_goal_file_is_refused_with_every_line_before_the_hub_is_asked(tmp_path: Path, hub: FakeHub, run):
    file = tmp_path / "goal.yaml"
    file.write_text("title: 1\nrepo: r\nlane: fast\n")
    result = run("goal", "submit", str(file))
    assert result.exit_code == Code.USAGE
    assert "error: title: line 1: must be text" in result.stderr
    assert "error: lane: line 3: must be one of" in result.stderr
    assert not hub.requests


CYCLE = """title: t
repo: r
assertions:
  - {id: A1, text: x, run: make}
plan:
  - {id: T1, title: a, command: make, depends_on: [T2], fulfills: [A1], checks: [make]}
  - {id: T2, title: b, command: make, depends_on: [T1], checks: [make]}
"""


def test_what_the_hub_refuses_in_a_goal_file_is_told_with_its_line(tmp_path: Path, hub: FakeHub, run):
    file = tmp_path / "goal.yaml"
    file.write_text(CYCLE)
    wrong = errors.Violation("goal.plan.tasks[1].depends_on[0]", "these wait for each other", "CYCLE")
    hub.answers["GoalService/CreateGoal"] = errors.Invalid(violations=[wrong, errors.Violation("request_id", "bad")])
    result = run("goal", "submit", str(file))
    assert result.exit_code == Code.USAGE
    assert result.stderr.splitlines() == [
        "error: plan[1].depends_on[0]: line 7: these wait for each other",
        "error: request_id: bad",
    ]


def test_what_the_linter_finds_in_a_goal_file_is_told_with_its_line(tmp_path: Path, hub: FakeHub, run):
    file = tmp_path / "goal.yaml"
    file.write_text(CYCLE)
    found = goal_pb2.Finding(
        rule="CYCLE", severity=goal_pb2.Finding.SEVERITY_ERROR, field="tasks[0].depends_on[0]", message="a circle"
    )
    hub.answers["GoalService/LintPlan"] = goal_service_pb2.LintPlanResponse(findings=[found])
    result = run("-o", "json", "plan", "lint", str(file))
    assert result.exit_code == Code.REFUSED
    (told,) = json.loads(result.stdout)
    assert (told["field"], told["message"]) == ("plan[0].depends_on[0]", "line 6: a circle")


def test_a_create_that_is_tried_again_carries_the_same_request_id(hub: FakeHub, run):
    hub.answers["TaskService/CreateTask"] = [errors.Unavailable("restarting"), TASK]
    assert run("task", "create", "t", "--command", "make").exit_code == 0
    first, second = hub.asked("TaskService/CreateTask")
    assert first.request_id and first == second


def test_a_verb_without_a_request_id_is_not_repeated(hub: FakeHub, run):
    hub.answers["TaskService/CancelTask"] = [errors.Unavailable("restarting"), task_service_pb2.CancelTaskResponse()]
    assert run("task", "cancel", "X").exit_code == Code.UNAVAILABLE
    assert len(hub.asked("TaskService/CancelTask")) == 1


def test_the_options_of_a_task_reach_its_spec(hub: FakeHub, run):
    hub.answers["TaskService/CreateTask"] = TASK
    words = (
        "task create title --command make --repo r --check a --check b --kind work --lane urgent --tier trivial "
        f"--delivery merge --executor shell --agent a-1 --require gpu --depends-on {ID} --if-dependency-fails park "
        "--label os=linux --attempts 2 --start-timeout 20s --run-timeout 2m --silence-timeout 1.5s "
        "--start 2027-01-01T00:00:00Z --queue-deadline 2027-01-02T00:00:00Z --instructions text --request-id 12345678 "
        "--isolation required --network"
    )
    assert run(*words.split()).exit_code == 0
    want = task_pb2.TaskSpec(
        title="title", instructions="text", command="make", repo="repos/r", kind=1, lane=1, tier=1, delivery=3,  # type: ignore[arg-type]  # a number stands for its name
        checks=[task_pb2.Check(run="a"), task_pb2.Check(run="b")], depends_on=[f"tasks/{ID}"], dependency_policy=2,  # type: ignore[arg-type]  # a number stands for its name
        requirement=task_pb2.Requirement(capabilities=["gpu"], executor="shell", agent="agents/a-1"),
        labels={"os": "linux"}, attempts_max=2, start_time=timestamp_pb2.Timestamp(seconds=1798761600),
        queue_deadline=timestamp_pb2.Timestamp(seconds=1798848000),
    )  # fmt: skip
    want.start_timeout.seconds = 20
    want.run_timeout.seconds = 120
    want.silence_timeout.FromMilliseconds(1500)
    want.policy.isolation, want.policy.network = task_pb2.Policy.ISOLATION_REQUIRED, True
    (request,) = hub.asked("TaskService/CreateTask")
    assert (request.spec, request.request_id) == (want, "12345678")


@pytest.mark.parametrize(
    ("unit", "text", "threshold"),
    [
        ("seconds", "10m", 600.0),
        ("seconds", "90", 90.0),
        ("share", "80%", 0.8),
        ("share", "0.25", 0.25),
        ("bytes", "2GiB", 2.0**31),
        ("bytes", "1048576", 2.0**20),
        ("tasks", "5", 5.0),
    ],
)
def test_a_threshold_is_given_in_the_unit_of_its_rule(unit: str, text: str, threshold: float, hub: FakeHub, run):
    rule = alert_pb2.AlertRule(name="alertRules/r", unit=unit)
    hub.answers["HubService/ListAlertRules"] = hub_service_pb2.ListAlertRulesResponse(alert_rules=[rule])
    hub.answers["HubService/UpdateAlertRule"] = hub_service_pb2.UpdateAlertRuleResponse(alert_rule=rule)
    words = f"alert set r --threshold {text} --hold 1m --cooldown 2h --severity critical --disable --etag 3"
    assert run(*words.split()).exit_code == 0
    (asked,) = hub.asked("HubService/UpdateAlertRule")
    want = alert_pb2.AlertRule(name="alertRules/r", threshold=threshold, severity=2, etag="3")  # type: ignore[arg-type]  # a number stands for its name
    want.hold_duration.seconds, want.cooldown_duration.seconds = 60, 7_200
    assert asked.alert_rule == want
    fields = ["cooldown_duration", "enabled", "hold_duration", "severity", "threshold"]
    assert list(asked.update_mask.paths) == fields


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("set r --threshold 10m", "must be a number of tasks"),
        ("set r --threshold 80%", "must be a number of tasks"),
        ("set none --threshold 1GiB", "the rule has no unit"),
        ("set r", "nothing to change"),
        ("set r --severity loud", "--severity: must be one of warning, critical"),
        ("mute r --for ever", "--for: must be a duration"),
        ("mute r", "Missing option"),
    ],
)
def test_a_rule_is_not_asked_for_what_makes_no_sense(words: str, said: str, hub: FakeHub, run):
    rule = alert_pb2.AlertRule(name="alertRules/r", unit="tasks")
    hub.answers["HubService/ListAlertRules"] = hub_service_pb2.ListAlertRulesResponse(alert_rules=[rule])
    result = run("alert", *words.split())
    assert result.exit_code == Code.USAGE and said in re.sub(r"\s+", " ", result.stderr)


def test_what_is_muted_is_an_alert_unless_it_is_said_to_be_a_rule(hub: FakeHub, run):
    hub.answers["HubService/MuteAlert"] = hub_service_pb2.MuteAlertResponse(mute=ALERT.mute)
    for words in ("disk-low", "disk-low --rule", "alertRules/disk-low", "alerts/agent-offline.anna"):
        assert run("alert", "mute", *words.split(), "--for", "8h", "--reason", "known").exit_code == 0
    asked = hub.asked("HubService/MuteAlert")
    assert [one.name for one in asked] == [
        "alerts/disk-low", "alertRules/disk-low", "alertRules/disk-low", "alerts/agent-offline.anna",
    ]  # fmt: skip
    assert {(one.duration.seconds, one.reason) for one in asked} == {(28_800, "known")}


def test_filters_quote_what_they_are_given(hub: FakeHub, run):
    hub.answers["TaskService/ListTasks"] = task_service_pb2.ListTasksResponse()
    assert run("task", "list", "--state", "dead", "--goal", ID, "--label", 'os=a "b"').stdout == "no tasks\n"
    (request,) = hub.asked("TaskService/ListTasks")
    assert request.filter == f'state = "dead" AND goal = "goals/{ID}" AND labels.os = "a \\"b\\""'


def test_a_list_reads_page_after_page_up_to_its_limit(hub: FakeHub, run):
    def page(request: task_service_pb2.ListTasksRequest) -> task_service_pb2.ListTasksResponse:
        tasks = [task(3) for _ in range(min(2, request.page_size))]
        return task_service_pb2.ListTasksResponse(tasks=tasks, next_page_token="more")

    hub.answers["TaskService/ListTasks"] = page
    assert len(json.loads(run("task", "list", "--limit", "5", "-o", "json").stdout)) == 5
    assert [request.page_token for request in hub.asked("TaskService/ListTasks")] == ["", "more", "more"]


def test_an_update_masks_exactly_what_was_given(hub: FakeHub, run):
    hub.answers["RegistryService/UpdateRepo"] = registry_service_pb2.UpdateRepoResponse()
    assert run("repo", "update", "r", "--no-checks", "--merge-style", "fast-forward", "--etag", "3").exit_code == 0
    (request,) = hub.asked("RegistryService/UpdateRepo")
    assert list(request.update_mask.paths) == ["merge_style", "checks"]
    assert (request.repo.name, request.repo.etag, request.repo.merge_style) == ("repos/r", "3", 2)


def test_a_folder_given_as_the_address_of_a_repo_becomes_absolute(hub: FakeHub, run, tmp_path: Path, monkeypatch):
    (tmp_path / "origin.git").mkdir()
    monkeypatch.chdir(tmp_path)
    hub.answers["RegistryService/CreateRepo"] = registry_service_pb2.CreateRepoResponse()
    assert run("repo", "add", "r", "origin.git").exit_code == 0
    assert hub.asked("RegistryService/CreateRepo")[0].repo.url == str((tmp_path / "origin.git").resolve())


@pytest.mark.parametrize("by", ["flag", "flag before", "file", "environment", "file in the environment"])
def test_the_token_and_the_address_are_found_in_flags_files_and_the_environment(by: str, hub, tmp_path, monkeypatch):
    hub.answers["HubService/GetHub"] = HUB
    file = tmp_path / "token"
    file.write_text("act_secret\n")
    words = ["hub", "status"]
    if by == "flag":
        words += ["--token", "act_secret"]
    elif by == "flag before":
        words = ["--token", "act_secret", *words]
    elif by == "file":
        words += ["--token-file", str(file)]
    else:
        monkeypatch.setenv(command.ENV_TOKEN if by == "environment" else command.ENV_TOKEN_FILE,
                           "act_secret" if by == "environment" else str(file))  # fmt: skip
    monkeypatch.setenv(command.ENV_ADDRESS, hub.address)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert hub.metadata[0]["authorization"] == "Bearer act_secret"


def test_an_option_after_the_command_wins_over_one_before(hub: FakeHub):
    hub.answers["HubService/GetHub"] = HUB
    words = ["-o", "json", "--hub", "127.0.0.1:1", "hub", "status", "--hub", hub.address, "-o", "table"]
    assert CliRunner().invoke(app, words).stdout.startswith("state")


def test_json_keeps_the_protos_names_and_shows_defaults(hub: FakeHub, run):
    hub.answers["TaskService/GetTask"] = task_service_pb2.GetTaskResponse(task=task(3))
    printed = run("task", "show", ID, "-o", "json").stdout
    assert json.loads(printed)["attempts_used"] == 0
    assert json_format.Parse(printed, task_pb2.Task()) == task(3)


def test_text_from_elsewhere_cannot_steer_the_terminal(hub: FakeHub, run):
    evil = task(3, state_reason="\x1b]0;pwned\x07 [bold]\u202e")
    evil.spec.title = "\x1b[2J[red]title"
    hub.answers["TaskService/GetTask"] = task_service_pb2.GetTaskResponse(task=evil)
    hub.answers["TaskService/CancelTask"] = errors.NotFound("\x1b[2Jgone")
    shown, refused = run("task", "show", ID), run("task", "cancel", ID)
    assert "[red]title" in shown.stdout and "[bold]" in shown.stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.output + refused.output)


def goal_says(position: int, state: int, type: str = "task.assigned") -> goal_service_pb2.WatchGoalsResponse:
    return goal_service_pb2.WatchGoalsResponse(event=event(position, type), goal=goal(state), position=position)


@pytest.mark.parametrize(("state", "code"), [(4, Code.OK), (5, Code.REFUSED), (6, Code.REFUSED)])
def test_watching_a_goal_ends_with_it_and_tells_whether_it_succeeded(state: int, code: Code, hub: FakeHub, run):
    hub.answers = {
        "HubService/GetHub": HUB,
        "GoalService/GetGoal": goal_service_pb2.GetGoalResponse(goal=goal(2)),
        "GoalService/WatchGoals": [[goal_says(8, 2), goal_says(9, state, "goal.ended"), goal_says(10, state)]],
    }
    result = run("goal", "watch", ID)
    assert result.exit_code == code
    assert [line.split()[-2] for line in result.stdout.splitlines()] == ["task.assigned", "goal.ended", f"goals/{ID}"]
    assert hub.asked("GoalService/WatchGoals")[0].position == 7


def test_a_goal_is_followed_in_the_ids_of_its_plan(hub: FakeHub, run):
    says = goal_says(8, 4, "task.pushed")
    says.goal.task_counts.total = 3
    plan = goal_pb2.Plan(tasks=[goal_pb2.PlanTask(id="T1", task=f"tasks/{ID}")])
    hub.answers = {
        "HubService/GetHub": HUB,
        "GoalService/GetGoal": goal_service_pb2.GetGoalResponse(goal=goal(2, plan=plan)),
        "GoalService/WatchGoals": [[says]],
    }
    first = run("goal", "watch", ID).stdout.splitlines()[0]
    assert first.split() == ["0/3", "T1", "task.pushed", "agent=a-1"]


def test_a_watch_resumes_after_the_last_position_when_the_hub_goes_away(hub: FakeHub, run):
    gone = errors.Unavailable("restarting")
    progress = goal_service_pb2.WatchGoalsResponse(position=12)
    hub.answers = {
        "HubService/GetHub": HUB,
        "GoalService/GetGoal": goal_service_pb2.GetGoalResponse(goal=goal(2)),
        "GoalService/WatchGoals": [[goal_says(8, 2), gone], gone, [progress], [goal_says(14, 4)]],
    }
    result = run("goal", "watch", ID, "-o", "json")
    assert result.exit_code == 0
    assert [json.loads(line)["position"] for line in result.stdout.splitlines()] == ["8", "14"]
    assert [request.position for request in hub.asked("GoalService/WatchGoals")] == [7, 8, 8, 12]


@pytest.mark.parametrize("refused", [False, True])
def test_on_a_terminal_a_goal_is_drawn_anew_with_each_change(refused: bool, hub: FakeHub, run, monkeypatch):
    monkeypatch.setattr(output.Output, "is_live", True)
    monkeypatch.setattr(goal_watch, "REDRAW_S", 0.0)

    def says_and_stays(_request: object) -> Iterator[Any]:
        yield goal_says(8, 2)
        hub.release.wait()

    says = goal_service_pb2.GetGoalResponse
    counts = goal_pb2.TaskCounts(total=1, succeeded=1)
    hub.answers = {
        "HubService/GetHub": HUB,
        "GoalService/GetGoal": [says(goal=goal(2)), says(goal=goal(2)), says(goal=goal(4, task_counts=counts))],
        "TaskService/ListTasks": task_service_pb2.ListTasksResponse(tasks=[task(8, plan_task="T1")]),
        "GoalService/WatchGoals": errors.Forbidden("not you") if refused else says_and_stays,
    }
    result = run("goal", "watch", ID)
    assert result.exit_code == (Code.FORBIDDEN if refused else Code.OK), result.output
    if not refused:
        assert "1/1" in result.stdout and "T1" in result.stdout


def test_a_watch_that_is_refused_says_so(hub: FakeHub, run):
    hub.answers = {
        "HubService/GetHub": HUB,
        "GoalService/GetGoal": goal_service_pb2.GetGoalResponse(goal=goal(2)),
        "GoalService/WatchGoals": errors.Forbidden("not you"),
    }
    assert run("goal", "watch", ID).exit_code == Code.FORBIDDEN


def test_a_watch_gives_up_when_nothing_is_heard_for_too_long(hub: FakeHub, run, monkeypatch):
    monkeypatch.setattr(session, "RESUME_S_MAX", 0.0)
    hub.answers = {"HubService/GetHub": HUB, "HubService/WatchEvents": errors.Unavailable("restarting")}
    assert run("hub", "events").exit_code == Code.UNAVAILABLE


def test_a_stream_that_falls_silent_is_opened_again(hub: FakeHub, run, monkeypatch):
    def silent() -> Iterator[Any]:
        hub.release.wait()
        yield goal_says(8, 2)

    monkeypatch.setattr(session.Session.listen, "__defaults__", (0.1,))
    started = time.monotonic()
    hub.answers = {
        "HubService/GetHub": HUB,
        "GoalService/GetGoal": goal_service_pb2.GetGoalResponse(goal=goal(2)),
        "GoalService/WatchGoals": [silent(), [goal_says(9, 4)]],
    }
    assert run("goal", "watch", ID).exit_code == 0
    assert time.monotonic() - started < 10  # long before the pings of the channel would have ended it (20 s)


def test_submit_with_wait_follows_the_goal_it_filed(hub: FakeHub, run):
    finding = goal_pb2.Finding(rule="OVERLAP", field="tasks[0]", message="they meet", severity=2)  # type: ignore[arg-type]  # a number stands for its name
    hub.answers = {
        "HubService/GetHub": HUB,
        "GoalService/CreateGoal": goal_service_pb2.CreateGoalResponse(goal=goal(2), findings=[finding]),
        "GoalService/GetGoal": goal_service_pb2.GetGoalResponse(goal=goal(5, state_reason="T1 is dead")),
    }
    result = run("goal", "submit", "-", "--wait", stdin=GOAL)
    assert result.exit_code == Code.REFUSED
    assert "failed: T1 is dead" in result.stdout
    assert "warning: plan.tasks[0]: line 1: they meet" in result.stderr
    assert hub.asked("GoalService/CreateGoal")[0].goal.description == "why"


def test_lint_ends_with_1_only_for_errors(hub: FakeHub, run):
    for severity, code in ((1, Code.REFUSED), (2, Code.OK)):
        finding = goal_pb2.Finding(rule="CYCLE", severity=severity)  # type: ignore[arg-type]  # a number stands for its name
        hub.answers["GoalService/LintPlan"] = goal_service_pb2.LintPlanResponse(findings=[finding])
        assert run("plan", "lint", "-", stdin=GOAL).exit_code == code


def task_says(position: int, state: int) -> task_service_pb2.WatchTasksResponse:
    return task_service_pb2.WatchTasksResponse(event=event(position, "task.moved"), task=task(state), position=position)


@pytest.mark.parametrize(("state", "code"), [(8, Code.OK), (10, Code.REFUSED)])
def test_creating_with_wait_ends_with_the_task(state: int, code: Code, hub: FakeHub, run):
    hub.answers = {
        "HubService/GetHub": HUB,
        "TaskService/CreateTask": TASK,
        "TaskService/GetTask": task_service_pb2.GetTaskResponse(task=task(3)),
        "TaskService/WatchTasks": [[task_says(8, 5), task_says(9, state)]],
    }
    assert run("task", "create", "t", "--command", "make", "--wait").exit_code == code


def test_the_log_of_a_running_task_is_followed_to_its_end(hub: FakeHub, run):
    piece = task_service_pb2.TailTaskLogResponse
    hub.answers = {
        "TaskService/GetTask": task_service_pb2.GetTaskResponse(task=task(5)),
        "TaskService/TailTaskLog": [[piece(text="one\n"), piece(text="two\n", dropped_bytes=9), piece(end=True)]],
    }
    result = run("task", "log", ID)
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert "9 bytes left out" in result.stderr


def test_the_log_of_a_task_that_does_not_run_is_the_kept_one(hub: FakeHub, run):
    artifact = task_pb2.Artifact(id="log", content=b"done\n")
    hub.answers = {
        "TaskService/GetTask": task_service_pb2.GetTaskResponse(task=task(8)),
        "TaskService/GetTaskArtifact": task_service_pb2.GetTaskArtifactResponse(artifact=artifact),
    }
    assert run("task", "log", ID).stdout == "done\n"


def test_an_artifact_is_written_byte_for_byte(hub: FakeHub, run, tmp_path: Path):
    artifact = task_pb2.Artifact(id="diff", content=b"\xff\x00\r\n", truncated=True, size_bytes=99)
    hub.answers["TaskService/GetTaskArtifact"] = task_service_pb2.GetTaskArtifactResponse(artifact=artifact)
    result = run("task", "artifact", ID, "diff", "--file", str(tmp_path / "d"))
    assert (tmp_path / "d").read_bytes() == b"\xff\x00\r\n"
    assert "the whole has 99 bytes" in result.stderr
    assert run("task", "artifact", ID).stdout_bytes == b"\xff\x00\r\n"


def test_events_up_to_the_end_stop_there(hub: FakeHub, run):
    says = hub_service_pb2.WatchEventsResponse
    hub.answers = {
        "HubService/GetHub": HUB,
        "HubService/WatchEvents": [[says(event=event(6, "a.b"), position=6), says(event=event(7, "a.c"), position=7)]],
    }
    result = run("hub", "events", "--since", "5", "--no-follow", "-o", "json")
    assert [json.loads(line)["event"]["type"] for line in result.stdout.splitlines()] == ["a.b", "a.c"]
    assert hub.asked("HubService/WatchEvents")[0].position == 5


def test_the_version_is_shown_without_a_hub():
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("agentcom ")
