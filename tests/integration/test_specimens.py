"""Pictures of documents, read as in production: from the upload to the checks, with the decoder and its reader."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from document.v1 import document_pb2
from PIL import Image

from scripts.specimens import Damage, id_card, passport
from services.document.inspection import Inspector
from services.document.verification.domain import CHECKS_OF_ZONE, Identity
from services.runtime.ids import new_id
from tests.integration.archive import Archive, open_archive, scan
from tests.integration.conftest import FreshDatabase
from tests.integration.reading import Registry, outcomes, reading

NAME, BORN = "Zoë Müller-Lovelace", date(1990, 12, 10)
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
_NOBODY_CAN_TELL = dict.fromkeys(CHECKS_OF_ZONE, "UNREADABLE")
_NOT_EVEN_OPENED = {"READABLE": "FAILED", "USEFUL_SIZE": "UNREADABLE"} | _NOBODY_CAN_TELL


@pytest.fixture(scope="module")
async def archive(
    fresh_database: FreshDatabase, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Archive]:
    registry, folder = Registry(), tmp_path_factory.mktemp("objects")
    registry.says = lambda: Identity("Müller-Lovelace Zoë", BORN)
    async with (
        open_archive(fresh_database("document"), certificates, folder) as archive,
        reading(archive, Inspector(archive.objects), registry),
    ):
        yield archive


def as_pdf(picture: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(file, "PDF", resolution=150)
    return file.getvalue()


async def read(archive: Archive, content: bytes, kind: str) -> document_pb2.Document:
    return await archive.read(await archive.upload(new_id("usr"), content, kind), seconds=120)


GOOD = {
    "a passport": (passport(NAME, BORN, seed=1), "PASSPORT"),
    "a passport in a PDF": (as_pdf(passport(NAME, BORN, seed=2)), "PASSPORT"),
    "an identity card": (id_card(NAME, BORN, seed=3), "ID_CARD"),
    "a licence that crosses borders": (id_card(NAME, BORN, seed=4), "DRIVING_LICENCE"),
    "a photograph of a passport": (
        passport(NAME, BORN, seed=5, damage=Damage(rotation=7, desk=True, blur=0.6, noise=4, quality=70, width=1200)),
        "PASSPORT",
    ),
}


@pytest.mark.parametrize("case", GOOD)
async def test_a_document_of_its_owner_is_verified(archive: Archive, case: str) -> None:
    document = await read(archive, *GOOD[case])
    assert (document.state, outcomes(document)) == (document_pb2.Document.VERIFIED, {})
    assert document.HasField("expire_date")


POOR = {
    "a wrong check digit of the number": (
        passport(NAME, BORN, seed=6, wrong="number"),
        "PASSPORT",
        {"CHECK_DIGITS": "FAILED"},
    ),
    "a wrong check digit of the whole": (
        id_card(NAME, BORN, seed=7, wrong="composite"),
        "ID_CARD",
        {"CHECK_DIGITS": "FAILED"},
    ),
    "one that has expired": (passport(NAME, BORN, seed=8, expires=YESTERDAY), "PASSPORT", {"NOT_EXPIRED": "FAILED"}),
    "somebody else's": (passport("Grace Hopper", BORN, seed=9), "PASSPORT", {"NAME_MATCHES": "FAILED"}),
    "one born on another day": (
        passport(NAME, date(1990, 12, 11), seed=10),
        "PASSPORT",
        {"DATE_OF_BIRTH_MATCHES": "FAILED"},
    ),
    "a card as a passport": (id_card(NAME, BORN, seed=11), "PASSPORT", {"DOCUMENT_TYPE": "FAILED"}),
    "one without a zone": (passport(NAME, BORN, seed=12, zone=False), "PASSPORT", _NOBODY_CAN_TELL),
    "a picture of nothing": (scan(), "DRIVING_LICENCE", _NOBODY_CAN_TELL),
    "a small image": (scan((400, 100)), "PASSPORT", {"USEFUL_SIZE": "FAILED"} | _NOBODY_CAN_TELL),
    "an image cut off": (scan()[:-500], "PASSPORT", _NOT_EVEN_OPENED),
    "a broken PDF": (b"%PDF-1.7 and nothing more", "PASSPORT", _NOT_EVEN_OPENED),
}


@pytest.mark.parametrize("case", POOR)
async def test_any_other_is_rejected_and_says_why(archive: Archive, case: str) -> None:
    content, kind, expected = POOR[case]
    document = await read(archive, content, kind)
    assert (document.state, outcomes(document)) == (document_pb2.Document.REJECTED, expected)
    assert all(check.detail.endswith(".") for check in document.checks if check.name in expected)
