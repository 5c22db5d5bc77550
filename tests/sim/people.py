"""What people do beside the queue: goals, pauses, drains, agents, repos, tokens; and putting right what they left."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    goal_pb2,
    goal_service_pb2,
    registry_service_pb2,
    repo_pb2,
    task_pb2,
    task_service_pb2,
)
from hub.core.token import Scope
from kit import errors
from tests.sim.chance import Dice
from tests.sim.process import Process
from tests.sim.world import REPO

TASKS_MAX = 400
"""Filed by one run: what is left at the end must be worked off."""


class People(Process):
    """The part of the clients that steers; `Clients` asks the questions."""

    dice: Dice
    filed: int
    watched: int
    known: list[str]
    known_goals: list[str]
    task_service: Any
    goal_service: Any
    agent_service: Any
    repo_service: Any
    _watching: list[asyncio.Task[Any]]

    async def ask(self, call: Any, request: Any, *, tries: int = 1) -> Any:
        """The answer; None: refused, or nobody ever answered."""
        raise NotImplementedError

    def _request_id(self, poison: bool = False) -> str:
        raise NotImplementedError

    async def _list(self, state: str, *, tries: int = 1) -> list[str]:
        raise NotImplementedError

    async def _goal(self) -> None:
        if self.filed >= TASKS_MAX:
            return
        request_id = self._request_id()
        goal = goal_pb2.Goal(title=request_id, repo=f"repos/{REPO}")
        count = self.dice.randrange(1, 4)
        for number in range(count):
            goal.assertions.add(id=f"A{number}", text="it holds").check.run = f"test {number}"
            task = goal.plan.tasks.add(id=f"T{number}", fulfills=[f"A{number}"])
            task.spec.CopyFrom(task_pb2.TaskSpec(title=f"{request_id}-{number}", command="make it"))
            task.spec.checks.add(id="c", run=f"test -f {number}")
            task.spec.delivery = task_pb2.DELIVERY_MERGE
            if number and self.dice.random() < 0.5:
                task.depends_on.append(f"T{number - 1}")
        self.filed += count
        answer = await self.ask(
            self.goal_service.CreateGoal, goal_service_pb2.CreateGoalRequest(goal=goal, request_id=request_id)
        )
        if answer is not None and not isinstance(answer, errors.Problem):
            self.known_goals.append(answer.goal.name)
            self.known += [one.task.removeprefix("tasks/") for one in answer.goal.plan.tasks if one.task]

    async def _pause_goal(self) -> None:
        if self.known_goals:
            name = self.dice.choice(self.known_goals)
            await self.ask(self.goal_service.PauseGoal, goal_service_pb2.PauseGoalRequest(name=name))
            await asyncio.sleep(30.0 * self.world.mix.scale * self.dice.random())
            await self.ask(self.goal_service.ResumeGoal, goal_service_pb2.ResumeGoalRequest(name=name))
            if self.dice.random() < 0.6:
                await self.ask(self.goal_service.CancelGoal, goal_service_pb2.CancelGoalRequest(name=name))

    async def _pause(self) -> None:
        """Of the hub, at its own desk."""
        hub = self.world.hub
        if hub is not None and hub.serving:
            hub.spawn(_quietly(hub.state.pause, "person", "as the dice said"))
            await asyncio.sleep(30.0 * self.world.mix.scale * self.dice.random())
            await self.resume_hub()

    async def resume_hub(self) -> None:
        """Until it is so."""
        while True:
            hub = self.world.hub
            if hub is not None and hub.serving and not hub.frozen:
                hub.spawn(_quietly(hub.state.resume, "person"))
                await asyncio.sleep(5.0)
                stored = hub.disk.map and hub.store.read(lambda reader: reader.meta("paused"))
                if stored != b"1" and not hub.dead:
                    return
            await asyncio.sleep(5.0)

    async def _drain_agent(self) -> None:
        name = f"agents/{self.dice.choice(list(self.world.machines))}"
        await self.ask(self.agent_service.DrainAgent, agent_service_pb2.DrainAgentRequest(name=name))
        await asyncio.sleep(60.0 * self.world.mix.scale * self.dice.random())
        await self.ask(self.agent_service.ResumeAgent, agent_service_pb2.ResumeAgentRequest(name=name))

    async def _delete_agent(self) -> None:
        """An agent is forgotten, with what it holds, and some time later there is one of that name again."""
        agent = self.dice.choice(list(self.world.machines))
        request = agent_service_pb2.DeleteAgentRequest(name=f"agents/{agent}")
        await self.ask(self.agent_service.DeleteAgent, request)
        await asyncio.sleep(60.0 * self.dice.random())
        await self._enroll(agent)

    async def _enroll(self, agent: str) -> None:
        request = agent_service_pb2.EnrollAgentRequest(agent_id=agent, request_id=self._request_id())
        await self.ask(self.agent_service.EnrollAgent, request)

    async def _rename_agent(self) -> None:
        agent = agent_pb2.Agent(name=f"agents/{self.dice.choice(list(self.world.machines))}", display_name="a name")
        request = agent_service_pb2.UpdateAgentRequest(agent=agent)
        request.update_mask.paths.append("display_name")
        await self.ask(self.agent_service.UpdateAgent, request)

    async def _rotate_token(self) -> None:
        """At once, as of a token that has leaked, or with time to change over."""
        request = agent_service_pb2.RotateAgentTokenRequest(
            name=f"agents/{self.dice.choice(list(self.world.machines))}"
        )
        request.grace.seconds = self.dice.choice((0, 3600))
        await self.ask(self.agent_service.RotateAgentToken, request, tries=2)

    async def _token(self) -> None:
        """At the hub's own desk: one is made, and void some time later."""
        made: list[Any] = []

        async def make(hub: Any) -> None:
            token, _ = await hub.vault.create(Scope.VIEWER, "as the dice said", None, actor="person")
            made.append(token.id)

        self._at_desk(make)
        await asyncio.sleep(30.0 * self.world.mix.scale * self.dice.random())
        for id in made:
            self._at_desk(lambda hub, id=id: hub.vault.revoke(id, actor="person"))

    def _at_desk(self, do: Any) -> None:
        """Somebody asks the hub's own process."""
        hub = self.world.hub
        if hub is not None and hub.serving:
            hub.spawn(_quietly(do, hub))

    async def _repo(self) -> None:
        """Another repo comes, changes and goes."""
        repo_id = f"other-{self.dice.randrange(3)}"
        repo = repo_pb2.Repo(name=f"repos/{repo_id}", url="/srv/other.git", display_name="another one")
        await self.ask(
            self.repo_service.CreateRepo,
            registry_service_pb2.CreateRepoRequest(repo_id=repo_id, repo=repo, request_id=self._request_id()),
        )
        request = registry_service_pb2.UpdateRepoRequest(repo=repo)
        request.update_mask.paths.append("display_name")
        await self.ask(self.repo_service.UpdateRepo, request)
        await self.ask(self.repo_service.DeleteRepo, registry_service_pb2.DeleteRepoRequest(name=f"repos/{repo_id}"))

    async def _watch_goals(self) -> None:
        """Somebody looks at all goals, or at one, for a while."""
        task = asyncio.current_task()
        assert task is not None
        self._watching.append(task)
        request = goal_service_pb2.WatchGoalsRequest(position=self.dice.choice((-1, 0)))
        try:
            async with asyncio.timeout(120.0 * self.world.mix.scale * self.dice.random()):
                async for told in self.goal_service.WatchGoals(request, metadata=(("name", "clients"),)):
                    self.watched += told.position > 0
        except (grpc.aio.AioRpcError, TimeoutError):
            pass

    async def _drain_hub(self) -> None:
        """Before a restart, which is then thought better of, or comes."""
        self._at_desk(lambda hub: hub.state.drain("person", "as the dice said"))
        await asyncio.sleep(30.0 * self.world.mix.scale * self.dice.random())
        hub = self.world.hub
        if hub is not None and hub.serving and self.dice.random() < 0.5:
            hub.stop()
        else:
            await self.resume_hub()

    async def _pause_repo(self) -> None:
        name = f"repos/{REPO}"
        await self.ask(self.repo_service.PauseRepo, registry_service_pb2.PauseRepoRequest(name=name))
        await asyncio.sleep(60.0 * self.world.mix.scale * self.dice.random())
        await self.ask(self.repo_service.ResumeRepo, registry_service_pb2.ResumeRepoRequest(name=name))

    async def put_right(self) -> None:
        """After the chaos nobody watches any more, and a person resumes everything that is held back."""
        for task in self._watching:
            task.cancel()
        await self.resume_hub()
        await self.ask(self.repo_service.ResumeRepo, registry_service_pb2.ResumeRepoRequest(name=f"repos/{REPO}"))
        for agent in self.world.machines:
            await self._enroll(agent)
            await self.ask(self.agent_service.ResumeAgent, agent_service_pb2.ResumeAgentRequest(name=f"agents/{agent}"))
        for goal in self.known_goals:
            await self.ask(self.goal_service.ResumeGoal, goal_service_pb2.ResumeGoalRequest(name=goal))

    async def retry_parked(self) -> None:
        """And tries again what parked, instead of waiting for an hour."""
        for name in await self._list("PARKED"):
            await self.ask(self.task_service.RetryTask, task_service_pb2.RetryTaskRequest(name=name))


async def _quietly(verb: Any, *words: Any) -> None:
    with contextlib.suppress(errors.Problem):
        await verb(*words)
