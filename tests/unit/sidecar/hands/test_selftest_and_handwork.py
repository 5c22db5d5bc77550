"""The self-test, and the same workflow by hand."""

from __future__ import annotations

import random

import pytest

from kit import clock, errors
from sidecar.core import fault
from sidecar.core.assignment import Done, NotDone
from sidecar.hands.handwork import Handwork
from sidecar.hands.runner import Runner
from tests.support import sidecar_hands as hands
from tests.support.gitrepo import git
from tests.support.sidecar_hands import TASK, assignment, check

BRANCH = f"agentcom/{hands.AGENT}/{TASK}"


async def findings(runner):
    tested = await runner.self_test()
    return tested.passed, {finding.probe: finding for finding in tested.findings}


async def test_a_sound_machine_passes_every_probe(runner):
    passed, found = await findings(runner)
    assert passed, found
    assert list(found) == ["git", "disk", "clock", "sandbox", "executor:shell", "executor:fake"]


async def test_a_full_disk_fails_and_says_what_to_do(tmp_path):
    runner = hands.runner(tmp_path / "work", disk_free_bytes_min=1 << 62)
    passed, found = await findings(runner)
    await runner.close()
    assert not passed
    assert "make room" in found["disk"].message
    assert found["git"].passed


async def test_without_git_the_self_test_fails(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    runner = hands.runner(tmp_path / "work")
    passed, found = await findings(runner)
    await runner.close()
    assert not passed
    assert not found["git"].passed
    assert "install it" in found["git"].message
    assert found["executor:shell"].passed


async def test_a_clock_that_jumps_fails_once(tmp_path):
    manual = clock.ManualClock(1_800_000_000.0)
    runner = Runner(hands.settings(tmp_path / "work"), manual, random.Random(1), hands.AGENT)
    manual.advance(4000)
    assert (await findings(runner))[1]["clock"].passed
    manual.jump(4000)
    assert "jumped by 4000 s" in (await findings(runner))[1]["clock"].message
    assert (await findings(runner))[1]["clock"].passed
    await runner.close()


async def test_a_date_before_the_programs_time_fails(tmp_path):
    runner = Runner(hands.settings(tmp_path / "work"), clock.ManualClock(1000.0), random.Random(1), hands.AGENT)
    assert "set the clock" in (await findings(runner))[1]["clock"].message
    await runner.close()


async def test_an_unknown_executor_is_refused_at_the_start(tmp_path):
    with pytest.raises(fault.Fault, match="unknown executors: magic"):
        hands.runner(tmp_path / "work", executors=("shell", "magic"))


def test_the_runner_tells_what_it_offers(tmp_path):
    runner = hands.runner(tmp_path / "work")
    assert runner.executors == ("shell", "fake")
    assert runner.kinds == ("work", "verify", "merge")
    assert runner.tiers == ("complex", "standard", "trivial")


@pytest.fixture
def hand(tmp_path):
    return Handwork(hands.settings(tmp_path / "work"), clock.SystemClock(), random.Random(1), hands.AGENT)


@pytest.fixture
def task(origin):
    return assignment(repo=origin.repo, delivery="branch", checks=(check("test -f a.txt"),), instructions="By hand.")


async def test_a_person_gets_a_worktree_with_branch_contract_and_hook(hand, task, origin, tmp_path):
    status = await hand.prepare(task, tmp_path / "here")
    assert status.branch == BRANCH == git("branch", "--show-current", cwd=tmp_path / "here")
    assert status.base_sha == origin.sha()
    assert (status.ahead, status.behind, status.dirty, status.hook_is_set) == (0, 0, False, True)
    assert "By hand." in (tmp_path / "here" / ".agentcom" / "task.md").read_text()
    assert hand.load(tmp_path / "here").task == task


async def test_what_is_committed_is_checked_and_pushed(hand, task, origin, tmp_path):
    here = tmp_path / "here"
    await hand.prepare(task, here)
    (here / "a.txt").write_text("1\n")
    git("add", "-A", cwd=here)
    git("commit", "-qm", "by hand", cwd=here)
    outcome = await hand.submit(here)
    assert isinstance(outcome, Done)
    assert origin.sha(BRANCH) == outcome.head_sha
    assert outcome.tokens is None
    assert f"AgentCom-Task: tasks/{TASK}" in origin.message(BRANCH)
    status = await hand.status(here)
    assert status.receipts_are_current
    assert status.ahead == 1


async def test_what_is_not_committed_is_refused(hand, task, origin, tmp_path):
    await hand.prepare(task, tmp_path / "here")
    (tmp_path / "here" / "a.txt").write_text("1\n")
    outcome = await hand.submit(tmp_path / "here")
    assert isinstance(outcome, NotDone)
    assert outcome.failure.reason == "TREE_DIRTY"
    assert (await hand.status(tmp_path / "here")).dirty
    assert BRANCH not in "".join(origin.refs())


async def test_a_red_check_pushes_nothing(hand, task, origin, tmp_path):
    here = tmp_path / "here"
    await hand.prepare(task, here)
    (here / "b.txt").write_text("1\n")
    git("add", "-A", cwd=here)
    git("commit", "-qm", "by hand", cwd=here)
    outcome = await hand.submit(here)
    assert isinstance(outcome, NotDone)
    assert outcome.failure.reason == "CHECK_FAILED"
    assert BRANCH not in "".join(origin.refs())
    assert [r.verdict for r in (await hand.status(here)).receipts] == ["fail"]


async def test_nothing_committed_is_no_change(hand, task, tmp_path):
    await hand.prepare(task, tmp_path / "here")
    outcome = await hand.submit(tmp_path / "here")
    assert isinstance(outcome, NotDone)
    assert outcome.failure.reason == "NO_CHANGE"


async def test_status_sees_main_move_on(hand, task, origin, tmp_path):
    await hand.prepare(task, tmp_path / "here")
    origin.commit({"b.txt": "2\n"})
    assert (await hand.status(tmp_path / "here")).behind == 1


async def test_a_push_of_another_branch_by_hand_meets_the_hook(hand, task, origin, tmp_path):
    here = tmp_path / "here"
    await hand.prepare(task, here)
    git("commit", "-q", "--allow-empty", "-m", "x", cwd=here)
    git("push", "origin", "HEAD:main", cwd=here, check=False)
    assert origin.sha() != git("rev-parse", "HEAD", cwd=here)
    git("push", "-q", cwd=here)
    assert origin.sha(BRANCH) == git("rev-parse", "HEAD", cwd=here)


async def test_a_folder_that_is_no_worktree_of_ours_is_not_found(hand, tmp_path):
    with pytest.raises(errors.NotFound):
        await hand.submit(tmp_path)


async def test_a_task_without_a_repo_cannot_be_done_by_hand(hand, tmp_path):
    with pytest.raises(fault.Fault, match="in a repo"):
        await hand.prepare(assignment(), tmp_path / "here")


async def test_a_folder_that_is_in_use_is_refused_and_kept(hand, task, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").write_text("precious")
    with pytest.raises(fault.Fault):
        await hand.prepare(task, tmp_path / "here")
    assert (tmp_path / "here" / "mine").read_text() == "precious"


async def test_starting_again_leaves_the_first_folder_alone(hand, task, tmp_path):
    await hand.prepare(task, tmp_path / "first")
    (tmp_path / "first" / "mine").write_text("precious")
    status = await hand.prepare(task, tmp_path / "second")
    assert status.branch == BRANCH
    assert (tmp_path / "first" / "mine").read_text() == "precious"
