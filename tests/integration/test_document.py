"""The document service behind its interceptors, with real Postgres and a folder as its object store."""

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
from services.document.sweep import UNTOUCHED, Sweep
from services.document.upload import Uploads
from services.runtime.errors import Unavailable
from services.runtime.ids import new_id
from services.runtime.postgres import open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import As, reason, serving, trailers
from tests.waiting import eventually

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
    Image.effect_noise(size, 50).save(file, "PNG")
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


@pytest.fixture(scope="module")
async def archive(
    fresh_database: FreshDatabase, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Archive]:
    folder = tmp_path_factory.mktemp("objects")
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(fresh_database("document")))
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


async def test_a_passport_is_uploaded_checked_and_kept(archive: Archive) -> None:
    user, content = new_id("usr"), scan()
    call: Any = archive.of(user, "customer").UploadDocument(requests(form(content, name="../my scan.png")))
    document = await call
    assert (document.owner_id, document.kind) == (user, document_pb2.Document.PASSPORT)
    assert (document.file_name, document.content_type) == ("my scan.png", "image/png")
    assert (document.size_bytes, document.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (document.state, failed(document)) == (document_pb2.Document.VERIFIED, [])
    assert [check.name for check in document.checks] == ["READABLE", "USEFUL_SIZE", "NOT_ANOTHER_USERS"]
    assert document.id in archive.files()
    headers = dict(await call.initial_metadata())
    assert (headers["x-http-code"], headers["location"]) == ("201", f"/api/v1/documents/{document.id}")
    got = await archive.of(user).GetDocument(document_pb2.GetDocumentRequest(document_id=document.id))
    assert got == document


async def test_an_upload_may_come_in_very_small_pieces(archive: Archive) -> None:
    stub = archive.of(new_id("usr"), "customer")
    document = await stub.UploadDocument(requests(form(scan((200, 200))), piece=100))
    assert document.state == document_pb2.Document.VERIFIED


@pytest.mark.parametrize(
    ("content", "checks"),
    [
        (scan((400, 100)), ["USEFUL_SIZE"]),
        (scan()[:-500], ["READABLE", "USEFUL_SIZE"]),
        (b"%PDF-1.7 and nothing more", ["READABLE", "USEFUL_SIZE"]),
    ],
)
async def test_a_document_that_fails_a_check_is_kept_as_rejected(
    archive: Archive, content: bytes, checks: list[str]
) -> None:
    document = await archive.upload(new_id("usr"), content)
    assert (document.state, failed(document)) == (document_pb2.Document.REJECTED, checks)
    assert all(check.detail for check in document.checks if check.name in checks)


async def test_the_same_file_proves_only_the_user_who_uploaded_it_first(archive: Archive) -> None:
    first, second, content = new_id("usr"), new_id("usr"), scan()
    original = await archive.upload(first, content)
    copy = await archive.upload(second, content)
    assert (original.state, failed(copy)) == (document_pb2.Document.VERIFIED, ["NOT_ANOTHER_USERS"])
    assert not failed(await archive.upload(first, content))

    verify_original = document_pb2.VerifyDocumentRequest(document_id=original.id)
    assert not failed(await archive.of(first).VerifyDocument(verify_original))
    verify_copy = document_pb2.VerifyDocumentRequest(document_id=copy.id)
    assert failed(await archive.of(second).VerifyDocument(verify_copy)) == ["NOT_ANOTHER_USERS"]


async def test_of_two_users_who_upload_the_same_file_at_once_one_is_refused(archive: Archive) -> None:
    content = scan()
    documents = await asyncio.gather(*(archive.upload(new_id("usr"), content) for _ in range(4)))
    assert [failed(document) for document in documents].count([]) == 1


async def test_when_the_original_is_deleted_a_copy_can_be_verified(archive: Archive) -> None:
    first, second, content = new_id("usr"), new_id("usr"), scan()
    original, copy = await archive.upload(first, content), await archive.upload(second, content)
    await archive.of(first).DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=original.id))
    verified = await archive.of(second).VerifyDocument(document_pb2.VerifyDocumentRequest(document_id=copy.id))
    assert verified.state == document_pb2.Document.VERIFIED
    assert await archive.of(second).GetDocument(document_pb2.GetDocumentRequest(document_id=copy.id)) == verified


@pytest.mark.parametrize(
    ("body", "content_type", "expected", "http_code"),
    [
        (form(scan())[:-6], CONTENT_TYPE, "INCOMPLETE_UPLOAD", None),
        (form(scan((1500, 1500)))[: 2 * 1024 * 1024], CONTENT_TYPE, "INCOMPLETE_UPLOAD", None),
        (form(scan((2200, 2200))), CONTENT_TYPE, "FILE_TOO_LARGE", "413"),
        (form(b"GIF89a" + bytes(100)), CONTENT_TYPE, "UNSUPPORTED_FILE_TYPE", "415"),
        (form(b"GIF"), CONTENT_TYPE, "UNSUPPORTED_FILE_TYPE", "415"),
        (form(b""), CONTENT_TYPE, "EMPTY_FILE", None),
        (form(scan(), kind="SELFIE"), CONTENT_TYPE, "UNKNOWN_DOCUMENT_KIND", None),
        (form(scan()).replace(b'"kind"', b'"type"'), CONTENT_TYPE, "UNEXPECTED_PART", None),
        (form(scan())[60:], CONTENT_TYPE, "PART_REQUIRED", None),
        (b"nothing of the kind", CONTENT_TYPE, "INCOMPLETE_UPLOAD", None),
        (form(scan()), "multipart/form-data", "INVALID_MULTIPART", None),
        (b'{"kind": "PASSPORT"}', "application/json", "INVALID_MULTIPART", "415"),
        (scan(), "image/png", "INVALID_MULTIPART", "415"),
        (b"", "", "INVALID_MULTIPART", "415"),
    ],
)
async def test_a_broken_upload_is_refused_and_leaves_nothing_behind(
    archive: Archive, body: bytes, content_type: str, expected: str, http_code: str | None
) -> None:
    user, before = new_id("usr"), archive.files()
    error = await refusal(archive.of(user, "customer").UploadDocument(requests(body, content_type)))
    assert reason(error) == expected
    assert trailers(error).get("x-http-code") == http_code
    await eventually(partial(archive.holds, before))
    assert not (await archive.of(user).ListDocuments(document_pb2.ListDocumentsRequest())).documents


async def stalling(
    body: bytes, sent: asyncio.Event, then: asyncio.Event
) -> AsyncIterator[document_pb2.UploadDocumentRequest]:
    """Sends what there is, says so, and does not end before it is told."""
    async for request in requests(body):
        yield request
    sent.set()
    await then.wait()


async def test_a_file_that_is_too_large_is_refused_before_it_ends(archive: Archive) -> None:
    body = form(scan()[:100] + bytes(MAX_BYTES)).removesuffix(b"\r\n--b--\r\n")
    upload = stalling(body, sent=asyncio.Event(), then=asyncio.Event())
    error = await refusal(archive.of(new_id("usr"), "customer").UploadDocument(upload))
    assert (reason(error), error.code()) == ("FILE_TOO_LARGE", grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_a_client_that_goes_away_midway_leaves_nothing_behind(archive: Archive) -> None:
    user, before = new_id("usr"), archive.files()
    halfway, end = asyncio.Event(), asyncio.Event()
    body = form(scan()[:100] + bytes(3 * 1024 * 1024))[:-10]
    call: Any = archive.of(user, "customer").UploadDocument(stalling(body, halfway, end))
    await halfway.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(partial(archive.holds, before))
    assert not (await archive.of(user).ListDocuments(document_pb2.ListDocumentsRequest())).documents


async def test_a_database_that_is_lost_while_a_document_is_written_leaves_nothing_behind(archive: Archive) -> None:
    user, before = new_id("usr"), archive.files()
    archive.documents.lost = True
    try:
        error = await refusal(archive.upload(user, scan()))
    finally:
        archive.documents.lost = False
    assert (reason(error), archive.files()) == ("DATABASE_LOST", before)
    assert not (await archive.of(user).ListDocuments(document_pb2.ListDocumentsRequest())).documents


async def test_a_file_is_downloaded_as_it_was_uploaded(archive: Archive) -> None:
    user, content = new_id("usr"), scan((900, 900))
    document = await archive.of(user, "customer").UploadDocument(requests(form(content, name="Prüfung.png")))
    request = document_pb2.DownloadDocumentRequest(document_id=document.id)
    call: Any = archive.of(user).DownloadDocument(request)
    pieces = [piece async for piece in call]
    assert b"".join(piece.data for piece in pieces) == content
    assert pieces[0].content_type == "image/png"
    assert len(pieces) > 1
    headers = dict(await call.initial_metadata())
    name = "filename=\"Pr_fung.png\"; filename*=UTF-8''Pr%C3%BCfung.png"
    assert headers["content-disposition"] == f"attachment; {name}"
    assert headers["x-content-type-options"] == "nosniff"
    assert b"".join([piece.data async for piece in archive.of("usr_o", "officer").DownloadDocument(request)]) == content


async def test_others_get_no_document_and_an_officer_cannot_delete_one(archive: Archive) -> None:
    document = await archive.upload(new_id("usr"), scan())
    stranger, officer = archive.of(new_id("usr"), "customer"), archive.of(new_id("usr"), "officer")
    get = document_pb2.GetDocumentRequest(document_id=document.id)
    download = document_pb2.DownloadDocumentRequest(document_id=document.id)
    verify = document_pb2.VerifyDocumentRequest(document_id=document.id)
    delete = document_pb2.DeleteDocumentRequest(document_id=document.id)
    for call in (
        stranger.GetDocument(get),
        stranger.DownloadDocument(download).read(),
        stranger.VerifyDocument(verify),
        stranger.DeleteDocument(delete),
        officer.DeleteDocument(delete),
    ):
        error = await refusal(call)
        assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_OWNER")
    assert await officer.GetDocument(get) == document
    assert await officer.VerifyDocument(verify) == document
    assert await archive.inside().VerifyDocument(verify) == document


async def test_a_deleted_document_is_gone_with_its_file(archive: Archive) -> None:
    user = new_id("usr")
    document = await archive.upload(user, scan())
    await archive.of(user).DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=document.id))
    assert document.id not in archive.files()
    for call in (
        archive.of(user).GetDocument(document_pb2.GetDocumentRequest(document_id=document.id)),
        archive.of(user).DownloadDocument(document_pb2.DownloadDocumentRequest(document_id=document.id)).read(),
        archive.of(user).VerifyDocument(document_pb2.VerifyDocumentRequest(document_id=document.id)),
        archive.of(user).DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=document.id)),
    ):
        assert reason(await refusal(call)) == "DOCUMENT_NOT_FOUND"


async def test_payment_finds_the_newest_verified_identity_document(archive: Archive) -> None:
    user = new_id("usr")
    request = document_pb2.FindIdentityDocumentRequest(user_id=user)
    await archive.upload(user, scan(), "PROOF_OF_ADDRESS")
    await archive.upload(user, scan((100, 100)))
    assert not (await archive.inside().FindIdentityDocument(request)).document_id
    await archive.upload(user, scan())
    licence = await archive.upload(user, scan(), "DRIVING_LICENCE")
    assert (await archive.inside().FindIdentityDocument(request)).document_id == licence.id
    assert reason(await refusal(archive.of(user).FindIdentityDocument(request))) == "CALLER_NOT_ALLOWED"


async def test_documents_are_listed_newest_first_page_by_page(archive: Archive) -> None:
    user = new_id("usr")
    ids = [(await archive.upload(user, scan((200, 200)))).id for _ in range(3)]
    first = await archive.of(user).ListDocuments(document_pb2.ListDocumentsRequest(page_size=2))
    second = await archive.of(user).ListDocuments(
        document_pb2.ListDocumentsRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [one.id for one in (*first.documents, *second.documents)] == ids[::-1]
    assert not second.next_page_token


async def test_the_sweep_deletes_old_files_without_a_document_and_no_others(archive: Archive) -> None:
    kept = (await archive.upload(new_id("usr"), scan())).id
    orphan, fresh = new_id("doc"), new_id("doc")
    objects = archive.folder / "objects"
    for name in (orphan, fresh):
        (objects / name).write_bytes(b"x")
    for name in (orphan, kept):
        written = (objects / name).stat().st_mtime - UNTOUCHED.total_seconds() - 60
        os.utime(objects / name, (written, written))
    sweeping = asyncio.create_task(archive.sweep.run())
    await eventually(partial(archive.lacks, orphan))
    sweeping.cancel()
    assert {kept, fresh} <= archive.files()
