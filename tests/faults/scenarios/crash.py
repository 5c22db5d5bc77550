"""Sidecars that die, hubs that die, and both: nothing is lost, nothing is accepted twice, no attempt is charged."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agentcom.v1 import task_pb2
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support import processes
from tests.support.fleet import DEAD, FINAL, SUCCEEDED, appears, spec

AGENTS = ("ada", "barbara", "grace")
SLOTS = 3
#: A killed sidecar's children are gone after this long (two scans of its guard take a tenth of a second each).
ORPHAN_S = 3.0


async def kill_sidecars(lab: Lab) -> str:
    """Kill one or two sidecars at a time at random points of the work, and start them again."""
    return await _kill_at_random(lab)


async def kill_both(lab: Lab) -> str:
    """Kill the hub, or the hub and sidecars at once, at random points of the work, and start them again."""
    return await _kill_at_random(lab)


async def _kill_at_random(lab: Lab) -> str:
    out = lab.root / "out"
    await lab.start_hub(engine_lease_s=2.0)
    await lab.start_sidecars(*AGENTS, slots=SLOTS)
    out.mkdir()
    names = await lab.submit(*[_short(lab, out, n) for n in range(lab.size["tasks"])])
    killed = {"hub": 0, "sidecar": 0, "both": 0}
    for number in range(lab.size["kills"]):
        await asyncio.sleep(lab.rng.uniform(0.0, 0.5))  # where it hits is the seed's and the machine's
        kind = lab.rng.choice(lab.size["kinds"])
        killed[kind] += 1
        victims = lab.rng.sample(AGENTS, lab.rng.randint(1, 2)) if kind != "hub" else []
        for victim in victims:
            await lab.kill_sidecar(victim)
        if kind != "sidecar":
            await lab.kill_hub()
            await lab.restart_hub()
        for victim in victims:
            await lab.start_sidecar(victim, slots=SLOTS)
        more = await lab.submit(*[_short(lab, out, f"{number}.{n}") for n in range(lab.size["more"])])
        names += more
    await lab.until_tasks(names, FINAL)
    poisoned = 0
    for name in names:
        task = await lab.task(name)
        if task.state != SUCCEEDED:
            # Three agents were killed under it, as a poison would do; that is the rule, and no loss.
            assert (task.state, task.failure.reason) == (DEAD, "POISON"), task
            assert len({attempt.agent for attempt in task.attempts}) >= len(AGENTS), task
            poisoned += 1
        assert task.attempts_used == 0, f"{name} was charged for a kill"
    await lab.judge(Rules(all_end=True))
    told = ", ".join(f"{count} of {kind}" for kind, count in killed.items() if count)
    return f"kills: {told}; {len(names)} tasks, {poisoned} given up as poison, 0 lost, 0 charged"


def _short(lab: Lab, out: Path, n: object) -> task_pb2.TaskSpec:
    return spec(f"task {n}", f"sleep 0.{lab.rng.randint(0, 3)}; echo $AGENTCOM_GENERATION >> {out}/{n}")


async def die_with_a_result(lab: Lab) -> str:
    """A sidecar dies with a result that no hub has acked, and with work that goes on; it is started again."""
    await lab.start_hub(engine_lease_s=4.0)
    await lab.start_sidecars("ada", slots=2)
    gate, pid_file = lab.root / "gate", lab.root / "pid"
    done, going = await lab.submit(
        spec("it has a result", f"while ! test -e {gate}; do sleep 0.05; done; echo result"),
        spec("it goes on", f"if test $AGENTCOM_GENERATION = 1; then echo $$ > {pid_file}; exec sleep 600; fi"),
    )
    await lab.until_tasks([done, going], task_pb2.Task.STATE_RUNNING)
    await appears(pid_file)
    if lab.size["hub"] == "frozen":
        lab.freeze_hub()
    else:
        await lab.kill_hub()
    gate.touch()
    ada = lab.sidecars["ada"]
    await processes.until(lambda: '"event":"holding.finished"' in ada.said(), "it has a result", lab.patience_s)
    pid = int(pid_file.read_text())
    await lab.kill_sidecar("ada")
    await processes.until(lambda: not processes.is_alive(pid), "what the dead sidecar ran is ended", ORPHAN_S)
    await lab.start_sidecar("ada", slots=2)
    if lab.size["hub"] == "frozen":
        lab.thaw_hub()
    else:
        await lab.restart_hub()
    await lab.until_tasks([done, going])
    first, second = await lab.task(done), await lab.task(going)
    assert [a.generation for a in first.attempts] == [1], "its result was told by the next process, not made again"
    assert [a.generation for a in second.attempts] == [1, 2]
    assert (first.attempts_used, second.attempts_used) == (0, 0), "a dead sidecar is no fault of a task"
    await lab.judge(Rules(all_end=True))
    return "the result was told by the next process, the orphan ended, the unfinished was done again at no cost"


SCENARIOS = (
    Scenario(
        name="sidecar-kill",
        passes="0 lost, 0 accepted twice, no attempt charged",
        run=kill_sidecars,
        quick={"tasks": 12, "kills": 2, "more": 3, "kinds": ("sidecar",)},
        long={"tasks": 60, "kills": 20, "more": 6, "kinds": ("sidecar",)},
        seeds=10,
        # More work than slots, so that each kill hits some.
        twins=(Twin(node="hub", guards=("attribution_off",), finds="charged", size={"tasks": 40}, seeds=2),),
    ),
    Scenario(
        name="both-kill",
        passes="0 lost, 0 accepted twice, no attempt charged",
        run=kill_both,
        quick={"tasks": 8, "kills": 2, "more": 2, "kinds": ("both", "hub")},
        long={"tasks": 60, "kills": 20, "more": 6, "kinds": ("both", "both", "hub", "sidecar")},
        seeds=10,
        twins=(
            Twin(
                node="hub",
                guards=("attribution_off",),
                finds="charged",
                size={"tasks": 40, "kinds": ("both",)},
                seeds=2,
            ),
        ),
    ),
    Scenario(
        name="untold-result",
        passes="a result that no hub acked survives kill -9 of its sidecar; its children do not",
        run=die_with_a_result,
        quick={"hub": "frozen"},
        long={"hub": "killed"},
        seeds=3,
        twins=(
            Twin(node="sidecar", guards=("journal_off",), finds="not made again|still so"),
            Twin(node="sidecar", guards=("orphan_guard_off",), finds="what the dead sidecar ran is ended"),
        ),
    ),
)
