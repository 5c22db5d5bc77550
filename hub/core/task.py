"""The task: its record, its contract, and the one table of its legal transitions.

The numbers of the enums are those of `agentcom.v1` (a test compares them), so that translation is a cast.
A task is two records: `TaskSpec`, the contract, written once; and `Task`, small, rewritten at each transition.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from hub.core.policy import Policy
from kit import errors


class Lane(IntEnum):
    """The order in which waiting work is served; smaller is sooner."""

    URGENT = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4


class Tier(IntEnum):
    """How much of a mind a task needs."""

    TRIVIAL = 1
    STANDARD = 2
    COMPLEX = 3


class Kind(IntEnum):
    """What sort of work a task is."""

    WORK = 1
    SURVEY = 2
    VERIFY = 3
    MERGE = 4
    REVERT = 5
    PROBE = 6


class Delivery(IntEnum):
    """What becomes of the change that a WORK task makes."""

    NONE = 1
    BRANCH = 2
    MERGE = 3


class DependencyPolicy(IntEnum):
    """What happens to a task when one that it depends on does not succeed."""

    FAIL = 1
    PARK = 2


class Attribution(IntEnum):
    """Whose fault a failure is; only TASK uses up an attempt."""

    TASK = 1
    AGENT = 2
    ENVIRONMENT = 3
    CREDENTIAL = 4
    PROVIDER = 5
    HUB = 6


class Expectation(IntEnum):
    """What a check must say on the base, before the work."""

    FAIL = 1
    PASS = 2
    ANY = 3


class Verdict(IntEnum):
    """What a check run says; only PASS is a pass."""

    PASS = 1
    FAIL = 2
    UNKNOWN = 3


class Phase(IntEnum):
    """When in an attempt a check ran."""

    BASE = 1
    HEAD = 2
    MERGED = 3


class AttemptOutcome(IntEnum):
    """How an attempt ended; ACTIVE while it goes on."""

    ACTIVE = 0
    COMPLETED = 1
    FAILED = 2
    REJECTED = 3
    LOST = 4
    REVOKED = 5


class State(IntEnum):
    """Where a task is."""

    PENDING = 1
    SCHEDULED = 2
    QUEUED = 3
    ASSIGNED = 4
    RUNNING = 5
    PARKED = 6
    MERGING = 7
    SUCCEEDED = 8
    CANCELLED = 9
    DEAD = 10


class Event(IntEnum):
    """What can happen to a task."""

    DEPENDENCIES_DONE = 1  # the last task that it waits for has succeeded
    DUE = 2  # its start time or the end of its backoff has come
    ASSIGN = 3
    ACCEPT = 4
    COMPLETE = 5  # accepted, and nothing is left to merge
    PUSHED = 6  # accepted, and its change waits to be merged
    RETRY_LATER = 7  # failed with attempts left: backoff
    RELEASE = 8  # given back at no cost: rejected, lost, drained
    PARK = 9
    UNPARK = 10
    MERGED = 11
    RETURN = 12  # its change came back from the merge with evidence
    CANCEL = 13
    KILL = 14  # dead-letter it
    REVIVE = 15  # a person retries it
    BLOCK = 16  # revived, but it still waits for others


HELD: Final = frozenset({State.ASSIGNED, State.RUNNING})
"""States in which an agent has the task."""

FINAL: Final = frozenset({State.SUCCEEDED, State.CANCELLED, State.DEAD})
"""States that only a person's retry leaves (SUCCEEDED: nothing does)."""

WAITING: Final = frozenset({State.PENDING, State.SCHEDULED, State.QUEUED, State.PARKED})
"""States in which nobody works on the task and nothing of it is pushed."""

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.PENDING, Event.DEPENDENCIES_DONE): State.QUEUED,
    (State.PENDING, Event.RETRY_LATER): State.SCHEDULED,  # dependencies are done before its start time
    (State.PENDING, Event.PARK): State.PARKED,
    (State.PENDING, Event.CANCEL): State.CANCELLED,
    (State.PENDING, Event.KILL): State.DEAD,
    (State.SCHEDULED, Event.DUE): State.QUEUED,
    (State.SCHEDULED, Event.PARK): State.PARKED,
    (State.SCHEDULED, Event.CANCEL): State.CANCELLED,
    (State.SCHEDULED, Event.KILL): State.DEAD,
    (State.SCHEDULED, Event.REVIVE): State.QUEUED,
    (State.QUEUED, Event.ASSIGN): State.ASSIGNED,
    (State.QUEUED, Event.PARK): State.PARKED,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.QUEUED, Event.KILL): State.DEAD,
    (State.ASSIGNED, Event.ACCEPT): State.RUNNING,
    (State.ASSIGNED, Event.COMPLETE): State.SUCCEEDED,
    (State.ASSIGNED, Event.PUSHED): State.MERGING,
    (State.ASSIGNED, Event.RETRY_LATER): State.SCHEDULED,
    (State.ASSIGNED, Event.RELEASE): State.QUEUED,
    (State.ASSIGNED, Event.PARK): State.PARKED,
    (State.ASSIGNED, Event.CANCEL): State.CANCELLED,
    (State.ASSIGNED, Event.KILL): State.DEAD,
    (State.RUNNING, Event.COMPLETE): State.SUCCEEDED,
    (State.RUNNING, Event.PUSHED): State.MERGING,
    (State.RUNNING, Event.RETRY_LATER): State.SCHEDULED,
    (State.RUNNING, Event.RELEASE): State.QUEUED,
    (State.RUNNING, Event.PARK): State.PARKED,
    (State.RUNNING, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.KILL): State.DEAD,
    (State.PARKED, Event.UNPARK): State.QUEUED,
    (State.PARKED, Event.REVIVE): State.QUEUED,
    (State.PARKED, Event.BLOCK): State.PENDING,
    (State.PARKED, Event.RETRY_LATER): State.SCHEDULED,
    (State.PARKED, Event.CANCEL): State.CANCELLED,
    (State.PARKED, Event.KILL): State.DEAD,
    (State.MERGING, Event.MERGED): State.SUCCEEDED,
    (State.MERGING, Event.RETURN): State.QUEUED,
    (State.MERGING, Event.CANCEL): State.CANCELLED,
    (State.MERGING, Event.KILL): State.DEAD,
    (State.CANCELLED, Event.REVIVE): State.QUEUED,
    (State.CANCELLED, Event.BLOCK): State.PENDING,
    (State.DEAD, Event.REVIVE): State.QUEUED,
    (State.DEAD, Event.BLOCK): State.PENDING,
}
"""Everything that may happen. An unknown pair raises IllegalState and changes nothing."""


def step(task_id: str, state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalState with the state for a pair that is not in the table."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        raise errors.IllegalState(
            f"task tasks/{task_id} is {state.name.lower()}, cannot {event.name.lower().replace('_', ' ')}",
            state=state.name,
            reason="TASK_STATE",
            metadata={"task": f"tasks/{task_id}", "state": state.name, "event": event.name},
        )
    return after


class Requirement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, order=True):
    """What an agent must offer. Tasks with equal requirements share a class of the ready index."""

    kind: Kind = Kind.WORK
    tier: Tier = Tier.TRIVIAL
    capabilities: tuple[str, ...] = ()
    """Sorted and unique."""
    executor: str = ""
    """Empty: any that serves the tier."""
    agent: str = ""
    """Id of the only agent that may have it; empty: any."""
    repo: str = ""
    """Id of the repo that it works on; empty: none. Here because agents and pauses go by repo."""
    sandbox: bool = False  # only agents with a sandbox may have it: the policy says REQUIRED


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command that decides whether a task or an assertion holds."""

    id: str
    run: str
    timeout_s: float = 600.0
    expect_on_base: Expectation = Expectation.ANY


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The contract of a task: what is asked. Written once, with every default filled in."""

    title: str
    instructions: str = ""
    lane: Lane = Lane.NORMAL
    requirement: Requirement = Requirement()
    command: str = ""
    checks: tuple[Check, ...] = ()
    depends_on: tuple[str, ...] = ()
    dependency_policy: DependencyPolicy = DependencyPolicy.FAIL
    delivery: Delivery = Delivery.NONE
    attempts_max: int = 3
    start_at: float | None = None
    queue_deadline_at: float | None = None
    start_timeout_s: float = 60.0
    run_timeout_s: float = 3600.0
    silence_timeout_s: float = 600.0
    labels: dict[str, str] = {}
    touches: tuple[str, ...] = ()
    policy: Policy = Policy()


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an attempt, or a whole task, did not succeed."""

    reason: str
    message: str = ""
    attribution: Attribution = Attribution.TASK
    evidence: str = ""


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The proof of one check run."""

    check: str
    command_sha256: str = ""
    base_sha: str = ""
    head_sha: str = ""
    tree_sha: str = ""
    exit_code: int = 0
    duration_s: float = 0.0
    host: str = ""
    agent: str = ""
    started_at: float | None = None
    verdict: Verdict = Verdict.UNKNOWN
    output_sha256: str = ""
    output_tail: str = ""
    phase: Phase | None = None


class ArtifactInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an artefact without its content, which is a record of its own."""

    id: str
    media_type: str = ""
    size_bytes: int = 0
    truncated: bool = False


class DiffStat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The size of a change."""

    files: int = 0
    insertions: int = 0
    deletions: int = 0


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a successful attempt brings."""

    summary: str = ""
    base_sha: str = ""
    head_sha: str = ""
    branch: str = ""
    already_done: bool = False
    receipts: tuple[Receipt, ...] = ()
    artifacts: tuple[ArtifactInfo, ...] = ()
    merge_sha: str = ""
    tokens: int | None = None
    """None: unknown, which is not zero."""
    change_title: str = ""
    change_body: str = ""
    diff_stat: DiffStat | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at a task, keyed by (task, generation)."""

    task: str
    generation: int
    agent: str
    assigned_at: float
    accepted_at: float | None = None
    ended_at: float | None = None
    outcome: AttemptOutcome = AttemptOutcome.ACTIVE
    failure: Failure | None = None
    charged: bool = False
    result: Result | None = None
    receipts: tuple[Receipt, ...] = ()
    """These and the artefacts are of a failed attempt; a completed one has them in its result."""
    artifacts: tuple[ArtifactInfo, ...] = ()
    wip_ref: str = ""


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One unit of work for one agent: the part that changes."""

    id: str
    state: State
    class_id: int
    """The class of its requirement in the ready index."""
    lane: Lane = Lane.NORMAL
    kind: Kind = Kind.WORK
    delivery: Delivery = Delivery.NONE
    repo: str = ""
    goal: str = ""
    plan_task: str = ""
    change: str = ""
    """For a WORK task the newest change it made; for a MERGE task the change that it brings in."""
    generation: int = 0
    """Number of the newest assignment; 0: never assigned."""
    agent: str = ""
    """Who has it now; empty: nobody."""
    attempts_used: int = 0
    attempts_max: int = 3
    reworks: int = 0
    waits_for: int = 0
    """How many of its dependencies have not succeeded yet."""
    dependency_policy: DependencyPolicy = DependencyPolicy.FAIL
    failure: Failure | None = None
    reason: str = ""
    """One sentence: why it is in this state."""
    wip_ref: str = ""  # the newest one
    killed_agents: tuple[str, ...] = ()
    """Distinct agents that were lost while they had it."""
    refused_by: tuple[str, ...] = ()
    """Agents that said "not me" or failed it last; they are asked again only when no other fits."""
    parks: int = 0
    """How often it was parked in a row; sets the pace of the next look."""
    releases: int = 0
    """How often it came back at no cost since the last charged attempt or progress; bounds a silent loop."""
    created_at: float = 0.0
    updated_at: float = 0.0
    queued_at: float | None = None
    assigned_at: float | None = None
    accepted_at: float | None = None
    ended_at: float | None = None
    start_at: float | None = None
    queue_deadline_at: float | None = None
    start_timeout_s: float = 60.0
    run_timeout_s: float = 3600.0
    wake_at: float | None = None
    """When the sweep looks at it next; the `due` index is ordered by this. None: never."""
    labels: dict[str, str] = {}
    check_count: int = 0
    """How many checks its contract has: a completion must prove as many."""
    claimed: bool = False
    """Held by hand (ClaimTask): no session and no heartbeat stands behind the holding, only `wake_at` ends it."""
    refunds: int = 0
    """How often an attempt was given back because the agent was at fault; bounded."""
    revision: int = 1
    """Counts writes; the etag."""
