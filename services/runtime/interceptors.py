"""What happens to every call before and after its handler, as one list, outermost first.

Each layer is a function around the ones further in, of unary and streaming calls alike. See docs/life-of-a-request.md.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from google.protobuf import empty_pb2
from google.protobuf.message import DecodeError, Message
from grpc_interceptor.server import AsyncServerInterceptor

from services.runtime import caller, deadline, peers, status, trace, writing
from services.runtime.contract import EDGE, Method
from services.runtime.errors import (
    DeadlineExceeded,
    Error,
    FieldViolation,
    InvalidRequest,
)
from services.runtime.log import failure, in_band
from services.runtime.validation import require_plain_text, require_valid
from services.runtime.writing import WRITE_SECONDS, SlowReader

_log = structlog.get_logger()


class DeadlinePassed(DeadlineExceeded):
    """The call took longer than it may."""

    message = "It took too long: more than {seconds} s."


_TELL_SECONDS = 1.0
"""How long an error may wait for a client that does not read."""


class Call:
    """One RPC on its way through the layers."""

    __slots__ = ("before_first", "context", "headers", "metadata", "method", "request")

    def __init__(self, method: Method, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.method = method
        self.request = request
        """A message; of a client-streaming RPC, an iterator over messages."""
        self.context = context
        self.metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
        self.headers: list[tuple[str, str]] = []
        """What the response's headers say beside it."""
        self.before_first: Callable[[], Awaitable[None]] | None = None
        """What has to be done before the first message of a stream leaves, or before it ends without one."""

    async def begin(self) -> None:
        """Does it, once."""
        before_first, self.before_first = self.before_first, None
        if before_first:
            await before_first()


Proceed = Callable[[Call], Awaitable[Message | None]]
"""The layers further in, and the handler. Returns the answer of an RPC that has one."""
Layer = Callable[[Call, Proceed], Awaitable[Message | None]]


async def errors(call: Call, proceed: Proceed) -> Message | None:
    """Turns whatever is raised into a status in the one shape. An unexpected error says nothing of itself."""
    try:
        return await proceed(call)
    except SlowReader as error:
        try:
            async with asyncio.timeout(_TELL_SECONDS):
                await status.abort(call.context, error)
        except TimeoutError:  # nor does it read this, and gRPC cannot take back what waits
            raise asyncio.CancelledError from error
    except Exception as error:  # the last resort of every call
        await status.abort(call.context, error)


async def log(call: Call, proceed: Proceed) -> Message | None:
    """Continues the trace and writes one line for each call."""
    trace.begin(call.metadata.get("traceparent"))
    started = time.perf_counter()
    outcome, why = "", {}
    user, request_id = call.metadata.get("x-user-id", ""), call.metadata.get("x-request-id", "")
    try:
        return await proceed(call)
    except asyncio.CancelledError:
        outcome = "CANCELLED"
        raise
    except Error as error:
        outcome = error.reason
        if error.__cause__ is not None:
            why = failure(error)
        raise
    except Exception as error:
        outcome, why = type(error).__name__, failure(error)
        raise
    finally:
        _log.info(
            "rpc",
            rpc=call.method.rpc,
            outcome=outcome or in_band.get(),
            ms=round((time.perf_counter() - started) * 1000, 2),
            user=user,
            request_id=request_id,
            **why,
        )


async def identity(call: Call, proceed: Proceed) -> Message | None:
    """Lets only the RPC's callers in, the edge only for the RPC that authz granted, and sets the caller."""
    caller.set_current(peers.admitted(call.method, call.metadata, peers.peer_name(call.context)))
    return await proceed(call)


async def within_deadline(call: Call, proceed: Proceed) -> Message | None:
    """Ends a call at the contract's deadline; gRPC itself ends it at the client's, when that is sooner."""
    longest = call.method.deadline
    remaining = call.context.time_remaining()
    if remaining is not None and remaining < longest:
        deadline.begin(remaining)
        return await proceed(call)
    deadline.begin(longest)
    try:
        async with asyncio.timeout(longest) as limit:
            return await proceed(call)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlinePassed(seconds=longest) from error


async def validation(call: Call, proceed: Proceed) -> Message | None:
    """Refuses what breaks the rules that the contract gives for its fields (buf.validate), or is no plain text."""
    if call.method.client_streaming:
        call.request = _validated(call.context)
    else:
        _validate(call.request)
    return await proceed(call)


async def _validated(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
    # Not gRPC's own iterator: it keeps each message until it has the next.
    while (message := await context.read()) is not grpc.aio.EOF:
        _validate(message)
        yield message
        del message


def _validate(message: Any) -> None:
    if isinstance(message, Undecodable):
        raise InvalidRequest(FieldViolation("", "it holds text that is not UTF-8, or is no message at all"))
    require_valid(message)
    if caller.current().peer == EDGE:  # what the other services send has been let in
        require_plain_text(message)


class Undecodable:
    """Stands in for a request that could not be decoded, so that the refusal passes through the layers."""


def _lenient(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decoded(data: bytes) -> Any:
        try:
            return decode(data)
        except (DecodeError, UnicodeDecodeError):
            return Undecodable()

    return decoded


async def success(call: Call, proceed: Proceed) -> Message | None:
    """Sends what the contract says about success: 201 and where the new resource is, or 204 and nothing."""
    answer = await proceed(call)
    if call.method.location:
        call.headers += (("x-http-code", "201"), ("location", call.method.location_of(answer)))
    elif isinstance(answer, empty_pb2.Empty):
        call.headers.append(("x-http-code", "204"))
    if call.headers:
        await call.context.send_initial_metadata(tuple(call.headers))
    return answer


class Interceptors(AsyncServerInterceptor):
    """Passes each call through the layers to its handler."""

    def __init__(
        self, methods: Mapping[str, Method], layers: Sequence[Layer], write_seconds: float = WRITE_SECONDS
    ) -> None:
        self._methods = methods
        self._layers = layers
        self._write_seconds = write_seconds
        self._handlers: dict[str, Any] = {}
        self._chains: dict[str, Proceed] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps a handler once, not once a call."""
        if details.method not in self._handlers:
            handler = await continuation(details)
            if handler is None:
                return None

            async def lenient(_: grpc.HandlerCallDetails) -> Any:
                return handler._replace(request_deserializer=_lenient(handler.request_deserializer))

            wrapped = await super().intercept_service(lenient, details)  # type: ignore[no-untyped-call]
            if wrapped.unary_stream:
                wrapped = wrapped._replace(unary_stream=self._writing(handler.unary_stream, details.method))
            self._handlers[details.method] = wrapped
        return self._handlers[details.method]

    def _writing(self, handler: Callable[..., Any], name: str) -> Callable[..., Awaitable[None]]:
        """Calls a handler as one that writes by itself, which takes gRPC less memory than one that yields."""

        async def written(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await self.intercept(handler, request, context, name)

        return written

    async def intercept(
        self, method: Callable[..., Any], request: Any, context: grpc.aio.ServicerContext[Any, Any], method_name: str
    ) -> Message | None:
        """Passes one call on."""
        contract = self._methods[method_name]
        chain = self._chains.get(method_name)
        if chain is None:
            chain = _stream(method, self._write_seconds) if contract.server_streaming else _unary(method)
            for layer in reversed(self._layers):
                chain = _around(layer, chain)
            self._chains[method_name] = chain
        return await chain(Call(contract, request, context))


def _around(layer: Layer, proceed: Proceed) -> Proceed:
    return lambda call: layer(call, proceed)


def _unary(handler: Callable[..., Awaitable[Message]]) -> Proceed:
    async def answer(call: Call) -> Message:
        return await handler(call.request, call.context)

    return answer


def _stream(handler: Callable[..., AsyncGenerator[Message]], write_seconds: float) -> Proceed:
    async def write(call: Call) -> None:
        call.metadata = {}  # it may take an hour, and nobody asks any more
        async with aclosing(handler(call.request, call.context)) as messages:
            async for message in messages:
                if call.before_first:
                    await call.begin()
                await writing.write(call.context, message, write_seconds)
        if call.before_first:
            await call.begin()

    return write
