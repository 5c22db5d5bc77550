"""The messages of Attach between the wire and the engine's values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, assert_never

from agentcom.v1 import agent_pb2, attach_pb2, task_pb2
from hub.core import attach
from hub.core.agent import Offer
from hub.core.holding import Holding
from hub.core.task import Kind, Tier
from hub.engine.live.session import Out
from hub.rpc import translate

BATCH_COUNT_MAX: Final = 64
"""Messages that travel as one: what the contract allows."""

BATCH_BYTES_FULL: Final = 512 * 1024
"""A batch of this size is sent: with one more message of the largest size it stays well below the limit of the wire."""


def read_hello(message: attach_pb2.Hello) -> attach.Hello:
    """The first message of a stream."""
    return attach.Hello(
        agent=message.agent.removeprefix("agents/"),
        session=message.session,
        holdings=read_holdings(message.holdings),
        offer=read_offer(message.offer),
        version=message.version,
        host=message.host,
        self_test=read_self_test(message.self_test) if message.HasField("self_test") else None,
        draining=message.draining,
        features=frozenset(message.features),
        time_at=translate.read_time(message.time) if message.HasField("time") else None,
    )


def read_offer(message: agent_pb2.Offer) -> Offer:
    """What an agent offers."""
    return Offer(
        capabilities=frozenset(message.capabilities),
        sandbox=message.sandbox,
        executors=frozenset(message.executors),
        tiers=frozenset(map(Tier, message.tiers)),
        kinds=frozenset(map(Kind, message.kinds)),
        slots=message.slots,
        repos=frozenset(name.removeprefix("repos/") for name in message.repos),
    )


def read_self_test(message: agent_pb2.SelfTest) -> attach.SelfTest:
    """What a sidecar found when it tried its own tools."""
    return attach.SelfTest(
        passed=message.passed,
        findings=tuple(attach.Finding(one.probe, one.passed, one.message) for one in message.findings),
        ended_at=translate.read_time(message.end_time) if message.HasField("end_time") else None,
    )


def read_heartbeat(message: attach_pb2.Heartbeat) -> attach.Heartbeat:
    """The whole state of a sidecar."""
    load = message.load
    return attach.Heartbeat(
        holdings=read_holdings(message.holdings) if message.holdings else (),
        progress=tuple([read_progress(one) for one in message.progress]) if message.progress else (),
        load=attach.Load(load.holdings, load.cpu, load.disk_free_bytes) if message.HasField("load") else None,
        self_test=read_self_test(message.self_test) if message.HasField("self_test") else None,
        draining=message.draining,
        time_at=translate.read_time(message.time) if message.HasField("time") else None,
    )


def read_progress(message: agent_pb2.Progress) -> attach.Progress:
    """How a holding gets on."""
    return attach.Progress(
        phase=message.phase,
        files_changed=message.files_changed,
        commits=message.commits,
        tool_calls=message.tool_calls,
        tokens=message.tokens if message.HasField("tokens") else None,
        last_output_at=translate.read_time(message.last_output_time) if message.HasField("last_output_time") else None,
    )


def read_report(message: attach_pb2.Report) -> attach.Report:
    """What became of a holding."""
    return attach.Report(translate.read_holding(message.holding), _read_outcome(message))


def _read_outcome(message: attach_pb2.Report) -> attach.Outcome:
    match message.WhichOneof("outcome"):
        case "accepted":
            return attach.Accepted()
        case "rejected":
            return attach.Rejected(message.rejected.reason, message.rejected.message)
        case "completed":
            result, artifacts = translate.read_result(message.completed.result)
            return attach.Completed(result, artifacts)
        case "failed":
            failed = message.failed
            infos, artifacts = translate.read_artifacts(failed.artifacts)
            return attach.Failed(
                failure=translate.read_failure(failed.failure),
                receipts=translate.read_receipts(failed.receipts),
                infos=infos,
                artifacts=artifacts,
                wip_ref=failed.wip_ref,
                stopped=failed.stopped,
            )
        case _:
            raise AssertionError("the rules of the message require an outcome")


def read_log(message: attach_pb2.LogChunk) -> attach.LogChunk:
    """Output of a running attempt."""
    holding = translate.read_holding(message.holding)
    return attach.LogChunk(holding, message.text, message.dropped_bytes, message.end)


def read_holdings(messages: Iterable[task_pb2.Holding]) -> tuple[Holding, ...]:
    """Fencing pairs."""
    return tuple([translate.read_holding(message) for message in messages])


def responses(outs: Sequence[Out], version: str, *, batched: bool) -> Iterator[attach_pb2.AttachResponse]:
    """The messages to write, in their order; `batched`: several of them may travel as one. `version` is the hub's
    own.
    """
    at = 0
    while at < len(outs):
        end = at + 1
        message = attach_pb2.AttachResponse()
        if batched and at + 1 < len(outs) and _may_share(outs[at]) and _may_share(outs[at + 1]):
            end, size = at, 0
            while end < len(outs) and _may_share(outs[end]) and end - at < BATCH_COUNT_MAX:
                one = message.batch.messages.add()
                _write_response(outs[end], version, one)
                end += 1
                size += one.ByteSize()
                if size > BATCH_BYTES_FULL:
                    break
            message.ack = outs[end - 1].ack
        else:
            _write_response(outs[at], version, message)
        yield message
        at = end


def _may_share(out: Out) -> bool:
    return not isinstance(out.body, attach.Welcome | attach.Goaway)


def _write_response(out: Out, version: str, message: attach_pb2.AttachResponse) -> None:
    message.seq, message.ack = out.seq, out.ack
    match out.body:
        case None:
            pass
        case attach.Assign():
            write_assign(out.body, message.assign)
        case attach.Desired():
            _write_desired(out.body, message.desired)
        case attach.Revoke(holding, reason, text):
            translate.write_holding(holding, message.revoke.holding)
            message.revoke.reason, message.revoke.message = reason, text
        case attach.Welcome():
            _write_welcome(out.body, message.welcome)
            message.welcome.version = version
        case attach.Goaway():
            message.goaway.reason, message.goaway.final = out.body.reason, out.body.final
            translate.write_duration(out.body.retry_delay_s, message.goaway.retry_delay)
        case _:
            assert_never(out.body)


def write_assign(assign: attach.Assign, into: attach_pb2.Assign) -> None:
    """Fill an assignment."""
    task, change = assign.task, assign.change
    translate.write_holding(assign.holding, into.holding)
    translate.write_spec(assign.spec, into.spec)
    into.goal = translate.name("goals", task.goal)
    into.attempts_used = task.attempts_used
    if assign.repo is not None:
        translate.write_repo_access(assign.repo, into.repo)
    into.wip_ref = task.wip_ref
    if task.failure is not None:
        translate.write_failure(task.failure, into.last_failure)
    if change is not None:
        into.change.name, into.change.task = f"changes/{change.id}", f"tasks/{change.task}"
        into.change.branch, into.change.title = change.branch, change.title
        into.change.head_sha, into.change.base_sha = change.head_sha, change.base_sha
    translate.write_time(task.assigned_at, into.assign_time)
    into.traceparent = assign.traceparent


def _write_desired(desired: attach.Desired, into: attach_pb2.Desired) -> None:
    translate.write_duration(desired.next_heartbeat_s, into.next_heartbeat)
    for holding in desired.holdings:
        translate.write_holding(holding, into.holdings.add())
    for holding in desired.tail:
        translate.write_holding(holding, into.tail.add())
    into.draining = desired.draining


def _write_welcome(welcome: attach.Welcome, into: attach_pb2.Welcome) -> None:
    into.session, into.resumed = welcome.session, welcome.resumed
    translate.write_duration(welcome.heartbeat_s, into.heartbeat_interval)
    translate.write_duration(welcome.lease_s, into.lease_duration)
    for holding in welcome.holdings:
        translate.write_holding(holding, into.holdings.add())
    into.received_seq = welcome.received_seq
    into.features.extend(attach.FEATURES)
