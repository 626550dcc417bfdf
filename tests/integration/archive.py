"""The document service behind its interceptors, with real Postgres, a folder as its object store, and clients."""

import asyncio
import io
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from document.v1 import document_pb2, document_pb2_grpc
from google.api.httpbody_pb2 import HttpBody
from PIL import Image

from services.document.admission import Limits
from services.document.domain import State
from services.document.objects import Objects, open_objects
from services.document.service import DocumentService
from services.document.store import Documents
from services.document.sweep import Sweep
from services.document.upload import Uploads
from services.document.verification.store import Verifications
from services.runtime import idempotency
from services.runtime.bus import Bus
from services.runtime.errors import Unavailable
from services.runtime.idempotency import Answer
from services.runtime.outbox import Outbox
from services.runtime.postgres import Database, open_database
from services.runtime.trail import Trail
from tests.integration.serving import As, serving
from tests.waiting import eventually

MAX_BYTES = 4 * 1024 * 1024
LIMITS = Limits(file_bytes=MAX_BYTES, documents_of_user=200, at_once_of_user=32, at_once=64)
CONTENT_TYPE = "multipart/form-data; boundary=b"


class DatabaseLost(Unavailable):
    """The database went away at the worst moment."""


class LosableDocuments(Documents):
    """Loses the database after a document was written, when it is told to."""

    lost = False
    committed: Callable[[], None] = staticmethod(lambda: None)
    """What happens as soon as a document was written."""

    asked = 0
    """How often it was asked for room."""

    async def require_room(self, *args: Any) -> None:
        await super().require_room(*args)
        self.asked += 1

    async def add(self, *args: Any) -> Answer:
        answer: Answer = await super().add(*args)
        self.committed()
        if self.lost:
            raise DatabaseLost
        return answer


@dataclass
class Archive:
    """The service, and what the tests reach around it for."""

    edge: As
    payment: As
    database: Database
    documents: LosableDocuments
    verifications: Verifications
    objects: Objects
    folder: Path
    sweep: Sweep
    uploads: Uploads

    def of(self, user_id: str, *roles: str) -> "document_pb2_grpc.DocumentServiceAsyncStub":
        return document_pb2_grpc.DocumentServiceStub(self.edge.user(user_id, *roles))

    def sending(self, user_id: str, **metadata: str) -> "document_pb2_grpc.DocumentServiceAsyncStub":
        """A customer whose uploads have headers: their names with underscores."""
        return document_pb2_grpc.DocumentServiceStub(self.edge.user(user_id, "customer", **metadata))

    def inside(self) -> "document_pb2_grpc.DocumentServiceAsyncStub":
        return document_pb2_grpc.DocumentServiceStub(self.payment.user())

    async def upload(self, user_id: str, content: bytes, kind: str = "PASSPORT") -> document_pb2.Document:
        return await self.of(user_id, "customer").UploadDocument(requests(form(content, kind)))

    async def get(self, document: document_pb2.Document) -> document_pb2.Document:
        """The document as its owner sees it now."""
        request = document_pb2.GetDocumentRequest(document_id=document.id)
        return await self.of(document.owner_id).GetDocument(request)

    async def read(self, document: document_pb2.Document, seconds: float = 30) -> document_pb2.Document:
        """Waits until the document is not PENDING, and returns it."""

        async def is_read() -> bool:
            return (await self.documents.get(document.id)).state is not State.PENDING

        await eventually(is_read, seconds)
        return await self.get(document)

    async def verify(self, document: document_pb2.Document) -> document_pb2.Document:
        """Has its owner have it read again. Returns it as it is before that."""
        request = document_pb2.VerifyDocumentRequest(document_id=document.id)
        return await self.of(document.owner_id).VerifyDocument(request)

    def files(self) -> set[str]:
        """Every file in the store, half-written ones among them."""
        return {file.name for file in self.folder.rglob("*") if file.is_file()}

    @contextmanager
    def store_away(self) -> Iterator[None]:
        """Has the store answer nothing but errors."""
        [files] = self.folder.iterdir()
        aside = files.rename(self.folder / "aside")
        files.touch()
        yield
        files.unlink()
        aside.rename(files)

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
async def open_archive(
    database_url: str, certificates: Path, folder: Path, bus: Bus | None = None, limits: Limits = LIMITS
) -> AsyncIterator[Archive]:
    """Serves it. Nobody reads what is uploaded: see reading.py. Uploads are limited to MAX_BYTES."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(database_url))
        documents, objects = LosableDocuments(database), open_objects(folder.as_uri())
        nowhere = Bus("tls://nowhere", ssl.create_default_context)
        verifications = Verifications(database, Outbox("document", database, bus or nowhere))
        uploads = Uploads(objects, documents, limits, verifications.due.set)
        service = DocumentService(documents, objects, uploads, verifications)
        register = [partial(document_pb2_grpc.add_DocumentServiceServicer_to_server, service)]
        keys = idempotency.of_streams(database)
        port = await stack.enter_async_context(
            serving(register, certificates, "document", keys, trail=Trail("document", database))
        )
        edge, payment = (As(port, certificates, "document", peer) for peer in ("edge", "payment"))
        sweep = Sweep(objects, documents)
        yield Archive(edge, payment, database, documents, verifications, objects, folder, sweep, uploads)
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
