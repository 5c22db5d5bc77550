"""The bench itself: its floor stores every task once, its figures are right, its table can be read."""

from __future__ import annotations

import lmdb
import pytest

from agentcom.v1 import task_pb2
from kit import validation
from tests.bench import backlog, crowd, figures, floor_side, load, payload
from tests.bench.figures import Row
from tests.bench.run import running


@pytest.mark.parametrize("batch", [1, 10])
async def test_the_floor_stores_every_task_and_every_result_once(tmp_path, batch):
    floor = floor_side.process(tmp_path / "floor")
    async with running(floor), floor_side.attached(floor.address, sidecars=2) as side:
        run = await load.run(side, count=200, batch=batch, callers=4)
        assert side.marks.stored_count == 200 and side.marks.repeated_count == 0
    assert run.count == 200 and run.per_s > 0
    with lmdb.open(str(tmp_path / "floor"), readonly=True) as env, env.begin() as txn:
        assert txn.stat()["entries"] == 400


async def test_more_tasks_than_slots_wait_at_the_floor_and_are_all_done(tmp_path):
    floor = floor_side.process(tmp_path / "floor")
    async with running(floor), floor_side.attached(floor.address, sidecars=1) as side:
        await load.run(side, count=50 * load.SLOTS, batch=load.SLOTS * 10, callers=2)
        assert side.marks.stored_count == 50 * load.SLOTS


def test_a_result_that_is_stored_twice_is_counted_and_not_taken_for_two():
    marks = load.Marks(2)
    marks.store(0)
    marks.store(0)
    assert marks.repeated_count == 1 and marks.stored_count == 1 and not marks.done.is_set()


def test_percentiles_are_samples_by_nearest_rank():
    spread = figures.spread([number / 1000 for number in range(1, 101)])
    assert (spread.count, spread.p50, spread.p99, spread.max) == pytest.approx((100, 51.0, 100.0, 100.0))


def test_the_middle_of_rounds_takes_each_median_and_the_greatest_maximum():
    rounds = [figures.Spread(10, p50, p99, p99) for p50, p99 in ((1.0, 9.0), (2.0, 3.0), (3.0, 4.0))]
    assert figures.middle(rounds) == figures.Spread(30, 2.0, 4.0, 9.0)


def test_the_table_says_met_not_met_and_nothing_where_there_is_no_target():
    rows = [Row("a", "one", "< 1", "0.5", True), Row("b", "two", "< 1", "2", False), Row("c", "three", "-", "4", None)]
    lines = figures.table(rows).splitlines()
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["met", "**not met**", "-"]
    assert len({len(line) for line in lines}) == 1


def test_a_task_of_the_bench_is_a_valid_kilobyte_and_tells_its_number():
    spec = payload.spec(12_345, lane=task_pb2.LANE_URGENT, capability="probe", shard="3")
    validation.check(spec, "spec")
    assert payload.TASK_BYTES - 16 <= spec.ByteSize() <= payload.TASK_BYTES
    assert payload.index_of(spec.title) == 12_345
    assert payload.index_of("something else") == -1


def test_half_of_the_backlog_can_be_served_by_the_crowd_and_the_other_half_by_nobody():
    wanted = [backlog.waiting(index).requirement.capabilities[0] for index in range(1_000)]
    assert wanted.count(crowd.CAPABILITY) == 500
    assert len(set(wanted)) == backlog.NOBODY_CLASSES + 1
    assert task_pb2.LANE_URGENT not in {backlog.waiting(index).lane for index in range(1_000)}
