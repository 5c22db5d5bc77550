"""The plan linter and the freezing of a plan: deterministic, no model, no I/O.

`lint` tells everything that is wrong with a goal's assertions and tasks; an error refuses the plan, a warning does not.
`freeze` adds the edges that keep tasks with overlapping `touches` from running side by side. They follow one order, the
plan's own (made topological), so they can never close a circle.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from hub.core import contract, dag, overlap
from hub.core.goal import Assertion, PlanTask
from hub.core.task import Check, Delivery, Kind

# The bounds of the contract, and three that it cannot express. A plan beyond them is several goals.
TASKS_MAX: Final = 200
ASSERTIONS_MAX: Final = 64
CHECKS_MAX: Final = 32
DEPENDS_ON_MAX: Final = 64
DEPTH_MAX: Final = 50  # a chain of 50 merged changes is a day's work; one dead link costs everything behind it
CHECKS_TOTAL_MAX: Final = 1_000  # of all tasks: a goal's whole plan is one record, written in one transaction
FINDINGS_MAX: Final = 200  # what a person, or a planner that repairs, can use

_CANNOT_FAIL: Final = re.compile(r"(^|[;\n]|\|\|)\s*(true|/bin/true|/usr/bin/true|:|exit\s+0)\s*;?\s*(#[^\n]*)?$")


class Severity(IntEnum):
    """How bad a finding is; the numbers are those of the proto."""

    ERROR = 1
    WARNING = 2


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the linter says."""

    rule: str
    """UPPER_SNAKE: see the functions below."""
    severity: Severity
    field: str
    """Where: "tasks[2].depends_on[0]", "assertions[1].check"."""
    message: str


class Edge(msgspec.Struct, frozen=True):
    """Task number `after` waits for task number `before` only because both touch the same paths."""

    before: int
    after: int


def lint(assertions: Sequence[Assertion], tasks: Sequence[PlanTask], now: float) -> list[Finding]:
    """Everything that is wrong, errors first, at most FINDINGS_MAX."""
    found = [finding for rule in _RULES for finding in rule(assertions, tasks)]
    found += _contracts(tasks, now)
    return _bounded(found)


def lint_statement(assertions: Sequence[Assertion]) -> list[Finding]:
    """The same for a goal that has no plan yet: its assertions alone, of which there may be none."""
    found = [*_duplicates([assertion.id for assertion in assertions], "assertions[{}].id", "assertion")]
    if len(assertions) > ASSERTIONS_MAX:
        found.append(_error("TOO_MANY", "assertions", f"{len(assertions)} assertions, at most {ASSERTIONS_MAX}"))
    return _bounded(found)


def _bounded(found: list[Finding]) -> list[Finding]:
    found.sort(key=lambda finding: finding.severity)
    if len(found) > FINDINGS_MAX:
        more = f"and {len(found) - FINDINGS_MAX + 1} more findings"
        worst = found[FINDINGS_MAX - 1].severity
        found[FINDINGS_MAX - 1 :] = [Finding(rule="TOO_MANY_FINDINGS", severity=worst, field="", message=more)]
    return found


def errors_of(findings: Sequence[Finding]) -> list[Finding]:
    """Those that refuse the plan."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def freeze(tasks: Sequence[PlanTask]) -> tuple[PlanTask, ...]:
    """The tasks in an order in which each follows those that it waits for, with the edges of `serialising` added.

    The plan must have passed `lint` without an error.
    """
    added: dict[int, list[str]] = {}
    for edge in serialising(tasks):
        added.setdefault(edge.after, []).append(tasks[edge.before].id)
    order = dag.order(_edges(tasks))
    assert len(order) == len(tasks), "a plan with a circle cannot be frozen"
    frozen = (
        msgspec.structs.replace(tasks[index], depends_on=(*tasks[index].depends_on, *added.get(index, ())))
        for index in order
    )
    return tuple(frozen)


def serialising(tasks: Sequence[PlanTask]) -> list[Edge]:
    """The fewest edges that order each two tasks that may touch the same path and are not ordered already."""
    waits_for = _edges(tasks)
    order = dag.order(waits_for)
    conflict = overlap.conflicts([task.spec.touches for task in tasks])
    before = [0] * len(tasks)  # of each task: a bit mask of everything that ends before it begins
    added: list[Edge] = []
    for place, task in enumerate(order):
        for other in waits_for[task]:
            before[task] |= before[other] | 1 << other
        # Nearest first: what the nearest waits for needs no edge of its own.
        for other in reversed(order[:place]):
            if conflict[task] >> other & 1 and not before[task] >> other & 1:
                added.append(Edge(other, task))
                before[task] |= before[other] | 1 << other
    return added


def _edges(tasks: Sequence[PlanTask]) -> list[list[int]]:
    """For each task the numbers of those that it waits for. Unknown ids are left out, of equal ids the first counts."""
    number: dict[str, int] = {}
    for index, task in enumerate(tasks):
        number.setdefault(task.id, index)
    return [[number[id] for id in task.depends_on if id in number] for task in tasks]


def _error(rule: str, field: str, message: str) -> Finding:
    return Finding(rule=rule, severity=Severity.ERROR, field=field, message=message)


def _warning(rule: str, field: str, message: str) -> Finding:
    return Finding(rule=rule, severity=Severity.WARNING, field=field, message=message)


def _bounds(assertions: Sequence[Assertion], tasks: Sequence[PlanTask]) -> Iterator[Finding]:
    if not tasks:
        yield _error("NO_TASKS", "tasks", "a plan has at least one task")
    if not assertions:
        yield _error(
            "NO_ASSERTIONS", "assertions", "a goal with a plan says how it is known to be reached: no assertions"
        )
    if len(tasks) > TASKS_MAX:
        yield _error("TOO_MANY", "tasks", f"{len(tasks)} tasks, at most {TASKS_MAX}")
    if len(assertions) > ASSERTIONS_MAX:
        yield _error("TOO_MANY", "assertions", f"{len(assertions)} assertions, at most {ASSERTIONS_MAX}")
    total = sum(len(task.spec.checks) for task in tasks)
    if total > CHECKS_TOTAL_MAX:
        yield _error("TOO_MANY", "tasks", f"{total} checks in all tasks together, at most {CHECKS_TOTAL_MAX}")
    for index, task in enumerate(tasks):
        if len(task.depends_on) > DEPENDS_ON_MAX:
            message = f"{task.id} waits for {len(task.depends_on)} tasks, at most {DEPENDS_ON_MAX}"
            yield _error("TOO_MANY", f"tasks[{index}].depends_on", message)
        if len(task.spec.checks) > CHECKS_MAX:
            message = f"{task.id} has {len(task.spec.checks)} checks, at most {CHECKS_MAX}"
            yield _error("TOO_MANY", f"tasks[{index}].spec.checks", message)
    deep = dag.depth(_edges(tasks))
    if deep > DEPTH_MAX:
        yield _error("TOO_DEEP", "tasks", f"the longest chain has {deep} tasks, at most {DEPTH_MAX}")


def _ids(assertions: Sequence[Assertion], tasks: Sequence[PlanTask]) -> Iterator[Finding]:
    yield from _duplicates([assertion.id for assertion in assertions], "assertions[{}].id", "assertion")
    yield from _duplicates([task.id for task in tasks], "tasks[{}].id", "task")
    known = {task.id for task in tasks}
    stated = {assertion.id for assertion in assertions}
    for index, task in enumerate(tasks):
        yield from _unknown(task.depends_on, known, f"tasks[{index}].depends_on", f"{task.id} waits for task")
        yield from _unknown(task.fulfills, stated, f"tasks[{index}].fulfills", f"{task.id} fulfils assertion")


def _duplicates(ids: Sequence[str], field: str, what: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, id in enumerate(ids):
        if id in seen:
            yield _error("DUPLICATE_ID", field.format(index), f"there is a {what} {id!r} already")
        seen.add(id)


def _unknown(ids: Sequence[str], known: set[str], field: str, what: str) -> Iterator[Finding]:
    for index, id in enumerate(ids):
        if id not in known:
            yield _error("UNKNOWN_ID", f"{field}[{index}]", f"{what} {id!r}, which is not there")


def _acyclic(_assertions: Sequence[Assertion], tasks: Sequence[PlanTask]) -> Iterator[Finding]:
    found = dag.circle(_edges(tasks))
    if found:
        names = [tasks[index].id for index in (*found, found[0])]
        place = tasks[found[0]].depends_on.index(names[1])
        message = f"these wait for each other in a circle: {' -> '.join(names)}"
        yield _error("CYCLE", f"tasks[{found[0]}].depends_on[{place}]", message)


def _coverage(assertions: Sequence[Assertion], tasks: Sequence[PlanTask]) -> Iterator[Finding]:
    by = Counter(id for task in tasks for id in dict.fromkeys(task.fulfills))
    for index, assertion in enumerate(assertions):
        if tasks and by[assertion.id] == 0:
            yield _error("UNCOVERED", f"assertions[{index}]", f"no task fulfils assertion {assertion.id!r}")
        elif by[assertion.id] > 1:
            names = ", ".join(task.id for task in tasks if assertion.id in task.fulfills)
            message = f"assertion {assertion.id!r} is fulfilled by more than one task: {names}"
            yield _error("COVERED_TWICE", f"assertions[{index}]", message)


def _contracts(tasks: Sequence[PlanTask], now: float) -> Iterator[Finding]:
    for index, task in enumerate(tasks):
        spec, field = task.spec, f"tasks[{index}].spec"
        if spec.depends_on:
            yield _error("NOT_HERE", f"{field}.depends_on", f"{task.id} waits for tasks of its plan only, by their ids")
        if spec.requirement.repo:
            yield _error("NOT_HERE", f"{field}.repo", f"{task.id} works on the goal's repo and names none itself")
        if not spec.checks and spec.requirement.kind is Kind.WORK and spec.delivery is not Delivery.NONE:
            yield _error("NO_CHECK", f"{field}.checks", f"{task.id} has no check: nothing would decide that it is done")
        filed = msgspec.structs.replace(spec, requirement=msgspec.structs.replace(spec.requirement, repo="goal"))
        for violation in contract.violations(filed, now, field):
            rule = _CONTRACT_RULES.get(violation.field.removeprefix(f"{field}."), "CONTRADICTION")
            yield _error(
                "DUPLICATE_ID" if violation.field.endswith("].id") else rule,
                violation.field,
                f"{task.id}: {violation.description}",
            )


_CONTRACT_RULES: Final = {"kind": "WRONG_KIND", "command": "NO_COMMAND", "checks": "NO_CHECK", "title": "BLANK"}
"""Names for what `contract.violations` says of a field; whatever else it says is a CONTRADICTION."""


def _checks(assertions: Sequence[Assertion], tasks: Sequence[PlanTask]) -> Iterator[Finding]:
    for index, assertion in enumerate(assertions):
        if assertion.check is None or not assertion.check.run.strip():
            message = f"assertion {assertion.id!r} has no check: nothing would decide that it holds"
            yield _error("NO_CHECK", f"assertions[{index}].check", message)
        elif cannot_fail(assertion.check):
            message = f"the check of assertion {assertion.id!r} cannot fail"
            yield _warning("CHECK_CANNOT_FAIL", f"assertions[{index}].check.run", message)
    for index, task in enumerate(tasks):
        for place, check in enumerate(task.spec.checks):
            if cannot_fail(check):
                message = f"check {check.id!r} of {task.id} cannot fail"
                yield _warning("CHECK_CANNOT_FAIL", f"tasks[{index}].spec.checks[{place}].run", message)


def cannot_fail(check: Check) -> bool:
    """Does the command end in something that always says yes? Plain cases only: `true`, `:`, `exit 0`, `|| true`."""
    return _CANNOT_FAIL.search(check.run.strip()) is not None


def _overlaps(_assertions: Sequence[Assertion], tasks: Sequence[PlanTask]) -> Iterator[Finding]:
    for edge in serialising(tasks):
        one, other = tasks[edge.before].id, tasks[edge.after].id
        message = f"{one} and {other} may touch the same paths: {other} will wait for {one}"
        yield _warning("OVERLAP", f"tasks[{edge.after}].spec.touches", message)


_RULES: Final[tuple[Callable[[Sequence[Assertion], Sequence[PlanTask]], Iterator[Finding]], ...]] = (
    _bounds,
    _ids,
    _acyclic,
    _coverage,
    _checks,
    _overlaps,
)
