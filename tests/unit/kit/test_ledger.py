"""Every message is applied exactly once, in order, whatever the wire loses and repeats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kit import errors, ledger
from kit.ledger import Verdict

BOUND = 5


class Wire(RuleBasedStateMachine):
    """A sender and a receiver with a wire that breaks: what was in flight is lost, the pending is sent again."""

    def __init__(self):
        super().__init__()
        self.outbox = ledger.Outbox(BOUND)
        self.inbox = ledger.Inbox()
        self.flight = []
        self.given = []
        self.applied = []
        self.durable = 0

    @rule()
    def send(self):
        if self.outbox.full:
            with pytest.raises(errors.Exhausted):
                self.outbox.put("one too many")
            return
        message = f"m{len(self.given)}"
        self.flight.append((self.outbox.put(message), message))
        self.given.append(message)

    @precondition(lambda self: self.flight)
    @rule()
    def deliver(self):
        seq, message = self.flight.pop(0)
        if self.inbox.accept(seq) is Verdict.APPLY:
            self.applied.append(message)

    @rule()
    def commit(self):
        self.durable = self.inbox.applied

    @rule()
    def ack_arrives(self):
        self.outbox.ack(self.durable)

    @rule()
    def reconnect(self):
        self.flight = self.outbox.pending()

    @rule()
    def receiver_restarts(self):
        """What was applied and not durable is gone; the sender still holds it, for it was not acked."""
        self.inbox = ledger.Inbox(self.durable)
        del self.applied[self.durable :]
        self.flight = self.outbox.pending()

    @rule()
    def sender_restarts(self):
        self.outbox = ledger.Outbox.restored(BOUND, sent=self.outbox.last, held=self.outbox.pending())
        self.flight = self.outbox.pending()

    @invariant()
    def applied_once_and_in_order(self):
        assert self.applied == self.given[: len(self.applied)]

    @invariant()
    def nothing_is_lost(self):
        """What is not durable at the receiver is held by the sender."""
        assert [m for _, m in self.outbox.pending()] == self.given[self.outbox.acked :]
        assert self.outbox.acked <= self.durable

    @invariant()
    def bounded(self):
        assert len(self.outbox) <= BOUND


TestWire = Wire.TestCase


@given(st.integers(1, 1000), st.integers(0, 1000))
def test_a_message_is_applied_only_right_after_the_one_before(seq, applied):
    inbox = ledger.Inbox(applied)
    if seq == applied + 1:
        assert inbox.accept(seq) is Verdict.APPLY
        assert inbox.applied == seq
        assert inbox.accept(seq) is Verdict.DUPLICATE
    elif seq <= applied:
        assert inbox.accept(seq) is Verdict.DUPLICATE
    else:
        with pytest.raises(ledger.Gap) as gap:
            inbox.accept(seq)
        assert gap.value.reason == "SESSION_GAP"
        assert inbox.applied == applied, "a refused message changes nothing"


def test_a_number_of_an_unsequenced_message_is_refused():
    with pytest.raises(ledger.Gap):
        ledger.Inbox().accept(0)


def test_an_ack_for_what_was_never_sent_ends_the_session():
    outbox: ledger.Outbox[str] = ledger.Outbox(BOUND)
    outbox.put("a")
    with pytest.raises(ledger.Gap):
        outbox.ack(2)
    assert outbox.pending() == [(1, "a")], "a refused ack releases nothing"


def test_an_ack_releases_everything_up_to_it_and_an_old_one_nothing():
    outbox: ledger.Outbox[str] = ledger.Outbox(BOUND)
    for message in "abc":
        outbox.put(message)
    assert outbox.ack(2) == ["a", "b"]
    assert outbox.ack(1) == []
    assert outbox.pending() == [(3, "c")]
    assert (outbox.acked, outbox.last) == (2, 3)


def test_a_restored_outbox_goes_on_counting_where_it_was():
    outbox = ledger.Outbox.restored(BOUND, sent=9, held=[(9, "i"), (8, "h")])
    assert outbox.pending() == [(8, "h"), (9, "i")]
    assert outbox.put("j") == 10
    assert outbox.acked == 7
