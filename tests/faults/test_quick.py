"""The quick size of every scenario, every seed that failed once, and every broken twin, which must fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import broken, page, runner, scenario
from tests.faults.scenario import Scenario, Twin
from tests.support import gitrepo

ALL = scenario.everything()


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gitrepo.isolate(monkeypatch)
    monkeypatch.setattr(runner, "FAILURES", tmp_path / "failures")


@pytest.mark.parametrize("seed", ["quick", "kept"])
@pytest.mark.parametrize("name", ALL)
async def test_a_scenario_holds(name: str, seed: str, capsys: pytest.CaptureFixture[str]):
    one = _runnable(ALL[name])
    quick = runner.quick_seed(one)
    seeds = [quick] if seed == "quick" else [number for number in runner.kept_seeds(one) if number != quick]
    for number in seeds:
        result = await runner.run(one, number, quick=True)
        assert result.passed, f"seed {number}: {result.told}\nlogs: {result.folder}"
        with capsys.disabled():
            print(f"\n{name} #{number}: {result.told} ({result.duration_s:.1f} s)")


@pytest.mark.parametrize(
    ("one", "twin"),
    [pytest.param(one, twin, id=f"{one.name}: {twin.name}") for one in ALL.values() for twin in one.twins],
)
async def test_a_broken_twin_fails(one: Scenario, twin: Twin):
    result = await runner.run_twin(_runnable(one), twin, runner.quick_seed(one))
    assert result.passed, result.told


def test_the_page_names_every_scenario_and_twin():
    assert page.is_current(ALL.values()), "docs/faults.md is stale: python -m tests.faults --page"


def test_each_guard_is_taken_out_by_some_twin():
    used = {guard for one in ALL.values() for twin in one.twins for guard in twin.guards}
    assert used == set(broken.guards())


def _runnable(one: Scenario) -> Scenario:
    why = one.skip()
    if why:
        pytest.skip(why)
    return one
