"""Events between services: a transactional outbox, its relay to NATS JetStream, and consumers that handle once.

A change and its event are written in one transaction. The relay publishes what is committed, one replica at a
time, so that the events of one subject keep their order. JetStream drops what the relay repeats after a crash
(by message id), and a consumer notes in the transaction of the effect what it has handled.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg
import nats
import nats.errors
import nats.js.errors
import structlog
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from services.runtime import trace
from services.runtime.errors import Unavailable
from services.runtime.log import failure
from services.runtime.postgres import Connection, Database
from services.runtime.tls import Identity
from services.runtime.worker import repeat

BATCH = 200
POLL_SECONDS = 1.0
"""How soon another replica relays what a crashed one committed."""
RECONNECT_SECONDS = 0.25
REDELIVERY_SECONDS = 1.0
FETCH_SECONDS = 1.0
"""How long a consumer may take to notice that NATS has forgotten what it asked for."""
RETENTION_SECONDS = 7 * 24 * 3600.0
MESSAGE_ID = "Nats-Msg-Id"
TRACEPARENT = "traceparent"

_CONFIGURED_OTHERWISE = 10058
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

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        self._url = url
        self._tls = tls
        self._client = Client()
        self._connected = asyncio.Event()
        self._streams: set[str] = set()

    async def connect(self) -> None:
        """Connects, however long that takes."""
        await self._client.connect(
            self._url,
            tls=self._tls,
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
            wanted = api.StreamConfig(name, subjects=[f"{name}.>"], max_age=RETENTION_SECONDS, duplicate_window=120.0)
            try:
                await jetstream.add_stream(wanted)
            except nats.js.errors.BadRequestError as error:
                if error.err_code != _CONFIGURED_OTHERWISE:  # an operator gave it more replicas, say
                    raise
                _log.warning("stream is configured otherwise", stream=name)
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
    bus = Bus(url, identity.context())
    connecting = asyncio.create_task(bus.connect())
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

    async def handle_once(connection: Connection, message_id: str, data: bytes) -> None:
        event = message.FromString(data)
        if await connection.execute(_HANDLED, consumer, message_id) == "INSERT 0 1":
            await handle(connection, event)

    await bus.connected()
    await repeat(_Consumer(bus, database, stream, consumer, handle_once).read, asyncio.Event(), POLL_SECONDS)


class _Consumer:
    """Reads a stream, event by event."""

    def __init__(
        self,
        bus: Bus,
        database: Database,
        stream: str,
        consumer: str,
        handle: Callable[[Connection, str, bytes], Awaitable[None]],
    ) -> None:
        self._bus = bus
        self._database = database
        self._stream = stream
        self._consumer = consumer
        self._handle = handle
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def read(self) -> bool:
        """Handles the next event, after waiting for it a while. (More at once would be waited for until the end.)"""
        try:
            if self._subscription is None:
                jetstream = await self._bus.stream(self._stream)
                subject = f"{self._stream}.>"
                self._subscription = await jetstream.pull_subscribe(subject, self._consumer, self._stream)
            [delivered] = await self._subscription.fetch(1, timeout=FETCH_SECONDS)
        except nats.errors.TimeoutError:
            return True
        except nats.errors.Error as error:
            self._subscription = None
            self._bus.forget(self._stream)
            raise BusUnavailable from error
        await self._handle_one(delivered)
        return True

    async def _handle_one(self, delivered: Msg) -> None:
        headers = delivered.headers or {}
        trace.begin(headers.get(TRACEPARENT))
        try:
            async with self._database.transaction() as connection:
                await self._handle(connection, headers[MESSAGE_ID], delivered.data)
        except (DecodeError, KeyError) as error:  # no event of ours, and it never will be one
            _log.error("event refused", subject=delivered.subject, **failure(error))
            await delivered.term()
        except Exception as error:  # it comes again; the ones behind it must not wait
            _log.warning("event failed", subject=delivered.subject, **failure(error))
            await delivered.nak(delay=REDELIVERY_SECONDS)
        else:
            await delivered.ack()
