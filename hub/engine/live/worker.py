"""Applies what sidecars report: each batch of reports is one write, which also gives out the next work for the slots it
frees.

Reports of one stream are applied in their order. What waits in the queue of a stream is taken together: the reports of
a busy sidecar share a transaction, and with it the fsync, the ack and the search for new work. A report of an old
generation is refused by the fence inside the transaction, before it writes anything, and answered with a revocation.
Any other failure rolls the whole batch back; its reports are then applied one by one, and the one at fault is turned
into a failure of its holding, because a report that can never be applied would otherwise come back for ever.

The ack follows the commit. When the store takes nothing (full, closing), nothing is acked and the stream ends: the
sidecar keeps its reports and brings them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, assert_never

from hub.core import attach, blame
from hub.core.holding import Holding
from hub.core.task import HELD, Attribution, Failure, Receipt, State, Task
from hub.engine.live import dispatch
from hub.engine.live.context import Context
from hub.engine.live.dispatch import Dispatcher
from hub.engine.live.session import Sequenced, Stream
from hub.engine.live.sessions import Sessions
from hub.engine.script import work
from hub.store.base import Txn
from kit import errors, logs, tracing

log = logs.get(__name__)

GOOD: Final = frozenset({State.SUCCEEDED, State.MERGING})
"""Where an accepted completion leaves a task."""

BATCH_MAX: Final = 32
"""Reports applied in one write: a few milliseconds of the writer, which others wait for."""


class Applied(NamedTuple):
    """What became of a batch."""

    fenced: tuple[Holding, ...]
    completed: int
    failed: int
    """Failures charged to their tasks."""
    taken: dispatch.Taken
    receipts: tuple[tuple[Receipt, Holding], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that a transaction over reports needs to know."""

    agent: str
    reports: tuple[attach.Report, ...]
    plan: dispatch.Plan | None
    now: float
    roll: float
    age_step_s: float


class Worker:
    """Applies reports."""

    def __init__(self, ctx: Context, dispatcher: Dispatcher, sessions: Sessions) -> None:
        self._ctx = ctx
        self._dispatcher = dispatcher
        self._sessions = sessions

    async def pump(self, stream: Stream) -> None:
        """Apply what comes up on a stream until it says no more; goodbye is the last word."""
        ended = False
        while not ended:
            batch: list[Sequenced] = []
            message = await stream.reports.get()
            while message is not None:
                batch.append(message)
                if len(batch) >= BATCH_MAX or stream.reports.empty():
                    break
                message = stream.reports.get_nowait()
            ended = message is None
            if batch:
                ended = not await self._apply(stream, batch) or ended
        stream.end()

    async def _apply(self, stream: Stream, batch: Sequence[Sequenced]) -> bool:
        """Apply what came and let it be acked; False: that was the last word.

        Nothing is acked once the store takes nothing more: the sidecar keeps what it has to say for the hub that comes
        after this one, and the stream stays, so that what runs goes on.
        """
        leaving = any(isinstance(message.body, attach.Goodbye) for message in batch)
        gate = self._ctx.gate
        if not gate.degraded:
            try:
                await self._take_in(stream, batch)
                return True
            except Exception:
                if not gate.degraded:
                    raise
        log.warning("reports.kept_back", agent=stream.session.agent, count=len(batch))
        return not leaving

    async def _take_in(self, stream: Stream, batch: Sequence[Sequenced]) -> None:
        reports = tuple([message.body for message in batch if isinstance(message.body, attach.Report)])
        if reports:
            await self._reports(stream, reports)
        for message in batch:
            if isinstance(message.body, attach.Goodbye):
                await self._sessions.leave(stream.session, message.body.reason)
                stream.left = True
        stream.session.applied(stream, batch)

    async def _reports(self, stream: Stream, reports: tuple[attach.Report, ...]) -> None:
        batch = self._batch(stream, reports)
        try:
            await self._write(stream, batch)
        except (errors.Exhausted, errors.Unavailable) as problem:
            self._sessions.not_now(problem)
            raise
        except Exception as error:
            if self._ctx.gate.degraded:
                raise  # no report is to blame
            if len(reports) == 1:
                await self._refuse(stream, batch, error)
                return
            for report in reports:
                await self._reports(stream, (report,))

    async def _write(self, stream: Stream, batch: Batch) -> None:
        applied = await self._ctx.store.write(lambda txn: apply(txn, batch), essential=True)
        self._dispatcher.settle(applied.taken)
        figures = self._ctx.figures
        for holding in applied.fenced:
            figures.fenced += 1
            stream.session.say(attach.Revoke(holding, "FENCED", "it was given to somebody else, or ended, meanwhile"))
        figures.completed += applied.completed
        figures.failed += applied.failed
        if figures.on_receipts is not None:
            figures.on_receipts(applied.receipts)

    def _about(self, holding: Holding) -> dict[str, object]:
        """What a record of the log says of a holding: all that is known of it."""
        about: dict[str, object] = {"task": holding.task, "generation": holding.generation}
        task = self._ctx.store.read(lambda reader: reader.task(holding.task))
        if task is None:
            return about
        if self._sessions.trace is not None:
            about |= tracing.told(tracing.parse(self._sessions.trace(task)))
        return {**about, "goal": task.goal} if task.goal else about

    async def _refuse(self, stream: Stream, batch: Batch, error: Exception) -> None:
        report = batch.reports[0]
        log.error("report.refused", **self._about(report.holding), error=str(error), exc_info=error)
        message = f"the hub could not take the report in: {error}"
        failure = Failure(reason="REPORT_REFUSED", message=message[:1024], attribution=Attribution.HUB)
        failed = attach.Report(report.holding, attach.Failed(failure=failure))
        await self._write(stream, self._batch(stream, (failed,)))

    def _batch(self, stream: Stream, reports: tuple[attach.Report, ...]) -> Batch:
        seat, ctx = stream.session.seat, self._ctx
        freed = sum(not isinstance(report.outcome, attach.Accepted) for report in reports)
        return Batch(
            agent=seat.agent,
            reports=reports,
            plan=self._dispatcher.prospects(seat, freed) if freed else None,
            now=ctx.clock.now(),
            roll=ctx.rng.random(),
            age_step_s=ctx.settings.age_step_s,
        )


def apply(txn: Txn, batch: Batch) -> Applied:
    """Apply reports in their order, then give the slots that they freed their next tasks."""
    fenced: list[Holding] = []
    freed = completed = failed = 0
    blamed = False
    receipts: list[tuple[Receipt, Holding]] = []
    for report in batch.reports:
        before = txn.task(report.holding.task)
        try:
            after = _report(txn, report, batch)
            if before is None or (before.agent, before.generation) != (batch.agent, report.holding.generation):
                continue  # said twice: it has freed its slot before
            receipts += [(one, report.holding) for one in _receipts(report)]
            freed += after.state not in HELD
            is_done = isinstance(report.outcome, attach.Completed) and after.state in GOOD
            completed += is_done
            failed += after.attempts_used > before.attempts_used
            blamed |= not is_done and not isinstance(report.outcome, attach.Accepted)
        except errors.Fenced as problem:
            fenced.append(report.holding)
            fields = {"generation": str(report.holding.generation), "state": problem.metadata.get("state", "")}
            txn.append(
                batch.now, "task.fenced", f"tasks/{report.holding.task}", actor=f"agents/{batch.agent}", **fields
            )
    taken = dispatch.NOTHING
    if batch.plan is not None and freed and not (blamed and _isolated(txn, batch)):
        idle = batch.plan.idle[0]
        plan = batch.plan._replace(idle=(idle._replace(slots=min(idle.slots, freed)),))
        taken = dispatch.take(txn, plan, batch.now, batch.age_step_s)
    return Applied(tuple(fenced), completed, failed, taken, tuple(receipts))


def _receipts(report: attach.Report) -> tuple[Receipt, ...]:
    match report.outcome:
        case attach.Completed(result):
            return result.receipts
        case attach.Failed() as failed:
            return failed.receipts
        case _:
            return ()


def _isolated(txn: Txn, batch: Batch) -> bool:
    """Did these very reports isolate the agent? Its slots look free to the plan, which was made before."""
    agent = txn.agents.get(batch.agent)
    return agent is not None and blame.isolated(agent, batch.now)


def _report(txn: Txn, report: attach.Report, batch: Batch) -> Task:
    """Apply one; its task after it. Raises Fenced before it writes anything."""
    now, agent, holding, roll = batch.now, batch.agent, report.holding, batch.roll
    match report.outcome:
        case attach.Accepted():
            return work.accept(txn, holding, agent, now)
        case attach.Rejected(reason, message):
            return work.reject(txn, holding, agent, reason, message, now, roll=roll)
        case attach.Completed(result, artifacts):
            return work.complete(txn, holding, agent, result, artifacts, now, roll=roll)
        case attach.Failed() as failed:
            return work.fail(
                txn,
                holding,
                agent,
                failed.failure,
                now,
                receipts=failed.receipts,
                infos=failed.infos,
                artifacts=failed.artifacts,
                wip_ref=failed.wip_ref,
                stopped=failed.stopped,
                roll=roll,
            )
        case _:
            assert_never(report.outcome)
