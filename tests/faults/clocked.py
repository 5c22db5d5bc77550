"""`python -m tests.faults.clocked FILE MODULE ARGUMENTS`: a node whose date jumps when the test says so.

The file holds one number, the seconds by which the node's date is wrong; it is mapped, so a change is seen at once.
Only the one place that reads the machine's clock (`kit.clock`) is patched: the date jumps, the monotonic clock does
not, which is what an administrator or NTP does to a machine.
"""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path

SIZE = 8


def set_offset(file: Path, seconds: float) -> None:
    """Make the date of the nodes that look at this file wrong by so much."""
    with file.open("r+b" if file.exists() else "w+b") as opened:
        opened.write(struct.pack("<d", seconds))


def main() -> None:
    """Patch the clock and run the module as `python -m` would."""
    file, module, *arguments = sys.argv[1:]
    with Path(file).open("r+b") as opened:
        offset = mmap.mmap(opened.fileno(), SIZE)

    from kit.clock import SystemClock
    from tests.faults.patching import patch

    patch(SystemClock, "now", lambda self: time.time() + struct.unpack("<d", offset[:SIZE])[0])
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
