"""A goal file, Markdown with YAML front matter or plain YAML, becomes a goal of the contract.

The friendly keys are documented in docs/goal-files.md. The shape (keys, types, words of an enum) is checked here, on
nodes that know their line; the limits are those of the protos, checked by the very rules that the hub applies, and
their field paths are led back to the file's own path and line. Every refusal is an Invalid whose violations name the
field, the line and the reason; nothing else is ever raised, whatever the bytes are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from google.protobuf import duration_pb2

from agentcom.v1 import goal_pb2, task_pb2
from kit import errors, goalshape, validation, yamltree

# A plan of 200 tasks with a page of instructions each; the watched folder takes no more either.
FILE_BYTES_MAX = 256 * 1024

LANES = {"urgent": 1, "high": 2, "normal": 3, "low": 4}
TIERS = {"trivial": 1, "standard": 2, "complex": 3}
DELIVERIES = {"none": 1, "branch": 2, "merge": 3}
ISOLATIONS = {"preferred": 1, "required": 2}
EXPECTATIONS = {"fail": 1, "pass": 2, "any": 3}

GOAL_KEYS = ("title", "description", "repo", "lane", "labels", "assertions", "plan", "tasks")
ASSERTION_KEYS = ("id", "text", "run", "timeout_s", "check")
CHECK_KEYS = ("id", "run", "timeout_s", "expect_on_base")
TASK_KEYS = (
    "id",
    "title",
    "instructions",
    "context",
    "command",
    "tier",
    "executor",
    "requires",
    "depends_on",
    "fulfills",
    "touches",
    "checks",
    "lane",
    "labels",
    "attempts_max",
    "timeout_s",
    "silence_timeout_s",
    "delivery",
    "policy",
)
POLICY_KEYS = ("isolation", "network")

_MARKDOWN = (".md", ".markdown")
_YAML = (".yaml", ".yml")
_FENCE = re.compile(r"---[ \t]*")
_FENCE_END = re.compile(r"(?:---|\.\.\.)[ \t]*")


class Parsed(NamedTuple):
    """A goal, and what puts a rule that it breaks later into terms of its file."""

    goal: goal_pb2.Goal
    #: From a violation of a field of the goal (`plan.tasks[0].spec.command`) to the file's own path and line.
    locate: Callable[[errors.Violation], errors.Violation]


def parse(data: bytes, filename: str) -> goal_pb2.Goal:
    """The goal in a file. Its name tells the form (.md, .yaml, .yml); any other: Markdown when it has front matter.

    Raises Invalid naming each field, its line and the reason.
    """
    return read(data, filename).goal


def read(data: bytes, filename: str) -> Parsed:
    """The same, for a caller that has more rules than the file's shape and limits."""
    text = _decode(data)
    body, body_line = "", 0
    if _is_markdown(text, filename):
        head, body, body_line = _split(text)
        root = yamltree.read(head, line_first=2)
    else:
        root = yamltree.read(text)
    if not isinstance(root, yamltree.Mapping):
        raise yamltree.refuse(1, "it must hold keys and values, such as `title: ...`")
    shape = goalshape.Shape()
    fields = goalshape.Item(shape, "", root).fields(GOAL_KEYS)
    goal = _goal(fields)
    if body:
        _set_body(goal, fields, body, body_line)
    shape.raise_if_refused()
    try:
        validation.check(goal, "goalfile")
    except errors.Invalid as refused:
        raise errors.Invalid(violations=map(shape.locate, refused.violations), reason="BAD_FILE") from refused
    return Parsed(goal, shape.locate)


def _decode(data: bytes) -> str:
    if len(data) > FILE_BYTES_MAX:
        raise errors.Invalid.of(
            "file", f"line 1: {len(data)} bytes, at most {FILE_BYTES_MAX} are allowed", reason="FILE_TOO_LARGE"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise yamltree.refuse(line, f"not UTF-8: the byte 0x{data[error.start]:02x} does not belong there") from error
    return text.replace("\r\n", "\n")


def _is_markdown(text: str, filename: str) -> bool:
    name = filename.lower()
    if name.endswith(_MARKDOWN + _YAML):
        return name.endswith(_MARKDOWN)
    first, *rest = text.split("\n")
    return _FENCE.fullmatch(first) is not None and any(_FENCE_END.fullmatch(line) for line in rest)


def _split(text: str) -> tuple[str, str, int]:
    """Front matter, body, and the line of the file that the body begins in."""
    lines = text.split("\n")
    if not _FENCE.fullmatch(lines[0]):
        raise yamltree.refuse(1, "a Markdown goal file begins with a line `---`, then YAML, then another `---`")
    for index, line in enumerate(lines[1:], start=1):
        if _FENCE_END.fullmatch(line):
            return "\n".join(lines[1:index]), "\n".join(lines[index + 1 :]).strip(), index + 2
    raise yamltree.refuse(len(lines), "the front matter has no closing line `---`")


def _set_body(goal: goal_pb2.Goal, fields: goalshape.Fields, body: str, line: int) -> None:
    shape = fields.holder.shape
    told = fields.get("description")
    if told is not None:
        told.refuse("the text below the front matter is the description already")
    elif "\0" in body:
        shape.refuse("description", line, "must not contain a NUL character")
    else:
        shape.place("description", "description", line)
        goal.description = body


def _goal(fields: goalshape.Fields) -> goal_pb2.Goal:
    for key in ("title", "repo"):
        fields.need(key)
    repo = fields.line_text("repo", "repo")
    goal = goal_pb2.Goal(
        title=fields.line_text("title", "title"),
        description=fields.text("description", "description"),
        repo=repo if not repo or repo.startswith("repos/") else f"repos/{repo}",
        lane=task_pb2.Lane.ValueType(fields.word("lane", "lane", LANES)),
        labels=fields.labels("labels", "labels"),
    )
    for index, item in enumerate(_list(fields, "assertions", "assertions")):
        goal.assertions.append(_assertion(item, f"assertions[{index}]"))
    plan = _plan_item(fields)
    if plan is not None:
        goal.plan.tasks.extend(_task(item, f"plan.tasks[{index}]") for index, item in enumerate(plan.list()))
        if not goal.plan.tasks:
            plan.refuse("a plan needs at least one task; without a plan leave the key out")
    return goal


def _list(fields: goalshape.Fields, key: str, target: str) -> list[goalshape.Item]:
    item = fields.get(key)
    if item is None:
        return []
    fields.holder.shape.place(target, item.path, item.line)
    return list(item.list())


def _plan_item(fields: goalshape.Fields) -> goalshape.Item | None:
    """The list of tasks: `plan: [...]`, `plan: {tasks: [...]}` or `tasks: [...]`; None when there is no plan."""
    plan, tasks = fields.get("plan"), fields.get("tasks")
    if plan is None:
        return tasks
    if tasks is not None:
        tasks.refuse("is given by `plan` already")
    return plan.fields(("tasks",)).need("tasks") if isinstance(plan.node, yamltree.Mapping) else plan


def _assertion(item: goalshape.Item, target: str) -> goal_pb2.Assertion:
    item.shape.place(target, item.path, item.line)
    fields = item.fields(ASSERTION_KEYS)
    for key in ("id", "text"):
        fields.need(key)
    assertion = goal_pb2.Assertion(
        id=fields.line_text("id", f"{target}.id"), text=fields.text("text", f"{target}.text")
    )
    check, timeout = fields.get("check"), fields.get("timeout_s")
    if check is not None:
        for other in (fields.get("run"), timeout):
            if other is not None:
                other.refuse("is given by `check` already")
        assertion.check.CopyFrom(_check(check, f"{target}.check"))
    elif "run" in fields:
        item.shape.place(f"{target}.check", item.path, item.line)
        assertion.check.run = fields.text("run", f"{target}.check.run")
        if timeout is not None:
            _set(assertion.check.timeout, timeout.seconds(f"{target}.check.timeout"))
    elif timeout is not None:
        timeout.refuse("there is no `run` that it could bound")
    return assertion


def _check(item: goalshape.Item, target: str) -> task_pb2.Check:
    """A command alone, or a mapping with `run`."""
    item.shape.place(target, item.path, item.line)
    if isinstance(item.node, yamltree.Scalar):
        return task_pb2.Check(run=item.text(f"{target}.run"))
    fields = item.fields(CHECK_KEYS)
    fields.need("run")
    expectation = fields.word("expect_on_base", f"{target}.expect_on_base", EXPECTATIONS)
    check = task_pb2.Check(
        id=fields.line_text("id", f"{target}.id"),
        run=fields.text("run", f"{target}.run"),
        expect_on_base=task_pb2.Check.Expectation.ValueType(expectation),
    )
    if "timeout_s" in fields:
        _set(check.timeout, fields.seconds("timeout_s", f"{target}.timeout"))
    return check


def _task(item: goalshape.Item, target: str) -> goal_pb2.PlanTask:
    shape, inner = item.shape, f"{target}.spec"
    shape.place(target, item.path, item.line)
    shape.place(inner, item.path, item.line)
    fields = item.fields(TASK_KEYS)
    for key in ("id", "title"):
        fields.need(key)
    context = fields.get("context")
    if context is not None and "instructions" in fields:
        context.refuse("is another word for `instructions`, which is there too")
    told = "context" if context is not None else "instructions"
    spec = task_pb2.TaskSpec(
        title=fields.line_text("title", f"{inner}.title"),
        instructions=fields.text(told, f"{inner}.instructions"),
        command=fields.text("command", f"{inner}.command"),
        tier=task_pb2.Tier.ValueType(fields.word("tier", f"{inner}.tier", TIERS)),
        lane=task_pb2.Lane.ValueType(fields.word("lane", f"{inner}.lane", LANES)),
        delivery=task_pb2.Delivery.ValueType(fields.word("delivery", f"{inner}.delivery", DELIVERIES)),
        attempts_max=fields.whole("attempts_max", f"{inner}.attempts_max"),
        labels=fields.labels("labels", f"{inner}.labels"),
        touches=fields.texts("touches", f"{inner}.touches"),
    )
    for index, check in enumerate(_list(fields, "checks", f"{inner}.checks")):
        spec.checks.append(_check(check, f"{inner}.checks[{index}]"))
    if "requires" in fields or "executor" in fields:
        spec.requirement.capabilities.extend(fields.texts("requires", f"{inner}.requirement.capabilities"))
        spec.requirement.executor = fields.line_text("executor", f"{inner}.requirement.executor")
    if "timeout_s" in fields:
        _set(spec.run_timeout, fields.seconds("timeout_s", f"{inner}.run_timeout"))
    if "silence_timeout_s" in fields:
        _set(spec.silence_timeout, fields.seconds("silence_timeout_s", f"{inner}.silence_timeout"))
    policy = fields.get("policy")
    if policy is not None:
        spec.policy.CopyFrom(_policy(policy, f"{inner}.policy"))
    return goal_pb2.PlanTask(
        id=fields.line_text("id", f"{target}.id"),
        spec=spec,
        depends_on=fields.texts("depends_on", f"{target}.depends_on"),
        fulfills=fields.texts("fulfills", f"{target}.fulfills"),
    )


def _policy(item: goalshape.Item, target: str) -> task_pb2.Policy:
    item.shape.place(target, item.path, item.line)
    fields = item.fields(POLICY_KEYS)
    isolation = fields.word("isolation", f"{target}.isolation", ISOLATIONS)
    return task_pb2.Policy(
        isolation=task_pb2.Policy.Isolation.ValueType(isolation), network=fields.truth("network", f"{target}.network")
    )


def _set(target: duration_pb2.Duration, seconds: float | None) -> None:
    """Set a duration; a refused one is left as it is, its mistake is noted."""
    if seconds is not None:
        target.FromNanoseconds(round(seconds * 1_000_000_000))
