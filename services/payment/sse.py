"""Server-Sent Events (WHATWG HTML, 9.2) of a payment's changes."""

from collections.abc import AsyncGenerator

import structlog
from google.protobuf import json_format
from google.protobuf.message import Message

from services.payment import events
from services.payment.domain import Change, Payment
from services.runtime import status
from services.runtime.errors import FieldViolation, InvalidArgument
from services.runtime.log import failure

CONTENT_TYPE = "text/event-stream"
RETRY_MS = 1500

_log = structlog.get_logger()


class InvalidLastEventId(InvalidArgument):
    """The Last-Event-ID is not one that this stream gave out."""

    message = "Last-Event-ID must be the id of an event of this stream."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("Last-Event-ID", "must be a sequence")])


def last_event_id(header: str, latest: int) -> int:
    """Returns the sequence after which to go on; 0 where none is sent. Raises InvalidLastEventId.

    `latest` is the sequence of the payment's last event.
    """
    if not header:
        return 0
    if not (header.isascii() and header.isdigit() and len(header) <= 9 and int(header) <= latest):
        raise InvalidLastEventId
    return int(header)


async def stream(payment: Payment, changes: AsyncGenerator[Change | None]) -> AsyncGenerator[bytes]:
    """Yields the events as they come. What goes wrong midway, when HTTP has no other way left, is an event, too."""
    yield f"retry: {RETRY_MS}\n: hello\n\n".encode()
    try:
        ended = False
        async for change in changes:
            if change is None:
                yield b": still here\n\n"
                continue
            yield _event("payment", _json(events.to_proto(payment, change)), change.sequence)
            ended = change.state.terminal
        if ended:
            yield _event("end", "{}")
    except Exception as error:  # the client could not tell a cut stream from a finished one
        _log.warning("stream failed", payment=payment.id, **failure(error))
        yield _event("error", _json(status.to_proto(status.told(error))))


def _event(name: str, data: str, sequence: int | None = None) -> bytes:
    head = f"id: {sequence}\n" if sequence is not None else ""
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


def _json(message: Message) -> str:
    return json_format.MessageToJson(message, indent=None, always_print_fields_with_no_presence=True)
