"""Downloads: whole and in part, again and not again, and what becomes of those whose file goes away."""

import base64
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from document.v1 import document_pb2, document_pb2_grpc
from google.api.httpbody_pb2 import HttpBody

from services.document import objects
from services.runtime.ids import new_id
from tests.integration.archive import Archive, refusal, scan
from tests.integration.serving import reason, trailers

USER = new_id("usr")
CONTENT = scan((1900, 1900))


@pytest.fixture
async def document(archive: Archive) -> document_pb2.Document:
    return await archive.upload(USER, CONTENT, "PROOF_OF_ADDRESS")


def download(archive: Archive, document: document_pb2.Document, **headers: str) -> Any:
    stub = document_pb2_grpc.DocumentServiceStub(archive.edge.user(USER, "customer", **headers))
    return stub.DownloadDocument(document_pb2.DownloadDocumentRequest(document_id=document.id))


async def answer(call: Any) -> tuple[dict[str, str], bytes]:
    content = await rest(aiter(call))
    return dict(await call.initial_metadata()), content


async def rest(pieces: AsyncIterator[HttpBody]) -> bytes:
    return b"".join([piece.data async for piece in pieces])


async def test_a_download_says_all_that_a_client_needs_to_keep_it(
    archive: Archive, document: document_pb2.Document
) -> None:
    headers, content = await answer(download(archive, document))
    assert content == CONTENT
    digest = hashlib.sha256(CONTENT)
    assert headers == {
        "x-content-length": str(len(CONTENT)),
        "content-disposition": "attachment; filename=\"scan.png\"; filename*=UTF-8''scan.png",
        "x-content-type-options": "nosniff",
        "accept-ranges": "bytes",
        "repr-digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
        "etag": f'"{digest.hexdigest()}"',
        "last-modified": document.create_time.ToDatetime().strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "cache-control": "private, no-cache",
    }


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=1000000-", 1000000, len(CONTENT) - 1),
        ("bytes=-1", len(CONTENT) - 1, len(CONTENT) - 1),
    ],
)
async def test_a_range_is_sent_alone(
    archive: Archive, document: document_pb2.Document, wanted: str, first: int, last: int
) -> None:
    headers, content = await answer(download(archive, document, range=wanted))
    assert content == CONTENT[first : last + 1]
    assert headers["x-http-code"] == "206"
    assert headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert headers["x-content-length"] == str(last - first + 1)
    assert headers["etag"] == f'"{document.sha256}"'


async def test_a_range_behind_the_end_is_refused_with_the_size(
    archive: Archive, document: document_pb2.Document
) -> None:
    error = await refusal(download(archive, document, range=f"bytes={len(CONTENT)}-").read())
    assert (error.code(), reason(error)) == (grpc.StatusCode.OUT_OF_RANGE, "RANGE_NOT_SATISFIABLE")
    assert trailers(error)["x-http-code"] == "416"
    assert trailers(error)["content-range"] == f"bytes */{len(CONTENT)}"


async def test_a_client_that_has_the_file_is_sent_nothing(archive: Archive, document: document_pb2.Document) -> None:
    headers, content = await answer(download(archive, document, if_none_match=f'"{document.sha256}"'))
    assert content == b""
    assert set(headers) == {"x-http-code", "etag", "last-modified", "cache-control"}
    assert headers["x-http-code"] == "304"
    headers, _ = await answer(download(archive, document, if_modified_since=headers["last-modified"]))
    assert headers["x-http-code"] == "304"
    _, content = await answer(download(archive, document, if_none_match='"another"'))
    assert content == CONTENT


async def test_a_client_goes_on_after_a_break_with_the_same_file_only(
    archive: Archive, document: document_pb2.Document
) -> None:
    wanted = f"bytes={len(CONTENT) - 7}-"
    _, content = await answer(download(archive, document, range=wanted, if_range=f'"{document.sha256}"'))
    assert content == CONTENT[-7:]
    _, content = await answer(download(archive, document, range=wanted, if_range='"another"'))
    assert content == CONTENT
    error = await refusal(download(archive, document, range=wanted, if_match='"another"').read())
    assert (reason(error), trailers(error)["x-http-code"]) == ("PRECONDITION_NOT_MET", "412")


async def test_a_file_that_is_deleted_while_it_is_downloaded_arrives_whole(
    archive: Archive, document: document_pb2.Document
) -> None:
    pieces = aiter(download(archive, document))
    begun = (await anext(pieces)).data
    await archive.of(USER).DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=document.id))
    assert begun + await rest(pieces) == CONTENT
    assert reason(await refusal(download(archive, document).read())) == "DOCUMENT_NOT_FOUND"


async def test_a_file_that_ends_before_its_end_is_an_error_and_no_short_file(
    archive: Archive, document: document_pb2.Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE_SECONDS", 0.5)
    pieces = aiter(download(archive, document))
    await anext(pieces)
    os.truncate(archive.folder / "objects" / document.id, len(CONTENT) // 2)
    error = await refusal(rest(pieces))
    assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "OBJECT_STORE_UNAVAILABLE")


async def test_a_lost_file_is_our_fault_and_not_a_document_that_does_not_exist(
    archive: Archive, document: document_pb2.Document
) -> None:
    file = archive.folder / "objects" / document.id
    os.truncate(file, 10)
    error = await refusal(download(archive, document).read())
    assert (error.code(), reason(error)) == (grpc.StatusCode.DATA_LOSS, "FILE_LOST")
    file.unlink()
    for headers in ({}, {"range": "bytes=0-99"}):
        error = await refusal(download(archive, document, **headers).read())
        assert (error.code(), reason(error)) == (grpc.StatusCode.DATA_LOSS, "FILE_LOST")


async def test_a_stranger_learns_nothing_from_conditions(archive: Archive, document: document_pb2.Document) -> None:
    stranger = document_pb2_grpc.DocumentServiceStub(
        archive.edge.user(new_id("usr"), "customer", if_none_match=f'"{document.sha256}"', range="bytes=9999999-")
    )
    call: Any = stranger.DownloadDocument(document_pb2.DownloadDocumentRequest(document_id=document.id))
    assert reason(await refusal(call.read())) == "NOT_THE_OWNER"
