"""LMDB and the memory twin against a plain model: any series of batches, each function of which may fail at its end."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from hub.core.task import HELD, Lane, State, Task
from hub.store import keys
from hub.store.base import Reader, Store
from hub.store.lmdb import LmdbStore
from hub.store.memory import MemoryStore
from tests.store.build import NOW, spec, task, together

NUMBERS = st.integers(0, 12)
STEP = st.fixed_dictionaries(
    {
        "number": NUMBERS,
        "verb": st.sampled_from(["put", "put", "put", "delete"]),
        "state": st.sampled_from(State),
        "lane": st.sampled_from(Lane),
        "agent": st.sampled_from(["a", "b"]),
        "goal": st.sampled_from(["", "g"]),
        "class_id": st.integers(1, 2),
        "at": st.integers(0, 5).map(lambda n: NOW + n / 4),
        "wake": st.one_of(st.none(), st.integers(0, 5).map(lambda n: NOW + n / 4)),
    }
)
FUNCTION = st.tuples(st.lists(STEP, max_size=6), st.booleans())


class Wanted(Exception):
    """A function that is to fail."""


def script_of(steps: list[dict[str, Any]], fails: bool):
    """The function for the stores."""

    def script(txn):
        for step in steps:
            before = txn.task(task(step["number"]).id)
            after = task_of(step)
            if step["verb"] == "delete":
                if before is not None:
                    txn.delete_task(before)
            elif before is None:
                txn.add_task(after, spec())
            else:
                txn.put_task(after, before)
            txn.append(step["at"], "task.created", f"tasks/{after.id}", goal=step["goal"])
        if fails:
            raise Wanted

    return script


def task_of(step: dict[str, Any]) -> Task:
    """What a step writes."""
    return replace(
        task(step["number"]),
        state=step["state"],
        lane=step["lane"],
        agent=step["agent"],
        goal=step["goal"],
        class_id=step["class_id"],
        queued_at=step["at"],
        wake_at=step["wake"],
    )


class Model(RuleBasedStateMachine):
    """Two stores and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.tasks: dict[str, Task] = {}
        self.subjects: list[tuple[str, str]] = []
        self.heard: list[int] = []
        self.memory: Store = MemoryStore.open(rehearse=True)
        self.lmdb = self.opened()

    def opened(self) -> LmdbStore:
        store = LmdbStore.open(Path(self.folder.name), map_bytes_first=1 << 20, lose_data_on_power_cut=True)
        store.on_commit(lambda events: self.heard.extend(event.position for event in events))
        return store

    @rule(functions=st.lists(FUNCTION, min_size=1, max_size=5))
    def batch(self, functions: list[tuple[list[dict[str, Any]], bool]]) -> None:
        for steps, fails in functions:
            if not fails:
                self.apply(steps)
        scripts = [script_of(steps, fails) for steps, fails in functions]
        for store in (self.lmdb, self.memory):
            results = self.runner.run(together(store, *scripts))
            assert [isinstance(result, Wanted) for [result] in results] == [fails for _, fails in functions]

    def apply(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            after = task_of(step)
            if step["verb"] == "delete":
                self.tasks.pop(after.id, None)
            else:
                self.tasks[after.id] = after
            self.subjects.append((f"tasks/{after.id}", step["goal"]))

    @rule()
    def open_again(self) -> None:
        self.runner.run(self.lmdb.close())
        self.lmdb = self.opened()

    @invariant()
    def both_are_like_the_model(self) -> None:
        for store in (self.lmdb, self.memory):
            store.read(self.compare)
            assert store.verify_chain() == len(self.subjects)
        assert self.heard == list(range(1, len(self.subjects) + 1))

    def compare(self, reader: Reader) -> None:
        every = sorted(self.tasks.values(), key=lambda each: each.id)
        assert reader.tasks(limit=99) == every
        assert reader.tasks(limit=99, reverse=True) == every[::-1]
        counts: dict[tuple[State, Lane], int] = {}
        for each in every:
            counts[each.state, each.lane] = counts.get((each.state, each.lane), 0) + 1
        assert reader.counts() == counts
        some = (State.QUEUED, State.RUNNING, State.DEAD)
        assert reader.tasks_in(some, Lane, limit=99) == [each for each in every if each.state in some]
        assert reader.tasks_of_goal("g", limit=99) == [each for each in every if each.goal]
        for agent in "ab":
            assert reader.held_by(agent) == [each for each in every if each.agent == agent and each.state in HELD]
        due = sorted((each.wake_at, each.id) for each in every if each.wake_at is not None)
        assert reader.due(NOW + 1, 99) == [id for at, id in due if at <= NOW + 1]
        assert reader.next_due() == (due[0][0] if due else None)
        for number in (1, 2):
            for lane in Lane:
                waiting = [e for e in every if (e.state, e.lane, e.class_id) == (State.QUEUED, lane, number)]
                order = sorted((keys.microseconds(each.queued_at or 0.0), each.id) for each in waiting)
                assert [head.task for head in reader.ready(number, lane, limit=99)] == [id for _, id in order]
        assert [event.subject for event in reader.events(after=0, limit=9_999)] == [s for s, _ in self.subjects]
        of_goal = [n for n, (_, goal) in enumerate(self.subjects, 1) if goal]
        assert [event.position for event in reader.events_of("goals/g", limit=9_999)] == of_goal

    def teardown(self) -> None:
        self.runner.run(self.lmdb.close())
        self.runner.close()
        self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(settings.default, max_examples=25, stateful_step_count=12)
