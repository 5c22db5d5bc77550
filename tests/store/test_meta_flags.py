"""A meta page whose trees claim flags that no store of ours has: refused at the start, not served."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hub.store.care import pages
from hub.store.lmdb import LmdbStore
from kit import errors

#: Where a tree's flags are in a meta page: behind its header, its head, and the word of the page size.
FREE_AT = pages.HEAD_BYTES + 24 + 4
MAIN_AT = FREE_AT + 48
#: LMDB notes there whether the file stands in a folder, and never reads it.
HARMLESS_BIT = 14


@pytest.mark.parametrize(
    ("at", "bit"), [(at, bit) for at in (FREE_AT, MAIN_AT) for bit in range(16) if (at, bit) != (FREE_AT, HARMLESS_BIT)]
)
async def test_a_flag_that_is_flipped_is_found_when_the_store_is_opened(tmp_path: Path, at: int, bit: int) -> None:
    store = LmdbStore.open(tmp_path / "store")
    await store.close()
    data = tmp_path / "store" / "data.mdb"
    content = bytearray(data.read_bytes())
    size = pages.head(data).page_size
    for page in range(2):
        (flags,) = struct.unpack_from("<H", content, page * size + at)
        struct.pack_into("<H", content, page * size + at, flags ^ 1 << bit)
    data.write_bytes(content)
    with pytest.raises(errors.DataLoss):
        LmdbStore.open(tmp_path / "store")
