"""The table of scenarios in docs/faults.md, written from the scenarios themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path

from tests.faults.scenario import Scenario

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN = "<!-- Scenarios: written by `python -m tests.faults --page`. -->"
END = "<!-- End of the scenarios. -->"


def table(scenarios: Iterable[Scenario]) -> str:
    """The rows."""
    rows = ["| scenario | what happens | it holds when | broken twins, which must fail | in |", "| --- " * 5 + "|"]
    for one in scenarios:
        what = (inspect.getdoc(one.run) or "").split("\n\n")[0].replace("\n", " ")
        twins = ", ".join(f"{twin.node} without `{' '.join(twin.guards)}`" for twin in one.twins)
        file = Path(inspect.getsourcefile(inspect.unwrap(one.run)) or "").name
        rows.append(f"| `{one.name}` | {what} | {one.passes} | {twins} | `{file}` |")
    return "\n".join(rows)


def is_current(scenarios: Iterable[Scenario]) -> bool:
    """Does the page say what there is?"""
    return table(scenarios) in PAGE.read_text()


def write(scenarios: Iterable[Scenario]) -> None:
    """Put the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(scenarios)}\n\n{END}{after}")
