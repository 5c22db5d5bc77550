"""The order in which waiting work is served: by lane, and within a lane by age; waiting raises a task lane by lane.

A task's rank is the moment at which it entered the queue plus a handicap for its lane: one `age_step_s` for each lane
below URGENT. Whoever has the smaller rank is served first. So fresh work goes strictly by lane; work that has waited
one step longer than a fresh task is its equal one lane higher; and nothing can be overtaken for ever, because ranks
are fixed when a task is queued and the ranks of newcomers only grow. A fixed number also means that heads can be
kept in order without ever being looked at again because time has passed.
"""

from __future__ import annotations

from hub.core.task import Lane


def rank(lane: Lane, queued_at: float, age_step_s: float) -> float:
    """When its turn is, as a number to compare with that of others; smaller is sooner."""
    return queued_at + (lane - Lane.URGENT) * age_step_s


def effective(lane: Lane, queued_at: float, now: float, age_step_s: float) -> Lane:
    """The lane that a task has risen to by waiting, for people to read."""
    steps = int(max(0.0, now - queued_at) // age_step_s)
    return Lane(max(Lane.URGENT, lane - steps))
