"""The sidecar's configuration: what it says, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit import errors
from sidecar import config, enrolment
from sidecar.wire import state

TOKEN = "act_" + "x" * 43


def test_file_environment_and_flags_in_that_order(tmp_path):
    file = tmp_path / "sidecar.toml"
    file.write_text('agent = "one"\nslots = 2\n[hub]\naddress = "grpcs://hub:1"\n[timeout]\ndrain_s = 5\n')
    made = config.load(
        file, environment={"AGENTCOM_SIDECAR_SLOTS": "3", "AGENTCOM_SIDECAR_EXECUTORS": "shell,fake"},
        overrides={"agent": "two"},
    )  # fmt: skip
    assert (made.agent, made.slots, made.hub.address, made.timeout.drain_s) == ("two", 3, "grpcs://hub:1", 5.0)
    assert made.runner().executors == ("shell", "fake")
    assert made.runner().work_dir == made.state_path / "work"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("slots = 257", "slots"),
        ("slot = 1", "slot"),
        ('kinds = ["survey"]', "kinds"),
        ("executors = []", "executors"),
        ('agent = "../x"', "agent"),
        ('[hub]\naddress = "x"', "hub.address"),
        ('[hub]\nkey_file = "k"', "hub.certificate_file"),
        ('[sandbox]\nmode = "perhaps"', "sandbox.mode"),
        ('[sandbox]\ncaches = ["~"]', "sandbox.caches"),
        ('[sandbox]\ncaches = ["/"]', "sandbox.caches"),
        ('state_dir = "/var/x/state"\n[sandbox]\ncaches = ["/var/x"]', "sandbox.caches"),
        ('state_dir = "/var/x/state"\n[sandbox]\ncaches = ["/var/x/state/work/repos"]', "sandbox.caches"),
        ('[sandbox]\ncaches = ["/var/c", "/var/c/d"]', "sandbox.caches"),
        ("[timeout]\nreconnect_base_s = 9\nreconnect_cap_s = 1", "timeout.reconnect_base_s"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_file_and_key(tmp_path, text, key):
    file = tmp_path / "sidecar.toml"
    file.write_text(text)
    with pytest.raises(errors.Invalid) as refused:
        config.load(file, environment={})
    assert "sidecar.toml" in refused.value.message
    assert key in refused.value.message
    assert "\n" not in refused.value.message


def test_what_is_the_sidecars_own_is_hidden_from_every_command(tmp_path):
    file = tmp_path / "sidecar.toml"
    file.write_text(
        f'state_dir = "{tmp_path}/state"\n[hub]\ntoken_file = "{tmp_path}/token"\n'
        f'[sandbox]\nmode = "required"\ncaches = ["{tmp_path}/cache"]\nreadable = ["/srv/tools"]\n'
    )
    made = config.load(file, environment={}).runner().sandbox
    assert made.mode == "required"
    assert (made.caches, made.readable) == ((tmp_path / "cache",), (Path("/srv/tools"),))
    assert set(made.hidden) == {tmp_path / "state", tmp_path / "token"}


def test_no_secret_is_shown_by_the_settings():
    made = config.load(environment={"AGENTCOM_SIDECAR_HUB_TOKEN": TOKEN, "AGENTCOM_SIDECAR_HUB_JOIN_KEY": "jkey"})
    assert TOKEN not in repr(made)
    assert "jkey" not in repr(made)


def test_a_token_may_come_from_a_file(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    made = config.load(environment={"AGENTCOM_SIDECAR_HUB_TOKEN_FILE": str(tmp_path / "token")})
    assert made.token() == TOKEN
    gone = config.load(environment={"AGENTCOM_SIDECAR_HUB_TOKEN_FILE": str(tmp_path / "gone")})
    with pytest.raises(errors.Invalid, match=r"hub\.token_file"):
        gone.token()


def test_a_folder_that_belongs_to_another_agent_is_refused(tmp_path):
    state.write_identity(tmp_path, state.Identity(agent="one", token=TOKEN))
    assert enrolment.known(config.load(environment={}), tmp_path) == state.Identity(agent="one", token=TOKEN)
    with pytest.raises(errors.Invalid, match="belongs to the agent one"):
        enrolment.known(config.load(environment={"AGENTCOM_SIDECAR_AGENT": "two"}), tmp_path)


def test_an_enrolment_that_has_only_begun_makes_nobody_known(tmp_path):
    state.write_identity(tmp_path, state.Identity(request_id="r"))
    assert enrolment.known(config.load(environment={}), tmp_path) is None
