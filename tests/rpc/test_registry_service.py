"""RegistryService over the wire: repos come, change, pause and go, and every refusal names what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from agentcom.v1 import registry_service_pb2, repo_pb2
from kit import errors
from tests.support.hub import Caller, fields, refused, running


@pytest.fixture(params=["memory", "lmdb"])
async def caller(tmp_path, request):
    async with running(tmp_path, store__kind=request.param) as made:
        yield made


async def create(caller: Caller, repo_id: str = "app", request_id: str = "", **repo: Any) -> repo_pb2.Repo:
    wanted = repo_pb2.Repo(**({"url": "/srv/app.git"} | repo))
    request = registry_service_pb2.CreateRepoRequest(repo_id=repo_id, repo=wanted, request_id=request_id)
    made: repo_pb2.Repo = (await caller.registry.CreateRepo(request)).repo
    return made


def update(repo: repo_pb2.Repo, *paths: str) -> registry_service_pb2.UpdateRepoRequest:
    request = registry_service_pb2.UpdateRepoRequest(repo=repo)
    request.update_mask.paths.extend(paths)
    return request


async def test_a_repo_is_filed_with_its_defaults_and_read_back(caller):
    made = await create(caller)
    assert (made.name, made.default_branch) == ("repos/app", "main")
    assert made.merge_style == repo_pb2.Repo.MERGE_STYLE_MERGE_COMMIT
    assert not made.paused
    found = await caller.registry.GetRepo(registry_service_pb2.GetRepoRequest(name="repos/app"))
    assert found.repo == made


async def test_the_same_request_id_files_one_repo(caller):
    first = await create(caller, request_id="11112222")
    assert await create(caller, request_id="11112222") == first
    problem = await refused(create(caller, request_id="33334444"))
    assert isinstance(problem, errors.AlreadyExists)


@pytest.mark.parametrize(
    ("repo_id", "repo", "named"),
    [
        ("", {}, ["repo_id"]),
        ("App", {}, ["repo_id"]),
        ("app", {"url": ""}, ["repo.url"]),
        ("app", {"url": "x" * 1025}, ["repo.url"]),
        ("app", {"url": "https://me:secret@example.org/x"}, ["repo.url"]),
        ("app", {"url": "ext::sh"}, ["repo.url"]),
        ("app", {"default_branch": "-x"}, ["repo.default_branch"]),
        ("app", {"default_branch": "a..b"}, ["repo.default_branch"]),
        ("app", {"checks": [{"run": ""}]}, ["repo.checks[0].run"]),
        ("app", {"checks": [{"id": "c", "run": "a"}, {"id": "c", "run": "b"}]}, ["repo.checks[1].id"]),
        ("app", {"merge_style": 7}, ["repo.merge_style"]),
        ("app", {"display_name": "x" * 101}, ["repo.display_name"]),
    ],
)
async def test_a_bad_repo_is_refused_with_its_fields(tmp_path, repo_id, repo, named):
    async with running(tmp_path) as caller:
        before = await caller.position()
        assert fields(await refused(create(caller, repo_id, **repo))) == named
        assert await caller.position() == before


async def test_a_secret_in_a_refused_address_is_not_repeated(caller):
    problem = await refused(create(caller, url="https://me:hunter2@example.org/x"))
    assert "hunter2" not in str(problem)


async def test_unknown_repos_and_broken_names_are_told_apart(caller):
    for call, request in (
        (caller.registry.GetRepo, registry_service_pb2.GetRepoRequest),
        (caller.registry.DeleteRepo, registry_service_pb2.DeleteRepoRequest),
        (caller.registry.PauseRepo, registry_service_pb2.PauseRepoRequest),
        (caller.registry.ResumeRepo, registry_service_pb2.ResumeRepoRequest),
    ):
        assert isinstance(await refused(call(request(name="repos/gone"))), errors.NotFound)
        assert fields(await refused(call(request(name="gone")))) == ["name"]


async def test_an_update_sets_what_its_mask_names(caller):
    made = await create(caller)
    made.display_name, made.default_branch = "The app", "trunk"
    after = (await caller.registry.UpdateRepo(update(made, "display_name"))).repo
    assert (after.display_name, after.default_branch) == ("The app", "main")
    problem = await refused(caller.registry.UpdateRepo(update(made, "*")))  # its etag is the old one
    assert problem.reason == "ETAG_MISMATCH"
    made.etag = ""
    assert (await caller.registry.UpdateRepo(update(made, "*"))).repo.default_branch == "trunk"


async def test_an_update_without_a_good_mask_or_name_is_refused(caller):
    made = await create(caller)
    assert fields(await refused(caller.registry.UpdateRepo(update(made)))) == ["update_mask"]
    assert fields(await refused(caller.registry.UpdateRepo(update(made, "paused")))) == ["update_mask"]
    made.name = ""
    assert fields(await refused(caller.registry.UpdateRepo(update(made, "url")))) == ["repo.name"]


async def test_repos_are_listed_by_name_in_pages(caller):
    for id in ("b", "a", "c"):
        await create(caller, id)
    first = await caller.registry.ListRepos(registry_service_pb2.ListReposRequest(page_size=2))
    assert [repo.name for repo in first.repos] == ["repos/a", "repos/b"]
    request = registry_service_pb2.ListReposRequest(page_size=2, page_token=first.next_page_token)
    second = await caller.registry.ListRepos(request)
    assert [repo.name for repo in second.repos] == ["repos/c"]
    assert second.next_page_token == ""
    bad = registry_service_pb2.ListReposRequest(page_token="x")
    assert fields(await refused(caller.registry.ListRepos(bad))) == ["page_token"]


async def test_a_repo_in_use_is_not_deleted_and_an_unused_one_is(caller):
    made = await create(caller)
    await caller.task(repo="repos/app")
    request = registry_service_pb2.DeleteRepoRequest(name=made.name)
    problem = await refused(caller.registry.DeleteRepo(request))
    assert isinstance(problem, errors.IllegalState)
    assert problem.reason == "REPO_IN_USE"
    await create(caller, "lib")
    stale = registry_service_pb2.DeleteRepoRequest(name="repos/lib", etag="9")
    assert (await refused(caller.registry.DeleteRepo(stale))).reason == "ETAG_MISMATCH"
    await caller.registry.DeleteRepo(registry_service_pb2.DeleteRepoRequest(name="repos/lib", etag="1"))
    gone = caller.registry.GetRepo(registry_service_pb2.GetRepoRequest(name="repos/lib"))
    assert isinstance(await refused(gone), errors.NotFound)


async def test_pause_and_resume_show_in_the_repo(caller):
    await create(caller)
    paused = await caller.registry.PauseRepo(registry_service_pb2.PauseRepoRequest(name="repos/app"))
    assert paused.repo.paused
    resumed = await caller.registry.ResumeRepo(registry_service_pb2.ResumeRepoRequest(name="repos/app"))
    assert not resumed.repo.paused
