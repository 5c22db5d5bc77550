"""File descriptors: how many connections a process has room for beside its own files."""

from __future__ import annotations

import resource

# Kept for files: the store, logs, a backup, pipes of children. Without them a process that still has its connections
# can neither write nor say why.
RESERVE = 256
# A fleet of a thousand sidecars with their watchers, ten times over; about 11 KiB of memory for each that is idle.
CONNECTIONS_MAX = 10_000
# Of a system that allows next to none: better a few connections and a full table than no hub.
CONNECTIONS_MIN = 64


def connections_max() -> int:
    """How many connections to take at most. Raises this process's own limit as far as it may and needs to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + RESERVE
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS_MAX if soft == unlimited else max(CONNECTIONS_MIN, min(CONNECTIONS_MAX, soft - RESERVE))
