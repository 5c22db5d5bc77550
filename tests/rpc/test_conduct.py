"""How callers behave, seen from outside: limits, refusals of those who break the rules, and who is spared."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    attach_pb2,
    goal_service_pb2,
    hub_service_pb2,
    task_pb2,
    task_service_pb2,
)
from hub.core.token import Scope
from hub.rpc import auth
from kit import clock, errors, status, wire
from tests.support.hub import PATIENCE_S, as_token, refused, running

TIGHT = {
    "auth.required": True,
    "limits.read_per_s": 1.0,
    "limits.read_burst": 3.0,
    "limits.submit_per_s": 10.0,
    "limits.submit_burst": 20.0,
    "limits.auth_per_s": 1.0,
    "limits.auth_burst": 3.0,
    "limits.violation_count_max": 0,
}
STRICT = {"auth.required": True, "limits.violation_count_max": 5, "limits.auth_per_s": 0.0}
GET = hub_service_pb2.GetHubRequest()
WRONG = task_service_pb2.GetTaskRequest(name="CANARY")


@contextlib.asynccontextmanager
async def strict(folder, settings, scope=Scope.OPERATOR, **parts):
    """A hub with tight rules, a caller with a token, one without, and the person who looks (another token)."""
    overrides = {key.replace(".", "__"): value for key, value in settings.items()}
    parts.setdefault("clock", clock.ManualClock())
    async with running(folder, parts=parts, **overrides) as stranger:
        hub = stranger.hub
        made = [await hub.vault.create(one, "", None, actor="test") for one in (scope, Scope.ADMIN)]
        async with as_token(hub, made[0][1]) as caller, as_token(hub, made[1][1]) as person:
            caller.name = f"tokens/{made[0][0].id}"
            yield caller, stranger, person


async def drained(call):
    while await call.read() is not grpc.aio.EOF:
        pass


async def violators(person):
    reply = await person.hubs.ListViolators(hub_service_pb2.ListViolatorsRequest())
    return {one.principal: {kind.kind: kind.count for kind in one.kinds} for one in reply.violators}


async def test_who_asks_too_often_is_told_when_to_come_back_and_others_are_not_touched(tmp_path):
    async with strict(tmp_path, TIGHT) as (caller, _, person):
        for _ in range(3):
            await caller.hubs.GetHub(GET)
        problem = await refused(caller.hubs.GetHub(GET))
        assert (type(problem), problem.reason, problem.retry_delay_s) == (errors.Exhausted, "RATE_LIMITED", 1.0)
        await person.hubs.GetHub(GET)
        await caller.hubs.PauseHub(hub_service_pb2.PauseHubRequest())  # another kind of call
        caller.hub.ctx.clock.advance(1.0)
        await caller.hubs.GetHub(GET)
        assert (await person.hubs.GetStats(hub_service_pb2.GetStatsRequest())).stats.throttled_request_count == 1
        assert await violators(person) == {caller.name: {"RATE_LIMITED": 1}}


async def test_who_hammers_is_told_to_wait_longer_each_time(tmp_path):
    async with strict(tmp_path, TIGHT | {"limits.read_per_s": 0.1}) as (caller, _, _):
        for _ in range(3):
            await caller.hubs.GetHub(GET)
        delays = []
        for _ in range(5):
            delays.append((await refused(caller.hubs.GetHub(GET))).retry_delay_s)
            caller.hub.ctx.clock.advance(1.5)
        assert delays == sorted(delays) and delays[0] == 10.0 and delays[-1] == 60.0


async def test_a_batch_counts_by_its_tasks_and_so_does_a_goal(tmp_path):
    batch = task_service_pb2.BatchCreateTasksRequest(specs=[task_pb2.TaskSpec(title="t", command="true")] * 20)
    async with strict(tmp_path, TIGHT) as (caller, _, _):
        assert len((await caller.tasks.BatchCreateTasks(batch)).tasks) == 20
        before = caller.hub.ctx.bus.position
        problem = await refused(caller.tasks.BatchCreateTasks(batch))
        assert problem.reason == "RATE_LIMITED"
        goal = goal_service_pb2.CreateGoalRequest()
        assert (await refused(caller.goals.CreateGoal(goal))).reason == "RATE_LIMITED"
        assert caller.hub.ctx.bus.position == before
    for method, count in (("TaskService/BatchCreateTasks", 20), ("GoalService/CreateGoal", 7)):
        seen = []

        class Desk:
            def charge(self, who, tasks, seen=seen):
                seen.append(tasks)

        goal = goal_service_pb2.CreateGoalRequest()
        for _ in range(7):
            goal.goal.plan.tasks.add()
        auth.charges(Desk())[f"/agentcom.v1.{method}"](None, batch if "Batch" in method else goal)
        assert seen == [count]


async def test_the_person_at_this_machine_is_counted_and_never_limited(tmp_path):
    settings = TIGHT | STRICT | {"auth.required": False}
    async with strict(tmp_path, settings) as (_, local, person):
        for _ in range(20):
            await local.hubs.GetHub(GET)
            await refused(local.tasks.GetTask(WRONG))
        assert await violators(person) == {"local": {"INVALID": 20}}


async def test_who_breaks_the_rules_too_often_is_refused_altogether_for_a_while(tmp_path):
    async with strict(tmp_path, STRICT) as (caller, _, person):
        for _ in range(6):
            assert isinstance(await refused(caller.tasks.GetTask(WRONG)), errors.Invalid)
        problem = await refused(caller.hubs.GetHub(GET))
        assert (type(problem), problem.reason, problem.retry_delay_s) == (errors.Exhausted, "REFUSED", 10.0)
        await person.hubs.GetHub(GET)
        [told] = (await person.hubs.ListViolators(hub_service_pb2.ListViolatorsRequest())).violators
        assert told.refuse_until_time.ToSeconds() == int(caller.hub.ctx.clock.now() + 10)
        assert told.last_message == "TaskService/GetTask: INVALID (name)"
        caller.hub.ctx.clock.advance(10.0)
        await caller.hubs.GetHub(GET)
        for _ in range(6):
            await refused(caller.tasks.GetTask(WRONG))
        assert (await refused(caller.hubs.GetHub(GET))).retry_delay_s == 20.0


async def test_a_refusal_is_an_event_and_ends_when_it_is_forgiven(tmp_path):
    async with strict(tmp_path, STRICT) as (caller, _, person):
        watch = person.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest(type_prefix="violator."))
        events = aiter(watch)
        await anext(events)
        for _ in range(6):
            await refused(caller.tasks.GetTask(WRONG))
        async with asyncio.timeout(PATIENCE_S):
            event = (await anext(events)).event
        watch.cancel()
        assert (event.type, event.subject, event.fields["invalid"]) == ("violator.refused", caller.name, "6")
        assert "CANARY" not in str(event)
        assert (await refused(caller.hubs.GetHub(GET))).reason == "REFUSED"
        ask = hub_service_pb2.ForgiveViolatorRequest(principal=caller.name)
        assert (await person.hubs.ForgiveViolator(ask)).violator.principal == caller.name
        await caller.hubs.GetHub(GET)
        assert isinstance(await refused(person.hubs.ForgiveViolator(ask)), errors.NotFound)


async def test_a_stranger_behind_the_same_address_shuts_out_no_caller_with_a_token(tmp_path):
    async with strict(tmp_path, STRICT) as (caller, stranger, person):
        reasons = [(await refused(stranger.hubs.GetHub(GET))).reason for _ in range(8)]
        assert reasons[:5] == ["TOKEN_REQUIRED"] * 5 and set(reasons[6:]) == {"REFUSED"}
        await caller.hubs.GetHub(GET)
        enroll = agent_service_pb2.EnrollAgentRequest(join_key="x")
        assert (await refused(stranger.agents.EnrollAgent(enroll))).reason == "REFUSED"
        assert (await violators(person))["peer:127.0.0.1"]["UNAUTHENTICATED"] == 8


async def test_who_guesses_at_keys_is_slowed_down_and_costs_no_transaction(tmp_path, monkeypatch):
    async with strict(tmp_path, TIGHT) as (caller, stranger, _):
        enroll = agent_service_pb2.EnrollAgentRequest(join_key="act_" + "A" * 43)
        monkeypatch.setattr(caller.hub.ctx.store, "write", lambda *_args, **_options: pytest.fail("a transaction"))
        reasons = [(await refused(stranger.agents.EnrollAgent(enroll))).reason for _ in range(5)]
        assert reasons == ["JOIN_KEY_UNKNOWN"] * 3 + ["RATE_LIMITED"] * 2
        monkeypatch.undo()


async def test_an_attach_stream_counts_too(tmp_path):
    async with strict(tmp_path, STRICT, Scope.ADMIN) as (caller, _, person):
        await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="a1"))
        hello = attach_pb2.AttachRequest(
            hello=attach_pb2.Hello(agent="agents/a1", offer=agent_pb2.Offer(slots=1), self_test=agent_pb2.SelfTest())
        )
        call = caller.agents._stub.Attach(metadata=caller.metadata)
        await call.write(hello)
        assert (await call.read()).WhichOneof("body") == "welcome"
        # A report that breaks the contract is excused and does not end the stream.
        held = task_pb2.Holding(task="tasks/" + "0" * 20, generation=1)
        result = task_pb2.Result(artifacts=[task_pb2.Artifact(id="log", content=b"x" * (256 * 1024 + 1))])
        completed = attach_pb2.Report(holding=held, completed=attach_pb2.Completed(result=result))
        await call.write(attach_pb2.AttachRequest(seq=1, report=completed))
        await call.write(hello)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(call)
        assert status.from_rpc_error(caught.value).reason == "PROTOCOL"
        assert await violators(person) == {caller.name: {"INVALID": 1, "PROTOCOL": 1}}


@pytest.mark.parametrize(
    ("data", "kind"), [(b"\xff\xff\xff", "GARBLED"), (b"\n" + b"x" * wire.MESSAGE_BYTES_MAX, "TOO_LARGE")]
)
async def test_bytes_that_are_no_message_are_counted_by_what_is_wrong_with_them(tmp_path, data, kind):
    async with strict(tmp_path, STRICT) as (caller, _, person):
        wire_ = grpc.aio.insecure_channel(
            caller.address.target, options=[("grpc.max_send_message_length", 64 * 1024 * 1024)]
        )
        call = wire_.unary_unary("/agentcom.v1.HubService/GetHub")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(data, metadata=caller.metadata, timeout=PATIENCE_S)
        await wire_.close()
        assert status.from_rpc_error(caught.value).reason in ("GARBLED", "MESSAGE_TOO_LARGE")
        assert await violators(person) == {caller.name: {kind: 1}}


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:4711", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::/64"),
        ("ipv6:[::ffff:192.0.2.1]:1", "192.0.2.1"),
        ("unix:/run/x", "unix"),
        ("", "unknown"),
    ],
)
def test_a_caller_without_a_token_is_known_by_its_address(peer, address):
    assert auth.address_of(peer) == address


@given(st.text() | st.from_regex(r"ipv[46]:(%5B|\[)?[0-9a-f:.%]*(%5D|\])?:[0-9]*", fullmatch=True))
def test_whatever_grpc_calls_a_peer_it_has_a_name(peer):
    assert auth.address_of(peer)
