"""The files, in an object store: a folder natively, S3 in production. Named by their document's id and nothing else."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from services.document.domain import DocumentNotFound
from services.runtime.errors import Unavailable

if TYPE_CHECKING:  # obstore has these only in its stubs
    from obstore import GetOptions, GetResult
    from obstore.store import ClientConfig, RetryConfig, S3Config

READ_BYTES = 128 * 1024
PIECE_SECONDS = 20.0
"""After which a store that sends nothing has failed: a folder's file that is cut off while it is read never ends."""
WRITE_BYTES = 1024 * 1024
PART_BYTES = 5 * 1024 * 1024  # the least that S3 takes as a part
PUTS_AT_ONCE = 2
"""A put holds a part that is being filled and one that is being sent: 10 MiB, however large the file."""
LISTED_AT_ONCE = 1000

# A store that hangs is an error after 10 s, one that refuses after less than a second. `timeout` is that of a whole
# answer, which a client may read as slowly as it likes: a download's deadline.
_CLIENT: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=2),
    "read_timeout": timedelta(seconds=10),
    "timeout": timedelta(seconds=600),
    "allow_http": True,  # only where AWS_ENDPOINT_URL says http: the default says https
}
_RETRY: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=8),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}
_FOLDER = "objects"
_STAGED = re.compile(r".+#\d+")  # how a folder's unfinished files are named; S3 keeps its own apart


class ObjectStoreUnavailable(Unavailable):
    """The object store cannot be reached."""

    message = "The service cannot reach its files right now."


class Reading:
    """A file, or a part of one, that is open: iterate over its pieces."""

    def __init__(self, found: "GetResult") -> None:
        self.size = found.meta["size"]
        """The bytes of the whole file."""
        self._found = found

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields it in pieces. Raises ObjectStoreUnavailable where it ends before its end."""
        first, end = self._found.range
        missing, pieces = end - first, aiter(self._found.stream(min_chunk_size=READ_BYTES))
        while missing > 0:
            with _reaching():
                async with asyncio.timeout(PIECE_SECONDS):
                    piece = await anext(pieces, b"")
            if not piece:
                raise ObjectStoreUnavailable
            missing -= len(piece)
            yield bytes(piece)


class Objects:
    """Writes, reads and deletes files. All of it raises ObjectStoreUnavailable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._turn = asyncio.Semaphore(PUTS_AT_ONCE)
        self._seen = False

    async def put(self, document_id: str, file: BinaryIO) -> None:
        """Writes a file, from where it stands to its end. It appears whole, or after an exception not at all.

        Cancelled, it first ends what it began: who deletes the file then has deleted it.
        """
        async with self._turn:
            putting = asyncio.create_task(self._put(document_id, file))
            try:
                await asyncio.shield(putting)
            except asyncio.CancelledError:
                await asyncio.wait([putting])
                raise

    async def _put(self, document_id: str, file: BinaryIO) -> None:
        with _reaching():
            async with obstore.open_writer_async(
                self._store, _path(document_id), buffer_size=PART_BYTES, max_concurrency=1
            ) as writer:
                while piece := await asyncio.to_thread(file.read, WRITE_BYTES):
                    await writer.write(piece)

    async def read(self, document_id: str, start: int = 0, end: int | None = None) -> Reading:
        """Opens a file, or its bytes from `start` up to but not including `end`. Raises DocumentNotFound."""
        with _reaching():
            try:
                options: GetOptions = {"range": {"offset": start} if end is None else (start, end)}
                return Reading(await obstore.get_async(self._store, _path(document_id), options=options))
            except FileNotFoundError as error:
                raise DocumentNotFound(document_id=document_id) from error

    async def delete(self, document_id: str) -> None:
        """Deletes a file, if there is one. Who reads it may read on."""
        with _reaching(), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, _path(document_id))

    async def discard(self, document_id: str) -> None:
        """Deletes a file that belongs to no document; when the store does not answer, the sweep does."""
        with suppress(ObjectStoreUnavailable):
            await self.delete(document_id)

    async def written_before(self, time: datetime) -> AsyncIterator[list[str]]:
        """Yields the ids of the documents whose files were written before, many at a time."""
        with _reaching():
            async for listed in obstore.list(self._store, _FOLDER, chunk_size=LISTED_AT_ONCE):
                yield [one["path"].removeprefix(f"{_FOLDER}/") for one in listed if one["last_modified"] < time]

    async def delete_unfinished(self, time: datetime) -> None:
        """Deletes what puts that were killed before have left in a folder. On S3, a rule of the bucket does."""
        if isinstance(self._store, LocalStore):
            await asyncio.to_thread(_delete_staged, Path(str(self._store.prefix)) / _FOLDER, time)

    async def ping(self) -> None:
        """Raises ObjectStoreUnavailable when the store does not answer, or at first, is not there."""
        with _reaching(), suppress(FileNotFoundError):
            if not self._seen:  # of a bucket that does not exist, S3 says no more than that the object does not
                await anext(aiter(obstore.list(self._store, _path("ping"), chunk_size=1)), None)
                self._seen = True
            await obstore.head_async(self._store, _path("ping"))


def open_objects(url: str, s3: "S3Config | None" = None) -> Objects:
    """Opens the store at a URL. A folder must exist. Where S3 is, and who we are there, its variables say, or `s3`."""
    return Objects(from_url(url, config=s3, client_options=_CLIENT, retry_config=_RETRY))


def _path(document_id: str) -> str:
    return f"{_FOLDER}/{document_id}"


def _delete_staged(folder: Path, time: datetime) -> None:
    for file in folder.glob("*#*"):
        with suppress(FileNotFoundError):
            if _STAGED.fullmatch(file.name) and datetime.fromtimestamp(file.stat().st_mtime, UTC) < time:
                file.unlink()


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:  # obstore's writers raise OSError, and so do timeouts
        raise ObjectStoreUnavailable from error
