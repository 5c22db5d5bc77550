"""The pure rules of the sidecar's hands."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.child.control import Control
from sidecar.core import assignment as values
from sidecar.core import base_run, change, contract, cut, fault, git_fault, verdict
from sidecar.core.capture import Capture
from tests.support.sidecar_hands import TASK, assignment, check


def receipt(verdict_="pass", **changed):
    fields = {
        "check": "c1", "command_sha256": "", "base_sha": "b" * 40, "head_sha": "h" * 40, "tree_sha": "", "exit_code": 0,
        "duration_s": 1.0, "host": "host", "agent": "agents/a", "started_at": 1.0, "verdict": verdict_,
        "output_sha256": "", "output_tail": "the tail", "phase": "head",
    }  # fmt: skip
    return values.Receipt(**{**fields, **changed})


RAN_NOTHING = {
    "pytest, nothing collected": "collected 0 items\n\n===== no tests ran in 0.01s =====\n",
    "pytest -q": "\nno tests ran in 0.00s\n",
    "pytest in colour": "\x1b[33m\x1b[33mno tests ran\x1b[0m\x1b[33m in 0.00s\x1b[0m\x1b[0m\n",
    "pytest, all deselected": "======= 4 deselected in 0.02s =======\n",
    "pytest, all skipped": "sss [100%]\n3 skipped in 0.02s\n",
    "unittest": "\n----------\nRan 0 tests in 0.000s\n\nOK\n",
    "unittest of 3.12": "Ran 0 tests in 0.000s\n\nNO TESTS RAN\n",
    "unittest, all skipped": "ss\n-----\nRan 2 tests in 0.000s\n\nOK (skipped=2)\n",
    "go, no test files": "?   \texample.org/x\t[no test files]\n",
    "go, nothing matches": "testing: warning: no tests to run\nPASS\nok  \texample.org/x\t0.002s [no tests to run]\n",
    "cargo": "\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored\n",
    "jest": "No tests found, exiting with code 0\n",
    "vitest": "No test files found, exiting with code 0\n",
    "mocha": "\n\n  0 passing (1ms)\n\n",
    "rspec": "Finished in 0.0002 seconds\n0 examples, 0 failures\n",
    "node": "# tests 0\n# pass 0\n",
    "tap": "TAP version 13\n1..0\n",
    "ctest": "No tests were found!!!\n",
    "phpunit": "No tests executed!\n",
    "windows line ends": "Ran 0 tests in 0.000s\r\n\r\nOK\r\n",
}
RAN_SOMETHING = {
    "pytest": "..... [100%]\n5 passed in 0.10s\n",
    "pytest, framed": "=== 2 passed, 1 skipped, 3 deselected in 0.10s ===\n",
    "pytest, skips and passes": "1 skipped, 2 passed in 0.10s\n",
    "pytest, failed": "=== 1 failed, 2 passed in 0.12s ===\n",
    "unittest": "Ran 3 tests in 0.001s\n\nOK\n",
    "unittest, some skipped": "Ran 3 tests in 0.001s\n\nOK (skipped=1)\n",
    "go, some packages": "?   \texample.org/x\t[no test files]\nok  \texample.org/y\t0.004s\n",
    "go, cached": "?   \texample.org/x\t[no test files]\nok  \texample.org/y\t(cached)\n",
    "cargo, doc tests": "running 2 tests\ntest a ... ok\n\nrunning 0 tests\n\ntest result: ok\n",
    "two runners": "Ran 0 tests in 0.000s\nOK\n7 passed in 0.10s\n",
    "no runner at all": "built in 3 s\nall good\n",
    "words of a program": "there were no tests ran by us\n",
    "nothing": "",
}


@pytest.mark.parametrize("output", RAN_NOTHING.values(), ids=RAN_NOTHING.keys())
def test_a_run_without_a_test_is_unknown_even_with_exit_code_zero(output):
    assert verdict.judge(exit_code=0, finished=True, output=output) == "unknown"


@pytest.mark.parametrize("output", RAN_SOMETHING.values(), ids=RAN_SOMETHING.keys())
def test_a_run_that_tested_something_is_judged_by_its_exit_code(output):
    assert verdict.judge(exit_code=0, finished=True, output=output) == "pass"
    assert verdict.judge(exit_code=1, finished=True, output=output) == "fail"


@pytest.mark.parametrize("exit_code", [126, 127])
def test_a_command_that_could_not_be_run_is_unknown(exit_code):
    assert verdict.judge(exit_code=exit_code, finished=True, output="") == "unknown"


def test_a_run_that_was_ended_from_outside_is_unknown_whatever_its_exit_code():
    assert verdict.judge(exit_code=0, finished=False, output="5 passed in 0.1s") == "unknown"


def test_a_run_killed_by_a_signal_of_its_own_is_a_failure():
    assert verdict.judge(exit_code=-11, finished=True, output="") == "fail"


@given(st.lists(st.binary(max_size=50)), st.integers(0, 40), st.integers(0, 40))
def test_a_capture_keeps_both_ends_counts_the_rest_and_hashes_all(pieces, head_max, tail_max):
    capture = Capture(head_bytes_max=head_max, tail_bytes_max=tail_max)
    text = "".join([capture.feed(piece) for piece in pieces]) + capture.finish()
    whole = b"".join(pieces)
    assert text == whole.decode(errors="replace")
    assert capture.sha256 == hashlib.sha256(whole).hexdigest()
    assert capture.size_bytes == len(whole)
    assert capture.dropped_bytes == max(0, len(whole) - head_max - tail_max)
    if not capture.dropped_bytes:
        assert capture.content == whole
    else:
        assert capture.content.startswith(whole[:head_max])
        assert capture.content.endswith(whole[len(whole) - tail_max :])
        assert f"{capture.dropped_bytes} bytes left out" in capture.text


@given(st.text(), st.integers(0, 50))
def test_cuts_are_within_their_bytes_and_break_no_character(text, size):
    for piece in (cut.head(text, size), cut.tail(text, size), cut.line(text, size)):
        assert len(piece.encode()) <= size
    assert text.startswith(cut.head(text, size))
    assert text.endswith(cut.tail(text, size))


def test_the_last_line_is_the_last_that_says_something():
    assert cut.last_line("one\ntwo  words\n\n  \n", 100) == "two words"
    assert cut.last_line("\n \n", 100) == ""


def test_an_evidence_is_cut_to_the_contract():
    failure = fault.Fault("m" * 9000, reason="X", attribution="task", evidence="é" * 40_000).failure
    assert len(failure.message.encode()) <= values.MESSAGE_BYTES_MAX
    assert len(failure.evidence.encode()) <= values.EVIDENCE_BYTES_MAX


@pytest.mark.parametrize(
    ("action", "stderr", "reason", "attribution"),
    [
        ("fetch", "fatal: unable to access 'https://x/': Could not resolve host: x", "FETCH_FAILED", "environment"),
        ("fetch", "ssh: connect to host x port 22: Connection refused\nfatal: Could not read from remote repository.",
         "FETCH_FAILED", "environment"),
        ("fetch", "fatal: '/nowhere' does not appear to be a git repository", "FETCH_FAILED", "environment"),
        ("fetch", "fatal: repository 'https://x/y/' not found", "FETCH_FAILED", "environment"),
        ("fetch", "fatal: couldn't find remote ref refs/heads/main", "FETCH_FAILED", "environment"),
        ("fetch", "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.",
         "CREDENTIAL_REFUSED", "credential"),
        ("fetch", "fatal: could not read Username for 'https://x': terminal prompts disabled",
         "CREDENTIAL_REFUSED", "credential"),
        ("fetch", "remote: Invalid username or password.\nfatal: Authentication failed for 'https://x/'",
         "CREDENTIAL_REFUSED", "credential"),
        ("push x", "fatal: unable to access 'https://x/': The requested URL returned error: 403",
         "CREDENTIAL_REFUSED", "credential"),
        ("fetch", "fatal: detected dubious ownership in repository at '/r'", "REPOSITORY_NOT_TRUSTED", "environment"),
        ("commit", "fatal: write error: No space left on device", "DISK_LOW", "agent"),
        ("push x", " ! [rejected] HEAD -> main (fetch first)", "PUSH_REJECTED", "environment"),
        ("push x", " ! [rejected] HEAD -> main (non-fast-forward)", "PUSH_REJECTED", "environment"),
        ("push x", " ! [remote rejected] HEAD -> main (failed to update ref)", "PUSH_REJECTED", "environment"),
        ("push x", "remote: error: cannot lock ref 'refs/heads/main': is at 1a but expected 2b",
         "PUSH_REJECTED", "environment"),
        ("push x", " ! [remote rejected] HEAD -> main (pre-receive hook declined)", "PUSH_REFUSED", "environment"),
        ("push x", "remote: error: refusing to update checked out branch: refs/heads/main",
         "PUSH_REFUSED", "environment"),
        ("fetch", " ! [rejected] x (non-fast-forward)", "GIT_FAILED", "agent"),
        ("commit", "", "GIT_FAILED", "agent"),
    ],
)  # fmt: skip
def test_what_git_says_is_read_for_whose_fault_it_is(action, stderr, reason, attribution):
    found = git_fault.of(action, stderr)
    assert (found.reason, found.attribution) == (reason, attribution)
    assert isinstance(found, fault.PushRejected) == (reason == "PUSH_REJECTED")


def test_a_login_in_gits_words_is_not_passed_on():
    planted = "act_" + "x" * 43
    found = git_fault.of("fetch", f"fatal: unable to access 'https://me:{planted}@example.org/': nope, {planted}")
    assert planted not in found.evidence + found.message
    assert "example.org" in found.evidence


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://example.org/x.git", False),
        ("https://user:pass@example.org/x.git", True),
        ("https://ghp_0123456789abcdefghij@example.org/x.git", True),
        ("https://user@example.org/x.git", True),
        ("ssh://git@example.org/x.git", False),
        ("ssh://git:pass@example.org/x.git", True),
        ("git@example.org:x.git", False),
        ("/srv/x.git", False),
        ("file:///srv/x.git", False),
        ("https://example.org/x.git?token=ghp_0123456789abcdefghij", True),
    ],
)
def test_addresses_with_a_secret_are_told_from_others(url, secret):
    assert git_fault.carries_secret(url) is secret


FAIL, PASS, ANY = (check("x", expect=expectation) for expectation in ("fail", "pass", "any"))


@pytest.mark.parametrize(
    ("checks", "verdicts", "done", "broken"),
    [
        ((FAIL,), ("pass",), True, False),
        ((FAIL,), ("fail",), False, False),
        ((FAIL,), ("unknown",), False, False),
        ((FAIL, FAIL), ("pass", "fail"), False, False),
        ((FAIL, ANY), ("pass", "pass"), True, False),
        ((FAIL, ANY), ("pass", "fail"), False, False),
        ((FAIL, PASS), ("fail", "pass"), False, False),
        ((FAIL, PASS), ("fail", "fail"), False, True),
        ((PASS,), ("unknown",), False, True),
        ((PASS,), ("pass",), False, False),
        ((ANY,), ("pass",), False, False),
    ],
)
def test_the_run_on_the_base_decides_by_what_was_expected(checks, verdicts, done, broken):
    receipts = [receipt(each) for each in verdicts]
    assert base_run.already_done(checks, receipts) is done
    assert (base_run.broken(checks, receipts) is not None) is broken


def test_checks_that_expect_nothing_of_the_base_are_not_run_there():
    assert not base_run.is_needed((ANY,))
    assert not base_run.is_needed(())
    assert base_run.is_needed((ANY, PASS))


def test_trailers_are_added_once_and_to_the_last_paragraph():
    wanted = ("AgentCom-Task: tasks/x", "AgentCom-Goal: goals/g")
    plain = change.with_trailers("subject\n\nbody\n", wanted)
    assert plain == "subject\n\nbody\n\nAgentCom-Task: tasks/x\nAgentCom-Goal: goals/g\n"
    assert change.has_trailers(plain, wanted)
    signed = change.with_trailers("subject\n\nSigned-off-by: me <me@x>\n", wanted)
    assert signed.startswith("subject\n\nSigned-off-by: me <me@x>\nAgentCom-Task")
    assert change.with_trailers(plain, wanted) == plain
    assert not change.has_trailers("AgentCom-Task: tasks/x", wanted[:1])
    assert not change.has_trailers("", wanted)


def test_a_finished_commit_loses_the_mark_of_unfinished_work():
    assert change.with_trailers("wip: do it\n", ("A: b",)) == "do it\n\nA: b\n"
    assert change.with_trailers("", ("A: b",)) == "change\n\nA: b\n"


def test_a_task_without_a_goal_has_no_goal_trailer():
    assert change.trailers(assignment(goal="")) == (f"AgentCom-Task: tasks/{TASK}",)
    assert change.trailers(assignment(goal="g7"))[1] == "AgentCom-Goal: goals/g7"
    pushed = values.ChangeRef(name="", task=f"tasks/{TASK}", branch="b", head_sha="h")
    assert change.merge_message(assignment(goal="", title="T"), pushed) == (
        f"T\n\nMerges b.\n\nAgentCom-Task: tasks/{TASK}\n"
    )


def test_a_body_is_cut_and_keeps_its_trailers():
    many = [receipt(check="x" * 60) for _ in range(600)]
    text = change.body(
        assignment(instructions="é" * 9000), base_sha="b", summary="", stat=values.DiffStat(), receipts=many
    )
    assert len(text.encode()) <= values.CHANGE_BODY_BYTES_MAX
    assert text.endswith("AgentCom-Goal: goals/g1\n")


def test_a_body_without_checks_says_so():
    text = change.body(assignment(), base_sha="b", summary="s", stat=values.DiffStat(), receipts=())
    assert "The task has none" in text


def test_the_contract_tells_the_worker_why_the_last_attempt_failed():
    failure = values.Failure(reason="CHECK_FAILED", message="c1 is red", attribution="task", evidence="line 1\nline 2")
    bare = values.Failure(reason="X", message="m", attribution="task")
    task = assignment(
        instructions="Do it well.", checks=(check("make test"),), touches=("src/**",), last_failure=failure
    )
    text = contract.text(task, base_sha="abc", branch="agentcom/a/b")
    for part in ("Do it well.", "`make test`", "`src/**`", "CHECK_FAILED", "    line 2", "base: abc", "agentcom/a/b"):
        assert part in text
    short = contract.text(msgspec.structs.replace(task, last_failure=bare, goal=""), base_sha="", branch="")
    assert "base:" not in short
    assert "goal:" not in short


def test_assignments_and_outcomes_survive_the_journal():
    task = assignment(checks=(check("x"),), repo=values.RepoAccess(name="repos/r", url="u"), labels={"a": "b"})
    assert msgspec.json.decode(msgspec.json.encode(task), type=values.Assignment) == task
    done = values.Done(summary="s", receipts=(receipt(),), artifacts=(
        values.Artifact(id="log", media_type="text/plain", content=b"\xff\x00", size_bytes=2),))  # fmt: skip
    failed = values.NotDone(failure=values.Failure(reason="X", message="m", attribution="hub"), stopped=True)
    for outcome in (done, failed):
        assert msgspec.json.decode(msgspec.json.encode(outcome), type=values.Outcome) == outcome


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("FENCED", "FENCED"),
        ("lease ran out", "LEASE_RAN_OUT"),
        ("", "STOPPED"),
        ("9 lives", "STOPPED"),
        ("A" * 99, "A" * 64),
    ],
)
def test_a_stop_has_a_reason_in_the_contracts_form(given_, kept):
    control = Control()
    control.stop.set(given_)
    control.stop.set("LATER")
    assert control.stop.reason == kept
    assert control.stop.is_set()
