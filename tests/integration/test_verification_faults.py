"""Verification, whatever fails meanwhile: replicas, what they need, and the documents themselves."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from document.v1 import document_pb2
from google.type.date_pb2 import Date
from user.v1 import user_pb2, user_pb2_grpc

from services.document.clients import Users
from services.document.domain import Inspection
from services.document.objects import ObjectStoreUnavailable
from services.document.verification import worker
from services.document.verification.domain import ATTEMPTS, Identity
from services.document.verification.store import LEASE
from services.runtime import clients
from services.runtime.errors import Unavailable
from tests.integration.reading import House, Reader, Registry, outcomes, reading, zone
from tests.integration.serving import METHODS, identity, serving
from tests.waiting import eventually

Document = document_pb2.Document


async def test_each_document_is_read_once_however_many_replicas_there_are(quiet: House) -> None:
    async with (
        quiet.replica(),
        quiet.replica(),
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
    assert timedelta() < row["left"] <= LEASE
    async with quiet.replica():
        await quiet.wait_no_longer(document)
        assert (await quiet.archive.read(document)).state == Document.VERIFIED


async def test_what_takes_long_to_read_is_read_by_nobody_else(quiet: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.05)
    quiet.reader.free.clear()
    async with quiet.replica():
        document = await quiet.upload()
        await eventually(quiet.reader.has_begun)
        await quiet.wait_no_longer(document)

        async def is_renewed() -> bool:
            row = await quiet.archive.database.fetchrow("SELECT verify_time > now() AS renewed FROM documents")
            return row is not None and bool(row["renewed"])

        await eventually(is_renewed)
        quiet.reader.free.set()
        assert (await quiet.archive.read(document)).state == Document.VERIFIED


async def test_a_replica_that_stops_hands_over_at_once_what_it_was_reading(quiet: House) -> None:
    quiet.reader.free.clear()
    async with quiet.replica():
        document = await quiet.upload()
        await eventually(quiet.reader.has_begun)
    assert await quiet.failures(document) == 0
    quiet.reader.free.set()
    async with quiet.replica():
        assert (await quiet.archive.read(document)).state == Document.VERIFIED


async def test_a_replica_that_was_too_slow_changes_nothing(quiet: House) -> None:
    stale = Reader()
    stale.sees = lambda: Inspection("It is broken.")
    stale.free.clear()
    async with quiet.replica(stale):
        document = await quiet.upload()
        await eventually(stale.has_begun)

        async def taken_by_the_other() -> bool:
            await quiet.wait_no_longer(document)  # it is up to them whose turn it is
            return await quiet.reader.has_begun()

        async with quiet.replica():
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

    async def tried_often() -> bool:
        await house.try_again(document)
        return (house.registry.asked if who == "user" else house.reader.read[document.id]) > 2

    await eventually(tried_often, seconds=20)
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
        await eventually(partial(_has_failed, house, document, attempt))
        assert (await house.archive.get(document)).state == Document.PENDING
        await house.wait_no_longer(document)
    given_up = await house.archive.read(document)
    assert given_up.state == Document.REJECTED
    assert outcomes(given_up)["READABLE"] == "UNREADABLE"
    assert house.reader.read[document.id] == ATTEMPTS


async def _has_failed(house: House, document: document_pb2.Document, times: int) -> bool:
    """Whether it failed so often, and waits as long as is due after that."""
    row = await house.archive.database.fetchrow(
        "SELECT verify_failures, verify_time - now() AS left FROM documents WHERE id = $1", document.id
    )
    assert row is not None
    expected = timedelta(seconds=4**times / 2)
    return bool(row["verify_failures"] == times and expected - timedelta(seconds=5) < row["left"] <= expected)


async def test_what_is_deleted_while_it_is_read_stays_deleted_and_holds_up_nobody(house: House) -> None:
    house.reader.free.clear()
    document = await house.upload()
    await eventually(house.reader.has_begun)
    delete = document_pb2.DeleteDocumentRequest(document_id=document.id)
    await house.archive.of(document.owner_id).DeleteDocument(delete)
    house.reader.free.set()
    assert (await house.archive.read(await house.upload())).state == Document.VERIFIED
    assert not await house.archive.database.fetch("SELECT FROM documents WHERE id = $1", document.id)


class UserService(user_pb2_grpc.UserServiceServicer):
    """Knows everybody, or fails with a status."""

    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None
        self.asked = 0

    async def GetIdentity(
        self, request: user_pb2.GetIdentityRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> user_pb2.Identity:
        self.asked += 1
        if self.status:
            await context.abort(self.status, "no")
        born = Date(year=1990, month=12, day=10)
        return user_pb2.Identity(user_id=request.user_id, display_name="Ada Lovelace", date_of_birth=born)


@pytest.fixture(scope="module")
async def user_service() -> UserService:
    return UserService()


@pytest.fixture(scope="module")
async def users(user_service: UserService, certificates: Path) -> AsyncIterator[Users]:
    """As the document service asks the user service."""
    register = partial(user_pb2_grpc.add_UserServiceServicer_to_server, user_service)
    async with serving([register], certificates, "user") as port:
        channel = clients.connect("user", f"127.0.0.1:{port}", identity(certificates, "document"), METHODS)
        yield Users(channel)
        await channel.close()


async def test_who_the_owner_is_is_asked_of_the_user_service(quiet: House, users: Users) -> None:
    async with reading(quiet.archive, quiet.reader, users):
        document = await quiet.archive.read(await quiet.upload())
    assert (document.state, outcomes(document)) == (Document.VERIFIED, {})


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
async def test_a_user_service_that_cannot_say_it_now_is_asked_again(
    quiet: House, users: Users, user_service: UserService, status: grpc.StatusCode
) -> None:
    user_service.status, user_service.asked = status, 0
    document = await quiet.upload()

    async def asked_often() -> bool:
        await quiet.try_again(document)
        return user_service.asked > 3

    async with reading(quiet.archive, quiet.reader, users):
        await eventually(asked_often, seconds=20)
        assert await quiet.failures(document) <= 1, "at most the attempt that goes on"
        user_service.status = None
        assert (await quiet.archive.read(document)).state == Document.VERIFIED


@pytest.mark.parametrize("status", [grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED])
async def test_a_user_that_the_user_service_fails_for_holds_up_nobody_and_is_asked_for_a_minute_later(
    quiet: House, users: Users, user_service: UserService, status: grpc.StatusCode
) -> None:
    user_service.status, user_service.asked = status, 0
    documents = [await quiet.upload() for _ in range(20)]

    async def all_wait() -> bool:
        rows = await quiet.archive.database.fetch("SELECT verify_failures, verify_time - now() AS left FROM documents")
        return all(row["verify_failures"] == 0 and row["left"] > timedelta(seconds=50) for row in rows)

    async with reading(quiet.archive, quiet.reader, users):
        await eventually(all_wait, seconds=10)  # each after the other's back-off would take 20 s and more
        assert user_service.asked == len(documents)
        user_service.status = None
        await quiet.try_again(documents[0])
        assert (await quiet.archive.read(documents[0])).state == Document.VERIFIED


async def test_a_document_of_a_user_that_nobody_knows_is_given_up(
    quiet: House, users: Users, user_service: UserService
) -> None:
    user_service.status = grpc.StatusCode.NOT_FOUND
    document = await quiet.upload()
    async with reading(quiet.archive, quiet.reader, users):
        for attempt in range(1, ATTEMPTS + 1):
            await eventually(partial(_has_failed, quiet, document, attempt))
            await quiet.wait_no_longer(document)
        assert outcomes(await quiet.archive.read(document))["READABLE"] == "UNREADABLE"
    user_service.status = None
