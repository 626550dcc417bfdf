"""Uploads: from the pieces of a body to a document that waits to be read. What breaks on the way leaves nothing."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from google.api.httpbody_pb2 import HttpBody

from services.document.admission import Admission, Limits
from services.document.digests import ContentDigest
from services.document.domain import (
    SIGNATURE_BYTES,
    Document,
    EmptyFile,
    File,
    FileTooLarge,
    Kind,
    content_type_of,
    display_name,
)
from services.document.form import LONGEST_SHOWN, MOST_BYTES_BESIDE_FILE, Form, IncompleteUpload
from services.document.objects import Objects
from services.document.spool import Spool, spooling
from services.document.store import Documents
from services.runtime import idempotency
from services.runtime.errors import Error, InvalidArgument, Unavailable
from services.runtime.idempotency import Answer
from services.runtime.ids import new_id

STALLED_SECONDS = 30.0
LEAST_BYTES_A_SECOND = 16 * 1024
"""What an upload has lost its place that brings less of in any STALLED_SECONDS that it is waited for."""
DRAINED_BYTES = 32 * 1024 * 1024
DRAINED_SECONDS = 2.0


class UploadStalled(InvalidArgument):
    """Nothing arrives of an upload any more, or too little."""

    http_status = 408
    message = "The upload was given up: less than {rate} KiB a second have arrived of it for {seconds} s."


class UnsupportedContentEncoding(InvalidArgument):
    """The body is compressed, or otherwise something else than it is (RFC 9110, 8.4)."""

    http_status = 415
    message = 'Send the form as it is: the content encoding is "{encoding}".'
    headers = (("accept-encoding", "identity"),)


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that arrives, and what its sender says of it."""

    owner_id: str
    bodies: AsyncIterator[HttpBody]
    content_digest: str = ""
    """The header, empty where there is none."""
    content_encoding: str = ""
    """The same."""
    length: int | None = None
    """How many bytes the body has, where that is known."""


class Uploads:
    """Takes files in: first to a disk of its own, then to the object store, then the row that makes it a document."""

    def __init__(self, objects: Objects, documents: Documents, limits: Limits, taken: Callable[[], None]) -> None:
        """`taken` is called when there is a new document."""
        self._objects = objects
        self._documents = documents
        self._limits = limits
        self.admission = Admission(limits)
        self._taken = taken

    async def take(self, upload: Upload, answer: Callable[[Document], Answer]) -> Answer:
        """Takes a file in. Returns `answer` of it, recorded with the request's idempotency key, where it has one.

        See proto/document/v1/document.proto for what it raises.
        """
        try:
            return await self._take(upload, answer)
        except Error:
            await _drain(upload.bodies)
            raise

    async def _take(self, upload: Upload, answer: Callable[[Document], Answer]) -> Answer:
        with self.admission.admitted(upload.owner_id):
            _require_unencoded(upload.content_encoding)
            digest = ContentDigest(upload.content_digest)
            if upload.length is not None and upload.length > self._limits.file_bytes + MOST_BYTES_BESIDE_FILE:
                raise FileTooLarge(limit=self._limits.file_bytes)
            if not idempotency.answered():
                await self._documents.require_room(upload.owner_id, self._limits.documents_of_user)
            async with spooling() as spool:
                kind, file = await self._receive(upload, spool, digest)
                idempotency.identify(_fingerprint(kind, file))
                return await self._keep(upload.owner_id, kind, file, spool, answer)

    async def _receive(self, upload: Upload, spool: Spool, digest: ContentDigest) -> tuple[Kind, File]:
        content = _Content(self._limits.file_bytes)
        form: Form | None = None
        received = 0
        async for body in _in_time(upload.bodies):
            form = form or Form(body.content_type)  # only the first says it
            received += len(body.data)
            await _take_in(body.data, form, content, spool, digest)
            del body  # while the next is awaited
        if upload.length not in (None, received):
            raise IncompleteUpload
        kind, name = (form or Form("")).close()
        await spool.rewind()
        digest.verify()
        return kind, content.close(display_name(name))

    async def _keep(
        self, owner_id: str, kind: Kind, file: File, spool: Spool, answer: Callable[[Document], Answer]
    ) -> Answer:
        document_id = new_id("doc")
        try:
            await self._objects.put(document_id, spool.file)
        except BaseException:  # a cancelled upload, too
            await asyncio.shield(self._objects.discard(document_id))
            raise
        adding = asyncio.create_task(self._add(document_id, owner_id, kind, file, answer))
        try:
            return await asyncio.shield(adding)
        except asyncio.CancelledError:  # too late: it is whole
            await asyncio.wait([adding])
            raise

    async def _add(
        self, document_id: str, owner_id: str, kind: Kind, file: File, answer: Callable[[Document], Answer]
    ) -> Answer:
        """Writes the row. Without it, the file is not kept either."""
        most = self._limits.documents_of_user
        try:
            answered = await self._documents.add(document_id, owner_id, kind, file, most, answer)
        except Unavailable:
            # It may have been committed all the same. (A file about which nobody can say is left to the sweep.)
            document = await self._documents.settled(document_id, owner_id)
            if document is None:
                await self._objects.discard(document_id)
                raise
            answered = answer(document)
        except BaseException:
            await self._objects.discard(document_id)
            raise
        self._taken()
        return answered


def _require_unencoded(header: str) -> None:
    if not {one.strip().lower() for one in header.split(",")} <= {"", "identity"}:
        raise UnsupportedContentEncoding(encoding=header[:LONGEST_SHOWN])


async def _in_time(bodies: AsyncIterator[HttpBody]) -> AsyncIterator[HttpBody]:
    """Yields what arrives. Raises UploadStalled.

    Only the time counts that is waited here: what the disk takes is not the sender's.
    """
    now = asyncio.get_running_loop().time
    left, missing = STALLED_SECONDS, STALLED_SECONDS * LEAST_BYTES_A_SECOND
    while True:
        began = now()
        try:
            async with asyncio.timeout(left):
                body = await anext(bodies)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            rate = f"{LEAST_BYTES_A_SECOND / 1024:g}"
            raise UploadStalled(rate=rate, seconds=f"{STALLED_SECONDS:g}") from error
        left, missing = left - (now() - began), missing - len(body.data)
        if missing <= 0:
            left, missing = STALLED_SECONDS, STALLED_SECONDS * LEAST_BYTES_A_SECOND
        yield body
        del body  # while the next is awaited


async def _drain(bodies: AsyncIterator[HttpBody]) -> None:
    """Reads a little on: over HTTP/2, many clients read no answer that comes before they have sent everything."""
    left = DRAINED_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAINED_SECONDS):
            async for body in bodies:
                left -= len(body.data)
                if left < 0:
                    break


async def _take_in(data: bytes, form: Form, content: "_Content", spool: Spool, digest: ContentDigest) -> None:
    if digest:
        await spool.add(data, digest.update)
    pieces = form.feed(data)
    del data
    while pieces:
        content.measure(pieces[0])
        await spool.add(pieces.pop(0), content.sha256.update, spool.file.write)


def _fingerprint(kind: Kind, file: File) -> bytes:
    """Tells one upload from another: by its kind, its file's name and its content."""
    return hashlib.sha256("\0".join((kind.name, file.sha256, file.name)).encode()).digest()


class _Content:
    """Measures a file while its bytes go by."""

    def __init__(self, max_bytes: int) -> None:
        self.sha256 = hashlib.sha256()
        self._max_bytes = max_bytes
        self._size = 0
        self._beginning = b""

    def measure(self, piece: bytes) -> None:
        """Takes the next bytes. Raises FileTooLarge or UnsupportedFileType as soon as that is certain."""
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise FileTooLarge(limit=self._max_bytes)
        if len(self._beginning) < SIGNATURE_BYTES:
            self._beginning += piece[:SIGNATURE_BYTES]
            if len(self._beginning) >= SIGNATURE_BYTES:
                content_type_of(self._beginning)

    def close(self, name: str) -> File:
        """Returns what is known of the file at its end. Raises EmptyFile or UnsupportedFileType."""
        if not self._size:
            raise EmptyFile
        return File(name, content_type_of(self._beginning), self._size, self.sha256.hexdigest())
