"""What people ask about alerts and do to them: each verb is one transaction, and in force when it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from hub.core.alerts import alert
from hub.core.alerts import rule as alert_rule
from hub.core.alerts.alert import Alert, Mute
from hub.core.alerts.rule import Rule, Setting
from hub.engine.alerts.board import Board
from hub.engine.live.context import Context
from hub.engine.script import alerting
from hub.store.base import Txn
from kit import errors

T = TypeVar("T")


class Shown(NamedTuple):
    """An alert as callers see it."""

    alert: Alert
    mute: Mute | None


class ShownRule(NamedTuple):
    """A rule as callers see it."""

    rule: Rule
    setting: Setting
    revision: int
    updated_at: float | None
    mute: Mute | None
    alert_count: int


class AlertDesk:
    """The alerts and their rules, as callers see them."""

    def __init__(self, ctx: Context, board: Board) -> None:
        self._ctx = ctx
        self._board = board

    def alerts(self) -> Sequence[Shown]:
        """What is raised, the most urgent first."""
        by_target = self._mutes()
        return [self._shown(one, by_target) for one in self._board.alerts]

    def mutes(self) -> Sequence[Mute]:
        """Those in force, in the order of their ends."""
        return self._board.mutes(self._ctx.clock.now())

    def rules(self) -> Sequence[ShownRule]:
        """The whole catalogue."""
        return [self._rule(rule) for rule in alert_rule.CATALOGUE]

    async def ack(self, id: str, note: str, *, actor: str) -> Shown:
        """Say that a person looks after an alert. Raises NotFound for one that is not raised."""
        one = next((known for known in self._board.alerts if known.id == id), None)
        if one is None:
            name = f"{alert.COLLECTION}/{id}"
            raise errors.NotFound(f"{name} is not raised", reason="ALERT_NOT_FOUND", metadata={"name": name})
        raised, now = frozenset(known.id for known in self._board.alerts), self._ctx.clock.now()
        made = await self._write(lambda txn: alerting.ack(txn, one, note, now, actor=actor, raised=raised))
        return self._shown(msgspec.structs.replace(one, ack=made), self._mutes())

    async def mute(self, target: str, duration_s: float, reason: str, *, actor: str) -> Mute:
        """Tell nobody of an alert, or of a rule, for a time."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: alerting.mute(txn, target, duration_s, reason, now, actor=actor))

    async def unmute(self, target: str, *, actor: str) -> Mute:
        """End a mute before its time."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: alerting.unmute(txn, target, now, actor=actor))

    async def update_rule(
        self, rule_id: str, wanted: Mapping[str, Any], mask: Iterable[str], *, actor: str, etag: str
    ) -> ShownRule:
        """Set some of the fields of a rule."""
        now, paths = self._ctx.clock.now(), list(mask)
        await self._write(lambda txn: alerting.edit(txn, rule_id, wanted, paths, now, actor=actor, etag=etag))
        return self._rule(alert_rule.found(rule_id))

    async def reset_rule(self, rule_id: str, *, actor: str, etag: str) -> ShownRule:
        """Give a rule its defaults back."""
        now = self._ctx.clock.now()
        await self._write(lambda txn: alerting.reset(txn, rule_id, now, actor=actor, etag=etag))
        return self._rule(alert_rule.found(rule_id))

    async def _write(self, verb: Callable[[Txn], T]) -> T:
        made = await self._ctx.store.write(verb, essential=True)
        self._board.reload()
        await self._board.run_once(self._ctx.clock.now())  # what was said is in force when the caller is answered
        return made

    def _mutes(self) -> dict[str, Mute]:
        return {one.target: one for one in self.mutes()}

    def _shown(self, one: Alert, by_target: Mapping[str, Mute]) -> Shown:
        """With its own mute, or else with that of its rule."""
        found = (by_target[target] for target in alert.targets(one.id) if target in by_target)
        return Shown(one, next(found, None))

    def _rule(self, rule: Rule) -> ShownRule:
        edited = self._board.said.edited.get(rule.id)
        return ShownRule(
            rule=rule,
            setting=alert_rule.in_force(rule, edited),
            revision=alert_rule.revision(edited),
            updated_at=edited.updated_at if edited is not None and edited.setting is not None else None,
            mute=self._mutes().get(rule.name),
            alert_count=sum(one.rule == rule.id for one in self._board.alerts),
        )
