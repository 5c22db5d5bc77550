"""A hub whose store is damaged: it says so everywhere, writes nothing, loses no work, and is well after a restore."""

from __future__ import annotations

import asyncio
import contextlib
import os
import types
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agentcom.v1 import (
    agent_service_pb2,
    alert_pb2,
    hub_pb2,
    hub_service_pb2,
    task_pb2,
    task_service_pb2,
)
from hub import app
from hub.store import keys
from hub.store.care import errand, restore
from kit import errors
from tests.rpc.test_attach import Sidecar
from tests.rpc.test_store_care import alerts, backup, diagnoses
from tests.store.whole import raw_edit
from tests.support.hub import as_token, refused, running

Create = hub_service_pb2.CreateBackupRequest
Verify = hub_service_pb2.VerifyStoreRequest
GetHub = hub_service_pb2.GetHubRequest
Stats = hub_service_pb2.GetStatsRequest
DISK: dict[str, Any] = {"store__kind": "lmdb"}


@pytest.fixture(autouse=True)
def _restores_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a restore asks of a process of its own is asked here: the store is not open, and it saves seconds."""

    async def run(what: str, *words: str) -> Any:
        return getattr(errand, what)(*map(Path, words))

    monkeypatch.setattr(restore, "errand", types.SimpleNamespace(run=run, Report=errand.Report))


# A store that is not


def damage(path: Path, key: bytes) -> None:
    """A bit of a record, behind the hub's back."""

    def edit(txn: Any) -> None:
        raw = bytearray(txn.get(key))
        raw[-1] ^= 1
        txn.put(key, bytes(raw))

    raw_edit(path, edit)


async def health(caller: Any, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(caller.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    return int(answer.status)


@contextlib.asynccontextmanager
async def with_damaged_task(tmp_path: Path, **settings: Any):
    """A hub on a store with two tasks, of which the first cannot be read; a good backup is there."""
    async with running(tmp_path, **DISK) as caller:
        bad, good = await caller.task("bad"), await caller.task("good")
        made = await backup(caller)
    damage(tmp_path / "hub" / "store", keys.named(keys.TASK, bad.name.removeprefix("tasks/")))
    async with running(tmp_path, **DISK, **settings) as caller:
        yield caller, bad, good, made


async def is_degraded(caller: Any, made: Any, words: str = "checksum") -> None:
    """Everything that a person or a machine can ask says so."""
    hub = (await caller.hubs.GetHub(GetHub())).hub
    assert hub.state == hub_pb2.Hub.STATE_DEGRADED and words in hub.state_reason
    raised = await alerts(caller)
    assert raised["store-degraded"].severity == alert_pb2.Alert.SEVERITY_CRITICAL
    told = raised["store-degraded"].advice
    assert f"agentcom-hub restore {made.name.removeprefix('backups/')} --data" in told
    stats = (await caller.hubs.GetStats(Stats())).stats
    assert stats.store_degraded and stats.alert_count and stats.backup_time == made.create_time
    async with asyncio.timeout(10):
        stub: Any = health_pb2_grpc.HealthStub(caller.channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service="")):
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break
    assert await health(caller, "agentcom.v1.TaskService") == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await health(caller, "agentcom.v1.HubService") == health_pb2.HealthCheckResponse.SERVING
    problem = await refused(caller.task())
    assert type(problem) in (errors.IllegalState, errors.DataLoss) and problem.reason == "STORE_DEGRADED"
    assert "agentcom-hub restore" in problem.message and words in problem.message
    found = await diagnoses(caller)
    assert found["store.records"].verdict == hub_pb2.Diagnosis.VERDICT_FAILED
    assert "agentcom-hub restore" in found["store.records"].advice
    assert (await caller.hubs.ListBackups(hub_service_pb2.ListBackupsRequest())).backups[0].name == made.name
    for call in (
        caller.hubs.CreateBackup(Create()),
        caller.hubs.CompactStore(hub_service_pb2.CompactStoreRequest()),
        caller.hubs.PauseHub(hub_service_pb2.PauseHubRequest()),
        caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest()),
        caller.hubs.CreateToken(hub_service_pb2.CreateTokenRequest(scope=hub_pb2.SCOPE_VIEWER)),
    ):
        assert (await refused(call)).reason == "STORE_DEGRADED"


async def restored(tmp_path: Path, made: Any, *, force: bool = True) -> None:
    """Run the remedy, and the hub after it: it is well, and takes work."""
    file = tmp_path / "hub" / "backups" / f"{made.name.removeprefix('backups/')}.mdb"
    await restore.restore(file, tmp_path / "hub" / "store", made.create_time.seconds + 60.0, force=force)
    async with running(tmp_path, **DISK) as caller:
        assert (await caller.hubs.GetHub(GetHub())).hub.state == hub_pb2.Hub.STATE_SERVING
        listed = (await caller.tasks.ListTasks(task_service_pb2.ListTasksRequest())).tasks
        assert sorted(task.spec.title for task in listed) == ["bad", "good"]
        await caller.task("after")
        assert not (await caller.hubs.VerifyStore(Verify(), timeout=60)).problems


async def test_a_record_that_does_not_check_closes_the_store_for_writing_and_a_restore_opens_it(tmp_path: Path):
    async with with_damaged_task(tmp_path) as (caller, bad, good, made):
        problem = await refused(caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=bad.name)))
        assert type(problem) is errors.DataLoss
        await is_degraded(caller, made)
        read = (await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=good.name))).task
        assert read.spec.title == "good"  # reads go as far as they go
        position = await caller.position()
        assert position == caller.hub.store.read(lambda reader: reader.position())
    await restored(tmp_path, made)


async def test_an_audit_that_finds_damage_closes_the_store_for_writing(tmp_path: Path):
    async with with_damaged_task(tmp_path) as (caller, _, _, made):
        assert (await caller.hubs.GetHub(GetHub())).hub.state == hub_pb2.Hub.STATE_SERVING
        found = await caller.hubs.VerifyStore(Verify(), timeout=60)
        assert len(found.problems) == 1 and "checksum" in found.problems[0]
        await is_degraded(caller, made)


async def test_a_backup_that_finds_damage_closes_the_store_for_writing(tmp_path: Path):
    async with with_damaged_task(tmp_path) as (caller, _, _, made):
        assert type(await refused(caller.hubs.CreateBackup(Create(), timeout=60))) is errors.DataLoss
        await is_degraded(caller, made)


async def test_a_damaged_backup_leaves_the_hub_alone(tmp_path: Path):
    async with running(tmp_path, **DISK) as caller:
        made = await backup(caller)
        file = tmp_path / "hub" / "backups" / f"{made.name.removeprefix('backups/')}.mdb"
        os.truncate(file, 5_000)
        assert (await caller.hubs.VerifyStore(Verify(backup=made.name), timeout=60)).problems
        listed = (await caller.hubs.ListBackups(hub_service_pb2.ListBackupsRequest())).backups
        assert listed[0].problem
        await caller.task()
        assert (await caller.hubs.GetHub(GetHub())).hub.state == hub_pb2.Hub.STATE_SERVING


@pytest.mark.parametrize("key", ["commit", "agent", "paused", "event", "uid"])
async def test_a_hub_starts_on_a_store_with_a_damaged_record_and_says_so(tmp_path: Path, key: str):
    """Whatever the start reads, a person can ask the hub what is the matter."""
    async with running(tmp_path, **DISK) as caller:
        await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="anna"))
        await caller.hubs.PauseHub(hub_service_pb2.PauseHubRequest())
        await caller.hubs.ResumeHub(hub_service_pb2.ResumeHubRequest())
        await caller.task("bad")
        await caller.task("good")
        made = await backup(caller)
    where = {
        "commit": keys.COMMIT,
        "agent": keys.named(keys.AGENT, "anna"),
        "paused": keys.meta("paused"),
        "event": keys.event(3),
        "uid": keys.meta("uid"),
    }
    damage(tmp_path / "hub" / "store", where[key])
    async with running(tmp_path, **DISK) as caller:
        if key == "event":
            await caller.hubs.VerifyStore(Verify(), timeout=60)
        await is_degraded(caller, made, "checksum")
    await restored(tmp_path, made)


@pytest.mark.parametrize("how", ["cut", "meta", "empty", "gone", "garbage", "schema"])
async def test_a_hub_whose_store_cannot_be_opened_starts_and_says_so(tmp_path: Path, how: str):
    async with running(tmp_path, **DISK) as caller:
        for title in ("bad", "good"):
            await caller.task(title)
        made = await backup(caller)
    break_store(tmp_path / "hub" / "store", how)
    async with running(tmp_path, **DISK) as caller:
        words = "schema|no store|version" if how == "schema" else "store"
        await is_degraded(caller, made, words if "|" not in words else "store")
        assert not (await caller.tasks.ListTasks(task_service_pb2.ListTasksRequest())).tasks
        with pytest.raises(errors.Unavailable):  # the folder is not free for a restore while this hub runs
            await restored(tmp_path, made)
    await restored(tmp_path, made, force=how == "schema")


def break_store(store: Path, how: str) -> None:
    data = store / "data.mdb"
    if how == "schema":
        raw_edit(store, lambda txn: txn.put(keys.SCHEMA, b"agentcom st\0re 2"))
    elif how == "gone":
        data.unlink()
    elif how == "garbage":
        data.write_bytes(os.urandom(100_000))
    elif how == "meta":
        with data.open("r+b") as file:
            for page in (0, 4096):
                file.seek(page + 16)
                file.write(b"\0\0\0\0")
    else:
        os.truncate(data, 20_000 if how == "cut" else 0)


async def test_a_newer_store_is_refused_and_not_taken_for_a_damaged_one(tmp_path: Path):
    async with running(tmp_path, **DISK):
        pass
    raw_edit(tmp_path / "hub" / "store", lambda txn: txn.put(keys.SCHEMA, b"agentcom store 99"))
    with pytest.raises(errors.IllegalState) as caught:
        async with running(tmp_path, **DISK):
            pass
    assert caught.value.reason == "STORE_NEWER"


async def test_where_a_token_is_required_the_one_of_the_data_folder_still_opens_a_broken_hub(tmp_path: Path):
    async with running(tmp_path, **DISK, auth__required=True):
        pass
    secret = (tmp_path / "hub" / app.ADMIN_TOKEN_FILE).read_text().strip()
    break_store(tmp_path / "hub" / "store", "empty")
    async with running(tmp_path, **DISK, auth__required=True) as caller:
        assert type(await refused(caller.hubs.GetHub(GetHub()))) is errors.Unauthenticated
        async with as_token(caller.hub, secret) as person:
            assert (await person.hubs.GetHub(GetHub())).hub.state == hub_pb2.Hub.STATE_DEGRADED
            assert (await diagnoses(person))["store.records"].verdict == hub_pb2.Diagnosis.VERDICT_FAILED
            refusal = await refused(
                person.hubs.CreateToken(hub_service_pb2.CreateTokenRequest(scope=hub_pb2.SCOPE_VIEWER))
            )
            assert type(refusal) is errors.Forbidden
    assert (tmp_path / "hub" / app.ADMIN_TOKEN_FILE).read_text().strip() == secret


# Sidecars of a hub whose store is damaged


@pytest.fixture
async def manned(tmp_path: Path):
    """A hub with a short lease, and a sidecar that has accepted a task."""
    brisk: dict[str, Any] = {"engine__lease_s": 1.0, "engine__heartbeat_s": 0.2, "engine__sweep_s": 0.1}
    async with running(tmp_path, **DISK, **brisk) as caller:
        await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="a1"))
        sidecar = Sidecar(int(caller.hub.address.rpartition(":")[2]))
        await sidecar.welcome()
        await caller.task("bad")
        held = await sidecar.assigned()
        await sidecar.acked(await sidecar.accepted(held))
        yield caller, sidecar, held
        await sidecar.lose()


async def beat(sidecar: Any, held: Any, *, unacked: int) -> Any:
    """A heartbeat and its answer; nothing that comes before it acks that report."""
    await sidecar.send(heartbeat={"holdings": [{"task": f"tasks/{held.task}", "generation": held.generation}]})
    while True:
        message = await sidecar.any()
        assert message.ack < unacked
        if message.WhichOneof("body") == "desired":
            return message.desired


async def test_a_degraded_hub_acks_no_report_passes_no_lease_and_keeps_its_streams(manned: Any):
    caller, sidecar, held = manned
    caller.hub.store.found("a trial")
    seq = await sidecar.completed(held)
    for _ in range(5):  # for longer than the lease of a second
        desired = await beat(sidecar, held, unacked=seq)
        assert [one.generation for one in desired.holdings] == [held.generation]
        await asyncio.sleep(0.3)  # the pace of heartbeats: the lease must be seen not to pass
    task = caller.hub.store.read(lambda reader: reader.task(held.task))
    assert (task.generation, task.agent) == (held.generation, "a1")


async def test_a_silent_sidecar_of_a_degraded_hub_loses_nothing_by_its_lease(manned: Any):
    caller, sidecar, _ = manned
    caller.hub.store.found("a trial")
    before = caller.hub.store.facts().commits
    await sidecar.lose()
    await asyncio.sleep(2.5)  # two leases: nothing must happen, and nothing can announce that
    assert caller.hub.store.facts().commits == before
    assert caller.hub.store.read(lambda reader: reader.held_by("a1"))
    assert caller.hub.sessions.get("a1") is not None  # the sweep rests; it would have ended the session


async def test_a_sidecar_that_comes_to_a_degraded_hub_is_told_to_come_back(manned: Any):
    caller, _, held = manned
    caller.hub.store.found("a trial")
    other = Sidecar(int(caller.hub.address.rpartition(":")[2]))
    await other.hello(held)
    problem = await other.problem()
    assert (type(problem), problem.reason) == (errors.Unavailable, "STORE_DEGRADED")
    assert problem.retry_delay_s
    await other.channel.close()


async def test_the_report_that_meets_the_damage_is_not_acked_and_not_blamed(manned: Any, monkeypatch: Any):
    caller, sidecar, held = manned

    async def damaged(fn: Any, *, essential: bool = False) -> Any:
        raise errors.DataLoss("stored record b'T1' does not match its checksum", reason="STORE_CORRUPT")

    monkeypatch.setattr(caller.hub.store.inner, "write", damaged)
    seq = await sidecar.completed(held)
    for _ in range(2):
        await beat(sidecar, held, unacked=seq)
        await asyncio.sleep(0.1)  # an ack waits some milliseconds for company
    assert (await caller.hubs.GetHub(GetHub())).hub.state == hub_pb2.Hub.STATE_DEGRADED
    monkeypatch.undo()


async def test_after_a_restore_what_is_unknown_is_stopped_and_what_is_known_goes_on(tmp_path: Path):
    """The first task was given out before the backup, the second one after it."""
    async with running(tmp_path, **DISK) as caller:
        await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="a1"))
        sidecar = Sidecar(int(caller.hub.address.rpartition(":")[2]))
        await sidecar.welcome(slots=3)
        await caller.task("bad")
        known = await sidecar.assigned()
        await sidecar.acked(await sidecar.accepted(known))
        waiting = await caller.task("good", start_time={"seconds": int(caller.hub.ctx.clock.now()) + 3600})
        made = await backup(caller)
        await caller.tasks.RetryTask(task_service_pb2.RetryTaskRequest(name=waiting.name))
        later = await sidecar.assigned()
        assert later.task == waiting.name.removeprefix("tasks/")
        await sidecar.acked(await sidecar.accepted(later))
        await caller.task("never backed up")
        unknown = await sidecar.assigned()
        await sidecar.acked(await sidecar.accepted(unknown))
        await sidecar.lose()
    file = tmp_path / "hub" / "backups" / f"{made.name.removeprefix('backups/')}.mdb"
    await restore.restore(file, tmp_path / "hub" / "store", made.create_time.seconds + 60.0, force=True)
    async with running(tmp_path, **DISK) as caller:
        sidecar = Sidecar(int(caller.hub.address.rpartition(":")[2]))
        welcome = await sidecar.welcome(known, later, unknown, slots=3)
        assert [one.generation for one in welcome.holdings] == [known.generation]
        stopped = {(await sidecar.next("revoke")).revoke.holding.task for _ in range(2)}
        assert stopped == {f"tasks/{later.task}", f"tasks/{unknown.task}"}
        # The second task is given out again, at a generation that the old holder can never have.
        await caller.tasks.RetryTask(task_service_pb2.RetryTaskRequest(name=waiting.name))
        again = await sidecar.assigned()
        assert again.task == later.task and again.generation > later.generation + 1_000
        await sidecar.acked(await sidecar.completed(later))
        task = (await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=waiting.name))).task
        assert task.state == task_pb2.Task.STATE_ASSIGNED and task.generation == again.generation
        await sidecar.acked(await sidecar.completed(known))
        await sidecar.lose()
