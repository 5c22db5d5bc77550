"""Who may do what: whether an offer meets a requirement, and which idle agent gets which waiting task.

Pure, because it is asked by three: the dispatcher inside a transaction, the submit that looks for an idle slot
before its transaction, and `ExplainTask`, which shows the reasons against.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from hub.core.agent import Offer
from hub.core.task import Requirement


class Reason(StrEnum):
    """Why an agent does not have a task; the words of ExplainTask."""

    OTHER_AGENT = "OTHER_AGENT"
    WRONG_KIND = "WRONG_KIND"
    WRONG_TIER = "WRONG_TIER"
    NO_EXECUTOR = "NO_EXECUTOR"
    MISSING_CAPABILITY = "MISSING_CAPABILITY"
    OTHER_REPO = "OTHER_REPO"
    NO_SANDBOX = "NO_SANDBOX"
    OFFLINE = "OFFLINE"
    UNAVAILABLE = "UNAVAILABLE"
    ISOLATED = "ISOLATED"
    DRAINING = "DRAINING"
    FAILED_IT_BEFORE = "FAILED_IT_BEFORE"
    NO_SLOT = "NO_SLOT"


class Obstacle(NamedTuple):
    """One reason against, with a sentence for a person."""

    reason: Reason
    message: str


class Idle(NamedTuple):
    """An agent with free slots, as the matching sees it."""

    agent: str
    slots: int
    """How many tasks it may be given now."""
    classes: frozenset[int]
    """Classes of the ready index that it can serve."""


class Waiting(NamedTuple):
    """A waiting task, as the matching sees it."""

    task: str
    class_id: int
    rank: float
    refused_by: tuple[str, ...] = ()
    patient: bool = True
    """Whether it would rather wait than go to an agent that has refused it."""


class Pair(NamedTuple):
    """This task goes to this agent."""

    task: str
    agent: str


class Matching(NamedTuple):
    """What goes where, and which tasks were kept back only because every agent that fits has refused them."""

    pairs: list[Pair]
    refused: list[Waiting]


def obstacles(requirement: Requirement, agent: str, offer: Offer) -> list[Obstacle]:
    """Everything in its offer that keeps an agent from serving a requirement; empty: it fits."""
    found = []
    if requirement.agent and requirement.agent != agent:
        found.append(Obstacle(Reason.OTHER_AGENT, f"only agents/{requirement.agent} may have it"))
    if requirement.kind not in offer.kinds:
        found.append(Obstacle(Reason.WRONG_KIND, f"it takes no {requirement.kind.name} tasks"))
    if requirement.tier not in offer.tiers:
        found.append(Obstacle(Reason.WRONG_TIER, f"it does not serve tier {requirement.tier.name}"))
    if requirement.executor and requirement.executor not in offer.executors:
        found.append(Obstacle(Reason.NO_EXECUTOR, f"it has no executor {requirement.executor!r}"))
    missing = [name for name in requirement.capabilities if name not in offer.capabilities]
    if missing:
        found.append(Obstacle(Reason.MISSING_CAPABILITY, f"it lacks {', '.join(missing)}"))
    if requirement.repo and offer.repos and requirement.repo not in offer.repos:
        found.append(Obstacle(Reason.OTHER_REPO, f"it does not work on repos/{requirement.repo}"))
    if requirement.sandbox and not offer.sandbox:
        found.append(Obstacle(Reason.NO_SANDBOX, "it has no sandbox, and the task demands one"))
    return found


def fits(requirement: Requirement, agent: str, offer: Offer) -> bool:
    """Can this agent serve this requirement, as far as its offer goes?"""
    return not obstacles(requirement, agent, offer)


def match(idle: Iterable[Idle], waiting: Sequence[Waiting]) -> Matching:
    """Give the tasks, in the order of their ranks, to the idle agents in the order given, each in turn.

    The caller gives the agents least recently used first; one that was given a task goes to the end of the line, so
    that tasks spread evenly. An agent that refused a task gets it only when the task is not patient any more.
    """
    line = deque((agent.agent, agent.slots, agent.classes) for agent in idle if agent.slots > 0)
    pairs: list[Pair] = []
    refused: list[Waiting] = []
    for task in sorted(waiting, key=lambda one: (one.rank, one.task)):
        if not line:
            break
        avoided = False
        for index, (agent, slots, classes) in enumerate(line):
            if task.class_id not in classes:
                continue
            if task.patient and agent in task.refused_by:
                avoided = True
                continue
            pairs.append(Pair(task.task, agent))
            del line[index]
            if slots > 1:
                line.append((agent, slots - 1, classes))
            break
        else:
            if avoided:
                refused.append(task)
    return Matching(pairs, refused)
