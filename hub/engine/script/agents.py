"""Agents inside a transaction: enrolled, drained, resumed, forgotten, and given new tokens.

Sessions hear of all of this from the events (`agent.draining`, `agent.resumed`, `agent.deleted`,
`agent.token_rotated`) after the commit; nothing here talks to a stream.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hub.core.agent import Agent
from hub.core.holding import Holding
from hub.core.token import Scope, Token
from hub.engine.script import requests, tokens, work
from hub.store.base import Reader, Txn
from kit import errors


class Wanted(NamedTuple):
    """An agent to be."""

    id: str
    """Empty: invent one from `token_id`."""
    display_name: str
    token_id: str
    """For the record of its token."""
    secret: str


def enroll(
    txn: Txn,
    wanted: Wanted,
    request: requests.Request,
    now: float,
    *,
    actor: str,
    window_s: float,
    join_digest: str = "",
) -> Agent:
    """Make an agent with a token. A repeat of the request gives the same agent a new token.

    With `join_digest` the join key is used up in this transaction. Raises Unauthenticated for a bad key,
    AlreadyExists for a taken id.
    """
    join = txn.token_by_hash(join_digest) if join_digest else None
    if join_digest:
        if join is None or join.scope is not Scope.JOIN:
            raise errors.Unauthenticated("the join key is not known", reason="JOIN_KEY_UNKNOWN")
        actor = f"tokens/{join.id}"
        request = request._replace(principal=actor)
    known = requests.answered(txn, request, now)
    if known is not None:
        return _again(txn, known.removeprefix("agents/"), wanted, now, actor=actor)
    if join is not None:
        tokens.good(join, now)
        tokens.revoke(txn, join.id, now, actor=actor)
    id = wanted.id or f"agent-{wanted.token_id[-8:]}"
    if txn.agents.get(id) is not None:
        raise errors.AlreadyExists(
            f"there is an agents/{id} already", reason="AGENT_EXISTS", metadata={"name": f"agents/{id}"}
        )
    agent = Agent(id=id, display_name=wanted.display_name, created_at=now, updated_at=now, token=wanted.token_id)
    txn.agents.put(agent)
    txn.append(now, "agent.enrolled", f"agents/{id}", actor=actor)
    _issue(txn, agent, wanted.token_id, wanted.secret, now, actor=actor)
    requests.remember(txn, request, f"agents/{id}", now + window_s)
    return agent


def rotate(
    txn: Txn, agent_id: str, token_id: str, secret: str, now: float, *, actor: str, grace_s: float = 0.0
) -> Agent:
    """Give an agent a new token; the old one is void with this commit, or in `grace_s`."""
    agent = found(txn, agent_id)
    if agent.token_before:
        tokens.revoke(txn, agent.token_before, now, actor=actor)
    if agent.token and grace_s > 0:
        tokens.expire(txn, agent.token, now + grace_s, now, actor=actor)
    elif agent.token:
        tokens.revoke(txn, agent.token, now, actor=actor)
    _issue(txn, agent, token_id, secret, now, actor=actor)
    # Sessions read the grace: without one the token has leaked, and whoever holds it must go.
    fields = {"grace_s": f"{grace_s:g}"} if grace_s > 0 else {}
    txn.append(now, "agent.token_rotated", f"agents/{agent_id}", actor=actor, **fields)
    return _write(txn, agent, now, token=token_id, token_before=agent.token if grace_s > 0 else "")


def rename(txn: Txn, agent_id: str, display_name: str, now: float, *, actor: str, etag: str = "") -> Agent:
    """Change what people call it."""
    agent = found(txn, agent_id, etag)
    if agent.display_name == display_name:
        return agent
    txn.append(now, "agent.updated", f"agents/{agent_id}", actor=actor)
    return _write(txn, agent, now, display_name=display_name)


def drain(txn: Txn, agent_id: str, now: float, *, actor: str) -> Agent:
    """No new work for it. Said twice is said once."""
    agent = found(txn, agent_id)
    if agent.draining:
        return agent
    txn.append(now, "agent.draining", f"agents/{agent_id}", actor=actor)
    return _write(txn, agent, now, draining=True)


def resume(txn: Txn, agent_id: str, now: float, *, actor: str) -> Agent:
    """New work again, whatever kept it away: a drain, an isolation, a row of failures."""
    agent = found(txn, agent_id)
    if not agent.draining and agent.isolated_until is None and not agent.failures_in_row:
        return agent
    txn.append(now, "agent.resumed", f"agents/{agent_id}", actor=actor)
    return _write(txn, agent, now, draining=False, isolated_until=None, failures_in_row=0, suspects=())


def delete(txn: Txn, agent_id: str, now: float, *, actor: str, etag: str = "", roll: float) -> list[Holding]:
    """Forget it: its token is void, and what it holds goes back to the queue. The holdings that it had."""
    agent = found(txn, agent_id, etag)
    holdings = [Holding(task.id, task.generation) for task in txn.held_by(agent_id)]
    for holding in holdings:
        work.lose(
            txn,
            holding,
            now,
            reason="AGENT_DELETED",
            message=f"agents/{agent_id} was deleted by {actor}",
            agent_died=False,
            roll=roll,
            revoke="AGENT_DELETED",
        )
    for token in (agent.token, agent.token_before):
        if token:
            tokens.revoke(txn, token, now, actor=actor)
    txn.agents.delete(agent_id)
    txn.append(now, "agent.deleted", f"agents/{agent_id}", actor=actor)
    return holdings


def found(reader: Reader, agent_id: str, etag: str = "") -> Agent:
    """The agent. Raises NotFound, or Conflict when the etag is another one."""
    agent = reader.agents.get(agent_id)
    if agent is None:
        raise errors.NotFound(
            f"there is no agents/{agent_id}", reason="AGENT_NOT_FOUND", metadata={"name": f"agents/{agent_id}"}
        )
    if etag and etag != str(agent.revision):
        raise errors.Conflict(
            f"agent agents/{agent_id} has changed: its etag is {agent.revision}, not {etag}",
            reason="ETAG_MISMATCH",
            metadata={"name": f"agents/{agent_id}", "etag": agent.revision},
        )
    return agent


def _again(txn: Txn, agent_id: str, wanted: Wanted, now: float, *, actor: str) -> Agent:
    """The answer was lost, and with it the secret, which nobody can show again: a new one replaces it."""
    return rotate(txn, agent_id, wanted.token_id, wanted.secret, now, actor=actor)


def _issue(txn: Txn, agent: Agent, token_id: str, secret: str, now: float, *, actor: str) -> Token:
    token = tokens.new(token_id, secret, Scope.AGENT, now, display_name=f"agents/{agent.id}", agent=agent.id)
    return tokens.create(txn, token, now, actor=actor)


def _write(txn: Txn, agent: Agent, now: float, **changes: object) -> Agent:
    after = msgspec.structs.replace(agent, updated_at=now, revision=agent.revision + 1, **changes)
    txn.agents.put(after)
    return after
