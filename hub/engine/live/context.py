"""What every part of the engine is given: the store, the clock, the dice, the settings, the bus and the figures."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hub.core.event import Event
from hub.core.holding import Holding
from hub.core.task import Lane, Receipt, Task
from hub.engine.live import bus as buses
from hub.store import base
from kit import clock as clocks
from kit import ids

WAIT_SAMPLES_MAX: Final = 4096
"""Waits kept for GetStats, as its comment in the proto promises: 32 KiB of floats."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What may be tuned; the defaults are those of the contract's comments."""

    #: How long a holding lives without a heartbeat.
    lease_s: float = 30.0
    #: Pace of heartbeats for a small fleet; three are sent within a lease.
    heartbeat_s: float = 10.0
    #: Heartbeats per second that the hub wants from the whole fleet at most; the pace slows down beyond it.
    #: 100 of them cost about one hundredth of a core.
    heartbeats_per_s_max: float = 100.0
    #: Share of the heartbeat interval by which it is varied, so that a fleet does not beat in step.
    heartbeat_jitter: float = 0.1
    #: How long a sidecar may leave unread or unacked what it was told, before its stream ends and what it was offered
    #: on it goes back.
    ack_timeout_s: float = 10.0
    #: How long a sidecar has to accept; a task's own start_timeout, where shorter or longer, goes before it.
    accept_timeout_s: float = 60.0
    #: Pace of the sweep, which finds whatever a lost wake-up has missed.
    sweep_s: float = 30.0
    #: How long a running attempt may show no progress before it is taken back.
    stuck_s: float = 300.0
    #: How long a request id gives the same answer.
    request_window_s: float = 86_400.0
    #: Tasks that may wait; beyond it submissions are refused. Ten gigabytes of 2 KB tasks.
    queue_max: int = 5_000_000
    #: Waiting this long raises a task by one lane.
    age_step_s: float = 600.0
    #: Messages held for one sidecar, sent and unacked or waiting to be sent; a full box ends the stream.
    outbox_max: int = 512
    #: Pieces of work that one sweep looks at; what is left waits for the next, which follows at once.
    sweep_batch: int = 1_000


@dataclass(slots=True)
class Figures:
    """Counters since the start of this process, for GetStats. Plain numbers, touched on the event loop only.

    `submitted` and `assigned` are counted by the bus from committed events and by nobody else; the rest by whoever
    applies what they count.
    """

    submitted: int = 0
    assigned: int = 0
    completed: int = 0
    failed: int = 0
    fenced: int = 0
    adopted: int = 0
    lost: int = 0
    refused_requests: int = 0
    throttled: int = 0
    #: Assignments whose wait was noted: who looks now and then knows by it how many of `waits` are new.
    waited_count: int = 0
    #: Seconds from queued to assigned of the last assignments.
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=WAIT_SAMPLES_MAX))
    #: Told of each wait and of the receipts of each report that was applied; set by the telemetry, when there is one.
    on_wait: Callable[[float, Lane, Task | None], None] | None = None
    on_receipts: Callable[[Iterable[tuple[Receipt, Holding]]], None] | None = None

    def waited(self, seconds: float, lane: Lane, task: Task | None = None) -> None:
        """A task (this one) was assigned after it had waited for so long."""
        self.waits.append(seconds)
        self.waited_count += 1
        if self.on_wait is not None:
            self.on_wait(seconds, lane, task)


@dataclass(slots=True)
class Gate:
    """Whether the hub hands out work. The pause is also a fact of the store; the drain ends with the process."""

    paused: bool = False
    draining: bool = False
    #: What is wrong with the store: it is open for reading only until the process ends. Empty: nothing.
    damage: str = ""

    @property
    def degraded(self) -> bool:
        """Is the store open for reading only?"""
        return bool(self.damage)

    @property
    def open(self) -> bool:
        """Is work assigned at all?"""
        return not (self.paused or self.draining or self.degraded)


@dataclass(slots=True)
class Context:
    """One for each hub, made by `app`."""

    store: base.Store
    clock: clocks.Clock
    rng: random.Random
    settings: EngineSettings
    ids: ids.IdSource
    bus: buses.Bus
    figures: Figures
    gate: Gate

    @classmethod
    def make(
        cls,
        store: base.Store,
        clock: clocks.Clock,
        rng: random.Random,
        settings: EngineSettings | None = None,
    ) -> Context:
        """The usual way: everything that follows from the store, the clock and the dice."""
        figures = Figures()
        bus = buses.Bus(store)

        gate = Gate(paused=store.read(lambda reader: reader.meta("paused")) == b"1")
        bus.listen(lambda events: _follow(events, figures, gate))
        return cls(
            store=store,
            clock=clock,
            rng=rng,
            settings=settings or EngineSettings(),
            ids=ids.IdSource(rng),
            bus=bus,
            figures=figures,
            gate=gate,
        )


def _follow(events: Sequence[Event], figures: Figures, gate: Gate) -> None:
    """The first listener: what the others read is already so when they are told."""
    for event in events:
        match event.type:
            case "task.created":
                figures.submitted += 1
            case "task.assigned":
                figures.assigned += 1
            case "hub.paused":
                gate.paused = True
            case "hub.draining":
                gate.draining = True
            case "hub.resumed":
                gate.paused = gate.draining = False
            case _:
                pass
