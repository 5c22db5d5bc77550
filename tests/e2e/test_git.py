"""Git hygiene: from which commit a task starts, what its branch and its change are called, and what gets into main."""

from __future__ import annotations

from pathlib import Path

from agentcom.v1 import change_pb2, goal_service_pb2, task_pb2
from tests.support.fleet import Fleet, appears, spec
from tests.support.gitrepo import Origin, git


async def changes(fleet: Fleet) -> list[change_pb2.Change]:
    return list((await fleet.goals.ListChanges(goal_service_pb2.ListChangesRequest())).changes)


async def test_a_task_that_begins_while_main_moves_starts_from_the_main_of_its_start(
    fleet: Fleet, origin: Origin, tmp_path: Path
):
    await fleet.start_hub()
    await fleet.start_sidecars("ada", slots=2)
    repo = await fleet.add_repo("demo", origin.path, checks=[task_pb2.Check(id="readme", run="test -s README.md")])
    first = spec("fill the sidecar's cache", "echo 1 > one.txt", repo=repo, delivery=task_pb2.DELIVERY_BRANCH)
    await fleet.until_tasks(await fleet.submit(first))
    begins_from = origin.commit({"two.txt": "2\n"}, message="main moves before the task begins")
    began, gate = tmp_path / "began", tmp_path / "gate"
    wait = f"touch {began}; while ! test -e {gate}; do sleep 0.1; done"
    check = task_pb2.Check(id="has-three", run="grep -q 3 three.txt", expect_on_base=task_pb2.Check.EXPECTATION_FAIL)
    (name,) = await fleet.submit(
        spec(
            "add the number three",
            f"echo 3 > three.txt; {wait}",
            instructions="Three is missing.",
            repo=repo,
            delivery=task_pb2.DELIVERY_MERGE,
            checks=[check],
        )
    )
    await appears(began)
    moved_to = origin.commit({"four.txt": "4\n"}, message="main moves while the task runs")
    gate.touch()
    task = (await fleet.until_tasks([name]))[name]
    result = (await fleet.task(name)).attempts[0].result
    assert result.base_sha == begins_from
    assert result.branch == f"agentcom/ada/{name.removeprefix('tasks/')}"
    assert git("diff", "--name-only", begins_from, result.head_sha, cwd=origin.path) == "three.txt", "no stale diff"
    assert result.diff_stat == task_pb2.DiffStat(files=1, insertions=1)
    assert f"AgentCom-Task: {name}" in origin.message(result.head_sha)
    change = next(c for c in await changes(fleet) if c.name == task.change)
    assert change.state == change_pb2.Change.STATE_MERGED
    assert (change.title, change.base_sha, change.branch) == ("add the number three", begins_from, result.branch)
    for said in ("Three is missing.", "has-three", begins_from, f"AgentCom-Task: {name}"):
        assert said in change.body
    assert change.body == result.change_body
    assert origin.sha() == change.merge_sha
    parents = git("rev-list", "--parents", "-n", "1", "main", cwd=origin.path).split()[1:]
    assert parents == [moved_to, result.head_sha], "onto the main of the merge, nothing lost, nothing rewritten"
    assert origin.files() == ["README.md", "four.txt", "three.txt", "two.txt"]
    branches = [ref.removeprefix("refs/heads/") for ref in origin.refs("refs/heads/agentcom/")]
    assert result.branch not in branches and len(branches) == 1


async def test_an_agent_cannot_push_any_other_branch(fleet: Fleet, origin: Origin, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    repo = await fleet.add_repo("demo", origin.path)
    before = origin.sha()
    said = tmp_path / "said"
    tries = " ".join(
        f"git push origin HEAD:refs/heads/{branch} >> {said} 2>&1 && exit 3;"
        for branch in ("main", "mine", "agentcom/x")
    )
    own = "git commit --quiet --allow-empty -m mine &&"
    (name,) = await fleet.submit(
        spec(
            "push elsewhere", f"echo x > x; git add x; {own} {{ {tries} true; }}", repo=repo, delivery="DELIVERY_BRANCH"
        )
    )
    await fleet.until_tasks([name])
    assert said.read_text().count("refused: only refs/heads/agentcom/ada/") == 3
    assert origin.sha() == before
    assert list(origin.refs("refs/heads/")) == [
        f"refs/heads/agentcom/ada/{name.removeprefix('tasks/')}",
        "refs/heads/main",
    ]


async def test_two_changes_that_conflict_are_both_merged_after_one_came_back_with_evidence(
    fleet: Fleet, origin: Origin, tmp_path: Path
):
    await fleet.start_hub()
    await fleet.start_sidecars("ada", "grace", slots=2)
    repo = await fleet.add_repo("demo", origin.path)
    both = f"while test $(ls {tmp_path} | grep -c began) -lt 2; do sleep 0.05; done"
    names = await fleet.submit(
        *[
            spec(
                f"add the line {word}",
                f"cp $AGENTCOM_CONTRACT {tmp_path}/contract.{word}.$AGENTCOM_GENERATION; "
                f"echo {word} >> README.md; touch {tmp_path}/began.{word}; {both}",
                repo=repo,
                delivery=task_pb2.DELIVERY_MERGE,
            )
            for word in ("left", "right")
        ]
    )
    tasks = await fleet.until_tasks(names)
    assert sorted(origin.read("README.md").splitlines()) == ["hello", "left", "right"]
    (returned,) = [task for task in tasks.values() if task.reworks]
    assert (returned.reworks, returned.attempts_used) == (1, 0)
    states = [change.state for change in await changes(fleet)]
    assert sorted(states) == [change_pb2.Change.STATE_MERGED] * 2 + [change_pb2.Change.STATE_RETURNED]
    (back,) = [change for change in await changes(fleet) if change.state == change_pb2.Change.STATE_RETURNED]
    assert back.failure.reason == "MERGE_CONFLICT"
    assert "README.md" in back.failure.evidence + back.failure.message
    word = returned.spec.title.split()[-1]
    assert "MERGE_CONFLICT" in (tmp_path / f"contract.{word}.2").read_text(), "the next attempt is told why"
