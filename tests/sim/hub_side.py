"""A simulated hub: the real engine, the real services behind the real interceptor, on a simulated disk.

It is put together as `hub/app.py` does, without what a simulation has no place for: the port, the folder, backups,
telemetry, alerts. Callers say who they are; only the clients' token is looked up, so that its use is noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import typing
from collections.abc import Awaitable, Callable
from typing import Any

from agentcom.v1 import (
    agent_service_pb2_grpc,
    goal_service_pb2_grpc,
    registry_service_pb2_grpc,
    task_service_pb2_grpc,
)
from hub.core import limit
from hub.core.limit import Action, Limit
from hub.core.violation import Patience
from hub.engine.desk.conduct import EVENTS_S, Conduct, Rules
from hub.engine.desk.explain import Explainer
from hub.engine.desk.filing import Filing
from hub.engine.desk.goal_desk import GoalDesk
from hub.engine.desk.hubstate import HubState
from hub.engine.desk.leashes import Leashes
from hub.engine.desk.repo_desk import RepoDesk
from hub.engine.desk.roster import Roster
from hub.engine.desk.submit import Submitter
from hub.engine.desk.tasks import Tasks
from hub.engine.desk.vault import Vault
from hub.engine.desk.verifier import Verifier
from hub.engine.live.context import Context, EngineSettings
from hub.engine.live.dispatch import Dispatcher
from hub.engine.live.retention import Keep, Retention
from hub.engine.live.sessions import Sessions
from hub.engine.live.sweep import Sweep
from hub.engine.live.tail import Tails
from hub.engine.live.worker import Worker
from hub.rpc.agents import AgentService
from hub.rpc.attach import Attach
from hub.rpc.goals import GoalService
from hub.rpc.registry import RegistryService
from hub.rpc.tasks import TaskService
from hub.store.care.guard import Guarded
from kit import errors, interceptors, principal, supervise
from tests.sim.chance import Mix
from tests.sim.disk import SimStore
from tests.sim.process import Process
from tests.sim.server import Server
from tests.sim.world import SECRET, Machine, World

TOKEN_USE_S = 60.0
LOOK_S = 240.0
GRACE_S = 5.0
"""Of an end in order."""


class SimDoor:
    """Lets callers in who say who they are, as often as their limits allow."""

    def __init__(self, verifier: Verifier, conduct: Conduct) -> None:
        self._verifier = verifier
        self._conduct = conduct

    def authenticate(self, context: Any, method: str) -> principal.Principal:
        """The principal of a call. Raises Exhausted."""
        known = dict(context.invocation_metadata())
        agent, name = known.get("agent"), known.get("name", "anonymous")
        caller = f"tokens/{name}"
        try:
            self._conduct.admit(caller, limit.ACTIONS.get(method, Action.WRITE))
        except errors.Problem as problem:
            raise self._conduct.blame(caller, method, problem) from None
        if agent is None:
            self._verifier.verify(SECRET)
        return principal.Principal(caller, "agent" if agent else "admin", agent)

    def observe(self, _context: Any, method: str, who: principal.Principal, problem: errors.Problem) -> errors.Problem:
        """A caller that was let in was refused later on."""
        return self._conduct.blame(who.name, method, problem)


class HubProcess(Process):
    """One run of a hub."""

    def __init__(self, world: World, machine: Machine) -> None:
        super().__init__(world, "hub", machine.clock)
        assert machine.disk is not None
        self.disk = machine.disk
        self.serving = False
        self.served_at = 0.0
        self.stopping = asyncio.Event()
        self.at_death.append(self._died)

    def start(self) -> None:
        self.spawn(self._run())

    async def _run(self) -> None:
        world = self.world
        try:
            await self._build()
        except errors.Problem as problem:
            world.trace.note(self.name, "START FAILED", problem.message)
            self.kill("it could not start")
            return
        world.net.server = self.server
        self.serving = True
        self.served_at = world.loop.time()
        world.trace.note(self.name, "SERVES")
        loops = self.supervisor.run()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(loops, name="loops")
            await self.stopping.wait()
            await self._end(running)
        world.trace.note(self.name, "STOPPED")
        self.kill("it ended in order")

    async def _build(self) -> None:
        world = self.world
        rng = world.dice("hub", world.number("hub"))
        self.disk_store = SimStore(self.disk, self)
        self.disk_store.on_rest = self._at_rest
        self.store = Guarded(self.disk_store)
        self.store.lenient = False
        self.store.on_damage = self._damaged
        self.disk_store.damaged = lambda: bool(self.store.damage)
        self.ctx = ctx = Context.make(self.store, self.clock, rng, settings(world.mix))
        self.dispatcher = Dispatcher(ctx)
        self.sessions = Sessions(ctx, self.dispatcher)
        self.worker = Worker(ctx, self.dispatcher, self.sessions)
        self.tails = Tails(ctx, self.sessions)
        self.sweep = Sweep(ctx, self.dispatcher, self.sessions)
        self.state = HubState(ctx, version="sim", wake=self.dispatcher.wake.set)
        self.explainer = Explainer(ctx, self.dispatcher)
        self.vault, self.verifier = Vault(ctx), Verifier(ctx)
        self.conduct = Conduct(ctx, rules(limited=world.mix.limited))
        self.retention = Retention(ctx, keep(world.mix.keep_s, world.mix.scale))
        self.retention.recycler.on_free = self.dispatcher.waiting.drop_idle
        door = SimDoor(self.verifier, self.conduct)
        gate = interceptors.Gate(door.authenticate, observe=door.observe, hold=Leashes(ctx).hold)
        self.server = Server(self, gate)
        self._add_services()
        await self.state.start()
        s, scale = ctx.settings, world.mix.scale
        loops = [
            supervise.Loop("dispatch", self.dispatcher.run_once, s.sweep_s, self.dispatcher.wake),
            supervise.Loop("sweep", self.sweep.run_once, s.sweep_s, self.sweep.wake),
            supervise.Loop("token_use", self.verifier.run_once, TOKEN_USE_S * scale),
            supervise.Loop("conduct", self.conduct.run_once, EVENTS_S * scale, self.conduct.wake),
        ]
        if world.mix.keep_s:
            loops.append(supervise.Loop("retention", self.retention.run_once, LOOK_S * scale, self.retention.wake))
        loops = [dataclasses.replace(loop, run_once=self._while_writable(loop.run_once)) for loop in loops]
        self.supervisor = supervise.Supervisor(loops, time=self.clock, rng=rng)

    def _add_services(self) -> None:
        ctx, server = self.ctx, typing.cast("Any", self.server)
        submitter = Submitter(ctx, self.dispatcher)
        timeout_s = ctx.settings.accept_timeout_s
        tasks = TaskService(Tasks(ctx), submitter, self.explainer, self.tails, accept_timeout_s=timeout_s)
        attach = Attach(self.sessions, self.worker, self.tails, version="sim")
        attach.blame = lambda problem: self.conduct.blame(principal.current().name, "Attach", problem)
        agents = AgentService(Roster(ctx, self.dispatcher.fleet, self.sessions), attach.serve)
        task_service_pb2_grpc.add_TaskServiceServicer_to_server(tasks, server)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
        goal_service_pb2_grpc.add_GoalServiceServicer_to_server(GoalService(GoalDesk(ctx), Filing(ctx)), server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(RegistryService(RepoDesk(ctx)), server)

    async def _end(self, loops: asyncio.Task[None]) -> None:
        """As `app` ends: every sidecar is told, streams end, loops end, the last event, the store."""
        self.serving = False
        self.sessions.shut_down()
        self.tails.close()
        self.ctx.bus.close()
        self.server.listening = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self.server.open:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.05)
        self.server.stop()
        self.supervisor.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await asyncio.shield(loops)
        loops.cancel()
        try:
            await self.sessions.flush(self.clock.now())
            await self.state.stopped()
        except errors.Problem as problem:
            self.world.trace.note(self.name, "LAST WORDS LOST", problem.message)
        await self.store.close()

    def _while_writable(self, run_once: Callable[[float], Awaitable[object]]) -> Callable[[float], Awaitable[object]]:
        async def run(now: float) -> None:
            if not self.ctx.gate.degraded:
                await run_once(now)

        return run

    def _damaged(self) -> None:
        self.ctx.gate.damage = self.store.damage

    def stop(self) -> None:
        """SIGTERM."""
        self.world.trace.note(self.name, "STOPPING")
        self.stopping.set()

    def _died(self) -> None:
        world = self.world
        self.serving = False
        if world.net.server is not None and world.net.server.process is self:
            world.net.server = None
        world.net.process_died(self)
        world.hub_down(self)

    def _at_rest(self) -> None:
        """Nothing is on its way between the store and the loop: what is in memory must be what is stored."""
        if self.serving and self.world.rest_dice.random() < 0.05:
            self.world.check_memory(self)

    @property
    def at_rest(self) -> bool:
        """Is no write queued or under way?"""
        return bool(self.disk_store._writer.idle)  # type: ignore[attr-defined]  # beyond what its protocol says

    def disk_is_good(self) -> bool:
        """Does its disk take what it writes, at the usual pace?"""
        return not (self.disk.broken or self.disk.slow > 1.0)


def settings(mix: Mix) -> EngineSettings:
    """The engine's settings, slower by a factor. Answers are kept for as long as somebody may ask again: the hub's
    clock jumps by two hours at most.
    """
    scale = mix.scale
    return EngineSettings(
        lease_s=30.0 * scale,
        heartbeat_s=10.0 * scale,
        accept_timeout_s=60.0 * scale,
        sweep_s=30.0 * scale,
        stuck_s=mix.stuck_s * scale,
        request_window_s=9_000.0 if mix.keep_s else 86_400.0,
    )


def rules(*, limited: bool) -> Rules:
    """How often callers may ask: as the hub's own settings are, or so tight that everybody feels it."""
    if not limited:
        return Rules({action: Limit(0.0, 1.0) for action in Action}, Patience(0, 60.0, 10.0, 600.0))
    limits = {action: Limit(0.5, 4.0) for action in Action}
    return Rules(limits, Patience(20, 60.0, 2.0, 20.0))


def keep(keep_s: float, scale: float) -> Keep:
    """What is kept, and how long."""
    if not keep_s:
        return Keep(events_s=math.inf)
    kept_s = keep_s * scale
    return Keep(
        tasks_s=kept_s,
        dead_s=2 * kept_s,
        goals_s=2 * kept_s,
        artifacts_s=kept_s / 2,
        tokens_s=kept_s,
        events_s=2 * kept_s,
        again_s=10 * kept_s,
        settle_s=60.0,
    )
