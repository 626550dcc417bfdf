"""A stream of its own for each test, and a consumer of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.bus import DEADLETTER, Bus, open_bus
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from services.runtime.postgres import Database, open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.events.hearing import TABLES, Heard
from tests.integration.serving import identity


@pytest.fixture
def database_url(fresh_database: FreshDatabase) -> str:
    return fresh_database("payment")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        await database.execute(TABLES)
        yield database


@pytest.fixture
async def bus(nats_url: str, certificates: Path) -> AsyncIterator[Bus]:
    async with open_bus(nats_url, identity(certificates, "payment")) as bus:
        await bus.connected()
        await (await bus.stream(DEADLETTER)).purge_stream(DEADLETTER)
        yield bus


@pytest.fixture
def stream() -> str:
    return new_id("stream")


@pytest.fixture
def outbox(stream: str, database: Database, bus: Bus) -> Outbox:
    return Outbox(stream, database, bus)


@pytest.fixture
def heard(stream: str, database: Database, bus: Bus) -> Heard:
    return Heard(bus, database, stream)
