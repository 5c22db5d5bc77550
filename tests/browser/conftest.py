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


class Site:
    """A dashboard over the fleet's hub, as a process."""

    def __init__(self, fleet: Fleet) -> None:
        with socket.socket() as probe:  # the dashboard has no port 0: people must know where it is
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._fleet = fleet
        self._process: Process | None = None
        self.address = f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start it, also again after it was killed; returns when it listens."""
        words = ["--hub", self._fleet.address, "--listen", f"127.0.0.1:{self._port}"]
        self._process = await Process.start(
            "dashboard",
            [sys.executable, "-m", "dashboard", *words],
            log=self._fleet.root / "dashboard.log",
            environment={},
        )
        await processes.until(lambda: _listens("127.0.0.1", self._port), "the dashboard listens")

    async def kill(self) -> None:
        """End it as a crash would: the server and the worker that it forked."""
        assert self._process is not None
        await self._process.kill()
        await processes.until(lambda: not _listens("127.0.0.1", self._port), "the dashboard is gone")

    async def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            await self._process.stop()


@pytest.fixture
async def site(fleet: Fleet) -> AsyncIterator[Site]:
    made = Site(fleet)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def page(site: Site) -> AsyncIterator[Any]:
    """A page of a new browser; a fault in a script, a breach of the policy or any other error there fails the test."""
    from playwright.async_api import async_playwright

    faults: list[str] = []

    def said(message: Any) -> None:
        # What a page asks for while the hub or the dashboard is away is told as an error, too, and is none.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            faults.append(message.text)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        made = await browser.new_page(base_url=site.address)
        made.on("pageerror", lambda error: faults.append(str(error)))
        made.on("console", said)
        made.set_default_timeout(processes.PATIENCE_S * 1000)
        yield made
        await browser.close()
    assert not faults


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
