"""What notification hears of payments."""

from datetime import UTC
from functools import partial

from google.type.money_pb2 import Money
from iso4217 import Currency
from payment.v1 import payment_pb2

from services.notification.domain import PaymentChange, notifications
from services.notification.store import Notifications
from services.runtime.events import Bus, consume
from services.runtime.ids import new_id
from services.runtime.postgres import Connection, Database

_NANO_DIGITS = 9


async def follow_payments(bus: Bus, database: Database, store: Notifications) -> None:
    """Tells users about the changes of their payments, for ever."""

    async def handle(connection: Connection, event: payment_pb2.PaymentEvent) -> None:
        for notification in notifications(read(event), partial(new_id, "ntf")):
            await store.add(connection, notification)

    await consume(
        bus, database, stream="payment", consumer="notification", message=payment_pb2.PaymentEvent, handle=handle
    )


def read(event: payment_pb2.PaymentEvent) -> PaymentChange:
    """Reads an event."""
    return PaymentChange(
        payment_id=event.payment_id,
        state=payment_pb2.Payment.State.Name(event.state),
        state_reason=event.state_reason,
        payer_id=event.payer_id,
        payee_id=event.payee_id,
        amount=_as_people_write(event.amount),
        create_time=event.create_time.ToDatetime(UTC),
    )


def _as_people_write(amount: Money) -> str:
    """42.50 EUR, 500 JPY: with as many decimals as the currency has."""
    decimals = Currency(amount.currency_code).exponent or 0
    fraction = f".{amount.nanos:0{_NANO_DIGITS}d}"[: decimals + 1] if decimals else ""
    return f"{amount.units}{fraction} {amount.currency_code}"
