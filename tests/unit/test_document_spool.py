"""Spools: nothing is lost or mixed up on its way to the disk, and a disk that is full is nobody's fault."""

import asyncio
import errno
import hashlib
import io
import os
import random
from typing import Any

import pytest

from services.document.spool import BATCH_BYTES, NoScratchSpace, spooling


class FullDisk(io.BytesIO):
    """Takes nothing."""

    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_what_was_added_is_in_the_file_and_was_hashed_in_its_order() -> None:
    pieces = [random.Random(number).randbytes(number * 7919) for number in range(60)]  # noqa: S311
    sha256 = hashlib.sha256()
    async with spooling() as spool:
        for piece in pieces:
            await spool.add(piece, sha256.update, spool.file.write)
        await spool.rewind()
        assert spool.file.read() == b"".join(pieces)
    assert sha256.digest() == hashlib.sha256(b"".join(pieces)).digest()
    assert spool.file.closed


async def test_a_spool_has_no_name_on_the_disk(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with spooling() as spool:
        await spool.add(bytes(BATCH_BYTES), spool.file.write)
        assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_is_full_is_told_as_unavailable() -> None:
    with pytest.raises(NoScratchSpace):
        async with spooling(FullDisk) as spool:
            await spool.add(bytes(BATCH_BYTES), spool.file.write)


async def test_a_disk_that_cannot_be_written_to_at_all_is_told_as_unavailable() -> None:
    def nowhere() -> io.BytesIO:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with pytest.raises(NoScratchSpace):
        async with spooling(nowhere):
            pass


async def test_a_file_is_not_closed_while_a_thread_writes_into_it() -> None:
    let_go = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = asyncio.Event()
    closed_early: list[bool] = []

    async def upload() -> None:
        async with spooling() as spool:

            def slow(_: bytes) -> None:
                loop.call_soon_threadsafe(began.set)
                asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result()
                closed_early.append(spool.file.closed)

            await spool.add(bytes(BATCH_BYTES), slow)

    uploading = asyncio.create_task(upload())
    await began.wait()
    uploading.cancel()
    done, _ = await asyncio.wait([uploading], timeout=0.2)
    assert not done
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert closed_early == [False]
