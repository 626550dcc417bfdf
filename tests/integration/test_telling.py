"""From an event to everybody's mailbox: NATS, Postgres, the user service and an SMTP server."""

import asyncio
import ssl
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from google.type.money_pb2 import Money
from payment.v1.payment_pb2 import Payment, PaymentEvent
from user.v1 import user_pb2, user_pb2_grpc

from services.notification.clients import Users
from services.notification.delivery.email import Email
from services.notification.delivery.smtp import Connections, server
from services.notification.delivery.store import Deliveries
from services.notification.delivery.worker import Worker
from services.notification.events import Telling, follow_payments
from services.notification.store import Notifications, PreferencesOfUsers
from services.runtime import clients
from services.runtime.bus import MESSAGE_ID, open_bus
from services.runtime.postgres import open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.mailbox import Mail, mailbox
from tests.integration.serving import METHODS, identity, serving
from tests.waiting import eventually

PAYMENTS = 60


class UserService(user_pb2_grpc.UserServiceServicer):
    """Knows everybody's address, and is away now and then."""

    def __init__(self) -> None:
        self.asked = 0

    async def BatchGetContacts(
        self, request: user_pb2.BatchGetContactsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> user_pb2.BatchGetContactsResponse:
        self.asked += 1
        if self.asked % 20 == 0:
            await context.abort(grpc.StatusCode.INTERNAL, "away")
        [user_id] = request.user_ids
        contact = user_pb2.Contact(user_id=user_id, email=f"{user_id}@example.com")
        return user_pb2.BatchGetContactsResponse(contacts=[contact])


def events() -> list[PaymentEvent]:
    """Payments that are authorized, settle and are refunded in part, each by a user of its own to another one."""
    return [event for number in range(PAYMENTS) for event in life(number)]


def life(number: int) -> list[PaymentEvent]:
    states = [Payment.AUTHORIZED, Payment.SETTLED, Payment.SETTLED]
    happened = [
        PaymentEvent(
            payment_id=f"pay_{number}",
            sequence=sequence,
            state=state,
            payer_id=f"payer{number}",
            payee_id=f"payee{number}",
            amount=Money(currency_code="EUR", units=42),
            refunded_amount=Money(currency_code="EUR", units=sequence // 3),
        )
        for sequence, state in enumerate(states, start=1)
    ]
    for event in happened:
        event.create_time.FromDatetime(datetime(2026, 11, 21, tzinfo=UTC))
    return happened


async def test_every_event_reaches_each_of_its_people_once(
    fresh_database: FreshDatabase, nats_url: str, certificates: Path
) -> None:
    url = fresh_database("notification")
    async with AsyncExitStack() as stack:
        register = partial(user_pb2_grpc.add_UserServiceServicer_to_server, UserService())
        port = await stack.enter_async_context(serving([register], certificates, "user"))
        channel = clients.connect("user", f"127.0.0.1:{port}", identity(certificates, "notification"), METHODS)
        stack.push_async_callback(channel.close)
        box = await stack.enter_async_context(mailbox())
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "notification")))
        await bus.connected()
        await (await bus.stream("payment")).purge_stream("payment")  # other tests have left events in it
        tasks = []
        for _ in range(2):
            database = await stack.enter_async_context(open_database(url))
            deliveries = Deliveries(database)
            connections = Connections(server(f"smtp://localhost:{box.port}"), ssl.create_default_context())
            stack.push_async_callback(connections.close)
            email = Email(connections, "no-reply@drawbridge.example", Users(channel))
            telling = Telling(Notifications(database), PreferencesOfUsers(database), deliveries, {"EMAIL"})
            tasks += [follow_payments(bus, database, telling.tell), Worker(deliveries, {"EMAIL": email}).run()]
        running = [asyncio.create_task(task) for task in tasks]

        for event in events():
            subject = f"payment.{event.payment_id}"
            headers = {MESSAGE_ID: f"{subject}.{event.sequence}"}
            await bus.publish("payment", subject, event.SerializeToString(), headers)

        async def all_are_sent() -> bool:
            rows = await database.fetch("SELECT state FROM deliveries")
            return len(rows) == 5 * PAYMENTS and all(row["state"] == "DELIVERED" for row in rows)

        await eventually(all_are_sent, seconds=30)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert set(Counter(box.ids).values()) == {1}
    for mail in box.mails:
        assert (mail.message["To"], mail.message["Reply-To"]) == (mail.recipient, None)
        assert "Pay to me" not in mail.message.as_string()
    told = Counter((mail.recipient, sentence_of(mail)) for mail in box.mails)
    assert told == Counter(one for number in range(PAYMENTS) for one in sentences(number))


def sentence_of(mail: Mail) -> str:
    return str(mail.message.get_content().splitlines()[2])


def sentences(number: int) -> list[tuple[str, str]]:
    payer, payee = f"payer{number}@example.com", f"payee{number}@example.com"
    return [
        (payer, "Your payment of 42.00 EUR is on its way."),
        (payer, "You paid 42.00 EUR."),
        (payee, "You received 42.00 EUR."),
        (payer, "In all, 1.00 EUR of your payment of 42.00 EUR came back to your account."),
        (payee, "In all, you paid back 1.00 EUR of 42.00 EUR that you had received."),
    ]
