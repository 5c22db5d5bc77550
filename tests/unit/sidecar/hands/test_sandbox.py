"""What a confined command sees, may do, and how its end is told."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import msgspec
import pytest

from kit import clock
from sidecar.child import environment, process, sandbox
from sidecar.child.sandbox import SandboxSettings
from sidecar.core.assignment import Done
from sidecar.core.offer import Offer, refusal
from sidecar.core.selftest import SelfTest
from sidecar.hands.handwork import Handwork
from tests.support import sidecar_hands as hands
from tests.support.gitrepo import git
from tests.support.sidecar_hands import TASK, assignment, check

BRANCH = f"agentcom/{hands.AGENT}/{TASK}"
ROOT = Path(__file__).parents[4]
WIP = f"refs/agentcom/wip/{TASK}/1"


def work(origin, command, **changed):
    return assignment(**{"repo": origin.repo, "delivery": "branch", "executor": "shell", "command": command, **changed})


def log_of(outcome):
    return outcome.artifacts[-1].content.decode()


async def log(runner, command, **changed):
    """What a command prints, run without a repo."""
    task = assignment(executor="shell", command=command, **changed)
    return log_of(await hands.done(runner, task)).partition("[agentcom] execute\n")[2]


async def test_a_confined_task_changes_its_tree_and_is_pushed(confined, origin):
    checks = (check("test -s a.txt && git log -1 --format=%s && git status --porcelain"),)
    outcome = await hands.done(confined, work(origin, "echo 1 > a.txt; git status --short; git log", checks=checks))
    assert origin.files(BRANCH) == ["README.md", "a.txt"]
    assert outcome.receipts[-1].verdict == "pass"


async def test_git_works_inside_as_ever_and_its_commits_are_taken_over(confined, origin):
    command = """set -e
    test "$(git branch --show-current)" = "%s"
    git checkout -q -b other; echo 1 > a.txt; git add a.txt; git commit -qm "made inside"
    git stash list; git diff HEAD~1 --stat; git log origin/main -1 --format=%%H
    echo 2 > b.txt; printf 'ignored\\n' > .gitignore; echo 3 > ignored; git add --force ignored
    """
    outcome = await hands.done(confined, work(origin, command % BRANCH))
    assert origin.files(BRANCH) == [".gitignore", "README.md", "a.txt", "b.txt", "ignored"]
    assert git("log", "--format=%s", f"main..{BRANCH}", cwd=origin.path).splitlines() == ["Do the thing", "made inside"]
    assert outcome.branch == BRANCH


async def test_nothing_but_the_tree_can_be_written(confined, origin, tmp_path):
    places = [tmp_path, tmp_path / "work", tmp_path / "work" / "repos", "/usr", "/etc", "/", "/var", origin.path]
    tries = "".join(f"touch '{place}/escaped' 2>/dev/null && echo ESCAPED-{place};" for place in places)
    task = work(origin, f"{tries} touch inside")
    outcome = await hands.done(confined, task)
    # Where a path is made up inside (the folders above the tree) a file appears to be written: it is gone at the end.
    assert not [place for place in map(Path, places) if place.joinpath("escaped").exists()]
    assert origin.files(BRANCH) == ["README.md", "inside"], log_of(outcome)


async def test_what_lies_outside_cannot_be_read(confined, origin, tmp_path):
    (tmp_path / "secret").write_text("CANARY")
    (tmp_path / "work" / "journal").write_text("CANARY")
    said = await log(
        confined,
        f"cat {tmp_path}/secret {tmp_path}/work/journal /etc/shadow /proc/1/environ; ls -a ~ /run /sys /root /home; "
        f"ls {tmp_path} {tmp_path}/work; ls {origin.path}; true",
    )
    assert "CANARY" not in said
    assert "/etc/shadow: No such file" in said
    assert "origin.git" not in said.replace(str(origin.path), "")


async def test_a_link_out_of_the_tree_leads_nowhere(confined, origin, tmp_path):
    (tmp_path / "secret").write_text("CANARY")
    os.symlink(tmp_path / "secret", origin.clone / "link")
    origin.commit({})
    checks = (check("! cat link"),)
    outcome = await hands.done(confined, work(origin, "! cat link && ! echo x > link; echo 1 > a.txt", checks=checks))
    assert (tmp_path / "secret").read_text() == "CANARY"
    assert "CANARY" not in str(outcome)


async def test_settings_of_the_kernel_cannot_be_written(confined):
    # bubblewrap 0.8 alone leaves them to their owner: a command of a sidecar that runs as root could have had the
    # kernel run a program of its choice, outside of everything.
    said = await log(
        confined,
        "(: >> /proc/sys/kernel/core_pattern) && echo ESCAPED; (: >> /proc/sysrq-trigger) && echo ESCAPED; true",
    )
    assert "ESCAPED" not in said


async def test_there_is_no_network_but_an_own_loopback(confined):
    said = await log(confined, "cat /proc/net/dev; cat /proc/net/route; test ! -e /etc/resolv.conf && echo UNNAMED")
    assert [line.split(":")[0].strip() for line in said.splitlines() if ":" in line] == ["lo"]
    assert "UNNAMED" in said


async def test_a_port_of_the_machine_is_reached_only_with_the_network_granted(confined):
    async with await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        dial = f'import socket; socket.create_connection(("127.0.0.1", {port}), 5)'
        command = f"{sys.executable} -c '{dial}' && echo REACHED; true"
        assert "REACHED" not in (await log(confined, command)).splitlines()
        assert "REACHED" in (await log(confined, command, network=True)).splitlines()


@pytest.mark.skipif(not os.path.exists("/etc/resolv.conf"), reason="the machine resolves no names")
async def test_names_can_be_resolved_with_the_network_granted(confined):
    assert "NAMED" in await log(
        confined, "cat /etc/resolv.conf >/dev/null && getent hosts localhost && echo NAMED", network=True
    )


async def test_what_leaves_its_process_group_ends_with_the_command(confined, tmp_path):
    # Its own session, and an empty environment: no cookie finds it. Its number inside says nothing outside, so its
    # argument has to.
    mark = f"600.{os.getpid()}"
    await hands.done(confined, assignment(executor="shell", command=f"env -i setsid sleep {mark} & sleep 0.1"))
    await hands.until(lambda: not [p for p in _commands() if mark in p])


def _commands():
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.append(Path(f"/proc/{entry}/cmdline").read_text())
            except OSError:
                continue
    return found


async def test_a_command_gets_its_grace_and_then_ends(confined, origin):
    control = hands.Control()
    command = "trap 'echo last words > words.txt; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    seen = asyncio.Event()
    control = hands.Control(on_output=lambda text: seen.set() if "ready" in text.splitlines() else None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(hands.not_done(confined, work(origin, command), control))
        async with asyncio.timeout(hands.PATIENCE_S):
            await seen.wait()
        control.stop.set("CANCELLED")
    assert running.result().stopped
    assert origin.read("words.txt", WIP) == "last words"


async def test_a_command_that_ignores_the_order_to_end_is_killed(confined):
    task = assignment(executor="shell", command="trap '' TERM; while :; do sleep 1; done", run_timeout_s=0.5)
    assert (await hands.not_done(confined, task)).failure.reason == "TIMEOUT"


async def test_a_silent_command_is_told_from_a_failed_one(confined):
    silent = await hands.not_done(confined, assignment(executor="shell", command="sleep 60", silence_timeout_s=0.3))
    failed = await hands.not_done(confined, assignment(executor="shell", command="exit 7"))
    killed = await hands.not_done(confined, assignment(executor="shell", command="kill -9 $$"))
    assert (silent.failure.reason, silent.failure.attribution) == ("SILENT", "task")
    assert "exit code 7" in failed.failure.message
    assert "signal 9" in killed.failure.message


async def test_a_sandbox_that_fails_is_never_the_tasks_fault(confined, monkeypatch):
    await confined.start()
    sandbox = confined._tools.workspaces.confinement._sandbox
    prefix = sandbox.prefix
    monkeypatch.setattr(sandbox, "prefix", lambda *given: (*prefix(*given), "--ro-bind", "/nowhere", "/nowhere"))
    outcome = await hands.not_done(confined, assignment(executor="shell", command="true"))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("SANDBOX_FAILED", "agent")
    assert "/nowhere" in outcome.failure.message


async def test_caches_are_shared_and_the_home_folder_is_not(tmp_path, bubblewrap):
    cache = tmp_path / "cache"
    runner = hands.confined(tmp_path / "work", caches=(cache,))
    said = await log(runner, f"echo kept > {cache}/file; echo lost > ~/file; cat ~/file")
    assert "lost" in said
    said = await log(runner, f"cat {cache}/file; cat ~/file; ls -a ~; ls /tmp | wc -l")
    await runner.close()
    assert "kept" in said
    assert "lost" not in said
    assert (cache / "file").read_text() == "kept\n"


async def test_private_folders_are_gone_afterwards(confined, origin, tmp_path):
    await hands.done(
        confined, work(origin, "mkdir -p ~/a/b /tmp/c; chmod 0 ~/a; echo 1 > a.txt", checks=(check("true"),))
    )
    left = [path for path in (tmp_path / "work" / "boxes").rglob("*") if not path.is_dir()]
    assert left == []
    assert list((tmp_path / "work" / "trees").iterdir()) == []


async def test_without_a_sandbox_a_task_that_demands_one_is_refused(runner):
    outcome = await hands.not_done(runner, assignment(executor="shell", command="true", isolation="required"))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("NO_SANDBOX", "agent")
    passed = SelfTest(passed=True, findings=(), ended_at=0.0)
    offered = {"slots": 1, "executors": ("shell",), "tiers": ("trivial",)}
    task = assignment(executor="shell", command="true", isolation="required")
    assert refusal(Offer(**offered), passed, task, closing=False).reason == "NO_SANDBOX"
    assert refusal(Offer(**offered, sandbox=True), passed, task, closing=False) is None


async def test_a_machine_that_demands_a_sandbox_and_has_none_is_blocked_and_says_why(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name in ("sh", "git", "rm", "mkdir"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    runner = hands.confined(tmp_path / "work")
    tested = await runner.self_test()
    outcome = await hands.not_done(runner, assignment(executor="shell", command="true"))
    await runner.close()
    finding = next(finding for finding in tested.findings if finding.probe == "sandbox")
    assert not tested.passed
    assert "install bubblewrap" in finding.message
    assert outcome.failure.reason == "NO_SANDBOX"
    assert not runner.has_sandbox


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_a_sandbox_that_stops_working_fails_the_self_test_and_is_not_given_up(
    tmp_path, bubblewrap, monkeypatch, mode
):
    runner = hands.runner(tmp_path / "work", sandbox=SandboxSettings(mode=mode))
    await runner.start()
    assert runner.has_sandbox
    monkeypatch.setattr(runner._tools.workspaces.confinement._sandbox, "_program", "/bin/false")
    assert not (await runner.self_test()).passed
    assert runner.has_sandbox
    await runner.close()


async def test_where_there_is_no_bubblewrap_an_unconcerned_machine_works_without(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "PROGRAM", "no-such-program")
    runner = hands.runner(tmp_path / "work", sandbox=SandboxSettings())
    tested = await runner.self_test()
    await hands.done(runner, assignment(executor="shell", command="true"))
    await runner.close()
    finding = next(finding for finding in tested.findings if finding.probe == "sandbox")
    assert tested.passed
    assert "commands run unconfined" in finding.message
    assert not runner.has_sandbox


SIDECAR = """
import asyncio, pathlib, sys
import msgspec
from sidecar.child.control import Control
from sidecar.core.assignment import Assignment
from tests.support import sidecar_hands as hands
task = msgspec.json.decode(sys.argv[2], type=Assignment)
asyncio.run(hands.confined(pathlib.Path(sys.argv[1])).run(task, Control()))
"""


async def test_after_kill_9_nothing_lives_inside_and_commits_of_the_box_are_saved(confined, origin, tmp_path):
    mark = f"600.{os.getpid()}1"
    command = f"echo mine > a.txt; git add a.txt; git commit -qm mine; echo half > b.txt; env -i setsid sleep {mark}"
    task = work(origin, command)
    encoded = msgspec.json.encode(task).decode()
    with hands.start(sys.executable, "-c", SIDECAR, str(tmp_path / "work"), encoded, cwd=ROOT) as sidecar:
        await hands.until(lambda: [p for p in _commands() if mark in p and p.startswith("sleep")])
        sidecar.kill()
    await hands.until(lambda: not [p for p in _commands() if mark in p and "bwrap" not in p and SIDECAR not in p])
    outcome = await confined.recover(task)
    assert outcome.wip_ref == WIP
    assert origin.files(WIP) == ["README.md", "a.txt", "b.txt"]
    assert git("log", "--format=%s", f"main..{WIP}", cwd=origin.path).splitlines() == ["wip: Do the thing", "mine"]
    assert list((tmp_path / "work" / "trees").iterdir()) == []


async def test_checks_of_work_by_hand_are_confined_too(tmp_path, origin, bubblewrap):
    settings = hands.settings(tmp_path / "hand", sandbox=SandboxSettings(mode="required"))
    handwork = Handwork(settings, clock.SystemClock(), random.Random(1), hands.AGENT)
    tree = tmp_path / "mine"
    checks = (check(f"touch {tmp_path}/escaped; test ! -e {tree}"),)
    await handwork.prepare(work(origin, "", checks=checks), tree)
    (tree / "a.txt").write_text("1")
    git("add", "--all", cwd=tree)
    git("commit", "--quiet", "-m", "mine", cwd=tree)
    outcome = await handwork.submit(tree)
    assert isinstance(outcome, Done), outcome
    assert not (tmp_path / "escaped").exists()


async def test_scripts_that_the_sidecar_plays_itself_are_no_sandbox(confined):
    outcome = await hands.not_done(confined, assignment(executor="fake", command="[]", isolation="required"))
    assert (outcome.failure.reason, outcome.failure.attribution) == ("NO_SANDBOX", "agent")


async def test_commits_made_in_a_sandbox_are_not_read_without_one(confined, origin, tmp_path):
    """Their repository's configuration would be obeyed."""
    task = work(origin, "true")
    space = await confined._tools.workspaces.open(task)
    await confined.start()
    order = process.Order(
        argv=("sh", "-c", "echo 1 > a.txt; git add a.txt; git commit -qm mine"),
        cwd=space.tree, environment=environment.for_child(), timeout_s=20.0,
    )  # fmt: skip
    await confined._tools.workspaces.confinement.run(order, repo=origin.repo, network=False)
    plain = hands.runner(tmp_path / "work")
    outcome = await plain.recover(task)
    await plain.close()
    # The files are saved, the commit is not: it is told in the log.
    assert outcome.wip_ref == WIP
    assert origin.files(WIP) == ["README.md", "a.txt"]
    assert git("log", "--format=%s", f"main..{WIP}", cwd=origin.path) == "wip: Do the thing"


def test_what_a_folder_of_the_path_needs_is_readable_and_no_more(tmp_path):
    home = tmp_path / "home"
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    (venv / "bin" / "python").symlink_to("/usr/bin/python3")
    assert sandbox._installation(home / "bin", home) == [home / "bin"]
    assert sandbox._installation(home / ".local" / "bin", home) == [home / ".local" / "bin"]
    assert sandbox._installation(home / ".cargo" / "bin", home) == [home / ".cargo" / "bin", home / ".rustup"]
    assert sandbox._installation(home / ".pyenv" / "shims", home) == [home / ".pyenv"]
    assert venv in sandbox._installation(venv / "bin", home)


async def test_the_pointer_of_the_tree_to_its_git_folder_cannot_be_replaced(confined, origin):
    command = """
    rm -rf .git 2>/dev/null && echo ESCAPED; mv .git x 2>/dev/null && echo ESCAPED
    (echo 'gitdir: /nowhere' > .git) 2>/dev/null && echo ESCAPED; echo 1 > a.txt
    """
    outcome = await hands.done(confined, work(origin, command))
    assert "ESCAPED" not in log_of(outcome)


async def test_the_sidecars_own_is_hidden_even_below_what_is_readable(tmp_path, bubblewrap):
    (tmp_path / "token").write_text("CANARY")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "identity").write_text("CANARY")
    (tmp_path / "tool").write_text("useful")
    hidden = (tmp_path / "token", tmp_path / "state")
    settings = SandboxSettings(mode="required", readable=(tmp_path,), hidden=hidden)
    runner = hands.runner(tmp_path / "work", sandbox=settings)
    (tmp_path / "work" / "journal").write_text("CANARY")
    said = await log(runner, f"cat {tmp_path}/tool; cd {tmp_path}; cat token state/* work/journal; true")
    await runner.close()
    assert "useful" in said
    assert "CANARY" not in said
