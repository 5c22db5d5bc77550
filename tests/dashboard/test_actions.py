"""What people do on the pages: with a proof that the form is ours, as who they are."""

from __future__ import annotations

import pytest

from agentcom.v1 import agent_service_pb2, hub_pb2, hub_service_pb2, task_pb2, task_service_pb2
from tests.dashboard.conftest import Browser
from tests.support import hub as hubs

State = task_pb2.Task


async def state_of(caller, name):
    return (await caller.tasks.GetTask(task_service_pb2.GetTaskRequest(name=name))).task.state


async def test_a_task_is_cancelled_with_a_reason_and_the_page_says_so(browser, caller):
    task = await caller.task("stop me")
    reply = await browser.post(f"/{task.name}/cancel", {"reason": "no longer wanted", "etag": task.etag})
    assert reply.status_code == 303
    assert await state_of(caller, task.name) == State.STATE_CANCELLED
    page = (await browser.get(reply.headers["Location"])).text
    assert "cancelled" in page
    assert "no longer wanted" in page


async def test_an_action_on_what_has_changed_meanwhile_is_refused_and_changes_nothing(browser, caller):
    task = await caller.task("stop me")
    reply = await browser.post(f"/{task.name}/cancel", {"etag": "stale"})
    assert reply.status_code == 409
    assert await state_of(caller, task.name) == State.STATE_QUEUED


async def test_what_was_chosen_is_retried_and_nothing_else(browser, caller):
    tasks = [await caller.task(f"task {n}") for n in range(3)]
    for task in tasks:
        await browser.post(f"/{task.name}/cancel")
    reply = await browser.post("/dead/retry", {"task": [tasks[0].name]})
    assert reply.status_code == 303
    assert await state_of(caller, tasks[0].name) == State.STATE_QUEUED
    assert await state_of(caller, tasks[1].name) == State.STATE_CANCELLED


async def test_all_that_the_filter_finds_is_tried_and_what_is_refused_is_told(browser, caller):
    first = await caller.task("first")
    waits = await caller.task("waits", depends_on=[first.name])
    await browser.post(f"/{first.name}/cancel")
    assert await state_of(caller, waits.name) == State.STATE_DEAD
    refused = (await browser.post("/dead/retry", {"all": "1"})).headers["Location"]
    assert "0+queued+again" in refused
    assert "the+last+one" in refused
    elsewhere = (await browser.post("/dead/retry", {"all": "1", "repo": "repos/other"})).headers["Location"]
    assert "the+last+one" not in elsewhere


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        ({}, {"proof": "0" * 64}),
        ({"Sec-Fetch-Site": "cross-site"}, None),
        ({"Origin": "https://evil.example"}, None),
    ],
)
async def test_a_form_that_is_not_ours_changes_nothing(browser, caller, headers, fields):
    task = await caller.task("leave me")
    if fields is None:
        reply = await browser.post(f"/{task.name}/cancel", headers=headers)
    else:
        await browser.get("/login")  # a page with a form: the browser has its key, and only the proof is wrong
        reply = await browser.post_bare(f"/{task.name}/cancel", fields, headers=headers)
    assert reply.status_code == 403
    assert await state_of(caller, task.name) == State.STATE_QUEUED


async def test_get_changes_nothing(browser, caller):
    task = await caller.task("leave me")
    assert (await browser.get(f"/{task.name}/cancel")).status_code == 405
    assert await state_of(caller, task.name) == State.STATE_QUEUED


@pytest.fixture
async def guarded(tmp_path):
    async with hubs.running(tmp_path, auth__required=True) as made:
        yield made


@pytest.fixture
async def admin(guarded):
    secret = (guarded.hub.config.data / "admin.token").read_text().strip()
    async with hubs.as_token(guarded.hub, secret) as made:
        yield made


async def secret_of(admin, scope):
    reply = await admin.hubs.CreateToken(hub_service_pb2.CreateTokenRequest(scope=scope, display_name="a person"))
    return reply.secret


async def test_nobody_looks_without_a_token_and_a_viewer_looks_and_cannot_act(guarded, admin):
    browser = Browser(guarded.hub.address)
    try:
        page = await browser.get("/tasks/?lane=high")
        assert page.status_code == 302
        assert page.headers["Location"].startswith("/login?next=/tasks/")
        viewer = await secret_of(admin, hub_pb2.SCOPE_VIEWER)
        reply = await browser.post("/login", {"token": viewer, "next": "/tasks/"})
        assert reply.status_code == 303
        assert reply.headers["Location"] == "/tasks/"
        cookie = next(c for c in reply.headers.getlist("Set-Cookie") if c.startswith("agentcom_token"))
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        task = await admin.task("look at me")
        assert "look at me" in (await browser.get("/tasks/")).text
        assert (await browser.post(f"/{task.name}/cancel")).status_code == 403
        assert await state_of(admin, task.name) == State.STATE_QUEUED
        assert (await browser.post("/logout")).status_code == 303
        assert (await browser.get("/tasks/")).status_code == 302
    finally:
        browser.close()


async def test_an_operator_acts_and_a_revoked_token_is_out_at_once(guarded, admin):
    browser = Browser(guarded.hub.address)
    try:
        secret = await secret_of(admin, hub_pb2.SCOPE_OPERATOR)
        await browser.post("/login", {"token": secret})
        task = await admin.task("stop me")
        assert (await browser.post(f"/{task.name}/cancel")).status_code == 303
        tokens = (await admin.hubs.ListTokens(hub_service_pb2.ListTokensRequest())).tokens
        operator = next(token for token in tokens if token.scope == hub_pb2.SCOPE_OPERATOR)
        await admin.hubs.RevokeToken(hub_service_pb2.RevokeTokenRequest(name=operator.name))
        assert (await browser.get("/")).headers["Location"].startswith("/login")
    finally:
        browser.close()


@pytest.mark.parametrize("token", ["", "nonsense", "act_" + "A" * 43])
async def test_a_wrong_token_does_not_log_in_and_is_not_told_again(guarded, token):
    browser = Browser(guarded.hub.address)
    try:
        reply = await browser.post("/login", {"token": token})
        assert reply.status_code == 401
        assert token == "" or token not in reply.text
        assert not any(c.startswith("agentcom_token=a") for c in reply.headers.getlist("Set-Cookie"))
    finally:
        browser.close()


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "/\\evil.example"])
async def test_a_login_leads_to_our_own_pages_only(guarded, admin, target):
    browser = Browser(guarded.hub.address)
    try:
        secret = await secret_of(admin, hub_pb2.SCOPE_VIEWER)
        reply = await browser.post("/login", {"token": secret, "next": target})
        assert reply.headers["Location"] == "/"
    finally:
        browser.close()


async def test_an_agent_is_drained_and_resumed(browser, caller):
    await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="ada"))
    assert (await browser.post("/agents/ada/drain")).status_code == 303
    agent = (await caller.agents.GetAgent(agent_service_pb2.GetAgentRequest(name="agents/ada"))).agent
    assert agent.draining
    assert (await browser.post("/agents/ada/resume")).status_code == 303
    assert (await browser.post("/agents/ada/explode")).status_code == 404
