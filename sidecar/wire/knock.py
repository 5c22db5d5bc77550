"""Asks whether a hub is there at all, when nothing was heard of it for long.

A refused connection says more than silence: the machine answers, and nobody listens. No hub runs, so none can have
given our work to somebody else; and a hub that starts lets no lease pass before a whole one is over. Whoever hears
nothing at all knows nothing, and must take its work as given away. (A middle box that refuses in the place of a hub
that lives can deceive us; then the hub's fence refuses what comes too late, as always.)
"""

from __future__ import annotations

import asyncio
import socket

#: An answer that takes longer is none. Work that must be stopped goes on for so long while the knock is not answered.
KNOCK_S = 0.5


async def is_nobody_there(host: str, port: int, timeout_s: float = KNOCK_S) -> bool:
    """True when every address of that name refuses the connection; False for anything else, silence included."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, address in addresses:
                if not await _is_refused(loop, (family, kind, protocol), address):
                    return False
    except (OSError, TimeoutError):
        return False
    return bool(addresses)


async def _is_refused(loop: asyncio.AbstractEventLoop, kind: tuple[int, int, int], address: tuple[object, ...]) -> bool:
    with socket.socket(*kind) as knocking:
        knocking.setblocking(False)
        try:
            await loop.sock_connect(knocking, address)
        except ConnectionRefusedError:
            return True
    return False
