"""`python -m tests.faults`: tries faults on real processes and prints a table of scenario, seeds, figure, verdict."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from tests.faults import page, runner, scenario
from tests.faults.scenario import Scenario

#: The figure's place in the table; what is longer is shown below it.
TOLD_CHARS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 when something failed."""
    chosen = _parser().parse_args(arguments)
    runner.isolate_git()
    known = scenario.everything()
    wrong = [name for name in chosen.only or [] if name not in known]
    if wrong:
        print(f"no scenario {', '.join(wrong)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    picked = [known[name] for name in chosen.only or known]
    if chosen.list:
        for one in picked:
            print(f"{one.name:24} {one.passes} [{'; '.join(twin.name for twin in one.twins)}]")
        return 0
    if chosen.page:
        page.write(known.values())
        return 0
    print(f"{'scenario':24} {'seeds':>6} {'s':>6}  {'verdict':8} figure")
    good = True
    for one in picked:
        if not chosen.twins_only:
            good &= asyncio.run(_seeds(one, chosen))
        if chosen.twins or chosen.twins_only:
            good &= asyncio.run(_twins(one, chosen))
    return 0 if good else 1


async def _seeds(one: Scenario, chosen: argparse.Namespace) -> bool:
    why = one.skip()
    if why:
        _row(one.name, "-", 0.0, "skipped", why)
        return True
    count = chosen.seeds or (1 if chosen.quick or chosen.seed is not None else one.seeds)
    first = chosen.seed if chosen.seed is not None else runner.quick_seed(one)
    seeds = [*range(first, first + count)]
    if chosen.seed is None:
        seeds = [*dict.fromkeys([*runner.kept_seeds(one), *seeds])]
    seconds, told, good = 0.0, "", True
    for seed in seeds:
        result = await runner.run(one, seed, quick=chosen.quick)
        seconds += result.duration_s
        if result.passed:
            told = result.told
            if chosen.verbose:
                _row(one.name, f"#{seed}", result.duration_s, "ok", told)
            continue
        good = False
        runner.keep_seed(one, seed)
        _row(one.name, f"#{seed}", result.duration_s, "FAILED", result.told)
        size = " --quick" if chosen.quick else ""
        print(f"  logs: {result.folder}\n  again: python -m tests.faults --only {one.name} --seed {seed}{size}")
    _row(one.name, str(len(seeds)), seconds, "passed" if good else "FAILED", told)
    return good


async def _twins(one: Scenario, chosen: argparse.Namespace) -> bool:
    if one.skip():
        return True
    good = True
    for twin in one.twins:
        result = await runner.run_twin(one, twin, chosen.seed or runner.quick_seed(one))
        good &= result.passed
        _row(
            f"  {twin.name}", f"#{result.seed}", result.duration_s, "fails" if result.passed else "PASSES", result.told
        )
    return good


def _row(name: str, seeds: str, seconds: float, verdict: str, told: str) -> None:
    lines = told.splitlines() or [""]
    short = len(told) <= TOLD_CHARS * 2 and len(lines) == 1
    print(f"{name:24} {seeds:>6} {seconds:6.1f}  {verdict:8} {told if short else lines[0][:TOLD_CHARS]}", flush=True)
    for line in [] if short else lines[1:]:
        print(f"    {line[:400]}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("--quick", action="store_true", help="the short size of each, one seed")
    parser.add_argument("--only", action="append", metavar="NAME", help="this scenario (again for more)")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds of each")
    parser.add_argument("--seed", type=int, metavar="S", help="begin with this one (alone: only this one)")
    parser.add_argument("--twins", action="store_true", help="the broken twins, too: each must fail")
    parser.add_argument("--twins-only", action="store_true", help="only them")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--page", action="store_true", help="write the table of docs/faults.md")
    parser.add_argument("--verbose", action="store_true", help="a line for each seed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
