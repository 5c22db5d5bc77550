"""When an agent, and not its tasks, is at fault: isolation after failures in a row, and the refund of attempts.

Failures of ONE task do not isolate an agent (the task is bad); failures of different tasks in a row do. What the
tasks were charged meanwhile is given back, at most `REFUNDS_MAX` times a task: with bad tasks only and one agent,
refunds without a bound would keep the pair busy for ever.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hub.core.agent import Agent
from hub.core.holding import Holding

FAILURES_IN_ROW: Final = 3
"""Different tasks failed in a row after which an agent is isolated."""

ISOLATION_S: Final = 300.0
"""Long enough for a passing fault of a machine, short enough to lose little."""

REFUNDS_MAX: Final = 2
"""Attempts given back to one task at most."""


def succeeded(agent: Agent, now: float) -> Agent:
    """The agent after an accepted completion: the row of failures is over."""
    return msgspec.structs.replace(
        agent,
        failures_in_row=0,
        suspects=(),
        completed_count=agent.completed_count + 1,
        updated_at=now,
        revision=agent.revision + 1,
    )


def failed(agent: Agent, holding: Holding, *, charged: bool, now: float) -> tuple[Agent, tuple[Holding, ...]]:
    """The agent after a failure that may be its own, and the charged holdings to refund when that isolates it.

    Of an agent that is isolated already it is the same fault: what it still held when that was found out.
    """
    if isolated(agent, now):
        counted = msgspec.structs.replace(
            agent, failed_count=agent.failed_count + 1, updated_at=now, revision=agent.revision + 1
        )
        return counted, (holding,) if charged else ()
    known = {task for task, _ in agent.suspects}
    in_row = agent.failures_in_row + (holding.task not in known)
    # A holding that was not charged stays in the row (generation 0: nothing to refund) so that its task counts once.
    suspects = (*agent.suspects, (holding.task, holding.generation if charged else 0))[-32:]
    if in_row < FAILURES_IN_ROW:
        after = msgspec.structs.replace(agent, failures_in_row=in_row, suspects=suspects)
        refunds: tuple[Holding, ...] = ()
    else:
        after = msgspec.structs.replace(agent, failures_in_row=0, suspects=(), isolated_until=now + ISOLATION_S)
        refunds = tuple(Holding(task, generation) for task, generation in suspects if generation)
    counted = msgspec.structs.replace(
        after, failed_count=agent.failed_count + 1, updated_at=now, revision=agent.revision + 1
    )
    return counted, refunds


def isolated(agent: Agent, now: float) -> bool:
    """Is it isolated at this time?"""
    return agent.isolated_until is not None and now < agent.isolated_until
