"""The dashboard as a process: killed at any moment, it leaves nothing behind, and nobody has to log in again."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import sys
from pathlib import Path

from agentcom.v1 import hub_pb2, hub_service_pb2
from dashboard import app, config
from tests.dashboard.conftest import Browser
from tests.support import hub as hubs
from tests.support import processes
from tests.support.processes import Process


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def live(port: int) -> tuple[http.client.HTTPConnection, bytes]:
    """A live page, and the first line of its stream."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=processes.PATIENCE_S)
    connection.request("GET", "/live")
    return connection, connection.getresponse().readline()


async def test_a_killed_dashboard_leaves_no_process_behind_although_a_live_page_is_open(caller, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["-m", "dashboard", "--hub", caller.hub.address, "--listen", f"127.0.0.1:{port}"]
    process = await Process.start("dashboard", [sys.executable, *words], log=tmp_path / "dashboard.log", environment={})
    workers: list[int] = []
    try:
        await processes.until(lambda: listens(port), "the dashboard listens")
        connection, line = await asyncio.to_thread(live, port)
        assert line.startswith(b"retry:")
        workers = children_of(process.pid)
        assert workers
        await process.kill()
        await processes.until(
            lambda: not any(processes.is_alive(pid) for pid in workers), "its worker has ended with it"
        )
        connection.close()
    finally:
        await process.stop()
        for pid in workers:
            if processes.is_alive(pid):
                os.kill(pid, signal.SIGKILL)


async def test_who_was_logged_in_still_is_when_the_dashboard_starts_anew(tmp_path):
    async with hubs.running(tmp_path, auth__required=True) as guarded:
        secret = (guarded.hub.config.data / "admin.token").read_text().strip()
        async with hubs.as_token(guarded.hub, secret) as admin:
            ask = hub_service_pb2.CreateTokenRequest(scope=hub_pb2.SCOPE_OPERATOR)
            operator = (await admin.hubs.CreateToken(ask)).secret
            task = await admin.task("to be cancelled")
        browser = Browser(guarded.hub.address)
        try:
            await browser.post("/login", {"token": operator})
            # Another process with the same settings: nothing of the first one is left but what the browser has.
            browser.close()
            browser.app = app.make(config.load(None, {}, {"hub.address": guarded.hub.address}))
            browser._client.application = browser.app
            assert (await browser.get("/tasks/")).status_code == 200
            assert (await browser.post(f"/{task.name}/cancel")).status_code == 303
        finally:
            browser.close()
