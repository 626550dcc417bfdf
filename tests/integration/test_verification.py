"""Verification: documents are read off the request, on any number of replicas, whatever fails meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from document.v1 import document_pb2
from google.type.date_pb2 import Date
from user.v1 import user_pb2

from services.document.domain import Inspection
from services.document.events import follow_users
from services.document.objects import ObjectStoreUnavailable
from services.document.verification.domain import ATTEMPTS, CHECKS, CHECKS_OF_ZONE, Identity
from services.document.verification.store import LEASE
from services.runtime.bus import MESSAGE_ID, Bus, open_bus
from services.runtime.errors import Unavailable
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from tests.integration.archive import Archive, open_archive, scan
from tests.integration.conftest import FreshDatabase
from tests.integration.reading import EXPIRES, Reader, Registry, outcomes, reading, told, zone
from tests.integration.serving import identity
from tests.waiting import eventually

Document = document_pb2.Document

_AT_ONCE = "UPDATE documents SET verify_time = now() WHERE id = $1 AND verify_time IS NOT NULL"
"""As if its lease, or what it has to wait, were over."""


@dataclass
class House:
    """An archive, its events, and a replica that reads."""

    archive: Archive
    bus: Bus
    reader: Reader = field(default_factory=Reader)
    registry: Registry = field(default_factory=Registry)

    async def upload(self, owner: str = "", kind: str = "PASSPORT") -> document_pb2.Document:
        return await self.archive.upload(owner or new_id("usr"), scan(), kind)

    async def change_profile(self, owner: str, sequence: int = 2) -> None:
        """Publishes what the user service does when a profile changed."""
        event = user_pb2.UserEvent(user_id=owner, sequence=sequence)
        event.create_time.FromDatetime(datetime.now(UTC))
        headers = {MESSAGE_ID: f"user.{owner}.{sequence}"}
        await self.bus.publish("user", f"user.{owner}", event.SerializeToString(), headers)

    async def failures(self, document: document_pb2.Document) -> int:
        row = await self.archive.database.fetchrow("SELECT verify_failures FROM documents WHERE id = $1", document.id)
        assert row is not None
        return int(row["verify_failures"])

    async def wait_no_longer(self, document: document_pb2.Document) -> None:
        await self.archive.database.execute(_AT_ONCE, document.id)
        self.archive.verifications.due.set()


@pytest.fixture(scope="module")
async def archive_and_bus(
    fresh_database: FreshDatabase, nats_url: str, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Archive, Bus]]:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "document")))
        folder = tmp_path_factory.mktemp("objects")
        archive = await stack.enter_async_context(open_archive(fresh_database("document"), certificates, folder, bus))
        running = [
            asyncio.create_task(Outbox("document", archive.database, bus).relay()),
            asyncio.create_task(follow_users(bus, archive.database, archive.verifications.begin_again_of)),
        ]
        await bus.connected()
        yield archive, bus
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
async def quiet(archive_and_bus: tuple[Archive, Bus]) -> AsyncIterator[House]:
    """Nobody reads."""
    house = House(*archive_and_bus)
    yield house
    await house.archive.database.execute("DELETE FROM documents")


@pytest.fixture
async def house(quiet: House) -> AsyncIterator[House]:
    """One replica reads."""
    async with reading(quiet.archive, quiet.reader, quiet.registry):
        yield quiet


async def test_a_document_is_pending_until_it_was_read_and_then_verified_with_an_event(house: House) -> None:
    house.reader.free.clear()
    uploaded = await house.upload()
    assert (uploaded.state, list(uploaded.checks)) == (Document.PENDING, [])
    assert await house.archive.get(uploaded) == uploaded
    house.reader.free.set()
    document = await house.archive.read(uploaded)
    assert (document.state, outcomes(document)) == (Document.VERIFIED, {})
    assert [check.name for check in document.checks] == [*CHECKS, *CHECKS_OF_ZONE]
    assert document.expire_date == Date(year=EXPIRES.year, month=EXPIRES.month, day=EXPIRES.day)
    [event] = await told(house.bus, document.id, 1)
    assert (event.sequence, event.state, event.kind) == (2, Document.VERIFIED, Document.PASSPORT)
    assert (event.owner_id, list(event.problems)) == (document.owner_id, [])


async def test_a_document_that_fails_a_check_is_rejected_and_the_event_says_why(house: House) -> None:
    house.reader.sees = lambda: zone(wrong="number")
    document = await house.archive.read(await house.upload())
    assert (document.state, outcomes(document)) == (Document.REJECTED, {"CHECK_DIGITS": "FAILED"})
    [event] = await told(house.bus, document.id, 1)
    [problem] = event.problems
    assert (event.state, problem.name) == (Document.REJECTED, "CHECK_DIGITS")
    assert "document number" in problem.detail


async def test_what_nobody_can_read_is_rejected_but_not_called_wrong(house: House) -> None:
    house.reader.sees = lambda: Inspection(shorter_side=900)
    document = await house.archive.read(await house.upload())
    assert document.state == Document.REJECTED
    assert outcomes(document) == dict.fromkeys(CHECKS_OF_ZONE, "UNREADABLE")
    assert not document.HasField("expire_date")


async def test_a_proof_of_address_is_opened_but_not_read(house: House) -> None:
    house.reader.sees = lambda: Inspection(shorter_side=900)
    document = await house.archive.read(await house.upload(kind="PROOF_OF_ADDRESS"))
    assert (document.state, [check.name for check in document.checks]) == (Document.VERIFIED, [*CHECKS])
    assert (house.reader.read, house.reader.opened) == ({}, {document.id: 1})


async def test_each_document_is_read_once_however_many_replicas_there_are(quiet: House) -> None:
    async with (
        reading(quiet.archive, quiet.reader, quiet.registry),
        reading(quiet.archive, quiet.reader, quiet.registry),
    ):
        documents = await asyncio.gather(*(quiet.upload() for _ in range(20)))
        for document in documents:
            assert (await quiet.archive.read(document)).state == Document.VERIFIED
    assert quiet.reader.read == {document.id: 1 for document in documents}


async def test_what_a_killed_replica_was_reading_is_read_by_another_when_its_lease_is_over(quiet: House) -> None:
    document = await quiet.upload()
    claim = await quiet.archive.verifications.claim()
    assert claim is not None
    assert claim.document.id == document.id
    assert await quiet.archive.verifications.claim() is None, "nobody else gets it meanwhile"
    row = await quiet.archive.database.fetchrow("SELECT verify_time - now() AS left FROM documents")
    assert row is not None
    assert LEASE - timedelta(seconds=10) < row["left"] <= LEASE
    async with reading(quiet.archive, quiet.reader, quiet.registry):
        await quiet.wait_no_longer(document)
        assert (await quiet.archive.read(document)).state == Document.VERIFIED


async def test_a_replica_that_stops_hands_over_at_once_what_it_was_reading(quiet: House) -> None:
    quiet.reader.free.clear()
    async with reading(quiet.archive, quiet.reader, quiet.registry):
        document = await quiet.upload()
        await eventually(quiet.reader.has_begun)
    assert await quiet.failures(document) == 0
    quiet.reader.free.set()
    async with reading(quiet.archive, quiet.reader, quiet.registry):
        assert (await quiet.archive.read(document)).state == Document.VERIFIED


async def test_a_replica_that_was_too_slow_changes_nothing(quiet: House) -> None:
    stale = Reader()
    stale.sees = lambda: Inspection("It is broken.")
    stale.free.clear()
    async with reading(quiet.archive, stale, quiet.registry):
        document = await quiet.upload()
        await eventually(stale.has_begun)

        async def taken_by_the_other() -> bool:
            await quiet.wait_no_longer(document)  # it is up to them whose turn it is
            return await quiet.reader.has_begun()

        async with reading(quiet.archive, quiet.reader, quiet.registry):
            await eventually(taken_by_the_other)
            verified = await quiet.archive.read(document)
            stale.free.set()
            await eventually(lambda: _has_said_all(stale))
        assert await quiet.archive.get(document) == verified
    assert verified.state == Document.VERIFIED


async def _has_said_all(reader: Reader) -> bool:
    return reader.answered == reader.read.total()


@pytest.mark.parametrize("who", ["user", "object store"])
async def test_while_something_is_away_documents_stay_pending_and_are_read_when_it_is_back(
    house: House, who: str
) -> None:
    def away() -> Identity:
        raise Unavailable

    def store_away() -> Inspection:
        raise ObjectStoreUnavailable

    if who == "user":
        house.registry.says = away
    else:
        house.reader.sees = store_away
    document = await house.upload()

    async def tried_again() -> bool:
        return (house.registry.asked if who == "user" else house.reader.read[document.id]) > 2

    async def is_waiting() -> bool:
        await house.wait_no_longer(document)
        return await tried_again()

    await eventually(is_waiting, seconds=20)
    assert (await house.archive.get(document)).state == Document.PENDING
    assert await house.failures(document) <= 1, "at most the attempt that goes on"
    house.registry.says, house.reader.sees = Registry().says, zone
    assert (await house.archive.read(document)).state == Document.VERIFIED


async def test_a_document_that_breaks_what_reads_it_time_and_again_is_given_up(house: House) -> None:
    def broken() -> Inspection:
        raise ChildProcessError

    house.reader.sees = broken
    document = await house.upload()
    for attempt in range(1, ATTEMPTS + 1):

        async def failed_so_often(attempt: int = attempt) -> bool:
            row = await house.archive.database.fetchrow(
                "SELECT verify_time - now() AS left FROM documents WHERE verify_failures = $1", attempt
            )
            return row is not None and row["left"] < timedelta(seconds=4**attempt / 2) < LEASE * 20

        await eventually(failed_so_often)
        assert (await house.archive.get(document)).state == Document.PENDING
        await eventually(lambda attempt=attempt: _is_read(house, document, attempt))  # type: ignore[misc]
        await house.wait_no_longer(document)
    given_up = await house.archive.read(document)
    assert given_up.state == Document.REJECTED
    assert outcomes(given_up)["READABLE"] == "UNREADABLE"
    assert house.reader.read[document.id] == ATTEMPTS


async def _is_read(house: House, document: document_pb2.Document, times: int) -> bool:
    return house.reader.read[document.id] == times


async def test_what_is_deleted_while_it_is_read_stays_deleted_and_holds_up_nobody(house: House) -> None:
    house.reader.free.clear()
    document = await house.upload()
    await eventually(house.reader.has_begun)
    delete = document_pb2.DeleteDocumentRequest(document_id=document.id)
    await house.archive.of(document.owner_id).DeleteDocument(delete)
    house.reader.free.set()
    assert (await house.archive.read(await house.upload())).state == Document.VERIFIED
    assert not await house.archive.database.fetch("SELECT FROM documents WHERE id = $1", document.id)


async def test_a_document_that_is_verified_again_is_pending_and_read_anew(house: House) -> None:
    document = await house.archive.read(await house.upload())
    house.reader.sees = lambda: zone(wrong="composite")
    house.reader.free.clear()
    pending = await house.archive.verify(document)
    assert (pending.state, list(pending.checks), pending.HasField("expire_date")) == (Document.PENDING, [], False)
    assert await house.archive.verify(document) == pending
    house.reader.free.set()
    assert (await house.archive.read(document)).state == Document.REJECTED
    events = await told(house.bus, document.id, 3)
    assert [(event.sequence, event.state) for event in events] == [
        (2, Document.VERIFIED),
        (3, Document.PENDING),
        (4, Document.REJECTED),
    ]


async def test_a_change_of_the_profile_has_the_owners_identity_documents_read_anew(house: House) -> None:
    owner, other = new_id("usr"), new_id("usr")
    documents = [await house.upload(owner), await house.upload(owner, "PROOF_OF_ADDRESS"), await house.upload(other)]
    passport, address, stranger = [await house.archive.read(document) for document in documents]
    house.registry.says = lambda: Identity("Ada King", date(1990, 12, 10))
    await house.change_profile(owner)

    async def rejected() -> bool:
        return (await house.archive.get(passport)).state == Document.REJECTED

    await eventually(rejected)
    assert outcomes(await house.archive.get(passport)) == {"NAME_MATCHES": "FAILED"}
    assert [event.state for event in await told(house.bus, passport.id, 3)] == [
        Document.VERIFIED,
        Document.PENDING,
        Document.REJECTED,
    ]
    assert await house.archive.get(address) == address
    assert await house.archive.get(stranger) == stranger


async def test_a_document_is_not_judged_by_a_profile_that_changed_while_it_was_read(house: House) -> None:
    house.reader.free.clear()
    document = await house.upload()
    await eventually(house.reader.has_begun)
    house.registry.says = lambda: Identity("Ada King", date(1990, 12, 10))
    await house.change_profile(document.owner_id)

    async def begun_again() -> bool:
        return house.reader.read[document.id] == 2

    await eventually(begun_again)
    house.reader.free.set()
    assert outcomes(await house.archive.read(document)) == {"NAME_MATCHES": "FAILED"}
    events = await told(house.bus, document.id, 2)
    assert [event.state for event in events] == [Document.PENDING, Document.REJECTED]


async def test_signing_up_is_no_change_of_a_profile(house: House) -> None:
    document = await house.archive.read(await house.upload())
    await house.change_profile(document.owner_id, sequence=1)
    await house.change_profile(other := new_id("usr"), sequence=1)

    async def handled() -> bool:
        rows = await house.archive.database.fetch("SELECT FROM handled_events WHERE message_id = $1", f"user.{other}.1")
        return bool(rows)

    await eventually(handled)
    assert await house.archive.get(document) == document


_AS_THE_RELEASE_BEFORE = """
    INSERT INTO documents (id, owner_id, kind, file_name, content_type, size_bytes, sha256, state, checks, create_time)
    VALUES ($1, $2, 'PASSPORT', 'scan.png', 'image/png', 9, repeat('0', 64), 'VERIFIED', '[["READABLE", ""]]', now())"""


async def test_what_the_release_before_accepts_without_reading_is_read(house: House) -> None:
    document = Document(id=new_id("doc"), owner_id=new_id("usr"))
    house.reader.free.clear()
    await house.archive.database.execute(_AS_THE_RELEASE_BEFORE, document.id, document.owner_id)
    pending = await house.archive.get(document)
    assert (pending.state, list(pending.checks)) == (Document.PENDING, [])
    house.reader.free.set()
    verified = await house.archive.read(document)
    assert (verified.state, len(verified.checks)) == (Document.VERIFIED, len(CHECKS) + len(CHECKS_OF_ZONE))
    update = "UPDATE documents SET state = 'VERIFIED', checks = '[]' WHERE id = $1"
    await house.archive.database.execute(update, document.id)

    async def read_again() -> bool:
        return house.reader.read[document.id] == 2

    await eventually(read_again)
    assert (await house.archive.read(document)).checks == verified.checks
