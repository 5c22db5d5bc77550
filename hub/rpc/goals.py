"""GoalService: proto to engine to proto."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from agentcom.v1 import goal_pb2, goal_service_pb2, goal_service_pb2_grpc
from hub.core import filter as filters
from hub.core import page
from hub.engine.desk import filing, goal_desk
from hub.rpc import caller, reply, translate_goal, translate_hub
from kit import ids, principal

Call = grpc.aio.ServicerContext[Any, Any]


class GoalService(goal_service_pb2_grpc.GoalServiceServicer):
    """Goals, and the changes that they lead to."""

    def __init__(self, desk: goal_desk.GoalDesk, goal_filing: filing.Filing) -> None:
        self._desk = desk
        self._filing = goal_filing

    async def CreateGoal(
        self, request: goal_service_pb2.CreateGoalRequest, context: Call
    ) -> goal_service_pb2.CreateGoalResponse:
        draft = translate_goal.read_goal(request.goal)
        response = goal_service_pb2.CreateGoalResponse()
        if request.validate_only:
            filed = self._filing.check(draft)
            translate_goal.write_goal(filed.goal, None, None, response.goal)
            if request.goal.HasField("plan"):
                response.goal.plan.CopyFrom(request.goal.plan)
        else:
            filed = await self._filing.create(draft, caller.request("CreateGoal", request.request_id, request.goal))
            write_shown(self._desk.get(filed.goal.id), response.goal)
        for finding in filed.findings:
            translate_goal.write_finding(finding, response.findings.add())
        return response

    async def GetGoal(
        self, request: goal_service_pb2.GetGoalRequest, context: Call
    ) -> goal_service_pb2.GetGoalResponse:
        response = goal_service_pb2.GetGoalResponse()
        write_shown(self._desk.get(ids.parse_name("goals", request.name)), response.goal)
        return response

    async def ListGoals(
        self, request: goal_service_pb2.ListGoalsRequest, context: Call
    ) -> goal_service_pb2.ListGoalsResponse:
        limit = page.size(request.page_size)
        wanted = filters.parse(request.filter, goal_desk.GOAL_FIELDS)
        after = page.decode(request.page_token, "goals", request.filter)
        found, cursor = self._desk.page(wanted, after=after, limit=limit)
        response = goal_service_pb2.ListGoalsResponse()
        cursor = reply.fill(response.goals, found, write_brief, key=lambda shown: shown.goal.id, cursor=cursor)
        response.next_page_token = page.encode(cursor, "goals", request.filter) if cursor else ""
        return response

    async def CancelGoal(
        self, request: goal_service_pb2.CancelGoalRequest, context: Call
    ) -> goal_service_pb2.CancelGoalResponse:
        goal_id, actor = ids.parse_name("goals", request.name), principal.current().name
        shown = await self._desk.cancel(goal_id, actor=actor, reason=request.reason, etag=request.etag)
        response = goal_service_pb2.CancelGoalResponse()
        write_shown(shown, response.goal)
        return response

    async def PauseGoal(
        self, request: goal_service_pb2.PauseGoalRequest, context: Call
    ) -> goal_service_pb2.PauseGoalResponse:
        shown = await self._desk.pause(ids.parse_name("goals", request.name), actor=principal.current().name)
        response = goal_service_pb2.PauseGoalResponse()
        write_shown(shown, response.goal)
        return response

    async def ResumeGoal(
        self, request: goal_service_pb2.ResumeGoalRequest, context: Call
    ) -> goal_service_pb2.ResumeGoalResponse:
        shown = await self._desk.resume(ids.parse_name("goals", request.name), actor=principal.current().name)
        response = goal_service_pb2.ResumeGoalResponse()
        write_shown(shown, response.goal)
        return response

    async def LintPlan(
        self, request: goal_service_pb2.LintPlanRequest, context: Call
    ) -> goal_service_pb2.LintPlanResponse:
        response = goal_service_pb2.LintPlanResponse()
        for finding in self._filing.lint(translate_goal.read_goal(request.goal)):
            translate_goal.write_finding(finding, response.findings.add())
        return response

    async def ListChanges(
        self, request: goal_service_pb2.ListChangesRequest, context: Call
    ) -> goal_service_pb2.ListChangesResponse:
        limit = page.size(request.page_size)
        wanted = filters.parse(request.filter, goal_desk.CHANGE_FIELDS)
        after = page.decode(request.page_token, "changes", request.filter)
        found, cursor = self._desk.changes(wanted, after=after, limit=limit)
        response = goal_service_pb2.ListChangesResponse()
        write = translate_goal.write_change
        cursor = reply.fill(response.changes, found, write, key=lambda change: change.id, cursor=cursor)
        response.next_page_token = page.encode(cursor, "changes", request.filter) if cursor else ""
        return response

    async def WatchGoals(
        self, request: goal_service_pb2.WatchGoalsRequest, context: Call
    ) -> AsyncIterator[goal_service_pb2.WatchGoalsResponse]:
        goal_id = ids.parse_name("goals", request.name) if request.name else ""
        watch = self._desk.watch(self._desk.start(request.position), goal_id=goal_id)
        async with contextlib.aclosing(watch) as stream:
            async for told in stream:
                response = goal_service_pb2.WatchGoalsResponse(position=told.position)
                if told.event is not None:
                    translate_hub.write_event(told.event, response.event)
                if told.shown is not None:
                    write_shown(told.shown, response.goal)
                yield response


def write_shown(shown: goal_desk.Shown, into: goal_pb2.Goal) -> None:
    """Fill a goal with its counts, and its plan where it was asked for."""
    translate_goal.write_goal(shown.goal, shown.tally, shown.plan, into)


def write_brief(shown: goal_desk.Shown, into: goal_pb2.Goal) -> None:
    """Fill a goal as lists show it."""
    translate_goal.write_goal(shown.goal, shown.tally, None, into, brief=True)
