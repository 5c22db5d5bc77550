"""The processes under measurement: how they are started, watched through /proc, and ended.

They are started with `subprocess` and not through the event loop: uvloop forks with the handlers of everything that
is loaded, and beside a running grpc that child now and then ended with SIGSEGV before it had become ours.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
START_S_MAX = 120.0  # far beyond any target: a start that takes longer is broken
STOP_S_MAX = 60.0
LOOK_S = 0.005  # how exactly a start is timed
LOG_TAIL_BYTES = 2_000


class Process:
    """A server of ours on a free port, with its folder and its log."""

    def __init__(self, name: str, argv: list[str], folder: Path, address_file: Path) -> None:
        self.name, self.folder = name, folder
        self._argv, self._address_file = argv, address_file
        self._log = folder.parent / f"{folder.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    async def start(self) -> float:
        """Start it; returns when it has told its address. How long that took, in seconds."""
        self._address_file.unlink(missing_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AGENTCOM_")}
        began = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # on purpose, see above
                [sys.executable, *self._argv],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        while not self._address_file.exists() or not self._address_file.read_text().strip():
            if self._process.poll() is not None or time.perf_counter() - began > START_S_MAX:
                raise RuntimeError(
                    f"{self.name} did not start (exit code {self._process.returncode}):\n{self.log_tail()}"
                )
            await asyncio.sleep(LOOK_S)
        self.address = self._address_file.read_text().strip()
        return time.perf_counter() - began

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")

    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))

    def resident_bytes(self) -> int:
        """Resident memory, without the pages of the mapped store."""
        total = mapped = 0
        inside = False
        for line in Path(f"/proc/{self.pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                inside = line.endswith("data.mdb")
            elif words[0] == "Rss:":
                total += int(words[1]) * 1024
                mapped += int(words[1]) * 1024 if inside else 0
        return total - mapped

    def private_bytes(self) -> int:
        """Its own anonymous memory (RssAnon)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel tells no RssAnon")
