"""The registry of repos, inside transactions: create, update, delete, pause, resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from hub.core import goal as goals
from hub.core import repo_url
from hub.core import task as tasks
from hub.core.repo import Repo
from hub.core.task import Event, Lane, State
from hub.engine.script import lifecycle, requests
from hub.store.base import Reader, Txn
from kit import errors

FIELDS: Final = ("display_name", "url", "default_branch", "checks", "merge_style")
"""What an update may set."""

USERS_LOOK: Final = 10_000
"""Live tasks looked at for one that uses a repo: about 50 ms. Beyond it a delete is refused rather than guessed."""

GOALS_LOOK: Final = 2_000
"""Newest goals looked at for one that uses a repo. An older one without a plan is told when its plan comes."""

UNPARK_MAX: Final = 1_000
"""Parked tasks that one resume puts back at once; the others follow by their own wake times, an hour at most."""

TRAIN_COUNT_MAX: Final = 1_000
"""Changes counted for the length of a train."""

_PAGE: Final = 500
_LIVE: Final = (*(tasks.WAITING - {State.QUEUED}), *tasks.HELD, State.MERGING)


def create(txn: Txn, repo: Repo, request: requests.Request, now: float, *, window_s: float) -> Repo:
    """File a repo. A repeat of the request gives the repo that it made."""
    known = requests.answered(txn, request, now)
    if known is not None:
        return found(txn, known.removeprefix("repos/"))
    check(repo)
    name = f"repos/{repo.id}"
    if txn.repos.get(repo.id) is not None:
        raise errors.AlreadyExists(f"there is a {name} already", reason="REPO_EXISTS", metadata={"name": name})
    filed = msgspec.structs.replace(repo, created_at=now, updated_at=now)
    txn.repos.put(filed)
    txn.append(now, "repo.created", name, actor=request.principal, url=repo.url)
    requests.remember(txn, request, name, now + window_s)
    return filed


def update(
    txn: Txn, repo_id: str, wanted: Repo, mask: Iterable[str], now: float, *, actor: str, etag: str = ""
) -> Repo:
    """Set the fields of the mask (`*`: all that may be set)."""
    fields = _masked(mask)
    repo = found(txn, repo_id, etag)
    changes = {field: getattr(wanted, field) for field in fields}
    after = msgspec.structs.replace(repo, **changes)
    check(after)
    made = _put(txn, repo, now, "repo.updated", actor, changes, {"fields": ",".join(fields)})
    if (made.url, made.default_branch) != (repo.url, repo.default_branch):
        # What kept its tasks from being fetched may be mended by this very update.
        _unpark(txn, repo_id, now, actor)
    return made


def delete(txn: Txn, repo_id: str, now: float, *, actor: str, etag: str = "") -> None:
    """Forget a repo. Raises IllegalState while a live task, change or goal uses it."""
    found(txn, repo_id, etag)
    user = _user(txn, repo_id)
    name = f"repos/{repo_id}"
    if user:
        raise errors.IllegalState(
            f"repo {name} is used by {user}, cannot delete",
            state="IN_USE",
            reason="REPO_IN_USE",
            metadata={"name": name, "used_by": user},
        )
    txn.repos.delete(repo_id)
    txn.append(now, "repo.deleted", name, actor=actor)


def pause(txn: Txn, repo_id: str, now: float, *, actor: str) -> Repo:
    """Assign none of its tasks; what runs goes on. Nothing happens when it is paused."""
    repo = found(txn, repo_id)
    return repo if repo.paused else _put(txn, repo, now, "repo.paused", actor, {"paused": True})


def resume(txn: Txn, repo_id: str, now: float, *, actor: str) -> Repo:
    """Assign its tasks again, and try at once those that are parked for something outside, paused or not."""
    repo = found(txn, repo_id)
    if repo.paused:
        repo = _put(txn, repo, now, "repo.resumed", actor, {"paused": False})
    _unpark(txn, repo_id, now, actor)
    return repo


def found(reader: Reader, repo_id: str, etag: str = "") -> Repo:
    """The repo. Raises NotFound, or Conflict when the etag is another one."""
    repo = reader.repos.get(repo_id)
    name = f"repos/{repo_id}"
    if repo is None:
        raise errors.NotFound(f"there is no {name}", reason="REPO_NOT_FOUND", metadata={"name": name})
    if etag and etag != str(repo.revision):
        raise errors.Conflict(
            f"repo {name} has changed: its etag is {repo.revision}, not {etag}",
            reason="ETAG_MISMATCH",
            metadata={"name": name, "etag": repo.revision},
        )
    return repo


def train_length(reader: Reader, repo_id: str) -> int:
    """How many changes wait or are being merged, at most TRAIN_COUNT_MAX."""
    return len(reader.train(repo_id, TRAIN_COUNT_MAX))


def check(repo: Repo) -> None:
    """Raise Invalid, naming every field, when the repo cannot be taken."""
    violations = []
    objection = repo_url.objection(repo.url)
    if objection:
        violations.append(errors.Violation("repo.url", objection, "REPO_URL"))
    branch = repo.default_branch
    if ".." in branch or "//" in branch or branch.endswith(("/", ".", ".lock")):
        violations.append(errors.Violation("repo.default_branch", "is no name of a branch"))
    seen: set[str] = set()
    for index, one in enumerate(repo.checks):
        if one.id in seen:
            violations.append(errors.Violation(f"repo.checks[{index}].id", f"{one.id!r} is the id of an earlier check"))
        seen.add(one.id)
        if not one.run.strip() or "\0" in one.run:
            violations.append(errors.Violation(f"repo.checks[{index}].run", "must be a command"))
    if violations:
        raise errors.Invalid(violations=violations)


def _masked(mask: Iterable[str]) -> list[str]:
    paths = list(mask)
    if not paths:
        raise errors.Invalid.of("update_mask", "must name at least one field")
    if "*" in paths:
        return list(FIELDS)
    for path in paths:
        if path not in FIELDS:
            known = ", ".join(FIELDS)
            raise errors.Invalid.of("update_mask", f"{path[:60]!r} cannot be set; may be set: {known}")
    return [field for field in FIELDS if field in paths]


def _put(
    txn: Txn,
    repo: Repo,
    now: float,
    event_type: str,
    actor: str,
    changes: Mapping[str, Any],
    fields: Mapping[str, str] | None = None,
) -> Repo:
    after = msgspec.structs.replace(repo, updated_at=now, revision=repo.revision + 1, **changes)
    txn.repos.put(after)
    txn.append(now, event_type, f"repos/{repo.id}", actor=actor, **(fields or {}))
    return after


def _user(txn: Reader, repo_id: str) -> str:
    """The name of something live that uses the repo; empty: there is nothing."""
    train = txn.train(repo_id, 1)
    if train:
        return f"changes/{train[0].id}"
    for goal in txn.goals.page(limit=GOALS_LOOK, reverse=True):
        if goal.repo == repo_id and goal.state not in goals.FINAL:
            return f"goals/{goal.id}"
    # A repo's tasks have classes of their own: without one it never had a task, and QUEUED ones are at their heads.
    classes = [one.id for one in txn.classes() if one.requirement.repo == repo_id]
    for class_id in classes:
        heads = txn.ready_heads(class_id)
        if heads:
            return f"tasks/{heads[0].task}"
    return _live_task(txn, repo_id) if classes else ""


def _live_task(txn: Reader, repo_id: str) -> str:
    after, looked_at = "", 0
    while looked_at < USERS_LOOK:
        page = txn.tasks_in(_LIVE, Lane, after=after, limit=_PAGE)
        for task in page:
            if task.repo == repo_id:
                return f"tasks/{task.id}"
        if len(page) < _PAGE:
            return ""
        looked_at += len(page)
        after = page[-1].id
    return f"perhaps one of more than {USERS_LOOK} live tasks"


def _unpark(txn: Txn, repo_id: str, now: float, actor: str) -> int:
    """Put back the tasks that are parked until a time, which are those that something outside keeps from going on."""
    after, count, looked_at = "", 0, 0
    while looked_at < USERS_LOOK:
        page = txn.tasks_in([State.PARKED], Lane, after=after, limit=_PAGE)
        for task in page:
            if task.repo == repo_id and task.start_at is not None:
                lifecycle.move(txn, task, Event.UNPARK, now, "task.queued", actor=actor, start_at=None)
                count += 1
                if count == UNPARK_MAX:
                    return count
        if len(page) < _PAGE:
            return count
        looked_at += len(page)
        after = page[-1].id
    return count
