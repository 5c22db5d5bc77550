"""The git binary, with a deadline on every call and every failure read for whose fault it is.

Our own calls run no hooks of any repository, start no background maintenance, follow no submodules, sign nothing and
ask nothing. Of the machine owner's configuration they see how to reach and prove themselves to a remote, and who
commits; no filter, no driver, no alias of it: a repository would choose by its `.gitattributes` when those run, and on
what. Secrets are never in an address, in an argument or in the environment of an agent: the machine's own
credential helpers and ssh agent serve them to git alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sidecar.child import environment, process
from sidecar.core import fault, git_fault
from sidecar.core.meter import NOBODY, Meter

# Listings and shas; a diff asks for what it keeps.
STDOUT_BYTES_MAX = 4 * 1024 * 1024

# git would run `git status` inside each submodule, under that one's configuration.
NO_SUBMODULES = ("--ignore-submodules=all",)

_OVERRIDES = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    # Larger files are streamed, and told of without their text: a diff of one must not fill the memory.
    "core.bigFileThreshold=16m",
    "core.quotePath=false",
    "core.pager=cat",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "push.followTags=false",
    "protocol.ext.allow=never",
    "credential.interactive=false",
    "rerere.enabled=false",
    "advice.detachedHead=false",
    "merge.renames=true",
)


# What our own commands take over of the owner's configuration.
_OWNERS_SECTIONS = frozenset({"credential", "http", "https", "url", "ssh", "user", "author", "committer", "safe"})
_OWNERS_KEYS = frozenset({"core.sshcommand", "core.askpass", "core.gitproxy"})
# The environment of a process has a bound; nobody's settings for reaching remotes come near this.
OWNERS_COUNT_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one git command answered."""

    exit_code: int
    stdout: str
    stderr: str
    content: bytes
    #: Of all of stdout, before any cut.
    size_bytes: int

    @property
    def line(self) -> str:
        """Its one line."""
        return self.stdout.strip()


class Git:
    """Runs git in the name of one agent."""

    def __init__(
        self,
        launcher: process.Launcher,
        *,
        agent: str,
        timeout_s: float,
        network_timeout_s: float,
        work_dir: Path,
        meter: Meter = NOBODY,
    ) -> None:
        self._launcher = launcher
        self._agent = agent
        self._timeout_s = timeout_s
        self._network_timeout_s = network_timeout_s
        self._work_dir = work_dir
        self._meter = meter
        self._environment = environment.for_git()
        self._identity: dict[str, str] | None = None
        self._who = ("", "")
        self._owners: dict[str, str] | None = None

    @property
    def launcher(self) -> process.Launcher:
        """What its commands are started with."""
        return self._launcher

    async def run(
        self,
        *arguments: str,
        cwd: Path,
        action: str = "",
        network: bool = False,
        stop: process.StopOrder | None = None,
        timeout_s: float | None = None,
        accept: tuple[int, ...] = (0,),
        stdout_bytes_max: int = STDOUT_BYTES_MAX,
        stdin: Path | None = None,
    ) -> Said:
        """One command. Raises Fault when its exit code is not in `accept`, Stopped when `stop` came first.

        `action` is what a person reads when it fails; it begins with "push" where a refused push must be told apart.
        """
        action = action or f"git {arguments[0]}"
        bound_s = timeout_s or (self._network_timeout_s if network else self._timeout_s)
        ended = await self._launcher.run(
            process.Order(
                argv=("git", *(part for setting in _OVERRIDES for part in ("-c", setting)), *arguments),
                cwd=cwd,
                environment={**await self._variables(), **await self.identity()},
                timeout_s=bound_s,
                stop=stop,
                kill_grace_s=1.0,
                head_bytes_max=stdout_bytes_max,
                tail_bytes_max=0,
                separate_stderr=True,
                kill_leftovers=False,
                stdin=stdin,
            )
        )
        if ended.cause == "stopped":
            raise fault.Stopped(getattr(stop, "reason", "STOPPED"))
        self._meter.git(arguments[0], ended.duration_s, good=ended.cause == "exited" and ended.exit_code in accept)
        if ended.cause != "exited":
            raise fault.Fault(
                f"{action}: took longer than {bound_s:g} s",
                reason="GIT_TIMEOUT",
                attribution="environment" if network else "agent",
                evidence=git_fault.redact(ended.errors.text),
            )
        if ended.exit_code not in accept:
            raise git_fault.of(action, ended.errors.text)
        content = ended.output.content[:stdout_bytes_max]
        return Said(
            exit_code=ended.exit_code,
            stdout=content.decode(errors="replace"),
            stderr=ended.errors.text,
            content=content,
            size_bytes=ended.output.size_bytes,
        )

    async def identity(self) -> dict[str, str]:
        """Who commits, as environment variables; empty when the machine's owner has set that up."""
        if self._identity is None:
            found = [await self._setting("user.name"), await self._setting("user.email")]
            name, email = f"agentcom {self._agent}", f"{self._agent}@agentcom.invalid"
            self._who = (found[0] or name, found[1] or email)
            self._identity = (
                {}
                if found[1]
                else {
                    "GIT_AUTHOR_NAME": name,
                    "GIT_AUTHOR_EMAIL": email,
                    "GIT_COMMITTER_NAME": name,
                    "GIT_COMMITTER_EMAIL": email,
                }
            )
        return self._identity

    async def who(self) -> tuple[str, str]:
        """The name and the address that commits are made with."""
        await self.identity()
        return self._who

    async def _setting(self, key: str) -> str:
        ended = await self._query("config", "--get", key)
        return ended.output.text.strip() if ended.succeeded else ""

    async def _variables(self) -> dict[str, str]:
        """The environment of our commands, with what they take over of the owner's configuration."""
        if self._owners is None:
            settings: list[tuple[str, str]] = []
            for scope in ("--system", "--global"):
                ended = await self._query("config", "--includes", scope, "--list", "-z")
                if ended.succeeded:
                    settings += _settings(ended.output.text)
            taken = [pair for pair in settings if _is_taken_over(pair[0])][:OWNERS_COUNT_MAX]
            self._owners = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
            # In the environment and not in a file: a header with a token must not lie about in a copy.
            self._owners["GIT_CONFIG_COUNT"] = str(len(taken))
            for number, (key, value) in enumerate(taken):
                self._owners[f"GIT_CONFIG_KEY_{number}"] = key
                self._owners[f"GIT_CONFIG_VALUE_{number}"] = value
        return {**self._environment, **self._owners}

    async def _query(self, *arguments: str) -> process.Ended:
        """A question about the owner's configuration, which a command of ours would not see."""
        return await self._launcher.run(
            process.Order(
                argv=("git", *arguments),
                cwd=self._work_dir,
                environment=self._environment,
                timeout_s=self._timeout_s,
                separate_stderr=True,
                kill_leftovers=False,
            )
        )

    async def sha(self, revision: str, *, cwd: Path) -> str:
        """The commit that `revision` names; empty when there is none."""
        said = await self.run("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", cwd=cwd, accept=(0, 1, 128))
        return said.line if said.exit_code == 0 else ""

    async def tree(self, revision: str, *, cwd: Path) -> str:
        """The tree of a commit."""
        return (await self.run("rev-parse", "--verify", f"{revision}^{{tree}}", cwd=cwd)).line

    async def is_ancestor(self, older: str, newer: str, *, cwd: Path) -> bool:
        """Is `older` part of the history of `newer`? False when one of them is unknown here."""
        said = await self.run("merge-base", "--is-ancestor", older, newer, cwd=cwd, accept=(0, 1, 128))
        return said.exit_code == 0

    async def is_dirty(self, *, cwd: Path) -> bool:
        """Is anything changed or new (and not ignored) in the working tree?"""
        said = await self.run("status", "--porcelain=v1", "--untracked-files=normal", *NO_SUBMODULES, cwd=cwd)
        return bool(said.stdout)


def _settings(text: str) -> list[tuple[str, str]]:
    """The pairs of `git config --list -z`; a key without a value means true."""
    pairs = (entry.partition("\n") for entry in text.split("\0") if entry)
    return [(key, value if newline else "true") for key, newline, value in pairs]


def _is_taken_over(key: str) -> bool:
    return key.partition(".")[0].lower() in _OWNERS_SECTIONS or key.lower() in _OWNERS_KEYS
