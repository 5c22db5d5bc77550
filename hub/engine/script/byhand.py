"""Work by hand: a person takes a task as an agent would, and reports on it. And what attempts leave behind."""

from __future__ import annotations

from typing import NamedTuple

from hub.core import task as core
from hub.core.holding import Holding
from hub.core.repo import Repo
from hub.core.task import ArtifactInfo, Failure, Result, Task
from hub.engine.script import agents, queue, work
from hub.store.base import Reader, Txn
from kit import errors

Outcome = tuple[Result, dict[str, bytes]] | Failure


class Found(NamedTuple):
    """An artefact with its content."""

    info: ArtifactInfo
    content: bytes
    generation: int


def claim(
    txn: Txn, task_id: str, agent: str, lease_s: float, now: float, *, actor: str
) -> tuple[queue.Placed, Repo | None]:
    """Hold a waiting task by hand; with the repo that it works on. Raises NotFound, IllegalState."""
    agents.found(txn, agent)
    task = queue.found(txn, task_id)
    spec = txn.spec(task_id)
    assert spec is not None, task_id
    only = spec.requirement.agent
    if only and only != agent:
        raise errors.IllegalState(
            f"tasks/{task_id} may be held by agents/{only} only",
            state=task.state.name,
            reason="OTHER_AGENT",
            metadata={"name": f"tasks/{task_id}", "agent": f"agents/{only}"},
        )
    placed = queue.claim(txn, task_id, agent, lease_s, now, actor=actor)
    return placed, txn.repos.get(task.repo) if task.repo else None


def report(txn: Txn, holding: Holding, outcome: Outcome, now: float, *, speaker: str | None, roll: float) -> Task:
    """Take in what became of a holding that was claimed. `speaker` is the agent that reports; None: a person, for any.

    Raises NotFound for an unknown task, Fenced for a holding that is not good any more, IllegalState for one of a
    sidecar.
    """
    task = queue.found(txn, holding.task)
    attempt = txn.attempt(*holding)
    if attempt is None or (speaker is not None and attempt.agent != speaker):
        raise errors.Fenced(
            f"there is no holding {holding} of this caller",
            metadata={"task": f"tasks/{holding.task}", "generation": holding.generation},
        )
    if task.generation == holding.generation and task.state in core.HELD and not task.claimed:
        raise errors.IllegalState(
            f"tasks/{task.id} is held by the sidecar of agents/{task.agent}, which reports itself",
            state=task.state.name,
            reason="NOT_CLAIMED",
            metadata={"name": f"tasks/{task.id}"},
        )
    if isinstance(outcome, Failure):
        return work.fail(txn, holding, attempt.agent, outcome, now, roll=roll)
    result, contents = outcome
    return work.complete(txn, holding, attempt.agent, result, contents, now, roll=roll)


def artifact(reader: Reader, task_id: str, generation: int, id: str) -> Found:
    """An artefact of a task; generation 0 is the newest attempt that has it. Raises NotFound."""
    queue.found(reader, task_id)
    for attempt in reversed(reader.attempts(task_id)):
        if generation and attempt.generation != generation:
            continue
        infos = attempt.result.artifacts if attempt.result is not None else attempt.artifacts
        for info in infos:
            if info.id == id:
                content = reader.artifact(task_id, attempt.generation, id)
                if content is not None:
                    return Found(info, content, attempt.generation)
    at = f" at generation {generation}" if generation else ""
    raise errors.NotFound(
        f"tasks/{task_id} has no artifact {id!r}{at}",
        reason="ARTIFACT_NOT_FOUND",
        metadata={"name": f"tasks/{task_id}", "artifact": id},
    )
