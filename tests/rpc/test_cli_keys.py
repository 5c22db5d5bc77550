"""How the command line is given its keys, and what it does when the hub tells it to wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from agentcom.v1 import event_pb2, hub_pb2, hub_service_pb2
from cli import command, session
from cli.failure import Code
from cli.main import app
from kit import errors
from tests.support.authority import Authority
from tests.support.fake_hub import FakeHub

HUB = hub_service_pb2.GetHubResponse(hub=hub_pb2.Hub(state=hub_pb2.Hub.STATE_SERVING, event_position=7))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in dir(command):
        if name.startswith("ENV_"):
            monkeypatch.delenv(getattr(command, name), raising=False)
    monkeypatch.setattr(session, "RESUME_BASE_S", 0.0)
    fake = FakeHub()
    fake.answers = {"HubService/GetHub": HUB}
    yield fake
    fake.close()


def run(hub: FakeHub, *words: str, **options: Any) -> Any:
    return CliRunner().invoke(app, [*words, "--hub", hub.address], **options)


def test_a_token_comes_from_a_file_a_variable_or_standard_input(hub, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("act_file\n")
    assert run(hub, "hub", "status", "--token-file", str(file)).exit_code == 0
    assert run(hub, "hub", "status", "--token-file", "-", input="act_stdin\nmore\n").exit_code == 0
    monkeypatch.setenv(command.ENV_TOKEN, "act_variable")
    assert run(hub, "hub", "status").exit_code == 0
    shown = [one["authorization"] for one in hub.metadata]
    assert shown == ["Bearer act_file", "Bearer act_stdin", "Bearer act_variable"]


def test_an_empty_standard_input_holds_no_token(hub):
    result = run(hub, "hub", "status", "--token-file", "-", input="")
    assert (result.exit_code, hub.requests) == (Code.USAGE, [])


@pytest.mark.parametrize("one", ["--certificate-file", "--key-file"])
def test_a_certificate_and_its_key_go_together(hub, tmp_path, one):
    pair = Authority().pair().write(tmp_path)
    result = run(hub, "hub", "status", one, str(pair[one == "--key-file"]))
    assert (result.exit_code, hub.requests) == (Code.USAGE, [])
    assert "--certificate-file: goes together with --key-file" in result.stderr


def test_a_watch_that_is_told_to_wait_waits_and_goes_on(hub):
    later = errors.Exhausted("you ask too often", reason="RATE_LIMITED", retry_delay_s=0.01)
    event = event_pb2.Event(position=7, type="task.created", subject="tasks/x")
    message = hub_service_pb2.WatchEventsResponse(event=event, position=7)
    hub.answers["HubService/WatchEvents"] = [later, later, [message]]
    result = run(hub, "hub", "events", "--since", "5", "--no-follow")
    assert result.exit_code == 0, result.output
    assert "task.created" in result.stdout
    assert len(hub.asked("HubService/WatchEvents")) == 3


def test_a_refusal_without_a_delay_ends_the_watch(hub):
    hub.answers["HubService/WatchEvents"] = errors.Exhausted("too many watch it", reason="WATCHERS_FULL")
    assert run(hub, "hub", "events", "--since", "5", "--no-follow").exit_code == Code.UNAVAILABLE


def test_a_command_that_asks_too_often_says_when_to_try_again(hub):
    hub.answers["HubService/GetHub"] = errors.Exhausted("you ask too often", reason="RATE_LIMITED", retry_delay_s=12.0)
    result = run(hub, "hub", "status")
    assert result.exit_code == Code.UNAVAILABLE
    assert "hint: try again in 12.0 s" in result.stderr
