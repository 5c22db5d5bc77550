"""Every page, empty and busy: it answers, it runs nothing inline, it escapes what others wrote."""

from __future__ import annotations

import re

import pytest

from agentcom.v1 import goal_pb2, goal_service_pb2, registry_service_pb2, repo_pb2, task_pb2, task_service_pb2

PAGES = (
    "/", "/goals/", "/tasks/", "/agents/", "/changes/", "/repos/", "/dead/", "/alerts/", "/events/", "/system/",
)  # fmt: skip
EVIL = '<script>alert(1)</script>"\u202e\x1b[31m'


def inline(page: str) -> list[str]:
    """What the policy would block: scripts and styles inside the page."""
    return re.findall(r"<script(?![^>]*\ssrc=)[^>]*>|<style|\sstyle=|\son[a-z]+=|javascript:", page)


@pytest.mark.parametrize("path", PAGES)
async def test_an_empty_page_answers_and_says_what_to_do_next(browser, path):
    page = await browser.get(path)
    assert page.status_code == 200
    assert not inline(page.text)
    assert "<h1>" in page.text


async def test_every_answer_carries_the_policy(browser):
    for path in ("/", "/login", "/nowhere", "/tasks/00000000000000000000", "/static/app.css"):
        page = await browser.get(path)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in policy


async def test_what_others_wrote_is_shown_and_not_run(browser, caller):
    task = await caller.task(f"t {EVIL}"[:200].replace("\x1b", ""), command=f"echo '{EVIL}'", labels={"k": EVIL})
    for path in ("/", "/tasks/", f"/{task.name}", "/events/"):
        page = await browser.get(path)
        assert page.status_code == 200
        assert not inline(page.text), path
        assert "<script>alert" not in page.text
        assert "\u202e" not in page.text
        assert "\x1b" not in page.text
    assert "&lt;script&gt;alert(1)" in (await browser.get(f"/{task.name}")).text


async def test_a_task_says_why_it_is_not_running(browser, caller):
    task = await caller.task("wait", requirement=task_pb2.Requirement(capabilities=["gpu"]))
    page = (await browser.get(f"/{task.name}")).text
    assert "Why is it not running?" in page
    assert f"agentcom task show {task.name.removeprefix('tasks/')}" in page


async def test_a_goal_shows_its_plan_drawn_and_who_fulfils_what(browser, caller):
    await caller.registry.CreateRepo(
        registry_service_pb2.CreateRepoRequest(repo_id="tally", repo=repo_pb2.Repo(url="/nowhere/tally.git"))
    )
    goal = goal_pb2.Goal(title="two steps", repo="repos/tally")
    goal.assertions.add(id="A1", text="it holds", check=task_pb2.Check(run="test -e done"))
    for id, before in (("T1", []), ("T2", ["T1"])):
        spec = task_pb2.TaskSpec(title=f"step {id}", command="make", checks=[task_pb2.Check(run=f"test -e {id}")])
        goal.plan.tasks.add(id=id, spec=spec, depends_on=before, fulfills=["A1"] if id == "T2" else [])
    reply = await caller.goals.CreateGoal(goal_service_pb2.CreateGoalRequest(goal=goal))
    page = (await browser.get(f"/{reply.goal.name}")).text
    assert '<svg class="graph"' in page
    assert page.count('class="node"') == 2
    assert page.count('class="edge"') == 1
    assert "it holds" in page
    assert "two steps" in (await browser.get("/goals/")).text
    assert 'id="tally"' in (await browser.get("/repos/")).text


async def test_a_list_is_narrowed_and_goes_on_on_the_next_page(browser, caller):
    specs = [task_pb2.TaskSpec(title=f"task {n}", command="true", lane=1 + n % 4) for n in range(120)]
    await caller.tasks.BatchCreateTasks(task_service_pb2.BatchCreateTasksRequest(specs=specs))
    first = (await browser.get("/tasks/?lane=urgent")).text
    assert first.count("<tr data-id=") == 30
    page, seen = "/tasks/", set()
    while page:
        text = (await browser.get(page)).text
        seen |= set(re.findall(r'<tr data-id="(tasks/[0-9a-z]+)"', text))
        following = re.search(r'href="([^"]+)" rel="next"', text)
        page = following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == 120


@pytest.mark.parametrize(
    "path", ["/tasks/?state=sideways", "/tasks/?after=nonsense", "/agents/?state=x", "/events/?type=x"]
)
async def test_a_question_that_makes_no_sense_is_a_clear_400(browser, path):
    page = await browser.get(path)
    assert page.status_code == 400
    assert "That is not understood" in page.text


@pytest.mark.parametrize(
    "path", ["/tasks/00000000000000000000", "/goals/00000000000000000000", "/agents/nobody", "/nowhere"]
)
async def test_what_is_not_there_is_a_404(browser, path):
    assert (await browser.get(path)).status_code == 404


async def test_a_browser_that_means_another_host_is_refused(browser):
    assert (await browser.get("/", headers={"Host": "evil.example"})).status_code == 400


async def test_the_hub_is_examined_at_a_load_of_its_page_and_not_whenever_something_changes(browser):
    assert "<code>clock</code>" in (await browser.get("/system/")).text
    again = (await browser.get("/system/", headers={"X-Fragment": "main"})).text
    assert "<code>clock</code>" not in again
    assert 'id="examination" data-keep' in again  # what was found at the load stays
