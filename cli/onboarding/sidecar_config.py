"""The text of a sidecar's configuration, as `agent add` writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit import errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the sidecar is told; what is None or empty is left to its defaults."""

    agent: str
    address: str
    state_dir: Path
    work_dir: Path
    token_file: Path
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    plaintext: bool = False
    display_name: str = ""
    slots: int = 1
    executors: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    sandbox: str = ""


def text(wanted: Wanted) -> str:
    """The configuration as TOML. Raises Invalid for a path that cannot be written down."""
    sections: dict[str, dict[str, object]] = {
        "": {
            "agent": wanted.agent,
            "display_name": wanted.display_name or None,
            "slots": wanted.slots,
            "executors": list(wanted.executors) or None,
            "capabilities": list(wanted.capabilities) or None,
            "state_dir": wanted.state_dir,
            "work_dir": wanted.work_dir,
        },
        "hub": {
            "address": wanted.address,
            "token_file": wanted.token_file,
            "ca_file": wanted.ca_file,
            "certificate_file": wanted.certificate_file,
            "key_file": wanted.key_file,
            "plaintext": wanted.plaintext or None,
        },
        "sandbox": {"mode": wanted.sandbox or None},
        "log": {"form": "json"},
    }
    lines = ["# Written by `agentcom agent add`; yours to change. It is read when the sidecar starts."]
    for name, section in sections.items():
        given = {key: value for key, value in section.items() if value is not None}
        if name and given:
            lines += ["", f"[{name}]"]
        lines += [f"{key} = {_value(value)}" for key, value in given.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    written = json.dumps(str(value), ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError as error:
        raise errors.Invalid.of("--dir", f"{value!r} is not text that a configuration can hold") from error
    # JSON's strings are TOML's, but for this one character.
    return written.replace("\x7f", "\\u007f")
