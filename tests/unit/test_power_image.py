"""The image of a power cut: what was synced is always there, what was not may be, sector by sector."""

from __future__ import annotations

import random
import struct

from tests.faults.power import image

OLD, NEW = b"o" * 1024, b"n" * 1024


def record(kind: bytes, offset: int = 0, data: bytes = b"") -> bytes:
    return struct.pack("<cQQ", kind, offset, len(data)) + data


def cuts(log: bytes, count: int = 64) -> set[bytes]:
    return {image.after_cut(log, random.Random(seed))[0] for seed in range(count)}


def test_what_a_completed_sync_covers_is_there_and_the_rest_may_be_torn():
    log = record(b"W", 0, OLD) + record(b"S") + record(b"E") + record(b"W", 0, NEW)
    sectors = {OLD[:512], NEW[:512]}
    assert cuts(log) == {first + second for first in sectors for second in sectors}


def test_a_sync_that_has_not_ended_promises_nothing():
    log = record(b"W", 0, OLD) + record(b"S") + record(b"E") + record(b"W", 0, NEW) + record(b"S")
    assert OLD in cuts(log)


def test_a_write_that_came_after_the_sync_began_is_not_covered_by_it():
    log = record(b"W", 0, OLD) + record(b"S") + record(b"W", 1024, NEW) + record(b"E")
    assert OLD in {one[:1024] for one in cuts(log)}
    assert any(one[1024:] != NEW for one in cuts(log))


def test_a_write_through_is_there_when_it_has_ended_and_not_before():
    begun = record(b"P", 0, NEW)
    assert cuts(begun) != {NEW}
    assert cuts(begun + record(b"Q")) == {NEW}


def test_a_log_that_is_cut_in_a_record_ends_before_it():
    log = record(b"W", 0, OLD) + record(b"W", 0, NEW)
    assert [one.data for one in image.records(log[:-1])] == [OLD]
    assert image.without_cut(log) == NEW
