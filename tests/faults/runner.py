"""Runs a scenario with a seed, or its broken twin; keeps the logs of what failed, and the seeds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import tempfile
import time
import tomllib
import zlib
from dataclasses import dataclass
from pathlib import Path

from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle import check
from tests.support import processes

KEPT_SEEDS = Path(__file__).parent / "kept_seeds.toml"
#: Logs of failing runs, below the folder that `make clean` removes.
FAILURES = Path("build/faults")
#: No wait of a quick run is longer. A twin that hangs because its guard is missing must not use up CI's time.
PATIENCE_QUICK_S = 40.0
PATIENCE_TWIN_S = 8.0
PATIENCE_LONG_S = 180.0
#: For the end of a hub whose run was given up, and the look at its logs.
ORACLE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one run."""

    scenario: str
    seed: int
    passed: bool
    #: The figure, or what was wrong.
    told: str
    duration_s: float
    #: Where its logs are, when it failed.
    folder: Path | None = None


async def run(scenario: Scenario, seed: int, *, quick: bool, twin: Twin | None = None) -> Result:
    """One run; a failure is in the result. A twin runs the quick size with its own changes."""
    size = {**(scenario.quick if quick or twin else scenario.long), **(twin.size if twin else {})}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        lab = Lab(root / "fleet", random.Random(seed), size, twin)
        lab.patience_s = PATIENCE_TWIN_S if twin else PATIENCE_QUICK_S if quick else PATIENCE_LONG_S
        passed, kept = False, None
        try:
            told = await scenario.run(lab)
            passed = True
        except Exception as error:
            told = _told(error)
            if not isinstance(error, check.Broken):
                told += await _oracle(lab)
            if twin is None:
                kept = _keep_logs(lab, scenario, seed, told)
        finally:
            await lab.close()
        if twin is None:
            with contextlib.suppress(AssertionError):  # guards of killed sidecars need a moment
                await processes.until(lambda: not processes.working_under(root), "nothing is left running", 5.0)
        _end_leftovers(root)
    duration_s = time.monotonic() - began
    return Result(scenario=scenario.name, seed=seed, passed=passed, told=told, duration_s=duration_s, folder=kept)


async def run_twin(scenario: Scenario, twin: Twin, first_seed: int) -> Result:
    """A broken twin: `passed` means that it failed as it must, with one of its seeds."""
    told, seconds = "", 0.0
    for seed in range(first_seed, first_seed + twin.seeds):
        result = await run(scenario, seed, quick=True, twin=twin)
        seconds += result.duration_s
        told = result.told
        if not result.passed and re.search(twin.finds, result.told):
            return Result(scenario=scenario.name, seed=seed, passed=True, told=told, duration_s=seconds)
    how = "it passed" if result.passed else f"it failed otherwise than by {twin.finds!r}"
    told = f"{how}, so the scenario proves nothing: {told}"
    return Result(scenario=scenario.name, seed=first_seed, passed=False, told=told, duration_s=seconds)


def quick_seed(scenario: Scenario) -> int:
    """The seed of the quick run: the same everywhere."""
    return zlib.crc32(scenario.name.encode()) % 1_000_000


def kept_seeds(scenario: Scenario) -> list[int]:
    """Seeds that failed once."""
    return [int(seed) for seed in tomllib.loads(KEPT_SEEDS.read_text()).get(scenario.name, [])]


def keep_seed(scenario: Scenario, seed: int) -> None:
    """Add a seed to those that are always run."""
    kept = {name: list(seeds) for name, seeds in tomllib.loads(KEPT_SEEDS.read_text()).items()}
    seeds = kept.setdefault(scenario.name, [])
    if seed in seeds:
        return
    seeds.append(seed)
    head = [line for line in KEPT_SEEDS.read_text().splitlines() if line.startswith("#")]
    KEPT_SEEDS.write_text("\n".join([*head, *(f"{name} = {seeds}" for name, seeds in sorted(kept.items()))]) + "\n")


def isolate_git() -> None:
    """Keep the machine's own git configuration out of the runs."""
    for name in list(os.environ):
        if name.startswith("GIT_"):
            del os.environ[name]
    os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def _end_leftovers(root: Path) -> None:
    """End what a run has left in its folder: without its guards a twin leaves orphans."""
    for left in processes.working_under(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(left.partition(":")[0]), signal.SIGKILL)


def _told(error: BaseException) -> str:
    """What went wrong; of a group all that is in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(one) for one in error.exceptions)
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"


async def _oracle(lab: Lab) -> str:
    """What the oracle says of a run that was given up before it was judged."""
    try:
        async with asyncio.timeout(ORACLE_S):
            if lab.hub is not None and lab.hub.is_running:
                await lab.kill_hub()  # it may be broken; what it committed is there
            await lab.judge()
    except check.Broken as broken:
        return f"\n{broken}"
    except Exception as error:
        return f"\nthe oracle could not look: {type(error).__name__}: {error}"
    return "\nthe oracle found nothing wrong so far"


def _keep_logs(lab: Lab, scenario: Scenario, seed: int, told: str) -> Path:
    folder = FAILURES / f"{scenario.name}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "failure.txt").write_text(told + "\n")
    for file in lab.root.glob("*.log"):
        shutil.copy(file, folder)
    lab.write_ops(folder)
    if (lab.data / "store").exists():
        shutil.copytree(lab.data / "store", folder / "store", ignore=shutil.ignore_patterns("lock*"))
    return folder
