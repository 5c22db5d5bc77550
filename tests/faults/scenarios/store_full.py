"""The map of the store is full, and the disk is: submits are refused, what runs is taken in from the reserve, and with
room again the hub goes on without a restart.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from agentcom.v1 import agent_pb2, task_pb2
from tests.e2e.test_answers import fill, make_room
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.oracle.record import Rules
from tests.support.fleet import spec
from tests.support.processes import until

MIB = 1024 * 1024
#: Of a result's log: as much as one may leave.
LOG = "head -c 400000 /dev/zero | tr '\\0' x"


async def fill_the_map(lab: Lab) -> str:
    """Fill it with tasks nobody can do, while others run; then make room."""
    await lab.start_hub(store_map_first_bytes=MIB, store_map_max_bytes=lab.size["map_mib"] * MIB)
    under_way = await _work_under_way(lab)
    ballast = await fill(lab)
    _open(lab, len(under_way))
    await lab.until_tasks(under_way)
    assert await fill(lab) == [], "there is no room, and a submit was taken"
    await make_room(lab, ballast)
    names = await lab.submit(spec("there is room again"))
    await lab.until_tasks(names)
    found = await lab.judge(Rules(works_once=True))
    starts = sum(event.type == "hub.started" for event in found.events)
    assert starts == 1, f"the hub was started {starts} times"
    return f"{len(ballast)} submits taken, then refused; {len(under_way)} results taken from the reserve; no restart"


async def fill_the_disk(lab: Lab) -> str:
    """Fill the disk to its last page while tasks run, for longer than a lease; then make room."""
    lab.root.mkdir(parents=True, exist_ok=True)
    with _small_disk(lab.data, 128 * MIB) as disk:
        await lab.start_hub(store_map_first_bytes=MIB, engine_lease_s=1.5, backup_every_s=86_400.0)
        under_way = await _work_under_way(lab)
        others = disk / "somebody-elses"
        others.write_bytes(b"\0" * (shutil.disk_usage(disk).free - 32 * MIB))
        assert await fill(lab) == [], "only the reserve is left, and a submit was taken"
        _open(lab, 1)
        await lab.until_tasks(under_way[:1])
        with contextlib.suppress(OSError), others.open("ab", buffering=0) as file:
            while file.write(b"\0" * 4096):  # to the last page: nothing can be stored, and so nothing is acked
                pass
        _open(lab, len(under_way))
        ada = lab.sidecars["ada"]
        ends = len(under_way)
        await until(lambda: ada.said().count('"event":"holding.finished"') == ends, "the results", lab.patience_s)
        position = ada.said().count('"event":"sidecar.detached"')
        turned = lab.size["turned_away"]
        await until(
            lambda: ada.said().count('"event":"sidecar.detached"') >= position + turned, "turned away", lab.patience_s
        )
        assert await fill(lab) == [], "the disk is full, and a submit was taken"
        others.unlink()
        await lab.until_tasks(under_way)
        names = await lab.submit(spec("there is room again"))
        await lab.until_tasks(names)
        found = await lab.judge(Rules(all_end=True, works_once=True))
        starts = sum(event.type == "hub.started" for event in found.events)
        assert starts == 1, f"the hub was started {starts} times"
        await lab.close()
    return f"{len(under_way)} results kept by the sidecar and taken when there was room; none redone; no restart"


async def _work_under_way(lab: Lab) -> list[str]:
    """Tasks that run until their gates are there, and then leave a long log."""
    await lab.start_sidecars("ada", slots=4)
    waits = [f"while ! test -e {lab.root}/gate.{n}; do sleep 0.1; done" for n in range(lab.size["running"])]
    names = await lab.submit(*[spec(f"under way {n}", f"{wait}; {LOG}") for n, wait in enumerate(waits)])
    await lab.until_tasks(names, task_pb2.Task.STATE_RUNNING)
    await lab.until_agent("ada", agent_pb2.Agent.STATE_WORKING)
    return names


def _open(lab: Lab, count: int) -> None:
    """Let the first tasks end."""
    for number in range(count):
        (lab.root / f"gate.{number}").touch()


@contextlib.contextmanager
def _small_disk(path: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=True)


def _cannot_mount() -> str:
    """Why a small file system cannot be mounted here; empty: it can."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "only root mounts a small file system"
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=65536", "tmpfs", "/mnt"]
    tried = subprocess.run(probe, capture_output=True, check=False)
    return "" if tried.returncode == 0 else "a tmpfs cannot be mounted here"


SCENARIOS = (
    Scenario(
        name="map-full",
        passes="submits refused with RESOURCE_EXHAUSTED, results taken, recovery without a restart",
        run=fill_the_map,
        quick={"map_mib": 32, "running": 2},
        long={"map_mib": 64, "running": 4},
        seeds=3,
        twins=(Twin(node="hub", guards=("no_reserve",), finds="still so|STORE_FULL|a submit was taken"),),
    ),
    Scenario(
        name="disk-full",
        passes="as a full map; and a disk that is full for longer than a lease costs no work",
        run=fill_the_disk,
        quick={"running": 2, "turned_away": 4},
        long={"running": 4, "turned_away": 30},
        seeds=3,
        skip=_cannot_mount,
        twins=(Twin(node="hub", guards=("impatient_when_full",), finds="still not so: turned away"),),
    ),
)
