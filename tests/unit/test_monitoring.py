"""What deploy/ has for monitors: it can be read, and speaks of metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from kit import metrics, promtext, tally
from kit.metrics import Kind

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
PROMTOOL: Final = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed here")


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def names() -> set[str]:
    """Everything that may stand on a page."""
    found = set()
    for one in metrics.CATALOGUE:
        ends = {Kind.COUNTER: ("_total",), Kind.GAUGE: ("",), Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}[one.kind]
        found |= {one.prometheus + end for end in ends}
    return found


def test_rules_speak_of_metrics_that_there_are():
    rules = [rule for group in read("prometheus/rules.yml")["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        said = set(re.findall(r"\bagentcom_\w+", rule["expr"]))
        assert said <= names(), f"{rule['alert']}: {sorted(said - names())}"
        assert said or "up{" in rule["expr"], rule["alert"]


def test_hub_and_sidecars_are_scraped_under_the_names_that_the_rules_use():
    jobs = {one["job_name"] for one in read("prometheus/prometheus.yml")["scrape_configs"]}
    text = (DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'job="([^"]+)"', text)) <= jobs == {"agentcom", "agentcom-sidecar"}


def test_the_collector_takes_metrics_and_traces_by_both_protocols():
    found = read("collector/otel-collector.yml")
    assert set(found["receivers"]["otlp"]["protocols"]) == {"grpc", "http"}
    assert set(found["service"]["pipelines"]) == {"metrics", "traces"}
    for pipeline in found["service"]["pipelines"].values():
        assert set(pipeline["receivers"]) <= set(found["receivers"])
        assert set(pipeline["processors"]) <= set(found["processors"])
        assert set(pipeline["exporters"]) <= set(found["exporters"])


@needs_promtool
def test_promtool_has_nothing_against_the_configuration():
    command = [str(PROMTOOL), "check", "config", str(DEPLOY / "prometheus/prometheus.yml")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@needs_promtool
def test_promtool_has_nothing_against_a_page_with_every_metric():
    counted = tally.Tally(0.0)
    for one in metrics.CATALOGUE:
        if one.kind is Kind.COUNTER:
            counted.counter(one)
        elif one.kind is Kind.HISTOGRAM:
            counted.histogram(one)
    given = {one: dict.fromkeys(one.series, 1.0) for one in metrics.CATALOGUE if one.kind is Kind.GAUGE}
    answer = promtext.Page(lambda: counted.snapshot(1.0, given)).answer("GET /metrics HTTP/1.1\r\n\r\n")
    page = answer.partition(b"\r\n\r\n")[2]
    command = [str(PROMTOOL), "check", "metrics"]
    said = subprocess.run(command, input=page, capture_output=True, timeout=60, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")
