"""The programs that are run beside each other: the one of this tree, and the kept one of the minor before it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kit import version
from tests.support.fleet import Fleet

ROOT: Final = Path(__file__).resolve().parent.parent.parent
KEPT: Final = Path(__file__).parent / "kept"
KEPT_VERSION: Final = "0.1.0"
KEPT_FILE: Final = KEPT / f"agentcom-{KEPT_VERSION}.tar.xz"

COMMAND_S: Final = 60.0
"""A bound for failures, never a pace."""


@dataclass(frozen=True, slots=True)
class Program:
    """One version of everything: hub, sidecar, command line."""

    version: str
    #: What stands before the folders of the virtual environment, in which this tree is installed.
    path: tuple[Path, ...]

    def command(self, module: str) -> list[str]:
        """How a part of it is begun: never from the folder that the test stands in."""
        path = os.pathsep.join(map(str, self.path))
        return ["/usr/bin/env", f"PYTHONPATH={path}", "PYTHONSAFEPATH=1", sys.executable, "-m", module]

    async def cli(self, address: str, *words: str) -> Said:
        """Run its command line to its end, whatever that is."""
        process = await asyncio.create_subprocess_exec(
            *self.command("cli"),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "AGENTCOM_HUB_ADDRESS": address, "COLUMNS": "250"},
        )
        try:
            async with asyncio.timeout(COMMAND_S):
                out, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Said(process.returncode or 0, out.decode(), errors.decode())

    async def say(self, address: str, *words: str) -> str:
        """What its command line prints when it does what it is asked."""
        said = await self.cli(address, *words)
        assert said.code == 0, said
        return said.out


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    errors: str


OURS: Final = Program(version.VERSION, (ROOT, ROOT / "gen"))


def unpack(folder: Path) -> Program:
    """The kept program."""
    with tarfile.open(KEPT_FILE) as archive:
        archive.extractall(folder, filter="data")
    return Program(KEPT_VERSION, (folder,))


class MixedFleet(Fleet):
    """A fleet whose nodes are of versions that a test chooses; each start takes the one that is set then."""

    def __init__(self, root: Path, *, hub: Program, sidecar: Program) -> None:
        super().__init__(root)
        self.programs = {"hub": hub, "sidecar": sidecar}

    async def start_hub(self, **settings: object) -> None:
        """Nothing here waits for a lease to pass, and each start of a program must fit into one on a busy machine."""
        await super().start_hub(**{"engine_lease_s": 30.0, **settings})

    def _command(self, node: str) -> list[str]:
        return self.programs[node].command(node)


def future(folder: Path, number: str) -> Program:
    """This tree as it will call itself some day: the same code under another version."""
    for room in ("hub", "sidecar", "cli", "kit", "gen"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
    file = folder / "kit" / "version.py"
    text = file.read_text()
    after = text.replace(f'VERSION: Final = "{version.VERSION}"', f'VERSION: Final = "{number}"')
    assert after != text
    file.write_text(after)
    return Program(number, (folder, folder / "gen"))
