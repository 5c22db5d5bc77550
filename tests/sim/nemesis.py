"""What goes wrong by itself: processes die, stand still and end, clocks jump, disks fill, wires break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.oracle.record import Verb
from tests.sim.chance import PER_HOUR, Dice
from tests.sim.process import Clock, Process
from tests.sim.world import World


class Nemesis:
    """Does it, as often as the mix says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self) -> None:
        """One line of mishaps for each kind."""
        for fault in PER_HOUR:
            rate = self._world.mix.hourly(fault)
            if rate:
                self._tasks.append(self._world.run_beside(self._again_and_again(fault, rate)))

    async def _again_and_again(self, fault: str, per_hour: float) -> None:
        world = self._world
        dice = world.dice("nemesis", fault)
        do: Callable[[Dice], Any] = getattr(self, "_" + fault.replace(".", "_"))
        while True:
            await asyncio.sleep(dice.expovariate(per_hour / 3600.0))
            if world.healed:
                return
            done = do(dice)
            if done:
                world.fault(fault, done)

    def _span(self, dice: Dice) -> float:
        """How long something lasts: a blink, some seconds, longer than a lease, longer than anything is patient."""
        scale = self._world.mix.scale
        return dice.choice((0.5, 8.0, 45.0 * scale, 45.0 * scale, 400.0 * scale)) * (0.5 + dice.random())

    # The hub

    def _hub(self) -> Any:
        hub = self._world.hub
        return hub if hub is not None and not hub.dead else None

    def _hub_kill(self, _dice: Dice) -> str:
        if (hub := self._hub()) is None:
            return ""
        hub.kill("kill -9")
        return "hub"

    def _hub_stop(self, _dice: Dice) -> str:
        if (hub := self._hub()) is None or not hub.serving:
            return ""
        hub.stop()
        return "hub"

    def _hub_freeze(self, dice: Dice) -> str:
        return self._freeze(self._hub(), dice)

    def _hub_clock(self, dice: Dice) -> str:
        self._jump(self._world.hub_machine.clock, dice)
        return "hub"

    def _jump(self, clock: Clock, dice: Dice) -> None:
        """Somebody sets it, by seconds or by an hour; it is never wrong by more than two."""
        clock.skew_s = max(-7200.0, min(7200.0, clock.skew_s + dice.choice((-3600.0, -5.0, 5.0, 3600.0))))

    def _hub_full(self, dice: Dice) -> str:
        return self._disk(dice, "full")

    def _hub_broken(self, dice: Dice) -> str:
        return self._disk(dice, "broken")

    def _hub_damage(self, dice: Dice) -> str:
        """A record does not check. Some time later a person has restored the store, and starts the hub again."""
        if (hub := self._hub()) is None or not hub.serving or hub.ctx.gate.degraded:
            return ""
        hub.store.found("a record does not check")
        self._later(self._span(dice), lambda: hub.kill("a person restores its store"))
        return "hub"

    def _disk(self, dice: Dice, what: str) -> str:
        disk = self._world.hub_machine.disk
        setattr(disk, what, True)
        self._later(self._span(dice), lambda: setattr(disk, what, False))
        return "hub"

    def _hub_slow(self, dice: Dice) -> str:
        disk = self._world.hub_machine.disk
        assert disk is not None
        disk.slow = dice.choice((10.0, 200.0))
        self._later(self._span(dice), lambda: setattr(disk, "slow", 1.0))
        return "hub"

    # Sidecars

    def _sidecar(self, dice: Dice) -> Any:
        alive = [one for one in self._world.sidecars.values() if not one.dead]
        return dice.choice(alive) if alive else None

    def _sidecar_kill(self, dice: Dice) -> str:
        if (sidecar := self._sidecar(dice)) is None:
            return ""
        sidecar.kill("kill -9")
        return str(sidecar.name)

    def _sidecar_stop(self, dice: Dice) -> str:
        if (sidecar := self._sidecar(dice)) is None or sidecar.frozen:
            return ""
        sidecar.call_later(0.0, sidecar.session.drain, "SIGTERM")
        if dice.random() < 0.5:
            sidecar.call_later(dice.random() * 60.0, sidecar.session.halt, "SIGTERM")
        return str(sidecar.name)

    def _sidecar_freeze(self, dice: Dice) -> str:
        return self._freeze(self._sidecar(dice), dice)

    def _sidecar_clock(self, dice: Dice) -> str:
        machine = dice.choice(list(self._world.machines.values()))
        self._jump(machine.clock, dice)
        return machine.name

    def _sidecar_full(self, dice: Dice) -> str:
        machine = dice.choice(list(self._world.machines.values()))
        machine.journal.full = True
        self._later(self._span(dice), lambda: setattr(machine.journal, "full", False))
        return machine.name

    def _sidecar_ill(self, dice: Dice) -> str:
        machine = dice.choice(list(self._world.machines.values()))
        machine.ill = True
        self._later(10 * self._span(dice), lambda: setattr(machine, "ill", False))
        return machine.name

    def _freeze(self, process: Process | None, dice: Dice) -> str:
        if process is None or process.frozen:
            return ""
        process.stand_still()
        self._world.log.process(process, Verb.PROCESS_FROZEN)
        self._later(self._span(dice), lambda: self._thaw(process))
        return process.name

    def _thaw(self, process: Process) -> None:
        if process.frozen:
            self._world.log.process(process, Verb.PROCESS_THAWED)
            process.go_on()

    # The network

    def _wire(self, dice: Dice) -> Any:
        wires = list(self._world.net.wires)
        return dice.choice(wires) if wires else None

    def _net_reset(self, dice: Dice) -> str:
        if (wire := self._wire(dice)) is None:
            return ""
        wire.reset("reset")
        if dice.random() < 0.2 and wire.client.kind == "agent":
            self._kill_soon(wire.client, dice.randrange(12))
        return str(wire.client.name)

    def _kill_soon(self, process: Process, steps: int) -> None:
        """Two things at once: it dies some callbacks after its stream has ended."""
        if steps:
            self._world.loop.call_soon(self._kill_soon, process, steps - 1)
        else:
            process.kill("its stream had just ended")

    def _net_end(self, dice: Dice) -> str:
        """A middle box ends the idle stream in good form: the client sees the end, the server that its client went."""
        if (wire := self._wire(dice)) is None:
            return ""
        for call in list(wire.calls):
            if call.ended is None and dice.random() < 0.5:
                call.end_by_middle_box()
        return str(wire.client.name)

    def _net_half_open(self, dice: Dice) -> str:
        if (wire := self._wire(dice)) is None:
            return ""
        ways = dice.choice(((True,), (False,), (True, False)))
        wire.fall_silent(ways, self._span(dice), keepalive=dice.random() < 0.5)
        return f"{wire.client.name}"

    def _net_partition(self, dice: Dice) -> str:
        world = self._world
        names = dice.sample(list(world.machines), dice.randrange(1, len(world.machines) + 1))
        for_s = self._span(dice)
        for name in names:
            world.net.partitioned[name] = world.loop.time() + for_s
            for wire in world.net.of(name):
                wire.fall_silent((True, False), for_s, keepalive=dice.random() < 0.8)
        return ",".join(names)

    def _later(self, delay_s: float, do: Callable[[], Any]) -> None:
        self._world.loop.call_later(delay_s, do)

    def heal(self) -> None:
        """Everything works again."""
        world = self._world
        for task in self._tasks:
            task.cancel()
        disk = world.hub_machine.disk
        assert disk is not None
        disk.full, disk.broken, disk.slow = False, False, 1.0
        for machine in world.machines.values():
            machine.journal.full = False
            machine.ill = False
        for process in (world.hub, *world.sidecars.values()):
            if process is not None:
                self._thaw(process)
        if (hub := self._hub()) is not None and hub.serving and hub.ctx.gate.degraded:
            hub.kill("a person restores its store")
        world.net.partitioned.clear()
        for wire in list(world.net.wires):
            wire.heal()
