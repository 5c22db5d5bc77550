"""How a change is told to people: commit messages with trailers, and the title and body of a pull request."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.core import assignment, cut

# What fits in one line of a log.
SUBJECT_BYTES_MAX = 72
WIP_PREFIX = "wip: "
# Of a message that an agent wrote: it travels as an argument, and the system bounds those at 128 KiB.
MESSAGE_BYTES_MAX = 32 * 1024
# Of the task's instructions in a body: the rest can be read at the task.
WHY_BYTES_MAX = 8 * 1024


def task_name(task: str) -> str:
    """The resource name of a bare task id."""
    return f"tasks/{task}"


def goal_name(goal: str) -> str:
    """The resource name of a goal, given with or without its collection; empty stays empty."""
    return goal if not goal or goal.startswith("goals/") else f"goals/{goal}"


def trailers(task: assignment.Assignment) -> tuple[str, ...]:
    """The trailers that every change of a task carries on its tip."""
    goal = goal_name(task.goal)
    return (
        f"AgentCom-Task: {task_name(task.holding.task)}",
        *((f"AgentCom-Goal: {goal}",) if goal else ()),
    )


def commit_message(task: assignment.Assignment, *, agent: str, unfinished: bool = False) -> str:
    """The message of the commit that holds what an executor left uncommitted."""
    subject = _subject(f"{WIP_PREFIX if unfinished else ''}{task.title}")
    told = f"Attempt {task.attempt} at {task_name(task.holding.task)}, made by agents/{agent}."
    return "\n\n".join((subject, told, "\n".join(trailers(task)))) + "\n"


def merge_message(task: assignment.Assignment, change: assignment.ChangeRef) -> str:
    """The message of a merge commit."""
    goal = goal_name(task.goal)
    lines = [f"AgentCom-Task: {task_name(change.task.removeprefix('tasks/'))}"]
    if goal:
        lines.append(f"AgentCom-Goal: {goal}")
    if change.name:
        lines.append(f"AgentCom-Change: {change.name}")
    return "\n\n".join((_subject(change.title or task.title), f"Merges {change.branch}.", "\n".join(lines))) + "\n"


def has_trailers(message: str, wanted: Iterable[str]) -> bool:
    """Does the last paragraph of a commit message hold all of these?"""
    paragraphs = [p for p in message.strip().split("\n\n") if p.strip()]
    last = set(paragraphs[-1].splitlines()) if len(paragraphs) > 1 else set()
    return all(line in last for line in wanted)


def with_trailers(message: str, wanted: Iterable[str]) -> str:
    """The message with the missing ones added; a wip subject loses its mark, for the work is finished now."""
    wanted = tuple(wanted)
    text = cut.head(message.strip().removeprefix(WIP_PREFIX), MESSAGE_BYTES_MAX) or "change"
    paragraphs = text.split("\n\n")
    last = paragraphs[-1].splitlines()
    if len(paragraphs) > 1 and all(_is_trailer(line) for line in last):
        return text + "\n" + "".join(f"{line}\n" for line in wanted if line not in last)
    return f"{text}\n\n" + "\n".join(wanted) + "\n"


def title(task: assignment.Assignment) -> str:
    """Title of the change."""
    return " ".join(task.title.split())[: assignment.CHANGE_TITLE_CHARACTERS_MAX]


def body(
    task: assignment.Assignment,
    *,
    base_sha: str,
    summary: str,
    stat: assignment.DiffStat,
    receipts: Iterable[assignment.Receipt],
) -> str:
    """Body of the change: what, why, how it was checked, and from where it started."""
    parts = [f"**What.** {summary or task.title}"]
    if task.instructions.strip():
        parts.append(f"**Why.** {cut.head(task.instructions.strip(), WHY_BYTES_MAX)}")
    rows = [_row(receipt) for receipt in receipts]
    if rows:
        parts.append(
            "\n".join(("**Checks.**", "", "| check | on | verdict | exit | seconds |", "|---|---|---|---|---|", *rows))
        )
    else:
        parts.append("**Checks.** The task has none.")
    parts.append(f"**Size.** {stat.files} files, +{stat.insertions} -{stat.deletions}, from base `{base_sha}`.")
    parts.append("\n".join(trailers(task)))
    whole = "\n\n".join(parts) + "\n"
    if len(whole.encode(errors="replace")) <= assignment.CHANGE_BODY_BYTES_MAX:
        return whole
    # The trailers must survive a cut: programs read them.
    end = f"\n[...]\n\n{parts[-1]}\n"
    return cut.head("\n\n".join(parts[:-1]), assignment.CHANGE_BODY_BYTES_MAX - len(end.encode())) + end


def _row(receipt: assignment.Receipt) -> str:
    return (
        f"| {receipt.check} | {receipt.phase} `{receipt.head_sha[:12]}` | {receipt.verdict} | {receipt.exit_code} "
        f"| {receipt.duration_s:.1f} |"
    )


def _subject(text: str) -> str:
    return cut.line(text, SUBJECT_BYTES_MAX) or "change"


def _is_trailer(line: str) -> bool:
    key, colon, value = line.partition(": ")
    return bool(colon and value) and bool(key) and all(c.isalnum() or c == "-" for c in key)
