"""The quiet parts of `agent add`: names, the folder and its record, the configuration, the text of a unit."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.onboarding import folder as agent_folder
from cli.onboarding import names, service, sidecar_config
from cli.onboarding.folder import STEPS, AgentFolder, Asked, Record
from kit import errors, ids
from sidecar import config

RECORD = Record(name="ada", hub="127.0.0.1:1", service="process", request_id="r-12345678", asked=Asked(slots=3))


@pytest.fixture
def folder(tmp_path: Path) -> AgentFolder:
    return AgentFolder(tmp_path / "agents", "ada")


# Names


def test_every_name_that_can_be_invented_is_an_id():
    assert all(ids.is_slug(f"{manner}-{being}") for manner in names.MANNERS for being in names.BEINGS)
    assert len(set(names.MANNERS)) * len(set(names.BEINGS)) == 64 * 64


def test_the_same_dice_invent_the_same_name(rng: random.Random):
    seed = rng.random()
    assert names.invent(random.Random(seed)) == names.invent(random.Random(seed))


# The folder


@pytest.mark.parametrize("name", ["", "..", "a/b", "Ada", "-a", "a" * 64])
def test_a_name_that_is_no_id_never_becomes_a_folder(tmp_path: Path, name: str):
    with pytest.raises(errors.Invalid):
        AgentFolder(tmp_path, name)


def test_a_record_is_read_as_it_was_written_and_is_its_owners_only(folder: AgentFolder):
    with folder.locked():
        folder.write(RECORD.after("configure"))
        assert folder.read() == RECORD.after("configure")
        assert stat.S_IMODE((folder.path / agent_folder.RECORD).stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_record_is_finished_when_every_step_is_done_and_a_step_is_done_once():
    record = RECORD
    for step in STEPS:
        assert not record.is_finished
        record = record.after(step).after(step)
    assert record.is_finished
    assert record.done == STEPS


def test_a_damaged_record_is_told_of_and_not_taken_for_none(folder: AgentFolder):
    with folder.locked():
        (folder.path / agent_folder.RECORD).write_text('{"name": "ada"')
        with pytest.raises(errors.Invalid, match="damaged"):
            folder.read()


def test_two_do_not_work_on_one_folder_and_an_empty_one_does_not_stay(folder: AgentFolder):
    with folder.locked(), pytest.raises(errors.IllegalState, match="another agentcom"), folder.locked():
        pass
    assert not folder.path.exists()
    with folder.locked():
        pass


def test_clearing_keeps_the_work_unless_it_is_purged_and_follows_no_link(folder: AgentFolder, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thing").touch()
    with folder.locked():
        folder.write(RECORD)
        (folder.state / "deep").mkdir(parents=True)
        (folder.work / "repos").mkdir(parents=True)
        (folder.path / "link").symlink_to(precious)
        folder.clear(purge=False)
        assert [path.name for path in folder.path.iterdir()] == ["work"]
        folder.clear(purge=True)
        assert not list(folder.path.iterdir())
    assert (precious / "thing").exists()


def test_the_record_is_the_last_thing_that_goes(folder: AgentFolder, monkeypatch: pytest.MonkeyPatch):
    with folder.locked():
        folder.write(RECORD)
        folder.state.mkdir()

        def broken(path: Path) -> None:
            raise OSError("no")

        monkeypatch.setattr(shutil, "rmtree", broken)
        with pytest.raises(OSError, match="no"):
            folder.clear(purge=True)
        assert folder.read() == RECORD
        monkeypatch.undo()
        folder.clear(purge=True)


def test_what_is_unfinished_is_found_again(tmp_path: Path):
    for name, record in (("ada", RECORD), ("bob", msgspec.structs.replace(RECORD, done=STEPS))):
        one = AgentFolder(tmp_path, name)
        one.path.mkdir()
        one.write(record)
    assert agent_folder.unfinished(tmp_path) == ["ada"]
    assert agent_folder.unfinished(tmp_path / "nowhere") == []


# The configuration

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(display_name=TEXT, part=st.text("abc \"'\\$%#\x7fé\U0001f600\n\t", min_size=1, max_size=12))
def test_the_sidecar_reads_the_configuration_as_it_was_meant(display_name: str, part: str, tmp_path_factory):
    base = tmp_path_factory.getbasetemp() / "config"
    base.mkdir(exist_ok=True)
    wanted = sidecar_config.Wanted(
        agent="ada", address="grpcs://hub.example:7420", state_dir=Path("/x") / part / "state",
        work_dir=Path("/x") / part / "work", token_file=Path("/x") / part / "token", ca_file=Path("/x") / part / "ca",
        plaintext=True, display_name=display_name, slots=7, executors=("shell", "fake"), capabilities=("gpu",),
        sandbox="required",
    )  # fmt: skip
    (base / "sidecar.toml").write_text(sidecar_config.text(wanted), encoding="utf-8", newline="")
    read = config.load(base / "sidecar.toml", environment={})
    assert (read.agent, read.display_name, read.slots) == ("ada", display_name, 7)
    assert (read.executors, read.capabilities) == (("shell", "fake"), ("gpu",))
    assert (read.state_dir, read.work_dir) == (wanted.state_dir, wanted.work_dir)
    assert (read.hub.address, read.hub.token_file, read.hub.ca_file) == (
        wanted.address,
        wanted.token_file,
        wanted.ca_file,
    )
    assert (read.hub.plaintext, read.sandbox.mode) == (True, "required")


def test_a_path_that_is_no_text_is_refused():
    odd = Path(os.fsdecode(b"/x/\xff"))
    with pytest.raises(errors.Invalid):
        sidecar_config.text(
            sidecar_config.Wanted(agent="a", address="h:1", state_dir=odd, work_dir=odd, token_file=odd)
        )


# The unit


def test_a_unit_names_its_command_word_by_word_and_nothing_in_it_is_expanded():
    text = service.unit_text("ada", ["/opt/a b/python", "--config", '/h/50%/$X/"q"\\'], {"PATH": "/opt/$x/50%:/bin"})
    lines = text.splitlines()
    assert 'ExecStart="/opt/a b/python" "--config" "/h/50%%/$$X/\\"q\\"\\\\"' in lines
    assert 'Environment="PATH=/opt/$x/50%%:/bin"' in lines


def test_a_unit_does_not_bring_back_a_sidecar_that_the_hub_sent_away():
    assert "RestartPreventExitStatus=2 3" in service.unit_text("ada", ["x"], {})


def test_a_unit_leaves_a_sidecar_the_time_that_it_takes_to_finish():
    times = config.Settings().timeout
    assert times.drain_s + times.stop_s + times.farewell_s < service.STOP_S


def test_a_word_with_a_line_end_never_comes_into_a_unit():
    with pytest.raises(errors.Invalid):
        service.unit_text("ada", ["/x\n[Service]\nExecStart=/bin/evil"], {})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_takes_the_unit(tmp_path: Path):
    unit = tmp_path / "agentcom-ada.service"
    unit.write_text(service.unit_text("ada", ["/bin/sh", "--config", "/tmp/50% $HOME"], {"PATH": "/bin:/usr/bin"}))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", "--recursive-errors=no", str(unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "agentcom" in line]
    assert (ours, done.returncode) == ([], 0), done.stderr


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it is asked, and a file that says what it answers to `is-active`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    asked = tmp_path / "asked"
    script = programs / "systemctl"
    script.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncase "$2" in is-active) test -e {tmp_path}/active;; esac\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return asked


def test_a_systemd_service_is_installed_started_stopped_and_forgotten(systemctl: Path, folder: AgentFolder):
    keeper = service.Systemd(folder)
    assert service.choose("auto") == "systemd"
    keeper.install()
    assert keeper.path.read_text().count(str(folder.config)) == 1
    assert stat.S_IMODE(keeper.path.stat().st_mode) == 0o600
    keeper.start()
    keeper.stop(hurry=False)
    keeper.uninstall()
    assert not keeper.path.exists()
    keeper.uninstall()
    verbs = [line.split()[1] for line in systemctl.read_text().splitlines()]
    assert verbs == [
        "show-environment", "daemon-reload", "enable", "reset-failed", "start", "stop", "is-active", "disable",
        "daemon-reload", "reset-failed", "daemon-reload", "reset-failed",
    ]  # fmt: skip


def test_two_agents_have_two_units(folder: AgentFolder):
    other = AgentFolder(folder.path.parent, "bob")
    assert service.Systemd(folder).path != service.Systemd(other).path


def test_a_unit_that_does_not_stop_is_told_of(systemctl: Path, folder: AgentFolder, tmp_path: Path):
    (tmp_path / "active").touch()
    with pytest.raises(errors.Unavailable, match="does not stop"):
        service.Systemd(folder).stop(hurry=True)


def test_without_systemd_a_plain_process_is_chosen_and_who_insists_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert service.choose("auto") == "process"
    with pytest.raises(errors.Invalid):
        service.choose("systemd")


def test_a_service_gets_nothing_that_is_the_persons_who_adds_it():
    ours = {"PATH": "/bin", "AGENTCOM_TOKEN": "act_x", "AGENTCOM_TOKEN_FILE": "/t", "AGENTCOM_SIDECAR_SLOTS": "9"}
    assert service.environment(ours) == {"PATH": "/bin"}


def test_a_record_is_plain_json_that_a_person_can_read(folder: AgentFolder):
    with folder.locked():
        folder.write(RECORD)
        assert json.loads((folder.path / agent_folder.RECORD).read_text())["asked"]["slots"] == 3
        folder.clear(purge=True)
