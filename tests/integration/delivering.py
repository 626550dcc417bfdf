"""Deliveries on a real Postgres, and workers that send them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from services.notification.delivery.domain import WEBHOOK, Delivery, Message
from services.notification.delivery.store import Deliveries
from services.notification.delivery.worker import Channel, Worker
from services.notification.webhooks.domain import State, Webhook
from services.notification.webhooks.store import Webhooks
from services.runtime.ids import new_id
from services.runtime.postgres import Database, open_database
from tests.waiting import eventually


class Fake:
    """A channel that keeps what is sent, and holds it back until it is released."""

    def __init__(self, *, held: bool = False) -> None:
        self.sent: list[str] = []
        self.released = asyncio.Event()
        self.failure: Exception | None = None
        if not held:
            self.released.set()

    async def send(self, delivery: Delivery) -> int:
        self.sent.append(delivery.id)
        await self.released.wait()
        if self.failure:
            raise self.failure
        return 0


@dataclass
class House:
    """The deliveries, and workers that are stopped at the end."""

    database: Database
    url: str
    stack: AsyncExitStack
    workers: list[asyncio.Task[None]] = field(default_factory=list)

    async def add(self, *channels: str, user: str = "", body: str = "You paid 42.50 EUR.") -> list[str]:
        """Writes deliveries of one event to one user. Returns their ids."""
        payment_id = new_id("pay")
        messages = [
            Message(
                user_id=user or new_id("usr"),
                channel=channel,
                event_id=f"payment.{payment_id}.1",
                event_type="payment.settled",
                payment_id=payment_id,
                body=body,
            )
            for channel in channels
        ]
        for _ in range(2):  # an event may be handled again, after a handler that failed
            async with self.database.transaction() as connection:
                await Deliveries(self.database).add(connection, messages)
        rows = await self.database.fetch("SELECT id FROM deliveries WHERE payment_id = $1 ORDER BY id", payment_id)
        assert len(rows) == len(channels)
        return [row["id"] for row in rows]

    async def webhook(self) -> str:
        """Makes a webhook. Returns its id."""
        now = datetime.now(UTC)
        webhook = Webhook(new_id("whk"), new_id("usr"), "https://example.com/", (), "", State.ENABLED, 1, now, now)
        await Webhooks(self.database).add(webhook, b"secret")
        return webhook.id

    async def announce(self, *webhook_ids: str) -> list[str]:
        """Writes a delivery of an event to each of these webhooks. Returns their ids."""
        payment_id = new_id("pay")
        messages = [
            Message(
                user_id="usr_1",
                channel=WEBHOOK,
                webhook_id=webhook_id,
                event_id=f"payment.{payment_id}.1",
                event_type="payment.settled",
                payment_id=payment_id,
                body="{}",
            )
            for webhook_id in webhook_ids
        ]
        async with self.database.transaction() as connection:
            await Deliveries(self.database).add(connection, messages)
        rows = await self.database.fetch("SELECT id FROM deliveries WHERE payment_id = $1 ORDER BY id", payment_id)
        return [row["id"] for row in rows]

    async def start(self, channels: Mapping[str, Channel], store: type[Deliveries] = Deliveries) -> asyncio.Task[None]:
        """Starts a worker as of another replica."""
        database = await self.stack.enter_async_context(open_database(self.url))
        task = asyncio.create_task(Worker(store(database), channels).run())
        self.workers.append(task)
        return task

    async def stop(self) -> None:
        """Stops the workers."""
        for task in self.workers:
            task.cancel()
        await asyncio.gather(*self.workers, return_exceptions=True)

    async def row(self, delivery_id: str) -> Any:
        """What is written down of a delivery."""
        return await self.database.fetchrow("SELECT * FROM deliveries WHERE id = $1", delivery_id)

    async def became(self, delivery_id: str, condition: Callable[[Any], bool]) -> Any:
        """Waits until a delivery is as it should be."""

        async def there() -> bool:
            return condition(await self.row(delivery_id))

        await eventually(there)
        return await self.row(delivery_id)

    async def ended(self, delivery_id: str) -> tuple[str, int, str]:
        """Waits until a delivery is done. Returns its state, the attempts and the last error."""
        row = await self.became(delivery_id, lambda row: row["state"] != "PENDING")
        assert row["next_attempt_time"] is None
        return row["state"], row["attempts"], row["error"]

    async def tried(self, delivery_id: str) -> Any:
        """Waits until an attempt was written down that is not the last one."""
        return await self.became(delivery_id, lambda row: row["attempts"] > 0 and row["error"])


@asynccontextmanager
async def delivering(url: str) -> AsyncIterator[House]:
    """Has deliveries and workers, none of either at first, and stops the workers."""
    async with AsyncExitStack() as stack:
        house = House(await stack.enter_async_context(open_database(url)), url, stack)
        yield house
        await house.stop()
        await house.database.execute("DELETE FROM deliveries")
