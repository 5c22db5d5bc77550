"""An upgrade as docs/upgrade.md tells it, with real processes of two versions: nothing is lost, redone or charged."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import grpc
import lmdb
import pytest

from agentcom.v1 import agent_pb2, hub_pb2, hub_service_pb2, task_pb2
from hub.store import keys, migrate
from kit import status
from tests.e2e import history
from tests.skew.programs import MixedFleet, Program
from tests.support.fleet import appears, spec
from tests.support.gitrepo import Origin
from tests.support.processes import Process, until

KEPT_SCHEMA = 2
"""Of the stores that the kept version makes."""

GOAL = """\
---
title: a word
repo: demo
assertions:
  - {id: A1, text: the word is there, run: test -e word.txt}
plan:
  tasks:
    - id: T1
      title: the word
      fulfills: [A1]
      checks:
        - {run: test -e word.txt, expect_on_base: fail}
      command: echo word > word.txt
---
Filed while the hub was away.
"""


def long_task(began: Path, go: Path, **more) -> task_pb2.TaskSpec:
    """Writes its generation when it begins, and ends when it may."""
    return spec("long", f"echo $AGENTCOM_GENERATION >> {began}; while ! test -e {go}; do sleep 0.05; done", **more)


async def drain_and_stop(fleet: MixedFleet, program: Program) -> None:
    """The hub's part of the procedure, up to the moment in which there is no hub."""
    assert "draining" in await program.say(fleet.address, "hub", "drain", "--reason", "upgrade")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fleet.submit(spec("refused"))
    assert status.from_rpc_error(caught.value).reason == "HUB_DRAINING"
    assert fleet.hub is not None
    assert await fleet.hub.stop() == 0


async def test_a_hub_is_upgraded_in_place_under_a_running_task(
    mixed, kept: Program, ours: Program, origin: Origin, tmp_path: Path
):
    fleet = mixed(hub=kept, sidecar=kept)
    began, go, folder = tmp_path / "began", tmp_path / "go", tmp_path / "goals"
    folder.mkdir()
    await fleet.start_hub(intake_folder=folder, intake_look_s=0.2)
    await fleet.start_sidecars("ada", slots=2)
    await fleet.add_repo("demo", origin.path)
    needs = task_pb2.Requirement(capabilities=["gpu"])
    long, waits = await fleet.submit(long_task(began, go), spec("nobody can", requirement=needs))
    await appears(began)

    looked = await upgrade_check(fleet, ours)
    assert looked["schema"]["verdict"] == "OK"
    assert (
        looked["sidecars"]["message"] == f"1 sidecar is one minor apart from {ours.version} and works on: ada (0.1.0)"
    )
    await drain_and_stop(fleet, kept)
    (folder / "goal.md").write_text(GOAL)  # a folder takes goals while there is no hub
    fleet.programs["hub"] = ours
    await fleet.restart_hub()
    back = await fleet.until_events("agent.attached", 2)
    assert back[1].fields["adopted"] == "1"
    await appears(folder / "taken" / "goal.md.goal.txt")
    await fleet.until_events("goal.succeeded")
    assert (await fleet.task(waits)).state == task_pb2.Task.STATE_QUEUED
    go.touch()
    done = (await fleet.until_tasks([long]))[long]
    assert (done.generation, done.attempts_used, began.read_text()) == (1, 0, "1\n")
    hub = (await fleet.hubs.GetHub(hub_service_pb2.GetHubRequest())).hub
    assert (hub.version, hub.state) == (ours.version, hub_pb2.Hub.STATE_SERVING)
    reply = await fleet.hubs.VerifyStore(hub_service_pb2.VerifyStoreRequest())
    assert not reply.problems
    events = await fleet.history()
    history.check(events, {event.subject for event in events if event.type == "task.created"} - {waits})


async def upgrade_check(fleet: MixedFleet, program: Program) -> dict[str, dict[str, str]]:
    """What a version says of the store that another one works on."""
    words = [*program.command("hub"), "upgrade-check", "--json", "--data", str(fleet.data)]
    process = await Process.start("upgrade-check", words, log=fleet.root / "check.out")
    assert await process.wait() in (0, 1), process.said()
    return {one["probe"]: one for one in json.loads(process.said())["diagnoses"]}


async def test_a_sidecar_is_upgraded_when_its_task_is_done(mixed, kept: Program, ours: Program, tmp_path: Path):
    fleet = mixed(hub=ours, sidecar=kept)
    began, go = tmp_path / "began", tmp_path / "go"
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    long, later = await fleet.submit(long_task(began, go), spec("later", f"echo later >> {began}"))
    await appears(began)
    old = fleet.sidecars["ada"]
    old.signal(signal.SIGTERM)
    await fleet.until_agent("ada", agent_pb2.Agent.STATE_DRAINING)
    go.touch()
    assert await old.wait() == 0
    assert (await fleet.task(long)).state == task_pb2.Task.STATE_SUCCEEDED
    assert (await fleet.task(later)).state == task_pb2.Task.STATE_QUEUED, "nothing new for one that goes"
    fleet.programs["sidecar"] = ours
    await fleet.start_sidecar("ada")
    done = await fleet.until_tasks([long, later])
    assert {task.attempts_used for task in done.values()} == {0}
    assert began.read_text() == "1\nlater\n"
    assert (await fleet.agent("ada")).version == ours.version
    history.check(await fleet.history(), [long, later])


async def test_a_sidecar_that_is_asked_twice_hands_its_work_over_to_the_newer_one(
    mixed, kept: Program, ours: Program, origin: Origin, tmp_path: Path
):
    fleet = mixed(hub=ours, sidecar=kept)
    began, go = tmp_path / "began", tmp_path / "go"
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    repo = await fleet.add_repo("demo", origin.path)
    command = f"echo $AGENTCOM_GENERATION >> words.txt; cp words.txt {began}; while ! test -e {go}; do sleep 0.05; done"
    check = task_pb2.Check(id="c", run="test -e words.txt", expect_on_base=task_pb2.Check.EXPECTATION_FAIL)
    (name,) = await fleet.submit(spec("long", command, repo=repo, delivery=task_pb2.DELIVERY_MERGE, checks=[check]))
    await appears(began)
    old = fleet.sidecars["ada"]
    old.signal(signal.SIGTERM)
    await fleet.until_agent("ada", agent_pb2.Agent.STATE_DRAINING)
    old.signal(signal.SIGTERM)
    assert await old.wait() == 0
    assert f"refs/agentcom/wip/{name.removeprefix('tasks/')}/1" in origin.refs()
    go.touch()
    fleet.programs["sidecar"] = ours
    await fleet.start_sidecar("ada")
    done = (await fleet.until_tasks([name]))[name]
    assert (done.generation, done.attempts_used) == (2, 0)
    assert origin.read("words.txt") == "1\n2", "the second attempt began with what the first one left"


@pytest.mark.parametrize("way", ["forth", "back"])
async def test_the_journal_of_a_killed_sidecar_is_read_by_one_of_the_other_version(
    mixed, kept: Program, ours: Program, origin: Origin, tmp_path: Path, way: str
):
    first, second = (kept, ours) if way == "forth" else (ours, kept)
    fleet = mixed(hub=ours, sidecar=first)
    began, go = tmp_path / "began", tmp_path / "go"
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    repo = await fleet.add_repo("demo", origin.path)
    command = f"echo $AGENTCOM_GENERATION >> words.txt; cp words.txt {began}; while ! test -e {go}; do sleep 0.05; done"
    (name,) = await fleet.submit(spec("long", command, repo=repo, delivery=task_pb2.DELIVERY_BRANCH))
    await appears(began)
    await fleet.sidecars["ada"].kill()
    go.touch()
    fleet.programs["sidecar"] = second
    await fleet.start_sidecar("ada")
    done = (await fleet.until_tasks([name]))[name]
    assert (done.generation, done.attempts_used) == (2, 0)
    assert began.read_text() == "1\n2\n", "what was not committed was found and goes on"


async def test_back_to_the_older_hub_on_the_store_that_the_newer_one_used(
    mixed, kept: Program, ours: Program, tmp_path: Path
):
    fleet = mixed(hub=kept, sidecar=kept)
    began, go = tmp_path / "began", tmp_path / "go"
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    (long,) = await fleet.submit(long_task(began, go))
    await appears(began)
    assert fleet.hub is not None
    assert await fleet.hub.stop() == 0
    fleet.programs["hub"] = ours
    await fleet.restart_hub()
    await fleet.until_events("agent.attached", 2)
    assert await fleet.hub.stop() == 0
    if migrate.VERSION > KEPT_SCHEMA:  # the way back that docs/upgrade.md tells
        store, aside = fleet.data / "store", fleet.data / f"store.v{KEPT_SCHEMA}"
        store.rename(fleet.data / "store.newer")
        aside.rename(store)
    fleet.programs["hub"] = kept
    await fleet.restart_hub()
    go.touch()
    done = (await fleet.until_tasks([long]))[long]
    assert (done.generation, done.attempts_used, began.read_text()) == (1, 0, "1\n")
    reply = await fleet.hubs.VerifyStore(hub_service_pb2.VerifyStoreRequest())
    assert not reply.problems, "the older program finds nothing that it does not know"


async def test_the_older_hub_does_not_touch_a_store_of_a_newer_schema(mixed, kept: Program, ours: Program):
    fleet = mixed(hub=ours, sidecar=ours)
    await fleet.start_hub()
    assert fleet.hub is not None
    assert await fleet.hub.stop() == 0
    raise_schema(fleet.data / "store", max(migrate.VERSION, KEPT_SCHEMA + 1))
    before = digest(fleet.data / "store")
    fleet.programs["hub"] = kept
    words = [*kept.command("hub"), "--data", str(fleet.data), "--listen", "127.0.0.1:0"]
    process = await Process.start("older hub", words, log=fleet.root / "older.log")
    assert await process.wait() == 2
    assert f"this hub knows up to {KEPT_SCHEMA}: use a newer hub" in process.said()
    assert digest(fleet.data / "store") == before


def raise_schema(store: Path, schema: int) -> None:
    """Let the store say that a later hub wrote it."""
    with lmdb.open(str(store), max_dbs=0) as environment, environment.begin(write=True) as txn:
        assert txn.put(keys.SCHEMA, f"agentcom store {schema}".encode())


def digest(store: Path) -> str:
    return hashlib.sha256((store / "data.mdb").read_bytes()).hexdigest()


async def test_a_drain_waits_until_nothing_runs(mixed, ours: Program, tmp_path: Path):
    fleet = mixed(hub=ours, sidecar=ours)
    began, go = tmp_path / "began", tmp_path / "go"
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    await fleet.submit(long_task(began, go))
    await appears(began)
    said = await ours.cli(fleet.address, "hub", "drain", "--wait", "--wait-s", "1")
    assert said.code == 5, said
    assert "1 task runs still; the hub goes on draining" in said.errors
    words = [*ours.command("cli"), "--hub", fleet.address, "hub", "drain", "--wait"]
    waiting = await Process.start("drain", words, log=fleet.root / "drain.out")
    await until(lambda: "1 task runs still" in waiting.said(), "it waits")
    go.touch()
    assert await waiting.wait() == 0
    assert "the hub is draining, and nothing runs" in waiting.said()
