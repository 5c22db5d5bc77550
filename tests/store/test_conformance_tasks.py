"""Any store: tasks, their contracts, and every index that follows from them."""

from __future__ import annotations

# Scripts here are lambdas that bind loop variables and put many records: mypy infers neither.
# mypy: disable-error-code="misc,func-returns-value"
import itertools
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from hub.core.task import Attempt, Lane, Requirement, State
from hub.store.base import Store, Txn
from kit import errors
from tests.store.build import NOW, changed, filed, spec, task, task_id


async def test_a_filed_task_reads_back_with_its_contract(store: Store) -> None:
    given = task(1, labels={"a": "b"}, wake_at=NOW + 5.25)
    contract = spec("the contract", depends_on=(task_id(9),), command="true", touches=("a", "b"))
    await store.write(lambda txn: txn.add_task(given, contract))
    assert store.read(lambda r: r.task(given.id)) == given
    assert store.read(lambda r: r.spec(given.id)) == contract
    assert store.read(lambda r: r.task(task_id(2))) is None
    assert store.read(lambda r: r.spec(task_id(2))) is None


async def test_an_id_is_filed_once(store: Store) -> None:
    await store.write(filed(task(1, reason="first")))
    with pytest.raises(errors.AlreadyExists):
        await store.write(filed(task(1, reason="second")))
    found = store.read(lambda r: r.task(task_id(1)))
    assert found is not None and found.reason == "first"
    assert sum(store.read(lambda r: r.counts()).values()) == 1


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(State, State)), ids=lambda state: state.name.lower()
)
async def test_every_index_follows_every_change_of_state(store: Store, before: State, after: State) -> None:
    first = task(1, state=before, agent="a-1", wake_at=NOW, goal="g1", lane=Lane.HIGH)
    second = replace(first, state=after, agent="a-2", wake_at=NOW + 9, goal="g2", lane=Lane.LOW, queued_at=NOW + 3)
    await store.write(filed(first))
    await store.write(changed(second))
    held = after in (State.ASSIGNED, State.RUNNING)

    def look(r):
        assert r.task(first.id) == second
        assert r.counts() == {(after, Lane.LOW): 1}
        assert r.tasks_in([after], [Lane.LOW], limit=9) == [second]
        assert r.tasks_in(State, [Lane.URGENT, Lane.HIGH, Lane.NORMAL], limit=9) == []
        assert r.tasks_in(set(State) - {after}, Lane, limit=9) == []
        assert r.held_by("a-1") == []
        assert r.held_by("a-2") == ([second] if held else [])
        heads = [(1, Lane.LOW, NOW + 3, first.id)] if after is State.QUEUED else []
        assert r.ready_heads(1) == heads
        assert r.due(NOW + 8, 9) == []
        assert r.due(NOW + 9, 9) == [first.id]
        assert r.tasks_of_goal("g1", limit=9) == []
        assert r.tasks_of_goal("g2", limit=9) == [second]

    store.read(look)
    await store.write(look)


async def test_a_task_that_is_not_held_is_in_nobodys_hands(store: Store) -> None:
    await store.write(filed(task(1, state=State.ASSIGNED, agent="a"), task(2, state=State.RUNNING, agent="a")))
    await store.write(filed(task(3, state=State.RUNNING, agent="ab"), task(4, state=State.MERGING, agent="a")))
    assert [t.id for t in store.read(lambda r: r.held_by("a"))] == [task_id(1), task_id(2)]
    assert [t.id for t in store.read(lambda r: r.held_by("ab"))] == [task_id(3)]


async def test_an_outdated_before_is_a_programmers_error_and_changes_nothing(store: Store) -> None:
    old = task(1)
    await store.write(filed(old))
    await store.write(changed(replace(old, state=State.PARKED)))
    with pytest.raises(AssertionError, match="has changed"):
        await store.write(lambda txn: txn.put_task(replace(old, state=State.DEAD), old))
    with pytest.raises(AssertionError, match="has changed"):
        await store.write(lambda txn: txn.delete_task(old))
    assert store.read(lambda r: r.counts()) == {(State.PARKED, Lane.NORMAL): 1}


async def test_a_task_may_change_twice_in_one_function(store: Store) -> None:
    def script(txn):
        first = task(1)
        txn.add_task(first, spec())
        second = replace(first, state=State.ASSIGNED, agent="a", wake_at=NOW)
        txn.put_task(second, first)
        assert txn.task(first.id) == second
        txn.put_task(replace(second, state=State.SUCCEEDED, agent="", wake_at=None), second)

    await store.write(script)
    assert store.read(lambda r: r.counts()) == {(State.SUCCEEDED, Lane.NORMAL): 1}
    assert store.read(lambda r: (r.ready_heads(1), r.held_by("a"), r.next_due())) == ([], [], None)


async def test_a_deleted_task_leaves_nothing_but_its_events(store: Store) -> None:
    kept, gone = task(1), task(2, state=State.RUNNING, agent="a", goal="g", wake_at=NOW)

    def script(txn):
        txn.add_task(kept, spec())
        txn.add_task(gone, spec(depends_on=(kept.id,)))
        txn.append(NOW, "task.created", f"tasks/{gone.id}")
        txn.put_attempt(Attempt(task=gone.id, generation=1, agent="a", assigned_at=NOW))
        txn.put_artifact(gone.id, 1, "log", b"text")
        txn.put_artifact(kept.id, 1, "log", b"kept")

    await store.write(script)
    before = store.facts().used_bytes
    await store.write(lambda txn: txn.delete_task(gone))

    def look(r):
        assert r.task(gone.id) is None and r.spec(gone.id) is None
        assert r.tasks(limit=9) == [kept]
        assert r.counts() == {(State.QUEUED, Lane.NORMAL): 1}
        assert (r.held_by("a"), r.tasks_of_goal("g", limit=9), r.next_due()) == ([], [], None)
        assert r.dependants(kept.id, limit=9) == []
        assert r.artifact(gone.id, 1, "log") is None and r.attempts(gone.id) == []
        assert r.artifact(kept.id, 1, "log") == b"kept"
        assert len(r.events_of(f"tasks/{gone.id}", limit=9)) == 1

    store.read(look)
    assert store.facts().used_bytes <= before


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [1, 7, 300, 1000])
async def test_pages_join_to_the_whole_list_both_ways(store: Store, size: int, reverse: bool) -> None:
    every = [
        task(n, lane=Lane(n % 4 + 1), state=(State.QUEUED, State.PARKED)[n % 3 == 0], goal="g") for n in range(600)
    ]
    await store.write(filed(*every))
    lanes = [Lane.URGENT, Lane.NORMAL]
    lists = [
        (lambda r, after: r.tasks(after=after, limit=size, reverse=reverse), every),
        (
            lambda r, after: r.tasks_in(State, lanes, after=after, limit=size, reverse=reverse),
            [t for t in every if t.lane in lanes],
        ),
        (lambda r, after: r.tasks_of_goal("g", after=after, limit=size, reverse=reverse), every),
    ]
    for page, expected in lists:
        found, after = [], ""
        while chunk := store.read(lambda r, page=page, after=after: page(r, after)):
            found += chunk
            after = chunk[-1].id
            assert len(chunk) <= size
        assert found == (expected[::-1] if reverse else expected)


async def test_an_empty_choice_of_states_or_lanes_lists_nothing(store: Store) -> None:
    await store.write(filed(task(1)))
    assert store.read(lambda r: r.tasks_in([], Lane, limit=9)) == []
    assert store.read(lambda r: r.tasks_in(State, [], limit=9)) == []
    assert store.read(lambda r: r.tasks_in([State.QUEUED, State.QUEUED], [Lane.NORMAL] * 2, limit=9)) == [task(1)]


async def test_the_ready_index_is_oldest_first_within_a_lane_of_a_class(store: Store) -> None:
    tasks = [task(n, queued_at=NOW - n, lane=Lane(n % 2 + 1), class_id=n % 3) for n in range(12)]
    await store.write(filed(*tasks))
    heads = store.read(lambda r: r.ready_heads(1))
    assert [(h.lane, h.task) for h in heads] == [(Lane.URGENT, task_id(10)), (Lane.HIGH, task_id(7))]
    urgent = store.read(lambda r: r.ready(1, Lane.URGENT, limit=9))
    assert [h.task for h in urgent] == [task_id(10), task_id(4)]
    assert [h.queued_at for h in urgent] == [NOW - 10, NOW - 4]
    head = urgent[0]
    behind = store.read(lambda r: r.ready(1, Lane.URGENT, limit=9, after=(head.queued_at, head.task)))
    assert behind == urgent[1:]
    assert store.read(lambda r: r.ready(1, Lane.URGENT, limit=1)) == urgent[:1]


async def test_due_tasks_come_earliest_first_and_only_when_their_time_has_come(store: Store) -> None:
    tasks = [task(n, wake_at=NOW + 10 - n, state=State.SCHEDULED) for n in range(5)]
    await store.write(filed(*tasks, task(9)))
    assert store.read(lambda r: r.next_due()) == NOW + 6
    assert store.read(lambda r: r.due(NOW + 5.999, 9)) == []
    assert store.read(lambda r: r.due(NOW + 8, 9)) == [task_id(4), task_id(3), task_id(2)]
    assert store.read(lambda r: r.due(NOW + 99, 2)) == [task_id(4), task_id(3)]


async def test_what_is_next_due_is_due_then(store: Store) -> None:
    odd = NOW + 0.123_456_789
    await store.write(filed(task(1, wake_at=odd)))
    at = store.read(lambda r: r.next_due())
    assert at is not None and store.read(lambda r: r.due(at, 9)) == [task_id(1)]
    assert store.read(lambda r: r.due(odd, 9)) == [task_id(1)]


async def test_dependants_are_found_in_pages(store: Store) -> None:
    on = (task_id(500), task_id(501), task_id(500))
    await store.write(filed(*(task(n, state=State.PENDING) for n in range(5)), depends_on=on))
    first = store.read(lambda r: r.dependants(task_id(500), limit=3))
    assert first == [task_id(0), task_id(1), task_id(2)]
    assert store.read(lambda r: r.dependants(task_id(500), after=first[-1], limit=3)) == [task_id(3), task_id(4)]
    assert store.read(lambda r: r.dependants(task_id(50), limit=3)) == []


async def test_counts_are_those_of_the_tasks(store: Store) -> None:
    await store.write(filed(*(task(n, lane=Lane(n % 4 + 1)) for n in range(10))))
    await store.write(changed(task(0, lane=Lane.LOW)))
    await store.write(changed(task(1, lane=Lane.HIGH, reason="no change of place")))
    expected = {Lane.URGENT: 2, Lane.HIGH: 3, Lane.NORMAL: 2, Lane.LOW: 3}
    counts = {(State.QUEUED, lane): count for lane, count in expected.items()}
    assert store.read(lambda r: r.counts()) == counts
    assert await store.write(lambda txn: txn.counts()) == counts


async def test_equal_requirements_share_a_class_and_numbers_have_no_gap(store: Store) -> None:
    one, two = Requirement(capabilities=("a",)), Requirement(capabilities=("b",))
    assert await store.write(lambda txn: (txn.class_for(one), txn.class_for(two), txn.class_for(one))) == (1, 2, 1)
    assert store.read(lambda r: r.class_of(Requirement(capabilities=("b",)))) == 2
    assert store.read(lambda r: r.class_of(Requirement())) is None
    assert store.read(lambda r: r.classes()) == [(1, one), (2, two)]
    assert store.read(lambda r: (r.task_class(2), r.task_class(3), r.task_class(0))) == ((2, two), None, None)
    assert await store.write(lambda txn: txn.class_for(Requirement())) == 3
    assert store.read(lambda r: r.task_class(3)) == (3, Requirement())


async def test_the_number_of_a_class_that_no_task_has_goes_to_another_requirement(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.store.txn.CLASS_COUNT_MAX", 3)
    wants = [Requirement(agent=str(n)) for n in range(9)]

    def take(n: int) -> Callable[[Txn], int]:
        return lambda txn: txn.class_for(wants[n])

    await store.write(lambda txn: [txn.class_for(one) for one in wants[:3]])
    assert store.read(lambda r: r.task_class(2)) == (2, wants[1])
    assert await store.write(lambda txn: txn.free_classes([1, 2, 3])) == 0, "nobody watched"
    with pytest.raises(errors.Exhausted):
        await store.write(take(3))
    await store.write(lambda txn: txn.watch_classes())
    assert await store.write(take(0)) == 1
    assert await store.write(lambda txn: txn.free_classes([1, 2])) == 1, "the first was asked for meanwhile"
    position = store.read(lambda r: r.position())

    def fail(txn: Txn) -> None:
        assert txn.class_for(wants[3]) == 2
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.write(fail)
    assert store.read(lambda r: r.task_class(2)) == (2, wants[1])
    assert await store.write(take(3)) == 2, "it was given back by the function that failed"
    assert store.read(lambda r: (r.task_class(2), r.class_of(wants[1]), r.class_of(wants[3]))) == (
        (2, wants[3]), None, 2,
    )  # fmt: skip
    assert store.read(lambda r: r.classes()) == [(1, wants[0]), (2, wants[3]), (3, wants[2])]
    with pytest.raises(errors.Exhausted) as caught:
        await store.write(take(1))
    assert caught.value.reason == "CLASSES_FULL"
    assert store.read(lambda r: r.position()) == position


async def test_a_class_that_was_freed_and_is_asked_for_again_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.store.txn.CLASS_COUNT_MAX", 1)
    await store.write(lambda txn: txn.class_for(Requirement()))
    await store.write(lambda txn: txn.watch_classes())
    assert await store.write(lambda txn: txn.free_classes([1])) == 1
    assert await store.write(lambda txn: txn.class_for(Requirement())) == 1
    with pytest.raises(errors.Exhausted):
        await store.write(lambda txn: txn.class_for(Requirement(agent="a")))


async def test_classes_have_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.store.txn.CLASS_COUNT_MAX", 2)
    await store.write(lambda txn: [txn.class_for(Requirement(agent=str(n))) for n in range(2)])
    with pytest.raises(errors.Exhausted) as caught:
        await store.write(lambda txn: txn.class_for(Requirement(agent="2")))
    assert caught.value.reason == "CLASSES_FULL"
    assert await store.write(lambda txn: txn.class_for(Requirement(agent="1"))) == 2
