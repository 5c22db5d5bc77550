"""The store's care with real processes: the commands that a person types, and a fleet that lives through a restore."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

from agentcom.v1 import hub_pb2, hub_service_pb2, task_pb2
from hub.store import keys
from hub.store.care import pages
from tests.e2e.test_commands import run
from tests.store.whole import raw_edit
from tests.support.fleet import SUCCEEDED, Fleet, appears, spec
from tests.support.processes import until

Task = task_pb2.Task


async def cli(fleet: Fleet, *words: str, form: str = "json") -> tuple[int, Any]:
    code, said = await run("-m", "cli", "-o", form, *words, AGENTCOM_HUB_ADDRESS=fleet.address)
    with contextlib.suppress(ValueError):
        return code, json.loads(said)
    return code, said


async def hub_command(fleet: Fleet, *words: str) -> tuple[int, str]:
    return await run("-m", "hub", *words, "--data", str(fleet.data))


async def state(fleet: Fleet) -> int:
    return int((await fleet.hubs.GetHub(hub_service_pb2.GetHubRequest())).hub.state)


def flip(store: Path, key: bytes) -> None:
    def edit(txn: Any) -> None:
        raw = bytearray(txn.get(key))
        raw[-1] ^= 1
        txn.put(key, bytes(raw))

    raw_edit(store, edit)


async def test_a_fleet_lives_through_damage_and_restore(fleet: Fleet, tmp_path: Path):
    """One task runs from before the backup to after the restore and is done once; a later one is told to stop."""
    await fleet.start_hub()
    await fleet.start_sidecars("anna", slots=3)
    go, marks = tmp_path / "go", tmp_path / "marks"
    long = f"echo once >> {marks}; touch {tmp_path}/begun; while [ ! -e {go} ]; do sleep 0.1; done"
    (name,) = await fleet.submit(spec("long", long))
    await appears(tmp_path / "begun")
    code, made = await cli(fleet, "hub", "backup")
    assert code == 0 and made["verify_time"]
    backup = made["name"].removeprefix("backups/")
    (lost,) = await fleet.submit(spec("lost", f"touch {tmp_path}/lost; while [ ! -e {go} ]; do sleep 0.1; done"))
    await appears(tmp_path / "lost")
    (done,) = await fleet.submit(spec("done"))
    await fleet.until_tasks([done])
    # The disk breaks a record; an audit finds it.
    await fleet.kill_hub()
    flip(fleet.data / "store", keys.named(keys.TASK, done.removeprefix("tasks/")))
    await fleet.restart_hub()
    assert (await cli(fleet, "hub", "verify"))[0] == 2
    assert await state(fleet) == hub_pb2.Hub.STATE_DEGRADED
    code, found = await cli(fleet, "hub", "doctor")
    assert code == 2 and found[0]["verdict"] == "VERDICT_FAILED" and f"restore {backup}" in found[0]["advice"]
    code, raised = await cli(fleet, "hub", "alerts")
    assert code == 0 and raised[0]["name"] == "alerts/store-degraded"
    code, refused = await cli(fleet, "task", "create", "no", "--command", "true")
    assert code == 4 and "open for reading only" in refused
    code, shown = await cli(fleet, "hub", "status", form="table")
    assert "degraded" in shown and "checksum" in shown
    code, listed = await cli(fleet, "hub", "backups")
    assert [one["name"] for one in listed] == [f"backups/{backup}"]
    # The command that it names is refused while the hub runs, and works when it does not.
    restore = ("hub", "restore", backup, "--data", str(fleet.data), "--force")
    code, refusal = await run("-m", "cli", *restore)
    assert code == 2 and "stop it first" in refusal
    assert fleet.hub is not None and await fleet.hub.stop() == 0
    code, text = await run("-m", "cli", *restore[:-1])
    assert code == 2 and "add --force" in text
    code, text = await run("-m", "cli", *restore)
    assert code == 0 and "kept as" in text, text
    assert (await hub_command(fleet, "verify"))[0] == 0
    # The hub is well again; the running task goes on, the one that it does not know is stopped.
    await fleet.restart_hub()
    assert await state(fleet) == hub_pb2.Hub.STATE_SERVING
    (restored,) = await fleet.until_events("hub.restored")
    (attached,) = await fleet.until_events("agent.attached", position=restored.position)
    assert attached.fields["adopted"] == "1"
    listed = {task.name for task in (await fleet.tasks.ListTasks(_all())).tasks}
    assert lost not in listed and done not in listed and name in listed
    go.touch()
    await fleet.until_tasks([name])
    assert (await fleet.task(name)).state == SUCCEEDED
    assert marks.read_text() == "once\n"
    (after,) = await fleet.submit(spec("after"))
    await fleet.until_tasks([after])
    assert (await fleet.task(after)).generation > 1_000_000


def _all() -> Any:
    from agentcom.v1 import task_service_pb2

    return task_service_pb2.ListTasksRequest()


def break_page(data: Path, key: bytes) -> None:
    """Let the entry of this key claim a value of a gigabyte, far outside of its page."""
    content = bytearray(data.read_bytes())
    newest = pages.head(data)
    size = newest.page_size
    for number in range(2, newest.last_page + 1):
        page = content[number * size : (number + 1) * size]
        flags, lower = struct.unpack_from("<HH", page, 10)
        if flags & 0xF != 2:
            continue
        for offset in struct.unpack_from(f"<{(lower - 16) >> 1}H", page, 16):
            key_size = struct.unpack_from("<H", page, offset + 6)[0]
            if page[offset + 8 : offset + 8 + key_size] == key:
                struct.pack_into("<HH", content, number * size + offset, 0, 0x4000)
    data.write_bytes(content)


async def test_a_hub_that_a_damaged_page_kills_says_so_at_its_next_start(fleet: Fleet):
    await fleet.start_hub()
    (name,) = await fleet.submit(spec("a task"))
    assert (await cli(fleet, "hub", "backup"))[0] == 0
    data = fleet.data / "store" / "data.mdb"
    whole = data.read_bytes()
    os.truncate(data, 8_192)  # under the map of a hub that runs: its next read is a bus error
    with contextlib.suppress(Exception):
        await fleet.task(name)
    assert fleet.hub is not None and await fleet.hub.wait() == -signal.SIGBUS
    # What the next start finds can be opened, and hides the same end in one of its leaves.
    data.write_bytes(whole)
    break_page(data, keys.named(keys.TASK, name.removeprefix("tasks/")))
    await fleet.restart_hub()
    assert await state(fleet) == hub_pb2.Hub.STATE_DEGRADED
    code, found = await cli(fleet, "hub", "doctor")
    assert code == 2 and "outside of its bounds" in found[0]["message"], found
    await fleet.hub.stop()
    assert (fleet.data / "hub.crash.last").stat().st_size
    (backup,) = [one.stem for one in (fleet.data / "backups").glob("*.mdb")]
    assert (await hub_command(fleet, "restore", backup, "--force"))[0] == 0
    await fleet.restart_hub()
    assert await state(fleet) == hub_pb2.Hub.STATE_SERVING
    assert (await fleet.task(name)).name == name


async def test_the_commands_for_a_store_that_no_hub_has(fleet: Fleet):
    code, text = await hub_command(fleet, "doctor")
    assert code in (0, 1) and "no store" in text
    await fleet.start_hub()
    await fleet.submit(spec("a task"))
    code, made = await cli(fleet, "hub", "backup")
    code, text = await hub_command(fleet, "verify")
    assert code == 2 and "in use by another hub" in text and "agentcom hub" in text
    code, found = await cli(fleet, "hub", "compact")
    assert code == 0 and int(found["after_bytes"]) > 0
    assert fleet.hub is not None
    await fleet.hub.stop()
    code, text = await cli(fleet, "hub", "doctor", form="table")
    assert code == 5 and "agentcom-hub doctor --data" in text
    for words in (("verify",), ("verify", made["name"]), ("compact",), ("backups",), ("doctor",)):
        code, text = await hub_command(fleet, *words, "--json")
        assert code == 0 and json.loads(text), (words, text)
    code, text = await hub_command(fleet, "restore", "0" * 20)
    assert code == 2 and "there is no backups/" in text
    os.truncate(fleet.data / "store" / "data.mdb", 10_000)
    assert (await hub_command(fleet, "verify"))[0] == 2
    code, text = await hub_command(fleet, "doctor")
    assert code == 2 and "FAILED" in text and "agentcom-hub restore" in text


async def test_a_hub_that_is_killed_while_it_makes_a_backup_leaves_no_half_of_one(fleet: Fleet):
    await fleet.start_hub()
    await fleet.submit(*[spec(f"task {number}", f"true {'x' * 3_000}") for number in range(500)])
    call = fleet.hubs.CreateBackup(hub_service_pb2.CreateBackupRequest(), timeout=60)
    folder = fleet.data / "backups"
    await until(lambda: list(folder.glob("*.part")), "a backup is begun")
    await fleet.kill_hub()
    with contextlib.suppress(Exception):
        await call
    assert not list(folder.glob("*.mdb"))
    await fleet.restart_hub()
    assert (await cli(fleet, "hub", "backup"))[0] == 0
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".mdb"]
