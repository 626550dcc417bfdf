"""What notification hears of payments, documents and passwords."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC
from functools import partial

from document.v1 import document_pb2
from google.type.money_pb2 import Money
from iso4217 import Currency
from payment.v1 import payment_pb2
from user.v1 import password_pb2

from services.notification.delivery.domain import EMAIL, RESET_REQUESTED, Message
from services.notification.delivery.store import Deliveries
from services.notification.domain import (
    DocumentChange,
    Notification,
    PasswordChange,
    PaymentChange,
    notification_of_password,
    notifications,
    notifications_of_document,
)
from services.notification.store import Notifications, PreferencesOfUsers
from services.runtime.bus import PASSWORD, Bus
from services.runtime.consumer import consume
from services.runtime.ids import new_id
from services.runtime.postgres import Connection, Database

_NANO_DIGITS = 9

Tell = Callable[[Connection, payment_pb2.PaymentEvent], Awaitable[None]]
"""Writes, in the transaction that handles an event, what is to be told of it."""


async def follow_payments(bus: Bus, database: Database, *tellers: Tell) -> None:
    """Tells users about the changes of their payments, for ever."""

    async def handle(connection: Connection, event: payment_pb2.PaymentEvent) -> None:
        for tell in tellers:
            await tell(connection, event)

    await consume(
        bus, database, stream="payment", consumer="notification", message=payment_pb2.PaymentEvent, handle=handle
    )


async def follow_documents(
    bus: Bus, database: Database, tell: Callable[[Connection, document_pb2.DocumentEvent], Awaitable[None]]
) -> None:
    """Tells users what became of their documents, for ever."""
    await consume(
        bus, database, stream="document", consumer="notification", message=document_pb2.DocumentEvent, handle=tell
    )


async def follow_passwords(
    bus: Bus, database: Database, tell: Callable[[Connection, password_pb2.PasswordEvent], Awaitable[None]]
) -> None:
    """Mails users the codes for new passwords, and tells them of new ones, for ever."""
    await consume(
        bus, database, stream=PASSWORD, consumer="notification", message=password_pb2.PasswordEvent, handle=tell
    )


class Telling:
    """Tells users in sentences: in the app, and by the channels that they want and that there are."""

    def __init__(
        self,
        notifications: Notifications,
        preferences: PreferencesOfUsers,
        deliveries: Deliveries,
        channels: Collection[str],
    ) -> None:
        self._notifications = notifications
        self._preferences = preferences
        self._deliveries = deliveries
        self._channels = channels

    async def tell(self, connection: Connection, event: payment_pb2.PaymentEvent) -> None:
        """Writes what users are told of an event."""
        change = read(event)
        told = list(notifications(change, partial(new_id, "ntf")))
        await self._tell(connection, told, change)

    async def tell_of_document(self, connection: Connection, event: document_pb2.DocumentEvent) -> None:
        """Writes what a document's owner is told of an event."""
        change = read_document(event)
        await self._tell(connection, list(notifications_of_document(change, partial(new_id, "ntf"))), change)

    async def tell_of_password(self, connection: Connection, event: password_pb2.PasswordEvent) -> None:
        """Writes what a user is told of their password, whatever they prefer: it may not be they who preferred it."""
        change, body = read_password(event), ""
        if change.event_type != RESET_REQUESTED:
            told = notification_of_password(change, new_id("ntf"))
            body = told.text
            await self._notifications.add(connection, [told])
        message = Message(
            user_id=change.user_id,
            channel=EMAIL,
            event_id=change.event_id,
            event_type=change.event_type,
            payment_id="",
            body=body,
        )
        await self._deliveries.add(connection, [message] if EMAIL in self._channels else [])

    async def _tell(
        self, connection: Connection, told: Sequence[Notification], change: PaymentChange | DocumentChange
    ) -> None:
        preferences = await self._preferences.of(connection, [one.user_id for one in told])
        await self._notifications.add(connection, [one for one in told if preferences[one.user_id].in_app])
        messages = [
            Message(
                user_id=one.user_id,
                channel=channel,
                event_id=change.event_id,
                event_type=change.event_type,
                payment_id=one.payment_id,
                body=one.text,
            )
            for one in told
            for channel in sorted(preferences[one.user_id].channels.intersection(self._channels))
        ]
        await self._deliveries.add(connection, messages)


def read(event: payment_pb2.PaymentEvent) -> PaymentChange:
    """Reads an event. Raises ValueError where its state or its currency is none that this release knows."""
    return PaymentChange(
        payment_id=event.payment_id,
        sequence=event.sequence,
        state=payment_pb2.Payment.State.Name(event.state),
        state_reason=event.state_reason,
        payer_id=event.payer_id,
        payee_id=event.payee_id,
        amount=_as_people_write(event.amount),
        refunded=_as_people_write(event.refunded_amount) if _is_some(event.refunded_amount) else "",
        create_time=event.create_time.ToDatetime(UTC),
    )


def read_document(event: document_pb2.DocumentEvent) -> DocumentChange:
    """Reads an event. Raises ValueError where its kind or its state is none that this release knows."""
    return DocumentChange(
        document_id=event.document_id,
        sequence=event.sequence,
        owner_id=event.owner_id,
        kind=document_pb2.Document.Kind.Name(event.kind),
        state=document_pb2.Document.State.Name(event.state),
        why=event.problems[0].detail if event.problems else "",
        unchanged=event.unchanged,
        create_time=event.create_time.ToDatetime(UTC),
    )


def read_password(event: password_pb2.PasswordEvent) -> PasswordChange:
    """Reads an event. Raises ValueError where its kind is none that this release knows."""
    return PasswordChange(
        id=event.id,
        user_id=event.user_id,
        kind=password_pb2.PasswordEvent.Kind.Name(event.kind),
        create_time=event.create_time.ToDatetime(UTC),
    )


def _is_some(amount: Money) -> bool:
    return bool(amount.units or amount.nanos)


def _as_people_write(amount: Money) -> str:
    """42.50 EUR, 500 JPY: with as many decimals as the currency has."""
    decimals = Currency(amount.currency_code).exponent or 0
    fraction = f".{amount.nanos:0{_NANO_DIGITS}d}"[: decimals + 1] if decimals else ""
    return f"{amount.units}{fraction} {amount.currency_code}"
