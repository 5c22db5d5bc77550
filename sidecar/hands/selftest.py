"""The self-test: every thing that work needs is really tried. It is what makes an agent available."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable
from pathlib import Path

from kit import errors
from sidecar.child.sandbox import PROBE
from sidecar.core import cut
from sidecar.core.selftest import Finding, SelfTest
from sidecar.hands.attempt import Tools

# The first with --no-write-fetch-head and per-worktree configuration as they are used here.
GIT_VERSION_MIN = (2, 30)
# 2024-01-01: a clock before that was never set, and ids and deadlines made with it would be nonsense.
CLOCK_MIN = 1_704_067_200.0
# A date that jumps further than this between two tests was set by hand or lost: deadlines cannot be trusted.
CLOCK_JUMP_S_MAX = 300.0
# All probes together; one that hangs must not hide the others' answers for ever.
PROBE_TIMEOUT_S = 60.0
MESSAGE_BYTES_MAX = 1024


class Probes:
    """Runs the self-test; keeps the last reading of the clocks."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._read_at = (tools.clock.now(), tools.clock.monotonic())

    async def run(self) -> SelfTest:
        """Try everything, one after the other."""
        machine = [await self._try("git", self._git()), await self._try("disk", self._disk()), self._clock()]
        machine.append(await self._try(PROBE, self._tools.workspaces.confinement.probe()))
        hands = [await self._try(f"executor:{each.name}", each.probe()) for each in self._tools.executors]
        return SelfTest.of((*machine, *hands), ended_at=self._tools.clock.now())

    async def _try(self, probe: str, trial: Awaitable[Finding]) -> Finding:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await trial
        except TimeoutError:
            return Finding(probe=probe, passed=False, message=f"gave no answer within {PROBE_TIMEOUT_S:g} s")
        except FileNotFoundError as error:
            return Finding(probe=probe, passed=False, message=cut.line(f"{error}: install it", MESSAGE_BYTES_MAX))
        except (errors.Problem, OSError) as error:
            return Finding(probe=probe, passed=False, message=cut.line(str(error), MESSAGE_BYTES_MAX))

    async def _git(self) -> Finding:
        """The version, and a commit in a repository under the work folder."""
        git, folder = self._tools.workspaces.git, self._tools.settings.work_dir / "selftest"
        said = (await git.run("version", cwd=Path("/"))).line
        numbers = re.search(r"(\d+)\.(\d+)", said)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < GIT_VERSION_MIN:
            wanted = ".".join(map(str, GIT_VERSION_MIN))
            return Finding(probe="git", passed=False, message=f"{said}: too old, install git {wanted} or newer")
        try:
            await asyncio.to_thread(_empty, folder)
            await git.run("init", "--quiet", "--template=", ".", cwd=folder)
            (folder / "file").write_text("self-test\n")
            await git.run("add", "--all", cwd=folder)
            await git.run("commit", "--quiet", "--no-verify", "-m", "self-test", cwd=folder)
            passed = bool(await git.sha("HEAD", cwd=folder))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return Finding(
            probe="git", passed=passed, message=f"{said} commits" if passed else "a commit was not found again"
        )

    async def _disk(self) -> Finding:
        settings = self._tools.settings
        free = (await asyncio.to_thread(shutil.disk_usage, settings.work_dir)).free
        if free < settings.disk_free_bytes_min:
            message = f"{free} bytes free under the work folder, {settings.disk_free_bytes_min} needed: make room there"
            return Finding(probe="disk", passed=False, message=message)
        return Finding(probe="disk", passed=True, message=f"{free} bytes free")

    def _clock(self) -> Finding:
        now, monotonic = self._tools.clock.now(), self._tools.clock.monotonic()
        jump_s = (now - self._read_at[0]) - (monotonic - self._read_at[1])
        self._read_at = (now, monotonic)
        if now < CLOCK_MIN:
            return Finding(probe="clock", passed=False, message="the date is before 2024: set the clock")
        if abs(jump_s) > CLOCK_JUMP_S_MAX:
            message = f"the date jumped by {jump_s:.0f} s since the last test: see to the machine's time service"
            return Finding(probe="clock", passed=False, message=message)
        return Finding(probe="clock", passed=True, message="runs evenly")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
