"""The files, in an object store: a folder natively, S3 in production. Named by their document's id and nothing else."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from services.document.domain import DocumentNotFound
from services.runtime.errors import Unavailable

READ_BYTES = 256 * 1024
WRITE_BYTES = 5 * 1024 * 1024  # the least that S3 takes as a part
WRITES_AT_ONCE = 2
LISTED_AT_ONCE = 1000
_FOLDER = "objects"


class ObjectStoreUnavailable(Unavailable):
    """The object store cannot be reached."""

    message = "The service cannot reach its files right now."


class Objects:
    """Reads and writes files as streams. All of it raises ObjectStoreUnavailable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @asynccontextmanager
    async def writing(self, document_id: str) -> AsyncIterator[Callable[[bytes], Awaitable[object]]]:
        """Lends a function that appends to a new file. The file appears at the end, and not after an exception."""
        with _reaching():
            async with obstore.open_writer_async(
                self._store, _path(document_id), buffer_size=WRITE_BYTES, max_concurrency=WRITES_AT_ONCE
            ) as writer:
                yield writer.write

    async def read(self, document_id: str) -> AsyncIterator[bytes]:
        """Opens a file and returns it in pieces. Raises DocumentNotFound."""
        with _reaching():
            try:
                found = await obstore.get_async(self._store, _path(document_id))
            except FileNotFoundError as error:
                raise DocumentNotFound(document_id=document_id) from error
        return _pieces(found)

    async def delete(self, document_id: str) -> None:
        """Deletes a file, if there is one."""
        with _reaching(), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, _path(document_id))

    async def written_before(self, time: datetime) -> AsyncIterator[list[str]]:
        """Yields the ids of the documents whose files were written before, many at a time."""
        with _reaching():
            async for listed in obstore.list(self._store, _FOLDER, chunk_size=LISTED_AT_ONCE):
                yield [one["path"].removeprefix(f"{_FOLDER}/") for one in listed if one["last_modified"] < time]

    async def ping(self) -> None:
        """Raises ObjectStoreUnavailable when the store does not answer."""
        with _reaching(), suppress(FileNotFoundError):
            await obstore.head_async(self._store, _path("ping"))


async def _pieces(found: "obstore.GetResult") -> AsyncIterator[bytes]:
    with _reaching():
        async for piece in found.stream(min_chunk_size=READ_BYTES):
            yield bytes(piece)


def open_objects(url: str) -> Objects:
    """Opens the store at a URL. A folder must exist; the credentials of S3 come from its usual places."""
    return Objects(from_url(url))


def _path(document_id: str) -> str:
    return f"{_FOLDER}/{document_id}"


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except BaseError as error:
        raise ObjectStoreUnavailable from error
