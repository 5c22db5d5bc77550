"""TaskService: proto to engine to proto."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from agentcom.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from hub.core import filter as filters
from hub.core import page
from hub.engine.desk import explain, listing, submit, tasks
from hub.engine.live import tail
from hub.engine.script import byhand
from hub.rpc import caller, reply, translate, translate_hub
from kit import ids, principal

Call = grpc.aio.ServicerContext[Any, Any]

EVENTS_SIZE_DEFAULT = 100
CLAIM_LEASE_S = 8 * 3600.0


class TaskService(task_service_pb2_grpc.TaskServiceServicer):
    """Takes tasks in, shows them and steers them."""

    def __init__(
        self,
        engine: tasks.Tasks,
        submitter: submit.Submitter,
        explainer: explain.Explainer,
        tails: tail.Tails,
        *,
        accept_timeout_s: float,
    ) -> None:
        self._tasks = engine
        self._submitter = submitter
        self._explainer = explainer
        self._tails = tails
        self._accept_timeout_s = accept_timeout_s

    async def CreateTask(
        self, request: task_service_pb2.CreateTaskRequest, context: Call
    ) -> task_service_pb2.CreateTaskResponse:
        spec = translate.read_spec(request.spec, start_timeout_s=self._accept_timeout_s)
        response = task_service_pb2.CreateTaskResponse()
        if request.validate_only:
            self._submitter.check(spec)
            translate.write_spec(spec, response.task.spec)
            return response
        made = await self._submitter.create(spec, caller.request("CreateTask", request.request_id, request.spec))
        translate.write_task(made.task, made.spec, response.task)
        return response

    async def BatchCreateTasks(
        self, request: task_service_pb2.BatchCreateTasksRequest, context: Call
    ) -> task_service_pb2.BatchCreateTasksResponse:
        specs = [translate.read_spec(spec, start_timeout_s=self._accept_timeout_s) for spec in request.specs]
        asked = caller.request("BatchCreateTasks", request.request_id, *request.specs)
        made = await self._submitter.create_many(specs, asked)
        return task_service_pb2.BatchCreateTasksResponse(tasks=[f"tasks/{id}" for id in made])

    async def GetTask(
        self, request: task_service_pb2.GetTaskRequest, context: Call
    ) -> task_service_pb2.GetTaskResponse:
        response = task_service_pb2.GetTaskResponse()
        write_shown(self._tasks.get(ids.parse_name("tasks", request.name)), response.task)
        reply.thin(response.task)
        return response

    async def ListTasks(
        self, request: task_service_pb2.ListTasksRequest, context: Call
    ) -> task_service_pb2.ListTasksResponse:
        limit = page.size(request.page_size)
        wanted = filters.parse(request.filter, listing.FIELDS)
        reverse = request.order_by == "create_time desc"
        bound = ("tasks", request.filter, reverse)
        after = page.decode(request.page_token, *bound)
        found, cursor = self._tasks.page(wanted, after=after, limit=limit, reverse=reverse)
        response = task_service_pb2.ListTasksResponse()
        cursor = reply.fill(response.tasks, found, write_shown, key=lambda shown: shown.task.id, cursor=cursor)
        response.next_page_token = page.encode(cursor, *bound) if cursor else ""
        return response

    async def CancelTask(
        self, request: task_service_pb2.CancelTaskRequest, context: Call
    ) -> task_service_pb2.CancelTaskResponse:
        task_id, actor = ids.parse_name("tasks", request.name), principal.current().name
        shown = await self._tasks.cancel(task_id, actor=actor, reason=request.reason, etag=request.etag)
        response = task_service_pb2.CancelTaskResponse()
        write_shown(shown, response.task)
        return response

    async def RetryTask(
        self, request: task_service_pb2.RetryTaskRequest, context: Call
    ) -> task_service_pb2.RetryTaskResponse:
        asked = caller.request("RetryTask", request.request_id, request.name.encode())
        shown = await self._tasks.retry(ids.parse_name("tasks", request.name), asked, etag=request.etag)
        response = task_service_pb2.RetryTaskResponse()
        write_shown(shown, response.task)
        return response

    async def DeleteTask(
        self, request: task_service_pb2.DeleteTaskRequest, context: Call
    ) -> task_service_pb2.DeleteTaskResponse:
        task_id = ids.parse_name("tasks", request.name)
        await self._tasks.delete(task_id, actor=principal.current().name, etag=request.etag)
        return task_service_pb2.DeleteTaskResponse()

    async def ExplainTask(
        self, request: task_service_pb2.ExplainTaskRequest, context: Call
    ) -> task_service_pb2.ExplainTaskResponse:
        told = self._explainer.explain(ids.parse_name("tasks", request.name))
        response = task_service_pb2.ExplainTaskResponse(
            summary=told.summary,
            unblock=told.unblock,
            ahead_count=told.ahead_count,
            waits_for=[f"tasks/{id}" for id in told.waits_for],
        )
        response.state = told.state  # type: ignore[assignment]  # the numbers are the same
        for one in told.obstacles:
            response.obstacles.add(agent=f"agents/{one.agent}", reason=one.reason, message=one.message)
        return response

    async def ListTaskEvents(
        self, request: task_service_pb2.ListTaskEventsRequest, context: Call
    ) -> task_service_pb2.ListTaskEventsResponse:
        limit = page.size(request.page_size, EVENTS_SIZE_DEFAULT)
        after = page.decode_position(request.page_token, "events", request.name)
        events = self._tasks.history(ids.parse_name("tasks", request.name), after=after, limit=limit)
        response = task_service_pb2.ListTaskEventsResponse()
        cursor = str(events[-1].position) if len(events) == limit else ""
        write = translate_hub.write_event
        cursor = reply.fill(response.events, events, write, key=lambda event: event.position, cursor=cursor)
        response.next_page_token = page.encode(cursor, "events", request.name) if cursor else ""
        return response

    async def WatchTasks(
        self, request: task_service_pb2.WatchTasksRequest, context: Call
    ) -> AsyncIterator[task_service_pb2.WatchTasksResponse]:
        watch = self._tasks.watch(
            self._tasks.start(request.position),
            names=frozenset(request.names),
            goal=request.goal.removeprefix("goals/"),
        )
        async with contextlib.aclosing(watch) as stream:
            async for told in stream:
                response = task_service_pb2.WatchTasksResponse(position=told.position)
                if told.event is not None:
                    translate_hub.write_event(told.event, response.event)
                if told.shown is not None:
                    write_shown(told.shown, response.task)
                yield response

    async def TailTaskLog(
        self, request: task_service_pb2.TailTaskLogRequest, context: Call
    ) -> AsyncIterator[task_service_pb2.TailTaskLogResponse]:
        tail_of = self._tails.follow(ids.parse_name("tasks", request.name))
        async with contextlib.aclosing(tail_of) as pieces:
            async for piece in pieces:
                yield task_service_pb2.TailTaskLogResponse(
                    generation=piece.generation, text=piece.text, dropped_bytes=piece.dropped_bytes, end=piece.end
                )

    async def GetTaskArtifact(
        self, request: task_service_pb2.GetTaskArtifactRequest, context: Call
    ) -> task_service_pb2.GetTaskArtifactResponse:
        task_id = ids.parse_name("tasks", request.name)
        found = self._tasks.artifact(task_id, request.generation, request.artifact)
        response = task_service_pb2.GetTaskArtifactResponse(generation=found.generation)
        translate.write_artifact(found.info, response.artifact, found.content)
        return response

    async def ClaimTask(
        self, request: task_service_pb2.ClaimTaskRequest, context: Call
    ) -> task_service_pb2.ClaimTaskResponse:
        agent = caller.speaks_for(ids.parse_name("agents", request.agent, field="agent"))
        lease_s = translate.read_duration(request.lease) if request.HasField("lease") else CLAIM_LEASE_S
        task_id, actor = ids.parse_name("tasks", request.name), principal.current().name
        claimed = await self._tasks.claim(task_id, agent, lease_s, actor=actor)
        task = claimed.shown.task
        response = task_service_pb2.ClaimTaskResponse(wip_ref=task.wip_ref)
        response.holding.task, response.holding.generation = request.name, task.generation
        write_shown(claimed.shown, response.task)
        translate.write_time(claimed.expires_at, response.lease_expire_time)
        if claimed.repo is not None:
            translate.write_repo_access(claimed.repo, response.repo)
        return response

    async def ReportTask(
        self, request: task_service_pb2.ReportTaskRequest, context: Call
    ) -> task_service_pb2.ReportTaskResponse:
        outcome: byhand.Outcome
        if request.WhichOneof("outcome") == "result":
            outcome = translate.read_result(request.result)
        else:
            outcome = translate.read_failure(request.failure)
        shown = await self._tasks.report(
            translate.read_holding(request.holding), outcome, speaker=principal.current().agent
        )
        response = task_service_pb2.ReportTaskResponse()
        write_shown(shown, response.task)
        return response


def write_shown(shown: tasks.Shown, into: task_pb2.Task) -> None:
    """Fill a task with its contract and attempts."""
    translate.write_task(shown.task, shown.spec, into, shown.attempts)
