"""Makes a kept store with the code as it stands: `PYTHONPATH=.:gen python -m tests.store.kept.make FOLDER`.

Run once for each schema version, with the program that wrote that version, before its successor is begun; the result
(`data.mdb.gz`, `found.json`) is committed and never made again. It holds at least one record of every sort and state,
made by the transaction scripts themselves; clock, ids and dice are fixed.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from hub.core import agent as agents_core
from hub.core import repo as repo_core
from hub.core.task import (
    ArtifactInfo,
    Delivery,
    DependencyPolicy,
    Failure,
    Kind,
    Lane,
    Requirement,
    Task,
    TaskSpec,
    Tier,
)
from hub.core.token import Scope, Token
from hub.engine.script import agents, forget, queue, requests, steering, tokens, work
from hub.store import codec, keys
from hub.store.lmdb import LmdbStore
from tests.store.kept.picture import picture
from tests.support import goalbench
from tests.support.goalbench import CONFLICT, RED, UNREACHABLE, GoalBench, check, plan_task

DEAD = Failure(reason="EXIT_CODE", message="it exited with 1", evidence="line 1\nline 2 é")


def fill(bench: GoalBench) -> None:
    """One of everything."""
    _tokens(bench)
    _agents(bench)
    _repos(bench)
    _ended(bench)
    _goals(bench)
    _alive(bench)  # last: nothing of it may be woken by the time that the others need
    bench.do(lambda txn: txn.set_meta("paused", b"0"))
    request = requests.Request("tokens/t", "CreateTask", "request-1", b"f" * 16)
    bench.do(lambda txn: requests.remember(txn, request, "tasks/x", bench.now + 86_400))
    # The log begins behind an anchor, and artefacts of what succeeded are gone: since version 2.
    bench.do(lambda txn: txn.drop_events(before=0.0, keep=120, limit=1000))
    bench.do(lambda txn: forget.artifacts(txn, bench.now, 1))


def _tokens(bench):
    for number, scope in enumerate(Scope):
        token = tokens.new(f"token{number}", f"secret {number}", scope, bench.now, display_name=f"of {scope.name}")
        bench.do(lambda txn, token=token: tokens.create(txn, token, bench.now, actor="hub"))
    expired = tokens.new("tokenexpired", "secret e", Scope.VIEWER, bench.now, ttl_s=1.0)
    bench.do(lambda txn: tokens.create(txn, expired, bench.now, actor="hub"))
    bench.do(lambda txn: tokens.revoke(txn, "token2", bench.now + 0.5, actor="tokens/token0"))
    used = msgspec.structs.replace(_token(bench, "token1"), last_used_at=bench.now + 5)
    bench.do(lambda txn: txn.tokens.put(used))


def _token(bench: GoalBench, id: str) -> Token:
    found = bench.read(lambda reader: reader.tokens.get(id))
    assert found is not None
    return found


def _agents(bench):
    for id in ("a", "b", "m"):
        wanted = agents.Wanted(id, f"agent {id}", f"tokenof{id}", f"secret of {id}")
        request = requests.Request("local", "EnrollAgent", f"enrol {id}", id.encode())
        bench.do(lambda txn, w=wanted, r=request: agents.enroll(txn, w, r, bench.now, actor="local", window_s=86_400))
    offer = agents_core.Offer(
        capabilities=frozenset({"gpu"}),
        executors=frozenset({"shell"}),
        tiers=frozenset(Tier),
        kinds=frozenset(Kind),
        slots=4,
        repos=frozenset({"app"}),
    )
    a = bench.read(lambda reader: reader.agents.get("a"))
    assert a is not None
    full = msgspec.structs.replace(
        a,
        offer=offer,
        draining=True,
        version="0.1.0",
        host="host",
        last_seen_at=bench.now,
        isolated_until=bench.now + 9,
    )
    bench.do(lambda txn: txn.agents.put(full))
    bench.do(lambda txn: agents.rotate(txn, "b", "tokenofb2", "another secret", bench.now, actor="local"))


def _repos(bench: GoalBench) -> None:
    other = repo_core.Repo(
        id="lib", url="https://example.org/lib.git", display_name="Library", default_branch="trunk", checks=(check(),)
    )
    bench.do(lambda txn: txn.repos.put(other))


def _ended(bench: GoalBench) -> None:
    cancelled = submit(bench, "is cancelled")
    bench.do(lambda txn: queue.cancel(txn, cancelled.id, bench.now, actor="local", reason="not wanted é"))
    _succeeded(bench)
    dead = submit(bench, "is dead", attempts_max=2)
    submit(bench, "died with it", depends_on=(dead.id,))
    submit(bench, "is parked with it", depends_on=(dead.id,), dependency_policy=DependencyPolicy.PARK)
    bench.kill(dead)
    infos = (ArtifactInfo(id="log", media_type="text/plain", size_bytes=3),)
    again = submit(bench, "keeps its log", attempts_max=1)
    bench.fail(again, DEAD, infos=infos, artifacts={"log": b"\0\1\2"}, wip_ref="refs/agentcom/wip/x/1")
    gone = submit(bench, "is deleted")
    bench.do(lambda txn: queue.cancel(txn, gone.id, bench.now, actor="local"))
    bench.do(lambda txn: queue.delete(txn, gone.id, bench.now, actor="local"))


def _alive(bench: GoalBench) -> None:
    waiting = submit(bench, "waits", start_at=bench.now + 3600, lane=Lane.LOW)
    assert waiting.state.name == "SCHEDULED"
    first = submit(bench, "is queued", lane=Lane.URGENT, labels={"a": "b"})
    submit(bench, "is pending", depends_on=(first.id,))
    bench.hold(submit(bench, "is assigned"), "a")
    running = bench.hold(submit(bench, "runs", requirement=Requirement(capabilities=("gpu",))), "a")
    bench.do(lambda txn: work.accept(txn, running, "a", bench.now))
    by_hand = submit(bench, "is held by hand")
    bench.do(lambda txn: queue.claim(txn, by_hand.id, "m", 900.0, bench.now, actor="local"))
    bench.fail(submit(bench, "is parked"), UNREACHABLE)
    bench.fail(submit(bench, "failed once", attempts_max=5), DEAD)
    off = bench.fail(submit(bench, "backs off", attempts_max=5), DEAD)
    bench.fail(off, DEAD)


def _succeeded(bench: GoalBench) -> None:
    done = submit(bench, "succeeds", checks=(check("lint", "make lint"),))
    holding = bench.hold(done, "b")
    spec = bench.read(lambda reader: reader.spec(done.id))
    assert spec is not None
    artifacts = (ArtifactInfo(id="out", media_type="text/plain", size_bytes=5, truncated=True),)
    result = msgspec.structs.replace(goalbench.proven(spec, "sha"), summary="did it", artifacts=artifacts, tokens=7)
    contents = {"out": b"hello"}
    bench.do(lambda txn: work.accept(txn, holding, "b", bench.now))
    bench.do(lambda txn: work.complete(txn, holding, "b", result, contents, bench.now, roll=0.5))
    bench.tick()


def submit(bench: GoalBench, title: str, **fields: Any) -> Task:
    """A task of no goal."""
    spec = TaskSpec(title=title, command="true", **fields)
    id = f"{title.replace(' ', '')[:19]:0<20}".lower()
    task, _ = bench.do(lambda txn: queue.submit(txn, id, spec, bench.now, actor="local"))
    bench.tick()
    return task


def _goals(bench: GoalBench) -> None:
    bench.create()  # AWAITING_PLAN
    reached = bench.create(plan_task("one"), plan_task("two", "one"))
    bench.finish(reached, "one", "two")
    _verify(bench, reached)
    verifying = bench.create(plan_task("one"))
    bench.finish(verifying, "one")
    unreached = bench.create(plan_task("one"))
    bench.finish(unreached, "one")
    _verify(bench, unreached, red=True)
    lost = bench.create(
        plan_task("one", attempts_max=1), plan_task("two", "one", dependency_policy=DependencyPolicy.PARK)
    )
    bench.kill(bench.task(lost, "one"))
    returned = bench.create(plan_task("one"), plan_task("two"))
    bench.done(bench.task(returned, "one"))
    while bench.merges():
        bench.tick(3600)
        bench.wake()
        bench.merge(CONFLICT)
    bench.done(bench.task(returned, "two"))  # MERGING, its change boards
    waits = bench.create(plan_task("one"))
    bench.done(bench.task(waits, "one"))  # its change waits in the train
    paused = bench.create(plan_task("one"))
    bench.do(lambda txn: steering.pause(txn, paused, bench.now, actor="local"))
    cancelled = bench.create(plan_task("one", delivery=Delivery.NONE), plan_task("two"))
    bench.done(bench.task(cancelled, "one"))
    bench.done(bench.task(cancelled, "two"))
    bench.do(lambda txn: steering.cancel(txn, cancelled, bench.now, actor="local", reason="enough"))


def _verify(bench: GoalBench, goal_id: str, *, red: bool = False) -> None:
    (task,) = bench.tasks(goal_id, Kind.VERIFY)
    while red and task.state.name != "DEAD":
        bench.tick(3600)
        bench.wake()
        task = bench.fail(bench.at(task.id), RED)
    if not red:
        bench.done(task)


def main(folder: Path) -> None:
    """Make the store and the list of what is in it."""
    bench = GoalBench()
    fill(bench)
    picture_of = bench.read(picture)
    with tempfile.TemporaryDirectory() as scratch:
        _write(bench, Path(scratch) / "store")
        _compact(Path(scratch) / "store", Path(scratch) / "copy")
        with (
            open(Path(scratch) / "copy" / "data.mdb", "rb") as source,
            open(folder / "data.mdb.gz", "wb") as raw,
            gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as target,
        ):
            shutil.copyfileobj(source, target)
    (folder / "found.json").write_text(json.dumps(picture_of, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _write(bench: GoalBench, folder: Path) -> None:
    """The map of the bench's memory store, key by key, as an LMDB store: they differ below the keys only."""
    folder.mkdir()
    store = LmdbStore.open(folder)
    kv = store._environment.begin()
    for key, value in bench.store._map.items(b"\0", b"\xff", 1_000_000):
        kv.put(key, value)
    kv.put(keys.meta("uid"), codec.seal(codec.CONTENT_TAG, b"0123456789abcdef"))
    store._environment.commit()
    store._environment.close()
    store._lock.release()


def _compact(source: Path, target: Path) -> None:
    """Without free pages."""
    store = LmdbStore.open(source)
    target.mkdir()
    store.copy(target)
    store._environment.close()
    store._lock.release()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
