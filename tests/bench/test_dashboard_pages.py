"""The measurement of the dashboard's pages, small: it asks for each page over a store with everything in it."""

from __future__ import annotations

import argparse
import json

from tests.bench import dashboard_pages


async def test_every_page_is_measured(tmp_path, capsys):
    asked = argparse.Namespace(folder=tmp_path, tasks=3_000, agents=8, viewers=2, rounds=1, only="")
    await dashboard_pages.measure(asked)
    table = capsys.readouterr().out
    marks = json.loads((tmp_path / "landmarks-3000.json").read_text())
    assert set(marks) == {"queued", "dead", "succeeded", "goal"}
    for page in ("overview", "goals", "tasks, deep", "agents", "changes", "repos", "dead letters", "alerts", "system"):
        assert f"| {page} |" in table
