"""A store under constant load with retention stops growing: what is forgotten makes room for what comes."""

from __future__ import annotations

from pathlib import Path

from hub.core.task import State
from hub.engine.script import forget
from hub.store.base import Ended, Store
from hub.store.lmdb import LmdbStore
from tests.store.build import NOW, spec, task, task_id

LIFE = 20
"""Rounds that a task is kept for; an event twice as long."""
PER_ROUND = 25


def arrive(number: int):
    """Tasks that end as they come, each with a contract, an artefact and events."""

    def script(txn):
        now = NOW + number
        for index in range(number * PER_ROUND, (number + 1) * PER_ROUND):
            one = task(index, state=State.SUCCEEDED, ended_at=now)
            txn.add_task(one, spec(instructions="x" * (index % 7 * 300)))
            txn.put_artifact(one.id, 1, "log", b"x" * (index % 11 * 700))
            for type in ("task.created", "task.assigned", "task.succeeded"):
                txn.append(now, type, f"tasks/{task_id(index)}", goal="g")

    return script


async def leave(store: Store, number: int) -> None:
    now = NOW + number
    until = now - LIFE
    going = store.read(lambda reader: forget.look(reader, forget.Span(Ended.TASK, until, None, 1000))).may_go
    untils = dict.fromkeys(Ended, until)
    await store.write(lambda txn: forget.forget(txn, Ended.TASK, going, untils, now))
    await store.write(lambda txn: txn.drop_events(before=now - 2 * LIFE, keep=1_000_000, limit=1000))


async def test_a_store_under_constant_load_reaches_a_steady_size(tmp_path: Path):
    store = LmdbStore.open(tmp_path / "store", map_bytes_first=1 << 20, lose_data_on_power_cut=True)
    file = tmp_path / "store" / "data.mdb"
    used: list[int] = []
    size: list[int] = []
    try:
        for number in range(12 * LIFE):
            await store.write(arrive(number))
            await leave(store, number)
            used.append(store.facts().used_bytes)
            size.append(file.stat().st_size)
        newest = store.read(lambda reader: reader.position())
        gone = store.read(lambda reader: reader.position_gone())
        count = sum(store.read(lambda reader: reader.counts()).values())
        assert store.verify_chain() == newest
    finally:
        await store.close()
    assert count == LIFE * PER_ROUND
    assert 2 * LIFE * PER_ROUND * 3 <= newest - gone <= 2.1 * LIFE * PER_ROUND * 4
    full = used[3 * LIFE]
    assert max(used[4 * LIFE :]) <= 1.05 * full, "what is in use grows"
    assert size[-1] <= 1.1 * size[5 * LIFE], "pages are not used again"
