"""A WORK attempt without a repository: an empty folder, the work, the checks in that folder."""

from __future__ import annotations

from pathlib import Path

from sidecar.core import contract, fault
from sidecar.core.assignment import Done
from sidecar.executors.base import Job
from sidecar.hands.attempt import Attempt
from sidecar.hands.verify import Subject, red, run_checks
from sidecar.repo import workspace


async def run(attempt: Attempt) -> Done:
    """Do the work. Raises Fault. The folder is gone afterwards: the result is what was printed."""
    task, tools = attempt.task, attempt.tools
    executor = tools.executors.choose(task)
    if task.delivery != "none":
        raise fault.Fault("a change cannot be delivered without a repo", reason="REPO_MISSING", attribution="task")
    attempt.phase("workspace")
    folder = await tools.workspaces.scratch(task.holding)
    try:
        variables = workspace.environment(task, _contract(attempt, folder), agent=tools.agent)
        attempt.phase("execute")
        job = Job(
            task=task, tree=folder, control=attempt.control, variables=variables, start=attempt.child, say=attempt.say
        )
        result = await attempt.executed(executor, job)
        attempt.tokens = result.tokens
        if task.checks:
            attempt.phase("checks")
            subject = Subject(tree=folder, phase="head")
            receipts = await run_checks(attempt, task.checks, subject, variables=variables)
            attempt.receipts += receipts
            failed = red(receipts)
            if failed is not None:
                raise failed
    finally:
        await tools.workspaces.remove_scratch(task.holding)
    return Done(summary=result.summary or task.title, receipts=tuple(attempt.receipts), tokens=attempt.tokens)


def _contract(attempt: Attempt, folder: Path) -> Path:
    path = folder / workspace.CONTRACT_FOLDER / workspace.CONTRACT_FILE
    path.parent.mkdir()
    path.write_text(contract.text(attempt.task, base_sha="", branch=""))
    return path
