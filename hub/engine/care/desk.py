"""The care of the store, as people ask for it and as the schedule has it: backups, audits, compaction; one at a time.

What an audit finds in the hub's own store closes it for writing, like damage that a read meets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from hub.core.alerts import facts as alert_facts
from hub.core.backup import Backup, Trigger
from hub.core.diagnosis import Diagnosis, Findings
from hub.engine.live.context import Context
from kit import errors, logs

log = logs.get(__name__)

BUSY_RETRY_S: Final = 10.0

FIRST_S: Final = 300.0
"""A hub that has just started has better things to do than to copy its store."""

LOOK_S: Final = 60.0
"""How often the schedule is looked at: an interval is kept to the minute."""


class Room(Protocol):
    """How much there is left."""

    @property
    def used_bytes(self) -> int: ...
    @property
    def size_max_bytes(self) -> int: ...
    @property
    def disk_free_bytes(self) -> int: ...
    @property
    def disk_reserve_bytes(self) -> int: ...


class Policy(Protocol):
    """When backups are made."""

    @property
    def every_s(self) -> float: ...


class Keeper(Protocol):
    """Who does the work; a store in memory has none."""

    @property
    def policy(self) -> Policy: ...

    def backups(self) -> list[Backup]:
        """All of them, newest first."""

    def newest_good(self) -> Backup | None:
        """The one to restore."""

    async def backup(self, id: str, now: float, trigger: Trigger) -> Backup:
        """Make one, then let the old ones go."""

    async def verify(self, backup: str, now: float) -> Findings:
        """Read a backup through, or the store (empty)."""

    async def compact(self) -> tuple[int, int]:
        """Give free pages back to the disk; sizes before and after."""

    def room(self) -> Room | None:
        """How much there is left; None when the store is not open."""

    async def diagnose(self) -> list[Diagnosis]:
        """The room, the disk and the snapshots."""

    def remedy(self, position: int) -> str:
        """How the newest good backup is restored, in a sentence."""


class Care:
    """Looks after the store of one hub."""

    def __init__(self, ctx: Context, keeper: Keeper | None, *, found: Callable[[str], None]) -> None:
        """`found` is told of damage."""
        self._ctx = ctx
        self._keeper = keeper
        self._found = found
        self._doing = ""
        self._failure = ""
        self.started_at = ctx.clock.now()
        self._started = ctx.clock.monotonic()

    async def run_once(self, now: float) -> None:
        """Make a backup when one is due."""
        if not self._due(now):
            return
        try:
            await self.backup(Trigger.SCHEDULE)
        except errors.Problem as problem:  # an alert tells of it; the next look tries again
            log.warning("backup.failed", reason=problem.reason, problem=problem.message)

    async def backup(self, trigger: Trigger) -> Backup:
        """Make a backup. Raises a Problem, with nothing left of it."""
        keeper, ctx = self._work("a backup"), self._ctx
        if ctx.gate.degraded:
            raise errors.IllegalState(
                f"the store is damaged, and so would be its copy: {ctx.gate.damage}",
                state="DEGRADED",
                reason="STORE_DEGRADED",
            )
        now = ctx.clock.now()
        with self._alone("a backup is being made"):
            try:
                made = await keeper.backup(ctx.ids.new(now), now, trigger)
            except errors.Problem as problem:
                self._failure = problem.message
                if isinstance(problem, errors.DataLoss):
                    self._found(problem.message)
                raise
        self._failure = ""
        return made

    def backups(self, *, after: str, limit: int) -> tuple[list[Backup], str]:
        """A page of them, newest first, and where the next one begins; empty at the end."""
        found = [one for one in self._all() if not after or one.id < after]
        return found[:limit], found[limit - 1].id if len(found) > limit else ""

    async def verify(self, backup: str) -> Findings:
        """Read a backup through, or the store (empty): nothing is changed by it but what is known of them."""
        keeper = self._work("an audit")
        with self._alone("the store is being read through"):
            found = await keeper.verify(backup, self._ctx.clock.now())
        if found.problems and not backup:
            self._found(found.problems[0])
        return found

    async def compact(self) -> tuple[int, int]:
        """Give free pages back to the disk; sizes before and after."""
        keeper, gate = self._work("a compaction"), self._ctx.gate
        if gate.degraded:
            raise errors.IllegalState(
                f"a damaged store is not written anew: {gate.damage}", state="DEGRADED", reason="STORE_DEGRADED"
            )
        with self._alone("the store is being written anew"):
            before, after = await keeper.compact()
        log.info("store.compacted", before_bytes=before, after_bytes=after)
        return before, after

    async def diagnose(self) -> list[Diagnosis]:
        """What its keeper finds; nothing of a store in memory."""
        return [] if self._keeper is None else await self._keeper.diagnose()

    @property
    def durable(self) -> bool:
        """Is the store on a disk?"""
        return self._keeper is not None

    @property
    def every_s(self) -> float:
        """The interval of the schedule; 0: there is none."""
        return 0.0 if self._keeper is None else self._keeper.policy.every_s

    def newest_good(self) -> Backup | None:
        """The one to restore."""
        return None if self._keeper is None else self._keeper.newest_good()

    def all(self) -> list[Backup]:
        """All backups, newest first."""
        return self._all()

    def remedy(self) -> str:
        """How the newest good backup is restored, in a sentence."""
        if self._keeper is None:
            return "the store was in memory"
        return self._keeper.remedy(self._ctx.bus.position)

    def drift_s(self, now: float) -> float:
        """By how much the date was set since the start."""
        return (now - self.started_at) - (self._ctx.clock.monotonic() - self._started)

    def facts(self, now: float, late_loops: tuple[str, ...]) -> alert_facts.Facts:
        """What alerts are derived from."""
        gate, newest = self._ctx.gate, self.newest_good()
        room = self._keeper.room() if self._keeper is not None else None
        facts = alert_facts.Facts(
            now=now,
            degraded=gate.damage,
            remedy=self.remedy() if gate.degraded else "",
            durable=self.durable,
            backup_every_s=self.every_s,
            backup_failure=self._failure,
            backup_newest_at=newest.created_at if newest is not None else None,
            started_at=self.started_at,
            late_loops=late_loops,
        )
        if room is None:
            return facts
        return facts._replace(
            used_bytes=room.used_bytes,
            size_max_bytes=room.size_max_bytes,
            disk_free_bytes=room.disk_free_bytes,
            disk_reserve_bytes=room.disk_reserve_bytes,
        )

    def _due(self, now: float) -> bool:
        if not self.every_s or self._doing or self._ctx.gate.degraded:
            return False
        newest = self.newest_good()
        if self._ctx.clock.monotonic() - self._started < min(FIRST_S, self.every_s):
            return False
        # One from the future was made before the clock was set back.
        return newest is None or not 0 <= now - newest.created_at < self.every_s

    def _all(self) -> list[Backup]:
        return [] if self._keeper is None else self._keeper.backups()

    def _work(self, what: str) -> Keeper:
        if self._keeper is None:
            raise errors.IllegalState(
                f"the store is in memory: there is nothing for {what}", state="MEMORY", reason="STORE_MEMORY"
            )
        return self._keeper

    @contextlib.contextmanager
    def _alone(self, doing: str) -> Iterator[None]:
        """Each of these reads or writes the whole store: two at once would only be slower."""
        if self._doing:
            raise errors.Unavailable(f"{self._doing} right now", reason="CARE_BUSY", retry_delay_s=BUSY_RETRY_S)
        self._doing = doing
        try:
            yield
        finally:
            self._doing = ""
