"""The notification service with webhooks: behind its interceptors, hearing of payments, and posting."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from google.type.money_pb2 import Money
from notification.v1 import webhook_pb2_grpc
from notification.v1.webhook_pb2 import (
    CreateWebhookRequest,
    ListWebhookDeliveriesRequest,
    ListWebhookDeliveriesResponse,
    Webhook,
    WebhookDelivery,
)
from payment.v1.payment_pb2 import Payment, PaymentEvent

from services.notification.delivery.store import Deliveries
from services.notification.delivery.worker import Worker
from services.notification.events import follow_payments
from services.notification.webhooks.channel import WebhookChannel
from services.notification.webhooks.events import Announcements
from services.notification.webhooks.network import open_session
from services.notification.webhooks.service import WebhookService
from services.notification.webhooks.store import Webhooks
from services.runtime.bus import MESSAGE_ID, Bus, open_bus
from services.runtime.ids import new_id
from services.runtime.postgres import Database, open_database
from tests.integration.serving import As, identity, serving
from tests.waiting import eventually


@dataclass
class House:
    """The service, and what the tests reach around it for."""

    edge: As
    bus: Bus
    database: Database

    def of(self, user_id: str) -> "webhook_pb2_grpc.WebhookServiceAsyncStub":
        """The service, as a user asks it."""
        stub: webhook_pb2_grpc.WebhookServiceAsyncStub = webhook_pb2_grpc.WebhookServiceStub(self.edge.user(user_id))
        return stub

    async def webhook(self, user_id: str, url: str, *event_types: str) -> Webhook:
        """Makes a webhook."""
        return await self.of(user_id).CreateWebhook(CreateWebhookRequest(url=url, event_types=event_types))

    async def tell(self, event: PaymentEvent) -> None:
        """Publishes an event as the payment service does."""
        subject = f"payment.{event.payment_id}"
        jetstream = await self.bus.stream("payment")
        headers = {MESSAGE_ID: f"{subject}.{event.sequence}"}
        await jetstream.publish(subject, event.SerializeToString(), headers=headers)

    async def log(self, user_id: str, webhook_id: str) -> list[WebhookDelivery]:
        """What is posted to a webhook, newest first."""
        request = ListWebhookDeliveriesRequest(webhook_id=webhook_id, page_size=1000)
        answer: ListWebhookDeliveriesResponse = await self.of(user_id).ListWebhookDeliveries(request)
        return list(answer.deliveries)

    async def logged(
        self, user_id: str, webhook_id: str, condition: Callable[[WebhookDelivery], bool], count: int = 1
    ) -> list[WebhookDelivery]:
        """Waits until the log has so many deliveries and all are as they should be. Returns them, newest first."""

        async def there() -> bool:
            log = await self.log(user_id, webhook_id)
            return len(log) >= count and all(condition(delivery) for delivery in log)

        await eventually(there)
        return await self.log(user_id, webhook_id)


def became(
    payer: str, payee: str, state: Payment.State.ValueType = Payment.SETTLED, payment_id: str = "", sequence: int = 1
) -> PaymentEvent:
    """An event of a payment: of a new one unless it is named."""
    event = PaymentEvent(
        payment_id=payment_id or new_id("pay"),
        sequence=sequence,
        state=state,
        payer_id=payer,
        payee_id=payee,
        amount=Money(currency_code="EUR", units=42, nanos=500_000_000),
    )
    event.create_time.FromDatetime(datetime(2026, 11, 21, 12, sequence, tzinfo=UTC))
    return event


def pair() -> Sequence[str]:
    """A new payer and a new payee."""
    return new_id("usr"), new_id("usr")


@asynccontextmanager
async def posting(database_url: str, nats_url: str, certificates: Path, replicas: int = 2) -> AsyncIterator[House]:
    """Runs the service, with so many workers that post, as if on a developer's machine: to any host."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "notification")))
        session = await stack.enter_async_context(open_session(public=False))
        webhooks, deliveries = Webhooks(database), [Deliveries(database) for _ in range(replicas)]
        channel = WebhookChannel(webhooks, session, public=False)
        servicer = WebhookService(webhooks, deliveries[0], public=False)
        register = [partial(webhook_pb2_grpc.add_WebhookServiceServicer_to_server, servicer)]
        port = await stack.enter_async_context(serving(register, certificates, "notification"))
        edge = As(port, certificates, "notification")
        stack.push_async_callback(edge.close)
        announcements = Announcements(webhooks, deliveries[0])
        tasks = [
            asyncio.create_task(follow_payments(bus, database, announcements.tell)),
            *(asyncio.create_task(Worker(one, {"WEBHOOK": channel}).run()) for one in deliveries),
        ]
        await eventually(partial(bus.stream, "payment"))
        yield House(edge, bus, database)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
