"""Configuration: a frozen dataclass from a TOML file, the environment and overrides, in that order of precedence.

A section is a dataclass inside the dataclass. The key `store.path` of a hub is `[store] path = ...` in the file and
AGENTCOM_HUB_STORE_PATH in the environment. Durations are float seconds and sizes int bytes, with the unit in the name.
Whatever is wrong (unknown key, wrong type, out of range) is one clear line that names where it stands, the key and
the limit; the node then refuses to start.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kit import errors

C = TypeVar("C")

FILE_BYTES_MAX = 1024 * 1024  # a configuration is written by hand; more is a mistaken path
SHOWN_CHARS_MAX = 60

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    secret: bool = False,
) -> Any:
    """A field with its limits (inclusive); without a default the key is required. A secret's value is never shown."""
    metadata = {"low": low, "high": high, "choices": choices, "secret": secret}
    if isinstance(default, type) or callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata, repr=not secret)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def load(
    kind: type[C],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: str = "",
    overrides: Mapping[str, object] | None = None,
) -> C:
    """Build a `kind`. Variables are `<prefix>_<KEY>`; overrides are dotted keys, e.g. from the command line.

    Raises Invalid. A variable that begins with the prefix and names no key is refused, too: it is a typo.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        _flatten(_read(file), "", kind, values)
        origins.update(dict.fromkeys(values, file.name))
    keys = dict(_keys(kind))
    if prefix:
        variables = {f"{prefix}_{key.upper().replace('.', '_')}": key for key in keys}
        assert len(variables) == len(keys), "two keys have the same environment variable"
        for variable, text in sorted((environment or {}).items()):
            if variable.startswith(f"{prefix}_"):
                if variable not in variables:
                    raise _problem("the environment", variable, f"is not known{_nearest(variable, variables)}")
                key = variables[variable]
                values[key] = _from_text(text, keys[key].annotation, variable)
                origins[key] = f"the environment ({variable})"
    for key, value in (overrides or {}).items():
        if value is not None:
            values[key] = value
            origins[key] = "the command line"
    for key in values:
        if key not in keys:
            raise _problem(origins[key], key, f"is not known{_nearest(key, keys)}")
    made: C = _build(kind, "", values, origins, file.name if file is not None else "the configuration")
    return made


@dataclasses.dataclass(frozen=True, slots=True)
class _Key:
    annotation: Any
    limits: Mapping[str, Any]


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise _problem(file.name, "the file", f"is larger than {FILE_BYTES_MAX} bytes")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _problem(str(file), "the file", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _problem(file.name, "the file", f"is not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise _problem(file.name, "the file", f"is not TOML: {error}") from error


def _keys(kind: type[Any], prefix: str = "") -> Iterator[tuple[str, _Key]]:
    """Every key of a configuration, dotted, with its type and limits."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        annotation = hints[field.name]
        if dataclasses.is_dataclass(annotation):
            yield from _keys(typing.cast("type[Any]", annotation), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", _Key(annotation, field.metadata)


def _flatten(table: Mapping[str, Any], prefix: str, kind: Any, into: dict[str, Any]) -> None:
    """Turn nested tables into dotted keys, as deep as `kind` has sections; other tables are values (dict fields)."""
    hints = typing.get_type_hints(kind)
    for name, value in table.items():
        section = hints.get(name)
        if dataclasses.is_dataclass(section) and isinstance(value, dict):
            _flatten(value, f"{prefix}{name}.", section, into)
        else:
            into[prefix + name] = value


def _build(kind: Any, prefix: str, values: Mapping[str, Any], origins: Mapping[str, str], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        key, annotation = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(annotation):
            arguments[field.name] = _build(annotation, f"{key}.", values, origins, where)
        elif key in values:
            origin = origins.get(key, where)
            arguments[field.name] = _convert(values[key], annotation, origin, key, field.metadata)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _problem(where, key, "is required")
    try:
        return kind(**arguments)
    except errors.Invalid as error:  # a rule over several keys, in __post_init__
        raise _problem(where, prefix.rstrip("."), error.message) from error


def _convert(value: Any, annotation: Any, origin: str, key: str, limits: Mapping[str, Any]) -> Any:
    """Check one value against its type and limits; returns it as that type."""
    made, wanted = _typed(value, annotation, origin, key)
    shown = "has a value that" if limits.get("secret") else f"is {_short(value)},"
    if made is _WRONG:
        raise _problem(origin, key, f"{shown} must be {wanted}")
    low, high, choices = limits.get("low"), limits.get("high"), limits.get("choices")
    for item in made if isinstance(made, tuple) else (made,):
        if choices is not None and item is not None and item not in choices:
            raise _problem(origin, key, f"{shown} must be one of {', '.join(choices)}")
    measure = len(made) if isinstance(made, str | tuple | dict) else made
    if isinstance(measure, int | float) and not isinstance(measure, bool):
        noun = "" if measure is made else " long" if isinstance(made, str) else " entries"
        if low is not None and measure < low:
            raise _problem(origin, key, f"{shown} must be at least {low}{noun}")
        if high is not None and measure > high:
            raise _problem(origin, key, f"{shown} must be at most {high}{noun}")
    return made


_WRONG = object()


def _typed(value: Any, annotation: Any, origin: str, key: str) -> tuple[Any, str]:
    """The value as `annotation`, or _WRONG and the words for what was wanted."""
    base, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if base in (types.UnionType, typing.Union):
        inner = next(a for a in arguments if a is not type(None))
        return (None, "") if value is None else _typed(value, inner, origin, key)
    if base is tuple:
        if not isinstance(value, list | tuple):
            return _WRONG, "a list"
        return tuple(_item(v, arguments[0], origin, f"{key}[{i}]") for i, v in enumerate(value)), ""
    if base is dict:
        if not isinstance(value, dict):
            return _WRONG, "a table"
        return {str(k): _item(v, arguments[1], origin, f"{key}.{k}") for k, v in value.items()}, ""
    if annotation is Path:
        return (Path(value).expanduser(), "") if isinstance(value, str | Path) and str(value) else (_WRONG, "a path")
    if annotation is bool:
        return (value, "") if isinstance(value, bool) else (_WRONG, "true or false")
    if annotation is float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return (float(value), "") if good else (_WRONG, "a number")
    if annotation is int:
        return (value, "") if isinstance(value, int) and not isinstance(value, bool) else (_WRONG, "a whole number")
    assert annotation is str, f"{key}: configuration cannot hold {annotation}"
    return (value, "") if isinstance(value, str) else (_WRONG, "text")


def _item(value: Any, annotation: Any, origin: str, key: str) -> Any:
    """One entry of a list or table; a dataclass there is a table of its own."""
    if not dataclasses.is_dataclass(annotation):
        return _convert(value, annotation, origin, key, {})
    if not isinstance(value, dict):
        raise _problem(origin, key, f"is {_short(value)}, must be a table")
    flat: dict[str, Any] = {}
    _flatten(value, "", annotation, flat)
    known = dict(_keys(typing.cast("type[Any]", annotation)))
    for name in flat:
        if name not in known:
            raise _problem(origin, f"{key}.{name}", f"is not known{_nearest(name, known)}")
    values = {f"{key}.{name}": v for name, v in flat.items()}
    return _build(annotation, f"{key}.", values, {}, origin)


def _from_text(text: str, annotation: Any, variable: str) -> Any:
    """An environment variable's text as the value that a TOML file would have held."""
    arguments = typing.get_args(annotation)
    if type(None) in arguments:
        return None if text == "" else _from_text(text, next(a for a in arguments if a is not type(None)), variable)
    if typing.get_origin(annotation) is tuple:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [_from_text(part, arguments[0], variable) for part in parts]
    if annotation is bool and text.lower() in TRUE + FALSE:
        return text.lower() in TRUE
    if annotation in (int, float):
        try:
            return annotation(text)
        except ValueError:
            return text  # _convert says what is wrong with it
    return text


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."


def _problem(origin: str, key: str, text: str) -> errors.Invalid:
    return errors.Invalid(
        f"{origin}: {key} {text}" if key else f"{origin}: {text}",
        violations=(errors.Violation(key, text),),
        reason="BAD_CONFIGURATION",
    )
