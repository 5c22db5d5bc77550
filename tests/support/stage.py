"""The hub's engine on a memory (or given) store: the test moves the clock, and a loop runs only when it says so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeVar

from hub.core.agent import Agent, Offer
from hub.core.attach import Completed, Hello, SelfTest
from hub.core.holding import Holding
from hub.core.task import Kind, Requirement, Result, State, Task, TaskSpec, Tier
from hub.engine.desk.explain import Explainer
from hub.engine.live import silence
from hub.engine.live.context import Context, EngineSettings
from hub.engine.live.dispatch import Dispatcher
from hub.engine.live.sessions import Sessions
from hub.engine.live.sweep import Sweep
from hub.engine.live.tail import Tails
from hub.engine.live.worker import Worker
from hub.engine.script import queue
from hub.store.base import Reader, Store, Txn
from hub.store.memory import MemoryStore
from kit import clock, ids

T = TypeVar("T")

#: What is on the wire arrives while the test moves the clock: a suspect has this long to be heard.
LOOP_S = 0.02

PASSED = SelfTest(True)
DONE = Completed(Result(summary="done"))


def offer(**changes: Any) -> Offer:
    """An offer that serves the plain task of these tests."""
    given: dict[str, Any] = {
        "capabilities": frozenset({"git"}),
        "executors": frozenset({"shell"}),
        "tiers": frozenset({Tier.TRIVIAL}),
        "kinds": frozenset({Kind.WORK}),
        "slots": 1,
    }
    return Offer(**given | changes)


def spec(**changes: Any) -> TaskSpec:
    """A contract; requirement fields may be given directly."""
    wanted = {key: changes.pop(key) for key in list(changes) if key in Requirement.__struct_fields__}
    return TaskSpec(title="a task", command="true", requirement=Requirement(**wanted), **changes)


class Stage:
    """Everything between the store and the wire."""

    def __init__(self, store: Store | None = None, *, seed: int = 7, **settings: Any) -> None:
        self.clock = clock.ManualClock()
        self.store = store or MemoryStore.open(rehearse=True)
        self.ctx = Context.make(self.store, self.clock, random.Random(seed), EngineSettings(**settings))
        self.dispatcher = Dispatcher(self.ctx)
        self.sessions = Sessions(self.ctx, self.dispatcher)
        self.worker = Worker(self.ctx, self.dispatcher, self.sessions)
        self.tails = Tails(self.ctx, self.sessions)
        self.sweep = Sweep(self.ctx, self.dispatcher, self.sessions)
        self.explainer = Explainer(self.ctx, self.dispatcher)
        self._number = 0

    async def close(self) -> None:
        self.sweep.stop()
        await self.store.close()

    async def do(self, fn: Callable[[Txn], T]) -> T:
        return await self.store.write(fn, essential=True)

    def see(self, fn: Callable[[Reader], T]) -> T:
        return self.store.read(fn)

    def task(self, id: str) -> Task:
        found = self.see(lambda reader: reader.task(id))
        assert found is not None
        return found

    def state(self, id: str) -> State:
        return self.task(id).state

    def events(self, subject: str) -> list[str]:
        return [event.type for event in self.see(lambda reader: reader.events_of(subject, limit=1000))]

    async def enrol(self, *names: str) -> None:
        now = self.clock.now()
        for name in names:
            await self.do(lambda txn, name=name: txn.agents.put(Agent(id=name, created_at=now)))  # type: ignore[misc]  # mypy types no default of a lambda

    async def online(self, name: str, **changes: Any) -> Any:
        """An agent with an open stream; gives the stream."""
        if self.see(lambda reader: reader.agents.get(name)) is None:
            await self.enrol(name)
        ack = changes.pop("ack", 0)
        hello: dict[str, Any] = {
            "offer": changes.pop("offer", None) or offer(slots=changes.pop("slots", 1)),
            "self_test": PASSED,
        }
        return await self.sessions.open(Hello(agent=name, **hello | changes), ack)

    async def submit(self, **changes: Any) -> str:
        """File a task as the submitter does: with a reserved slot when there is one."""
        contract, now = spec(**changes), self.clock.now()
        self._number += 1
        id = ids.encode(self._number)
        agent = self.dispatcher.reserve(contract.requirement)
        try:
            await self.do(lambda txn: queue.submit(txn, id, contract, now, actor="test", agent=agent))
        finally:
            self.dispatcher.release(agent)
        return id

    async def dispatch(self) -> int:
        return await self.dispatcher.run_once(self.clock.now())

    async def pass_time(self, seconds: float) -> None:
        """Move the clock and sweep; once more where somebody is suspected of silence."""
        self.clock.advance(seconds)
        await self.sweep.run_once(self.clock.now())
        if self.sessions.silence.is_suspicious:
            await asyncio.sleep(LOOP_S)
            self.clock.advance(silence.CONFIRM_S)
            await self.sweep.run_once(self.clock.now())

    def held(self, agent: str) -> list[Holding]:
        found = self.see(lambda reader: reader.held_by(agent))
        return [Holding(task.id, task.generation) for task in found]
