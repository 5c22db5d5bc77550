"""How a sidecar ends, and what a slow hub or a watcher costs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agentcom.v1 import attach_pb2, task_pb2
from kit import errors
from sidecar.core.assignment import Artifact, Done, Failure, NotDone, Receipt
from sidecar.core.session import State
from sidecar.core.tail import BUFFER_BYTES_MAX, CHUNK_BYTES_MAX
from sidecar.wire.journal import Journal
from sidecar.wire.stream import Outgoing
from tests.rpc.test_sidecar_stream import SETTINGS, attached
from tests.rpc.test_sidecar_stream import rig as rig  # the fixture
from tests.support import attach
from tests.support.attach import holding, proto


async def begun(rig, line, *tasks):
    controls = []
    for task in tasks:
        line.assign(task)
        await line.report()
        controls.append((await rig.hands.begun())[1])
    return controls


async def test_a_drain_finishes_what_is_held_refuses_more_and_says_goodbye(rig):
    task = holding(1)
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        (control,) = await begun(rig, line, task)
        sidecar.session.drain("SIGTERM")
        assert (await line.next("heartbeat")).heartbeat.draining
        line.assign(holding(2))
        assert (await line.report()).rejected.reason == "DRAINING"
        assert not control.stop.is_set()
        rig.hands.finish(task)
        assert (await line.next("report")).seq == 3
        line.send(ack=3)
        goodbye = await line.next("goodbye")
        assert goodbye.goodbye.reason == "SIGTERM"
        line.send(ack=goodbye.seq)
        end = await sidecar.end()
        assert (end.is_good, sidecar.session.state) == (True, State.STOPPED)


async def test_an_idle_drain_leaves_as_soon_as_the_hub_has_heard_everything(rig):
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        line.assign(holding(1), kind=task_pb2.TASK_KIND_SURVEY)
        rejection = await line.next("report")
        sidecar.session.drain("SIGTERM")
        line.send(ack=rejection.seq)
        goodbye = await line.next("goodbye")
        line.send(ack=goodbye.seq)
        assert (await sidecar.end()).is_good


async def test_a_second_signal_stops_what_is_held_and_tells_it(rig):
    task = holding(1)
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        (control,) = await begun(rig, line, task)
        sidecar.session.drain("SIGTERM")
        sidecar.session.halt("SIGTERM")
        report = await line.next("report")
        assert control.stop.reason == "DRAIN"
        assert report.report.failed.stopped
        line.send(ack=report.seq)
        await line.next("goodbye")
        line.close()
        assert (await sidecar.end()).is_good


async def test_a_drain_whose_time_is_over_stops_what_is_held(rig):
    async with rig.sidecar(replace(SETTINGS, drain_timeout_s=0.0)) as sidecar:
        line = await attached(rig)
        (control,) = await begun(rig, line, holding(1))
        sidecar.session.drain("SIGTERM")
        assert (await line.report()).failed.stopped
        assert control.stop.reason == "DRAIN"


async def test_a_drain_without_a_hub_ends_and_keeps_the_outcome_for_the_next_start(rig):
    task = holding(1)
    async with rig.sidecar(replace(SETTINGS, farewell_timeout_s=0.01)) as sidecar:
        line = await attached(rig)
        await begun(rig, line, task)
        rig.hands.finish(task)
        await line.report()
        sidecar.session.halt("SIGTERM")
        assert (await sidecar.end()).is_good
    assert [left.holding for left in Journal(rig.folder).still_open()] == [task]


async def test_a_sidecar_that_never_found_its_hub_drains_at_once(rig):
    rig.port = 1  # nobody listens there
    async with rig.sidecar() as sidecar:
        sidecar.session.drain("SIGTERM")
        assert (await sidecar.end()).is_good


async def test_output_travels_only_while_somebody_watches(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        (control,) = await begun(rig, line, task)
        control.output("unseen ")
        line.desired(task, tail=(task,))
        line.assign(holding(2))
        await line.report()
        control.output("seen ")
        log = (await line.next("log")).log
        assert (log.text, log.dropped_bytes, log.end) == ("seen ", 0, False)
        assert log.holding == proto(task)
        rig.hands.finish(task)
        while not (log := (await line.next("log")).log).end:
            pass


async def test_a_flood_of_output_is_bounded_and_the_loss_is_counted(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        (control,) = await begun(rig, line, task)
        line.desired(task, tail=(task,))
        line.assign(holding(2))
        await line.report()
        control.output("x" * (BUFFER_BYTES_MAX + 3 * CHUNK_BYTES_MAX))
        received, dropped = 0, 0
        while received + dropped < BUFFER_BYTES_MAX + 3 * CHUNK_BYTES_MAX:
            log = (await line.next("log")).log
            assert len(log.text) <= CHUNK_BYTES_MAX
            received, dropped = received + len(log.text), dropped + log.dropped_bytes
        assert (received, dropped) == (BUFFER_BYTES_MAX, 3 * CHUNK_BYTES_MAX)


async def test_a_hub_that_does_not_read_costs_no_more_than_one_heartbeat(rig):
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        line.reading.clear()
        for _ in range(1000):
            sidecar.session._conversation.beat()
        line.reading.set()
        line.assign(holding(1))
        await line.report()
        line.close()
        kinds = await line.end()
        assert kinds.count("heartbeat") <= 1


async def test_a_hub_that_never_answers_hello_is_left(rig):
    async with rig.sidecar(replace(SETTINGS, welcome_timeout_s=0.01)):
        await rig.hub.line()
        await attached(rig)


async def test_a_stream_without_a_welcome_first_is_left(rig):
    async with rig.sidecar():
        line = await rig.hub.line()
        line.assign(holding(1))
        await attached(rig)
        assert not rig.hands.running


async def test_nonsense_from_the_hub_ends_the_session_and_not_the_sidecar(rig):
    async with rig.sidecar():
        line = await attached(rig)
        line.sequenced(revoke={"holding": {"task": "tasks/../..", "generation": 1}})
        assert (await (await rig.hub.line()).next("hello")).hello.session == ""


async def test_a_report_is_cut_to_the_contract_and_one_that_cannot_be_is_replaced(rig):
    flood = Receipt(
        check="c",
        command_sha256="",
        base_sha="",
        head_sha="",
        tree_sha="",
        exit_code=1,
        duration_s=1.5,
        host="h" * 500,
        agent="agents/builder",
        started_at=1.0,
        verdict="fail",
        output_sha256="",
        output_tail="é" * 9000,
        phase="head",
    )
    wild = NotDone(
        failure=Failure(reason="CHECK_FAILED", message="m" * 5000, attribution="task", evidence="e" * 40_000),
        receipts=(flood,) * 150,
        artifacts=tuple(
            Artifact(id=f"a{n}", media_type="text/plain", content=b"x" * 300_000, size_bytes=300_000) for n in range(9)
        ),
    )
    async with rig.sidecar():
        line = await attached(rig)
        await begun(rig, line, holding(1), holding(2))
        rig.hands.finish(holding(1), wild)
        failed = (await line.report()).failed
        assert failed.failure.reason == "CHECK_FAILED"
        assert (len(failed.receipts), len(failed.artifacts)) == (100, 8)
        assert failed.artifacts[0].truncated
        rig.hands.finish(holding(2), Done(summary="x", head_sha="f" * 1000))
        assert (await line.report()).failed.failure.reason == "REPORT_INVALID"


async def test_a_crash_of_the_runner_is_a_failure_of_the_agent_and_not_of_the_sidecar(rig):
    task = holding(1)
    async with rig.sidecar():
        line = await attached(rig)
        await begun(rig, line, task)
        rig.hands._outcomes[task].set_exception(RuntimeError("bug"))
        assert (await line.report()).failed.failure.reason == "RUNNER_CRASHED"


async def test_a_full_disk_does_not_cost_a_result(rig, monkeypatch):
    task = holding(1)
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        await begun(rig, line, task)

        async def full(*records):
            raise errors.Unavailable("no space left on device", reason="JOURNAL_FAILED")

        monkeypatch.setattr(sidecar.session.holdings._journal, "append", full)
        rig.hands.finish(task)
        assert (await line.report()).completed.result.summary


async def test_a_holding_that_will_not_stop_is_abandoned_and_recovered_at_the_next_start(rig, monkeypatch):
    task = holding(1)
    never = asyncio.Event()

    async def deaf(assignment, control):
        await never.wait()

    monkeypatch.setattr(rig.hands, "run", deaf)
    async with rig.sidecar(replace(SETTINGS, stop_timeout_s=0.01, farewell_timeout_s=0.01)) as sidecar:
        line = await attached(rig)
        line.assign(task)
        await line.report()
        sidecar.session.halt("SIGTERM")
        assert (await sidecar.end()).is_good
    async with rig.sidecar():
        line = await attached(rig, "s2", holdings=[task])
        assert (await line.report()).failed.stopped
        assert rig.hands.recovered == [task]


async def test_a_finished_holding_that_is_revoked_is_told_no_more_after_a_restart(rig):
    task = holding(1)
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        await begun(rig, line, task)
        rig.hands.finish(task)
        await line.report()
        line.revoke(task)
        line.assign(holding(2))
        await line.report()
        assert task not in sidecar.session.holdings.slots
    assert attach.holding(1) not in [left.holding for left in Journal(rig.folder).still_open()]


class SlowJournal:
    """Holds back every append until the gate is opened."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self._append = journal.append
        monkeypatch.setattr(journal, "append", self.append)

    async def append(self, *records):
        self.entered.set()
        await self.gate.wait()
        await self._append(*records)


async def test_an_assignment_whose_journal_write_outlives_its_stream_is_begun(rig, monkeypatch):
    task = holding(1)
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        slow = SlowJournal(sidecar.session.holdings._journal, monkeypatch)
        line.assign(task)
        async with asyncio.timeout(attach.PATIENCE_S):
            await slow.entered.wait()
        sidecar.session._conversation.cut()
        line = await rig.hub.line()
        hello = await line.next("hello")
        assert hello.ack == 0, "what is not in the journal is not acked"
        slow.gate.set()
        line.welcome("s1", resumed=True, holdings=[task])
        line.assign(task)
        assert (await line.report()).WhichOneof("outcome") == "accepted"
        assert (await rig.hands.begun())[0].holding == task


async def test_the_end_of_a_stream_does_not_overtake_the_word_before_it(rig, monkeypatch):
    async with rig.sidecar() as sidecar:
        line = await attached(rig)
        slow = SlowJournal(sidecar.session.holdings._journal, monkeypatch)
        line.assign(holding(1))
        async with asyncio.timeout(attach.PATIENCE_S):
            await slow.entered.wait()
        line.goaway("DELETED", final=True)
        line.fail(errors.Unavailable("cut"))
        await line.end()
        slow.gate.set()
        assert (await sidecar.end()).reason == "DELETED"


async def test_nothing_but_hello_is_written_before_the_welcome():
    outgoing = Outgoing(ack=lambda: 7, heartbeat=attach_pb2.Heartbeat, log=lambda: None)
    outgoing.say([(1, attach_pb2.Goodbye(reason="x"))])
    waiting = asyncio.create_task(outgoing.next())
    for _ in range(5):
        await asyncio.sleep(0)  # turns of the loop, no time: nothing must happen in them
    assert not waiting.done()
    outgoing.start(acked=7)
    assert (await waiting).seq == 1
