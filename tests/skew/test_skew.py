"""Two minors side by side, in both directions, with real processes: a goal is merged, a killed hub takes over."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import json
import socket
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentcom.v1 import agent_pb2, goal_pb2, goal_service_pb2, hub_service_pb2
from cli import output, session
from kit import errors, version
from tests.dashboard.conftest import Browser
from tests.e2e import history
from tests.skew.programs import COMMAND_S, KEPT_FILE, OURS, Program, future
from tests.support.fleet import appears
from tests.support.gitrepo import Origin
from tests.support.processes import PATIENCE_S, Process, until

GOAL = """\
---
title: two words
repo: demo
assertions:
  - id: A1
    text: both words are there
    run: grep -q first words.txt && grep -q second words.txt
plan:
  tasks:
    - id: T1
      title: the first word
      checks:
        - {{run: grep -q first words.txt, expect_on_base: fail}}
      command: |
        echo first >> words.txt
        echo $AGENTCOM_GENERATION >> {began}
        while ! test -e {go}; do sleep 0.05; done
    - id: T2
      title: the second word
      depends_on: [T1]
      fulfills: [A1]
      checks:
        - {{run: grep -q second words.txt, expect_on_base: fail}}
      command: echo second >> words.txt
---
Two words, one after the other.
"""


@pytest.mark.parametrize("new", ["hub", "others"])
async def test_a_goal_is_merged_and_a_killed_hub_takes_over_across_two_minors(
    mixed, kept: Program, ours: Program, origin: Origin, tmp_path: Path, new: str
):
    hub, others = (ours, kept) if new == "hub" else (kept, ours)
    fleet = mixed(hub=hub, sidecar=others)
    began, go, file = tmp_path / "began", tmp_path / "go", tmp_path / "goal.md"
    file.write_text(GOAL.format(began=began, go=go))
    await fleet.start_hub()
    await fleet.start_sidecars("ada", slots=2)
    await others.say(fleet.address, "repo", "add", "demo", str(origin.path))
    name = json.loads(await others.say(fleet.address, "-o", "json", "goal", "submit", str(file)))["name"]
    await appears(began)
    await fleet.kill_hub()
    await fleet.restart_hub()
    back = await fleet.until_events("agent.attached", 2)
    assert [event.fields["adopted"] for event in back] == ["0", "1"]
    assert {event.fields["version"] for event in back} == {others.version}
    go.touch()
    await others.say(fleet.address, "goal", "watch", name)
    goal = (await fleet.goals.GetGoal(goal_service_pb2.GetGoalRequest(name=name))).goal
    assert goal.state == goal_pb2.Goal.STATE_SUCCEEDED
    assert origin.read("words.txt") == "first\nsecond"
    assert began.read_text() == "1\n", "nothing was done twice"
    events = await fleet.history()
    history.check(events, [one.subject for one in events if one.type == "task.created"])
    assert hub.version in await others.say(fleet.address, "hub", "status")
    apart = f"sidecar {others.version} is one minor apart from hub {hub.version}; upgrade the "
    if new == "hub":
        agent = await fleet.agent("ada")
        assert (agent.version, agent.version_warning) == (others.version, f"{apart}sidecar before the next minor")
        assert not agent.HasField("clock_offset"), "it does not say"
        assert f"{others.version} (!)" in await ours.say(fleet.address, "agent", "list")
    else:
        assert f"{apart}hub before the next minor" in fleet.sidecars["ada"].said()
        status = await ours.say(fleet.address, "hub", "status")
        assert f"agentcom {ours.version} is one minor apart from hub {hub.version}; upgrade the hub" in status


async def test_an_older_hub_is_named_when_it_does_not_know_what_it_is_asked(mixed, kept: Program, ours: Program):
    fleet = mixed(hub=kept, sidecar=kept)
    await fleet.start_hub()
    said = await ours.cli(fleet.address, "alert", "rules")
    name = f"this hub {kept.version} does not know"
    why = f"which agentcom {ours.version} asks for; upgrade the hub"
    assert (said.code, said.errors.strip()) == (4, f"error: {name} ListAlertRules, {why}")

    async def watch(caller: session.Session) -> None:
        stream = caller.listen(lambda _request, **_options: Unknown(), hub_service_pb2.WatchEventsRequest())
        await anext(stream)

    options = session.Options(fleet.address, None, output.Format.TABLE, COMMAND_S)
    with pytest.raises(errors.IllegalState) as caught:
        await session.run(options, watch)
    assert caught.value.message == f"{name} WatchEvents, {why}"


class Unknown:
    """The stream of a method that the hub does not know."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNIMPLEMENTED, nothing, nothing, "Method not found!")

    def cancel(self) -> bool:
        return True


async def test_a_hub_that_went_too_far_is_told_from_both_sides_and_one_that_comes_back_has_its_sidecar_again(
    mixed, kept: Program, ours: Program, tmp_path: Path
):
    far = future(tmp_path / "future", "0.9.0")
    fleet = mixed(hub=far, sidecar=kept)
    await fleet.start_hub()
    sidecar = await fleet.start_sidecar("ada")
    said = (
        f"sidecar {kept.version} does not work with hub {far.version}: they are more than one minor apart; "
        "upgrade the sidecar"
    )
    (event,) = await fleet.until_events("agent.refused")
    assert event.fields["message"] == said
    await until(lambda: said in sidecar.said(), "the sidecar says it, too")
    assert said in await far.say(fleet.address, "agent", "list")
    assert said in await kept.say(fleet.address, "agent", "list")
    refused = await ours.cli(fleet.address, "agent", "list")
    assert refused.code == 4
    assert refused.errors.startswith(f"error: agentcom {ours.version} does not work with hub {far.version}: they are")
    assert f"agentcom {ours.version} does not work" in await ours.say(fleet.address, "hub", "status")
    assert fleet.hub is not None
    assert await fleet.hub.stop() == 0
    fleet.programs["hub"] = ours
    await fleet.restart_hub()
    await fleet.until_agent("ada", agent_pb2.Agent.STATE_IDLE)
    assert sidecar.is_running, "it never gave up"


PAGES = ("/", "/goals/", "/tasks/", "/agents/", "/agents/ada", "/changes/", "/repos/", "/dead/", "/events/", "/alerts/")


async def test_every_page_of_a_newer_dashboard_answers_on_an_older_hub(mixed, kept: Program, ours: Program):
    fleet = mixed(hub=kept, sidecar=kept)
    await fleet.start_hub()
    await fleet.start_sidecars("ada")
    browser = Browser(fleet.address)
    try:
        found = {path: (await browser.get(path)).status_code for path in PAGES}
        assert found == dict.fromkeys(PAGES, 200)
        system = (await browser.get("/system/")).text
        assert f"dashboard {ours.version} is one minor apart from hub {kept.version}; upgrade the hub" in system
        caller = browser.app.extensions["agentcom"][1].caller(None)
        with pytest.raises(errors.Problem) as caught:
            await asyncio.to_thread(caller.read, caller.hub.ListAlertRules, hub_service_pb2.ListAlertRulesRequest())
        assert "does not know ListAlertRules, which dashboard" in caught.value.message
    finally:
        browser.close()


async def test_the_older_dashboard_shows_a_newer_hub(mixed, kept: Program, ours: Program, tmp_path: Path):
    fleet = mixed(hub=ours, sidecar=ours)
    await fleet.start_hub()
    port = free_port()
    words = [*kept.command("dashboard"), "--listen", f"127.0.0.1:{port}", "--hub", fleet.address]
    process = await Process.start("dashboard", words, log=fleet.root / "dashboard.log")
    try:
        await process.until(lambda: answers(port), PATIENCE_S)
        assert ours.version in page(port, "/system/")
        for path in ("/", "/agents/", "/tasks/", "/alerts/"):
            assert page(port, path)
    finally:
        await process.stop()


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) == 0


def page(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def test_the_kept_program_is_what_its_wheel_held_and_what_its_page_says(kept: Program):
    (folder,) = kept.path
    with (folder / f"agentcom-{kept.version}.dist-info" / "RECORD").open(newline="") as file:
        record = {name: (digest, size) for name, digest, size in csv.reader(file) if not name.endswith(".pyi")}
    present = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert present == set(record)
    for name, (digest, _) in record.items():
        if digest:
            found = base64.urlsafe_b64encode(hashlib.sha256((folder / name).read_bytes()).digest()).rstrip(b"=")
            assert digest == f"sha256={found.decode()}", name
    page = (KEPT_FILE.parent / "README.md").read_text()
    assert hashlib.sha256(KEPT_FILE.read_bytes()).hexdigest() in page


def test_the_kept_program_is_one_minor_from_this_tree(kept: Program):
    assert version.skew(OURS.version, kept.version) is version.Skew.NEAR
