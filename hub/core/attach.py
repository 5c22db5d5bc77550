"""What is said on an Attach stream, as values: the engine speaks in these and knows no proto."""

from __future__ import annotations

from typing import Final

import msgspec

from hub.core.agent import Offer
from hub.core.change import Change
from hub.core.holding import Holding
from hub.core.repo import Repo
from hub.core.task import ArtifactInfo, Failure, Receipt, Result, Task, TaskSpec

BATCH: Final = "batch"
"""Feature: several messages may travel as one. A write and a read of grpc.aio cost more than what is in them."""

FEATURES: Final = (BATCH,)
"""What the hub knows."""

# From the sidecar.


class Finding(msgspec.Struct, frozen=True):
    """One thing that a self-test tried."""

    probe: str
    passed: bool
    message: str = ""


class SelfTest(msgspec.Struct, frozen=True):
    """What a sidecar found when it tried its own tools."""

    passed: bool
    findings: tuple[Finding, ...] = ()
    ended_at: float | None = None


class Progress(msgspec.Struct, frozen=True):
    """How a holding gets on. Two equal ones in a row mean: nothing was seen to happen between them."""

    phase: str = ""
    files_changed: int = 0
    commits: int = 0
    tool_calls: int = 0
    tokens: int | None = None
    last_output_at: float | None = None


class Load(msgspec.Struct, frozen=True):
    """The load of a machine."""

    holdings: int = 0
    cpu: float = 0.0
    disk_free_bytes: int = 0


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first message of a stream."""

    agent: str
    session: str = ""
    holdings: tuple[Holding, ...] = ()
    offer: Offer = Offer()
    version: str = ""
    host: str = ""
    self_test: SelfTest | None = None
    draining: bool = False
    features: frozenset[str] = frozenset()
    """Optional parts of the protocol that the sidecar knows."""
    time_at: float | None = None
    """What its clock shows; None: it does not say."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state of a sidecar; replaces the one before."""

    holdings: tuple[Holding, ...] = ()
    progress: tuple[Progress, ...] = ()
    load: Load | None = None
    self_test: SelfTest | None = None
    draining: bool = False
    time_at: float | None = None
    """What its clock shows; None: it does not say."""


class Accepted(msgspec.Struct, frozen=True):
    """The work has begun."""


class Rejected(msgspec.Struct, frozen=True):
    """Not me."""

    reason: str
    message: str = ""


class Completed(msgspec.Struct, frozen=True):
    """The work is done."""

    result: Result
    artifacts: dict[str, bytes] = {}


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The work is not done."""

    failure: Failure
    receipts: tuple[Receipt, ...] = ()
    infos: tuple[ArtifactInfo, ...] = ()
    artifacts: dict[str, bytes] = {}
    wip_ref: str = ""
    stopped: bool = False


Outcome = Accepted | Rejected | Completed | Failed


class Report(msgspec.Struct, frozen=True):
    """What became of a holding."""

    holding: Holding
    outcome: Outcome


class LogChunk(msgspec.Struct, frozen=True):
    """Output of a running attempt."""

    holding: Holding
    text: str
    dropped_bytes: int = 0
    end: bool = False


class Goodbye(msgspec.Struct, frozen=True):
    """The sidecar leaves on purpose."""

    reason: str = ""


# From the hub.


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to hello."""

    session: str
    resumed: bool
    heartbeat_s: float
    lease_s: float
    holdings: tuple[Holding, ...]
    received_seq: int


class Assign(msgspec.Struct, frozen=True, kw_only=True):
    """Here is work."""

    task: Task
    spec: TaskSpec
    repo: Repo | None = None
    change: Change | None = None
    traceparent: str = ""
    """Trace context of the attempt; empty: nobody traces."""

    @property
    def holding(self) -> Holding:
        return Holding(self.task.id, self.task.generation)


class Revoke(msgspec.Struct, frozen=True):
    """Stop this holding."""

    holding: Holding
    reason: str
    message: str = ""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What ought to be."""

    next_heartbeat_s: float
    holdings: tuple[Holding, ...]
    tail: tuple[Holding, ...] = ()
    draining: bool = False


class Goaway(msgspec.Struct, frozen=True, kw_only=True):
    """The stream ends."""

    reason: str
    retry_delay_s: float = 0.0
    final: bool = False


Sequenced = Assign | Revoke
Down = Welcome | Assign | Revoke | Desired | Goaway
