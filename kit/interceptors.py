"""What stands before every handler: who calls, is the message within its rules, and what a failure looks like outside.

One interceptor does all three in one wrapper, because it is on the path of every call. It wraps a method once and keeps
the result. Every wrapper is a coroutine: what a handler yields is written here, where a reader that does not read is
noticed.

A streaming handler reads with `async for message in requests`. Messages taken with `context.read()` would pass by the
rules, which tests/unit/test_layers.py therefore forbids.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import grpc
from google.protobuf import message as protobuf
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from kit import errors, leash, logs, principal, status, validation, wire

log = logs.get(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
#: Says who calls, from the call's metadata and TLS identity, or raises Unauthenticated or Forbidden. Must not block.
Authenticate = Callable[[Context, str], principal.Principal]

#: Hears of every problem that a call of a known caller ends with; gives the one that the caller is told.
Observe = Callable[[Context, str, principal.Principal, errors.Problem], errors.Problem]
#: For the length of a stream: gives the leash by which it can be ended before its time.
Hold = Callable[[principal.Principal], AbstractContextManager[leash.Leash]]
#: Called with a request that was checked, before its handler: refuses one that costs too much.
Charge = Callable[[principal.Principal, Any], None]

Check = Callable[[Any, Context], Any]

# Health is asked by machines without a token, and reflection tells only what is published anyway.
OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
NOBODY = principal.Principal(name="anonymous", scope="none")


class Gate(grpc.aio.ServerInterceptor):
    """Authenticates, validates and translates errors, for every kind of RPC."""

    def __init__(
        self,
        authenticate: Authenticate,
        *,
        observe: Observe | None = None,
        hold: Hold | None = None,
        charges: Mapping[str, Charge] | None = None,
        stall_s: float = wire.READER_TIMEOUT_S,
    ) -> None:
        self._authenticate = authenticate
        self._observe = observe
        self._hold = hold
        #: By the full name of a method with one request.
        self._charges = charges or {}
        self._stall_s = stall_s
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # grpc answers UNIMPLEMENTED
            return None
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            wrapped: grpc.RpcMethodHandler[Any, Any] = known[1]
            return wrapped
        wrapped = self._wrap(handler, method)
        # Bounded by the methods that exist: an unknown method has no handler and never gets here.
        self._wrapped[method] = (handler, wrapped)
        return wrapped

    def _wrap(self, handler: Any, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        requests, responses = handler.request_streaming, handler.response_streaming
        kind = f"{'stream' if requests else 'unary'}_{'stream' if responses else 'unary'}"
        function = getattr(handler, kind)
        is_open = method.startswith(OPEN_SERVICES)
        enter = _nobody if is_open else self._authenticate
        check = functools.partial(_Checked, method=method) if requests else functools.partial(_checked, method=method)
        charge = self._charges.get(method)
        if charge is not None:
            check = functools.partial(_charged, check=check, charge=charge)
        yields = inspect.isasyncgenfunction(function)
        make: Callable[..., Any] = functools.partial(_generator, stall_s=self._stall_s) if yields else _coroutine
        if responses and self._hold is not None and not is_open:
            make = functools.partial(_leashed, make=make, hold=self._hold, yields=yields)
        make = functools.partial(make, observe=None if is_open else self._observe)
        factory = getattr(grpc, f"{kind}_rpc_method_handler")
        wrapped: grpc.RpcMethodHandler[Any, Any] = factory(
            make(function, method, enter, check), _reader(handler.request_deserializer), handler.response_serializer
        )
        return wrapped


def _coroutine(function: Any, method: str, enter: Authenticate, check: Check, *, observe: Observe | None) -> Any:
    assert inspect.iscoroutinefunction(function), f"{method} must be an async def"

    async def serve(request: Any, context: Context) -> Any:
        who = None
        try:
            who = enter(context, method)
            principal.enter(who)
            return await function(check(request, context), context)
        except Exception as error:
            await refuse(context, method, _observed(context, method, who, error, observe))

    return serve


def _generator(
    function: Any, method: str, enter: Authenticate, check: Check, *, observe: Observe | None, stall_s: float
) -> Any:
    async def serve(request: Any, context: Context) -> None:
        who = None
        try:
            who = enter(context, method)
            principal.enter(who)
            # By itself: a first write that is cut off half-way would leave grpc.aio unsure whether they are sent.
            await context.send_initial_metadata(())
            async with contextlib.aclosing(function(check(request, context), context)) as responses:
                async for response in responses:
                    await _write(context, response, stall_s)
        except Exception as error:
            await refuse(context, method, _observed(context, method, who, error, observe))

    return serve


async def _write(context: Context, response: Any, stall_s: float) -> None:
    """Write one message. Raises Exhausted when the reader does not make room for it."""
    try:
        async with asyncio.timeout(stall_s):
            await context.write(response)
    except TimeoutError:
        message = f"the stream was not read for {stall_s:g} s; come back and go on from the last position"
        raise errors.Exhausted(message, reason="SLOW_READER", retry_delay_s=1.0) from None


def _leashed(
    function: Any,
    method: str,
    enter: Authenticate,
    check: Check,
    *,
    make: Callable[..., Any],
    hold: Hold,
    yields: bool,
    observe: Observe | None,
) -> Any:
    """A stream that lives no longer than what let it in: a token that is revoked ends it."""

    async def run(request: Any, context: Context) -> None:
        with hold(principal.current()) as held:
            await held.run(function(request, context))

    async def follow(request: Any, context: Context) -> AsyncIterator[Any]:
        with hold(principal.current()) as held:
            async with contextlib.aclosing(function(request, context)) as responses:
                while True:
                    try:
                        # Step by step: a deadline around a `yield` would hit whoever takes what is yielded.
                        response = await held.run(anext(responses))
                    except StopAsyncIteration:
                        return
                    yield response

    return make(follow if yields else run, method, enter, check, observe=observe)


def _observed(
    context: Context, method: str, who: principal.Principal | None, error: Exception, observe: Observe | None
) -> BaseException:
    """The error that the caller is told. `who` None: it was not let in, and whoever did not let it in knows of it."""
    cause = unwrapped(error)
    if observe is not None and who is not None and isinstance(cause, errors.Problem):
        return observe(context, method, who, cause)
    return cause


class _Garbled:
    """Bytes that are no message of the method's type."""

    __slots__ = ("reason",)

    def __init__(self, error: Exception) -> None:
        self.reason = str(error)


class _TooLarge:
    """A message above the bound, which is refused unread."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


def _reader(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """The same, but for what it does with garbage: grpc.aio would end the call with UNKNOWN and a traceback."""

    def read(data: bytes) -> Any:
        if len(data) > wire.MESSAGE_BYTES_MAX:
            return _TooLarge(len(data))
        try:
            return parse(data)
        except Exception as error:
            return _Garbled(error)

    return read


def _checked(request: protobuf.Message | _Garbled | _TooLarge, _context: Context, method: str) -> protobuf.Message:
    if isinstance(request, _Garbled | _TooLarge):
        raise _unreadable(request)
    validation.check(request, method)
    return request


def _charged(request: Any, context: Context, *, check: Check, charge: Charge) -> Any:
    checked = check(request, context)
    charge(principal.current(), checked)
    return checked


def _unreadable(message: _Garbled | _TooLarge) -> errors.Problem:
    if isinstance(message, _TooLarge):
        return errors.Exhausted(
            f"the message has {message.size} bytes, at most {wire.MESSAGE_BYTES_MAX} are read",
            reason="MESSAGE_TOO_LARGE",
        )
    return errors.Invalid(f"the message cannot be read: {message.reason}", reason="GARBLED")


class _Checked:
    """The requests of a stream, each checked as it is read.

    It reads from the context and leaves grpc's own iterator alone: that is an async generator, and a handler that
    stops reading would leave it suspended, to be found by the garbage collector at some bad moment.
    """

    __slots__ = ("_context", "_method")

    def __init__(self, _requests: object, context: Context, method: str) -> None:
        self._context = context
        self._method = method

    def __aiter__(self) -> _Checked:
        return self

    async def __anext__(self) -> protobuf.Message:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        if isinstance(message, _Garbled | _TooLarge):
            raise _unreadable(message)
        try:
            validation.check(message, self._method)
        except errors.Invalid as problem:
            problem.subject = message
            raise
        return message  # type: ignore[no-any-return]  # the stubs do not say what a call returns


def _nobody(_context: Context, _method: str) -> principal.Principal:
    return NOBODY


def unwrapped(error: BaseException) -> BaseException:
    """The one error inside groups of one: a TaskGroup hides a Problem that way."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def refuse(context: Context, method: str, error: BaseException) -> None:
    """End the RPC with the status of `error`; always raises. What is not a Problem is our bug: INTERNAL, logged."""
    cause = unwrapped(error)
    if isinstance(cause, grpc.aio.AbortError | asyncio.CancelledError):
        raise cause
    if isinstance(cause, errors.Problem):
        log.debug("rpc.refused", method=method, reason=cause.reason, message=cause.message)
        await context.abort_with_status(status.to_status(cause))
    if _is_lost_peer(cause):
        log.debug("rpc.peer_lost", method=method)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the peer has gone")
    incident = secrets.token_hex(6)
    log.error("rpc.crashed", method=method, incident=incident, exc_info=cause)
    await context.abort_with_status(_internal(incident))


def _is_lost_peer(error: BaseException) -> bool:
    """Did a write fail because nobody is there any more? grpc.aio has no public name for that error."""
    return isinstance(error, grpc.aio.BaseError) and type(error).__name__ == "ExecuteBatchError"


def _internal(incident: str) -> grpc.Status:
    proto = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=f"internal error, incident {incident}")
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=status.DOMAIN, metadata={"incident": incident})
    proto.details.add().Pack(info)
    made: grpc.Status = rpc_status.to_status(proto)
    return made
