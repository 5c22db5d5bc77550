"""Structured logs: one JSON object a line on stderr, or a line for people when stderr is a terminal.

A record is an event with fields: `log.info("task.assigned", task=..., agent=...)`. Names are `noun.verbed`. Secrets are
taken out here, by the name of the field and by the look of the value, so that no caller has to think of it. Records of
libraries (the stdlib's logging) pass through the same processors. What each event means, its level and its fields are
in `kit.logbook`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from kit import errors, logfile, secrecy
from kit.config import setting
from kit.secrecy import HIDDEN

# A longer text is cut: a log line is for reading, and a child's output has a place of its own.
VALUE_CHARS_MAX = 8_192
# Nesting and length of what is searched for secrets and written; deeper or longer things are shown by their size.
DEPTH_MAX = 4
ITEMS_MAX = 100

_SECRET_KEY = re.compile(
    r"(^|[_-])(token|secret|password|passwd|authorization|api_?key|private_?key|join_?key|cookie|credential)s?$",
    re.IGNORECASE,
)

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


MIB = 1024 * 1024


@dataclass(frozen=True)
class LogConfig:
    """What the process says of itself, on stderr or in a file (docs/logs.md)."""

    level: str = setting("info", choices=tuple(LEVELS))
    #: "auto": text on a terminal, JSON otherwise.
    form: str = setting("auto", choices=("auto", "json", "text"))
    #: Written to instead of stderr, mode 0600; one process a file. Absent: stderr.
    file: Path | None = setting(None)
    #: A file that would become larger is rotated.
    file_bytes_max: int = setting(logfile.BYTES_DEFAULT, low=logfile.BYTES_MIN, high=1024 * MIB)
    #: Old files that are kept beside it.
    file_count_max: int = setting(logfile.COUNT_DEFAULT, low=1, high=100)


def begin(config: LogConfig) -> None:
    """Set up logging as it is configured. Raises Invalid or IllegalState when the file cannot be used."""
    file = None
    if config.file is not None:
        path = config.file.expanduser().absolute()
        file = logfile.LogFile(path, bytes_max=config.file_bytes_max, count_max=config.file_count_max)
    configure(level=config.level, form=config.form, file=file)


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of a module; `name` becomes the field `module`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


def bound(**fields: object) -> contextlib.AbstractContextManager[None]:
    """Every record of the block has these fields, also those of tasks that are begun in it; a record's own go first.

    For the edges, where it is known what all that follows is about: the work of an agent, one attempt, one stream.
    """
    return structlog.contextvars.bound_contextvars(**fields)


def configure(
    *,
    level: str = "info",
    form: str = "auto",
    stream: TextIO | None = None,
    file: logfile.LogFile | None = None,
) -> None:
    """Set up logging for the process, before the first gRPC object is made (grpc/grpc#43421).

    `form` is `json`, `text`, or `auto`: text on a terminal, else json. Written to `file`, else to `stream`, which is
    stderr unless a test wants it.
    """
    if level not in LEVELS:
        raise errors.Invalid.of("log.level", f"is {level!r}, must be one of {', '.join(LEVELS)}")
    if form not in ("auto", "json", "text"):
        raise errors.Invalid.of("log.form", f"is {form!r}, must be auto, json or text")
    out: Any = file or stream or sys.stderr
    human = form == "text" or (form == "auto" and out.isatty())
    renderer = structlog.dev.ConsoleRenderer(colors=out.isatty()) if human else _render_json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        # One write for each record: a file is rotated between two of them.
        logger_factory=structlog.WriteLoggerFactory(out),
        # A cached logger keeps its stream for good, which is right for a process and wrong for a test.
        cache_logger_on_first_use=stream is None,
    )
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Bridge):
            root.removeHandler(handler)
    root.addHandler(_Bridge())
    # Libraries talk too much below warning, and their debug records may hold what they send.
    root.setLevel(max(logging.WARNING, LEVELS[level]))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take secrets out of a record and cut what is too long."""
    return {key: HIDDEN if _hides(key, value) else clean(value) for key, value in event.items()}


def clean(value: Any, depth: int = 0) -> Any:
    """A value without secrets, within the bounds, made of plain types."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        if depth >= DEPTH_MAX or len(value) > ITEMS_MAX:
            return f"<{len(value)} entries>"
        return {str(k): HIDDEN if _hides(str(k), v) else clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        if depth >= DEPTH_MAX or len(value) > ITEMS_MAX:
            return f"<{len(value)} items>"
        return [clean(item, depth + 1) for item in value]
    return _clean_text(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def _clean_text(text: str) -> str:
    # Cut after the search: a secret must not slip through because the bound fell in the middle of it.
    text = secrecy.hide(text[: VALUE_CHARS_MAX * 2])
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}... ({len(text)} characters or more)"


def _hides(key: str, value: Any) -> bool:
    # Numbers are counts (`tokens=812`), and a resource name says nothing secret (`token="tokens/01h..."`).
    if value is None or isinstance(value, bool | int | float):
        return False
    return _SECRET_KEY.search(key) is not None and not (isinstance(value, str) and value.startswith("tokens/"))


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    ordered = {"time": event.pop("time", ""), "level": event.pop("level", ""), "event": event.pop("event", "")}
    return msgspec.json.encode({**ordered, **event}).decode()


class _Bridge(logging.Handler):
    """Hands a library's record to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = "error" if record.levelno >= logging.ERROR else "warning"
            text = record.getMessage()
            getattr(get(record.name), level)("library.logged", message=text, exc_info=record.exc_info or None)
        except Exception:
            self.handleError(record)
