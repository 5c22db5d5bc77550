"""The soak put together: a hub on LMDB, two sidecars, load, mishaps, samples; then a clean end and the judgement."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import grpc

from agentcom.v1 import agent_service_pb2, event_pb2, hub_service_pb2, task_service_pb2
from hub.core.event import Event
from hub.store.base import Reader
from hub.store.lmdb import LmdbStore
from tests.faults.lab import REQUEST_PREFIX, Lab
from tests.oracle import check, reading
from tests.oracle.record import History, Rules, Verb
from tests.soak import mishaps, probe
from tests.soak.load import BY_HAND, STEADY, Load
from tests.soak.trend import Trend, fit, grows
from tests.support.gitrepo import Origin
from tests.support.processes import working_under
from tests.support.proxy import proxied

LOOK_S = 1.0
STOP_S_MAX = 30.0
#: How long what is under way at the end may take; mishaps are over then.
DRAIN_S_MAX = 60.0
#: Share of the run at which the hub dies, and from which on figures are steady.
RESTART_SHARE, STEADY_SHARE = 0.1, 0.5

KEEP_S_MAX = 30.0
KEEP_SHARE = 0.1
"""What is kept for days in life is kept for a tenth of the run: several times over in the steady part."""

#: What a figure may grow by over the steady part, with the reason; beyond it, it leaks.
ALLOWED: dict[str, float] = {
    "hub memory, MiB": 1.0,  # what the allocator keeps in pieces
    "hub descriptors": 2.0,
    "hub threads": 1.0,
    "hub children": 0.5,
    "sidecar memory, MiB": 1.0,
    "sidecar descriptors": 2.0,
    "sidecar threads": 1.0,
    "sidecar children": 1.0,
    "sidecar folder, MiB": 0.5,
    "sidecar files": 20.0,
    "sidecar journal, MiB": 4.0,  # it rewrites itself at 4 MiB
    "store an event, KiB": 0.2,
    "store file, MiB": 3.0,  # it grows in steps, to the highest water
    "events kept / recent": 0.25,
    "tasks kept / recent": 0.25,
}
#: What depends on how fast the machine happened to be, or on the kernel, which keeps mapped pages as it likes.
SHOWN_ONLY = ("store used, MiB", "events kept", "tasks kept", "hub resident, MiB", "sidecar resident, MiB")


class LeakyLab(Lab):
    """With a hub that leaks on purpose."""

    def _command(self, node: str) -> list[str]:
        return [sys.executable, "-m", "tests.soak.leaky", "--"] if node == "hub" else super()._command(node)


class Row(NamedTuple):
    """What became of one figure."""

    name: str
    trend: Trend
    allowed: float | None
    """None: only shown."""

    @property
    def leaks(self) -> bool:
        return self.allowed is not None and grows(self.trend, self.allowed)


class Outcome(NamedTuple):
    """What the run came to."""

    rows: list[Row]
    done: Mapping[str, int]
    mishaps: Mapping[str, int]
    stop_s: float
    faults: list[str]
    """What else was wrong: not ended cleanly, left running, the oracle's findings."""

    @property
    def is_good(self) -> bool:
        return not self.faults and not any(row.leaks for row in self.rows)


def _brief(run_s: float) -> dict[str, object]:
    """Settings of a hub that forgets soon."""
    keep_s = min(KEEP_S_MAX, run_s * KEEP_SHARE)
    return {
        "retention_tasks_s": keep_s,
        "retention_dead_s": keep_s,
        "retention_goals_s": keep_s,
        "retention_artifacts_s": keep_s / 2,
        "retention_tokens_s": keep_s,
        "retention_events_s": 2 * keep_s,
        "retention_look_s": 1.0,
        "retention_again_s": 5.0,
        "retention_settle_s": 1.0,
        "engine_request_window_s": keep_s,
        "engine_lease_s": mishaps.LEASE_S,
    }


async def soak(lab: Lab, run_s: float, share: float = 1.0) -> Outcome:
    """Run for so long, and judge."""
    figures, harms = probe.Figures(), dict[str, int]()
    brief = _brief(run_s)
    told = probe.Told(float(str(brief["retention_tasks_s"])))
    origin = Origin(lab.root / "git")
    await lab.start_hub(**brief)
    await lab.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=BY_HAND))
    await lab.add_repo("demo", origin.path)
    load = Load(lab)
    async with proxied(lab.address) as proxy:
        await lab.start_sidecar(STEADY, slots=4)
        await mishaps.start_harmed(lab, proxy)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(_follow(lab, told), name="follow")
            load.start(group, share)
            harm = group.create_task(mishaps.go_on(lab, proxy, harms, load.stopping), name="mishaps")
            await _pass(lab, figures, told, run_s * RESTART_SHARE)
            await lab.kill_hub()
            await lab.restart_hub()
            proxy.target = lab.address
            await _pass(lab, figures, told, run_s * (1 - RESTART_SHARE))
            load.stopping.set()
            await harm
            await _until_all_have_ended(lab)
            began = time.monotonic()
            faults = await _end(lab)
            stop_s = time.monotonic() - began
            following.cancel()
    if stop_s > STOP_S_MAX:
        faults.append(f"it took {stop_s:.0f} s to end, the bound is {STOP_S_MAX:.0f} s")
    faults += [f"still running: {line}" for line in working_under(lab.root)]
    faults += await _judge(lab, told.events)
    (lab.root / "samples.json").write_text(json.dumps(figures.samples))
    rows = _rows(figures, run_s * STEADY_SHARE)
    return Outcome(rows, load.counts, harms, stop_s, faults)


async def _pass(lab: Lab, figures: probe.Figures, told: probe.Told, seconds: float) -> None:
    """Look at everything again and again."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        await probe.look(lab, STEADY, figures, told)
        await asyncio.sleep(min(left, LOOK_S))


async def _follow(lab: Lab, told: probe.Told) -> None:
    """Keep every event from the first one on: the hub forgets them."""
    position = -1
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            request = hub_service_pb2.WatchEventsRequest(position=position)
            async for reply in lab.hubs.WatchEvents(request, timeout=3600):
                if reply.HasField("event"):
                    told.hear(_read_event(reply.event))
                position = max(position, reply.position)
        await asyncio.sleep(0.1)


def _read_event(event: event_pb2.Event) -> Event:
    return Event(
        position=event.position,
        at=event.create_time.ToNanoseconds() / 1e9,
        type=event.type,
        subject=event.subject,
        goal=event.goal.removeprefix("goals/"),
        actor=event.actor,
        fields=dict(event.fields),
        hash=bytes.fromhex(event.hash),
    )


async def _until_all_have_ended(lab: Lab) -> None:
    """What is left is done, or cancelled when nothing does it."""
    until, alive = time.monotonic() + DRAIN_S_MAX, 1
    while alive and time.monotonic() < until:
        page, alive = "", 0
        while True:
            request = task_service_pb2.ListTasksRequest(page_size=1000, page_token=page)
            reply = await lab.tasks.ListTasks(request)
            left = [task for task in reply.tasks if not task.HasField("end_time")]
            alive += len(left)
            for task in left:
                if until - time.monotonic() < DRAIN_S_MAX / 2:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await lab.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=task.name))
            page = reply.next_page_token
            if not page:
                break
        await asyncio.sleep(0.5)
    assert not alive, f"{alive} tasks are still alive after {DRAIN_S_MAX:.0f} s without load"


async def _end(lab: Lab) -> list[str]:
    """Ask everything to end; what did not do so well."""
    faults = []
    for agent, process in lab.sidecars.items():
        code = await process.stop()
        if code:
            faults.append(f"sidecar {agent} ended with code {code}")
    code = await lab.stop_hub()
    if code:
        faults.append(f"the hub ended with code {code}")
    return faults


async def _judge(lab: Lab, events: dict[int, Event]) -> list[str]:
    """The chain of what is kept, and the oracle over what was told and what is there."""
    store = LmdbStore.open(lab.data / "store")
    try:
        newest = store.read(lambda reader: reader.position())
        store.verify_chain()
        rest = store.read(reading.events_of)
        records = store.read(_records)
    finally:
        await store.close()
    for event in rest:  # the last words of the hub
        events.setdefault(event.position, event)
    if sorted(events) != list(range(1, newest + 1)):
        missing = sorted(set(range(1, newest + 1)) - events.keys())
        return [f"the watch was not told of {len(missing)} events, the first is {missing[0]}"]
    tasks, attempts, titles = records
    history = History(
        events=[events[position] for position in sorted(events)],
        ops=lab.all_ops(),
        tasks=tasks,
        attempts=attempts,
        requests=reading.requests_of(titles, REQUEST_PREFIX),
        hashed=False,
    )
    return [str(one) for one in check.violations(history, Rules(all_end=True, logs_complete=False))]


def _records(reader: Reader):
    tasks = {task.id: task for task in reader.tasks(limit=1_000_000)}
    attempts = {id: list(reader.attempts(id)) for id in tasks}
    titles = {id: spec.title for id in tasks if (spec := reader.spec(id)) is not None}
    return tasks, attempts, titles


def _rows(figures: probe.Figures, since: float) -> list[Row]:
    names = (*ALLOWED, *SHOWN_ONLY)
    return [Row(name, fit(figures.since(name, since)), ALLOWED.get(name)) for name in names]


def text(outcome: Outcome) -> str:
    """For people."""
    head = f"{'figure':<24}{'mean':>12}{'slope an hour':>16}{'+-':>12}{'growth':>10}{'allowed':>10}  verdict"
    lines = [head]
    for name, trend, allowed in outcome.rows:
        row = Row(name, trend, allowed)
        verdict = "" if allowed is None else "LEAKS" if row.leaks else "steady"
        bound = "-" if allowed is None else f"{allowed:.1f}"
        hour, error = trend.slope_per_s * 3600, trend.error_per_s * 3600
        lines.append(
            f"{name:<24}{trend.mean:>12.1f}{hour:>16.1f}{error:>12.1f}{trend.growth:>10.2f}{bound:>10}  {verdict}"
        )
    done = ", ".join(f"{count} x {name}" for name, count in sorted(outcome.done.items()))
    harm = ", ".join(f"{count} x {name}" for name, count in sorted(outcome.mishaps.items()))
    lines += [f"done: {done}", f"mishaps: {harm}, the hub killed once", f"ended in {outcome.stop_s:.1f} s"]
    lines += [f"FAULT: {fault}" for fault in outcome.faults[:20]]
    return "\n".join(lines)


async def run(folder: Path, run_s: float, seed: int, *, leaky: bool = False, share: float = 1.0) -> Outcome:
    """A soak in this folder; everything is ended, whatever happens. `leaky`: the broken twin."""
    # A folder that no command line of ours names: what names it at the end was left running.
    lab = (LeakyLab if leaky else Lab)(folder / "fleet", random.Random(seed), {})
    lab.note("hub", Verb.PROCESS_STARTED)
    try:
        return await soak(lab, run_s, share)
    finally:
        await lab.close()
