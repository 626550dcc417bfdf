"""Starts the payment service."""

from datetime import timedelta
from functools import partial
from typing import Annotated

import uvloop
from payment.v1 import invoice_pb2_grpc, payment_pb2_grpc
from pydantic import Field

from services.payment.authorization import Authorization
from services.payment.clients import Compliance, Documents, Users
from services.payment.invoices.service import InvoiceService
from services.payment.invoices.store import Invoices
from services.payment.ledger.service import AccountService
from services.payment.ledger.store import Ledger
from services.payment.reviews import Reviews
from services.payment.service import PaymentService
from services.payment.settlement import Settlement
from services.payment.store import Payments
from services.payment.streams.domain import Places
from services.payment.streams.hub import Hub
from services.payment.streams.service import StreamService
from services.payment.streams.store import Events
from services.payment.visibility import Visibility
from services.runtime import clients, config, contract, idempotency, sweep
from services.runtime.bus import open_bus
from services.runtime.config import BusSettings, DatabaseSettings, ServerSettings
from services.runtime.outbox import Outbox
from services.runtime.postgres import open_database
from services.runtime.revocations import Revocations
from services.runtime.server import serve
from services.runtime.tls import Identity
from services.runtime.trail import Trail

SLOW_READER_SECONDS = 20.0
"""How long a stream waits for a client that does not read."""


class Settings(ServerSettings, DatabaseSettings, BusSettings):
    """What the payment service needs to know."""

    user_address: str
    compliance_address: str
    document_address: str
    settlement_delay_seconds: float = 1.0
    review_expire_seconds: float = 7 * 24 * 3600.0
    max_streams_per_user: Annotated[int, Field(gt=0)] = 100
    """At once, in this process."""
    max_streams: Annotated[int, Field(gt=0)] = 3000
    """At once, in this process, of all users."""


async def main(settings: Settings) -> None:
    """Composes the service and serves."""
    identity = Identity.of(settings)
    connect = partial(clients.connect, identity=identity, methods=contract.load(settings.contract))
    async with open_database(settings.database_url) as database, open_bus(settings.nats_url, identity) as bus:
        outbox = Outbox("payment", database, bus)
        ledger, payments = Ledger(database), Payments(database, outbox)
        events, visibility, revocations = Events(database), Visibility(payments), Revocations(bus)
        hub = Hub(events, bus)
        users = Users(connect("user", settings.user_address))
        authorization = Authorization(
            users,
            Compliance(connect("compliance", settings.compliance_address)),
            Documents(connect("document", settings.document_address)),
            ledger,
            payments,
            timedelta(seconds=settings.settlement_delay_seconds),
            timedelta(seconds=settings.review_expire_seconds),
        )
        places = Places(settings.max_streams_per_user, settings.max_streams)
        streams = StreamService(visibility, events, hub, revocations, places)
        payment_service = PaymentService(authorization, payments, visibility, streams)
        register = [
            partial(payment_pb2_grpc.add_PaymentServiceServicer_to_server, payment_service),
            partial(payment_pb2_grpc.add_AccountServiceServicer_to_server, AccountService(ledger)),
            partial(
                invoice_pb2_grpc.add_InvoiceServiceServicer_to_server,
                InvoiceService(Invoices(database), authorization, users),
            ),
        ]
        background = [
            outbox.relay(),
            hub.run(),
            revocations.run(),
            Settlement(payments).run(),
            Reviews(payments).run(),
            sweep.idempotency_keys(database).run(),
        ]
        await serve(
            "payment",
            settings,
            register,
            background=background,
            trail=Trail("payment", database),
            ready=[database.ping],
            idempotency=idempotency.interceptor(database),
            write_seconds=SLOW_READER_SECONDS,
            on_drain=hub.end,
        )


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
