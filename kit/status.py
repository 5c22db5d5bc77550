"""The one table from a Problem to a gRPC status, and the way back.

Every status carries ErrorInfo (reason, domain "agentcom", metadata), and beside it the detail that fits the kind:
BadRequest, RetryInfo, PreconditionFailure or QuotaFailure.
"""

from __future__ import annotations

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from kit import errors, secrecy

DOMAIN = "agentcom"

CODES: dict[type[errors.Problem], grpc.StatusCode] = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.IllegalState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.Fenced: grpc.StatusCode.ABORTED,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
}

# A status travels in HTTP/2 trailers, which peers cut off at 8 KiB by default, and the message travels in them twice
# (percent-encoded and inside the details, which are base64). What is longer is shortened, and says so.
MESSAGE_BYTES_MAX = 600
TEXT_BYTES_MAX = 200
METADATA_COUNT_MAX = 12
VIOLATIONS_BYTES_MAX = 2_000


def code_of(problem: errors.Problem) -> grpc.StatusCode:
    """The gRPC code of a problem; a subclass without an entry has its parent's, a bare Problem is INTERNAL."""
    for kind in type(problem).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def to_status(problem: errors.Problem) -> grpc.Status:
    """The status that tells a caller about a problem."""
    status: grpc.Status = rpc_status.to_status(to_proto(problem))
    return status


def to_proto(problem: errors.Problem) -> status_pb2.Status:
    """The same as a google.rpc.Status."""
    proto = status_pb2.Status(code=code_of(problem).value[0], message=_cut(problem.message, MESSAGE_BYTES_MAX))
    info = error_details_pb2.ErrorInfo(reason=problem.reason, domain=DOMAIN)
    for key, value in list(problem.metadata.items())[:METADATA_COUNT_MAX]:
        info.metadata[_cut(key, TEXT_BYTES_MAX)] = _cut(value, TEXT_BYTES_MAX)
    proto.details.add().Pack(info)
    if isinstance(problem, errors.Invalid) and problem.violations:
        proto.details.add().Pack(_bad_request(problem.violations))
    elif isinstance(problem, errors.IllegalState):
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(
            type=problem.reason,
            subject=_cut(problem.metadata.get("name", ""), TEXT_BYTES_MAX),
            description=_cut(f"the state is {problem.state}", TEXT_BYTES_MAX),
        )
        proto.details.add().Pack(failure)
    elif isinstance(problem, errors.Exhausted):
        quota = error_details_pb2.QuotaFailure()
        subject = _cut(problem.metadata.get("subject", problem.reason), TEXT_BYTES_MAX)
        quota.violations.add(subject=subject, description=_cut(problem.message, TEXT_BYTES_MAX))
        proto.details.add().Pack(quota)
    if problem.retry_delay_s is not None:
        proto.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=_duration(problem.retry_delay_s)))
    return proto


def from_rpc_error(error: grpc.RpcError) -> errors.Problem:
    """What the other side meant: a Problem of the same kind, with its reason, fields and delay.

    Codes that no kind has (INTERNAL, UNKNOWN, UNIMPLEMENTED, ...) become a bare Problem whose reason is the code's
    name, unless the status says better. DEADLINE_EXCEEDED counts as Unavailable: nobody said no.
    """
    code: grpc.StatusCode = error.code()
    info, request, failure, retry = _details(error)
    message = error.details() or code.name.lower().replace("_", " ")
    reason = info.reason or code.name
    metadata = dict(info.metadata)
    delay = retry.retry_delay.ToTimedelta().total_seconds() if retry is not None else None
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        violations = [errors.Violation(v.field, v.description, v.reason) for v in request.field_violations]
        return errors.Invalid(message, violations=violations, reason=reason, metadata=metadata)
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        state = metadata.get("state") or next((v.description for v in failure.violations), "unknown")
        refused = errors.IllegalState(message, state=state, reason=reason, metadata=metadata)
        refused.retry_delay_s = delay
        return refused
    kind = _KINDS.get(code, errors.Problem)
    if reason == errors.Fenced.default_reason and kind is errors.Conflict:
        kind = errors.Fenced
    return kind(message, reason=reason, metadata=metadata, retry_delay_s=delay)


# The way back: the first kind of each code (Fenced is told apart by its reason).
_KINDS: dict[grpc.StatusCode, type[errors.Problem]] = {
    **{code: kind for kind, code in reversed(CODES.items()) if kind is not errors.Fenced},
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
}


def _details(
    error: grpc.RpcError,
) -> tuple[
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.RetryInfo | None,
]:
    """The details of a status; empty ones where the status has none or they cannot be read."""
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    failure, retry = error_details_pb2.PreconditionFailure(), error_details_pb2.RetryInfo()
    has_retry = False
    try:
        proto = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has the accessors too
    except ValueError:  # code or message of the details contradict the status: trust neither
        proto = None
    for detail in proto.details if proto is not None else ():
        has_retry |= detail.Unpack(retry)
        _ = detail.Unpack(info) or detail.Unpack(request) or detail.Unpack(failure)
    return info, request, failure, retry if has_retry else None


def _bad_request(violations: tuple[errors.Violation, ...]) -> error_details_pb2.BadRequest:
    request = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        if request.ByteSize() > VIOLATIONS_BYTES_MAX:
            request.field_violations.add(field="...", description=f"and {len(violations) - index} more")
            break
        request.field_violations.add(
            field=_cut(violation.field, TEXT_BYTES_MAX),
            description=_cut(violation.description, TEXT_BYTES_MAX),
            reason=_cut(violation.rule, TEXT_BYTES_MAX),
        )
    return request


def _duration(seconds: float) -> duration_pb2.Duration:
    whole, nanos = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return duration_pb2.Duration(seconds=whole, nanos=nanos)


def _cut(text: str, bytes_max: int) -> str:
    """What is said to the outside: no secret (who sent one to the wrong field may log the answer), and not too long.

    The search is bounded, too, and before the cut: no secret slips through because the bound falls into it.
    """
    text = secrecy.hide(text[: bytes_max * 2])
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return data.decode()
    return data[: bytes_max - 3].decode("utf-8", "ignore") + "..."
