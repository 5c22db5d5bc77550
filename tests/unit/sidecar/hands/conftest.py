"""Fixtures of the sidecar's hands: a real origin, a real runner."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.support import gitrepo, sidecar_hands


@pytest.fixture(autouse=True)
def isolated_git(monkeypatch):
    gitrepo.isolate(monkeypatch)


@pytest.fixture
def origin(tmp_path):
    return gitrepo.Origin(tmp_path / "remote")


@pytest_asyncio.fixture
async def runner(tmp_path):
    made = sidecar_hands.runner(tmp_path / "work")
    yield made
    await made.close()
