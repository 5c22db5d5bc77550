"""The oracle finds what it must: for each rule a history that breaks it, and one that does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.event import GENESIS, Event
from hub.core.task import (
    TRANSITIONS,
    Attempt,
    AttemptOutcome,
    Attribution,
    Failure,
    Lane,
    State,
    Task,
)
from hub.store import chain
from tests.oracle import check, replay
from tests.oracle.record import History, Op, Rules, Verb

T = "t"
ADA = {"agent": "ada", "generation": "1"}
GRACE = {"agent": "grace", "generation": "2"}


def log(*told: tuple[Any, ...]) -> list[Event]:
    """A log with good positions and hashes of (type, fields[, actor]) about one task, a second apart."""
    found: list[Event] = []
    previous = GENESIS
    for position, (type_, fields, *actor) in enumerate(told, 1):
        fields = dict(fields)
        subject = fields.pop("of", f"tasks/{T}")
        event = Event(
            position=position,
            at=100.0 + position,
            type=type_,
            subject=subject,
            fields=fields,
            actor=(actor or ["hub"])[0],
        )
        event, _ = chain.link(event, previous)
        previous = event.hash
        found.append(event)
    return found


CREATED = ("task.created", {"state": "QUEUED", "class": "1"})
RUN = (CREATED, ("task.assigned", ADA), ("task.accepted", ADA))
GOOD = (*RUN, ("task.succeeded", ADA, "agents/ada"))
LOST = (
    *RUN,
    ("task.released", {**ADA, "reason": "LEASE_EXPIRED", "class": "1"}),
    ("task.assigned", GRACE),
    ("task.accepted", GRACE),
)


def op(verb: Verb, at: float = 0.0, generation: int = 0, node: str = "sidecar/ada", **more: Any) -> Op:
    return Op(at, node, verb, T, generation, **more)


def task(**changes: Any) -> Task:
    return Task(**{"id": T, "state": State.SUCCEEDED, "class_id": 1, "generation": 1, **changes})


def found(history: History, rules: Rules | None = None) -> list[tuple[str, str]]:
    return [(one.rule, one.message) for one in check.violations(history, rules or Rules())]


def rules_of(told: tuple[Any, ...], ops: tuple[Op, ...] = (), rules: Rules | None = None, **more: Any) -> set[str]:
    return {rule for rule, _ in found(History(events=log(*told), ops=ops, **more), rules)}


WORK = (op(Verb.WORK_BEGUN, 103, 1), op(Verb.WORK_ENDED, 104, 1))


def test_a_good_run_passes():
    ops = (
        op(Verb.SUBMIT_SENT, 99, node="client/1", request="r-1"),
        op(Verb.SUBMIT_ACKED, 101, node="client/1", request="r-1"),
        *WORK,
        op(Verb.REPORT_ACKED, 105, 1),
    )
    history = History(
        events=log(*GOOD),
        ops=ops,
        tasks={T: task()},
        attempts={T: [Attempt(task=T, generation=1, agent="ada", assigned_at=0, outcome=AttemptOutcome.COMPLETED)]},
        requests={T: "r-1"},
    )
    check.check(history, Rules(all_end=True, works_once=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda events: events.pop(1), "position 3 follows 1"),
        (lambda events: events.insert(1, events[1]), "position 2 follows 2"),
        (lambda events: events.__setitem__(1, msgspec.structs.replace(events[1], at=0.0)), "its hash does not follow"),
        (lambda events: events.__setitem__(2, msgspec.structs.replace(events[2], hash=b"x" * 16)), "its hash"),
    ],
)
def test_a_broken_chain_is_found(change: Any, message: str):
    events = log(*GOOD)
    change(events)
    first = found(History(events=events))[0]
    assert first[0] == "chain"
    assert message in first[1]


def test_a_log_whose_beginning_was_pruned_is_followed_from_its_anchor():
    events = log(*GOOD)
    cut = History(events=events[2:], anchor=(2, events[1].hash))
    assert found(cut) == []
    assert found(History(events=events[2:], anchor=(2, events[0].hash)))[0][0] == "chain"


def test_each_edge_of_the_cores_table_is_known_to_the_replay():
    told = {edge for edges in replay.TASK_EDGES.values() for edge in edges}
    assert told == {event for _, event in TRANSITIONS}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ((CREATED, ("task.accepted", ADA)), "of generation 1 when 0 was assigned"),
        ((CREATED, ("task.succeeded", {})), "no edge from QUEUED"),
        ((*GOOD, ("task.released", {})), "no edge from SUCCEEDED"),
        ((*GOOD, ("task.revived", {"class": "1"}, "somebody")), "no edge from SUCCEEDED"),
        ((("task.queued", {}),), "never created"),
        ((CREATED, CREATED), "was created before"),
        ((("task.created", {"state": "RUNNING"}),), "was created RUNNING"),
        ((CREATED, ("task.deleted", {})), "deleted while QUEUED"),
        ((*GOOD, ("task.deleted", {}), ("task.queued", {})), "of a task that was deleted"),
        ((CREATED, ("task.invented", {})), "does not know"),
        ((("goal.started", {"of": "goals/g"}),), "no edge from nothing"),
        ((("goal.created", {"of": "goals/g"}), ("goal.succeeded", {"of": "goals/g"})), "no edge from AWAITING_PLAN"),
        ((("change.created", {"of": "changes/c"}), ("change.merged", {"of": "changes/c"})), "no edge from WAITING"),
    ],
)
def test_an_edge_that_the_core_does_not_have_is_found(told: Any, message: str):
    problems = found(History(events=log(*told)))
    assert any(rule in ("transition", "fence") and message in text for rule, text in problems), problems


@given(st.lists(st.sampled_from(sorted(replay.TASK_EDGES)), max_size=12))
def test_the_replay_lets_exactly_those_logs_pass_that_the_core_does(types: list[str]):
    """Without generations, so that only the table speaks."""
    state, legal = State.QUEUED, True
    told: list[Any] = [CREATED]
    for type_ in types:
        edges = [e for e in replay.TASK_EDGES[type_] if (state, e) in TRANSITIONS]
        if replay.TASK_EDGES[type_] and not edges:
            legal = False
        elif edges:
            state = TRANSITIONS[state, edges[0]]
        fields = {"class": "1"} if state is State.QUEUED else {}
        told.append((type_, fields))
        if not legal:
            break
    assert ("transition" not in rules_of(tuple(told))) is legal


@pytest.mark.parametrize(
    "told",
    [
        (*RUN, ("task.succeeded", GRACE)),
        (*LOST, ("task.succeeded", ADA)),
        (*LOST, ("task.succeeded", GRACE, "agents/ada")),
        (*LOST, ("task.succeeded", {"agent": "ada", "generation": "2"})),
        (CREATED, ("task.assigned", GRACE)),
    ],
)
def test_a_write_that_the_fence_should_have_refused_is_found(told: Any):
    assert "fence" in rules_of(told)


def test_a_fenced_report_and_a_refund_of_an_older_generation_are_no_writes_of_it():
    told = (
        *LOST,
        ("task.fenced", ADA, "agents/ada"),
        ("task.refunded", ADA),
        ("task.succeeded", GRACE, "agents/grace"),
    )
    assert rules_of(told) == set()


@pytest.mark.parametrize(("ended_at", "good"), [(106.5, True), (109.1, True), (109.9, False), (None, False)])
def test_old_work_must_stop_in_time_when_newer_work_is_accepted(ended_at: float | None, good: bool):
    ops = [op(Verb.WORK_BEGUN, 103, 1), op(Verb.WORK_BEGUN, 106, 2, "sidecar/grace")]
    if ended_at is not None:
        ops.append(op(Verb.WORK_ENDED, ended_at, 1))  # the first write of generation 2 was accepted at 106
    assert ("fence" not in rules_of(LOST, tuple(ops), Rules(stop_s=3.2))) is good
    assert "fence" not in rules_of(LOST, tuple(ops), Rules(stop_s=None))


def test_who_stands_still_or_is_dead_is_not_working():
    begun = op(Verb.WORK_BEGUN, 103, 1)
    frozen = (begun, op(Verb.PROCESS_FROZEN, 104), op(Verb.PROCESS_THAWED, 200), op(Verb.WORK_ENDED, 201, 1))
    assert "fence" not in rules_of(LOST, frozen)
    assert "fence" in rules_of(LOST, (*frozen[:3], op(Verb.WORK_ENDED, 209, 1)))
    assert "fence" not in rules_of(LOST, (begun, op(Verb.PROCESS_DIED, 104)))


def test_a_second_accepted_completion_is_found():
    pushed = (*RUN, ("task.pushed", ADA, "agents/ada"))
    assert rules_of(pushed) == set()
    merged = (*pushed, ("task.succeeded", {"change": "changes/c", "merge_sha": "1"}))
    assert rules_of(merged) == set(), "a merge is told once more and is no second completion"
    again = (
        ("task.returned", {"class": "1"}),
        ("task.assigned", GRACE),
        ("task.accepted", GRACE),
        ("task.pushed", GRACE, "agents/grace"),
    )
    assert rules_of((*pushed, *again)) == set(), "what came back from the merge is completed once more"
    assert "completion" in rules_of((*pushed, ("task.pushed", ADA, "agents/ada")))
    assert "completion" in rules_of((*GOOD, ("task.succeeded", ADA, "agents/ada")))


def test_a_completion_that_nobody_worked_for_is_found():
    other = (op(Verb.WORK_BEGUN, 103, 2),)
    assert "completion" in rules_of(GOOD, other)
    assert "completion" not in rules_of(GOOD, other, Rules(logs_complete=False))
    by_hand = (CREATED, ("task.assigned", ADA), ("task.accepted", {**ADA, "claimed_by": "me"}), GOOD[-1])
    assert "completion" not in rules_of(by_hand, other)


def test_work_that_is_done_twice_is_found_where_it_must_not_be():
    ops = (*WORK, op(Verb.WORK_BEGUN, 106, 2, "sidecar/grace"), op(Verb.WORK_ENDED, 107, 2, "sidecar/grace"))
    assert "completion" not in rules_of(LOST, ops)
    assert "completion" in rules_of(LOST, ops, Rules(works_once=True))


def test_an_acked_submit_that_is_lost_is_found():
    acked = Op(1.0, "client/1", Verb.SUBMIT_ACKED, "other", request="r-2")
    assert "submit" in rules_of(GOOD, (acked,))
    unknown = Op(1.0, "client/1", Verb.SUBMIT_UNKNOWN, "", request="r-2")
    assert rules_of(GOOD, (unknown,)) == set(), "without an answer it may be there or not"


def test_a_request_that_made_two_tasks_is_found():
    two = (CREATED, ("task.created", {"of": "tasks/u", "state": "QUEUED"}))
    assert rules_of(two, requests={T: "r-1", "u": "r-2"}) == set()
    assert "submit" in rules_of(two, requests={T: "r-1", "u": "r-1"})
    acked = tuple(Op(1.0, "client/1", Verb.SUBMIT_ACKED, id, request="r-1") for id in (T, "u"))
    assert "submit" in rules_of(two, acked)


def test_an_acked_cancel_that_is_lost_is_found():
    cancel = (Op(1.0, "client/1", Verb.CANCEL_ACKED, T),)
    assert "submit" in rules_of(RUN, cancel)
    assert "submit" not in rules_of((*RUN, ("task.cancelled", {**ADA, "revoke": "CANCELLED"})), cancel)


def test_a_task_that_has_not_ended_is_found_where_all_must():
    assert "submit" in rules_of(RUN, (), Rules(all_end=True))
    assert rules_of(GOOD, (), Rules(all_end=True)) == set()


def test_an_acked_report_that_is_not_in_the_log_is_found():
    acked = (op(Verb.WORK_BEGUN, 103, 1), op(Verb.WORK_ENDED, 104, 1), op(Verb.REPORT_ACKED, 105, 1))
    assert rules_of(GOOD, acked) == set()
    assert "report" in rules_of(RUN, acked)
    assert "report" in rules_of((CREATED,), acked)
    assert "report" not in rules_of((*RUN, ("task.fenced", ADA)), acked)
    assert "report" not in rules_of(LOST, acked), "a newer assignment says that the older one is over"
    assert "report" not in rules_of((*RUN, ("task.cancelled", {**ADA, "revoke": "CANCELLED"})), acked)
    other = (Op(1.0, "sidecar/ada", Verb.REPORT_ACKED, "other", 1),)
    assert "report" in rules_of(GOOD, other)


def test_a_charge_for_a_fault_that_is_not_the_tasks_is_found():
    failed = {**ADA, "reason": "X", "attribution": "AGENT", "charged": "true"}
    assert "attempts" in rules_of((*RUN, ("task.failed", failed), ("task.released", {"class": "1"})))
    failure = Failure(reason="X", attribution=Attribution.AGENT)
    attempt = Attempt(
        task=T, generation=1, agent="ada", assigned_at=0, outcome=AttemptOutcome.LOST, charged=True, failure=failure
    )
    assert "attempts" in rules_of(GOOD, tasks={T: task()}, attempts={T: [attempt]})


@pytest.mark.parametrize(
    ("told", "used"),
    [
        (({"attribution": "TASK", "charged": "true"},), {1}),
        (({"attribution": "AGENT", "charged": "false"},), {0}),
    ],
)
def test_attempts_used_are_counted_by_the_log(told: Any, used: set[int]):
    run = [*RUN, *[("task.failed", {**ADA, **fields}) for fields in told], ("task.released", {"class": "1"})]
    for count in (0, 1, 2):
        end = task(state=State.QUEUED, attempts_used=count)
        assert ("attempts" not in rules_of(tuple(run), tasks={T: end})) is (count in used)
    revived = (*run, ("task.parked", {}), ("task.revived", {"class": "1"}, "somebody"))
    assert "attempts" not in rules_of(revived, tasks={T: task(state=State.QUEUED, attempts_used=0)})
    refunded = (*run, ("task.refunded", ADA))
    assert "attempts" not in rules_of(refunded, tasks={T: task(state=State.QUEUED, attempts_used=0)})


def test_records_that_say_something_else_than_the_log_are_found():
    assert rules_of(GOOD, tasks={T: task()}) == set()
    assert "records" in rules_of(GOOD, tasks={T: task(state=State.RUNNING)})
    assert "records" in rules_of(GOOD, tasks={T: task(generation=2)})
    assert "records" in rules_of(RUN, tasks={})
    assert rules_of((*GOOD, ("task.deleted", {})), tasks={}) == set()
    assert "records" in rules_of(GOOD, tasks={T: task(), "other": task(id="other")})
    active = Attempt(task=T, generation=1, agent="ada", assigned_at=0)
    assert "records" in rules_of(GOOD, tasks={T: task()}, attempts={T: [active]})
    assert rules_of(RUN, tasks={T: task(state=State.RUNNING)}, attempts={T: [active]}) == set()


def test_inversions_are_counted_by_the_scenarios_bound():
    u, low = {"of": "tasks/u"}, {"agent": "ada", "generation": "1", "of": "tasks/u"}
    told = (CREATED, ("task.created", {**u, "state": "QUEUED", "class": "1"}), ("task.assigned", low))
    tasks = {T: task(state=State.QUEUED, generation=0), "u": task(id="u", state=State.ASSIGNED, lane=Lane.LOW)}
    assert rules_of(told, rules=Rules(inversion_s=1.5), tasks=tasks) == {"inversion"}
    assert rules_of(told, rules=Rules(inversion_s=1.5, inversions_max=1), tasks=tasks) == set()
    assert rules_of(told, rules=Rules(inversion_s=2.5), tasks=tasks) == set()
    other_class = {**tasks, T: task(state=State.QUEUED, generation=0, class_id=2)}
    assert rules_of(told, rules=Rules(inversion_s=1.5), tasks=other_class) == set()


def test_an_operation_survives_its_line():
    one = op(Verb.WORK_BEGUN, 1.5, 2, detail="x")
    assert Op.of_line(one.line()) == one
