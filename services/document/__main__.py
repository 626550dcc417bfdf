"""Starts the document service."""

from functools import partial

import uvloop
from document.v1 import document_pb2_grpc

from services.document.inspection import Inspector
from services.document.objects import open_objects
from services.document.service import DocumentService
from services.document.store import Documents
from services.document.sweep import Sweep
from services.document.upload import Uploads
from services.runtime import config
from services.runtime.config import DatabaseSettings, ServerSettings
from services.runtime.postgres import open_database
from services.runtime.server import serve


class Settings(ServerSettings, DatabaseSettings):
    """What the document service needs to know."""

    object_store_url: str
    """Where files are kept: file:///folder, s3://bucket/prefix or another that obstore knows."""
    max_upload_bytes: int = 25 * 1024 * 1024


async def main(settings: Settings) -> None:
    """Composes the service and serves."""
    objects = open_objects(settings.object_store_url)
    async with open_database(settings.database_url) as database:
        documents, inspector = Documents(database), Inspector(objects)
        uploads = Uploads(objects, documents, inspector, settings.max_upload_bytes)
        service = DocumentService(documents, objects, inspector, uploads)
        register = [partial(document_pb2_grpc.add_DocumentServiceServicer_to_server, service)]
        background = [Sweep(objects, documents).run()]
        await serve("document", settings, register, background=background, ready=[database.ping, objects.ping])


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
