"""The reference of the API, from the protos and their comments, and of errors, from the code that raises them."""

from __future__ import annotations

import ast
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2

from hub.core import scope, token
from kit import errors, status
from tools import gen

ROOT: Final = Path(__file__).resolve().parent.parent
Field = descriptor_pb2.FieldDescriptorProto
_TYPES: Final[Mapping[int, str]] = {
    Field.TYPE_DOUBLE: "double", Field.TYPE_INT64: "int64", Field.TYPE_UINT64: "uint64", Field.TYPE_INT32: "int32",
    Field.TYPE_BOOL: "bool", Field.TYPE_STRING: "string", Field.TYPE_BYTES: "bytes", Field.TYPE_UINT32: "uint32",
}  # fmt: skip
# Paths into a file's descriptor, as source_code_info counts them.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _METHODS, _VALUES = 2, 3, 4, 2, 2


def api() -> str:
    """The page with every service, message and enum."""
    files = list(_files())
    known = {name for file in files for name in _names(file)}
    parts = [
        "# API reference\n",
        "Package `agentcom.v1`. Every call carries `authorization: Bearer <token>` where the hub asks for one; "
        "errors are in [errors.md](errors.md). Limits stand in the protos beside each field. A hub serves reflection, "
        "so `grpcurl -plaintext ADDRESS list` shows the same.\n",
    ]
    for file in files:
        for index, service in enumerate(file.service):
            parts += _service(_Comments(file), service, (_SERVICES, index), known)
    for file in files:
        comments = _Comments(file)
        for index, message in enumerate(file.message_type):
            parts += _message(comments, message, (_MESSAGES, index), "", known)
        for index, enum in enumerate(file.enum_type):
            parts += _enum(comments, enum, (_ENUMS, index), "")
    return "\n".join(parts)


def error_page() -> str:
    """The page with every kind of problem, its status, and every reason with where it comes from."""
    parts = [
        "# Errors\n",
        "Every refusal is a `google.rpc.Status` with an `ErrorInfo` (reason, domain `agentcom`, metadata). "
        "`INVALID_ARGUMENT` names each field in a `BadRequest`; what may be tried again says when in a `RetryInfo`.\n",
        "| kind | status | meaning |\n| --- | --- | --- |",
    ]
    for kind, code in status.CODES.items():
        parts.append(f"| {kind.__name__} | `{code.name}` | {(kind.__doc__ or '').splitlines()[0]} |")
    parts += ["", "## Reasons\n", "| reason | status | for example |\n| --- | --- | --- |"]
    for reason, (kind_name, message) in sorted(_reasons().items()):
        found = status.CODES.get(getattr(errors, kind_name, errors.Problem))
        parts.append(f"| `{reason}` | {f'`{found.name}`' if found else ''} | {message} |")
    return "\n".join([*parts, ""])


def _files() -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """The project's files, with comments."""
    with tempfile.TemporaryDirectory(prefix="agentcom-api-") as folder:
        rules, out = gen.rules_set(Path(folder)), Path(folder) / "api.binpb"
        names = gen.sources(gen.PROTOS)
        gen.run_protoc(
            [
                f"--descriptor_set_in={rules}", f"-I{gen.PROTOS}", "--include_source_info",
                f"--descriptor_set_out={out}", *names,
            ]
        )  # fmt: skip
        bundle = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    yield from (file for file in bundle.file if file.package == "agentcom.v1")


class _Comments:
    """Comments of a file by the path of what they are about."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._found = {
            tuple(location.path): location.leading_comments
            for location in file.source_code_info.location
            if location.leading_comments
        }

    def of(self, path: tuple[int, ...]) -> str:
        """On one line, safe for a table."""
        text = re.sub(r"\s+", " ", self._found.get(path, "")).strip()
        return text.replace("|", "\\|").replace("<", "&lt;")


def _names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    def below(prefix: str, messages: Any) -> Iterator[str]:
        for message in messages:
            name = f"{prefix}{message.name}"
            yield name
            yield from (f"{name}.{enum.name}" for enum in message.enum_type)
            yield from below(f"{name}.", message.nested_type)

    yield from below("", file.message_type)
    yield from (enum.name for enum in file.enum_type)


def _service(comments: _Comments, service: Any, path: tuple[int, ...], known: set[str]) -> list[str]:
    lines = [f"## {service.name}\n", f"{comments.of(path)}\n", "| method | for | what it does |\n| --- | --- | --- |"]
    for index, method in enumerate(service.method):
        request, reply = (_link(name, known) for name in (method.input_type, method.output_type))
        arrow = f"{'stream ' * method.client_streaming}{request} → {'stream ' * method.server_streaming}{reply}"
        scopes = scope.ROWS.get(f"{service.name}/{method.name}", frozenset())
        who = (
            "a key of its own" if len(scopes) == len(token.Scope) else ", ".join(sorted(s.name.lower() for s in scopes))
        )
        lines.append(f"| **{method.name}**<br>{arrow} | {who} | {comments.of((*path, _METHODS, index))} |")
    return [*lines, ""]


def _message(comments: _Comments, message: Any, path: tuple[int, ...], prefix: str, known: set[str]) -> list[str]:
    if message.options.map_entry:
        return []
    name = f"{prefix}{message.name}"
    lines = [f"### {name}\n", f"{comments.of(path)}\n"]
    if message.field:
        lines.append("| field | type | meaning |\n| --- | --- | --- |")
        maps = {f"{entry.name}": entry for entry in message.nested_type if entry.options.map_entry}
        for index, field in enumerate(message.field):
            said = comments.of((*path, _FIELDS, index))
            lines.append(f"| `{field.name}` | {_type(field, maps, known)} | {said} |")
        lines.append("")
    for index, inner in enumerate(message.nested_type):
        lines += _message(comments, inner, (*path, _NESTED, index), f"{name}.", known)
    for index, enum in enumerate(message.enum_type):
        lines += _enum(comments, enum, (*path, _NESTED_ENUMS, index), f"{name}.")
    return lines


def _enum(comments: _Comments, enum: Any, path: tuple[int, ...], prefix: str) -> list[str]:
    lines = [f"### {prefix}{enum.name}\n", f"{comments.of(path)}\n", "| value | meaning |\n| --- | --- |"]
    lines += [f"| `{one.name}` | {comments.of((*path, _VALUES, n))} |" for n, one in enumerate(enum.value)]
    return [*lines, ""]


def _type(field: Any, maps: Mapping[str, Any], known: set[str]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map of {_type(key, {}, known)} to {_type(value, {}, known)}"
    name = _link(field.type_name, known) if field.type_name else _TYPES[field.type]
    many = "repeated " if field.label == Field.LABEL_REPEATED else "optional " if field.proto3_optional else ""
    return many + name


def _link(full: str, known: set[str]) -> str:
    name = full.removeprefix(".agentcom.v1.")
    if name not in known:
        return name.removeprefix(".google.protobuf.")
    return f"[{name}](#{name.lower().replace('.', '')})"


def _reasons() -> dict[str, tuple[str, str]]:
    """Every reason that the code of a node raises, with its kind and an example of its message."""
    found: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for room in ("hub", "kit", "sidecar"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (problem := _problem(node)) is not None:
                    reason, kind, message = problem
                    found[reason][kind, message] = None
    return {reason: min(examples, key=lambda one: (not one[1], len(one[1]), one)) for reason, examples in found.items()}


def _problem(call: ast.Call) -> tuple[str, str, str] | None:
    """Reason, kind and message of `errors.Kind(message, reason=...)` or `errors.Invalid.of(field, message, ...)`."""
    function, invalid_of = call.func, False
    if isinstance(function, ast.Attribute) and function.attr == "of":
        function, invalid_of = function.value, True
    if not (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "errors"
    ):
        return None
    kind = function.attr
    reason = next((word.value for word in call.keywords if word.arg == "reason"), None)
    if not isinstance(reason, ast.Constant) or not isinstance(reason.value, str):
        return None
    position = 1 if invalid_of else 0
    text = _text(call.args[position]) if len(call.args) > position else ""
    return reason.value, kind, text.replace("|", "\\|").replace("<", "&lt;")


def _text(node: ast.expr) -> str:
    """A message as written, with what is filled in shown as `...`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(one.value if isinstance(one, ast.Constant) else "…" for one in node.values)  # type: ignore[misc]  # the stubs are wider than what comes
    return ""
