"""The care of the store by RPC: backups, audits, compaction, alerts, doctor."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from agentcom.v1 import (
    alert_pb2,
    backup_pb2,
    hub_pb2,
    hub_service_pb2,
    task_service_pb2,
)
from hub.core.diagnosis import Verdict
from hub.store.care import backups as backups_module
from kit import errors
from tests.support.hub import refused, running
from tests.support.processes import until

Create = hub_service_pb2.CreateBackupRequest
Verify = hub_service_pb2.VerifyStoreRequest
GetHub = hub_service_pb2.GetHubRequest
Stats = hub_service_pb2.GetStatsRequest
DISK: dict[str, Any] = {"store__kind": "lmdb"}


@pytest.fixture
async def caller(tmp_path: Path):
    async with running(tmp_path, **DISK) as made:
        yield made


async def backup(caller: Any) -> Any:
    return (await caller.hubs.CreateBackup(Create(), timeout=60)).backup


async def alerts(caller: Any) -> dict[str, Any]:
    await caller.hub.upkeep.board.run_once(caller.hub.ctx.clock.now())
    found = (await caller.hubs.ListAlerts(hub_service_pb2.ListAlertsRequest())).alerts
    return {one.name.removeprefix("alerts/"): one for one in found}


async def diagnoses(caller: Any) -> dict[str, Any]:
    reply = await caller.hubs.DiagnoseHub(hub_service_pb2.DiagnoseHubRequest(), timeout=60)
    return {one.probe: one for one in reply.diagnoses}


# A store that is well


async def test_a_backup_is_made_listed_and_can_be_read_through(caller: Any):
    await caller.task("first")
    made = await backup(caller)
    position = await caller.position()
    assert made.event_position == position
    assert made.trigger == backup_pb2.Backup.TRIGGER_REQUEST
    assert made.HasField("verify_time") and not made.problem
    await caller.task("second")
    second = await backup(caller)
    listed = await caller.hubs.ListBackups(hub_service_pb2.ListBackupsRequest(page_size=1))
    assert [one.name for one in listed.backups] == [second.name]
    rest = await caller.hubs.ListBackups(
        hub_service_pb2.ListBackupsRequest(page_size=1, page_token=listed.next_page_token)
    )
    assert [one.name for one in rest.backups] == [made.name] and not rest.next_page_token
    for name in ("", made.name):
        found = await caller.hubs.VerifyStore(Verify(backup=name), timeout=60)
        assert not found.problems and found.record_count and found.index_entry_count and found.event_count
    await alerts(caller)
    stats = (await caller.hubs.GetStats(Stats())).stats
    assert (stats.backup_time, stats.store_degraded, stats.alert_count) == (second.create_time, False, 0)


async def test_only_one_at_a_time(caller: Any):
    first = asyncio.ensure_future(caller.hubs.CreateBackup(Create(), timeout=60))
    await until(lambda: caller.hub.upkeep.care._doing, "a backup is being made")
    for call in (
        caller.hubs.CreateBackup(Create()),
        caller.hubs.VerifyStore(Verify()),
        caller.hubs.CompactStore(hub_service_pb2.CompactStoreRequest()),
    ):
        problem = await refused(call)
        assert (type(problem), problem.reason) == (errors.Unavailable, "CARE_BUSY")
        assert problem.retry_delay_s
    await first
    assert (await backup(caller)).name


async def test_a_caller_that_goes_away_takes_its_backup_with_it(caller: Any, tmp_path: Path):
    call = caller.hubs.CreateBackup(Create(), timeout=60)
    asking = asyncio.ensure_future(call)
    await until(lambda: caller.hub.upkeep.care._doing, "a backup is being made")
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await until(lambda: not caller.hub.upkeep.care._doing, "it is not made any more")
    assert os.listdir(tmp_path / "hub" / "backups") == []


async def test_unknown_backups_and_bad_pages_are_refused(caller: Any):
    unknown = await refused(caller.hubs.VerifyStore(Verify(backup="backups/" + "0" * 20)))
    assert (type(unknown), unknown.reason) == (errors.NotFound, "BACKUP_NOT_FOUND")
    bad = await refused(caller.hubs.ListBackups(hub_service_pb2.ListBackupsRequest(page_token="x")))
    assert bad.reason == "BAD_PAGE_TOKEN"
    assert isinstance(await refused(caller.hubs.VerifyStore(Verify(backup="backups/../x"))), errors.Invalid)


async def test_a_store_in_memory_has_nothing_to_keep(tmp_path: Path):
    async with running(tmp_path) as caller:
        for call in (
            caller.hubs.CreateBackup(Create()),
            caller.hubs.VerifyStore(Verify()),
            caller.hubs.CompactStore(hub_service_pb2.CompactStoreRequest()),
        ):
            problem = await refused(call)
            assert (type(problem), problem.reason) == (errors.IllegalState, "STORE_MEMORY")
        assert not (await caller.hubs.ListBackups(hub_service_pb2.ListBackupsRequest())).backups
        assert await alerts(caller) == {}
        assert (await diagnoses(caller))["configuration"].verdict == hub_pb2.Diagnosis.VERDICT_WARNING


async def test_the_store_is_compacted_while_the_hub_works(caller: Any):
    name = (await caller.task()).name
    found = await caller.hubs.CompactStore(hub_service_pb2.CompactStoreRequest(), timeout=60)
    assert found.after_bytes and found.before_bytes
    assert (await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=name))).task.name == name
    await caller.task()


async def test_backups_are_made_by_the_schedule_and_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    every: dict[str, Any] = {
        "backup__every_s": 100.0,
        "backup__keep_count": 2,
        "backup__folder": tmp_path / "elsewhere",
    }
    async with running(tmp_path, **DISK, **every) as caller:
        care: Any = caller.hub.upkeep.care
        clock = caller.hub.ctx.clock
        await care.run_once(clock.now())
        assert care.all() == []  # it has just started
        care._started -= 1_000
        seen = []
        for _ in range(4):
            await care.run_once(clock.now())
            seen.append(care.all()[0].id)
            await care.run_once(clock.now())
            assert care.all()[0].id == seen[-1]  # none is due
            aged = [backup_of(one, created_at=clock.now() - 200) for one in care.all()]
            for one in aged:
                care._keeper._backups._write_manifest(one)
        assert [one.id for one in care.all()] == seen[:1:-1]
        assert os.listdir(tmp_path / "elsewhere")


def backup_of(one: Any, **fields: Any) -> Any:
    return type(one)(**{**{name: getattr(one, name) for name in one.__struct_fields__}, **fields})


async def test_a_backup_that_fails_raises_an_alert_that_ends_with_the_next_good_one(
    caller: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    care = caller.hub.upkeep.care
    care._started -= 1_000
    monkeypatch.setattr(backups_module, "DISK_RESERVE_BYTES", 1 << 60)
    await care.run_once(caller.hub.ctx.clock.now())
    raised = await alerts(caller)
    assert list(raised) == ["backup-failed"]
    assert "MiB free" in raised["backup-failed"].message and raised["backup-failed"].advice
    assert raised["backup-failed"].severity == alert_pb2.Alert.SEVERITY_WARNING
    since = raised["backup-failed"].start_time
    assert (await alerts(caller))["backup-failed"].start_time == since
    assert (await caller.hubs.GetStats(Stats())).stats.alert_count == 1
    problem = await refused(caller.hubs.CreateBackup(Create()))
    assert (type(problem), problem.reason) == (errors.Exhausted, "DISK_FULL")
    monkeypatch.undo()
    await backup(caller)
    assert await alerts(caller) == {}
    store = caller.hub.store
    await until(lambda: len(_told(store)) >= 2, "both are in the event log")
    assert _told(store) == ["alert.raised", "alert.cleared"]
    assert (await caller.hubs.GetHub(GetHub())).hub.state == hub_pb2.Hub.STATE_SERVING


def _told(store: Any) -> list[str]:
    return [event.type for event in store.read(lambda reader: reader.events_of("alerts/backup-failed", limit=9))]


async def test_the_doctor_finds_a_hub_well_and_says_what_is_not(caller: Any, tmp_path: Path):
    await backup(caller)
    found = await diagnoses(caller)
    assert {probe: Verdict(one.verdict).name for probe, one in found.items()} == dict.fromkeys(
        (
            "store.records", "store.room", "store.readers", "disk", "disk.sync", "clock", "clock.agents",
            "configuration", "backups", "loops",
        ),
        "OK",
    )  # fmt: skip
    assert all(one.message for one in found.values())
    (tmp_path / "hub" / "admin.token").chmod(0o644)
    assert "admin.token has mode 644" in (await diagnoses(caller))["configuration"].message
