"""What was said in a session and what is stored: nothing twice, nothing lost, nothing without a bound."""

from __future__ import annotations

import pytest

from agentcom.v1 import attach_pb2
from kit import ledger as kit_ledger
from sidecar.core.assignment import Assignment, Done, Holding
from sidecar.core.offer import Refusal
from sidecar.core.slots import Slots, Step
from sidecar.wire.ledger import OUTBOX_COUNT_MAX, Ledger


def held(number: int) -> Holding:
    return Holding(task=f"{number:020}", generation=1)


def given(slots: Slots, number: int) -> Holding:
    slots.take(Assignment(holding=held(number), title="t"))
    slots.step(held(number), Step.WRITE)
    return held(number)


def finished(slots: Slots, number: int) -> Holding:
    holding = given(slots, number)
    slots.step(holding, Step.BEGIN)
    slots.finish(holding, Done(summary="done"))
    return holding


def kinds(due: list[tuple[int, attach_pb2.Report | attach_pb2.Goodbye]]) -> list[tuple[int, str | None]]:
    return [(seq, body.WhichOneof("outcome")) for seq, body in due if isinstance(body, attach_pb2.Report)]


def opened() -> Ledger:
    book = Ledger()
    book.open("s1")
    return book


def test_what_is_not_in_the_journal_yet_is_not_accepted():
    book, slots = opened(), Slots(2)
    slots.take(Assignment(holding=held(1), title="t"))
    assert book.due(slots) == []
    slots.step(held(1), Step.WRITE)
    assert kinds(book.due(slots)) == [(1, "accepted")]


def test_each_thing_is_said_once_in_a_session_and_again_in_the_next():
    book, slots = opened(), Slots(2)
    given(slots, 1)
    finished(slots, 2)
    assert kinds(book.due(slots)) == [(1, "accepted"), (2, "completed")]
    assert book.due(slots) == []
    book.open("s2")
    assert kinds(book.due(slots)) == [(1, "accepted"), (2, "completed")]


def test_an_ack_names_the_holdings_whose_outcome_it_stores():
    book, slots = opened(), Slots(2)
    given(slots, 1)
    finished(slots, 2)
    book.due(slots)
    assert book.acked(1) == []
    assert book.acked(2) == [held(2)]
    assert book.empty


def test_an_order_that_was_read_and_not_applied_comes_again_after_a_resume():
    book = opened()
    assert book.is_new(1)
    book.applied()
    assert book.is_new(2)  # the stream broke before its effect was in the journal
    assert book.ack == 1
    book.resume(0)
    assert not book.is_new(1)
    assert book.is_new(2)


def test_a_resume_sends_what_is_not_stored_under_its_old_number():
    book, slots = opened(), Slots(2)
    finished(slots, 1)
    finished(slots, 2)
    sent = book.due(slots)
    settled, again = book.resume(1)
    assert settled == [held(1)]
    assert again == sent[1:]


def test_an_ack_from_another_session_is_a_gap():
    with pytest.raises(kit_ledger.Gap):
        opened().acked(1)


def test_unsequenced_messages_are_always_new():
    book = opened()
    assert book.is_new(0)
    assert book.is_new(0)


def test_a_hub_that_acks_nothing_is_sent_a_bounded_number_of_reports_and_the_rest_follows_its_acks():
    book, slots = opened(), Slots(1)
    for number in range(OUTBOX_COUNT_MAX):
        assert book.refuse(held(number), Refusal("NO_SLOT", "full"))
    assert book.refuse(held(1), Refusal("NO_SLOT", "full")) == []
    finished(slots, 1)
    assert book.due(slots) == []
    book.acked(1)
    assert kinds(book.due(slots)) == [(OUTBOX_COUNT_MAX + 1, "completed")]
