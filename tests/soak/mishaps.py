"""What goes wrong while the soak runs: the harmed sidecar dies, stands still, loses its wire. The hub dies once, early:
its figures need a long life to say anything.
"""

from __future__ import annotations

import asyncio
import contextlib

from tests.faults.lab import Lab
from tests.soak.load import HARMED
from tests.support.proxy import Proxy

#: From one mishap to the next.
EVERY_S = 6.0
LEASE_S = 4.0


async def go_on(lab: Lab, proxy: Proxy, counts: dict[str, int], stopping: asyncio.Event) -> None:
    """One mishap after the other until `stopping`; the sidecar is well at the end."""
    while not stopping.is_set():
        what = lab.rng.choice(("killed", "cut", "frozen", "dark", "stopped"))
        counts[what] = counts.get(what, 0) + 1
        await _happen(lab, proxy, what)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), EVERY_S * lab.rng.uniform(0.5, 1.5))


async def _happen(lab: Lab, proxy: Proxy, what: str) -> None:
    match what:
        case "killed":
            await lab.kill_sidecar(HARMED)
            await start_harmed(lab, proxy)
        case "stopped":
            await lab.sidecars[HARMED].stop()
            await start_harmed(lab, proxy)
        case "cut":
            proxy.cut()
        case "frozen":
            lab.freeze(HARMED)
            await asyncio.sleep(lab.rng.uniform(0.5, 1.5) * LEASE_S)
            lab.thaw(HARMED)
        case "dark":
            proxy.is_dark = True
            await asyncio.sleep(lab.rng.uniform(0.5, 1.5) * LEASE_S)
            proxy.is_dark = False


async def start_harmed(lab: Lab, proxy: Proxy) -> None:
    """On its own folder."""
    await lab.start_sidecar(HARMED, slots=2, address=proxy.address)
