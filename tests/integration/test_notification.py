"""The notification service behind its interceptors, with real Postgres and NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.type.money_pb2 import Money
from notification.v1 import notification_pb2, notification_pb2_grpc
from payment.v1.payment_pb2 import Payment, PaymentEvent

from services.notification.events import follow_payments
from services.notification.service import NotificationService
from services.notification.store import Notifications
from services.runtime.events import MESSAGE_ID, Bus, open_bus
from services.runtime.ids import new_id
from services.runtime.postgres import open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import As, identity, reason, serving
from tests.waiting import eventually


@dataclass
class House:
    """The service, and what the tests reach around it for."""

    edge: As
    bus: Bus

    async def list_of(self, user_id: str, size: int = 0, token: str = "") -> notification_pb2.ListNotificationsResponse:
        stub: notification_pb2_grpc.NotificationServiceAsyncStub = notification_pb2_grpc.NotificationServiceStub(
            self.edge.user(user_id)
        )
        return await stub.ListNotifications(notification_pb2.ListNotificationsRequest(page_size=size, page_token=token))

    async def tell(self, event: PaymentEvent) -> None:
        """Publishes an event as the payment service does."""
        subject = f"payment.{event.payment_id}"
        jetstream = await self.bus.stream("payment")
        headers = {MESSAGE_ID: f"{subject}.{event.sequence}"}
        await jetstream.publish(subject, event.SerializeToString(), headers=headers)

    async def told(self, user_id: str, count: int) -> list[notification_pb2.Notification]:
        """Waits until a user has been told that often. Returns what, newest first."""

        async def enough() -> bool:
            return len((await self.list_of(user_id)).notifications) >= count

        await eventually(enough)
        return list((await self.list_of(user_id)).notifications)


def became(payment_id: str, sequence: int, state: Payment.State.ValueType, payer: str, payee: str) -> PaymentEvent:
    event = PaymentEvent(
        payment_id=payment_id,
        sequence=sequence,
        state=state,
        payer_id=payer,
        payee_id=payee,
        amount=Money(currency_code="EUR", units=42, nanos=500_000_000),
    )
    event.create_time.FromDatetime(datetime(2026, 11, 21, 12, sequence, tzinfo=UTC))
    return event


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(fresh_database("notification")))
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "notification")))
        store = Notifications(database)
        register = [
            partial(notification_pb2_grpc.add_NotificationServiceServicer_to_server, NotificationService(store))
        ]
        port = await stack.enter_async_context(serving(register, certificates, "notification"))
        edge = As(port, certificates, "notification")
        stack.push_async_callback(edge.close)
        following = asyncio.create_task(follow_payments(bus, database, store))
        await eventually(partial(bus.stream, "payment"))
        yield House(edge, bus)
        following.cancel()


async def test_payer_and_payee_are_told_about_a_payment_that_settles(house: House) -> None:
    payer, payee, payment_id = new_id("usr"), new_id("usr"), new_id("pay")
    await house.tell(became(payment_id, 1, Payment.AUTHORIZED, payer, payee))
    await house.tell(became(payment_id, 2, Payment.SETTLED, payer, payee))
    paid, authorized = await house.told(payer, 2)
    assert (paid.kind, paid.text, paid.payment_id) == ("PAYMENT_SETTLED", "You paid 42.50 EUR.", payment_id)
    assert (authorized.kind, authorized.create_time.ToDatetime().minute) == ("PAYMENT_AUTHORIZED", 1)
    [received] = await house.told(payee, 1)
    assert (received.kind, received.text) == ("PAYMENT_SETTLED", "You received 42.50 EUR.")
    assert received.id.startswith("ntf_")


async def test_a_list_comes_in_pages_newest_first_and_only_to_its_user(house: House) -> None:
    payer, payee = new_id("usr"), new_id("usr")
    for _ in range(5):
        await house.tell(became(new_id("pay"), 1, Payment.AUTHORIZED, payer, payee))
    everything = await house.told(payer, 5)
    first = await house.list_of(payer, size=3)
    rest = await house.list_of(payer, size=3, token=first.next_page_token)
    assert [*first.notifications, *rest.notifications] == everything
    assert rest.next_page_token == ""
    assert not (await house.list_of(payee)).notifications
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.list_of(payee, token=first.next_page_token)
    assert reason(refused.value) == "INVALID_PAGE_TOKEN"
