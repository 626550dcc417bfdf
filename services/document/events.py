"""DocumentEvent: how other services learn what became of a document. And what document hears of users."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime

from document.v1 import document_pb2
from user.v1 import user_pb2

from services.document.domain import Check, Document, Outcome
from services.document.verification.domain import Identity
from services.runtime.bus import Bus
from services.runtime.consumer import consume
from services.runtime.postgres import Connection, Database


def to_proto(document: Document, now: datetime, *, unchanged: bool) -> document_pb2.DocumentEvent:
    """Returns the event of a document's newest state; unchanged: its owner knows it from when it was read before."""
    event = document_pb2.DocumentEvent(
        document_id=document.id,
        sequence=document.sequence,
        owner_id=document.owner_id,
        kind=document_pb2.Document.Kind.ValueType(document.kind.value),
        state=document_pb2.Document.State.ValueType(document.state.value),
        problems=[check_to_proto(one) for one in document.checks if one.outcome is not Outcome.PASSED],
        unchanged=unchanged,
    )
    event.create_time.FromDatetime(now)
    return event


def check_to_proto(check: Check) -> document_pb2.DocumentCheck:
    """Returns a check as messages have it."""
    outcome = document_pb2.DocumentCheck.Outcome.ValueType(check.outcome.value)
    return document_pb2.DocumentCheck(name=check.name, outcome=outcome, detail=check.detail)


async def follow_users(
    bus: Bus, database: Database, changed: Callable[[Connection, str, Identity], Awaitable[None]]
) -> None:
    """Calls `changed` in a transaction, with who a user is by now, whenever anything of a user's profile changed.

    For ever.
    """

    async def handle(connection: Connection, event: user_pb2.UserEvent) -> None:
        if event.sequence > 1:  # the first is the sign-up: no document was compared with anything before
            born = event.date_of_birth
            await changed(
                connection, event.user_id, Identity(event.display_name, date(born.year, born.month, born.day))
            )

    await consume(bus, database, stream="user", consumer="document", message=user_pb2.UserEvent, handle=handle)
