"""A few seeds of the simulator, that it replays, and that it finds what is broken on purpose."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.oracle.record import Verb
from tests.sim import chance, coverage, judge, kept, simulate
from tests.sim.__main__ import find
from tests.sim.simulate import run
from tests.sim.twins import TWINS

SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)

#: The others run with `make sim-twins`.
QUICK_TWINS = ("fence_off", "ack_before_commit", "readoption_off", "request_ids_off", "fsync_off", "the_hint_forgets")


@pytest.mark.parametrize("seed", [*SEEDS, *(one.seed for one in kept.load())])
def test_a_seed_breaks_no_rule(seed):
    verdict = run(seed)
    assert not verdict.problems, f"replay with: make sim SEED={seed}\n" + "\n".join(verdict.problems[:10])
    assert verdict.tasks or verdict.hours


def test_a_seed_replays_to_the_same_trace_whatever_the_hashes_of_strings_are():
    assert run(2).digest == run(2).digest
    told = [
        subprocess.run(
            [sys.executable, "-c", "from tests.sim.simulate import run; print(run(7, keep=True).digest)"],
            env=os.environ | {"PYTHONHASHSEED": number, "PYTHONPATH": f"{coverage.ROOT}:{coverage.ROOT / 'gen'}"},
            cwd=coverage.ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for number in ("1", "2")
    ]
    assert told[0] == told[1] != ""


@pytest.mark.parametrize("name", QUICK_TWINS)
def test_a_broken_twin_is_found(name):
    assert find(name) is not None, f"{name} was not found in {TWINS[name].seeds} seeds"


def test_an_idle_fleet_of_a_day_writes_nothing_and_does_not_spin():
    """24 hours, three sidecars, nothing to do: heartbeats, and not one commit."""
    quiet = chance.mix(1)
    quiet.strength = dict.fromkeys(quiet.strength, 0.0)
    quiet.scale, quiet.sidecars, quiet.interrupt_every, quiet.shuffle = 1.0, 3, 0.0, 0.0
    seen: dict[str, float] = {}

    async def main(world, problems):
        disk = world.hub_machine.disk
        world.start_hub()
        for name in world.machines:
            world.start_sidecar(name)
        await asyncio.sleep(120.0)
        commits, steps = disk.commits, world.loop.steps
        await asyncio.sleep(24 * 3600.0)
        seen.update(commits=disk.commits - commits, steps=(world.loop.steps - steps) / (24 * 60), hours=24)
        problems += judge.left_over(world)
        assert not [op for op in world.log.ops if op.verb is Verb.WORK_BEGUN]  # no hands, so no model, either
        world.ending = True
        for process in (world.hub, *world.sidecars.values()):
            process.kill("the end")
        world.cancel_all()
        await asyncio.sleep(300.0)

    verdict = simulate.run(1, mix=quiet, main=main)
    assert not verdict.problems
    assert seen["commits"] == 0, f"an idle hub wrote {seen['commits']:.0f} times in a day"
    beats_a_minute = 3 * 60.0 / 9.0
    assert seen["steps"] < beats_a_minute * judge.STEPS_PER_BEAT, f"{seen['steps']:.0f} callbacks a minute"


def test_every_twin_breaks_something_that_is_there():
    from contextlib import ExitStack

    for twin in TWINS.values():
        with ExitStack() as stack:
            twin.break_(stack)


def test_awaits_are_found_in_the_product():
    known = coverage.reachable()
    assert any(one.place.startswith("hub/engine/live/worker.py:") for one in known)
    hit = coverage.covered(Counter([known[0].place, "nowhere.py:1"]))
    assert (hit.hit, hit.all) == (1, len(known))
