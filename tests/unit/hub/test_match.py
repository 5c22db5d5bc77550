"""Who may do what: each obstacle, and the properties of the matching."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core import match
from hub.core.agent import Offer
from hub.core.match import Idle, Reason, Waiting
from hub.core.task import Kind, Requirement, Tier

WANTED = Requirement(kind=Kind.WORK, tier=Tier.STANDARD, capabilities=("git", "python"), executor="shell", repo="r")
FITS = Offer(
    capabilities=frozenset({"git", "python", "gpu"}),
    executors=frozenset({"shell", "fake"}),
    tiers=frozenset({Tier.STANDARD}),
    kinds=frozenset({Kind.WORK, Kind.MERGE}),
    repos=frozenset({"r", "s"}),
)


def changed(base: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(base, **changes)


def test_an_offer_that_meets_everything_fits() -> None:
    assert match.fits(WANTED, "a", FITS)
    assert match.obstacles(WANTED, "a", FITS) == []


@pytest.mark.parametrize(
    ("offer", "wanted", "reason"),
    [
        ({"kinds": frozenset()}, {}, Reason.WRONG_KIND),
        ({"tiers": frozenset({Tier.TRIVIAL})}, {}, Reason.WRONG_TIER),
        ({"executors": frozenset({"fake"})}, {}, Reason.NO_EXECUTOR),
        ({"capabilities": frozenset({"git"})}, {}, Reason.MISSING_CAPABILITY),
        ({"repos": frozenset({"s"})}, {}, Reason.OTHER_REPO),
        ({}, {"agent": "b"}, Reason.OTHER_AGENT),
        ({"sandbox": False}, {"sandbox": True}, Reason.NO_SANDBOX),
    ],
)
def test_each_thing_that_is_missing_is_named(offer: Any, wanted: Any, reason: Reason) -> None:
    found = match.obstacles(changed(WANTED, **wanted), "a", changed(FITS, **offer))
    assert [one.reason for one in found] == [reason]
    assert found[0].message


def test_what_is_not_asked_for_is_no_obstacle() -> None:
    plain = Requirement(kind=Kind.WORK, tier=Tier.STANDARD)
    offer = Offer(kinds=frozenset({Kind.WORK}), tiers=frozenset({Tier.STANDARD}))
    assert match.fits(plain, "a", offer)
    assert match.fits(changed(plain, repo="anything"), "a", offer)  # no repos offered: any
    assert match.fits(changed(plain, agent="a"), "a", offer)


def test_all_obstacles_are_told_not_only_the_first() -> None:
    assert len(match.obstacles(changed(WANTED, agent="b"), "a", Offer(repos=frozenset({"x"})))) == 6


def idle(name: str, slots: int = 1, classes: tuple[int, ...] = (1,)) -> Idle:
    return Idle(name, slots, frozenset(classes))


def test_the_best_rank_goes_first_and_agents_take_turns() -> None:
    waiting = [Waiting(f"t{number}", 1, float(number)) for number in (3, 1, 2)]
    found = match.match([idle("a", 2), idle("b", 2)], waiting)
    assert found.pairs == [("t1", "a"), ("t2", "b"), ("t3", "a")]
    assert found.refused == []


def test_an_agent_serves_only_its_classes() -> None:
    found = match.match(
        [idle("a", classes=(2,)), idle("b", classes=(1,))], [Waiting("t", 1, 0.0), Waiting("u", 3, 1.0)]
    )
    assert found.pairs == [("t", "b")]


def test_without_slots_nothing_is_given() -> None:
    assert match.match([idle("a", 0)], [Waiting("t", 1, 0.0)]).pairs == []


def test_a_patient_task_waits_rather_than_go_back_to_who_refused_it() -> None:
    task = Waiting("t", 1, 0.0, refused_by=("a",), patient=True)
    found = match.match([idle("a")], [task])
    assert (found.pairs, found.refused) == ([], [task])
    assert match.match([idle("a"), idle("b")], [task]).pairs == [("t", "b")]
    assert match.match([idle("a")], [task._replace(patient=False)]).pairs == [("t", "a")]


def test_a_refused_head_does_not_hold_up_those_behind_it() -> None:
    found = match.match([idle("a")], [Waiting("t", 1, 0.0, refused_by=("a",)), Waiting("u", 1, 1.0)])
    assert found.pairs == [("u", "a")]


agents = st.lists(
    st.tuples(st.integers(0, 4), st.frozensets(st.integers(0, 3), max_size=4)),
    max_size=6,
).map(lambda given: [Idle(f"a{index}", slots, classes) for index, (slots, classes) in enumerate(given)])
tasks = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.floats(0, 100),
        st.lists(st.sampled_from([f"a{index}" for index in range(6)]), max_size=3).map(tuple),
        st.booleans(),
    ),
    max_size=20,
).map(lambda given: [Waiting(f"t{index:02}", *one) for index, one in enumerate(given)])


@given(agents, tasks)
def test_a_matching_is_sound_and_complete(line: list[Idle], waiting: list[Waiting]) -> None:
    found = match.match(line, waiting)
    by_task, by_agent = {one.task: one for one in waiting}, {one.agent: one for one in line}
    given_out: dict[str, int] = {}
    for pair in found.pairs:
        task, agent = by_task[pair.task], by_agent[pair.agent]
        assert task.class_id in agent.classes
        assert not (task.patient and pair.agent in task.refused_by)
        given_out[pair.agent] = given_out.get(pair.agent, 0) + 1
    assert len({pair.task for pair in found.pairs}) == len(found.pairs)
    assert all(count <= by_agent[agent].slots for agent, count in given_out.items())
    taken = {pair.task for pair in found.pairs}
    for task in waiting:  # nobody is left idle who could take a task that is left
        for agent in line:
            could = task.class_id in agent.classes and not (task.patient and agent.agent in task.refused_by)
            assert task.task in taken or not could or given_out.get(agent.agent, 0) == agent.slots


@given(st.integers(1, 6), st.integers(0, 40))
def test_equal_agents_get_equal_shares(count: int, work: int) -> None:
    line = [idle(f"a{index}", 100) for index in range(count)]
    pairs = match.match(line, [Waiting(f"t{index:02}", 1, float(index)) for index in range(work)]).pairs
    shares = [sum(pair.agent == agent.agent for pair in pairs) for agent in line]
    assert sum(shares) == work
    assert max(shares) - min(shares) <= 1
