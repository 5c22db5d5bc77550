"""A seeded run of random faults, judged by the event log alone; and the two poisons: of tasks and of agents.

Replay a failure with AGENTCOM_SEED, which is shown with it.
"""

from __future__ import annotations

import random
from pathlib import Path

from agentcom.v1 import agent_pb2, agent_service_pb2, task_pb2
from tests.e2e import history
from tests.support.fleet import DEAD, Fleet, spec

AGENTS = ("ada", "barbara", "grace")
TASKS = 30
FAULTS = 6


async def test_random_kills_of_hub_and_sidecars_lose_nothing_and_complete_nothing_twice(
    fleet: Fleet, rng: random.Random, tmp_path: Path
):
    out = tmp_path / "out"
    out.mkdir()
    await fleet.start_hub(engine_lease_s=2.0)
    await fleet.start_sidecars(*AGENTS, slots=2)
    names = await fleet.submit(
        *[
            spec(f"task {n}", f"sleep 0.{rng.randint(1, 6)}; echo $AGENTCOM_GENERATION >> {out}/{n}")
            for n in range(TASKS)
        ]
    )
    for _ in range(FAULTS):
        # The next fault comes after a number of completions, not after a time: the seed decides where it hits.
        position = await fleet.position()
        count = sum(task.state == task_pb2.Task.STATE_SUCCEEDED for task in [await fleet.task(name) for name in names])
        step = min(rng.randint(1, 4), TASKS - count)
        if not step:
            break
        await fleet.until_events("task.succeeded", step, position=position)
        victim = rng.choice(("hub", *AGENTS))
        if victim == "hub":
            await fleet.kill_hub()
            await fleet.restart_hub()
        else:
            await fleet.sidecars[victim].kill()
            await fleet.start_sidecar(victim, slots=2)
    await fleet.until_tasks(names)
    events = await fleet.history()
    history.check(events, names)
    for n, name in enumerate(names):
        task = await fleet.task(name)
        assert task.attempts_used == 0, "no fault of a task's own was among them"
        assert str(task.generation) in (out / str(n)).read_text().split(), "the accepted attempt is one that ran"
        assert [attempt.generation for attempt in task.attempts] == list(range(1, task.generation + 1))


async def test_a_task_that_kills_three_agents_is_dead_lettered_and_they_are_not_to_blame(fleet: Fleet):
    await fleet.start_hub(engine_lease_s=1.5)
    for agent in AGENTS:
        await fleet.start_sidecar(agent, executors="shell,fake")
        await fleet.until_agent(agent, agent_pb2.Agent.STATE_IDLE)
    poison = spec("poison", "[{crash: sidecar}]", requirement=task_pb2.Requirement(executor="fake"))
    (name,) = await fleet.submit(poison)
    await fleet.until_tasks([name], DEAD)
    task = await fleet.task(name)
    assert {attempt.agent for attempt in task.attempts} == {f"agents/{agent}" for agent in AGENTS}
    assert task.attempts_used == 0
    assert task.failure.reason == "POISON"
    assert task.state_reason.startswith("it was lost with 3 different agents")
    for agent in AGENTS:
        await fleet.start_sidecar(agent)
        await fleet.until_agent(agent, agent_pb2.Agent.STATE_IDLE)


async def test_an_agent_that_fails_everything_is_isolated_and_its_tasks_get_their_attempts_back(fleet: Fleet):
    await fleet.start_hub()
    await fleet.start_sidecars("ada", executors="shell,fake")
    only_ada = task_pb2.Requirement(executor="fake")
    script = "[{fail: BROKEN_HANDS, attribution: agent, message: it has no hands}]"
    names = await fleet.submit(*[spec(f"task {n}", script, requirement=only_ada) for n in range(3)])
    await fleet.until_events("agent.isolated", subject="agents/ada")
    ada = await fleet.until_agent("ada", agent_pb2.Agent.STATE_ISOLATED)
    assert ada.HasField("isolate_until_time")
    for name in names:
        assert (await fleet.task(name)).attempts_used == 0
    position = await fleet.position()
    await fleet.agents.ResumeAgent(agent_service_pb2.ResumeAgentRequest(name="agents/ada"))
    await fleet.until_events("task.assigned", position=position)
