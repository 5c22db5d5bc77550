"""How fast the dashboard's pages are: `python -m tests.bench.dashboard_pages`, see docs/benchmarks.md.

A store of a million tasks is built once (`large_store`) and kept in `--folder`. A hub and a dashboard run over it as
processes of their own, a thousand sidecars are attached and work, and each page is asked for a number of times, one
after the other. With `--viewers` so many live pages are open meanwhile, which ask for themselves again whenever the
hub says that something has changed, as browsers do; and a task is filed twice a second, so that something changes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

os.environ.setdefault("GRPC_VERBOSITY", "error")

from agentcom.v1 import attach_pb2, task_service_pb2, task_service_pb2_grpc
from kit import channel
from tests.bench import hub_side, large_store, payload
from tests.bench.process import ROOT, Process

TARGET_MS: Final = 300.0
ASK_S_MAX: Final = 60.0
WAIT_S_MAX: Final = 180.0
DEEP: Final = 10
"""Pages turned before the page that is measured deep in a list."""
FILE_S: Final = 0.5
SETTLE_S: Final = 5.0


class Figures(NamedTuple):
    """Milliseconds of one page."""

    page: str
    p50: float
    p95: float
    max: float
    kilobytes: float


def main() -> None:
    """Read the arguments, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dashboard_pages", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--agents", type=int, default=1_000)
    parser.add_argument("--viewers", type=int, default=0, help="live pages that are open meanwhile")
    parser.add_argument("--rounds", type=int, default=50, help="how often each page is asked for")
    parser.add_argument("--only", default="", help="pages whose name contains this")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "agentcom-large-store", help="where the store is"
    )
    parser.add_argument("--fleet", metavar="ADDRESS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fleet:
        asyncio.run(fleet(arguments.fleet, arguments.agents))
        return
    asyncio.run(measure(arguments))


async def measure(arguments: argparse.Namespace) -> None:
    """All of it."""
    marks = await prepared(arguments.folder, arguments.tasks)
    _say(f"the store has {arguments.tasks:,} tasks; load {os.getloadavg()[0]:.1f}")
    async with serving(arguments.folder, arguments.agents) as (hub, site):
        await _warm(site)
        pages = {name: path for name, path in paths(site, marks).items() if arguments.only in name}
        with viewing(site, arguments.viewers), changing(hub.address if arguments.viewers else ""):
            found = [await asyncio.to_thread(ask, site, name, path, arguments.rounds) for name, path in pages.items()]
        memory_mb = hub.resident_bytes() / 1e6
    print(table(found))
    print(
        f"\n{arguments.tasks:,} tasks, {arguments.agents:,} agents, {arguments.viewers} live pages, "
        f"{arguments.rounds} times each; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; hub {memory_mb:.0f} MB"
    )


async def prepared(folder: Path, count: int) -> large_store.Landmarks:
    """The store, built when it is not there yet."""
    notes = folder / f"landmarks-{count}.json"
    if notes.exists():
        return large_store.Landmarks(**json.loads(notes.read_text()))
    _say(f"building a store of {count:,} tasks in {folder}")
    data = _data(folder)
    data.mkdir(parents=True)
    marks = await large_store.build(data / "store", count)
    notes.write_text(json.dumps(marks._asdict()))
    return marks


@contextlib.asynccontextmanager
async def serving(folder: Path, agents: int) -> AsyncIterator[tuple[Process, str]]:
    """Hub, dashboard and fleet for the length of a block; the hub and where the pages are."""
    data, config = _data(folder), folder / "hub.toml"
    config.write_text(f'data = "{data}"\n[server]\nlisten = "127.0.0.1:0"\n')
    hub = Process("the hub", ["-m", "hub", "--config", str(config)], data, data / "hub.addr")
    await hub.start()
    running: list[subprocess.Popen[bytes]] = []
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            site = f"127.0.0.1:{probe.getsockname()[1]}"
        argv = [sys.executable, "-m", "dashboard", "--hub", hub.address, "--listen", site]
        running.append(subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL))  # noqa: ASYNC220  # see process
        argv = [sys.executable, "-m", __name__ if __name__ != "__main__" else "tests.bench.dashboard_pages"]
        argv += ["--fleet", hub.address, "--agents", str(agents)]
        fleet_process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220  # it lives as long as the run
        running.append(fleet_process)
        assert fleet_process.stdout is not None
        async with asyncio.timeout(WAIT_S_MAX):
            said = await asyncio.to_thread(fleet_process.stdout.readline)
        if said.strip() != b"attached":
            raise RuntimeError(f"the fleet said {said!r}")
        _say(f"{agents:,} sidecars attached")
        await asyncio.sleep(SETTLE_S)
        yield hub, site
    finally:
        for process in reversed(running):
            process.terminate()
            await asyncio.to_thread(process.communicate)
        await hub.stop()


async def fleet(address: str, count: int) -> None:
    """Sidecars that take what they are given and hold it, until standard input ends."""

    def hold(sidecar: hub_side.Sidecar, assign: attach_pb2.Assign) -> None:
        sidecar.accept(assign.holding.task)

    hellos = [
        hub_side.hello(f"idle-{number}", slots=2, capabilities=[large_store.CAPABILITY]) for number in range(count)
    ]
    async with hub_side.fleet(address, hellos, hold):
        print("attached", flush=True)
        await asyncio.to_thread(sys.stdin.readline)


def paths(site: str, marks: large_store.Landmarks) -> dict[str, str]:
    """The pages, by a name for the table."""
    found = {
        "overview": "/",
        "overview, a week": "/?span=week",
        "goals": "/goals/",
        "goals of one state": "/goals/?state=active",
        "one goal": f"/goals/{marks.goal}",
        "tasks": "/tasks/",
        "tasks of one state": "/tasks/?state=queued",
        "tasks of one lane": "/tasks/?lane=urgent",
        "tasks of a state and a lane": "/tasks/?state=dead&lane=low",
        "tasks of one repo": "/tasks/?repo=repos/repo-3",
        "tasks of one agent": "/tasks/?agent=agents/idle-7",
        "one task that waits": f"/tasks/{marks.queued}",
        "one task, log and diff of 350 KB": f"/tasks/{marks.succeeded}",
        "one dead task": f"/tasks/{marks.dead}",
        "agents": "/agents/",
        "agents of one state": "/agents/?state=working",
        "one agent": "/agents/idle-7",
        "changes": "/changes/",
        "changes that came back": "/changes/?state=returned",
        "repos": "/repos/",
        "dead letters": "/dead/",
        "dead letters of one repo": "/dead/?repo=repos/repo-3",
        "alerts": "/alerts/",
        "events": "/events/",
        "events of a type": "/events/?type=alert.",
        "events of one goal": f"/events/?subject=goals/{marks.goal}",
        "system": "/system/",
    }
    for name, path in (("tasks, deep", "/tasks/"), ("dead letters, deep", "/dead/"), ("events, deep", "/events/")):
        found[name] = deep(site, path)
    return found


def deep(site: str, path: str) -> str:
    """The address of a page some pages on."""
    for _ in range(DEEP):
        body = get(site, path).decode()
        link = body.rpartition('" rel="next"')[0].rpartition('href="')[2]
        if not link:
            break
        path = link.replace("&amp;", "&")
    return path


def get(site: str, path: str, **headers: str) -> bytes:
    """One page. Raises RuntimeError when it is none."""
    connection = http.client.HTTPConnection(site, timeout=ASK_S_MAX)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {body[-300:]!r}")
        return body
    finally:
        connection.close()


def ask(site: str, name: str, path: str, rounds: int) -> Figures:
    """The same page again and again."""
    waits, size = [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        size = len(get(site, path))
        waits.append((time.perf_counter() - began) * 1e3)
    waits.sort()
    made = Figures(name, _rank(waits, 0.50), _rank(waits, 0.95), waits[-1], size / 1e3)
    _say(f"{name}: p50 {made.p50:.0f}, p95 {made.p95:.0f}, max {made.max:.0f} ms")
    return made


def table(found: Sequence[Figures]) -> str:
    """As Markdown."""
    lines = ["| page | p50 ms | p95 ms | max ms | KB |", "| --- | --- | --- | --- | --- |"]
    for one in found:
        mark = "" if one.p95 < TARGET_MS else " **not met**"
        lines.append(f"| {one.page} | {one.p50:.0f} | {one.p95:.0f}{mark} | {one.max:.0f} | {one.kilobytes:.0f} |")
    return "\n".join(lines)


@contextlib.contextmanager
def viewing(site: str, count: int) -> Iterator[None]:
    """Live pages: each asks for the overview again when it is told of a change."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    streams: list[socket.socket] = []

    def view() -> None:
        with contextlib.closing(http.client.HTTPConnection(site, timeout=ASK_S_MAX)) as connection:
            connection.connect()
            streams.append(connection.sock)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/live")
                with connection.getresponse() as answer:
                    while not over.is_set() and (line := answer.readline()):
                        if line.startswith(b"event: change"):
                            get(site, "/", **{"X-Fragment": "main"})

    for _ in range(count):
        threads.append(threading.Thread(target=view, daemon=True))
        threads[-1].start()
    try:
        yield
    finally:
        over.set()
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(ASK_S_MAX)


@contextlib.contextmanager
def changing(address: str) -> Iterator[None]:
    """A task is filed now and then; nothing without an address."""
    over = threading.Event()

    async def file() -> None:
        async with channel.open_channel(channel.parse_address(address)) as opened:
            stub = task_service_pb2_grpc.TaskServiceStub(opened)
            while not over.is_set():
                await stub.CreateTask(task_service_pb2.CreateTaskRequest(spec=payload.spec(0, capability="nobody-0")))
                await asyncio.sleep(FILE_S)

    thread = threading.Thread(target=lambda: asyncio.run(file()), daemon=True)
    if address:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if address:
            thread.join(ASK_S_MAX)


async def _warm(site: str) -> None:
    """The dashboard listens, and what is loaded once is loaded."""
    deadline = time.monotonic() + WAIT_S_MAX
    while True:
        try:
            await asyncio.to_thread(get, site, "/")
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


def _data(folder: Path) -> Path:
    return folder / "hub"


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
