"""Events that a test makes up, and a hub that tells of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyProto
from payment.v1 import payment_pb2

from services.payment.domain import Change, State
from services.payment.ledger.domain import Money
from services.payment.streams.domain import Kind, Topic
from services.payment.streams.events import Event
from services.payment.streams.hub import Hub, Watcher
from services.runtime.postgres import DatabaseUnavailable

PAYMENT = Topic(Kind.PAYMENT, "pay_1")
PAYER = Topic(Kind.USER, "usr_1")
SECONDS = 10


class FakeEvents:
    """What is committed, and how often it was read."""

    def __init__(self) -> None:
        self.committed: dict[Topic, list[Event]] = {}
        self.reads: Counter[Kind] = Counter()
        self.asked: set[Topic] = set()
        self.rows = 0
        self.most_rows = 0
        self.away = False
        self.going_on = asyncio.Event()
        self.going_on.set()

    def commit(self, topic: Topic, state: State = State.AUTHORIZED) -> Event:
        events = self.committed.setdefault(topic, [])
        position = len(events) + 1
        euro = Money("EUR", 1)
        change = Change("pay_1", "usr_1", "usr_2", euro, "", position, state, "", euro, datetime.now(UTC))
        events.append(Event(position, change))
        return events[-1]

    async def after(self, kind: Kind, positions: Mapping[str, int], limit: int) -> Mapping[Topic, Sequence[Event]]:
        self.reads[kind] += 1
        await asyncio.sleep(0)
        await self.going_on.wait()
        if self.away:
            raise DatabaseUnavailable
        topics = {Topic(kind, name): after for name, after in positions.items()}
        self.asked.update(topics)
        found = {topic: self.committed.get(topic, [])[after : after + limit] for topic, after in topics.items()}
        rows = sum(map(len, found.values()))
        self.rows, self.most_rows = self.rows + rows, max(self.most_rows, rows)
        return {topic: events for topic, events in found.items() if events}


class FakeBus:
    """Tells what a test tells it."""

    def __init__(self) -> None:
        self.heard: Callable[[str, bytes], None] = lambda _, __: None

    async def listen(self, _: str, heard: Callable[[str, bytes], None]) -> None:
        self.heard = heard

    def tell(self, payment_id: str = "pay_1", payer_id: str = "usr_1", payee_id: str = "usr_2") -> None:
        event = payment_pb2.PaymentEvent(
            payment_id=payment_id,
            sequence=1,
            state=payment_pb2.Payment.AUTHORIZED,
            payer_id=payer_id,
            payee_id=payee_id,
            amount=MoneyProto(currency_code="EUR"),
            create_time=Timestamp(),
        )
        self.heard(f"payment.{payment_id}", event.SerializeToString())


@asynccontextmanager
async def running(events: FakeEvents, bus: FakeBus, **seconds: float) -> AsyncIterator[Hub]:
    long = {"look_seconds": 1000.0, "heartbeat_seconds": 1000.0}
    hub = Hub(events, bus, **{**long, **seconds})  # type: ignore[arg-type]  # hand-written fakes
    task = asyncio.create_task(hub.run())
    await asyncio.sleep(0)
    try:
        yield hub
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def seen(watcher: Watcher, number: int) -> list[int]:
    """The positions of the next so many events."""
    positions: list[int] = []
    async with asyncio.timeout(SECONDS):
        while len(positions) < number:
            positions += [event.position for event in await watcher.more()]
    return positions


async def all_of(watcher: Watcher) -> list[int]:
    """The positions of what it tells until it is finished."""
    positions: list[int] = []
    while not watcher.finished:
        positions += await seen(watcher, 1)
    return positions


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what nobody tells of."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
