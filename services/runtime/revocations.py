"""What let somebody in and ended before its time: access tokens and streams must not outlive it.

Every process keeps the ends of the last hour, so that nobody is asked per request. An end is heard as it is published.
Now and then the stream is read from where it was read last: NATS may have been away, or another one now. Into one that
lost its disk whoever notices writes what they remember, for those who start later.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import nats.errors
from nats.js import JetStreamContext, api

from services.runtime.bus import MESSAGE_ID, SESSION, Bus, BusUnavailable
from services.runtime.errors import Unauthenticated, Unavailable
from services.runtime.worker import repeat

REMEMBERED = timedelta(hours=1)
"""As long as the stream keeps an end, and no access token is accepted."""
ANEW_SECONDS = 10.0
"""How long API keys and users count as ended: they may only have lost a role, and authz asks anew what they may."""
LOOK_SECONDS = 2.0
"""How long an end may go unnoticed that was not heard, though NATS could be reached."""

_MAY_GO_ON = ("key_", "usr_")
_ANSWER_SECONDS = 1.0
"""How long NATS may take to say how far the stream is: what is asked just before it dies is never answered."""
_BATCH = 500
_FETCH_SECONDS = 5.0
_READER_SECONDS = 30.0
"""How long NATS keeps the reader of a process that was killed in the middle of reading."""


class SessionEnded(Unauthenticated):
    """The session has ended: its user logged out, was suspended or lost a role, or a refresh token was used twice."""

    message = "This session has ended. Log in again."


class RevocationsUnavailable(Unavailable):
    """What has ended before its time has not been read yet."""

    message = "Nobody can tell yet which sessions have ended."


class _End(NamedTuple):
    heard: float
    """By the time of the loop."""
    since: float
    """When it was published, by the same."""
    event: bytes


class Revocations:
    """What ended a short while ago, as far as this process has heard."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._wake = asyncio.Event()
        bus.when_reconnected(self._reconnected)
        self._ended: dict[str, _End] = {}
        """By id, in the order in which they were heard of."""
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._stream_made: datetime | None = None
        self._read = 0
        """The sequence up to which the stream made then is read."""
        self._connections = 0
        self._is_read_on = False
        """Whether the stream was read since NATS was away last."""

    async def run(self) -> None:
        """Hears of ends, for ever."""
        await self._bus.listen(f"{SESSION}.>", self._hear)
        await repeat(self._look, self._wake, LOOK_SECONDS)

    async def ready(self) -> None:
        """Raises RevocationsUnavailable until all ends of the last hour are known. From then on NATS may be away."""
        self.require_read()

    def require_read(self) -> None:
        """The same, without waiting for anything."""
        if self._stream_made is None:
            raise RevocationsUnavailable

    @property
    def are_current(self) -> bool:
        """Whether ends are heard right now, and those that were missed are read."""
        return self._bus.is_connected and self._is_read_on

    def require_open(self, session_id: str) -> None:
        """Raises SessionEnded. Tokens of an outside issuer have no session: their id is empty."""
        if self._has_ended(session_id):
            raise SessionEnded

    def event(self, subject_id: str) -> bytes | None:
        """Returns the newest event of an end (user.v1.SessionEvent), None where nothing of this id ended."""
        end = self._ended.get(subject_id)
        return None if end is None else end.event

    def listen(self, heard: Callable[[str], None]) -> None:
        """Calls `heard` with the id of whatever ends, maybe more than once."""
        self._listeners.append(heard)

    def watch(self, session_id: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Calls `ended` when the session ends: at once, when it has. Returns what ends the watch."""
        if self._has_ended(session_id):
            ended()
            return lambda: None
        watchers = self._watchers.setdefault(session_id, set())
        watchers.add(ended)

        def unwatch() -> None:
            watchers.discard(ended)
            if not watchers and self._watchers.get(session_id) is watchers:
                del self._watchers[session_id]

        return unwatch

    def _hear(self, subject: str, event: bytes, age: timedelta = timedelta(0)) -> None:
        subject_id = subject.removeprefix(f"{SESSION}.")
        now = asyncio.get_running_loop().time()
        known = self._ended.pop(subject_id, None)  # so that the newest is the last
        if known is not None and known.event == event:  # heard live, or from the NATS before
            self._ended[subject_id] = known._replace(heard=now)
            return
        self._ended[subject_id] = _End(now, now - age.total_seconds(), event)
        for ended in self._watchers.pop(subject_id, ()):
            ended()
        for heard in self._listeners:
            heard(subject_id)

    def _has_ended(self, subject_id: str) -> bool:
        end = self._ended.get(subject_id)
        if end is None or not subject_id.startswith(_MAY_GO_ON):
            return end is not None
        return asyncio.get_running_loop().time() - end.since < ANEW_SECONDS

    def _reconnected(self) -> None:
        self._connections += 1
        self._is_read_on = False
        self._wake.set()

    async def _look(self) -> bool:
        self._forget()
        if not self._bus.is_connected:
            self._is_read_on = False
            return False
        connections = self._connections
        jetstream = await self._bus.stream(SESSION)
        try:
            stream = await jetstream.stream_info(SESSION)
            another = stream.created != self._stream_made or stream.state.last_seq < self._read
            if another:
                self._read = 0  # NATS lost its disk, say
            seen = (
                await self._read_on(jetstream, stream.state.last_seq) if stream.state.last_seq > self._read else set()
            )
            if another and self._stream_made is not None:
                await self._write_again([one for one in self._ended if one not in seen])
            self._stream_made = stream.created
            self._is_read_on = connections == self._connections
        except (nats.errors.Error, TimeoutError) as error:
            self._bus.forget(SESSION)
            raise BusUnavailable from error
        return False

    def _forget(self) -> None:
        long_ago = asyncio.get_running_loop().time() - REMEMBERED.total_seconds()
        while self._ended and self._ended[oldest := next(iter(self._ended))].heard < long_ago:
            del self._ended[oldest]

    async def _read_on(self, jetstream: JetStreamContext, last: int) -> set[str]:
        """Reads up to a sequence, with a reader that NATS forgets. Returns the ids that were there."""
        reader = await jetstream.add_consumer(SESSION, self._reader())
        subscription = await jetstream.pull_subscribe_bind(reader.name, SESSION)
        seen = set()
        try:
            left = reader.num_pending or 0
            while left > 0:
                for message in await subscription.fetch(min(left, _BATCH), timeout=_FETCH_SECONDS):
                    self._hear(message.subject, message.data, datetime.now(UTC) - message.metadata.timestamp)
                    seen.add(message.subject.removeprefix(f"{SESSION}."))
                    self._read = message.metadata.sequence.stream
                    left = message.metadata.num_pending
            self._read = max(self._read, last)
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()
                await jetstream.delete_consumer(SESSION, reader.name)
        return seen

    async def _write_again(self, ids: Sequence[str]) -> None:
        """Publishes what others no longer can read; of all who do so at once, JetStream takes the first."""
        for begin in range(0, len(ids), _BATCH):
            await asyncio.gather(*(self._publish(one) for one in ids[begin : begin + _BATCH]))

    async def _publish(self, subject_id: str) -> None:
        subject = f"{SESSION}.{subject_id}"
        await self._bus.publish(SESSION, subject, self._ended[subject_id].event, {MESSAGE_ID: f"{subject}.again"})

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
