"""The hub put together: the only place that names concrete stores. It starts in order, and it ends in order.

Start: store, context, what runs in memory (rebuilt from the store), services, port, loops; then SERVING.
End: NOT_SERVING, Goaway to every sidecar, streams end, server, loops, the last event, store.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final

from google.protobuf import message as protobuf
from google.protobuf import message_factory

from agentcom.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    goal_service_pb2,
    goal_service_pb2_grpc,
    hub_service_pb2,
    hub_service_pb2_grpc,
    notify_service_pb2,
    registry_service_pb2,
    registry_service_pb2_grpc,
    task_service_pb2,
    task_service_pb2_grpc,
)
from hub import data, telemetry, telling, upkeep
from hub.config import Config, check
from hub.core.token import Scope
from hub.engine.alerts import board as alerts
from hub.engine.care.desk import LOOK_S as BACKUP_LOOK_S
from hub.engine.desk import intake, measure, stats
from hub.engine.desk.conduct import EVENTS_S, Conduct
from hub.engine.desk.explain import Explainer
from hub.engine.desk.filing import Draft, Filing
from hub.engine.desk.goal_desk import GoalDesk
from hub.engine.desk.hubstate import UID_KEY, HubState
from hub.engine.desk.leashes import Leashes
from hub.engine.desk.repo_desk import RepoDesk
from hub.engine.desk.roster import Roster
from hub.engine.desk.sampler import LOOK_S as SAMPLE_S
from hub.engine.desk.sampler import Sampler
from hub.engine.desk.submit import Submitter
from hub.engine.desk.tasks import Tasks
from hub.engine.desk.vault import Vault
from hub.engine.desk.verifier import Verifier
from hub.engine.live.context import Context
from hub.engine.live.dispatch import Dispatcher
from hub.engine.live.retention import Retention
from hub.engine.live.sessions import Sessions
from hub.engine.live.sweep import Sweep
from hub.engine.live.tail import Tails
from hub.engine.live.worker import Worker
from hub.rpc import auth, translate_goal
from hub.rpc.agents import AgentService
from hub.rpc.attach import Attach
from hub.rpc.auth import Door
from hub.rpc.goals import GoalService
from hub.rpc.hub import HubService
from hub.rpc.registry import RegistryService
from hub.rpc.tasks import TaskService
from hub.store.base import Store
from hub.store.care.guard import Guarded
from hub.store.lmdb import LmdbStore
from hub.store.memory import MemoryStore
from kit import certificate, channel, errors, goalfile, interceptors, logs, principal, serving, supervise, validation
from kit import clock as clocks
from kit.version import VERSION

log = logs.get(__name__)

ADDRESS_FILE: Final = "hub.addr"
ADMIN_TOKEN_FILE: Final = upkeep.ADMIN_TOKEN_FILE
STORE_FOLDER: Final = upkeep.STORE_FOLDER

TOKEN_USE_S: Final = 60.0
"""How often last_use_time is written, at most."""

CERTIFICATE_S: Final = 3_600.0
"""How often the certificates are looked at although nobody shakes hands."""

SERVICES: Final = tuple(
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (task_service_pb2, "TaskService"),
        (agent_service_pb2, "AgentService"),
        (goal_service_pb2, "GoalService"),
        (registry_service_pb2, "RegistryService"),
        (notify_service_pb2, "NotifyService"),
        (hub_service_pb2, "HubService"),
    )
)


class Hub:
    """A hub in this process. `start`, then `run` until `stop`, or all of it with `serving`."""

    def __init__(
        self,
        config: Config,
        *,
        clock: clocks.Clock | None = None,
        rng: random.Random | None = None,
        store: Store | None = None,
        crashed: bool = False,
    ) -> None:
        """`crashed`: a signal ended the last one, and its store is read through before it is opened."""
        self.config = config
        self._crashed = crashed
        self._clock = clock or clocks.SystemClock()
        self._rng = rng or random.Random()  # jitter and ids only; secrets come from kit.tokens
        self._given = store
        self.address = ""
        self._stopped = False

    async def start(self) -> None:
        """Open the store, rebuild what lives in memory, listen, and serve. Raises a Problem when it cannot."""
        check(self.config)
        _probe(self.config.address)
        if self.config.telemetry.page is not None:
            _probe(self.config.telemetry.page)
        if self.config.intake.folder is not None:
            intake.prepare(self.config.intake.folder)
        if self._given is not None:
            self.store = Guarded(self._given)
        else:
            self.store = await upkeep.guard(self.config, open_store, crashed=self._crashed)
        try:
            await self._build()
        except BaseException:
            await self.store.close()
            raise

    async def _build(self) -> None:
        config = self.config
        self.ctx = ctx = Context.make(self.store, self._clock, self._rng, config.engine.settings())
        self.upkeep = upkeep.Upkeep(ctx, self.store, config, late=self._late)
        if self.store.broken:
            await upkeep.admit_operator(self.store, config, self._clock.now(), ctx.ids)
        uid = (self.store.read(lambda reader: reader.meta(UID_KEY)) or b"").decode()
        who = telemetry.Who(VERSION, uid, config.data)
        self.telemetry = telemetry.Telemetry(ctx, config.telemetry, who)
        self.telemetry.watch(getattr(self.store.inner, "environment", None))
        self.dispatcher = Dispatcher(ctx)
        self.sessions = Sessions(ctx, self.dispatcher)
        self.sessions.trace = self.telemetry.traces.of_assignment if self.telemetry.traces is not None else None
        self.worker = Worker(ctx, self.dispatcher, self.sessions)
        self.upkeep.watch(self.dispatcher.fleet, self.sessions)
        self.tails = Tails(ctx, self.sessions)
        self.retention = Retention(ctx, config.retention.keep())
        self.retention.recycler.on_free = self.dispatcher.waiting.drop_idle
        self.sweep = Sweep(ctx, self.dispatcher, self.sessions)
        self.state = HubState(ctx, version=VERSION, wake=self.dispatcher.wake.set)
        self.verifier = Verifier(ctx)
        self.vault = Vault(ctx)
        self.filing = Filing(ctx)
        self.conduct = Conduct(ctx, config.limits.rules())
        self.leashes = Leashes(ctx)
        self.telling = telling.Telling(ctx, config, self.upkeep.board)
        self.sampler = Sampler(ctx, self._stats)
        names = [service.full_name for service in SERVICES]
        self.server = serving.Server(services=names, interceptors=[self._gate()])
        self._add_services()
        validation.warm_up(_requests())
        await self._admin_token()
        self.certificates = _certificates(config, self._clock)
        credentials = self.certificates.credentials() if self.certificates is not None else None
        port = await self.server.start(config.address.target, credentials=credentials)
        self.address = dataclasses.replace(config.address, port=port).target
        await self.state.start()
        self.supervisor = supervise.Supervisor(self._loops(), time=self._clock, rng=self._rng)
        await self.telemetry.start(self._measured)
        self.store.lenient = False
        data.write(config.data / ADDRESS_FILE, f"{self.address}\n", mode=0o644)

    def _late(self, _now: float, grace_s: float) -> Sequence[str]:
        return self.supervisor.late(self._clock.monotonic(), grace_s)

    def _gate(self) -> interceptors.Gate:
        door = Door(self.verifier, self.conduct, required=self.config.token_required)
        return interceptors.Gate(
            door.authenticate,
            observe=door.observe,
            hold=self.leashes.hold,
            charges=auth.charges(door),
            stall_s=self.config.server.reader_timeout_s,
        )

    def _add_services(self) -> None:
        ctx, server = self.ctx, self.server.grpc
        explainer = Explainer(ctx, self.dispatcher)
        submitter = Submitter(ctx, self.dispatcher)
        timeout_s = ctx.settings.accept_timeout_s
        tasks = TaskService(Tasks(ctx), submitter, explainer, self.tails, accept_timeout_s=timeout_s)
        attach = Attach(self.sessions, self.worker, self.tails, version=VERSION)
        attach.blame = lambda problem: self.conduct.blame(principal.current().name, "Attach", problem)
        agents = AgentService(Roster(ctx, self.dispatcher.fleet, self.sessions), attach.serve)
        desks, samples = self.upkeep.desks, self.sampler
        hub = HubService(
            ctx, self.state, self.vault, self._stats, behaviour=self.conduct, upkeep=desks, samples=samples
        )
        task_service_pb2_grpc.add_TaskServiceServicer_to_server(tasks, server)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
        goal_service_pb2_grpc.add_GoalServiceServicer_to_server(GoalService(GoalDesk(ctx), self.filing), server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(RegistryService(RepoDesk(ctx)), server)
        hub_service_pb2_grpc.add_HubServiceServicer_to_server(hub, server)
        self.telling.serve(server)

    def _loops(self) -> Sequence[supervise.Loop]:
        settings, dispatch = self.ctx.settings, self.telemetry.timed(self.dispatcher.run_once)
        loops = [
            supervise.Loop("backup", self.upkeep.care.run_once, BACKUP_LOOK_S),
            supervise.Loop("dispatch", dispatch, settings.sweep_s, self.dispatcher.wake),
            supervise.Loop("sweep", self.sweep.run_once, settings.sweep_s, self.sweep.wake),
            supervise.Loop("retention", self.retention.run_once, self.config.retention.look_s, self.retention.wake),
            supervise.Loop("token_use", self.verifier.run_once, TOKEN_USE_S),
            supervise.Loop("conduct", self.conduct.run_once, EVENTS_S, self.conduct.wake),
        ]
        if self.certificates is not None:
            loops.append(supervise.Loop("certificate", self.certificates.run_once, CERTIFICATE_S))
        folder = self.config.intake.folder
        if folder is not None:
            watched = intake.Intake(self.ctx, self.filing, folder, _read_goal)
            loops.append(supervise.Loop("intake", watched.run_once, self.config.intake.look_s))
        loops = [dataclasses.replace(loop, run_once=self._while_writable(loop.run_once)) for loop in loops]
        loops.append(self.telling.loop())
        board = self.upkeep.board
        loops.append(supervise.Loop("samples", self.sampler.run_once, SAMPLE_S, self.sampler.wake))
        return [*loops, *self.telemetry.loops(), supervise.Loop("alerts", self._look, alerts.LOOK_S, board.wake)]

    def _while_writable(self, run_once: Callable[[float], Awaitable[object]]) -> Callable[[float], Awaitable[object]]:
        """A duty that rests once the store is open for reading only: no lease passes, nothing is assigned."""

        async def run(now: float) -> None:
            if not self.ctx.gate.degraded:
                await run_once(now)

        return run

    async def _look(self, now: float) -> None:
        await self.upkeep.board.run_once(now)
        if self.ctx.gate.degraded:
            self.telling.notifier.wake.set()
            await self._tell_health()

    async def _tell_health(self) -> None:
        """What can only be read is NOT_SERVING, but for the service that says why."""
        degraded = self.ctx.gate.degraded
        await self.server.set_serving(not degraded, but=(SERVICES[-1].full_name,) if degraded else ())

    def _stats(self) -> stats.Stats:
        with self.store.leniently() if self.ctx.gate.degraded else contextlib.nullcontext():
            return stats.collect(self.ctx, self.dispatcher.fleet, lambda: sum(validation.violation_counts.values()))

    def _measured(self) -> measure.Numbers:
        health = self.supervisor.health().values()
        seen = measure.Seen(
            ctx=self.ctx,
            stats=self._stats(),
            sessions=self.sessions,
            board=self.upkeep.board,
            state=self.state.state,
            started_at=self.state.facts().started_at,
            loop_failures=sum(one.failure_count for one in health),
        )
        return measure.measure(seen) | self.telling.numbers()

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set, then end in order."""
        async with asyncio.TaskGroup() as group:
            loops = group.create_task(self.supervisor.run(), name="loops")
            await self._tell_health()
            log.info("hub.serving", address=self.address, store=self.config.store.kind, data=str(self.config.data))
            try:
                await stopping.wait()
            finally:
                await self._end(loops)

    async def _end(self, loops: asyncio.Task[None]) -> None:
        grace_s = self.config.server.stop_grace_s
        log.info("hub.stopping", grace_s=grace_s)
        await self.server.stop(grace_s=grace_s, drain=self._drain)
        self.supervisor.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await asyncio.shield(loops)
        loops.cancel()

    async def _drain(self) -> None:
        """Every sidecar is told, and every stream ends by itself."""
        self.sessions.shut_down()
        self.tails.close()
        self.ctx.bus.close()

    async def close(self) -> None:
        """The last event, the rest of what is noted, and the store."""
        if self._stopped:
            return
        self._stopped = True
        try:
            await self.telemetry.stop()
            await self.sessions.flush(self._clock.now())
            await self.verifier.run_once(self._clock.now())
            await self.state.stopped()
        except errors.Problem as problem:
            log.warning("hub.last_words_lost", problem=problem.message)
        finally:
            (self.config.data / ADDRESS_FILE).unlink(missing_ok=True)
            await self.store.close()
        log.info("hub.stopped")

    async def _admin_token(self) -> None:
        """The first start leaves a token that opens everything, readable by the owner of the data folder only."""
        file = self.config.data / ADMIN_TOKEN_FILE
        none = self.config.store.kind == "memory" or not self.vault.any_admin()
        if none and not self.ctx.gate.degraded:  # of a damaged store it is not known
            _, secret = await self.vault.create(Scope.ADMIN, "made at the first start", None, actor="hub")
            data.write(file, f"{secret}\n", mode=0o600)
            log.info("admin_token.written", file=str(file))


@contextlib.asynccontextmanager
async def serving_hub(hub: Hub) -> AsyncIterator[Hub]:
    """A hub that serves for the length of a block."""
    await hub.start()
    stopping = asyncio.Event()
    task = asyncio.create_task(hub.run(stopping), name="hub")
    try:
        yield hub
    finally:
        stopping.set()
        try:
            await task
        finally:
            await hub.close()


def open_store(config: Config) -> Store:
    """The store that the configuration asks for. Raises a Problem that says what is wrong with its folder."""
    data.prepare(config.data)
    if config.store.kind == "memory":
        return MemoryStore.open()
    return LmdbStore.open(
        config.data / STORE_FOLDER,
        map_bytes_first=config.store.map_first_bytes,
        map_bytes_max=config.store.map_max_bytes,
        lose_data_on_power_cut=config.store.lose_data_on_power_cut,
    )


def _probe(address: channel.Address) -> None:
    """Raise Unavailable when the port is taken, before the store is touched and gRPC says it in its own words."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: a port in TIME_WAIT is free
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise errors.Unavailable(
                f"cannot listen on {address.target}: {error.strerror or error}", reason="BIND_FAILED"
            ) from error


def _certificates(config: Config, clock: clocks.Clock) -> certificate.Keeper | None:
    server = config.server
    if server.tls_certificate is None or server.tls_key is None:
        return None
    files = certificate.Files(server.tls_certificate, server.tls_key, server.tls_client_ca)
    return certificate.Keeper(files, clock.now)


def _requests() -> Iterator[type[protobuf.Message]]:
    """Every message that a caller may send: their rules are compiled before the first one comes."""
    for service in SERVICES:
        for method in service.methods:
            yield message_factory.GetMessageClass(method.input_type)


def _read_goal(content: bytes, filename: str) -> Draft:
    """A goal file as a draft, held to the same limits as one that comes by RPC; refusals name its lines."""
    parsed = goalfile.read(content, filename)
    return translate_goal.read_goal(parsed.goal)._replace(locate=parsed.locate)
