"""`python -m sidecar git start-task|submit|status`: a task done by a person (or an agent) in a worktree of their own.

The same rules as for a sidecar's own work, in sidecar/hands/handwork.py: branch from the fetched main, a hook that
lets only the task's branch out, checks on the committed tree. Here is the hub's half: the claim, and the report of
what was pushed. A refused check reports nothing: the holding stays, mend it and submit again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import msgspec

from agentcom.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from kit import channel, clock, errors, ids, logs, status
from sidecar import config
from sidecar.core import fault
from sidecar.core.assignment import Done
from sidecar.hands.handwork import Handwork, Status
from sidecar.wire import state, translate

CALL_TIMEOUT_S = 30.0
CLAIM_FILE = "claim.json"
FOLDER = ".agentcom"
# The CLI's variables, so that `agentcom git` and `agentcom task` speak to the same hub as the same principal.
VARIABLES = {
    "hub.address": "AGENTCOM_HUB_ADDRESS",
    "hub.token": "AGENTCOM_TOKEN",
    "hub.token_file": "AGENTCOM_TOKEN_FILE",
    "hub.ca_file": "AGENTCOM_CA_FILE",
    "hub.certificate_file": "AGENTCOM_CERTIFICATE_FILE",
    "hub.key_file": "AGENTCOM_KEY_FILE",
}


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Where the task was claimed from, as whom, and with which folders: kept beside the holding, so that submit and
    status need no flags."""

    hub: str
    agent: str
    state_dir: str
    work_dir: str


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command needs."""

    chosen: argparse.Namespace
    settings: config.Settings
    agent: str
    hands: Handwork
    tasks: task_service_pb2_grpc.TaskServiceAsyncStub
    metadata: tuple[tuple[str, str], ...]


def main(words: Sequence[str]) -> int:
    """Run one command; returns the exit code: 0 done, 1 refused, 2 wrong usage. Raises a Problem."""
    chosen = _parser().parse_args(words)
    logs.configure(level="warning")
    return asyncio.run(_run(chosen, os.environ))


async def _run(chosen: argparse.Namespace, environment: Mapping[str, str]) -> int:
    known = None if chosen.command == "start-task" else _read_claim(chosen.dir)
    overrides: dict[str, object] = {key: environment[name] for key, name in VARIABLES.items() if environment.get(name)}
    if known is not None:
        overrides |= {"hub.address": known.hub, "state_dir": known.state_dir, "work_dir": known.work_dir}
    overrides.update(
        {key: value for key, value in (("hub.address", chosen.hub), ("state_dir", chosen.state_dir)) if value}
    )
    settings = config.load(chosen.config, environment=environment, overrides=overrides)
    kept = state.read_identity(settings.state_path)
    agent = chosen.agent or (known.agent if known is not None else "") or settings.agent or kept.agent
    if not agent:
        raise errors.Invalid.of("--agent", "is required: as whom is the task done?")
    token = settings.token() or (kept.token if kept.agent == agent else "")
    address = channel.parse_address(settings.hub.address, field="hub.address")
    metadata = channel.token_metadata(token, address, plaintext=settings.hub.plaintext)
    hands = Handwork(settings.runner(), clock.SystemClock(), random.Random(), agent)
    wire = channel.open_channel(address, settings.tls())
    try:
        stub: task_service_pb2_grpc.TaskServiceAsyncStub = task_service_pb2_grpc.TaskServiceStub(wire)
        command: Callable[[Desk], Awaitable[int]] = chosen.run
        return await command(Desk(chosen, settings, agent, hands, stub, metadata))
    finally:
        await wire.close()


async def _start_task(desk: Desk) -> int:
    text = desk.chosen.task
    task = ids.parse_name("tasks", text if "/" in text else f"tasks/{text}", field="TASK")
    path = (desk.chosen.dir or Path(task)).expanduser().resolve()
    request = task_service_pb2.ClaimTaskRequest(name=ids.name("tasks", task), agent=ids.name("agents", desk.agent))
    claimed = await _call(desk.tasks.ClaimTask, request, desk)
    try:
        made = await desk.hands.prepare(translate.claim(claimed), path)
        (made.tree / FOLDER / CLAIM_FILE).write_bytes(msgspec.json.encode(_claim(desk)))
    except (errors.Problem, OSError) as error:
        await _give_back(desk, claimed.holding, error)
        raise
    _show(desk, made)
    return 0


async def _submit(desk: Desk) -> int:
    path = _folder(desk)
    outcome = await desk.hands.submit(path)
    if not isinstance(outcome, Done):
        failure = outcome.failure
        sys.stderr.write(f"not submitted: {failure.reason}: {failure.message}\n")
        if failure.evidence:
            sys.stderr.write(f"{failure.evidence.rstrip()}\n")
        return 1
    held = desk.hands.load(path).task.holding
    request = task_service_pb2.ReportTaskRequest(
        holding=translate.to_holding(held), result=translate.to_result(outcome)
    )
    reported = await _call(desk.tasks.ReportTask, request, desk)
    name = task_pb2.Task.State.Name(reported.task.state).removeprefix("STATE_").lower()
    if desk.chosen.output == "json":
        _write({"task": reported.task.name, "state": name, "branch": outcome.branch, "head_sha": outcome.head_sha})
    else:
        sys.stdout.write(f"{reported.task.name} is {name}: {outcome.branch or 'no branch'} at {outcome.head_sha}\n")
    return 0


async def _status(desk: Desk) -> int:
    _show(desk, await desk.hands.status(_folder(desk)))
    return 0


async def _give_back(desk: Desk, holding: task_pb2.Holding, error: Exception) -> None:
    """Without a worktree the holding is of no use: let somebody else have the task."""
    if isinstance(error, fault.Fault):
        failure = translate.to_failure(error.failure)
    else:
        failure = task_pb2.Failure(
            reason="NOT_PREPARED", message=str(error)[:1000], attribution=task_pb2.ATTRIBUTION_AGENT
        )
    try:
        await _call(desk.tasks.ReportTask, task_service_pb2.ReportTaskRequest(holding=holding, failure=failure), desk)
    except errors.Problem as problem:
        sys.stderr.write(f"the task stays claimed until its lease ends: {problem.message}\n")


async def _call(method: Any, request: Any, desk: Desk) -> Any:
    try:
        return await method(request, timeout=CALL_TIMEOUT_S, metadata=desk.metadata)
    except grpc.aio.AioRpcError as error:
        raise status.from_rpc_error(error) from error


def _folder(desk: Desk) -> Path:
    return (desk.chosen.dir or Path()).expanduser().resolve()


def _claim(desk: Desk) -> Claim:
    settings = desk.settings
    return Claim(
        hub=settings.hub.address,
        agent=desk.agent,
        state_dir=str(settings.state_path),
        # The clone that the worktree belongs to, and the hook that guards it, are in there.
        work_dir=str(settings.runner().work_dir),
    )


def _read_claim(folder: Path | None) -> Claim | None:
    try:
        return msgspec.json.decode(((folder or Path()) / FOLDER / CLAIM_FILE).read_bytes(), type=Claim)
    except (OSError, msgspec.MsgspecError):
        return None


def _show(desk: Desk, shown: Status) -> None:
    if desk.chosen.output == "json":
        _write(msgspec.to_builtins(shown, enc_hook=str))
        return
    checks = ", ".join(f"{r.check} {r.verdict}" for r in shown.receipts) or "not run"
    if shown.receipts and not shown.receipts_are_current:
        checks += " (of an earlier commit)"
    rows = (
        ("task", f"tasks/{shown.holding.task} (generation {shown.holding.generation}): {shown.title}"),
        ("folder", str(shown.tree)),
        ("branch", shown.branch),
        ("base", shown.base_sha),
        ("head", f"{shown.head_sha} ({shown.ahead} ahead, {shown.behind} behind)"),
        ("tree", "changes that are not committed" if shown.dirty else "clean"),
        ("hook", "set" if shown.hook_is_set else "MISSING: a push from here is not guarded"),
        ("checks", checks),
    )
    sys.stdout.write("".join(f"{name:<7} {text}\n" for name, text in rows))


def _write(value: object) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentcom git", description="The enforced git workflow by hand: claim a task, work, check, push, report."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser("start-task", help="claim a queued task and make a worktree for it")
    start.add_argument("task", metavar="TASK", help="tasks/{id} or the id")
    start.set_defaults(run=_start_task)
    submit = commands.add_parser("submit", help="check the committed tree, push the branch, report the result")
    submit.set_defaults(run=_submit)
    shown = commands.add_parser("status", help="branch, base, checks and hook of the worktree")
    shown.set_defaults(run=_status)
    for command in (start, submit, shown):
        command.add_argument("--dir", type=Path, metavar="DIR", help="the worktree (default: here; start-task: ./{id})")
        command.add_argument("--config", type=Path, metavar="FILE", help="the sidecar's TOML file")
        command.add_argument("--hub", metavar="ADDR", help="host:port, grpcs:// for TLS")
        command.add_argument("--agent", metavar="ID", help="as whom (default: the agent of the state folder)")
        command.add_argument("--state-dir", metavar="DIR", help="the sidecar's state folder")
        command.add_argument("--output", choices=("text", "json"), default="text", help="for people or for scripts")
    return parser
