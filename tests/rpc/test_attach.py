"""The Attach stream over a real server: how a sidecar comes, works, leaves and comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentcom.v1 import agent_pb2, agent_service_pb2_grpc, attach_pb2, task_pb2
from hub.core.holding import Holding
from hub.core.repo import Repo
from hub.core.task import State
from hub.engine.desk.roster import Roster
from hub.engine.script import queue
from hub.rpc.agents import AgentService
from hub.rpc.attach import Attach
from hub.store.lmdb import LmdbStore
from kit import errors, interceptors, principal, serving, status, validation
from tests.support.stage import Stage

PATIENCE_S = 10.0


def proto(holding: Holding) -> task_pb2.Holding:
    return task_pb2.Holding(task=f"tasks/{holding.task}", generation=holding.generation)


class Sidecar:
    """One raw stream: every message is written by hand."""

    def __init__(self, port: int, agent: str = "a1") -> None:
        self.agent = agent
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
        metadata = (("x-agent", agent),)
        self.call: Any = agent_service_pb2_grpc.AgentServiceStub(self.channel).Attach(metadata=metadata)
        self.seq = 0
        self.ack = 0

    async def send(self, **fields: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.call.write(attach_pb2.AttachRequest(ack=self.ack, **fields))

    async def sequenced(self, **fields: Any) -> int:
        self.seq += 1
        await self.send(seq=self.seq, **fields)
        return self.seq

    async def hello(
        self,
        *holdings: Holding,
        slots: int = 1,
        session: str = "",
        passed: bool = True,
        features: tuple[str, ...] = (),
        **offer: Any,
    ) -> None:
        await self.send(
            hello=attach_pb2.Hello(
                agent=f"agents/{self.agent}",
                session=session,
                holdings=[proto(one) for one in holdings],
                offer=agent_pb2.Offer(
                    executors=["shell"],
                    tiers=[task_pb2.TIER_TRIVIAL],
                    kinds=[task_pb2.TASK_KIND_WORK],
                    slots=slots,
                    **offer,
                ),
                self_test=agent_pb2.SelfTest(passed=passed),
                features=features,
            )
        )

    async def welcome(self, *holdings: Holding, **given: Any) -> attach_pb2.Welcome:
        await self.hello(*holdings, **given)
        return (await self.next("welcome")).welcome

    async def heartbeat(self, *holdings: Holding, **fields: Any) -> attach_pb2.Desired:
        await self.send(heartbeat=attach_pb2.Heartbeat(holdings=[proto(one) for one in holdings], **fields))
        return (await self.next("desired")).desired

    async def accepted(self, holding: Holding) -> int:
        return await self.report(holding, accepted=attach_pb2.Accepted())

    async def completed(self, holding: Holding, summary: str = "done") -> int:
        completed = attach_pb2.Completed(result=task_pb2.Result(summary=summary))
        return await self.report(holding, completed=completed)

    async def report(self, holding: Holding, **outcome: Any) -> int:
        return await self.sequenced(report=attach_pb2.Report(holding=proto(holding), **outcome))

    async def any(self) -> attach_pb2.AttachResponse:
        async with asyncio.timeout(PATIENCE_S):
            message = await self.call.read()
        assert message is not grpc.aio.EOF, f"the stream ended: {await self.call.code()} {await self.call.details()}"
        self.ack = max(self.ack, message.seq)
        return message  # type: ignore[no-any-return]  # the stubs do not say what a call returns

    async def next(self, kind: str) -> attach_pb2.AttachResponse:
        while (message := await self.any()).WhichOneof("body") != kind:
            pass
        return message

    async def assigned(self) -> Holding:
        told = (await self.next("assign")).assign.holding
        return Holding(told.task.removeprefix("tasks/"), told.generation)

    async def acked(self, seq: int) -> None:
        while (await self.any()).ack < seq:
            pass

    async def ended(self) -> grpc.StatusCode:
        """The status that the stream ends with; whatever still comes is skipped."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            return await self.call.code()  # type: ignore[no-any-return]  # the stubs do not say what a call returns

    async def problem(self) -> errors.Problem:
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return status.from_rpc_error(error)
        raise AssertionError(f"the stream ended with {await self.call.code()}")

    async def lose(self) -> None:
        """Vanish, as a killed process does."""
        self.call.cancel()
        await self.channel.close()


class Theatre:
    """A stage with a server before it."""

    def __init__(self, stage: Stage, port: int) -> None:
        self.stage = stage
        self.port = port
        self._sidecars: list[Sidecar] = []

    async def sidecar(self, agent: str = "a1") -> Sidecar:
        if self.stage.see(lambda reader: reader.agents.get(agent)) is None:
            await self.stage.enrol(agent)
        self._sidecars.append(Sidecar(self.port, agent))
        return self._sidecars[-1]

    async def gone(self, agent: str = "a1") -> None:
        """Wait until the hub has noticed that no stream of this agent is open."""
        async with asyncio.timeout(PATIENCE_S):
            while (seat := self.stage.dispatcher.fleet.get(agent)) is not None and seat.online:
                await self.stage.sweep.wake.wait()
                self.stage.sweep.wake.clear()

    async def close(self) -> None:
        for sidecar in self._sidecars:
            await sidecar.lose()


@contextlib.asynccontextmanager
async def theatre(stage: Stage) -> AsyncIterator[Theatre]:
    def authenticate(context: Any, _method: str) -> principal.Principal:
        agent = dict(context.invocation_metadata()).get("x-agent")
        return principal.Principal(name=f"tokens/{agent}", scope="agent", agent=agent)

    attach = Attach(stage.sessions, stage.worker, stage.tails, version="test")
    server = serving.Server(services=["agentcom.v1.AgentService"], interceptors=[interceptors.Gate(authenticate)])
    roster = Roster(stage.ctx, stage.dispatcher.fleet, stage.sessions)
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(roster, attach.serve), server.grpc)
    port = await server.start("127.0.0.1:0")
    made = Theatre(stage, port)
    try:
        yield made
    finally:
        await made.close()
        stage.sessions.shut_down()
        await server.grpc.stop(1.0)
        await stage.close()


@pytest.fixture
async def house() -> AsyncIterator[Theatre]:
    async with theatre(Stage()) as made:
        yield made


async def test_a_task_goes_down_is_accepted_and_its_completion_is_acked(house: Theatre) -> None:
    sidecar = await house.sidecar()
    welcome = await sidecar.welcome()
    assert not welcome.resumed and welcome.session and welcome.version == "test"
    assert welcome.lease_duration.ToTimedelta().total_seconds() == 30.0
    task = await house.stage.submit()
    holding = await sidecar.assigned()
    assert holding == Holding(task, 1)
    await sidecar.acked(await sidecar.accepted(holding))
    assert house.stage.state(task) is State.RUNNING
    await sidecar.acked(await sidecar.completed(holding))
    assert house.stage.state(task) is State.SUCCEEDED
    assert house.stage.ctx.figures.completed == 1


async def test_the_assignment_carries_the_contract(house: Theatre) -> None:
    sidecar = await house.sidecar()
    await sidecar.welcome()
    await house.stage.submit(labels={"team": "red"}, run_timeout_s=77.0)
    assign = (await sidecar.next("assign")).assign
    assert assign.spec.title == "a task"
    assert assign.spec.labels["team"] == "red"
    assert assign.spec.run_timeout.seconds == 77
    assert assign.HasField("assign_time")
    assert not assign.HasField("last_failure")


async def test_a_task_that_waits_comes_with_the_commit_of_the_completion_before_it(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    first, second = await stage.submit(), await stage.submit()
    holding = await sidecar.assigned()
    assert (holding.task, stage.state(second)) == (first, State.QUEUED)
    commits = stage.store.facts().writes
    seq = await sidecar.completed(holding)
    message = await sidecar.next("assign")
    assert message.assign.holding.task == f"tasks/{second}"
    if message.ack < seq:
        await sidecar.acked(seq)
    assert stage.store.facts().writes == commits + 1


async def test_hello_must_be_first(house: Theatre) -> None:
    sidecar = await house.sidecar()
    await sidecar.send(heartbeat=attach_pb2.Heartbeat())
    assert (await sidecar.problem()).reason == "PROTOCOL"


async def test_hello_must_be_only_first(house: Theatre) -> None:
    sidecar = await house.sidecar()
    await sidecar.welcome()
    await sidecar.hello()
    assert (await sidecar.problem()).reason == "PROTOCOL"


async def test_an_agent_speaks_only_for_itself(house: Theatre) -> None:
    await house.stage.enrol("a2")
    sidecar = await house.sidecar("a1")
    sidecar.agent = "a2"
    await sidecar.hello()
    problem = await sidecar.problem()
    assert isinstance(problem, errors.Forbidden)


async def test_an_unknown_agent_is_not_found(house: Theatre) -> None:
    sidecar = Sidecar(house.port, "ghost")
    await sidecar.hello()
    assert isinstance(await sidecar.problem(), errors.NotFound)
    await sidecar.lose()


async def test_a_gap_in_the_numbers_ends_the_session(house: Theatre) -> None:
    sidecar = await house.sidecar()
    await sidecar.welcome()
    await house.stage.submit()
    holding = await sidecar.assigned()
    sidecar.seq = 5
    await sidecar.accepted(holding)
    problem = await sidecar.problem()
    assert (type(problem), problem.reason) == (errors.Conflict, "SESSION_GAP")


async def test_a_report_without_a_number_breaks_the_protocol(house: Theatre) -> None:
    sidecar = await house.sidecar()
    await sidecar.welcome()
    await sidecar.send(report=attach_pb2.Report(holding=proto(Holding("0" * 20, 1)), accepted=attach_pb2.Accepted()))
    assert (await sidecar.problem()).reason == "PROTOCOL"


async def test_an_ack_of_what_was_never_sent_ends_the_session(house: Theatre) -> None:
    sidecar = await house.sidecar()
    await sidecar.welcome()
    sidecar.ack = 9
    await sidecar.send(heartbeat=attach_pb2.Heartbeat())
    assert (await sidecar.problem()).reason == "SESSION_GAP"


async def test_a_sidecar_that_lost_its_stream_resumes_and_nothing_is_lost(house: Theatre) -> None:
    first = await house.sidecar()
    session = (await first.welcome()).session
    await house.stage.submit()
    holding = await first.assigned()
    first.ack = 0  # it never applied the assignment
    await first.lose()
    await house.gone()
    second = await house.sidecar()
    welcome = await second.welcome(session=session)
    assert welcome.resumed
    assert await second.assigned() == holding
    await second.acked(await second.completed(holding))
    assert house.stage.task(holding.task).attempts_used == 0
    assert house.stage.events(f"tasks/{holding.task}").count("task.assigned") == 1


async def test_a_report_whose_ack_was_lost_is_taken_once(house: Theatre) -> None:
    first = await house.sidecar()
    session = (await first.welcome()).session
    await house.stage.submit()
    holding = await first.assigned()
    await first.acked(await first.completed(holding))
    await first.lose()
    await house.gone()
    second = await house.sidecar()
    second.ack = first.ack
    welcome = await second.welcome(holding, session=session)
    assert welcome.resumed and welcome.received_seq == 1
    await second.acked(await second.completed(holding))
    assert house.stage.ctx.figures.completed == 1
    assert house.stage.events(f"tasks/{holding.task}").count("task.succeeded") == 1


async def test_the_same_report_on_a_new_session_is_taken_once_too(house: Theatre) -> None:
    first = await house.sidecar()
    await first.welcome()
    await house.stage.submit()
    holding = await first.assigned()
    await first.acked(await first.completed(holding))
    await first.lose()
    await house.gone()
    second = await house.sidecar()
    assert not (await second.welcome(holding)).resumed
    await second.acked(await second.completed(holding))
    assert house.stage.ctx.figures.completed == 1
    assert house.stage.ctx.figures.fenced == 0


async def test_another_process_of_the_same_name_sends_the_first_away_for_good(house: Theatre) -> None:
    first, second = await house.sidecar(), await house.sidecar()
    await first.welcome()
    await second.welcome()
    goaway = (await first.next("goaway")).goaway
    assert goaway.reason == "SUPERSEDED" and goaway.final
    assert await first.ended() is grpc.StatusCode.OK
    await house.stage.submit()
    assert await second.assigned()


async def test_a_reconnect_of_the_same_process_is_not_sent_away(house: Theatre) -> None:
    first, second = await house.sidecar(), await house.sidecar()
    session = (await first.welcome()).session
    assert (await second.welcome(session=session)).resumed
    async with asyncio.timeout(PATIENCE_S):
        assert await first.call.read() is grpc.aio.EOF
    await house.stage.submit()
    assert await second.assigned()


async def test_a_report_of_an_old_generation_is_fenced_and_revoked(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    task = await stage.submit()
    holding = await sidecar.assigned()
    await stage.do(lambda txn: queue.cancel(txn, task, stage.clock.now(), actor="test"))
    assert (await sidecar.next("revoke")).revoke.reason == "CANCELLED"
    await stage.do(lambda txn: queue.revive(txn, task, stage.clock.now(), actor="test"))
    await stage.dispatch()
    again = await sidecar.assigned()
    assert again.generation == 2
    await sidecar.completed(holding)
    revoke = (await sidecar.next("revoke")).revoke
    assert (revoke.holding, revoke.reason) == (proto(holding), "FENCED")
    assert stage.state(task) is State.ASSIGNED
    assert stage.ctx.figures.fenced == 1
    assert "task.fenced" in stage.events(f"tasks/{task}")


async def test_cancelling_a_task_revokes_it_at_its_agent(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    task = await stage.submit()
    holding = await sidecar.assigned()
    await sidecar.acked(await sidecar.accepted(holding))
    await stage.do(lambda txn: queue.cancel(txn, task, stage.clock.now(), actor="test"))
    revoke = (await sidecar.next("revoke")).revoke
    assert (revoke.holding, revoke.reason) == (proto(holding), "CANCELLED")
    assert not (await sidecar.heartbeat(holding)).holdings


async def test_goodbye_gives_back_what_is_held_at_once(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    task = await stage.submit()
    holding = await sidecar.assigned()
    await sidecar.acked(await sidecar.accepted(holding))
    seq = await sidecar.sequenced(goodbye=attach_pb2.Goodbye(reason="upgrade"))
    await sidecar.acked(seq)
    assert await sidecar.ended() is grpc.StatusCode.OK
    assert stage.state(task) is State.QUEUED
    assert stage.task(task).attempts_used == 0
    assert stage.sessions.get("a1") is None


async def test_a_lost_stream_keeps_its_holdings_for_one_lease_and_then_returns_them(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    task = await stage.submit()
    holding = await sidecar.assigned()
    await sidecar.acked(await sidecar.accepted(holding))
    await stage.pass_time(20.0)
    await sidecar.heartbeat(holding)
    await sidecar.lose()
    await house.gone()
    await stage.pass_time(29.0)
    assert stage.state(task) is State.RUNNING
    await stage.pass_time(1.0)
    assert stage.state(task) is State.QUEUED
    assert stage.task(task).attempts_used == 0
    assert stage.task(task).killed_agents == ("a1",)
    assert "agent.detached" in stage.events("agents/a1")


async def test_a_slow_reader_is_cut_off_and_can_come_back() -> None:
    async with theatre(Stage(outbox_max=4)) as house:
        stage = house.stage
        sidecar = await house.sidecar()
        session = (await sidecar.welcome(slots=8)).session
        tasks = [await stage.submit() for _ in range(6)]
        assert isinstance(await sidecar.problem(), errors.Exhausted)
        await house.gone()
        again = await house.sidecar()
        welcome = await again.welcome(session=session, slots=8)
        assert welcome.resumed
        got = {await again.assigned() for _ in range(4)}
        await again.send(heartbeat=attach_pb2.Heartbeat(holdings=[proto(one) for one in got]))
        got |= {await again.assigned() for _ in range(2)}
        assert {holding.task for holding in got} == set(tasks)


async def test_a_stream_that_is_cut_during_its_first_write_ends_with_its_status(house: Theatre) -> None:
    open_ = house.stage.sessions.open

    async def cut(hello: Any, ack: int) -> Any:
        stream = await open_(hello, ack)
        stream.fail(errors.Exhausted("no", reason="SLOW_READER"))
        return stream

    house.stage.sessions.open = cut  # type: ignore[method-assign]  # put in the place of the real one
    sidecar = await house.sidecar()
    await sidecar.hello()
    assert (await sidecar.problem()).reason == "SLOW_READER"


async def test_a_reader_that_blocks_the_writer_is_cut_off() -> None:
    async with theatre(Stage(outbox_max=150)) as house:
        stage = house.stage
        sidecar = await house.sidecar()
        await sidecar.welcome(slots=256)
        for _ in range(151):  # ten megabytes: more than the wire and grpc take in for a reader that does not read
            await stage.submit(instructions="x" * 65_536)
        await house.gone()
        assert isinstance(await sidecar.problem(), errors.Exhausted)


async def test_nothing_is_acked_before_its_commit(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    task = await stage.submit()
    holding = await sidecar.assigned()
    write, gate = stage.store.write, asyncio.Event()

    async def slow(fn: Any, *, essential: bool = False) -> Any:
        await gate.wait()
        return await write(fn, essential=essential)

    stage.store.write = slow  # type: ignore[method-assign]  # put in the place of the real one
    seq = await sidecar.completed(holding)
    await sidecar.send(heartbeat=attach_pb2.Heartbeat(holdings=[proto(holding)]))
    answer = await sidecar.next("desired")  # the report was read before it, and is not stored
    assert answer.ack < seq
    assert [one.task for one in answer.desired.holdings] == [f"tasks/{task}"]
    gate.set()
    await sidecar.acked(seq)
    assert stage.state(task) is State.SUCCEEDED


async def test_a_rejected_task_goes_to_another_agent_at_no_cost(house: Theatre) -> None:
    stage = house.stage
    first, second = await house.sidecar("a1"), await house.sidecar("a2")
    await first.welcome()
    task = await stage.submit()
    holding = await first.assigned()
    await second.welcome()
    await first.acked(await first.report(holding, rejected=attach_pb2.Rejected(reason="DISK_LOW", message="no room")))
    await stage.dispatch()
    assert await second.assigned() == Holding(task, 2)
    assert stage.task(task).attempts_used == 0


async def test_a_failure_is_kept_with_its_evidence_and_told_to_the_next_attempt(house: Theatre) -> None:
    stage = house.stage
    await stage.do(lambda txn: txn.repos.put(Repo(id="r", url="/srv/r.git", default_branch="trunk")))
    sidecar = await house.sidecar()
    await sidecar.welcome()
    task = await stage.submit(repo="r")
    holding = await sidecar.assigned()
    wip_ref = f"refs/agentcom/wip/{task}/1"
    failed = attach_pb2.Failed(
        failure=task_pb2.Failure(reason="CHECK_FAILED", message="red", attribution=task_pb2.ATTRIBUTION_TASK),
        receipts=[task_pb2.Receipt(check="unit", exit_code=1, verdict=task_pb2.Receipt.VERDICT_FAIL)],
        artifacts=[task_pb2.Artifact(id="log", content=b"trace")],
        wip_ref=wip_ref,
    )
    await sidecar.acked(await sidecar.report(holding, failed=failed))
    attempt = stage.see(lambda reader: reader.attempt(task, 1))
    assert attempt is not None and attempt.charged and attempt.receipts[0].check == "unit"
    assert stage.see(lambda reader: reader.artifact(task, 1, "log")) == b"trace"
    assert stage.ctx.figures.failed == 1
    await stage.dispatch()
    assign = (await sidecar.next("assign")).assign
    assert (assign.holding.generation, assign.attempts_used) == (2, 1)
    assert (assign.last_failure.reason, assign.wip_ref) == ("CHECK_FAILED", wip_ref)
    assert (assign.repo.name, assign.repo.url, assign.repo.default_branch) == ("repos/r", "/srv/r.git", "trunk")


async def test_progress_and_load_are_seen_where_agents_are_shown(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    await stage.submit()
    holding = await sidecar.assigned()
    await sidecar.acked(await sidecar.accepted(holding))
    progress = agent_pb2.Progress(phase="checks", commits=1, tokens=7)
    test = agent_pb2.SelfTest(passed=True, findings=[agent_pb2.SelfTest.Finding(probe="git", passed=True)])
    await sidecar.heartbeat(holding, progress=[progress], load=agent_pb2.Load(cpu=0.5), self_test=test)
    view = Roster(stage.ctx, stage.dispatcher.fleet, stage.sessions).get("a1")
    assert (view.progress[0].phase, view.progress[0].tokens) == ("checks", 7)
    assert view.session is not None and view.session.load is not None and view.session.load.cpu == 0.5
    assert view.session.self_test is not None and view.session.self_test.findings[0].probe == "git"


async def test_a_report_that_breaks_the_contract_fails_its_holding_and_not_the_stream(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    task = await stage.submit()
    holding = await sidecar.assigned()
    artifact = task_pb2.Artifact(id="log", content=b"x" * (256 * 1024 + 1))
    result = task_pb2.Result(summary="big", artifacts=[artifact])
    await sidecar.acked(await sidecar.report(holding, completed=attach_pb2.Completed(result=result)))
    failure = stage.task(task).failure
    assert failure is not None and failure.reason == "REPORT_INVALID"
    assert stage.task(task).attempts_used == 0
    assert validation.violation_counts


async def test_a_heartbeat_that_breaks_the_contract_ends_the_stream(house: Theatre) -> None:
    sidecar = await house.sidecar()
    await sidecar.welcome()
    await sidecar.send(heartbeat=attach_pb2.Heartbeat(holdings=[task_pb2.Holding(task="nonsense", generation=1)]))
    assert isinstance(await sidecar.problem(), errors.Invalid)


async def test_the_hub_says_goaway_when_it_shuts_down(house: Theatre) -> None:
    sidecar = await house.sidecar()
    await sidecar.welcome()
    house.stage.sessions.shut_down()
    goaway = (await sidecar.next("goaway")).goaway
    assert goaway.reason == "SHUTDOWN" and not goaway.final
    assert await sidecar.ended() is grpc.StatusCode.OK


async def test_a_deleted_agent_is_sent_away_for_good(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    roster = Roster(stage.ctx, stage.dispatcher.fleet, stage.sessions)
    await roster.delete("a1", actor="test", etag="")
    goaway = (await sidecar.next("goaway")).goaway
    assert goaway.reason == "DELETED" and goaway.final


async def test_a_hub_that_restarted_takes_holdings_over_at_the_same_generation(tmp_path: Path) -> None:
    async with theatre(Stage(LmdbStore.open(tmp_path / "store"))) as house:
        sidecar = await house.sidecar()
        session = (await sidecar.welcome(slots=3)).session
        ids = [await house.stage.submit() for _ in range(3)]
        held = [await sidecar.assigned() for _ in range(3)]
        for holding in held[:2]:
            await sidecar.acked(await sidecar.accepted(holding))
    async with theatre(Stage(LmdbStore.open(tmp_path / "store"))) as house:
        stage = house.stage
        await stage.pass_time(20.0)
        assert [stage.state(id) for id in ids] == [State.RUNNING, State.RUNNING, State.ASSIGNED]
        sidecar = await house.sidecar()
        welcome = await sidecar.welcome(*held[:2], slots=3, session=session)
        assert not welcome.resumed
        assert list(welcome.holdings) == [proto(one) for one in held[:2]]
        assert stage.ctx.figures.adopted == 2
        assert await sidecar.assigned() == held[2]  # it never got that far: sent again at the same generation
        for holding in held:
            await sidecar.acked(await sidecar.completed(holding))
        assert [stage.task(id).generation for id in ids] == [1, 1, 1]
        assert stage.ctx.figures.lost == 0


async def test_a_restarted_hub_lets_no_lease_pass_before_one_lease_length(tmp_path: Path) -> None:
    async with theatre(Stage(LmdbStore.open(tmp_path / "store"))) as house:
        sidecar = await house.sidecar()
        await sidecar.welcome()
        task = await house.stage.submit(start_timeout_s=3600.0)
        await sidecar.acked(await sidecar.accepted(await sidecar.assigned()))
    async with theatre(Stage(LmdbStore.open(tmp_path / "store"))) as house:
        await house.stage.pass_time(29.0)
        assert house.stage.state(task) is State.RUNNING
        await house.stage.pass_time(1.0)
        assert house.stage.state(task) is State.QUEUED


async def test_what_a_sidecar_brings_and_is_not_its_own_is_revoked(house: Theatre) -> None:
    sidecar = await house.sidecar()
    stranger = Holding("0" * 20, 3)
    welcome = await sidecar.welcome(stranger)
    assert not welcome.holdings
    revoke = (await sidecar.next("revoke")).revoke
    assert (revoke.holding, revoke.reason) == (proto(stranger), "UNKNOWN")


async def test_output_flows_only_while_somebody_watches(house: Theatre) -> None:
    stage = house.stage
    sidecar = await house.sidecar()
    await sidecar.welcome()
    task = await stage.submit()
    holding = await sidecar.assigned()
    await sidecar.acked(await sidecar.accepted(holding))
    assert not (await sidecar.heartbeat(holding)).tail
    async with contextlib.aclosing(stage.tails.follow(task)) as pieces:
        watching = asyncio.ensure_future(anext(pieces))
        assert list((await sidecar.next("desired")).desired.tail) == [proto(holding)]
        await sidecar.send(log=attach_pb2.LogChunk(holding=proto(holding), text="hello", dropped_bytes=3))
        piece = await watching
        assert (piece.text, piece.dropped_bytes, piece.generation, piece.end) == ("hello", 3, 1, False)
        await sidecar.completed(holding)
        assert (await anext(pieces)).end


def numbered(seq: int, holding: Holding, summary: str = "done") -> attach_pb2.AttachRequest:
    completed = attach_pb2.Completed(result=task_pb2.Result(summary=summary))
    return attach_pb2.AttachRequest(seq=seq, report=attach_pb2.Report(holding=proto(holding), completed=completed))


async def test_assignments_of_one_commit_travel_as_one_to_a_sidecar_that_knows_how(house: Theatre) -> None:
    tasks = [await house.stage.submit() for _ in range(3)]
    sidecar = await house.sidecar()
    welcome = await sidecar.welcome(slots=3, features=("batch",))
    assert list(welcome.features) == ["batch"]
    await house.stage.dispatch()
    batch = (await sidecar.next("batch")).batch.messages
    assert [message.assign.holding.task for message in batch] == [f"tasks/{task}" for task in tasks]
    assert [message.seq for message in batch] == [1, 2, 3]


async def test_a_sidecar_that_does_not_know_batches_gets_none(house: Theatre) -> None:
    tasks = [await house.stage.submit() for _ in range(3)]
    sidecar = await house.sidecar()
    await sidecar.welcome(slots=3)
    await house.stage.dispatch()
    assert [(await sidecar.assigned()).task for _ in tasks] == tasks


async def test_reports_that_travel_as_one_are_taken_in_their_order(house: Theatre) -> None:
    tasks = [await house.stage.submit() for _ in range(2)]
    sidecar = await house.sidecar()
    await sidecar.welcome(slots=2)
    await house.stage.dispatch()
    held = [await sidecar.assigned() for _ in tasks]
    messages = [numbered(seq, holding) for seq, holding in enumerate(held, start=1)]
    await sidecar.send(batch=attach_pb2.AttachRequestBatch(messages=messages))
    await sidecar.acked(2)
    assert [house.stage.state(task) for task in tasks] == [State.SUCCEEDED] * 2


async def test_a_report_of_a_batch_that_breaks_the_contract_fails_alone(house: Theatre) -> None:
    tasks = [await house.stage.submit() for _ in range(2)]
    sidecar = await house.sidecar()
    await sidecar.welcome(slots=2)
    await house.stage.dispatch()
    bad, good = [await sidecar.assigned() for _ in tasks]
    messages = [numbered(1, bad, "x" * 5000), numbered(2, good)]
    await sidecar.send(batch=attach_pb2.AttachRequestBatch(messages=messages))
    await sidecar.acked(2)
    assert house.stage.state(good.task) is State.SUCCEEDED
    failure = house.stage.task(bad.task).failure
    assert failure is not None and failure.reason == "REPORT_INVALID"


@pytest.mark.parametrize("inner", ["hello", "batch"])
async def test_a_batch_holds_neither_hello_nor_batch(house: Theatre, inner: str) -> None:
    sidecar = await house.sidecar()
    await sidecar.welcome()
    hello = attach_pb2.Hello(agent="agents/a1", offer=agent_pb2.Offer(slots=1))
    message = attach_pb2.AttachRequest(hello=hello)
    if inner == "batch":
        message = attach_pb2.AttachRequest(batch=attach_pb2.AttachRequestBatch(messages=[attach_pb2.AttachRequest()]))
    await sidecar.send(batch=attach_pb2.AttachRequestBatch(messages=[message]))
    problem = await sidecar.problem()
    assert isinstance(problem, errors.Invalid)
    assert [violation.field for violation in problem.violations] == [inner]
