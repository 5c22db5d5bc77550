"""The transition tables: walked over the whole product of states and events."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest

from agentcom.v1 import change_pb2, goal_pb2, task_pb2
from hub.core import change, goal, task
from kit import errors

TABLES: list[Any] = [task, goal, change]


@pytest.mark.parametrize("module", TABLES, ids=lambda module: module.__name__)
def test_a_pair_in_the_table_leads_to_its_state_and_any_other_is_refused_with_the_state(module: Any) -> None:
    for state in module.State:
        for event in module.Event:
            if (state, event) in module.TRANSITIONS:
                assert module.step("x", state, event) is module.TRANSITIONS[state, event]
            else:
                with pytest.raises(errors.IllegalState) as caught:
                    module.step("x", state, event)
                assert caught.value.state == state.name
                assert caught.value.metadata["event"] == event.name


@pytest.mark.parametrize("module", TABLES, ids=lambda module: module.__name__)
def test_every_state_is_reached_or_is_a_beginning(module: Any) -> None:
    beginnings: dict[Any, set[Any]] = {
        task: {task.State.PENDING, task.State.SCHEDULED, task.State.QUEUED, task.State.PARKED},
        goal: {goal.State.AWAITING_PLAN, goal.State.ACTIVE},
        change: {change.State.WAITING},
    }
    assert set(module.TRANSITIONS.values()) | beginnings[module] == set(module.State)


@pytest.mark.parametrize("module", TABLES, ids=lambda module: module.__name__)
def test_every_state_that_is_not_final_has_a_way_to_a_final_one(module: Any) -> None:
    ways = {
        state: {after for (before, _), after in module.TRANSITIONS.items() if before is state} for state in module.State
    }
    for state in set(module.State) - module.FINAL:
        seen: set[Any] = set()
        pending = [state]
        while pending:
            for after in ways[pending.pop()] - seen:
                seen.add(after)
                pending.append(after)
        assert seen & module.FINAL, state


def test_nothing_leaves_a_success() -> None:
    assert not [pair for pair in task.TRANSITIONS if pair[0] is task.State.SUCCEEDED]
    assert not [pair for pair in goal.TRANSITIONS if pair[0] is goal.State.SUCCEEDED]


def test_only_a_revival_leaves_another_end_of_a_task() -> None:
    events = {event for (state, event) in task.TRANSITIONS if state in task.FINAL}
    assert events == {task.Event.REVIVE, task.Event.BLOCK}


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (task.Lane, task_pb2.Lane, "LANE_"),
        (task.Tier, task_pb2.Tier, "TIER_"),
        (task.Kind, task_pb2.TaskKind, "TASK_KIND_"),
        (task.Delivery, task_pb2.Delivery, "DELIVERY_"),
        (task.DependencyPolicy, task_pb2.DependencyPolicy, "DEPENDENCY_POLICY_"),
        (task.Attribution, task_pb2.Attribution, "ATTRIBUTION_"),
        (task.Expectation, task_pb2.Check.Expectation, "EXPECTATION_"),
        (task.Verdict, task_pb2.Receipt.Verdict, "VERDICT_"),
        (task.Phase, task_pb2.Receipt.Phase, "PHASE_"),
        (task.State, task_pb2.Task.State, "STATE_"),
        (goal.State, goal_pb2.Goal.State, "STATE_"),
        (change.State, change_pb2.Change.State, "STATE_"),
    ],
)
def test_the_numbers_of_the_records_are_those_of_the_contract(ours: type[IntEnum], theirs: Any, prefix: str) -> None:
    contract = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
    assert {member.name: member.value for member in ours} == contract
