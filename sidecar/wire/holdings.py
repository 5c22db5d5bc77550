"""The work itself: takes assignments, runs them, stops them, and keeps their outcomes until they are settled.

It knows no stream. The order that nothing may break: an assignment is in the journal before it is begun or accepted,
an outcome is in the journal before it counts as finished, and a holding is listed until its outcome is settled.
Everything here happens on the event loop; one task runs per holding, in a group that outlives every stream.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol

from kit import errors, logs, tracing
from sidecar.child.control import Control
from sidecar.core.assignment import Assignment, Failure, Holding, NotDone, Outcome, Progress
from sidecar.core.meter import NOBODY, Meter
from sidecar.core.record import Closed, Ended, Given
from sidecar.core.slots import BUSY, Entry, Phase, Slots, Step
from sidecar.wire.journal import Journal

log = logs.get(__name__)

RECOVERING = Progress(phase="recover")
#: Why an outcome is settled, in the usual case; otherwise the hub does not want it any more.
ACKED = "acked"


class Hands(Protocol):
    """Who does the work: sidecar/hands/runner.py, or a double of it."""

    async def run(self, assignment: Assignment, control: Control) -> Outcome:
        """Do it; ends early, with what there is saved, when control.stop is set."""
        ...

    async def recover(self, assignment: Assignment) -> Outcome:
        """Save what a dead process of this sidecar left of it."""
        ...


class Holdings:
    """All holdings of this sidecar."""

    def __init__(
        self,
        *,
        hands: Hands,
        journal: Journal,
        slots: Slots,
        on_change: Callable[[], None],
        on_output: Callable[[Holding, str], None],
        on_end: Callable[[Holding], None],
        meter: Meter = NOBODY,
    ) -> None:
        """`on_change` is called whenever there may be something new to tell the hub."""
        self._meter = meter
        self.slots = slots
        self._hands = hands
        self._journal = journal
        self._on_change = on_change
        self._on_output = on_output
        self._on_end = on_end
        self._controls: dict[Holding, Control] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._offered: list[Assignment] = []
        self._group: asyncio.TaskGroup | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Take up what the journal remembers: recover what was being worked on, hold what is still to be told."""
        self._group = group
        for left in self._journal.still_open():
            self.slots.restore(left.holding, left.assignment, left.outcome)
            known = left.assignment
            log.info("holding.restored", **fields(left.holding, known), finished=left.outcome is not None)
            if left.outcome is None:
                assert left.assignment is not None
                self._spawn(self._recover(left.assignment), left.holding)
        self._note_quiet()

    def offer(self, assignment: Assignment) -> None:
        """Take an assignment that `slots.answer` answered with TAKEN. Nothing of it happens before `write`."""
        older = self.slots.take(assignment)
        self._offered.append(assignment)
        self._note_quiet()
        for holding in older:
            self.stop(holding, "SUPERSEDED")

    async def write(self) -> errors.Problem | None:
        """Put what was offered into the journal, then begin it; returns why it could not be taken after all.

        When the caller is cancelled it is finished all the same: the stream ended, the assignments did not.
        """
        offered, self._offered = self._offered, []
        if not offered:
            return None
        assert self._group is not None, "start comes first"
        return await asyncio.shield(self._group.create_task(self._write(offered), name="holdings.write"))

    async def _write(self, offered: Sequence[Assignment]) -> errors.Problem | None:
        problem: errors.Problem | None = None
        try:
            await self._journal.append(*[Given(assignment) for assignment in offered])
        except errors.Problem as error:
            problem = error
        for assignment in offered:
            entry = self.slots.get(assignment.holding)
            # It may have been stopped meanwhile: then its end is already on its way.
            if entry is None or entry.phase is not Phase.OFFERED:
                continue
            if problem is None:
                self.slots.step(assignment.holding, Step.WRITE)
                log.debug("holding.taken", **fields(assignment.holding, assignment))
            else:
                self._drop(assignment.holding)
        self._begin_ready()
        return problem

    def stop(self, holding: Holding, reason: str) -> None:
        """Stop one, if there is something to stop; its work is saved and its outcome told as stopped."""
        entry = self.slots.get(holding)
        if entry is None or entry.phase not in (Phase.OFFERED, Phase.GIVEN, Phase.RUNNING):
            return
        log.info("holding.stopping", **fields(holding, entry.assignment), reason=reason)
        not_begun = entry.phase is not Phase.RUNNING
        self.slots.step(holding, Step.STOP)
        if not_begun:
            self._spawn(self._end(holding, _stopped(reason, "it was stopped before it began")), holding)
        else:
            self._controls[holding].stop.set(reason)

    def stop_all(self, reason: str) -> None:
        """Stop everything that is being worked on."""
        for entry in self.slots.entries():
            self.stop(entry.holding, reason)

    def settle(self, holding: Holding, reason: str) -> None:
        """Nothing more is to be said of a finished holding: the hub acked its outcome, or does not want it."""
        entry = self.slots.get(holding)
        if entry is None or entry.phase is not Phase.FINISHED:
            return
        log.debug("holding.settled", **fields(holding), reason=reason)
        try:
            self._journal.note(Closed(holding, reason))
        except errors.Exhausted as problem:  # it is told once more after a restart, which the hub bears
            log.warning("holding.not_closed", **fields(holding), error=problem.message)
        self._meter.settled(holding, acked=reason == ACKED)
        self._drop(holding)

    def progress(self, entry: Entry) -> Progress:
        """How a holding gets on."""
        control = self._controls.get(entry.holding)
        if control is not None:
            return control.progress
        return RECOVERING if entry.phase is Phase.STOPPING else Progress()

    async def quiet(self) -> None:
        """Return when nothing is being worked on (outcomes may still be untold)."""
        await self._quiet.wait()

    def abandon(self) -> None:
        """End the tasks of what would not stop in time; the next start recovers it from the journal."""
        for task in self._tasks:
            log.error("holding.abandoned", holding=task.get_name().removeprefix("holding."))
            task.cancel()

    def _begin_ready(self) -> None:
        for entry in self.slots.ready():
            holding = entry.holding
            assert entry.assignment is not None
            self.slots.step(holding, Step.BEGIN)
            control = Control(functools.partial(self._on_output, holding))
            self._controls[holding] = control
            log.info("holding.begun", **fields(holding, entry.assignment), title=entry.assignment.title)
            self._meter.begun(entry.assignment)
            self._spawn(self._work(entry.assignment, control), holding)
        self._on_change()

    # Whatever is logged from inside of the work says of which: it runs in a task, and so in a context, of its own.

    async def _work(self, assignment: Assignment, control: Control) -> None:
        with logs.bound(**fields(assignment.holding, assignment)):
            try:
                outcome = await self._hands.run(assignment, control)
            except Exception as error:
                log.error("runner.crashed", exc_info=error)
                outcome = _crashed(error)
        await self._end(assignment.holding, outcome)

    async def _recover(self, assignment: Assignment) -> None:
        with logs.bound(**fields(assignment.holding, assignment)):
            try:
                outcome = await self._hands.recover(assignment)
            except Exception as error:
                log.error("runner.crashed", exc_info=error)
                outcome = _crashed(error)
        await self._end(assignment.holding, outcome)

    async def _end(self, holding: Holding, outcome: Outcome) -> None:
        try:
            await self._journal.append(Ended(holding, outcome))
        except errors.Problem as problem:
            # A full disk must not cost a result that is there: it is told from memory. If we die before the hub has
            # it, the next start recovers the holding and says that it failed.
            log.error("holding.not_journaled", **fields(holding), error=problem.message)
        self._controls.pop(holding, None)
        entry = self.slots.finish(holding, outcome)
        reason = outcome.failure.reason if isinstance(outcome, NotDone) else ""
        log.info("holding.finished", **fields(holding, entry.assignment), done=not reason, reason=reason or None)
        if entry.assignment is not None:
            self._meter.ended(entry.assignment, outcome)
            entry.assignment = None  # only the outcome is of use from here on
        self._on_end(holding)
        self._note_quiet()
        self._begin_ready()

    def _drop(self, holding: Holding) -> None:
        self.slots.drop(holding)
        self._note_quiet()
        self._on_change()

    def _note_quiet(self) -> None:
        if any(entry.phase in BUSY for entry in self.slots.entries()):
            self._quiet.clear()
        else:
            self._quiet.set()

    def _spawn(self, work: Coroutine[None, None, None], holding: Holding) -> None:
        assert self._group is not None, "start comes first"
        task = self._group.create_task(work, name=f"holding.{holding}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def fields(holding: Holding, assignment: Assignment | None = None) -> dict[str, object]:
    """What a record of the log says of a holding: all that is known of it."""
    told: dict[str, object] = {"task": holding.task, "generation": holding.generation}
    if assignment is not None and assignment.goal:
        told["goal"] = assignment.goal.removeprefix("goals/")
    if assignment is not None:
        told |= tracing.told(tracing.parse(assignment.traceparent))
    return told


def _stopped(reason: str, message: str) -> NotDone:
    return NotDone(failure=Failure(reason=reason, message=message, attribution="agent"), stopped=True)


def _crashed(error: Exception) -> NotDone:
    message = f"the sidecar's runner crashed: {type(error).__name__}: {error}"
    return NotDone(failure=Failure(reason="RUNNER_CRASHED", message=message, attribution="agent"))
