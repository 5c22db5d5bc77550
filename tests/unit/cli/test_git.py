"""What `agentcom git` hands on to the sidecar's own command."""

from __future__ import annotations

from cli import git


def test_flags_before_git_win_over_the_environment_and_the_rest_stays():
    ours = {"AGENTCOM_HUB_ADDRESS": "a:1", "AGENTCOM_TOKEN": "t", "PATH": "/bin"}
    assert git.environment({"hub": None}, ours) == ours
    assert git.environment({"hub": "c:3"}, ours) == {**ours, "AGENTCOM_HUB_ADDRESS": "c:3"}
