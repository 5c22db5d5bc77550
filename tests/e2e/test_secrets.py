"""Secrets stay where they belong: canaries are planted in every place where a secret may be, and looked for in every
place where none may be.

Planted: every kind of token (good, void, expired, unknown, used as the wrong thing), a join key, passwords in
addresses of repositories and in the git configuration of the sidecar's owner, variables of the sidecar, and refused
requests with a secret in the wrong field. Looked for: logs at debug level, the event log, error details, answers of
every Get and List, the files of the store and of the sidecar, command lines and environments of children.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import duration_pb2, message_factory

from agentcom.v1 import (
    agent_service_pb2,
    goal_service_pb2,
    hub_pb2,
    hub_service_pb2,
    registry_service_pb2,
    repo_pb2,
    task_pb2,
    task_service_pb2,
)
from hub import app
from kit import status, tokens
from tests.support.fleet import Fleet, appears, spec
from tests.support.gitrepo import Origin
from tests.support.processes import Process, until

CLI = [sys.executable, "-m", "cli"]
LOOSE = {"limits_local": "false", "log_level": "debug"}


class Canaries:
    """Secrets by what they are."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}

    def plant(self, what: str, secret: str = "") -> str:
        self.all[what] = secret or tokens.new_token()
        return self.all[what]

    def found(self, where: str, data: bytes | str) -> list[str]:
        text = data if isinstance(data, bytes) else data.encode()
        return [f"{what} in {where}" for what, secret in self.all.items() if secret.encode() in text]


async def made(fleet: Fleet, scope: Any, **options: Any) -> tuple[str, str]:
    reply = await fleet.hubs.CreateToken(hub_service_pb2.CreateTokenRequest(scope=scope, **options))
    return reply.token.name, reply.secret


async def told(call: Any) -> str:
    """Everything that a refused call is told."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        problem = status.from_rpc_error(error)
        return f"{error.details()} {problem.metadata} {error.trailing_metadata()} {problem}"
    return str(answer)


async def refusals(fleet: Fleet, canaries: Canaries) -> list[str]:
    """What is told to callers whose requests carry a secret in the wrong place, and to those whose token is void."""
    plant, heard = canaries.plant, list[str]()
    get = hub_service_pb2.GetHubRequest()
    for header in ("Bearer {}", "Basic {}", "{}", "bearer  {}", "Bearer {} x", "Bearer act_{}"):
        secret = plant(f"the header {header}")
        heard.append(await told(fleet.hubs.GetHub(get, metadata=(("authorization", header.format(secret)),))))
    name, void = await made(fleet, hub_pb2.SCOPE_VIEWER)
    await fleet.hubs.RevokeToken(hub_service_pb2.RevokeTokenRequest(name=name))
    _, short = await made(fleet, hub_pb2.SCOPE_VIEWER, ttl=duration_pb2.Duration(seconds=1))
    for what, secret in (("void", void), ("short", short)):
        canaries.plant(what, secret)
        stats = hub_service_pb2.CreateTokenRequest(scope=hub_pb2.SCOPE_ADMIN)
        heard.append(await told(fleet.hubs.CreateToken(stats, metadata=(("authorization", f"Bearer {secret}"),))))
    secret = plant("a password in the address of a repo", "pw-0123456789abcdef")
    for url in (f"https://user:{secret}@127.0.0.1:1/x.git", f"ssh://u:{secret}@h/x", f"ext::sh -c {secret}"):
        ask = registry_service_pb2.CreateRepoRequest(repo_id="x", repo=repo_pb2.Repo(url=url))
        heard.append(await told(fleet.registry.CreateRepo(ask)))
    secret = plant("a token in the address of a repo")
    ask = registry_service_pb2.CreateRepoRequest(repo_id="x", repo=repo_pb2.Repo(url=f"https://h/x?t={secret}"))
    heard.append(await told(fleet.registry.CreateRepo(ask)))
    secret = plant("a token where a name belongs")
    calls = [
        fleet.hubs.RevokeToken(hub_service_pb2.RevokeTokenRequest(name=f"tokens/{secret}")),
        fleet.hubs.RevokeToken(hub_service_pb2.RevokeTokenRequest(name=secret)),
        fleet.hubs.ForgiveViolator(hub_service_pb2.ForgiveViolatorRequest(principal=secret)),
        fleet.tasks.GetTask(task_service_pb2.GetTaskRequest(name=secret)),
        fleet.tasks.ListTasks(task_service_pb2.ListTasksRequest(filter=f"state={secret}")),
        fleet.tasks.ListTasks(task_service_pb2.ListTasksRequest(filter=secret)),
        fleet.tasks.ListTasks(task_service_pb2.ListTasksRequest(page_token=secret)),
        fleet.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(join_key=secret)),
        fleet.agents.EnrollAgent(agent_service_pb2.EnrollAgentRequest(agent_id=secret)),
        fleet.goals.GetGoal(goal_service_pb2.GetGoalRequest(name=secret)),
    ]
    heard += [await told(call) for call in calls]
    return heard


async def answers(fleet: Fleet) -> Iterator[str]:
    """What every List tells, and every Get of what there is."""
    found = []
    for service in app.SERVICES:
        for method in service.methods:
            if method.name.startswith("List") or method.name in ("GetHub", "GetStats"):
                call: Any = fleet.channel.unary_unary(
                    f"/{service.full_name}/{method.name}",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
                )
                found.append(await told(call(message_factory.GetMessageClass(method.input_type)(), timeout=20)))
    return iter(found)


def files(folder: Path, *left_out: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path not in left_out:
            yield str(path.relative_to(folder)), path.read_bytes()


async def command(fleet: Fleet, name: str, *words: str, **variables: str) -> tuple[int, str]:
    """Run the CLI as a person does; its exit code and everything that it printed."""
    log = fleet.root / f"cli-{name}.out"
    process = await Process.start(
        name, [*CLI, *words], log=log, environment={"AGENTCOM_HUB_ADDRESS": fleet.address, **variables}
    )
    return await process.wait(), log.read_text()


async def test_no_secret_is_found_where_none_may_be(fleet: Fleet, origin: Origin, tmp_path: Path, monkeypatch: Any):
    canaries = Canaries()
    git_secret = canaries.plant("a password in the owner's git configuration", "gitpw-0123456789abcdef")
    configuration = tmp_path / "gitconfig"
    configuration.write_text(f'[url "http://user:{git_secret}@127.0.0.1:1/"]\n\tinsteadOf = https://forge.invalid/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    await fleet.start_hub(**LOOSE)
    admin_file = fleet.data / "admin.token"
    canaries.plant("the admin token", admin_file.read_text().strip())
    _, key = await made(fleet, hub_pb2.SCOPE_JOIN)
    canaries.plant("the join key", key)
    canaries.plant("a variable of the sidecar", "variable-0123456789abcdef")
    monkeypatch.setenv("FORGE_PASSWORD", canaries.all["a variable of the sidecar"])
    key_file = tmp_path / "join.key"
    key_file.write_text(key)
    await fleet.start_sidecar("ada", slots=2, log_level="debug", hub_join_key=key, repair_round_count_max=0)
    identity = fleet.root / "ada" / "identity.json"
    await until(lambda: identity.exists() and b"act_" in identity.read_bytes(), "the sidecar is enrolled")
    token = identity.read_text().partition("act_")[2][:43]
    canaries.plant("the agent's token", f"act_{token}")
    heard = await refusals(fleet, canaries)

    # Work that looks around, and work whose repository needs the owner's password.
    seen = tmp_path / "seen"
    look = (
        f"env > {seen}.env; cat /proc/self/environ /proc/$PPID/cmdline > {seen}.proc; cat /proc/[0-9]*/cmdline "
        f"2>/dev/null > {seen}.all; env; echo 1 > one.txt; touch {seen}.done"
    )
    repo = await fleet.add_repo("demo", origin.path, checks=[task_pb2.Check(id="readme", run="test -s README.md")])
    ask = registry_service_pb2.CreateRepoRequest(repo_id="forge", repo=repo_pb2.Repo(url="https://forge.invalid/x.git"))
    forge = (await fleet.registry.CreateRepo(ask)).repo.name
    (work,) = await fleet.submit(spec("look around", look, repo=repo, delivery=task_pb2.DELIVERY_BRANCH))
    (stuck,) = await fleet.submit(spec("cannot be fetched", "true", repo=forge, delivery=task_pb2.DELIVERY_BRANCH))
    await appears(Path(f"{seen}.done"))
    await fleet.until_tasks([work])
    await fleet.until_tasks([stuck], task_pb2.Task.STATE_PARKED)

    # The command line, given a token in each way that is not an argument.
    token_file = tmp_path / "token"
    token_file.write_text(canaries.all["the admin token"])
    outputs = [
        await command(fleet, "file", "--token-file", str(token_file), "token", "list"),
        await command(fleet, "variable", "token", "list", AGENTCOM_TOKEN=canaries.all["the admin token"]),
        await command(fleet, "void", "token", "list", AGENTCOM_TOKEN=canaries.all["void"]),
    ]
    assert [code for code, _ in outputs] == [0, 0, 6]

    wrong = [hit for text in heard for hit in canaries.found("an error", text)]
    wrong += [hit for text in await answers(fleet) for hit in canaries.found("an answer", text)]
    for name in (work, stuck):
        events = await fleet.tasks.ListTaskEvents(task_service_pb2.ListTaskEventsRequest(name=name))
        wrong += canaries.found("the history of a task", str(events) + str(await fleet.task(name)))
    wrong += canaries.found("the event log", str(await fleet.history()))
    wrong += [hit for _, text in outputs for hit in canaries.found("the output of a command", text)]
    for kind in ("env", "proc", "all"):
        wrong += canaries.found(f"what a child sees ({kind})", dict(files(tmp_path))[f"seen.{kind}"])
    await fleet.hubs.CreateBackup(hub_service_pb2.CreateBackupRequest())
    assert fleet.hub is not None
    await fleet.hub.stop()  # what is still in memory is written
    for name, data in files(fleet.root, admin_file, identity):
        wrong += canaries.found(name, data)
    assert not wrong, "\n".join(sorted(set(wrong)))
    for path in (admin_file, identity):
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} is for its owner only"
    stored = [name for name, data in files(fleet.data) if b"look around" in data]
    assert any("store" in name for name in stored), "the search sees what is stored"
    assert any("backup" in name for name in stored), "and what is backed up"
