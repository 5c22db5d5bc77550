"""The soak itself works, in short: a good hub passes, and the leaks of a bad one are all found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import run

SECONDS = 20.0
SEED = 7
#: A hub that has just started still fills its rings and caches: only the long soak can tell that from a leak.
WARMING = {"hub memory, MiB", "sidecar memory, MiB"}
WARMING_MIB_MAX = 8.0


def told(outcome: run.Outcome) -> str:
    return f"seed {SEED}\n{run.text(outcome)}"


async def test_a_hub_under_load_and_mishaps_ends_well_and_leaks_nothing(tmp_path: Path):
    outcome = await run.run(tmp_path, SECONDS, SEED)
    print(told(outcome))
    assert not outcome.faults, told(outcome)
    assert outcome.done["by hand"] > 50, told(outcome)
    assert sum(outcome.mishaps.values()) >= 1
    leaking = {row.name for row in outcome.rows if row.leaks}
    assert leaking <= WARMING, told(outcome)
    assert all(row.trend.growth < WARMING_MIB_MAX for row in outcome.rows if row.name in WARMING), told(outcome)


async def test_a_hub_that_leaks_is_found_out(tmp_path: Path):
    outcome = await run.run(tmp_path, SECONDS, SEED, leaky=True)
    print(told(outcome))
    assert not outcome.faults, told(outcome)
    rows = {row.name: row for row in outcome.rows}
    leaking = {name for name, row in rows.items() if row.leaks}
    assert leaking >= {"hub memory, MiB", "events kept / recent", "tasks kept / recent"}, told(outcome)
    # A kill of the hub in so short a run drops its descriptors to where they began: the line's error is as large then
    # as its slope. What they grew by is a multiple of what is allowed all the same.
    assert rows["hub descriptors"].trend.growth > 10.0, told(outcome)
    memory = rows["hub memory, MiB"]
    assert memory.trend.growth_at_least > WARMING_MIB_MAX, told(outcome)
    assert not outcome.is_good


@pytest.mark.parametrize("minutes", [0.3, 10.0])
def test_what_is_kept_turns_over_within_the_steady_part(minutes: float):
    """Else it could not be steady."""
    brief = run._brief(minutes * 60)
    assert brief["retention_events_s"] <= minutes * 60 * run.STEADY_SHARE  # type: ignore[operator]  # it is a number
