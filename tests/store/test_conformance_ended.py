"""What retention asks of a store: lists of what has ended, and a log that begins later and still proves itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hub.core import change, goal, token
from hub.core.task import State
from hub.store import codec, keys
from hub.store.base import Answer, Ended, EndedOne, Store, Txn
from kit import errors
from tests.store.build import NOW, changed, filed, task, task_id


def ended(store: Store, sort: Ended, until: float = NOW + 1e6, **more: Any) -> list[EndedOne]:
    return store.read(lambda reader: reader.ended(sort, until=until, **{"limit": 99, **more}))


def events(count: int, *, goal: str = "g1", at: float = NOW):
    """A script that appends events about two tasks of one goal, one second apart."""

    def script(txn: Txn) -> None:
        first = txn.position()
        for number in range(count):
            txn.append(at + first + number, "task.created", f"tasks/t{number % 2}", goal=goal, n=str(number))

    return script


async def test_tasks_are_listed_by_the_time_of_their_end(store: Store):
    late = task(1, state=State.SUCCEEDED, ended_at=NOW + 9)
    early = task(2, state=State.CANCELLED, ended_at=NOW + 3)
    dead = task(3, state=State.DEAD, ended_at=NOW + 5)
    await store.write(filed(late, early, dead, task(4), task(5, state=State.RUNNING, agent="a")))
    assert ended(store, Ended.TASK) == [EndedOne(NOW + 3, early.id), EndedOne(NOW + 9, late.id)]
    assert ended(store, Ended.DEAD_TASK) == [EndedOne(NOW + 5, dead.id)]
    assert ended(store, Ended.TASK, until=NOW + 3) == [EndedOne(NOW + 3, early.id)]
    assert ended(store, Ended.TASK, until=NOW + 2.999) == []
    assert ended(store, Ended.TASK, after=EndedOne(NOW + 3, early.id)) == [EndedOne(NOW + 9, late.id)]
    assert ended(store, Ended.TASK, limit=1) == [EndedOne(NOW + 3, early.id)]


async def test_a_task_that_goes_on_again_is_not_listed_any_more(store: Store):
    dead = task(1, state=State.DEAD, ended_at=NOW)
    await store.write(filed(dead))
    await store.write(changed(msgspec.structs.replace(dead, state=State.QUEUED, ended_at=None)))
    assert ended(store, Ended.DEAD_TASK) == []


async def test_goals_changes_and_tokens_are_listed_when_they_have_ended(store: Store):
    goals = [
        goal.Goal(id=state.name, title="t", repo="r", state=state, ended_at=NOW if state in goal.FINAL else None)
        for state in goal.State
    ]
    changes = [
        change.Change(id=state.name, task="t", generation=1, repo="r", branch="b", head_sha="h", state=state)
        for state in change.State
    ]
    tokens = [
        token.Token(id="good", secret_sha256="a", scope=token.Scope.VIEWER),
        token.Token(id="expires", secret_sha256="b", scope=token.Scope.VIEWER, expires_at=NOW + 5),
        token.Token(id="revoked", secret_sha256="c", scope=token.Scope.VIEWER, expires_at=NOW + 5, revoked_at=NOW),
    ]

    def script(txn):
        for one in goals:
            txn.goals.put(one)
        for one in changes:
            txn.changes.put(msgspec.structs.replace(one, updated_at=NOW))
        for one in tokens:
            txn.tokens.put(one)

    await store.write(script)
    assert [one.id for one in ended(store, Ended.GOAL)] == ["CANCELLED", "SUCCEEDED"]
    assert [one.id for one in ended(store, Ended.FAILED_GOAL)] == ["FAILED"]
    assert [one.id for one in ended(store, Ended.CHANGE)] == ["ABANDONED", "MERGED", "RETURNED"]
    assert ended(store, Ended.TOKEN) == [EndedOne(NOW, "revoked"), EndedOne(NOW + 5, "expires")]
    await store.write(lambda txn: txn.tokens.delete("revoked"))
    assert ended(store, Ended.TOKEN) == [EndedOne(NOW + 5, "expires")]


async def test_contents_of_artefacts_can_go_alone(store: Store):
    def script(txn: Txn) -> None:
        filed(task(1), task(2))(txn)
        for id in (task_id(1), task_id(2)):
            txn.put_artifact(id, 1, "log", b"x")
            txn.put_artifact(id, 2, "log", b"y")

    await store.write(script)
    assert await store.write(lambda txn: txn.drop_artifacts(task_id(1))) == 2
    assert store.read(lambda reader: reader.artifact(task_id(1), 2, "log")) is None
    assert store.read(lambda reader: reader.artifact(task_id(2), 2, "log")) == b"y"


async def test_the_oldest_events_go_by_age_and_the_rest_still_proves_itself(store: Store):
    await store.write(events(10))
    newest = store.read(lambda reader: reader.events(after=9, limit=1))
    assert await store.write(lambda txn: txn.drop_events(before=NOW + 4, keep=99, limit=99)) == 4
    assert store.read(lambda reader: reader.position_gone()) == 4
    assert [event.position for event in store.read(lambda r: r.events(after=0, limit=99))] == [5, 6, 7, 8, 9, 10]
    assert store.read(lambda reader: reader.events(after=9, limit=1)) == newest
    assert store.verify_chain() == 10
    assert store.verify_chain(after=2) == 10
    assert store.verify_chain(after=4) == 10
    assert store.verify_chain(after=7, limit=2) == 9
    await store.write(events(3))
    assert store.verify_chain() == 13


async def test_the_oldest_events_go_by_count(store: Store):
    await store.write(events(10))
    assert await store.write(lambda txn: txn.drop_events(before=0.0, keep=7, limit=99)) == 3
    assert await store.write(lambda txn: txn.drop_events(before=0.0, keep=7, limit=99)) == 0
    assert await store.write(lambda txn: txn.drop_events(before=0.0, keep=2, limit=3)) == 3
    assert store.read(lambda reader: reader.position_gone()) == 6


async def test_the_newest_event_stays(store: Store):
    assert await store.write(lambda txn: txn.drop_events(before=NOW * 2, keep=0, limit=99)) == 0
    await store.write(events(5))
    assert await store.write(lambda txn: txn.drop_events(before=NOW * 2, keep=0, limit=99)) == 4
    assert [event.position for event in store.read(lambda r: r.events(after=0, limit=9))] == [5]
    assert store.verify_chain() == 5


async def test_an_event_from_before_a_clock_was_set_back_keeps_those_behind_it(store: Store):
    """The log is cut from its beginning only: a gap in it would be no log."""
    await store.write(events(2, at=NOW + 5000))
    await store.write(events(2, at=NOW))
    assert await store.write(lambda txn: txn.drop_events(before=NOW + 100, keep=99, limit=99)) == 0


async def test_the_lists_of_subjects_and_goals_follow(store: Store):
    await store.write(events(10))
    await store.write(lambda txn: txn.append(NOW + 10, "goal.created", "goals/g1", goal="g1"))
    await store.write(lambda txn: txn.drop_events(before=NOW + 4, keep=99, limit=99))

    def positions(subject: str) -> list[int]:
        return [event.position for event in store.read(lambda r: r.events_of(subject, limit=99))]

    assert positions("tasks/t0") == [5, 7, 9]
    assert positions("tasks/t1") == [6, 8, 10]
    assert positions("goals/g1") == [5, 6, 7, 8, 9, 10, 11]
    await store.write(lambda txn: txn.drop_events(before=NOW * 2, keep=0, limit=99))
    assert positions("tasks/t0") == positions("tasks/t1") == []
    assert positions("goals/g1") == [11]


async def test_a_function_that_fails_forgets_nothing(store: Store):
    await store.write(events(10))

    def script(txn: Txn) -> None:
        txn.drop_events(before=NOW + 4, keep=99, limit=99)
        raise ValueError

    with pytest.raises(ValueError):
        await store.write(script)
    assert store.read(lambda reader: reader.position_gone()) == 0
    assert len(store.read(lambda r: r.events_of("goals/g1", limit=99))) == 10
    assert store.verify_chain() == 10


def put(key: bytes, value: bytes):
    return lambda txn: txn.kv.put(key, value)


async def test_an_anchor_that_was_changed_is_found(store):
    await store.write(events(10))
    await store.write(lambda txn: txn.drop_events(before=NOW + 4, keep=99, limit=99))
    good = store.read(lambda reader: reader.kv.get(keys.ANCHOR))
    wrong = {
        b"x" * 16: (4, "event 5 does not follow"),
        b"y" * 16: (3, "event 4 does not follow"),
        b"z" * 16: (11, "event 11 is where the log begins, and it ends at 10"),
    }
    for digest, (position, told) in wrong.items():
        await store.write(put(keys.ANCHOR, codec.ANCHOR.encode(codec.Anchor(position=position, hash=digest))))
        with pytest.raises(errors.DataLoss, match=told):
            store.verify_chain()
    await store.write(lambda txn: txn.kv.delete(keys.ANCHOR))
    with pytest.raises(errors.DataLoss, match="event 1 "):
        store.verify_chain()
    await store.write(put(keys.ANCHOR, good))
    assert store.verify_chain() == 10


async def test_an_event_that_should_be_gone_is_found(store):
    await store.write(events(10))
    raw = store.read(lambda reader: reader.kv.get(keys.event(2)))
    await store.write(lambda txn: txn.drop_events(before=NOW + 4, keep=99, limit=99))
    await store.write(put(keys.event(2), raw))
    with pytest.raises(errors.DataLoss, match="event 2 is there, though the log begins behind 4"):
        store.verify_chain()


async def test_a_missing_event_at_the_beginning_is_found_and_not_skipped(store):
    await store.write(events(10))
    await store.write(lambda txn: txn.drop_events(before=NOW + 4, keep=99, limit=99))
    await store.write(lambda txn: txn.kv.delete(keys.event(5)))
    with pytest.raises(errors.DataLoss, match="event 5 "):
        store.verify_chain()
    with pytest.raises(errors.DataLoss, match="missing from the log"):
        await store.write(lambda txn: txn.drop_events(before=NOW + 9, keep=99, limit=99))


async def test_an_answer_whose_window_has_passed_is_seen(store: Store):
    assert not store.read(lambda reader: reader.answer_passed(NOW * 2))
    await store.write(lambda txn: txn.put_answer("p", "m", "r", Answer(b"f", "tasks/x", NOW)))
    assert not store.read(lambda reader: reader.answer_passed(NOW - 1))
    assert store.read(lambda reader: reader.answer_passed(NOW))
