"""The examples that people copy are read by the very code that will read their copies."""

from __future__ import annotations

from pathlib import Path

import pytest

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
