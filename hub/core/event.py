"""The event: one line of the append-only, hash-chained log. The catalogue of its types is in `EVENT_TYPES`."""

from __future__ import annotations

from typing import Final

import msgspec

GENESIS: Final = b"\0" * 16
"""What the first event is chained to."""


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One thing that happened, written in the same transaction as what it tells.

    `hash` is blake2b-128 over the hash before it and the encoded event without its hash; the store sets
    `position` and `hash` when it appends.
    """

    position: int
    at: float
    type: str
    subject: str
    """Resource name: "tasks/{task}", "agents/{agent}", ..."""
    goal: str = ""
    """Id of the goal that the subject belongs to; empty: none."""
    actor: str = "hub"
    fields: dict[str, str] = {}
    hash: bytes = b""


EVENT_TYPES: Final[dict[str, str]] = {
    "task.created": "a task was filed",
    "task.queued": "it waits for an agent now",
    "task.scheduled": "it waits for a time: start_time or backoff",
    "task.assigned": "it was offered to an agent",
    "task.accepted": "the agent began",
    "task.rejected": "the agent said: not me",
    "task.released": "it came back at no cost: lost, drained, timed out before its start",
    "task.failed": "an attempt failed",
    "task.parked": "it cannot go on for a reason outside of it",
    "task.pushed": "its completion was accepted and its change waits to be merged",
    "task.returned": "its change came back from the merge with evidence",
    "task.succeeded": "done and, where asked for, merged",
    "task.cancelled": "ended by a person or with its goal",
    "task.dead": "dead-lettered, with its whole history",
    "task.revived": "a person retried it",
    "task.deleted": "forgotten",
    "task.fenced": "a report of an old generation was refused",
    "task.stuck": "an attempt shows no progress",
    "task.refunded": "an attempt was given back because the agent was at fault",
    "change.created": "a branch was pushed",
    "change.merging": "its MERGE task was filed",
    "change.merged": "it is in the default branch",
    "change.returned": "it was sent back with evidence",
    "change.abandoned": "it is not wanted any more",
    "change.deleted": "forgotten",
    "goal.created": "a goal was filed",
    "goal.started": "its plan is frozen and its tasks are filed",
    "goal.verifying": "its assertions are checked on the merged default branch",
    "goal.succeeded": "its assertions hold",
    "goal.failed": "it cannot be reached any more",
    "goal.cancelled": "ended by a person",
    "goal.paused": "its waiting tasks are held back",
    "goal.resumed": "its waiting tasks go on",
    "goal.revived": "one of its dead tasks was retried",
    "goal.deleted": "forgotten; its tasks follow",
    "agent.enrolled": "a new agent",
    "agent.attached": "a session began",
    "agent.detached": "a session ended",
    "agent.refused": "its sidecar's version is too far from the hub's; see docs/upgrade.md",
    "agent.updated": "display name changed",
    "agent.draining": "no new work for it",
    "agent.resumed": "new work again",
    "agent.isolated": "too many failures in a row",
    "agent.deleted": "forgotten",
    "agent.token_rotated": "a new token; the old one is void, or will be after its grace",
    "repo.created": "a repo was filed",
    "repo.updated": "it was changed",
    "repo.paused": "none of its tasks is assigned",
    "repo.resumed": "its tasks are assigned again",
    "repo.deleted": "forgotten",
    "hub.started": "the process serves",
    "hub.stopped": "the process ends on purpose",
    "hub.paused": "nothing is assigned",
    "hub.resumed": "work is assigned again",
    "hub.draining": "nothing new is taken",
    "hub.restored": "a backup took the place of the store; see docs/operations.md",
    "alert.raised": "there is something that a person should look at",
    "alert.told": "people are told of one that was raised in silence, or that became more urgent",
    "alert.acked": "a person looks after it",
    "alert.muted": "nobody is told of it, or of all of its rule, for a time",
    "alert.unmuted": "that has ended, by its time or by a person",
    "alert.cleared": "its cause has gone",
    "alert_rule.updated": "a rule for alerts was edited, or got its defaults back",
    "token.created": "a token was made",
    "token.revoked": "a token is void",
    "token.deleted": "forgotten, some time after it was void",
    "token.expiring": "a token got an end: it was replaced by a new one",
    "violator.refused": "a caller broke the rules so often that all its requests are refused for a while",
    "intake.refused": "a goal file of the watched folder was refused",
}
