"""Uploads: what is kept, what is refused, and that what breaks leaves nothing behind."""

import asyncio
import hashlib
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import grpc
import psutil
import pytest
from document.v1 import document_pb2

from services.document.inspection import Inspector
from services.document.objects import ObjectStoreUnavailable, open_objects
from services.runtime.ids import new_id
from tests.integration.archive import (
    CONTENT_TYPE,
    MAX_BYTES,
    Archive,
    DatabaseLost,
    form,
    refusal,
    requests,
    scan,
    stalling,
)
from tests.integration.serving import reason, trailers
from tests.waiting import eventually


async def documents_of(archive: Archive, user: str) -> Sequence[document_pb2.Document]:
    return (await archive.of(user).ListDocuments(document_pb2.ListDocumentsRequest())).documents


async def test_a_passport_is_uploaded_and_kept_to_be_read(archive: Archive) -> None:
    user, content = new_id("usr"), scan()
    call: Any = archive.of(user, "customer").UploadDocument(requests(form(content, name="../my scan.png")))
    document = await call
    assert (document.owner_id, document.kind) == (user, document_pb2.Document.PASSPORT)
    assert (document.file_name, document.content_type) == ("my scan.png", "image/png")
    assert (document.size_bytes, document.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (document.state, list(document.checks)) == (document_pb2.Document.PENDING, [])
    assert document.id in archive.files()
    headers = dict(await call.initial_metadata())
    assert (headers["x-http-code"], headers["location"]) == ("201", f"/api/v1/documents/{document.id}")
    got = await archive.of(user).GetDocument(document_pb2.GetDocumentRequest(document_id=document.id))
    assert got == document


async def test_an_upload_may_come_in_very_small_pieces(archive: Archive) -> None:
    stub = archive.of(new_id("usr"), "customer")
    content = scan((200, 200))
    document = await stub.UploadDocument(requests(form(content), piece=100))
    assert document.sha256 == hashlib.sha256(content).hexdigest()


BROKEN: dict[str, tuple[bytes, str, str, str | None]] = {
    "cut before its closing boundary": (form(scan())[:-6], CONTENT_TYPE, "INCOMPLETE_UPLOAD", None),
    "cut in the file": (form(scan((1500, 1500)))[: 2 * 1024 * 1024], CONTENT_TYPE, "INCOMPLETE_UPLOAD", None),
    "a large file": (form(scan((2200, 2200))), CONTENT_TYPE, "FILE_TOO_LARGE", "413"),
    "a GIF": (form(b"GIF89a" + bytes(100)), CONTENT_TYPE, "UNSUPPORTED_FILE_TYPE", "415"),
    "a file of three bytes": (form(b"GIF"), CONTENT_TYPE, "UNSUPPORTED_FILE_TYPE", "415"),
    "an empty file": (form(b""), CONTENT_TYPE, "EMPTY_FILE", None),
    "an unknown kind": (form(scan(), kind="SELFIE"), CONTENT_TYPE, "UNKNOWN_DOCUMENT_KIND", None),
    "another part": (form(scan()).replace(b'"kind"', b'"type"'), CONTENT_TYPE, "UNEXPECTED_PART", None),
    "no kind": (form(scan()).partition(b"PASSPORT\r\n")[2], CONTENT_TYPE, "PART_REQUIRED", None),
    "no parts": (b"nothing of the kind", CONTENT_TYPE, "INCOMPLETE_UPLOAD", None),
    "no boundary": (form(scan()), "multipart/form-data", "INVALID_MULTIPART", None),
    "JSON": (b'{"kind": "PASSPORT"}', "application/json", "INVALID_MULTIPART", "415"),
    "a bare image": (scan(), "image/png", "INVALID_MULTIPART", "415"),
    "no body": (b"", "", "INVALID_MULTIPART", "415"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_upload_is_refused_and_leaves_nothing_behind(archive: Archive, case: str) -> None:
    body, content_type, expected, http_code = BROKEN[case]
    user, before = new_id("usr"), archive.files()
    error = await refusal(archive.of(user, "customer").UploadDocument(requests(body, content_type)))
    assert reason(error) == expected
    assert trailers(error).get("x-http-code") == http_code
    await eventually(partial(archive.holds, before))
    assert not await documents_of(archive, user)


async def test_a_file_that_is_too_large_is_refused_before_it_ends(archive: Archive) -> None:
    body = form(scan()[:100] + bytes(MAX_BYTES)).removesuffix(b"\r\n--b--\r\n")
    end = asyncio.Event()
    error = await refusal(archive.of(new_id("usr"), "customer").UploadDocument(stalling(body, asyncio.Event(), end)))
    end.set()
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
    end.set()
    await eventually(partial(archive.holds, before))
    assert not await documents_of(archive, user)


async def test_a_client_that_goes_away_while_its_file_is_put_into_the_store_leaves_nothing_behind(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, before, put, is_put = new_id("usr"), archive.files(), archive.objects.put, asyncio.Event()

    async def put_and_hang(document_id: str, file: BinaryIO) -> None:
        await put(document_id, file)
        is_put.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(archive.objects, "put", put_and_hang)
    call: Any = archive.of(user, "customer").UploadDocument(requests(form(scan())))
    async with asyncio.timeout(20):
        await is_put.wait()
    assert archive.files() != before
    call.cancel()
    await eventually(partial(archive.holds, before))
    assert not await documents_of(archive, user)


async def test_a_store_that_fails_after_it_has_taken_a_file_keeps_none(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, before, put = new_id("usr"), archive.files(), archive.objects.put

    async def put_and_fail(document_id: str, file: BinaryIO) -> None:
        await put(document_id, file)
        raise ObjectStoreUnavailable

    monkeypatch.setattr(archive.objects, "put", put_and_fail)
    assert reason(await refusal(archive.upload(user, scan()))) == "OBJECT_STORE_UNAVAILABLE"
    assert archive.files() == before
    assert not await documents_of(archive, user)


async def test_a_document_whose_database_is_lost_before_it_was_committed_leaves_no_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, before = new_id("usr"), archive.files()

    async def lost(*_: object) -> None:
        raise DatabaseLost

    monkeypatch.setattr(archive.documents, "add", lost)
    assert reason(await refusal(archive.upload(user, scan()))) == "DATABASE_LOST"
    assert archive.files() == before


async def test_a_document_whose_database_is_lost_after_it_was_committed_is_there(archive: Archive) -> None:
    user = new_id("usr")
    archive.documents.lost = True
    try:
        document = await archive.upload(user, scan())
    finally:
        archive.documents.lost = False
    assert [one.id for one in await documents_of(archive, user)] == [document.id]
    assert document.id in archive.files()


async def test_a_cancelled_inspection_leaves_no_decoder_behind_and_gives_its_turn_back(tmp_path: Path) -> None:
    objects = open_objects(tmp_path.as_uri())
    await objects.put("doc_1", io.BytesIO(scan((2000, 2000))))
    inspector = Inspector(objects)

    def decoders() -> list[psutil.Process]:
        forking = [one for one in psutil.Process().children() if "services.document.decoder" in one.cmdline()]
        return [one for each in forking for one in each.children()]

    async def decoding() -> bool:
        return len(decoders()) == 2

    running = [asyncio.create_task(inspector.inspect("doc_1", "image/png")) for _ in range(2)]
    await eventually(decoding)
    for task in running:
        task.cancel()
    assert all(
        isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*running, return_exceptions=True)
    )
    assert decoders() == []
    async with asyncio.timeout(20):
        assert (await inspector.inspect("doc_1", "image/png")).shorter_side == 2000
