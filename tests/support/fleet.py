"""A whole fleet of real processes on one machine: a hub on LMDB, sidecars, and what a caller needs to talk to them.

Everything waits on what the hub tells (its watches) or on files that tasks leave; nothing waits for a time to pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import duration_pb2

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    event_pb2,
    goal_service_pb2_grpc,
    hub_pb2,
    hub_service_pb2,
    hub_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    repo_pb2,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
)
from kit import channel, errors, status
from tests.support.processes import LOOK_EVERY_S, PATIENCE_S, Process, until

Task = task_pb2.Task
SUCCEEDED = Task.STATE_SUCCEEDED
DEAD = Task.STATE_DEAD
FINAL = frozenset({SUCCEEDED, DEAD, Task.STATE_CANCELLED})

#: A pace at which losses are noticed soon and two busy cores still keep it.
BRISK = {"engine_lease_s": 4.0, "engine_heartbeat_s": 0.5, "engine_sweep_s": 0.5}
# Commands of these tests signal through files outside of their working tree; those of the sandbox turn it on.
SIDECAR = {
    "timeout_reconnect_base_s": 0.05,
    "timeout_reconnect_cap_s": 0.5,
    "timeout_kill_grace_s": 0.5,
    "sandbox_mode": "off",
}


class Fleet:
    """A hub and its sidecars, in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "hub"
        self.address = ""
        self.hub: Process | None = None
        self.sidecars: dict[str, Process] = {}
        #: Bound of each wait below.
        self.patience_s = PATIENCE_S
        self._hub_settings: dict[str, object] = {}
        self._processes: list[Process] = []
        self._channel: grpc.aio.Channel | None = None

    # Processes

    async def start_hub(self, **settings: object) -> None:
        """Start a hub; the settings are named as its environment names them (`engine_lease_s=2`)."""
        self._hub_settings = {**BRISK, **settings}
        await self._run_hub("127.0.0.1:0")

    async def restart_hub(self, **settings: object) -> None:
        """Start it again on the same data and the same port."""
        self._hub_settings |= settings
        await self._run_hub(self.address)

    async def kill_hub(self) -> None:
        """End the hub as a crash would."""
        assert self.hub is not None
        await self.hub.kill()

    async def start_sidecar(
        self, agent: str, *, slots: int = 1, executors: str = "shell", address: str = "", **settings: object
    ) -> Process:
        """Start a sidecar, or start it again on its own folder."""
        words = ("--hub", address or self.address, "--agent", agent, "--state-dir", str(self.root / agent))
        more = ("--slots", str(slots), "--executors", executors)
        process = await Process.start(
            f"sidecar {agent}",
            [*self._command("sidecar"), *words, *more],
            log=self.root / f"{agent}.log",
            environment=_environment("SIDECAR", {**SIDECAR, **settings}),
        )
        self._processes.append(process)
        self.sidecars[agent] = process
        return process

    async def start_sidecars(self, *agents: str, slots: int = 1, **settings: Any) -> None:
        """Start several and wait until the hub would give each of them work."""
        for agent in agents:
            await self.start_sidecar(agent, slots=slots, **settings)
        for agent in agents:
            await self.until_agent(agent, agent_pb2.Agent.STATE_IDLE)

    async def close(self) -> None:
        """End everything that still runs: sidecars first, at once, for the test is over."""
        if self._channel is not None:
            await self._channel.close()
        for process in reversed(self._processes):
            await process.kill()

    def logs(self) -> list[tuple[str, str]]:
        """The end of each log, for a failure."""
        files = sorted(self.root.glob("*.log"))
        return [(file.name, file.read_text(errors="replace")[-6_000:]) for file in files]

    # Talking to the hub

    @property
    def channel(self) -> grpc.aio.Channel:
        """A channel to the hub; it outlives the hub's restarts."""
        if self._channel is None:
            self._channel = channel.open_channel(channel.parse_address(self.address))
        return self._channel

    @property
    def tasks(self) -> Any:
        return _Bound(task_service_pb2_grpc.TaskServiceStub(self.channel))

    @property
    def agents(self) -> Any:
        return _Bound(agent_service_pb2_grpc.AgentServiceStub(self.channel))

    @property
    def goals(self) -> Any:
        return _Bound(goal_service_pb2_grpc.GoalServiceStub(self.channel))

    @property
    def registry(self) -> Any:
        return _Bound(registry_service_pb2_grpc.RegistryServiceStub(self.channel))

    @property
    def hubs(self) -> Any:
        return _Bound(hub_service_pb2_grpc.HubServiceStub(self.channel))

    async def add_repo(self, repo: str, url: Path, **options: Any) -> str:
        """File a repo; returns its name."""
        request = registry_service_pb2.CreateRepoRequest(repo_id=repo, repo=repo_pb2.Repo(url=str(url), **options))
        return str((await self.registry.CreateRepo(request)).repo.name)

    async def submit(self, *specs: task_pb2.TaskSpec) -> list[str]:
        """File tasks in one batch; returns their names."""
        request = task_service_pb2.BatchCreateTasksRequest(specs=specs)
        return list((await self.tasks.BatchCreateTasks(request)).tasks)

    async def task(self, name: str) -> task_pb2.Task:
        """A task with its attempts."""
        return (await self.tasks.GetTask(task_service_pb2.GetTaskRequest(name=name))).task  # type: ignore[no-any-return]  # the stubs do not say what a call returns

    async def agent(self, agent: str) -> agent_pb2.Agent:
        """An agent as it is now. Raises NotFound."""
        request = agent_service_pb2.GetAgentRequest(name=f"agents/{agent}")
        try:
            return (await self.agents.GetAgent(request)).agent  # type: ignore[no-any-return]  # the stubs do not say what a call returns
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error

    async def stats(self) -> hub_pb2.Stats:
        """The hub's figures."""
        return (await self.hubs.GetStats(hub_service_pb2.GetStatsRequest())).stats  # type: ignore[no-any-return]  # the stubs do not say what a call returns

    # Waiting

    async def until_tasks(
        self, names: Iterable[str], states: int | Iterable[int] = SUCCEEDED, *, patience_s: float | None = None
    ) -> dict[str, task_pb2.Task]:
        """Return the tasks when each is in one of `states`; one that ends otherwise fails the test at once."""
        patience_s = self.patience_s if patience_s is None else patience_s
        wanted = {states} if isinstance(states, int) else set(states)
        names, seen = list(names), dict[str, task_pb2.Task]()
        watch = self.tasks.WatchTasks(
            task_service_pb2.WatchTasksRequest(names=names, position=-1), timeout=patience_s + 5
        )
        try:
            async with asyncio.timeout(patience_s):
                async for message in watch:
                    if message.HasField("task"):
                        seen[message.task.name] = message.task
                    astray = [t for t in seen.values() if t.state in FINAL and t.state not in wanted]
                    assert not astray, f"ended otherwise: {_told(astray[0])}"
                    if len(seen) == len(names) and all(task.state in wanted for task in seen.values()):
                        return seen
        except TimeoutError:
            late = [task for task in seen.values() if task.state not in wanted]
            raise AssertionError(f"after {patience_s:.0f} s still so: {[_told(task) for task in late]}") from None
        finally:
            watch.cancel()
        raise AssertionError("the watch ended by itself")

    async def until_events(
        self, type_: str, count: int = 1, *, subject: str = "", position: int = -1
    ) -> list[event_pb2.Event]:
        """The first `count` events of a type (about a subject) behind a position, when there are so many."""
        found: list[event_pb2.Event] = []
        try:
            async with asyncio.timeout(self.patience_s), self._follow(position, type_) as events:
                async for event in events:
                    if event.type == type_ and subject in ("", event.subject):
                        found.append(event)
                    if len(found) == count:
                        return found
        except TimeoutError:
            raise AssertionError(f"after {self.patience_s:.0f} s {len(found)} of {count} {type_} {subject}") from None
        raise AssertionError("the watch ended by itself")

    async def until_agent(self, agent: str, state: int) -> agent_pb2.Agent:
        """Return an agent when it is in that state. It is asked for: some of its states come without an event."""
        newest = agent_pb2.Agent()
        try:
            async with asyncio.timeout(self.patience_s):
                while newest.state != state:
                    await asyncio.sleep(LOOK_EVERY_S)
                    with contextlib.suppress(errors.NotFound):
                        newest = await self.agent(agent)
        except TimeoutError:
            told = agent_pb2.Agent.State.Name(newest.state)
            raise AssertionError(f"after {self.patience_s:.0f} s agents/{agent} is still {told}") from None
        return newest

    async def position(self) -> int:
        """Position of the newest event."""
        return int((await self.hubs.GetHub(hub_service_pb2.GetHubRequest())).hub.event_position)

    async def history(self) -> list[event_pb2.Event]:
        """Every event so far, oldest first."""
        last = await self.position()
        found: list[event_pb2.Event] = []
        async with asyncio.timeout(self.patience_s), self._follow(-1) as events:
            async for event in events:
                found.append(event)
                if event.position >= last:
                    return found
        raise AssertionError("the watch ended by itself")

    @contextlib.asynccontextmanager
    async def _follow(self, position: int, prefix: str = "") -> AsyncIterator[AsyncIterator[event_pb2.Event]]:
        request = hub_service_pb2.WatchEventsRequest(position=position, type_prefix=prefix)
        watch = self.hubs.WatchEvents(request, timeout=self.patience_s + 5)
        try:
            yield (message.event async for message in watch if message.HasField("event"))
        finally:
            watch.cancel()

    def _command(self, node: str) -> list[str]:
        """How a node's program is begun."""
        return [sys.executable, "-m", node]

    async def _run_hub(self, listen: str) -> None:
        file = self.data / "hub.addr"
        file.unlink(missing_ok=True)  # one that a killed hub left would be taken for this one's
        self.hub = await Process.start(
            "hub",
            [*self._command("hub"), "--listen", listen, "--data", str(self.data)],
            log=self.root / "hub.log",
            environment=_environment("HUB", self._hub_settings),
        )
        self._processes.append(self.hub)
        await self.hub.until(lambda: file.exists() and file.read_text().endswith("\n"), PATIENCE_S)
        self.address = file.read_text().strip()


class _Bound:
    """A stub whose calls have a deadline and wait for a hub that starts again."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._stub, method)
        return lambda request, **options: call(request, **{"timeout": PATIENCE_S, "wait_for_ready": True, **options})


def spec(title: str = "a task", command: str = "true", **options: Any) -> task_pb2.TaskSpec:
    """A contract; times are given in seconds."""
    for key in ("run_timeout", "silence_timeout", "start_timeout"):
        if key in options:
            options[key] = duration_pb2.Duration(seconds=options[key])
    return task_pb2.TaskSpec(title=title, command=command, **options)


async def appears(path: Path) -> Path:
    """Return a file's path when it is there."""
    await until(path.exists, f"{path.name} is there")
    return path


def _environment(node: str, settings: dict[str, object]) -> dict[str, str]:
    chosen = {"log_form": "json", **settings}
    return {f"AGENTCOM_{node}_{key.upper()}": str(value) for key, value in chosen.items()}


def _told(task: task_pb2.Task) -> str:
    state = Task.State.Name(task.state)
    return f"{task.name} ({task.spec.title}) {state} {task.state_reason} {task.failure}".strip()
