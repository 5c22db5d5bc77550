"""Runs assignments: one call a holding, and whatever happens becomes an Outcome.

Finished work is pushed by the pipelines (work, scratch, recheck, merge); unfinished work is saved here, on every way
out but one: when the process itself is being torn down (CancelledError), the worktree stays and `recover` saves it at
the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import random
import weakref
from collections.abc import Awaitable, Callable

from kit import logs
from kit.clock import Clock
from sidecar.child.control import Control as Control
from sidecar.child.process import Launcher
from sidecar.core import assignment, fault
from sidecar.core.assignment import Assignment, Done, NotDone, Outcome
from sidecar.core.meter import NOBODY, Meter
from sidecar.core.selftest import SelfTest
from sidecar.executors import base, fake, shell
from sidecar.hands import merge, recheck, scratch, selftest, work
from sidecar.hands.attempt import Attempt, Tools
from sidecar.repo.git import Git
from sidecar.repo.prepare import Workspaces
from sidecar.settings import RunnerSettings as RunnerSettings

log = logs.get(__name__)

# The kinds that this sidecar offers.
KINDS = ("work", "verify", "merge")


class Runner:
    """The hands of one sidecar. One per work folder."""

    def __init__(
        self, settings: RunnerSettings, clock: Clock, rng: random.Random, agent_id: str, meter: Meter = NOBODY
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        settings.work_dir.mkdir(parents=True, exist_ok=True)
        # The same at every start on this folder, so that processes of an earlier sidecar are found.
        identity = hashlib.sha256(str(settings.work_dir.resolve()).encode()).hexdigest()[:16]
        self._launcher = Launcher(clock, identity)
        git = Git(
            self._launcher,
            agent=agent_id,
            timeout_s=settings.git_timeout_s,
            network_timeout_s=settings.git_network_timeout_s,
            work_dir=settings.work_dir,
            meter=meter,
        )
        self._tools = Tools(
            settings=settings,
            clock=clock,
            launcher=self._launcher,
            workspaces=Workspaces(git, settings, agent_id),
            executors=executors_of(settings, self._launcher),
            agent=agent_id,
            meter=meter,
        )
        self._self_test = selftest.Probes(self._tools)
        self._ready = False
        self._starting = asyncio.Lock()
        weakref.finalize(self, self._launcher.close)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of task that it can run."""
        return KINDS

    @property
    def executors(self) -> tuple[str, ...]:
        """Names of its executors."""
        return tuple(executor.name for executor in self._tools.executors)

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers that some executor serves, sorted."""
        return tuple(sorted({tier for executor in self._tools.executors for tier in executor.tiers}))

    @property
    def has_sandbox(self) -> bool:
        """Are commands confined? False until `start`."""
        return self._tools.workspaces.confinement.is_on

    async def run(self, assignment: Assignment, control: Control) -> Outcome:
        """Run one holding to its end. Raises nothing but CancelledError."""
        attempt = Attempt(self._tools, assignment, control)
        try:
            await self.start()
            done = await _pipeline(assignment)(attempt)
            attempt.trail.leave(good=True)
            return _with_log(done, attempt)
        except fault.Fault as error:
            log.info("attempt.ended", reason=error.reason, attribution=error.attribution, message=error.message)
            return await self._not_done(attempt, error)
        except Exception as error:  # the top of an attempt: whatever it was, the hub gets an answer
            log.error("attempt.crashed", exc_info=True)
            return await self._not_done(attempt, _unexpected(error))

    async def recover(self, assignment: Assignment) -> Outcome:
        """After a crash of the sidecar: save what the holding's worktree holds and clean up."""
        attempt = Attempt(self._tools, assignment, Control())
        interrupted = fault.Fault(
            "the sidecar ended while it worked on this", reason="SIDECAR_RESTARTED", attribution="agent"
        )
        try:
            await self.start()
            await self._tools.workspaces.remove_scratch(assignment.holding)
            attempt.workspace = self._tools.workspaces.reopen(assignment.holding)
        except Exception as error:
            log.error("holding.unrecovered", exc_info=True)
            interrupted.evidence = str(error)
        return await self._not_done(attempt, interrupted, stopped=True)

    async def self_test(self) -> SelfTest:
        """Try everything that work needs."""
        await self.start()
        return await self._self_test.run()

    async def start(self) -> None:
        """Clear what an earlier sidecar on this folder left, and start the guard. Called by itself when needed."""
        async with self._starting:
            if not self._ready:
                await self._launcher.start_guard()
                await self._tools.workspaces.remove_stale_locks()
                await self._tools.workspaces.confinement.start()
                self._ready = True

    async def close(self) -> None:
        """End the guard. Children that still run are killed."""
        await asyncio.to_thread(self._launcher.close)

    async def _not_done(self, attempt: Attempt, error: fault.Fault, *, stopped: bool = False) -> NotDone:
        wip_ref = ""
        attempt.trail.leave(good=False, reason=error.reason)
        if attempt.workspace is not None:
            with attempt.trail.inside("save"):
                wip_ref, note = await self._save(attempt)
            if note:
                error.evidence = f"{error.evidence}\n{note}" if error.evidence else note
        return NotDone(
            failure=error.failure,
            receipts=tuple(attempt.receipts[-assignment.RECEIPT_COUNT_MAX :]),
            artifacts=(*attempt.artifacts, attempt.log_artifact()),
            wip_ref=wip_ref,
            stopped=stopped or isinstance(error, fault.Stopped),
        )

    async def _save(self, attempt: Attempt) -> tuple[str, str]:
        """Push unfinished work to its wip ref and remove the worktree; returns the ref, and a note when that failed."""
        space = attempt.workspace
        assert space is not None
        try:
            if attempt.task.delivery == "none":
                await work.remove(space)  # it was to change nothing
                return "", ""
            wip_ref = await space.save(agent=self._tools.agent, timeout_s=self._settings.wip_timeout_s)
            if wip_ref:
                with contextlib.suppress(fault.Fault):
                    attempt.artifacts.append(await work.diff_artifact(space, wip_ref))
            await work.remove(space)
        except Exception as error:  # unsaved work stays on disk, and the report must go out all the same
            log.warning("wip.unsaved", tree=str(space.tree), error=str(error))
            return "", f"unfinished work could not be pushed and is kept by agents/{self._tools.agent}: {error}"
        return wip_ref, ""


def executors_of(settings: RunnerSettings, launcher: Launcher) -> base.Registry:
    """The configured executors. Raises Fault for an unknown name."""
    makers: dict[str, Callable[[], base.Executor]] = {"shell": lambda: shell.Shell(launcher), "fake": fake.Fake}
    unknown = [name for name in settings.executors if name not in makers]
    if unknown:
        raise fault.Fault(
            f"unknown executors: {', '.join(unknown)}; there are {', '.join(sorted(makers))}",
            reason="UNKNOWN_EXECUTOR",
            attribution="agent",
        )
    return base.Registry(tuple(makers[name]() for name in settings.executors))


def _pipeline(task: Assignment) -> Callable[[Attempt], Awaitable[Done]]:
    match task.kind:
        case "work":
            return scratch.run if task.repo is None else work.run
        case "verify":
            return recheck.run
        case "merge":
            return merge.run
        case other:
            raise fault.Fault(f"this agent runs no {other} tasks", reason="UNKNOWN_KIND", attribution="agent")


def _with_log(done: Done, attempt: Attempt) -> Done:
    return Done(
        **{
            **{name: getattr(done, name) for name in done.__struct_fields__},
            "receipts": done.receipts[-assignment.RECEIPT_COUNT_MAX :],
            "artifacts": (*done.artifacts, attempt.log_artifact()),
        }
    )


def _unexpected(error: Exception) -> fault.Fault:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return fault.Fault(f"the disk is full: {error}", reason="DISK_LOW", attribution="agent")
    return fault.Fault(f"{type(error).__name__}: {error}", reason="SIDECAR_FAULT", attribution="agent")
