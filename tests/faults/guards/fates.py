"""Guards of the hub that decide what becomes of tasks and agents, taken out."""

from __future__ import annotations

from typing import Any

from tests.faults.patching import patch


def attribution_off() -> None:
    """Every failure and every loss costs the task an attempt."""
    from hub.core import retry

    for name in ("after_failure", "after_loss"):
        real = getattr(retry, name)

        def charged(*words: Any, _real: Any = real, **more: Any) -> Any:
            return _real(*words, **more)._replace(charged=True)

        patch(retry, name, charged)


def poison_off() -> None:
    """No task is ever found to kill its agents."""
    from hub.core import retry

    patch(retry, "POISON_AGENTS", 10**9)


def isolation_off() -> None:
    """No agent is ever found to fail everything."""
    from hub.core import blame

    patch(blame, "FAILURES_IN_ROW", 10**9)


def refunds_off() -> None:
    """Nothing is given back when an agent is isolated."""
    from hub.core import blame

    patch(blame, "REFUNDS_MAX", 0)


def readoption_off() -> None:
    """What an agent brings along is not taken over."""
    from hub.engine.script import attaching

    real = attaching.enter

    def enter(txn: Any, entry: Any, now: float, *, roll: float) -> Any:
        import msgspec

        return real(txn, entry._replace(hello=msgspec.structs.replace(entry.hello, holdings=())), now, roll=roll)

    patch(attaching, "enter", enter)


def start_grace_off() -> None:
    """A hub that has just started counts the silence of its agents from before its start."""
    from hub.engine.live.silence import Silence

    real = Silence.__init__

    def init(self: Any, *words: Any, **more: Any) -> None:
        real(self, *words, **more)
        self._patient_from = float("-inf")

    patch(Silence, "__init__", init)


def lanes_off() -> None:
    """First come, first served, whatever the lane."""
    from hub.core import lane

    patch(lane, "rank", lambda lane, queued_at, age_step_s: queued_at)


def ageing_off() -> None:
    """Strictly by lane, however long something waits."""
    from hub.core import lane

    never_s = 1e8
    patch(lane, "rank", lambda lane, queued_at, age_step_s: queued_at + lane * never_s)


def hub_drain_off() -> None:
    """A draining hub takes everything."""
    from hub.engine.desk import hubstate

    patch(hubstate, "refuse_when_draining", lambda ctx: None)


def streams_stay() -> None:
    """Asked to end, it waits for its streams and tells none of them; nor does it cut them, nor is it ever cancelled."""
    from hub import app
    from kit import signals

    async def end(self: Any, loops: Any) -> None:
        import asyncio

        await asyncio.Event().wait()

    patch(app.Hub, "_end", end)
    patch(signals.Shutdown, "_cancel", lambda self, cause: None)


GUARDS = {
    "attribution_off": attribution_off,
    "poison_off": poison_off,
    "isolation_off": isolation_off,
    "refunds_off": refunds_off,
    "readoption_off": readoption_off,
    "start_grace_off": start_grace_off,
    "lanes_off": lanes_off,
    "ageing_off": ageing_off,
    "hub_drain_off": hub_drain_off,
    "streams_stay": streams_stay,
}
