"""What a hello says of its sidecar, at a real hub: who is of a version too far away is refused in words and seen by
everybody; whose clock is wrong is told.
"""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import timestamp_pb2

from agentcom.v1 import agent_pb2, agent_service_pb2, attach_pb2, hub_pb2, hub_service_pb2, task_service_pb2
from kit import errors, status, version
from tests.support import hub as hubs
from tests.support import scripted

FAR = "0.9.0"
NEAR = "0.3.7"
assert version.VERSION.startswith("0.2."), "choose others: they are meant to be one minor and many minors away"


async def agent_of(caller: hubs.Caller, name: str = "ada") -> agent_pb2.Agent:
    reply = await caller.agents.GetAgent(agent_service_pb2.GetAgentRequest(name=f"agents/{name}"))
    return reply.agent  # type: ignore[no-any-return]  # the stubs do not say what a call returns


async def refused_hello(caller: hubs.Caller, said: str) -> errors.Problem:
    opened = scripted.dial(caller.hub.address)
    try:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with scripted.attached(opened, "ada", scripted.offer(), version=said):
                raise AssertionError("it was let in")
        (error,) = caught.value.exceptions
        assert isinstance(error, grpc.aio.AioRpcError)
        return status.from_rpc_error(error)
    finally:
        await opened.close()


async def events_of(caller: hubs.Caller, prefix: str) -> list[str]:
    reply = await caller.hubs.ListEvents(hub_service_pb2.ListEventsRequest(type_prefix=prefix))
    return [event.fields["message"] for event in reply.events]


async def alerts_of(caller: hubs.Caller) -> dict[str, str]:
    await caller.hub.upkeep.board.run_once(caller.hub.ctx.clock.now())
    reply = await caller.hubs.ListAlerts(hub_service_pb2.ListAlertsRequest())
    return {one.name.removeprefix("alerts/"): one.message for one in reply.alerts}


async def test_a_sidecar_that_is_too_far_away_is_refused_and_everybody_can_see_why(tmp_path):
    async with hubs.running(tmp_path) as caller:
        opened = scripted.dial(caller.hub.address)
        await scripted.enrol(opened, "ada")
        said = (
            f"sidecar {FAR} does not work with hub {version.VERSION}: they are more than one minor apart; "
            "upgrade the hub"
        )
        problem = await refused_hello(caller, FAR)
        assert isinstance(problem, errors.IllegalState)
        assert (problem.reason, problem.message, problem.retry_delay_s) == (version.REASON, said, version.RETRY_S)
        assert problem.metadata["peer_version"] == FAR
        agent = await agent_of(caller)
        assert agent.state == agent_pb2.Agent.STATE_OFFLINE
        assert (agent.version, agent.version_warning, agent.state_reason) == (FAR, said, said)
        await refused_hello(caller, FAR)
        assert await events_of(caller, "agent.refused") == [said], "told once, however often it comes back"
        assert await alerts_of(caller) == {"agent-refused.ada": f"agents/ada: {said}"}
        async with scripted.attached(opened, "ada", scripted.offer(), version=version.VERSION):
            agent = await agent_of(caller)
            assert (agent.version, agent.version_warning, agent.state_reason) == (version.VERSION, "", "")
            assert await alerts_of(caller) == {}
        await refused_hello(caller, FAR)
        assert len(await events_of(caller, "agent.refused")) == 2
        await opened.close()


async def test_a_refused_sidecar_does_not_take_the_place_of_the_one_that_works(tmp_path):
    async with hubs.running(tmp_path) as caller:
        opened = scripted.dial(caller.hub.address)
        await scripted.enrol(opened, "ada")
        async with scripted.attached(opened, "ada", scripted.offer(), version=version.VERSION) as good:
            await refused_hello(caller, FAR)
            await caller.task()
            await good.assigned()
        await opened.close()


async def test_one_minor_apart_works_and_is_told(tmp_path):
    async with hubs.running(tmp_path) as caller:
        opened = scripted.dial(caller.hub.address)
        await scripted.enrol(opened, "ada")
        async with scripted.attached(opened, "ada", scripted.offer(), version=NEAR) as near:
            agent = await agent_of(caller)
            assert agent.state == agent_pb2.Agent.STATE_IDLE
            assert f"sidecar {NEAR} is one minor apart" in agent.version_warning
            assert not agent.state_reason
            await caller.task()
            await near.assigned()
        await opened.close()


@pytest.mark.parametrize("role", ["cli", "dashboard", "sidecar"])
async def test_a_client_that_is_too_far_away_may_only_ask_what_this_hub_is(tmp_path, role):
    async with hubs.running(tmp_path) as caller:
        far = ((version.METADATA_KEY, f"{role}/{FAR}"),)
        ask = task_service_pb2.ListTasksRequest()
        problem = await hubs.refused(caller.tasks.ListTasks(ask, metadata=far))
        assert isinstance(problem, errors.IllegalState)
        assert problem.reason == version.REASON
        assert f"{FAR} does not work with hub {version.VERSION}" in problem.message
        watch = caller.hubs.WatchEvents(hub_service_pb2.WatchEventsRequest(), metadata=far)
        assert (await hubs.refused(watch)).reason == version.REASON
        reply = await caller.hubs.GetHub(hub_service_pb2.GetHubRequest(), metadata=far)
        assert reply.hub.version == version.VERSION
        await caller.hubs.GetCaller(hub_service_pb2.GetCallerRequest(), metadata=far)
        await caller.tasks.ListTasks(ask, metadata=((version.METADATA_KEY, f"{role}/{NEAR}"),))
        await caller.tasks.ListTasks(ask)
        assert not (await caller.hubs.ListViolators(hub_service_pb2.ListViolatorsRequest())).violators


async def test_a_stranger_learns_nothing_about_versions(tmp_path):
    async with hubs.running(tmp_path, auth__required=True) as caller:
        far = ((version.METADATA_KEY, f"cli/{FAR}"),)
        problem = await hubs.refused(caller.tasks.ListTasks(task_service_pb2.ListTasksRequest(), metadata=far))
        assert isinstance(problem, errors.Unauthenticated)


async def test_a_sidecar_whose_clock_is_wrong_is_told_and_one_that_says_nothing_is_not(tmp_path):
    async with hubs.running(tmp_path) as caller:
        opened = scripted.dial(caller.hub.address)
        for agent in ("ada", "grace", "joan"):
            await scripted.enrol(opened, agent)
        now = caller.hub.ctx.clock.now()
        async with (
            scripted.attached(opened, "ada", scripted.offer(), time=shown(now)),
            scripted.attached(opened, "grace", scripted.offer()),
        ):
            assert (await clocks(caller)).verdict == hub_pb2.Diagnosis.VERDICT_OK
            assert abs((await agent_of(caller)).clock_offset.ToTimedelta().total_seconds()) < 5
            assert not (await agent_of(caller, "grace")).HasField("clock_offset")
            async with scripted.attached(opened, "joan", scripted.offer(), time=shown(now - 7_200)) as late:
                found = await clocks(caller)
                assert found.verdict == hub_pb2.Diagnosis.VERDICT_WARNING
                assert found.message.startswith("agents/joan is 7") and found.message.endswith("s behind")
                count = len(late.heard)
                test = agent_pb2.SelfTest(passed=True)
                await late.say(heartbeat=attach_pb2.Heartbeat(time=shown(now), self_test=test))
                await late.until(lambda: len(late.heard) > count, "an answer")
                assert (await clocks(caller)).verdict == hub_pb2.Diagnosis.VERDICT_OK, "each heartbeat counts anew"
        await opened.close()


@pytest.mark.parametrize("seconds", [253_402_300_799, -62_135_596_800, 2**62])
async def test_a_sidecar_that_says_nonsense_of_its_clock_harms_nobody(tmp_path, seconds):
    async with hubs.running(tmp_path) as caller:
        opened = scripted.dial(caller.hub.address)
        await scripted.enrol(opened, "ada")
        time = timestamp_pb2.Timestamp(seconds=seconds)
        async with scripted.attached(opened, "ada", scripted.offer(), time=time):
            assert (await agent_of(caller)).HasField("clock_offset")
            assert (await clocks(caller)).verdict == hub_pb2.Diagnosis.VERDICT_WARNING
        await opened.close()


def shown(at: float) -> timestamp_pb2.Timestamp:
    return timestamp_pb2.Timestamp(seconds=int(at), nanos=int(at % 1 * 1e9))


async def clocks(caller: hubs.Caller) -> hub_pb2.Diagnosis:
    reply = await caller.hubs.DiagnoseHub(hub_service_pb2.DiagnoseHubRequest())
    (found,) = [one for one in reply.diagnoses if one.probe == "clock.agents"]
    return found  # type: ignore[no-any-return]  # the stubs do not say what a call returns
