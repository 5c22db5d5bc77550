"""Repos: which addresses are taken, and what each verb of the registry does and refuses."""

from __future__ import annotations

import functools

import msgspec
import pytest

from hub.core import repo_url
from hub.core.repo import MergeStyle, Repo
from hub.core.task import DependencyPolicy, State
from hub.engine.script import queue, registry, requests, steering
from kit import errors, ids
from tests.support.goalbench import UNREACHABLE, GoalBench, check, plan_task

NEW = Repo(id="lib", url="https://git.example.org/lib.git")
REQUEST = requests.Request("me", "CreateRepo", "11112222", b"f")


@pytest.fixture
def bench() -> GoalBench:
    return GoalBench()


def create(bench: GoalBench, repo: Repo = NEW, request: requests.Request = REQUEST) -> Repo:
    return bench.do(lambda txn: registry.create(txn, repo, request, bench.now, window_s=100.0))


@pytest.mark.parametrize(
    "url",
    [
        "/srv/git/app.git",
        "file:///srv/git/app.git",
        "https://git.example.org/team/app.git",
        "https://git.example.org:8443/app",
        "http://10.0.0.1:3000/app.git",
        "ssh://git@git.example.org:2222/app.git",
        "ssh://git.example.org/app.git",
        "ssh://[fd00::1]/app.git",
        "git@git.example.org:team/app.git",
        "host:path/app.git",
        "git@[fd00::1]:app.git",
    ],
)
def test_an_address_that_git_understands_is_taken(url: str) -> None:
    assert repo_url.objection(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "relative/path",
        "./app.git",
        "-oProxyCommand=touch",
        "--upload-pack=touch",
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "fd::17",
        "transport-x::anything",
        "git://git.example.org/app.git",
        "ftp://git.example.org/app.git",
        "https://user:secret@git.example.org/app.git",
        "https://ghp_0123456789@git.example.org/app.git",
        "https://git.example.org/app.git?private_token=x",
        "https://git.example.org/app.git#x",
        "https:///app.git",
        "https://git.example.org:port/app.git",
        "https://[broken/app.git",
        "ssh://git:secret@git.example.org/app.git",
        "ssh://-oProxyCommand=touch/app.git",
        "ssh://-l@git.example.org/app.git",
        "ssh://@/app.git",
        "git:secret@git.example.org:app.git",
        "git@-oProxyCommand=touch:app.git",
        "git@git.example.org:-x",
        "git@git.example.org:",
        "file://host/app.git",
        "file://",
        "/srv/app.git\n--upload-pack=touch",
        "/srv/my app.git",
        "/srv/\x00app",
    ],
)
def test_an_address_with_a_secret_an_option_or_a_command_in_it_is_refused(url: str) -> None:
    assert repo_url.objection(url)


def test_a_repo_is_filed_once_for_one_request(bench: GoalBench) -> None:
    filed = create(bench)
    assert (filed.created_at, filed.revision, filed.default_branch) == (bench.now, 1, "main")
    position = bench.read(lambda reader: reader.position())
    assert create(bench) == filed
    assert bench.read(lambda reader: reader.position()) == position


def test_a_taken_id_and_a_reused_request_id_are_refused(bench: GoalBench) -> None:
    create(bench)
    with pytest.raises(errors.AlreadyExists) as refused:
        create(bench, request=REQUEST._replace(id="33334444"))
    assert refused.value.reason == "REPO_EXISTS"
    with pytest.raises(errors.AlreadyExists) as refused:
        create(bench, request=REQUEST._replace(fingerprint=b"other"))
    assert refused.value.reason == "REQUEST_ID_REUSED"


def test_everything_that_is_wrong_with_a_repo_is_named(bench: GoalBench) -> None:
    broken = msgspec.structs.replace(
        NEW, url="ext::sh", default_branch="a..b", checks=(check("c"), check("c"), check("d", " "))
    )
    with pytest.raises(errors.Invalid) as refused:
        create(bench, broken)
    assert [violation.field for violation in refused.value.violations] == [
        "repo.url",
        "repo.default_branch",
        "repo.checks[1].id",
        "repo.checks[2].run",
    ]
    assert bench.read(lambda reader: reader.repos.get("lib")) is None


def test_an_update_sets_the_fields_of_its_mask_and_no_others(bench: GoalBench) -> None:
    wanted = Repo(id="app", url="/elsewhere", display_name="App", merge_style=MergeStyle.FAST_FORWARD)
    after = bench.do(
        lambda txn: registry.update(txn, "app", wanted, ["merge_style", "display_name"], bench.now, actor="me")
    )
    assert (after.display_name, after.merge_style, after.url) == ("App", MergeStyle.FAST_FORWARD, "/srv/app.git")
    assert after.revision == 2
    everything = bench.do(lambda txn: registry.update(txn, "app", wanted, ["*"], bench.now, actor="me"))
    assert (everything.url, everything.checks) == ("/elsewhere", ())


@pytest.mark.parametrize("mask", [[], ["name"], ["paused"], ["url", "nonsense"]])
def test_an_update_of_a_field_that_cannot_be_set_is_refused(bench: GoalBench, mask: list[str]) -> None:
    with pytest.raises(errors.Invalid) as refused:
        bench.do(lambda txn: registry.update(txn, "app", bench.repo, mask, bench.now, actor="me"))
    assert refused.value.violations[0].field == "update_mask"


def test_an_update_cannot_bring_in_what_a_create_refuses(bench: GoalBench) -> None:
    wanted = msgspec.structs.replace(bench.repo, url="-x")
    with pytest.raises(errors.Invalid):
        bench.do(lambda txn: registry.update(txn, "app", wanted, ["url"], bench.now, actor="me"))


def test_a_stale_etag_and_an_unknown_name_are_refused(bench: GoalBench) -> None:
    with pytest.raises(errors.Conflict):
        bench.do(lambda txn: registry.update(txn, "app", bench.repo, ["*"], bench.now, actor="me", etag="7"))
    with pytest.raises(errors.Conflict):
        bench.do(lambda txn: registry.delete(txn, "app", bench.now, actor="me", etag="7"))
    for verb in (registry.delete, registry.pause, registry.resume):
        with pytest.raises(errors.NotFound):
            bench.do(functools.partial(verb, repo_id="gone", now=bench.now, actor="me"))


def test_a_repo_without_users_is_deleted(bench: GoalBench) -> None:
    bench.do(lambda txn: registry.delete(txn, "app", bench.now, actor="me", etag="1"))
    assert bench.read(lambda reader: reader.repos.get("app")) is None


@pytest.mark.parametrize("user", ["queued", "held", "parked", "merging", "goal"])
def test_a_repo_that_something_live_uses_is_not_deleted(bench: GoalBench, user: str) -> None:
    if user == "goal":
        goal_id = bench.create()
        used_by = f"goals/{goal_id}"
    else:
        spec = plan_task("T1").spec
        spec = msgspec.structs.replace(spec, requirement=msgspec.structs.replace(spec.requirement, repo="app"))
        task_id = ids.derived(bench.now, "t")
        task = bench.do(lambda txn: queue.submit(txn, task_id, spec, bench.now, actor="me")[0])
        used_by = f"tasks/{task_id}"
        if user == "held":
            bench.hold(task)
        elif user == "parked":
            bench.fail(task, UNREACHABLE)
        elif user == "merging":
            used_by = f"changes/{bench.done(task).change}"
    with pytest.raises(errors.IllegalState) as refused:
        bench.do(lambda txn: registry.delete(txn, "app", bench.now, actor="me"))
    assert refused.value.metadata["used_by"] == used_by


def test_a_repo_whose_goals_and_tasks_have_ended_is_deleted(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    bench.do(lambda txn: steering.cancel(txn, goal_id, bench.now, actor="me"))
    bench.do(lambda txn: registry.delete(txn, "app", bench.now, actor="me"))


def test_pausing_and_resuming_tell_the_log_once(bench: GoalBench) -> None:
    for _ in range(2):
        assert bench.do(lambda txn: registry.pause(txn, "app", bench.now, actor="me")).paused
    for _ in range(2):
        assert not bench.do(lambda txn: registry.resume(txn, "app", bench.now, actor="me")).paused
    told = bench.read(lambda reader: reader.events_of("repos/app", limit=100))
    assert [event.type for event in told] == ["repo.paused", "repo.resumed"]


def test_a_resume_tries_at_once_what_is_parked_for_the_repo_and_nothing_else(bench: GoalBench) -> None:
    bench.do(lambda txn: txn.repos.put(Repo(id="lib", url="/srv/lib.git")))
    goal_id = bench.create(plan_task("T1"), plan_task("T2", fulfills=["A1"]))
    other = plan_task("T3").spec
    other = msgspec.structs.replace(other, requirement=msgspec.structs.replace(other.requirement, repo="lib"))
    task_id = ids.derived(bench.now, "t")
    task = bench.do(lambda txn: queue.submit(txn, task_id, other, bench.now, actor="me")[0])
    bench.fail(task, UNREACHABLE)
    bench.fail(bench.task(goal_id, "T1"), UNREACHABLE)
    bench.do(lambda txn: steering.pause(txn, goal_id, bench.now, actor="me"))  # parks T2
    bench.do(lambda txn: registry.resume(txn, "app", bench.now, actor="me"))
    assert bench.at(task_id).state is State.PARKED
    assert bench.states(goal_id) == {"T1": "PARKED", "T2": "PARKED"}  # T1 is held back by its goal now
    bench.do(lambda txn: steering.resume(txn, goal_id, bench.now, actor="me"))
    assert bench.states(goal_id) == {"T1": "QUEUED", "T2": "QUEUED"}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"url": "/srv/elsewhere.git"}, "QUEUED"),
        ({"default_branch": "trunk"}, "QUEUED"),
        ({"display_name": "App"}, "PARKED"),
        ({"url": "/srv/app.git"}, "PARKED"),
    ],
)
def test_a_new_address_tries_at_once_what_could_not_be_fetched(
    bench: GoalBench, changes: dict[str, str], state: str
) -> None:
    goal_id = bench.create(plan_task("T1", fulfills=["A1"]))
    bench.fail(bench.task(goal_id, "T1"), UNREACHABLE)
    wanted = msgspec.structs.replace(bench.read(lambda reader: registry.found(reader, "app")), **changes)
    bench.do(lambda txn: registry.update(txn, "app", wanted, list(changes), bench.now, actor="me"))
    assert bench.states(goal_id) == {"T1": state}


def test_a_resume_does_not_queue_a_task_whose_dependency_is_dead(bench: GoalBench) -> None:
    goal_id = bench.create(
        plan_task("T1"), plan_task("T2", "T1", fulfills=["A1"], dependency_policy=DependencyPolicy.PARK)
    )
    bench.kill(bench.task(goal_id, "T1"))
    bench.do(lambda txn: registry.resume(txn, "app", bench.now, actor="me"))
    assert bench.states(goal_id)["T2"] == "PARKED"


def test_a_train_is_as_long_as_the_changes_that_are_not_merged(bench: GoalBench) -> None:
    goal_id = bench.create(plan_task("T1"), plan_task("T2", fulfills=["A1"]))
    for id in ("T1", "T2"):
        bench.done(bench.task(goal_id, id))
    assert bench.read(lambda reader: registry.train_length(reader, "app")) == 2
    bench.merge()
    assert bench.read(lambda reader: registry.train_length(reader, "app")) == 1
