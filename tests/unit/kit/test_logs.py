"""Log lines are JSON, bounded, and hold no secret that was planted in them."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from kit import errors, logs, tokens


@pytest.fixture
def out():
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure(level="debug", form="json", stream=stream)
    yield stream
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)


def lines(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_record_is_one_json_object_a_line(out):
    logs.get("hub.engine").info("task.assigned", task="tasks/1", generation=3)
    (line,) = lines(out)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "event": "task.assigned", "module": "hub.engine", "task": "tasks/1", "generation": 3,
    }  # fmt: skip


def test_a_planted_secret_is_in_no_line(out):
    token = tokens.new_token()
    log = logs.get("x")
    log.info("a.b", token="hunter2", api_key="hunter2", join_key="hunter2", Authorization="hunter2")
    log.info("a.b", note=f"the header was Bearer {token} there", url="https://bob:hunter2@example.org/x")
    log.info("a.b", nested={"env": {"GITHUB_TOKEN": "hunter2"}, "argv": ["--token", token]}, raw=token.encode())
    log.info(f"a.{token}", keys={"password": "hunter2"}, key="sk-ant-" + "a" * 40, forge="ghp_" + "a" * 36)
    try:
        raise ValueError(f"refused {token}")
    except ValueError:
        log.exception("a.b")
    logging.getLogger("library").warning("sent %s", token)
    text = out.getvalue()
    assert len(lines(out)) == 6
    assert token not in text
    assert "hunter2" not in text
    assert "sk-ant" not in text
    assert "ghp_" not in text
    assert text.count(logs.HIDDEN) >= 12


def test_counts_and_names_of_tokens_are_not_hidden(out):
    logs.get("x").info("a.b", tokens=812, input_tokens=3, token="tokens/01h", token_count="7", secret=None)
    (line,) = lines(out)
    assert (line["tokens"], line["input_tokens"], line["token"], line["token_count"]) == (812, 3, "tokens/01h", "7")
    assert line["secret"] is None


def test_what_is_too_long_or_too_deep_is_cut(out):
    deep = []
    for _ in range(50):
        deep = [deep]
    logs.get("x").info("a.b", text="x" * 1_000_000, deep=deep, wide=list(range(10_000)), map=dict.fromkeys(range(999)))
    (line,) = lines(out)
    assert len(out.getvalue()) < 2 * logs.VALUE_CHARS_MAX
    assert line["text"].endswith("characters or more)")
    assert line["wide"] == "<10000 items>"
    assert line["map"] == "<999 entries>"


def test_a_secret_across_the_cut_does_not_slip_through(out):
    token = tokens.new_token()
    logs.get("x").info("a.b", text="x" * (logs.VALUE_CHARS_MAX - 10) + " " + token)
    assert token[:12] not in out.getvalue()


def test_an_exception_is_told_with_its_traceback(out):
    try:
        raise ValueError("no")
    except ValueError as error:
        logs.get("x").error("rpc.crashed", exc_info=error)
    (line,) = lines(out)
    assert "Traceback" in line["exception"]
    assert "ValueError: no" in line["exception"]


def test_records_of_libraries_come_in_the_same_form(out):
    logging.getLogger("grpc").error("lost %s", "it")
    (line,) = lines(out)
    assert (line["event"], line["module"], line["message"]) == ("library.logged", "grpc", "lost it")


def test_the_level_holds_back_what_is_below_it(out):
    logs.configure(level="warning", form="json", stream=out)
    logs.get("x").info("a.b")
    logs.get("x").warning("c.d")
    assert [line["event"] for line in lines(out)] == ["c.d"]


def test_text_for_people_holds_no_secret_either(out):
    logs.configure(form="text", stream=out)
    logs.get("x").info("a.b", token="hunter2")
    assert "a.b" in out.getvalue()
    assert "hunter2" not in out.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_by_itself_it_is_text_on_a_terminal_and_json_elsewhere(out):
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        logs.configure(stream=stream)
        logs.get("x").info("a.b", task="t1")
    assert "a.b" in terminal.getvalue() and not terminal.getvalue().startswith("{")
    assert json.loads(pipe.getvalue())["event"] == "a.b"


@pytest.mark.parametrize("wrong", [{"level": "loud"}, {"form": "xml"}])
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(errors.Invalid):
        logs.configure(**wrong)
