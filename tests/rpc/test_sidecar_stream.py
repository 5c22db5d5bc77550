"""A sidecar's session against a scripted hub: what is lost comes back, what is said twice is done once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agentcom.v1 import agent_pb2, attach_pb2, task_pb2
from kit import channel, errors, ledger
from kit.clock import ManualClock
from sidecar.core.assignment import Done
from sidecar.core.offer import Offer
from sidecar.wire import stream
from sidecar.wire.journal import Journal
from sidecar.wire.session import End, Session, SessionSettings
from tests.support import attach
from tests.support.attach import PATIENCE_S, Hands, Hub, Line, holding, proto, unavailable

SETTINGS = SessionSettings(
    agent="builder",
    offer=Offer(slots=2, executors=("shell",), tiers=("trivial",), kinds=("work", "verify", "merge")),
    version="1",
    host="here",
    reconnect_base_s=0.001,
    reconnect_cap_s=0.002,
    healthy_s=0.0,
    welcome_timeout_s=PATIENCE_S,
    drain_timeout_s=PATIENCE_S,
    stop_timeout_s=PATIENCE_S,
    farewell_timeout_s=PATIENCE_S,
)


@dataclass
class Rig:
    """A sidecar in this process."""

    hub: Hub
    port: int
    folder: Path
    rng: random.Random
    #: What a knock at the hub's door finds.
    is_nobody_there: bool = False
    hands: Hands = field(default_factory=Hands)
    clock: ManualClock = field(default_factory=ManualClock)

    @contextlib.asynccontextmanager
    async def sidecar(self, settings: SessionSettings = SETTINGS) -> AsyncIterator[Sidecar]:
        """One life of the sidecar on this rig's folder. Leaving it is kill -9 as far as the session can tell."""
        journal = Journal(self.folder)
        wire = attach.connect(self.port)
        try:
            session = Session(
                settings,
                dial=lambda: attach.connect(self.port),
                metadata=lambda: channel.token_metadata("act_x", channel.Address("127.0.0.1", self.port)),
                worker=self.hands,
                journal=journal,
                load=lambda held: agent_pb2.Load(holdings=held),
                time=self.clock,
                rng=self.rng,
                is_nobody_there=self.knock,
            )
            task = asyncio.create_task(session.run())
            try:
                yield Sidecar(session, task)
            finally:
                task.cancel()
                await asyncio.wait([task], timeout=PATIENCE_S)
                if not task.cancelled():
                    task.result()
        finally:
            await wire.close()
            journal.close()

    async def knock(self) -> bool:
        return self.is_nobody_there


@dataclass
class Sidecar:
    session: Session
    task: asyncio.Task[End]

    async def end(self) -> End:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(self.task)


@pytest.fixture
async def rig(tmp_path: Path, rng: random.Random) -> AsyncIterator[Rig]:
    hub = Hub()
    async with attach.serve(hub) as port:
        yield Rig(hub, port, tmp_path, rng)


async def attached(rig: Rig, session: str = "s1", **welcome) -> Line:
    line = await rig.hub.line()
    await line.next("hello")
    line.welcome(session, **welcome)
    return line


async def test_hello_comes_first_and_says_who_is_there_and_what_it_offers(rig):
    async with rig.sidecar():
        line = await rig.hub.line()
        hello = (await line.next("hello")).hello
        assert hello.agent == "agents/builder"
        assert hello.session == ""
        assert (hello.offer.slots, list(hello.offer.executors)) == (2, ["shell"])
        assert list(hello.offer.kinds) == [task_pb2.TASK_KIND_WORK, task_pb2.TASK_KIND_VERIFY, task_pb2.TASK_KIND_MERGE]
        assert hello.self_test.passed
        assert rig.hub.metadata[0]["authorization"] == "Bearer act_x"


async def test_an_assignment_is_journaled_then_accepted_and_acked_then_its_outcome_is_told(rig):
    task = holding(1)
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        seq = line.assign(task)
        message = await line.next("report")
        assert message.report.WhichOneof("outcome") == "accepted"
        assert message.seq == 1
        assert [entry.holding for entry in Journal(rig.folder).still_open()] == [task]
        if message.ack < seq:
            await line.ack_of(seq)
        await rig.hands.begun()
        rig.hands.finish(task)
        message = await line.next("report")
        assert message.seq == 2
        assert message.report.completed.result.summary == f"did {task}"
        assert task in sidecar.session.holdings.slots, "it is held until the outcome is acked"
        line.send(ack=2)
        line.assign(holding(2))
        await line.report()
        assert task not in sidecar.session.holdings.slots
        assert [entry.holding for entry in Journal(rig.folder).still_open()] == [holding(2)]


async def test_an_outcome_is_in_the_journal_before_it_is_told(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(task)
        await line.report()
        await rig.hands.begun()
        rig.hands.finish(task)
        assert (await line.report()).completed.result.summary
        (left,) = Journal(rig.folder).still_open()
        assert left.outcome == Done(summary=f"did {task}")


async def test_a_lost_stream_is_resumed_and_what_was_not_acked_is_sent_again_under_its_number(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(task)
        await line.report()
        await rig.hands.begun()
        rig.hands.finish(task)
        first = await line.next("report")
        line.close()
        line = await rig.hub.line()
        hello = await line.next("hello")
        assert hello.hello.session == "s1"
        assert hello.ack == 1
        assert [h.task for h in hello.hello.holdings] == [f"tasks/{task.task}"]
        line.welcome("s1", resumed=True, holdings=[task], received=1)
        again = await line.next("report")
        assert (again.seq, again.report) == (first.seq, first.report)


async def test_what_the_hub_stored_before_the_stream_broke_is_not_sent_again(rig):
    task = holding(1)
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        line.assign(task)
        await line.report()
        await rig.hands.begun()
        rig.hands.finish(task)
        await line.report()
        line.close()
        line = await rig.hub.line()
        await line.next("hello")
        line.welcome("s1", resumed=True, holdings=[], received=2)
        line.seq = 1
        line.assign(holding(2))
        report = await line.next("report")
        assert (report.seq, report.report.WhichOneof("outcome")) == (3, "accepted")
        assert task not in sidecar.session.holdings.slots


async def test_a_new_session_hears_every_unacked_outcome_again_from_number_one(rig):
    first, second = holding(1), holding(2)
    async with rig.sidecar():
        line = await attached(rig)
        for task in (first, second):
            line.assign(task)
            await line.report()
            await rig.hands.begun()
        rig.hands.finish(first)
        await line.report()
        line.fail(attach.unavailable())
        line = await attached(rig, "s2", holdings=[first, second])
        said = {(await line.next("report")).seq: None for _ in range(2)}
        assert sorted(said) == [1, 2]


async def test_running_work_goes_on_through_a_lost_stream(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(task)
        await line.report()
        _, control = await rig.hands.begun()
        line.fail(attach.unavailable())
        line = await attached(rig, "s2", holdings=[task])
        assert (await line.report()).WhichOneof("outcome") == "accepted", "a new session is told again"
        rig.hands.finish(task)
        assert (await line.report()).WhichOneof("outcome") == "completed"
        assert not control.stop.is_set()


async def test_a_gap_in_the_hubs_numbers_opens_a_new_session(rig):
    async with rig.sidecar():
        line = await attached(rig)
        line.seq = 5
        line.assign(holding(1))
        line = await rig.hub.line()
        hello = await line.next("hello")
        assert hello.hello.session == ""
        assert not hello.hello.holdings


async def test_a_session_that_the_hub_calls_broken_is_not_resumed(rig):
    async with rig.sidecar():
        line = await attached(rig)
        line.fail(ledger.Gap("message 3 came after 1"))
        line = await rig.hub.line()
        assert (await line.next("hello")).hello.session == ""


async def test_the_same_assignment_twice_is_done_once_and_accepted_again(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(task)
        assert (await line.report()).WhichOneof("outcome") == "accepted"
        await rig.hands.begun()
        line.assign(task)
        assert (await line.report()).WhichOneof("outcome") == "accepted"
        assert rig.hands.running == [task]


async def test_a_message_that_comes_again_after_a_resume_is_applied_once(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(task)
        await line.report()
        await rig.hands.begun()
        line.close()
        line = await attached(rig, "s1", resumed=True, holdings=[task], received=1)
        line.assign(task)  # number 1 again
        line.assign(holding(2))
        assert proto(holding(2)) == (await line.report()).holding
        assert rig.hands.running == [task, holding(2)] or rig.hands.running == [task]


async def test_a_revoked_holding_is_stopped_and_told_with_its_saved_work(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(task)
        await line.report()
        _, control = await rig.hands.begun()
        line.revoke(task, "CANCELLED")
        report = await line.report()
        assert control.stop.reason == "CANCELLED"
        assert report.failed.stopped
        assert report.failed.wip_ref == f"refs/agentcom/wip/{task.task}/1"


async def test_a_higher_generation_begins_only_after_the_older_one_has_ended(rig):
    old, new = holding(1, 1), holding(1, 2)
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(old)
        await line.report()
        await rig.hands.begun()
        line.assign(new)
        assignment, _ = await rig.hands.begun()
        assert assignment.holding == new
        assert rig.hands.history == [f"begin {old}", f"end {old}", f"begin {new}"]


async def test_an_older_generation_than_the_held_one_is_not_begun(rig):
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(holding(1, 3))
        await line.report()
        await rig.hands.begun()
        line.assign(holding(1, 2))
        line.assign(holding(2))
        assert (await line.report()).holding == proto(holding(2))
        assert holding(1, 2) not in rig.hands.running


async def test_what_the_welcome_does_not_readopt_is_stopped(rig):
    kept, lost = holding(1), holding(2)
    async with rig.sidecar():
        line = await attached(rig)
        controls = {}
        for task in (kept, lost):
            line.assign(task)
            await line.report()
            controls[task] = (await rig.hands.begun())[1]
        line.fail(attach.unavailable())
        line = await attached(rig, "s2", holdings=[kept])
        while (report := await line.report()).WhichOneof("outcome") != "failed":
            pass
        assert report.holding == proto(lost)
        assert controls[lost].stop.reason == "NOT_READOPTED"
        assert not controls[kept].stop.is_set()


async def test_work_assigned_after_a_desired_was_made_survives_that_desired(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig, heartbeat_s=0.05)
        line.assign(task)
        line.desired(next_s=0.05)  # made before the assignment, sent after it
        await line.report()
        _, control = await rig.hands.begun()
        for _ in range(3):
            beat = (await line.next("heartbeat")).heartbeat
            line.desired(*([task] if beat.holdings else []), next_s=0.05)
        assert not control.stop.is_set()


async def test_a_holding_that_two_desireds_leave_out_is_stopped_although_the_revoke_was_lost(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig, heartbeat_s=0.05)
        line.assign(task)
        await line.report()
        _, control = await rig.hands.begun()
        for _ in range(20):
            message = await line.next("heartbeat", "report")
            if message.WhichOneof("body") == "report":
                break
            line.desired(next_s=0.05)
        assert message.report.failed.stopped
        assert control.stop.reason == "NOT_DESIRED"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"kind": task_pb2.TASK_KIND_SURVEY}, "UNKNOWN_KIND"),
        ({"requirement": task_pb2.Requirement(executor="oracle")}, "UNKNOWN_EXECUTOR"),
        ({"tier": task_pb2.TIER_COMPLEX}, "UNKNOWN_EXECUTOR"),
    ],
)
async def test_what_it_cannot_do_is_refused_with_the_reason(rig, spec, reason):
    async with rig.sidecar():
        line = await attached(rig)
        line.assign(holding(1), **spec)
        report = await line.report()
        assert report.rejected.reason == reason
        assert report.rejected.message
        assert not Journal(rig.folder).still_open()


async def test_more_than_its_slots_is_refused(rig):
    async with rig.sidecar():
        line = await attached(rig)
        for number in (1, 2, 3):
            line.assign(holding(number))
        reports = [await line.report() for _ in range(3)]
        refused = [r for r in reports if r.WhichOneof("outcome") == "rejected"]
        assert [(r.holding, r.rejected.reason) for r in refused] == [(proto(holding(3)), "NO_SLOT")]


async def test_a_failing_self_test_is_told_and_work_is_refused(rig):
    rig.hands.verdict = attach.BAD
    async with rig.sidecar():
        line = await rig.hub.line()
        hello = (await line.next("hello")).hello
        assert not hello.self_test.passed
        assert hello.self_test.findings[0].message == "3 bytes free, free some"
        line.welcome()
        line.assign(holding(1))
        assert (await line.report()).rejected.reason == "SELF_TEST_FAILED"


async def test_a_self_test_that_begins_to_fail_is_told_at_once(rig):
    async with rig.sidecar(replace(SETTINGS, self_test_every_s=0.01)):
        line = await attached(rig)
        rig.hands.verdict = attach.BAD
        while not (beat := await line.next("heartbeat")).heartbeat.HasField("self_test"):
            pass
        assert not beat.heartbeat.self_test.passed


async def test_an_unwritable_journal_refuses_work_and_leaves_nothing_held(rig, monkeypatch):
    async with rig.sidecar() as sidecar:
        line = await attached(rig)

        async def full(*records):
            raise errors.Unavailable("no space left on device", reason="JOURNAL_FAILED")

        monkeypatch.setattr(sidecar.session.holdings._journal, "append", full)
        line.assign(holding(1))
        assert (await line.report()).rejected.reason == "JOURNAL_FAILED"
        assert len(sidecar.session.holdings.slots) == 0


async def test_a_result_outlives_both_processes(rig):
    done, open_ = holding(1), holding(2)
    async with rig.sidecar():
        line = await attached(rig)
        for task in (done, open_):
            line.assign(task)
            await line.report()
            await rig.hands.begun()
        rig.hands.finish(done, Done(summary="the answer", head_sha="abc"))
        await line.report()
    async with rig.sidecar():  # both were killed: a new process, and a hub that knows no session
        line = await rig.hub.line()
        hello = (await line.next("hello")).hello
        assert hello.session == ""
        assert {h.task for h in hello.holdings} == {f"tasks/{done.task}", f"tasks/{open_.task}"}
        line.welcome("s2", holdings=[done, open_])
        reports = {r.holding.task: r for r in [await line.report(), await line.report()]}
        assert reports[f"tasks/{done.task}"].completed.result.summary == "the answer"
        failed = reports[f"tasks/{open_.task}"].failed
        assert failed.stopped and failed.failure.attribution == task_pb2.ATTRIBUTION_AGENT
        assert rig.hands.recovered == [open_]
        line.send(ack=2)
        line.assign(holding(3))
        await line.report()
    assert [left.holding for left in Journal(rig.folder).still_open()] == [holding(3)]


async def test_without_a_word_from_the_hub_for_one_lease_all_work_is_stopped_and_the_stream_left(rig):
    task = holding(1)
    async with rig.sidecar() as sidecar:
        line = await attached(rig, lease_s=30)
        line.assign(task)
        await line.report()
        _, control = await rig.hands.begun()
        rig.clock.advance(29.9)
        sidecar.session.check_lease()
        assert not control.stop.is_set()
        rig.clock.advance(0.2)
        sidecar.session.check_lease()
        assert control.stop.reason == "LEASE_RAN_OUT"
        line = await attached(rig, "s2")
        while (report := await line.report()).WhichOneof("outcome") != "failed":
            pass
        assert report.failed.stopped


async def test_where_no_hub_is_the_work_goes_on_for_none_can_have_given_it_away(rig):
    async with rig.sidecar() as sidecar:
        line = await attached(rig, lease_s=30)
        line.assign(holding(1))
        await line.report()
        _, control = await rig.hands.begun()
        rig.is_nobody_there = True
        for _ in range(3):
            rig.clock.advance(30)
            await sidecar.session.look_for_hub()
            sidecar.session.check_lease()
            assert not control.stop.is_set()
        rig.is_nobody_there = False
        rig.clock.advance(30)
        await sidecar.session.look_for_hub()
        sidecar.session.check_lease()
        assert control.stop.reason == "LEASE_RAN_OUT", "a hub that is there and silent may have given it away"


async def test_a_try_that_finds_nobody_counts_for_the_lease_so_that_a_hub_that_is_just_back_is_not_too_late(rig):
    async with rig.sidecar() as sidecar:
        line = await attached(rig, lease_s=30)
        line.assign(holding(1))
        await line.report()
        _, control = await rig.hands.begun()
        rig.clock.advance(29)
        rig.is_nobody_there = True
        line.fail(unavailable())
        line = await rig.hub.line()  # the next try: a hub is there again, and has not said anything yet
        rig.is_nobody_there = False
        rig.clock.advance(29)
        sidecar.session.check_lease()
        assert not control.stop.is_set()
        rig.clock.advance(2)
        sidecar.session.check_lease()
        assert control.stop.reason == "LEASE_RAN_OUT"


async def test_each_word_of_the_hub_renews_the_lease(rig):
    async with rig.sidecar() as sidecar:
        line = await attached(rig, lease_s=30)
        line.assign(holding(1))
        await line.report()
        _, control = await rig.hands.begun()
        rig.clock.advance(20)
        line.assign(holding(2))
        await line.report()
        rig.clock.advance(20)
        sidecar.session.check_lease()
        assert not control.stop.is_set()


async def test_a_final_goaway_ends_the_sidecar_and_stops_its_work(rig):
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        line.assign(holding(1))
        await line.report()
        _, control = await rig.hands.begun()
        line.goaway("SUPERSEDED", final=True)
        end = await sidecar.end()
        assert (end.reason, end.is_good) == ("SUPERSEDED", False)
        assert control.stop.reason == "SUPERSEDED"
    assert [left.outcome.stopped for left in Journal(rig.folder).still_open()] == [True]


async def test_a_goaway_that_is_not_final_is_followed_by_a_new_try(rig):
    async with rig.sidecar():
        line = await attached(rig)
        line.goaway("SHUTDOWN", delay_s=0.01)
        line.close()
        assert (await (await rig.hub.line()).next("hello")).hello.session == "s1"


@pytest.mark.parametrize("problem", [errors.Unauthenticated("who"), errors.NotFound("no such agent")])
async def test_a_refusal_before_the_first_welcome_ends_the_sidecar(rig, problem):
    async with rig.sidecar() as sidecar:
        (await rig.hub.line()).fail(problem)
        end = await sidecar.end()
        assert (end.reason, end.is_good) == (problem.reason, False)


async def test_a_refusal_after_a_welcome_is_tried_again(rig):
    async with rig.sidecar():
        line = await attached(rig)
        line.fail(errors.Unauthenticated("the store was restored from an old backup"))
        await (await rig.hub.line()).next("hello")


async def test_assignments_that_travel_as_one_are_each_taken(rig):
    tasks = [holding(1), holding(2)]
    async with rig.sidecar():
        line = await attached(rig)
        messages = [
            attach_pb2.AttachResponse(seq=seq, assign=attach.assign(task)) for seq, task in enumerate(tasks, start=1)
        ]
        line.send(batch=attach_pb2.AttachResponseBatch(messages=messages))
        reports = [await line.report() for _ in tasks]
        assert [report.holding for report in reports] == [proto(task) for task in tasks]
        assert {report.WhichOneof("outcome") for report in reports} == {"accepted"}


def outgoing(*, batched: bool) -> stream.Outgoing:
    made = stream.Outgoing(ack=lambda: 7, heartbeat=attach_pb2.Heartbeat, log=lambda: None)
    made.start(0, batched=batched)
    return made


def reports(count: int, text: str = "") -> list[tuple[int, attach_pb2.Report]]:
    failed = attach_pb2.Failed(failure=task_pb2.Failure(evidence=text))
    return [(seq, attach_pb2.Report(holding=proto(holding(seq)), failed=failed)) for seq in range(1, count + 1)]


async def test_reports_travel_as_one_when_the_hub_knows_how():
    out = outgoing(batched=True)
    out.say(reports(stream.BATCH_COUNT_MAX + 1))
    message = await out.next()
    assert [one.seq for one in message.batch.messages] == list(range(1, stream.BATCH_COUNT_MAX + 1))
    assert (message.seq, message.ack) == (0, 7)
    assert (await out.next()).seq == stream.BATCH_COUNT_MAX + 1


async def test_reports_travel_alone_when_the_hub_does_not():
    out = outgoing(batched=False)
    out.say(reports(2))
    assert [(await out.next()).seq for _ in range(2)] == [1, 2]


async def test_a_batch_stays_well_below_the_limit_of_the_wire():
    out = outgoing(batched=True)
    out.say(reports(3, "x" * (stream.BATCH_BYTES_MAX * 2 // 5)))
    assert [one.seq for one in (await out.next()).batch.messages] == [1, 2]
    assert (await out.next()).seq == 3


def welcome_of(version: str) -> attach_pb2.Welcome:
    return attach_pb2.Welcome(
        session="s1", heartbeat_interval=attach.seconds(60), lease_duration=attach.seconds(120), version=version
    )


async def test_hello_and_heartbeat_say_what_the_clock_shows(rig):
    async with rig.sidecar():
        line = await rig.hub.line()
        hello = (await line.next("hello")).hello
        assert hello.time.ToNanoseconds() == round(rig.clock.now() * 1e9)
        rig.clock.advance(5)
        line.send(welcome=attach_pb2.Welcome(session="s1", heartbeat_interval=attach.seconds(0.05)))
        heartbeat = (await line.next("heartbeat")).heartbeat
        assert heartbeat.time.ToNanoseconds() == round(rig.clock.now() * 1e9)


async def test_a_hub_that_is_too_far_away_is_left_and_looked_at_again(rig):
    settings = replace(SETTINGS, version="0.4.0")
    async with rig.sidecar(settings) as sidecar:
        line = await rig.hub.line()
        await line.next("hello")
        line.send(welcome=welcome_of("0.1.0"))
        line.assign(holding(1))
        await line.end()
        assert not rig.hands.running and not sidecar.task.done(), "it takes no work, and does not give up"


@pytest.mark.parametrize("hub", ["0.3.0", "0.5.1", "", "0.0.0+unpackaged"])
async def test_a_hub_of_the_next_minor_or_of_no_version_is_worked_with(rig, hub):
    async with rig.sidecar(replace(SETTINGS, version="0.4.0")):
        line = await rig.hub.line()
        await line.next("hello")
        line.send(welcome=welcome_of(hub))
        line.assign(holding(1))
        await rig.hands.begun()
