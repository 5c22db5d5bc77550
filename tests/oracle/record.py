"""What the oracle reads: the operation logs of clients and sidecars, the hub's event log and its records at the end.

Plain values without a word of gRPC, so that runs of real processes and of the simulator are judged alike. Each node
writes for itself: a client what it sent and what came back, a sidecar what it took up, began, ended and told, whoever
runs the processes when one began, stood still or died. Times of operations are seconds of one true clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from hub.core.event import GENESIS, Event
from hub.core.task import Attempt, Task


class Verb(StrEnum):
    """What a node says that it did, or that was done to it."""

    # Clients: `request` is the request id, `task` the id of the task where it is known.
    SUBMIT_SENT = "submit.sent"
    SUBMIT_ACKED = "submit.acked"
    SUBMIT_REFUSED = "submit.refused"  # with an answer that says that nothing was done
    SUBMIT_UNKNOWN = "submit.unknown"  # no answer: it may be there
    CANCEL_SENT = "cancel.sent"
    CANCEL_ACKED = "cancel.acked"
    DELETE_SENT = "delete.sent"
    RETRY_SENT = "retry.sent"
    # Sidecars: `task` and `generation` are the holding.
    ASSIGNMENT_TAKEN = "assignment.taken"  # it is in the journal
    WORK_BEGUN = "work.begun"
    WORK_ENDED = "work.ended"  # whichever way; `detail` is "done", or why not
    REPORT_SENT = "report.sent"
    REPORT_ACKED = "report.acked"  # the hub said: durably stored
    WORK_STOPPING = "work.stopping"  # it was told to stop, or found that it must; `detail` is why
    # Processes, told by whoever runs them: `detail` may name the means.
    PROCESS_STARTED = "process.started"
    PROCESS_DIED = "process.died"  # killed or ended; nothing of it runs any more
    PROCESS_FROZEN = "process.frozen"
    PROCESS_THAWED = "process.thawed"


@dataclass(frozen=True, slots=True)
class Op:
    """One line of an operation log."""

    at: float
    node: str
    """"client/...", "sidecar/{agent}" or "hub"."""
    verb: Verb
    task: str = ""
    """Id without "tasks/"."""
    generation: int = 0
    request: str = ""
    detail: str = ""

    def line(self) -> str:
        """As a line of JSON; what is empty is left out."""
        return json.dumps({key: value for key, value in asdict(self).items() if value or key == "at"})

    @classmethod
    def of_line(cls, line: str) -> Op:
        """The operation of a line."""
        found = json.loads(line)
        return cls(**{**found, "verb": Verb(found["verb"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a scenario promises beyond what always holds."""

    stop_s: float | None = 3.0
    """So long after a newer generation's first accepted write may work on an older one go on: the documented time
    in which a sidecar that lost its lease stops by itself, and the reach of its clock. None: not looked at."""
    all_end: bool = False
    """Every task has reached its end."""
    works_once: bool = False
    """No task is begun twice."""
    logs_complete: bool = True
    """The operation logs of all sidecars are there: what was accepted must have been done by somebody."""
    inversion_s: float | None = None
    """A task of a more urgent lane that waited longer than this while one of a less urgent lane of its class was
    assigned counts as an inversion. None: not looked at."""
    inversions_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A whole run."""

    events: Sequence[Event]
    ops: Sequence[Op] = ()
    tasks: Mapping[str, Task] | None = None
    """The hub's records at the end, by id. None: not known."""
    attempts: Mapping[str, Sequence[Attempt]] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)
    """For each task at the end the request id that its contract carries, where the scenario writes one into it."""
    anchor: tuple[int, bytes] = (0, GENESIS)
    """Position and hash of the event before the first one that is kept."""
    hashed: bool = True
    """The events are exactly what was stored, so that their hashes can be computed (what came over a wire has lost
    parts of a microsecond and the order of its fields)."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that the run broke."""

    rule: str
    subject: str
    message: str
    position: int = 0
    """Of the event at which it was seen; 0: at none."""

    def __str__(self) -> str:
        at = f" at event {self.position}" if self.position else ""
        return f"{self.rule}: {self.subject}{at}: {self.message}"


def write_lines(ops: Iterable[Op]) -> str:
    """An operation log as a file."""
    return "".join(f"{op.line()}\n" for op in ops)
