"""Downloads: a file as it was uploaded, whole or in part, for HTTP clients that keep copies and go on after a break."""

import base64
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

import structlog

from services.document.domain import Document, DocumentNotFound, File
from services.document.objects import Objects, Reading
from services.document.ranges import NOT_MODIFIED, OK, PARTIAL, Representation, Selection, select
from services.document.store import Documents
from services.runtime.errors import DataLoss

Headers = Sequence[tuple[str, str]]

_log = structlog.get_logger()


class FileLost(DataLoss):
    """The document is there, but the object store has no such file, or another. Its operator has to find it."""

    message = "The file of document {document_id} is not where it should be. It is for us to find it."


class Downloads:
    """Opens files for reading."""

    def __init__(self, documents: Documents, objects: Objects) -> None:
        self._documents = documents
        self._objects = objects

    async def open(
        self, document: Document, asked: Iterable[tuple[str, str | bytes]]
    ) -> tuple[Headers, Reading | None]:
        """Returns the answer to a request with these headers: headers, and the pieces that follow them, if any do.

        Raises what ranges.select does, DocumentNotFound (deleted since), FileLost or ObjectStoreUnavailable.
        """
        file = document.file
        has = Representation(file.sha256, file.size_bytes, document.create_time)
        selection = select(_joined(asked), has)
        if selection.status == NOT_MODIFIED:
            return (("x-http-code", str(NOT_MODIFIED)), *_validators(has)), None
        reading = await self._read(document, selection)
        return (*_extent(selection, has), *_about(file), *_validators(has)), reading

    async def _read(self, document: Document, selection: Selection) -> Reading:
        try:
            reading = await self._objects.read(document.id, selection.start, selection.end)
        except DocumentNotFound as error:
            await self._documents.get(document.id)  # raises it again where the document was deleted since
            raise _lost(document) from error
        if reading.size != document.file.size_bytes:
            raise _lost(document)
        return reading


def _lost(document: Document) -> FileLost:
    _log.error("a document's file is lost", document=document.id, sha256=document.file.sha256)
    return FileLost(document_id=document.id)


def _joined(headers: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Headers by name. Those that came more than once are one list (RFC 9110, 5.3)."""
    joined: dict[str, str] = {}
    for name, value in headers:
        if isinstance(value, str):
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _validators(has: Representation) -> Headers:
    return (
        ("etag", has.etag),
        ("last-modified", has.last_modified),
        ("cache-control", "private, no-cache"),  # a copy may be kept, and used when its etag still holds
    )


def _extent(selection: Selection, has: Representation) -> Headers:
    length = ("x-content-length", str(selection.end - selection.start))  # the edge makes it Content-Length
    if selection.status == OK:
        return (length,)
    span = f"bytes {selection.start}-{selection.end - 1}/{has.size}"
    return ("x-http-code", str(PARTIAL)), ("content-range", span), length


def _about(file: File) -> Headers:
    return (
        ("content-disposition", _attachment(file.name)),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
        ("repr-digest", f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:"),
    )


def _attachment(name: str) -> str:
    """Content-Disposition (RFC 6266), with the name also for clients that read only ASCII."""
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
