"""What becomes of unfinished work: stopped, timed out, hung, crashed, or the sidecar itself killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from sidecar.child.control import Control
from sidecar.core.assignment import NotDone
from tests.support import sidecar_hands as hands
from tests.support.sidecar_hands import TASK, assignment, check, holding

ROOT = Path(__file__).parents[4]
WIP = f"refs/agentcom/wip/{TASK}/1"


def work(origin, **changed):
    return assignment(**{"repo": origin.repo, "delivery": "branch", "executor": "shell", **changed})


async def stopped_once(runner, task, signal_file, reason="CANCELLED"):
    control = Control()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(hands.not_done(runner, task, control))
        await hands.until_exists(signal_file)
        control.stop.set(reason)
    return running.result()


async def test_a_stop_kills_the_command_and_saves_what_it_had_done(runner, origin, tmp_path):
    command = f"echo half > half.txt; echo $$ > {tmp_path}/pid; touch {tmp_path}/begun; exec sleep 600"
    outcome = await stopped_once(runner, work(origin, command=command), tmp_path / "begun", "FENCED")
    assert outcome.stopped
    assert (outcome.failure.reason, outcome.failure.attribution) == ("FENCED", "hub")
    assert outcome.wip_ref == WIP
    assert origin.read("half.txt", WIP) == "half"
    assert not hands.alive(int((tmp_path / "pid").read_text()))


async def test_a_stop_during_a_check_saves_the_work_too(runner, origin, tmp_path):
    checks = (check(f"touch {tmp_path}/checking; sleep 600", timeout_s=600),)
    task = work(origin, command="echo 1 > a.txt", checks=checks)
    outcome = await stopped_once(runner, task, tmp_path / "checking")
    assert outcome.stopped
    assert origin.read("a.txt", WIP) == "1"


async def test_a_hanging_script_is_stopped_at_once(runner, origin, tmp_path):
    script = f"[{{write: a.txt, content: x}}, {{touch: {tmp_path}/begun}}, {{hang: true}}]"
    outcome = await stopped_once(runner, work(origin, executor="fake", command=script), tmp_path / "begun")
    assert outcome.stopped
    assert origin.read("a.txt", WIP) == "x"


async def test_an_attempt_that_is_stopped_before_it_begins_does_nothing(runner, origin, tmp_path):
    control = Control()
    control.stop.set("CANCELLED")
    outcome = await hands.not_done(runner, work(origin, command=f"touch {tmp_path}/ran"), control)
    assert outcome.stopped
    assert control.progress.phase == ""
    assert not (tmp_path / "ran").exists()


async def test_the_run_timeout_ends_the_attempt_and_saves_its_work(runner, origin):
    outcome = await hands.not_done(runner, work(origin, command="echo 1 > a.txt; sleep 600", run_timeout_s=1.0))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("TIMEOUT", "task")
    assert outcome.wip_ref == WIP


async def test_a_silent_command_counts_as_hung(runner, origin):
    outcome = await hands.not_done(runner, work(origin, command="sleep 600", silence_timeout_s=0.3))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("SILENT", "task")


async def test_a_check_that_runs_out_of_time_is_unknown(runner, origin):
    task = work(origin, command="echo 1 > a.txt", checks=(check("sleep 600", timeout_s=0.3),))
    outcome = await hands.not_done(runner, task)
    assert outcome.failure.reason == "CHECK_FAILED"
    assert outcome.receipts[-1].verdict == "unknown"


async def test_output_and_progress_are_seen_while_the_command_runs(runner, origin, tmp_path):
    pieces = []
    control = Control(pieces.append)
    command = f"echo one; touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo 1 > a.txt"
    async with asyncio.TaskGroup() as group:
        running = group.create_task(runner.run(work(origin, command=command), control))
        await hands.until_exists(tmp_path / "begun")
        assert control.progress.phase == "execute"
        (tmp_path / "go").touch()
    assert running.result().head_sha
    assert "one\n" in "".join(pieces)
    assert control.progress.phase == "push"
    assert control.progress.last_output_at is not None


async def test_the_working_tree_is_watched_for_progress(tmp_path, origin):
    runner = hands.runner(tmp_path / "work", progress_every_s=0.02)
    control = Control()
    command = f"echo 1 > a.txt; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(work(origin, command=command), control))
        await hands.until(lambda: control.progress.files_changed == 1)
        (tmp_path / "go").touch()
    await runner.close()


async def test_work_that_cannot_be_pushed_stays_on_disk_and_reaches_the_origin_with_the_next_attempt(runner, origin):
    script = "[{write: b.txt, content: next}]"
    hidden = origin.path.with_name("hidden.git")
    command = f"echo mine > a.txt; mv {origin.path} {hidden}; exit 1"
    first = await hands.not_done(runner, work(origin, command=command))
    assert first.failure.reason == "COMMAND_FAILED"
    assert first.wip_ref == ""
    assert "kept by agents/" in first.failure.evidence
    hidden.rename(origin.path)
    await hands.done(runner, work(origin, holding=holding(2), executor="fake", command=script))
    assert origin.read("a.txt", WIP) == "mine"


async def test_an_unreachable_repository_is_the_environments_fault(runner, origin):
    origin.path.rename(origin.path.with_name("gone.git"))
    outcome = await hands.not_done(runner, work(origin, command="true"))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("FETCH_FAILED", "environment")


async def test_a_repository_without_the_default_branch_is_the_environments_fault(runner, origin):
    repo = msgspec.structs.replace(origin.repo, default_branch="trunk")
    outcome = await hands.not_done(runner, work(origin, command="true", repo=repo))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("FETCH_FAILED", "environment")


async def test_an_address_with_a_secret_is_refused_and_not_repeated(runner, origin):
    repo = msgspec.structs.replace(origin.repo, url="https://me:hunter2@example.invalid/x.git")
    outcome = await hands.not_done(runner, work(origin, command="true", repo=repo))
    assert outcome.failure.reason == "SECRET_IN_ADDRESS"
    assert "hunter2" not in str(outcome)


SIDECAR = """
import asyncio, pathlib, sys
import msgspec
from sidecar.child.control import Control
from sidecar.core.assignment import Assignment
from tests.support import sidecar_hands as hands
task = msgspec.json.decode(sys.argv[2], type=Assignment)
asyncio.run(hands.runner(pathlib.Path(sys.argv[1])).run(task, Control()))
"""


async def test_after_kill_9_the_work_is_recovered_and_its_children_are_dead(runner, origin, tmp_path):
    command = f"echo half > half.txt; echo $$ > {tmp_path}/pid; touch {tmp_path}/begun; exec sleep 600"
    task = work(origin, command=command)
    work_dir = tmp_path / "work"
    encoded = msgspec.json.encode(task).decode()
    with hands.start(sys.executable, "-c", SIDECAR, str(work_dir), encoded, cwd=ROOT) as sidecar:
        await hands.until_exists(tmp_path / "begun")
        sidecar.kill()
    outcome = await runner.recover(task)
    assert isinstance(outcome, NotDone)
    assert outcome.stopped
    assert (outcome.failure.reason, outcome.failure.attribution) == ("SIDECAR_RESTARTED", "agent")
    assert outcome.wip_ref == WIP
    assert origin.read("half.txt", WIP) == "half"
    assert not hands.alive(int((tmp_path / "pid").read_text()))
    assert list((work_dir / "trees").iterdir()) == []


async def test_a_recovered_attempt_lets_the_next_one_use_the_branch(runner, origin, tmp_path):
    task = work(origin, command=f"echo half > half.txt; touch {tmp_path}/begun; exec sleep 600")
    running = asyncio.create_task(runner.run(task, Control()))
    await hands.until_exists(tmp_path / "begun")
    running.cancel()  # the process is torn down: nothing is saved on this way out
    await asyncio.wait([running])
    assert running.cancelled()
    assert origin.refs("refs/agentcom/") == {}
    outcome = await hands.done(runner, work(origin, holding=holding(2), command="echo 1 > a.txt"))
    assert outcome.branch == f"agentcom/{hands.AGENT}/{TASK}"
    assert origin.read("half.txt", WIP) == "half"


async def test_recovering_what_was_never_begun_says_so_and_fails_nothing(runner, origin):
    outcome = await runner.recover(work(origin))
    assert isinstance(outcome, NotDone)
    assert outcome.stopped
    assert outcome.wip_ref == ""


async def test_lock_files_of_killed_git_commands_do_not_stop_the_next_sidecar(tmp_path, origin):
    first = hands.runner(tmp_path / "work")
    await hands.done(first, work(origin, command="echo 1 > a.txt"))
    await first.close()
    (cache,) = (tmp_path / "work" / "repos").glob("*.git")
    (cache / "packed-refs.lock").touch()
    (cache / "refs" / "remotes" / "origin" / "main.lock").touch()
    origin.commit({"b.txt": "2\n"})
    second = hands.runner(tmp_path / "work")
    await hands.done(second, work(origin, holding=holding(2), command="echo 3 > c.txt"))
    await second.close()


async def test_slots_that_share_a_repository_do_not_get_in_each_others_way(runner, origin):
    tasks = [
        work(origin, holding=holding(1, task=f"{n:020d}"), command=f"echo {n} > f{n}.txt", checks=(check("true"),))
        for n in range(6)
    ]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(hands.done(runner, task)) for task in tasks]
    assert len({each.result().branch for each in running}) == 6
    assert all(each.result().diff_stat.files == 1 for each in running)
