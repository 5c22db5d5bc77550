"""The environment of child processes: an allow-list, so that a secret nobody thought of does not slip through."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

# What programs need to find their way, and nothing that opens a door.
ALLOWED = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "USER", "LOGNAME", "SHELL"})
ALLOWED_PREFIX = "LC_"
# For our own git commands only: the keys of the machine's owner, and the way out.
ALLOWED_FOR_GIT = frozenset(
    {
        "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "XDG_CONFIG_HOME",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
    }
)  # fmt: skip
# Never passed on, whatever is declared: these are the sidecar's own.
FORBIDDEN_PREFIX = "AGENTCOM_"
PATH_WHEN_UNSET = "/usr/local/bin:/usr/bin:/bin"

# Nothing may wait for a person.
_NEVER_ASK = {"GIT_EDITOR": "true", "GIT_SEQUENCE_EDITOR": "true", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat"}


def for_child(declared: Iterable[str] = (), *, source: Mapping[str, str] | None = None) -> dict[str, str]:
    """For executors and checks: the allow-list and the names that the configuration declares."""
    names = frozenset(declared)
    return {**_chosen(names, os.environ if source is None else source), **_NEVER_ASK, "PAGER": "cat"}


def for_git(*, source: Mapping[str, str] | None = None) -> dict[str, str]:
    """For our own git commands: the owner's keys and proxies come along; messages are in English, to be understood."""
    variables = _chosen(ALLOWED_FOR_GIT, os.environ if source is None else source)
    variables.pop("LANGUAGE", None)
    # Batch mode: a question about a host key or a passphrase ends the command instead of hanging it.
    variables.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20")
    return {**variables, **_NEVER_ASK, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}


def _chosen(extra: frozenset[str], source: Mapping[str, str]) -> dict[str, str]:
    variables = {
        name: value
        for name, value in source.items()
        if (name in ALLOWED or name.startswith(ALLOWED_PREFIX) or name in extra)
        and not name.startswith(FORBIDDEN_PREFIX)
    }
    variables.setdefault("PATH", PATH_WHEN_UNSET)
    return variables
