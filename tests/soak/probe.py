"""What is sampled of processes, files and the hub while the soak runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

import grpc

from agentcom.v1 import hub_service_pb2
from hub.core.event import Event
from tests.faults.lab import Lab
from tests.soak.trend import Sample
from tests.support.processes import Process

MIB = 1 << 20


class Figures:
    """Samples by the name of what was sampled."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.samples: dict[str, list[Sample]] = defaultdict(list)

    def note(self, name: str, value: float) -> None:
        """One sample, now."""
        self.samples[name].append(Sample(time.monotonic() - self.began, value))

    def since(self, name: str, at: float) -> list[Sample]:
        """The samples of the steady part."""
        return [sample for sample in self.samples[name] if sample.at >= at]


class Told:
    """What a watch was told of the log: every event, and how much came of late."""

    def __init__(self, keep_s: float) -> None:
        self.keep_s = keep_s
        self.events: dict[int, Event] = {}
        self._tasks: deque[float] = deque()
        self._all: deque[float] = deque()

    def hear(self, event: Event) -> None:
        """One more."""
        if event.position in self.events:
            return
        self.events[event.position] = event
        self._all.append(event.at)
        if event.type == "task.created":
            self._tasks.append(event.at)

    def recent(self) -> tuple[int, int]:
        """Tasks filed within the time that tasks are kept, and events within twice of it."""
        now = time.time()
        for times, age_s in ((self._tasks, self.keep_s), (self._all, 2 * self.keep_s)):
            while times and times[0] < now - age_s:
                times.popleft()
        return len(self._tasks), len(self._all)


async def look(lab: Lab, steady: str, figures: Figures, told: Told) -> None:
    """One sample of everything: the hub, and the sidecar that is never harmed."""
    assert lab.hub is not None
    for node, process in (("hub", lab.hub), ("sidecar", lab.sidecars[steady])):
        for what, value in _of_process(process):
            figures.note(f"{node} {what}", value)
    sizes = await asyncio.to_thread(_sizes, lab.root / steady, without=("repos", "journal"))
    figures.note("sidecar journal, MiB", _size(lab.root / steady / "journal") / MIB)
    figures.note("sidecar folder, MiB", sum(sizes) / MIB)
    figures.note("sidecar files", len(sizes))
    figures.note("store file, MiB", _size(lab.data / "store" / "data.mdb") / MIB)
    try:
        reply = await lab.hubs.GetHub(hub_service_pb2.GetHubRequest(), timeout=5, wait_for_ready=False)
        stats = await lab.hubs.GetStats(hub_service_pb2.GetStatsRequest(), timeout=5, wait_for_ready=False)
    except grpc.aio.AioRpcError:
        return  # it is on its way down or up
    hub = reply.hub
    events = hub.event_position - hub.event_position_oldest + 1
    tasks = sum(one.count for one in stats.stats.tasks)
    figures.note("store used, MiB", hub.store_used_bytes / MIB)
    figures.note("events kept", events)
    figures.note("tasks kept", tasks)
    # The load is not the same all the time, so what is kept is compared with what has come.
    recent_tasks, recent_events = told.recent()
    figures.note("tasks kept / recent", tasks / max(1, recent_tasks))
    figures.note("events kept / recent", events / max(1, recent_events))
    figures.note("store an event, KiB", hub.store_used_bytes / 1024 / max(1, events))


def _of_process(process: Process) -> Iterator[tuple[str, float]]:
    """Of one that has ended, nothing."""
    root = Path(f"/proc/{process.pid}")
    try:
        status = dict(line.split(":", 1) for line in (root / "status").read_text().splitlines())
        yield "memory, MiB", int(status["RssAnon"].split()[0]) / 1024
        yield "resident, MiB", int(status["VmRSS"].split()[0]) / 1024
        yield "threads", int(status["Threads"])
        yield "descriptors", len(os.listdir(root / "fd"))
        yield "children", sum(1 for _ in _descendants(process.pid))
    except (OSError, KeyError):
        return


def _descendants(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield int(child)
            yield from _descendants(int(child))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _sizes(folder: Path, *, without: tuple[str, ...]) -> list[int]:
    """Sizes of all files, but for copies of repositories, which grow with what is merged, and the journal."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in without]
        for name in set(files).difference(without):
            with contextlib.suppress(OSError):  # it has just gone
                found.append(os.lstat(os.path.join(place, name)).st_size)
    return found
