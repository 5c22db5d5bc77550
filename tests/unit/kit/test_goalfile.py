"""Goal files: both forms, every refusal with its field and line, and that no bytes raise anything but Invalid."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentcom.v1 import task_pb2
from kit import errors, goalfile, goalshape, yamltree

PLAN = """
title: Add a currency module
repo: notes
lane: high
labels: {team: core}
assertions:
  - id: A1
    text: the module is there
    run: test -f currency.py
    timeout_s: 30
  - {id: A2, text: all tests pass, check: {run: python3 -m unittest, timeout_s: 60, id: unit}}
plan:
  tasks:
    - id: T1
      title: write the module
      context: |
        first line
        second line
      command: touch currency.py
      tier: trivial
      executor: shell
      requires: [python]
      fulfills: [A1]
      touches: ["currency.py"]
      checks:
        - test -f currency.py
        - {id: red, run: python3 -m unittest, timeout_s: 2.5, expect_on_base: fail}
      attempts_max: 2
      timeout_s: 90
      silence_timeout_s: 45
      delivery: merge
      policy: {isolation: required, network: true}
      labels: {size: s}
    - {id: T2, title: test it, lane: low, command: "true", depends_on: [T1], fulfills: [A2]}
"""


def refusal(text: str | bytes, name: str = "goal.yaml") -> dict[str, str]:
    """Field -> description of everything wrong with a file."""
    data = textwrap.dedent(text).encode() if isinstance(text, str) else text
    with pytest.raises(errors.Invalid) as caught:
        goalfile.parse(data, name)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_every_key_of_the_friendly_schema_reaches_its_field():
    goal = goalfile.parse(PLAN.encode(), "goal.yaml")
    assert (goal.title, goal.repo, goal.lane) == ("Add a currency module", "repos/notes", task_pb2.LANE_HIGH)
    assert dict(goal.labels) == {"team": "core"}
    first, second = goal.assertions
    assert (first.id, first.check.run, first.check.timeout.seconds) == ("A1", "test -f currency.py", 30)
    assert (second.check.id, second.check.run, second.check.timeout.seconds) == ("unit", "python3 -m unittest", 60)
    one, two = goal.plan.tasks
    assert one.spec.instructions == "first line\nsecond line\n"
    assert (one.spec.command, one.spec.tier) == ("touch currency.py", task_pb2.TIER_TRIVIAL)
    assert one.spec.requirement == task_pb2.Requirement(capabilities=["python"], executor="shell")
    assert [check.run for check in one.spec.checks] == ["test -f currency.py", "python3 -m unittest"]
    assert one.spec.checks[1].timeout.ToTimedelta().total_seconds() == 2.5
    assert one.spec.checks[1].expect_on_base == task_pb2.Check.EXPECTATION_FAIL
    assert (one.spec.attempts_max, one.spec.run_timeout.seconds, one.spec.silence_timeout.seconds) == (2, 90, 45)
    assert (one.spec.delivery, dict(one.spec.labels), list(one.spec.touches)) == (
        task_pb2.DELIVERY_MERGE,
        {"size": "s"},
        ["currency.py"],
    )
    assert (one.spec.policy.isolation, one.spec.policy.network) == (task_pb2.Policy.ISOLATION_REQUIRED, True)
    assert not two.spec.HasField("policy")
    assert (list(one.fulfills), list(two.depends_on), two.spec.lane) == (["A1"], ["T1"], task_pb2.LANE_LOW)


def test_a_policy_of_other_words_is_refused_by_its_line():
    task = "{id: T1, title: t, command: make, policy: {isolation: total, network: perhaps, gpu: yes}}"
    found = refusal(f"title: t\nrepo: r\nplan:\n  - {task}\n")
    assert found == {
        "plan[0].policy.isolation": "line 4: must be one of preferred, required, not 'total'",
        "plan[0].policy.network": "line 4: must be true or false, not 'perhaps'",
        "plan[0].policy.gpu": "line 4: unknown key 'gpu'; known are isolation, network",
    }


def test_the_body_of_a_markdown_file_is_the_description():
    goal = goalfile.parse(b"---\ntitle: t\nrepo: repos/r\n---\n\n# Why\n\nBecause.\n", "goal.md")
    assert (goal.title, goal.repo, goal.description) == ("t", "repos/r", "# Why\n\nBecause.")
    assert not goal.HasField("plan")


@pytest.mark.parametrize("name", ["-", "goal.txt"])
def test_without_a_telling_name_front_matter_makes_it_markdown(name: str):
    assert goalfile.parse(b"---\ntitle: t\nrepo: r\n---\nbody\n", name).description == "body"
    assert goalfile.parse(b"title: t\nrepo: r\ndescription: d\n", name).description == "d"


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    goal = goalfile.parse("\ufeff---\r\ntitle: ä\r\nrepo: r\r\n---\r\nline\r\nline\r\n".encode(), "g.md")
    assert (goal.title, goal.description) == ("ä", "line\nline")


@pytest.mark.parametrize("plan", ["plan: [{}]", "tasks: [{}]", "plan: {{tasks: [{}]}}"])
def test_a_plan_may_be_written_in_three_ways(plan: str):
    task = "{id: T1, title: t, command: make}"
    goal = goalfile.parse(f"title: t\nrepo: r\n{plan.format(task)}\n".encode(), "g.yaml")
    assert [entry.id for entry in goal.plan.tasks] == ["T1"]


def test_every_mistake_is_told_at_once_with_its_path_and_line():
    found = refusal("""\
        title: [a]
        repo: r
        lane: fast
        assertions: [{id: A1, text: x, run: "make", timeout_s: soon}]
        plan:
          - id: T1
            title: t
            attempts_max: many
            checks:
              - run: true
        """)
    assert found == {
        "title": "line 1: must be text",
        "lane": "line 3: must be one of urgent, high, normal, low, not 'fast'",
        "assertions[0].timeout_s": "line 4: must be a number of seconds, not 'soon'",
        "plan[0].attempts_max": "line 8: must be a whole number, not 'many'",
        "plan[0].checks[0].run": "line 10: must be text, 'true' is true/false to YAML: put it in quotes",
    }


def test_the_contracts_limits_are_told_in_the_files_own_words():
    found = refusal("""\
        ---
        title: t
        repo: Not A Slug
        assertions:
          - {id: "1", text: x, run: make}
        tasks:
          - id: T1
            title: t
            requires: [ok, Not_ok]
            timeout_s: 1000000
            checks: ["make", {run: make, timeout_s: 0}]
            depends_on: [T2, T2]
        ---
        """, "g.md")  # fmt: skip
    assert {field: text.partition(":")[0] for field, text in found.items()} == {
        "repo": "line 3",
        "assertions[0].id": "line 5",
        "tasks[0].requires[1]": "line 9",
        "tasks[0].timeout_s": "line 10",
        "tasks[0].checks[1].timeout_s": "line 11",
        "tasks[0].depends_on": "line 12",
    }


HEAD = "title: t\nrepo: r\n"


def with_task(rest: str) -> str:
    return f"{HEAD}tasks: [{{id: T, title: t, {rest}}}]\n"


def with_assertion(rest: str) -> str:
    return f"{HEAD}assertions: [{{id: A, text: t, {rest}}}]\n"


REFUSED = {
    "unknown key": (HEAD + "colour: red\n", "colour", "line 3: unknown key 'colour'"),
    "empty key": (HEAD + '"": red\n', "file", "line 3: a key must not be empty"),
    "unknown key in a task": (with_task("cmd: x"), "tasks[0].cmd", "line 3: unknown key"),
    "missing title": ("repo: r\n", "title", "line 1: is required"),
    "empty title": ("title:\nrepo: r\n", "title", "line 1: is required"),
    "title of two lines": ('title: "a\\nb"\nrepo: r\n', "title", "line 1: must be one line"),
    "number for text": ("title: 1\nrepo: r\n", "title", "line 1: must be text, '1' is a number to YAML"),
    "date for text": ("title: 2026-01-01\nrepo: r\n", "title", "line 1: must be text"),
    "tagged text": ("title: !!python/name:os.system x\nrepo: r\n", "title", "line 1: must be plain text"),
    "NUL": ('title: "a\\0"\nrepo: r\n', "title", "line 1: must not contain a NUL"),
    "half a surrogate": ('title: "\\ud800"\nrepo: r\n', "title", "line 1: contains half"),
    "half a surrogate in a key": (HEAD + 'labels: {"\\ud800": x}\n', "labels.\ud800", "line 3: its key"),
    "duplicate key": (HEAD + "title: u\n", "file", "line 3: the key 'title' is there twice, first in line 1"),
    "key that is no text": ("title: t\n? [a]\n: b\n", "file", "line 2: a key must be text"),
    "a list": ("- a\n", "file", "line 1: it must hold keys"),
    "nothing": ("", "file", "line 1: it must hold keys"),
    "two documents": ("title: t\n---\ntitle: u\n", "file", "line 2: not YAML: but found another document"),
    "not YAML": ("title: t\nrepo: [a\nlane: x\n", "file", "line 3: not YAML"),
    "unknown alias": ("title: t\nrepo: *r\n", "file", "line 2: not YAML: found undefined alias"),
    "control character": ("title: a\nrepo: \x07\n", "file", "line 2: not YAML: the character U+0007"),
    "escape beyond Unicode": ('title: "\\UFFFFFFFF"\n', "file", "line 1: not YAML"),
    "empty plan": (HEAD + "plan: []\n", "plan", "line 3: a plan needs at least one task"),
    "plan without tasks": (HEAD + "plan: {a: b}\n", "plan.a", "line 3: unknown key"),
    "plan and tasks": (HEAD + "plan: [{id: T1, title: t}]\ntasks: [{}]\n", "tasks", "line 4: is given by `plan`"),
    "check and run": (with_assertion("run: x, check: y"), "assertions[0].run", "line 3: is given by `check`"),
    "time-out of nothing": (with_assertion("timeout_s: 1"), "assertions[0].timeout_s", "line 3: there is no `run`"),
    "context twice": (with_task("context: a, instructions: b"), "tasks[0].context", "line 3: is another word"),
    "text for a list": (with_task("requires: git"), "tasks[0].requires", "line 3: must be a list"),
    "number beyond int32": (with_task("attempts_max: 99999999999"), "tasks[0].attempts_max", "line 3: must be a whole"),
    "infinite seconds": (with_task("timeout_s: .inf"), "tasks[0].timeout_s", "line 3: must be a number of seconds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_with_line_and_reason(case: str):
    text, field, start = REFUSED[case]
    found = refusal(text)
    assert field in found
    assert found[field].startswith(start), found


def test_a_file_that_is_not_utf8_names_the_line_of_the_byte():
    assert refusal(b"title: a\nrepo: \xff\n") == {"file": "line 2: not UTF-8: the byte 0xff does not belong there"}


def test_a_file_that_is_too_large_is_refused_unread():
    assert "at most 262144" in refusal(b"#" * (goalfile.FILE_BYTES_MAX + 1))["file"]
    assert "it must hold keys" in refusal(b"#" * goalfile.FILE_BYTES_MAX)["file"]


@pytest.mark.parametrize(
    ("text", "reason"), [("title: t\n", "begins with a line `---`"), ("---\ntitle: t\n", "no closing line")]
)
def test_a_markdown_file_needs_its_front_matter(text: str, reason: str):
    assert reason in refusal(text, "g.md")["file"]


def test_a_description_and_a_body_are_one_too_many():
    found = refusal("---\ntitle: t\nrepo: r\ndescription: d\n---\nbody\n", "g.md")
    assert found == {"description": "line 4: the text below the front matter is the description already"}


def test_aliases_serve_but_cannot_explode():
    goal = goalfile.parse(
        b"title: t\nrepo: r\ntasks:\n- {id: A, title: t, checks: &c [make]}\n- {id: B, title: t, checks: *c}\n",
        "g.yaml",
    )
    assert goal.plan.tasks[1].spec.checks[0].run == "make"
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    assert "aliases followed" in refusal(bomb)["file"]
    assert "nested deeper" in refusal("a: &a [*a]\n")["file"]


def test_deep_and_wide_text_stops_at_the_bounds():
    assert "nested deeper" in refusal("[" * 200_000)["file"]
    assert "nested deeper" in refusal("- " * 100_000)["file"]
    wide = refusal("a: [" + "x," * yamltree.NODES_MAX + "]\n")["file"]
    assert wide == f"line 1: not YAML: more than {yamltree.NODES_MAX} values"


def test_the_list_of_mistakes_is_bounded():
    assert len(refusal("title: t\nrepo: r\n" + "".join(f"k{n}: v\n" for n in range(500)))) == goalshape.VIOLATIONS_MAX


def test_the_words_are_the_enums_of_the_contract():
    for words, enum, prefix in (
        (goalfile.LANES, task_pb2.Lane, "LANE_"),
        (goalfile.TIERS, task_pb2.Tier, "TIER_"),
        (goalfile.DELIVERIES, task_pb2.Delivery, "DELIVERY_"),
        (goalfile.EXPECTATIONS, task_pb2.Check.Expectation, "EXPECTATION_"),
    ):
        known = {name.removeprefix(prefix).lower(): number for name, number in enum.items() if number}
        assert words == known


def parsed_or_refused(data: bytes, name: str) -> None:
    violations: tuple[errors.Violation, ...] = ()
    try:
        goalfile.parse(data, name).SerializeToString()
    except errors.Invalid as refused:
        violations = refused.violations or (errors.Violation("", "no reason given"),)
    assert all(violation.field and violation.description.startswith("line ") for violation in violations)


NAMES = st.sampled_from(["g.md", "g.yaml", "-"])


@given(st.binary(max_size=400), NAMES)
@example(b"%YAML 9999999999999999999999.1\n---\na: b", "g.yaml")
@example(b"%TAG ! tag:%ff\n---\n!x a: b", "g.yaml")
@example(b"? ", "g.yaml")
def test_no_bytes_raise_anything_but_invalid(data: bytes, name: str):
    parsed_or_refused(data, name)


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [*PLAN.splitlines(True), *"{}[],:*&!|>#%@`\"'-? \n\t<=~\\\x00\x85é", "---\n", "...\n"]
            ),
            st.text(max_size=4),
        ),
        max_size=40,
    ),
    NAMES,
)  # fmt: skip
def test_no_text_like_a_goal_file_raises_anything_but_invalid(parts: list[str], name: str):
    parsed_or_refused("".join(parts).encode("utf-8", "surrogatepass"), name)


@given(st.data())
def test_no_changed_goal_file_raises_anything_but_invalid(data: st.DataObject):
    text = PLAN.encode()
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 20))
    parsed_or_refused(text[:at] + data.draw(st.binary(max_size=8)) + text[at + cut :], data.draw(NAMES))
