"""Starts the notification service."""

from functools import partial

import uvloop
from notification.v1 import notification_pb2_grpc

from services.notification.events import follow_payments
from services.notification.service import NotificationService
from services.notification.store import Notifications
from services.runtime import config, sweep
from services.runtime.config import BusSettings, DatabaseSettings, ServerSettings
from services.runtime.events import open_bus
from services.runtime.postgres import open_database
from services.runtime.server import serve
from services.runtime.tls import Identity


class Settings(ServerSettings, DatabaseSettings, BusSettings):
    """What the notification service needs to know."""


async def main(settings: Settings) -> None:
    """Composes the service and serves."""
    async with (
        open_database(settings.database_url) as database,
        open_bus(settings.nats_url, Identity.of(settings)) as bus,
    ):
        store = Notifications(database)
        servicer = NotificationService(store)
        register = [partial(notification_pb2_grpc.add_NotificationServiceServicer_to_server, servicer)]
        background = [follow_payments(bus, database, store), sweep.handled_events(database).run()]
        await serve("notification", settings, register, background=background, ready=[database.ping])


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
