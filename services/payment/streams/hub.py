"""The hub: one reader of the database for all the watchers of a replica.

The database is the truth; NATS only says when to look. Now and then the hub looks unasked, for NATS may be away. A
watcher keeps the position that it has come to and nothing else; what is new is read once and shared by all.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

from payment.v1 import payment_pb2

from services.payment.streams.domain import Kind, StreamEnded, Topic
from services.payment.streams.events import Event
from services.payment.streams.store import Events
from services.runtime import deadline
from services.runtime.bus import Bus
from services.runtime.errors import Error, Unavailable
from services.runtime.worker import repeat

HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 3.0
"""The longest delay of a change while NATS is away."""
ENDING_SECONDS = 2.0
"""How long before its deadline a stream ends at the latest, so that it is not cut."""
SHORT_SECONDS = 60.0
"""Streams that may not take longer end at that moment; the others with the last heartbeat before it."""
TAIL = 64
"""How many events of a topic are at hand. Who is further behind reads pages of the database."""
PAGE = 200
READ_ROWS = 10_000
"""How many events one query may find, and of how many topics."""
DRAIN_SECONDS = 8.0
"""How long it takes to end all streams, so that their clients do not all come to the other replicas at once."""
DRAIN_RATE = 250
"""How many streams are ended in a second, if that is fast enough."""

_BEATS = 30
"""Heartbeats are spread over so many moments."""


class Hub:
    """Knows who watches what, and hands on what is new."""

    def __init__(
        self,
        events: Events,
        bus: Bus,
        *,
        look_seconds: float = LOOK_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._events = events
        self._bus = bus
        self._look_seconds = look_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._topics: dict[Topic, _Topic] = {}
        self._to_read: set[Topic] = set()
        self._wake = asyncio.Event()
        self._look_at = 0.0
        self._beats: list[list[Watcher]] = [[] for _ in range(_BEATS)]
        self._next_beat = 0
        self._ending = False
        self.watchers = 0
        """How many there are."""

    async def run(self) -> None:
        """Follows the changes that any replica makes, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bus.listen("payment.>", self._heard))
            tasks.create_task(self._beat())
            await repeat(self._read, self._wake, self._look_seconds / 4)

    def end(self) -> None:
        """Ends all streams, one soon after the other, so that their clients go on elsewhere: the server is to stop."""
        self._ending = True
        watchers = [watcher for topic in self._topics.values() for watcher in topic.watchers]
        pause = min(1 / DRAIN_RATE, DRAIN_SECONDS / max(len(watchers), 1))
        for number, watcher in enumerate(watchers):
            asyncio.get_running_loop().call_later(number * pause, watcher.end, StreamEnded)

    def open(self, topic: Topic, after: int, latest: int) -> "Watcher":
        """Lets somebody watch what comes after a position, until it is closed.

        `latest` is, or just was, the position of the topic's last event.
        """
        shared = self._topics.get(topic)
        if shared is None:
            shared = self._topics[topic] = _Topic(topic, max(after, latest - TAIL))
            self._look(topic)  # since `latest` was read nobody heard of what came
        watcher = Watcher(shared, self._events, after, latest)
        shared.watchers.add(watcher)
        self._beats[self._next_beat].append(watcher)
        self._next_beat = (self._next_beat + 1) % _BEATS
        self.watchers += 1
        if self._ending:
            watcher.end(StreamEnded)
        return watcher

    def close(self, watcher: "Watcher") -> None:
        """Ends what `open` began."""
        watcher.close()
        self.watchers -= 1
        shared = watcher.topic
        shared.watchers.discard(watcher)
        if not shared.watchers:
            del self._topics[shared.name]
            self._to_read.discard(shared.name)

    def _heard(self, subject: str, payload: bytes) -> None:
        if not self._topics:
            return
        event = payment_pb2.PaymentEvent.FromString(payload)
        self._look(Topic(Kind.PAYMENT, event.payment_id))
        self._look(Topic(Kind.USER, event.payer_id))
        self._look(Topic(Kind.USER, event.payee_id))

    def _look(self, topic: Topic) -> None:
        if topic in self._topics:
            self._to_read.add(topic)
            self._wake.set()

    async def _read(self) -> bool:
        """Reads what is new on some topics. Returns whether there are others."""
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + self._look_seconds
            self._to_read.update(self._topics)
            for shared in self._topics.values():
                shared.forget()
        for kind in Kind:
            topics = list(islice((topic for topic in self._to_read if topic.kind is kind), READ_ROWS))
            if not topics:
                continue
            self._to_read.difference_update(topics)
            limit = min(TAIL, READ_ROWS // len(topics))
            try:
                found = await self._events.after(
                    kind, {topic.id: self._topics[topic].newest for topic in topics}, limit
                )
            except BaseException:
                self._to_read.update(topic for topic in topics if topic in self._topics)
                raise
            for topic, events in found.items():
                if still := self._topics.get(topic):
                    still.add(events)
                    if len(events) == limit:
                        self._to_read.add(topic)
        return bool(self._to_read)

    async def _beat(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self._heartbeat_seconds / _BEATS)
            number = (number + 1) % _BEATS
            self._beats[number] = [watcher for watcher in self._beats[number] if not watcher.closed]
            for watcher in self._beats[number]:
                watcher.beat(self._heartbeat_seconds)


class _Topic:
    """What is shared by all who watch a topic."""

    def __init__(self, name: Topic, newest: int) -> None:
        self.name = name
        self.newest = newest
        """The position up to which the topic was read."""
        self.watchers: set[Watcher] = set()
        self._tail: Sequence[Event] = ()
        """The last events up to `newest`."""
        self._fresh = 0
        """How many of them came since the last look."""

    def after(self, position: int) -> Sequence[Event] | None:
        """Returns the events after a position; None where they are no longer at hand."""
        wanted = self.newest - position
        if wanted <= 0:
            return ()
        return self._tail[-wanted:] if wanted <= len(self._tail) else None

    def add(self, events: Sequence[Event]) -> None:
        """Adds what was read, and wakes the watchers.

        They may be for others, who watched before and were elsewhere: then there is no tail yet that they could tear.
        """
        new = [event for event in events if event.position > self.newest]
        if new:
            self._tail = (*self._tail, *new)[-TAIL:]
            self._fresh = min(self._fresh + len(new), TAIL)
            self.newest = new[-1].position
            for watcher in self.watchers:
                watcher.wake()

    def forget(self) -> None:
        """Lets go of what has been at hand long enough."""
        if self._tail:
            self._tail = self._tail[len(self._tail) - self._fresh :]
            self._fresh = 0


class Watcher:
    """One stream: where it is, and what it waits for."""

    __slots__ = (
        *("_beaten", "_end_at", "_ended", "_ending", "_events", "_latest", "_position", "_waiting"),
        *("closed", "finished", "topic"),
    )

    def __init__(self, topic: _Topic, events: Events, position: int, latest: int) -> None:
        self.topic = topic
        self.closed = False
        self.finished = False
        """Whether the last event was the last there can be."""
        self._events = events
        self._position = position
        self._latest = latest
        """What must be told before the stream is finished: it was there when it was opened."""
        self._waiting: asyncio.Future[None] | None = None
        self._beaten = False
        self._ended: Callable[[], Error] | None = None
        self._end_at: float | None = None
        self._ending: asyncio.TimerHandle | None = None
        remaining = deadline.remaining()
        if remaining is not None:
            loop = asyncio.get_running_loop()
            end_at = loop.time() + remaining - min(ENDING_SECONDS, remaining / 2)
            if remaining < SHORT_SECONDS:
                self._ending = loop.call_at(end_at, self.end, StreamEnded)
            else:
                self._end_at = end_at

    def close(self) -> None:
        """Lets go of what it holds."""
        self.closed = True
        if self._ending:
            self._ending.cancel()

    def end(self, why: Callable[[], Error]) -> None:
        """Ends the stream: whoever reads it is raised this."""
        self._ended = self._ended or why
        self.wake()

    def beat(self, until_next: float) -> None:
        """Makes it time for a heartbeat, or for the end, where its deadline comes before the next."""
        if self._end_at is not None and asyncio.get_running_loop().time() + until_next > self._end_at:
            self.end(StreamEnded)
        self._beaten = True
        self.wake()

    def wake(self) -> None:
        """Has the stream look what there is for it."""
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)

    async def more(self) -> Sequence[Event]:
        """Waits for the next events, and returns them in their order; none of them is a heartbeat.

        Raises what the stream is ended with.
        """
        while True:
            if self._ended:
                raise self._ended()
            self._waiting = asyncio.get_running_loop().create_future()  # it may be woken while it looks, too
            events = self.topic.after(self._position)
            if events is None:
                events = await self._page()
            if events:
                last = events[-1]
                self._position = last.position
                self.finished = last.position >= self._latest and self._is_final(last)
                return events
            if self._beaten:
                self._beaten = False
                return ()
            await self._waiting

    def _is_final(self, event: Event) -> bool:
        return self.topic.name.kind is Kind.PAYMENT and event.change.state.terminal

    async def _page(self) -> Sequence[Event]:
        topic = self.topic.name
        try:
            found = await self._events.after(topic.kind, {topic.id: self._position}, PAGE)
        except Unavailable:  # it tries again when it is woken, by its next heartbeat at the latest
            return ()
        return found.get(topic, ())
