"""The kept program, unpacked once, and a fleet of mixed versions of which nothing outlives its test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.skew.programs import OURS, MixedFleet, Program, unpack
from tests.support import gitrepo, processes


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return unpack(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def ours() -> Program:
    return OURS


@pytest.fixture
async def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., MixedFleet]]:
    gitrepo.isolate(monkeypatch)
    made: list[MixedFleet] = []

    def make(*, hub: Program, sidecar: Program) -> MixedFleet:
        made.append(MixedFleet(tmp_path / "fleet", hub=hub, sidecar=sidecar))
        return made[-1]

    try:
        yield make
    finally:
        for fleet in made:
            await fleet.close()
    await processes.until(lambda: not processes.working_under(tmp_path), "nothing of the test is left running")


@pytest.fixture
def origin(tmp_path: Path) -> gitrepo.Origin:
    return gitrepo.Origin(tmp_path / "repo")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        for folder in getattr(item, "funcargs", {}).get("tmp_path", Path("/nonexistent")).glob("fleet"):
            report.sections += MixedFleet(folder, hub=OURS, sidecar=OURS).logs()
    return report
