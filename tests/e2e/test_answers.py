"""The four answers of docs/faults.md, given by real processes: an acked submit at kill -9, a result whose ack was lost,
a zombie's late result, a full disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from agentcom.v1 import task_pb2, task_service_pb2
from kit import errors, status
from tests.e2e import history
from tests.support.fleet import SUCCEEDED, Fleet, appears, spec
from tests.support.processes import until
from tests.support.proxy import proxied

ROUNDS = 6
CALLERS = 8
TURNED_AWAY = 6
MIB = 1024 * 1024


class Caller:
    """Files tasks one after the other and keeps what the hub acknowledged."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self._fleet = fleet
        self._rng = rng
        self.acked: dict[str, str] = {}
        self.unsure: list[str] = []

    async def file(self, request_id: str) -> str:
        """One task; its name."""
        request = task_service_pb2.CreateTaskRequest(spec=spec(request_id), request_id=request_id)
        return str((await self._fleet.tasks.CreateTask(request, wait_for_ready=False, timeout=10)).task.name)

    async def run(self, on_ack: asyncio.Semaphore) -> None:
        """Until the hub does not answer any more."""
        while True:
            request_id = f"r-{self._rng.getrandbits(64):016x}"
            try:
                self.acked[request_id] = await self.file(request_id)
            except grpc.aio.AioRpcError:
                self.unsure.append(request_id)
                return
            on_ack.release()


async def every_task(fleet: Fleet) -> dict[str, str]:
    """Request id (the title) of each task that the hub has."""
    found: dict[str, str] = {}
    token = ""
    while True:
        request = task_service_pb2.ListTasksRequest(page_size=1000, page_token=token)
        page = await fleet.tasks.ListTasks(request)
        found |= {task.name: task.spec.title for task in page.tasks}
        token = page.next_page_token
        if not token:
            return found


async def test_every_acked_submit_is_there_after_kill_9_at_any_point(fleet: Fleet, rng: random.Random, capsys):
    await fleet.start_hub()
    acked: dict[str, str] = {}
    for _ in range(ROUNDS):
        callers = [Caller(fleet, rng) for _ in range(CALLERS)]
        on_ack = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller.run(on_ack))
            for _ in range(rng.randint(1, 40)):
                await on_ack.acquire()
            await fleet.kill_hub()
        await fleet.restart_hub()
        have = await every_task(fleet)
        for caller in callers:
            for request_id, name in caller.acked.items():
                assert have.get(name) == request_id, f"{name} was acked and is lost"
            acked |= caller.acked
            for request_id in caller.unsure:  # the same request again: one task, whether the first came through or not
                acked[request_id] = await caller.file(request_id)
    have = await every_task(fleet)
    assert have == {name: request_id for request_id, name in acked.items()}, "each request made one task"
    await fleet.start_sidecar("ada", slots=8)
    await fleet.until_tasks(have)
    history.check(await fleet.history(), have)
    with capsys.disabled():
        print(f"\nkill -9 of the hub under load: {ROUNDS} times, {len(acked)} acked submits, none lost")


@pytest.mark.parametrize("then", ["the stream comes back", "the hub is killed too", "the sidecar is killed too"])
async def test_a_result_whose_ack_was_lost_is_accepted_once(fleet: Fleet, tmp_path: Path, then: str):
    await fleet.start_hub()
    began, gate, out = tmp_path / "began", tmp_path / "gate", tmp_path / "out"
    async with proxied(fleet.address) as proxy:
        await fleet.start_sidecar("ada", address=proxy.address)
        (name,) = await fleet.submit(
            spec(command=f"touch {began}; while ! test -e {gate}; do sleep 0.05; done; echo done >> {out}")
        )
        await appears(began)
        await fleet.until_tasks([name], task_pb2.Task.STATE_RUNNING)
        proxy.loses_replies = True
        gate.touch()
        await fleet.until_tasks([name], SUCCEEDED)  # the report came through, its ack does not
        if then == "the hub is killed too":
            await fleet.kill_hub()
        if then == "the sidecar is killed too":
            await fleet.sidecars["ada"].kill()
        proxy.cut()
        proxy.loses_replies = False
        if then == "the hub is killed too":
            await fleet.restart_hub()
        if then == "the sidecar is killed too":
            await fleet.start_sidecar("ada", address=proxy.address)
        (again,) = await fleet.submit(spec("the agent is free for the next"))
        await fleet.until_tasks([again])
        if then != "the stream comes back":
            # Neither side remembers the session: the sidecar has told the result once more, and is acked now.
            closed = '"event":"holding.restored"' if "sidecar" in then else '"resumed":false,"holdings":1'
            assert closed in fleet.sidecars["ada"].said()
    assert out.read_text() == "done\n"
    task = await fleet.task(name)
    assert [(a.generation, a.outcome) for a in task.attempts] == [(1, task_pb2.Attempt.OUTCOME_COMPLETED)]
    events = await fleet.history()
    history.check(events, [name, again])
    assert not history.of(events, "task.fenced")


@pytest.mark.parametrize("how", ["it stands still", "its cable is pulled"])
async def test_a_zombies_late_result_is_refused_and_the_second_one_stands(fleet: Fleet, tmp_path: Path, how: str):
    await fleet.start_hub(engine_lease_s=2.0)
    gates = {agent: tmp_path / f"gate.{agent}" for agent in ("ada", "grace")}
    began = tmp_path / "began"
    wait = f"while ! test -e {tmp_path}/gate.$AGENTCOM_AGENT; do sleep 0.05; done"
    command = f"touch {began}.$AGENTCOM_AGENT.$AGENTCOM_GENERATION; {wait}; echo from $AGENTCOM_AGENT"
    async with proxied(fleet.address) as proxy:
        ada = await fleet.start_sidecar("ada", address=proxy.address)
        await fleet.until_agent("ada", 2)
        (name,) = await fleet.submit(spec(command=command))
        await appears(Path(f"{began}.ada.1"))
        await fleet.until_tasks([name], task_pb2.Task.STATE_RUNNING)
        await fleet.start_sidecar("grace")
        if how == "it stands still":
            ada.freeze()
            gates["ada"].touch()  # its child runs on and ends: there is a result
        else:
            proxy.is_dark = True
            gates["ada"].touch()
            await until(lambda: '"event":"holding.finished"' in ada.said(), "the zombie has a result")
        await appears(Path(f"{began}.grace.2"))
        if how == "it stands still":
            ada.thaw()
        else:
            proxy.is_dark = False
            proxy.cut()
        await fleet.until_events("task.fenced", subject=name)
        gates["grace"].touch()
        await fleet.until_tasks([name])
        await fleet.until_agent("ada", 2)
    task = await fleet.task(name)
    assert [(a.agent, a.generation, a.outcome) for a in task.attempts] == [
        ("agents/ada", 1, task_pb2.Attempt.OUTCOME_LOST),
        ("agents/grace", 2, task_pb2.Attempt.OUTCOME_COMPLETED),
    ]
    assert task.attempts[1].result.summary == "from grace"
    assert not task.attempts[0].HasField("result")
    assert task.attempts_used == 0
    assert (await fleet.stats()).fenced_count >= 1
    history.check(await fleet.history(), [name])


async def fill(fleet: Fleet) -> list[str]:
    """File tasks that nobody can do until the hub refuses; their names."""
    names: list[str] = []
    nobody = task_pb2.Requirement(capabilities=["nobody"])
    load = spec("ballast", instructions="x" * 60_000, requirement=nobody)
    for _ in range(2_000):
        try:
            reply = await fleet.tasks.CreateTask(task_service_pb2.CreateTaskRequest(spec=load))
        except grpc.aio.AioRpcError as error:
            refused(error)
            return names
        names.append(reply.task.name)
    raise AssertionError("never full")


def refused(error: grpc.aio.AioRpcError) -> None:
    """It is the refusal of a full store, and says when to come again."""
    problem = status.from_rpc_error(error)
    assert isinstance(problem, errors.Exhausted), problem
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (problem.reason, bool(problem.retry_delay_s)) == ("STORE_FULL", True)


async def make_room(fleet: Fleet, names: list[str]) -> None:
    """Cancel and delete tasks."""
    for name in names:
        await fleet.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=name))
        await fleet.tasks.DeleteTask(task_service_pb2.DeleteTaskRequest(name=name))


async def work_under_way(fleet: Fleet, tmp_path: Path) -> list[str]:
    """Two tasks that run until the files `gate.0` and `gate.1` are there, and then leave as much log as one may."""
    await fleet.start_sidecars("ada", slots=4)
    waits = [f"while ! test -e {tmp_path}/gate.{n}; do sleep 0.1; done" for n in range(2)]
    long = "head -c 400000 /dev/zero | tr '\\0' x"
    names = await fleet.submit(*[spec(f"under way {n}", f"{wait}; {long}") for n, wait in enumerate(waits)])
    await fleet.until_tasks(names, task_pb2.Task.STATE_RUNNING)
    return names


async def test_a_full_store_refuses_submits_takes_results_and_recovers_without_a_restart(fleet: Fleet, tmp_path: Path):
    await fleet.start_hub(store_map_first_bytes=MIB, store_map_max_bytes=32 * MIB)
    under_way = await work_under_way(fleet, tmp_path)
    ballast = await fill(fleet)
    for n in range(2):
        (tmp_path / f"gate.{n}").touch()
    await fleet.until_tasks(under_way)
    assert await fill(fleet) == [], "still no room"
    await make_room(fleet, ballast)
    (again,) = await fleet.submit(spec("there is room again", instructions="x" * 60_000))
    await fleet.until_tasks([again])
    history.check(await fleet.history(), [*under_way, again])


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes, where this machine lets us make one."""
    path.mkdir()
    mount = shutil.which("mount")
    made = mount is not None and (
        subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=False
        )
    )
    if not made or made.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=True)


async def test_a_full_disk_refuses_submits_loses_no_result_and_recovers_without_a_restart(fleet: Fleet, tmp_path: Path):
    fleet.root.mkdir()
    with small_disk(fleet.data, 128 * MIB) as disk:
        await fleet.start_hub(store_map_first_bytes=MIB, engine_lease_s=2.0)
        under_way = await work_under_way(fleet, tmp_path)
        others = disk / "somebody-elses"
        others.write_bytes(b"\0" * (shutil.disk_usage(disk).free - 32 * MIB))
        assert await fill(fleet) == [], "little is left, and it is for results"
        (tmp_path / "gate.0").touch()
        await fleet.until_tasks(under_way[:1])
        with contextlib.suppress(OSError), others.open("ab", buffering=0) as file:
            while file.write(b"\0" * 4096):  # to the last page: now nothing can be stored, and so nothing is acked
                pass
        (tmp_path / "gate.1").touch()
        ada = fleet.sidecars["ada"]
        await until(lambda: ada.said().count('"event":"holding.finished"') == 2, "the sidecar has the result")
        assert await fill(fleet) == []
        # Each time it is told to come again within a quarter of a lease: the disk is full for longer than a lease.
        await until(lambda: ada.said().count('"event":"sidecar.detached"') >= TURNED_AWAY, "it was turned away often")
        others.unlink()
        await fleet.until_tasks(under_way)
        (again,) = await fleet.submit(spec("there is room again"))
        await fleet.until_tasks([again])
        events = await fleet.history()
        history.check(events, [*under_way, again])
        assert len(history.of(events, "hub.started")) == 1
        assert [len((await fleet.task(name)).attempts) for name in under_way] == [1, 1]
        await fleet.close()
