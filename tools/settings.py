"""Every setting of every node, read off the dataclasses: the configuration reference and the example files.

The source of a dataclass is read for the comments (`#:` above a field), which `dataclasses` does not keep; type,
default and limits come from the class itself. A field without a comment takes that of the same name in the class
that the section is turned into (`EngineConfig` -> `EngineSettings`).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

WIDTH = 110
_NOUNS = {"text": " characters", "list": " entries"}
_UNITS = (
    (86_400.0, "d"), (3_600.0, "h"), (60.0, "min"),
)  # fmt: skip


class Setting(NamedTuple):
    """One key."""

    key: str
    kind: str
    default: Any
    required: bool
    limits: str
    comment: str


class Section(NamedTuple):
    """One table of the file; the first one has no name."""

    name: str
    about: str
    settings: list[Setting]


def sections(kind: type[Any], meanings: Mapping[str, type[Any]], prefix: str = "") -> Iterator[Section]:
    """The sections of a configuration, depth first; `meanings` names where comments of a class are kept instead."""
    hints = typing.get_type_hints(kind)
    comments = comments_of(kind)
    elsewhere = meanings.get(kind.__name__)
    if elsewhere is not None:
        comments = {**comments_of(elsewhere), **comments}
    own, below = [], []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            below.append((field.name, hints[field.name]))
        else:
            own.append(_setting(field, hints[field.name], comments.get(field.name, "")))
    yield Section(prefix, inspect.getdoc(kind) or "", own)
    for name, inner in below:
        yield from sections(inner, meanings, f"{prefix}.{name}" if prefix else name)


def comments_of(kind: type[Any]) -> dict[str, str]:
    """The `#:` comment above each field; one above several fields without a blank line counts for the first only."""
    lines = textwrap.dedent(inspect.getsource(kind)).splitlines()
    found: dict[str, str] = {}
    tree = ast.parse("\n".join(lines)).body[0]
    assert isinstance(tree, ast.ClassDef)
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above, at = [], node.lineno - 2
        while at >= 0 and lines[at].strip().startswith("#:"):
            above.append(lines[at].strip()[2:].strip())
            at -= 1
        if above:
            found[node.target.id] = " ".join(reversed(above))
    return found


def reference(title: str, about: str, prefix: str, found: list[Section]) -> str:
    """The part of the reference page about one node."""
    parts = [f"## {title}\n", f"{about}\n"]
    for section in found:
        if not section.settings:
            continue
        parts.append(f"### `[{section.name}]`\n" if section.name else "### At the top\n")
        parts.append(f"{' '.join(section.about.split())}\n")
        parts.append("| key | type | default | meaning |\n| --- | --- | --- | --- |")
        for one in section.settings:
            meaning = ". ".join(part.rstrip(".") for part in (one.comment, one.limits) if part)
            default = "required" if one.required else f"`{toml(one.default)}`" if one.default is not None else "absent"
            parts.append(f"| `{one.key}` | {one.kind} | {default} | {_cell(meaning)} |")
        parts.append("")
    first = next(section for section in found if section.settings)
    key = ".".join(part for part in (first.name, first.settings[0].key) if part)
    variable = f"{prefix}_{key.upper().replace('.', '_')}"
    parts.insert(
        2, f"By environment: `{prefix}_` and the key in capitals, its dots as `_`, for example `{variable}`.\n"
    )
    return "\n".join(parts)


def example(head: str, found: list[Section]) -> str:
    """A TOML file that says every default, commented out, so that it changes nothing until it is edited."""
    lines = [*(f"# {line}".rstrip() for line in textwrap.wrap(head, WIDTH)), ""]
    for section in found:
        if not section.settings:
            continue
        if section.name:
            lines += ["", *_wrapped(" ".join(section.about.split())), f"[{section.name}]"]
        for one in section.settings:
            said = ". ".join(part.rstrip(".") for part in (one.comment, one.limits) if part)
            lines += _wrapped(f"{said}.") if said else []
            shown = toml(one.default) if one.default is not None else '""'
            absent = "   # absent" if one.default is None else ""
            lines.append(f"# {one.key} = {shown}{absent}")
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A default as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}" if abs(value) >= 10_000 else str(value)
        case float():
            return f"{value:_.1f}" if value == int(value) else repr(value)
        case tuple() | list():
            return f"[{', '.join(toml(item) for item in value)}]"
        case dict():
            return "{}"
        case _:
            text = str(value).replace("\\", "\\\\").replace('"', '\\"')
            return f'"{text}"'


def _setting(field: dataclasses.Field[Any], annotation: Any, comment: str) -> Setting:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    required = default is dataclasses.MISSING
    limits = field.metadata
    return Setting(
        key=field.name,
        kind=_kind(annotation),
        default=None if required else default,
        required=required,
        limits=_limits(limits, field.name, _NOUNS.get(_kind(annotation).partition(" ")[0], "")),
        comment=comment,
    )


def _kind(annotation: Any) -> str:
    base, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if base in (types.UnionType, typing.Union):
        return _kind(next(one for one in arguments if one is not type(None)))
    if base is tuple:
        return f"list of {_kind(arguments[0])}"
    if base is dict:
        return "table"
    names = {str: "text", bool: "true or false", int: "whole number", float: "number", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _limits(limits: Mapping[str, Any], key: str, noun: str) -> str:
    if limits.get("choices"):
        return "One of " + ", ".join(f"`{choice}`" for choice in limits["choices"])
    low, high = limits.get("low"), limits.get("high")
    if low is None and high is None:
        return ""
    shown = [_amount(bound, key) for bound in (low, high)]
    if low is None:
        return f"At most {shown[1]}{noun}"
    return f"At least {shown[0]}{noun}" if high is None else f"From {shown[0]} to {shown[1]}{noun}"


def _amount(bound: float | None, key: str) -> str:
    if bound is None:
        return ""
    text = f"{bound:g}" if bound < 1e6 else f"{bound:,.0f}".replace(",", " ")
    if key.endswith(("_s", "_s_max")) and not key.endswith(("_per_s", "_per_s_max")):
        for size, unit in _UNITS:
            if bound >= 2 * size and bound % size == 0:
                return f"{bound / size:g} {unit}"
        return f"{text} s"
    return text


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def _wrapped(text: str) -> list[str]:
    plain = text.replace("`", "")
    return [f"# {line}" for line in textwrap.wrap(plain, WIDTH)]
