"""The board of alerts: looked at every few seconds; its changes go to the log and the event log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hub.core import alert
from hub.core.alert import Alert, Facts
from hub.engine.live.context import Context
from hub.store.base import Txn
from kit import errors, logs

log = logs.get(__name__)

LOOK_S: Final = 15.0
"""A person need not know sooner; damage wakes the board at once."""


UNTOLD_MAX: Final = 100
"""Changes kept for the event log while it cannot be written."""


class Board:
    """What a person should look at now."""

    def __init__(self, ctx: Context, look: Callable[[float], Facts]) -> None:
        self._ctx = ctx
        self._look = look
        self._alerts: list[Alert] = []
        #: What the last look was given; None before the first.
        self.facts: Facts | None = None
        #: Raised or ended, and not in the event log yet.
        self._untold: list[tuple[str, Alert]] = []
        self.wake = asyncio.Event()

    async def run_once(self, now: float) -> None:
        """Look, and tell what has changed."""
        self.look(now)
        if not self._untold or self._ctx.gate.degraded:
            return
        told, self._untold = self._untold, []

        def write(txn: Txn) -> None:
            for type, one in told:
                fields = {"severity": one.severity.name, "message": one.message}
                txn.append(now, type, f"alerts/{one.id}", **fields)

        try:
            await self._ctx.store.write(write, essential=True)
        except errors.Problem as problem:
            self._untold = told + self._untold
            if not isinstance(problem, errors.Exhausted | errors.Unavailable):
                raise
            # That the disk is full is one of the things to tell: later.

    def look(self, now: float) -> list[Alert]:
        """What is the matter as of now, the most urgent first."""
        before = {one.id: one for one in self._alerts}
        self.facts = self._look(now)
        self._alerts = alert.merge(self._alerts, alert.derive(self.facts))
        after = {one.id: one for one in self._alerts}
        for id, one in after.items():
            if id not in before:
                log.warning("alert.raised", alert=id, severity=one.severity.name, message=one.message)
                self._untold.append(("alert.raised", one))
        for id, one in before.items():
            if id not in after:
                log.info("alert.cleared", alert=id)
                self._untold.append(("alert.cleared", one))
        del self._untold[:-UNTOLD_MAX]
        return self._alerts

    @property
    def alerts(self) -> list[Alert]:
        """As of the last look."""
        return self._alerts
