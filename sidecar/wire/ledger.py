"""What was said to the hub in this session and what of it is stored there.

Nothing is queued here that could get lost: what is to be said is read off the holdings (level-triggered), each time
something changed and each time the hub made room by acking. A new session therefore needs no replay: it has said
nothing yet, so everything that holds is said again. The hub takes it by holding, so twice is once.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentcom.v1 import attach_pb2
from kit import errors, ledger, logs, validation
from sidecar.core.assignment import Failure, Holding, NotDone
from sidecar.core.offer import Refusal
from sidecar.core.slots import Entry, Phase, Slots
from sidecar.wire import translate

log = logs.get(__name__)

#: Reports on their way. One accept and one end for each holding fit, and some refusals; then it waits for acks.
OUTBOX_COUNT_MAX = 1024

Sequenced = attach_pb2.Report | attach_pb2.Goodbye


@dataclass(frozen=True, slots=True)
class Said:
    """A sequenced message; `ends` is the holding whose outcome it tells."""

    body: Sequenced
    ends: Holding | None = None


class Ledger:
    """Both directions of one session."""

    def __init__(self) -> None:
        #: The session's name; empty: a new one must be opened.
        self.session = ""
        self._begin()

    def _begin(self) -> None:
        self._outbox: ledger.Outbox[Said] = ledger.Outbox(OUTBOX_COUNT_MAX)
        self._inbox = ledger.Inbox()
        self._durable = 0
        self._accepted: set[Holding] = set()
        self._ended: set[Holding] = set()

    @property
    def ack(self) -> int:
        """The hub's highest number whose effect is in the journal."""
        return self._durable

    @property
    def empty(self) -> bool:
        """Is everything that was said stored at the hub?"""
        return len(self._outbox) == 0

    def forget(self) -> None:
        """The session cannot go on: open a new one."""
        self.session = ""

    def open(self, session: str) -> None:
        """A new session: nothing is said yet, and nothing heard."""
        self.session = session
        self._begin()

    def resume(self, received_seq: int) -> tuple[list[Holding], list[tuple[int, Sequenced]]]:
        """The session goes on: which outcomes are stored meanwhile, and what must be sent again. Raises Gap."""
        settled = self.acked(received_seq)
        # What was read and not made durable before the stream broke comes again, and must not count as a duplicate.
        self._inbox = ledger.Inbox(self._durable)
        return settled, [(seq, said.body) for seq, said in self._outbox.pending()]

    def acked(self, seq: int) -> list[Holding]:
        """The hub has stored everything up to `seq`; returns the holdings whose outcome that is. Raises Gap."""
        return [said.ends for said in self._outbox.ack(seq) if said.ends is not None]

    def is_new(self, seq: int) -> bool:
        """Is a message that came in to be applied? Raises Gap when something between is missing."""
        return seq == 0 or self._inbox.accept(seq) is ledger.Verdict.APPLY

    def applied(self) -> None:
        """The effect of everything accepted so far is durable."""
        self._durable = self._inbox.applied

    def say_again(self, holding: Holding) -> None:
        """The hub seems not to know that the holding was accepted."""
        self._accepted.discard(holding)

    def due(self, slots: Slots) -> list[tuple[int, Sequenced]]:
        """What the holdings have to say and was not said yet, numbered; as much as there is room for."""
        held = {entry.holding for entry in slots.entries()}
        self._accepted &= held
        self._ended &= held
        due = []
        for entry in slots.entries():
            if self._outbox.full:
                break
            if entry.phase is Phase.FINISHED and entry.holding not in self._ended:
                self._ended.add(entry.holding)
                due.append(self._put(Said(_report(entry), ends=entry.holding)))
            elif entry.phase in (Phase.GIVEN, Phase.RUNNING) and entry.holding not in self._accepted:
                self._accepted.add(entry.holding)
                due.append(self._put(Said(translate.to_accepted(entry.holding))))
        return due

    def refuse(self, holding: Holding, refusal: Refusal) -> list[tuple[int, Sequenced]]:
        """Not me; nothing when there is no room (the hub takes the assignment back by itself then)."""
        if self._outbox.full:
            return []
        return [self._put(Said(translate.to_rejected(holding, refusal.reason, refusal.message)))]

    def goodbye(self, reason: str) -> list[tuple[int, Sequenced]]:
        """The last message."""
        return [self._put(Said(attach_pb2.Goodbye(reason=reason)))]

    def _put(self, said: Said) -> tuple[int, Sequenced]:
        return self._outbox.put(said), said.body


def _report(entry: Entry) -> attach_pb2.Report:
    """The report of an outcome. One that breaks the contract would end every stream it is sent on: it is replaced."""
    assert entry.outcome is not None
    report = translate.to_report(entry.holding, entry.outcome)
    try:
        validation.check(report, "Report")
    except errors.Invalid as problem:
        holding = entry.holding
        log.error("outcome.invalid", task=holding.task, generation=holding.generation, message=problem.message)
        message = f"the sidecar made a report that breaks the contract: {problem.message}"
        failure = Failure(reason="REPORT_INVALID", message=message, attribution="agent")
        return translate.to_report(entry.holding, NotDone(failure=failure))
    return report
