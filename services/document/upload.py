"""Uploads: from the pieces of a body to a checked document. What breaks on the way leaves nothing behind."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress

from google.api.httpbody_pb2 import HttpBody

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
from services.document.form import Form
from services.document.inspection import Inspector
from services.document.objects import Objects
from services.document.store import Documents
from services.runtime.errors import Unavailable
from services.runtime.ids import new_id


class Uploads:
    """Takes files in: object first, then the row that makes it a document."""

    def __init__(self, objects: Objects, documents: Documents, inspector: Inspector, max_bytes: int) -> None:
        self._objects = objects
        self._documents = documents
        self._inspector = inspector
        self._max_bytes = max_bytes

    async def take(self, owner_id: str, bodies: AsyncIterator[HttpBody]) -> Document:
        """Takes a file in and checks it. See proto/document/v1/document.proto for what it raises."""
        document_id = new_id("doc")
        try:
            kind, file = await self._receive(document_id, bodies)
            inspection = await self._inspector.inspect(document_id, file.content_type)
            return await self._documents.add(document_id, owner_id, kind, file, inspection)
        except BaseException:  # a cancelled upload, too
            await asyncio.shield(self._discard(document_id))
            raise

    async def _receive(self, document_id: str, bodies: AsyncIterator[HttpBody]) -> tuple[Kind, File]:
        content = _Content(self._max_bytes)
        form: Form | None = None
        async with self._objects.writing(document_id) as write:
            async for body in bodies:
                form = form or Form(body.content_type)  # only the first says it
                for piece in form.feed(body.data):
                    content.add(piece)
                    await write(piece)
            kind, name = (form or Form("")).close()
            return kind, content.close(display_name(name))

    async def _discard(self, document_id: str) -> None:
        """Removes what may be there. The row first: it may have been committed by what looked like a failure."""
        with suppress(Unavailable):  # the sweep takes what stays
            await self._documents.remove(document_id)
            await self._objects.delete(document_id)


class _Content:
    """Measures a file while its bytes go by."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._beginning = b""

    def add(self, piece: bytes) -> None:
        """Takes the next bytes. Raises FileTooLarge or UnsupportedFileType as soon as that is certain."""
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise FileTooLarge(limit=self._max_bytes)
        self._sha256.update(piece)
        if len(self._beginning) < SIGNATURE_BYTES:
            self._beginning += piece[:SIGNATURE_BYTES]
            if len(self._beginning) >= SIGNATURE_BYTES:
                content_type_of(self._beginning)

    def close(self, name: str) -> File:
        """Returns what is known of the file at its end. Raises EmptyFile or UnsupportedFileType."""
        if not self._size:
            raise EmptyFile
        return File(name, content_type_of(self._beginning), self._size, self._sha256.hexdigest())
