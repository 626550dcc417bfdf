"""Limits of uploads: each has its error, before the whole body is read, and what was refused leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from document.v1 import document_pb2
from google.api.httpbody_pb2 import HttpBody

from services.document.admission import Admission, Limits
from services.runtime.ids import new_id
from tests.integration.archive import (
    LIMITS,
    MAX_BYTES,
    Archive,
    form,
    open_archive,
    refusal,
    requests,
    scan,
    stalling,
)
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import reason, trailers
from tests.waiting import eventually

LITTLE = replace(LIMITS, documents_of_user=3, at_once_of_user=2, at_once=3)


@pytest.fixture(scope="module")
async def archive(
    fresh_database: FreshDatabase, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Archive]:
    folder = tmp_path_factory.mktemp("objects")
    async with open_archive(fresh_database("document"), certificates, folder, limits=LITTLE) as archive:
        yield archive


class Halfway:
    """An upload that has sent half of its body, and waits."""

    def __init__(self, archive: Archive, user: str) -> None:
        self.sent, self.end = asyncio.Event(), asyncio.Event()
        body = form(scan())
        self.call: Any = archive.of(user, "customer").UploadDocument(stalling(body[:-6], self.sent, self.end))

    async def cancel(self) -> None:
        self.call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.call
        self.end.set()


async def under_way(archive: Archive, number: int) -> bool:
    return archive.uploads.admission.under_way == number


async def test_a_user_uploads_so_many_files_at_once_and_others_are_not_in_the_way(archive: Archive) -> None:
    user, other = new_id("usr"), new_id("usr")
    running = [Halfway(archive, user) for _ in range(LITTLE.at_once_of_user)]
    await eventually(partial(under_way, archive, len(running)))
    error = await refusal(archive.upload(user, scan()))
    assert (reason(error), error.code()) == ("TOO_MANY_UPLOADS", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert trailers(error)["retry-after"] == "5"
    assert await archive.upload(other, scan())
    for one in running:
        await one.cancel()
    await eventually(partial(under_way, archive, 0))
    assert await archive.upload(user, scan())


async def test_a_process_takes_so_many_uploads_at_once(archive: Archive) -> None:
    before = archive.files()
    running = [Halfway(archive, new_id("usr")) for _ in range(LITTLE.at_once)]
    await eventually(partial(under_way, archive, len(running)))
    error = await refusal(archive.upload(new_id("usr"), scan()))
    assert (reason(error), error.code()) == ("UPLOADS_BUSY", grpc.StatusCode.UNAVAILABLE)
    assert trailers(error)["retry-after"] == "5"
    for one in running:
        one.end.set()  # ends it short of its closing boundary
        assert reason(await refusal(one.call)) == "INCOMPLETE_UPLOAD"
    await eventually(partial(under_way, archive, 0))
    assert archive.files() == before


async def test_a_user_keeps_so_many_documents_and_is_told_before_the_next_is_sent(archive: Archive) -> None:
    user = new_id("usr")
    documents = [await archive.upload(user, scan()) for _ in range(LITTLE.documents_of_user)]
    before = archive.files()
    end = asyncio.Event()
    upload = stalling(form(scan())[:200], sent=asyncio.Event(), then=end)
    error = await refusal(archive.of(user, "customer").UploadDocument(upload))
    end.set()
    assert (reason(error), error.code()) == ("TOO_MANY_DOCUMENTS", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert archive.files() == before
    await archive.of(user).DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=documents[0].id))
    assert await archive.upload(user, scan())


async def test_of_uploads_at_once_no_more_are_kept_than_a_user_may_keep(archive: Archive) -> None:
    user = new_id("usr")
    for _ in range(LITTLE.documents_of_user - 1):
        await archive.upload(user, scan())
    before, asked, end = archive.files(), archive.documents.asked, asyncio.Event()

    async def in_two(body: bytes) -> AsyncIterator[document_pb2.UploadDocumentRequest]:
        async for request in requests(body[:-6]):
            yield request
        await end.wait()
        yield document_pb2.UploadDocumentRequest(content=HttpBody(data=body[-6:]))

    async def both_were_let_in() -> bool:
        return archive.documents.asked == asked + 2

    async def upload() -> document_pb2.Document:
        return await archive.of(user, "customer").UploadDocument(in_two(form(scan())))

    uploading = asyncio.gather(upload(), upload(), return_exceptions=True)
    await eventually(both_were_let_in)
    end.set()
    both = await uploading
    [refused] = [one for one in both if isinstance(one, grpc.aio.AioRpcError)]
    assert reason(refused) == "TOO_MANY_DOCUMENTS"
    assert len(archive.files() - before) == 1


async def test_a_body_that_is_known_to_be_too_long_is_refused_at_once(archive: Archive) -> None:
    length = str(MAX_BYTES + 1024 * 1024)
    stub = archive.sending(new_id("usr"), x_content_length=length)
    end = asyncio.Event()
    upload = stalling(form(scan())[:200], sent=asyncio.Event(), then=end)
    error = await refusal(stub.UploadDocument(upload))
    end.set()
    assert (reason(error), trailers(error)["x-http-code"]) == ("FILE_TOO_LARGE", "413")


async def test_a_body_that_is_shorter_than_it_was_to_be_is_incomplete(archive: Archive) -> None:
    body, before = form(scan()), archive.files()
    stub = archive.sending(new_id("usr"), x_content_length=str(len(body) + 1))
    assert reason(await refusal(stub.UploadDocument(requests(body)))) == "INCOMPLETE_UPLOAD"
    assert archive.files() == before
    whole = archive.sending(new_id("usr"), x_content_length=str(len(body)))
    assert (await whole.UploadDocument(requests(body))).id in archive.files()


async def test_a_refused_upload_is_read_on_for_a_while_so_that_its_sender_reads_the_answer(archive: Archive) -> None:
    sent = asyncio.Event()
    call: Any = archive.of(new_id("usr"), "customer").UploadDocument(
        stalling(form(b"GIF89a" + bytes(3 * 1024 * 1024), name="x.gif"), sent, then=sent)
    )
    assert reason(await refusal(call)) == "UNSUPPORTED_FILE_TYPE"
    assert sent.is_set()


async def test_an_upload_of_which_nothing_arrives_any_more_loses_its_place(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.document.upload.STALLED_SECONDS", 0.5)
    stalled, before = Halfway(archive, new_id("usr")), archive.files()
    error = await refusal(stalled.call)
    stalled.end.set()
    assert (reason(error), trailers(error)["x-http-code"]) == ("UPLOAD_STALLED", "408")
    await eventually(partial(under_way, archive, 0))
    assert archive.files() == before


def dripping(
    body: bytes, piece: int, ended: asyncio.Event | None = None
) -> AsyncIterator[document_pb2.UploadDocumentRequest]:
    """Sends ten pieces a second, which is what the tests that use it are about. Says when it is through."""

    async def drops() -> AsyncIterator[document_pb2.UploadDocumentRequest]:
        async for request in requests(body, piece=piece):
            yield request
            await asyncio.sleep(0.1)
        if ended:
            ended.set()

    return drops()


async def test_an_upload_that_brings_too_little_loses_its_place_too(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.document.upload.STALLED_SECONDS", 1.0)
    through, before = asyncio.Event(), archive.files()
    upload = dripping(form(scan()), 100, through)
    error = await refusal(archive.of(new_id("usr"), "customer").UploadDocument(upload))
    assert (reason(error), trailers(error)["x-http-code"]) == ("UPLOAD_STALLED", "408")
    assert error.details() == "The upload was given up: less than 16 KiB a second have arrived of it for 1 s."
    assert not through.is_set()
    await eventually(partial(under_way, archive, 0))
    assert archive.files() == before


async def test_an_upload_that_is_slow_but_comes_on_keeps_its_place_however_long_it_takes(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.document.upload.STALLED_SECONDS", 0.6)
    monkeypatch.setattr("services.document.upload.LEAST_BYTES_A_SECOND", 1024)
    body = form(scan((200, 200)))
    upload = dripping(body, len(body) // 12)  # in twice the time in which one may bring nothing
    assert (await archive.of(new_id("usr"), "customer").UploadDocument(upload)).id in archive.files()


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "GZIP"])
async def test_a_body_that_is_encoded_is_refused_before_it_is_read(archive: Archive, encoding: str) -> None:
    stub, end = archive.sending(new_id("usr"), content_encoding=encoding), asyncio.Event()
    error = await refusal(stub.UploadDocument(stalling(form(scan())[:200], sent=asyncio.Event(), then=end)))
    end.set()
    assert reason(error) == "UNSUPPORTED_CONTENT_ENCODING"
    told = trailers(error)
    assert (told["x-http-code"], told["accept-encoding"]) == ("415", "identity")


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_a_body_that_says_that_it_is_not_encoded_is_taken(archive: Archive, encoding: str) -> None:
    stub = archive.sending(new_id("usr"), content_encoding=encoding)
    assert (await stub.UploadDocument(requests(form(scan())))).id in archive.files()


def test_a_place_is_given_back_whatever_becomes_of_the_upload() -> None:
    admission = Admission(Limits(file_bytes=1, documents_of_user=1, at_once_of_user=1, at_once=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.admitted("usr_1"):
            raise ZeroDivisionError
    assert admission.under_way == 0
