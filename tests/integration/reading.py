"""Who reads the documents of an archive, and who knows its owners: fakes that can be held and made to fail."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from document.v1 import document_pb2
from google.type import date_pb2
from user.v1 import user_pb2

from scripts.specimens import specimen
from services.document.domain import Inspection
from services.document.events import follow_users
from services.document.verification.domain import Identity
from services.document.verification.worker import Identities, Inspector, Verification
from services.runtime.bus import MESSAGE_ID, Bus, open_bus
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from tests.integration.archive import Archive, open_archive, scan
from tests.integration.serving import identity

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
async def reading(archive: Archive, inspector: Inspector, identities: Identities) -> AsyncIterator[None]:
    """A replica that reads what is due."""
    task = asyncio.create_task(Verification(archive.verifications, inspector, identities).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


_AT_ONCE = "UPDATE documents SET verify_time = now() WHERE id = $1 AND verify_time IS NOT NULL"
"""As if its lease, or what it has to wait, were over."""


@dataclass
class Place:
    """An archive and its events."""

    archive: Archive
    bus: Bus


@dataclass
class House(Place):
    """The same with who reads, and who knows the owners."""

    reader: Reader = field(default_factory=Reader)
    registry: Registry = field(default_factory=Registry)

    async def upload(self, owner: str = "", kind: str = "PASSPORT") -> document_pb2.Document:
        return await self.archive.upload(owner or new_id("usr"), scan(), kind)

    async def change_profile(self, owner: str, sequence: int = 2) -> None:
        """Publishes what the user service does when a profile changed: to what the registry says."""
        now = self.registry.says()
        born = date_pb2.Date(year=now.date_of_birth.year, month=now.date_of_birth.month, day=now.date_of_birth.day)
        event = user_pb2.UserEvent(user_id=owner, sequence=sequence, display_name=now.display_name, date_of_birth=born)
        event.create_time.FromDatetime(datetime.now(UTC))
        headers = {MESSAGE_ID: f"user.{owner}.{sequence}"}
        await self.bus.publish("user", f"user.{owner}", event.SerializeToString(), headers)

    async def failures(self, document: document_pb2.Document) -> int:
        row = await self.archive.database.fetchrow("SELECT verify_failures FROM documents WHERE id = $1", document.id)
        assert row is not None
        return int(row["verify_failures"])

    async def try_again(self, document: document_pb2.Document) -> None:
        """As if it had waited long enough, unless it is being read."""
        await self.archive.database.execute(f"{_AT_ONCE} AND verify_failures = 0", document.id)
        self.archive.verifications.due.set()

    async def wait_no_longer(self, document: document_pb2.Document) -> None:
        await self.archive.database.execute(_AT_ONCE, document.id)
        self.archive.verifications.due.set()

    def replica(self, reader: Reader | None = None) -> AbstractAsyncContextManager[None]:
        """A replica that reads."""
        return reading(self.archive, reader or self.reader, self.registry)


@asynccontextmanager
async def open_place(database_url: str, nats_url: str, certificates: Path, folder: Path) -> AsyncIterator[Place]:
    """Serves an archive whose events are relayed, and that hears of users. Nobody reads."""
    async with (
        open_bus(nats_url, identity(certificates, "document")) as bus,
        open_archive(database_url, certificates, folder, bus) as archive,
    ):
        running = [
            asyncio.create_task(Outbox("document", archive.database, bus).relay()),
            asyncio.create_task(follow_users(bus, archive.database, archive.verifications.begin_again_of)),
        ]
        await bus.connected()
        yield Place(archive, bus)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def living(place: Place) -> AsyncIterator[House]:
    """With a reader and a registry of its own, and without documents at the end."""
    yield House(place.archive, place.bus)
    await place.archive.database.execute("DELETE FROM documents")


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
