"""Any store: what a write is. Failing functions vanish alone, events have no gap, readers see whole commits only."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from hub.core.event import GENESIS
from hub.core.task import Lane, Requirement, State
from hub.store import chain, migrate
from hub.store.base import Store
from kit import errors
from tests.store.build import NOW, changed, filed, spec, task, task_id, together


class Refused(Exception):
    """What a failing script raises."""


def everything(reader):
    """All that can be seen of a store, to compare before and after."""
    return (
        reader.tasks(limit=9_999),
        reader.counts(),
        reader.tasks_in(State, Lane, limit=9_999),
        [reader.ready(n, lane, limit=9_999) for n in range(9) for lane in Lane],
        reader.due(NOW * 2, 9_999),
        reader.held_by("a"),
        reader.classes(),
        reader.agents.page(limit=99),
        reader.events(after=0, limit=9_999),
        reader.position(),
        reader.head(),
        reader.meta("fact"),
        reader.artifact("t", 1, "x"),
        reader.answer("p", "m", "1"),
    )


def eventful(number: int):
    """A script that writes a little of everything."""

    def script(txn):
        given = task(number, class_id=txn.class_for(Requirement(agent=str(number))))
        txn.add_task(given, spec())
        txn.append(NOW, "task.created", f"tasks/{given.id}", goal="g", number=str(number))
        return number

    return script


def failing(number: int):
    """A script that changes, adds and deletes many things, then fails."""

    def script(txn):
        for n in range(200):
            eventful(10_000 + number * 1_000 + n)(txn)
        for each in txn.tasks(limit=5):
            txn.delete_task(each)
        for each in txn.tasks(limit=5):
            txn.put_task(msgspec.structs.replace(each, state=State.RUNNING, agent="a", wake_at=NOW), each)
        txn.set_meta("fact", b"wrong")
        txn.put_artifact("t", 1, "x", b"wrong" * 9_999)
        txn.drop_answers(NOW * 2, 99)
        raise Refused(number)

    return script


async def seed(store: Store) -> None:
    def script(txn):
        for n in range(20):
            eventful(n)(txn)
        txn.set_meta("fact", b"right")
        txn.put_artifact("t", 1, "x", b"right" * 9_999)

    await store.write(script)


async def test_a_failing_function_changes_nothing_at_all(store: Store) -> None:
    await seed(store)
    before = store.read(everything)
    with pytest.raises(Refused):
        await store.write(failing(1))
    assert store.read(everything) == before
    assert await store.write(everything) == before
    assert store.verify_chain() == 20


@pytest.mark.parametrize("places", [{0}, {2}, {5}, {0, 5}, {1, 2, 3}, set(range(6))], ids=str)
async def test_only_the_failing_functions_of_a_batch_vanish(
    store: Store, places: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.store.writer.BATCH_S", 60.0)  # one batch, however slow the machine is
    await seed(store)
    commits = store.facts().commits
    scripts = [failing(n) if n in places else eventful(100 + n) for n in range(6)]
    results = [each for [each] in await together(store, *scripts)]
    good = [n for n in range(6) if n not in places]
    assert [n for n in range(6) if isinstance(results[n], Refused)] == sorted(places)
    assert [results[n] for n in good] == [100 + n for n in good]
    if store.facts().kind == "lmdb":
        assert store.facts().commits - commits == 1
    found = store.read(lambda r: [t.id for t in r.tasks(limit=9_999)])
    assert found == [task_id(n) for n in [*range(20), *(100 + n for n in good)]]
    assert store.read(lambda r: r.counts()) == {(State.QUEUED, Lane.NORMAL): len(found)}
    events = store.read(lambda r: r.events(after=0, limit=9_999))
    assert [event.position for event in events] == list(range(1, len(found) + 1))
    assert [event.subject for event in events] == [f"tasks/{id}" for id in found]
    assert [c.id for c in store.read(lambda r: r.classes())] == list(range(1, len(found) + 1))
    assert store.read(lambda r: r.meta("fact")) == b"right"
    assert store.verify_chain() == len(found)


async def test_a_class_made_by_a_function_that_fails_leaves_its_number_to_the_next(store: Store) -> None:
    def script(txn):
        txn.class_for(Requirement(agent="never"))
        raise Refused

    await together(store, script)
    assert await store.write(lambda txn: txn.class_for(Requirement(agent="next"))) == 1
    assert store.read(lambda r: r.class_of(Requirement(agent="never"))) is None


async def test_a_function_sees_what_those_before_it_wrote_and_no_reader_does(store: Store) -> None:
    seen = []

    def second(txn):
        seen.append(txn.task(task_id(1)))
        seen.append(txn.ready_heads(1)[0].task)

    await together(store, filed(task(1)), second)
    assert seen[-2:] == [task(1), task_id(1)]


async def test_events_are_chained_and_numbered_from_one(store: Store) -> None:
    assert store.read(lambda r: r.position()) == 0
    assert store.verify_chain() == 0
    event = await store.write(lambda txn: txn.append(NOW, "hub.started", "hub", actor="me", a="1", b="2"))
    assert (event.position, event.actor, event.fields) == (1, "me", {"a": "1", "b": "2"})
    bare = msgspec.structs.replace(event, hash=b"")
    assert chain.link(bare, GENESIS)[0] == event
    assert chain.link(bare, b"\1" * 16)[0].hash != event.hash
    assert store.read(lambda r: (r.events(after=0, limit=9), r.events(after=1, limit=9))) == ([event], [])


async def test_events_are_listed_by_their_subject_and_by_their_goal(store: Store) -> None:
    def script(txn):
        for n in range(10):
            txn.append(NOW, "task.created", f"tasks/{n % 2}", goal="g" if n % 2 else "")
        txn.append(NOW, "goal.created", "goals/g", goal="g")
        txn.append(NOW, "goal.created", "goals/gg")

    await store.write(script)

    def positions(subject, after=0, limit=99):
        return [e.position for e in store.read(lambda r: r.events_of(subject, after=after, limit=limit))]

    assert positions("tasks/0") == [1, 3, 5, 7, 9]
    assert positions("goals/g") == [2, 4, 6, 8, 10, 11]
    assert positions("goals/g", after=4, limit=2) == [6, 8]
    assert positions("goals/gg") == [12]
    assert positions("goals/") == positions("tasks/") == []


async def test_listeners_hear_each_event_once_in_order_before_the_writers_return(store: Store) -> None:
    heard: list[int] = []
    store.on_commit(lambda events: heard.extend(event.position for event in events))

    async def writer(n):
        await store.write(eventful(n))
        mine = store.read(lambda r: r.events_of(f"tasks/{task_id(n)}", limit=1))[0].position
        assert mine in heard

    async with asyncio.TaskGroup() as group:
        for n in range(50):
            group.create_task(writer(n))
    with pytest.raises(Refused):
        await store.write(failing(1))
    assert heard == list(range(1, 51))


async def test_a_faulty_listener_keeps_nobody_from_a_commit(store: Store) -> None:
    heard: list[int] = []

    def faulty(events):
        raise Refused

    store.on_commit(faulty)
    store.on_commit(lambda events: heard.append(len(events)))
    assert await store.write(eventful(1)) == 1
    assert heard == [1]


async def test_a_cancelled_caller_does_not_undo_its_write(store: Store) -> None:
    caller = asyncio.ensure_future(store.write(filed(task(1))))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await store.write(changed(task(1, reason="found")))


async def test_a_closed_store_takes_nothing(store: Store) -> None:
    await store.write(filed(task(1)))
    await store.close()
    with pytest.raises(errors.Unavailable, match="closed"):
        await store.write(filed(task(2)))
    await store.close()


async def test_whatever_a_function_raises_reaches_its_caller(store: Store) -> None:
    for error in (errors.NotFound("no"), KeyError("k"), AssertionError("a"), errors.Fenced("old")):

        def script(txn, error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            await store.write(script)
        assert caught.value is error


async def test_the_facts_count_writes(store: Store) -> None:
    await seed(store)
    facts = store.facts()
    assert (facts.schema_version, facts.writes >= 1, facts.commits >= 1) == (migrate.VERSION, True, True)
    assert 0 < facts.used_bytes < facts.size_max_bytes
