"""The plan linter rule by rule, and what freezing does to any plan."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core import dag, overlap
from hub.core import plan as plans
from hub.core.goal import Assertion, PlanTask
from hub.core.task import Check, Delivery, Kind, Requirement, Tier
from tests.support.goalbench import assertion, check, plan_task

NOW = 1000.0


def found(*tasks: PlanTask, assertions: tuple[Assertion, ...] = (), now: float = NOW) -> list[tuple[str, str]]:
    return [(one.rule, one.field) for one in plans.lint(assertions or (assertion(),), tasks, now)]


def one(**spec: Any) -> PlanTask:
    return plan_task("T1", fulfills=["A1"], **spec)


def test_a_good_plan_has_no_findings() -> None:
    assert found(plan_task("T1"), plan_task("T2", "T1", fulfills=["A1"])) == []


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([], ("NO_TASKS", "tasks")),
        ([plan_task("T1", "T9", fulfills=["A1"])], ("UNKNOWN_ID", "tasks[0].depends_on[0]")),
        ([plan_task("T1", fulfills=["A1", "A7"])], ("UNKNOWN_ID", "tasks[0].fulfills[1]")),
        ([one(), plan_task("T1")], ("DUPLICATE_ID", "tasks[1].id")),
        ([plan_task("T1")], ("UNCOVERED", "assertions[0]")),
        ([one(), plan_task("T2", fulfills=["A1"])], ("COVERED_TWICE", "assertions[0]")),
        ([one(checks=())], ("NO_CHECK", "tasks[0].spec.checks")),
        ([one(checks=(check(), check()))], ("DUPLICATE_ID", "tasks[0].spec.checks[1].id")),
        ([one(command="")], ("NO_COMMAND", "tasks[0].spec.command")),
        ([one(command="  ")], ("NO_COMMAND", "tasks[0].spec.command")),
        ([one(title=" ")], ("BLANK", "tasks[0].spec.title")),
        ([one(requirement=Requirement(kind=Kind.MERGE), delivery=Delivery.NONE)], ("WRONG_KIND", "tasks[0].spec.kind")),
        (
            [one(requirement=Requirement(kind=Kind.VERIFY), delivery=Delivery.NONE, checks=())],
            ("NO_CHECK", "tasks[0].spec.checks"),
        ),
        ([one(requirement=Requirement(repo="other"))], ("NOT_HERE", "tasks[0].spec.repo")),
        ([one(depends_on=("0" * 20,))], ("NOT_HERE", "tasks[0].spec.depends_on")),
        ([one(queue_deadline_at=NOW - 1)], ("CONTRADICTION", "tasks[0].spec.queue_deadline")),
        ([plan_task("T1", "T1", fulfills=["A1"])], ("CYCLE", "tasks[0].depends_on[0]")),
        ([one(checks=tuple(check(f"c{n}") for n in range(33)))], ("TOO_MANY", "tasks[0].spec.checks")),
        (
            [*(plan_task(f"P{n}") for n in range(65)), plan_task("T1", *(f"P{n}" for n in range(65)), fulfills=["A1"])],
            ("TOO_MANY", "tasks[65].depends_on"),
        ),
        ([one(), *(plan_task(f"P{n}") for n in range(200))], ("TOO_MANY", "tasks")),
        (
            [one(), *(plan_task(f"P{n}", f"P{n - 1}" if n else "T1") for n in range(50))],
            ("TOO_DEEP", "tasks"),
        ),
        (
            [one(), *(plan_task(f"P{n}", checks=tuple(check(f"c{m}") for m in range(32))) for n in range(32))],
            ("TOO_MANY", "tasks"),
        ),
    ],
)
def test_each_rule_refuses_what_breaks_it_and_names_the_field(tasks: list[PlanTask], expected: tuple[str, str]) -> None:
    findings = plans.lint((assertion(),), tasks, NOW)
    assert [(one.rule, one.field) for one in plans.errors_of(findings)] == [expected]


def test_a_goal_with_a_plan_needs_assertions_with_checks() -> None:
    assert [(one.rule, one.field) for one in plans.lint((), [plan_task("T1")], NOW)] == [
        ("NO_ASSERTIONS", "assertions")
    ]
    bare = Assertion(id="A1", text="t")
    assert found(one(), assertions=(bare,)) == [("NO_CHECK", "assertions[0].check")]
    many = tuple(assertion(f"A{n}") for n in range(1, 66))
    assert ("TOO_MANY", "assertions") in found(plan_task("T1", fulfills=[a.id for a in many]), assertions=many)


def test_a_goal_without_a_plan_is_linted_for_its_assertions_alone() -> None:
    assert plans.lint_statement(()) == []
    assert plans.lint_statement((Assertion(id="A1", text="t"),)) == []
    twice = plans.lint_statement((assertion("A1"), assertion("A1")))
    assert [(one.rule, one.field) for one in twice] == [("DUPLICATE_ID", "assertions[1].id")]
    assert plans.lint_statement([assertion(f"A{n}") for n in range(65)])[0].rule == "TOO_MANY"


def test_a_circle_is_named_in_its_order() -> None:
    tasks = [
        plan_task("T1", "T3", fulfills=["A1"]),
        plan_task("T2", "T1"),
        plan_task("T3", "T2"),
        plan_task("T4", "T3"),
    ]
    (circle,) = plans.lint((assertion(),), tasks, NOW)
    assert (circle.rule, circle.field) == ("CYCLE", "tasks[0].depends_on[0]")
    assert circle.message.endswith("T1 -> T3 -> T2 -> T1")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("true", True),
        (":", True),
        ("exit 0", True),
        ("exit 0;", True),
        ("/bin/true", True),
        ("make test || true", True),
        ("make test ; exit 0", True),
        ("make test\n:", True),
        ("true # later", True),
        ("make test", False),
        ("test -f true", False),
        ("true && make test", False),
        ("echo : | grep x", False),
        ("exit 01", False),
        ("pytest -k 'not true'", False),
    ],
)
def test_a_check_that_cannot_fail_is_recognised(command: str, answer: bool) -> None:
    assert plans.cannot_fail(Check(id="c", run=command)) is answer


def test_a_check_that_cannot_fail_is_only_a_warning() -> None:
    findings = plans.lint((assertion(run="true"),), [one(checks=(check(run=":"),))], NOW)
    assert {(f.rule, f.field, f.severity.name) for f in findings} == {
        ("CHECK_CANNOT_FAIL", "assertions[0].check.run", "WARNING"),
        ("CHECK_CANNOT_FAIL", "tasks[0].spec.checks[0].run", "WARNING"),
    }


def test_a_task_that_delivers_nothing_needs_no_check_and_no_command_beyond_the_trivial_tier() -> None:
    assert found(one(delivery=Delivery.NONE, checks=())) == []
    assert found(one(command="", requirement=Requirement(tier=Tier.STANDARD))) == []


def test_overlapping_touches_are_a_warning_only_where_nothing_orders_the_tasks() -> None:
    first, second = plan_task("T1", touches=("src/**",)), plan_task("T2", touches=("src/a.py",), fulfills=["A1"])
    assert found(first, second) == [("OVERLAP", "tasks[1].spec.touches")]
    assert found(first, plan_task("T2", "T1", touches=("src/a.py",), fulfills=["A1"])) == []


def test_findings_are_bounded_and_errors_come_first() -> None:
    tasks = [plan_task(f"P{n}", "gone", touches=("src",)) for n in range(199)]
    findings = plans.lint((assertion(),), tasks, NOW)
    assert len(findings) == plans.FINDINGS_MAX
    assert findings[-1].rule == "TOO_MANY_FINDINGS"
    severities = [one.severity for one in findings]
    assert severities == sorted(severities)


def test_freezing_adds_the_fewest_edges_in_the_order_of_the_plan() -> None:
    tasks = [plan_task(f"T{n}", touches=("src/a.py",)) for n in range(1, 5)]
    frozen = plans.freeze(tasks)
    assert [task.depends_on for task in frozen] == [(), ("T1",), ("T2",), ("T3",)]


def test_freezing_puts_each_task_behind_those_that_it_waits_for() -> None:
    frozen = plans.freeze([plan_task("T1", "T3"), plan_task("T2"), plan_task("T3")])
    assert [task.id for task in frozen] == ["T2", "T3", "T1"]


@pytest.mark.parametrize(
    ("one_glob", "other", "answer"),
    [
        ("src/**", "src/a.py", True),
        ("src/", "src/a/b.py", True),
        ("src", "src/a.py", True),
        ("src", "src2/a.py", False),
        ("./src/a.py", "src/a.py", True),
        ("/src//a.py", "src/a.py", True),
        ("src/a.py", "src/b.py", False),
        ("tests/test_x*", "tests/test_y*", False),
        ("**/*.py", "docs/a.md", True),
        ("*", "a", True),
        (".", "anything", True),
        ("src/a.py", "src/a.pyc", False),
        ("docs/**", "src/**", False),
    ],
)
def test_globs_overlap_when_one_may_match_a_path_of_the_other(one_glob: str, other: str, answer: bool) -> None:
    assert overlap.overlap(one_glob, other) is answer
    assert overlap.overlap(other, one_glob) is answer


def test_tasks_without_globs_conflict_with_nothing() -> None:
    assert overlap.conflicts([(), ("**",), ()]) == [0, 0, 0]


SEGMENT = st.sampled_from(["a", "b", "ab", "*", "a*", "?", "**", "[ab]"])
GLOB = st.lists(SEGMENT, min_size=1, max_size=3).map("/".join)
PATH = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=4).map("/".join)


@given(GLOB, GLOB, PATH)
def test_an_overlap_is_never_missed(one_glob: str, other: str, path: str) -> None:
    def matches(glob: str) -> bool:
        # fnmatch lets `*` cross slashes: that matches more than any glob of ours could.
        return fnmatch.fnmatchcase(path, glob) or path.startswith(f"{glob}/")

    if matches(one_glob) and matches(other):
        assert overlap.overlap(one_glob, other)


@st.composite
def plans_without_circles(draw: st.DrawFn) -> list[PlanTask]:
    size = draw(st.integers(min_value=1, max_value=12))
    ranks = draw(st.permutations(range(size)))
    tasks = []
    for index in range(size):
        earlier = [other for other in range(size) if ranks[other] < ranks[index]]
        before = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        touches = draw(st.lists(st.sampled_from(["a/**", "a/b", "b", "c/*", "a/b/c"]), max_size=2))
        tasks.append(plan_task(f"T{index}", *(f"T{other}" for other in before), touches=tuple(touches)))
    return tasks


def reaches(tasks: tuple[PlanTask, ...]) -> dict[str, set[str]]:
    """For each task everything that it waits for, directly or not; the tasks are in order."""
    found: dict[str, set[str]] = {}
    for task in tasks:
        found[task.id] = set(task.depends_on).union(*(found[id] for id in task.depends_on))
    return found


@given(plans_without_circles())
def test_a_frozen_plan_has_no_circle_keeps_its_edges_and_orders_every_overlap(tasks: list[PlanTask]) -> None:
    frozen = plans.freeze(tasks)
    assert sorted(task.id for task in frozen) == sorted(task.id for task in tasks)
    before = reaches(frozen)  # raises KeyError where a task comes before one that it waits for
    given_edges = {task.id: set(task.depends_on) for task in tasks}
    for task in frozen:
        assert given_edges[task.id] <= set(task.depends_on)
        assert len(set(task.depends_on)) == len(task.depends_on)
    conflicts = overlap.conflicts([task.spec.touches for task in frozen])
    for index, task in enumerate(frozen):
        for other in overlap.bits(conflicts[index]):
            name = frozen[other].id
            assert name in before[task.id] or task.id in before[name]


@given(plans_without_circles())
def test_every_added_edge_is_needed(tasks: list[PlanTask]) -> None:
    frozen = plans.freeze(tasks)
    number = {task.id: index for index, task in enumerate(tasks)}
    for edge in plans.serialising(tasks):
        without = tuple(
            plan_task(
                task.id,
                *(id for id in task.depends_on if (number[id], number[task.id]) != (edge.before, edge.after)),
            )
            for task in frozen
        )
        assert tasks[edge.before].id not in reaches(without)[tasks[edge.after].id]


@given(st.lists(st.lists(st.integers(min_value=0, max_value=7), max_size=3), min_size=8, max_size=8))
def test_either_all_steps_are_ordered_or_a_circle_is_named(waits_for: list[list[int]]) -> None:
    ordered, circle = dag.order(waits_for), dag.circle(waits_for)
    assert (len(ordered) == 8) is (not circle)
    for place, step in enumerate(ordered):
        assert set(waits_for[step]) <= set(ordered[:place])
    for step, following in zip(circle, [*circle[1:], *circle[:1]], strict=True):
        assert following in waits_for[step]


@given(plans_without_circles())
def test_the_linter_never_raises_and_is_deterministic(tasks: list[PlanTask]) -> None:
    assert plans.lint((assertion(),), tasks, NOW) == plans.lint((assertion(),), tasks, NOW)


def test_a_plan_of_the_greatest_size_is_frozen_into_chains() -> None:
    tasks = [plan_task(f"T{n}", touches=tuple(f"dir{n % 7}/{m}/*" for m in range(64))) for n in range(200)]
    frozen = plans.freeze(tasks)
    assert len(frozen) == 200
    assert sum(len(task.depends_on) for task in frozen) == 200 - 7
