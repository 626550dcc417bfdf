"""Verification: documents are read off the request, and again when their owner changes."""

import json
from datetime import date

from document.v1 import document_pb2
from google.type.date_pb2 import Date

from services.document.domain import Inspection
from services.document.verification.domain import CHECKS, CHECKS_OF_ZONE, Identity
from services.runtime.ids import new_id
from tests.integration.reading import ADA, EXPIRES, House, outcomes, told, zone
from tests.waiting import eventually

Document = document_pb2.Document


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
        await house.wait_no_longer(document)
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


async def test_a_change_of_the_profile_has_nothing_read_anew_that_it_does_not_concern(house: House) -> None:
    owner = new_id("usr")
    passport = await house.archive.read(await house.upload(owner))
    house.reader.sees = lambda: zone(wrong="number")
    noise = await house.archive.read(await house.upload(owner))
    await house.change_profile(owner)  # of country, say
    house.registry.says = lambda: Identity("Ada King", date(1990, 12, 10))
    house.reader.sees = zone
    await house.change_profile(owner, sequence=3)
    assert [event.state for event in await told(house.bus, passport.id, 3)] == [
        Document.VERIFIED,
        Document.PENDING,
        Document.REJECTED,
    ]
    house.registry.says = lambda: ADA
    await house.change_profile(owner, sequence=4)

    async def verified() -> bool:
        return (await house.archive.get(passport)).state == Document.VERIFIED

    await eventually(verified)
    assert house.reader.read == {passport.id: 3, noise.id: 1}
    assert await house.archive.get(noise) == noise


async def test_a_verdict_that_is_the_one_before_is_marked_for_its_owner_need_not_be_told(house: House) -> None:
    document = await house.archive.read(await house.upload())
    await house.archive.verify(document)
    await house.archive.read(document)
    house.reader.sees = lambda: zone(wrong="number")
    await house.archive.verify(document)
    await house.archive.read(document)
    house.reader.sees = lambda: zone(wrong="composite")
    await house.archive.verify(document)
    await house.archive.read(document)
    house.reader.sees = lambda: Inspection("It is broken.")
    await house.archive.verify(document)
    await house.archive.read(document)
    events = [event for event in await told(house.bus, document.id, 9) if event.state != Document.PENDING]
    assert [(event.problems[0].name if event.problems else "", event.unchanged) for event in events] == [
        ("", False),
        ("", True),
        ("CHECK_DIGITS", False),
        ("CHECK_DIGITS", True),
        ("READABLE", False),
    ]


async def test_a_profile_that_changes_while_a_document_is_read_does_not_have_it_read_twice_at_once(
    quiet: House,
) -> None:
    document = await quiet.upload()
    assert await quiet.archive.verifications.claim()
    quiet.registry.says = lambda: Identity("Ada King", date(1990, 12, 10))
    await quiet.change_profile(document.owner_id)

    async def begun_again() -> bool:
        rows = await quiet.archive.database.fetch("SELECT FROM documents WHERE sequence = 2")
        return bool(rows)

    await eventually(begun_again)
    assert await quiet.archive.verifications.claim() is None


_AS_THE_RELEASE_BEFORE = """
    INSERT INTO documents (id, owner_id, kind, file_name, content_type, size_bytes, sha256, state, checks, create_time)
    VALUES ($1, $2, 'PASSPORT', 'scan.png', 'image/png', 9, repeat('0', 64), 'VERIFIED', '[["READABLE", ""]]', now())"""


async def accepted_by_the_release_before(house: House, document: document_pb2.Document) -> bool:
    """Whether it shows a document as VERIFIED: where no check has anything to say."""
    [row] = await house.archive.database.fetch("SELECT checks FROM documents WHERE id = $1", document.id)
    return not any(detail for _, detail in json.loads(row["checks"]))


async def test_what_is_not_read_is_not_accepted_by_the_release_before(quiet: House) -> None:
    document = await quiet.upload()
    assert not await accepted_by_the_release_before(quiet, document)
    async with quiet.replica():
        await quiet.archive.read(document)
        assert await accepted_by_the_release_before(quiet, document)
    await quiet.archive.verify(document)
    assert not await accepted_by_the_release_before(quiet, document)


async def test_what_the_release_before_accepts_without_reading_is_read(house: House) -> None:
    document = Document(id=new_id("doc"), owner_id=new_id("usr"))
    house.reader.free.clear()
    await house.archive.database.execute(_AS_THE_RELEASE_BEFORE, document.id, document.owner_id)
    pending = await house.archive.get(document)
    assert (pending.state, list(pending.checks)) == (Document.PENDING, [])
    assert not await accepted_by_the_release_before(house, document)
    house.reader.free.set()
    verified = await house.archive.read(document)
    assert (verified.state, len(verified.checks)) == (Document.VERIFIED, len(CHECKS) + len(CHECKS_OF_ZONE))
    update = "UPDATE documents SET state = 'VERIFIED', checks = '[]' WHERE id = $1"
    await house.archive.database.execute(update, document.id)

    async def read_again() -> bool:
        return house.reader.read[document.id] == 2

    await eventually(read_again)
    assert (await house.archive.read(document)).checks == verified.checks
