"""Keys sort as the domain does; records check when they are read back, and those of version 1 stay readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.event import Event
from hub.core.task import Lane, State, Task
from hub.store import codec, keys, migrate
from hub.store.memory import MemoryOrdered
from hub.store.ordered import walk
from kit import errors

TIMES = st.floats(0, 4e9, allow_nan=False)
IDS = st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=20, max_size=20)
ANY_BYTES = st.binary(min_size=1, max_size=6)


@given(TIMES, TIMES, IDS, IDS)
def test_ready_entries_sort_by_time_then_id(one: float, two: float, a: str, b: str) -> None:
    first, second = keys.ready_entry(1, Lane.LOW, one, a), keys.ready_entry(1, Lane.LOW, two, b)
    assert (first < second) == ((keys.microseconds(one), a) < (keys.microseconds(two), b))


@given(st.integers(1, 2**32 - 1), st.sampled_from(Lane), TIMES, IDS)
def test_entries_of_a_class_and_lane_lie_in_its_range_and_in_no_other(
    class_id: int, lane: Lane, at: float, id: str
) -> None:
    entry = keys.ready_entry(class_id, lane, at, id)
    prefix = keys.ready(class_id, lane)
    assert prefix <= entry < keys.end(prefix)
    other = keys.ready(class_id - 1, lane)
    assert not other <= entry < keys.end(other)


@given(TIMES)
def test_a_time_survives_the_way_through_a_key(at: float) -> None:
    number = keys.microseconds(at)
    assert keys.microseconds(keys.seconds(number)) == number
    assert abs(keys.seconds(number) - at) <= 1e-6


def test_a_time_before_the_epoch_is_the_epoch() -> None:
    assert keys.microseconds(-5.0) == 0


@given(ANY_BYTES.filter(lambda prefix: prefix.strip(b"\xff") != b""), st.binary(max_size=6))
def test_the_end_of_a_prefix_is_behind_all_that_begins_with_it(prefix: bytes, rest: bytes) -> None:
    if prefix[0] != 0xFF:
        assert prefix + rest < keys.end(prefix)
        assert keys.end(prefix) <= keys.end(prefix[:1])


def test_every_prefix_is_its_own() -> None:
    prefixes = [value for name, value in vars(keys).items() if name.isupper() and isinstance(value, bytes)]
    singles = [prefix for prefix in prefixes if len(prefix) == 1 and prefix != b"\0"]
    assert len(set(singles)) == len(singles) >= 24
    assert b"!" not in singles


@given(st.sets(st.binary(min_size=1, max_size=3), max_size=600), st.booleans())
def test_a_walk_passes_every_key_of_its_range_once(found: set[bytes], reverse: bool) -> None:
    kv = MemoryOrdered()
    for key in found:
        kv.put(key, b"")
    expected = sorted((key for key in found if b"\x20" <= key < b"\xe0"), reverse=reverse)
    assert list(walk(kv, b"\x20", b"\xe0", reverse=reverse)) == expected


@given(st.data())
def test_any_changed_byte_of_a_record_is_noticed(data: st.DataObject) -> None:
    raw = codec.TASK.encode(Task(id="t", state=State.QUEUED, class_id=3, reason="why"))
    place = data.draw(st.integers(0, len(raw) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != raw[place]))
    with pytest.raises(errors.DataLoss):
        codec.TASK.decode(raw[:place] + bytes([value]) + raw[place + 1 :], b"key")


@given(st.integers(0, 40))
def test_a_record_that_is_cut_short_is_noticed(length: int) -> None:
    raw = codec.TASK.encode(Task(id="t", state=State.QUEUED, class_id=3, reason="a long enough reason"))
    with pytest.raises(errors.DataLoss):
        codec.TASK.decode(raw[:length], b"key")


def test_a_record_of_another_type_or_version_is_refused() -> None:
    task = Task(id="t", state=State.QUEUED, class_id=3)
    for number, version in ((1, 2), (2, 1)):
        raw = codec.Codec(number, version, Task).encode(task)
        with pytest.raises(errors.DataLoss, match="has tag"):
            codec.TASK.decode(raw, b"key")


def test_a_right_checksum_over_nonsense_is_refused() -> None:
    with pytest.raises(errors.DataLoss, match="cannot be decoded"):
        codec.TASK.decode(codec.seal(codec.TASK.tag, b"\x81\xa2id\x05"), b"key")
    with pytest.raises(errors.DataLoss, match="cannot be decoded"):
        codec.TASK.decode(codec.seal(codec.TASK.tag, b"\xc1"), b"key")


# Written by the first version: these bytes are on people's disks. A field may be added; none may change its name, type
# or default without a new version of the record and a step in migrate.py.
GOLDEN_TASK = bytes.fromhex(
    "096a91d44ade0008a26964a27431a5737461746505a8636c6173735f696407a56167656e74a3612d31ad6b696c6c65645f61"
    "67656e747391a178a777616b655f6174cb3ff8000000000000a66c6162656c7381a161a162a87265766973696f6e04"
)
GOLDEN_EVENT = bytes.fromhex(
    "61719d5b469805cb4004000000000000ac7461736b2e63726561746564a87461736b732f7431a167a26d6581a16ba176c410"
    "68686868686868686868686868686868"
)


def test_records_of_version_1_stay_readable() -> None:
    task = codec.TASK.decode(GOLDEN_TASK, b"key")
    assert (task.id, task.state, task.class_id, task.agent) == ("t1", State.RUNNING, 7, "a-1")
    assert (task.lane, task.attempts_max, task.start_timeout_s, task.run_timeout_s) == (Lane.NORMAL, 3, 60.0, 3600.0)
    assert (task.wake_at, task.revision, task.labels, task.killed_agents) == (1.5, 4, {"a": "b"}, ("x",))
    event = codec.EVENT.decode(GOLDEN_EVENT, b"key")
    assert event == Event(
        position=5,
        at=2.5,
        type="task.created",
        subject="tasks/t1",
        goal="g",
        actor="me",
        fields={"k": "v"},
        hash=b"h" * 16,
    )


def test_the_hash_is_the_last_field_of_an_event() -> None:
    """chain.py cuts it off the encoded bytes."""
    assert Event.__struct_fields__[-1] == "hash"


def test_a_new_store_gets_the_version_and_keeps_it() -> None:
    kv = MemoryOrdered()
    assert migrate.found(kv) is None
    migrate.bring(kv)
    assert migrate.found(kv) == migrate.VERSION
    before = dict(kv._values)
    migrate.bring(kv)
    assert kv._values == before


def test_an_older_store_is_brought_forward_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    kv = MemoryOrdered()
    migrate.bring(kv)
    done: list[int] = []
    monkeypatch.setattr(migrate, "VERSION", 4)
    monkeypatch.setattr(migrate, "STEPS", {2: lambda _: done.append(2), 3: lambda _: done.append(3)})
    migrate.bring(kv)
    assert (done, migrate.found(kv)) == ([2, 3], 4)
