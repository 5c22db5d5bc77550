"""The merge train: one per repo, serial. Brings pushed changes into the default branch, oldest first, one at a time.

A WORK task whose completion was accepted waits in MERGING with a change in the train. The first waiting change is given
a MERGE task, and no other of that repo until this one has ended; so each change is checked on the very tree that its
merge makes. How the MERGE task ends decides:

    SUCCEEDED                       the change is MERGED, its WORK task SUCCEEDED
    DEAD, the change's own fault    the change is RETURNED and its task queued again with the evidence; after
                                    REWORKS_MAX returns the task is dead-lettered instead
    DEAD, any other fault           the change is RETURNED and its task dead-lettered: there is nothing to rework
    CANCELLED                       the change is ABANDONED and its task cancelled

A fault of the environment (the repo cannot be fetched) parks the MERGE task, and the train waits with it.
A WORK task that is cancelled while it merges abandons its change: the MERGE task is revoked. When its sidecar has
pushed the default branch already, the change stays in it; the hub cannot take it back and does not claim to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from hub.core import change as core
from hub.core import task as tasks
from hub.core.change import REWORKS_MAX, Change
from hub.core.repo import MergeStyle, Repo
from hub.core.task import (
    AttemptOutcome,
    Attribution,
    Check,
    Event,
    Expectation,
    Failure,
    Kind,
    Requirement,
    Result,
    State,
    Task,
    TaskSpec,
    Tier,
)
from hub.engine.script import lifecycle
from hub.store.base import Txn
from kit import ids

TRAIN_LOOK: Final = 100
"""Changes looked at for the one that is being merged. It is the oldest, unless the clock was set back meanwhile."""

CHECK_ID_MAX: Final = 64
"""Length of a check's id in the contract."""

RUN_MARGIN_S: Final = 900.0
"""Beyond the checks' own time: fetch, merge, push, and starting over when the default branch has moved."""

RUN_MIN_S: Final = 3600.0
RUN_MAX_S: Final = 86_400.0
"""The bounds of a run timeout in the contract."""


def push(txn: Txn, task: Task, result: Result, now: float) -> Task:
    """A completion with a change was accepted (the task is MERGING now): the change takes its place in the train."""
    change = Change(
        id=ids.derived(now, "change", task.id, task.generation),
        task=task.id,
        generation=task.generation,
        goal=task.goal,
        repo=task.repo,
        branch=result.branch,
        base_sha=result.base_sha,
        head_sha=result.head_sha,
        title=result.change_title,
        body=result.change_body,
        diff_stat=result.diff_stat,
        created_at=now,
        updated_at=now,
    )
    txn.changes.put(change)
    told = {"task": f"tasks/{task.id}", "repo": f"repos/{task.repo}", "branch": result.branch, "head": result.head_sha}
    txn.append(now, "change.created", f"changes/{change.id}", goal=task.goal, **told)
    after = msgspec.structs.replace(task, change=change.id, updated_at=now, revision=task.revision + 1)
    txn.put_task(after, task)
    advance(txn, task.repo, now)
    return after


def advance(txn: Txn, repo_id: str, now: float) -> Task | None:
    """Give the first waiting change of the train its MERGE task, when none is being merged; that task."""
    train = txn.train(repo_id, TRAIN_LOOK)
    if any(change.state is core.State.MERGING for change in train):
        return None
    for change in train:
        work = txn.task(change.task)
        if work is not None and work.state is State.MERGING and work.change == change.id:
            return _board(txn, change, work, now)
        # Its task went on without it. No verb leaves a change behind like that; the train must not stop if one does.
        _end(txn, change, core.Event.ABANDON, now, "change.abandoned", reason="its task does not wait for it any more")
    return None


def after(txn: Txn, merge_task: Task, now: float) -> list[Task]:
    """A MERGE task has ended: what becomes of its change and of the task that made it. Gives the tasks that ended."""
    change = txn.changes.get(merge_task.change)
    if change is None or change.state is not core.State.MERGING or change.merge_task != merge_task.id:
        return []
    work = txn.task(change.task)
    if work is None or work.state is not State.MERGING or work.change != change.id:
        _end(txn, change, core.Event.ABANDON, now, "change.abandoned", reason="its task does not wait for it any more")
        ended: list[Task] = []
    elif merge_task.state is State.SUCCEEDED:
        ended = [_merged(txn, change, work, merge_task, now)]
    elif merge_task.state is State.CANCELLED:
        reason = "its merge was cancelled"
        _end(txn, change, core.Event.ABANDON, now, "change.abandoned", reason=reason)
        ended = [lifecycle.move(txn, work, Event.CANCEL, now, "task.cancelled", reason=reason)]
    else:
        ended = _returned(txn, change, work, merge_task, now)
    advance(txn, change.repo, now)
    return ended


def abandon(txn: Txn, task: Task, now: float) -> None:
    """A WORK task left MERGING by a person's hand: its change is not wanted any more, and its MERGE task is stopped."""
    change = txn.changes.get(task.change)
    if change is None or change.state in core.FINAL:
        return
    merge_task = txn.task(change.merge_task) if change.merge_task else None
    if merge_task is not None and merge_task.state not in tasks.FINAL:
        reason = f"its change is abandoned: tasks/{task.id} is {task.state.name.lower()}"
        failure = Failure(reason="CANCELLED", message=reason, attribution=Attribution.HUB)
        fields = lifecycle.end_attempt(
            txn, merge_task, AttemptOutcome.REVOKED, now, failure=failure, revoke="CANCELLED"
        )
        lifecycle.move(txn, merge_task, Event.CANCEL, now, "task.cancelled", fields=fields, reason=reason)
    _end(txn, change, core.Event.ABANDON, now, "change.abandoned", reason=f"its task is {task.state.name.lower()}")
    advance(txn, change.repo, now)


def run_timeout_s(checks: Iterable[Check]) -> float:
    """How long a task may run that does nothing but these checks."""
    return min(RUN_MAX_S, max(RUN_MIN_S, sum(check.timeout_s for check in checks) + RUN_MARGIN_S))


def silence_timeout_s(checks: Iterable[Check]) -> float:
    """How long such a task may print nothing: a check may use up its own time in silence."""
    default = TaskSpec(title="").silence_timeout_s
    return min(RUN_MAX_S, max([default, *(check.timeout_s for check in checks)]))


def combined(own: Iterable[Check], repo: Iterable[Check]) -> tuple[Check, ...]:
    """A task's checks and then its repo's, with ids that differ, each command once; nothing is expected of the base."""
    found: dict[str, Check] = {}
    for check in own:
        found[check.id] = check
    commands = {check.run for check in found.values()}
    for check in repo:
        if check.run in commands:
            continue
        commands.add(check.run)
        id = check.id
        while id in found:
            id = f"repo-{id}"[:CHECK_ID_MAX] if f"repo-{id}"[:CHECK_ID_MAX] not in found else f"repo-{len(found)}"
        found[id] = check
    return tuple(msgspec.structs.replace(check, id=id, expect_on_base=Expectation.ANY) for id, check in found.items())


def _board(txn: Txn, change: Change, work: Task, now: float) -> Task:
    """File the MERGE task of a change."""
    contract = txn.spec(work.id)
    assert contract is not None, work.id
    repo = txn.repos.get(change.repo) or Repo(id=change.repo, url="")
    checks = combined(contract.checks, repo.checks)
    style = "fast_forward" if repo.merge_style is MergeStyle.FAST_FORWARD else "merge_commit"
    spec = TaskSpec(
        title=f"Merge: {change.title or contract.title}"[:200],
        lane=work.lane,
        requirement=Requirement(
            kind=Kind.MERGE, tier=Tier.TRIVIAL, repo=change.repo, sandbox=contract.requirement.sandbox
        ),
        checks=checks,
        policy=contract.policy,  # the checks run the code that was written under it
        run_timeout_s=run_timeout_s(checks),
        silence_timeout_s=silence_timeout_s(checks),
        labels={"merge_style": style},
    )
    task_id = ids.derived(now, "merge", change.id)
    task = lifecycle.file(txn, task_id, spec, now, goal=change.goal, change=change.id)
    fields = {"merge_task": f"tasks/{task_id}", "repo": f"repos/{change.repo}"}
    _end(txn, change, core.Event.BOARD, now, "change.merging", fields, merge_task=task_id)
    return task


def _merged(txn: Txn, change: Change, work: Task, merge_task: Task, now: float) -> Task:
    attempt = txn.attempt(merge_task.id, merge_task.generation)
    assert attempt is not None and attempt.result is not None, merge_task.id
    sha = attempt.result.merge_sha
    _end(
        txn,
        change,
        core.Event.MERGE,
        now,
        "change.merged",
        {"merge_sha": sha, "agent": attempt.agent},
        merge_sha=sha,
        merge_agent=attempt.agent,
    )
    fields = {"change": f"changes/{change.id}", "merge_sha": sha}
    return lifecycle.move(txn, work, Event.MERGED, now, "task.succeeded", fields=fields)


def _returned(txn: Txn, change: Change, work: Task, merge_task: Task, now: float) -> list[Task]:
    """The merge is dead: the change goes back, and its task is tried again or given up."""
    why = merge_task.failure or Failure(reason="MERGE_FAILED", message=merge_task.reason)
    message = why.message or why.reason
    fields = {"reason": why.reason, "attribution": why.attribution.name}
    _end(txn, change, core.Event.RETURN, now, "change.returned", fields, reason=message, failure=why)
    if why.attribution is not Attribution.TASK:
        failure = msgspec.structs.replace(why, reason="MERGE_FAILED", message=f"its merge failed: {message}")
        return [lifecycle.kill(txn, work, failure, now)]
    if work.reworks >= REWORKS_MAX:
        failure = msgspec.structs.replace(
            why,
            reason="MERGE_RETURNED_TOO_OFTEN",
            message=f"its change came back from the merge {work.reworks + 1} times, last: {message}",
        )
        return [lifecycle.kill(txn, work, failure, now)]
    fields |= {"change": f"changes/{change.id}", "rework": str(work.reworks + 1)}
    lifecycle.move(
        txn,
        work,
        Event.RETURN,
        now,
        "task.returned",
        fields=fields,
        failure=why,
        reworks=work.reworks + 1,
        reason=f"its change came back from the merge: {message}",
    )
    return []


def _end(
    txn: Txn,
    change: Change,
    event: core.Event,
    now: float,
    event_type: str,
    fields: dict[str, str] | None = None,
    **changes: Any,
) -> Change:
    """Apply one event of the change's table."""
    state = core.step(change.id, change.state, event)
    changes.setdefault("reason", "")
    if state in core.FINAL:
        changes["ended_at"] = now
    moved = msgspec.structs.replace(change, state=state, updated_at=now, **changes)
    txn.changes.put(moved)
    told = {"task": f"tasks/{change.task}", **(fields or {})}
    if moved.reason:
        told.setdefault("reason", moved.reason)
    txn.append(now, event_type, f"changes/{change.id}", goal=change.goal, **told)
    return moved
