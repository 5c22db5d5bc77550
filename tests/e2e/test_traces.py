"""One trace from a goal to its merge, joined by a collector from what a hub and two sidecars push: real processes, a
retry, and a hub that is killed in the middle.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agentcom.v1 import agent_pb2
from tests.e2e.test_goals import drop
from tests.support.collector import gone, receiving, refusing, silent
from tests.support.fleet import Fleet, appears, spec
from tests.support.gitrepo import Origin
from tests.support.processes import until

GOAL = """\
---
title: one word, at the second try
repo: demo
assertions:
  - id: A1
    text: the word is there
    run: grep -q alpha words.txt
plan:
  tasks:
    - id: T1
      title: the word
      fulfills: [A1]
      checks:
        - {{run: grep -q alpha words.txt, expect_on_base: fail}}
      command: |
        test "$AGENTCOM_ATTEMPT" != 1 || exit 7
        echo "$TRACEPARENT" > {folder}/told.tmp; mv {folder}/told.tmp {folder}/told
        while ! test -e {folder}/go; do sleep 0.05; done
        echo alpha >> words.txt
---
A word.
"""


class Told:
    """Spans by their ids; one that was told twice (after the hub was killed) is the same one."""

    def __init__(self, told: list[tuple[str, Any]]) -> None:
        self.spans = {span.span_id: span for _, span in told}
        self.who = {span.span_id: who for who, span in told}
        self.named = defaultdict(list)
        for span in self.spans.values():
            self.named[span.name].append(span)

    def astray(self) -> list[str]:
        """Spans whose parent, or what they are linked to, nobody has told."""
        lost = []
        for span in self.spans.values():
            wanted = [one.span_id for one in span.links] + ([span.parent_span_id] if span.parent_span_id else [])
            lost += [f"{span.name} -> {one.hex()}" for one in wanted if one not in self.spans]
        return lost

    def under(self, span: Any) -> list[str]:
        """Names of what is directly below a span, in the order of its begin."""
        below = [one for one in self.spans.values() if one.parent_span_id == span.span_id]
        return [one.name for one in sorted(below, key=lambda one: one.start_time_unix_nano)]


async def test_a_goal_is_one_tree_over_three_processes_a_retry_and_a_hub_that_was_killed(
    fleet: Fleet, origin: Origin, tmp_path: Path
):
    folder = tmp_path / "goals"
    with receiving("grpc") as (receiver, endpoint):
        push = {
            "telemetry_otlp_endpoint": endpoint, "telemetry_otlp_traces": "true", "telemetry_otlp_every_s": 0.1,
        }  # fmt: skip
        await fleet.start_hub(intake_folder=folder, intake_look_s=0.1, **push)
        await fleet.start_sidecars("ada", "grace", slots=2, **push)
        await fleet.add_repo("demo", origin.path)
        name = await drop(fleet, folder, "word.md", GOAL.format(folder=tmp_path))
        told_to_child = (await appears(tmp_path / "told")).read_text().strip()
        await fleet.kill_hub()
        await fleet.restart_hub()
        (tmp_path / "go").touch()
        await fleet.until_events("goal.succeeded", subject=name)

        def whole() -> bool:
            told = Told(receiver.traced.told)
            return len(told.named["goal"]) == 1 and len(told.named["report"]) == 4 and not told.astray()

        try:
            await until(whole, "all spans are told")
        finally:
            told = Told(receiver.traced.told)
            print(sorted((span.name, told.who[id]) for id, span in told.spans.items()), told.astray())

    assert len({span.trace_id for span in told.spans.values()}) == 1
    (goal,) = told.named["goal"]
    assert not goal.parent_span_id
    assert told.under(goal) == ["task", "task"], "the work, then the assertions"
    work, verify = (one for one in sorted(told.named["task"], key=lambda one: one.start_time_unix_nano)
                    if one.parent_span_id == goal.span_id)  # fmt: skip
    assert told.under(work) == ["attempt", "attempt", "change"]
    first, second = (one for one in sorted(told.named["attempt"], key=lambda one: one.start_time_unix_nano)
                     if one.parent_span_id == work.span_id)  # fmt: skip
    assert [link.span_id for link in second.links] == [first.span_id]
    assert not first.links
    assert (first.status.code, second.status.code) == (2, 1)
    (change,) = told.named["change"]
    assert [link.span_id for link in change.links] == [second.span_id]
    assert told.under(change) == ["task"], "its MERGE task"
    assert told.under(verify) == ["attempt"]
    phases = ["workspace", "base_checks", "execute", "commit", "checks", "push", "report"]
    assert told.under(second) == phases
    assert told.under(first)[:3] == phases[:3]
    assert {who.partition("/")[0] for who in told.who.values()} == {"agentcom-hub", "agentcom-sidecar"}
    (execute,) = [one for one in told.named["execute"] if one.parent_span_id == second.span_id]
    assert told_to_child == f"00-{execute.trace_id.hex()}-{execute.span_id.hex()}-01", "a child can go on from there"
    for agent in ("ada", "grace"):
        assert_records_say_of_what_they_are(fleet.root / f"{agent}.log", agent, goal.trace_id.hex())
    (base,) = [one for one in told.named["base_checks"] if one.parent_span_id == second.span_id]
    assert told.under(base) == ["check"]


def assert_records_say_of_what_they_are(log: Path, agent: str, trace: str) -> None:
    """Each record about work has the task, its generation, its goal, the agent and the trace."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    about = [one for one in records if "task" in one and one["event"] != "holding.settled"]
    assert {"holding.begun", "holding.finished"} <= {one["event"] for one in about}
    for one in about:
        missing = {"task", "generation", "goal", "agent", "trace_id", "span_id"} - set(one)
        assert not missing and (one["agent"], one["trace_id"]) == (agent, trace), one


async def test_spans_that_a_killed_hub_had_not_pushed_are_told_by_the_next_one(fleet: Fleet):
    with receiving("http") as (receiver, endpoint):
        push = {
            "telemetry_otlp_endpoint": endpoint, "telemetry_otlp_protocol": "http", "telemetry_otlp_traces": "true",
        }  # fmt: skip
        await fleet.start_hub(telemetry_otlp_every_s=3_600, **push)
        await until(lambda: (fleet.data / "traced").exists(), "the hub has noted where it began")
        await fleet.start_sidecars("ada")
        (name,) = await fleet.submit(spec("a task"))
        await fleet.until_tasks([name])
        await fleet.kill_hub()
        assert not receiver.traced.told, "the next push was an hour away"
        await fleet.restart_hub(telemetry_otlp_every_s=0.1)
        await until(lambda: len(receiver.traced.told) >= 2, "they are told after all")
        told = Told(receiver.traced.told)
        assert sorted(told.named) == ["attempt", "task"]
        assert not told.astray()
        (span,) = told.named["attempt"]
        assert span.end_time_unix_nano > span.start_time_unix_nano


async def test_a_collector_that_hangs_refuses_or_is_away_costs_a_sidecar_nothing(fleet: Fleet):
    await fleet.start_hub(telemetry_otlp_endpoint=gone(), telemetry_otlp_traces="true")
    with silent() as hanging, refusing() as stubborn:
        common: dict[str, Any] = {
            "telemetry_otlp_traces": "true", "telemetry_otlp_every_s": 0.05, "telemetry_otlp_timeout_s": 0.3,
            "telemetry_prometheus_listen": "127.0.0.1:0",
        }  # fmt: skip
        kinds = {"ada": (hanging, "http"), "grace": (gone(), "grpc"), "linus": (stubborn, "http")}
        for agent, (endpoint, protocol) in kinds.items():
            to: dict[str, Any] = {"telemetry_otlp_endpoint": endpoint, "telemetry_otlp_protocol": protocol}
            await fleet.start_sidecar(agent, **to, **common)
        for agent in kinds:
            await fleet.until_agent(agent, agent_pb2.Agent.STATE_IDLE)
        names = await fleet.submit(*[spec(f"task {number}") for number in range(9)])
        await fleet.until_tasks(names)
        done = 0.0
        for agent in kinds:
            found: dict[Any, float] = {}
            while not found.get(("agentcom_telemetry_pushes_total", "failed")):
                found = scraped(await asyncio.to_thread(scrape, page_of(fleet, agent)))
            assert found["agentcom_sidecar_slots",] == 1
            assert found["agentcom_telemetry_spans_dropped_total",] == 0, "they wait"
            done += found["agentcom_sidecar_attempts_total", "work", "completed"]
        assert done == 9
        for agent in kinds:
            process = fleet.sidecars[agent]
            assert await process.stop() == 0
            assert process.said().count('"event":"telemetry.push_failed"') == 1, "once a minute at most"


def page_of(fleet: Fleet, agent: str) -> str:
    """Where the page of a sidecar is, by its log."""
    lines = fleet.sidecars[agent].said().splitlines()
    (address,) = [json.loads(line)["address"] for line in lines if '"telemetry.page_served"' in line]
    return str(address)


def scrape(address: str, accept: str = "text/plain") -> str:
    """A page as a monitor reads it."""
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def scraped(text: str) -> dict[Any, float]:
    """Its samples by name and label values."""
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}
