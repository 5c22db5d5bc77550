"""MERGE and VERIFY attempts on a real origin."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.assignment import ChangeRef
from tests.support import sidecar_hands as hands
from tests.support.gitrepo import git
from tests.support.sidecar_hands import assignment, check, holding

AUTHOR = "0" * 18 + "a1"
BRANCH = f"agentcom/author/{AUTHOR}"


def change(origin, files, branch=BRANCH):
    """A pushed change on the present main."""
    base = origin.sha()
    git("checkout", "--quiet", "--detach", base, cwd=origin.clone)
    head = origin.commit(files, branch=branch, message="the work")
    git("checkout", "--quiet", "main", cwd=origin.clone)
    return ChangeRef(name="changes/c1", task=AUTHOR, branch=branch, head_sha=head, base_sha=base, title="The work")


def merge(origin, pushed, **changed):
    return assignment(**{"kind": "merge", "repo": origin.repo, "change": pushed, "title": "Merge the work", **changed})


async def test_a_change_is_merged_checked_pushed_and_its_branch_deleted(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    outcome = await hands.done(runner, merge(origin, pushed, checks=(check("test -f a.txt"),)))
    assert origin.sha() == outcome.merge_sha
    assert origin.files() == ["README.md", "a.txt"]
    assert BRANCH not in "".join(origin.refs("refs/heads/"))
    (receipt,) = outcome.receipts
    assert (receipt.phase, receipt.verdict, receipt.head_sha) == ("merged", "pass", outcome.merge_sha)


async def test_the_merge_commit_has_title_and_trailers(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    await hands.done(runner, merge(origin, pushed))
    lines = origin.message("main").splitlines()
    assert lines[0] == "The work"
    assert lines[-3:] == [f"AgentCom-Task: tasks/{AUTHOR}", "AgentCom-Goal: goals/g1", "AgentCom-Change: changes/c1"]
    assert git("rev-list", "--count", "--merges", "main", cwd=origin.path) == "1"


async def test_fast_forward_makes_no_merge_commit_where_main_has_not_moved(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    outcome = await hands.done(runner, merge(origin, pushed, labels={"merge_style": "fast_forward"}))
    assert outcome.merge_sha == pushed.head_sha == origin.sha()


async def test_fast_forward_merges_where_main_has_moved(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    origin.commit({"b.txt": "2\n"})
    await hands.done(runner, merge(origin, pushed, labels={"merge_style": "fast_forward"}))
    assert origin.files() == ["README.md", "a.txt", "b.txt"]


async def test_a_conflict_goes_back_with_its_paths_and_main_is_untouched(runner, origin):
    pushed = change(origin, {"README.md": "mine\n"})
    moved = origin.commit({"README.md": "theirs\n"})
    outcome = await hands.not_done(runner, merge(origin, pushed))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("MERGE_CONFLICT", "task")
    assert "conflict: README.md" in outcome.failure.evidence
    assert origin.sha() == moved
    assert origin.sha(BRANCH) == pushed.head_sha


async def test_a_red_check_on_the_merged_tree_keeps_main_as_it_is(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    moved = origin.commit({"b.txt": "2\n"})
    both_are_wrong = check("! (test -f a.txt && test -f b.txt)")
    outcome = await hands.not_done(runner, merge(origin, pushed, checks=(both_are_wrong,)))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("CHECK_FAILED", "task")
    assert outcome.receipts[0].verdict == "fail"
    assert origin.sha() == moved


async def test_when_main_moves_during_the_checks_the_merge_starts_over_on_it(runner, origin, tmp_path):
    pushed = change(origin, {"a.txt": "1\n"})
    script = f"if mkdir {tmp_path}/first; then while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; fi"
    async with asyncio.TaskGroup() as group:
        running = group.create_task(hands.done(runner, merge(origin, pushed, checks=(check(script),))))
        await hands.until_exists(tmp_path / "first")
        moved = origin.commit({"b.txt": "2\n"})
        (tmp_path / "go").touch()
    outcome = running.result()
    assert outcome.base_sha == moved
    assert len(outcome.receipts) == 1
    assert origin.files() == ["README.md", "a.txt", "b.txt"]


async def test_a_main_that_never_stands_still_ends_the_tries(tmp_path, origin):
    runner = hands.runner(tmp_path / "work", merge_try_count_max=2)
    pushed = change(origin, {"a.txt": "1\n"})
    who = "-c user.name=x -c user.email=x@x"
    mover = f"cd {origin.clone} && git {who} commit -q --allow-empty -m x && git push -q origin main"
    outcome = await hands.not_done(runner, merge(origin, pushed, checks=(check(mover),)))
    await runner.close()
    assert (outcome.failure.reason, outcome.failure.attribution) == ("MAIN_MOVES", "environment")


async def test_a_change_that_is_in_main_already_is_done(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    first = await hands.done(runner, merge(origin, pushed))
    again = await hands.done(runner, merge(origin, pushed, holding=holding(2), checks=(check("test -f a.txt"),)))
    assert again.merge_sha == first.merge_sha == origin.sha()
    assert [(r.phase, r.verdict, r.head_sha) for r in again.receipts] == [("merged", "pass", origin.sha())]


async def test_a_change_that_is_in_main_already_is_proved_all_the_same(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    await hands.done(runner, merge(origin, pushed))
    outcome = await hands.not_done(runner, merge(origin, pushed, holding=holding(2), checks=(check("false"),)))
    assert outcome.failure.reason == "CHECK_FAILED"


async def test_a_branch_that_has_grown_since_is_not_deleted_and_only_the_checked_commit_is_merged(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    grown = origin.commit({"unchecked.txt": "x\n"}, branch=BRANCH)
    await hands.done(runner, merge(origin, pushed))
    assert origin.sha(BRANCH) == grown
    assert origin.files() == ["README.md", "a.txt"]


async def test_a_branch_that_is_not_ours_is_never_deleted(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"}, branch="feature")
    await hands.done(runner, merge(origin, pushed))
    assert origin.sha("feature") == pushed.head_sha


async def test_a_change_whose_commit_is_gone_goes_back(runner, origin):
    pushed = ChangeRef(name="changes/c1", task=AUTHOR, branch=BRANCH, head_sha="1" * 40)
    outcome = await hands.not_done(runner, merge(origin, pushed))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("CHANGE_GONE", "task")


async def test_a_remote_that_refuses_the_push_is_not_tried_again(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    origin.refuse_pushes("policy says no")
    outcome = await hands.not_done(runner, merge(origin, pushed))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("PUSH_REFUSED", "environment")
    assert "policy says no" in outcome.failure.evidence


async def test_two_merges_at_once_both_arrive(tmp_path, origin):
    first = change(origin, {"a.txt": "1\n"})
    second = change(origin, {"b.txt": "2\n"}, branch=BRANCH + "x")
    runners = [hands.runner(tmp_path / f"work{n}", agent=f"m{n}") for n in range(2)]
    async with asyncio.TaskGroup() as group:
        for runner, pushed in zip(runners, (first, second), strict=True):
            group.create_task(hands.done(runner, merge(origin, pushed, checks=(check("true"),))))
    for runner in runners:
        await runner.close()
    assert origin.files() == ["README.md", "a.txt", "b.txt"]


@pytest.mark.parametrize("missing", [{"change": None}, {"repo": None}])
async def test_a_merge_without_its_change_or_repo_fails_plainly(runner, origin, missing):
    outcome = await hands.not_done(runner, merge(origin, change(origin, {"a.txt": "1\n"}), **missing))
    assert outcome.failure.reason == "CHANGE_MISSING"


def verify(origin, *checks, **changed):
    return assignment(**{"kind": "verify", "repo": origin.repo, "checks": checks, **changed})


async def test_verify_holds_when_every_check_passes_on_fetched_main(runner, origin):
    origin.commit({"a.txt": "1\n"})
    outcome = await hands.done(runner, verify(origin, check("test -f a.txt"), check("true", id="c2")))
    assert outcome.head_sha == origin.sha()
    assert [(r.phase, r.verdict) for r in outcome.receipts] == [("merged", "pass")] * 2


async def test_verify_reports_every_check_when_one_is_red(runner, origin):
    outcome = await hands.not_done(runner, verify(origin, check("false"), check("true", id="c2")))
    assert outcome.failure.reason == "CHECK_FAILED"
    assert [(r.check, r.verdict) for r in outcome.receipts] == [("c1", "fail"), ("c2", "pass")]


async def test_verify_of_a_change_looks_at_its_commit(runner, origin):
    pushed = change(origin, {"a.txt": "1\n"})
    outcome = await hands.done(runner, verify(origin, check("test -f a.txt"), change=pushed))
    assert outcome.head_sha == pushed.head_sha
    assert outcome.receipts[0].phase == "head"


async def test_verify_without_checks_proves_nothing(runner, origin):
    assert (await hands.not_done(runner, verify(origin))).failure.reason == "NO_CHECKS"


@pytest.mark.parametrize("kind", ["survey", "revert", "probe"])
async def test_other_kinds_are_not_for_this_agent(runner, origin, kind):
    outcome = await hands.not_done(runner, assignment(kind=kind, repo=origin.repo))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("UNKNOWN_KIND", "agent")
