"""The doctor: looks at everything that the hub needs, and says what each came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hub.core import diagnosis
from hub.core.diagnosis import Diagnosis, Findings, Verdict
from hub.engine.care.desk import Care
from hub.engine.live.context import Context
from kit import errors

WHOLE_BYTES_MAX: Final = 256 << 20
"""A store up to this size is read through, in a few seconds; of a larger one the newest events are."""

TAIL_EVENTS: Final = 2_000
"""Newest events whose chain is checked in a larger store: some milliseconds of the event loop."""


class Doctor:
    """Examines one hub."""

    def __init__(
        self, ctx: Context, care: Care, *, late: Callable[[float], Sequence[str]], oddities: Callable[[], list[str]]
    ) -> None:
        self._ctx = ctx
        self._care = care
        self._late = late
        self._oddities = oddities
        #: How far the clocks of the connected sidecars are ahead, by agent; set where the sessions are made.
        self.agent_clocks: Callable[[], Mapping[str, float]] = dict

    async def examine(self) -> list[Diagnosis]:
        """Everything, one after the other; what cannot be looked at says so."""
        now = self._ctx.clock.now()
        found = [await self._store()]
        found += await self._care.diagnose()
        found.append(self._clock(now))
        found.append(diagnosis.of_agent_clocks(self.agent_clocks()))
        found.append(diagnosis.of_configuration(self._oddities()))
        if self._care.durable:
            found.append(diagnosis.of_backups(self._care.all(), now, self._care.every_s, self._care.started_at))
        found.append(diagnosis.of_loops(self._late(now)))
        return found

    async def _store(self) -> Diagnosis:
        gate, care = self._ctx.gate, self._care
        if gate.degraded:
            return Diagnosis("store.records", Verdict.FAILED, gate.damage, care.remedy())
        small = self._ctx.store.facts().used_bytes <= WHOLE_BYTES_MAX
        try:
            if care.durable and small:
                found = await care.verify("")
                return diagnosis.of_store(found, remedy=care.remedy() if found.problems else "")
            began = self._ctx.clock.monotonic()
            position = self._ctx.bus.position
            self._ctx.store.verify_chain(max(0, position - TAIL_EVENTS), TAIL_EVENTS)
            took_ms = (self._ctx.clock.monotonic() - began) * 1000
            text = f"the newest {min(position, TAIL_EVENTS)} events are good ({took_ms:.0f} ms)"
            return Diagnosis("store.chain", Verdict.OK, text, "" if small else "read it all with `agentcom hub verify`")
        except errors.DataLoss as problem:
            return diagnosis.of_store(Findings(problems=(problem.message,)), remedy=care.remedy())
        except errors.Problem as problem:
            return Diagnosis("store.records", Verdict.UNKNOWN, problem.message, "ask again later")

    def _clock(self, now: float) -> Diagnosis:
        try:
            newest = self._ctx.store.read(lambda reader: reader.events(after=max(0, reader.position() - 1), limit=1))
        except errors.Problem:
            newest = []
        return diagnosis.of_clock(now, newest[0].at if newest else None, self._care.drift_s(now))
