"""The file of a store, read page by page without LMDB: is the tree whole?

Theory. LMDB maps the file and follows its page numbers and offsets as they are. In a damaged file that ends in wrong
data, or in a signal that kills the process. So a file that is not trusted (a backup, a store whose hub crashed) is
first read as plain bytes, and so is the store of a hub at work, while a snapshot keeps its pages: each page must be
where its parent says, inside the file, of the right kind, used once and not free, its entries inside the page and in
order, and the sums must be those of the meta page. The contents of the records are audit.py's.

The format is that of LMDB 0.9 on 64-bit little-endian machines, from `mdb.c`.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from kit import errors

_HEADER: Final = struct.Struct("<QHHHH")  # page number, padding, flags, lower, upper
_META: Final = struct.Struct("<IIQQ")  # magic, version, address, map size
_TREE: Final = struct.Struct(
    "<IHHQQQQQ"
)  # padding (page size), flags, depth, branches, leaves, overflows, entries, root
_TAIL: Final = struct.Struct("<QQ")  # last page, transaction
_NODE: Final = struct.Struct("<HHHH")  # low and high half of size or page, flags (or the rest of the page), key size
_U64: Final = struct.Struct("<Q")

_BRANCH: Final = 1
_LEAF: Final = 2
_OVERFLOW: Final = 4
_META_PAGE: Final = 8
_NUMBERS: Final = 0x08
"""Flag of a tree whose keys are numbers: of the free list, and of no other."""
_ONE_FILE: Final = 0x4000
"""Said beside the flags of the free list: written without a folder. LMDB does not read it."""
_BIG: Final = 1
"""Flag of an entry whose value has pages of its own."""

MAGIC: Final = 0xBEEFC0DE
FORMAT: Final = 1
HEAD_BYTES: Final = 16
META_BYTES: Final = HEAD_BYTES + _META.size + 2 * _TREE.size + _TAIL.size
NONE: Final = (1 << 64) - 1
"""Root of an empty tree."""
DEPTH_MAX: Final = 32
PAGE_SIZES: Final = frozenset(1 << bits for bits in range(8, 17))


class Tree(NamedTuple):
    """One of the two trees of a meta page."""

    page_size: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class Meta(NamedTuple):
    """What a commit says of the file."""

    page_size: int
    free: Tree
    main: Tree
    last_page: int
    txn: int


class Broken(errors.DataLoss):
    """The file is no whole map."""

    default_reason = "STORE_CORRUPT"


def head(path: Path) -> Meta:
    """The newest meta page. Raises Broken when one cannot be used; costs two reads, whatever the size."""
    first, second = _metas(path)
    size = path.stat().st_size
    newest = second if second.txn > first.txn else first
    for tree in (newest.free, newest.main):
        if tree.root != NONE and (tree.root < 2 or (tree.root + 1) * newest.page_size > size):
            raise Broken(f"{path.name} is cut short: it ends before page {tree.root}, where a tree begins")
    return newest


def _metas(path: Path) -> tuple[Meta, Meta]:
    try:
        with path.open("rb") as file:
            first = _meta(file.read(META_BYTES), 0)
            file.seek(first.page_size)
            second = _meta(file.read(META_BYTES), 1)
    except OSError as cause:
        raise Broken(f"{path.name} cannot be read: {cause.strerror}") from cause
    if first.page_size != second.page_size:
        raise Broken("its two meta pages name different page sizes")
    return first, second


def check(path: Path) -> Meta:
    """Read the whole file. Raises Broken with the first thing that is wrong."""
    newest = head(path)
    _walk(path, newest)
    return newest


def check_at(path: Path, txn: int) -> bool:
    """Read all pages of one commit in a file that is written to, while somebody holds a snapshot of that commit.

    False: two commits came before its meta page could be read; take a newer snapshot. Raises Broken.
    """
    meta = next((one for one in _metas(path) if one.txn == txn), None)
    if meta is None:
        return False
    _walk(path, meta)
    return True


def _walk(path: Path, meta: Meta) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(data, meta).run()


def _meta(raw: bytes, number: int) -> Meta:
    if len(raw) < META_BYTES:
        raise Broken(f"the file ends inside meta page {number}")
    flags = _HEADER.unpack_from(raw)[2]
    magic, version, _, _ = _META.unpack_from(raw, HEAD_BYTES)
    if not flags & _META_PAGE or magic != MAGIC or version != FORMAT:
        raise Broken(f"meta page {number} is damaged, or this is no map")
    at = HEAD_BYTES + _META.size
    free, main = (Tree(*_TREE.unpack_from(raw, at + which * _TREE.size)) for which in (0, 1))
    last_page, txn = _TAIL.unpack_from(raw, at + 2 * _TREE.size)
    if free.page_size not in PAGE_SIZES or max(free.depth, main.depth) > DEPTH_MAX:
        raise Broken(f"meta page {number} is damaged: it names a page size or a depth that cannot be")
    if free.flags & ~_ONE_FILE != _NUMBERS or main.flags:
        raise Broken(f"meta page {number} is damaged: it names a kind of tree that is none of ours")
    return Meta(free.page_size, free, main, last_page, txn)


class _Walk:
    """One reading of one file."""

    def __init__(self, data: mmap.mmap, meta: Meta) -> None:
        self._data = data
        self._meta = meta
        self._size = meta.page_size
        self._pages = min(len(data) // meta.page_size, meta.last_page + 1)
        self._used = bytearray(meta.last_page + 1 if meta.last_page < len(data) else self._pages)
        self._used[0:2] = b"\1\1"
        self._counts = [0, 0, 0, 0]
        self._last = b""

    def run(self) -> None:
        """Both trees, then what the first one says is free."""
        for tree, name, of_numbers in ((self._meta.main, "the tree", False), (self._meta.free, "the free list", True)):
            self._counts, self._last = [0, 0, 0, 0], b""
            free: list[int] = []
            if tree.root != NONE:
                for value in self._page(tree.root, tree.depth, of_numbers):
                    free += struct.unpack_from(f"<{_U64.unpack_from(value)[0]}Q", value, 8)
            stored = [tree.branches, tree.leaves, tree.overflows, tree.entries]
            if self._counts != stored:
                raise Broken(
                    f"{name} has {self._counts} branches, leaves, overflow pages and entries; the commit says {stored}"
                )
        for number in free:
            if not 2 <= number < len(self._used) or self._used[number]:
                raise Broken(f"page {number} is said to be free and is not")

    def _page(self, number: int, depth: int, of_numbers: bool) -> Iterator[bytes]:
        """Check a page and all below it. Gives the values of the leaves when they are `of_numbers`."""
        at = self._take(number, 1)
        stored, _, flags, lower, upper = _HEADER.unpack_from(self._data, at)
        kind = _LEAF if depth == 1 else _BRANCH
        if stored != number or flags & 0xF != kind:
            raise Broken(f"page {number} is not the {'leaf' if kind == _LEAF else 'branch'} that its parent names")
        count = (lower - HEAD_BYTES) >> 1
        if not HEAD_BYTES < lower <= upper <= self._size or lower & 1:
            raise Broken(f"page {number} has bounds that cannot be")
        offsets = struct.unpack_from(f"<{count}H", self._data, at + HEAD_BYTES)
        if min(offsets) < upper or max(offsets) > self._size - _NODE.size:
            raise Broken(f"page {number} has an entry outside of its bounds")
        self._counts[1 if kind == _LEAF else 0] += 1
        if kind == _LEAF:
            self._counts[3] += count
            yield from self._leaf(number, at, offsets, of_numbers)
        else:
            for rank, offset in enumerate(offsets):
                low, high, rest, key_size = _NODE.unpack_from(self._data, at + offset)
                if offset + _NODE.size + key_size > self._size or (key_size == 0) != (rank == 0):
                    raise Broken(f"page {number} has a key outside of its bounds")
                yield from self._page(low | high << 16 | rest << 32, depth - 1, of_numbers)

    def _leaf(self, number: int, at: int, offsets: tuple[int, ...], of_numbers: bool) -> Iterator[bytes]:
        data, size, last = self._data, self._size, self._last
        for offset in offsets:
            low, high, flags, key_size = _NODE.unpack_from(data, at + offset)
            start = offset + _NODE.size + key_size
            length = low | high << 16
            if key_size == 0 or start + (8 if flags & _BIG else length) > size or flags & ~_BIG:
                raise Broken(f"page {number} has an entry outside of its bounds")
            begin = at + offset + _NODE.size
            key = data[begin : begin + key_size]
            if of_numbers:
                key = key[::-1]  # a number, little-endian
            if key <= last:
                raise Broken(f"page {number} has its keys out of order")
            last = key
            begin += key_size
            if flags & _BIG:
                begin = self._overflow(_U64.unpack_from(data, begin)[0], length)
            if of_numbers:
                if length < 8 or 8 + 8 * _U64.unpack_from(data, begin)[0] > length:
                    raise Broken(f"page {number} has a list of free pages that cannot be")
                yield data[begin : begin + length]
        self._last = last

    def _overflow(self, number: int, length: int) -> int:
        """Where a value with pages of its own begins."""
        if not 2 <= number < self._pages:
            raise Broken(f"page {number} is outside of the file")
        at = number * self._size
        stored, _, flags, low, high = _HEADER.unpack_from(self._data, at)
        count = low | high << 16
        if stored != number or flags & 0xF != _OVERFLOW or HEAD_BYTES + length > count * self._size:
            raise Broken(f"page {number} is not the overflow page that an entry names")
        self._counts[2] += count
        return self._take(number, count) + HEAD_BYTES

    def _take(self, number: int, count: int) -> int:
        """Use pages, once; where the first begins."""
        if number < 2 or number + count > self._pages:
            raise Broken(f"page {number} is outside of the file")
        if any(self._used[number : number + count]):
            raise Broken(f"page {number} is used twice")
        self._used[number : number + count] = b"\1" * count
        return number * self._size
