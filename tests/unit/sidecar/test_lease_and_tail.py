"""The self-stop rule and the live log's buffers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.assignment import Holding
from sidecar.core.lease import Lease
from sidecar.core.tail import Tail

ONE, TWO = Holding(task="0" * 20, generation=1), Holding(task="0" * 20, generation=2)


def test_before_a_welcome_there_is_nothing_to_stop():
    lease = Lease()
    assert lease.left_s(1e9) is None
    assert not lease.ran_out(1e9)


def test_it_runs_out_once_for_each_silence():
    lease = Lease()
    lease.grant(30, 100)
    assert lease.left_s(110) == 20
    assert not lease.ran_out(129.9)
    assert lease.ran_out(130)
    assert not lease.ran_out(131)
    lease.heard(140)
    assert not lease.ran_out(169)
    assert lease.ran_out(170)


def test_a_welcome_without_a_duration_keeps_the_rule():
    lease = Lease()
    lease.grant(30, 0)
    lease.grant(0, 10)
    assert lease.left_s(10) == 30


def test_what_nobody_watches_is_not_kept():
    tail = Tail()
    assert not tail.write(ONE, "text")
    tail.watch([ONE])
    assert tail.take() is None
    assert not tail.end(TWO)


def test_an_end_is_told_once_and_after_the_output():
    tail = Tail()
    tail.watch([ONE])
    tail.write(ONE, "text")
    assert tail.end(ONE)
    assert not tail.end(ONE)
    assert not tail.write(ONE, "late")
    chunk = tail.take()
    assert (chunk.text, chunk.end) == ("text", True)
    assert tail.take() is None


def test_a_watcher_that_comes_back_keeps_what_waits_for_the_others():
    tail = Tail()
    tail.watch([ONE])
    tail.write(ONE, "text")
    tail.watch([ONE, TWO])
    assert tail.take().text == "text"


def test_the_watched_take_turns():
    tail = Tail(buffer_bytes_max=100, chunk_bytes_max=4)
    tail.watch([ONE, TWO])
    for holding in (ONE, TWO):
        tail.write(holding, "abcdefgh")
    assert len({tail.take().holding for _ in range(2)}) == 2


@given(st.lists(st.text(max_size=40), max_size=20), st.integers(4, 16), st.integers(16, 64))
def test_every_byte_is_sent_in_order_or_counted_and_no_character_is_broken(texts, chunk_max, buffer_max):
    tail = Tail(buffer_bytes_max=buffer_max, chunk_bytes_max=chunk_max)
    tail.watch([ONE])
    everything = b"".join(text.encode() for text in texts)
    for text in texts:
        tail.write(ONE, text)
    sent, dropped = b"", 0
    while (chunk := tail.take()) is not None:
        assert 0 < len(chunk.text.encode()) <= chunk_max
        sent, dropped = sent + chunk.text.encode(), dropped + chunk.dropped_bytes
    assert len(sent) <= buffer_max
    assert len(sent) + dropped == len(everything)
    assert everything.endswith(sent)
