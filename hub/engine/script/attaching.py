"""Transactions of the sessions: an agent comes, comes back, and leaves; holdings are taken over or given up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from hub.core import attach
from hub.core.agent import Agent
from hub.core.holding import Holding
from hub.core.task import State
from hub.engine.script import work
from hub.store.base import Txn
from kit import errors


class Entry(NamedTuple):
    """An agent that says hello."""

    hello: attach.Hello
    session: str
    resumed: bool
    died: bool
    """Its last session was lost without goodbye, and this is another process."""
    in_flight: frozenset[Holding]
    """Assigned in the session that is resumed, and not acked: it is sent again."""


class Entered(NamedTuple):
    """What became of it."""

    agent: Agent
    adopted: tuple[Holding, ...]
    """What it brought along and goes on with, at the same generation."""
    lost: int
    """What it should hold and does not."""


class Loss(NamedTuple):
    """Why holdings are given up."""

    reason: str
    message: str
    died: bool
    revoke: str = ""


def enter(txn: Txn, entry: Entry, now: float, *, roll: float) -> Entered:
    """Take over what the agent holds, give up what it lost, and write down that it is here.

    A task that it was assigned and never accepted is left to it and sent again, which costs nothing: either it never
    heard of it, or it had not begun. Raises NotFound when the agent is gone.
    """
    hello = entry.hello
    agent = txn.agents.get(hello.agent)
    if agent is None:
        name = f"agents/{hello.agent}"
        raise errors.NotFound(f"there is no {name}", reason="AGENT_NOT_FOUND", metadata={"name": name})
    brought = set(hello.holdings)
    adopted, lost = [], []
    for task in txn.held_by(hello.agent):
        holding = Holding(task.id, task.generation)
        if task.claimed:
            continue
        if holding in brought:
            adopted.append(holding)
        elif holding not in entry.in_flight and task.state is not State.ASSIGNED:
            lost.append(holding)
    loss = Loss("FORGOTTEN", f"agents/{hello.agent} came back without it", entry.died)
    count = lose(txn, lost, loss, now, roll=roll)
    after = _seen(txn, agent, hello, now)
    fields = {"session": entry.session, "resumed": str(entry.resumed).lower(), "adopted": str(len(adopted))}
    txn.append(now, "agent.attached", f"agents/{hello.agent}", version=hello.version, host=hello.host, **fields)
    return Entered(after, tuple(adopted), count)


def lose(txn: Txn, holdings: Iterable[Holding], loss: Loss, now: float, *, roll: float) -> int:
    """Give holdings up; how many of them were still good."""
    count = 0
    for holding in holdings:
        try:
            work.lose(
                txn,
                holding,
                now,
                reason=loss.reason,
                message=loss.message,
                agent_died=loss.died,
                roll=roll,
                revoke=loss.revoke,
            )
        except errors.Fenced:
            continue  # reported or taken back meanwhile; the fence stands before any write
        count += 1
    return count


def left(txn: Txn, ended: Sequence[tuple[str, str, str]], now: float) -> None:
    """Streams have ended: (agent, session, how)."""
    for id, session, how in ended:
        agent = txn.agents.get(id)
        if agent is None:
            continue  # deleted, which is why it ended
        txn.agents.put(msgspec.structs.replace(agent, last_seen_at=now))
        txn.append(now, "agent.detached", f"agents/{id}", session=session, how=how)


def note_stuck(txn: Txn, holdings: Iterable[Holding], now: float, stuck_s: float) -> int:
    """Say of attempts that they show no progress."""
    count = 0
    for holding in holdings:
        task = txn.task(holding.task)
        if task is not None and task.generation == holding.generation and task.state is State.RUNNING:
            fields = {"agent": task.agent, "generation": str(task.generation), "quiet_s": f"{stuck_s:g}"}
            txn.append(now, "task.stuck", f"tasks/{task.id}", goal=task.goal, **fields)
            count += 1
    return count


def _seen(txn: Txn, agent: Agent, hello: attach.Hello, now: float) -> Agent:
    after = msgspec.structs.replace(
        agent,
        offer=hello.offer,
        version=hello.version,
        host=hello.host,
        last_seen_at=now,
        updated_at=now,
        revision=agent.revision + 1,
    )
    txn.agents.put(after)
    return after
