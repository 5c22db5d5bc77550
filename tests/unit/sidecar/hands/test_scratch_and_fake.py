"""Tasks without a repository, and the scripted executor."""

from __future__ import annotations

import pytest

from sidecar.core import fault
from sidecar.executors import fake
from tests.support import sidecar_hands as hands
from tests.support.sidecar_hands import assignment, check


def scripted(origin, script, **changed):
    return assignment(**{"repo": origin.repo, "delivery": "branch", "executor": "fake", "command": script, **changed})


async def test_a_command_without_a_repo_runs_in_an_empty_folder_and_its_last_line_is_the_result(runner, tmp_path):
    outcome = await hands.done(runner, assignment(command="ls; echo 7 > n.txt; echo; echo the answer is 7; echo"))
    assert outcome.summary == "the answer is 7"
    assert outcome.head_sha == ""
    assert outcome.tokens == 0
    assert list((tmp_path / "work" / "scratch").iterdir()) == []


async def test_checks_without_a_repo_look_at_the_folder(runner):
    good = await hands.done(runner, assignment(command="echo 7 > n.txt", checks=(check("grep -qx 7 n.txt"),)))
    assert good.receipts[0].verdict == "pass"
    bad = await hands.not_done(runner, assignment(command="echo 8 > n.txt", checks=(check("grep -qx 7 n.txt"),)))
    assert bad.failure.reason == "CHECK_FAILED"
    assert bad.receipts[0].verdict == "fail"


async def test_a_change_without_a_repo_cannot_be_delivered(runner):
    outcome = await hands.not_done(runner, assignment(command="true", delivery="branch"))
    assert outcome.failure.reason == "REPO_MISSING"


async def test_a_task_without_a_command_says_so(runner):
    assert (await hands.not_done(runner, assignment())).failure.reason == "COMMAND_MISSING"


async def test_the_script_differs_by_attempt(runner, origin):
    script = """
    attempts:
      1: [{write: a.txt, content: wrong}]
      2: [{write: a.txt, content: right}]
    """
    checks = (check("grep -q right a.txt", expect="fail"),)
    first = await hands.not_done(runner, scripted(origin, script, checks=checks))
    assert first.failure.reason == "CHECK_FAILED"
    second = await hands.done(
        runner,
        scripted(origin, script, checks=checks, attempts_used=1, wip_ref=first.wip_ref, holding=hands.holding(2)),
    )
    assert origin.read("a.txt", second.head_sha) == "right"


async def test_a_repairable_executor_gets_to_see_the_red_check_and_repairs_it(runner, origin):
    script = "{otherwise: [{write: a.txt, content: wrong}], repair: [{write: a.txt, content: right}]}"
    outcome = await hands.done(runner, scripted(origin, script, checks=(check("grep -q right a.txt", expect="fail"),)))
    assert [(r.phase, r.verdict) for r in outcome.receipts] == [("base", "fail"), ("head", "pass")]


async def test_repairs_are_bounded(runner, origin, tmp_path):
    script = (
        f"{{otherwise: [{{write: a.txt, content: x}}], repair: [{{run: echo >> a.txt; echo >> {tmp_path}/rounds}}]}}"
    )
    outcome = await hands.not_done(runner, scripted(origin, script, checks=(check("false"),)))
    assert outcome.failure.reason == "CHECK_FAILED"
    assert (tmp_path / "rounds").read_text() == "\n\n"


async def test_a_repair_that_changes_nothing_ends_the_rounds(runner, origin, tmp_path):
    script = "[{write: a.txt, content: x}]"
    counted = check(f"echo >> {tmp_path}/runs; false")
    await hands.not_done(runner, scripted(origin, script, checks=(counted,)))
    assert (tmp_path / "runs").read_text() == "\n"


@pytest.mark.parametrize(
    ("script", "reason", "attribution"),
    [
        ("[{lie: everything is done and tested}]", "NO_CHANGE", "task"),
        ("[{no_diff: true}]", "NO_CHANGE", "task"),
        ("[{exit: 3}]", "COMMAND_FAILED", "task"),
        ("[{rate_limit: 60}]", "RATE_LIMITED", "provider"),
        ("[{fail: LOGIN_EXPIRED, attribution: credential, message: log in again}]", "LOGIN_EXPIRED", "credential"),
        ("[{crash: executor}]", "EXECUTOR_CRASHED", "agent"),
        ("[{write: ../x}]", "BAD_SCRIPT", "task"),
        ("[{dance: true}]", "BAD_SCRIPT", "task"),
        ("[{fail: X, attribution: nobody}]", "BAD_SCRIPT", "task"),
        ("[1, 2", "BAD_SCRIPT", "task"),
        ("just words", "BAD_SCRIPT", "task"),
        ("{steps: []}", "BAD_SCRIPT", "task"),
    ],
)
async def test_what_a_script_feigns_is_attributed(runner, origin, script, reason, attribution):
    outcome = await hands.not_done(runner, scripted(origin, script))
    assert (outcome.failure.reason, outcome.failure.attribution) == (reason, attribution)


async def test_deleting_the_tests_does_not_make_the_check_green(runner, origin):
    origin.commit({"tests/test_a.sh": "exit 1\n"})
    guard = check("sh tests/test_a.sh", expect="fail")
    script = '[{delete: "tests/*"}, {write: a, content: b}]'
    outcome = await hands.not_done(runner, scripted(origin, script, checks=(guard,)))
    assert outcome.failure.reason == "CHECK_FAILED"


async def test_a_script_waits_for_a_file_and_counts_tokens(runner, origin, tmp_path):
    (tmp_path / "go").touch()
    script = f"[{{wait_for: {tmp_path}/go}}, {{append: a.txt, content: x}}, {{tokens: 12}}, {{print: hello}}]"
    outcome = await hands.done(runner, scripted(origin, script))
    assert outcome.tokens == 12
    assert b"hello" in outcome.artifacts[-1].content


async def test_a_script_that_waits_in_vain_counts_as_silent(runner, origin):
    outcome = await hands.not_done(runner, scripted(origin, "[{wait_for: /never}]", silence_timeout_s=0.1))
    assert outcome.failure.reason == "SILENT"


def test_a_script_that_is_too_long_is_refused():
    with pytest.raises(fault.Fault, match="at most 1000"):
        fake.steps_of(str([{"no_diff": True}] * 1001), attempt=1, round_=0)
