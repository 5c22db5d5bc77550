"""Each command that a page offers to be copied is one that the command line understands."""

from __future__ import annotations

import html
import re
import shlex
from typing import Any

import pytest
import typer

from agentcom.v1 import agent_service_pb2, registry_service_pb2, repo_pb2
from cli.main import app
from kit import clock
from tests.dashboard.test_alerts import RULE, raised
from tests.support import hub as hubs

FILTERED = (
    "/tasks/?state=queued&lane=high&repo=repos/tally&agent=agents/ada",
    "/goals/?state=awaiting+plan&repo=repos/tally",
    "/agents/?state=idle",
    "/dead/?lane=low&repo=repos/tally&label=team%3Da+b",
    "/events/?type=task.&subject=agents/ada",
    "/changes/?state=merged",
    "/?span=week",
)


@pytest.fixture
async def caller(tmp_path):
    async with hubs.running(tmp_path, parts={"clock": clock.ManualClock()}) as made:
        yield made


def understood(command: str) -> bool:
    """Its words lead to a command that takes its options and arguments; it is not run."""
    words = shlex.split(command)
    assert words[0] == "agentcom"
    found: Any = typer.main.get_command(app)
    at = 1
    while hasattr(found, "commands"):
        inner = found.commands.get(words[at])
        if inner is None:
            return False
        found, at = inner, at + 1
    try:
        found.make_context(" ".join(words[:at]), words[at:])
    except typer.TyperException:
        return False
    return True


def offered(page: str) -> list[str]:
    """The commands of a page: to be copied, and shown before an action."""
    found = re.findall(r'data-(?:copy|command)="(agentcom [^"]*)"', page)
    return [html.unescape(command) for command in found]


@pytest.mark.parametrize("command", ["agentcom task list --filter x", "agentcom task explode", "agentcom task show"])
def test_a_command_that_there_is_not_would_be_found(command):
    assert not understood(command)


async def test_every_command_that_a_page_offers_is_one(browser, caller):
    await raised(caller)
    dead = await caller.task("to be cancelled")
    waits = await caller.task("waits", depends_on=[dead.name])
    await browser.post(f"/{dead.name}/cancel")
    await caller.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id="ada"))
    await caller.registry.CreateRepo(
        registry_service_pb2.CreateRepoRequest(repo_id="tally", repo=repo_pb2.Repo(url="/nowhere/tally.git"))
    )
    pages = (
        "/", "/goals/", "/tasks/", "/agents/", "/changes/", "/repos/", "/dead/", "/alerts/", "/events/", "/system/",
        f"/alerts/rules/{RULE}", f"/{dead.name}", f"/{waits.name}", "/agents/ada", *FILTERED,
    )  # fmt: skip
    for path in pages:
        page = await browser.get(path)
        assert page.status_code == 200, path
        commands = offered(page.text)
        assert commands, path
        for command in commands:
            assert understood(command), f"{path} offers {command}"
