"""A fleet for each test; its logs are shown when the test fails, and nothing of it outlives the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support import gitrepo, processes
from tests.support.fleet import Fleet


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    gitrepo.isolate(monkeypatch)
    made = Fleet(tmp_path / "fleet")
    try:
        yield made
    finally:
        await made.close()
    # The guard of a killed sidecar needs a moment for what it left.
    await processes.until(lambda: not processes.working_under(tmp_path), "nothing of the test is left running")


@pytest.fixture
def origin(tmp_path: Path) -> gitrepo.Origin:
    return gitrepo.Origin(tmp_path / "repo")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    made = getattr(item, "funcargs", {}).get("fleet")
    if report.failed and made is not None:
        report.sections += made.logs()
    return report
