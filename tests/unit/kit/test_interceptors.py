"""What a caller sees of a handler that refuses, fails or is given nonsense, for all four kinds of RPC."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from structlog.testing import capture_logs

from kit import errors, interceptors, principal, status, validation
from tests.unit.kit.wire_service import KINDS, NAME, Echo, Wire, outcome


async def first(request):
    if hasattr(request, "name"):
        return request
    async for message in request:
        return message
    return None


def handlers(body):
    """The same behaviour in all handler styles: coroutines, generators and `context.write` streams."""

    async def unary(request, context):
        return Echo(name=await body(await first(request), context))

    async def generator(request, context):
        yield Echo(name=await body(await first(request), context))

    async def writer(request, context):
        await context.write(Echo(name=await body(await first(request), context)))

    return {
        "generators": {
            "unary_unary": unary,
            "stream_unary": unary,
            "unary_stream": generator,
            "stream_stream": generator,
        },
        "writers": {"unary_unary": unary, "stream_unary": unary, "unary_stream": writer, "stream_stream": writer},
    }


EVERY = [(style, kind) for style in ("generators", "writers") for kind in KINDS]


async def ask(body, style, kind, name="x", **options):
    async with Wire(**options, **handlers(body)[style]) as wire:
        return await outcome(wire.call(kind, Echo(name=name), [Echo(name=name)]), kind)


async def refusal(body, style, kind, name="x", **options):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ask(body, style, kind, name, **options)
    return error.value


@pytest.mark.parametrize(("style", "kind"), EVERY)
async def test_what_a_handler_answers_passes_through(style, kind):
    async def body(request, _context):
        return request.name + principal.current().scope

    assert await ask(body, style, kind) == ["xadmin"]


@pytest.mark.parametrize(("style", "kind"), EVERY)
async def test_a_problem_becomes_its_status(style, kind):
    async def body(_request, _context):
        raise errors.NotFound("task tasks/7 does not exist", metadata={"name": "tasks/7"})

    problem = status.from_rpc_error(await refusal(body, style, kind))
    assert isinstance(problem, errors.NotFound)
    assert problem.metadata == {"name": "tasks/7"}


@pytest.mark.parametrize(("style", "kind"), EVERY)
async def test_a_problem_inside_a_task_group_is_found(style, kind):
    async def fail():
        raise errors.Fenced("generation 3 is not 4")

    async def body(_request, _context):
        async with asyncio.TaskGroup() as outer:
            outer.create_task(nested())
        return ""

    async def nested():
        async with asyncio.TaskGroup() as inner:
            inner.create_task(fail())

    assert isinstance(status.from_rpc_error(await refusal(body, style, kind)), errors.Fenced)


@pytest.mark.parametrize(("style", "kind"), EVERY)
async def test_a_bug_is_internal_with_an_incident_and_one_log_line(style, kind):
    async def body(_request, _context):
        raise KeyError("the secret inside")

    with capture_logs() as lines:
        error = await refusal(body, style, kind)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    problem = status.from_rpc_error(error)
    assert [line["incident"] for line in lines] == [problem.metadata["incident"]]
    assert problem.metadata["incident"] in error.details()
    assert isinstance(lines[0]["exc_info"], KeyError)


async def test_a_group_of_several_errors_is_a_bug():
    async def body(_request, _context):
        raise ExceptionGroup("two", [errors.NotFound("a"), errors.NotFound("b")])

    with capture_logs():
        error = await refusal(body, "generators", "unary_unary")
    assert error.code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(("style", "kind"), EVERY)
async def test_a_message_that_breaks_a_rule_never_reaches_the_handler(style, kind):
    seen = []

    async def body(request, _context):
        seen.append(request)
        return ""

    before = validation.violation_counts[f"/{NAME}/{kind}", "string.min_len"]
    problem = status.from_rpc_error(await refusal(body, style, kind, name=""))
    assert isinstance(problem, errors.Invalid)
    assert [v.field for v in problem.violations] == ["name"]
    assert seen == []
    assert validation.violation_counts[f"/{NAME}/{kind}", "string.min_len"] == before + 1


async def test_every_message_of_a_stream_is_checked_and_not_only_the_first():
    seen = []

    async def collect(requests, _context):
        async for message in requests:
            seen.append(message.name)  # noqa: PERF401  # a failing comprehension would keep nothing
        return Echo(name="done")

    async with Wire(stream_unary=collect) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await wire.call("stream_unary", requests=[Echo(name="a"), Echo(name="b"), Echo(name="")])
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert seen == ["a", "b"]


@pytest.mark.parametrize(("style", "kind"), EVERY)
async def test_a_caller_that_is_not_let_in_gets_no_further(style, kind):
    seen = []

    async def body(request, _context):
        seen.append(request)
        return ""

    def deny(_context, method):
        raise errors.Unauthenticated("no token", metadata={"method": method})

    error = await refusal(body, style, kind, authenticate=deny)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert status.from_rpc_error(error).metadata == {"method": f"/{NAME}/{kind}"}
    assert seen == []


async def test_who_is_not_let_in_learns_nothing_of_the_rules():
    def deny(_context, _method):
        raise errors.Forbidden("no")

    error = await refusal(None, "generators", "unary_unary", name="", authenticate=deny)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_principal_of_one_call_is_not_seen_by_another():
    async def body(_request, _context):
        return principal.current().name

    def by_header(context, _method):
        return principal.Principal(dict(context.invocation_metadata())["who"], "viewer")

    async with Wire(by_header, **handlers(body)["generators"]) as wire:
        calls = [wire.call("unary_unary", Echo(name="x"), metadata=(("who", f"p{n}"),)) for n in range(20)]
        assert [(await call).name for call in calls] == [f"p{n}" for n in range(20)]


async def test_a_handler_that_aborts_by_itself_keeps_its_status():
    async def body(_request, context):
        await context.abort(grpc.StatusCode.DATA_LOSS, "as it wishes")

    with capture_logs() as lines:
        error = await refusal(body, "generators", "unary_unary")
    assert (error.code(), error.details(), lines) == (grpc.StatusCode.DATA_LOSS, "as it wishes", [])


async def test_a_cancelled_handler_is_cancelled_and_not_an_incident():
    entered, ended = asyncio.Event(), asyncio.Event()

    async def body(_request, _context):
        entered.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ended.set()
            raise

    with capture_logs() as lines:
        async with Wire(**handlers(body)["generators"]) as wire:
            call = wire.call("unary_unary", Echo(name="x"))
            await entered.wait()
            call.cancel()
            async with asyncio.timeout(5):
                await ended.wait()
    assert lines == []


async def test_a_generator_that_is_left_behind_runs_its_clean_up_before_the_call_is_over():
    steps = []

    async def endless(_request, _context):
        try:
            while True:
                yield Echo(name="y")
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned")

    gate = interceptors.Gate(lambda _context, _method: principal.Principal("t", "admin"))
    handler = grpc.unary_stream_rpc_method_handler(endless)

    class Details:
        method = f"/{NAME}/unary_stream"

    async def found(_details):
        return handler

    class Context:
        written = asyncio.Event()

        async def send_initial_metadata(self, _metadata):
            pass

        async def write(self, _message):
            self.written.set()
            await asyncio.Event().wait()

    context = Context()
    call = (await gate.intercept_service(found, Details())).unary_stream(Echo(name="x"), context)
    running = asyncio.ensure_future(call)
    await context.written.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled() and steps == ["cleaned"]


async def test_a_method_is_wrapped_once_and_a_missing_one_is_unimplemented():
    async def body(_request, _context):
        return "y"

    gate = interceptors.Gate(lambda _context, _method: principal.Principal("t", "admin"))
    handler = grpc.unary_unary_rpc_method_handler(handlers(body)["generators"]["unary_unary"])

    class Details:
        method = f"/{NAME}/unary_unary"
        invocation_metadata = ()

    async def found(_details):
        return handler

    async def missing(_details):
        return None

    once = await gate.intercept_service(found, Details())
    assert await gate.intercept_service(found, Details()) is once
    assert await gate.intercept_service(missing, Details()) is None


def test_the_path_of_a_field_goes_through_lists():
    with pytest.raises(errors.Invalid) as invalid:
        validation.check(Echo(name="x", parts=[{"name": "a"}, {}]))
    assert [(v.field, v.rule) for v in invalid.value.violations] == [("parts[1].name", "string.min_len")]


def test_a_message_with_very_many_faults_is_answered_shortly():
    with pytest.raises(errors.Invalid) as invalid:
        validation.check(Echo(name="x", parts=[{}] * 5000))
    assert len(invalid.value.violations) == validation.VIOLATIONS_MAX + 1
    assert invalid.value.violations[-1].description == "and 4900 more"
    assert invalid.value.metadata == {"violations": "5000"}


def test_warming_up_takes_messages_that_would_not_pass():
    validation.warm_up([Echo])


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_that_are_no_message_are_invalid_and_not_unknown(kind):
    async def body(request, context):
        return request.name

    async with Wire(**handlers(body)["generators"]) as wire:
        call = getattr(wire.channel, kind)(f"/{NAME}/{kind}")
        garbage = b"\xff\xff\xff"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await outcome(call(iter([garbage]) if kind.startswith("stream") else garbage), kind)
    assert status.from_rpc_error(refused.value).reason == "GARBLED"
