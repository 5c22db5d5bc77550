"""Figures over time: the drawings, the gaps in them, and the page that shows them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcom.v1 import history_pb2, hub_pb2, task_pb2
from dashboard import plot, trend
from dashboard.plot import Line, Part

HOUR = trend.SPANS[0]
NOW = 1_700_000_050.0
MINUTE = int(NOW // 60)


def sample(ago: int, **fields):
    made = history_pb2.Sample(observed=True, **fields)
    made.start_time.seconds = (MINUTE - ago) * 60
    return made


def drawn(columns, lines=()):
    return plot.draw(columns, lines, [""] * len(columns), label="x")


@given(st.floats(1e-6, 1e12))
def test_an_axis_ends_at_a_round_number_that_is_not_far_above(value):
    top = plot.ceiling(value)
    assert value * (1 - 1e-6) <= top <= value * 2.0001


def test_an_axis_of_nothing_ends_at_one():
    assert plot.ceiling(0) == 1.0


def test_times_of_which_nothing_is_known_are_bands_and_zero_is_none():
    svg = str(drawn([None, None, [], [Part("good", 2)], None]).svg)
    assert svg.count('class="gap"') == 2
    assert svg.count("fill-good") == 1


def test_a_column_never_leaves_the_drawing():
    svg = str(drawn([[Part("good", 0.001), Part("bad", 1000)]]).svg)
    ys = [float(y) for y in re.findall(r'fill-\w+" x="[\d.]+" y="([-\d.]+)"', svg)]
    assert len(ys) == 2
    assert min(ys) >= 0


def test_a_line_is_broken_where_there_is_no_value_and_a_value_alone_is_a_dash():
    svg = str(drawn([[]] * 6, [Line("p50", [1.0, 2.0, None, 3.0, None, 1.0])]).svg)
    path = re.search(r'line-p50" d="([^"]+)"', svg)
    assert path is not None
    assert path[1].count("M") == 3
    assert path[1].count("h") == 2
    assert path[1].count("L") == 1


def test_what_is_drawn_has_words_for_those_who_do_not_see_it():
    svg = str(plot.draw([[Part("good", 1)]], [], ["this minute: <1> done"], label='done "1"').svg)
    assert 'role="img"' in svg
    assert "this minute: &lt;1&gt; done" in svg
    assert 'aria-label="done &#34;1&#34;"' in svg


def test_each_sample_has_its_place_and_the_newest_is_the_last():
    placed = trend.grid([sample(59), sample(0), sample(70)], HOUR, NOW)
    assert len(placed) == 60
    assert [index for index, one in enumerate(placed) if one is not None] == [0, 59]


def test_a_hub_whose_clock_is_a_little_ahead_still_ends_at_the_right():
    placed = trend.grid([sample(0), sample(-1)], HOUR, NOW)
    assert [index for index, one in enumerate(placed) if one is not None] == [58, 59]


def test_panels_say_their_figures():
    spread = hub_pb2.Stats.Percentiles(count=3)
    spread.p50.FromMilliseconds(1500)
    spread.p99.FromSeconds(90)
    lanes = [history_pb2.Sample.LaneDepth(lane=task_pb2.LANE_HIGH, count=7)]
    samples = [
        sample(1, submitted_count=4, succeeded_count=3, failed_count=1, merged_count=2),
        sample(0, lanes=lanes, slots=8, slots_used=2.0, queue_wait=spread, run=spread),
    ]
    throughput, depth, latency, slots = trend.panels(history_pb2.History(samples=samples), HOUR, NOW)
    assert {key.text: key.figure for key in throughput.keys} == {
        "done": "3", "attempts failed": "1", "filed": "4", "merged": "2",
    }  # fmt: skip
    assert "7 high" in str(depth.svg)
    assert latency.keys[0].figure == "1.5 s"
    assert "ran p50 1.5 s, p99 1 m 30 s" in str(latency.svg)
    assert slots.keys[0].figure == "25 %"


def test_what_was_only_counted_is_no_zero_of_what_is_seen():
    counted = sample(0, submitted_count=4)
    counted.observed = False
    throughput, depth, latency, slots = trend.panels(history_pb2.History(samples=[counted]), HOUR, NOW)
    assert "4 filed" in str(throughput.svg)
    for panel in (depth, latency, slots):
        assert str(panel.svg).count('class="gap"') == 1
        assert "this minute: nothing is known" in str(panel.svg)


@pytest.mark.parametrize("span", [span.word for span in trend.SPANS])
async def test_the_overview_shows_each_span(browser, caller, span):
    await caller.task()
    page = (await browser.get(f"/?span={span}")).text
    assert page.count('<svg class="plot"') == 4
    assert f'aria-current="true">{span}' in page


async def test_a_span_that_there_is_not_is_a_clear_400(browser):
    assert (await browser.get("/?span=century")).status_code == 400
