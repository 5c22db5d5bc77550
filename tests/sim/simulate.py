"""Runs one seed: chaos, healing, settling, an idle while, judgement."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from hub.engine.live import recycle
from hub.engine.live import session as hub_session
from sidecar.wire import stream as sidecar_stream
from tests.sim import chance, judge
from tests.sim.chance import Mix, Tally
from tests.sim.clients import Clients
from tests.sim.loop import Spinning, Stuck
from tests.sim.nemesis import Nemesis
from tests.sim.strikes import Strikes
from tests.sim.trace import Trace, captured
from tests.sim.world import World

SETTLE_S = 4 * 3600.0
SETTLE_SCALED_S = 1200.0
"""Everything that was begun has ended by then: the longest park is an hour, the hub's clock is wrong by two at most,
and work that hangs is taken back after its limits, which grow with the scale."""


@dataclass(slots=True)
class Verdict:
    """What became of a run."""

    seed: int
    problems: list[str]
    digest: str
    hours: float
    seconds: float
    steps: int
    tally: Tally
    tasks: int
    memory_checks: int = 0
    lines: list[str] = field(default_factory=list)


def of_seed(seed: int, *, hours: float | None = None) -> Verdict:
    """What becomes of a seed as it is; `hours` instead of its own length."""
    return run(seed, mix=chance.mix(seed, hours=hours))


def run(
    seed: int,
    *,
    mix: Mix | None = None,
    keep: bool = False,
    tell: Callable[[str], None] | None = None,
    patches: Callable[[ExitStack], Any] | None = None,
    main: Callable[[World, list[str]], Coroutine[Any, Any, None]] | None = None,
) -> Verdict:
    """One seed; `patches` breaks the product first, `main` is another course than that of all runs."""
    began = time.perf_counter()
    collects = gc.isenabled()
    gc.disable()  # what a run leaves is collected at its end, all at once
    try:
        verdict = _run(seed, mix, Trace(keep=keep, tell=tell), patches, main or _main)
    finally:
        if collects:
            gc.enable()
        gc.collect(1)
    verdict.seconds = time.perf_counter() - began
    return verdict


def _run(
    seed: int,
    mix: Mix | None,
    trace: Trace,
    patches: Callable[[ExitStack], Any] | None,
    main: Callable[[World, list[str]], Coroutine[Any, Any, None]],
) -> Verdict:
    with ExitStack() as stack:
        stack.enter_context(captured(trace))
        if patches is not None:
            patches(stack)
        mix = mix or chance.mix(seed)
        stack.enter_context(mock.patch.object(hub_session, "REPORTS_MAX", mix.queue))
        stack.enter_context(mock.patch.object(sidecar_stream, "INBOUND_COUNT_MAX", mix.queue))
        stack.enter_context(mock.patch.object(recycle, "BEGIN_AT", 4))
        stack.enter_context(mock.patch.object(recycle, "AGAIN_S", 600.0 * mix.scale))
        world = World(mix, trace)
        problems: list[str] = []
        asyncio.set_event_loop(world.loop)
        try:
            world.loop.run_until_complete(main(world, problems))
        except (Spinning, Stuck) as error:
            problems.append(f"{type(error).__name__}: {error}")
        except AssertionError as error:
            problems.append(f"assertion: {error!r}")
        problems = trace.errors + [_told(one) for one in world.loop.crashes] + problems
        hours = world.loop.time() / 3600.0
        _bury(world)
        return Verdict(
            seed=seed,
            problems=problems,
            digest=trace.digest,
            hours=hours,
            seconds=0.0,
            steps=world.loop.steps,
            tally=world.tally,
            tasks=sum(op.verb == "submit.acked" for op in world.log.ops),
            memory_checks=world.memory_checks,
            lines=trace.lines,
        )


async def _main(world: World, problems: list[str]) -> None:
    scale = world.mix.scale
    world.start_hub()
    for name in world.machines:
        world.start_sidecar(name)
    clients, nemesis = Clients(world), Nemesis(world)
    clients.start()
    nemesis.start()
    Strikes(world).start()
    world.run_beside(_watch_silence(world))
    await asyncio.sleep(world.mix.chaos_s)
    world.trace.note("world", "HEALED")
    world.healed = True
    world.loop.quiet()
    nemesis.heal()
    await asyncio.sleep(100.0)
    righting = clients.spawn(clients.put_right())
    await righting
    if not await _settled(world, clients):
        problems.append(f"long after the healing: {', '.join(judge.unfinished(world))}")
    else:
        await asyncio.sleep(60.0 * scale)
        problems += judge.left_over(world)
        problems += await _idle(world)
    problems += judge.history(world)
    world.ending = True
    for process in (world.hub, *world.sidecars.values(), clients):
        if process is not None:
            process.kill("the end of the run")
    world.cancel_all()
    await asyncio.sleep(300.0)
    problems += judge.undead(world)


async def _watch_silence(world: World) -> None:
    """Look for holdings of agents that are silent, as long as the run lasts. A hub that has just been thawed has not
    looked itself yet: what is found must be there a sweep later, too.
    """
    before: set[str] = set()
    while not world.ending:
        await asyncio.sleep(30.0 * world.mix.scale)
        hub = world.hub
        found: dict[str, str] = {}
        if hub is not None and hub.serving and not hub.frozen:
            found = judge.silent(hub)
        world.trace.errors += [f"{world.loop.time():.3f} {told}" for agent, told in found.items() if agent in before]
        before = set(found)


async def _settled(world: World, clients: Clients) -> bool:
    scale, dice = world.mix.scale, world.dice("settle")
    deadline = world.loop.time() + SETTLE_S + SETTLE_SCALED_S * scale
    patient = dice.random() < 0.3
    while world.loop.time() < deadline:
        if not judge.unfinished(world):
            return True
        if not patient:
            await clients.spawn(clients.retry_parked())
        await asyncio.sleep(30.0 * scale)
    return False


async def _idle(world: World) -> list[str]:
    """Nothing to do: nothing is written, and nothing spins."""
    disk = world.hub_machine.disk
    assert disk is not None
    commits, steps, scale = disk.commits, world.loop.steps, world.mix.scale
    for_s = judge.IDLE_S * scale
    await asyncio.sleep(for_s)
    found = []
    if disk.commits != commits and not world.mix.keep_s and scale * judge.IDLE_S < 500.0:
        found.append(f"an idle hub wrote {disk.commits - commits} times in {for_s:g} s")
    beats = for_s / (9.0 * scale) * len(world.machines) + 20
    if world.loop.steps - steps > beats * judge.STEPS_PER_BEAT:
        found.append(f"an idle world took {world.loop.steps - steps} steps for some {beats:.0f} heartbeats")
    return found


def _bury(world: World) -> None:
    """Let nothing of a run be found by the garbage collector in the next one."""
    loop = world.loop
    for task in [task for task in asyncio.all_tasks(loop) if not task.done()]:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # beyond what its protocol says
    loop.crashes.clear()
    asyncio.set_event_loop(None)
    loop.close()


def _told(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"the loop was told: {context.get('message')}: {error!r}"
