"""Everything that a store holds, as plain JSON: what is compared after a migration.

A field that has its default is left out, so a later version with more fields gives the same picture.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hub.core.task import Lane, State
from hub.store.base import Reader

ALL = 100_000


def picture(reader: Reader) -> dict[str, Any]:
    """Records by their sort, lists that come from an index, counts, classes, the log."""
    tasks = reader.tasks(limit=ALL)
    found: dict[str, Any] = {
        "tasks": tasks,
        "specs": {task.id: reader.spec(task.id) for task in tasks},
        "attempts": {task.id: reader.attempts(task.id) for task in tasks},
        "artifacts": _artifacts(reader),
        "agents": reader.agents.page(limit=ALL),
        "goals": reader.goals.page(limit=ALL),
        "plans": reader.plans.page(limit=ALL),
        "changes": reader.changes.page(limit=ALL),
        "repos": reader.repos.page(limit=ALL),
        "tokens": reader.tokens.page(limit=ALL),
        "events": reader.events(after=0, limit=ALL),
        "classes": reader.classes(),
        "counts": {f"{state.name} {lane.name}": count for (state, lane), count in sorted(reader.counts().items())},
    }
    return dict(msgspec.to_builtins(found | _indexes(reader), str_keys=True, order="deterministic"))


def _artifacts(reader: Reader) -> dict[str, Any]:
    found = {}
    for task in reader.tasks(limit=ALL):
        for attempt in reader.attempts(task.id):
            infos = attempt.artifacts or (attempt.result.artifacts if attempt.result is not None else ())
            for info in infos:
                found[f"{task.id} {attempt.generation} {info.id}"] = reader.artifact(
                    task.id, attempt.generation, info.id
                )
    return found


def _indexes(reader: Reader) -> dict[str, Any]:
    tasks = reader.tasks(limit=ALL)
    return {
        "index.state": {
            state.name: [task.id for task in reader.tasks_in([state], list(Lane), limit=ALL)] for state in State
        },
        "index.ready": {
            f"{one.id} {lane.name}": [head.task for head in reader.ready(one.id, lane, limit=ALL)]
            for one in reader.classes()
            for lane in Lane
        },
        "index.due": reader.due(1e10, ALL),
        "index.held": {agent: [task.id for task in reader.held_by(agent)] for agent in ("a", "b", "m")},
        "index.goal": {
            goal.id: [task.id for task in reader.tasks_of_goal(goal.id, limit=ALL)]
            for goal in reader.goals.page(limit=ALL)
        },
        "index.dependants": {task.id: reader.dependants(task.id, limit=ALL) for task in tasks},
        "index.train": {repo.id: [c.id for c in reader.train(repo.id, ALL)] for repo in reader.repos.page(limit=ALL)},
        "index.token": {
            token.id: getattr(reader.token_by_hash(token.secret_sha256), "id", None)
            for token in reader.tokens.page(limit=ALL)
        },
        "index.events": {
            task.id: [event.position for event in reader.events_of(f"tasks/{task.id}", limit=ALL)] for task in tasks
        },
        "index.answer": reader.answer("tokens/t", "CreateTask", "request-1"),
    }
