"""Who this sidecar is: as configured, as enrolled before, or enrolled now at its first start.

The request id of an enrolment is on the disk before the call. When the reply is lost, the next try quotes it and gets
the same agent with a new token, instead of a name that is taken by nobody.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from pathlib import Path

import grpc
import msgspec

from agentcom.v1 import agent_service_pb2, agent_service_pb2_grpc
from kit import backoff, channel, errors, ids, logs, status
from sidecar.config import Settings
from sidecar.wire import state
from sidecar.wire.state import Identity

log = logs.get(__name__)

CALL_TIMEOUT_S = 10.0
RETRY_BASE_S = 0.5
RETRY_CAP_S = 30.0


def known(settings: Settings, folder: Path) -> Identity | None:
    """Who we are without asking the hub; None: not enrolled. Raises Invalid when the two ways to know contradict."""
    token = settings.token()
    kept = state.read_identity(folder)
    if token:
        agent = settings.agent or kept.agent
        if not agent:
            raise errors.Invalid.of("agent", "is required beside a token")
        return Identity(agent=agent, token=token)
    if not kept.agent:
        return None
    if settings.agent not in ("", kept.agent):
        raise errors.Invalid.of(
            "agent", f"is {settings.agent}, but {folder} belongs to the agent {kept.agent}; use another state_dir"
        )
    return kept


async def enrol(
    settings: Settings, folder: Path, stub: agent_service_pb2_grpc.AgentServiceAsyncStub, rng: random.Random
) -> Identity:
    """Become an agent and keep its token in the state folder; waits for a hub that is not there yet.

    Raises a Problem when the hub refuses. An agent of that name which exists on a hub that asks nobody for a token is
    taken as ours.
    """
    # The key goes up and the token comes down.
    address = channel.parse_address(settings.hub.address, field="hub.address")
    channel.keep_secret(address, "a join key", plaintext=settings.hub.plaintext)
    kept = state.read_identity(folder)
    if not kept.request_id:
        kept = msgspec.structs.replace(kept, request_id=str(uuid.UUID(int=rng.getrandbits(128), version=4)))
        state.write_identity(folder, kept)
    request = agent_service_pb2.EnrollAgentRequest(
        agent_id=settings.agent,
        join_key=settings.join_key(),
        display_name=settings.display_name,
        request_id=kept.request_id,
    )
    attempt = 0
    while True:
        try:
            response = await stub.EnrollAgent(request, timeout=CALL_TIMEOUT_S)
            break
        except grpc.aio.AioRpcError as error:
            problem = status.from_rpc_error(error)
            if isinstance(problem, errors.AlreadyExists) and settings.agent and not request.join_key:
                log.warning("agent.exists", agent=settings.agent)
                return Identity(agent=settings.agent)
            if not isinstance(problem, errors.Unavailable | errors.Exhausted):
                raise problem from error
        delay_s = backoff.full_jitter(attempt, RETRY_BASE_S, RETRY_CAP_S, rng) + (problem.retry_delay_s or 0.0)
        log.warning(
            "enrolment.delayed", reason=problem.reason, message=problem.message, retry_delay_s=round(delay_s, 3)
        )
        await asyncio.sleep(delay_s)
        attempt += 1
    identity = Identity(
        agent=ids.parse_name("agents", response.agent.name, field="agent.name"),
        token=response.token,
        request_id=kept.request_id,
    )
    state.write_identity(folder, identity)
    log.info("agent.enrolled", agent=identity.agent)
    return identity
