"""The clients: they submit, ask again when they heard nothing, change their minds, and steer; the log has all of it.

Each knows only what the hub told it. A request without an answer is sent again with the same request id: whatever was
done, it was done once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from agentcom.v1 import (
    agent_service_pb2_grpc,
    goal_service_pb2_grpc,
    registry_service_pb2_grpc,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
)
from kit import errors, status
from tests.oracle.record import Verb
from tests.sim.channel import SimChannel
from tests.sim.people import TASKS_MAX, People
from tests.sim.process import Clock
from tests.sim.world import REPO, World

TRIES = 12
TIMEOUT_S = 20.0
UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Clients(People):
    """One process with all clients."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "clients", Clock(world.loop))
        channel: Any = SimChannel(world.net, self)
        self.task_service = task_service_pb2_grpc.TaskServiceStub(channel)
        self.goal_service = goal_service_pb2_grpc.GoalServiceStub(channel)
        self.agent_service = agent_service_pb2_grpc.AgentServiceStub(channel)
        self.repo_service = registry_service_pb2_grpc.RegistryServiceStub(channel)
        self.dice = world.dice("clients")
        self.known: list[str] = []
        self.known_goals: list[str] = []
        self._count = 0
        self.filed = 0
        self.watched = 0
        self._watching: list[asyncio.Task[Any]] = []

    def interrupted(self, place: str) -> float:
        return 0.0

    def start(self) -> None:
        """Everything that the mix wants, as often as it wants."""
        for what in ("submit", "batch", "goal", "cancel", "retry", "pause", "drain_agent", "pause_repo", "pause_goal"):
            self._often(what)
        for what in ("delete", "claim", "watch", "burst", "tail", "delete_agent"):
            self._often(what)
        for what in ("rename_agent", "rotate_token", "token", "repo", "watch_goals", "drain_hub"):
            self._often(what)

    def _often(self, what: str) -> None:
        rate = self.world.mix.hourly(f"client.{what}")
        if rate:
            self.spawn(self._now_and_then(getattr(self, f"_{what}"), rate, self.world.dice("client", what), what))

    async def _now_and_then(self, do: Any, per_hour: float, dice: Any, what: str) -> None:
        while not self.world.healed:
            await asyncio.sleep(dice.expovariate(per_hour / 3600.0))
            if not self.world.healed:
                self.world.tally.faults[f"client.{what}"] += 1
                self.spawn(do())

    async def ask(self, call: Any, request: Any, *, tries: int = TRIES) -> Any:
        """The answer; None: refused, or nobody ever answered. What goes wrong with INTERNAL is a finding."""
        for attempt in range(tries):
            try:
                return await call(request, timeout=TIMEOUT_S, metadata=(("name", "clients"),))
            except grpc.aio.AioRpcError as error:
                problem = status.from_rpc_error(error)
                again = error.code() in UNKNOWN or isinstance(problem, errors.Exhausted)
                if not again:
                    return problem
                await asyncio.sleep((problem.retry_delay_s or 1.0) + attempt * self.dice.random())
        return None

    # Tasks

    def _request_id(self, poison: bool = False) -> str:
        self._count += 1
        return f"request-{self._count:06d}{'-poison' if poison else ''}"

    def _spec(self, title: str) -> task_pb2.TaskSpec:
        dice, scale = self.dice, self.world.mix.scale
        spec = task_pb2.TaskSpec(title=title, command="true")
        spec.lane = dice.choice(list(task_pb2.Lane.values()))
        spec.run_timeout.seconds = int(min(86_400, 200 * scale))
        spec.silence_timeout.seconds = int(min(86_400, self.world.mix.stuck_s / 5 * scale))
        if dice.random() < 0.3:
            spec.attempts_max = dice.randrange(1, 5)
        if dice.random() < 0.3:
            spec.checks.add(id="c1", run="make test")
        if dice.random() < 0.15:
            spec.requirement.agent = f"agents/{dice.choice(list(self.world.machines))}"
        if dice.random() < 0.2:
            spec.tier, spec.instructions = task_pb2.TIER_STANDARD, "think"
        if dice.random() < 0.4 and self.known:
            known = sorted({dice.choice(self.known[-5:]), dice.choice(self.known[-20:])})
            spec.depends_on.extend(f"tasks/{id}" for id in known)
        if dice.random() < 0.2:
            spec.repo = f"repos/{REPO}"
            spec.checks.add(id="c2", run="make check")
            spec.delivery = dice.choice((task_pb2.DELIVERY_BRANCH, task_pb2.DELIVERY_MERGE))
        if dice.random() < 0.1:
            spec.start_time.seconds = int(self.clock.now() + 60 * scale * dice.random())
        if dice.random() < 0.1:
            spec.queue_deadline.seconds = int(self.clock.now() + 60 + 120 * scale * dice.random())
        return spec

    async def _submit(self) -> None:
        if self.filed >= TASKS_MAX:
            return
        world = self.world
        poison = self.dice.random() < world.chance("hands.poison")
        request_id = self._request_id(poison)
        spec = self._spec(request_id)
        world.log.note("client/1", Verb.SUBMIT_SENT, request=request_id)
        answer = await self.ask(
            self.task_service.CreateTask, task_service_pb2.CreateTaskRequest(spec=spec, request_id=request_id)
        )
        if answer is None or isinstance(answer, errors.Problem):
            verb = Verb.SUBMIT_UNKNOWN if answer is None else Verb.SUBMIT_REFUSED
            world.log.note("client/1", verb, request=request_id, detail=f"{answer}")
            return
        self._filed(answer.task.name.removeprefix("tasks/"), request_id)

    def _filed(self, task: str, request_id: str) -> None:
        self.world.log.note("client/1", Verb.SUBMIT_ACKED, task=task, request=request_id)
        self.known.append(task)
        self.filed += 1

    async def _burst(self) -> None:
        for _ in range(self.dice.randrange(5, 30)):
            self.spawn(self._submit())

    async def _batch(self) -> None:
        if self.filed >= TASKS_MAX:
            return
        request_id = self._request_id()
        count = self.dice.randrange(1, 12)
        specs = [self._spec(f"{request_id}-{number}") for number in range(count)]
        answer = await self.ask(
            self.task_service.BatchCreateTasks,
            task_service_pb2.BatchCreateTasksRequest(specs=specs, request_id=request_id),
        )
        if answer is None or isinstance(answer, errors.Problem):
            return
        for number, name in enumerate(answer.tasks):
            self._filed(name.removeprefix("tasks/"), f"{request_id}-{number}")

    def _some(self) -> str:
        return f"tasks/{self.dice.choice(self.known[-self.dice.choice((2, 5, 40)) :])}"

    async def _cancel(self) -> None:
        if self.known:
            name = self._some()
            answer = await self.ask(self.task_service.CancelTask, task_service_pb2.CancelTaskRequest(name=name))
            if answer is not None and not isinstance(answer, errors.Problem):
                self.world.log.note("client/1", Verb.CANCEL_ACKED, task=name.removeprefix("tasks/"))

    async def _retry(self) -> None:
        """Of any task, or of one that is known to have ended badly."""
        if not self.known:
            return
        name = self._some()
        if self.dice.random() < 0.7:
            states = self.dice.choice(("DEAD", "CANCELLED", "PARKED"))
            listed = await self._list(states, tries=2)
            name = self.dice.choice(listed) if listed else name
        request = task_service_pb2.RetryTaskRequest(name=name, request_id=self._request_id())
        await self.ask(self.task_service.RetryTask, request)

    async def _list(self, state: str, *, tries: int = TRIES) -> list[str]:
        request = task_service_pb2.ListTasksRequest(page_size=1000, filter=f"state = {state}")
        answer = await self.ask(self.task_service.ListTasks, request, tries=tries)
        if answer is None or isinstance(answer, errors.Problem):
            return []
        return [task.name for task in answer.tasks]

    async def _delete(self) -> None:
        if self.known:
            await self.ask(self.task_service.DeleteTask, task_service_pb2.DeleteTaskRequest(name=self._some()))

    async def _claim(self) -> None:
        """Work by hand: held for a minute or more, reported now and then."""
        if not self.known:
            return
        agent = f"agents/{self.dice.choice(list(self.world.machines))}"
        waiting = await self._list("QUEUED", tries=1)
        name = self.dice.choice(waiting) if waiting else self._some()
        request = task_service_pb2.ClaimTaskRequest(name=name, agent=agent)
        request.lease.seconds = self.dice.choice((60, 600))
        answer = await self.ask(self.task_service.ClaimTask, request, tries=1)
        if answer is None or isinstance(answer, errors.Problem) or self.dice.random() < 0.3:
            return
        await asyncio.sleep(self.dice.random() * 100.0)
        report = task_service_pb2.ReportTaskRequest(holding=answer.holding)
        report.failure.reason, report.failure.message = "BY_HAND", "a person gave up"
        report.failure.attribution = self.dice.choice((task_pb2.ATTRIBUTION_TASK, task_pb2.ATTRIBUTION_AGENT))
        await self.ask(self.task_service.ReportTask, report)

    async def _watch(self) -> None:
        """Every event once and in order, across whatever breaks."""
        task = asyncio.current_task()
        assert task is not None
        self._watching.append(task)
        position = -1
        for _ in range(5):
            request = task_service_pb2.WatchTasksRequest(position=position)
            try:
                async for told in self.task_service.WatchTasks(request, metadata=(("name", "clients"),)):
                    before, position = position, told.position
                    if told.HasField("event"):
                        self.watched += 1
                        if told.position <= before:
                            self.world.trace.errors.append(f"a watch was told {told.position} after {before}")
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE:  # forgotten meanwhile
                    position = -1
                await asyncio.sleep(5.0)

    async def _tail(self) -> None:
        """Somebody looks at the output of a task for a while."""
        if not self.known:
            return
        task = asyncio.current_task()
        assert task is not None
        self._watching.append(task)
        running = await self._list("RUNNING", tries=1)
        name = self.dice.choice(running) if running else self._some()
        request = task_service_pb2.TailTaskLogRequest(name=name)
        try:
            async with asyncio.timeout(60.0 * self.world.mix.scale * self.dice.random()):
                async for piece in self.task_service.TailTaskLog(request, metadata=(("name", "clients"),)):
                    self.watched += len(piece.text)
        except (grpc.aio.AioRpcError, TimeoutError):
            pass
