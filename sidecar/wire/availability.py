"""Connected is not available: the self-test at the start and every five minutes decides whether work is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kit import clock, logs
from sidecar.core.selftest import Finding, SelfTest

log = logs.get(__name__)

EVERY_S = 300.0
#: It makes a commit and asks each executor for a word; what takes longer is as good as broken.
LIMIT_S = 120.0


class Availability:
    """The newest self-test, and whether the hub knows it."""

    def __init__(self, self_test: Callable[[], Awaitable[SelfTest]], time: clock.Clock) -> None:
        self._self_test = self_test
        self._time = time
        #: None: none has ended yet.
        self.newest: SelfTest | None = None
        self._told: SelfTest | None = None

    async def run_once(self, _now: float) -> bool:
        """Try everything; True when there is something new to tell. A self-test that fails to run has failed."""
        before = self.newest
        try:
            async with asyncio.timeout(LIMIT_S):
                self.newest = await self._self_test()
        except Exception as error:
            message = f"it did not end within {LIMIT_S:g} s" if isinstance(error, TimeoutError) else f"crashed: {error}"
            finding = Finding(probe="self_test", passed=False, message=message)
            self.newest = SelfTest.of((finding,), ended_at=self._time.now())
        failed = [f"{finding.probe}: {finding.message}" for finding in self.newest.findings if not finding.passed]
        if failed:
            log.error("sidecar.unavailable", findings=failed)
        elif before is None or not before.passed:
            log.info("sidecar.available")
        # The time of the newest is told with it, but alone it is worth no message out of turn.
        return before is None or (before.passed, before.findings) != (self.newest.passed, self.newest.findings)

    def tell_always(self) -> SelfTest | None:
        """For hello: the newest, told from now on."""
        self._told = self.newest
        return self.newest

    def tell_news(self) -> SelfTest | None:
        """For a heartbeat: the newest when it was not told yet."""
        return None if self.newest is self._told else self.tell_always()
