"""All that the invariants are about, read from outside: the clients' log, the databases, and the streams."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import nats
import nats.errors
import nats.js.errors
import psycopg
from google.protobuf.message import DecodeError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from payment.v1 import payment_pb2
from psycopg.rows import dict_row

from scripts.stack.settings import Settings
from tests.faults.log import Wish
from tests.traffic.receiver import Post

Row = Mapping[str, Any]
PUBLISHERS = ("payment", "user", "document")
CONSUMERS = {"notification": ("payment", "document"), "compliance": ("user",), "document": ("user",)}
"""Which service handles the events of which others."""
DEAD_LETTERS = "deadletter"
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a stream."""

    subject: str
    id: str
    """Its Nats-Msg-Id."""
    data: bytes

    def payment_event(self) -> payment_pb2.PaymentEvent:
        """Reads it as an event of payment. Raises DecodeError."""
        return payment_pb2.PaymentEvent.FromString(self.data)

    def __str__(self) -> str:
        """For people: its event, where it has one."""
        try:
            told = str(self.payment_event()).replace("\n", " ")
        except DecodeError:
            told = repr(self.data[:100])
        return f"{self.id} on {self.subject}: {told}"


@dataclass(frozen=True, slots=True)
class Subscription:
    """Somebody's webhook for all events of their payments."""

    user_id: str
    secret: str
    posts: Sequence[Post]
    """What came to it."""


@dataclass(frozen=True, slots=True)
class Book:
    """The state of everything at one moment. Rows are those of the tables, by column."""

    wishes: Sequence[Wish]
    payments: Sequence[Row]
    changes: Sequence[Row]
    """payment_events."""
    accounts: Sequence[Row]
    entries: Sequence[Row]
    invoices: Sequence[Row]
    documents: Sequence[Row]
    notifications: Sequence[Row]
    deliveries: Sequence[Row]
    subscription: Subscription
    outboxes: Mapping[str, Sequence[Row]]
    """By service."""
    streams: Mapping[str, Sequence[Message]]
    """By name, in their order."""
    handled: Mapping[str, Sequence[str]]
    """The ids of the events that a service has handled, by service."""
    sessions: Sequence[Row]
    """pg_stat_activity of services, with the seconds since the transaction began and the advisory locks held."""
    prepared: Sequence[Row]
    """pg_prepared_xacts."""


class Books:
    """Reads them."""

    def __init__(self, settings: Settings, wishes: Sequence[Wish], subscription: Subscription) -> None:
        self._settings = settings
        self._wishes = wishes
        self._subscription = subscription
        self._streams: dict[str, list[Message]] = {name: [] for name in (*PUBLISHERS, DEAD_LETTERS)}
        self._read: dict[str, int] = dict.fromkeys(self._streams, 0)

    def read(self) -> Book:
        """Reads all of it, of streams what is new. Raises psycopg.OperationalError or nats.errors.Error."""
        asyncio.run(self._read_streams())
        with self._tables("payment") as payment, self._tables("notification") as notification:
            return Book(
                wishes=self._wishes,
                payments=payment("SELECT * FROM payments ORDER BY id"),
                changes=payment("SELECT * FROM payment_events ORDER BY payment_id, sequence"),
                accounts=payment("SELECT * FROM accounts ORDER BY id"),
                entries=payment("SELECT * FROM entries ORDER BY id"),
                invoices=payment("SELECT * FROM invoices ORDER BY id"),
                documents=self._rows("document", "SELECT * FROM documents ORDER BY id"),
                notifications=notification("SELECT * FROM notifications ORDER BY id"),
                deliveries=notification("SELECT event_id, user_id, state FROM deliveries ORDER BY id"),
                subscription=self._subscription,
                outboxes={name: self._rows(name, "SELECT message_id FROM outbox") for name in PUBLISHERS},
                streams={name: list(messages) for name, messages in self._streams.items()},
                handled={
                    name: [row["message_id"] for row in self._rows(name, "SELECT message_id FROM handled_events")]
                    for name in CONSUMERS
                },
                sessions=self._rows("postgres", _SESSIONS),
                prepared=self._rows("postgres", "SELECT gid, database FROM pg_prepared_xacts"),
            )

    def _rows(self, database: str, query: LiteralString) -> list[Row]:
        with self._tables(database) as rows:
            return rows(query)

    @contextmanager
    def _tables(self, database: str) -> Iterator[Callable[[LiteralString], list[Row]]]:
        """Lends a function that returns what a query does; all its answers are of one moment."""
        with connect(self._settings, database) as connection, connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield lambda query: list(cursor.execute(query))

    async def _read_streams(self) -> None:
        client = await nats.connect(f"tls://127.0.0.1:{self._settings.ports['nats']}", tls=self._context())
        try:
            for name in self._streams:
                self._streams[name] += await self._new(client.jetstream(), name)
        finally:
            await client.close()

    async def _new(self, jetstream: JetStreamContext, stream: str) -> list[Message]:
        """Returns what came to a stream since it was read the last time; nothing of one that is not there."""
        try:
            last = (await jetstream.stream_info(stream)).state.last_seq
        except nats.js.errors.NotFoundError:
            return []
        found: list[Message] = []
        if last <= self._read[stream]:
            return found
        wanted = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._read[stream] + 1,
            ack_policy=AckPolicy.NONE,
        )
        subscription = await jetstream.pull_subscribe(f"{stream}.>", stream=stream, config=wanted)
        while self._read[stream] < last:
            for message in await subscription.fetch(min(_BATCH, last - self._read[stream]), timeout=5):
                found.append(Message(message.subject, (message.headers or {}).get("Nats-Msg-Id", ""), message.data))
                self._read[stream] = message.metadata.sequence.stream
        await subscription.unsubscribe()
        return found

    def _context(self) -> ssl.SSLContext:
        certificates = self._settings.folder.certificates
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        context.load_cert_chain(certificates / "payment.pem", certificates / "payment.key")
        return context


_SESSIONS = """
    SELECT pid, usename, state, wait_event_type, wait_event, left(query, 200) AS query,
        extract(epoch FROM clock_timestamp() - xact_start)::float AS transaction_seconds,
        extract(epoch FROM clock_timestamp() - state_change)::float AS state_seconds,
        (SELECT count(*) FROM pg_locks WHERE pg_locks.pid = pg_stat_activity.pid AND locktype = 'advisory' AND granted)
            AS advisory_locks
    FROM pg_stat_activity WHERE usename <> 'postgres' AND backend_type = 'client backend' ORDER BY pid"""


def connect(settings: Settings, database: str) -> "psycopg.Connection[tuple[Any, ...]]":
    """Connects to a database as Postgres's superuser; each statement is a transaction."""
    return psycopg.connect(host=str(settings.folder.sockets), user="postgres", dbname=database, autocommit=True)
