"""What the session hands to the runner and gets back: plain values, no proto.

The session (stream, journal) and the runner (git, processes) know each other only through these.
Times are seconds since the epoch, sizes are bytes. Names of enums are the proto's, lower case, without their prefix.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# Limits of the contract (protos/agentcom/v1/task.proto): the runner cuts to them, so that the hub never refuses a
# report for its size. Bytes of UTF-8.
MESSAGE_BYTES_MAX = 4096
EVIDENCE_BYTES_MAX = 32 * 1024
OUTPUT_TAIL_BYTES_MAX = 8 * 1024
ARTIFACT_BYTES_MAX = 256 * 1024
CHANGE_TITLE_CHARACTERS_MAX = 256
CHANGE_BODY_BYTES_MAX = 32 * 1024
RECEIPT_COUNT_MAX = 100

Kind = Literal["work", "survey", "verify", "merge", "revert", "probe"]
Delivery = Literal["none", "branch", "merge"]
Attribution = Literal["task", "agent", "environment", "credential", "provider", "hub"]
Expectation = Literal["fail", "pass", "any"]
Verdict = Literal["pass", "fail", "unknown"]
Phase = Literal["base", "head", "merged"]
Isolation = Literal["preferred", "required"]


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """The fencing pair: this task at this generation."""

    #: The bare id, 20 characters.
    task: str
    generation: int

    def __str__(self) -> str:
        return f"{self.task}.{self.generation}"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A command that decides whether the task holds."""

    id: str
    run: str
    timeout_s: float = 600.0
    expect_on_base: Expectation = "any"


class RepoAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a repository; the address never carries a secret."""

    name: str
    url: str
    default_branch: str = "main"


class ChangeRef(msgspec.Struct, frozen=True, kw_only=True):
    """A pushed change that is to be merged or checked."""

    name: str
    task: str
    branch: str
    head_sha: str
    base_sha: str = ""
    title: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt did not succeed, and whose fault that is."""

    #: UPPER_SNAKE.
    reason: str
    message: str
    attribution: Attribution
    evidence: str = ""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one task, as the hub ordered it."""

    holding: Holding
    title: str
    instructions: str = ""
    kind: Kind = "work"
    #: "trivial", "standard" or "complex".
    tier: str = "trivial"
    #: Name of the executor that must run it; empty: the first that serves the tier.
    executor: str = ""
    command: str = ""
    checks: tuple[Check, ...] = ()
    repo: RepoAccess | None = None
    #: "goals/{goal}"; empty: none.
    goal: str = ""
    #: Attempts used up before this one.
    attempts_used: int = 0
    #: For the whole attempt, checks included.
    run_timeout_s: float = 3600.0
    #: How long a child process may be silent before it counts as hung.
    silence_timeout_s: float = 600.0
    delivery: Delivery = "none"
    #: Ref of unfinished work to start from; empty: none.
    wip_ref: str = ""
    last_failure: Failure | None = None
    #: What to merge; None for other kinds.
    change: ChangeRef | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    touches: tuple[str, ...] = ()
    #: "required": never without a sandbox.
    isolation: Isolation = "preferred"
    #: Its commands may use the network from inside the sandbox.
    network: bool = False
    #: W3C trace context of the attempt; empty: the hub does not trace.
    traceparent: str = ""

    @property
    def attempt(self) -> int:
        """Which try this is, counting from 1."""
        return self.attempts_used + 1


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The proof of one check run."""

    check: str
    command_sha256: str
    base_sha: str
    head_sha: str
    tree_sha: str
    #: Negative: ended by that signal.
    exit_code: int
    duration_s: float
    host: str
    #: "agents/{agent}".
    agent: str
    started_at: float
    verdict: Verdict
    output_sha256: str
    output_tail: str
    phase: Phase


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an attempt leaves behind, cut to ARTIFACT_BYTES_MAX."""

    id: str
    media_type: str
    content: bytes
    #: Before any cut.
    size_bytes: int
    truncated: bool = False


class DiffStat(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a change."""

    files: int = 0
    insertions: int = 0
    deletions: int = 0


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The work is done, checked and delivered."""

    summary: str
    base_sha: str = ""
    head_sha: str = ""
    branch: str = ""
    #: The checks already held on the base: nothing had to be done.
    already_done: bool = False
    receipts: tuple[Receipt, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    #: MERGE: where the default branch points now.
    merge_sha: str = ""
    #: None: unknown, which is not zero.
    tokens: int | None = None
    change_title: str = ""
    change_body: str = ""
    diff_stat: DiffStat = DiffStat()


class NotDone(msgspec.Struct, frozen=True, kw_only=True, tag="not_done"):
    """The work is not done; what there is of it waits under `wip_ref`."""

    failure: Failure
    receipts: tuple[Receipt, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    #: Empty: there was nothing to save, or it could not be pushed (the failure says so).
    wip_ref: str = ""
    #: The sidecar was told to stop, or died and came back.
    stopped: bool = False


Outcome = Done | NotDone


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt gets on, seen from outside the worker."""

    #: "workspace", "base_checks", "execute", "commit", "checks", "push" or "merge".
    phase: str = ""
    files_changed: int = 0
    commits: int = 0
    tool_calls: int = 0
    tokens: int | None = None
    #: Seconds since the epoch; None: no output yet.
    last_output_at: float | None = None
