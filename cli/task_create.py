"""`agentcom task create`: one task without a goal, from options."""

from __future__ import annotations

from typing import Annotated

import typer

from agentcom.v1 import task_pb2, task_service_pb2
from cli import output, task_watch, words
from cli.session import Session, request_id


async def create(
    session: Session,
    title: Annotated[str, typer.Argument(metavar="TITLE", help="one line that says what the task is for")],
    run: Annotated[str, typer.Option("--command", "-c", help="shell command of a trivial task")] = "",
    instructions: Annotated[str, typer.Option("--instructions", help="what the worker has to know, in prose")] = "",
    repo: Annotated[str, typer.Option("--repo", help="repository to work on; without it an empty folder")] = "",
    check: Annotated[list[str] | None, typer.Option("--check", help="command that must hold; may be repeated")] = None,
    kind: Annotated[str, typer.Option("--kind", help="work or verify")] = "",
    lane: Annotated[str, typer.Option("--lane", help="urgent, high, normal or low")] = "",
    tier: Annotated[str, typer.Option("--tier", help="trivial, standard or complex")] = "",
    delivery: Annotated[str, typer.Option("--delivery", help="none, branch or merge")] = "",
    executor: Annotated[str, typer.Option("--executor", help="executor that must run it")] = "",
    agent: Annotated[str, typer.Option("--agent", help="the only agent that may have it")] = "",
    require: Annotated[list[str] | None, typer.Option("--require", help="capability; may be repeated")] = None,
    depends_on: Annotated[
        list[str] | None, typer.Option("--depends-on", metavar="TASK", help="may be repeated")
    ] = None,
    on_dependency: Annotated[str, typer.Option("--if-dependency-fails", help="fail or park")] = "",
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="may be repeated")] = None,
    attempts_max: Annotated[int, typer.Option("--attempts", min=0, help="0: the hub's default, 3")] = 0,
    start_timeout: Annotated[str, typer.Option("--start-timeout", help="from its assignment to its acceptance")] = "",
    run_timeout: Annotated[str, typer.Option("--run-timeout", help="for one attempt: 90s, 5m, 2h")] = "",
    silence_timeout: Annotated[str, typer.Option("--silence-timeout", help="silent for so long counts as hung")] = "",
    start: Annotated[str, typer.Option("--start", metavar="TIME", help="not before this time (ISO 8601)")] = "",
    queue_deadline: Annotated[
        str, typer.Option("--queue-deadline", metavar="TIME", help="given up when not assigned by then")
    ] = "",
    isolation: Annotated[
        str, typer.Option("--isolation", help="preferred, or required: only where commands run in a sandbox")
    ] = "",
    network: Annotated[bool, typer.Option("--network", help="grant its commands the network")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="wait for its end; exit 0 only on success")] = False,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="only check; nothing is filed")] = False,
    request: Annotated[str | None, typer.Option("--request-id", help="the same id files one task only")] = None,
) -> int | None:
    """File one task."""
    spec = task_pb2.TaskSpec(
        title=title,
        instructions=instructions,
        command=run,
        kind=words.enum_number("--kind", kind, task_pb2.TaskKind, "TASK_KIND_"),
        lane=words.enum_number("--lane", lane, task_pb2.Lane, "LANE_"),
        tier=words.enum_number("--tier", tier, task_pb2.Tier, "TIER_"),
        delivery=words.enum_number("--delivery", delivery, task_pb2.Delivery, "DELIVERY_"),
        dependency_policy=words.enum_number(
            "--if-dependency-fails", on_dependency, task_pb2.DependencyPolicy, "DEPENDENCY_POLICY_"
        ),
        repo=words.full_name("repos", repo) if repo else "",
        checks=[task_pb2.Check(run=command) for command in check or ()],
        depends_on=words.full_names("tasks", depends_on),
        labels=words.pairs("--label", label),
        attempts_max=attempts_max,
    )
    if isolation or network:
        spec.policy.isolation = words.enum_number("--isolation", isolation, task_pb2.Policy.Isolation, "ISOLATION_")
        spec.policy.network = network
    _set_requirement(spec, require, executor, agent)
    _set_times(
        spec,
        {"start_timeout": start_timeout, "run_timeout": run_timeout, "silence_timeout": silence_timeout},
        {"start_time": start, "queue_deadline": queue_deadline},
    )
    ask = task_service_pb2.CreateTaskRequest(spec=spec, request_id=request_id(request), validate_only=validate_only)
    task = (await session.call(session.tasks.CreateTask, ask)).task
    if wait and not validate_only:
        return await task_watch.to_the_end(session, [task.name])
    session.output.one(task, lambda task: output.cell("valid" if validate_only else f"filed {task.name}"))
    return None


def _set_requirement(spec: task_pb2.TaskSpec, require: list[str] | None, executor: str, agent: str) -> None:
    if require or executor or agent:
        spec.requirement.capabilities.extend(require or ())
        spec.requirement.executor = executor
        spec.requirement.agent = words.full_name("agents", agent) if agent else ""


def _set_times(spec: task_pb2.TaskSpec, durations: dict[str, str], times: dict[str, str]) -> None:
    """Each by the name of its field; the option is called like it, and an empty text sets nothing."""
    for field, text in durations.items():
        if text:
            getattr(spec, field).CopyFrom(words.duration(f"--{field.replace('_', '-')}", text))
    for field, text in times.items():
        if text:
            option = field.removesuffix("_time").replace("_", "-")
            getattr(spec, field).CopyFrom(words.time_stamp(f"--{option}", text))
