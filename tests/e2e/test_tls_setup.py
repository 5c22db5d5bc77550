"""deploy/tls/agentcom-tls: what it makes carries a fleet, strangers stay out, nothing is restarted for a renewal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    hub_service_pb2,
    hub_service_pb2_grpc,
)
from dashboard import config as dashboard_config
from hub import app, config
from kit import certificate, channel
from sidecar import config as sidecar_config
from tests.support.hub import PATIENCE_S
from tests.support.processes import LOOK_EVERY_S, Process

SCRIPT = Path(__file__).resolve().parent.parent.parent / "deploy" / "tls" / "agentcom-tls"
GET = hub_service_pb2.GetHubRequest()

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")


class Setup:
    """The script and its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(SCRIPT), "--dir", str(self.folder), *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done
        return done

    def files(self) -> dict[str, bytes]:
        """Everything that there is, by its name."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def tls(self, client: str) -> channel.Tls:
        """What a client has in its hands now."""
        place = self.folder / "clients" / client
        return channel.Tls(*((place / name).read_bytes() for name in ("ca.crt", "client.crt", "client.key")))


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    made = Setup(tmp_path / "tls")
    made.run("hub", "localhost", "127.0.0.1")
    return made


@contextlib.asynccontextmanager
async def serving(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[app.Hub]:
    """A hub with the settings that the script prints, but for the port."""
    # These tests shake hands one after the other, so nothing can be disturbed.
    monkeypatch.setattr(certificate, "QUIET_S", 0.0)
    file = tmp_path / "hub.toml"
    file.write_text(setup.run("hub", "localhost", "127.0.0.1").stdout)
    chosen = {"server.listen": "127.0.0.1:0", "data": tmp_path / "hub", "store.kind": "memory"}
    async with app.serving_hub(app.Hub(config.load(file, {}, chosen))) as hub:
        yield hub


def port_of(hub: app.Hub) -> int:
    return channel.parse_address(hub.address).port


async def get(hub: app.Hub, tls: channel.Tls | None) -> str:
    """The hub's name, over a connection of its own."""
    wire = channel.open_channel(channel.Address("localhost", port_of(hub), tls=tls is not None), tls)
    try:
        return str((await hub_service_pb2_grpc.HubServiceStub(wire).GetHub(GET, timeout=PATIENCE_S)).hub.name)
    finally:
        await wire.close()


async def is_shut(hub: app.Hub, tls: channel.Tls | None) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get(hub, tls)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def settings_of(printed: str) -> tuple[str, str, dict[str, str]]:
    """What `client` prints: sidecar.toml, dashboard.toml and the variables of the command line."""
    sidecar, rest = printed.split("# dashboard.toml\n")
    dashboard, shell = rest.split("# the command line\n")
    return sidecar, dashboard, dict(re.findall(r'^export (\w+)="(.*)"$', shell, re.MULTILINE))


async def test_a_fleet_runs_on_what_the_script_prints_and_through_a_renewal(setup: Setup, tmp_path, monkeypatch):
    async with serving(setup, tmp_path, monkeypatch) as hub:
        setup.run("client", "ada")
        printed = setup.run("--port", str(port_of(hub)), "client", "ada").stdout
        toml, pages, variables = settings_of(printed)
        (tmp_path / "sidecar.toml").write_text(f'agent = "ada"\nstate_dir = "{tmp_path}/ada"\n{toml}')
        (tmp_path / "dashboard.toml").write_text(pages)
        assert sidecar_config.load(tmp_path / "sidecar.toml", environment={}).tls() == setup.tls("ada")
        shown = dashboard_config.load(tmp_path / "dashboard.toml", {}).hub
        assert (shown.address, shown.ca) == (f"grpcs://localhost:{port_of(hub)}", setup.folder / "clients/ada/ca.crt")
        words = ["-m", "sidecar", "--config", str(tmp_path / "sidecar.toml")]
        sidecar = await Process.start("sidecar", [sys.executable, *words], log=tmp_path / "ada.log")
        try:
            await until_idle(hub, setup)
            listed = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-m", "cli", "agent", "list"], env={**os.environ, **variables},
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert (listed.returncode, "ada" in listed.stdout) == (0, True), listed
            before = setup.files()
            setup.run("renew", "--all")
            assert setup.files()["hub/hub.crt"] != before["hub/hub.crt"]
            assert await get(hub, setup.tls("ada")) == "hub"
            assert hub.certificates is not None
            assert hub.certificates.state.problem == ""
            await until_idle(hub, setup)
            assert sidecar.is_running
        finally:
            await sidecar.stop()


async def until_idle(hub: app.Hub, setup: Setup) -> None:
    """The sidecar has a session."""
    wire = channel.open_channel(channel.Address("localhost", port_of(hub), tls=True), setup.tls("ada"))
    ask = agent_service_pb2.ListAgentsRequest()
    try:
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(wire)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = (await stub.ListAgents(ask, timeout=PATIENCE_S)).agents
                if [one.state for one in found] == [agent_pb2.Agent.STATE_IDLE]:
                    return
                await asyncio.sleep(LOOK_EVERY_S)  # a list says nothing when it changes
    finally:
        await wire.close()


async def test_strangers_stay_out(setup: Setup, tmp_path, monkeypatch):
    setup.run("client", "ada")
    other = Setup(tmp_path / "other")
    other.run("hub", "localhost")
    other.run("client", "ada")
    ours, theirs = setup.tls("ada"), other.tls("ada")
    server = channel.Tls(ours.ca, *((setup.folder / "hub" / name).read_bytes() for name in ("hub.crt", "hub.key")))
    async with serving(setup, tmp_path, monkeypatch) as hub:
        assert await get(hub, ours) == "hub"
        assert await is_shut(hub, channel.Tls(ours.ca, theirs.certificate, theirs.key)), "of another authority"
        assert await is_shut(hub, channel.Tls(ours.ca)), "without a certificate"
        assert await is_shut(hub, theirs), "who does not trust our authority"
        assert await is_shut(hub, server), "a hub's certificate is not a client's"
        assert await is_shut(hub, None), "without TLS"


async def test_an_authority_is_replaced_in_three_steps_and_nobody_is_shut_out(setup: Setup, tmp_path, monkeypatch):
    setup.run("client", "ada")
    async with serving(setup, tmp_path, monkeypatch) as hub:
        first = setup.tls("ada")
        assert await get(hub, first)
        setup.run("new-authority")
        assert "drop-authority first" in setup.run("new-authority", code=1).stderr
        both = setup.tls("ada")
        assert both.ca != first.ca
        assert await get(hub, first), "a machine to which nothing was copied yet"
        assert await get(hub, both)
        assert "renew --all first" in setup.run("drop-authority", code=1).stderr
        setup.run("renew", "--all")
        assert await get(hub, setup.tls("ada"))
        assert await get(hub, both), "trusts the new authority, shows the old certificate"
        setup.run("drop-authority")
        assert await get(hub, setup.tls("ada"))
        assert await is_shut(hub, channel.Tls(setup.tls("ada").ca, first.certificate, first.key))


def test_only_the_owner_reads_what_is_made(setup: Setup):
    setup.run("client", "ada")
    setup.run("new-authority")
    for path in (setup.folder, *setup.folder.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert not list(setup.folder.glob(".work*"))


def test_to_repeat_a_command_changes_nothing(setup: Setup):
    setup.run("client", "ada")
    before = setup.files()
    again = [
        setup.run("hub", "localhost", "127.0.0.1"), setup.run("client", "ada"), setup.run("renew"), setup.run("list"),
    ]  # fmt: skip
    assert setup.files() == before
    assert "hub/hub.crt" in again[-1].stdout
    assert "until" in again[0].stderr


def test_what_is_there_is_not_overwritten(setup: Setup):
    before = setup.files()
    refused = setup.run("hub", "elsewhere.example", code=1)
    assert "has a certificate for DNS:localhost,IP:127.0.0.1" in refused.stderr
    assert setup.files() == before


def test_what_ends_soon_or_was_cut_off_is_renewed(setup: Setup):
    setup.run("client", "ada")
    setup.run("--days", "7", "client", "brief")
    before = setup.files()
    setup.run("renew")
    after = setup.files()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"clients/brief/client.crt", "clients/brief/client.key"}
    # As if the machine had died between the two files of a renewal.
    (setup.folder / "clients/ada/client.key").write_bytes(after["clients/brief/client.key"])
    setup.run("renew")
    assert setup.files()["clients/ada/client.crt"] != after["clients/ada/client.crt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("client", "Ada"), "lower-case letters"),
        (("client", "../ada"), "lower-case letters"),
        (("client", "a" * 64), "1 to 63"),
        (("client",), "one name is needed"),
        (("hub",), "1 to 32 host names"),
        (("hub", "a,DNS:b"), "neither a host name nor an address"),
        (("hub", "a\nb"), "neither a host name nor an address"),
        (("--days", "0", "client", "ada"), "--days 0: must be 1 to 825"),
        (("--port", "70000", "client", "ada"), "--port 70000: must be 1 to 65535"),
        (("--nonsense",), "unknown option --nonsense"),
        (("nonsense",), "unknown command nonsense"),
        (("renew", "--some"), "unknown word --some"),
    ],
)
def test_bad_words_are_told_and_change_nothing(setup: Setup, words: tuple[str, ...], said: str):
    before = setup.files()
    assert said in setup.run(*words, code=2).stderr
    assert setup.files() == before
