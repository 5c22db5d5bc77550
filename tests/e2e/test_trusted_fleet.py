"""A fleet as it stands on a network: mutual TLS, tokens, one-time keys; all of it replaced while it works."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import grpc
import pytest

from agentcom.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    hub_pb2,
    hub_service_pb2,
    hub_service_pb2_grpc,
)
from kit import channel
from tests.support.authority import Authority
from tests.support.processes import LOOK_EVERY_S, PATIENCE_S, Process

IDLE = agent_pb2.Agent.STATE_IDLE


class Trusted:
    """A hub that listens beyond the loopback, and what is needed to speak to it."""

    def __init__(self, root: Path) -> None:
        self.root, self.data = root, root / "hub"
        self.tls, self.clients = root / "tls", Authority("clients")
        self.authority = Authority("hub authority 0")
        self.renewals = 0
        self.processes: list[Process] = []
        self.renew()
        (self.tls / "clients.crt").write_bytes(self.clients.pem)
        self.clients.pair("sidecar").write(self.tls, "sidecar")
        self.clients.pair("person").write(self.tls, "person")

    def renew(self) -> None:
        """A new authority signs a new certificate; clients have both authorities at hand before it is used."""
        before = self.authority.pem
        self.renewals += 1
        self.authority = Authority(f"hub authority {self.renewals}")
        (self.tls).mkdir(parents=True, exist_ok=True)
        (self.tls / "ca.crt").write_bytes(before + self.authority.pem)
        self.authority.pair().write(self.tls)

    async def start(self, name: str, words: list[str], **environment: str) -> Process:
        process = await Process.start(
            name, [sys.executable, "-m", *words], log=self.root / f"{name}.log", environment=environment
        )
        self.processes.append(process)
        return process

    async def start_hub(self, listen: str = "0.0.0.0:0") -> Process:
        file = self.data / "hub.addr"
        file.unlink(missing_ok=True)
        process = await self.start(
            "hub",
            ["hub", "--listen", listen, "--data", str(self.data)],
            AGENTCOM_HUB_SERVER_TLS_CERTIFICATE=str(self.tls / "hub.crt"),
            AGENTCOM_HUB_SERVER_TLS_KEY=str(self.tls / "hub.key"),
            AGENTCOM_HUB_SERVER_TLS_CLIENT_CA=str(self.tls / "clients.crt"),
        )
        await process.until(lambda: file.exists() and file.read_text().endswith("\n"), PATIENCE_S)
        self.port = channel.parse_address(file.read_text().strip()).port
        return process

    @property
    def address(self) -> str:
        return f"grpcs://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def dialled(self):
        """A fresh connection of the person, and the metadata of the admin's token."""
        person = self.clients.pair("person")
        tls = channel.Tls((self.tls / "ca.crt").read_bytes(), person.certificate, person.key)
        address = channel.parse_address(self.address)
        wire = channel.open_channel(address, tls)
        try:
            yield wire, channel.token_metadata((self.data / "admin.token").read_text().strip(), address)
        finally:
            await wire.close()

    async def until_agent(self, name: str, state: int) -> None:
        ask = agent_service_pb2.GetAgentRequest(name=f"agents/{name}")
        async with self.dialled() as (wire, metadata), asyncio.timeout(PATIENCE_S):
            stub = agent_service_pb2_grpc.AgentServiceStub(wire)
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    if (await stub.GetAgent(ask, metadata=metadata, timeout=10)).agent.state == state:
                        return
                await asyncio.sleep(LOOK_EVERY_S)


@pytest.fixture
async def trusted(tmp_path):
    made = Trusted(tmp_path)
    try:
        yield made
    finally:
        for process in reversed(made.processes):
            await process.kill()


async def test_certificates_and_tokens_are_replaced_while_a_sidecar_works(trusted, tmp_path):
    hub = await trusted.start_hub()
    async with trusted.dialled() as (wire, metadata):
        stub = hub_service_pb2_grpc.HubServiceStub(wire)
        ask = hub_service_pb2.CreateTokenRequest(scope=hub_pb2.SCOPE_JOIN)
        (tmp_path / "join.key").write_text((await stub.CreateToken(ask, metadata=metadata, timeout=20)).secret)
    token = tmp_path / "agent.token"
    token.write_text("")
    sidecar = await trusted.start(
        "sidecar",
        ["sidecar", "--hub", trusted.address, "--agent", "ada", "--state-dir", str(tmp_path / "ada")],
        AGENTCOM_SIDECAR_HUB_JOIN_KEY_FILE=str(tmp_path / "join.key"),
        AGENTCOM_SIDECAR_HUB_TOKEN_FILE=str(token),
        AGENTCOM_SIDECAR_HUB_CA_FILE=str(trusted.tls / "ca.crt"),
        AGENTCOM_SIDECAR_HUB_CERTIFICATE_FILE=str(trusted.tls / "sidecar.crt"),
        AGENTCOM_SIDECAR_HUB_KEY_FILE=str(trusted.tls / "sidecar.key"),
        AGENTCOM_SIDECAR_TIMEOUT_RECONNECT_BASE_S="0.05",
        AGENTCOM_SIDECAR_TIMEOUT_RECONNECT_CAP_S="0.2",
    )
    await trusted.until_agent("ada", IDLE)

    # The certificate changes under the open stream; the command line comes in by the new one.
    trusted.renew()
    person = {
        "AGENTCOM_HUB_ADDRESS": trusted.address,
        "AGENTCOM_TOKEN_FILE": str(trusted.data / "admin.token"),
        "AGENTCOM_CA_FILE": str(trusted.tls / "ca.crt"),
        "AGENTCOM_CERTIFICATE_FILE": str(trusted.tls / "person.crt"),
        "AGENTCOM_KEY_FILE": str(trusted.tls / "person.key"),
    }
    rotate = await trusted.start(
        "rotate", ["cli", "agent", "rotate-token", "ada", "--grace", "1h", "-o", "json"], **person
    )
    assert await rotate.wait() == 0, rotate.said()
    await trusted.until_agent("ada", IDLE)  # the stream went on, with the old token and the old certificate
    token.write_text("act_" + rotate.said().partition("act_")[2][:43])
    old = (tmp_path / "ada" / "identity.json").read_text().partition("act_")[2][:43]

    # The hub is replaced: the sidecar comes back by the new certificate and shows the new token.
    await hub.stop()
    await trusted.start_hub(f"0.0.0.0:{trusted.port}")
    await trusted.until_agent("ada", IDLE)
    async with trusted.dialled() as (wire, metadata):
        stub = hub_service_pb2_grpc.HubServiceStub(wire)
        found = (await stub.ListTokens(hub_service_pb2.ListTokensRequest(), metadata=metadata, timeout=20)).tokens
    agents = [one for one in found if one.agent == "agents/ada"]
    assert [one.HasField("expire_time") for one in agents] == [True, False]
    assert old not in token.read_text()
    assert sidecar.is_running


async def test_without_the_right_certificate_or_over_plaintext_nothing_is_sent(trusted, tmp_path):
    await trusted.start_hub()
    secret = (trusted.data / "admin.token").read_text().strip()
    base = {"AGENTCOM_TOKEN": secret, "AGENTCOM_CA_FILE": str(trusted.tls / "ca.crt")}
    bare = await trusted.start("bare", ["cli", "hub", "status", "--hub", trusted.address], **base)
    assert await bare.wait() == 5
    clear = await trusted.start("clear", ["cli", "hub", "status", "--hub", f"192.0.2.1:{trusted.port}"], **base)
    assert await clear.wait() == 2
    assert "without TLS" in clear.said() and secret not in clear.said()
    enrol = ["cli", "agent", "enroll", "x", "--hub", "192.0.2.1:1"]
    key = await trusted.start("key", enrol, AGENTCOM_JOIN_KEY="act_" + "k" * 43)
    assert await key.wait() == 2
    assert "a join key is not sent" in key.said()
    half = await trusted.start(
        "half",
        ["cli", "hub", "status", "--hub", trusted.address, "--key-file", str(trusted.tls / "person.key")],
        **base,
    )
    assert await half.wait() == 2
    assert "--certificate-file" in half.said()
