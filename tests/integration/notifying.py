"""The notification service behind its interceptors, with real Postgres and NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from document.v1.document_pb2 import DocumentEvent
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money
from notification.v1 import notification_pb2, notification_pb2_grpc
from payment.v1.payment_pb2 import Payment, PaymentEvent
from user.v1.password_pb2 import PasswordEvent

from services.notification.delivery.store import Deliveries
from services.notification.events import Telling, follow_documents, follow_passwords, follow_payments
from services.notification.service import NotificationService
from services.notification.store import Notifications, PreferencesOfUsers
from services.runtime.bus import MESSAGE_ID, Bus, open_bus
from services.runtime.postgres import Database, open_database
from services.runtime.trail import Trail
from tests.integration.serving import As, identity, serving
from tests.waiting import eventually


@dataclass
class House:
    """The service, and what the tests reach around it for."""

    edge: As
    bus: Bus
    database: Database

    def of(self, user_id: str) -> "notification_pb2_grpc.NotificationServiceAsyncStub":
        return notification_pb2_grpc.NotificationServiceStub(self.edge.user(user_id))

    async def list_of(
        self, user_id: str, size: int = 0, token: str = "", *, unread_only: bool = False
    ) -> notification_pb2.ListNotificationsResponse:
        return await self.of(user_id).ListNotifications(
            notification_pb2.ListNotificationsRequest(page_size=size, page_token=token, unread_only=unread_only)
        )

    async def unread(self, user_id: str) -> int:
        return (await self.of(user_id).GetUnreadCount(notification_pb2.GetUnreadCountRequest())).unread_count

    async def update(self, user_id: str, *mask: str, **values: Any) -> notification_pb2.Preferences:
        preferences = notification_pb2.Preferences(**values)
        request = notification_pb2.UpdatePreferencesRequest(preferences=preferences, update_mask=FieldMask(paths=mask))
        return await self.of(user_id).UpdatePreferences(request)

    async def tell(self, event: PaymentEvent | DocumentEvent) -> None:
        """Publishes an event as its service does."""
        server, one = (
            ("payment", event.payment_id) if isinstance(event, PaymentEvent) else ("document", event.document_id)
        )
        subject = f"{server}.{one}"
        jetstream = await self.bus.stream(server)
        headers = {MESSAGE_ID: f"{subject}.{event.sequence}"}
        await jetstream.publish(subject, event.SerializeToString(), headers=headers)

    async def tell_of_password(self, event: PasswordEvent) -> None:
        """Does the same for one that is not counted."""
        subject = f"password.{event.id}"
        jetstream = await self.bus.stream("password")
        await jetstream.publish(subject, event.SerializeToString(), headers={MESSAGE_ID: f"{subject}.evt_1"})

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


@asynccontextmanager
async def open_house(database_url: str, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    """Serves it."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "notification")))
        store, preferences = Notifications(database), PreferencesOfUsers(database)
        servicer = NotificationService(store, preferences)
        register = [partial(notification_pb2_grpc.add_NotificationServiceServicer_to_server, servicer)]
        trail = Trail("notification", database)
        port = await stack.enter_async_context(serving(register, certificates, "notification", trail=trail))
        edge = As(port, certificates, "notification")
        stack.push_async_callback(edge.close)
        telling = Telling(store, preferences, Deliveries(database), {"EMAIL", "SMS"})
        following = [
            asyncio.create_task(follow_payments(bus, database, telling.tell)),
            asyncio.create_task(follow_documents(bus, database, telling.tell_of_document)),
            asyncio.create_task(follow_passwords(bus, database, telling.tell_of_password)),
        ]
        await eventually(partial(bus.stream, "payment"))
        await eventually(partial(bus.stream, "document"))
        yield House(edge, bus, database)
        for task in following:
            task.cancel()
