"""Uploads that say what they hold, and uploads that are sent again."""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable
from typing import Any

import pytest
from document.v1 import document_pb2

from services.runtime.ids import new_id
from tests.integration.archive import LIMITS, Archive, form, refusal, requests, scan
from tests.integration.serving import reason


def digest(algorithm: str, body: bytes) -> str:
    """A member of Content-Digest."""
    value = hashlib.new(algorithm.replace("-", ""), body).digest()
    return f"{algorithm}=:{base64.b64encode(value).decode()}:"


async def documents_of(archive: Archive, user: str) -> list[str]:
    return [one.id for one in (await archive.of(user).ListDocuments(document_pb2.ListDocumentsRequest())).documents]


async def sent(call: Awaitable[document_pb2.Document]) -> tuple[document_pb2.Document, str]:
    """The answer, and whether it was given before."""
    document = await call
    return document, str(dict(await call.initial_metadata()).get("idempotent-replayed", ""))  # type: ignore[attr-defined]


@pytest.mark.parametrize("algorithms", [["sha-256"], ["sha-512"], ["sha-256", "sha-512"]])
async def test_a_body_that_is_what_its_sender_says_is_kept(archive: Archive, algorithms: list[str]) -> None:
    body = form(scan((1500, 1000)))
    header = ", ".join(["md5=:AAAA:", *(digest(one, body) for one in algorithms)])
    document = await archive.sending(new_id("usr"), content_digest=header).UploadDocument(requests(body, piece=99_999))
    assert document.id in archive.files()


async def test_a_body_that_is_not_what_its_sender_says_leaves_nothing_behind(archive: Archive) -> None:
    user, body, before = new_id("usr"), form(scan()), archive.files()
    header = f"{digest('sha-256', body)}, {digest('sha-512', body + b' ')}"
    error = await refusal(archive.sending(user, content_digest=header).UploadDocument(requests(body)))
    assert (reason(error), error.details()) == (
        "DIGEST_MISMATCH",
        "The content that has arrived has another sha-512 than the Content-Digest header says.",
    )
    assert (archive.files(), await documents_of(archive, user)) == (before, [])


async def test_a_content_digest_that_is_none_is_refused(archive: Archive) -> None:
    stub = archive.sending(new_id("usr"), content_digest="sha-256=nothing")
    assert reason(await refusal(stub.UploadDocument(requests(form(scan()))))) == "INVALID_CONTENT_DIGEST"


async def test_an_upload_that_is_sent_again_with_its_key_is_the_document_of_the_first(archive: Archive) -> None:
    user, body, key = new_id("usr"), form(scan()), new_id("key")
    stub = archive.sending(user, idempotency_key=key)
    first, replayed = await sent(stub.UploadDocument(requests(body)))
    files = archive.files()
    # In another form: what counts is what it holds.
    again, replayed_again = await sent(stub.UploadDocument(requests(b"preamble\r\n" + body)))
    assert (replayed, replayed_again, again) == ("", "true", first)
    assert (archive.files(), await documents_of(archive, user)) == (files, [first.id])
    other_user, _ = await sent(archive.sending(new_id("usr"), idempotency_key=key).UploadDocument(requests(body)))
    assert other_user.id != first.id


@pytest.mark.parametrize("change", ["content", "kind", "name"])
async def test_a_key_of_another_upload_is_refused_and_leaves_nothing_behind(archive: Archive, change: str) -> None:
    user, content = new_id("usr"), scan()
    stub = archive.sending(user, idempotency_key="once")
    first = await stub.UploadDocument(requests(form(content, "PASSPORT", "a.png")))
    files = archive.files()
    other = {
        "content": form(scan(), "PASSPORT", "a.png"),
        "kind": form(content, "ID_CARD", "a.png"),
        "name": form(content, "PASSPORT", "b.png"),
    }[change]
    error = await refusal(stub.UploadDocument(requests(other)))
    assert reason(error) == "IDEMPOTENCY_KEY_REUSED"
    assert (archive.files(), await documents_of(archive, user)) == (files, [first.id])


async def test_uploads_with_one_key_at_once_are_one_document(archive: Archive) -> None:
    user, body, before = new_id("usr"), form(scan()), archive.files()
    stub = archive.sending(user, idempotency_key="at-once")
    answers = await asyncio.gather(*(sent(stub.UploadDocument(requests(body))) for _ in range(6)))
    assert len({document.id for document, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == ["", *["true"] * 5]
    assert archive.files() - before == {answers[0][0].id} == set(await documents_of(archive, user))


async def test_an_upload_that_failed_may_be_sent_again_with_its_key(archive: Archive) -> None:
    stub, content = archive.sending(new_id("usr"), idempotency_key="again"), scan()
    assert reason(await refusal(stub.UploadDocument(requests(form(content)[:-6])))) == "INCOMPLETE_UPLOAD"
    document, replayed = await sent(stub.UploadDocument(requests(form(content))))
    assert (document.id in archive.files(), replayed) == (True, "")


async def test_an_upload_whose_answer_was_lost_is_the_same_document_when_it_is_sent_again(archive: Archive) -> None:
    user, body = new_id("usr"), form(scan())
    stub = archive.sending(user, idempotency_key="lost")
    committed = asyncio.Event()
    archive.documents.committed = committed.set
    call: Any = stub.UploadDocument(requests(body))
    async with asyncio.timeout(20):
        await committed.wait()
    call.cancel()
    [kept] = await documents_of(archive, user)
    again, replayed = await sent(stub.UploadDocument(requests(body)))
    assert (again.id, replayed) == (kept, "true")


async def test_a_key_answers_for_a_document_also_when_its_owner_keeps_no_room_for_another(archive: Archive) -> None:
    user, content = new_id("usr"), scan()
    for number in range(LIMITS.documents_of_user - 1):
        await archive.database.execute(_COPY, f"doc_{user}_{number}", user)
    stub = archive.sending(user, idempotency_key="last")
    last, _ = await sent(stub.UploadDocument(requests(form(content))))
    assert reason(await refusal(archive.upload(user, scan()))) == "TOO_MANY_DOCUMENTS"
    assert await sent(stub.UploadDocument(requests(form(content)))) == (last, "true")


async def test_a_key_that_is_none_is_refused(archive: Archive) -> None:
    stub = archive.sending(new_id("usr"), idempotency_key="two words")
    assert reason(await refusal(stub.UploadDocument(requests(form(scan()))))) == "INVALID_IDEMPOTENCY_KEY"


_COPY = """
    INSERT INTO documents (id, owner_id, kind, file_name, content_type, size_bytes, sha256, state, checks, create_time)
    VALUES ($1, $2, 'PASSPORT', 'x', 'image/png', 1, repeat('0', 64), 'PENDING', '[]', now())"""
