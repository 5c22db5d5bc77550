"""Poison: a task that kills whoever runs it, and an agent that fails whatever it is given."""

from __future__ import annotations

from agentcom.v1 import agent_pb2, task_pb2
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support.fleet import DEAD, spec

AGENTS = ("ada", "barbara", "grace")


async def poison_task(lab: Lab) -> str:
    """A task kills its sidecar each time; others run beside it."""
    await lab.start_hub(engine_lease_s=lab.size["lease_s"])
    for agent in AGENTS:
        await lab.start_sidecar(agent, executors="shell,fake")
        await lab.until_agent(agent, agent_pb2.Agent.STATE_IDLE)
    fake = task_pb2.Requirement(executor="fake")
    (poison,) = await lab.submit(spec("poison", "[{crash: sidecar}]", requirement=fake))
    good = await lab.submit(*[spec(f"good {n}") for n in range(lab.size["good"])])
    await lab.until_tasks([poison], DEAD)
    task = await lab.task(poison)
    assert {attempt.agent for attempt in task.attempts} == {f"agents/{agent}" for agent in AGENTS}
    assert (task.failure.reason, task.attempts_used) == ("POISON", 0)
    for agent in AGENTS:
        # Not isolated: it was not their fault.
        await lab.sidecars[agent].wait()
        await lab.start_sidecar(agent)
        await lab.until_agent(agent, agent_pb2.Agent.STATE_IDLE)
    await lab.until_tasks(good)
    await lab.judge(Rules(all_end=True))
    return f"dead-lettered after {len(task.attempts)} agents; none of them is isolated, {len(good)} others done"


async def poison_agent(lab: Lab) -> str:
    """An agent fails everything at once; a good one comes later."""
    await lab.start_hub()
    await lab.start_sidecars("ada", slots=lab.size["slots"])
    command = "test $AGENTCOM_AGENT != ada"
    names = await lab.submit(*[spec(f"task {n}", command) for n in range(lab.size["tasks"])])
    await lab.until_events("agent.isolated", subject="agents/ada")
    await lab.until_agent("ada", agent_pb2.Agent.STATE_ISOLATED)
    await lab.start_sidecars("grace", slots=lab.size["slots"])
    tasks = await lab.until_tasks(names, patience_s=lab.patience_s + 40)  # a second retry waits for half a minute
    used = sum(task.attempts_used for task in tasks.values())
    await lab.judge(Rules(all_end=True))
    assert used == 0, f"{used} attempts of {len(names)} tasks are still charged for what the agent did"
    return f"isolated after three tasks in a row; {len(names)} tasks done by another, 0 attempts charged"


SCENARIOS = (
    Scenario(
        name="poison-task",
        passes="dead-lettered after 3 distinct agents, none of them isolated",
        run=poison_task,
        quick={"lease_s": 1.0, "good": 5},
        long={"lease_s": 3.0, "good": 100},
        seeds=5,
        twins=(Twin(node="hub", guards=("poison_off",), finds="still so: .*poison"),),
    ),
    Scenario(
        name="poison-agent",
        passes="isolated after 3 tasks in a row, their attempts given back",
        run=poison_agent,
        quick={"slots": 2, "tasks": 4},
        long={"slots": 8, "tasks": 40},
        seeds=5,
        twins=(
            Twin(node="hub", guards=("isolation_off",), finds="0 of 1 agent.isolated|ended otherwise"),
            Twin(node="hub", guards=("refunds_off",), finds="attempts of .* are still charged|ended otherwise"),
        ),
    ),
)
