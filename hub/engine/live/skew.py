"""Sidecars of other versions: one that is too far from the hub's is refused, and everybody can see why.

The refusal is written down once for each agent and version (its record shows the version, its history the sentence),
and again when the hub was started anew; the sidecar comes back every half minute, which costs one read.
"""

from __future__ import annotations

import msgspec

from hub.core import attach
from hub.engine.live.context import Context
from hub.store.base import Txn
from kit import errors, logs, version

log = logs.get(__name__)

HUB = version.Node("hub", version.VERSION)


class Gatekeeper:
    """Looks at the version in each hello."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        #: The version that was refused last, by agent; bounded by the agents that there are.
        self._refused: dict[str, str] = {}

    async def admit(self, hello: attach.Hello) -> None:
        """Raise IllegalState when the sidecar's version is too far from ours. Its agent is known to exist."""
        sidecar = version.Node("sidecar", hello.version)
        try:
            version.admit(HUB, sidecar)
        except errors.IllegalState as problem:
            if self._refused.get(hello.agent) != hello.version:
                await self._note(hello, problem.message)
            raise
        self._refused.pop(hello.agent, None)

    async def _note(self, hello: attach.Hello, message: str) -> None:
        now = self._ctx.clock.now()
        await self._ctx.store.write(lambda txn: _note(txn, hello, message, now))
        log.warning("agent.refused", agent=hello.agent, version=hello.version, problem=message)
        self._refused[hello.agent] = hello.version


def warning(sidecar: str) -> str:
    """One sentence about a sidecar's version beside the hub's; empty: there is nothing to say."""
    return version.warning(HUB, version.Node("sidecar", sidecar))


def is_refused(sidecar: str) -> bool:
    """Is a sidecar of this version refused?"""
    return version.skew(HUB.version, sidecar) is version.Skew.FAR


def _note(txn: Txn, hello: attach.Hello, message: str, now: float) -> None:
    agent = txn.agents.get(hello.agent)
    if agent is None:
        return  # deleted meanwhile
    after = msgspec.structs.replace(agent, version=hello.version, host=hello.host, revision=agent.revision + 1)
    txn.agents.put(after)
    txn.append(now, "agent.refused", f"agents/{hello.agent}", version=hello.version, host=hello.host, message=message)
