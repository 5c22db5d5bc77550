"""RegistryService: proto to engine to proto."""

from __future__ import annotations

from typing import Any

import grpc

from agentcom.v1 import registry_service_pb2, registry_service_pb2_grpc, repo_pb2
from hub.core import page
from hub.engine.desk import repo_desk
from hub.rpc import caller, reply, translate_goal
from kit import ids, principal

Call = grpc.aio.ServicerContext[Any, Any]


class RegistryService(registry_service_pb2_grpc.RegistryServiceServicer):
    """The repositories that the fleet works on."""

    def __init__(self, desk: repo_desk.RepoDesk) -> None:
        self._desk = desk

    async def CreateRepo(
        self, request: registry_service_pb2.CreateRepoRequest, context: Call
    ) -> registry_service_pb2.CreateRepoResponse:
        asked = caller.request("CreateRepo", request.request_id, request.repo_id.encode(), request.repo)
        shown = await self._desk.create(translate_goal.read_repo(request.repo, request.repo_id), asked)
        response = registry_service_pb2.CreateRepoResponse()
        write_shown(shown, response.repo)
        return response

    async def GetRepo(
        self, request: registry_service_pb2.GetRepoRequest, context: Call
    ) -> registry_service_pb2.GetRepoResponse:
        response = registry_service_pb2.GetRepoResponse()
        write_shown(self._desk.get(ids.parse_name("repos", request.name)), response.repo)
        return response

    async def ListRepos(
        self, request: registry_service_pb2.ListReposRequest, context: Call
    ) -> registry_service_pb2.ListReposResponse:
        limit = page.size(request.page_size)
        found, cursor = self._desk.page(after=page.decode(request.page_token, "repos"), limit=limit)
        response = registry_service_pb2.ListReposResponse()
        cursor = reply.fill(response.repos, found, write_shown, key=lambda shown: shown.repo.id, cursor=cursor)
        response.next_page_token = page.encode(cursor, "repos") if cursor else ""
        return response

    async def UpdateRepo(
        self, request: registry_service_pb2.UpdateRepoRequest, context: Call
    ) -> registry_service_pb2.UpdateRepoResponse:
        repo_id = ids.parse_name("repos", request.repo.name, field="repo.name")
        shown = await self._desk.update(
            repo_id,
            translate_goal.read_repo(request.repo, repo_id),
            request.update_mask.paths,
            actor=principal.current().name,
            etag=request.repo.etag,
        )
        response = registry_service_pb2.UpdateRepoResponse()
        write_shown(shown, response.repo)
        return response

    async def DeleteRepo(
        self, request: registry_service_pb2.DeleteRepoRequest, context: Call
    ) -> registry_service_pb2.DeleteRepoResponse:
        repo_id, actor = ids.parse_name("repos", request.name), principal.current().name
        await self._desk.delete(repo_id, actor=actor, etag=request.etag)
        return registry_service_pb2.DeleteRepoResponse()

    async def PauseRepo(
        self, request: registry_service_pb2.PauseRepoRequest, context: Call
    ) -> registry_service_pb2.PauseRepoResponse:
        shown = await self._desk.pause(ids.parse_name("repos", request.name), actor=principal.current().name)
        response = registry_service_pb2.PauseRepoResponse()
        write_shown(shown, response.repo)
        return response

    async def ResumeRepo(
        self, request: registry_service_pb2.ResumeRepoRequest, context: Call
    ) -> registry_service_pb2.ResumeRepoResponse:
        shown = await self._desk.resume(ids.parse_name("repos", request.name), actor=principal.current().name)
        response = registry_service_pb2.ResumeRepoResponse()
        write_shown(shown, response.repo)
        return response


def write_shown(shown: repo_desk.Shown, into: repo_pb2.Repo) -> None:
    """Fill a repo."""
    translate_goal.write_repo(shown.repo, shown.train_length, into)
