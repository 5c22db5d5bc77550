"""Goals come in, by RPC and from the watched folder: linted, refused with every reason, or filed in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from hub.core import plan as plans
from hub.core import task as tasks
from hub.core.goal import Goal, PlanTask, State
from hub.engine.desk import hubstate
from hub.engine.live.context import Context
from hub.engine.script import goals, requests, steering
from hub.store.base import Reader, Txn
from kit import errors

FULL_RETRY_S: Final = 10.0
"""A full queue drains by thousands in this time."""


Locate = Callable[[errors.Violation], errors.Violation]
"""Puts a violation of a goal's field into terms of where the goal came from, such as a line of a file."""


def in_request(violation: errors.Violation) -> errors.Violation:
    """Where it is in the request that carries the goal."""
    return errors.Violation(f"goal.{violation.field}", violation.description, violation.rule)


class Draft(NamedTuple):
    """A goal as somebody wants it; `tasks` None: it brings no plan."""

    goal: Goal
    tasks: tuple[PlanTask, ...] | None
    locate: Locate = in_request


class Filed(NamedTuple):
    """A goal as it is now, and what the linter warned of."""

    goal: Goal
    findings: list[plans.Finding]


class Filing:
    """Takes goals in."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def lint(self, draft: Draft) -> list[plans.Finding]:
        """What is wrong with a draft's plan; that there is none is wrong, too."""
        return plans.lint(draft.goal.assertions, draft.tasks or (), self._ctx.clock.now())

    def check(self, draft: Draft) -> Filed:
        """Everything that `create` would refuse, without filing anything."""
        findings = self._accept(draft)
        self._ctx.store.read(lambda reader: goals.check_repo(reader, draft.goal))
        planned = State.AWAITING_PLAN if draft.tasks is None else State.ACTIVE
        return Filed(msgspec.structs.replace(draft.goal, state=planned, task_total=len(draft.tasks or ())), findings)

    async def create(self, draft: Draft, request: requests.Request) -> Filed:
        """File a goal; durable when this returns. A repeat of the request gives the goal that it made, as it is now."""
        ctx = self._ctx
        findings = self._accept(draft)
        now = ctx.clock.now()
        goal = msgspec.structs.replace(draft.goal, id=ctx.ids.new(now))
        expires_at = now + ctx.settings.request_window_s

        def write(txn: Txn) -> Goal:
            known = requests.answered(txn, request, now)
            if known is not None:
                return steering.found(txn, known.removeprefix("goals/"))
            self._check_room(txn, len(draft.tasks or ()))
            filed = goals.create(txn, goal, draft.tasks, now, actor=request.principal)
            requests.remember(txn, request, f"goals/{filed.id}", expires_at)
            return filed

        return Filed(await ctx.store.write(write), findings)

    def _accept(self, draft: Draft) -> list[plans.Finding]:
        """The warnings. Raises Invalid, with a violation for each error of the linter."""
        hubstate.refuse_when_draining(self._ctx)
        violations = []
        if not draft.goal.title.strip():
            violations.append(errors.Violation("title", "must not be blank", "BLANK"))
        if draft.tasks is None:
            findings = plans.lint_statement(draft.goal.assertions)
        else:
            findings = self.lint(draft)
        violations += [
            errors.Violation(path(finding), finding.message, finding.rule) for finding in plans.errors_of(findings)
        ]
        if violations:
            raise errors.Invalid(
                violations=map(draft.locate, violations), reason="PLAN_REFUSED" if draft.tasks is not None else None
            )
        return findings

    def _check_room(self, reader: Reader, count: int) -> None:
        limit = self._ctx.settings.queue_max
        waiting = sum(n for (state, _), n in reader.counts().items() if state in tasks.WAITING)
        if waiting + count > limit:
            raise errors.Exhausted(
                f"{waiting} tasks wait, and the bound is {limit}",
                reason="QUEUE_FULL",
                metadata={"waiting": waiting, "limit": limit},
                retry_delay_s=FULL_RETRY_S,
            )


def path(finding: plans.Finding) -> str:
    """Where a finding is in the goal."""
    return f"plan.{finding.field}" if finding.field.startswith("tasks") else finding.field
