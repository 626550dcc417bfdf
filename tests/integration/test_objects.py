"""The object store, of either kind: a folder and S3 behave alike, and leave nothing half-written."""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from services.document.domain import DocumentNotFound
from services.document.objects import LISTED_AT_ONCE, PART_BYTES, Objects, ObjectStoreUnavailable, open_objects
from tests.s3 import BUCKET, S3, running_s3

LARGE = secrets.token_bytes(2 * PART_BYTES + 3)


class Shelf(Protocol):
    """A store, and what its operator sees of it."""

    objects: Objects

    def ids(self) -> set[str]: ...
    def unfinished(self) -> set[str]: ...


class Folder:
    """Files in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.objects = open_objects(path.as_uri())

    def ids(self) -> set[str]:
        return {file.name for file in self.path.rglob("*") if file.is_file() and "#" not in file.name}

    def unfinished(self) -> set[str]:
        return {file.name for file in self.path.rglob("*#*")}


class Bucket:
    """Files in S3, under a prefix."""

    def __init__(self, s3: S3, prefix: str) -> None:
        self._s3 = s3
        self._prefix = f"{prefix}/objects/"
        self.objects = bucket_objects(s3, prefix)

    def ids(self) -> set[str]:
        return {key.removeprefix(self._prefix) for key in self._s3.names() if key.startswith(self._prefix)}

    def unfinished(self) -> set[str]:
        return {key for key in self._s3.unfinished() if key.startswith(self._prefix)}


class Breaking(io.BytesIO):
    """A file that cannot be read to its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > PART_BYTES + 2**20:
            raise EOFError
        return super().read(size)


def bucket_objects(s3: S3, prefix: str) -> Objects:
    return open_objects(f"s3://{BUCKET}/{prefix}", s3.config)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    if request.param == "folder":
        return Folder(tmp_path)
    return Bucket(request.getfixturevalue("s3"), f"prefix/{secrets.token_hex(4)}")


async def content(objects: Objects, document_id: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([piece async for piece in await objects.read(document_id, start, end)])


async def ids_before(objects: Objects, time: datetime) -> list[str]:
    return [one async for ids in objects.written_before(time) for one in ids]


@pytest.mark.parametrize("size", [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, len(LARGE)])
async def test_a_file_is_read_as_it_was_put(shelf: Shelf, size: int) -> None:
    await shelf.objects.put("doc_1", io.BytesIO(LARGE[:size]))
    assert await content(shelf.objects, "doc_1") == LARGE[:size]
    assert (await shelf.objects.read("doc_1")).size == size
    assert (shelf.ids(), shelf.unfinished()) == ({"doc_1"}, set())


async def test_a_part_of_a_file_is_read_by_itself(shelf: Shelf) -> None:
    await shelf.objects.put("doc_1", io.BytesIO(LARGE))
    for start, end in [(0, 1), (0, 100), (99, 101), (PART_BYTES - 1, PART_BYTES + 1), (0, len(LARGE))]:
        assert await content(shelf.objects, "doc_1", start, end) == LARGE[start:end]
        assert (await shelf.objects.read("doc_1", start, end)).size == len(LARGE)
    assert await content(shelf.objects, "doc_1", len(LARGE) - 1) == LARGE[-1:]


async def test_a_large_file_comes_in_pieces(shelf: Shelf) -> None:
    await shelf.objects.put("doc_1", io.BytesIO(LARGE))
    pieces = [len(piece) async for piece in await shelf.objects.read("doc_1")]
    assert max(pieces) <= 2**20


async def test_a_file_is_put_from_where_it_stands(shelf: Shelf) -> None:
    file = io.BytesIO(b"read already, and not yet")
    file.seek(14)
    await shelf.objects.put("doc_1", file)
    assert await content(shelf.objects, "doc_1") == b"and not yet"


async def test_a_file_that_is_not_there_is_not_found_and_can_be_deleted(shelf: Shelf) -> None:
    with pytest.raises(DocumentNotFound):
        await shelf.objects.read("doc_1")
    await shelf.objects.delete("doc_1")
    await shelf.objects.put("doc_1", io.BytesIO(b"content"))
    await shelf.objects.delete("doc_1")
    assert shelf.ids() == set()
    with pytest.raises(DocumentNotFound):
        await shelf.objects.read("doc_1")


async def test_a_put_that_breaks_leaves_nothing_behind(shelf: Shelf) -> None:
    with pytest.raises(EOFError):
        await shelf.objects.put("doc_1", Breaking(LARGE))
    assert (shelf.ids(), shelf.unfinished()) == (set(), set())


async def test_a_put_that_is_cancelled_leaves_nothing_once_its_file_is_deleted(shelf: Shelf) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > PART_BYTES:
                loop.call_soon_threadsafe(begun.set)
            return super().read(size)

    putting = asyncio.create_task(shelf.objects.put("doc_1", Watched(LARGE)))
    await begun.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await shelf.objects.delete("doc_1")
    assert (shelf.ids(), shelf.unfinished()) == (set(), set())


async def test_many_files_are_put_beside_each_other(shelf: Shelf) -> None:
    files = {f"doc_{number}": secrets.token_bytes(100_000) for number in range(20)}
    await asyncio.gather(*(shelf.objects.put(name, io.BytesIO(data)) for name, data in files.items()))
    assert {name: await content(shelf.objects, name) for name in files} == files


async def test_files_are_listed_by_their_age(shelf: Shelf) -> None:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    assert await ids_before(shelf.objects, now + hour) == []
    await shelf.objects.put("doc_1", io.BytesIO(b"content"))
    assert await ids_before(shelf.objects, now + hour) == ["doc_1"]
    assert await ids_before(shelf.objects, now - hour) == []


async def test_more_files_are_listed_than_the_store_tells_at_once(shelf: Shelf) -> None:
    ids = {f"doc_{number}" for number in range(LISTED_AT_ONCE + 1)}
    await asyncio.gather(*(shelf.objects.put(one, io.BytesIO(b"content")) for one in ids))
    listed = [some async for some in shelf.objects.written_before(datetime.now(UTC) + timedelta(hours=1))]
    assert len(listed) > 1
    assert {one for some in listed for one in some} == ids


async def test_what_puts_that_were_killed_left_in_a_folder_is_deleted_when_it_is_old(tmp_path: Path) -> None:
    folder, now, hour = Folder(tmp_path), datetime.now(UTC), timedelta(hours=1)
    await folder.objects.put("doc_1", io.BytesIO(b"content"))
    (tmp_path / "objects/doc_2#1").write_bytes(b"half of a fi")
    assert await ids_before(folder.objects, now + hour) == ["doc_1"]
    await folder.objects.delete_unfinished(now - hour)
    assert folder.unfinished() == {"doc_2#1"}
    await folder.objects.delete_unfinished(now + hour)
    assert (folder.ids(), folder.unfinished()) == ({"doc_1"}, set())


async def test_a_folder_that_nothing_was_put_into_is_ready_and_has_nothing_unfinished(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await folder.objects.ping()
    await folder.objects.delete_unfinished(datetime.now(UTC))


async def test_stores_under_two_prefixes_of_a_bucket_do_not_see_each_other(s3: S3) -> None:
    first, second = Bucket(s3, "one"), Bucket(s3, "two")
    await first.objects.put("doc_1", io.BytesIO(b"content"))
    with pytest.raises(DocumentNotFound):
        await second.objects.read("doc_1")
    assert await ids_before(second.objects, datetime.now(UTC) + timedelta(hours=1)) == []


async def test_a_bucket_that_does_not_exist_is_not_ready(s3: S3) -> None:
    missing = open_objects("s3://misspelt/files", s3.config)
    with pytest.raises(ObjectStoreUnavailable):
        await missing.ping()
    await bucket_objects(s3, "ready").ping()


@pytest.fixture
async def cutting() -> AsyncIterator[str]:
    """The URL of a server that sends the half of every object, and then hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        about = b"ETag: x\r\nLast-Modified: Sat, 21 Nov 2026 12:00:00 GMT\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n" + about + b"\r\n" + bytes(1_000_000))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_store_that_hangs_up_midway_is_an_error_and_no_short_file(cutting: str) -> None:
    objects = open_objects("s3://files", {"endpoint": cutting, "access_key_id": "a", "secret_access_key": "b"})
    with pytest.raises(ObjectStoreUnavailable):
        await content(objects, "doc_1")


async def test_a_store_that_is_down_is_an_error_at_once_and_works_again_when_it_is_back(s3: S3) -> None:
    objects = bucket_objects(s3, "down")
    await objects.ping()
    s3.kill()
    try:
        async with asyncio.timeout(10):
            for attempt in (
                objects.ping(),
                objects.put("doc_1", io.BytesIO(b"content")),
                objects.read("doc_1"),
                objects.delete("doc_1"),
                ids_before(objects, datetime.now(UTC)),
            ):
                with pytest.raises(ObjectStoreUnavailable):
                    await attempt
    finally:
        await asyncio.to_thread(s3.start)
    await objects.ping()
    await objects.put("doc_1", io.BytesIO(b"content"))
    assert await content(objects, "doc_1") == b"content"
