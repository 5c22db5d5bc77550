"""HubService, and who is let in: tokens, scopes, pause and drain."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agentcom.v1 import agent_service_pb2, hub_pb2, hub_service_pb2, task_pb2, task_service_pb2
from hub import app
from hub.core import scope
from hub.core.token import Scope
from kit import clock as clocks
from kit import errors
from tests.support.hub import as_token, refused, running

Create = hub_service_pb2.CreateTokenRequest
GetHub = hub_service_pb2.GetHubRequest
Stats = hub_service_pb2.GetStatsRequest
METHODS = [(service.name, method) for service in app.SERVICES for method in service.methods]


@pytest.fixture
async def caller(tmp_path):
    async with running(tmp_path, parts={"clock": clocks.ManualClock()}) as made:
        yield made


async def secret(caller, which, **options):
    return (await caller.hubs.CreateToken(Create(scope=which, **options))).secret


async def test_the_hub_says_what_it_is(caller):
    hub = (await caller.hubs.GetHub(GetHub())).hub
    assert (hub.name, hub.state, hub.store) == ("hub", hub_pb2.Hub.STATE_SERVING, "memory")
    assert hub.uid
    assert hub.lease_duration.seconds == 30
    assert hub.start_time.seconds == int(caller.hub.ctx.clock.now())


async def test_the_figures_count_what_happens(caller):
    await caller.task(lane="LANE_HIGH")
    caller.hub.ctx.clock.advance(5)
    await refused(caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name="x")))
    stats = (await caller.hubs.GetStats(Stats())).stats
    assert [(c.state, c.lane, c.count) for c in stats.tasks] == [(task_pb2.Task.STATE_QUEUED, task_pb2.LANE_HIGH, 1)]
    assert (stats.submitted_count, stats.assigned_count, stats.tokens_spent) == (1, 0, 0)
    assert stats.oldest_queued.seconds == 5
    assert stats.refused_request_count >= 1


@pytest.mark.parametrize("step", ["STEP_UNSPECIFIED", "STEP_MINUTE", "STEP_HOUR"])
async def test_the_history_tells_what_happened_when(caller, step):
    await caller.task(lane="LANE_HIGH")
    caller.hub.ctx.clock.advance(10)
    await caller.hub.sampler.run_once(caller.hub.ctx.clock.now())
    history = (await caller.hubs.GetHistory(hub_service_pb2.GetHistoryRequest(step=step))).history
    assert history.step.seconds == (3600 if step == "STEP_HOUR" else 60)
    assert sum(one.submitted_count for one in history.samples) == 1
    one = history.samples[-1]
    assert one.start_time.seconds % history.step.seconds == 0
    assert one.observed
    assert [(lane.lane, lane.count) for lane in one.lanes] == [(task_pb2.LANE_HIGH, 1)]
    assert not one.HasField("queue_wait")


async def test_a_pause_survives_a_restart_and_a_drain_does_not(tmp_path):
    async with running(tmp_path, store__kind="lmdb") as caller:
        drained = await caller.hubs.DrainHub(hub_service_pb2.DrainHubRequest(reason="update"))
        assert drained.hub.state == hub_pb2.Hub.STATE_DRAINING
    async with running(tmp_path, store__kind="lmdb") as caller:
        uid = (await caller.hubs.GetHub(GetHub())).hub.uid
        assert (await caller.hubs.GetHub(GetHub())).hub.state == hub_pb2.Hub.STATE_SERVING
        await caller.hubs.PauseHub(hub_service_pb2.PauseHubRequest())
    async with running(tmp_path, store__kind="lmdb") as caller:
        hub = (await caller.hubs.GetHub(GetHub())).hub
        assert (hub.state, hub.uid) == (hub_pb2.Hub.STATE_PAUSED, uid)
        resumed = await caller.hubs.ResumeHub(hub_service_pb2.ResumeHubRequest())
        assert resumed.hub.state == hub_pb2.Hub.STATE_SERVING


async def test_a_paused_hub_takes_tasks_and_a_draining_one_refuses_them(caller):
    await caller.hubs.PauseHub(hub_service_pb2.PauseHubRequest())
    assert (await caller.task()).state == task_pb2.Task.STATE_QUEUED
    await caller.hubs.DrainHub(hub_service_pb2.DrainHubRequest())
    before = await caller.position()
    request = task_service_pb2.CreateTaskRequest(spec={"title": "t", "command": "true"})
    problem = await refused(caller.tasks.CreateTask(request))
    assert (type(problem), problem.reason) == (errors.Unavailable, "HUB_DRAINING")
    assert problem.retry_delay_s is not None
    assert await caller.position() == before
    await caller.hubs.ResumeHub(hub_service_pb2.ResumeHubRequest())
    assert (await caller.task()).state == task_pb2.Task.STATE_QUEUED


async def test_every_service_is_healthy_and_the_health_needs_no_token(tmp_path):
    async with running(tmp_path, auth__required=True) as caller:
        stub = health_pb2_grpc.HealthStub(caller.channel)
        for name in ["", *[service.full_name for service in app.SERVICES]]:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


# Tokens


async def test_a_token_is_shown_once_and_listed_without_its_secret(caller):
    made = await caller.hubs.CreateToken(Create(scope="SCOPE_VIEWER", display_name="wall", ttl={"seconds": 60}))
    listed = (await caller.hubs.ListTokens(hub_service_pb2.ListTokensRequest())).tokens
    assert made.token in listed
    assert made.secret not in str(listed)
    assert made.token.expire_time.seconds == made.token.create_time.seconds + 60


async def test_a_revoked_token_is_void_at_once(caller):
    made = await caller.hubs.CreateToken(Create(scope="SCOPE_VIEWER"))
    async with as_token(caller.hub, made.secret) as viewer:
        await viewer.hubs.GetHub(GetHub())
        revoke = hub_service_pb2.RevokeTokenRequest(name=made.token.name)
        assert (await caller.hubs.RevokeToken(revoke)).token.HasField("revoke_time")
        problem = await refused(viewer.hubs.GetHub(GetHub()))
        assert (type(problem), problem.reason) == (errors.Unauthenticated, "TOKEN_REVOKED")
        before = await caller.position()
        await caller.hubs.RevokeToken(revoke)
        assert await caller.position() == before


async def test_a_token_ends_by_itself(caller):
    token = await secret(caller, "SCOPE_VIEWER", ttl={"seconds": 60})
    async with as_token(caller.hub, token) as viewer:
        caller.hub.ctx.clock.advance(59.9)
        await viewer.hubs.GetHub(GetHub())
        caller.hub.ctx.clock.advance(0.2)
        assert (await refused(viewer.hubs.GetHub(GetHub()))).reason == "TOKEN_EXPIRED"


async def test_the_last_use_of_a_token_is_written_to_the_minute_and_not_by_the_call(caller):
    made = await caller.hubs.CreateToken(Create(scope="SCOPE_VIEWER"))
    async with as_token(caller.hub, made.secret) as viewer:
        before = caller.hub.store.facts().writes
        for _ in range(5):
            await viewer.hubs.GetHub(GetHub())
        assert caller.hub.store.facts().writes == before
    await caller.hub.verifier.run_once(caller.hub.ctx.clock.now())
    await caller.hub.verifier.run_once(caller.hub.ctx.clock.now())
    assert caller.hub.store.facts().writes == before + 1
    (token,) = [
        t
        for t in (await caller.hubs.ListTokens(hub_service_pb2.ListTokensRequest())).tokens
        if t.name == made.token.name
    ]
    now = int(caller.hub.ctx.clock.now())
    assert token.last_use_time.seconds == now - now % 60


async def test_an_unknown_token_is_not_found_by_its_name(caller):
    name = "tokens/" + "0" * 20
    problem = await refused(caller.hubs.RevokeToken(hub_service_pb2.RevokeTokenRequest(name=name)))
    assert (type(problem), problem.metadata["name"]) == (errors.NotFound, name)


async def test_tokens_come_in_pages_oldest_first(caller):
    for number in range(7):
        await caller.hubs.CreateToken(Create(scope="SCOPE_VIEWER", display_name=f"{number}"))
    seen, page = [], ""
    while True:
        request = hub_service_pb2.ListTokensRequest(page_size=3, page_token=page)
        answer = await caller.hubs.ListTokens(request)
        seen += [token.display_name for token in answer.tokens]
        page = answer.next_page_token
        if not page:
            break
    assert seen == ["made at the first start", *[f"{number}" for number in range(7)]]


# Who is let in


async def test_where_a_token_is_required_nobody_comes_in_without(tmp_path):
    async with running(tmp_path, auth__required=True) as caller:
        for service, method in METHODS:
            if method.name == "EnrollAgent":
                continue
            call = caller.channel.unary_unary if not method.server_streaming else caller.channel.unary_stream
            if method.client_streaming:
                call = caller.channel.stream_stream
            body = iter([b""]) if method.client_streaming else b""
            problem = await refused(call(f"/agentcom.v1.{service}/{method.name}")(body, timeout=10))
            assert (type(problem), problem.reason) == (errors.Unauthenticated, "TOKEN_REQUIRED"), method.name
        problem = await refused(caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest()))
        assert problem.reason == "TOKEN_REQUIRED"
        token = (tmp_path / "hub" / app.ADMIN_TOKEN_FILE).read_text().strip()
        async with as_token(caller.hub, token) as admin:
            await admin.task()
            key = await secret(admin, "SCOPE_JOIN")
        await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(join_key=key))


@pytest.mark.parametrize("which", [Scope.OPERATOR, Scope.SUBMITTER, Scope.VIEWER, Scope.AGENT])
async def test_a_token_opens_what_its_scope_says_and_nothing_else(caller, which):
    if which is Scope.AGENT:
        token = (await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="anna"))).token
    else:
        token = await secret(caller, f"SCOPE_{which.name}")
    metadata = (("authorization", f"Bearer {token}"),)
    for service, method in METHODS:
        if method.client_streaming or method.server_streaming:
            continue
        full = f"/agentcom.v1.{service}/{method.name}"
        call = caller.channel.unary_unary(full)(b"", metadata=metadata, timeout=10)
        if method.name == "EnrollAgent":
            may = which is Scope.OPERATOR
        else:
            may = which in scope.TABLE[full]
        try:
            await call
            code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
        assert (code is not grpc.StatusCode.PERMISSION_DENIED) == may, full


async def test_an_agent_speaks_only_for_itself(caller):
    token = (await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="anna"))).token
    await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="ben"))
    task = await caller.task()
    async with as_token(caller.hub, token) as anna:
        before = await caller.position()
        for call in (
            anna.tasks.ClaimTask(task_service_pb2.ClaimTaskRequest(name=task.name, agent="agents/ben")),
            anna.agents.RotateAgentToken(agent_service_pb2.RotateAgentTokenRequest(name="agents/ben")),
        ):
            assert (await refused(call)).reason == "OTHER_AGENT"
        assert await caller.position() == before
        held = await caller.tasks.ClaimTask(task_service_pb2.ClaimTaskRequest(name=task.name, agent="agents/ben"))
        report = task_service_pb2.ReportTaskRequest(holding=held.holding, result={})
        assert isinstance(await refused(anna.tasks.ReportTask(report)), errors.Fenced)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Bearer act_" + "A" * 43, "TOKEN_UNKNOWN"),
        ("Bearer hello", "TOKEN_MALFORMED"),
        ("Basic abc", "UNAUTHENTICATED"),
        ("Bearer", "UNAUTHENTICATED"),
    ],
)
async def test_a_token_that_is_shown_counts_even_where_none_is_required(caller, header, reason):
    call = caller.hubs._stub.GetHub(GetHub(), metadata=(("authorization", header),), timeout=10)
    problem = await refused(call)
    assert (type(problem), problem.reason) == (errors.Unauthenticated, reason)


async def test_the_actor_of_an_event_is_who_called(caller):
    token = await secret(caller, "SCOPE_OPERATOR")
    async with as_token(caller.hub, token) as operator:
        made = await operator.task()
        answer = await operator.tasks.ListTaskEvents(task_service_pb2.ListTaskEventsRequest(name=made.name))
    assert answer.events[0].actor.startswith("tokens/")
