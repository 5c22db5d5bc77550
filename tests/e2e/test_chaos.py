"""A seeded run of random faults, each after a number of completions, judged by the oracle.

Replay a failure with AGENTCOM_SEED, which is shown with it. Kills at random moments, poisons and much else are in
`tests/faults`.
"""

from __future__ import annotations

import random
from pathlib import Path

from agentcom.v1 import task_pb2
from tests.e2e import history
from tests.support.fleet import Fleet, spec

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
