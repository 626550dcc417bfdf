"""Who reads the documents of an archive, and who knows its owners: fakes that can be held and made to fail."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta

from document.v1 import document_pb2

from scripts.specimens import specimen
from services.document.domain import Inspection
from services.document.verification.domain import Identity
from services.document.verification.worker import Identities, Inspector, Verification
from services.runtime.bus import Bus
from tests.integration.archive import Archive

ADA = Identity("Ada Lovelace", date(1990, 12, 10))
EXPIRES = (datetime.now(UTC) + timedelta(days=1000)).date()
"""When the documents that are as they should be expire."""


def zone(size: str = "TD3", identity: Identity = ADA, **details: str) -> Inspection:
    """What reading a document has shown that is as it should be, but for the details."""
    born = identity.date_of_birth
    lines = specimen(size, identity.display_name, born, expires=EXPIRES, **details).lines  # type: ignore[arg-type]
    return Inspection(shorter_side=900, mrz=lines, mrz_found=True)


class Reader:
    """Sees the same in every file, until it is told otherwise."""

    def __init__(self) -> None:
        self.sees: Callable[[], Inspection] = zone
        self.read: Counter[str] = Counter()
        """How often which documents were read, by their ids."""
        self.opened: Counter[str] = Counter()
        """How often which were opened, but not read."""
        self.answered = 0
        self.free = asyncio.Event()
        """Cleared: it is held in the middle of reading."""
        self.free.set()

    async def inspect(self, document_id: str, content_type: str, *, read: bool) -> Inspection:
        (self.read if read else self.opened)[document_id] += 1
        seen = self.sees
        await self.free.wait()
        self.answered += 1
        return seen()

    async def has_begun(self) -> bool:
        """Whether it was asked anything."""
        return bool(self.read or self.opened)


class Registry:
    """Knows everybody as the same person, until it is told otherwise."""

    def __init__(self) -> None:
        self.says: Callable[[], Identity] = lambda: ADA
        self.asked = 0

    async def identity(self, user_id: str) -> Identity:
        self.asked += 1
        return self.says()


@asynccontextmanager
async def reading(archive: Archive, inspector: Inspector, identities: Identities) -> AsyncIterator[asyncio.Task[None]]:
    """A replica that reads what is due."""
    task = asyncio.create_task(Verification(archive.verifications, inspector, identities).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def told(bus: Bus, document_id: str, count: int) -> list[document_pb2.DocumentEvent]:
    """Waits until so many events of a document were published. Returns them."""
    jetstream = await bus.stream("document")
    subscription = await jetstream.subscribe(f"document.{document_id}", ordered_consumer=True)
    try:
        return [
            document_pb2.DocumentEvent.FromString((await subscription.next_msg(timeout=10)).data) for _ in range(count)
        ]
    finally:
        await subscription.unsubscribe()


def outcomes(document: document_pb2.Document) -> dict[str, str]:
    """How the checks came out that did not pass, by their names."""
    return {
        check.name: document_pb2.DocumentCheck.Outcome.Name(check.outcome)
        for check in document.checks
        if check.outcome != document_pb2.DocumentCheck.PASSED
    }
