"""Whose fault a failed git command is, read from what git said (under LC_ALL=C)."""

from __future__ import annotations

import re

from sidecar.core import fault
from sidecar.core.assignment import Attribution


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# First match wins; the order matters: a refused key is often followed by "could not read from remote repository".
_TABLE: tuple[tuple[str, Attribution, re.Pattern[str]], ...] = (
    (
        "CREDENTIAL_REFUSED",
        "credential",
        _any(
            r"authentication failed|invalid username or password|bad credentials|invalid credentials|access denied",
            r"permission denied \((?:publickey|password|keyboard)|host key verification failed",
            r"could not read (?:username|password)|terminal prompts disabled|returned error: 40[13]",
        ),
    ),
    ("REPOSITORY_NOT_TRUSTED", "environment", _any(r"detected dubious ownership")),
    (
        # A tree that leads into a git folder or out of the working tree. Asked again, it says the same.
        "REPOSITORY_UNSAFE",
        "environment",
        _any(r"invalid path '|is beyond a symbolic link|malformed (?:mode|tree)|empty filename in tree"),
    ),
    ("DISK_LOW", "agent", _any(r"no space left on device|disk quota exceeded|unable to write .* file")),
    (
        "FETCH_FAILED",
        "environment",
        _any(
            r"could not resolve host|connection (?:refused|reset|timed out)|operation timed out|network is unreachable",
            r"no route to host|the remote end hung up|early eof|unable to access|returned error: [45]\d\d",
            r"not a git repository|does not appear to be a git repository|does not exist|repository '.*' not found",
            r"repository not found|couldn't find remote ref|could not read from remote repository",
            r"transport '.*' not allowed|unable to find remote helper|invalid refspec",
        ),
    ),
)

# The remote branch has moved: non-fast-forward, or two pushes at the same instant.
_REJECTED = _any(
    r"\(non-fast-forward\)|\(fetch first\)|\(stale info\)|\(failed to (?:update|lock)(?: ref)?\)|cannot lock ref",
    r"\(incorrect old value provided\)|\(reference already exists\)|is at [0-9a-f]+ but expected",
)
# The remote does not want it, whoever asks again.
_REFUSED = _any(
    r"hook declined|protected branch|refusing to update checked out branch|deny updating|prohibited",
    r"\[remote rejected\]",
)

_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")
_TOKEN = re.compile(r"\b(?:act_[\w-]{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})")


def of(action: str, stderr: str) -> fault.Fault:
    """The fault behind a git command that failed; `action` says for a person what was tried."""
    clean = redact(stderr).strip()
    if action.startswith("push"):
        if _REJECTED.search(clean):
            return fault.PushRejected(
                f"{action}: the remote branch has moved",
                reason="PUSH_REJECTED",
                attribution="environment",
                evidence=clean,
            )
        if _REFUSED.search(clean):
            return fault.Fault(
                f"{action}: the remote refuses it", reason="PUSH_REFUSED", attribution="environment", evidence=clean
            )
    for reason, attribution, pattern in _TABLE:
        if pattern.search(clean):
            return fault.Fault(
                f"{action}: {_first_line(clean)}", reason=reason, attribution=attribution, evidence=clean
            )
    return fault.Fault(f"{action}: {_first_line(clean)}", reason="GIT_FAILED", attribution="agent", evidence=clean)


def redact(text: str) -> str:
    """`text` without the login of any address and without anything that looks like a token."""
    return _TOKEN.sub("[redacted]", _USERINFO.sub("", text))


def carries_secret(url: str) -> bool:
    """Does the address hold a password or token? Such a repo is refused: addresses end up in logs and listings."""
    match = re.match(r"[a-z+]+://([^/@]*)@", url, re.IGNORECASE)
    if match is None:
        return _TOKEN.search(url) is not None
    # `ssh://git@host` names a user and carries no secret.
    return ":" in match.group(1) or not url.lower().startswith(("ssh://", "git+ssh://"))


def _first_line(text: str) -> str:
    """The line that says most: git's own `fatal:` or `error:`, else the first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote: error"))]
    return (telling or lines or ["git said nothing"])[0]
