"""Agents: from the records, and what is known of them now, to the wire."""

from __future__ import annotations

from agentcom.v1 import agent_pb2
from hub.core.agent import Offer
from hub.core.attach import Load, Progress, SelfTest
from hub.engine.desk import roster
from hub.rpc import translate


def write_agent(view: roster.View, into: agent_pb2.Agent) -> None:
    """Fill an agent."""
    agent, session = view.agent, view.session
    into.name = f"agents/{agent.id}"
    into.display_name = agent.display_name
    into.state = view.state  # type: ignore[assignment]  # the numbers are the same
    into.state_reason = view.reason
    write_offer(view.offer, into.offer)
    for holding in view.holdings:
        translate.write_holding(holding, into.holdings.add())
    for progress in view.progress:
        write_progress(progress, into.progress.add())
    into.version = agent.version
    into.version_warning = view.version_warning
    into.host = agent.host
    into.draining = agent.draining
    translate.write_time(agent.isolated_until, into.isolate_until_time)
    translate.write_time(agent.created_at, into.create_time)
    translate.write_time(agent.updated_at, into.update_time)
    translate.write_time(agent.last_seen_at, into.last_seen_time)
    into.completed_count = agent.completed_count
    into.failed_count = agent.failed_count
    into.etag = str(agent.revision)
    if session is None:
        return
    into.session = f"agents/{agent.id}/sessions/{session.id}"
    translate.write_time(max(session.seen_at or 0.0, agent.last_seen_at or 0.0) or None, into.last_seen_time)
    if session.self_test is not None:
        write_self_test(session.self_test, into.self_test)
    if session.clock_offset_s is not None:
        translate.write_duration(session.clock_offset_s, into.clock_offset)
    if session.load is not None:
        write_load(session.load, into.load)


def write_offer(offer: Offer, into: agent_pb2.Offer) -> None:
    """Fill an offer."""
    into.SetInParent()
    into.capabilities.extend(sorted(offer.capabilities))
    into.sandbox = offer.sandbox
    into.executors.extend(sorted(offer.executors))
    into.tiers.extend(sorted(offer.tiers))  # type: ignore[arg-type]  # the numbers are the same
    into.kinds.extend(sorted(offer.kinds))  # type: ignore[arg-type]  # the numbers are the same
    into.slots = offer.slots
    into.repos.extend(f"repos/{id}" for id in sorted(offer.repos))


def write_self_test(test: SelfTest, into: agent_pb2.SelfTest) -> None:
    """Fill a self-test."""
    into.passed = test.passed
    for finding in test.findings:
        into.findings.add(probe=finding.probe, passed=finding.passed, message=finding.message)
    translate.write_time(test.ended_at, into.end_time)


def write_load(load: Load, into: agent_pb2.Load) -> None:
    """Fill the load of a machine."""
    into.SetInParent()
    into.holdings = load.holdings
    into.cpu = load.cpu
    into.disk_free_bytes = load.disk_free_bytes


def write_progress(progress: Progress, into: agent_pb2.Progress) -> None:
    """Fill the progress of a holding."""
    into.phase = progress.phase
    into.files_changed = progress.files_changed
    into.commits = progress.commits
    into.tool_calls = progress.tool_calls
    if progress.tokens is not None:
        into.tokens = progress.tokens
    translate.write_time(progress.last_output_at, into.last_output_time)
