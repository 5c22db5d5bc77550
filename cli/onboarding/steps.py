"""The steps of `agent add`: each may be taken twice, and is written down when it is done."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from agentcom.v1 import agent_service_pb2, hub_pb2, hub_service_pb2
from cli import command, session, words
from cli.onboarding import preflight as agent_preflight
from cli.onboarding import service, sidecar_config
from cli.onboarding import trial as agent_trial
from cli.onboarding.folder import STEPS, AgentFolder, Record, Step
from cli.onboarding.preflight import Row
from cli.session import Session
from kit import channel, errors

# Looked at again by each run, for they may have ended since: a service that was stopped is started by --resume.
AGAIN: frozenset[Step] = frozenset({"start", "idle"})
# Deadlines are the hub's, but logs of two machines are read side by side.
CLOCK_S_MAX = 60.0
MAY_FILE = frozenset({hub_pb2.SCOPE_ADMIN, hub_pb2.SCOPE_OPERATOR, hub_pb2.SCOPE_SUBMITTER})
MAY_ENROL = frozenset({hub_pb2.SCOPE_ADMIN, hub_pb2.SCOPE_OPERATOR})


class Later(Exception):
    """A step that this caller cannot take; the set-up is good without it."""


class Steps:
    """One run of `agent add`."""

    def __init__(self, session: Session, folder: AgentFolder, record: Record, join_key_file: Path | None) -> None:
        self._session = session
        self._folder = folder
        self._record = record
        self._join_key_file = join_key_file
        self._service = service.of(record.service, folder)
        self._rows: list[Row] = []
        self._actions: dict[Step, Callable[[], Awaitable[str]]] = {
            "configure": self._configure,
            "preflight": self._preflight,
            "enrol": self._enrol,
            "install": self._install,
            "start": self._start,
            "idle": self._idle,
            "test": self._test,
        }

    async def to_the_end(self) -> None:
        """Take every step that is not done, and show what came of it. Raises the problem of the one that fails."""
        for step in STEPS:
            if step in self._record.done and step not in AGAIN:
                self._rows.append(Row(step, "ok", "done before"))
                continue
            self._say(step)
            try:
                found = await self._actions[step]()
            except Later as later:
                self._rows.append(Row(step, "skipped", str(later)))
                continue
            except errors.Problem as problem:
                self._rows.append(Row(step, "failed", problem.message))
                self._show()
                self._hint()
                raise
            self._rows.append(Row(step, "ok", found))
            self._keep(self._record.after(step))
        self._show()

    # The steps

    async def _configure(self) -> str:
        options, folder, asked = self._session.options, self._folder, self._record.asked
        wanted = sidecar_config.Wanted(
            agent=folder.name,
            address=options.address,
            state_dir=folder.state,
            work_dir=folder.work,
            token_file=folder.token,
            ca_file=options.files.ca,
            certificate_file=options.files.certificate,
            key_file=options.files.key,
            plaintext=options.plaintext,
            display_name=asked.display_name,
            slots=asked.slots,
            executors=asked.executors,
            capabilities=asked.capabilities,
            sandbox=asked.sandbox,
        )
        folder.replace(folder.config, sidecar_config.text(wanted).encode())
        return str(folder.config)

    async def _preflight(self) -> str:
        repos = [repo for name in self._record.repos if (repo := await self._repo(name)) is not None]
        arguments = ["--config", str(self._folder.config)]
        environment = await asyncio.to_thread(self._service.environment)
        found = await agent_preflight.run(arguments, repos, environment, cwd=self._folder.path)
        self._rows += [Row(f"  {check.check}", check.verdict, check.message) for check in found]
        failed = [check.check for check in found if check.verdict == "failed"]
        if failed:
            raise errors.IllegalState(f"the machine is not ready: {', '.join(failed)}", state="unready")
        return f"{len(found)} checks"

    async def _repo(self, name: str) -> agent_preflight.Repo | None:
        """Where a repo is; None when we may not ask (who has only a join key). The test task will show it."""
        try:
            return await agent_preflight.find_repo(self._session, name)
        except (errors.Unauthenticated, errors.Forbidden):
            return None

    async def _enrol(self) -> str:
        if self._record.rejoin:
            return await self._rotate()
        folder, key = self._folder, self._key()
        ask = agent_service_pb2.EnrollAgentRequest(
            agent_id=folder.name,
            join_key=key,
            display_name=self._record.asked.display_name,
            request_id=self._record.request_id,
        )
        try:
            reply = await self._session.call(self._session.agents.EnrollAgent, ask)
        except errors.AlreadyExists as problem:
            if self._record.invented:
                await asyncio.to_thread(folder.clear, purge=True)
            raise errors.AlreadyExists(
                f"{problem.message}: choose another name, or take it over with --rejoin"
            ) from problem
        folder.replace(folder.token, f"{reply.token}\n".encode())
        await self._send_away()
        away_s = abs(time.time() - reply.agent.create_time.ToNanoseconds() / 1e9)
        # Only the first answer bears the time of now; an enrolment that was answered before is older.
        ours = f"; this machine's clock is {away_s:.0f} s away from the hub's" if away_s > CLOCK_S_MAX else ""
        return f"{reply.agent.name}, token in {folder.token}{ours}"

    async def _rotate(self) -> str:
        ask = agent_service_pb2.RotateAgentTokenRequest(name=words.full_name("agents", self._folder.name))
        reply = await self._session.call(self._session.agents.RotateAgentToken, ask, again=False)
        self._folder.replace(self._folder.token, f"{reply.token}\n".encode())
        back = agent_service_pb2.ResumeAgentRequest(name=ask.name)
        await self._session.call(self._session.agents.ResumeAgent, back, again=False)
        await self._send_away()
        return f"new token in {self._folder.token}"

    async def _send_away(self) -> None:
        """A sidecar that runs here has lost its hub for good: the token that it was started with is void."""
        await asyncio.to_thread(self._service.stop, hurry=True)

    def _key(self) -> str:
        file = self._join_key_file
        if file is None:
            return ""
        address = channel.parse_address(self._session.options.address, field="--hub")
        channel.keep_secret(address, "a join key", plaintext=self._session.options.plaintext)
        return command.secret_in(file, "--join-key-file")

    async def _install(self) -> str:
        return await asyncio.to_thread(self._service.install)

    async def _start(self) -> str:
        return await asyncio.to_thread(self._service.start)

    async def _idle(self) -> str:
        return await self._asking(lambda asker: agent_trial.until_ready(asker, self._folder.name, self._service))

    async def _asking(self, work: Callable[[Session], Awaitable[str]]) -> str:
        """With our own token where it may look, else with the agent's."""
        try:
            return await work(self._session)
        except (errors.Unauthenticated, errors.Forbidden):
            token = command.secret_in(self._folder.token, "token")
            return await session.run(dataclasses.replace(self._session.options, token=token), work)

    async def _test(self) -> str:
        try:
            ask = hub_service_pb2.GetCallerRequest()
            scope = (await self._session.call(self._session.hub.GetCaller, ask)).scope
        except (errors.Unauthenticated, errors.Forbidden):
            scope = hub_pb2.SCOPE_JOIN
        again = f"agentcom agent add {self._folder.name} --resume"
        if scope not in MAY_FILE:
            raise Later(f"it takes a token that may file tasks: {again} with one does it")
        hub = (await self._session.call(self._session.hub.GetHub, hub_service_pb2.GetHubRequest())).hub
        if hub.state != hub_pb2.Hub.STATE_SERVING:
            state = words.enum_word(hub_pb2.Hub.State, hub.state, "STATE_")
            raise Later(f"the hub is {state} and assigns nothing; when it serves again: {again}")
        trial = agent_trial.Trial(self._record.trial_id, self._record.trial_begun_at)
        if trial.is_stale(time.time()):
            trial = agent_trial.Trial(str(uuid.uuid4()), int(time.time()))
            self._keep(msgspec.structs.replace(self._record, trial_id=trial.id, trial_begun_at=trial.begun_at))
        try:
            ran = [
                await agent_trial.run(self._session, self._folder.name, trial, repo)
                for repo in ("", *self._record.repos)
            ]
        except errors.IllegalState:
            # It has ended badly: the next try is a new one.
            self._keep(msgspec.structs.replace(self._record, trial_begun_at=0))
            raise
        return "; ".join(ran)

    # Telling

    def _keep(self, record: Record) -> None:
        self._record = record
        self._folder.write(record)

    def _say(self, step: Step) -> None:
        if not self._session.output.is_json:
            print(f"{self._folder.name}: {step} ...", file=sys.stderr, flush=True)

    def _hint(self) -> None:
        name = self._folder.name
        if self._folder.read() is not None:
            hint = f"agentcom agent add {name} --resume goes on from here, agentcom agent remove {name} takes it away"
            print(f"hint: {hint}", file=sys.stderr)

    def _show(self) -> None:
        out = self._session.output
        if out.is_json:
            steps = [{"step": row.what.strip(), "verdict": row.verdict, "message": row.message} for row in self._rows]
            shown = {"agent": f"agents/{self._folder.name}", "folder": str(self._folder.path), "steps": steps}
            print(json.dumps(shown, indent=2, ensure_ascii=False), flush=True)
        else:
            out.show(agent_preflight.table("STEP", self._rows))


async def may_add(session: Session, *, has_key: bool, rejoin: bool) -> None:
    """Raise Forbidden or Unauthenticated before anything is made, when the caller may not add an agent."""
    if has_key and not rejoin:
        return
    caller = await session.call(session.hub.GetCaller, hub_service_pb2.GetCallerRequest())
    if caller.scope not in MAY_ENROL:
        scope = words.enum_word(hub_pb2.Scope, caller.scope, "SCOPE_")
        raise errors.Forbidden(
            f"a token of the scope {scope} cannot add an agent: use an operator's, or a join key (--join-key-file)"
        )


async def is_taken(session: Session, name: str) -> bool:
    """Has the hub an agent of that name? False when we may not ask: the enrolment will say."""
    try:
        await agent_trial.get(session, name)
    except errors.NotFound:
        return False
    except (errors.Unauthenticated, errors.Forbidden):
        return False
    return True
