"""The task as a file in the working tree: what an agent reads, and reads again after it has lost its context."""

from __future__ import annotations

from sidecar.core import assignment, change


def text(task: assignment.Assignment, *, base_sha: str, branch: str) -> str:
    """The contract in Markdown."""
    lines = [f"# {task.title}", ""]
    lines += [f"- task: {change.task_name(task.holding.task)}, attempt {task.attempt}"]
    if task.goal:
        lines.append(f"- goal: {change.goal_name(task.goal)}")
    if base_sha:
        lines.append(f"- base: {base_sha}")
    if branch:
        lines.append(f"- branch: {branch} (the only one that can be pushed from here)")
    if task.instructions.strip():
        lines += ["", "## What to do", "", task.instructions.strip()]
    if task.touches:
        lines += ["", "## Paths that this task means to change", "", *(f"- `{glob}`" for glob in task.touches)]
    if task.checks:
        lines += ["", "## Checks that must hold on the committed tree", ""]
        lines += [f"- {check.id} (at most {check.timeout_s:g} s): `{check.run}`" for check in task.checks]
    if task.last_failure is not None:
        failure = task.last_failure
        lines += ["", f"## Why the attempt before did not succeed: {failure.reason}", "", failure.message]
        if failure.evidence:
            lines += ["", *(f"    {line}" for line in failure.evidence.splitlines())]
    return "\n".join(lines) + "\n"
