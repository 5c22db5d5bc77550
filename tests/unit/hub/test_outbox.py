"""Lanes: nothing is lost without being counted, nothing grows without a bound, nobody is flooded."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.notices import outbox
from hub.core.notices.notice import Failed, Kind, Notice, Refused
from hub.core.notices.outbox import Lane, Outbox

AT = 1_700_000_000.0
RATE = 20 / 3600
DICE = random.Random(1)


def made(number, kind=Kind.URGENT):
    return Notice(id=f"n{number:04}", kind=kind, title=f"thing {number}", text="why", at=AT + number)


def filled(count, *sinks, kind=Kind.URGENT):
    box = Outbox()
    for number in range(count):
        box = outbox.put(box, made(number, kind), sinks or ("webhook",))
    return box


def next_one(box, sink, now, rate=RATE):
    """What the notifier would send now; None: nothing is due."""
    due = outbox.due_at(box, sink, now, rate)
    if due is None or due > now:
        return box, None
    box = outbox.ready(box, sink, now, rate)
    return box, box.notices[box.lane(sink).waiting[0]]


def drained(box, sink, now, rate=RATE):
    """Everything that goes out at this moment."""
    found = []
    while True:
        box, one = next_one(box, sink, now, rate)
        if one is None:
            return box, found
        found.append(one)
        box = outbox.sent(box, sink, one.id, now, rate)


def test_a_sink_is_told_in_order_and_then_nothing_waits():
    box, found = drained(filled(3), "webhook", AT)
    assert [one.id for one in found] == ["n0000", "n0001", "n0002"]
    assert box.lane("webhook").waiting == () and box.notices == {}
    assert box.lane("webhook").succeeded_at == AT


def test_a_flood_is_a_few_notices_and_one_that_counts_the_rest():
    box, found = drained(filled(25), "webhook", AT)
    assert [one.stands_for for one in found] == [1, 1, 1, 1, 21]
    assert found[-1].title == "21 more notices"
    box = outbox.put(box, made(99), ["webhook"])
    assert outbox.due_at(box, "webhook", AT, RATE) == pytest.approx(AT + 1 / RATE)
    assert drained(box, "webhook", AT + 1 / RATE + 0.001)[1][0].id == "n0099"


def test_a_digest_needs_no_room_in_the_bucket():
    box, _ = drained(filled(5), "webhook", AT)
    box = outbox.put(box, made(7, Kind.DIGEST), ["webhook"])
    assert drained(box, "webhook", AT)[1][0].id == "n0007"


def test_without_a_rate_each_goes_by_itself():
    _, found = drained(filled(25), "webhook", AT, rate=0.0)
    assert [one.stands_for for one in found] == [1] * 25


def test_a_try_that_fails_is_made_again_later_and_later_and_the_first_notice_keeps_its_id():
    box, delays = filled(2), []
    now = AT
    for _ in range(8):
        box, one = next_one(box, "webhook", now)
        assert one is not None and one.id == "n0000"
        box = outbox.failed(box, "webhook", one.id, now, Failed("host answered 503"), DICE)
        assert next_one(box, "webhook", now)[1] is None
        delays.append(box.lane("webhook").next_at - now)
        now = box.lane("webhook").next_at
    assert all(4 <= first <= 6 for first in delays[:1]) and delays[-1] <= outbox.RETRY.cap_s
    assert delays == sorted(delays) or delays[-2] >= 2_800
    lane = box.lane("webhook")
    assert lane.failing and lane.error == "host answered 503" and lane.failed_at is not None
    box, found = drained(box, "webhook", now)
    assert [one.id for one in found] == ["n0000", "n0001"]
    assert not box.lane("webhook").failing


def test_what_the_other_side_asks_for_is_waited_within_a_bound():
    for asked, least, most in ((50.0, 50, 50), (1e9, 3_600, 3_600)):
        problem = Failed("x", retry_delay_s=asked)
        box = outbox.failed(filled(1), "webhook", "n0000", AT, problem, DICE)
        assert least <= box.lane("webhook").next_at - AT <= most


def test_a_notice_that_is_refused_again_and_again_does_not_block_the_others():
    box, now = filled(2), AT
    for _ in range(outbox.REFUSED_MAX):
        box = outbox.failed(box, "webhook", "n0000", now, Refused("host answered 413"), DICE)
        now = box.lane("webhook").next_at
    assert box.lane("webhook").waiting == ("n0001",)
    assert drained(box, "webhook", now)[1][0].id == "n0001"


def test_a_clock_that_was_set_back_does_not_silence_a_sink():
    box = outbox.failed(filled(1), "webhook", "n0000", AT, Failed("x"), DICE)
    due = outbox.due_at(box, "webhook", AT - 1e6, RATE)
    assert due is not None and due <= AT - 1e6 + outbox.RETRY.cap_s


def test_a_sink_that_is_down_for_long_has_a_few_that_count_all():
    box = outbox.failed(filled(1), "webhook", "n0000", AT, Failed("x"), DICE)
    for number in range(1, 500):
        box = outbox.put(box, made(number), ["webhook"])
        assert len(box.lane("webhook").waiting) <= outbox.WAITING_MAX
    assert box.backlog("webhook") == 500 and len(box.notices) <= outbox.WAITING_MAX
    assert box.lane("webhook").waiting[0] == "n0000", "the one that may have arrived keeps its id"
    _, found = drained(box, "webhook", AT + 7_200)
    assert sum(one.stands_for for one in found) == 500


def test_lanes_of_sinks_that_are_gone_go_with_what_waits_for_them_alone():
    box = outbox.put(filled(2, "webhook", "ntfy"), made(5), ["ntfy"])
    box = outbox.keep(box, ["webhook"])
    assert set(box.lanes) == {"webhook"} and set(box.notices) == {"n0000", "n0001"}


def test_a_trial_that_works_ends_the_waiting_for_the_next_try():
    lane = outbox.failed(filled(1), "webhook", "n0000", AT, Failed("x"), DICE).lane("webhook")
    good = outbox.tried(lane, AT + 1, None)
    assert not good.failing and good.next_at == 0.0 and good.waiting == lane.waiting
    bad = outbox.tried(Lane(), AT, Failed("no"))
    assert bad.error == "no" and not bad.failing


@given(
    st.lists(st.tuples(st.sampled_from(["put", "send", "fail", "refuse"]), st.integers(0, 2_000)), max_size=120),
    st.sampled_from([0.0, RATE, 1.0]),
)
def test_whatever_happens_each_notice_is_told_once_or_counted_or_waits(steps, rate):
    """Sent, waiting and given up together are what was put; bounds hold; the whole survives being written down."""
    box, now, put, told, given_up = Outbox(), AT, 0, 0, 0
    sent_ids: list[str] = []
    for verb, seconds in steps:
        now += seconds
        if verb == "put":
            box = outbox.put(box, made(put), ["webhook", "ntfy"])
            put += 1
        else:
            box, one = next_one(box, "webhook", now, rate)
            if one is None:
                continue
            if verb == "send":
                box = outbox.sent(box, "webhook", one.id, now, rate)
                told += one.stands_for
                sent_ids.append(one.id)
            else:
                before = box.backlog("webhook")
                problem = Failed("x") if verb == "fail" else Refused("x")
                box = outbox.failed(box, "webhook", one.id, now, problem, DICE)
                given_up += before - box.backlog("webhook")
        assert told + given_up + box.backlog("webhook") == put
        assert box.backlog("ntfy") == put
        for lane in box.lanes.values():
            assert len(lane.waiting) <= outbox.WAITING_MAX
            assert set(lane.waiting) <= set(box.notices)
        assert len(box.notices) <= 2 * outbox.WAITING_MAX
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(box), type=Outbox) == box
    assert len(set(sent_ids)) == len(sent_ids), "nothing is told twice"
