"""What the nodes wrote is read as it was meant: a sidecar's log, a hub's store."""

from __future__ import annotations

from pathlib import Path

from hub.core.task import State
from hub.store.lmdb import LmdbStore
from tests.oracle import check, reading
from tests.oracle.record import History, Op, Verb
from tests.support.stage import Stage

LOG = """\
not JSON at all
{"time":"2026-11-21T12:00:00.250000Z","level":"debug","event":"holding.taken","task":"t","generation":1}
{"time":"2026-11-21T12:00:01.000000Z","level":"info","event":"holding.begun","task":"t","generation":1,"title":"x"}
{"time":"2026-11-21T12:00:02.000000Z","level":"info","event":"holding.finished","task":"t","generation":1,"done":true,"reason":null}
{"time":"2026-11-21T12:00:03.000000Z","level":"debug","event":"holding.settled","task":"t","generation":1,"reason":"acked"}
{"time":"2026-11-21T12:00:03.500000Z","level":"debug","event":"holding.settled","task":"u","generation":1,"reason":"revoked"}
{"time":"2026-11-21T12:00:04.000000Z","level":"info","event":"sidecar.attached","agent":"ada"}
[1]
{"time":"2026-11-21T12:00:05.000000Z","level":"info","event":"holding.beg"""


def test_a_sidecars_log_is_its_operation_log_and_a_line_cut_by_a_kill_is_left_out():
    ops = list(reading.sidecar_ops("ada", LOG))
    assert [(op.verb, op.task, op.generation, op.detail) for op in ops] == [
        (Verb.ASSIGNMENT_TAKEN, "t", 1, ""),
        (Verb.WORK_BEGUN, "t", 1, ""),
        (Verb.WORK_ENDED, "t", 1, "done"),
        (Verb.REPORT_ACKED, "t", 1, "acked"),
    ]
    assert {op.node for op in ops} == {"sidecar/ada"}
    assert ops[0].at == 1_795_262_400.25


async def test_a_store_is_read_with_all_its_events_and_passes_the_oracle(tmp_path: Path):
    stage = Stage(LmdbStore.open(tmp_path / "store"))
    await stage.online("ada")
    names = [await stage.submit() for _ in range(3)]
    await stage.close()
    events, tasks, attempts, titles = await reading.read_store(tmp_path / "store")
    assert sorted(tasks) == sorted(titles) == sorted(names)
    assert [task.state for task in tasks.values()].count(State.ASSIGNED) == 1
    assert sum(map(len, attempts.values())) == 1
    acked = [Op(0.0, "client/1", Verb.SUBMIT_ACKED, name) for name in names]
    history = History(events=events, ops=acked, tasks=tasks, attempts=attempts)
    check.check(history)


def test_requests_are_told_from_other_titles():
    assert reading.requests_of({"a": "r-1", "b": "a task"}, "r-") == {"a": "r-1"}
