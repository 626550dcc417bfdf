"""The error tree. Domain code raises it; the outermost interceptor turns it into a gRPC status. Free of gRPC.

An error's reason is its class name in UPPER_SNAKE_CASE, and every variable of its message is also in the
metadata of its ErrorInfo (AIP-193):

    class PaymentNotFound(NotFound):
        message = "There is no payment {payment_id}."

    raise PaymentNotFound(payment_id="pay_1")
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

MOST_FIELDS = 10
"""Of what is wrong with a request, as much is told."""
_LONGEST = 500


def short(value: object) -> str:
    """Returns a value as it is told: errors travel in headers, and what came with a request may be longer than any."""
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that is wrong with a request (google.rpc.BadRequest)."""

    field: str
    description: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """One thing that must be mended before a request can succeed (google.rpc.PreconditionFailure)."""

    type: str
    subject: str
    description: str


class Error(Exception):
    """Something a caller is told about. Subclasses below give the gRPC status, theirs the message."""

    code: ClassVar[int]
    """google.rpc.Code."""
    http_status: ClassVar[int] = 0
    """The HTTP status where the one that belongs to the code does not say it; 0: it does."""
    message: ClassVar[str] = ""
    reason: ClassVar[str] = ""
    retry_after: float | None = None
    """Seconds after which trying again makes sense (google.rpc.RetryInfo, Retry-After)."""
    headers: Sequence[tuple[str, str]] = ()
    """What the response's headers say beside it."""

    def __init_subclass__(cls) -> None:
        if "reason" not in cls.__dict__:
            cls.reason = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()

    def __init__(
        self,
        *,
        fields: Sequence[FieldViolation] = (),
        preconditions: Sequence[PreconditionViolation] = (),
        **metadata: object,
    ) -> None:
        self.metadata = {name: short(value) for name, value in metadata.items()}
        self.fields = fields
        self.preconditions = preconditions
        super().__init__(self.message.format(**self.metadata))


class InvalidArgument(Error):
    """The request is wrong, whatever the state of the system."""

    code = 3


class DeadlineExceeded(Error):
    """It took too long."""

    code = 4


class NotFound(Error):
    """What was asked for does not exist."""

    code = 5


class AlreadyExists(Error):
    """What was to be created exists."""

    code = 6


class PermissionDenied(Error):
    """The caller may not do this."""

    code = 7


class ResourceExhausted(Error):
    """A limit was reached."""

    code = 8


class FailedPrecondition(Error):
    """The system is not in the state that the request needs; trying again alone does not help."""

    code = 9


class Aborted(Error):
    """Somebody else was faster; read again and retry."""

    code = 10


class OutOfRange(Error):
    """The request asks for what lies behind the end."""

    code = 11


class Unavailable(Error):
    """A part that is needed cannot be reached right now; trying again helps."""

    code = 14
    retry_after = 1.0


class DataLoss(Error):
    """What was kept is not there any more. Nothing the caller does helps."""

    code = 15


class Unauthenticated(Error):
    """Nobody knows who the caller is."""

    code = 16


class InvalidRequest(InvalidArgument):
    """The request breaks rules of the contract; `fields` says which."""

    message = "The request is not valid: {problems}."

    def __init__(self, *fields: FieldViolation) -> None:
        fields = fields[:MOST_FIELDS]
        problems = "; ".join(f"{one.field} {one.description}" if one.field else one.description for one in fields)
        super().__init__(fields=fields, problems=problems)


class InvalidPageToken(InvalidArgument):
    """The page token is not one that this list gave out for these arguments."""

    message = "The page token does not belong to this list. Start again without one."


class InvalidUpdateMask(InvalidArgument):
    """The update mask names a field that does not exist or cannot be changed."""

    message = "The update mask names {path}, which does not exist or cannot be changed."

    def __init__(self, path: str) -> None:
        super().__init__(path=path, fields=[FieldViolation("updateMask", f"names {path}")])


class EtagMismatch(Aborted):
    """The resource changed since the caller read it."""

    message = "{resource} has changed: its etag is no longer {etag}. Read it again and retry."


class NotTheOwner(PermissionDenied):
    """The resource is somebody else's."""

    message = "{resource} belongs to somebody else."
