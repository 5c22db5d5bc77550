"""`agentcom plan lint`: what is wrong with the plan in a goal file, before anything is filed."""

from __future__ import annotations

from typing import Annotated

import typer

from agentcom.v1 import goal_pb2, goal_service_pb2
from cli import goal, output, words
from cli.command import command
from cli.failure import Code
from cli.session import Session

app = typer.Typer(help="Plans: tasks with their dependencies.")

COLUMNS: list[output.Column[goal_pb2.Finding]] = [
    ("SEVERITY", lambda finding: words.enum_word(goal_pb2.Finding.Severity, finding.severity, "SEVERITY_")),
    ("RULE", lambda finding: finding.rule),
    ("FIELD", lambda finding: finding.field),
    ("MESSAGE", lambda finding: finding.message),
]


@app.callback()
def plans() -> None:
    """Plans: tasks with their dependencies."""


@command(app, "lint")
async def lint(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="goal file (.md, .yaml); - is standard input")],
) -> int | None:
    """Tell what is wrong with a goal's plan; exit 1 when it would be refused. Nothing is filed."""
    parsed = goal.read(file)
    reply = await session.call(session.goals.LintPlan, goal_service_pb2.LintPlanRequest(goal=parsed.goal))
    findings = [goal.located(finding, parsed) for finding in reply.findings]
    session.output.many(findings, COLUMNS, empty="nothing is wrong with it")
    refused = any(finding.severity == goal_pb2.Finding.SEVERITY_ERROR for finding in findings)
    return Code.REFUSED if refused else None
