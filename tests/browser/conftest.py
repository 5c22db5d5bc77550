"""A fleet of real processes, the dashboard as one of them, and a headless Chromium; skipped where there is none."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import gitrepo, processes
from tests.support.fleet import Fleet
from tests.support.processes import Process

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    gitrepo.isolate(monkeypatch)
    made = Fleet(tmp_path / "fleet")
    await made.start_hub()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def site(fleet: Fleet) -> AsyncIterator[str]:
    """The address of a dashboard over the fleet's hub."""
    with socket.socket() as probe:  # the dashboard has no port 0: people must know where it is
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = ["--hub", fleet.address, "--listen", address]
    process = await Process.start(
        "dashboard", [sys.executable, "-m", "dashboard", *words], log=fleet.root / "dashboard.log", environment={}
    )
    host, port = address.split(":")
    await processes.until(lambda: _listens(host, int(port)), "the dashboard listens")
    yield f"http://{address}"
    await process.stop()


@pytest.fixture
async def page(site: str) -> AsyncIterator[Any]:
    """A page of a new browser; a fault in a script or a breach of the policy fails the test."""
    from playwright.async_api import async_playwright

    faults: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        made = await browser.new_page(base_url=site)
        made.on("pageerror", lambda error: faults.append(str(error)))
        made.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
        made.set_default_timeout(processes.PATIENCE_S * 1000)
        yield made
        await browser.close()
    assert not faults


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
