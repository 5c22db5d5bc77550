"""`python -m tests.faults.broken hub GUARD[,GUARD] -- ARGUMENTS`: a real node with guards taken out, for broken twins.

Production code has no switch for any of this: the guards are taken out by patching, in this process only. Each module
of the folder `guards` has a dictionary GUARDS: name -> a function that takes the guard out.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "guards"


def guards() -> dict[str, Callable[[], None]]:
    """All guards by name."""
    found: dict[str, Callable[[], None]] = {}
    for file in sorted(FOLDER.glob("*.py")):
        module = importlib.import_module(f"tests.faults.guards.{file.stem}")
        assert not found.keys() & module.GUARDS.keys(), file
        found |= module.GUARDS
    return found


def main(arguments: Sequence[str]) -> int:
    """Take the guards out and run the node."""
    node, names, dashes, *rest = arguments
    assert dashes == "--", arguments
    known = guards()
    for name in names.split(","):
        known[name]()
    node_main = importlib.import_module(f"{node}.__main__").main
    return int(node_main(rest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
