"""GoalService over the wire: what is filed, linted, listed, watched and steered, and what each refusal names."""

from __future__ import annotations

from typing import Any

import pytest

from agentcom.v1 import change_pb2, goal_pb2, goal_service_pb2, registry_service_pb2, task_pb2
from hub.core.holding import Holding
from hub.engine.script import queue, work
from kit import errors
from tests.support.goalbench import proven
from tests.support.hub import Caller, fields, refused, running

UNKNOWN = f"goals/{'0' * 20}"


@pytest.fixture(params=["memory", "lmdb"])
async def caller(tmp_path, request):
    async with running(tmp_path, store__kind=request.param) as made:
        await add_repo(made)
        yield made


async def add_repo(caller: Caller) -> None:
    request = registry_service_pb2.CreateRepoRequest(repo_id="app")
    request.repo.url = "/srv/app.git"
    await caller.registry.CreateRepo(request)


def goal(*edges: tuple[str, ...], **more: Any) -> goal_pb2.Goal:
    """A goal whose plan has a task for each tuple: its id, then what it waits for. The last one fulfils A1."""
    made = goal_pb2.Goal(title="a goal", repo="repos/app", **more)
    made.assertions.add(id="A1", text="it holds").check.run = "make check"
    for id, *before in edges:
        task = made.plan.tasks.add(id=id, depends_on=before)
        task.spec.title, task.spec.command = f"do {id}", "make"
        task.spec.checks.add(run=f"test-{id}")
    if edges:
        made.plan.tasks[-1].fulfills.append("A1")
    return made


DIAMOND = (("T1",), ("T2", "T1"), ("T3", "T1"), ("T4", "T2", "T3"))


async def create(caller: Caller, wanted: goal_pb2.Goal | None = None, **more: Any) -> goal_pb2.Goal:
    request = goal_service_pb2.CreateGoalRequest(goal=wanted or goal(*DIAMOND), **more)
    made: goal_pb2.Goal = (await caller.goals.CreateGoal(request)).goal
    return made


async def get(caller: Caller, name: str) -> goal_pb2.Goal:
    found: goal_pb2.Goal = (await caller.goals.GetGoal(goal_service_pb2.GetGoalRequest(name=name))).goal
    return found


async def do(caller: Caller, task_name: str) -> None:
    """Do a task as an agent would, with the proof that it needs."""
    task_id = task_name.removeprefix("tasks/")
    ctx = caller.hub.ctx
    now = ctx.clock.now()

    def script(txn: Any) -> None:
        placed = queue.assign(txn, task_id, "a", now)
        assert placed is not None
        holding = Holding(task_id, placed.task.generation)
        work.complete(txn, holding, "a", proven(placed.spec, f"sha-{task_id}"), {}, now, roll=0.5)

    await ctx.store.write(script)


async def merge(caller: Caller) -> None:
    request = goal_service_pb2.ListChangesRequest(filter="state = MERGING")
    (change,) = (await caller.goals.ListChanges(request)).changes
    await do(caller, change.merge_task)


async def test_a_goal_with_a_plan_is_filed_with_all_its_tasks(caller):
    made = await create(caller, goal(*DIAMOND, lane=task_pb2.LANE_HIGH, labels={"team": "core"}))
    assert made.state == goal_pb2.Goal.STATE_ACTIVE
    assert (made.task_counts.total, made.task_counts.waiting) == (4, 4)
    assert [task.id for task in made.plan.tasks] == ["T1", "T2", "T3", "T4"]
    spec = made.plan.tasks[0].spec
    assert (spec.lane, spec.delivery) == (task_pb2.LANE_HIGH, task_pb2.DELIVERY_MERGE)
    assert spec.checks[0].id == "check-1"
    assert made.plan.version == 1
    assert made.labels == {"team": "core"}
    assert await get(caller, made.name) == made


async def test_a_goal_that_was_read_can_be_filed_again(caller):
    made = await create(caller)
    again = await create(caller, made)
    assert again.name != made.name
    assert [task.depends_on for task in again.plan.tasks] == [task.depends_on for task in made.plan.tasks]


async def test_a_plan_task_names_its_own_lane_and_delivery(caller):
    wanted = goal(("T1",))
    wanted.plan.tasks[0].spec.lane = task_pb2.LANE_LOW
    wanted.plan.tasks[0].spec.delivery = task_pb2.DELIVERY_NONE
    spec = (await create(caller, wanted)).plan.tasks[0].spec
    assert (spec.lane, spec.delivery) == (task_pb2.LANE_LOW, task_pb2.DELIVERY_NONE)


async def test_a_goal_without_a_plan_waits_for_one(caller):
    made = await create(caller, goal_pb2.Goal(title="later", repo="repos/app"))
    assert made.state == goal_pb2.Goal.STATE_AWAITING_PLAN
    assert not made.HasField("plan")


async def test_the_same_request_id_makes_one_goal_and_refuses_another_request(caller):
    first = await create(caller, request_id="11112222")
    assert (await create(caller, request_id="11112222")).name == first.name
    other = goal_service_pb2.CreateGoalRequest(goal=goal(("T1",)), request_id="11112222")
    problem = await refused(caller.goals.CreateGoal(other))
    assert isinstance(problem, errors.AlreadyExists)
    assert problem.reason == "REQUEST_ID_REUSED"


async def test_validate_only_files_nothing_and_tells_what_it_would_refuse(caller):
    before = await caller.position()
    made = await create(caller, validate_only=True)
    assert (made.name, made.state, len(made.plan.tasks)) == ("", goal_pb2.Goal.STATE_ACTIVE, 4)
    request = goal_service_pb2.CreateGoalRequest(goal=goal(("T1", "T1")), validate_only=True)
    assert fields(await refused(caller.goals.CreateGoal(request))) == ["goal.plan.tasks[0].depends_on[0]"]
    lost = goal_service_pb2.CreateGoalRequest(goal=goal(("T1",)), validate_only=True)
    lost.goal.repo = "repos/other"
    assert isinstance(await refused(caller.goals.CreateGoal(lost)), errors.NotFound)
    assert await caller.position() == before


def bad_goals() -> list[Any]:
    def changed(change: Any) -> goal_pb2.Goal:
        made = goal(*DIAMOND)
        change(made)
        return made

    tasks = "goal.plan.tasks"
    return [
        pytest.param(goal_pb2.Goal(), ["goal.title", "goal.repo"], id="empty"),
        pytest.param(changed(lambda g: setattr(g, "title", "x" * 201)), ["goal.title"], id="title too long"),
        pytest.param(changed(lambda g: setattr(g, "title", "  ")), ["goal.title"], id="blank title"),
        pytest.param(changed(lambda g: setattr(g, "repo", "app")), ["goal.repo"], id="no repo name"),
        pytest.param(changed(lambda g: setattr(g, "lane", 9)), ["goal.lane"], id="unknown lane"),
        pytest.param(
            changed(lambda g: setattr(g, "description", "x" * 65537)), ["goal.description"], id="too much text"
        ),
        pytest.param(
            changed(lambda g: g.assertions.pop()), ["goal.plan.tasks[3].fulfills[0]", "goal.assertions"], id="none"
        ),
        pytest.param(
            changed(lambda g: g.assertions[0].ClearField("check")), ["goal.assertions[0].check"], id="no check"
        ),
        pytest.param(changed(lambda g: setattr(g.assertions[0], "id", "1")), ["goal.assertions[0].id"], id="bad id"),
        pytest.param(changed(lambda g: g.plan.ClearField("tasks")), ["goal.plan.tasks"], id="empty plan"),
        pytest.param(changed(lambda g: g.plan.tasks[0].ClearField("spec")), [f"{tasks}[0].spec"], id="no spec"),
        pytest.param(
            changed(lambda g: g.plan.tasks[1].depends_on.append("T9")), [f"{tasks}[1].depends_on[1]"], id="unknown task"
        ),
        pytest.param(
            changed(lambda g: g.plan.tasks[0].depends_on.append("T4")), [f"{tasks}[0].depends_on[0]"], id="circle"
        ),
        pytest.param(
            changed(lambda g: setattr(g.plan.tasks[0].spec, "repo", "repos/x")),
            [f"{tasks}[0].spec.repo"],
            id="own repo",
        ),
        pytest.param(
            changed(lambda g: g.plan.tasks[0].spec.depends_on.append("tasks/" + "0" * 20)),
            [f"{tasks}[0].spec.depends_on"],
            id="own dependency",
        ),
        pytest.param(
            changed(lambda g: setattr(g.plan.tasks[0].spec, "kind", task_pb2.TASK_KIND_MERGE)),
            [f"{tasks}[0].spec.kind"],
            id="kind",
        ),
        pytest.param(
            changed(lambda g: g.plan.tasks[2].spec.ClearField("checks")), [f"{tasks}[2].spec.checks"], id="no checks"
        ),
        pytest.param(
            changed(lambda g: g.plan.tasks[2].spec.ClearField("command")), [f"{tasks}[2].spec.command"], id="no command"
        ),
        pytest.param(goal(*[(f"T{n}",) for n in range(201)]), ["goal.plan.tasks"], id="too many tasks"),
    ]


@pytest.mark.parametrize(("wanted", "named"), bad_goals())
async def test_a_bad_goal_is_refused_with_its_fields_and_nothing_is_filed(tmp_path, wanted, named):
    async with running(tmp_path) as caller:
        await add_repo(caller)
        before = await caller.position()
        request = goal_service_pb2.CreateGoalRequest(goal=wanted)
        assert sorted(fields(await refused(caller.goals.CreateGoal(request)))) == sorted(named)
        assert await caller.position() == before


async def test_unknown_goals_and_broken_names_are_told_apart(caller):
    service = caller.goals
    for call, request in (
        (service.GetGoal, goal_service_pb2.GetGoalRequest),
        (service.CancelGoal, goal_service_pb2.CancelGoalRequest),
        (service.PauseGoal, goal_service_pb2.PauseGoalRequest),
        (service.ResumeGoal, goal_service_pb2.ResumeGoalRequest),
        (service.WatchGoals, goal_service_pb2.WatchGoalsRequest),
    ):
        assert isinstance(await refused(call(request(name=UNKNOWN))), errors.NotFound)
        assert fields(await refused(call(request(name="goals/x")))) == ["name"]


async def test_lint_tells_errors_first_and_files_nothing(caller):
    before = await caller.position()
    wanted = goal(("T1",), ("T2",), ("T3", "T9"))
    wanted.repo = "repos/nowhere"
    for task in wanted.plan.tasks[:2]:
        task.spec.touches.append("src/**")
    found = (await caller.goals.LintPlan(goal_service_pb2.LintPlanRequest(goal=wanted))).findings
    assert [(one.rule, one.severity, one.field) for one in found] == [
        ("UNKNOWN_ID", goal_pb2.Finding.SEVERITY_ERROR, "tasks[2].depends_on[0]"),
        ("OVERLAP", goal_pb2.Finding.SEVERITY_WARNING, "tasks[1].spec.touches"),
    ]
    none = goal_pb2.Goal(title="t", repo="repos/app")
    found = (await caller.goals.LintPlan(goal_service_pb2.LintPlanRequest(goal=none))).findings
    assert [one.rule for one in found] == ["NO_TASKS", "NO_ASSERTIONS"]
    assert await caller.position() == before


async def test_warnings_come_with_the_goal_that_was_filed(caller):
    wanted = goal(("T1",))
    wanted.assertions[0].check.run = "true"
    response = await caller.goals.CreateGoal(goal_service_pb2.CreateGoalRequest(goal=wanted))
    assert [one.rule for one in response.findings] == ["CHECK_CANNOT_FAIL"]


async def test_a_goal_is_done_merged_verified_and_tells_its_receipts_and_changes(caller):
    made = await create(caller)
    for task in made.plan.tasks:
        await do(caller, task.task)
        await merge(caller)
    verifying = await get(caller, made.name)
    assert verifying.state == goal_pb2.Goal.STATE_VERIFYING
    assert verifying.task_counts.succeeded == 4
    await do(caller, verifying.verify_task)
    ended = await get(caller, made.name)
    assert ended.state == goal_pb2.Goal.STATE_SUCCEEDED
    assert ended.HasField("end_time")
    assert ended.assertions[0].receipt.verdict == task_pb2.Receipt.VERDICT_PASS
    request = goal_service_pb2.ListChangesRequest(filter=f"goal = {made.name}")
    changes = (await caller.goals.ListChanges(request)).changes
    assert [change.state for change in changes] == [change_pb2.Change.STATE_MERGED] * 4
    assert all(change.merge_sha and change.merge_agent == "agents/a" for change in changes)


async def test_goals_are_listed_newest_first_in_pages_and_by_filter(caller):
    names = [(await create(caller, goal(("T1",)))).name for _ in range(7)]
    await caller.goals.CancelGoal(goal_service_pb2.CancelGoalRequest(name=names[3], reason="no"))
    seen, token = [], ""
    while True:
        request = goal_service_pb2.ListGoalsRequest(page_size=3, page_token=token)
        page = await caller.goals.ListGoals(request)
        seen += [one.name for one in page.goals]
        assert all(not one.HasField("plan") and not one.assertions for one in page.goals)
        assert all(one.task_counts.total == 1 for one in page.goals)
        token = page.next_page_token
        if not token:
            break
    assert seen == names[::-1]
    cancelled = goal_service_pb2.ListGoalsRequest(filter="state = CANCELLED AND repo = repos/app")
    assert [one.name for one in (await caller.goals.ListGoals(cancelled)).goals] == [names[3]]
    for wrong, field in (
        (goal_service_pb2.ListGoalsRequest(page_size=-1), "page_size"),
        (goal_service_pb2.ListGoalsRequest(page_token="x"), "page_token"),
        (goal_service_pb2.ListGoalsRequest(filter="colour = red"), "filter"),
    ):
        assert fields(await refused(caller.goals.ListGoals(wrong))) == [field]


async def test_a_page_token_of_another_filter_or_list_is_refused(caller):
    for _ in range(3):
        await create(caller, goal(("T1",)))
    page = await caller.goals.ListGoals(goal_service_pb2.ListGoalsRequest(page_size=1))
    token = page.next_page_token
    other = goal_service_pb2.ListGoalsRequest(page_token=token, filter="state = ACTIVE")
    assert fields(await refused(caller.goals.ListGoals(other))) == ["page_token"]
    assert fields(await refused(caller.goals.ListChanges(goal_service_pb2.ListChangesRequest(page_token=token)))) == [
        "page_token"
    ]


async def test_a_cancelled_goal_cannot_be_cancelled_again_and_says_its_state(caller):
    made = await create(caller)
    stale = goal_service_pb2.CancelGoalRequest(name=made.name, etag="99")
    assert (await refused(caller.goals.CancelGoal(stale))).reason == "ETAG_MISMATCH"
    request = goal_service_pb2.CancelGoalRequest(name=made.name, etag=made.etag, reason="enough")
    ended = (await caller.goals.CancelGoal(request)).goal
    assert (ended.state, ended.state_reason) == (goal_pb2.Goal.STATE_CANCELLED, "enough")
    assert ended.task_counts.failed == 4
    problem = await refused(caller.goals.CancelGoal(goal_service_pb2.CancelGoalRequest(name=made.name)))
    assert isinstance(problem, errors.IllegalState)
    assert problem.state == "CANCELLED"


async def test_a_paused_goal_says_so_until_it_is_resumed(caller):
    made = await create(caller)
    paused = (await caller.goals.PauseGoal(goal_service_pb2.PauseGoalRequest(name=made.name))).goal
    assert paused.paused
    resumed = (await caller.goals.ResumeGoal(goal_service_pb2.ResumeGoalRequest(name=made.name))).goal
    assert not resumed.paused
    assert int(resumed.etag) > int(made.etag)


async def test_a_watch_tells_a_goals_life_and_resumes_where_it_stopped(caller):
    other = await create(caller, goal(("T1",)))
    made = await create(caller, goal(("T1",)))
    watch = caller.goals.WatchGoals(goal_service_pb2.WatchGoalsRequest(name=made.name, position=-1))
    seen = []
    async for told in watch:
        if told.HasField("event"):
            seen.append(told)
        if len(seen) == 3:
            break
    watch.cancel()
    assert [one.event.type for one in seen] == ["goal.created", "goal.started", "task.created"]
    assert {one.event.goal for one in seen} == {made.name}
    assert all(one.goal.name == made.name and not one.goal.HasField("plan") for one in seen)
    await caller.goals.CancelGoal(goal_service_pb2.CancelGoalRequest(name=made.name))
    resumed = caller.goals.WatchGoals(goal_service_pb2.WatchGoalsRequest(name=made.name, position=seen[-1].position))
    types = []
    async for told in resumed:
        if told.HasField("event"):
            types.append(told.event.type)
        if "task.cancelled" in types:
            break
    resumed.cancel()
    assert types == ["goal.cancelled", "task.cancelled"]
    assert other.name != made.name


async def test_a_watch_from_now_says_at_once_where_it_is_and_tells_only_what_follows(caller):
    await create(caller, goal(("T1",)))
    watch = caller.goals.WatchGoals(goal_service_pb2.WatchGoalsRequest())
    first = await anext(aiter(watch))
    assert not first.HasField("event")
    assert first.position == await caller.position()
    made = await create(caller, goal(("T1",)))
    async for told in watch:
        if told.HasField("event"):
            assert (told.event.type, told.goal.name) == ("goal.created", made.name)
            break
    watch.cancel()
    ahead = goal_service_pb2.WatchGoalsRequest(position=10**9)
    assert fields(await refused(caller.goals.WatchGoals(ahead))) == ["position"]
