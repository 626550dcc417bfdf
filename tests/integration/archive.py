"""The document service behind its interceptors, with real Postgres, a folder as its object store, and clients."""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
from document.v1 import document_pb2, document_pb2_grpc
from google.api.httpbody_pb2 import HttpBody
from PIL import Image

from services.document.domain import Document, File, Inspection, Kind
from services.document.inspection import Inspector
from services.document.objects import open_objects
from services.document.service import DocumentService
from services.document.store import Documents
from services.document.sweep import Sweep
from services.document.upload import Uploads
from services.runtime.errors import Unavailable
from services.runtime.postgres import open_database
from tests.integration.serving import As, serving

MAX_BYTES = 4 * 1024 * 1024
CONTENT_TYPE = "multipart/form-data; boundary=b"


class DatabaseLost(Unavailable):
    """The database went away at the worst moment."""


class LosableDocuments(Documents):
    """Loses the database after a document was written, when it is told to."""

    lost = False

    async def add(self, document_id: str, owner_id: str, kind: Kind, file: File, inspection: Inspection) -> Document:
        document = await super().add(document_id, owner_id, kind, file, inspection)
        if self.lost:
            raise DatabaseLost
        return document


@dataclass
class Archive:
    """The service, and what the tests reach around it for."""

    edge: As
    payment: As
    documents: LosableDocuments
    folder: Path
    sweep: Sweep

    def of(self, user_id: str, *roles: str) -> "document_pb2_grpc.DocumentServiceAsyncStub":
        return document_pb2_grpc.DocumentServiceStub(self.edge.user(user_id, *roles))

    def inside(self) -> "document_pb2_grpc.DocumentServiceAsyncStub":
        return document_pb2_grpc.DocumentServiceStub(self.payment.user())

    async def upload(self, user_id: str, content: bytes, kind: str = "PASSPORT") -> document_pb2.Document:
        return await self.of(user_id, "customer").UploadDocument(requests(form(content, kind)))

    def files(self) -> set[str]:
        """Every file in the store, half-written ones among them."""
        return {file.name for file in self.folder.rglob("*") if file.is_file()}

    async def holds(self, files: set[str]) -> bool:
        return self.files() == files

    async def lacks(self, file: str) -> bool:
        return file not in self.files()


def scan(size: tuple[int, int] = (400, 300)) -> bytes:
    """An image that differs each time."""
    file = io.BytesIO()
    # Not Image.effect_noise: it draws from C's rand(), which gRPC seeds anew, so that scans repeat.
    Image.frombytes("L", size, secrets.token_bytes(size[0] * size[1])).save(file, "PNG")
    return file.getvalue()


def form(content: bytes, kind: str = "PASSPORT", name: str = "scan.png") -> bytes:
    return (
        f'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\n{kind}\r\n'
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    ).encode() + (content + b"\r\n--b--\r\n")


async def requests(
    body: bytes, content_type: str = CONTENT_TYPE, piece: int = 1024 * 1024
) -> AsyncIterator[document_pb2.UploadDocumentRequest]:
    for start in range(0, len(body), piece):
        content = HttpBody(content_type="" if start else content_type, data=body[start : start + piece])
        yield document_pb2.UploadDocumentRequest(content=content)


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def failed(document: document_pb2.Document) -> Sequence[str]:
    return [check.name for check in document.checks if check.outcome != document_pb2.DocumentCheck.PASSED]


@asynccontextmanager
async def open_archive(database_url: str, certificates: Path, folder: Path) -> AsyncIterator[Archive]:
    """Serves it. Uploads are limited to MAX_BYTES."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        documents, objects = LosableDocuments(database), open_objects(folder.as_uri())
        inspector = Inspector(objects)
        uploads = Uploads(objects, documents, inspector, MAX_BYTES)
        service = DocumentService(documents, objects, inspector, uploads)
        register = [partial(document_pb2_grpc.add_DocumentServiceServicer_to_server, service)]
        port = await stack.enter_async_context(serving(register, certificates, "document"))
        edge, payment = (As(port, certificates, "document", peer) for peer in ("edge", "payment"))
        yield Archive(edge, payment, documents, folder, Sweep(objects, documents))
        await edge.close()
        await payment.close()


async def stalling(
    body: bytes, sent: asyncio.Event, then: asyncio.Event
) -> AsyncIterator[document_pb2.UploadDocumentRequest]:
    """Sends what there is, says so, and does not end before it is told."""
    async for request in requests(body):
        yield request
    sent.set()
    await then.wait()
