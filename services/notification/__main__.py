"""Starts the notification service."""

from contextlib import AsyncExitStack
from functools import partial
from typing import Literal

import uvloop
from notification.v1 import notification_pb2_grpc, webhook_pb2_grpc

from services.notification.clients import Users
from services.notification.delivery.channels import ChannelSettings, open_channels
from services.notification.delivery.domain import WEBHOOK
from services.notification.delivery.store import Deliveries
from services.notification.delivery.worker import Worker
from services.notification.events import Telling, follow_documents, follow_passwords, follow_payments
from services.notification.service import NotificationService
from services.notification.store import Notifications, PreferencesOfUsers
from services.notification.webhooks.channel import WebhookChannel
from services.notification.webhooks.events import Announcements
from services.notification.webhooks.network import open_session
from services.notification.webhooks.service import WebhookService
from services.notification.webhooks.store import Webhooks
from services.runtime import clients, config, contract, sweep
from services.runtime.bus import open_bus
from services.runtime.config import BusSettings, DatabaseSettings, ServerSettings
from services.runtime.postgres import open_database
from services.runtime.server import serve
from services.runtime.tls import Identity
from services.runtime.trail import Trail


class Settings(ServerSettings, DatabaseSettings, BusSettings, ChannelSettings):
    """What the notification service needs to know."""

    user_address: str
    webhook_targets: Literal["public", "any"] = "public"
    """Where webhooks may lead; "any" is for a developer's machine: http and private addresses too."""


async def main(settings: Settings) -> None:
    """Composes the service and serves."""
    identity, public = Identity.of(settings), settings.webhook_targets == "public"
    user = clients.connect("user", settings.user_address, identity, contract.load(settings.contract))
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings.database_url))
        bus = await stack.enter_async_context(open_bus(settings.nats_url, identity))
        session = await stack.enter_async_context(open_session(public=public))
        notifications, preferences = Notifications(database), PreferencesOfUsers(database)
        deliveries, webhooks = Deliveries(database), Webhooks(database)
        channels = await stack.enter_async_context(open_channels(settings, Users(user), preferences))
        telling = Telling(notifications, preferences, deliveries, frozenset(channels))
        announcements = Announcements(webhooks, deliveries)
        channels[WEBHOOK] = WebhookChannel(webhooks, session, public=public)
        notification_service = NotificationService(notifications, preferences)
        webhook_service = WebhookService(webhooks, deliveries, public=public)
        register = [
            partial(notification_pb2_grpc.add_NotificationServiceServicer_to_server, notification_service),
            partial(webhook_pb2_grpc.add_WebhookServiceServicer_to_server, webhook_service),
        ]
        background = [
            follow_payments(bus, database, telling.tell, announcements.tell),
            follow_documents(bus, database, telling.tell_of_document),
            follow_passwords(bus, database, telling.tell_of_password),
            Worker(deliveries, channels).run(),
            deliveries.sweep().run(),
            notifications.sweep().run(),
            sweep.handled_events(database).run(),
        ]
        await serve(
            "notification",
            settings,
            register,
            background=background,
            ready=[database.ping],
            trail=Trail("notification", database),
        )


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
