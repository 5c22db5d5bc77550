"""Every call of a logger tells a record of the catalogue, at its level and with no field that is not in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from dashboard import logbook as of_dashboard
from hub import logbook as of_hub
from kit import logbook, logs
from sidecar import logbook as of_sidecar

ROOT: Final = Path(__file__).resolve().parents[2]
BOOKS: Final = {
    "kit": logbook.RECORDS,
    "hub": of_hub.RECORDS,
    "sidecar": of_sidecar.RECORDS,
    "dashboard": of_dashboard.RECORDS,
    "cli": {},
}
METHODS: Final = {*logs.LEVELS, "exception", "critical", "log", "msg", "bind"}
NAME: Final = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")
#: Not every record is told by a call that names it: these places choose the name, or the level, while they run.
CHOSEN: Final = {
    "hub/engine/alerts/board.py": {"alert.raised"},
    "hub/engine/notify/notifier.py": {"notice.made"},
    "kit/logs.py": {"library.logged"},
    "kit/logfile.py": {"log.resumed"},
}
#: What is said of the work in hand by one word: `**fields(holding)`, `**self._about(holding)`, `**fields`.
SPREAD: Final = re.compile(r"(self\._about|fields)\(.*\)|fields")


class Call(NamedTuple):
    """One call of a logger."""

    where: str
    level: str
    event: str | None
    fields: tuple[str, ...]
    spread: tuple[str, ...]


def calls() -> Iterator[Call]:
    for room in BOOKS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield from calls_in(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


def calls_in(where: str, text: str) -> Iterator[Call]:
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        logger = node.func.value
        if not (isinstance(logger, ast.Name) and logger.id == "log" and node.func.attr in METHODS):
            continue
        event = node.args[0] if node.args else None
        name = event.value if isinstance(event, ast.Constant) and isinstance(event.value, str) else None
        named = tuple(one.arg for one in node.keywords if one.arg is not None)
        spread = tuple(ast.unparse(one.value) for one in node.keywords if one.arg is None)
        yield Call(f"{where}:{node.lineno}", node.func.attr, name, named, spread)


CALLS: Final = list(calls())


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.where} {call.event}")
def test_a_call_is_in_the_catalogue_with_its_level_and_its_fields(call: Call):
    file, _, _ = call.where.partition(":")
    book = BOOKS[file.partition("/")[0]]
    if call.event is None:
        assert file in CHOSEN, "a name that is chosen while it runs must be told of here"
        return
    assert call.event in book, f"add {call.event} to the logbook of {file.partition('/')[0]}"
    entry = book[call.event]
    assert {"exception": "error"}.get(call.level, call.level) == entry.level
    known = {*entry.fields, *logbook.WORK}
    said = {"exception" if field == "exc_info" else field for field in call.fields}
    assert said <= known, f"{sorted(said - known)} are not in the logbook"
    assert all(SPREAD.fullmatch(one) for one in call.spread), call.spread


def test_nothing_is_in_the_catalogue_that_nobody_tells():
    told = {call.event for call in CALLS} | {name for names in CHOSEN.values() for name in names}
    assert {name for book in BOOKS.values() for name in book} <= told


@pytest.mark.parametrize("room", BOOKS)
def test_an_entry_is_named_and_meant(room):
    for name, entry in BOOKS[room].items():
        assert NAME.fullmatch(name), name
        assert entry.level in logs.LEVELS, name
        assert entry.meaning and not entry.meaning.endswith("."), name
        assert not {*entry.fields} & {*logbook.WORK, "time", "level", "event", "module"}, name
    assert list(BOOKS[room]) == sorted(BOOKS[room])


def test_no_name_means_two_things():
    names = [name for book in BOOKS.values() for name in book]
    assert len(names) == len(set(names))


def test_a_logger_has_one_name_everywhere_so_that_no_call_escapes():
    for room in BOOKS:
        for path in (ROOT / room).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                assert "logs.get(" not in line or re.fullmatch(r"log = logs\.get\(__name__\)", line), (path, line)


def test_a_call_that_is_not_in_the_catalogue_is_found():
    (call,) = calls_in("hub/x.py", 'log.info("dog.barked", loud=True, **fields(holding))')
    assert (call.event, call.level, call.fields, call.spread) == ("dog.barked", "info", ("loud",), ("fields(holding)",))
