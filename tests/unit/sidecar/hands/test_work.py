"""A WORK attempt in a repository, with real git and real commands."""

from __future__ import annotations

import hashlib

from sidecar.repo.cache import Cache
from tests.support import sidecar_hands as hands
from tests.support.gitrepo import git
from tests.support.sidecar_hands import TASK, assignment, check, holding

BRANCH = f"agentcom/{hands.AGENT}/{TASK}"
RED_THEN_GREEN = check("test -f answer.txt", expect="fail")


def work(origin, **changed):
    return assignment(
        **{
            "repo": origin.repo,
            "delivery": "branch",
            "command": "echo 42 > answer.txt; echo wrote the answer",
            "checks": (RED_THEN_GREEN,),
            "executor": "shell",
            **changed,
        }
    )


async def test_a_task_becomes_a_checked_branch_at_the_origin(runner, origin):
    base = origin.sha()
    outcome = await hands.done(runner, work(origin))
    assert outcome.branch == BRANCH
    assert origin.sha(BRANCH) == outcome.head_sha
    assert outcome.base_sha == base
    assert origin.read("answer.txt", BRANCH) == "42"
    assert outcome.summary == "wrote the answer"
    assert outcome.diff_stat.files == 1
    assert outcome.diff_stat.insertions == 1
    assert outcome.tokens == 0
    assert not outcome.already_done


async def test_the_tip_carries_the_trailers_of_task_and_goal(runner, origin):
    outcome = await hands.done(runner, work(origin))
    paragraph = origin.message(outcome.head_sha).strip().split("\n\n")[-1].splitlines()
    assert paragraph == [f"AgentCom-Task: tasks/{TASK}", "AgentCom-Goal: goals/g1"]


async def test_commits_of_the_agent_are_kept_and_the_tip_gets_the_trailers(runner, origin):
    command = "echo 1 > answer.txt; git add -A; git commit -qm 'my own commit'"
    outcome = await hands.done(runner, work(origin, command=command))
    log = git("log", "--format=%s", f"main..{BRANCH}", cwd=origin.path).splitlines()
    assert log == ["my own commit"]
    assert f"AgentCom-Task: tasks/{TASK}" in origin.message(outcome.head_sha)


async def test_receipts_prove_the_red_run_on_the_base_and_the_green_one_on_the_commit(runner, origin):
    outcome = await hands.done(runner, work(origin))
    base, head = outcome.receipts
    assert (base.phase, base.verdict, base.head_sha) == ("base", "fail", outcome.base_sha)
    assert (head.phase, head.verdict, head.head_sha) == ("head", "pass", outcome.head_sha)
    assert head.command_sha256 == hashlib.sha256(b"test -f answer.txt").hexdigest()
    assert head.tree_sha == git("rev-parse", f"{BRANCH}^{{tree}}", cwd=origin.path)
    assert head.agent == f"agents/{hands.AGENT}"


async def test_artefacts_hold_the_diff_and_the_log(runner, origin):
    outcome = await hands.done(runner, work(origin))
    artifacts = {artifact.id: artifact for artifact in outcome.artifacts}
    assert b"+42" in artifacts["diff"].content
    assert b"wrote the answer" in artifacts["log"].content
    assert not artifacts["diff"].truncated


async def test_a_large_diff_is_cut_at_a_line_and_says_so(runner, origin):
    outcome = await hands.done(runner, work(origin, command="seq 1 100000 > answer.txt"))
    diff = next(artifact for artifact in outcome.artifacts if artifact.id == "diff")
    assert diff.truncated
    assert len(diff.content) <= 256 * 1024 < diff.size_bytes
    assert diff.content.endswith(b"\n")


async def test_title_and_body_tell_what_why_and_how_it_was_checked(runner, origin):
    outcome = await hands.done(runner, work(origin, instructions="Because people ask for it."))
    assert outcome.change_title == "Do the thing"
    for part in ("wrote the answer", "Because people ask", "| c1 |", outcome.base_sha, f"AgentCom-Task: tasks/{TASK}"):
        assert part in outcome.change_body


async def test_checks_that_hold_on_the_base_mean_already_done_and_no_work(runner, origin, tmp_path):
    origin.commit({"answer.txt": "42\n"})
    witness = tmp_path / "ran"
    outcome = await hands.done(runner, work(origin, command=f"touch {witness}"))
    assert outcome.already_done
    assert [receipt.verdict for receipt in outcome.receipts] == ["pass"]
    assert not witness.exists()
    assert BRANCH not in origin.refs("refs/heads/")


async def test_a_check_that_should_be_red_and_is_green_does_not_stop_work_that_others_need(runner, origin):
    checks = (check("test -f README.md", id="there", expect="fail"), RED_THEN_GREEN)
    outcome = await hands.done(runner, work(origin, checks=(checks[0], check("test -f answer.txt", id="new"))))
    assert not outcome.already_done


async def test_a_guarding_check_that_is_red_on_the_base_ends_the_attempt_before_any_work(runner, origin, tmp_path):
    witness = tmp_path / "ran"
    guard = check("test -f missing", expect="pass")
    outcome = await hands.not_done(runner, work(origin, command=f"touch {witness}", checks=(guard,)))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("BASE_RED", "task")
    assert not witness.exists()


async def test_no_change_is_no_success(runner, origin):
    outcome = await hands.not_done(runner, work(origin, command="echo all done", checks=()))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("NO_CHANGE", "task")
    assert outcome.wip_ref == ""


async def test_a_failing_command_fails_the_task_with_its_last_words(runner, origin):
    outcome = await hands.not_done(runner, work(origin, command="echo half > answer.txt; echo boom >&2; exit 3"))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("COMMAND_FAILED", "task")
    assert "exit code 3" in outcome.failure.message
    assert "boom" in outcome.failure.evidence


async def test_a_red_check_saves_the_work_and_the_next_attempt_starts_from_it(runner, origin):
    wants_both = check("test -f answer.txt && test -f second.txt", expect="fail")
    first = await hands.not_done(runner, work(origin, checks=(wants_both,)))
    assert first.failure.reason == "CHECK_FAILED"
    assert "c1" in first.failure.message
    assert first.wip_ref == f"refs/agentcom/wip/{TASK}/1"
    assert origin.read("answer.txt", first.wip_ref) == "42"
    second = await hands.done(
        runner,
        work(
            origin,
            holding=holding(2),
            attempts_used=1,
            wip_ref=first.wip_ref,
            command="echo more > second.txt",
            checks=(wants_both,),
        ),
    )
    assert sorted(origin.files(second.head_sha)) == ["README.md", "answer.txt", "second.txt"]


async def test_the_next_attempt_stands_on_fresh_main_with_the_old_work_on_top(runner, origin):
    first = await hands.not_done(runner, work(origin, checks=(check("false"),)))
    moved = origin.commit({"other.txt": "news\n"})
    second = await hands.done(
        runner, work(origin, holding=holding(2), wip_ref=first.wip_ref, command="echo 43 > answer.txt")
    )
    assert second.base_sha == moved
    assert origin.files(second.head_sha) == ["README.md", "answer.txt", "other.txt"]
    assert second.diff_stat.files == 1


async def test_old_work_that_contradicts_main_is_left_at_its_ref_and_main_wins(runner, origin):
    first = await hands.not_done(runner, work(origin, command="echo mine > README.md", checks=(check("false"),)))
    origin.commit({"README.md": "theirs\n"})
    second = await hands.done(runner, work(origin, holding=holding(2), wip_ref=first.wip_ref))
    assert origin.read("README.md", second.head_sha) == "theirs"
    assert origin.read("README.md", first.wip_ref) == "mine"


async def test_work_begins_at_the_fetched_main_and_not_at_an_old_one(runner, origin):
    await hands.done(runner, work(origin))
    moved = origin.commit({"other.txt": "news\n"})
    outcome = await hands.done(runner, work(origin, holding=holding(1, task="0" * 18 + "t2")))
    assert outcome.base_sha == moved
    assert outcome.diff_stat.files == 1


async def test_checks_see_the_committed_tree_and_nothing_that_lies_about(runner, origin):
    origin.commit({".gitignore": "build/\n"})
    command = "mkdir build; touch build/ok; echo 42 > answer.txt"
    outcome = await hands.not_done(runner, work(origin, command=command, checks=(check("test -f build/ok"),)))
    assert outcome.failure.reason == "CHECK_FAILED"


async def test_a_check_that_ran_no_test_is_not_a_pass(runner, origin):
    outcome = await hands.not_done(runner, work(origin, checks=(check("echo 'Ran 0 tests in 0.000s'; echo OK"),)))
    assert outcome.failure.reason == "CHECK_FAILED"
    assert outcome.receipts[-1].verdict == "unknown"
    assert "ran no test" in outcome.receipts[-1].output_tail


async def test_a_branch_of_an_earlier_attempt_that_was_given_up_is_not_forced_over(runner, origin):
    first = await hands.done(runner, work(origin))
    second = await hands.done(runner, work(origin, holding=holding(2), command="echo other > answer.txt"))
    assert second.branch == f"{BRANCH}-g2"
    assert origin.sha(BRANCH) == first.head_sha
    assert origin.sha(second.branch) == second.head_sha


async def test_without_delivery_nothing_is_pushed_and_the_checks_see_the_tree_as_it_is(runner, origin):
    before = origin.refs()
    outcome = await hands.done(
        runner, work(origin, delivery="none", command="echo 1 > out; echo counted", checks=(check("test -f out"),))
    )
    assert origin.refs() == before
    assert outcome.head_sha == ""
    assert outcome.summary == "counted"


async def test_nothing_is_left_on_disk_after_success_and_failure(runner, origin, tmp_path):
    await hands.done(runner, work(origin))
    await hands.not_done(runner, work(origin, holding=holding(2), checks=(check("false"),)))
    left = [str(p.relative_to(tmp_path / "work")) for p in (tmp_path / "work").glob("*/*") if p.parent.name != "repos"]
    assert left == []


async def test_the_contract_is_in_the_tree_and_not_in_the_change(runner, origin):
    command = 'cat .agentcom/task.md; cmp .agentcom/task.md "$AGENTCOM_CONTRACT" && echo 42 > answer.txt'
    outcome = await hands.done(runner, work(origin, command=command, instructions="Read this first."))
    log = outcome.artifacts[-1].content.decode()
    assert "Read this first." in log
    assert origin.files(outcome.head_sha) == ["README.md", "answer.txt"]


async def test_the_command_knows_its_attempt_and_no_secret(runner, origin, monkeypatch):
    monkeypatch.setenv("AGENTCOM_TOKEN", "act_" + "x" * 43)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/somewhere")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    outcome = await hands.done(runner, work(origin, command="env > answer.txt", attempts_used=1))
    variables = dict(line.split("=", 1) for line in origin.read("answer.txt", outcome.head_sha).splitlines())
    assert variables["AGENTCOM_TASK"] == TASK
    assert variables["AGENTCOM_ATTEMPT"] == "2"
    assert variables["AGENTCOM_GENERATION"] == "1"
    assert variables["AGENTCOM_AGENT"] == hands.AGENT
    assert variables["GIT_EDITOR"] == "true"
    assert not {"AGENTCOM_TOKEN", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY"} & set(variables)


async def test_declared_variables_are_passed_on_but_never_the_sidecars_own(tmp_path, origin, monkeypatch):
    monkeypatch.setenv("AGENTCOM_TOKEN", "act_" + "x" * 43)
    monkeypatch.setenv("CARGO_HOME", "/somewhere")
    runner = hands.runner(tmp_path / "work", pass_environment=("AGENTCOM_TOKEN", "CARGO_HOME"))
    outcome = await hands.done(runner, work(origin, command="env > answer.txt"))
    await runner.close()
    text = origin.read("answer.txt", outcome.head_sha)
    assert "CARGO_HOME=/somewhere" in text
    assert "AGENTCOM_TOKEN" not in text


async def test_a_branch_that_appears_at_the_last_moment_is_not_forced_over(runner, origin, monkeypatch):
    theirs = origin.commit({"theirs.txt": "x\n"}, branch=BRANCH)

    async def nothing_yet(self, ref, *, stop=None):
        return "" if ref.startswith("refs/heads/agentcom/") else origin.sha(ref)

    monkeypatch.setattr(Cache, "remote_sha", nothing_yet)
    outcome = await hands.done(runner, work(origin))
    assert outcome.branch == f"{BRANCH}-g1"
    assert origin.sha(BRANCH) == theirs


async def test_an_unknown_executor_is_the_agents_matter_and_not_the_tasks(runner, origin):
    outcome = await hands.not_done(runner, work(origin, executor="claude"))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("UNKNOWN_EXECUTOR", "agent")


async def test_a_low_disk_refuses_work_in_plain_words(tmp_path, origin):
    runner = hands.runner(tmp_path / "work", disk_free_bytes_min=1 << 62)
    outcome = await hands.not_done(runner, work(origin))
    await runner.close()
    assert (outcome.failure.reason, outcome.failure.attribution) == ("DISK_LOW", "agent")
