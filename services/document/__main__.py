"""Starts the document service."""

from functools import partial
from typing import Annotated

import uvloop
from document.v1 import document_pb2_grpc
from pydantic import Field

from services.document.admission import Limits
from services.document.clients import Users
from services.document.events import follow_users
from services.document.inspection import Inspector
from services.document.isolation import keep_to_itself
from services.document.memory import LITTLE_AHEAD, give_back
from services.document.objects import open_objects
from services.document.service import DocumentService
from services.document.store import Documents
from services.document.sweep import Sweep
from services.document.upload import Uploads
from services.document.verification.store import Verifications
from services.document.verification.worker import Verification
from services.runtime import clients, config, contract, idempotency, sweep
from services.runtime.bus import open_bus
from services.runtime.config import BusSettings, DatabaseSettings, ServerSettings
from services.runtime.outbox import Outbox
from services.runtime.postgres import open_database
from services.runtime.server import once, serve
from services.runtime.tls import Identity
from services.runtime.trail import Trail


class Settings(ServerSettings, DatabaseSettings, BusSettings):
    """What the document service needs to know."""

    user_address: str
    object_store_url: str
    """Where files are kept: file:///folder, s3://bucket/prefix or another that obstore knows."""
    max_upload_bytes: Annotated[int, Field(gt=0)] = 25 * 1024 * 1024
    max_documents_per_user: Annotated[int, Field(gt=0)] = 200
    max_uploads_per_user: Annotated[int, Field(gt=0)] = 32
    """At once, in this process."""
    max_uploads: Annotated[int, Field(gt=0)] = 64
    """At once, in this process, of all users."""


async def main(settings: Settings) -> None:
    """Composes the service and serves."""
    identity = Identity.of(settings)
    objects = open_objects(settings.object_store_url)
    user = clients.connect("user", settings.user_address, identity, contract.load(settings.contract))
    async with open_database(settings.database_url) as database, open_bus(settings.nats_url, identity) as bus:
        outbox = Outbox("document", database, bus)
        documents, verifications = Documents(database), Verifications(database, outbox)
        limits = Limits(
            file_bytes=settings.max_upload_bytes,
            documents_of_user=settings.max_documents_per_user,
            at_once_of_user=settings.max_uploads_per_user,
            at_once=settings.max_uploads,
        )
        uploads = Uploads(objects, documents, limits, verifications.due.set)
        service = DocumentService(documents, objects, uploads, verifications)
        register = [partial(document_pb2_grpc.add_DocumentServiceServicer_to_server, service)]
        background = [
            outbox.relay(),
            Verification(verifications, Inspector(objects), Users(user)).run(),
            follow_users(bus, database, verifications.begin_again_of),
            Sweep(objects, documents).run(),
            sweep.handled_events(database).run(),
            sweep.idempotency_keys(database).run(),
        ]
        await serve(
            "document",
            settings,
            register,
            background=background,
            trail=Trail("document", database),
            ready=[database.ping, once(objects.ping)],  # payments need no files
            idempotency=idempotency.of_streams(database),
            options=LITTLE_AHEAD,
        )


if __name__ == "__main__":
    keep_to_itself()
    give_back()
    uvloop.run(main(config.load(Settings)))
