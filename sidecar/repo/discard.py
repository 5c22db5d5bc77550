"""Removes folders that commands have had their hands on: of any depth, and also where they took rights away.

`rm` goes down without recursion and through no link; a library that recurses stops at a thousand levels.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from kit import logs
from sidecar.child import environment, process

log = logs.get(__name__)

# A build folder of millions of files on a slow disk.
TIMEOUT_S = 600.0


async def discard(launcher: process.Launcher, path: Path) -> bool:
    """Remove a folder, a file or a link with everything below; says whether it is gone."""
    if not _is_there(path):
        return True
    await _run(launcher, "rm", "-rf", "--", str(path))
    if _is_there(path):
        await _run(launcher, "chmod", "-R", "u+rwX", "--", str(path))
        await _run(launcher, "rm", "-rf", "--", str(path))
    if _is_there(path):
        log.warning("folder.kept", path=str(path))
        return False
    return True


def discard_empty(path: Path) -> bool:
    """Remove a folder with no more than empty folders in it, without a process; says whether it is gone."""
    with contextlib.suppress(OSError):
        for inner in path.iterdir():
            inner.rmdir()
        path.rmdir()
    return not _is_there(path)


async def _run(launcher: process.Launcher, *argv: str) -> None:
    with contextlib.suppress(OSError):
        await launcher.run(
            process.Order(argv=argv, cwd=Path("/"), environment=environment.for_child(), timeout_s=TIMEOUT_S)
        )


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
