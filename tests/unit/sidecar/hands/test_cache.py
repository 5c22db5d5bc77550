"""The bare clone that worktrees share: its base agrees with the remote, its lock holds between processes."""

from __future__ import annotations

import asyncio
import fcntl
import os

import pytest

from kit import clock
from sidecar.child import process
from sidecar.core import fault
from sidecar.repo import git as git_
from sidecar.repo.cache import Cache
from tests.support import gitrepo
from tests.support import sidecar_hands as hands


@pytest.fixture
def cache(tmp_path, origin):
    return make(tmp_path, origin)


def make(tmp_path, origin, lock_timeout_s=20.0):
    (tmp_path / "work").mkdir(exist_ok=True)
    launcher = process.Launcher(clock.SystemClock(), "test-cache")
    git = git_.Git(launcher, agent="a", timeout_s=20.0, network_timeout_s=20.0, work_dir=tmp_path / "work")
    return Cache(git, tmp_path / "work", origin.repo, lock_timeout_s=lock_timeout_s)


async def test_a_main_that_moves_between_fetch_and_look_is_fetched_again(cache, origin, monkeypatch):
    look, moved = cache.remote_sha, []

    async def move_first(ref, *, stop=None):
        if not moved:
            moved.append(origin.commit({"late.txt": "x\n"}))
        return await look(ref, stop=stop)

    monkeypatch.setattr(cache, "remote_sha", move_first)
    async with cache.locked():
        assert await cache.fetch_base(try_count_max=3) == moved[0]


async def test_a_main_that_moves_all_the_time_does_not_keep_the_work_waiting(cache, origin, monkeypatch):
    looks = []

    async def elsewhere(ref, *, stop=None):
        looks.append(ref)
        return "0" * 40

    monkeypatch.setattr(cache, "remote_sha", elsewhere)
    async with cache.locked():
        assert await cache.fetch_base(try_count_max=3) == origin.sha()
    assert len(looks) == 3


async def test_another_process_that_holds_the_cache_is_waited_for(cache, tmp_path):
    async with cache.locked():
        pass
    descriptor = os.open(cache.path.with_suffix(".lock"), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    entered = asyncio.Event()

    async def enter():
        async with cache.locked():
            entered.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(enter())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await entered.wait()
        os.close(descriptor)
    assert entered.is_set()


async def test_a_cache_that_stays_in_use_is_reported_as_the_agents_matter(tmp_path, origin):
    cache, second = make(tmp_path, origin), make(tmp_path, origin, lock_timeout_s=0.05)
    async with cache.locked():
        with pytest.raises(fault.Fault, match="in use") as caught:
            async with second.locked():
                pass
    assert caught.value.attribution == "agent"


async def test_a_ref_is_never_forced(cache, origin):
    origin.commit({"a": "1"}, branch="taken")
    async with cache.locked():
        base = await cache.fetch_base(try_count_max=1)
    with pytest.raises(fault.PushRejected):
        await cache.push(base, "refs/heads/taken")


async def test_a_ref_is_deleted_only_where_it_was_expected(cache, origin):
    sha = origin.commit({"a": "1"}, branch="old")
    async with cache.locked():
        await cache.fetch_base(try_count_max=1)
    with pytest.raises(fault.PushRejected):
        await cache.delete("refs/heads/old", expected_sha=origin.sha())
    assert origin.sha("old") == sha
    await cache.delete("refs/heads/old", expected_sha=sha)
    assert origin.sha("old") == ""


async def test_commits_are_made_in_the_agents_name_where_the_machine_has_none(cache, tmp_path, monkeypatch):
    git = cache._git
    assert (await git.identity())["GIT_COMMITTER_EMAIL"] == "a@agentcom.invalid"
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n\tname = Me\n\temail = me@example.invalid\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    launcher = process.Launcher(clock.SystemClock(), "test-cache")
    own = git_.Git(launcher, agent="a", timeout_s=20.0, network_timeout_s=20.0, work_dir=tmp_path / "work")
    assert await own.identity() == {}


async def test_a_git_command_that_takes_too_long_ends_with_its_bound(cache, tmp_path):
    with pytest.raises(fault.Fault, match="longer than") as caught:
        await cache._git.run("-c", "alias.hang=!sleep 600", "hang", cwd=tmp_path, timeout_s=0.1, network=True)
    assert (caught.value.reason, caught.value.attribution) == ("GIT_TIMEOUT", "environment")


async def test_a_stop_ends_a_fetch_that_hangs(tmp_path, origin, monkeypatch):
    monkeypatch.setenv("GIT_SSH_COMMAND", f"sh -c 'touch {tmp_path}/dialled; exec sleep 600' ssh")
    runner = hands.runner(tmp_path / "work")
    repo = gitrepo.RepoAccess(name="repos/far", url="ssh://git@far.invalid/x.git")
    control = hands.Control()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(hands.not_done(runner, hands.assignment(repo=repo, command="true"), control))
        await hands.until_exists(tmp_path / "dialled")
        control.stop.set("CANCELLED")
    await runner.close()
    assert running.result().stopped
