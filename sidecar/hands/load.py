"""How busy this machine is, for the heartbeat."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agentcom.v1 import agent_pb2


def load(work_dir: Path, holdings: int) -> agent_pb2.Load:
    """The load now; what cannot be read is 0."""
    try:
        cpu = os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        cpu = 0.0
    try:
        free = shutil.disk_usage(work_dir).free
    except OSError:
        free = 0
    return agent_pb2.Load(holdings=holdings, cpu=cpu, disk_free_bytes=free)
