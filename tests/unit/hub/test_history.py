"""Pages of the event log: newest first, every event once, bounded looks."""

import pytest

from hub.engine.desk import history
from hub.store.memory import MemoryStore


@pytest.fixture
async def store():
    made = MemoryStore.open()
    for n in range(1, 26):
        subject = "tasks/a" if n % 5 else "agents/b"
        await made.write(lambda txn, n=n, subject=subject: txn.append(float(n), f"{subject[:4]}.told", subject))
    return made


def walk(store, limit, **asked):
    found, before = [], 0
    while True:
        page = history.look(store, before=before, limit=limit, **asked)
        found += [event.position for event in page.events]
        if not page.before:
            return found
        before = page.before


@pytest.mark.parametrize("limit", [1, 4, 25, 100])
async def test_every_event_comes_once_and_the_newest_first(store, limit):
    assert walk(store, limit) == list(range(25, 0, -1))


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_prefix_and_a_subject_narrow_it(store, limit):
    assert walk(store, limit, prefix="agen") == [25, 20, 15, 10, 5]
    assert walk(store, limit, subject="agents/b") == [25, 20, 15, 10, 5]
    assert walk(store, limit, subject="agents/b", prefix="task") == []


async def test_a_page_looks_at_a_bounded_number_and_goes_on_with_the_next(store, monkeypatch):
    monkeypatch.setattr(history, "SCAN_MAX", 7)
    monkeypatch.setattr(history, "WINDOW", 3)
    first = history.look(store, before=0, limit=10, prefix="agen")
    assert [event.position for event in first.events] == [25, 20]
    assert first.before
    assert walk(store, 10, prefix="agen") == [25, 20, 15, 10, 5]
