"""Consumers: every event of a service's stream has its effect once, and a bad one holds up no other.

The effect and the note that the event was handled are one transaction, so an event that comes again, for whatever
reason, does nothing. One that cannot be handled becomes a dead letter: at once when it is no event or breaks the rules
of the contract, after six failures of its handler in one process. One whose handler cannot reach something it needs
is delivered again for ever.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

import nats.errors
import structlog
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError

from services.runtime import deadletters, trace
from services.runtime.bus import MESSAGE_ID, TRACEPARENT, Bus, BusUnavailable
from services.runtime.deadletters import FOR_CONSUMER, ORIGINAL_ID, Undeliverable
from services.runtime.errors import DeadlineExceeded, InvalidRequest, Unavailable
from services.runtime.log import failure
from services.runtime.postgres import Connection, Database
from services.runtime.validation import require_valid
from services.runtime.worker import repeat

CONCURRENT = 6
"""How many events a process handles at once: so many of its 10 connections to Postgres."""
BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""After each of these what a handler failed on is delivered again. When it fails once more, it is a dead letter."""
FETCH_SECONDS = 1.0
"""How long a consumer may take to notice that NATS has forgotten what it asked for."""
ACK_SECONDS = 10.0
"""How soon what a killed process was handling is delivered again. (If it is only slow, the second waits for it.)"""
UNAVAILABLE_SECONDS = 1.0
UNACKNOWLEDGED = 10_000
"""How many failing events may wait for their next attempt before no others are delivered."""

_HANDLED = "INSERT INTO handled_events (consumer, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"

_log = structlog.get_logger()

Event = TypeVar("Event", bound=Message)


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

    Any number of replicas share the work under the name `consumer`. Each handles several events at once, those of one
    subject one by one. What fails is delivered again, after what came behind it: a handler goes by the event's
    sequence, not by the order of arrival.
    """
    await bus.connected()
    async with asyncio.TaskGroup() as tasks:
        reader = _Consumer(bus, database, stream, consumer, message, handle, tasks)
        try:
            await repeat(reader.read, asyncio.Event(), FETCH_SECONDS)
        finally:
            await reader.unsubscribe()  # or what it asked for last is delivered to nobody


class _Consumer(Generic[Event]):
    """Reads a stream, and handles what it reads in tasks."""

    def __init__(
        self,
        bus: Bus,
        database: Database,
        stream: str,
        name: str,
        message: type[Event],
        handle: Callable[[Connection, Event], Awaitable[None]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._bus = bus
        self._database = database
        self._stream = stream
        self._name = name
        self._message = message
        self._handle = handle
        self._tasks = tasks
        self._free = asyncio.Semaphore(CONCURRENT)
        self._subjects: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failures: dict[int, int] = {}
        """How often the handler failed here, by the event's place in the stream. Deliveries have other reasons, too."""
        self._database_may_be_away = False
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def read(self) -> bool:
        """Takes the next event, after waiting for it a while, and has it handled."""
        await self._free.acquire()
        try:
            if self._database_may_be_away:
                await self._database.ping()  # or every event there is would fail, again and again
                self._database_may_be_away = False
            delivered = await self._next()
        except BaseException:
            self._free.release()
            raise
        if delivered is None:
            self._free.release()
        else:
            self._tasks.create_task(self._answer(delivered)).add_done_callback(lambda _: self._free.release())
        return True

    async def _next(self) -> Msg | None:
        try:
            if self._subscription is None:
                self._subscription = await self._subscribe()
            [delivered] = await self._subscription.fetch(1, timeout=FETCH_SECONDS)
        except nats.errors.TimeoutError:
            return None
        except nats.errors.Error as error:  # the connection, the stream or the consumer is gone: they are made anew
            self._bus.forget(self._stream)
            await self.unsubscribe()
            raise BusUnavailable from error
        return delivered

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        jetstream = await self._bus.stream(self._stream)
        wanted = api.ConsumerConfig(
            name=self._name,
            durable_name=self._name,
            filter_subject=f"{self._stream}.>",
            ack_wait=ACK_SECONDS,
            max_ack_pending=UNACKNOWLEDGED,
        )
        try:
            await jetstream.add_consumer(self._stream, wanted)
        except BadRequestError as error:  # an operator made it otherwise, in what cannot be changed
            _log.warning("consumer is configured otherwise", consumer=self._name, **failure(error))
        return await jetstream.pull_subscribe_bind(self._name, self._stream)

    async def unsubscribe(self) -> None:
        """Takes no more events, until the next `read`."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _answer(self, delivered: Msg) -> None:
        """Handles an event, and tells JetStream what became of it. Whatever is not told, it delivers again."""
        trace.begin((delivered.headers or {}).get(TRACEPARENT))
        place = delivered.metadata.sequence.stream
        try:
            try:
                await self._handle_once(delivered)
            except asyncio.CancelledError:
                with suppress(nats.errors.Error):
                    await delivered.nak()  # another replica need not wait
                raise
            except (Unavailable, DeadlineExceeded, ConnectionError, TimeoutError) as error:
                self._database_may_be_away = True
                _log.warning("event delayed", subject=delivered.subject, **failure(error))
                await delivered.nak(delay=UNAVAILABLE_SECONDS)
            except Undeliverable as error:
                await self._put_aside(delivered, error)
            except Exception as error:
                failures = self._failed(place)
                _log.warning("event failed", subject=delivered.subject, failures=failures, **failure(error))
                if failures <= len(BACKOFF_SECONDS):
                    await delivered.nak(delay=BACKOFF_SECONDS[failures - 1])
                else:
                    why = Undeliverable("HANDLER_FAILED", f"{type(error).__name__}: {error}")
                    await self._put_aside(delivered, why)
            else:
                self._failures.pop(place, None)
                await delivered.ack()
        except Exception as error:  # a consumer outlives every failure
            _log.warning("event not acknowledged", subject=delivered.subject, **failure(error))

    def _failed(self, place: int) -> int:
        """Counts a failure of the handler. Returns how often it failed on this event."""
        failures = self._failures[place] = self._failures.pop(place, 0) + 1
        if len(self._failures) > UNACKNOWLEDGED:  # another replica was done with those that nothing was heard of since
            del self._failures[next(iter(self._failures))]
        return failures

    async def _handle_once(self, delivered: Msg) -> None:
        headers = delivered.headers or {}
        if headers.get(FOR_CONSUMER, self._name) != self._name:
            return  # it is replayed for another consumer
        message_id = headers.get(ORIGINAL_ID) or headers.get(MESSAGE_ID)
        if not message_id:
            raise Undeliverable("NO_EVENT_ID", f"It has no {MESSAGE_ID}.")
        event = self._read(delivered.data)
        one_by_one = self._subjects.setdefault(delivered.subject, asyncio.Lock())
        async with one_by_one, self._database.transaction() as connection:
            if await connection.execute(_HANDLED, self._name, message_id) == "INSERT 0 1":
                await self._handle(connection, event)

    def _read(self, data: bytes) -> Event:
        try:
            event = self._message.FromString(data)
        except DecodeError as error:
            raise Undeliverable("UNDECODABLE", f"It is no {self._message.DESCRIPTOR.full_name}.") from error
        try:
            require_valid(event)
        except InvalidRequest as error:
            raise Undeliverable("INVALID_EVENT", f"{error.metadata['problems']}.") from error
        return event

    async def _put_aside(self, delivered: Msg, why: Undeliverable) -> None:
        try:
            await deadletters.put(self._bus, self._name, delivered, why)
        except Exception as error:  # it is kept where it is until it can be
            _log.error("event not put aside", subject=delivered.subject, **failure(error))
            await delivered.nak(delay=BACKOFF_SECONDS[-1])
        else:
            self._failures.pop(delivered.metadata.sequence.stream, None)
            _log.error("event put aside", subject=delivered.subject, reason=why.reason, error=str(why))
            await delivered.term()
