"""A simulated hub: the real engine, the real services behind the real interceptor, on a simulated disk.

It is put together as `hub/app.py` does, without what a simulation has no place for: the port, the folder, the tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import typing
from typing import Any

from agentcom.v1 import (
    agent_service_pb2_grpc,
    goal_service_pb2_grpc,
    registry_service_pb2_grpc,
    task_service_pb2_grpc,
)
from hub.engine.desk.explain import Explainer
from hub.engine.desk.filing import Filing
from hub.engine.desk.goal_desk import GoalDesk
from hub.engine.desk.hubstate import HubState
from hub.engine.desk.repo_desk import RepoDesk
from hub.engine.desk.roster import Roster
from hub.engine.desk.submit import Submitter
from hub.engine.desk.tasks import Tasks
from hub.engine.live.context import Context, EngineSettings
from hub.engine.live.dispatch import Dispatcher
from hub.engine.live.sessions import Sessions
from hub.engine.live.sweep import Sweep
from hub.engine.live.tail import Tails
from hub.engine.live.worker import Worker
from hub.rpc.agents import AgentService
from hub.rpc.attach import Attach
from hub.rpc.goals import GoalService
from hub.rpc.registry import RegistryService
from hub.rpc.tasks import TaskService
from kit import errors, interceptors, principal, supervise
from tests.sim.disk import SimStore
from tests.sim.process import Process
from tests.sim.server import Server
from tests.sim.world import Machine, World

GRACE_S = 5.0
"""Of an end in order."""


def _who(context: Any, _method: str) -> principal.Principal:
    """Callers say who they are: proofs are tried elsewhere."""
    known = dict(context.invocation_metadata())
    agent = known.get("agent")
    name = known.get("name", "anonymous")
    return principal.Principal(f"tokens/{name}", "agent" if agent else "admin", agent)


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
        self.store = SimStore(self.disk, self)
        self.store.on_rest = self._at_rest
        self.ctx = ctx = Context.make(self.store, self.clock, rng, settings(world.mix.scale))
        self.dispatcher = Dispatcher(ctx)
        self.sessions = Sessions(ctx, self.dispatcher)
        self.worker = Worker(ctx, self.dispatcher, self.sessions)
        self.tails = Tails(ctx, self.sessions)
        self.sweep = Sweep(ctx, self.dispatcher, self.sessions)
        self.state = HubState(ctx, version="sim", wake=self.dispatcher.wake.set)
        self.explainer = Explainer(ctx, self.dispatcher)
        self.server = Server(self, interceptors.Gate(_who))
        self._add_services()
        await self.server.wrap()
        await self.state.start()
        s = ctx.settings
        loops = [
            supervise.Loop("dispatch", self.dispatcher.run_once, s.sweep_s, self.dispatcher.wake),
            supervise.Loop("sweep", self.sweep.run_once, s.sweep_s, self.sweep.wake),
        ]
        self.supervisor = supervise.Supervisor(loops, time=self.clock, rng=rng)

    def _add_services(self) -> None:
        ctx, server = self.ctx, typing.cast("Any", self.server)
        submitter = Submitter(ctx, self.dispatcher)
        timeout_s = ctx.settings.accept_timeout_s
        tasks = TaskService(Tasks(ctx), submitter, self.explainer, self.tails, accept_timeout_s=timeout_s)
        attach = Attach(self.sessions, self.worker, self.tails, version="sim")
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
                while self.server.open:  # noqa: ASYNC110
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
        return bool(self.store._writer.idle)  # type: ignore[attr-defined]

    def disk_is_good(self) -> bool:
        """Does its disk take what it writes, at the usual pace?"""
        return not (self.disk.broken or self.disk.slow > 1.0)


def settings(scale: float) -> EngineSettings:
    """The engine's settings, slower by a factor."""
    return EngineSettings(
        lease_s=30.0 * scale,
        heartbeat_s=10.0 * scale,
        accept_timeout_s=60.0 * scale,
        sweep_s=30.0 * scale,
        stuck_s=300.0 * scale,
        request_window_s=86_400.0,
    )
