"""What a machine lacks is found by trying, and told with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar import config, preflight
from sidecar.__main__ import main
from tests.support import gitrepo


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gitrepo.isolate(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))


def settings(folder: Path, **more: object) -> config.Settings:
    # Nobody listens on port 1.
    overrides = {"state_dir": str(folder / "state"), "hub.address": "127.0.0.1:1", "sandbox.mode": "off", **more}
    return config.load(None, environment={}, overrides=overrides)


async def verdicts(chosen: config.Settings, *repos: tuple[str, str, str]) -> dict[str, tuple[str, str]]:
    return {check.check: (check.verdict, check.message) for check in await preflight.run(chosen, repos)}


async def test_every_probe_of_the_self_test_is_there_and_nothing_is_left_behind(tmp_path: Path):
    found = await verdicts(settings(tmp_path))
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "git": "ok", "identity": "warning", "disk": "ok", "clock": "ok", "sandbox": "warning", "executor:shell": "ok",
        "hub": "failed",
    }  # fmt: skip
    assert not list((tmp_path / "state").iterdir())


async def test_an_identity_that_git_has_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "gitconfig").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert (await verdicts(settings(tmp_path)))["identity"] == ("ok", "commits are made by Ada <ada@example.org>")


async def test_a_repo_is_fetched_and_pushed_to_without_changing_it(tmp_path: Path):
    origin = gitrepo.Origin(tmp_path / "repo")
    before = gitrepo.git("for-each-ref", cwd=origin.path)
    found = await verdicts(settings(tmp_path), ("notes", str(origin.path), "main"))
    assert found["repo:notes"][0] == "ok"
    assert gitrepo.git("for-each-ref", cwd=origin.path) == before


@pytest.mark.parametrize("what", ["no repo", "no branch", "no push", "an option"])
async def test_a_repo_that_work_could_not_use_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str):
    origin = gitrepo.Origin(tmp_path / "repo")
    url, branch = str(origin.path), "main"
    if what == "no repo":
        url = str(tmp_path / "nowhere")
    elif what == "no branch":
        branch = "trunk"
    elif what == "an option":
        url = f"--upload-pack=touch {tmp_path}/touched"
    else:  # git may read there, and is led elsewhere for a push
        (tmp_path / "gitconfig").write_text(f'[url "{tmp_path}/nowhere"]\npushInsteadOf = {url}\n')
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert (await verdicts(settings(tmp_path), ("notes", url, branch)))["repo:notes"][0] == "failed"
    assert not (tmp_path / "touched").exists()


async def test_a_machine_without_git_is_told_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("sh", "rm"):
        (programs / program).symlink_to(f"/bin/{program}")
    monkeypatch.setenv("PATH", str(programs))
    found = await verdicts(settings(tmp_path), ("notes", "/nowhere", "main"))
    assert {found[name][0] for name in ("git", "identity", "repo:notes")} == {"failed"}
    assert "install" in found["git"][1]


async def test_a_token_is_not_offered_to_a_hub_beyond_the_loopback_without_tls(tmp_path: Path):
    verdict, message = (await verdicts(settings(tmp_path, **{"hub.address": "192.0.2.1:7420"})))["hub"]
    assert (verdict, "without TLS" in message) == ("failed", True)


async def test_a_sandbox_that_is_required_and_missing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("sh", "rm", "git", "echo"):
        target = Path("/usr/bin") / program
        (programs / program).symlink_to(target if target.exists() else Path("/bin") / program)
    monkeypatch.setenv("PATH", str(programs))
    found = await verdicts(settings(tmp_path, **{"sandbox.mode": "required"}))
    assert found["sandbox"][0] == "failed"
    assert "bubblewrap" in found["sandbox"][1]


def test_an_executor_that_does_not_exist_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--state-dir", str(tmp_path / "state"), "--hub", "127.0.0.1:1", "--executors", "nonsense", "--json"]
    assert main(["preflight", *words]) == 1
    found = {check["check"]: check for check in json.loads(capsys.readouterr().out)}
    assert found["executors"]["verdict"] == "failed"
    assert "nonsense" in found["executors"]["message"]
