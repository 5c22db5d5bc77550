"""Which addresses of a repository are taken: what git understands, without a secret in it and without a command to run.

git reads more from an address than a place: `ext::sh -c ...` runs a command, a host or path that begins with a dash is
taken for an option by ssh or by git itself. Such addresses are refused here, once, and never reach a sidecar.
"""

from __future__ import annotations

import re
from typing import Final

SCHEMES: Final = ("https", "http", "ssh", "file")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")
_SCP = re.compile(r"(?:(?P<user>[^/@]*)@)?(?P<host>\[[^]/]*\]|[^/:@]+):(?P<path>.*)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?)")
_PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:]*)(:[0-9]{1,5})?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def objection(url: str) -> str:
    """Why the address is refused, as the end of a sentence; empty: it is taken."""
    if any(ord(character) <= 32 or ord(character) == 127 for character in url):
        return "must not hold spaces or control characters"
    if url.startswith("-"):
        return "must not begin with a dash"
    if _HELPER.match(url):
        return "must not name a transport helper (`...::`)"
    scheme = _SCHEME.match(url)
    if scheme is not None:
        return _of_url(url, scheme.group(1).lower())
    if url.startswith("/"):
        return ""
    scp = _SCP.fullmatch(url)
    if scp is None:
        return "must be an absolute path, or a file, ssh or https address"
    return _of_scp(scp.group("user"), scp.group("host"), scp.group("path"))


def _of_url(url: str, scheme: str) -> str:
    if scheme not in SCHEMES:
        return f"must not be of the scheme {scheme}; {', '.join(SCHEMES)} are known"
    authority, slash, _path = url.partition("://")[2].partition("/")
    user, at, place = authority.rpartition("@")
    if ":" in user:
        return "must not carry a password; the sidecar's own credentials are used"
    if scheme == "file":
        if authority not in ("", "localhost"):
            return "must not name a host: file:///path"
        return "" if slash else "must be an absolute path"
    if scheme != "ssh":
        if at:
            return "must not carry a user name or token; the sidecar's own credentials are used"
        if "?" in url or "#" in url:
            return "must not carry a query or fragment, in which tokens travel"
    host = _PORT.fullmatch(place)
    if host is None:
        return "must name a host, and a port by its number"
    return _of_host(host.group("host"), user if at else None)


def _of_host(host: str, user: str | None) -> str:
    if not _HOST.fullmatch(host):
        return "must name a host"
    if user is not None and not _USER.fullmatch(user):
        return "must name a plain user"
    return ""


def _of_scp(user: str | None, host: str, path: str) -> str:
    if user is not None and ":" in user:
        return "must not carry a password; the sidecar's own credentials are used"
    if path.startswith("-"):
        return "must not have a path that begins with a dash"
    if not path:
        return "must name a path"
    return _of_host(host, user)
