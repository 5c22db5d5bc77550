"""Repositories and agents that do what they should not."""

from __future__ import annotations

import os

from tests.support import sidecar_hands as hands
from tests.support.gitrepo import git
from tests.support.sidecar_hands import TASK, assignment, check

BRANCH = f"agentcom/{hands.AGENT}/{TASK}"
WIP = f"refs/agentcom/wip/{TASK}/1"


def work(origin, command, **changed):
    return assignment(**{"repo": origin.repo, "delivery": "branch", "executor": "shell", "command": command, **changed})


async def test_hooks_that_the_agent_sets_up_do_not_run_in_our_git_commands(runner, origin, tmp_path):
    witness = tmp_path / "hooked"
    origin.commit({".husky/pre-commit": f"#!/bin/sh\ntouch {witness}\n", ".husky/post-checkout": "#!/bin/sh\nexit 1\n"})
    command = "chmod +x .husky/*; git config core.hooksPath .husky; echo 1 > a.txt"
    await hands.done(runner, work(origin, command, checks=(check("true"),)))
    assert not witness.exists()


async def test_hooks_that_the_agent_adds_beside_ours_do_not_run_in_our_git_commands(runner, origin, tmp_path):
    witness = tmp_path / "hooked"
    command = f"""
    hooks=$(git config core.hooksPath); test -x "$hooks/pre-push" || exit 9
    for name in pre-commit commit-msg post-commit post-checkout reference-transaction; do
      printf '#!/bin/sh\\ntouch {witness}\\n' > "$hooks/$name"; chmod +x "$hooks/$name"
    done
    echo 1 > a.txt
    """
    await hands.done(runner, work(origin, command))
    assert not witness.exists()


async def test_commands_planted_in_the_shared_configuration_do_not_run(runner, origin, tmp_path):
    witness = tmp_path / "planted"
    command = (
        f"git config core.fsmonitor 'touch {witness}'; git config core.sshCommand 'touch {witness}'; "
        f"git config filter.x.clean 'touch {witness}; cat'; echo '* filter=x' > .gitattributes; echo 1 > a.txt; "
        "git config remote.origin.url /nowhere"
    )
    outcome = await hands.done(runner, work(origin, command))
    assert origin.sha(BRANCH) == outcome.head_sha
    assert not witness.exists()


async def test_a_link_named_like_the_contract_folder_is_not_written_through(runner, origin, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    os.symlink(target, origin.clone / ".agentcom")
    git("add", "--force", ".agentcom", cwd=origin.clone)
    origin.commit({})
    assert ".agentcom" in origin.files()
    await hands.done(runner, work(origin, 'test -s "$AGENTCOM_CONTRACT" && echo 1 > a.txt'))
    assert list(target.iterdir()) == []


async def test_a_script_does_not_write_through_a_link_out_of_the_tree(runner, origin, tmp_path):
    os.symlink(tmp_path, origin.clone / "out")
    origin.commit({})
    script = "[{write: out/stolen.txt, content: x}]"
    outcome = await hands.not_done(runner, work(origin, script, executor="fake"))
    assert outcome.failure.reason == "BAD_SCRIPT"
    assert not (tmp_path / "stolen.txt").exists()


async def test_an_agent_that_makes_its_own_repository_in_the_tree_is_refused_and_its_files_are_saved(runner, origin):
    outcome = await hands.not_done(runner, work(origin, "rm -rf .git; git init -q .; echo 1 > a.txt"))
    assert outcome.failure.reason == "WORKTREE_BROKEN"
    assert origin.read("a.txt", WIP) == "1"


async def test_a_tree_that_points_to_another_repository_is_not_committed_to(runner, origin, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    git("init", "--quiet", ".", cwd=victim)
    outcome = await hands.not_done(
        runner, work(origin, f"echo 'gitdir: {victim}/.git' > .git; echo 1 > a.txt", checks=())
    )
    assert outcome.failure.reason == "WORKTREE_BROKEN"
    assert git("rev-list", "--all", "--count", cwd=victim) == "0"


async def test_work_that_left_its_base_is_refused(runner, origin):
    command = "git checkout -q --orphan other; echo 1 > a.txt; git add -A; git commit -qm lost"
    outcome = await hands.not_done(runner, work(origin, command))
    assert outcome.failure.reason == "BASE_LOST"


async def test_a_repository_inside_the_tree_is_not_recorded_as_a_link_to_nowhere(runner, origin):
    command = "git init -q inner; cd inner; git commit -q --allow-empty -m x"
    outcome = await hands.not_done(runner, work(origin, command))
    assert outcome.failure.reason == "EMBEDDED_REPOSITORY"
    assert "inner" in outcome.failure.message


async def test_a_merge_that_was_left_unfinished_is_refused_and_saved(runner, origin):
    command = (
        "git checkout -q -b side; echo side > README.md; git commit -qam side; git checkout -q -; "
        "echo ours > README.md; git commit -qam ours; git merge side || true"
    )
    outcome = await hands.not_done(runner, work(origin, command))
    assert outcome.failure.reason == "MERGE_CONFLICT"
    assert "README.md" in outcome.failure.evidence
    assert outcome.wip_ref == WIP


async def test_the_agents_own_push_of_the_tasks_branch_is_allowed_and_built_upon(runner, origin):
    command = "echo 1 > a.txt; git add -A; git commit -qm mine; git push -q origin HEAD; echo 2 > b.txt"
    outcome = await hands.done(runner, work(origin, command))
    assert outcome.branch == BRANCH
    assert origin.sha(BRANCH) == outcome.head_sha
    assert origin.files(BRANCH) == ["README.md", "a.txt", "b.txt"]


async def test_a_tip_that_the_agent_pushed_is_not_rewritten(runner, origin):
    command = "echo 1 > a.txt; git add -A; git commit -qm mine; git push -q origin HEAD"
    outcome = await hands.done(runner, work(origin, command))
    assert outcome.branch == BRANCH
    assert git("log", "--format=%s", f"main..{BRANCH}", cwd=origin.path).splitlines() == ["mine", "mine"]
    assert f"AgentCom-Task: tasks/{TASK}" in origin.message(BRANCH)


async def test_pushes_from_the_worktree_meet_the_hook(runner, origin):
    origin.commit({"x": "1"}, branch="other")
    before = origin.refs("refs/heads/")
    command = """
    git config core.hooksPath /dev/null
    echo 1 > a.txt; git add -A; git commit -qm mine
    for what in HEAD:main HEAD:refs/heads/new :refs/heads/other --force\\ HEAD:other --tags\\ HEAD:refs/tags/t; do
      git push -q origin $what && echo "ESCAPED $what"
    done
    true
    """
    outcome = await hands.done(runner, work(origin, command))
    log = outcome.artifacts[-1].content.decode()
    assert "ESCAPED" not in log
    assert log.count("agentcom: push of") == 5
    after = origin.refs("refs/heads/")
    assert {name: sha for name, sha in after.items() if BRANCH not in name} == before


async def test_the_hook_refuses_to_rewrite_the_tasks_own_branch(runner, origin):
    command = """
    echo 1 > a.txt; git add -A; git commit -qm one; git push -q origin HEAD
    git commit -q --amend -m two; git push -q --force origin HEAD && echo ESCAPED
    true
    """
    outcome = await hands.done(runner, work(origin, command))
    assert "ESCAPED" not in outcome.artifacts[-1].content.decode()
    assert outcome.branch == f"{BRANCH}-g1"


async def test_a_killed_git_command_of_the_agent_does_not_block_the_commit(runner, origin):
    command = 'echo 1 > a.txt; touch "$(git rev-parse --git-dir)/index.lock"'
    assert (await hands.done(runner, work(origin, command))).head_sha


async def test_a_check_cannot_leave_a_process_behind(runner, origin, tmp_path):
    command = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 600' & while [ ! -s {tmp_path}/pid ]; do :; done"
    checks = (check(command),)
    await hands.done(runner, work(origin, "echo 1 > a.txt", checks=checks))
    await hands.until_dead(int((tmp_path / "pid").read_text()))


async def test_binary_and_strange_names_survive(runner, origin):
    command = "head -c 100 /dev/zero > 'zero file'; echo 1 > \"$(printf 'n\\303\\244me')\"; printf '\\377\\376'"
    outcome = await hands.done(runner, work(origin, command, title='A "quoted"  title\twith $(touch x) `y` -m'))
    assert set(git("ls-tree", "-r", "-z", "--name-only", BRANCH, cwd=origin.path).split("\0")) >= {"zero file", "näme"}
    assert origin.message(outcome.head_sha).startswith('A "quoted" title with $(touch x) `y` -m\n')
