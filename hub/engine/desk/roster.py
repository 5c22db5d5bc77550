"""The agents, as callers see them: the record in the store, and what the fleet and the sessions know of it now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from hub.core import agent_state
from hub.core.agent import Agent, Offer, State
from hub.core.attach import Progress
from hub.core.holding import Holding
from hub.engine.live import skew
from hub.engine.live.context import Context
from hub.engine.live.fleet import Fleet
from hub.engine.live.session import Session
from hub.engine.live.sessions import Sessions
from hub.engine.script import agents, requests
from hub.store.base import Txn
from kit import errors
from kit import tokens as secrets

SCAN_MAX: Final = 2_000
"""Records looked at for one page when only some states are asked for."""


class View(NamedTuple):
    """An agent as it is now."""

    agent: Agent
    state: State
    reason: str
    offer: Offer
    holdings: tuple[Holding, ...]
    progress: tuple[Progress, ...]
    """Of each holding, in the same order."""
    session: Session | None
    """None: its stream is not open."""
    version_warning: str = ""
    """About its version beside the hub's."""


class Roster:
    """Shows agents, and steers them."""

    def __init__(self, ctx: Context, fleet: Fleet, sessions: Sessions) -> None:
        self._ctx = ctx
        self._fleet = fleet
        self._sessions = sessions

    def get(self, agent_id: str) -> View:
        """One agent. Raises NotFound."""
        return self.view(self._ctx.store.read(lambda reader: agents.found(reader, agent_id)))

    def page(self, state: State | None, *, after: str, limit: int) -> tuple[list[View], str]:
        """A page of agents by id, and where the next one begins; empty at the end."""
        found: list[View] = []
        looked_at = 0
        while looked_at < SCAN_MAX:
            size = min(limit, SCAN_MAX - looked_at)
            chunk = self._read(after, size)
            for agent in chunk:
                after = agent.id
                view = self.view(agent)
                if state is None or view.state is state:
                    found.append(view)
                    if len(found) == limit:
                        return found, after
            looked_at += len(chunk)
            if len(chunk) < size:
                return found, ""
        return found, after

    def view(self, agent: Agent) -> View:
        """A record with what is known of the agent now."""
        now = self._ctx.clock.now()
        seat = self._fleet.get(agent.id)
        session = self._sessions.get(agent.id)
        if session is not None and session.stream is None:
            session = None
        reason, warning = _reason(agent, session, now), skew.warning(agent.version)
        if seat is None:
            facts = agent_state.Facts(draining=agent.draining, isolated=_isolated(agent, now))
            return View(agent, agent_state.derive(facts), reason, agent.offer, (), (), session, warning)
        holdings = tuple(Holding(task, held.generation) for task, held in seat.holdings.items())
        told = session.told if session is not None else {}
        progress = tuple(told[one].progress if one in told else Progress() for one in holdings) if told else ()
        offer = seat.profile.offer if seat.online else agent.offer
        return View(agent, agent_state.derive(seat.facts(now)), reason, offer, holdings, progress, session, warning)

    async def enroll(
        self, agent_id: str, display_name: str, request: requests.Request, *, join_key: str
    ) -> tuple[View, str]:
        """A new agent and its secret, which is shown only here."""
        now, secret = self._ctx.clock.now(), secrets.new_token()
        wanted = agents.Wanted(agent_id, display_name, self._ctx.ids.new(now), secret)
        window_s = self._ctx.settings.request_window_s
        digest = secrets.digest(join_key) if join_key else ""
        # Whoever guesses at keys costs a read and no transaction.
        if digest and self._ctx.store.read(lambda reader: reader.token_by_hash(digest)) is None:
            raise errors.Unauthenticated("the join key is not known", reason="JOIN_KEY_UNKNOWN")

        def write(txn: Txn) -> Agent:
            return agents.enroll(
                txn, wanted, request, now, actor=request.principal, window_s=window_s, join_digest=digest
            )

        return self.view(await self._ctx.store.write(write)), secret

    async def rotate(self, agent_id: str, *, actor: str, grace_s: float = 0.0) -> str:
        """A new secret for an agent; the old one is void, or will be in `grace_s`."""
        now, secret = self._ctx.clock.now(), secrets.new_token()
        token_id = self._ctx.ids.new(now)
        await self._write(lambda txn: agents.rotate(txn, agent_id, token_id, secret, now, actor=actor, grace_s=grace_s))
        return secret

    async def rename(self, agent_id: str, display_name: str, *, actor: str, etag: str) -> View:
        """Change what people call it."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: agents.rename(txn, agent_id, display_name, now, actor=actor, etag=etag))

    async def drain(self, agent_id: str, *, actor: str) -> View:
        """No new work for it."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: agents.drain(txn, agent_id, now, actor=actor))

    async def resume(self, agent_id: str, *, actor: str) -> View:
        """New work again."""
        now = self._ctx.clock.now()
        return await self._write(lambda txn: agents.resume(txn, agent_id, now, actor=actor))

    async def delete(self, agent_id: str, *, actor: str, etag: str) -> None:
        """Forget it; what it holds goes back to the queue."""
        now, roll = self._ctx.clock.now(), self._ctx.rng.random()
        await self._ctx.store.write(
            lambda txn: agents.delete(txn, agent_id, now, actor=actor, etag=etag, roll=roll), essential=True
        )

    def _read(self, after: str, limit: int) -> list[Agent]:
        return self._ctx.store.read(lambda reader: reader.agents.page(after=after, limit=limit))

    async def _write(self, fn: Callable[[Txn], Agent]) -> View:
        return self.view(await self._ctx.store.write(fn, essential=True))


def _isolated(agent: Agent, now: float) -> bool:
    return agent.isolated_until is not None and now < agent.isolated_until


def _reason(agent: Agent, session: Session | None, now: float) -> str:
    """One sentence: why it is in its state, where that is not plain; that which covers the others first."""
    if _isolated(agent, now):
        assert agent.isolated_until is not None
        return f"failed too often in a row, gets nothing new for {agent.isolated_until - now:.0f} s"
    if agent.draining:
        return "drained by a person"
    if session is None:
        return skew.warning(agent.version) if skew.is_refused(agent.version) else ""
    if session.seat.in_doubt:
        return "it did not answer what it was told; it gets work again when it does"
    test = session.self_test
    if test is None:
        return "no self-test yet"
    if not test.passed:
        failed = [finding for finding in test.findings if not finding.passed]
        return "; ".join(f"{finding.probe}: {finding.message}" for finding in failed) or "its self-test fails"
    return ""
