"""Events between services: a transactional outbox, its relay to NATS JetStream, and consumers that handle once.

A change and its event are written in one transaction. The relay publishes what is committed, one replica at a
time, so that the events of one subject keep their order. JetStream drops what the relay repeats after a crash
(by message id), and a consumer notes in the transaction of the effect what it has handled.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg
import nats
import nats.errors
import structlog
from google.protobuf.message import Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from services.runtime import trace
from services.runtime.errors import Unavailable
from services.runtime.postgres import Connection, Database
from services.runtime.tls import Identity
from services.runtime.worker import repeat

BATCH = 200
POLL_SECONDS = 1.0
"""How soon another replica relays what a crashed one committed."""
RECONNECT_SECONDS = 0.25
REDELIVERY_SECONDS = 1.0
RETENTION_SECONDS = 7 * 24 * 3600.0
MESSAGE_ID = "Nats-Msg-Id"
TRACEPARENT = "traceparent"

_RELAY_LOCK = 0x72656C61  # any number that all replicas share: "rela"
_ADD = "INSERT INTO outbox (message_id, subject, payload, traceparent) VALUES ($1, $2, $3, $4)"
_NEXT = "SELECT position, message_id, subject, payload, traceparent FROM outbox ORDER BY position LIMIT $1"
_DONE = "DELETE FROM outbox WHERE position = ANY($1::bigint[])"
_HANDLED = "INSERT INTO handled_events (consumer, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"

_log = structlog.get_logger()

Event = TypeVar("Event", bound=Message)


class BusUnavailable(Unavailable):
    """NATS cannot be reached. Events wait in the outbox."""

    message = "The service cannot reach the message bus right now."


class Bus:
    """The connection to NATS, made in the background and remade whenever it is lost."""

    def __init__(self) -> None:
        self._client = Client()
        self._connected = asyncio.Event()
        self._streams: set[str] = set()

    async def connect(self, url: str, identity: Identity) -> None:
        """Connects, however long that takes."""
        await self._client.connect(
            url,
            tls=identity.context(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # fractions work
            error_cb=_log_error,
        )
        self._connected.set()

    async def connected(self) -> None:
        """Waits for the first connection."""
        await self._connected.wait()

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    async def stream(self, name: str) -> JetStreamContext:
        """Returns JetStream with the stream of a service in place. Raises BusUnavailable."""
        if not self._client.is_connected:
            raise BusUnavailable
        jetstream = self._client.jetstream()
        if name not in self._streams:
            await jetstream.add_stream(
                api.StreamConfig(name, subjects=[f"{name}.>"], max_age=RETENTION_SECONDS, duplicate_window=120.0)
            )
            self._streams.add(name)
        return jetstream

    def forget(self, name: str) -> None:
        """Has the stream looked for again before its next use: it may be gone with its server."""
        self._streams.discard(name)

    async def listen(self, subject: str, heard: Callable[[str], None]) -> None:
        """Calls `heard` with the subject of every event as it is published, at most once. Waits for the connection."""
        await self.connected()

        async def on_message(message: Msg) -> None:
            heard(message.subject)

        await self._client.subscribe(subject, cb=on_message)


async def _log_error(error: Exception) -> None:
    _log.warning("bus", error=f"{type(error).__name__}: {error}")


@asynccontextmanager
async def open_bus(url: str, identity: Identity) -> AsyncIterator[Bus]:
    """Opens the bus without waiting for it, so that a service starts while NATS is away."""
    bus = Bus()
    connecting = asyncio.create_task(bus.connect(url, identity))
    try:
        yield bus
    finally:
        connecting.cancel()
        await bus.close()


class Outbox:
    """The events of one service on their way out."""

    def __init__(self, server: str, database: Database, bus: Bus) -> None:
        self._server = server
        self._database = database
        self._bus = bus
        self._wake = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lends a connection in a transaction; what it adds is relayed as soon as it is committed."""
        async with self._database.transaction() as connection:
            yield connection
        self._wake.set()

    async def add(self, connection: Connection, key: str, sequence: int, message: Message) -> None:
        """Writes an event in the transaction of its change, for the subject `<server>.<key>`."""
        subject = f"{self._server}.{key}"
        await connection.execute(
            _ADD, f"{subject}.{sequence}", subject, message.SerializeToString(), trace.traceparent()
        )

    async def relay(self) -> None:
        """Publishes what is committed, for ever."""
        await self._bus.connected()
        await repeat(self._relay_batch, self._wake, POLL_SECONDS)

    async def _relay_batch(self) -> bool:
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _RELAY_LOCK):
                return False
            rows = await connection.fetch(_NEXT, BATCH)
            if not rows:
                return False
            subjects: dict[str, list[asyncpg.Record]] = defaultdict(list)
            for row in rows:
                subjects[row["subject"]].append(row)
            jetstream = await self._bus.stream(self._server)
            try:
                await asyncio.gather(*(self._publish(jetstream, of_one) for of_one in subjects.values()))
            except nats.errors.Error as error:
                self._bus.forget(self._server)
                raise BusUnavailable from error
            await connection.execute(_DONE, [row["position"] for row in rows])
        return True

    async def _publish(self, jetstream: JetStreamContext, rows: list[asyncpg.Record]) -> None:
        """Publishes the events of one subject, each after the one before was stored."""
        for row in rows:
            headers = {MESSAGE_ID: row["message_id"], TRACEPARENT: row["traceparent"]}
            await jetstream.publish(row["subject"], row["payload"], headers=headers)


async def consume(
    bus: Bus,
    database: Database,
    *,
    stream: str,
    consumer: str,
    message: type[Event],
    handle: Callable[[Connection, Event], Awaitable[None]],
) -> None:
    """Handles every event of a service's stream, for ever, each in one transaction with the note that it was.

    Any number of replicas share the work under the name `consumer`. What fails is delivered again, after
    what came behind it: a handler goes by the event's sequence, not by the order of arrival.
    """

    async def handle_one(delivered: Msg) -> None:
        headers = delivered.headers or {}
        trace.begin(headers.get(TRACEPARENT))
        try:
            async with database.transaction() as connection:
                done = await connection.execute(_HANDLED, consumer, headers[MESSAGE_ID])
                if done == "INSERT 0 1":
                    await handle(connection, message.FromString(delivered.data))
        except Exception as error:  # it comes again; the ones behind it must not wait
            _log.warning("event failed", subject=delivered.subject, error=f"{type(error).__name__}: {error}")
            await delivered.nak(delay=REDELIVERY_SECONDS)
        else:
            await delivered.ack()

    async def batch() -> bool:
        jetstream = await bus.stream(stream)
        try:
            subscription = await jetstream.pull_subscribe(f"{stream}.>", durable=consumer, stream=stream)
            while True:
                try:
                    delivered = await subscription.fetch(BATCH, timeout=POLL_SECONDS * 5)
                except nats.errors.TimeoutError:
                    continue
                for one in delivered:
                    await handle_one(one)
        except nats.errors.Error:
            bus.forget(stream)
            raise

    await bus.connected()
    await repeat(batch, asyncio.Event(), POLL_SECONDS)
