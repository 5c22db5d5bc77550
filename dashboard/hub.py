"""What the dashboard asks the hub: calls with a deadline, as the person who looks, and what was last said while the
hub is away.

A read that finds no hub is answered with the same read's last answer, if this process has one, and the page says how
old it is. Nothing else is kept: an action that finds no hub fails.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf import message as protobuf

from agentcom.v1 import agent_service_pb2_grpc as agent_grpc
from agentcom.v1 import goal_service_pb2_grpc as goal_grpc
from agentcom.v1 import hub_service_pb2
from agentcom.v1 import hub_service_pb2_grpc as hub_grpc
from agentcom.v1 import notify_service_pb2_grpc as notify_grpc
from agentcom.v1 import registry_service_pb2_grpc as registry_grpc
from agentcom.v1 import task_service_pb2_grpc as task_grpc
from dashboard.config import HubConfig
from kit import channel, errors, status, version

ANSWERS_MAX: Final = 256
"""Last answers kept for the time that the hub is away: about the pages that a few people look at."""
ANSWER_BYTES_MAX: Final = 1024 * 1024
"""A larger answer is not kept."""
WATCH_S: Final = 3600.0
"""No stream lives for ever; a page opens it again."""

R = TypeVar("R", bound=protobuf.Message)


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: protobuf.Message
    at: float


class Hub:
    """The connection; one for the process, opened by the first call (never before a fork)."""

    def __init__(self, config: HubConfig) -> None:
        self.config = config
        self.address = channel.parse_address(config.address, field="hub.address")
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def caller(self, token: str | None) -> Caller:
        """Calls as the one with this token. Raises Invalid when it would cross a network in the clear."""
        proof = channel.token_metadata(token, self.address, plaintext=self.config.plaintext)
        return Caller(self, self._open(), (*version.metadata("dashboard"), *proof))

    def keep(self, key: bytes, answer: protobuf.Message) -> None:
        """Remember an answer."""
        if answer.ByteSize() > ANSWER_BYTES_MAX:
            return
        with self._lock:
            self._kept[key] = _Kept(answer, time.monotonic())
            self._kept.move_to_end(key)
            while len(self._kept) > ANSWERS_MAX:
                self._kept.popitem(last=False)

    def last(self, key: bytes) -> tuple[protobuf.Message, float] | None:
        """The last answer and its age in seconds."""
        with self._lock:
            kept = self._kept.get(key)
        return None if kept is None else (kept.answer, time.monotonic() - kept.at)

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None

    def _open(self) -> grpc.Channel:
        with self._lock:
            if self._channel is None:
                self._channel = self._connect()
            return self._channel

    def _connect(self) -> grpc.Channel:
        config = self.config
        if not self.address.tls:
            return grpc.insecure_channel(self.address.target, options=channel.OPTIONS)
        files = (config.ca, config.key, config.certificate)
        ca, key, certificate = [None if file is None else file.read_bytes() for file in files]
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        return grpc.secure_channel(self.address.target, credentials, options=channel.OPTIONS)


class Caller:
    """One request's view of the hub: its services, as one person."""

    def __init__(self, hub: Hub, wire: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._hub = hub
        self._metadata = metadata
        # Typed Any: the stubs are typed for both kinds of channel, and a union helps nobody here.
        self.tasks: Any = task_grpc.TaskServiceStub(wire)
        self.agents: Any = agent_grpc.AgentServiceStub(wire)
        self.goals: Any = goal_grpc.GoalServiceStub(wire)
        self.registry: Any = registry_grpc.RegistryServiceStub(wire)
        self.hub: Any = hub_grpc.HubServiceStub(wire)
        self.notify: Any = notify_grpc.NotifyServiceStub(wire)
        #: Age of the oldest answer that was shown because the hub is away; None: all are fresh.
        self.stale_s: float | None = None

    def read(self, method: Any, request: protobuf.Message) -> Any:
        """Ask; the last answer when the hub is away. Raises a Problem."""
        key = self._key(request)
        try:
            answer = self._call(method, request)
        except errors.Unavailable:
            last = self._hub.last(key)
            if last is None:
                raise
            answer, age_s = last
            self.stale_s = max(self.stale_s or 0.0, age_s)
            return answer
        self._hub.keep(key, answer)
        return answer

    def read_if_open(self, method: Any, request: protobuf.Message) -> Any | None:
        """The same; None when the hub is older than the question, or the caller may not ask it."""
        try:
            return self.read(method, request)
        except errors.Forbidden:
            return None
        except errors.Problem as problem:
            if problem.reason != grpc.StatusCode.UNIMPLEMENTED.name:
                raise
            return None

    def act(self, method: Any, request: protobuf.Message) -> Any:
        """Ask for a change. Raises a Problem."""
        return self._call(method, request)

    def watch(self, method: Any, request: protobuf.Message) -> Any:
        """A running stream, to be iterated on and cancelled by the caller."""
        return method(request, timeout=WATCH_S, metadata=self._metadata)

    def _call(self, method: Any, request: protobuf.Message) -> Any:
        try:
            return method(request, timeout=self._hub.config.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            problem = status.from_rpc_error(error)
            if problem.reason == grpc.StatusCode.UNIMPLEMENTED.name:
                problem.message = self._unknown(request)
            raise problem from error

    def _unknown(self, request: protobuf.Message) -> str:
        """What a person is told whose hub does not know a method; its version as it was last told."""
        last = self._hub.last(self._key(hub_service_pb2.GetHubRequest()))
        hub = last[0].hub.version if last is not None else ""  # type: ignore[attr-defined]  # the answer to that question
        method = request.DESCRIPTOR.name.removesuffix("Request")
        return version.unknown_method(hub, method, version.Node("dashboard", version.VERSION))

    def _key(self, request: protobuf.Message) -> bytes:
        """Names the question and who asks it: an answer is never shown to another person."""
        parts = (repr(self._metadata), request.DESCRIPTOR.full_name)
        digest = hashlib.sha256("\0".join(parts).encode())
        digest.update(request.SerializeToString(deterministic=True))
        return digest.digest()
