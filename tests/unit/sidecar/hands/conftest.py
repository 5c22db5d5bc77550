"""Fixtures of the sidecar's hands: a real origin, a real runner."""

from __future__ import annotations

import subprocess

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


@pytest.fixture(scope="session")
def bubblewrap():
    """Skips where the machine cannot confine anything; CI installs bubblewrap, so there it does not skip."""
    command = ("bwrap", "--unshare-user", "--unshare-net", "--ro-bind", "/", "/", "true")
    try:
        subprocess.run(command, check=True, timeout=20, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no working bubblewrap: {error}")


@pytest_asyncio.fixture
async def confined(tmp_path, bubblewrap):
    made = sidecar_hands.confined(tmp_path / "work")
    yield made
    await made.close()
