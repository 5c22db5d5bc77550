"""The slots against a model: whatever happens, tasks never exceed the slots and no two generations run at once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kit import errors
from sidecar.core.assignment import Assignment, Done, Holding
from sidecar.core.slots import BUSY, HELD_COUNT_MAX, TRANSITIONS, Answer, Phase, Slots, Step

DONE = Done(summary="done")


def assignment(task: int, generation: int = 1) -> Assignment:
    return Assignment(holding=Holding(task=f"{task:020}", generation=generation), title="t")


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.slots = Slots(2)

    @rule(task=st.integers(0, 4), generation=st.integers(1, 4))
    def assign(self, task, generation):
        item = assignment(task, generation)
        answer = self.slots.answer(item.holding)
        assert (answer is Answer.KNOWN) == (item.holding in self.slots)
        if answer is Answer.TAKEN:
            for older in self.slots.take(item):
                assert older.task == item.holding.task and older.generation < generation
                if Step.STOP in TRANSITIONS[self.slots.get(older).phase]:
                    self.slots.step(older, Step.STOP)
        elif answer is Answer.FULL:
            assert self.slots.busy == self.slots.capacity

    @rule(data=st.data())
    def move(self, data):
        entries = [e for e in self.slots.entries() if e.phase is not Phase.FINISHED]
        if not entries:
            return
        entry = data.draw(st.sampled_from(entries))
        steps = [step for step in TRANSITIONS[entry.phase] if step is not Step.BEGIN]
        step = data.draw(st.sampled_from(steps))
        if step is Step.FINISH:
            self.slots.finish(entry.holding, DONE)
        else:
            self.slots.step(entry.holding, step)

    @rule()
    def begin_ready(self):
        for entry in self.slots.ready():
            of_task = [e.phase for e in self.slots.entries() if e.holding.task == entry.holding.task]
            assert Phase.RUNNING not in of_task
            assert Phase.STOPPING not in of_task
            self.slots.step(entry.holding, Step.BEGIN)

    @rule(data=st.data())
    def settle(self, data):
        finished = [e for e in self.slots.entries() if e.phase is Phase.FINISHED]
        if finished:
            self.slots.drop(data.draw(st.sampled_from(finished)).holding)

    @invariant()
    def no_more_tasks_than_slots(self):
        assert self.slots.busy <= self.slots.capacity

    @invariant()
    def one_generation_of_a_task_works(self):
        running = [e.holding.task for e in self.slots.entries() if e.phase is Phase.RUNNING]
        assert len(running) == len(set(running))


TestSlots = Machine.TestCase


@pytest.mark.parametrize(("phase", "step"), list(itertools.product(Phase, Step)))
def test_every_phase_and_step_moves_as_the_table_says_or_is_refused(phase, step):
    slots = Slots(1)
    item = assignment(1)
    slots.take(item)
    entry = slots.get(item.holding)
    entry.phase = phase
    expected = TRANSITIONS[phase].get(step)
    if expected is None:
        with pytest.raises(errors.IllegalState):
            slots.step(item.holding, step)
        assert entry.phase is phase
    else:
        assert slots.step(item.holding, step).phase is expected


def test_a_holding_that_is_gone_cannot_move():
    with pytest.raises(errors.IllegalState, match="gone"):
        Slots(1).step(assignment(1).holding, Step.BEGIN)


def test_finished_work_takes_no_slot_and_stays_listed():
    slots = Slots(1)
    slots.take(assignment(1))
    slots.step(assignment(1).holding, Step.STOP)
    slots.finish(assignment(1).holding, DONE)
    assert slots.answer(assignment(2).holding) is Answer.TAKEN
    assert [e.holding for e in slots.list_in_heartbeat()] == [assignment(1).holding]


def test_no_more_is_held_than_a_heartbeat_can_list():
    slots = Slots(HELD_COUNT_MAX)
    for number in range(HELD_COUNT_MAX):
        slots.restore(assignment(number).holding, None, DONE)
    assert slots.answer(assignment(999).holding) is Answer.FULL


def test_a_restored_holding_is_stopping_until_it_is_recovered_and_finished_when_only_its_outcome_is_left():
    slots = Slots(2)
    slots.restore(assignment(1).holding, assignment(1), None)
    slots.restore(assignment(2).holding, None, DONE)
    assert [e.phase for e in slots.entries()] == [Phase.STOPPING, Phase.FINISHED]
    assert slots.busy == 1


def running() -> Slots:
    slots = Slots(1)
    slots.take(assignment(1))
    slots.step(assignment(1).holding, Step.WRITE)
    slots.step(assignment(1).holding, Step.BEGIN)
    return slots


def test_a_desired_proves_nothing_about_what_no_heartbeat_has_listed():
    slots = running()
    assert [slots.settle([]) for _ in range(5)] == [[]] * 5


def test_many_desireds_in_answer_to_one_heartbeat_count_once():
    slots = running()
    slots.list_in_heartbeat()
    assert [slots.settle([]) for _ in range(5)] == [[]] * 5


def test_two_heartbeats_whose_desireds_both_leave_it_out_stop_it():
    slots = running()
    slots.list_in_heartbeat()
    assert slots.settle([]) == []
    slots.list_in_heartbeat()
    assert slots.settle([]) == [assignment(1).holding]


def test_a_desired_that_has_it_starts_the_count_again():
    slots = running()
    slots.list_in_heartbeat()
    slots.settle([])
    slots.list_in_heartbeat()
    slots.settle([assignment(1).holding])
    slots.list_in_heartbeat()
    assert slots.settle([]) == []


def test_what_is_finished_is_not_stopped_by_a_desired():
    slots = running()
    slots.finish(assignment(1).holding, DONE)
    for _ in range(3):
        slots.list_in_heartbeat()
        assert slots.settle([]) == []


def test_busy_counts_what_the_machine_works_on():
    assert Phase.FINISHED not in BUSY
