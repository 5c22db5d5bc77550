"""Runs commands confined: a cell around their working tree, with the box of its repository in it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sidecar.child import environment, process
from sidecar.child.sandbox import Cell, Mount, Sandbox
from sidecar.core import fault
from sidecar.core.assignment import RepoAccess
from sidecar.core.selftest import Finding
from sidecar.repo import box, discard
from sidecar.repo.git import Git
from sidecar.settings import RunnerSettings

# Private folders of commands that run now; what is left of an earlier process goes at the start.
RUN_PREFIX = "run-"


class Confinement:
    """The sandbox of one sidecar, and what it puts into it."""

    def __init__(self, git: Git, settings: RunnerSettings) -> None:
        self._git = git
        self._launcher = git.launcher
        self._folder = settings.work_dir / box.FOLDER
        self._work_dir = settings.work_dir
        self._sandbox = Sandbox(settings.sandbox, settings.work_dir)
        self._numbers = itertools.count(1)

    @property
    def is_on(self) -> bool:
        """Are commands confined? False until `start`."""
        return self._sandbox.is_on

    async def start(self) -> None:
        """Try the sandbox, and clear what an earlier process left."""
        for left in sorted(self._folder.glob(f"{RUN_PREFIX}*")):
            if not _is_alive(left.name.removeprefix(RUN_PREFIX).partition("-")[0]):
                await discard.discard(self._launcher, left)
        await self._sandbox.start(self._launcher)

    async def probe(self) -> Finding:
        """For the self-test."""
        return await self._sandbox.probe(self._launcher)

    def refuse_without(self, *, required: bool) -> None:
        """Raise Fault when a command must be confined and cannot be."""
        if not self.is_on and (required or self._sandbox.settings.mode == "required"):
            who = "the task" if required else "this machine's configuration"
            raise fault.Fault(
                f"{who} demands a sandbox, and there is none here: see the probe sandbox of the self-test",
                reason="NO_SANDBOX",
                attribution="agent",
            )

    async def run(self, order: process.Order, *, repo: RepoAccess | None, network: bool) -> process.Ended:
        """Run a command confined to its working folder. Raises Fault when the sandbox itself fails."""
        tree = order.cwd
        found = box.of(self._work_dir, tree)
        if found is not None and not found.exists():
            assert repo is not None, "a worktree is one of a repo"
            await discard.discard(self._launcher, found.folder)
            found.make(repo, await self._git.who())
        private = self._folder / f"{RUN_PREFIX}{os.getpid()}-{next(self._numbers)}"
        mounts = list(found.mounts) if found is not None else []
        contract = self._work_dir / box.CONTRACTS / tree.name
        if contract.is_dir():
            mounts.append(Mount(source=contract, target=contract))
        cell = Cell(tree=tree, private=private, network=network, mounts=tuple(mounts))
        variables = _variables(order.environment)
        try:
            prefix = self._sandbox.prefix(cell, variables)
            ended = await self._launcher.run(replace(order, environment=variables, sandbox=prefix))
        finally:
            if not discard.discard_empty(private):
                await discard.discard(self._launcher, private)
        if ended.sandbox_failed:
            raise fault.Fault(
                f"the sandbox could not be started: {' '.join(ended.output.text.split())[:300]}",
                reason="SANDBOX_FAILED",
                attribution="agent",
                evidence=ended.output.text,
            )
        return ended

    async def forget(self, tree: Path) -> None:
        """Remove the box of a working tree: the next command there gets a new one, as the worktree then stands."""
        found = box.of(self._work_dir, tree)
        if found is not None:
            await discard.discard(self._launcher, found.folder)

    async def take(self, tree: Path, bounds: box.Bounds) -> box.Taken | None:
        """What commands left in the box of a tree; None when there is none. Raises Fault."""
        found = box.of(self._work_dir, tree)
        if found is None or not found.exists():
            return None
        if not self.is_on:
            # Its git could only be run unconfined, with the configuration that a command has left there.
            raise fault.Fault(
                "commits that were made in a sandbox cannot be taken over without one",
                reason="NO_SANDBOX",
                attribution="agent",
            )

        async def confined(order: process.Order) -> process.Ended:
            return await self.run(order, repo=None, network=False)

        return await found.take(confined, bounds)


def _is_alive(pid: str) -> bool:
    """Is there such a process? Work by hand shares its folder with other commands of its kind."""
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


def _variables(given: Mapping[str, str]) -> dict[str, str]:
    variables = dict(given) if given else environment.for_child()
    return {**variables, "TMPDIR": "/tmp"}
