"""Uploads are documents, once; each is read in the end, and its owner told."""

import hashlib
from collections import Counter
from collections.abc import Iterator

from document.v1 import document_pb2

from tests.faults.book import Book
from tests.faults.log import Wish


def every_upload_that_was_answered_is_a_document_once(book: Book) -> Iterator[str]:
    """Clients' uploads are the documents of the database: none is lost, none doubled, none from nowhere."""
    answered: dict[str, Wish] = {}
    for wish in book.wishes:
        if wish.kind == "upload" and wish.granted:
            document_id = wish.told()["id"]
            if document_id in answered:
                yield f"document {document_id} was the answer to two keys: {wish}; {answered[document_id]}"
            answered[document_id] = wish
    kept = {row["id"]: row for row in book.documents if row["kind"] != "PASSPORT"}  # which everybody came with
    for document_id in answered.keys() - kept.keys():
        yield f"document {document_id} is lost: {answered[document_id]}"
    for document_id in kept.keys() - answered.keys():
        yield f"nobody was answered document {document_id}: {dict(kept[document_id])}"
    for document_id in kept.keys() & answered.keys():
        row, wish = kept[document_id], answered[document_id]
        if (row["owner_id"], row["sha256"]) != (wish.who.id, hashlib.sha256(wish.file).hexdigest()):
            yield f"document {document_id} is not what was uploaded: {dict(row)}: {wish}"


def every_document_is_read(book: Book) -> Iterator[str]:
    """Nothing waits for ever, nothing is rejected that is good, and the last that the stream tells is so."""
    latest: dict[str, document_pb2.DocumentEvent] = {}
    for message in book.streams["document"]:
        event = document_pb2.DocumentEvent.FromString(message.data)
        if event.sequence <= latest.get(event.document_id, document_pb2.DocumentEvent()).sequence:
            yield f"{message.id} came after {latest[event.document_id].sequence}"
        latest[event.document_id] = event
    for row in book.documents:
        last = latest.get(row["id"], document_pb2.DocumentEvent())
        told = last.sequence, document_pb2.Document.State.Name(last.state)
        if row["state"] != "VERIFIED" or told != (row["sequence"], row["state"]):
            yield f"document {row['id']} is {row['state']} at {row['sequence']}, and the stream told {told}"


def owners_are_told_of_their_documents_once(book: Book) -> Iterator[str]:
    """Whenever it was read, unless it is what it was before."""
    needed = Counter[tuple[object, ...]]()
    for message in book.streams["document"]:
        event = document_pb2.DocumentEvent.FromString(message.data)
        if event.state != document_pb2.Document.PENDING and not event.unchanged:
            needed[event.owner_id, event.document_id, document_pb2.Document.State.Name(event.state)] += 1
    told: Counter[tuple[object, ...]] = Counter(
        (row["user_id"], row["document_id"], row["kind"].removeprefix("DOCUMENT_"))
        for row in book.notifications
        if row["document_id"]
    )
    for one in needed - told:
        yield f"not told of a document: {one}"
    for one in told - needed:
        yield f"told {told[one]} times of a document: {one}"
