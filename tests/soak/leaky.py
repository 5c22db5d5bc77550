"""A hub that leaks on purpose: `python -m tests.soak.leaky -- <arguments of the hub>`. The soak must find all of it.

Each task that is filed keeps 64 KiB of memory and a descriptor, and nothing is forgotten by retention.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from hub.__main__ import main
from hub.engine.live.retention import Retention
from hub.rpc.tasks import TaskService
from tests.faults.patching import patch

KEPT: list[object] = []
LEAK_BYTES = 64 * 1024
#: The leak must be found, not end the hub.
DESCRIPTORS_MAX = 500


def leak() -> None:
    """Take the guards out."""
    create = TaskService.CreateTask

    async def leaking(self: TaskService, request: Any, context: Any) -> Any:
        KEPT.append(os.urandom(LEAK_BYTES))
        if len(KEPT) < DESCRIPTORS_MAX:
            KEPT.append(os.open(os.devnull, os.O_RDONLY))
        return await create(self, request, context)

    async def keep_all(self: Retention, now: float) -> int:
        return 0

    patch(TaskService, "CreateTask", leaking)
    patch(Retention, "run_once", keep_all)


if __name__ == "__main__":
    leak()
    sys.exit(main(sys.argv[2:]))
