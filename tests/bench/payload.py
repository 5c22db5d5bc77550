"""The task that every row submits: about 1 KB on the wire, of the kind that people file."""

from __future__ import annotations

from typing import TypeAlias

from agentcom.v1 import task_pb2

TASK_BYTES = 1024
TITLE = "bench "

Lane: TypeAlias = "task_pb2.Lane.ValueType"
NORMAL: Lane = task_pb2.LANE_NORMAL


def spec(index: int, *, lane: Lane = NORMAL, capability: str = "", **labels: str) -> task_pb2.TaskSpec:
    """A contract of TASK_BYTES whose title carries the task's number, so that a sidecar knows it again."""
    made = task_pb2.TaskSpec(
        title=f"{TITLE}{index:09d}",
        lane=lane,
        command="true",
        labels={"bench": "yes", **labels},
    )
    if capability:
        made.requirement.capabilities.append(capability)
    made.instructions = _PROSE[: TASK_BYTES - made.ByteSize() - 3]
    return made


def index_of(title: str) -> int:
    """The number in a title; -1: not one of ours."""
    return int(title[len(TITLE) :]) if title.startswith(TITLE) else -1


_PROSE = (
    "Read the configuration before you change the parser, keep the public names, and add a test for each branch. " * 12
)
