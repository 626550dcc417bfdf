"""Documents once they are uploaded: checked, shown, downloaded, found and deleted."""

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
from tests.integration.serving import reason
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def archive(
    fresh_database: FreshDatabase, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Archive]:
    async with open_archive(fresh_database("document"), certificates, tmp_path_factory.mktemp("objects")) as archive:
        yield archive


POOR: dict[str, tuple[bytes, list[str]]] = {
    "a small image": (scan((400, 100)), ["USEFUL_SIZE"]),
    "an image cut off": (scan()[:-500], ["READABLE", "USEFUL_SIZE"]),
    "a broken PDF": (b"%PDF-1.7 and nothing more", ["READABLE", "USEFUL_SIZE"]),
}


@pytest.mark.parametrize("case", POOR)
async def test_a_document_that_fails_a_check_is_kept_as_rejected(archive: Archive, case: str) -> None:
    content, checks = POOR[case]
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
