"""The guard: ends the sidecar's children when the sidecar dies, however it dies.

Every child carries a cookie in its environment, AGENTCOM_RUN_ID=<sidecar>.<process>-<run>, and hands it down to
whatever it starts, also to what leaves the process group or detaches. So the processes of one run, or of one
sidecar, can be found in /proc without any record that could be lost. Three use it:

- a run that ends kills what it left behind;
- the guard, a small process of its own, holds one end of a pipe whose other end only the sidecar has. When that
  closes (kill -9 included) the guard kills everything with that process's cookie, and nothing of the one that comes
  after it: the two may overlap;
- a sidecar that starts kills what an earlier one left (the guard may have been killed too).

This file imports the standard library only: its text is run as `python -I -S -c`. Where there is no /proc it finds
nothing, and killing rests on process groups alone. A child that empties its environment *and* leaves its group escapes;
only a sandbox could hold that one.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import signal
import subprocess
import sys
import time

COOKIE = "AGENTCOM_RUN_ID"
# A process between fork and exec shows its parent's environment: so only a second look that finds nothing is believed.
CLEAN_SCAN_COUNT = 2
SCAN_PAUSE_S = 0.05
# Something that forks faster than it is killed is left to the next start, after this many scans.
SCAN_COUNT_MAX = 40


def find(run_id: str) -> list[int]:
    """Processes of the run `run_id`; with a trailing dash, of every run of that process; with a dot, of that
    sidecar.
    """
    wanted = f"{COOKIE}={run_id}".encode()
    whole = not run_id.endswith((".", "-"))
    found = []
    for entry in _processes():
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:  # it has ended, or belongs to somebody else
            continue
        if any(v == wanted if whole else v.startswith(wanted) for v in variables):
            found.append(int(entry))
    return found


def kill(run_id: str) -> int:
    """Send KILL to the processes of `run_id`; returns how many there were."""
    assert run_id.strip(".-"), "an empty cookie would match every child"
    found = find(run_id)
    for pid in found:
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    return len(found)


def reap(run_id: str) -> int:
    """Kill the processes of `run_id` until a look finds none; returns how many were seen. Does not pause."""
    seen = 0
    for _ in range(SCAN_COUNT_MAX):
        count = kill(run_id)
        seen += count
        if not count:
            break
    return seen


def sweep(run_id: str) -> int:
    """Kill the processes of `run_id` until two looks in a row find none; returns how many were seen. Blocks."""
    seen = clean = 0
    for _ in range(SCAN_COUNT_MAX):
        count = kill(run_id)
        seen += count
        clean = 0 if count else clean + 1
        if clean == CLEAN_SCAN_COUNT:
            break
        time.sleep(SCAN_PAUSE_S)
    return seen


class Guard:
    """The sidecar's side: starts the guard process and ends it."""

    def __init__(self, life: str) -> None:
        #: What the cookies of this process's children begin with.
        self._life = life
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the guard process, or start it again when it has died."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        source = pkgutil.get_data("sidecar.child", "guard.py")
        assert source is not None
        # An empty environment: the guard must not be found by the cookie of a sidecar that runs inside another one's
        # child. Its own session: a Ctrl-C in the sidecar's terminal is not for the guard.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source.decode(), self._life],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )

    def close(self) -> None:
        """Let the guard sweep and end. Blocks for a moment."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=SCAN_COUNT_MAX * SCAN_PAUSE_S + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int | None:
        """Of the guard process; None when it does not run."""
        return None if self._process is None else self._process.pid


def _processes() -> list[str]:
    try:
        return [entry for entry in os.listdir("/proc") if entry.isdigit()]
    except OSError:
        return []


def _main(life: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    sweep(life)


if __name__ == "__main__":
    _main(sys.argv[1])
