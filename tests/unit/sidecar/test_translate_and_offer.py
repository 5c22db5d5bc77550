"""Between the wire and the sidecar's values, and why an assignment is not taken."""

from __future__ import annotations

import pytest
from google.protobuf import duration_pb2

from agentcom.v1 import attach_pb2, task_pb2, task_service_pb2
from kit import errors, validation
from sidecar.core import assignment as values
from sidecar.core import offer
from sidecar.core.assignment import Assignment, Done, Holding, NotDone, RepoAccess
from sidecar.core.selftest import Finding, SelfTest
from sidecar.core.tail import Chunk
from sidecar.wire import translate

HELD = Holding(task="0" * 20, generation=3)
PROTO = task_pb2.Holding(task="tasks/" + "0" * 20, generation=3)
GOOD = SelfTest.of((Finding(probe="git", passed=True, message="ok"),), ended_at=1.0)
OFFER = offer.Offer(slots=1, executors=("shell",), tiers=("trivial",), kinds=("work", "verify"))


def test_what_is_absent_in_an_assignment_means_what_the_contract_says():
    made = translate.assignment(
        attach_pb2.Assign(
            holding=PROTO,
            spec=task_pb2.TaskSpec(title="t", checks=[task_pb2.Check(run="true"), task_pb2.Check(run="x")]),
        )
    )
    assert made == Assignment(
        holding=HELD,
        title="t",
        kind="work",
        tier="trivial",
        delivery="none",
        run_timeout_s=3600.0,
        silence_timeout_s=600.0,
        checks=(
            values.Check(id="check-1", run="true", timeout_s=600.0, expect_on_base="any"),
            values.Check(id="check-2", run="x", timeout_s=600.0, expect_on_base="any"),
        ),
    )


def test_everything_that_an_assignment_says_arrives():
    spec = task_pb2.TaskSpec(
        title="t", instructions="i", kind=task_pb2.TASK_KIND_MERGE, tier=task_pb2.TIER_COMPLEX, command="c",
        requirement=task_pb2.Requirement(executor="fake"), delivery=task_pb2.DELIVERY_MERGE,
        silence_timeout=duration_pb2.Duration(seconds=2),
        run_timeout=duration_pb2.Duration(seconds=5, nanos=500_000_000),
        checks=[task_pb2.Check(id="c", run="r", timeout=duration_pb2.Duration(seconds=7), expect_on_base=1)],
        labels={"a": "b"}, touches=["src/**"],
        policy=task_pb2.Policy(isolation=task_pb2.Policy.ISOLATION_REQUIRED, network=True),
    )  # fmt: skip
    failure = task_pb2.Failure(reason="R", message="m", attribution=task_pb2.ATTRIBUTION_HUB, evidence="e")
    made = translate.assignment(
        attach_pb2.Assign(
            holding=PROTO,
            spec=spec,
            goal="goals/g",
            attempts_used=2,
            wip_ref="w",
            last_failure=failure,
            repo=task_service_pb2.RepoAccess(name="repos/r", url="/r"),
            change=attach_pb2.ChangeRef(
                name="changes/c", task="tasks/x", branch="b", head_sha="h", base_sha="o", title="T"
            ),
        )
    )
    assert made == Assignment(
        holding=HELD, title="t", instructions="i", kind="merge", tier="complex", executor="fake", command="c",
        checks=(values.Check(id="c", run="r", timeout_s=7.0, expect_on_base="fail"),),
        repo=RepoAccess(name="repos/r", url="/r", default_branch="main"), goal="goals/g", attempts_used=2,
        run_timeout_s=5.5, silence_timeout_s=2.0, delivery="merge", wip_ref="w",
        last_failure=values.Failure(reason="R", message="m", attribution="hub", evidence="e"),
        change=values.ChangeRef(name="changes/c", task="x", branch="b", head_sha="h", base_sha="o", title="T"),
        labels={"a": "b"}, touches=("src/**",), isolation="required", network=True,
    )  # fmt: skip


def test_with_a_repo_an_absent_delivery_is_a_branch():
    message = attach_pb2.Assign(
        holding=PROTO, spec=task_pb2.TaskSpec(title="t"), repo=task_service_pb2.RepoAccess(name="repos/r", url="/r")
    )
    assert translate.assignment(message).delivery == "branch"


def test_a_kind_that_this_version_does_not_know_is_invalid_and_not_work():
    message = attach_pb2.Assign(holding=PROTO, spec=task_pb2.TaskSpec(title="t"))
    message.spec.kind = 99
    with pytest.raises(errors.Invalid) as refused:
        translate.assignment(message)
    assert refused.value.reason == "UNKNOWN_VALUE"


def test_a_name_that_is_no_tasks_is_invalid():
    with pytest.raises(errors.Invalid):
        translate.holding(task_pb2.Holding(task="tasks/../x", generation=1))


def test_every_word_has_a_number_and_goes_there_and_back():
    for table, back in (
        (translate.KINDS, translate._KIND_NUMBERS),
        (translate.TIERS, translate._TIER_NUMBERS),
        (translate.ATTRIBUTIONS, translate._ATTRIBUTION_NUMBERS),
    ):
        assert all(table[back[word]] == word and back[word] != 0 for word in table.values())


def test_text_that_no_message_can_carry_is_mended_and_the_report_keeps_the_contract():
    bad = "caf\udce9" + "é" * 40_000
    failure = values.Failure(reason="R", message=bad, attribution="task", evidence=bad)
    report = translate.to_report(HELD, NotDone(failure=failure))
    validation.check(report)
    assert report.failed.failure.evidence.endswith("é")
    done = Done(summary=bad, change_title=bad, change_body=bad, tokens=None)
    report = translate.to_report(HELD, done)
    validation.check(report)
    assert not report.completed.result.HasField("tokens"), "unknown is not zero"


def test_progress_and_log_arrive():
    progress = translate.to_progress(values.Progress(phase="execute", files_changed=2, tokens=5, last_output_at=1.5))
    assert (progress.phase, progress.files_changed, progress.tokens) == ("execute", 2, 5)
    assert progress.last_output_time.ToNanoseconds() == 1_500_000_000
    assert not translate.to_progress(values.Progress()).HasField("last_output_time")
    log = translate.to_log(Chunk(HELD, "x", 7, True))
    assert (log.holding, log.text, log.dropped_bytes, log.end) == (PROTO, "x", 7, True)


def assignment(**changed) -> Assignment:
    return Assignment(**{"holding": HELD, "title": "t", **changed})


@pytest.mark.parametrize(
    ("changed", "self_test", "closing", "reason"),
    [
        ({}, GOOD, False, None),
        ({"kind": "verify", "executor": "oracle"}, GOOD, False, None),
        ({}, GOOD, True, "DRAINING"),
        ({}, None, False, "SELF_TEST_FAILED"),
        ({}, SelfTest(passed=False, findings=(), ended_at=1), False, "SELF_TEST_FAILED"),
        ({"kind": "merge"}, GOOD, False, "UNKNOWN_KIND"),
        ({"executor": "oracle"}, GOOD, False, "UNKNOWN_EXECUTOR"),
        ({"executor": "shell", "tier": "complex"}, GOOD, False, None),
        ({"tier": "complex"}, GOOD, False, "UNKNOWN_EXECUTOR"),
    ],
)
def test_an_assignment_is_refused_for_the_right_reason(changed, self_test, closing, reason):
    refused = offer.refusal(OFFER, self_test, assignment(**changed), closing=closing)
    assert (refused.reason if refused else None) == reason
    if refused:
        validation.check(translate.to_rejected(HELD, refused.reason, refused.message))


def test_only_the_offered_repos_are_worked_on():
    picky = offer.Offer(slots=1, executors=("shell",), tiers=("trivial",), repos=("repos/a",))
    for name, reason in (("repos/a", None), ("repos/b", "WRONG_REPO")):
        task = assignment(repo=RepoAccess(name=name, url="/x"))
        refused = offer.refusal(picky, GOOD, task, closing=False)
        assert (refused.reason if refused else None) == reason
