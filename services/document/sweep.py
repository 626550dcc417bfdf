"""The sweep: deletes files that belong to no document, which a crash at the wrong moment leaves behind."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from services.document.objects import Objects
from services.document.store import Documents
from services.runtime.worker import repeat

EVERY_SECONDS = 3600.0
UNTOUCHED = timedelta(hours=1)
"""Longer than an upload may take between its file and its row."""

_log = structlog.get_logger()


class Sweep:
    """The worker. Several replicas do not disturb each other."""

    def __init__(self, objects: Objects, documents: Documents) -> None:
        self._objects = objects
        self._documents = documents

    async def run(self) -> None:
        """Sweeps, for ever."""
        await repeat(self._sweep, asyncio.Event(), EVERY_SECONDS)

    async def _sweep(self) -> bool:
        before = datetime.now(UTC) - UNTOUCHED
        await self._objects.delete_unfinished(before)
        async for ids in self._objects.written_before(before):
            for document_id in await self._documents.unknown(ids):
                _log.info("sweeping a file without a document", document=document_id)
                await self._objects.delete(document_id)
        return False
