"""The outbox, its relay and its consumers over a real NATS server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from payment.v1 import payment_pb2

from services.runtime.events import Bus, Outbox, consume, open_bus
from services.runtime.ids import new_id
from services.runtime.postgres import Connection, Database, open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import identity
from tests.waiting import eventually

_HANDLED_EVENTS = """
    CREATE TABLE IF NOT EXISTS handled_events (
        consumer text NOT NULL, message_id text NOT NULL, create_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (consumer, message_id))"""


class Heard:
    """A consumer that keeps what it handled, and fails where it is told to."""

    def __init__(self, expected: int) -> None:
        self.events: list[tuple[str, int]] = []
        self.fail_once: set[tuple[str, int]] = set()
        self.enough = asyncio.Event()
        self._expected = expected

    async def handle(self, connection: Connection, event: payment_pb2.PaymentEvent) -> None:
        key = (event.payment_id, event.sequence)
        if key in self.fail_once:
            self.fail_once.discard(key)
            raise RuntimeError("not this time")
        self.events.append(key)
        if len(self.events) >= self._expected:
            self.enough.set()

    async def all(self) -> list[tuple[str, int]]:
        async with asyncio.timeout(20):
            await self.enough.wait()
        return self.events


@pytest.fixture
async def database(fresh_database: FreshDatabase) -> AsyncIterator[Database]:
    async with open_database(fresh_database("payment")) as database:
        await database.execute(_HANDLED_EVENTS)
        yield database


@pytest.fixture
async def bus(nats_url: str, certificates: Path) -> AsyncIterator[Bus]:
    async with open_bus(nats_url, identity(certificates, "payment")) as bus:
        await bus.connected()
        yield bus


@asynccontextmanager
async def consuming(bus: Bus, database: Database, server: str, heard: Heard, replicas: int = 1) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(
            consume(
                bus, database, stream=server, consumer="test", message=payment_pb2.PaymentEvent, handle=heard.handle
            )
        )
        for _ in range(replicas)
    ]
    yield
    for task in tasks:
        task.cancel()


@asynccontextmanager
async def relaying(*outboxes: Outbox) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(outbox.relay()) for outbox in outboxes]
    yield
    for task in tasks:
        task.cancel()


async def publish(outbox: Outbox, key: str, sequence: int) -> None:
    async with outbox.transaction() as connection:
        event = payment_pb2.PaymentEvent(payment_id=key, sequence=sequence)
        await outbox.add(connection, key, sequence, event)


async def test_an_event_that_is_not_committed_is_not_told(database: Database, bus: Bus) -> None:
    server, heard = new_id("a"), Heard(1)
    outbox = Outbox(server, database, bus)
    async with relaying(outbox), consuming(bus, database, server, heard):
        with pytest.raises(RuntimeError):
            async with outbox.transaction() as connection:
                await outbox.add(connection, "lost", 1, payment_pb2.PaymentEvent(payment_id="lost", sequence=1))
                raise RuntimeError("rolled back")
        await publish(outbox, "kept", 1)
        assert await heard.all() == [("kept", 1)]


async def test_events_of_one_subject_keep_their_order_with_several_relays(database: Database, bus: Bus) -> None:
    server, heard = new_id("b"), Heard(120)
    outboxes = [Outbox(server, database, bus) for _ in range(3)]

    async def write(key: str, outbox: Outbox) -> None:
        for sequence in range(1, 41):
            await publish(outbox, key, sequence)

    async with relaying(*outboxes), consuming(bus, database, server, heard):
        await asyncio.gather(*(write(f"p{number}", outbox) for number, outbox in enumerate(outboxes)))
        events = await heard.all()
    for number in range(3):
        assert [sequence for key, sequence in events if key == f"p{number}"] == list(range(1, 41))
    assert await database.fetch("SELECT FROM outbox") == []


async def test_what_is_published_twice_is_handled_once_by_however_many_replicas(database: Database, bus: Bus) -> None:
    server, heard = new_id("c"), Heard(2)
    outbox = Outbox(server, database, bus)
    async with relaying(outbox), consuming(bus, database, server, heard, replicas=3):
        await publish(outbox, "p", 1)
        await publish(outbox, "p", 1)  # as a relay does that was killed before it noted what it published
        await publish(outbox, "p", 2)
        assert await heard.all() == [("p", 1), ("p", 2)]


async def test_an_event_that_fails_comes_again_and_holds_up_no_other(database: Database, bus: Bus) -> None:
    server, heard = new_id("d"), Heard(2)
    heard.fail_once = {("bad", 1)}
    outbox = Outbox(server, database, bus)
    async with relaying(outbox), consuming(bus, database, server, heard):
        await publish(outbox, "bad", 1)
        await publish(outbox, "good", 1)
        assert await heard.all() == [("good", 1), ("bad", 1)]


async def test_an_operator_may_configure_a_stream_otherwise(database: Database, bus: Bus) -> None:
    server, heard = new_id("srv"), Heard(1)
    jetstream = await bus.stream(server)
    made = await jetstream.stream_info(server)
    await jetstream.update_stream(made.config.evolve(max_age=3600.0))
    bus.forget(server)
    outbox = Outbox(server, database, bus)
    async with relaying(outbox), consuming(bus, database, server, heard):
        await publish(outbox, "pay_1", 1)
        assert await heard.all() == [("pay_1", 1)]


async def test_what_is_no_event_is_put_aside(database: Database, bus: Bus) -> None:
    server, heard = new_id("e"), Heard(1)
    outbox = Outbox(server, database, bus)
    async with relaying(outbox), consuming(bus, database, server, heard):
        jetstream = await bus.stream(server)
        await jetstream.publish(f"{server}.rubbish", b"\xff", headers={"Nats-Msg-Id": "rubbish"})
        await jetstream.publish(f"{server}.nameless", b"")
        await publish(outbox, "good", 1)
        assert await heard.all() == [("good", 1)]

        async def nothing_is_left() -> bool:
            info = await jetstream.consumer_info(server, "test")
            return (info.num_ack_pending, info.num_pending) == (0, 0)

        await eventually(nothing_is_left)
