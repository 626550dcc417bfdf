"""Sessions that ended before their time: their access tokens and streams must not outlive them.

Every process keeps those of the last minutes, so that nobody is asked per request. An end is heard as it is published.
Now and then the stream is read from where it was read last: NATS may have been away, or another one now.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import nats.errors
from nats.js import JetStreamContext, api

from services.runtime.bus import SESSION, Bus, BusUnavailable
from services.runtime.errors import Unauthenticated
from services.runtime.worker import repeat

REMEMBERED = timedelta(minutes=11)
"""The lifetime of an access token, and what clocks may differ."""
LOOK_SECONDS = 2.0
"""How long an end may go unnoticed that was not heard."""

_BATCH = 500
_FETCH_SECONDS = 5.0
_READER_SECONDS = 30.0
"""How long NATS keeps the reader of a process that was killed in the middle of reading."""


class SessionEnded(Unauthenticated):
    """The session has ended: its user logged out, was suspended or lost a role, or a refresh token was used twice."""

    message = "This session has ended. Log in again."


class Revocations:
    """The sessions that ended a short while ago, as far as this process has heard."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._ended: dict[str, float] = {}
        """Sessions in the order in which they were heard of, with the time of the loop when."""
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        self._stream_made: datetime | None = None
        self._read = 0
        """The sequence up to which the stream made then is read."""

    async def run(self) -> None:
        """Hears of ends, for ever."""
        await self._bus.listen(f"{SESSION}.>", lambda subject, _: self._hear(subject))
        await repeat(self._look, asyncio.Event(), LOOK_SECONDS)

    def require_open(self, session_id: str) -> None:
        """Raises SessionEnded. Tokens of an outside issuer have no session: their id is empty."""
        if session_id in self._ended:
            raise SessionEnded

    def watch(self, session_id: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Calls `ended` when the session ends: at once, when it has. Returns what ends the watch."""
        if session_id in self._ended:
            ended()
            return lambda: None
        watchers = self._watchers.setdefault(session_id, set())
        watchers.add(ended)

        def unwatch() -> None:
            watchers.discard(ended)
            if not watchers and self._watchers.get(session_id) is watchers:
                del self._watchers[session_id]

        return unwatch

    def _hear(self, subject: str) -> None:
        session_id = subject.removeprefix(f"{SESSION}.")
        if session_id not in self._ended:
            self._ended[session_id] = asyncio.get_running_loop().time()
            for ended in self._watchers.pop(session_id, ()):
                ended()

    async def _look(self) -> bool:
        self._forget()
        jetstream = await self._bus.stream(SESSION)
        try:
            stream = await jetstream.stream_info(SESSION)
            if stream.created != self._stream_made or stream.state.last_seq < self._read:
                self._stream_made, self._read = stream.created, 0  # NATS lost its disk, say
            if stream.state.last_seq > self._read:
                await self._read_on(jetstream, stream.state.last_seq)
        except nats.errors.Error as error:
            self._bus.forget(SESSION)
            raise BusUnavailable from error
        return False

    def _forget(self) -> None:
        long_ago = asyncio.get_running_loop().time() - REMEMBERED.total_seconds()
        while self._ended and self._ended[oldest := next(iter(self._ended))] < long_ago:
            del self._ended[oldest]

    async def _read_on(self, jetstream: JetStreamContext, last: int) -> None:
        """Reads up to a sequence, with a reader that NATS forgets."""
        reader = await jetstream.add_consumer(SESSION, self._reader())
        subscription = await jetstream.pull_subscribe_bind(reader.name, SESSION)
        try:
            left = reader.num_pending or 0
            while left > 0:
                for message in await subscription.fetch(min(left, _BATCH), timeout=_FETCH_SECONDS):
                    self._hear(message.subject)
                    self._read = message.metadata.sequence.stream
                    left = message.metadata.num_pending
            self._read = max(self._read, last)
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()
                await jetstream.delete_consumer(SESSION, reader.name)

    def _reader(self) -> api.ConsumerConfig:
        how = api.ConsumerConfig(
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=_READER_SECONDS,
            mem_storage=True,
            num_replicas=1,
        )
        if self._read:
            return how.evolve(deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self._read + 1)
        since = datetime.now(UTC) - REMEMBERED
        return how.evolve(deliver_policy=api.DeliverPolicy.BY_START_TIME, opt_start_time=since)
