"""`make sim`: many seeds, or one with its trace.

python -m tests.sim                     500 seeds, the kept ones first; each await must have its fault among them
python -m tests.sim --seeds 5000 --start 100000 --jobs 8
python -m tests.sim --seed 42           one, with everything that happened
python -m tests.sim --twins             the broken twins: each must be found
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from tests.sim import beyond, chance, coverage, kept, simulate
from tests.sim.chance import Tally
from tests.sim.simulate import Verdict, run
from tests.sim.strikes import WEIGHTS
from tests.sim.twins import TWINS

SEEDS = 500
LOOKS_MAX = 100
"""More seeds at most, for awaits that are still to be hit."""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--start", type=int, default=1)
    parser.add_argument("--seed", type=int, help="replay one, with its trace")
    parser.add_argument("--hours", type=float, help="length of the chaos, instead of what the seed says")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds at a time (default: processors)")
    parser.add_argument("--twins", nargs="*", metavar="NAME", help="broken twins, all or these")
    parser.add_argument("--no-keep", action="store_true", help="do not add failing seeds to kept_seeds.toml")
    asked = parser.parse_args()
    if asked.twins is not None:
        return twins(asked.twins or list(TWINS))
    if asked.seed is not None:
        return replay(asked.seed, asked.hours)
    first = [one.seed for one in kept.load()]
    seeds = [*first, *(seed for seed in range(asked.start, asked.start + asked.seeds) if seed not in first)]
    return many(seeds, asked.hours, keep=not asked.no_keep, jobs=asked.jobs)


def replay(seed: int, hours: float | None) -> int:
    """One seed, told line by line."""
    mix = chance.mix(seed, hours=hours)
    strong = {name: round(value, 2) for name, value in mix.strength.items() if value}
    print(f"seed {seed}: {mix.sidecars} sidecars of {mix.slots} slots, times x {mix.scale:g}, faults {strong}")
    verdict = run(seed, mix=mix, tell=print)
    print(f"\n{verdict.hours:.2f} simulated hours, {verdict.tasks} tasks, digest {verdict.digest}")
    _tell_problems(verdict)
    return 1 if verdict.problems else 0


def many(seeds: Sequence[int], hours: float | None, *, keep: bool, jobs: int = 1) -> int:
    """Many seeds, and the summary."""
    began, began_cpu, tally = time.perf_counter(), _processor_s(), Tally()
    failed: list[int] = []
    count = tasks = checks = steps = 0
    simulated = 0.0
    for verdict in _verdicts(seeds, hours, jobs):
        seed = verdict.seed
        count += 1
        simulated += verdict.hours
        tasks += verdict.tasks
        checks += verdict.memory_checks
        steps += verdict.steps
        tally.add(verdict.tally)
        if verdict.problems:
            failed.append(seed)
            print(f"\nseed {seed} FAILED; replay: make sim SEED={seed}")
            _tell_problems(verdict)
            if keep:
                kept.keep(seed, verdict.problems[0])
    took_s, cpu_s = time.perf_counter() - began, _processor_s() - began_cpu
    _tell_faults(tally)
    if count >= SEEDS and hours is None:
        failed += _look_again(tally)
    missed = _missed(tally)
    print(
        f"\n{count} seeds in {took_s:.0f} s ({cpu_s:.0f} s of processor time): a minute of processor time is "
        f"{count / cpu_s * 60:.0f} seeds and {simulated / cpu_s * 60:.0f} simulated hours, "
        f"a minute of the clock {simulated / took_s * 60:.0f} of them\n"
        f"{simulated:.0f} hours simulated, {tasks} tasks acked, {steps} callbacks, "
        f"memory compared with the store {checks} times"
    )
    print(f"{len(failed)} failed{': ' + ' '.join(map(str, failed)) if failed else ''}")
    return 1 if failed or (missed and count >= SEEDS and hours is None) else 0


def _verdicts(seeds: Sequence[int], hours: float | None, jobs: int) -> Iterator[Verdict]:
    """What becomes of each seed, in their order. A seed knows nothing of the others, so they may run side by side."""
    one = functools.partial(simulate.of_seed, hours=hours)
    if jobs <= 1 or len(seeds) <= 1:
        yield from map(one, seeds)
        return
    spawned = multiprocessing.get_context("spawn")  # not forked: a seed finds what it finds alone
    with concurrent.futures.ProcessPoolExecutor(jobs, spawned) as pool:
        yield from pool.map(one, seeds)


def _processor_s() -> float:
    """Of this process and of those that it has waited for."""
    ours = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in ours)


def _look_again(tally: Tally) -> list[int]:
    """Awaits that no seed happened to hit: seeds that strike only there, at once, until all are hit. Which failed."""
    failed = []
    for seed in range(1, LOOKS_MAX + 1):
        hunted = [one.place for one in coverage.covered(tally.hits()).missed]
        if all(beyond.rare(one.owner) for one in coverage.awaits() if one.place in hunted):
            break
        mix = chance.mix(seed)
        mix.hunted = frozenset(hunted)
        verdict = run(seed, mix=mix)
        tally.add(verdict.tally)
        if verdict.problems:
            failed.append(seed)
            print(f"\nseed {seed} FAILED while it hunted {hunted}")
            _tell_problems(verdict)
    return failed


def twins(names: Iterable[str]) -> int:
    """Break the product in each way, and see that it is found."""
    missed = 0
    for name in names:
        twin = TWINS[name]
        began = time.perf_counter()
        found = find(name)
        took_s = time.perf_counter() - began
        missed += found is None
        told = f"seed {found[0]}: {found[1][:110]}" if found else f"NOT FOUND in {twin.seeds} seeds"
        print(f"{name:<26} {took_s:6.1f} s  {told}", flush=True)
    return 1 if missed else 0


def find(name: str) -> tuple[int, str] | None:
    """The first seed that finds a twin, and what it says."""
    twin = TWINS[name]
    for seed in range(twin.start, twin.start + twin.seeds):
        verdict = run(seed, patches=twin.break_)
        hits = [problem for problem in verdict.problems if twin.finds in problem]
        if hits:
            return seed, hits[0]
    return None


def _tell_problems(verdict: Verdict) -> None:
    for problem in verdict.problems[:12]:
        print(f"  {problem[:400]}")
    if len(verdict.problems) > 12:
        print(f"  ... and {len(verdict.problems) - 12} more")


def _tell_faults(tally: Tally) -> None:
    print("faults injected:")
    strikes = [f"strike.{kind}" for kind in WEIGHTS]
    for name in (*chance.PER_HOUR, *chance.PER_POINT, *strikes, *chance.CLIENT_PER_HOUR):
        print(f"  {name:<24} {tally.faults[name]}")


def _missed(tally: Tally) -> int:
    """Tell which points of the product had no fault; how many."""
    seen = coverage.covered(tally.hits())
    print(f"awaits of the product that had a fault: {seen.hit} of {seen.all} that can be reached")
    for one in seen.missed:
        print(f"  not hit{' (rare)' if one in seen.rare else ''}: {one.place} {one.owner}")
    hit = {script for _, script in tally.commits}
    print(f"transactions that had a fault at their commit: {len(hit)} of {len(tally.scripts)} kinds that ran")
    spared = sorted(tally.scripts.keys() - hit)
    for script in spared:
        print(f"  not hit: {script}")
    return len(seen.missed) - len(seen.rare) + len(spared)


if __name__ == "__main__":
    sys.exit(main())
