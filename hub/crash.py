"""What a hub leaves behind when a signal ends it in the middle of an instruction, and finds at its next start.

A damaged map can do that (SIGSEGV, SIGBUS). Started again, the hub would meet the same page and end the same way, for
ever and without a word. So the stack is written to a file as it dies, and the next start, which finds it, reads the
store through in another process before it opens it.
"""

from __future__ import annotations

import contextlib
import faulthandler
from pathlib import Path
from typing import Final

CRASH_FILE: Final = "hub.crash"
KEPT_FILE: Final = "hub.crash.last"
"""The stack of the last crash, for whoever looks for its cause."""


def begin(data: Path) -> bool:
    """Write the stack of a crash of this process into the data folder from now on. Did the last one crash?"""
    file = data / CRASH_FILE
    crashed = False
    with contextlib.suppress(OSError):
        crashed = file.stat().st_size > 0
        if crashed:
            file.replace(data / KEPT_FILE)
    with contextlib.suppress(OSError):  # that the folder cannot be written is told by who needs it
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        faulthandler.enable(file.open("w"))
    return crashed


def end(data: Path) -> None:
    """The process ends by itself: nothing is left behind."""
    faulthandler.disable()
    with contextlib.suppress(OSError):
        (data / CRASH_FILE).unlink(missing_ok=True)
