"""Does an agent really work? It shows as idle at the hub, and a task that is pinned to it prints what it should."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from typing import NamedTuple

from google.protobuf import duration_pb2, timestamp_pb2

from agentcom.v1 import agent_pb2, agent_service_pb2, task_pb2, task_service_pb2
from cli import goal_board, task_watch, words
from cli.onboarding import service
from cli.session import Session
from kit import errors

# A sidecar that starts on a busy machine, and its self-test: git, the sandbox, each executor.
IDLE_S = 90.0
# A self-test that fails is told at once; a moment is left for one that fails only because everything starts now.
BLOCKED_S = 10.0
LOOK_EVERY_S = 0.2
# An agent may be given waiting work before ours; it then waits for a slot.
TRIAL_S = 600.0
RUN_S = 300
READY = frozenset({agent_pb2.Agent.STATE_IDLE, agent_pb2.Agent.STATE_ASSIGNED, agent_pb2.Agent.STATE_WORKING})
LABEL = "agentcom-onboarding"


class Trial(NamedTuple):
    """One trial, which may be cut off and tried again."""

    id: str
    #: Seconds since the epoch; its tasks are given up TRIAL_S later.
    begun_at: int

    def is_stale(self, now: float) -> bool:
        """Is too little of its time left?"""
        return not 0 <= now - self.begun_at < TRIAL_S / 2


async def until_ready(session: Session, name: str, keeper: service.Service) -> str:
    """Wait until the hub would give it work; what it offers. Raises IllegalState when it does not come to that."""
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    blocked_at: float | None = None
    while True:
        agent = await get(session, name)
        if agent.state in READY:
            return _offered(agent)
        if not await asyncio.to_thread(keeper.is_running):
            raise errors.Unavailable(f"the sidecar ended by itself; the end of what it logged:\n{keeper.tail()}")
        now = loop.time()
        if agent.state != agent_pb2.Agent.STATE_BLOCKED:
            blocked_at = None
        elif blocked_at is None:
            blocked_at = now
        if now - begun_at > IDLE_S or (blocked_at is not None and now - blocked_at > BLOCKED_S):
            raise errors.IllegalState(_why_not(agent), state=state_word(agent))
        await asyncio.sleep(LOOK_EVERY_S)


async def run(session: Session, name: str, trial: Trial, repo: str = "") -> str:
    """File a task that only this agent may have, and wait for its end; what it did. Raises IllegalState.

    The same trial files one task only, however often it is tried.
    """
    # Only who runs the command prints its result: the two halves stand apart in the task itself.
    first, second = (hashlib.sha256(f"{trial.id} {repo} {part}".encode()).hexdigest()[:12] for part in "ab")
    spec = task_pb2.TaskSpec(
        title=f"does {name} work{f' in {words.short_name(repo)}' if repo else ''}?",
        command=f"{'git rev-parse HEAD && ' if repo else ''}printf '%s-%s\\n' {first} {second}",
        repo=repo,
        lane=task_pb2.LANE_URGENT,
        delivery=task_pb2.DELIVERY_NONE,
        attempts_max=1,
        requirement=task_pb2.Requirement(agent=words.full_name("agents", name)),
        labels={LABEL: name},
        run_timeout=duration_pb2.Duration(seconds=RUN_S),
        queue_deadline=timestamp_pb2.Timestamp(seconds=trial.begun_at + int(TRIAL_S)),
    )
    position = await session.position()
    ask = task_service_pb2.CreateTaskRequest(spec=spec, request_id=f"{trial.id}-{first}")
    task = (await session.call(session.tasks.CreateTask, ask)).task
    task = await _until_final(session, task.name, position)
    if task.state != task_pb2.Task.STATE_SUCCEEDED:
        why = goal_board.why(task) or task.state_reason
        raise errors.IllegalState(
            f"the test task {task.name} is {goal_board.task_state(task)}: {why} (agentcom task show {task.name})",
            state=goal_board.task_state(task),
        )
    log = (await task_watch.get_artifact(session, task.name, "log", 0)).artifact.content.decode("utf-8", "replace")
    if f"{first}-{second}" not in log:
        raise errors.IllegalState(
            f"the test task {task.name} succeeded, but its log has not what it prints", state="odd"
        )
    return f"{task.name} ran in {_seconds(task)}{f', in a clone of {words.short_name(repo)}' if repo else ''}"


async def get(session: Session, name: str) -> agent_pb2.Agent:
    """An agent as the hub sees it. Raises NotFound."""
    ask = agent_service_pb2.GetAgentRequest(name=words.full_name("agents", name))
    return (await session.call(session.agents.GetAgent, ask)).agent


def state_word(agent: agent_pb2.Agent) -> str:
    """`idle`, `working`, ..."""
    return words.enum_word(agent_pb2.Agent.State, agent.state, "STATE_")


async def _until_final(session: Session, name: str, position: int) -> task_pb2.Task:
    def ask(at: int) -> object:
        return task_service_pb2.WatchTasksRequest(names=[name], position=at)

    try:
        async with (
            asyncio.timeout(TRIAL_S),
            aclosing(session.follow(session.tasks.WatchTasks, ask, position)) as stream,
        ):
            # Filed by a try before this one, it may have ended long ago.
            task = await task_watch.get(session, name)
            if task.state in task_watch.FINAL:
                return task
            async for message in stream:
                if message.HasField("task") and message.task.state in task_watch.FINAL:
                    return await task_watch.get(session, name)
    except TimeoutError as error:
        raise errors.IllegalState(
            f"the test task {name} has not ended in {TRIAL_S:.0f} s: agentcom task explain {name}", state="waiting"
        ) from error
    raise AssertionError("a watch never ends by itself")


def _offered(agent: agent_pb2.Agent) -> str:
    offer = agent.offer
    slots = "1 slot" if offer.slots == 1 else f"{offer.slots} slots"
    return ", ".join((state_word(agent), slots, *offer.executors, *(["sandbox"] if offer.sandbox else [])))


def _why_not(agent: agent_pb2.Agent) -> str:
    failed = [f"{finding.probe}: {finding.message}" for finding in agent.self_test.findings if not finding.passed]
    why = "; ".join(failed) or agent.state_reason or "it said nothing"
    advice = {
        agent_pb2.Agent.STATE_DRAINING: f"; agentcom agent resume {words.short_name(agent.name)} gives it work again",
        agent_pb2.Agent.STATE_ISOLATED: f"; agentcom agent resume {words.short_name(agent.name)} ends that",
    }
    return f"{agent.name} is {state_word(agent)}: {why}{advice.get(agent.state, '')}"


def _seconds(task: task_pb2.Task) -> str:
    last = task.attempts[-1] if task.attempts else None
    return (words.span_text(last.start_time, last.end_time) if last is not None else "") or "no time"
