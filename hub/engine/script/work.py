"""The verbs of whoever holds a task: accept, reject, complete, fail; and losing it.

Every verb passes the fence (`lifecycle.held`) inside its transaction; a repeat of a report that was accepted before
changes nothing, because only its ack was lost. `roll` in [0, 1) is the caller's die for jitter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hub.core import blame, proof, retry
from hub.core import task as core
from hub.core.holding import Holding
from hub.core.task import (
    ArtifactInfo,
    AttemptOutcome,
    Attribution,
    Delivery,
    Event,
    Failure,
    Kind,
    Receipt,
    Result,
    State,
    Task,
)
from hub.engine.script import goals, lifecycle, merge
from hub.engine.script.settle import settle
from hub.store.base import Txn

REFUSERS_MAX: Final = 16
"""Agents remembered as having refused or failed a task; older ones are asked again."""


def accept(txn: Txn, holding: Holding, agent: str, now: float) -> Task:
    """The agent has begun."""
    task = lifecycle.held(txn, holding, agent)
    if task.state is State.RUNNING:
        return task  # said twice
    attempt = txn.attempt(*holding)
    assert attempt is not None
    txn.put_attempt(msgspec.structs.replace(attempt, accepted_at=now))
    return lifecycle.move(txn, task, Event.ACCEPT, now, "task.accepted", fields=_holder(task))


def reject(txn: Txn, holding: Holding, agent: str, reason: str, message: str, now: float, *, roll: float) -> Task:
    """The agent says "not me": the task goes back at no cost and is offered to others first."""
    repeated = _repeat(txn, holding, agent, AttemptOutcome.REJECTED)
    if repeated is not None:
        return repeated
    task = lifecycle.held(txn, holding, agent)
    failure = Failure(reason=reason, message=message, attribution=Attribution.AGENT)
    decision = retry.after_failure(task, failure, stopped=False, roll=roll)
    fields = lifecycle.end_attempt(txn, task, AttemptOutcome.REJECTED, now, failure=failure)
    txn.append(
        now, "task.rejected", f"tasks/{task.id}", goal=task.goal, actor=f"agents/{agent}", reason=reason, **fields
    )
    return carry_out(txn, task, decision, failure, now, fields, avoid=agent)


def complete(
    txn: Txn, holding: Holding, agent: str, result: Result, artifacts: Mapping[str, bytes], now: float, *, roll: float
) -> Task:
    """Accept a completion, when its receipts prove what the contract asks; otherwise it counts as a failure of the
    agent.
    """
    repeated = _repeat(txn, holding, agent, AttemptOutcome.COMPLETED)
    if repeated is not None:
        return repeated
    task = lifecycle.held(txn, holding, agent)
    lacks = _unproven(txn, task, result)
    if lacks:
        failure = Failure(
            reason="UNPROVEN",
            message="the completion lacks proof",
            evidence="\n".join(lacks),
            attribution=Attribution.AGENT,
        )
        return fail(txn, holding, agent, failure, now, receipts=result.receipts, roll=roll)
    fields = lifecycle.end_attempt(txn, task, AttemptOutcome.COMPLETED, now, result=result)
    _keep(txn, task, artifacts)
    record = txn.agents.get(agent)
    if record is not None:
        txn.agents.put(blame.succeeded(record, now))
    fresh: dict[str, Any] = {"releases": 0, "parks": 0, "wip_ref": "", "failure": None, "claimed": False}
    actor = f"agents/{agent}"
    if task.kind is Kind.WORK and task.delivery is Delivery.MERGE and not result.already_done:
        pushed = lifecycle.move(
            txn,
            task,
            Event.PUSHED,
            now,
            "task.pushed",
            actor=actor,
            fields=fields,
            reason="its change waits to be merged",
            **fresh,
        )
        return merge.push(txn, pushed, result, now)
    done = lifecycle.move(txn, task, Event.COMPLETE, now, "task.succeeded", actor=actor, fields=fields, **fresh)
    settle(txn, [done], now)
    return done


def fail(
    txn: Txn,
    holding: Holding,
    agent: str,
    failure: Failure,
    now: float,
    *,
    receipts: tuple[Receipt, ...] = (),
    infos: tuple[ArtifactInfo, ...] = (),
    artifacts: Mapping[str, bytes] | None = None,
    wip_ref: str = "",
    stopped: bool = False,
    roll: float,
) -> Task:
    """Take a failure in: charge whom it belongs to, keep the evidence, and decide what becomes of the task."""
    repeated = _repeat(txn, holding, agent, AttemptOutcome.FAILED)
    if repeated is None and (stopped or wip_ref):
        repeated = _afterword(txn, holding, agent, wip_ref)
    if repeated is not None:
        return repeated
    task = lifecycle.held(txn, holding, agent)
    died = failure.reason in retry.DEATH_REASONS
    decision = (
        retry.after_loss(task, agent, agent_died=True, roll=roll)
        if died
        else retry.after_failure(task, failure, stopped=stopped, roll=roll)
    )
    outcome = AttemptOutcome.REVOKED if stopped else AttemptOutcome.FAILED
    fields = lifecycle.end_attempt(
        txn,
        task,
        outcome,
        now,
        failure=failure,
        charged=decision.charged,
        receipts=receipts,
        artifacts=infos,
        wip_ref=wip_ref,
    )
    _keep(txn, task, artifacts or {})
    fields |= {
        "reason": failure.reason,
        "attribution": failure.attribution.name,
        "charged": str(decision.charged).lower(),
    }
    txn.append(now, "task.failed", f"tasks/{task.id}", goal=task.goal, actor=f"agents/{agent}", **fields)
    if died:
        task, failure = _death(txn, task, agent, decision, failure)
    avoid = agent if failure.attribution is not Attribution.TASK and not stopped else ""
    after = carry_out(txn, task, decision, failure, now, {}, avoid=avoid, wip_ref=wip_ref or task.wip_ref)
    if not stopped and failure.attribution in (Attribution.TASK, Attribution.AGENT, Attribution.CREDENTIAL):
        _blame(txn, holding, agent, charged=decision.charged, now=now)
        return txn.task(task.id) or after  # a refund may have brought it back
    return after


def lose(
    txn: Txn,
    holding: Holding,
    now: float,
    *,
    reason: str,
    message: str,
    agent_died: bool,
    roll: float,
    revoke: str = "",
) -> Task:
    """A holding is gone without a report: its lease passed, its session forgot it, it was never accepted, it hangs.

    `agent_died` counts towards poison; `revoke` tells the agent to stop, should it still be there. Raises Fenced
    when the holding is not good any more.
    """
    now_held = txn.task(holding.task)
    task = lifecycle.held(txn, holding, now_held.agent if now_held is not None else "")
    agent = task.agent
    failure = Failure(reason=reason, message=message, attribution=Attribution.AGENT if agent_died else Attribution.HUB)
    decision = retry.after_loss(task, agent, agent_died=agent_died, roll=roll)
    fields = lifecycle.end_attempt(txn, task, AttemptOutcome.LOST, now, failure=failure, revoke=revoke)
    if agent_died:
        task, failure = _death(txn, task, agent, decision, failure)
    return carry_out(txn, task, decision, failure, now, fields | {"reason": reason}, avoid=agent)


def carry_out(
    txn: Txn,
    task: Task,
    decision: retry.Decision,
    failure: Failure,
    now: float,
    fields: dict[str, str],
    *,
    avoid: str = "",
    wip_ref: str | None = None,
) -> Task:
    """Do with a held task what was decided."""
    attempts_used = task.attempts_used + decision.charged
    changes: dict[str, Any] = {
        "attempts_used": attempts_used,
        "failure": failure,
        "claimed": False,
        "wip_ref": task.wip_ref if wip_ref is None else wip_ref,
        "refused_by": _avoid(task, avoid),
    }
    why = failure.message or failure.reason
    start_at = now + decision.delay_s if decision.delay_s else None
    match decision.verb:
        case retry.Verb.KILL:
            told = fields | {"reason": decision.reason, "attribution": failure.attribution.name}
            dead = lifecycle.move(txn, task, Event.KILL, now, "task.dead", fields=told, reason=why, **changes)
            settle(txn, [dead], now)
            return dead
        case retry.Verb.PARK:
            return lifecycle.move(
                txn,
                task,
                Event.PARK,
                now,
                "task.parked",
                fields=fields | {"reason": decision.reason, "attribution": failure.attribution.name},
                reason=why,
                start_at=start_at,
                parks=task.parks + 1,
                releases=0,
                **changes,
            )
        case retry.Verb.RETRY:
            changes |= {"releases": 0, "parks": 0}
        case retry.Verb.RELEASE:
            changes |= {"releases": task.releases + 1}
    if start_at is not None:
        return lifecycle.move(
            txn, task, Event.RETRY_LATER, now, "task.scheduled", fields=fields, reason=why, start_at=start_at, **changes
        )
    if decision.verb is retry.Verb.RETRY:
        changes["queued_at"] = now  # behind what waits already: a retry never starves new work
    return lifecycle.move(txn, task, Event.RELEASE, now, "task.released", fields=fields, reason=why, **changes)


def _repeat(txn: Txn, holding: Holding, agent: str, outcome: AttemptOutcome) -> Task | None:
    """The task, when this very report was accepted before and only its ack was lost."""
    task = txn.task(holding.task)
    if task is None or (task.state in core.HELD and task.generation == holding.generation):
        return None
    attempt = txn.attempt(*holding)
    if attempt is None or attempt.agent != agent or attempt.outcome is not outcome:
        return None
    return task


def _afterword(txn: Txn, holding: Holding, agent: str, wip_ref: str) -> Task | None:
    """A stopped worker tells where it left its unfinished work: kept, as long as nobody was given the task since."""
    task = txn.task(holding.task)
    if task is None or task.generation != holding.generation or task.state in core.HELD:
        return None
    attempt = txn.attempt(*holding)
    if (
        attempt is None
        or attempt.agent != agent
        or attempt.outcome not in (AttemptOutcome.LOST, AttemptOutcome.REVOKED)
    ):
        return None
    if wip_ref and not attempt.wip_ref:
        txn.put_attempt(msgspec.structs.replace(attempt, wip_ref=wip_ref))
        after = msgspec.structs.replace(task, wip_ref=wip_ref, revision=task.revision + 1)
        txn.put_task(after, task)
        return after
    return task


def _unproven(txn: Txn, task: Task, result: Result) -> list[str]:
    lacks = []
    asked = task.kind is Kind.WORK and task.delivery is not Delivery.NONE and not result.already_done
    if asked and not (result.head_sha and result.branch):
        lacks.append("a change was asked for and none was pushed")
    if task.kind is Kind.MERGE and not result.merge_sha:
        lacks.append("a merge was asked for and no merged commit is named")
    if task.check_count:
        spec = txn.spec(task.id)
        assert spec is not None, task.id
        lacks += proof.missing(spec, result)
    return lacks


def _blame(txn: Txn, holding: Holding, agent: str, *, charged: bool, now: float) -> None:
    record = txn.agents.get(agent)
    if record is None:
        return
    after, refunds = blame.failed(record, holding, charged=charged, now=now)
    txn.agents.put(after)
    if after.isolated_until is not None and after.isolated_until != record.isolated_until:
        txn.append(now, "agent.isolated", f"agents/{agent}", until=f"{after.isolated_until:.3f}")
    for suspect in refunds:
        _refund(txn, suspect, agent, now)


def _refund(txn: Txn, holding: Holding, agent: str, now: float) -> None:
    task = txn.task(holding.task)
    if task is None or task.attempts_used == 0 or task.refunds >= blame.REFUNDS_MAX or task.state is State.SUCCEEDED:
        return
    attempt = txn.attempt(*holding)
    if attempt is None or not attempt.charged:
        return
    txn.put_attempt(msgspec.structs.replace(attempt, charged=False))
    after = msgspec.structs.replace(
        task, attempts_used=task.attempts_used - 1, refunds=task.refunds + 1, revision=task.revision + 1, updated_at=now
    )
    txn.put_task(after, task)
    txn.append(
        now, "task.refunded", f"tasks/{task.id}", goal=task.goal, agent=agent, generation=str(holding.generation)
    )
    if task.state is State.DEAD and task.attempts_used >= task.attempts_max and goals.may_revive(txn, task):
        # It died of this very attempt, which was not its fault.
        alive = lifecycle.move(txn, after, Event.REVIVE, now, "task.revived", ended_at=None)
        lifecycle.revive_dependants(txn, alive, now, "hub")
        if task.goal:
            goals.revive(txn, alive, now, "hub")


def _death(txn: Txn, task: Task, agent: str, decision: retry.Decision, failure: Failure) -> tuple[Task, Failure]:
    """Count an agent that died with the task, and say so in the failure when that was one too many."""
    if agent not in task.killed_agents:
        before = task
        task = msgspec.structs.replace(before, killed_agents=(*before.killed_agents, agent))
        txn.put_task(task, before)
    if decision.verb is retry.Verb.KILL:
        told = f"it was lost with {len(task.killed_agents)} different agents, last: {failure.message}"
        failure = msgspec.structs.replace(failure, reason=decision.reason, message=told)
    return task, failure


def _avoid(task: Task, agent: str) -> tuple[str, ...]:
    if not agent or agent in task.refused_by:
        return task.refused_by
    return (*task.refused_by, agent)[-REFUSERS_MAX:]


def _keep(txn: Txn, task: Task, artifacts: Mapping[str, bytes]) -> None:
    for id, content in artifacts.items():
        txn.put_artifact(task.id, task.generation, id, content)


def _holder(task: Task) -> dict[str, str]:
    return {"agent": task.agent, "generation": str(task.generation)}
