"""The examples that people copy are read by the very code that will read their copies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dashboard import config as dashboard_config
from hub import config as hub_config
from kit import goalfile
from sidecar import config as sidecar_config

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
GOALS = [DEPLOY / "demo" / "goal.md", DEPLOY / "examples" / "goal.md", DEPLOY / "examples" / "goal.yaml"]


@pytest.mark.parametrize("path", GOALS, ids=lambda path: path.parent.name + "/" + path.name)
def test_a_goal_file_is_good_and_every_assertion_has_its_task(path: Path):
    goal = goalfile.parse(path.read_bytes(), path.name)
    fulfilled = [id for task in goal.plan.tasks for id in task.fulfills]
    assert sorted(fulfilled) == sorted(assertion.id for assertion in goal.assertions)


def test_the_configurations_are_taken():
    hub = hub_config.load(DEPLOY / "examples" / "hub.toml", {})
    assert hub.token_required
    sidecar = sidecar_config.load(DEPLOY / "examples" / "sidecar.toml", environment={})
    assert sidecar.hub.address == hub.server.listen


#: What must be set for a file to be taken at all, where a default alone is not enough.
KINDS = {
    "hub": lambda file: hub_config.load(file, {}),
    "sidecar": lambda file: sidecar_config.load(file, environment={}),
    "dashboard": lambda file: dashboard_config.load(file, {}),
}


@pytest.mark.parametrize("node", KINDS)
def test_the_generated_configuration_changes_nothing_and_neither_do_its_lines_without_their_signs(
    node: str, tmp_path: Path
):
    text = (DEPLOY / "config" / f"{node}.toml").read_text()
    edited = tmp_path / "edited.toml"
    edited.write_text(re.sub(r"(?m)^# ([a-z_]+ = .*?)(?<!# absent)$", r"\1", text))
    assert len(edited.read_text()) < len(text), "there are lines to take the sign from"
    files = (None, DEPLOY / "config" / f"{node}.toml", edited)
    # A default path may begin with "~", which reading a file makes a folder.
    plain, whole, bare = [repr(KINDS[node](file)).replace("'~/", f"'{Path.home()}/") for file in files]
    assert whole == plain
    assert bare == plain
