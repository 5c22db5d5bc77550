"""Which index entries a record has: pure functions from a record to keys.

Theory. An index entry is never written by hand. Whoever writes a record compares the entries of the record before
with those of the record after, and writes the difference; so an index cannot be forgotten and cannot be stale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from hub.core import change as change_core
from hub.core import goal as goal_core
from hub.core import task as task_core
from hub.core.agent import Agent
from hub.core.change import Change
from hub.core.goal import Goal, Plan
from hub.core.repo import Repo
from hub.core.task import Task
from hub.core.token import Token
from hub.store import codec, keys
from hub.store.base import Ended

R = TypeVar("R")

ON_TRAIN: Final = frozenset({change_core.State.WAITING, change_core.State.MERGING})


class Kind(NamedTuple, Generic[R]):
    """How a table keeps its records."""

    prefix: bytes
    codec: codec.Codec[R]
    id_of: Callable[[R], str]
    entries: Callable[[R], tuple[bytes, ...]] | None = None


def of_task(task: Task) -> tuple[bytes, ...]:
    """Entries of a task: by state and lane, ready, held, due, goal, ended."""
    id = task.id.encode()
    state = task.state
    entries = [keys.by_state(state, task.lane) + id]
    if state is task_core.State.QUEUED:
        queued_at = task.queued_at if task.queued_at is not None else task.created_at
        entries.append(keys.ready_entry(task.class_id, task.lane, queued_at, task.id))
    elif state in task_core.HELD and task.agent:
        entries.append(keys.held(task.agent) + id)
    elif state in task_core.FINAL:
        sort = Ended.DEAD_TASK if state is task_core.State.DEAD else Ended.TASK
        entries.append(keys.ended(sort, task.updated_at if task.ended_at is None else task.ended_at) + id)
    if task.wake_at is not None:
        entries.append(keys.due(task.wake_at) + id)
    if task.goal:
        entries.append(keys.of_goal(task.goal) + id)
    return tuple(entries)


def _of_goal(goal: Goal) -> tuple[bytes, ...]:
    if goal.state not in goal_core.FINAL:
        return ()
    sort = Ended.FAILED_GOAL if goal.state is goal_core.State.FAILED else Ended.GOAL
    return (keys.ended(sort, goal.updated_at if goal.ended_at is None else goal.ended_at) + goal.id.encode(),)


def _of_change(change: Change) -> tuple[bytes, ...]:
    if change.state in ON_TRAIN:
        return (keys.train(change.repo) + change.id.encode(),)
    at = change.updated_at if change.ended_at is None else change.ended_at
    return (keys.ended(Ended.CHANGE, at) + change.id.encode(),)


def _of_token(token: Token) -> tuple[bytes, ...]:
    id = token.id.encode()
    by_hash = keys.token_hash(token.secret_sha256) + id
    void = [at for at in (token.revoked_at, token.expires_at) if at is not None]
    return (by_hash, keys.ended(Ended.TOKEN, min(void)) + id) if void else (by_hash,)


AGENTS: Final = Kind[Agent](keys.AGENT, codec.AGENT, lambda agent: agent.id)
GOALS: Final = Kind[Goal](keys.GOAL, codec.GOAL, lambda goal: goal.id, _of_goal)
PLANS: Final = Kind[Plan](keys.PLAN, codec.PLAN, lambda plan: plan.goal)
CHANGES: Final = Kind[Change](keys.CHANGE, codec.CHANGE, lambda change: change.id, _of_change)
REPOS: Final = Kind[Repo](keys.REPO, codec.REPO, lambda repo: repo.id)
TOKENS: Final = Kind[Token](keys.TOKEN, codec.TOKEN, lambda token: token.id, _of_token)
