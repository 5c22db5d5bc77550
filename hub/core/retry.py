"""What becomes of a task whose attempt failed: by whose fault it was, and by how often it came back already.

Only the task's own faults use up attempts. Everything else comes back at no cost, but not for ever and not in a
busy loop: each return without a charged attempt waits longer, and after `RELEASES_MAX` of them the task is parked.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from hub.core.task import Attribution, Failure, Kind, Task

RETRY_DELAYS_S: Final = (0.0, 30.0, 120.0)
"""Before the second, third, ... attempt: at once (a flake), half a minute, two minutes; the last one repeats."""

RELEASE_DELAYS_S: Final = (0.0, 0.0, 5.0, 30.0, 120.0)
"""Before a task that came back at no cost is offered again: another agent may well take it at once."""

PROVIDER_DELAY_S: Final = 60.0
"""A rate limit rarely passes sooner."""

PARK_DELAYS_S: Final = (60.0, 120.0, 300.0, 900.0, 3600.0)
"""Before a parked task is tried again by itself: an outage is noticed soon and polled seldom."""

RELEASES_MAX: Final = 10
"""Returns at no cost in a row after which a task is parked: something is wrong that retrying does not cure."""

POISON_AGENTS: Final = 3
"""A task that was lost with this many different agents is dead-lettered: it kills them."""

DEATH_REASONS: Final = frozenset({"SIDECAR_RESTARTED"})
"""What a sidecar that died and was started again says of a holding. The lease has not passed, and yet the task may
have killed it: with a service manager that restarts sidecars at once, leases alone would never find a poison."""

JITTER: Final = 0.2
"""Share of a delay that is random, so that what failed together does not come back together."""

FINAL_MERGE_REASONS: Final = frozenset({"MERGE_CONFLICT", "CHECK_FAILED"})
"""A merge that fails like this would fail again: the change goes back to its author."""

FINAL_VERIFY_REASONS: Final = frozenset({"CHECK_FAILED"})
"""A red assertion on a fixed tree stays red."""


class Verb(Enum):
    """What to do with the task."""

    KILL = "kill"
    RETRY = "retry"  # a charged attempt; wait, then queue
    RELEASE = "release"  # no charge; wait, then queue
    PARK = "park"


class Decision(NamedTuple):
    """What to do with the task, and when it is looked at again."""

    verb: Verb
    delay_s: float
    charged: bool
    reason: str


def after_failure(task: Task, failure: Failure, *, stopped: bool, roll: float) -> Decision:
    """Decide after a reported failure. `roll` in [0, 1) spreads the delay; `stopped` means that it was told to stop."""
    if stopped:
        return _release(task, failure, roll)
    match failure.attribution:
        case Attribution.TASK:
            return _charge(task, failure, roll)
        case Attribution.ENVIRONMENT:
            return Decision(Verb.PARK, park_delay(task, roll), False, failure.reason)
        case Attribution.PROVIDER:
            decision = _release(task, failure, roll)
            return decision._replace(delay_s=max(decision.delay_s, spread(PROVIDER_DELAY_S, roll)))
        case Attribution.AGENT | Attribution.CREDENTIAL | Attribution.HUB:
            return _release(task, failure, roll)


def after_loss(task: Task, agent: str, *, agent_died: bool, roll: float) -> Decision:
    """Decide after a holding was lost: its lease passed, its session went, it was never accepted."""
    killed = {*task.killed_agents, agent} if agent_died else set(task.killed_agents)
    if len(killed) >= POISON_AGENTS:
        return Decision(Verb.KILL, 0.0, False, "POISON")
    return _release(task, None, roll)


def park_delay(task: Task, roll: float) -> float:
    """Seconds until a parked task is tried again by itself."""
    return spread(PARK_DELAYS_S[min(task.parks, len(PARK_DELAYS_S) - 1)], roll)


def spread(delay_s: float, roll: float) -> float:
    """The delay with its random share."""
    return delay_s * (1.0 - JITTER + 2.0 * JITTER * roll)


def _charge(task: Task, failure: Failure, roll: float) -> Decision:
    final = (task.kind is Kind.MERGE and failure.reason in FINAL_MERGE_REASONS) or (
        task.kind is Kind.VERIFY and failure.reason in FINAL_VERIFY_REASONS
    )
    if final:
        return Decision(Verb.KILL, 0.0, True, failure.reason)
    used = task.attempts_used + 1
    if used >= task.attempts_max:
        return Decision(Verb.KILL, 0.0, True, "ATTEMPTS_EXHAUSTED")
    delay = RETRY_DELAYS_S[min(used - 1, len(RETRY_DELAYS_S) - 1)]
    return Decision(Verb.RETRY, spread(delay, roll), True, failure.reason)


def _release(task: Task, failure: Failure | None, roll: float) -> Decision:
    reason = failure.reason if failure is not None else "LOST"
    if task.releases >= RELEASES_MAX:
        return Decision(Verb.PARK, park_delay(task, roll), False, "RELEASED_TOO_OFTEN")
    delay = RELEASE_DELAYS_S[min(task.releases, len(RELEASE_DELAYS_S) - 1)]
    return Decision(Verb.RELEASE, spread(delay, roll), False, reason)
