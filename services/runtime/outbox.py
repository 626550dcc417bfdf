"""The transactional outbox: a change and its event are written in one transaction, and what is committed is published.

One replica at a time relays, so that the events of one subject keep their order. What it publishes again, having died
before it noted that it had, JetStream drops by its id. The stream forgets ids after a while: an event that has waited
that long is looked for first.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import nats.errors
import nats.js.errors
import structlog
from google.protobuf.message import Message

from services.runtime import trace
from services.runtime.bus import DUPLICATE_SECONDS, MESSAGE_ID, TRACEPARENT, Bus, BusUnavailable, EventRefused
from services.runtime.ids import new_id
from services.runtime.postgres import Connection, Database
from services.runtime.worker import backoff, repeat

BATCH = 200
POLL_SECONDS = 1.0
"""How soon another replica relays what a crashed one committed."""
BATCH_SECONDS = 5.0
"""What a batch has not published by then goes with the next, maybe another replica's: this one may have been frozen,
and Postgres ends a transaction in which nothing happens."""
REFUSED_SECONDS = 30.0
"""How long a subject waits whose next event JetStream refused."""

_RELAY_LOCK = 0x72656C61  # any number that all replicas share: "rela"
_MAY_BE_FORGOTTEN = timedelta(seconds=DUPLICATE_SECONDS / 2)
_ADD = "INSERT INTO outbox (message_id, subject, payload, traceparent) VALUES ($1, $2, $3, $4)"
_NEXT = """
    SELECT position, message_id, subject, payload, traceparent, create_time < now() - $3::interval AS waited
    FROM outbox WHERE subject <> ALL ($2) AND split_part(subject, '.', 1) <> ALL ($4) ORDER BY position LIMIT $1"""
_DONE = "DELETE FROM outbox WHERE position = ANY($1::bigint[])"

_log = structlog.get_logger()


class Outbox:
    """The events of one service on their way out."""

    def __init__(self, server: str, database: Database, bus: Bus) -> None:
        self._server = server
        self._database = database
        self._bus = bus
        self._wake = asyncio.Event()
        self._refused: dict[str, float] = {}
        """Subjects that wait, with the time of the loop until when."""
        self._failing: dict[str, float] = {}
        """Streams that wait, likewise: NATS can be reached, but each stream has a leader of its own."""
        self._failures: Counter[str] = Counter()
        """How often in a row a stream failed."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lends a connection in a transaction; what it adds is relayed as soon as it is committed."""
        async with self._database.transaction() as connection:
            yield connection
        self._wake.set()

    async def add(self, connection: Connection, key: str, sequence: int, message: Message) -> None:
        """Writes an event in the transaction of its change, for the subject `<server>.<key>`."""
        await connection.execute(_ADD, *_row(self._server, key, sequence, message))

    async def add_to(self, stream: str, connection: Connection, messages: Iterable[tuple[str, Message]]) -> None:
        """Writes events that are not counted, for the subjects `<stream>.<key>`."""
        await connection.executemany(_ADD, [_row(stream, key, new_id("evt"), message) for key, message in messages])

    async def relay(self) -> None:
        """Publishes what is committed, for ever."""
        await self._bus.connected()
        await repeat(self._relay_batch, self._wake, POLL_SECONDS)

    async def _relay_batch(self) -> bool:
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _RELAY_LOCK):
                return False
            until = asyncio.get_running_loop().time() + BATCH_SECONDS
            waiting = _waiting(self._refused), _waiting(self._failing)
            rows = await connection.fetch(_NEXT, BATCH, waiting[0], _MAY_BE_FORGOTTEN, waiting[1])
            if not rows:
                return False
            streams: dict[str, dict[str, list[asyncpg.Record]]] = defaultdict(lambda: defaultdict(list))
            for row in rows:
                streams[_stream(row["subject"])][row["subject"]].append(row)
            stored: list[int] = []
            failures = await _to_their_end(
                self._publish_to(stream, subjects, stored, until) for stream, subjects in streams.items()
            )
            await connection.execute(_DONE, stored)
        for failed in failures:
            raise failed
        return True

    async def _publish_to(
        self, stream: str, subjects: Mapping[str, Sequence[asyncpg.Record]], stored: list[int], until: float
    ) -> None:
        try:
            await self._bus.stream(stream)
            for failed in await _to_their_end(
                self._publish(subject, rows, stored, until) for subject, rows in subjects.items()
            ):
                raise failed
        except BusUnavailable:
            if self._bus.is_connected:  # the next batch is for others: the relay itself waits half as long
                self._failures[stream] += 1
                self._failing[stream] = asyncio.get_running_loop().time() + 2 * backoff(self._failures[stream])
            raise
        del self._failures[stream]

    async def _publish(self, subject: str, rows: Sequence[asyncpg.Record], stored: list[int], until: float) -> None:
        """Publishes the events of one subject, each after the one before was stored, and notes their positions."""
        published = await self._published(subject, until) if rows[0]["waited"] else ()
        for row in rows:
            if asyncio.get_running_loop().time() > until:
                return
            if row["message_id"] not in published:
                headers = {MESSAGE_ID: row["message_id"], TRACEPARENT: row["traceparent"]}
                try:
                    await self._bus.publish(_stream(subject), subject, row["payload"], headers)
                except EventRefused as error:  # the others must not wait for it, only those that come after it
                    _log.error("event not published", message_id=row["message_id"], error=str(error))
                    self._refused[subject] = asyncio.get_running_loop().time() + REFUSED_SECONDS
                    return
            stored.append(row["position"])

    async def _published(self, subject: str, until: float) -> set[str]:
        """Returns the ids of a subject's events in the stream, or some of them when that takes too long."""
        stream = _stream(subject)
        jetstream = await self._bus.stream(stream)
        ids: set[str] = set()
        sequence = 0
        try:
            while asyncio.get_running_loop().time() <= until:
                found = await jetstream.get_msg(stream, seq=sequence + 1, subject=subject, next=True)
                sequence = found.seq or 0
                ids.add((found.headers or {}).get(MESSAGE_ID, ""))
        except nats.js.errors.NotFoundError:
            pass
        except nats.errors.Error as error:
            raise BusUnavailable from error
        return ids


def _waiting(untils: dict[str, float]) -> list[str]:
    """Returns what still has to wait, and drops what need not."""
    now = asyncio.get_running_loop().time()
    for name in [name for name, until in untils.items() if until <= now]:
        del untils[name]
    return list(untils)


def _row(stream: str, key: str, sequence: int | str, message: Message) -> tuple[str, str, bytes, str]:
    subject = f"{stream}.{key}"
    return f"{subject}.{sequence}", subject, message.SerializeToString(), trace.traceparent()


def _stream(subject: str) -> str:
    return subject.partition(".")[0]


async def _to_their_end(work: Iterable[Awaitable[None]]) -> list[BaseException]:
    """Waits for all, so that what is stored is noted whatever becomes of the others. Returns what failed."""
    return [one for one in await asyncio.gather(*work, return_exceptions=True) if one]
