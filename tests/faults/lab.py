"""What a scenario works with: a fleet that writes down what is done to its processes, clients that write down what
they sent and got, and the judgement of the oracle at the end.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from agentcom.v1 import task_pb2, task_service_pb2
from tests.faults.scenario import Twin
from tests.oracle import check, reading
from tests.oracle.record import History, Op, Rules, Verb, write_lines
from tests.support.fleet import Fleet, spec
from tests.support.processes import Process

#: Request ids begin with this, and titles that are request ids (so that the store can say what a request made).
REQUEST_PREFIX = "r-"
#: Answers that say that nothing was done. All others, and none at all, leave it open.
REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)


class Lab(Fleet):
    """A fleet under observation. Use its own verbs (kill, freeze, ...), so that the oracle knows of them."""

    def __init__(self, root: Path, rng: random.Random, size: Mapping[str, Any], twin: Twin | None = None) -> None:
        super().__init__(root)
        self.rng = rng
        self.size = size
        self.twin = twin
        self.ops: list[Op] = []

    # Processes

    async def kill_hub(self) -> None:
        await super().kill_hub()
        self.note("hub", Verb.PROCESS_DIED, "KILL")

    async def stop_hub(self) -> int:
        """Ask the hub to end, and wait; its exit code."""
        assert self.hub is not None
        code = await self.hub.stop()
        self.note("hub", Verb.PROCESS_DIED, "TERM")
        return code

    def freeze_hub(self) -> None:
        """Let the hub stand still."""
        assert self.hub is not None
        self.hub.freeze()
        self.note("hub", Verb.PROCESS_FROZEN)

    def thaw_hub(self) -> None:
        """Let it go on."""
        assert self.hub is not None
        self.note("hub", Verb.PROCESS_THAWED)
        self.hub.thaw()

    async def start_sidecar(self, agent: str, **settings: Any) -> Process:
        settings.setdefault("log_level", "debug")
        self.note(f"sidecar/{agent}", Verb.PROCESS_STARTED)
        return await super().start_sidecar(agent, **settings)

    async def kill_sidecar(self, agent: str) -> None:
        """End a sidecar as a crash would."""
        await self.sidecars[agent].kill()
        self.note(f"sidecar/{agent}", Verb.PROCESS_DIED, "KILL")

    def freeze(self, agent: str) -> None:
        """Let a sidecar stand still, as a machine that is suspended."""
        self.sidecars[agent].freeze()
        self.note(f"sidecar/{agent}", Verb.PROCESS_FROZEN)

    def thaw(self, agent: str) -> None:
        """Let it go on."""
        self.note(f"sidecar/{agent}", Verb.PROCESS_THAWED)
        self.sidecars[agent].thaw()

    def signal(self, agent: str, number: signal.Signals) -> None:
        """Send a sidecar a signal."""
        self.sidecars[agent].signal(number)

    # Clients

    def note(self, node: str, verb: Verb, detail: str = "", **fields: Any) -> None:
        """A line of the operation log."""
        self.ops.append(Op(time.time(), node, verb, detail=detail, **fields))

    def request_id(self) -> str:
        """A fresh request id, of this seed."""
        return f"{REQUEST_PREFIX}{self.rng.getrandbits(64):016x}"

    async def file(
        self, request_id: str, contract: task_pb2.TaskSpec | None = None, *, client: str = "client/1", **options: Any
    ) -> str:
        """File one task and write down what came of it; its name. The title becomes the request id.

        Raises AioRpcError when the hub refuses or does not answer.
        """
        asked = contract or spec()
        asked.title = request_id
        request = task_service_pb2.CreateTaskRequest(spec=asked, request_id=request_id)
        self.note(client, Verb.SUBMIT_SENT, request=request_id)
        try:
            reply = await self.tasks.CreateTask(request, **{"wait_for_ready": False, "timeout": 10, **options})
        except grpc.aio.AioRpcError as error:
            verb = Verb.SUBMIT_REFUSED if error.code() in REFUSALS else Verb.SUBMIT_UNKNOWN
            self.note(client, verb, error.code().name, request=request_id)
            raise
        name = str(reply.task.name)
        self.note(client, Verb.SUBMIT_ACKED, request=request_id, task=name.removeprefix("tasks/"))
        return name

    async def submit(self, *specs: task_pb2.TaskSpec) -> list[str]:
        names = await super().submit(*specs)
        for name in names:
            self.note("client/1", Verb.SUBMIT_ACKED, task=name.removeprefix("tasks/"))
        return names

    # Judgement

    async def judge(self, rules: Rules | None = None) -> History:
        """End the hub, read all logs and let the oracle judge them. Raises check.Broken. For the end of a scenario."""
        found = await self.end()
        check.check(found, rules)
        return found

    async def end(self) -> History:
        """End the hub and read everything that was written: its store, and all operation logs."""
        assert self.hub is not None
        if self.hub.is_running:
            await self.stop_hub()
        events, tasks, attempts, titles = await reading.read_store(self.data / "store")
        requests = reading.requests_of(titles, REQUEST_PREFIX)
        return History(events=events, ops=self.all_ops(), tasks=tasks, attempts=attempts, requests=requests)

    def all_ops(self) -> list[Op]:
        """The operation logs of all nodes so far, in the order of time."""
        found = list(self.ops)
        for agent, process in self.sidecars.items():
            found += reading.sidecar_ops(agent, process.said())
        return sorted(found, key=lambda op: op.at)

    def write_ops(self, folder: Path) -> None:
        """Write the operation logs of all nodes as JSON lines, for whoever looks into a failure."""
        (folder / "ops.jsonl").write_text(write_lines(self.all_ops()))

    def _command(self, node: str) -> list[str]:
        twin = self.twin
        if twin is None or twin.node != node:
            return super()._command(node)
        return [sys.executable, "-m", "tests.faults.broken", node, ",".join(twin.guards), "--"]


def names_of(ops: Sequence[Op]) -> list[str]:
    """Names of the tasks whose submit was acked, each once."""
    return list(dict.fromkeys(f"tasks/{op.task}" for op in ops if op.verb is Verb.SUBMIT_ACKED))
