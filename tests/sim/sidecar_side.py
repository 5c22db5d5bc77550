"""A simulated sidecar: the real wire code (session, conversation, ledger, holdings) with hands of the simulation's own.

The hands take as long as the dice say, fail, lie, hang, crash, kill the process, and are slow to stop. What they do is
written into the operation log: the judge compares it with what the hub accepted.
"""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from typing import Any

from agentcom.v1 import agent_pb2
from sidecar.child.control import Control
from sidecar.core.assignment import Assignment, Done, Failure, Kind, NotDone, Outcome, Progress, Receipt
from sidecar.core.offer import Offer
from sidecar.core.selftest import Finding, SelfTest
from sidecar.wire.session import End, Session, SessionSettings
from tests.sim.channel import SimChannel
from tests.sim.journal import SimJournal
from tests.sim.process import Process
from tests.sim.world import Machine, World

FAULTS = (
    ("COMMAND_FAILED", "task", 6),
    ("CHECK_FAILED", "task", 2),
    ("MERGE_CONFLICT", "task", 1),
    ("AGENT_CONFUSED", "agent", 2),
    ("FETCH_FAILED", "environment", 2),
    ("RATE_LIMITED", "provider", 1),
    ("LOGIN_EXPIRED", "credential", 1),
)
KINDS: tuple[Kind, ...] = ("work", "survey", "verify", "merge", "revert", "probe")


def sha(*parts: object) -> str:
    """A commit that follows from what went into it."""
    return hashlib.sha1(":".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


class SimHands:
    """`sidecar.wire.session.Worker`."""

    def __init__(self, process: SidecarProcess) -> None:
        self._process = process
        self._world = process.world
        self._dice = process.world.dice("hands", process.name, process.world.number(f"hands {process.name}"))

    async def run(self, assignment: Assignment, control: Control) -> Outcome:
        held = assignment.holding
        log = self._world.log
        log.began(self._process, held)
        try:
            outcome = await self._run(assignment, control)
        finally:
            log.ended(self._process, held)
        return outcome

    async def _run(self, assignment: Assignment, control: Control) -> Outcome:
        world, roll = self._world, self._dice.random
        if world.is_poison(assignment.holding.task) and not world.healed:
            await asyncio.sleep(roll())
            self._process.kill("a poison task")
        if roll() < world.chance("hands.crash"):
            world.fault("hands.crash", self._process.name)
            raise RuntimeError("the hands crashed")
        hangs = roll() < world.chance("hands.hang")
        duration_s = self._dice.choice((0.0, 0.3, 5.0, 40.0)) * world.mix.scale * roll()
        if hangs:
            world.fault("hands.hang", self._process.name)
            duration_s = 1e9
        try:
            async with asyncio.timeout(duration_s):
                if hangs:
                    await control.stop.wait()
                else:
                    await self._work(control)
        except TimeoutError:
            return self._end(assignment)
        if roll() < world.chance("hands.stubborn"):
            world.fault("hands.stubborn", self._process.name)
            await asyncio.sleep(self._dice.choice((1.0, 20.0, 100.0)))
        return _stopped(assignment, control.stop.reason)

    async def _work(self, control: Control) -> None:
        """Progress until it is stopped."""
        step = 0
        pause_s = 3.0 * self._world.mix.scale
        while not control.stop.is_set():
            step += 1
            control.progress = Progress(phase="execute", tool_calls=step)
            control.output(f"step {step}\n")
            try:
                async with asyncio.timeout(pause_s):
                    await control.stop.wait()
            except TimeoutError:
                continue

    def _end(self, assignment: Assignment) -> Outcome:
        world, roll = self._world, self._dice.random
        if roll() < world.chance("hands.fault"):
            reason, attribution, _ = self._dice.choices(FAULTS, [one[2] for one in FAULTS])[0]
            world.fault("hands.fault", self._process.name, reason)
            if roll() < world.chance("hands.breach"):  # of the contract: the hub does not take such a report in
                world.fault("hands.breach", self._process.name)
                reason = "no reason of any kind"
            failure = Failure(reason=reason, message="as the dice said", attribution=attribution)  # type: ignore[arg-type]  # stands in for it
            return NotDone(failure=failure, wip_ref=_wip(assignment))
        lies = roll() < world.chance("hands.lie")
        if lies:
            world.fault("hands.lie", self._process.name)
        return _done(assignment, self._process.name, lies=lies)

    async def recover(self, assignment: Assignment) -> Outcome:
        await asyncio.sleep(self._dice.random())
        return _stopped(assignment, "SIDECAR_RESTARTED")

    async def self_test(self) -> SelfTest:
        await asyncio.sleep(0.01)
        ill = self._process.machine.ill
        finding = Finding(probe="disk", passed=not ill, message="as the dice said")
        return SelfTest.of((finding,), ended_at=self._process.clock.now())


class SidecarProcess(Process):
    """One run of a sidecar."""

    def __init__(self, world: World, machine: Machine) -> None:
        super().__init__(world, machine.name, machine.clock)
        self.machine = machine
        self.at_death.append(lambda: world.net.process_died(self))
        self.at_death.append(lambda: world.sidecar_down(self))
        self.journal = SimJournal(machine.journal, self)
        mix = world.mix
        offer = Offer(slots=mix.slots, executors=("shell",), tiers=("trivial", "standard"), kinds=KINDS)
        self.session = Session(
            SessionSettings(
                agent=machine.name,
                offer=offer,
                version="sim",
                reconnect_cap_s=8.0 * mix.scale,
                drain_timeout_s=60.0 * mix.scale,
                stop_timeout_s=30.0,
                self_test_every_s=300.0 * mix.scale,
            ),
            dial=lambda: SimChannel(world.net, self),  # type: ignore[arg-type, return-value]
            metadata=lambda: (("agent", machine.name), ("name", machine.name)),
            worker=SimHands(self),
            journal=self.journal,  # type: ignore[arg-type]  # stands in for it
            load=lambda holdings: agent_pb2.Load(holdings=holdings),
            time=self.clock,
            rng=world.dice("sidecar", machine.name, world.number(f"sidecar {machine.name}")),
            is_nobody_there=self._is_nobody_there,
        )

    async def _is_nobody_there(self) -> bool:
        """The hub's machine refuses the connection: it is up, and no hub listens."""
        net = self.world.net
        await asyncio.sleep(net.latency_s())
        return net.server is None and net.partitioned.get(self.name, 0.0) <= self.world.loop.time()

    def start(self) -> None:
        self.world.trace.note(self.name, "STARTED")
        self.spawn(self._run())

    async def _run(self) -> None:
        end: Any = None
        try:
            end = await self.session.run()
        except asyncio.CancelledError:
            if self.dead:
                raise
            end = End("CANCELLED", "", is_good=True)
        except Exception as error:
            if not self.dead:
                text = f"{self.world.loop.time():.3f} {self.name} crashed: {_told(error)}"
                self.world.trace.errors.append(text)
        self.world.trace.note(self.name, "ENDED", f"{end}")
        if not self.dead:
            self.journal.close()
        self.kill("it ended")


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(one) for one in error.exceptions)
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return f"{error!r} at " + " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))


def _stopped(assignment: Assignment, reason: str) -> NotDone:
    failure = Failure(reason=reason or "STOPPED", message="it was stopped", attribution="agent")
    return NotDone(failure=failure, wip_ref=_wip(assignment), stopped=True)


def _wip(assignment: Assignment) -> str:
    return f"refs/agentcom/wip/{assignment.holding.task}/{assignment.holding.generation}"


def _done(assignment: Assignment, agent: str, *, lies: bool) -> Done:
    held = assignment.holding
    base = sha("main")
    head = sha(held.task, held.generation) if assignment.kind != "verify" else base
    merged = sha("merged", held.task, held.generation) if assignment.kind == "merge" else ""
    phase = "merged" if assignment.kind == "merge" else "head"
    receipts = [
        Receipt(
            check=check.id,
            command_sha256=hashlib.sha256(check.run.encode()).hexdigest(),
            base_sha=base,
            head_sha=merged or head,
            tree_sha=sha("tree", head),
            exit_code=0,
            duration_s=1.0,
            host="sim",
            agent=f"agents/{agent}",
            started_at=0.0,
            verdict="pass",
            output_sha256="",
            output_tail="",
            phase=phase,  # type: ignore[arg-type]  # stands in for it
        )
        for check in assignment.checks
    ]
    branch = f"agentcom/{agent}/{held.task}" if assignment.delivery != "none" else ""
    return Done(
        summary="done",
        base_sha=base,
        head_sha=head,
        branch=branch,
        receipts=() if lies else tuple(receipts),
        merge_sha=merged,
        change_title="a change" if branch else "",
    )
