"""The tests from the seeds of this project: smoke, failure, scale, restart. (Git hygiene has a file of its own.)"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from agentcom.v1 import task_pb2
from tests.e2e import history
from tests.support.fleet import Fleet, appears, spec
from tests.support.gitrepo import Origin
from tests.support.processes import is_alive, until

TASKS = 10
LATENCY_S_MAX = 5.0


def number(n: int, repo: str, delivery: task_pb2.Delivery.ValueType, before: str = "") -> task_pb2.TaskSpec:
    """Write the number N to a file."""
    check = task_pb2.Check(
        id="holds", run=f'test "$(cat numbers/{n}.txt)" = {n}', expect_on_base=task_pb2.Check.EXPECTATION_FAIL
    )
    command = f"mkdir -p numbers && echo {n} > numbers/{n}.txt{before}"
    return spec(f"write the number {n}", command, repo=repo, delivery=delivery, checks=[check])


async def test_smoke_two_agents_write_ten_numbers_into_main(fleet: Fleet, origin: Origin, capsys):
    await fleet.start_hub()
    await fleet.start_sidecars("ada", "grace", slots=5)
    repo = await fleet.add_repo("numbers", origin.path)
    names = await fleet.submit(*[number(n, repo, task_pb2.DELIVERY_MERGE) for n in range(1, TASKS + 1)])
    await fleet.until_tasks(names)
    assert {origin.read(f"numbers/{n}.txt") for n in range(1, TASKS + 1)} == {str(n) for n in range(1, TASKS + 1)}
    assert list(origin.refs("refs/heads/")) == ["refs/heads/main"], "branches go when they are merged"
    events = await fleet.history()
    history.check(events, [*names, *_merge_tasks(events)])
    latencies = history.latencies_s(events, names)
    worst = max(assign for assign, _ in latencies.values())
    with capsys.disabled():
        begun = max(begin for _, begin in latencies.values())
        print(
            f"\nsmoke: {TASKS}/{TASKS}; filed to assigned at most {worst * 1e3:.1f} ms, to begun {begun * 1e3:.1f} ms"
        )
    assert worst < LATENCY_S_MAX
    stats = await fleet.stats()
    assert stats.tokens_spent == 0
    for name in names:
        task = await fleet.task(name)
        assert [attempt.result.tokens for attempt in task.attempts] == [0], "a shell command costs no tokens"


async def test_failure_a_sidecar_killed_at_task_five_loses_nothing(fleet: Fleet, origin: Origin, tmp_path: Path):
    await fleet.start_hub()
    await fleet.start_sidecars("ada", "grace", slots=2)
    repo = await fleet.add_repo("numbers", origin.path)
    began = tmp_path / "began"
    told = f"echo $AGENTCOM_AGENT $$ > {began}.new && mv {began}.new {began}"
    hang = f" && if test $AGENTCOM_GENERATION = 1; then {told}; sleep 600; fi"
    names = await fleet.submit(
        *[number(n, repo, task_pb2.DELIVERY_BRANCH, hang if n == 5 else "") for n in range(1, TASKS + 1)]
    )
    victim, pid = (await appears(began)).read_text().split()
    await fleet.sidecars[victim].kill()
    await fleet.until_tasks(names)
    await until(lambda: not is_alive(int(pid)), "what the dead sidecar ran is ended too")
    fifth = await fleet.task(names[4])
    survivor = {"ada": "grace", "grace": "ada"}[victim]
    assert [(a.generation, a.agent) for a in fifth.attempts] == [(1, f"agents/{victim}"), (2, f"agents/{survivor}")]
    assert fifth.attempts[0].outcome == task_pb2.Attempt.OUTCOME_LOST
    assert fifth.attempts_used == 0, "a dead sidecar is no fault of the task"
    history.check(await fleet.history(), names)
    assert len(origin.refs("refs/heads/agentcom/")) == TASKS


@pytest.mark.parametrize("slots", [8, 1])
async def test_scale_twenty_tasks_are_spread_evenly_over_four_agents(fleet: Fleet, slots: int):
    agents = ["ada", "barbara", "grace", "joan"]
    await fleet.start_hub()
    await fleet.start_sidecars(*agents, slots=slots)
    names = await fleet.submit(*[spec(f"task {n}", "sleep 0.4") for n in range(20)])
    await fleet.until_tasks(names)
    events = await fleet.history()
    history.check(events, names)
    share = Counter(event.fields["agent"].removeprefix("agents/") for event in history.of(events, "task.assigned"))
    assert sum(share.values()) == 20
    assert set(share) == set(agents), "nobody starves"
    assert max(share.values()) - min(share.values()) <= 2, share


@pytest.mark.parametrize("how", ["KILL", "TERM"])
async def test_restart_a_hub_that_ends_under_twenty_running_tasks_takes_all_of_them_over(
    fleet: Fleet, tmp_path: Path, how: str
):
    agents = ["ada", "barbara", "grace", "joan"]
    await fleet.start_hub()
    await fleet.start_sidecars(*agents, slots=5)
    gate, out = tmp_path / "gate", tmp_path / "out"
    out.mkdir()
    wait = f"while ! test -e {gate}; do sleep 0.2; done"
    names = await fleet.submit(*[spec(f"task {n}", f"echo begun >> {out}/{n} && {wait}") for n in range(20)])
    await until(lambda: len(list(out.iterdir())) == 20, "all tasks run")
    await fleet.until_tasks(names, task_pb2.Task.STATE_RUNNING)
    position = await fleet.position()
    if how == "KILL":
        await fleet.kill_hub()
    else:
        assert fleet.hub is not None
        assert await fleet.hub.stop() == 0
    await fleet.restart_hub()
    await fleet.until_events("agent.attached", len(agents), position=position)
    assert (await fleet.stats()).adopted_count == 20
    gate.touch()
    await fleet.until_tasks(names)
    history.check(await fleet.history(), names)
    assert {file.read_text() for file in out.iterdir()} == {"begun\n"}, "nothing is done twice"
    for name in names:
        task = await fleet.task(name)
        assert [attempt.generation for attempt in task.attempts] == [1]
        assert (task.generation, task.attempts_used) == (1, 0)


def _merge_tasks(events):
    return [event.fields["merge_task"] for event in history.of(events, "change.merging")]
