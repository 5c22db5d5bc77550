"""The file of the store is damaged: a flipped bit, a sector of zeros, a file that was cut. It is found, refused and
told, or it did no harm; what was damaged is never served as if it were well, and a restore brings the hub back.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc

from agentcom.v1 import hub_pb2, hub_service_pb2, task_service_pb2
from kit import status
from tests.faults.lab import Lab
from tests.faults.scenario import Scenario, Twin
from tests.support.fleet import spec

KINDS = ("title", "flip", "zeros", "cut", "meta")
PAGE_BYTES, SECTOR_BYTES = 4096, 512
RESTORE_S_MAX = 60.0
Told = dict[str, tuple[str, int]]
"""Title and state by name, of every task that was filed before the backup."""


async def damage(lab: Lab) -> str:
    """Round by round: tasks, a backup, a killed hub, a damaged file; then look, and restore."""
    await lab.start_hub()
    await lab.start_sidecars("ada", slots=4)
    kinds = [KINDS[0], *(lab.rng.choice(KINDS) for _ in range(lab.size["rounds"] - 1))]
    found: list[str] = []
    for number, kind in enumerate(kinds):
        names = await lab.submit(*[spec(f"title of {number}-{index}") for index in range(lab.size["tasks"])])
        await lab.until_tasks(names)
        made = (await lab.hubs.CreateBackup(hub_service_pb2.CreateBackupRequest())).backup
        before = await _told(lab)
        await lab.kill_hub()
        _harm(lab.data / "store" / "data.mdb", kind, f"title of {number}-0".encode(), lab.rng)
        await lab.restart_hub()
        problems = await _look(lab, kind, before)
        found.append(f"{kind}: {'found' if problems else 'no harm'}")
        if problems:
            await _restore(lab, made.name.removeprefix("backups/"))
        after = await _told(lab)
        lost = [name for name in before if after.get(name) != before[name]]
        assert not lost, f"after {kind} and a restore {lost} are not what they were"
        await lab.until_tasks(await lab.submit(spec("it works again")))
    await lab.stop_hub()
    return ", ".join(found)


def _harm(file: Path, kind: str, title: bytes, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if kind == "title":  # in each copy of the page, so that the live one is among them
        at = content.find(title)
        while at >= 0:
            content[at] ^= 1
            at = content.find(title, at)
    elif kind == "flip":
        content[rng.randrange(2 * PAGE_BYTES, len(content))] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        at = rng.randrange(2 * PAGE_BYTES, len(content)) // SECTOR_BYTES * SECTOR_BYTES
        content[at : at + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    elif kind == "cut":
        del content[rng.randrange(len(content)) :]
    else:
        content[rng.randrange(2) * PAGE_BYTES + rng.randrange(160)] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


async def _look(lab: Lab, kind: str, before: Told) -> bool:
    """Was the damage found? When it was not, everything must be as it was."""
    hub = (await lab.hubs.GetHub(hub_service_pb2.GetHubRequest())).hub
    if hub.state != hub_pb2.Hub.STATE_DEGRADED:
        await lab.hubs.VerifyStore(hub_service_pb2.VerifyStoreRequest(), timeout=lab.patience_s)
        hub = (await lab.hubs.GetHub(hub_service_pb2.GetHubRequest())).hub
    if hub.state == hub_pb2.Hub.STATE_DEGRADED:
        assert hub.state_reason, "it is degraded and does not say why"
        await _is_refused(lab)
        return True
    assert await _told(lab) == before, f"after {kind} damaged tasks were served as if they were well"
    return not await _can_be_backed_up(lab)


async def _can_be_backed_up(lab: Lab) -> bool:
    """An audit of a store at work reads its records; a backup is read page by page, with what its commit says of them.
    Damage there harms no record, and is found by the next backup, which must not pass for a good one.
    """
    try:
        await lab.hubs.CreateBackup(hub_service_pb2.CreateBackupRequest(), timeout=lab.patience_s)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE):
            return False
        raise
    return True


async def _is_refused(lab: Lab) -> None:
    """Nothing is written to a damaged store, and a person is told."""
    try:
        await lab.file(lab.request_id())
    except grpc.aio.AioRpcError as error:
        refused = status.from_rpc_error(error)
        assert refused.reason == "STORE_DEGRADED", refused
    else:
        raise AssertionError("a submit was taken by a damaged store")
    alerts = (await lab.hubs.ListAlerts(hub_service_pb2.ListAlertsRequest())).alerts
    assert "alerts/store-degraded" in [alert.name for alert in alerts], alerts


async def _restore(lab: Lab, backup: str) -> None:
    """Stop the hub, restore by the command, start it again."""
    await lab.stop_hub()
    words = ("restore", backup, "--data", str(lab.data), "--force")
    process = await asyncio.create_subprocess_exec(
        *lab._command("hub"), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(RESTORE_S_MAX):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    await lab.restart_hub()
    hub = (await lab.hubs.GetHub(hub_service_pb2.GetHubRequest())).hub
    assert hub.state == hub_pb2.Hub.STATE_SERVING, hub


async def _told(lab: Lab) -> Told:
    """Every task, as the hub tells it."""
    page = await lab.tasks.ListTasks(task_service_pb2.ListTasksRequest(page_size=1000))
    return {task.name: (task.spec.title, task.state) for task in page.tasks}


SCENARIOS = (
    Scenario(
        name="store-damage",
        passes="found, refused and told, or without harm; never served as if it were well; a restore brings it back",
        run=damage,
        quick={"rounds": 1, "tasks": 4},
        long={"rounds": 6, "tasks": 100},
        twins=(
            Twin(
                node="hub",
                guards=("checksums_off", "audit_blind"),
                finds="damaged tasks were served",
            ),
        ),
    ),
)
