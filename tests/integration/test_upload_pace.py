"""Backpressure: what the disk does not take, the client does not send."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from document.v1 import document_pb2
from google.api.httpbody_pb2 import HttpBody

from services.document import spool
from services.runtime.ids import new_id
from tests.integration.archive import CONTENT_TYPE, LIMITS, form, open_archive, scan
from tests.integration.conftest import FreshDatabase
from tests.waiting import eventually

PIECE = 256 * 1024
MIB = 1024 * 1024
CONTENT_BYTES = 48 * MIB


async def test_a_disk_that_takes_nothing_for_a_while_stops_the_client_and_not_the_upload(
    fresh_database: FreshDatabase, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_works, sent = threading.Event(), 0
    take = spool._take

    def slow(batch: Any) -> None:
        disk_works.wait()
        take(batch)

    async def requests() -> AsyncIterator[document_pb2.UploadDocumentRequest]:
        nonlocal sent
        body = form(scan()[:100] + bytes(CONTENT_BYTES))
        for start in range(0, len(body), PIECE):
            data = body[start : start + PIECE]
            yield document_pb2.UploadDocumentRequest(content=HttpBody(content_type=CONTENT_TYPE, data=data))
            sent += len(data)

    async def stands_still() -> bool:
        before = sent
        for _ in range(20):
            await asyncio.sleep(0.05)
            if sent != before:
                return False
        return sent > 0

    monkeypatch.setattr(spool, "_take", slow)
    monkeypatch.setattr("services.document.upload.STALLED_SECONDS", 0.5)  # the sender's, not the disk's
    limits = replace(LIMITS, file_bytes=CONTENT_BYTES + MIB)
    try:
        async with open_archive(fresh_database("document"), certificates, tmp_path, limits=limits) as archive:
            upload = asyncio.ensure_future(archive.of(new_id("usr"), "customer").UploadDocument(requests()))
            await eventually(stands_still, seconds=20)
            assert sent < CONTENT_BYTES / 2
            disk_works.set()
            assert (await upload).size_bytes == CONTENT_BYTES + 100
    finally:
        disk_works.set()
