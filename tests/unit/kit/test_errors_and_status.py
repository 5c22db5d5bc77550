"""Problems become statuses and come back as the same problems."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from kit import errors, ledger, status

EXAMPLES = [
    errors.NotFound("task tasks/7 does not exist", metadata={"name": "tasks/7"}),
    errors.AlreadyExists("agent agents/a exists"),
    errors.IllegalState("task tasks/7 is succeeded, cannot cancel", state="succeeded", metadata={"name": "tasks/7"}),
    errors.Conflict("etag differs", reason="ETAG_MISMATCH"),
    errors.Fenced("generation 3 is not 4", metadata={"generation": 4}),
    errors.Exhausted("queue is full", retry_delay_s=1.5),
    errors.Invalid.of("title", "must not be empty"),
    errors.Unavailable("hub drains", retry_delay_s=0.25),
    errors.OutOfRange("events behind 3 are not kept any more", reason="POSITION_GONE", metadata={"oldest": "8"}),
    errors.Unauthenticated("no token"),
    errors.Forbidden("viewer may not cancel"),
    errors.DataLoss("record tasks/7 fails its checksum"),
]


class Refusal(grpc.RpcError):
    """What a client sees of a status, without a wire."""

    def __init__(self, made: grpc.Status) -> None:
        self._made = made

    def code(self) -> grpc.StatusCode:
        return self._made.code

    def details(self) -> str:
        return self._made.details

    def trailing_metadata(self):
        return self._made.trailing_metadata


def detail(problem, kind):
    found = kind()
    hits = [d for d in status.to_proto(problem).details if d.Unpack(found)]
    assert len(hits) <= 1, "at most one of each type"
    return found if hits else None


def test_every_kind_of_problem_has_a_code_of_its_own():
    kinds = {k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.Problem)}
    assert kinds - {errors.Problem} == set(status.CODES)
    assert {type(p) for p in EXAMPLES} == set(status.CODES)


@pytest.mark.parametrize("problem", EXAMPLES, ids=lambda p: type(p).__name__)
def test_a_problem_comes_back_from_the_wire_as_the_same_problem(problem):
    back = status.from_rpc_error(Refusal(status.to_status(problem)))
    assert type(back) is type(problem)
    assert (back.message, back.reason, back.metadata, back.retry_delay_s) == (
        problem.message,
        problem.reason,
        problem.metadata,
        problem.retry_delay_s,
    )
    if isinstance(problem, errors.Invalid):
        assert back.violations == problem.violations
    if isinstance(problem, errors.IllegalState):
        assert back.state == problem.state


@pytest.mark.parametrize("problem", EXAMPLES, ids=lambda p: type(p).__name__)
def test_every_status_carries_error_info_of_our_domain(problem):
    info = detail(problem, error_details_pb2.ErrorInfo)
    assert info.domain == "agentcom"
    assert info.reason == problem.reason
    assert info.reason.isupper()


def test_a_bad_field_is_named_in_bad_request():
    request = detail(errors.Invalid.of("task.title", "is empty"), error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in request.field_violations] == [("task.title", "is empty")]


def test_an_illegal_state_is_told_in_precondition_failure():
    failure = detail(EXAMPLES[2], error_details_pb2.PreconditionFailure)
    assert [(v.subject, v.description) for v in failure.violations] == [("tasks/7", "the state is succeeded")]


def test_an_exhausted_quota_says_which_and_when_to_come_back():
    problem = errors.Exhausted("queue is full", metadata={"subject": "tasks"}, retry_delay_s=1.5)
    assert detail(problem, error_details_pb2.QuotaFailure).violations[0].subject == "tasks"
    assert detail(problem, error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds() == 1.5


def test_a_subclass_is_told_under_the_code_of_its_parent():
    assert status.code_of(ledger.Gap("missing")) is grpc.StatusCode.ABORTED


def test_a_problem_without_a_kind_is_internal():
    assert status.code_of(errors.Problem("odd")) is grpc.StatusCode.INTERNAL


def test_a_huge_problem_stays_below_what_trailers_can_carry():
    text = "ä" * 10_000
    problem = errors.Invalid(
        text,
        violations=[errors.Violation(text, text, text) for _ in range(1000)],
        metadata={f"{i}{text}": text for i in range(1000)},
    )
    made = status.to_status(problem)
    trailers = sum(len(v) * 4 // 3 for _, v in made.trailing_metadata) + 3 * len(made.details.encode())
    assert trailers < 15_000, "the servers and clients of kit/ allow 16 KiB"
    usual = errors.Invalid(violations=[errors.Violation(f"task.checks[{i}]", "is too long") for i in range(100)])
    made = status.to_status(usual)
    assert sum(len(v) * 4 // 3 for _, v in made.trailing_metadata) + len(made.details) < 8_000, "what others allow"
    last = detail(usual, error_details_pb2.BadRequest).field_violations[-1]
    assert last.field == "..."
    assert "more" in last.description


def test_a_status_of_a_stranger_is_still_readable():
    class Plain(Refusal):
        def __init__(self, code, text):
            self._code, self._text = code, text

        def code(self):
            return self._code

        def details(self):
            return self._text

        def trailing_metadata(self):
            return ()

    gone = status.from_rpc_error(Plain(grpc.StatusCode.UNAVAILABLE, "connection refused"))
    assert isinstance(gone, errors.Unavailable)
    assert gone.message == "connection refused"
    assert isinstance(status.from_rpc_error(Plain(grpc.StatusCode.DEADLINE_EXCEEDED, "")), errors.Unavailable)
    odd = status.from_rpc_error(Plain(grpc.StatusCode.UNIMPLEMENTED, None))
    assert type(odd) is errors.Problem
    assert odd.reason == "UNIMPLEMENTED"


def test_a_delay_of_almost_a_second_is_still_a_valid_duration():
    problem = errors.Unavailable("soon", retry_delay_s=1.9999999999)
    delay = detail(problem, error_details_pb2.RetryInfo).retry_delay
    assert delay.seconds + delay.nanos / 1e9 == pytest.approx(2.0)
    assert delay.nanos < 1_000_000_000


def test_invalid_makes_its_message_from_its_violations():
    problem = errors.Invalid(violations=[errors.Violation("a", "is bad"), errors.Violation("b", "is worse")])
    assert str(problem) == "a: is bad; b: is worse"
