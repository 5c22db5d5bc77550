"""The load: everything that people and sidecars do in a day, at a pace of about a third of what the machine can do.

Each hand goes on until it is told to stop, and bears that the hub is away for a while. What cheap work there can be
(claimed and reported by hand: no process is started) is there for the number of it: a leak of a few bytes in each call
shows only after many.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import duration_pb2

from agentcom.v1 import (
    agent_service_pb2,
    goal_pb2,
    goal_service_pb2,
    hub_pb2,
    hub_service_pb2,
    task_pb2,
    task_service_pb2,
)
from tests.faults.lab import Lab
from tests.oracle.record import Verb
from tests.support.fleet import spec

BY_HAND = "by-hand"
"""The agent whose work is claimed and reported by calls."""
STEADY, HARMED = "steady", "harmed"
"""The sidecar that is left alone, and the one that is not."""
RECENT = 200
AWAY_S = 0.2

WRONG = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
"""What no hand may be answered."""

Hand = Callable[[], Awaitable[None]]


class Load:
    """The hands, and what they have done."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.counts: dict[str, int] = {}
        self.stopping = asyncio.Event()
        self._recent: deque[str] = deque(maxlen=RECENT)
        self._reports = self._commands = 0

    def start(self, group: asyncio.TaskGroup, share: float = 1.0) -> None:
        """Set all hands to work; `share` makes them slower."""
        paces: list[tuple[str, Hand, float, int]] = [
            ("command", self._command, 0.25, 1),
            ("by hand", self._by_hand, 0.12, 3),
            ("goal", self._goal, 12.0, 1),
            ("read", self._read, 0.2, 1),
            ("watch", self._watch, 0.5, 2),
            ("bad request", self._bad, 0.3, 1),
            ("token", self._token, 4.0, 1),
            ("agent", self._agent, 20.0, 1),
        ]
        for name, hand, pace_s, count in paces:
            for number in range(count):
                group.create_task(self._keep(name, hand, pace_s / share), name=f"{name} {number}")

    async def _keep(self, name: str, hand: Hand, pace_s: float) -> None:
        rng = self.lab.rng
        while not self.stopping.is_set():
            try:
                await hand()
                self.counts[name] = self.counts.get(name, 0) + 1
            except grpc.aio.AioRpcError as error:
                if error.code() in WRONG:
                    raise
                told = f"{name}: {error.code().name}"
                self.counts[told] = self.counts.get(told, 0) + 1
                await asyncio.sleep(AWAY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pace_s * rng.uniform(0.5, 1.5))

    # Work

    async def _command(self) -> None:
        """A command for the sidecars: most succeed, some fail for good, some are cancelled, some retried."""
        rng = self.lab.rng
        fate = rng.random()
        command, options = "true", dict[str, Any]()
        self._commands += 1
        if self._commands % 20 == 0:  # never three in a row, which would isolate the agent
            command, options = "exit 3", {"attempts_max": 1}
        elif fate < 0.12:
            command = "sleep 5"
        elif fate < 0.2:
            command = "head -c 20000 /dev/zero | tr '\\0' x"
        elif fate < 0.3 and self._recent:
            options = {"depends_on": [rng.choice(self._recent)]}
        with contextlib.suppress(grpc.aio.AioRpcError):
            if fate < 0.02 and self._recent:
                await self._retry(rng.choice(self._recent))
        # Acknowledged or not is noted by the lab; a dependency may be gone by then.
        name = await self.lab.file(self.lab.request_id(), spec(command=command, **options), wait_for_ready=False)
        self._recent.append(name)
        if command == "sleep 5":
            await asyncio.sleep(rng.uniform(0.0, 0.5))
            await self._cancel(name)

    async def _cancel(self, name: str) -> None:
        id = name.removeprefix("tasks/")
        self.lab.note("client/1", Verb.CANCEL_SENT, task=id)
        await self.lab.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=name), wait_for_ready=False)
        self.lab.note("client/1", Verb.CANCEL_ACKED, task=id)

    async def _retry(self, name: str) -> None:
        self.lab.note("client/1", Verb.RETRY_SENT, task=name.removeprefix("tasks/"))
        await self.lab.tasks.RetryTask(task_service_pb2.RetryTaskRequest(name=name), wait_for_ready=False)

    async def _by_hand(self) -> None:
        """A task that is claimed and reported with an artefact."""
        lab = self.lab
        wanted = task_pb2.Requirement(agent=f"agents/{BY_HAND}")
        name = await lab.file(lab.request_id(), spec(requirement=wanted, attempts_max=1), wait_for_ready=False)
        lease = duration_pb2.Duration(seconds=60)
        claim = task_service_pb2.ClaimTaskRequest(name=name, agent=f"agents/{BY_HAND}", lease=lease)
        held = await lab.tasks.ClaimTask(claim, wait_for_ready=False)
        report = task_service_pb2.ReportTaskRequest(holding=held.holding)
        self._reports += 1
        if self._reports % 10 == 0:  # never three in a row, which would isolate the agent
            report.failure.CopyFrom(
                task_pb2.Failure(reason="EXIT_CODE", attribution=task_pb2.ATTRIBUTION_TASK, message="it exited with 1")
            )
        else:
            content = lab.rng.randbytes(lab.rng.randint(100, 20_000))
            artifact = task_pb2.Artifact(id="log", media_type="text/plain", content=content, size_bytes=len(content))
            report.result.CopyFrom(task_pb2.Result(summary="done", artifacts=[artifact]))
        await lab.tasks.ReportTask(report, wait_for_ready=False)

    async def _goal(self) -> None:
        """A goal with one change that is merged; sometimes cancelled on the way."""
        file = f"f{self.lab.rng.randrange(20)}.txt"
        check = task_pb2.Check(id="there", run=f"test -s {file}")
        contract = task_pb2.TaskSpec(title="a change", command=f"date +%s%N > {file}", checks=[check])
        planned = goal_pb2.PlanTask(id="T1", spec=contract, fulfills=["A1"])
        assertion = goal_pb2.Assertion(id="A1", text="it is there", check=check)
        goal = goal_pb2.Goal(title="a goal", repo="repos/demo", assertions=[assertion])
        goal.plan.tasks.append(planned)
        request = goal_service_pb2.CreateGoalRequest(goal=goal, request_id=self.lab.request_id())
        made = await self.lab.goals.CreateGoal(request, wait_for_ready=False)
        if self.lab.rng.random() < 0.2:
            await asyncio.sleep(self.lab.rng.uniform(0.0, 3.0))
            await self.lab.goals.CancelGoal(
                goal_service_pb2.CancelGoalRequest(name=made.goal.name), wait_for_ready=False
            )

    # Looking on

    async def _read(self) -> None:
        lab, rng = self.lab, self.lab.rng
        size = rng.choice((1, 50, 500))
        if rng.random() < 0.5 or not self._recent:
            await lab.tasks.ListTasks(task_service_pb2.ListTasksRequest(page_size=size), wait_for_ready=False)
            await lab.agents.ListAgents(agent_service_pb2.ListAgentsRequest(), wait_for_ready=False)
            return
        name = rng.choice(self._recent)
        await lab.tasks.ExplainTask(task_service_pb2.ExplainTaskRequest(name=name), wait_for_ready=False)
        await lab.tasks.ListTaskEvents(task_service_pb2.ListTaskEventsRequest(name=name), wait_for_ready=False)

    async def _watch(self) -> None:
        """A watch that comes and goes: read, left unread, or told nothing."""
        lab, rng = self.lab, self.lab.rng
        position = rng.choice((0, -1))
        kind = rng.randrange(3)
        if kind == 0:
            request: Any = hub_service_pb2.WatchEventsRequest(position=position)
            call = lab.hubs.WatchEvents(request, wait_for_ready=False, timeout=20)
        elif kind == 1 or not self._recent:
            request = task_service_pb2.WatchTasksRequest(position=position)
            call = lab.tasks.WatchTasks(request, wait_for_ready=False, timeout=20)
        else:
            request = task_service_pb2.TailTaskLogRequest(name=rng.choice(self._recent))
            call = lab.tasks.TailTaskLog(request, wait_for_ready=False, timeout=20)
        count, is_slow = 0, rng.random() < 0.3
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0.1, 3.0)):
                    async for _ in call:
                        count += 1
                        if is_slow:
                            await asyncio.sleep(0.5)
        finally:
            call.cancel()

    async def _bad(self) -> None:
        """What the hub must refuse."""
        lab, rng = self.lab, self.lab.rng
        tasks = lab.tasks
        wrong = (
            lambda: tasks.GetTask(task_service_pb2.GetTaskRequest(name="tasks/" + "0" * 20), wait_for_ready=False),
            lambda: tasks.GetTask(task_service_pb2.GetTaskRequest(name="x" * 5000), wait_for_ready=False),
            lambda: tasks.CreateTask(task_service_pb2.CreateTaskRequest(), wait_for_ready=False),
            lambda: tasks.ListTasks(task_service_pb2.ListTasksRequest(page_token="nonsense"), wait_for_ready=False),
            lambda: tasks.ListTasks(task_service_pb2.ListTasksRequest(filter=f"x{rng.random()}"), wait_for_ready=False),
            lambda: lab.hubs.GetStats(
                hub_service_pb2.GetStatsRequest(), metadata=(("authorization", "Bearer wrong"),), wait_for_ready=False
            ),
        )
        try:
            await rng.choice(wrong)()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE or error.code() in WRONG:
                raise
        else:
            raise AssertionError("a bad request was taken")

    async def _token(self) -> None:
        request = hub_service_pb2.CreateTokenRequest(
            scope=hub_pb2.SCOPE_VIEWER, display_name="a visitor", ttl=duration_pb2.Duration(seconds=60)
        )
        made = await self.lab.hubs.CreateToken(request, wait_for_ready=False)
        metadata = (("authorization", f"Bearer {made.secret}"),)
        await self.lab.hubs.GetHub(hub_service_pb2.GetHubRequest(), metadata=metadata, wait_for_ready=False)
        if self.lab.rng.random() < 0.7:
            await self.lab.hubs.RevokeToken(
                hub_service_pb2.RevokeTokenRequest(name=made.token.name), wait_for_ready=False
            )

    async def _agent(self) -> None:
        """An agent that comes and goes."""
        request = agent_service_pb2.EnrollAgentRequest(agent_id=f"guest-{self.lab.rng.randrange(10**9)}")
        made = await self.lab.agents.EnrollAgent(request, wait_for_ready=False)
        await self.lab.agents.DeleteAgent(
            agent_service_pb2.DeleteAgentRequest(name=made.agent.name), wait_for_ready=False
        )
