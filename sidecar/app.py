"""Puts a sidecar together and runs it to its end: the only place that names the concrete parts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import signal
import socket
import typing
from collections.abc import Iterator

from agentcom.v1 import agent_service_pb2_grpc
from kit import channel, clock, logs
from kit.version import VERSION
from sidecar import config, enrolment, telemetry
from sidecar.core.assignment import Kind
from sidecar.core.offer import Offer
from sidecar.hands.load import load
from sidecar.hands.runner import Runner
from sidecar.keys import Keys
from sidecar.wire import knock
from sidecar.wire.journal import Journal
from sidecar.wire.session import End, Session, SessionSettings
from sidecar.wire.state import StateFolder

log = logs.get(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run(settings: config.Settings) -> End:
    """Run until the session ends. Raises a Problem when it cannot begin."""
    address = channel.parse_address(settings.hub.address, field="hub.address")
    time, rng = clock.SystemClock(), random.Random()
    folder = StateFolder(settings.state_path)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(folder.close)
        keys = Keys(settings, address)
        dial = keys.dial
        # Stays open to the end, although the session dials its own: gRPC tears its engine down with the last channel.
        wire = dial()
        stack.push_async_callback(wire.close)
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(wire)
        with _signals(_Cancel()) as reins:
            identity = enrolment.known(settings, folder.path) or await enrolment.enrol(settings, folder.path, stub, rng)
            keys.metadata(identity.token)  # what must not be sent is refused before anything begins
            journal = Journal(folder.path)
            stack.callback(journal.close)
            stack.enter_context(logs.bound(agent=identity.agent))
            told = telemetry.of(settings.telemetry, telemetry.Who(VERSION, identity.agent), time)
            meter = telemetry.meter_of(told)
            runner = Runner(settings.runner(), time, rng, identity.agent, meter)
            stack.push_async_callback(runner.close)
            await runner.start()  # the offer says whether there is a sandbox
            session = Session(
                session_settings(settings, identity.agent, runner),
                dial=dial,
                metadata=functools.partial(keys.metadata, identity.token),
                worker=runner,
                journal=journal,
                load=functools.partial(load, settings.runner().work_dir),
                time=time,
                rng=rng,
                is_nobody_there=functools.partial(knock.is_nobody_there, address.host, address.port),
                meter=meter,
                loops=told.loops() if told is not None else (),
            )
            if told is not None:
                stack.push_async_callback(told.stop)
                seen = telemetry.Seen(session.holdings.slots, lambda: journal.size_bytes, settings.runner().work_dir)
                await told.start(seen)
            reins.session = session
            return await session.run()


def session_settings(settings: config.Settings, agent: str, runner: Runner) -> SessionSettings:
    """The session's part of the configuration."""
    times = settings.timeout
    return SessionSettings(
        agent=agent,
        offer=Offer(
            slots=settings.slots,
            capabilities=settings.capabilities,
            executors=runner.executors,
            tiers=runner.tiers,
            kinds=tuple(typing.cast("Kind", kind) for kind in settings.kinds if kind in runner.kinds),
            repos=tuple(repo if repo.startswith("repos/") else f"repos/{repo}" for repo in settings.repos),
            sandbox=runner.has_sandbox,
        ),
        version=VERSION,
        host=socket.gethostname(),
        reconnect_base_s=times.reconnect_base_s,
        reconnect_cap_s=times.reconnect_cap_s,
        healthy_s=times.healthy_s,
        welcome_timeout_s=times.welcome_s,
        drain_timeout_s=times.drain_s,
        stop_timeout_s=times.stop_s,
        farewell_timeout_s=times.farewell_s,
        self_test_every_s=times.self_test_every_s,
    )


class _Cancel:
    """What signals do: finish, then stop and save, then end at once. Before there is a session: end at once."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self._task = asyncio.current_task()
        self._count = 0

    def __call__(self, number: signal.Signals) -> None:
        self._count += 1
        log.info("process.signalled", signal=number.name, count=self._count)
        if self.session is None or self._count > 2:
            assert self._task is not None
            self._task.cancel()
        elif self._count == 1:
            self.session.drain(number.name)
        else:
            self.session.halt(number.name)


@contextlib.contextmanager
def _signals(reins: _Cancel) -> Iterator[_Cancel]:
    # kit.signals knows two steps (finish, cancel); a sidecar has a third between them: stop the work and save it.
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, reins, number)
    try:
        yield reins
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
