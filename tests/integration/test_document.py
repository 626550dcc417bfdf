"""Documents once they are uploaded: shown, found, listed and deleted."""

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from document.v1 import document_pb2

from services.document.sweep import UNTOUCHED
from services.runtime.ids import new_id
from tests.integration.archive import (
    Archive,
    failed,
    form,
    open_archive,
    refusal,
    requests,
    scan,
)
from tests.integration.conftest import FreshDatabase
from tests.integration.reading import Reader, Registry, reading, zone
from tests.integration.serving import reason
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
async def archive(
    fresh_database: FreshDatabase, certificates: Path, tmp_path_factory: pytest.TempPathFactory, reader: Reader
) -> AsyncIterator[Archive]:
    folder = tmp_path_factory.mktemp("objects")
    async with (
        open_archive(fresh_database("document"), certificates, folder) as archive,
        reading(archive, reader, Registry()),
    ):
        yield archive


async def uploaded(archive: Archive, user_id: str, content: bytes, kind: str = "PASSPORT") -> document_pb2.Document:
    """A document that was read."""
    return await archive.read(await archive.upload(user_id, content, kind))


async def verified(archive: Archive, document: document_pb2.Document) -> document_pb2.Document:
    """A document that was read again."""
    await archive.verify(document)
    return await archive.read(document)


async def test_the_same_file_proves_only_the_user_who_uploaded_it_first(archive: Archive) -> None:
    first, second, content = new_id("usr"), new_id("usr"), scan()
    original = await uploaded(archive, first, content)
    copy = await uploaded(archive, second, content)
    assert (original.state, failed(copy)) == (document_pb2.Document.VERIFIED, ["NOT_ANOTHER_USERS"])
    assert not failed(await uploaded(archive, first, content))
    assert not failed(await verified(archive, original))
    assert failed(await verified(archive, copy)) == ["NOT_ANOTHER_USERS"]


async def test_of_two_users_who_upload_the_same_file_at_once_one_is_refused(archive: Archive) -> None:
    content = scan()
    documents = await asyncio.gather(*(uploaded(archive, new_id("usr"), content) for _ in range(4)))
    assert [failed(document) for document in documents].count([]) == 1


async def test_when_the_original_is_deleted_a_copy_can_be_verified(archive: Archive) -> None:
    first, second, content = new_id("usr"), new_id("usr"), scan()
    original, copy = await uploaded(archive, first, content), await uploaded(archive, second, content)
    assert copy.state == document_pb2.Document.REJECTED
    await archive.of(first).DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=original.id))
    assert (await verified(archive, copy)).state == document_pb2.Document.VERIFIED


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
    document = await uploaded(archive, new_id("usr"), scan())
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
    for caller in (officer, archive.inside()):
        assert (await caller.VerifyDocument(verify)).state == document_pb2.Document.PENDING
        assert await archive.read(document) == document


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


async def test_a_document_is_gone_also_when_the_store_does_not_answer_and_its_file_with_the_next_sweep(
    archive: Archive,
) -> None:
    user = new_id("usr")
    document = await archive.upload(user, scan())
    with archive.store_away():
        await archive.of(user).DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=document.id))
    get = archive.of(user).GetDocument(document_pb2.GetDocumentRequest(document_id=document.id))
    assert reason(await refusal(get)) == "DOCUMENT_NOT_FOUND"
    assert document.id in archive.files()
    assert document.id in await archive.documents.unknown(list(archive.files()))  # what the sweep asks


_EXPIRED = "UPDATE documents SET expire_date = (now() AT TIME ZONE 'UTC')::date - $2::integer WHERE id = $1"


async def test_payment_finds_the_newest_identity_document_that_is_verified_and_valid(
    archive: Archive, reader: Reader
) -> None:
    user = new_id("usr")

    async def found() -> str:
        request = document_pb2.FindIdentityDocumentRequest(user_id=user)
        return (await archive.inside().FindIdentityDocument(request)).document_id

    await uploaded(archive, user, scan(), "PROOF_OF_ADDRESS")
    await uploaded(archive, user, scan(), "ID_CARD")  # the reader sees a passport
    assert not await found()
    passport = await uploaded(archive, user, scan())
    reader.sees = lambda: zone("TD1")
    licence = await uploaded(archive, user, scan(), "DRIVING_LICENCE")
    reader.sees = zone
    assert await found() == licence.id
    await archive.database.execute(_EXPIRED, licence.id, 0)
    assert await found() == licence.id, "it is valid through the day"
    await archive.database.execute(_EXPIRED, licence.id, 1)
    assert await found() == passport.id
    request = document_pb2.FindIdentityDocumentRequest(user_id=user)
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
    orphan, unfinished, fresh = new_id("doc"), f"{new_id('doc')}#1", new_id("doc")
    objects = archive.folder / "objects"
    for name in (orphan, unfinished, fresh):
        (objects / name).write_bytes(b"x")
    for name in (orphan, unfinished, kept):
        written = (objects / name).stat().st_mtime - UNTOUCHED.total_seconds() - 60
        os.utime(objects / name, (written, written))
    sweeping = asyncio.create_task(archive.sweep.run())
    await eventually(partial(archive.lacks, orphan))
    await eventually(partial(archive.lacks, unfinished))
    sweeping.cancel()
    assert {kept, fresh} <= archive.files()
