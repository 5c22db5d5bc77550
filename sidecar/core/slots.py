"""What this sidecar holds, and in which phase: offered -> given -> running -> (stopping) -> finished -> gone.

A holding is listed to the hub until its outcome is acked, because what a heartbeat leaves out is reclaimed. It takes a
slot only until it is finished. Two generations of one task share a slot, and the newer one begins when the older one
has ended: they would work on the same branch.

Desired (what the hub thinks we should hold) and our own changes cross on the wire, so one Desired without a holding
proves nothing: it may have been made before the hub assigned it. A holding is stopped when it was listed in a
heartbeat, a Desired that came later left it out, it was listed in one more heartbeat after that, and a Desired that
came after that leaves it out, too. A Desired that has it starts the count again. Revoke is the quick way; this is the
one that heals when a Revoke was lost.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from kit import errors
from sidecar.core.assignment import Assignment, Holding, Outcome

#: Holdings that one heartbeat can list (attach.proto); beyond it nothing more is taken.
HELD_COUNT_MAX = 256


class Phase(enum.Enum):
    """How far a holding is."""

    #: On its way into the journal; the hub has not been told anything yet.
    OFFERED = "offered"
    #: In the journal; not begun, because an older generation still ends.
    GIVEN = "given"
    #: The runner has it.
    RUNNING = "running"
    #: The runner was told to stop, or brings in what a dead process left.
    STOPPING = "stopping"
    #: Its outcome is known and waits for the hub's ack.
    FINISHED = "finished"


class Step(enum.Enum):
    """What happens to a holding."""

    WRITE = "write"
    BEGIN = "begin"
    STOP = "stop"
    FINISH = "finish"


TRANSITIONS: Final[dict[Phase, dict[Step, Phase]]] = {
    Phase.OFFERED: {Step.WRITE: Phase.GIVEN, Step.STOP: Phase.STOPPING},
    Phase.GIVEN: {Step.BEGIN: Phase.RUNNING, Step.STOP: Phase.STOPPING},
    Phase.RUNNING: {Step.STOP: Phase.STOPPING, Step.FINISH: Phase.FINISHED},
    Phase.STOPPING: {Step.STOP: Phase.STOPPING, Step.FINISH: Phase.FINISHED},
    Phase.FINISHED: {},
}

#: Phases in which a holding takes a slot.
BUSY: Final = frozenset({Phase.OFFERED, Phase.GIVEN, Phase.RUNNING, Phase.STOPPING})


class Answer(enum.Enum):
    """What becomes of an assignment that came in."""

    #: Taken; what it supersedes must be stopped.
    TAKEN = "taken"
    #: It is held already: say what was said before.
    KNOWN = "known"
    #: A newer generation of the task is held: the hub no longer means this one.
    STALE = "stale"
    #: There is no slot.
    FULL = "full"


@dataclass(slots=True)
class Entry:
    """One holding."""

    holding: Holding
    phase: Phase
    #: None: its record was damaged; only its outcome is left to say.
    assignment: Assignment | None = None
    outcome: Outcome | None = None
    #: Number of the last heartbeat that listed it; None: none yet.
    listed: int | None = None
    #: Number of the last heartbeat sent before the first Desired that left it out; None: it was not left out.
    missing_since: int | None = field(default=None)


class Slots:
    """All holdings, oldest first."""

    def __init__(self, capacity: int) -> None:
        assert 0 <= capacity <= HELD_COUNT_MAX
        self.capacity = capacity
        self._entries: dict[Holding, Entry] = {}
        self._beat = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, holding: object) -> bool:
        return holding in self._entries

    def entries(self) -> list[Entry]:
        """All of them, oldest first."""
        return list(self._entries.values())

    def get(self, holding: Holding) -> Entry | None:
        """One of them; None when it is not held."""
        return self._entries.get(holding)

    @property
    def busy(self) -> int:
        """Slots in use: tasks, not generations."""
        return len({entry.holding.task for entry in self._entries.values() if entry.phase in BUSY})

    def answer(self, holding: Holding) -> Answer:
        """What becomes of an assignment with this holding; changes nothing."""
        if holding in self._entries:
            return Answer.KNOWN
        of_task = [entry for entry in self._entries.values() if entry.holding.task == holding.task]
        if any(entry.holding.generation > holding.generation for entry in of_task):
            return Answer.STALE
        shares = any(entry.phase in BUSY for entry in of_task)
        if len(self._entries) >= HELD_COUNT_MAX or (self.busy >= self.capacity and not shares):
            return Answer.FULL
        return Answer.TAKEN

    def take(self, assignment: Assignment) -> list[Holding]:
        """Hold it; returns the older generations of its task, which must be stopped."""
        holding = assignment.holding
        assert self.answer(holding) is Answer.TAKEN, holding
        older = [e.holding for e in self._entries.values() if e.holding.task == holding.task and e.phase in BUSY]
        self._entries[holding] = Entry(holding, Phase.OFFERED, assignment)
        return older

    def restore(self, holding: Holding, assignment: Assignment | None, outcome: Outcome | None) -> None:
        """Hold what the journal remembers: finished with its outcome, else to be recovered (stopping)."""
        assert holding not in self._entries and (assignment is not None or outcome is not None)
        phase = Phase.STOPPING if outcome is None else Phase.FINISHED
        self._entries[holding] = Entry(holding, phase, assignment, outcome)

    def step(self, holding: Holding, step: Step) -> Entry:
        """Move a holding on. Raises IllegalState when it is not held or the step cannot happen in its phase."""
        entry = self._entries.get(holding)
        phase = None if entry is None else TRANSITIONS[entry.phase].get(step)
        if entry is None or phase is None:
            state = "gone" if entry is None else entry.phase.value
            raise errors.IllegalState(f"the holding {holding} is {state}, cannot {step.value}", state=state)
        entry.phase = phase
        return entry

    def finish(self, holding: Holding, outcome: Outcome) -> Entry:
        """Its outcome is known."""
        entry = self.step(holding, Step.FINISH)
        entry.outcome = outcome
        return entry

    def drop(self, holding: Holding) -> None:
        """Forget it: its outcome is acked, or it could not be taken after all."""
        self._entries.pop(holding, None)

    def ready(self) -> list[Entry]:
        """Given ones that may begin now: no older generation of their task still runs."""
        running = {e.holding.task for e in self._entries.values() if e.phase in (Phase.RUNNING, Phase.STOPPING)}
        ready: dict[str, Entry] = {}
        for entry in self._entries.values():
            if entry.phase is Phase.GIVEN and entry.holding.task not in running:
                ready.setdefault(entry.holding.task, entry)
        return list(ready.values())

    def list_in_heartbeat(self) -> list[Entry]:
        """What the next heartbeat says; counts it as said."""
        self._beat += 1
        for entry in self._entries.values():
            entry.listed = self._beat
        return self.entries()

    def settle(self, desired: Iterable[Holding]) -> list[Holding]:
        """Compare with a Desired; returns what must be stopped now (see the file's theory)."""
        wanted = set(desired)
        unwanted = []
        for entry in self._entries.values():
            if entry.holding in wanted or entry.listed is None:
                entry.missing_since = None
            elif entry.missing_since is None:
                entry.missing_since = self._beat
            elif entry.listed > entry.missing_since and entry.phase in (Phase.GIVEN, Phase.RUNNING):
                unwanted.append(entry.holding)
        return unwanted
