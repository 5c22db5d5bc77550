"""One run: machines, processes, network and clients on one virtual clock; chaos, then healing, then judgement."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hub.core.agent import Agent
from hub.core.repo import Repo
from hub.core.task import Check
from hub.core.token import Scope
from hub.engine.script import tokens
from hub.store.txn import OrderedTxn
from tests.oracle.record import Verb
from tests.sim import chance
from tests.sim.chance import Dice, Mix, Tally
from tests.sim.disk import Disk
from tests.sim.journal import JournalDisk
from tests.sim.loop import VirtualLoop
from tests.sim.net import Net
from tests.sim.oplog import OpLog
from tests.sim.process import Clock, Process
from tests.sim.trace import Trace

if TYPE_CHECKING:
    from tests.sim.hub_side import HubProcess
    from tests.sim.sidecar_side import SidecarProcess

REPO = "app"

SECRET = "act_" + "c" * 43
"""Of the clients' token."""


@dataclass(slots=True, eq=False)
class Machine:
    """What outlives a process."""

    name: str
    clock: Clock
    disk: Disk | None = None
    journal: JournalDisk = field(default_factory=JournalDisk)
    #: Its self-test fails.
    ill: bool = False


class World:
    """Everything of one run."""

    def __init__(self, mix: Mix, trace: Trace) -> None:
        self.mix = mix
        self.trace = trace
        self.tally = Tally()
        self.loop = VirtualLoop(self.dice("loop"), interrupt_every=mix.interrupt_every, shuffle=mix.shuffle)
        trace.now = self.loop.time
        self.log = OpLog(self.loop)
        self.healed = False
        self.ending = False
        self._numbers: Counter[str] = Counter()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._poison: set[str] = set()
        self.rest_dice = self.dice("rest")
        self._dice = self.dice("world")
        self.net = Net(self)
        self.hub: HubProcess | None = None
        self.sidecars: dict[str, SidecarProcess] = {}
        self.hub_machine = Machine("hub", Clock(self.loop), Disk())
        names = [f"agent-{number}" for number in range(1, mix.sidecars + 1)]
        self.machines = {name: Machine(name, Clock(self.loop)) for name in names}
        self.memory_checks = 0
        #: All that ever ran.
        self.processes: list[Process] = []
        self._file_records()

    # Chance

    def dice(self, *names: object) -> Dice:
        """Dice of their own."""
        return chance.dice(self.mix.seed, *names)

    def number(self, name: str) -> int:
        """1, 2, 3, ...: which run of a program this is."""
        self._numbers[name] += 1
        return self._numbers[name]

    def chance(self, fault: str) -> float:
        """Of a fault at a point; none when all is healed."""
        return 0.0 if self.healed else self.mix.chance(fault)

    def fault(self, name: str, node: str, detail: str = "") -> None:
        """Something was done to the system."""
        self.tally.faults[name] += 1
        self.trace.note(node, f"FAULT {name}", detail)

    def mark_poison(self, task: str) -> None:
        """This task kills whoever begins it."""
        self._poison.add(task)

    def is_poison(self, task: str) -> bool:
        """Does this task kill whoever begins it?"""
        return task in self._poison

    # Tasks that belong to no process

    def run_beside(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of the simulation itself."""
        task: asyncio.Task[Any] = self.loop.create_task(coro, context=Context())
        self.keep(task)
        return task

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Cancel it at the end of the run."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None), context=Context())

    def cancel_all(self) -> None:
        """The end of the run."""
        for task in list(self._tasks):
            task.cancel()

    # Processes

    def start_hub(self) -> None:
        """A hub on its machine."""
        from tests.sim.hub_side import HubProcess

        if self.hub is None or self.hub.dead:
            self.hub = HubProcess(self, self.hub_machine)
            self.log.process(self.hub, Verb.PROCESS_STARTED)
            self.hub.start()

    def start_sidecar(self, name: str) -> None:
        """A sidecar on its machine."""
        from tests.sim.sidecar_side import SidecarProcess

        running = self.sidecars.get(name)
        if running is None or running.dead:
            made = self.sidecars[name] = SidecarProcess(self, self.machines[name])
            self.log.process(made, Verb.PROCESS_STARTED)
            made.start()

    def hub_down(self, process: Process) -> None:
        """Its service manager starts it again."""
        self.log.process(process, Verb.PROCESS_DIED)
        if not self.ending:
            away_s = self._dice.choice((0.2, 2.0, 20.0, 90.0)) * (0.5 + self._dice.random())
            self.loop.call_later(away_s, self.start_hub, context=Context())

    def sidecar_down(self, process: Process) -> None:
        """The same for a sidecar."""
        self.log.process(process, Verb.PROCESS_DIED)
        if not self.ending:
            away_s = self._dice.choice((0.2, 5.0, 60.0, 240.0 * self.mix.scale)) * (0.5 + self._dice.random())
            self.loop.call_later(away_s, self.start_sidecar, process.name, context=Context())

    def check_memory(self, hub: HubProcess) -> None:
        """What the hub has in memory must be what is stored."""
        from tests.sim import judge

        if hub.ctx.bus.position == hub.store.read(lambda reader: reader.position()):
            self.memory_checks += 1
            self.trace.errors += [f"{self.loop.time():.3f} {found}" for found in judge.memory(hub)]

    def _file_records(self) -> None:
        """Agents and a repo, as people would have made them."""
        disk = self.hub_machine.disk
        assert disk is not None
        txn = OrderedTxn()
        txn.begin(disk.map)
        for name in self.machines:
            txn.agents.put(Agent(id=name, created_at=1.0))
        txn.repos.put(Repo(id=REPO, url="/srv/app.git", checks=(Check(id="lint", run="make lint"),)))
        txn.tokens.put(tokens.new("0" * 20, SECRET, Scope.ADMIN, 1.0, display_name="clients"))
        txn.append(1.0, "repo.created", f"repos/{REPO}")
        txn.seal()
        disk.map.settle()
        disk.remember()
