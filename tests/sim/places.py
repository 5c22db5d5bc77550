"""Where a task waits: the awaits of the product that it is inside of, from the outermost to the innermost.

A task that waits is suspended in all of them at once: what strikes it there comes through each of them.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PRODUCT: Final = ("hub/", "sidecar/", "kit/")

_ROOT: Final = f"{ROOT}/"
_NOWHERE: Final[dict[int, str]] = {}

#: Of each code object that was met, by its id: its places by the instruction at which it waits. Code that is no part of
#: the product has none.
_lines: Final[dict[int, dict[int, str]]] = {}
_kept: Final[list[CodeType]] = []
"""So that an id stays its own."""


_WRAPPERS: Final = frozenset(
    {"async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"}
)
_WRAPPED: Final = _WRAPPERS | {"coroutine", "async_generator", "generator"}


def codes(coro: Any) -> list[tuple[CodeType, FrameType]]:
    """The code and frame of everything that a coroutine waits through, outermost first."""
    found = []
    while coro is not None:
        kind = type(coro)
        if kind is CoroutineType:
            frame, code, coro = coro.cr_frame, coro.cr_code, coro.cr_await
        elif kind is AsyncGeneratorType:
            frame, code, coro = coro.ag_frame, coro.ag_code, coro.ag_await
        elif kind is GeneratorType:
            frame, code, coro = coro.gi_frame, coro.gi_code, coro.gi_yieldfrom
        elif kind.__name__ in _WRAPPERS:  # they say to nobody but the garbage collector what they wrap
            coro = next((one for one in gc.get_referents(coro) if type(one).__name__ in _WRAPPED), None)
            continue
        else:
            break
        if frame is None:
            break
        found.append((code, frame))
    return found


def places(coro: Any) -> list[tuple[str, CodeType]]:
    """The product's lines among them, as `hub/rpc/tasks.py:53`. In one loop: it is asked at every step of a run."""
    found = []
    while coro is not None:
        kind = type(coro)
        if kind is CoroutineType:
            code = coro.cr_code
            lines = _lines.get(id(code))
            if lines is None:
                lines = _meet(code)
            if lines is not _NOWHERE:
                frame = coro.cr_frame
                if frame is None:
                    break
                place = lines.get(frame.f_lasti)
                if place is None:
                    place = lines[frame.f_lasti] = f"{_file_of(code)}:{frame.f_lineno}"
                found.append((place, code))
            coro = coro.cr_await
        elif kind.__name__ in _WRAPPERS:
            inner = codes(coro)
            for code, frame in inner:
                if _file_of(code):
                    found.append((f"{_file_of(code)}:{frame.f_lineno}", code))
            break
        else:
            break
    return found


def _meet(code: CodeType) -> dict[int, str]:
    _kept.append(code)
    lines: dict[int, str] = {} if _file_of(code) else _NOWHERE
    _lines[id(code)] = lines
    return lines


def _file_of(code: CodeType) -> str:
    file = code.co_filename
    if not file.startswith(_ROOT):
        return ""
    name = file[len(_ROOT) :]
    return name if name.startswith(PRODUCT) else ""


def place_of(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the innermost line of the product, or the name of what it runs."""
    coro: Any = task.get_coro()
    found = [place for place, _ in places(coro)]
    return found[-1] if found else str(coro.__qualname__)
