"""`python -m sidecar preflight`: what this machine lacks before a sidecar may take work, found by really trying.

The self-test of a sidecar, and what it cannot know: whether the hub answers, and whether repositories can be fetched
and pushed to with the credentials that git finds here. It works in a folder of its own beside the work folder, so that
it never meets a sidecar that works there.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import grpc
import msgspec

from agentcom.v1 import hub_pb2, hub_service_pb2, hub_service_pb2_grpc
from kit import channel, clock, errors, logs, status
from sidecar import config
from sidecar.child.process import Launcher
from sidecar.child.sandbox import PROBE as SANDBOX
from sidecar.core import cut, fault
from sidecar.core.selftest import Finding
from sidecar.hands.attempt import Tools
from sidecar.hands.runner import executors_of
from sidecar.hands.selftest import Probes
from sidecar.repo.git import Git
from sidecar.repo.prepare import Workspaces
from sidecar.settings import RunnerSettings

CALL_TIMEOUT_S = 10.0
# A remote that takes longer to say what it has is of no use to work that fetches all the time.
REMOTE_TIMEOUT_S = 60.0
MESSAGE_CHARS_MAX = 1000
EXIT_GOOD = 0
EXIT_FAILED = 1

Verdict = Literal["ok", "warning", "failed"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    #: "git", "identity", "disk", "clock", "sandbox", "executor:shell", "hub", "repo:notes".
    check: str
    verdict: Verdict
    #: What was found, and what to do when it is not well.
    message: str


def main(words: Sequence[str]) -> int:
    """Run the command line; returns the exit code: 1 when something fails, 0 when it works or only warns."""
    chosen = _parser().parse_args(words)
    settings = config.load(
        chosen.config,
        overrides={
            "hub.address": chosen.hub,
            "agent": chosen.agent,
            "state_dir": chosen.state_dir,
            "executors": None if chosen.executors is None else [e for e in chosen.executors.split(",") if e],
        },
    )
    # Findings are what is told here; the log would tell the same a second time.
    logs.configure(level="error", form=settings.log.form)
    checks = asyncio.run(run(settings, [(name, url, branch) for name, url, branch in chosen.repo or ()]))
    if chosen.json:
        sys.stdout.write(msgspec.json.encode(checks).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{each.check:<16} {each.verdict:<8} {each.message}\n" for each in checks))
    return EXIT_FAILED if any(each.verdict == "failed" for each in checks) else EXIT_GOOD


async def run(settings: config.Settings, repos: Sequence[tuple[str, str, str]] = ()) -> list[Check]:
    """Look at everything; `repos` are (name, address, branch). Raises Unavailable when there is no place to try in."""
    hands = settings.runner()
    try:
        hands.work_dir.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(prefix="preflight-", dir=hands.work_dir.parent))
    except OSError as error:
        raise errors.Unavailable(f"{hands.work_dir.parent} cannot be written to: {error.strerror}") from error
    try:
        return await _machine(replace(hands, work_dir=folder), settings.agent or "preflight", repos) + [
            await _hub(settings)
        ]
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _machine(hands: RunnerSettings, agent: str, repos: Sequence[tuple[str, str, str]]) -> list[Check]:
    time = clock.SystemClock()
    launcher = Launcher(time, f"preflight-{uuid.uuid4().hex[:16]}")
    git = Git(
        launcher,
        agent=agent,
        timeout_s=hands.git_timeout_s,
        network_timeout_s=REMOTE_TIMEOUT_S,
        work_dir=hands.work_dir,
    )
    try:
        await launcher.start_guard()
        tools = Tools(
            settings=hands,
            clock=time,
            launcher=launcher,
            workspaces=Workspaces(git, hands, agent),
            executors=executors_of(hands, launcher),
            agent=agent,
        )
        await tools.workspaces.confinement.start()
        confined = tools.workspaces.confinement.is_on
        found = [_of(finding, confined=confined) for finding in (await Probes(tools).run()).findings]
        found.insert(1, await _identity(git))
        return found + [await _repo(git, hands.work_dir, *repo) for repo in repos]
    except fault.Fault as error:
        return [Check(check="executors", verdict="failed", message=error.message)]
    finally:
        await asyncio.to_thread(launcher.close)


def _of(finding: Finding, *, confined: bool) -> Check:
    if not finding.passed:
        return Check(check=finding.probe, verdict="failed", message=finding.message)
    # Work is possible without a sandbox, but somebody should have decided so.
    bare = finding.probe == SANDBOX and not confined
    return Check(check=finding.probe, verdict="warning" if bare else "ok", message=finding.message)


async def _identity(git: Git) -> Check:
    """In whose name it commits."""
    try:
        invented = await git.identity()
        name, email = await git.who()
    except (fault.Fault, OSError) as error:
        return Check(check="identity", verdict="failed", message=_line(error))
    who = f"commits are made by {name} <{email}>"
    if not invented:
        return Check(check="identity", verdict="ok", message=who)
    advice = "git has no identity here; another one: git config --global user.name, user.email"
    return Check(check="identity", verdict="warning", message=f"{who}, because {advice}")


async def _repo(git: Git, folder: Path, name: str, url: str, branch: str) -> Check:
    """Can its branch be fetched, and would a push of ours be let in?"""
    check = f"repo:{name}"
    tree = folder / f"push-{uuid.uuid4().hex[:8]}"
    try:
        listed = await git.run("ls-remote", "--", url, f"refs/heads/{branch}", cwd=folder, action="fetch", network=True)
        if not listed.line:
            return Check(check=check, verdict="failed", message=f"{url} answers and has no branch {branch}")
        tree.mkdir()
        await git.run("init", "--quiet", "--template=", ".", cwd=tree)
        await git.run("commit", "--quiet", "--no-verify", "--allow-empty", "-m", "preflight", cwd=tree)
        await git.run(
            *("push", "--quiet", "--dry-run", "--", url, f"HEAD:refs/heads/agentcom/preflight/{tree.name}"),
            cwd=tree, action="push", network=True,
        )  # fmt: skip
    except (fault.Fault, OSError) as error:
        advice = "git must reach it here without asking: an ssh key that is loaded, or a credential helper"
        return Check(check=check, verdict="failed", message=f"{_line(error)}; {advice}")
    return Check(check=check, verdict="ok", message=f"{branch} can be fetched, a push would be let in")


async def _hub(settings: config.Settings) -> Check:
    """Does it answer, by a way that a token may take, and does it know ours?"""
    address = channel.parse_address(settings.hub.address, field="hub.address")
    token = _token(settings)
    try:
        channel.keep_secret(address, "a token", plaintext=settings.hub.plaintext)
        wire = channel.open_channel(address, settings.tls())
    except errors.Invalid as problem:
        return Check(check="hub", verdict="failed", message=problem.message)
    try:
        metadata = channel.token_metadata(token, address, plaintext=settings.hub.plaintext)
        ask = hub_service_pb2.GetHubRequest()
        stub: hub_service_pb2_grpc.HubServiceAsyncStub = hub_service_pb2_grpc.HubServiceStub(wire)
        reply = await stub.GetHub(ask, timeout=CALL_TIMEOUT_S, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return _refused(settings.hub.address, status.from_rpc_error(error), shown=bool(token))
    finally:
        await wire.close()
    state = hub_pb2.Hub.State.Name(reply.hub.state).removeprefix("STATE_").lower()
    message = f"{settings.hub.address} answers, version {reply.hub.version}, {state}"
    return Check(
        check="hub", verdict="ok" if reply.hub.state == hub_pb2.Hub.STATE_SERVING else "warning", message=message
    )


def _refused(address: str, problem: errors.Problem, *, shown: bool) -> Check:
    if isinstance(problem, errors.Unauthenticated) and not shown:
        return Check(check="hub", verdict="ok", message=f"{address} answers and asks for a token")
    if isinstance(problem, errors.Unauthenticated):
        advice = "its token is void here: agentcom agent add NAME --rejoin gives it a new one"
        return Check(check="hub", verdict="failed", message=f"{address}: {problem.message}; {advice}")
    advice = "is the address right, is the hub up, does it use TLS (grpcs://), is its authority known (ca_file)?"
    return Check(check="hub", verdict="failed", message=f"{address}: {_line(problem)}; {advice}")


def _token(settings: config.Settings) -> str:
    try:
        return settings.token()
    except errors.Invalid:
        return ""  # it comes with the enrolment


def _line(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename or error}: install it"
    return cut.line(str(error), MESSAGE_CHARS_MAX)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentcom-sidecar preflight", description="Says what this machine lacks before a sidecar may take work."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the sidecar's TOML file")
    parser.add_argument("--hub", metavar="ADDR", help="host:port, grpcs:// for TLS")
    parser.add_argument("--agent", metavar="ID", help="the agent's id")
    parser.add_argument("--state-dir", metavar="DIR", help="where its state would be")
    parser.add_argument("--executors", metavar="NAMES", help="comma-separated")
    parser.add_argument(
        "--repo", nargs=3, action="append", metavar=("NAME", "URL", "BRANCH"), help="try this repository; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list, for scripts")
    return parser
