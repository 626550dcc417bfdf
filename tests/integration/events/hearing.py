"""Events on their way, for tests: who publishes them, and a consumer that keeps what it handled."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from google.type.money_pb2 import Money
from payment.v1.payment_pb2 import Payment, PaymentEvent

from services.runtime.bus import Bus
from services.runtime.consumer import consume
from services.runtime.outbox import Outbox
from services.runtime.postgres import Connection, Database
from tests.waiting import eventually

TABLES = """
    CREATE TABLE IF NOT EXISTS handled_events (
        consumer text NOT NULL, message_id text NOT NULL, create_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (consumer, message_id));
    CREATE TABLE IF NOT EXISTS effects (consumer text NOT NULL, key text NOT NULL, sequence integer NOT NULL)"""


def event(key: str, sequence: int) -> PaymentEvent:
    """An event that breaks no rule."""
    made = PaymentEvent(
        payment_id=key,
        sequence=sequence,
        state=Payment.AUTHORIZED,
        payer_id="usr_1",
        payee_id="usr_2",
        amount=Money(currency_code="EUR", units=1),
        refunded_amount=Money(currency_code="EUR"),
    )
    made.create_time.GetCurrentTime()
    return made


async def publish(outbox: Outbox, key: str, sequence: int) -> None:
    """Commits an event."""
    async with outbox.transaction() as connection:
        await outbox.add(connection, key, sequence, event(key, sequence))


class Heard:
    """A consumer whose effect is a row for each event it handled. It fails where it is told to."""

    def __init__(self, bus: Bus, database: Database, stream: str, name: str = "test") -> None:
        self._bus = bus
        self._database = database
        self._stream = stream
        self._name = name
        self.failing: dict[tuple[str, int], Exception] = {}
        self.failing_once: dict[tuple[str, int], Exception] = {}
        self.failures: Counter[tuple[str, int]] = Counter()
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def _handle(self, connection: Connection, event: PaymentEvent) -> None:
        key = (event.payment_id, event.sequence)
        await connection.execute("INSERT INTO effects VALUES ($1, $2, $3)", self._name, *key)
        self.begun.set()
        await self.may_end.wait()
        if error := self.failing.get(key) or self.failing_once.pop(key, None):
            self.failures[key] += 1
            raise error

    async def events(self) -> list[tuple[str, int]]:
        """What it handled, in the order in which it did."""
        rows = await self._database.fetch("SELECT key, sequence FROM effects WHERE consumer = $1", self._name)
        return [(row["key"], row["sequence"]) for row in rows]

    @asynccontextmanager
    async def listening(self, replicas: int = 1) -> AsyncIterator[None]:
        """Handles events meanwhile."""
        async with _running(
            *(
                consume(
                    self._bus,
                    self._database,
                    stream=self._stream,
                    consumer=self._name,
                    message=PaymentEvent,
                    handle=self._handle,
                )
                for _ in range(replicas)
            )
        ):
            yield


@asynccontextmanager
async def relaying(*outboxes: Outbox) -> AsyncIterator[None]:
    """Publishes what is committed meanwhile."""
    async with _running(*(outbox.relay() for outbox in outboxes)):
        yield


@asynccontextmanager
async def _running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def handled(heard: Heard, *expected: tuple[str, int]) -> None:
    """Waits until as many events are handled. They must be these, each once."""

    async def enough() -> bool:
        return len(await heard.events()) >= len(expected)

    await eventually(enough, 20)
    assert sorted(await heard.events()) == sorted(expected)


async def sent(database: Database) -> bool:
    """Tells whether nothing waits in the outbox."""
    return not await database.fetch("SELECT FROM outbox")
