"""The stores that the conformance suite runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hub.store.base import Store
from hub.store.lmdb import LmdbStore
from hub.store.memory import MemoryStore


@pytest.fixture
def lmdb_open(tmp_path: Path) -> Callable[[], LmdbStore]:
    """Opens the same LMDB store each time, with a small map so that it grows. Synced as in life."""
    return lambda: LmdbStore.open(tmp_path / "store", map_bytes_first=1 << 20, map_bytes_max=1 << 30)


@pytest.fixture(params=["memory", "lmdb"])
async def store(request: pytest.FixtureRequest, lmdb_open: Callable[[], LmdbStore]) -> AsyncIterator[Store]:
    """Each store in turn."""
    opened: Store = MemoryStore.open(rehearse=True) if request.param == "memory" else lmdb_open()
    yield opened
    await opened.close()
