"""Events, tokens, the hub and its figures: from the records to the wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentcom.v1 import event_pb2, hub_pb2
from hub.core import sample
from hub.core.event import Event
from hub.core.token import Token
from hub.core.violation import Violator
from hub.engine.desk import hubstate, stats
from hub.rpc import translate


def write_event(event: Event, into: event_pb2.Event) -> None:
    """Fill an event."""
    into.position = event.position
    translate.write_time(event.at, into.create_time)
    into.type = event.type
    into.subject = event.subject
    into.goal = translate.name("goals", event.goal)
    into.actor = event.actor
    if event.fields:
        into.fields.update(event.fields)
    into.hash = event.hash.hex()


def write_token(token: Token, into: hub_pb2.Token) -> None:
    """Fill a token, which never carries its secret."""
    into.name = f"tokens/{token.id}"
    into.display_name = token.display_name
    into.scope = token.scope  # type: ignore[assignment]  # the numbers are the same
    into.agent = translate.name("agents", token.agent)
    translate.write_time(token.created_at, into.create_time)
    translate.write_time(token.expires_at, into.expire_time)
    translate.write_time(token.last_used_at, into.last_use_time)
    translate.write_time(token.revoked_at, into.revoke_time)


def write_hub(facts: hubstate.HubFacts, into: hub_pb2.Hub) -> None:
    """Fill the hub."""
    into.name = "hub"
    into.version = facts.version
    into.uid = facts.uid
    into.state = facts.state  # type: ignore[assignment]  # the numbers are the same
    translate.write_time(facts.started_at, into.start_time)
    into.store = facts.store.kind
    into.schema_version = facts.store.schema_version
    into.event_position = facts.position
    into.event_position_oldest = facts.position_oldest
    translate.write_duration(facts.lease_s, into.lease_duration)
    into.store_size_max_bytes = facts.store.size_max_bytes
    into.store_used_bytes = facts.store.used_bytes
    into.state_reason = facts.reason


def write_violator(violator: Violator, now: float, into: hub_pb2.Violator) -> None:
    """Fill a caller that broke the rules."""
    into.principal = violator.principal
    for kind, count in violator.kinds.items():
        into.kinds.add(kind=kind.value, count=count)
    translate.write_time(violator.last_at, into.last_time)
    into.last_message = violator.last_message
    if violator.refuse_until > now:
        translate.write_time(violator.refuse_until, into.refuse_until_time)


def write_stats(figures: stats.Stats, into: hub_pb2.Stats) -> None:
    """Fill the figures."""
    for (state, lane), count in figures.tasks.items():
        if count:
            into.tasks.add(state=state, lane=lane, count=count)
    for agent_state, agents in figures.agents.items():
        into.agents.add(state=agent_state, count=agents)
    into.slots = figures.slots
    into.slots_used = figures.slots_used
    translate.write_duration(figures.oldest_queued_s, into.oldest_queued)
    into.submitted_count = figures.submitted
    into.assigned_count = figures.assigned
    into.completed_count = figures.completed
    into.failed_count = figures.failed
    into.fenced_count = figures.fenced
    if figures.waits is not None:
        _write_spread(figures.waits, into.queue_wait)
    into.commit_count = figures.commits
    into.write_count = figures.writes
    into.refused_request_count = figures.refused_requests
    into.session_count = figures.sessions
    into.adopted_count = figures.adopted
    into.throttled_request_count = figures.throttled


def write_history(samples: Iterable[sample.Sample], into: Any) -> None:
    """Add samples to a list of them."""
    for one in samples:
        made = into.add(observed=one.observed, slots=one.slots, slots_used=one.slots_used)
        translate.write_time(one.start_at, made.start_time)
        for what in sample.Count:
            setattr(made, f"{what.name.lower()}_count", one.counts[what])
        for lane, count in sorted(one.waiting.items()):
            made.lanes.add(lane=lane, count=count)
        if one.wait is not None:
            _write_spread(one.wait, made.queue_wait)
        if one.run is not None:
            _write_spread(one.run, made.run)


def _write_spread(spread: stats.Percentiles | sample.Spread, into: hub_pb2.Stats.Percentiles) -> None:
    into.count = spread.samples
    translate.write_duration(spread.p50_s, into.p50)
    translate.write_duration(spread.p99_s, into.p99)
    translate.write_duration(spread.max_s, into.max)
