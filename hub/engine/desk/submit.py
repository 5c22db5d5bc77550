"""Tasks come in: checked, filed and, where a slot is free, assigned in the same commit.

The hottest path of the hub. An idle slot is reserved before the transaction, so that filing and assigning cost one
fsync, and given back after it, whatever became of it: what was assigned is a holding by then, and the sessions have
heard of it from the events of the commit. Nothing is kept in memory for a task that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from hub.core import contract
from hub.core import task as core
from hub.core.task import Requirement, Task, TaskSpec
from hub.engine.desk import hubstate
from hub.engine.live.context import Context
from hub.engine.live.dispatch import Dispatcher
from hub.engine.script import queue, requests
from hub.store.base import Reader, Txn
from kit import errors

FULL_RETRY_S: Final = 10.0
"""A full queue drains by thousands in this time."""

ROOM_LOOK_S: Final = 1.0
"""The tasks that wait are counted this often at most; between two looks the submitted ones are added."""

UNDER_WAY_S: Final = 10.0
"""Longer than any commit on a disk that works; on one that does not, slots are the smaller worry."""

VIOLATIONS_MAX: Final = 100
"""Broken rules of a batch that are told; its caller mends those first."""


class Filed(NamedTuple):
    """A task with its contract."""

    task: Task
    spec: TaskSpec


class Submitter:
    """Takes tasks in."""

    def __init__(self, ctx: Context, dispatcher: Dispatcher) -> None:
        self._ctx = ctx
        self._dispatcher = dispatcher
        self._waiting = 0
        self._counted_at = float("-inf")

    def check(self, spec: TaskSpec) -> None:
        """Everything that `create` would refuse, without filing anything."""
        hubstate.refuse_when_draining(self._ctx)
        contract.check(spec, self._ctx.clock.now())

        def read(reader: Reader) -> None:
            _known(reader, spec, "spec")
            for index, id in enumerate(spec.depends_on):
                if reader.task(id) is None:
                    field = f"spec.depends_on[{index}]"
                    raise errors.NotFound(
                        f"{field}: there is no tasks/{id}", reason="TASK_NOT_FOUND", metadata={"field": field}
                    )

        self._ctx.store.read(read)

    async def create(self, spec: TaskSpec, request: requests.Request) -> Filed:
        """File one task; durable when this returns. A repeat of the request gives the task that it made."""
        ctx = self._ctx
        now = ctx.clock.now()
        self._admit(1, now)
        contract.check(spec, now)
        task_id = ctx.ids.new(now)
        actor, window_at = request.principal, now + ctx.settings.request_window_s
        agent = self._dispatcher.reserve(spec.requirement) if _at_once(spec, now) else ""

        def write(txn: Txn) -> Filed:
            if request.id:
                known = requests.answered(txn, request, now)
                if known is not None:
                    return _made(txn, known.removeprefix("tasks/"))
            _known(txn, spec, "spec")
            task, _ = queue.submit(txn, task_id, spec, now, actor=actor, agent=agent)
            requests.remember(txn, request, f"tasks/{task_id}", window_at)
            return Filed(task, spec)

        try:
            return await ctx.store.write(write)
        except asyncio.CancelledError:
            await self._under_way()
            raise
        finally:
            self._dispatcher.release(agent)

    async def create_many(self, specs: Sequence[TaskSpec], request: requests.Request) -> list[str]:
        """File many tasks in one transaction, all or none; their ids in the order given."""
        ctx = self._ctx
        now = ctx.clock.now()
        self._admit(len(specs), now)
        broken = [v for index, spec in enumerate(specs) for v in contract.violations(spec, now, f"specs[{index}]")]
        if broken:
            raise errors.Invalid(violations=broken[:VIOLATIONS_MAX])
        task_ids = [ctx.ids.new(now) for _ in specs]
        actor, window_at = request.principal, now + ctx.settings.request_window_s
        agents = self._reserve(specs, now)

        def write(txn: Txn) -> list[str]:
            known = requests.answered(txn, request, now)
            if known is not None:
                return known.split()
            for index, (id, spec, agent) in enumerate(zip(task_ids, specs, agents, strict=True)):
                field = f"specs[{index}]"
                _known(txn, spec, field)
                try:
                    queue.submit(txn, id, spec, now, actor=actor, agent=agent)
                except errors.Problem as problem:
                    problem.metadata["task"] = field
                    raise
            requests.remember(txn, request, " ".join(task_ids), window_at)
            return task_ids

        try:
            return await ctx.store.write(write)
        except asyncio.CancelledError:
            await self._under_way()
            raise
        finally:
            for agent in agents:
                self._dispatcher.release(agent)

    def _reserve(self, specs: Sequence[TaskSpec], now: float) -> list[str]:
        """An idle agent for each task that can start at once; empty where there is none."""
        agents = []
        none_left: set[Requirement] = set()  # a class that got nothing gets nothing for its later tasks either
        for spec in specs:
            agent = ""
            if spec.requirement not in none_left and _at_once(spec, now):
                agent = self._dispatcher.reserve(spec.requirement)
                if not agent:
                    none_left.add(spec.requirement)
            agents.append(agent)
        return agents

    async def _under_way(self) -> None:
        """A caller has gone while its transaction was under way: wait for it, its slots are not free before.

        Transactions are carried out in order, so it has ended when a later one has.
        """
        with contextlib.suppress(TimeoutError, errors.Problem):
            async with asyncio.timeout(UNDER_WAY_S):
                await self._ctx.store.write(lambda _txn: None, essential=True)

    def _admit(self, count: int, now: float) -> None:
        """Raise when the hub drains or the queue is full."""
        ctx = self._ctx
        hubstate.refuse_when_draining(ctx)
        if now - self._counted_at >= ROOM_LOOK_S or now < self._counted_at:
            counts = ctx.store.read(lambda reader: reader.counts())
            self._waiting = sum(n for (state, _), n in counts.items() if state in core.WAITING)
            self._counted_at = now
        if self._waiting + count > ctx.settings.queue_max:
            self._counted_at = float("-inf")
            raise errors.Exhausted(
                f"{self._waiting} tasks wait, and the bound is {ctx.settings.queue_max}",
                reason="QUEUE_FULL",
                metadata={"waiting": self._waiting, "limit": ctx.settings.queue_max},
                retry_delay_s=FULL_RETRY_S,
            )
        self._waiting += count


def _at_once(spec: TaskSpec, now: float) -> bool:
    return not spec.depends_on and (spec.start_at is None or spec.start_at <= now)


def _known(reader: Reader, spec: TaskSpec, field: str) -> None:
    """Raise NotFound when the contract names a repo or an agent that is not there."""
    requirement = spec.requirement
    if requirement.repo and reader.repos.get(requirement.repo) is None:
        raise errors.NotFound(
            f"{field}.repo: there is no repos/{requirement.repo}",
            reason="REPO_NOT_FOUND",
            metadata={"field": f"{field}.repo", "name": f"repos/{requirement.repo}"},
        )
    if requirement.agent and reader.agents.get(requirement.agent) is None:
        raise errors.NotFound(
            f"{field}.requirement.agent: there is no agents/{requirement.agent}",
            reason="AGENT_NOT_FOUND",
            metadata={"field": f"{field}.requirement.agent", "name": f"agents/{requirement.agent}"},
        )


def _made(txn: Txn, task_id: str) -> Filed:
    """What a request made before. Raises NotFound when it was deleted meanwhile."""
    task = queue.found(txn, task_id)
    spec = txn.spec(task_id)
    assert spec is not None, task_id
    return Filed(task, spec)
