"""Errors on their way out: a gRPC status with google.rpc details, which Envoy writes as JSON."""

from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from services.runtime.errors import DeadlineExceeded, Error, Unavailable, short

DOMAIN = "drawbridge"
DETAILS = "grpc-status-details-bin"

_log = structlog.get_logger()
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class UpstreamUnavailable(Unavailable):
    """A service that this one calls cannot be reached."""

    message = "A part that this needs is not available right now."


class UpstreamTooSlow(DeadlineExceeded):
    """A service that this one calls did not answer in time."""

    message = "A part that this needs did not answer in time."


class Internal(Error):
    """A fault of ours. Says nothing of itself; the log does."""

    code = 13
    message = "Something went wrong on our side."


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """Ends the call with the error's status. Metadata tells the edge what a gRPC status cannot say."""
    error = told(error)
    proto = to_proto(error)
    trailing: list[tuple[str, str | bytes]] = [(DETAILS, proto.SerializeToString()), *error.headers]
    if error.http_status:
        trailing.append(("x-http-code", str(error.http_status)))
    if error.retry_after is not None:
        trailing.append(("retry-after", str(max(1, round(error.retry_after)))))
    if error.code == grpc.StatusCode.UNAUTHENTICATED.value[0]:
        trailing.append(("www-authenticate", "Bearer"))  # RFC 9110, 15.5.2
    await context.abort(_CODES[error.code], proto.message, tuple(trailing))


def to_proto(error: Error) -> status_pb2.Status:
    """Returns the error as google.rpc.Status, the shape of every error that a client sees."""
    message = str(error)
    proto = status_pb2.Status(code=error.code, message=message)
    proto.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if error.fields:
        bad_request = error_details_pb2.BadRequest()
        for field in error.fields:
            bad_request.field_violations.add(
                field=field.field, description=short(field.description), reason=field.reason
            )
        proto.details.add().Pack(bad_request)
    if error.preconditions:
        failure = error_details_pb2.PreconditionFailure()
        for one in error.preconditions:
            failure.violations.add(type=one.type, subject=one.subject, description=one.description)
        proto.details.add().Pack(failure)
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        proto.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return proto


def told(error: Exception) -> Error:
    """Returns what the caller is told about an exception."""
    if isinstance(error, Error):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        _log.warning("upstream failed", code=error.code().name, details=error.details())
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return UpstreamUnavailable()
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return UpstreamTooSlow()
    return Internal()
