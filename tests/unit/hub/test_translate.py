"""Between the wire and the records: the numbers are the same, and what goes through comes back."""

from __future__ import annotations

import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentcom.v1 import agent_pb2, change_pb2, goal_pb2, hub_pb2, repo_pb2, task_pb2
from hub.core import agent, change, goal, plan, policy, repo, task, token
from hub.engine.desk import hubstate
from hub.rpc import translate

ENUMS = [
    (task.Lane, task_pb2.Lane, "LANE_"),
    (task.Tier, task_pb2.Tier, "TIER_"),
    (task.Kind, task_pb2.TaskKind, "TASK_KIND_"),
    (task.Delivery, task_pb2.Delivery, "DELIVERY_"),
    (task.DependencyPolicy, task_pb2.DependencyPolicy, "DEPENDENCY_POLICY_"),
    (task.Attribution, task_pb2.Attribution, "ATTRIBUTION_"),
    (policy.Isolation, task_pb2.Policy.Isolation, "ISOLATION_"),
    (task.Expectation, task_pb2.Check.Expectation, "EXPECTATION_"),
    (task.Verdict, task_pb2.Receipt.Verdict, "VERDICT_"),
    (task.Phase, task_pb2.Receipt.Phase, "PHASE_"),
    (task.AttemptOutcome, task_pb2.Attempt.Outcome, "OUTCOME_"),
    (task.State, task_pb2.Task.State, "STATE_"),
    (agent.State, agent_pb2.Agent.State, "STATE_"),
    (goal.State, goal_pb2.Goal.State, "STATE_"),
    (change.State, change_pb2.Change.State, "STATE_"),
    (repo.MergeStyle, repo_pb2.Repo.MergeStyle, "MERGE_STYLE_"),
    (plan.Severity, goal_pb2.Finding.Severity, "SEVERITY_"),
    (token.Scope, hub_pb2.Scope, "SCOPE_"),
    (hubstate.State, hub_pb2.Hub.State, "STATE_"),
]


@pytest.mark.parametrize(("ours", "theirs", "prefix"), ENUMS, ids=[f"{o.__module__}.{o.__name__}" for o, _, _ in ENUMS])
def test_the_numbers_of_our_enums_are_those_of_the_contract(ours, theirs, prefix):
    wire = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
    assert {member.name: member.value for member in ours if member.value} == wire


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
seconds = st.integers(1, 86_400_000).map(lambda ms: ms / 1000)
times = st.integers(1, 4_000_000_000_000).map(lambda ms: ms / 1000)
checks = st.builds(
    task.Check, id=texts.filter(bool), run=texts, timeout_s=seconds, expect_on_base=st.sampled_from(task.Expectation)
)


def _with_its_demand(spec):
    """A policy that requires a sandbox is a requirement of the agent."""
    sandbox = spec.policy.isolation is policy.Isolation.REQUIRED
    return replace(spec, requirement=replace(spec.requirement, sandbox=sandbox))


specs = st.builds(
    task.TaskSpec,
    title=texts,
    instructions=texts,
    lane=st.sampled_from(task.Lane),
    requirement=st.builds(
        task.Requirement,
        kind=st.sampled_from(task.Kind),
        tier=st.sampled_from(task.Tier),
        capabilities=st.lists(texts, unique=True).map(lambda found: tuple(sorted(found))),
        executor=texts,
        agent=st.sampled_from(["", "a-1"]),
        repo=st.sampled_from(["", "r-1"]),
    ),
    command=texts,
    checks=st.lists(checks, max_size=3).map(tuple),
    depends_on=st.lists(st.sampled_from(["0" * 20, "1" * 20]), unique=True).map(tuple),
    dependency_policy=st.sampled_from(task.DependencyPolicy),
    delivery=st.sampled_from(task.Delivery),
    attempts_max=st.integers(1, 20),
    start_at=st.none() | times,
    queue_deadline_at=st.none() | times,
    start_timeout_s=seconds,
    run_timeout_s=seconds,
    silence_timeout_s=seconds,
    labels=st.dictionaries(texts, texts, max_size=3),
    touches=st.lists(texts, max_size=3).map(tuple),
    policy=st.builds(policy.Policy, isolation=st.sampled_from(policy.Isolation), network=st.booleans()),
).map(_with_its_demand)
receipts = st.builds(
    task.Receipt,
    check=texts,
    exit_code=st.integers(-64, 255),
    duration_s=seconds,
    started_at=st.none() | times,
    verdict=st.sampled_from(task.Verdict),
    output_tail=texts,
    phase=st.none() | st.sampled_from(task.Phase),
)
results = st.builds(
    task.Result,
    summary=texts,
    already_done=st.booleans(),
    receipts=st.lists(receipts, max_size=2).map(tuple),
    tokens=st.none() | st.integers(0, 10**12),
    diff_stat=st.none() | st.builds(task.DiffStat, files=st.integers(0, 9)),
)


@given(specs)
def test_a_contract_comes_back_as_it_was(spec):
    message = task_pb2.TaskSpec()
    translate.write_spec(spec, message)
    assert translate.read_spec(task_pb2.TaskSpec.FromString(message.SerializeToString())) == spec


@given(results)
def test_a_result_comes_back_as_it_was(result):
    message = task_pb2.Result()
    translate.write_result(result, message)
    assert translate.read_result(task_pb2.Result.FromString(message.SerializeToString())) == (result, {})


def test_artefacts_are_told_without_their_content_and_kept_with_it():
    message = task_pb2.Result()
    message.artifacts.add(id="diff", media_type="text/x-diff", content=b"abc", truncated=True, size_bytes=9)
    result, contents = translate.read_result(message)
    assert result.artifacts == (task.ArtifactInfo(id="diff", media_type="text/x-diff", size_bytes=9, truncated=True),)
    assert contents == {"diff": b"abc"}


def test_what_is_absent_has_the_default_that_the_contract_promises():
    spec = translate.read_spec(task_pb2.TaskSpec(title="t"))
    assert spec == task.TaskSpec(title="t")
    assert spec.lane is task.Lane.NORMAL
    assert spec.delivery is task.Delivery.NONE
    assert translate.read_spec(task_pb2.TaskSpec(repo="repos/r")).delivery is task.Delivery.BRANCH
    verify = task_pb2.TaskSpec(repo="repos/r", kind=task_pb2.TASK_KIND_VERIFY)
    assert translate.read_spec(verify).delivery is task.Delivery.NONE


def test_checks_without_an_id_are_named_by_their_position():
    read = translate.read_checks([task_pb2.Check(run="a"), task_pb2.Check(id="b", run="b"), task_pb2.Check(run="c")])
    assert [check.id for check in read] == ["check-1", "b", "check-3"]


@given(times)
def test_a_time_is_kept_to_the_microsecond(at):
    message = timestamp_pb2.Timestamp()
    translate.write_time(at, message)
    assert translate.read_time(message) == pytest.approx(at, abs=1e-6)
    assert 0 <= message.nanos < 10**9


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_any_time_that_somebody_sends_can_be_told_again(seconds, nanos):
    """Sidecars send times, too: one that could not be written would break every list that it is in."""
    into = timestamp_pb2.Timestamp()
    translate.write_time(translate.read_time(timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)), into)
    into.ToDatetime()


@pytest.mark.parametrize("length", [0.0, 0.5, -0.25, 1e-9, 3600.0, -7.5])
def test_both_parts_of_a_duration_have_one_sign(length):
    message = duration_pb2.Duration()
    translate.write_duration(length, message)
    assert translate.read_duration(message) == pytest.approx(length)
    assert message.seconds * message.nanos >= 0


def test_a_length_of_nothing_is_not_an_absent_one():
    receipt = task_pb2.Receipt()
    translate.write_duration(0.0, receipt.duration)
    assert receipt.HasField("duration")
