"""How things are written on the pages."""

from __future__ import annotations

import pytest
from google.protobuf import duration_pb2, timestamp_pb2

from agentcom.v1 import event_pb2
from dashboard import format


def test_a_diff_is_marked_by_runs_of_lines_and_escaped():
    marked = format.diff("@@ -1 +1 @@\n-<b>old</b>\n-two\n+new\n same\n")
    assert marked.count("<span") == 4
    assert '<span class="del">-&lt;b&gt;old&lt;/b&gt;\n-two\n</span>' in marked


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "now"), (3, "3 s ago"), (-20, "in 20 s"), (65, "1 m 05 s ago"), (90_000, "25 h 00 m ago")]
)
def test_how_long_ago(seconds, text):
    assert format.ago(timestamp_pb2.Timestamp(seconds=1_000_000 - seconds), 1_000_000.0) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "90s"), (900, "15m"), (7200, "2h"), (86_400, "1d"), (90_000, "25h")]
)
def test_a_length_of_time_to_be_typed_in_again(seconds, text):
    assert format.length_text(duration_pb2.Duration(seconds=seconds)) == text
    assert format.length_text(duration_pb2.Duration(nanos=500_000_000)) == "0.5s"


@pytest.mark.parametrize(
    ("value", "unit", "shown", "typed"),
    [
        (0.35, "share", "35 %", "35%"), (120, "seconds", "2 m 00 s", "2m"), (2**28, "bytes", "268.4 MB", "256MiB"),
        (7, "tasks", "7 tasks", "7"), (2.5, "intervals", "2.5 intervals", "2.5"), (1, "", "1", "1"),
        (1, "tasks", "1 task", "1"),
    ],
)  # fmt: skip
def test_a_value_in_its_unit(value, unit, shown, typed):
    assert format.measure(value, unit) == shown
    assert format.typed(value, unit) == typed


def test_a_sentence_of_the_hub_shows_commands_as_code_and_is_escaped():
    assert format.prose("run `agentcom hub backup`; <b> & `") == (
        "run <code>agentcom hub backup</code>; &lt;b&gt; &amp; `"
    )
    assert format.prose("`<script>`") == "<code>&lt;script&gt;</code>"


def test_an_event_says_nothing_twice_and_dates_as_dates():
    fields = {"about": "agents/a", "message": "it is so", "unit": "", "until": "1795307271.810", "note": ""}
    told = format.told(event_pb2.Event(type="alert.raised", fields=fields))
    assert told == [("message", "it is so"), ("until", "2026-11-22 00:27 UTC")]
    assert dict(format.told(event_pb2.Event(type="task.failed", fields=fields)))["about"] == "agents/a"
