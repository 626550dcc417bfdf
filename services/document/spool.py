"""Spools: a file on its way in waits in an unlinked temporary file, so that memory does not grow with it.

Hashing and writing are done in threads, a batch at a time; whoever adds waits for the batch, and so does the client.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO

from services.runtime.errors import Unavailable

BATCH_BYTES = 256 * 1024
"""What an upload has in memory beside the message that is being read. A thread costs what hashing 64 KiB does."""


class NoScratchSpace(Unavailable):
    """The disk for files on their way in is full or broken."""

    message = "The service has no room for uploads right now."
    retry_after = 5.0


class Spool:
    """One file on its way in."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._batch: list[tuple[Callable[[bytes], object], bytes]] = []
        self._bytes = 0
        self._at_work: asyncio.Future[None] | None = None

    async def add(self, data: bytes, *takers: Callable[[bytes], object]) -> None:
        """Gives data to functions, in a thread, soon: all is taken in the order in which it was added.

        Raises NoScratchSpace where a function before failed with an OSError.
        """
        self._batch += [(taker, data) for taker in takers]
        self._bytes += len(data)
        if self._bytes >= BATCH_BYTES:
            del data  # it is the batch's, which is done with before this ends
            await self._work()

    async def rewind(self) -> None:
        """Has all that was added taken, and makes the file ready to be read. Raises NoScratchSpace."""
        self._batch.append((lambda _: self.file.seek(0), b""))
        await self._work()

    async def close(self) -> None:
        """Gives the file up."""
        if self._at_work is not None:
            await asyncio.wait([self._at_work])
        with suppress(OSError):  # what is still in its buffer is given up, too
            await asyncio.to_thread(self.file.close)

    async def _work(self) -> None:
        batch, self._batch, self._bytes = self._batch, [], 0
        self._at_work = asyncio.ensure_future(asyncio.to_thread(_take, batch))
        del batch
        try:
            await asyncio.shield(self._at_work)  # a file must not be closed while a thread writes into it
        except OSError as error:
            raise NoScratchSpace from error


def _take(batch: list[tuple[Callable[[bytes], object], bytes]]) -> None:
    for taker, data in batch:
        taker(data)
    batch.clear()


@asynccontextmanager
async def spooling(opened: Callable[[], BinaryIO] = tempfile.TemporaryFile) -> AsyncIterator[Spool]:
    """Lends a spool in TMPDIR. Raises NoScratchSpace."""
    try:
        spool = Spool(opened())  # not in a thread: nobody would close what that opens for an upload that is gone
    except OSError as error:
        raise NoScratchSpace from error
    try:
        yield spool
    finally:
        await asyncio.shield(spool.close())
