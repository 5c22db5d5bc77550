"""How a node starts another part of AgentCom: from the source, installed, and from a built file alike.

A built file (tools/build.py) is an archive that unpacks itself once and runs from what it unpacked; it tells this
module so at its start. Nobody else may start a part by `sys.executable -m ...`: in a built file that finds nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from kit import errors

#: Variables by which a built file is told where it finds Python and where it may unpack itself. They say nothing of the
#: person who set them, and a service that is set up for a built file needs them, too.
VARIABLES = ("AGENTCOM_PYTHON", "AGENTCOM_CACHE_DIR")
#: No site-packages, no PYTHON... variables, no folder of the caller's: a built file is all that there is.
ISOLATED = ("-I", "-S")


@dataclass(frozen=True, slots=True)
class Built:
    """The built file that runs."""

    #: The file that was started, absolute.
    file: Path
    #: What it unpacked; it stays as long as a process runs from it.
    tree: Path


_built: Built | None = None


def begin(built: Built) -> None:
    """Called once, by the start of a built file, before anything else of ours is imported."""
    global _built
    _built = built


def built() -> Built | None:
    """The built file that runs; None from the source and when installed."""
    return _built


def node(name: str) -> list[str]:
    """The words that start a node (`hub`, `sidecar`, `dashboard`): its program beside ours, else our own interpreter.

    Of a built file it is the file beside it, or the one in PATH; raises Unavailable when there is neither.
    """
    program = f"agentcom-{name}"
    if _built is None:
        beside = Path(sys.argv[0]).resolve().with_name(program)
        return [str(beside)] if _runs(beside) else [sys.executable, "-m", name]
    beside = _built.file.with_name(program)
    found = str(beside) if _runs(beside) else shutil.which(program)
    if found is None:
        raise errors.Unavailable(
            f"{program} is needed for this, and is neither in {_built.file.parent} nor in PATH",
            reason="PROGRAM_MISSING",
            metadata={"program": program},
        )
    return [os.path.abspath(found)]


def part(module: str) -> list[str]:
    """The words that run a module of this very node, of this very version, as a program of its own.

    Run it with `part_environment()`.
    """
    if _built is None:
        return [sys.executable, "-m", module]
    return [sys.executable, *ISOLATED, str(_built.tree / "__main__.py"), str(_built.file), module]


def part_environment() -> dict[str, str]:
    """Our environment, in which a part finds what we find."""
    if _built is not None:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _runs(file: Path) -> bool:
    return file.is_file() and os.access(file, os.X_OK)
